"""Snapshots of a layer with its weights packed once: for whole sequences, and for real-time use step by step."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from fusedrnn.arrays import Array

if TYPE_CHECKING:
    from fusedrnn.nn.stack import _Recurrent


def pair(name: str, state: Any) -> tuple[Any, Any]:
    """An LSTM's (h, c), either or both of which may be None."""
    if state is None:
        return (None, None)
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"{name}: expected a pair of arrays or None, got {type(state).__name__}")
    return state[0], state[1]


class Frozen:
    """A snapshot of a recurrent layer for inference over whole sequences; made by ``layer.freeze()``.

    A layer packs its weights in every call, since they may have changed; this one packed them when it was made, for the
    instruction set in use then, and later training does not reach it. Results have the bits of the layer's after
    ``eval()``. Several threads may call it at once. Calls with lengths or resets, and those of a layer with options
    that change its equations, pack in every call all the same.
    """

    def __init__(self, layer: _Recurrent, packed: Any, precision: str | None) -> None:
        self._layer, self._packed, self._precision = layer, packed, precision  # a snapshot; its weights, if packed

    def __call__(self, x: Array, state: Any = None, *, lengths: Any = None, resets: Any = None) -> tuple[Array, Any]:
        """Run over a sequence.

        Args:
            x, state: as the layer takes them: x [T, N, I] ([N, T, I] with batch_first), h0 or (h0, c0) [L * D, N, H]
                (layers of different sizes: one [D, N, H] each).
            lengths, resets: as the layer takes them; not with a precision.

        Returns:
            y and h_n, or (h_n, c_n), as the layer returns them.

        Raises:
            ValueError: a shape that does not fit, T = 0, or lengths or resets with a precision. TypeError: another
                dtype.
        """
        layer = self._layer
        names = len(layer.states.names)  # h0, or h0 and c0
        states = (state,) if names == 1 else pair("state", state)
        given = {name: value for name, value in (("lengths", lengths), ("resets", resets)) if value is not None}
        if given and self._precision is not None:
            raise ValueError(f"{', '.join(given)}: expected None with precision={self._precision!r}")
        if given or self._packed is None:
            y, last = layer._forward(x, states, lengths, resets)
            return y, (last[0] if names == 1 else last)

        x = layer._sequence_first("x", x, layer.input_size)
        starts = layer._starts(states, x.shape[1])
        rows = len(layer._names)
        initial = [(None,) * rows if state is None else layer.states.parts(state) for state in starts]
        final: list[tuple[Array, ...]] = []
        for k in range(layer.num_layers):
            outputs = []
            for reverse in range(layer.directions):
                index = len(final)
                y, *last = self._packed.sequence(index, x, tuple(part[index] for part in initial), bool(reverse))
                outputs.append(y)
                final.append(tuple(last))
            y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            x = y + x if layer.residual and k > 0 else y
        whole = tuple(layer.states.whole(parts) for parts in zip(*final, strict=True))
        return layer._as_given(x), (whole[0] if names == 1 else whole)


class Chain:
    """Packed layers, stepped one after the other where the core cannot do it in one call."""

    def __init__(self, layer: _Recurrent, batch: int, cores: list[Any]) -> None:
        self._layer, self._batch, self._cores = layer, batch, cores

    def step(self, x: Array) -> Array:
        """h of the last layer, [N, H]; residual from the second layer on."""
        first, *others = self._cores
        x = first.step(x)
        for core in others:
            y = core.step(x)
            x = y + x if self._layer.residual else y
        return x

    def state(self) -> tuple[Any, ...]:
        """The states, as the layer returns them."""
        parts = zip(*(core.state() for core in self._cores), strict=True)
        return tuple(self._layer.states.whole([a[0] for a in of_cores]) for of_cores in parts)

    def set_state(self, states: tuple[Any, ...]) -> None:
        """Go on from other states; none is changed unless all fit."""
        of_layer = self._layer.states
        given = of_layer.given(_names(states), states, self._batch, all=True)
        for core, parts in zip(self._cores, zip(*map(of_layer.parts, given), strict=True), strict=True):
            core.set_state(tuple(part[None] for part in parts))


def _names(states: tuple[Any, ...]) -> tuple[str, ...]:
    """What a stream calls them."""
    return ("h", "c")[: len(states)]


class Unpacked:
    """A layer that the core does not pack, stepped as packed ones are: ``layer`` is a snapshot, in evaluation."""

    def __init__(self, layer: _Recurrent, batch: int) -> None:
        self._layer, self._batch = layer, batch
        self._state = layer.states.zeros(batch)
        self._weights = [layer._weights(index) for index in range(len(layer._names))]

    def step(self, x: Array) -> Array:
        """h of the last layer, [N, H], or [H] for x [I]."""
        layer, N = self._layer, self._batch
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
        rows = layer.states.checked("x", x[None] if x.ndim == N == 1 else x, (N, layer.input_size))
        if not x.flags.c_contiguous:
            raise ValueError("x: expected a C-contiguous array")
        y, last, _ = layer._stack[False].forward(rows[None], self._state, self._weights, None, False, None, None)
        self._state = last
        top: Array = y[0, 0] if x.ndim == 1 else y[0]
        return top

    def state(self) -> tuple[Any, ...]:
        """The states, as the layer returns them."""
        return copy.deepcopy(self._state)

    def set_state(self, states: tuple[Any, ...]) -> None:
        """Go on from other states; none is changed unless all fit."""
        self._state = copy.deepcopy(self._layer.states.given(_names(states), states, self._batch, all=True))


class Stream:
    """A snapshot of a recurrent layer that is fed one step at a time; made by ``layer.stream()``.

    The weights are those of the moment it was made, packed for the instruction set in use then; later training does
    not reach it. Outputs have the same bits as the layer's over the whole sequence. Not for two threads at once. A
    layer with options that change its equations is not packed: its steps cost what calls of the layer do.

    Attributes:
        step: the call itself, without the object around it: ``y = stream.step(x)``, some tenths of a microsecond
            quicker than ``stream(x)``.
    """

    def __init__(self, packed: Any, initial: tuple[Any, ...] | None = None) -> None:
        self._core = packed
        self._initial: tuple[Any, ...] = self._core.state() if initial is None else initial
        self.step = self._core.step
        self.reset()

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
        """h [L, N, H] (layers of different sizes: one [1, N, H] each), or (h, c) of an LSTM: copies. Assign the same,
        or what the layer returned, to go on from another state."""
        states: tuple[Any, ...] = self._core.state()
        return states[0] if len(states) == 1 else states

    @state.setter
    def state(self, value: Any) -> None:
        count = len(self._initial)
        if count == 1:
            self._core.set_state((value,))
        elif isinstance(value, (tuple, list)) and len(value) == count:
            self._core.set_state(tuple(value))
        else:
            raise TypeError(f"state: expected (h, c), got {type(value).__name__}")

    def reset(self) -> None:
        """Start again from the layer's learned initial state, or zeros."""
        self._core.set_state(self._initial)
