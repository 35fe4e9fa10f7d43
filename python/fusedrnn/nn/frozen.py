"""Snapshots of a layer with its weights packed once: for whole sequences, and for real-time use step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusedrnn.gradients import Array

if TYPE_CHECKING:
    from fusedrnn.nn.recurrent import _Recurrent


def pair(name: str, state: Any) -> tuple[Any, Any]:
    """An LSTM's (h, c), either or both of which may be None."""
    if state is None:
        return (None, None)
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"{name}: expected a pair of arrays or None, got {type(state).__name__}")
    return state[0], state[1]


class Frozen:
    """A snapshot of an RNN, LSTM or GRU for inference over whole sequences; made by ``layer.freeze()``.

    A layer packs its weights in every call, since they may have changed; this one packed them when it was made, for the
    instruction set in use then, and later training does not reach it. Results have the bits of the layer's after
    ``eval()``. Several threads may call it at once.
    """

    def __init__(self, layer: _Recurrent, packed: Any) -> None:
        self._layer, self._packed = layer, packed

    def __call__(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Run over a sequence.

        Args:
            x, state: as the layer takes them: x [T, N, I] ([N, T, I] with batch_first), h0 or (h0, c0) [L * D, N, H].

        Returns:
            y and h_n, or (h_n, c_n), as the layer returns them.

        Raises:
            ValueError: a shape that does not fit, or T = 0. TypeError: another dtype.
        """
        layer = self._layer
        names = len(layer.state_names)  # h0, or h0 and c0
        states = (state,) if names == 1 else pair("state", state)

        def cell(index: int, x: Array, initial: Any, reverse: bool) -> Any:
            h0, c0 = (*initial, None)[:2]
            y, *last = self._packed.sequence(index, x, h0, c0, reverse)
            return (y, *last[:names], None)

        y, last, _ = layer._sequence(x, states, cell, lambda y: y)
        return layer._as_given(y), (last[0] if names == 1 else last)


class Stream:
    """A snapshot of an RNN, LSTM or GRU stack that is fed one step at a time; made by ``layer.stream()``.

    The weights are those of the moment it was made, packed for the instruction set in use then; later training does
    not reach it. Outputs have the same bits as the layer's over the whole sequence. Not for two threads at once.

    Attributes:
        step: the call itself, without the object around it: ``y = stream.step(x)``, some tenths of a microsecond
            quicker than ``stream(x)``.
    """

    def __init__(self, packed: Any) -> None:
        self._core = packed
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
