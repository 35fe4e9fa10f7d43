"""Which rows live at which step, and where their numbers lie: `lengths`, `batch_sizes`, `resets`, `reverse`.

Cells see none of these options. They walk through `Sequence.steps`, take the states of each step's rows and put the
new ones back; a row that has not begun or is over is in no step, so its state waits and its gradient passes. x, y and
all that is kept lie flat, one line for each step of each row: [M, ...], M = T*N, or sum(batch_sizes) when packed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from .checks import check_shape


class Step(NamedTuple):
    """One step of the rows that have it.

    Attributes:
        at: slice or indices of its lines among the M.
        rows: slice or indices of its rows among the N.
        reset: [rows, 1] booleans, or None where no row starts from zero.
    """

    at: Any
    rows: Any
    reset: Array | None

    def take(self, state: Array) -> Array:
        """The states [rows, ...] that the step starts from, of all states [N, ...]: zero where it resets."""
        return self.cut(state[self.rows])

    def cut(self, value: Array) -> Array:
        """A copy, zero where the step resets: also for the gradient of what `take` gave."""
        return value.copy() if self.reset is None else np.where(self.reset, 0, value)


class Sequence(NamedTuple):
    """The steps in walking order, and the shapes to come back to.

    Attributes:
        steps: in the order in which forward walks them.
        lead: the axes of x before the last, (T, N) or (M,).
        sizes: rows of the batch at each step, [T] integers.
        alive: [M, 1] booleans, False past a row's end; None when every line counts.
        x: as given; what is allocated is of its dtype and kind.
    """

    steps: list[Step]
    lead: tuple[int, ...]
    sizes: Array
    alive: Array | None
    x: Array

    def zeros(self, *shape: int) -> Array:
        """Of x's dtype, and dual where x is (`fusedrnn.differentiation.dual`)."""
        return np.zeros(shape, self.x.dtype, like=self.x)

    def flat(self, a: Array) -> Array:
        """[M, ...] of [T, N, ...], zero past the rows' ends whatever stood there."""
        a = a.reshape(int(self.sizes.sum()), a.shape[-1])
        return a if self.alive is None else np.where(self.alive, a, 0)

    def shaped(self, flat: Array) -> Array:
        """The inverse of `flat`."""
        return self.flat(flat).reshape(*self.lead, flat.shape[-1])

    def gather(self, values: list[Array]) -> Array:
        """[M, ...]: what each step gave, in walking order, at its lines; zero past the rows' ends."""
        flat = self.zeros(int(self.sizes.sum()), values[0].shape[-1])
        for step, value in zip(self.steps, values, strict=True):
            flat[step.at] = value
        return flat

    def state(self, name: str, state: Array | None, units: int) -> Array:
        """A copy of [N, units] to start from, where None means zeros."""
        shape = (int(self.sizes[0]), units)
        check_shape(name, state, shape)
        return self.zeros(*shape) if state is None else state.copy()

    def gradient(self, name: str, d: Array | None, units: int) -> Array:
        """[M, units] of the gradient of y or c, where None means zeros."""
        check_shape(name, d, (*self.lead, units))
        return self.zeros(int(self.sizes.sum()), units) if d is None else self.flat(d)

    def places(self) -> tuple[Array, Array]:
        """Each line's row of the batch, and its index on the axis of time."""
        rows = np.concatenate([np.arange(size) for size in self.sizes])
        return rows, np.repeat(np.arange(len(self.sizes)), self.sizes)


def _integers(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, got shape {array.shape}")
    return array.astype(np.int64)


def _checked_sizes(x: Array, batch_sizes: Any) -> Array:
    """Rows at each step: all N of them, or those that packed sequences have."""
    if batch_sizes is None:
        if x.ndim != 3:
            raise ValueError(f"x: expected 3 axes (T, N, I), got shape {x.shape}")
        if x.shape[0] == 0:
            raise ValueError(f"x: expected at least one time step, got shape {x.shape}")
        return np.full(x.shape[0], x.shape[1])
    sizes = _integers("batch_sizes", batch_sizes)
    if len(sizes) == 0 or sizes[-1] < 1 or (np.diff(sizes) > 0).any():
        raise ValueError(f"batch_sizes: expected non-increasing integers from 1, got {sizes.tolist()}")
    if x.ndim != 2 or len(x) != sizes.sum():
        raise ValueError(f"x: expected shape ({sizes.sum()}, I) by batch_sizes, got {x.shape}")
    return sizes


def _checked_lengths(x: Array, lengths: Any, batch_sizes: Any) -> Array | None:
    if lengths is None:
        return None
    if batch_sizes is not None:
        raise ValueError("lengths: expected None with batch_sizes, got both")
    T, N = x.shape[:2]
    checked = _integers("lengths", lengths)
    if len(checked) != N or (checked < 0).any() or (checked > T).any():
        raise ValueError(f"lengths: expected {N} integers from 0 to {T}, got {checked.tolist()}")
    return checked


def _checked_resets(x: Array, resets: Any) -> Array | None:
    """[M, 1]."""
    if resets is None:
        return None
    checked: Array = np.asarray(resets)
    if checked.dtype != np.bool_:
        raise TypeError(f"resets: expected bool, got {checked.dtype}")
    check_shape("resets", checked, x.shape[:-1])
    return checked.reshape(-1, 1)


def find_sequence(x: Array, lengths: Any, batch_sizes: Any, resets: Any, reverse: bool) -> Sequence:
    """The walk through x; ValueError or TypeError for options that do not fit it."""
    sizes = _checked_sizes(x, batch_sizes)
    lengths = _checked_lengths(x, lengths, batch_sizes)
    resets = _checked_resets(x, resets)
    starts = np.cumsum(sizes) - sizes
    steps: list[Step] = []
    for t in range(len(sizes) - 1, -1, -1) if reverse else range(len(sizes)):
        start, size = int(starts[t]), int(sizes[t])
        rows: Any = slice(0, size)
        at: Any = slice(start, start + size)
        if lengths is not None and (lengths <= t).any():
            rows = np.flatnonzero(lengths > t)
            at = start + rows
        steps.append(Step(at, rows, resets[at] if resets is not None and resets[at].any() else None))
    sequence = Sequence(steps, x.shape[:-1], sizes, None, x)
    if lengths is None:
        return sequence
    row, time = sequence.places()
    return sequence._replace(alive=(time < lengths[row])[:, None])
