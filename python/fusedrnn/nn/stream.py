"""Real-time use: a layer's weights packed once, its state kept, one time step a call."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.gradients import Array


class Stream:
    """A snapshot of an RNN, LSTM or GRU stack that is fed one step at a time; made by ``layer.stream()``.

    The weights are those of the moment it was made, packed for the instruction set in use then; later training does
    not reach it. Outputs have the same bits as the layer's over the whole sequence. Not for two threads at once.

    Attributes:
        step: the call itself, without the object around it: ``y = stream.step(x)``, some tenths of a microsecond
            quicker than ``stream(x)``.
    """

    def __init__(self, cell: str, option: str, batch: int, dtype: np.dtype[Any], layers: list[list[Any]]) -> None:
        make = _core.StreamFloat32 if dtype == np.float32 else _core.StreamFloat64
        self._core = make(cell, option, batch, layers)
        self._zero = self._core.state()
        self.step = self._core.step

    def __call__(self, x: Array) -> Array:
        """Take one step.

        Args:
            x: [N, I], of the layer's dtype; also [I] where the batch is 1.

        Returns:
            The top layer's hidden state, [N, H] or [H], in an array of its own.

        Raises:
            ValueError: a shape that does not fit, or an array that is not C-contiguous. TypeError: another dtype.
        """
        y: Array = self._core.step(x)
        return y

    @property
    def state(self) -> Any:
        """h [L, N, H], or (h, c) of an LSTM: copies. Assign the same to go on from another state."""
        h, c = self._core.state()
        return h if c is None else (h, c)

    @state.setter
    def state(self, value: Any) -> None:
        if self._zero[1] is None:
            self._core.set_state(value, None)
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            self._core.set_state(*value)
        else:
            raise TypeError(f"state: expected (h, c), got {type(value).__name__}")

    def reset(self) -> None:
        """Start again from zeros."""
        self._core.set_state(*self._zero)
