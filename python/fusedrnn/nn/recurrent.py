"""RNN, LSTM and GRU layers: stacks, two directions, dropout between layers, PyTorch's parameter names.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, L layers, D directions (1 or 2). x is [T, N, I], or
[N, T, I] with ``batch_first``; y has H * D features, both directions' side by side; states are [L * D, N, H],
layer by layer, forward before reverse, whatever ``batch_first`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fusedrnn import _core, functional
from fusedrnn.gradients import Array
from fusedrnn.nn.frozen import Frozen, Stream, pair
from fusedrnn.nn.linear import Dropout
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.parameters import Parameter

State: TypeAlias = Any  # tuple of h (and c) of one layer and direction, each [N, H] or None


class _Recurrent(Module):
    """What the three layers share. A cell's own calls are ``_cell_forward`` and ``_cell_backward``."""

    gates: int
    cell: str
    state_names: tuple[str, ...] = ("h0",)
    gradient_names: tuple[str, ...] = ("dh_n",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        sizes = (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers))
        for name, size in sizes:
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dtype = np.dtype(dtype)
        self.directions = 2 if bidirectional else 1
        generator = as_generator(rng)
        self.dropout = Dropout(dropout, rng=generator)
        bound = 1 / np.sqrt(hidden_size)
        rows = self.gates * hidden_size
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if bias else 2]
        # names of the parameters of each layer and direction: L * D rows
        self._names = [
            [f"{part}_l{layer}{suffix}" for part in parts]
            for layer in range(num_layers)
            for suffix in ("", "_reverse")[: self.directions]
        ]
        for index, names in enumerate(self._names):
            columns = input_size if index < self.directions else hidden_size * self.directions
            shapes: list[tuple[int, ...]] = [(rows, columns), (rows, hidden_size), (rows,), (rows,)]
            for name, shape in zip(names, shapes, strict=False):
                value = generator.uniform(-bound, bound, shape).astype(self.dtype)
                setattr(self, name, Parameter(value))

    def _weights(self, index: int) -> list[Any]:
        weights = [getattr(self, name).data for name in self._names[index]]
        return weights if self.bias else [*weights, None, None]

    def _gradients(self, index: int) -> Any:
        gradients = [getattr(self, name).grad for name in self._names[index]]
        return tuple(gradients) if self.bias else (*gradients, None, None)

    def stream(self, batch: int = 1, *, precision: str | None = None) -> Stream:
        """A copy for real-time use that takes one time step a call, weights packed once: see ``Stream``.

        Args:
            batch: N, the rows of each step. precision: as ``freeze``.

        Raises:
            ValueError: a batch below 1, a bidirectional layer, whose other half would need the future, or as
                ``freeze``.
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction; a bidirectional one needs the whole sequence")
        if batch < 1:
            raise ValueError(f"batch: expected at least 1, got {batch}")
        return Stream(self._packed(batch, precision))

    def freeze(self, *, precision: str | None = None) -> Frozen:
        """A copy for inference over whole sequences, weights packed once: see ``Frozen``.

        Args:
            precision: of the factors of products, None for the layer's own, "bfloat16" or "int8" for a layer in
                float32; all else, sums and states above all, stays float32. docs/low-precision.md has the errors.

        Raises:
            ValueError: another precision, one for a layer in float64, or int8 for sizes above 131072.
        """
        return Frozen(self, self._packed(0, precision))

    def _packed(self, batch: int, precision: str | None) -> Any:
        """All weights, packed for the instruction set in use: for steps of ``batch`` rows, and for sequences."""
        allowed = (None, "bfloat16", "int8") if self.dtype == np.float32 else (None,)
        if precision not in allowed:
            names = ", ".join(map(repr, allowed))
            raise ValueError(f"precision: expected one of {names} for a layer in {self.dtype}, got {precision!r}")
        make = _core.FrozenFloat32 if self.dtype == np.float32 else _core.FrozenFloat64
        layers = [self._weights(i) for i in range(len(self._names))]
        return make(self.cell, self._cell_option(), precision or "", batch, layers)

    def _cell_option(self) -> str:
        return ""

    def _cell_forward(self, x: Array, state: State, weights: list[Any], reverse: bool) -> Any:
        """(y, *final state, reserve) of one layer in one direction."""
        raise NotImplementedError

    def _cell_backward(self, dy: Array | None, dstate: State, reserve: Any, **options: Any) -> Any:
        """(dx, *gradient of the initial state, ...) of one layer in one direction."""
        raise NotImplementedError

    def _time_major(self, a: Array) -> Array:
        return np.ascontiguousarray(a.swapaxes(0, 1) if self.batch_first else a)

    def _as_given(self, a: Array) -> Array:
        return a.swapaxes(0, 1) if self.batch_first else a

    def _checked(self, name: str, a: Any, shape: tuple[int | str, ...]) -> Array:
        """``a`` as an array, its dtype the layer's and its shape ``shape``, where a letter allows any size."""
        array = np.asarray(a)
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: expected dtype {self.dtype} as the layer has, got {array.dtype}")
        # By a loop rather than all(): this is asked four times a training step, and steps may take microseconds.
        fits = array.ndim == len(shape)
        if fits:
            for want, got in zip(shape, array.shape, strict=True):
                if want != got and not isinstance(want, str):
                    fits = False
        if not fits:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
        return array

    def _states(self, names: tuple[str, ...], states: State, N: int) -> list[State]:
        """Per layer and direction, its part of every state: [L * D] tuples of [N, H]."""
        rows = self.num_layers * self.directions
        if all(s is None for s in states):
            return [tuple(states)] * rows
        arrays = [
            None if s is None else np.ascontiguousarray(self._checked(name, s, (rows, N, self.hidden_size)))
            for name, s in zip(names, states, strict=True)
        ]
        return [tuple(None if a is None else a[i] for a in arrays) for i in range(rows)]

    def _forward(self, x: Any, states: State) -> tuple[Array, tuple[Array, ...]]:
        def cell(index: int, x: Array, state: State, reverse: bool) -> Any:
            return self._cell_forward(x, state, self._weights(index), reverse)

        y, last, reserves = self._sequence(x, states, cell, self.dropout)
        self._push((y.shape, reserves))
        return self._as_given(y), last

    def _sequence(
        self, x: Any, states: State, cell: Callable[[int, Array, State, bool], Any], between: Callable[[Array], Array]
    ) -> tuple[Array, tuple[Array, ...], list[Any]]:
        """y, time first, the last states and the reserves of the whole stack. ``cell(index, x, state, reverse)`` is one
        layer in one direction, (y, *last state, reserve); ``between`` applies to what passes from layer to layer."""
        order: tuple[int | str, ...] = ("N", "T") if self.batch_first else ("T", "N")
        x = self._time_major(self._checked("x", x, (*order, self.input_size)))
        initial = self._states(self.state_names, states, x.shape[1])
        reserves: list[Any] = []
        final: list[tuple[Array, ...]] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = between(x)
            outputs = []
            for reverse in range(self.directions):
                index = len(final)
                y, *last, reserve = cell(index, x, initial[index], bool(reverse))
                outputs.append(y)
                final.append(tuple(last))
                reserves.append(reserve)
            x = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
        return x, tuple(_stacked(part) for part in zip(*final, strict=True)), reserves

    def _backward(self, dy: Any, dstates: State, input_grad: bool) -> tuple[Array | None, tuple[Array, ...]]:
        if not self._saved:
            self._pop()
        (T, N, features), reserves = self._saved[-1]
        order = (N, T) if self.batch_first else (T, N)
        gradient = None if dy is None else self._time_major(self._checked("dy", dy, (*order, features)))
        dfinal = self._states(self.gradient_names, dstates, N)
        self._pop()  # only now: a call refused above may be made again
        H = self.hidden_size
        dinitial: list[tuple[Array, ...]] = []
        for layer in reversed(range(self.num_layers)):
            parts = []
            for reverse in reversed(range(self.directions)):
                dy_part = gradient
                if gradient is not None and self.directions == 2:
                    dy_part = np.ascontiguousarray(gradient[:, :, reverse * H : (reverse + 1) * H])
                index = layer * self.directions + reverse
                dx, *rest = self._cell_backward(
                    dy_part,
                    dfinal[index],
                    reserves[index],
                    input_grad=input_grad or layer > 0,
                    accumulate=self._gradients(index),
                )
                parts.append(dx)
                dinitial.append(tuple(rest[: len(self.state_names)]))
            gradient = parts[0]
            if gradient is not None and len(parts) == 2:
                gradient += parts[1]
            if layer > 0:
                gradient = self.dropout.backward(gradient)
        dstates0 = tuple(_stacked(part[::-1]) for part in zip(*dinitial, strict=True))
        return (None if gradient is None else self._as_given(gradient)), dstates0

    def __repr__(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [f"num_layers={self.num_layers}"] * (self.num_layers > 1)
        parts += ["bias=False"] * (not self.bias) + ["batch_first=True"] * self.batch_first
        parts += [f"dropout={self.dropout.p}"] * (self.dropout.p > 0)
        parts += ["bidirectional=True"] * self.bidirectional
        return f"{type(self).__name__}({', '.join(parts)})"


class _OneState(_Recurrent):
    """Layers whose only state is h: the call is ``y, h_n = layer(x, h0)``."""

    def forward(self, x: Array, h0: Array | None = None) -> tuple[Array, Array]:
        """Run over a sequence.

        Args:
            x: [T, N, I] ([N, T, I] with batch_first), of the layer's dtype. h0: [L * D, N, H], or None for zeros.

        Returns:
            y [T, N, D * H] (time and batch as in x) and h_n [L * D, N, H].

        Raises:
            ValueError: a shape that does not fit, or T = 0. TypeError: another dtype.
        """
        y, (h_n,) = self._forward(x, (h0,))
        return y, h_n

    def backward(
        self, dy: Array | None, dh_n: Array | None = None, *, input_grad: bool = True
    ) -> tuple[Array | None, Array]:
        """Gradients of the last call, adding to the parameters' gradients.

        Args:
            dy, dh_n: gradients of y and h_n, shaped like them; None for zeros.
            input_grad: False leaves dx out, which saves time where x is data.

        Returns:
            dx, shaped like x (or None), and dh0 [L * D, N, H].

        Raises:
            RuntimeError: no call is left. ValueError, TypeError: as ``forward``.
        """
        dx, (dh0,) = self._backward(dy, (dh_n,), input_grad)
        return dx, dh0


class RNN(_OneState):
    """Elman's network, h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), as ``torch.nn.RNN``.

    Args:
        input_size, hidden_size, num_layers: I, H, L.
        nonlinearity: "tanh" or "relu". bias: whether there are b_ih and b_hh.
        batch_first: x and y are [N, T, features] instead of [T, N, features].
        dropout: probability of zeroing an element between two layers, in training. bidirectional: D = 2.
        dtype: "float32" or "float64". rng: seed or generator of the initial weights, U(-1/sqrt(H), 1/sqrt(H)),
            and of dropout.

    Parameters: ``weight_ih_l0`` [H, I], ``weight_hh_l0`` [H, H], ``bias_ih_l0`` [H], ``bias_hh_l0`` [H], then
    ``..._l0_reverse``, ``..._l1``, ...
    """

    gates = 1
    cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'nonlinearity: expected "tanh" or "relu", got {nonlinearity!r}')
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def _cell_option(self) -> str:
        return self.nonlinearity

    def _cell_forward(self, x: Array, state: State, weights: list[Any], reverse: bool) -> Any:
        return functional.rnn_forward(
            x, *state, *weights,
            nonlinearity=self.nonlinearity, reverse=reverse, training=self.training,
        )  # fmt: skip

    def _cell_backward(self, dy: Array | None, dstate: State, reserve: Any, **options: Any) -> Any:
        return functional.rnn_backward(dy, dstate[0], reserve, **options)


class LSTM(_Recurrent):
    """Long short-term memory with forget gate (Gers et al. 2000), gates i, f, g, o, as ``torch.nn.LSTM``.

    Args:
        recompute: keep less for backward and compute the gates once more there: the same bits, about a third more time.
        forget_bias: if given, added to the forget gate's quarter of every ``bias_ih``, with that of ``bias_hh`` zero,
            so that a layer starts out remembering (Gers et al. 2000; Jozefowicz et al. 2015 advise 1).
        Others: as ``RNN``.

    Parameters: as ``RNN`` with 4H rows.
    """

    gates = 4
    cell = "lstm"
    state_names = ("h0", "c0")
    gradient_names = ("dh_n", "dc_n")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        recompute: bool = False,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng,
        )  # fmt: skip
        self.recompute = recompute
        if forget_bias is None:
            return
        if not bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        forget = slice(hidden_size, 2 * hidden_size)
        for _, _, bias_ih, bias_hh in self._names:
            getattr(self, bias_ih).data[forget] += forget_bias
            getattr(self, bias_hh).data[forget] = 0

    def forward(
        self, x: Array, state: tuple[Array | None, Array | None] | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Run over a sequence.

        Args:
            x: [T, N, I] ([N, T, I] with batch_first), of the layer's dtype. state: (h0, c0), each [L * D, N, H]
                or None for zeros; or None for both.

        Returns:
            y [T, N, D * H] (time and batch as in x) and (h_n, c_n), each [L * D, N, H].

        Raises:
            ValueError: a shape that does not fit, or T = 0. TypeError: another dtype.
        """
        y, (h_n, c_n) = self._forward(x, pair("state", state))
        return y, (h_n, c_n)

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, Array | None] | None = None,
        *,
        input_grad: bool = True,
    ) -> tuple[Array | None, tuple[Array, Array]]:
        """Gradients of the last call, adding to the parameters' gradients.

        Args:
            dy: gradient of y, or None for zeros. dstate: (dh_n, dc_n), each or both None for zeros.
            input_grad: False leaves dx out, which saves time where x is data.

        Returns:
            dx, shaped like x (or None), and (dh0, dc0), each [L * D, N, H].

        Raises:
            RuntimeError: no call is left. ValueError, TypeError: as ``forward``.
        """
        dx, (dh0, dc0) = self._backward(dy, pair("dstate", dstate), input_grad)
        return dx, (dh0, dc0)

    def _cell_forward(self, x: Array, state: State, weights: list[Any], reverse: bool) -> Any:
        return functional.lstm_forward(
            x, *state, *weights, reverse=reverse, training=self.training, recompute=self.recompute
        )

    def _cell_backward(self, dy: Array | None, dstate: State, reserve: Any, **options: Any) -> Any:
        return functional.lstm_backward(dy, dstate[0], dstate[1], reserve, **options)


class GRU(_OneState):
    """Gated recurrent unit (Cho et al. 2014), gates r, z, n, as ``torch.nn.GRU``.

    Args:
        reset_after: the reset gate applies after the product with W_hn (PyTorch, cuDNN) rather than before (paper).
        recompute: as ``LSTM``. Others: as ``RNN``.

    Parameters: as ``RNN`` with 3H rows.
    """

    gates = 3
    cell = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, dtype=dtype, rng=rng,
        )  # fmt: skip
        self.reset_after = reset_after
        self.recompute = recompute

    def _cell_option(self) -> str:
        return "reset_after" if self.reset_after else "reset_before"

    def _cell_forward(self, x: Array, state: State, weights: list[Any], reverse: bool) -> Any:
        return functional.gru_forward(
            x, *state, *weights,
            reset_after=self.reset_after, reverse=reverse, training=self.training, recompute=self.recompute,
        )  # fmt: skip

    def _cell_backward(self, dy: Array | None, dstate: State, reserve: Any, **options: Any) -> Any:
        return functional.gru_backward(dy, dstate[0], reserve, **options)


def _stacked(parts: tuple[Array, ...]) -> Array:
    """[parts, N, H] of arrays [N, H]; np.stack takes several times as long for such small ones."""
    if len(parts) == 1:
        return parts[0][None]
    return np.concatenate(parts).reshape(len(parts), *parts[0].shape)
