"""What all recurrent layers share: stacks of layers in one or two directions, their parameters and states.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, L layers, D directions (1 or 2). x is [T, N, I], or
[N, T, I] with ``batch_first``; y has H * D features of the last layer, both directions' side by side. States are
[L * D, N, H], layer by layer, forward before reverse, whatever ``batch_first`` says; in a stack whose layers differ in
size they are a tuple of arrays [D, N, H], one a layer.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.nn.frozen import Chain, Frozen, Stream, Unpacked
from fusedrnn.nn.inputs import as_array, require_dtype
from fusedrnn.nn.linear import Dropout
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.parameters import Parameter
from fusedrnn.sizes import require_memory, size

Self = TypeVar("Self", bound="_Recurrent")
State: TypeAlias = Any  # tuple of h (and c) of one layer and direction, each [N, H] or None
States: TypeAlias = Any  # one of them of the whole stack: [L * D, N, H], or a tuple of [D, N, H] where H differs
Table: TypeAlias = "dict[str, tuple[tuple[int, ...], float | None]]"  # name -> shape, initial value

_NORM = (("gain_ih", "gain_hh", "gain_c"), ("norm_bias_ih", "norm_bias_hh", "norm_bias_c"))  # together as layer_norm
_USUAL = (("reset_after", True), ("nonlinearity", "tanh"))
_RANDOM = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect")  # options that draw in training
_TRAINING_ONLY = ("recompute", "recurrent_dropout", "dropconnect", "grad_clip")  # without effect on inference


class _Recurrent(Module):
    """A stack of one kind of cell.

    A cell is its ``functions`` (forward and backward, of `fusedrnn.functional`), the table of its parameters, those of
    them that the functions take ``by_position`` (the last may be absent), and ``options``, which go to every call of
    forward as they are.
    """

    functions: tuple[Callable[..., Any], Callable[..., Any]]
    gates: int
    cell: str
    state_names: tuple[str, ...] = ("h0",)
    gradient_names: tuple[str, ...] = ("dh_n",)
    by_position: tuple[str, ...] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    packed_options: tuple[tuple[str, Any], ...] = ()  # those with which the core packs a layer's weights
    _absent = None  # in place of a parameter that the layer does without

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        residual: bool,
        learn_initial_state: bool,
        dtype: Any,
        rng: np.random.Generator | int | None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.input_size = size("input_size", input_size)
        self.hidden_sizes = _layer_sizes(hidden_size, num_layers)
        self.hidden_size, self.num_layers = self.hidden_sizes[-1], len(self.hidden_sizes)  # of what y shows
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.residual, self.learn_initial_state = residual, learn_initial_state
        self.layer_norm = bool(options.pop("layer_norm", False))
        # What differs from the plain cell; a GRU's reset_after says which of two that is.
        plain = [name for name, v in options.items() if v is None or v is False or (v == 0 and name in _RANDOM)]
        self.options = {name: v for name, v in options.items() if name == "reset_after" or name not in plain}
        self._inference_options = {name: v for name, v in self.options.items() if name not in _TRAINING_ONLY}
        self._draws = any(options.get(name) for name in _RANDOM)
        self.dtype = np.dtype(dtype)
        self.directions = 2 if bidirectional else 1
        generator = as_generator(rng)
        self.dropout = Dropout(dropout, rng=generator)
        self.dropout.time_major = True
        self._state_sizes = [self._sizes(hidden) for hidden in self.hidden_sizes]
        self._equal = len(set(self.hidden_sizes)) == 1
        if dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout: it comes between layers, so dropout={dropout} does nothing in a single one; a Dropout after "
                "it is nn.Dropout",
                stacklevel=3,
            )
        if residual and len({sizes[0] for sizes in self._state_sizes}) > 1:
            raise ValueError(f"residual: expected layers of one size, got hidden_size={list(self.hidden_sizes)}")
        # Names of the parameters of each layer and direction (L * D rows): those that functions take by position, the
        # others by keyword, the initial states.
        self._names: list[list[str]] = []
        self._keywords: list[dict[str, str]] = []
        self._initial_names: list[list[str]] = []
        given = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        given.update({name: value for name, value in self._own_options().items() if name == "proj_size"})
        require_memory(given, 2 * self._elements(), self.dtype.itemsize, self.num_layers)
        for index in range(self.num_layers * self.directions):
            self._add_parameters(index, generator)
        # All of a layer's arrays by one call, as they are at that moment: a training step asks for them twice.
        absent = ["_absent"] * (len(self.by_position) - len(self._names[0]))
        self._data = [attrgetter(*(f"{name}.data" for name in names), *absent) for names in self._names]
        self._grads = [attrgetter(*(f"{name}.grad" for name in names), *absent) for names in self._names]
        if self.layer_norm or self.options.keys() - {"nonlinearity", "reset_after"}:
            # A batch without rows: forward says what is wrong with options before there is any work.
            x = np.empty((1, 0, self.input_size), self.dtype)
            self._cell_forward(0, x, (None,) * len(self.state_names), False)

    def _sizes(self, hidden: int) -> tuple[int, ...]:
        """Sizes of a layer's h, which is also its output, and of its c if there is one."""
        return (hidden,) * len(self.state_names)

    def _table(self, inputs: int, hidden: int) -> Table:
        """Parameters of one layer in one direction, in the order of ``state_dict()``, beside the initial states.

        An initial value of None stands for U(-1/sqrt(H), 1/sqrt(H)). What functions do not take ``by_position`` they
        take as keywords, with gradients called d<name>.
        """
        rows = self.gates * hidden
        table: Table = {"weight_ih": ((rows, inputs), None), "weight_hh": ((rows, self._sizes(hidden)[0]), None)}
        if self.bias:
            table.update(bias_ih=((rows,), None), bias_hh=((rows,), None))
        if self.layer_norm:
            widths = (rows, rows, hidden)[: 1 + len(self.state_names)]  # the last is that of c, where there is one
            for value, names in zip((1.0, 0.0), _NORM, strict=True):
                table.update({name: ((width,), value) for name, width in zip(names, widths, strict=False)})
        return table

    def _inputs(self, layer: int) -> int:
        return self._state_sizes[layer - 1][0] * self.directions if layer else self.input_size

    def _elements(self) -> int:
        """Numbers in all parameters, before there are any."""
        tables = [self._table(self._inputs(layer), hidden) for layer, hidden in enumerate(self.hidden_sizes)]
        return self.directions * sum(math.prod(shape) for table in tables for shape, _ in table.values())

    def _add_parameters(self, index: int, generator: np.random.Generator) -> None:
        layer, direction = divmod(index, self.directions)
        hidden = self.hidden_sizes[layer]
        inputs = self._inputs(layer)
        suffix = f"_l{layer}" + "_reverse" * direction
        table = self._table(inputs, hidden)
        self._names.append([part + suffix for part in table if part in self.by_position])
        self._keywords.append({part: part + suffix for part in table if part not in self.by_position})
        initial = self.state_names if self.learn_initial_state else ()
        self._initial_names.append([part + suffix for part in initial])
        table.update({part: ((size,), 0.0) for part, size in zip(initial, self._state_sizes[layer], strict=False)})
        bound = 1 / np.sqrt(hidden)
        for part, (shape, value) in table.items():
            values = generator.uniform(-bound, bound, shape) if value is None else np.full(shape, value)
            setattr(self, part + suffix, Parameter(values.astype(self.dtype)))

    def _weights(self, index: int) -> tuple[Any, ...]:
        weights: tuple[Any, ...] = self._data[index](self)
        return weights

    def _gradients(self, index: int) -> tuple[Any, ...]:
        gradients: tuple[Any, ...] = self._grads[index](self)
        return gradients

    def _by_keyword(self, index: int) -> dict[str, Any]:
        """The parameters that a layer's forward takes by keyword."""
        arrays = {part: getattr(self, name).data for part, name in self._keywords[index].items()}
        if self.layer_norm:
            parts = [tuple(arrays.pop(part) for part in group if part in arrays) for group in _NORM]
            arrays["layer_norm"] = tuple(parts)
        return arrays

    def _initial_values(self) -> list[list[Array]] | None:
        """The learned initial states [H] of each layer and direction; None for zeros."""
        if not self.learn_initial_state:
            return None
        return [[getattr(self, name).data for name in names] for names in self._initial_names]

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
        batch = size("batch", batch)
        require_memory({"batch": batch}, 2 * batch * sum(self.hidden_sizes), self.dtype.itemsize)
        core: Any
        if not self._packable(precision):
            core = Unpacked(self._snapshot(), batch)
        elif self._equal and not self.residual:
            core = self._packed(batch, range(self.num_layers), precision)
        else:
            core = Chain(self, batch, [self._packed(batch, [i], precision) for i in range(self.num_layers)])
        learned = self._initial_values()
        if learned is None:
            return Stream(core)
        rows = self._states(self.state_names, (None,) * len(self.state_names), batch, learned)
        return Stream(core, *(self._whole(part) for part in zip(*rows, strict=True)))

    def freeze(self, *, precision: str | None = None) -> Frozen:
        """A copy for inference over whole sequences, weights packed once: see ``Frozen``.

        Args:
            precision: of the factors of products, None for the layer's own, "bfloat16" or "int8" for an RNN, LSTM or
                GRU in float32; all else stays float32, sums and states above all. docs/low-precision.md has the errors.

        Raises:
            ValueError: another precision, one for a layer in float64 or with options that change its equations, or int8
                for sizes above 131072.
        """
        packed = self._packed(0, range(len(self._names)), precision) if self._packable(precision) else None
        return Frozen(self._snapshot(), packed, precision)

    def _snapshot(self: Self) -> Self:
        """A copy in evaluation, without gradients."""
        layer = copy.deepcopy(self).eval()
        for parameter in layer.parameters():
            parameter.drop_grad()
        return layer

    def _packable(self, precision: str | None) -> bool:
        """Whether the core packs a layer like this one; raise for a precision that it does not have."""
        options = [option[0] for option in self._inference_options.items() if option not in self.packed_options]
        options += self._keywords[0]
        allowed: tuple[str | None, ...] = (None,)
        if self.dtype == np.float32 and self.cell in ("rnn", "lstm", "gru") and not options:
            allowed = (None, "bfloat16", "int8")
        if precision not in allowed:
            names = ", ".join(map(repr, allowed))
            layer = f"{self.cell} in {self.dtype}" + f" with {', '.join(options)}" * bool(options)
            raise ValueError(f"precision: expected one of {names} for {layer}, got {precision!r}")
        return not options

    def _packed(self, batch: int, layers: Iterable[int], precision: str | None) -> Any:
        """Weights packed for the instruction set in use: for steps of ``batch`` rows, and for sequences."""
        make = _core.FrozenFloat32 if self.dtype == np.float32 else _core.FrozenFloat64
        return make(self.cell, self._cell_option(), precision or "", batch, [list(self._weights(i)) for i in layers])

    def _cell_option(self) -> str:
        return ""

    def _own_options(self) -> dict[str, Any]:
        """What the constructor took beside what all layers take, where it differs from the plain cell."""
        return self.options

    def _time_major(self, a: Array) -> Array:
        return np.ascontiguousarray(a.swapaxes(0, 1) if self.batch_first else a)

    def _as_given(self, a: Array) -> Array:
        return a.swapaxes(0, 1) if self.batch_first else a

    def _checked(self, name: str, a: Any, shape: tuple[int | str, ...]) -> Array:
        """``a`` as an array, its dtype the layer's and its shape ``shape``, where a letter allows any size."""
        array = a if type(a) is np.ndarray else as_array(name, a)
        if array.dtype != self.dtype:
            require_dtype(name, array, self.dtype)
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

    def _states(
        self, names: tuple[str, ...], states: State, N: int, defaults: list[list[Array]] | None = None
    ) -> list[State]:
        """Per layer and direction, its part of every state: [L * D] tuples of [N, H], or None for zeros.

        Where a state is not given, ``defaults`` may have values [H] for all rows of the batch, [L * D] lists.
        """
        rows = self.num_layers * self.directions
        if defaults is None and all(s is None for s in states):
            return [tuple(states)] * rows
        parts: list[list[Any]] = []
        for k, (name, s) in enumerate(zip(names, states, strict=True)):
            if s is not None:
                parts.append(self._split(name, s, k, N))
            elif defaults is not None:
                parts.append([np.repeat(values[k][None], N, axis=0) for values in defaults])
            else:
                parts.append([None] * rows)
        return list(zip(*parts, strict=True))

    def _split(self, name: str, state: States, k: int, N: int) -> list[Array]:
        """The parts of each layer and direction, [L * D] arrays [N, H], of the stack's h (k = 0) or c (1)."""
        D = self.directions
        if self._equal:
            shape = (self.num_layers * D, N, self._state_sizes[0][k])
            return list(np.ascontiguousarray(self._checked(name, state, shape)))
        if not isinstance(state, (tuple, list)) or len(state) != self.num_layers:
            got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise TypeError(f"{name}: expected {self.num_layers} arrays, one for each layer, got {got}")
        arrays = [
            self._checked(f"{name}[{layer}]", a, (D, N, sizes[k]))
            for layer, (a, sizes) in enumerate(zip(state, self._state_sizes, strict=True))
        ]
        return [part for a in arrays for part in np.ascontiguousarray(a)]

    def _whole(self, parts: Sequence[Array]) -> States:
        """A state of the stack from its parts of each layer and direction, [L * D] arrays [N, H]."""
        D = self.directions
        if self._equal:
            return _stacked(parts)
        return tuple(_stacked(parts[i : i + D]) for i in range(0, len(parts), D))

    def _cell_forward(
        self, index: int, x: Array, state: State, reverse: bool, call: dict[str, Any] | None = None
    ) -> Any:
        """(y, *final state, reserve) of one layer in one direction; ``call``: keywords of this call alone."""
        keywords = self.options if self.training else self._inference_options
        if self._keywords[index]:
            keywords = {**keywords, **self._by_keyword(index)}
        if call is not None:
            keywords = {**keywords, **call}
            if "seed" in call:
                keywords["layer"] = index // self.directions
        return self.functions[0](x, *state, *self._weights(index), reverse=reverse, training=self.training, **keywords)

    def _cell_backward(self, index: int, dy: Array | None, dstate: State, reserve: Any, input_grad: bool) -> Any:
        """Gradients of one layer in one direction, (dx, *those of the initial state, ...); parameters' are added up."""
        accumulate = self._gradients(index)
        gradients = self.functions[1](dy, *dstate, reserve, input_grad=input_grad, accumulate=accumulate)
        for part, name in self._keywords[index].items():
            grad = getattr(self, name).grad
            grad += _gradient(gradients, part)
        return gradients

    def _forward(
        self, x: Any, states: State, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, tuple[States, ...]]:
        cell = self._cell_forward
        call: dict[str, Any] = {}
        if lengths is not None:
            call["lengths"] = lengths
        if resets is not None:
            call["resets"] = np.asarray(resets).T if self.batch_first else resets
        if self._draws and self.training:  # every call its own masks; the generator's state is part of a checkpoint
            call["seed"] = int(self.dropout.rng.integers(2**64, dtype=np.uint64))
            if self._rows is not None:
                call["row_offset"] = self._rows.start
        if call:
            cell = partial(cell, call=call)
        y, last, reserves = self._sequence(x, states, self._initial_values(), cell, self.dropout)
        self._push((y.shape, reserves, states), step=len(y) == 1 and states[0] is not None)
        return self._as_given(y), last

    def _sequence(
        self,
        x: Any,
        states: State,
        initial: list[list[Array]] | None,
        cell: Callable[[int, Array, State, bool], Any],
        between: Callable[[Array], Array],
    ) -> tuple[Array, tuple[States, ...], list[Any]]:
        """y, time first, the last states and the reserves of the whole stack. ``cell(index, x, state, reverse)`` is one
        layer in one direction, (y, *last state, reserve); ``between`` applies to what passes from layer to layer."""
        order: tuple[int | str, ...] = ("N", "T") if self.batch_first else ("T", "N")
        x = self._time_major(self._checked("x", x, (*order, self.input_size)))
        starts = self._states(self.state_names, states, x.shape[1], initial)
        reserves: list[Any] = []
        final: list[tuple[Array, ...]] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = between(x)
            outputs = []
            for reverse in range(self.directions):
                index = len(final)
                y, *last, reserve = cell(index, x, starts[index], bool(reverse))
                outputs.append(y)
                final.append(tuple(last))
                reserves.append(reserve)
            y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            x = y + x if self.residual and layer > 0 else y
        return x, tuple(self._whole(part) for part in zip(*final, strict=True)), reserves

    def _backward(self, dy: Any, dstates: State, input_grad: bool) -> tuple[Array | None, tuple[States, ...]]:
        if not self._saved:
            self._pop()
        (T, N, features), reserves, states = self._saved[-1]
        order = (N, T) if self.batch_first else (T, N)
        gradient = None if dy is None else self._time_major(self._checked("dy", dy, (*order, features)))
        dfinal = self._states(self.gradient_names, dstates, N)
        self._pop()  # only now: a call refused above may be made again
        dinitial: list[tuple[Array, ...]] = []
        for layer in reversed(range(self.num_layers)):
            H = self._state_sizes[layer][0]
            dy_layer = gradient
            parts = []
            for reverse in reversed(range(self.directions)):
                dy_part = dy_layer
                if dy_layer is not None and self.directions == 2:
                    dy_part = np.ascontiguousarray(dy_layer[:, :, reverse * H : (reverse + 1) * H])
                index = layer * self.directions + reverse
                dx, *rest = self._cell_backward(index, dy_part, dfinal[index], reserves[index], input_grad or layer > 0)
                parts.append(dx)
                dinitial.append(tuple(rest[: len(self.state_names)]))
            gradient = parts[0]
            if gradient is not None and len(parts) == 2:
                gradient += parts[1]
            if layer > 0:
                if self.residual and dy_layer is not None:
                    gradient += dy_layer
                gradient = self.dropout.backward(gradient)
        dinitial.reverse()
        if self.learn_initial_state:
            self._add_initial_gradients(states, dinitial)
        dstates0 = tuple(self._whole(part) for part in zip(*dinitial, strict=True))
        return (None if gradient is None else self._as_given(gradient)), dstates0

    def _add_initial_gradients(self, states: State, dinitial: list[tuple[Array, ...]]) -> None:
        """Every row of the batch began with the learned values, where the call was given no state."""
        for names, gradients in zip(self._initial_names, dinitial, strict=True):
            for name, given, gradient in zip(names, states, gradients, strict=True):
                if given is None:
                    grad = getattr(self, name).grad
                    grad += gradient.sum(axis=0)

    def __repr__(self) -> str:
        sizes = self.hidden_size if self._equal else list(self.hidden_sizes)
        parts = [f"{self.input_size}, {sizes}"]
        parts += [f"num_layers={self.num_layers}"] * (self.num_layers > 1 and self._equal)
        parts += ["bias=False"] * (not self.bias) + ["batch_first=True"] * self.batch_first
        parts += [f"dropout={self.dropout.p}"] * (self.dropout.p > 0)
        parts += ["bidirectional=True"] * self.bidirectional + ["residual=True"] * self.residual
        parts += ["learn_initial_state=True"] * self.learn_initial_state + ["layer_norm=True"] * self.layer_norm
        parts += [f"{name}={value!r}" for name, value in self._own_options().items() if (name, value) not in _USUAL]
        return f"{type(self).__name__}({', '.join(parts)})"


def _layer_sizes(hidden_size: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """H of every layer."""
    layers = size("num_layers", num_layers)
    if not isinstance(hidden_size, (tuple, list)):
        hidden = size("hidden_size", hidden_size)
        require_memory({"num_layers": layers}, 0, 0, layers)
        return (hidden,) * layers
    if not hidden_size:
        raise TypeError(f"hidden_size: expected an integer, or one for each layer, got {hidden_size!r}")
    if layers not in (1, len(hidden_size)):
        raise ValueError(f"num_layers: expected {len(hidden_size)}, as hidden_size has, got {num_layers}")
    return tuple(size("hidden_size", one) for one in hidden_size)


def _gradient(gradients: Any, part: str) -> Array:
    """That of one parameter that goes by keyword."""
    for kind, names in enumerate(_NORM):
        if part in names:
            of_norm: Array = gradients.dlayer_norm[kind][names.index(part)]
            return of_norm
    gradient: Array = getattr(gradients, f"d{part}")
    return gradient


def _stacked(parts: Sequence[Array]) -> Array:
    """[parts, N, H] of arrays [N, H]; np.stack takes several times as long for such small ones."""
    return parts[0][None] if len(parts) == 1 else np.array(parts)
