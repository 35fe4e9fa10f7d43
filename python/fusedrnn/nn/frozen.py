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
        names = len(layer.state_names)  # h0, or h0 and c0
        states = (state,) if names == 1 else pair("state", state)
        given = {name: value for name, value in (("lengths", lengths), ("resets", resets)) if value is not None}
        if given and self._precision is not None:
            raise ValueError(f"{', '.join(given)}: expected None with precision={self._precision!r}")
        if given or self._packed is None:
            y, last = layer._forward(x, states, lengths, resets)
            return y, (last[0] if names == 1 else last)

        def cell(index: int, x: Array, initial: Any, reverse: bool) -> Any:
            h0, c0 = (*initial, None)[:2]
            y, *last = self._packed.sequence(index, x, h0, c0, reverse)
            return (y, *last[:names], None)

        y, last, _ = layer._sequence(x, states, layer._initial_values(), cell, lambda y: y)
        return layer._as_given(y), (last[0] if names == 1 else last)


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

    def state(self) -> tuple[Any, Any]:
        """h and c, as the layer returns them; c is None for a cell without."""
        h, c = zip(*(core.state() for core in self._cores), strict=True)
        whole = self._layer._whole
        return whole([a[0] for a in h]), (None if c[0] is None else whole([a[0] for a in c]))

    def set_state(self, h: Any, c: Any) -> None:
        """Go on from other states; none is changed unless all fit."""
        states = [
            self._layer._split(name, value, k, self._batch)
            for k, (name, value) in enumerate(zip("hc"[: len(self._layer.state_names)], (h, c), strict=False))
        ]
        for core, parts in zip(self._cores, zip(*states, strict=True), strict=True):
            core.set_state(*(*(part[None] for part in parts), None)[:2])


class Unpacked:
    """A layer that the core does not pack, stepped as packed ones are: ``layer`` is a snapshot, in evaluation."""

    def __init__(self, layer: _Recurrent, batch: int) -> None:
        self._layer, self._batch = layer, batch
        self._state = [
            layer._whole([np.zeros((batch, sizes[k]), layer.dtype) for sizes in layer._state_sizes])
            for k in range(len(layer.state_names))
        ]

    def step(self, x: Array) -> Array:
        """h of the last layer, [N, H], or [H] for x [I]."""
        layer, N = self._layer, self._batch
        if not isinstance(x, np.ndarray):
            raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
        rows = layer._checked("x", x[None] if x.ndim == N == 1 else x, (N, layer.input_size))
        if not x.flags.c_contiguous:
            raise ValueError("x: expected a C-contiguous array")
        steps = rows[:, None] if layer.batch_first else rows[None]
        y, last, _ = layer._sequence(steps, tuple(self._state), None, layer._cell_forward, lambda y: y)
        self._state = list(last)
        top: Array = y[0, 0] if x.ndim == 1 else y[0]
        return top

    def state(self) -> tuple[Any, Any]:
        """h and c, as the layer returns them; c is None for a cell without."""
        h, c = (*copy.deepcopy(self._state), None)[:2]
        return h, c

    def set_state(self, h: Any, c: Any) -> None:
        """Go on from other states; none is changed unless all fit."""
        layer = self._layer
        given = zip("hc"[: len(layer.state_names)], (h, c), strict=False)
        parts = [layer._split(name, value, k, self._batch) for k, (name, value) in enumerate(given)]
        self._state = [layer._whole([part.copy() for part in state]) for state in parts]


class Stream:
    """A snapshot of a recurrent layer that is fed one step at a time; made by ``layer.stream()``.

    The weights are those of the moment it was made, packed for the instruction set in use then; later training does
    not reach it. Outputs have the same bits as the layer's over the whole sequence. Not for two threads at once. A
    layer with options that change its equations is not packed: its steps cost what calls of the layer do.

    Attributes:
        step: the call itself, without the object around it: ``y = stream.step(x)``, some tenths of a microsecond
            quicker than ``stream(x)``.
    """

    def __init__(self, packed: Any, h0: Any = None, c0: Any = None) -> None:
        self._core = packed
        self._initial = self._core.state() if h0 is None else (h0, c0)
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
        h, c = self._core.state()
        return h if c is None else (h, c)

    @state.setter
    def state(self, value: Any) -> None:
        if self._initial[1] is None:
            self._core.set_state(value, None)
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            self._core.set_state(*value)
        else:
            raise TypeError(f"state: expected (h, c), got {type(value).__name__}")

    def reset(self) -> None:
        """Start again from the layer's learned initial state, or zeros."""
        self._core.set_state(*self._initial)
