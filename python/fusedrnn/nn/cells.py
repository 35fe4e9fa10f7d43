"""One step at a time: an object with a state and ``step(x)``, as a lecture on recurrent networks begins.

rnn1, rnn2 = RNNCell(8, 16), RNNCell(16, 16, output_size=4)
y = rnn2.step(rnn1.step(x))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn.linear import Linear
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.recurrent import GRU, LSTM, RNN
from fusedrnn.sizes import size


class _Cell(Module):
    """A layer of one direction that is fed single steps and holds its own state.

    Cells start in evaluation, as stepping is mostly for looking on or generating; after ``train()`` every step is
    kept, and ``backward`` takes the steps back, last one first.
    """

    def __init__(self, layer: RNN | LSTM | GRU, output_size: int | None, rng: np.random.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.output = None
        if output_size is not None:
            outputs = size("output_size", output_size)
            self.output = Linear(layer.hidden_size, outputs, bias=layer.bias, dtype=layer.dtype, rng=rng)
        self._state: Any = None
        self._dstate: Any = None
        self._batched = True
        self.eval()

    @property
    def h(self) -> Array | None:
        """Hidden state [N, H] ([H] after a step of x [I]); None before the first step."""
        return self._part(0)

    def _part(self, index: int) -> Array | None:
        if self._state is None:
            return None
        part = self._state[index] if isinstance(self._state, tuple) else self._state
        state: Array = part[0] if self._batched else part[0, 0]
        return state

    def reset(self) -> None:
        """Forget the state: the next step starts from zeros, with any batch size."""
        self._state = self._dstate = None

    def step(self, x: Array) -> Array:
        """Take one step and update the state.

        Args:
            x: [N, I], or [I] for a single row; the state keeps N until ``reset()``.

        Returns:
            The new h [N, H], or with ``output_size`` O the output W h + b [N, O]; without N where x had none.

        Raises:
            ValueError: a shape that does not fit the cell or its state. TypeError: another dtype.
        """
        x = np.asarray(x)
        if x.ndim not in (1, 2):
            raise ValueError(f"x: expected shape (N, {self.layer.input_size}), got {x.shape}")
        rows = np.atleast_2d(x)
        held = None if self._state is None else self._state[0] if isinstance(self._state, tuple) else self._state
        if held is not None and held.shape[1] != len(rows):
            raise ValueError(
                f"x: expected {held.shape[1]} rows as the state has (reset() to change it), got {len(rows)}"
            )
        y, self._state = self.layer(rows[None], self._state)
        self._dstate = None
        self._batched = x.ndim == 2
        result: Array = y[0] if self.output is None else self.output(y[0])
        return result if self._batched else np.asarray(result[0])

    def forward(self, x: Array) -> Array:
        """The same as ``step``."""
        return self.step(x)

    def backward(self, dy: Array) -> Array:
        """Gradient of the last step not yet taken back.

        Args:
            dy: gradient of what that step returned. What later steps owe this one through the state is added by
                the cell itself, provided they have been taken back before.

        Returns:
            dx, shaped like x; the parameters' gradients add up.
        """
        rows = np.atleast_2d(np.asarray(dy))
        if self.output is not None:
            gradient = self.output.backward(rows)
            assert gradient is not None
            rows = gradient
        dx, self._dstate = self.layer.backward(rows[None], self._dstate)
        assert dx is not None
        return np.asarray(dx[0] if np.ndim(dy) == 2 else dx[0, 0])


class RNNCell(_Cell):
    """A plain recurrent cell: h = f(W_ih x + b_ih + W_hh h + b_hh), f "tanh" or "relu".

    Args:
        input_size, hidden_size: I, H. output_size: if given, ``step`` returns W h + b of that size instead of h.
        bias, dtype, rng: as ``fusedrnn.nn.RNN``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        generator = as_generator(rng)
        layer = RNN(input_size, hidden_size, nonlinearity=nonlinearity, bias=bias, dtype=dtype, rng=generator)
        super().__init__(layer, output_size, generator)


class LSTMCell(_Cell):
    """An LSTM cell with states ``h`` and ``c``. Args: as ``RNNCell``, and forget_bias as ``fusedrnn.nn.LSTM``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        bias: bool = True,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        forget_bias: float | None = None,
    ) -> None:
        generator = as_generator(rng)
        layer = LSTM(input_size, hidden_size, bias=bias, dtype=dtype, rng=generator, forget_bias=forget_bias)
        super().__init__(layer, output_size, generator)

    @property
    def c(self) -> Array | None:
        """Cell state, shaped like ``h``."""
        return self._part(1)


class GRUCell(_Cell):
    """A GRU cell. Args: as ``RNNCell``, and reset_after as ``fusedrnn.nn.GRU``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        reset_after: bool = True,
        bias: bool = True,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        generator = as_generator(rng)
        layer = GRU(input_size, hidden_size, reset_after=reset_after, bias=bias, dtype=dtype, rng=generator)
        super().__init__(layer, output_size, generator)
