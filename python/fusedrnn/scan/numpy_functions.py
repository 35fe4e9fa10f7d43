"""These stand for NumPy's functions of form while a step is traced: joins, cuts, choices, copies."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import UFUNCS, implements, refused
from fusedrnn.scan.traced import Traced, constant, converted, lift
from fusedrnn.scan.ufuncs import alike

# ordinary arrays of a traced one's shape: constants


def _kind_like(prototype: Any, dtype: Any) -> Any:
    return prototype.dtype if dtype is None else dtype


def _shape_like(prototype: Any, shape: Any) -> Any:
    return prototype.shape if shape is None else shape


@implements(np.zeros_like, np.empty_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """Stand for ``numpy.zeros_like``: a constant."""
    return np.zeros(_shape_like(a, shape), _kind_like(a, dtype))


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """Stand for ``numpy.ones_like``: a constant."""
    return np.ones(_shape_like(a, shape), _kind_like(a, dtype))


@implements(np.full_like)
def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None
) -> Any:
    """Stand for ``numpy.full_like``; the value may be traced."""
    shape = _shape_like(a, shape)
    if isinstance(fill_value, Traced):
        return ins.broadcast(converted(fill_value, _kind_like(a, dtype)), shape)
    return np.full(shape, fill_value, _kind_like(a, dtype))


# joins


def _parts(arrays: Any) -> list[Value]:
    if isinstance(arrays, Traced):
        arrays = list(arrays)
    return alike(*(lift(each) for each in arrays))


def _converted(parts: list[Value], dtype: Any) -> list[Value]:
    return parts if dtype is None else [converted(Traced(part), dtype) for part in parts]


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: int | None = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Value:
    """Stand for ``numpy.concatenate``."""
    parts = _converted(_parts(arrays), dtype)
    if axis is None:
        return ins.concatenate([ins.reshape(part, (part.size,)) for part in parts], 0)
    return ins.concatenate(parts, axis)


@implements(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Value:
    """Stand for ``numpy.append``."""
    return concatenate([arr, values], axis=axis)


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Value:
    """Stand for ``numpy.stack``."""
    parts = _converted(_parts(arrays), dtype)
    ndim = parts[0].ndim + 1
    if len({part.shape for part in parts}) > 1:
        raise ins.ShapeError(f"expected equal shapes, got {', '.join(str(part.shape) for part in parts)}")
    if not -ndim <= axis < ndim:
        raise ins.ShapeError(f"axis {axis} does not fit {ndim} axes")
    place = axis % ndim
    shape = (*parts[0].shape[:place], 1, *parts[0].shape[place:])
    return ins.concatenate([ins.reshape(part, shape) for part in parts], place)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Value:
    """Stand for ``numpy.hstack``."""
    parts = [part if part.ndim else ins.reshape(part, (1,)) for part in _parts(tup)]
    return ins.concatenate(_converted(parts, dtype), 0 if parts[0].ndim == 1 else 1)


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Value:
    """Stand for ``numpy.vstack``."""
    parts = [part if part.ndim > 1 else ins.reshape(part, (1, part.size)) for part in _parts(tup)]
    return ins.concatenate(_converted(parts, dtype), 0)


@implements(np.column_stack)
def column_stack(tup: Any) -> Value:
    """Stand for ``numpy.column_stack``."""
    return ins.concatenate([part if part.ndim > 1 else ins.reshape(part, (part.size, 1)) for part in _parts(tup)], 1)


# cuts


def _cut(x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
    starts, sizes, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return ins.slice_(x, starts, sizes, steps)


def _split(a: Any, sections: Any, axis: int, uneven: bool) -> list[Value]:
    x = lift(a)
    axis = ins.axis_of(x, axis)
    n = x.shape[axis]
    if isinstance(sections, (int, np.integer)):
        if sections <= 0 or (n % sections and not uneven):
            raise ins.ShapeError(f"an axis of {n} does not split into {sections} equal parts")
        sizes = [n // int(sections) + int(part < n % int(sections)) for part in range(int(sections))]
        ends = list(accumulate(sizes))
    else:
        ends = [*(int(place) for place in sections), n]
    parts, start = [], 0
    for end in ends:
        begin, stop, _ = slice(start, end).indices(n)
        parts.append(_cut(x, axis, begin, max(stop - begin, 0)))
        start = end
    return parts


@implements(np.split, view=True)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Value]:
    """Stand for ``numpy.split``."""
    return _split(ary, indices_or_sections, axis, uneven=False)


@implements(np.array_split, view=True)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Value]:
    """Stand for ``numpy.array_split``."""
    return _split(ary, indices_or_sections, axis, uneven=True)


@implements(np.hsplit, view=True)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Value]:
    """Stand for ``numpy.hsplit``."""
    return _split(ary, indices_or_sections, 0 if ary.ndim == 1 else 1, uneven=False)


@implements(np.vsplit, view=True)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Value]:
    """Stand for ``numpy.vsplit``."""
    if ary.ndim < 2:
        raise ins.ShapeError(f"expected two axes or more, got shape {ary.shape}")
    return _split(ary, indices_or_sections, 0, uneven=False)


@implements(np.flip, view=True)
def flip(m: Any, axis: Any = None) -> Value:
    """Stand for ``numpy.flip``."""
    x = lift(m)
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    chosen = {ins.axis_of(x, each) for each in axes}
    starts = [max(n - 1, 0) if place in chosen else 0 for place, n in enumerate(x.shape)]
    return ins.slice_(x, starts, x.shape, [-1 if place in chosen else 1 for place in range(x.ndim)])


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Value:
    """Stand for ``numpy.roll`` by a constant."""
    x = lift(a)
    if isinstance(shift, Traced):
        raise refused(
            "np.roll by a traced shift", "Write np.take(a, (np.arange(n) - shift) % n), or ops.circular_convolve"
        )
    if axis is None:
        return ins.reshape(_rolled(ins.reshape(x, (x.size,)), int(shift), 0), x.shape)
    pairs = np.broadcast(shift, axis)
    for by, along in pairs:
        x = _rolled(x, int(by), ins.axis_of(x, int(along)))
    return x


def _rolled(x: Value, shift: int, axis: int) -> Value:
    n = x.shape[axis]
    cut = -shift % n if n else 0
    return x if not cut else ins.concatenate([_cut(x, axis, cut, n - cut), _cut(x, axis, 0, cut)], axis)


# copies, and what stands around


@implements(np.tile)
def tile(A: Any, reps: Any) -> Value:
    """Stand for ``numpy.tile``."""
    x = lift(A)
    counts = [int(each) for each in (reps if isinstance(reps, (tuple, list)) else (reps,))]
    counts = [1] * (x.ndim - len(counts)) + counts
    shape = [1] * (len(counts) - x.ndim) + list(x.shape)
    between = [each for n in shape for each in (1, n)]
    full = tuple(each for count, n in zip(counts, shape, strict=True) for each in (count, n))
    result = [count * n for count, n in zip(counts, shape, strict=True)]
    return ins.reshape(ins.broadcast(ins.reshape(x, between), full), result)


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Value:
    """Stand for ``numpy.repeat`` by constants."""
    x = lift(a)
    if isinstance(repeats, Traced):
        raise refused("np.repeat by traced counts", "The result's shape would depend on data")
    if axis is None:
        x, axis = ins.reshape(x, (x.size,)), 0
    axis = ins.axis_of(x, axis)
    n = x.shape[axis]
    counts = constant(repeats)
    if counts.size == 1:
        count = int(counts.reshape(()))
        wide = ins.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        full = ins.broadcast(wide, (*x.shape[: axis + 1], count, *x.shape[axis + 1 :]))
        return ins.reshape(full, (*x.shape[:axis], n * count, *x.shape[axis + 1 :]))
    if counts.shape != (n,):
        raise ins.ShapeError(f"expected {n} counts, got shape {counts.shape}")
    taken = ins.take(_to_front(x, axis), x.graph.constant(np.repeat(np.arange(n), counts)))
    order = list(range(1, x.ndim))
    return ins.transpose(taken, [*order[:axis], 0, *order[axis:]])


def _to_front(x: Value, axis: int) -> Value:
    return ins.transpose(x, [axis, *(each for each in range(x.ndim) if each != axis)])


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", *, constant_values: Any = 0) -> Value:
    """Stand for ``numpy.pad`` with constants."""
    x = lift(array)
    if mode != "constant":
        raise refused(f"np.pad with mode={mode!r}", "Write np.concatenate of slices")
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    starts = [before for before, _ in widths]
    if not isinstance(constant_values, Traced) and np.ndim(constant_values) == 0 and constant_values == 0:
        return ins.pad(x, shape, starts)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(start, start + n) for start, n in zip(starts, x.shape, strict=True))] = True
    fill = lift(constant_values)
    if fill.ndim:
        raise refused("np.pad with several constants", "Write np.concatenate")
    return where(inside, Traced(ins.pad(x, shape, starts)), constant_values)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Value:
    """Stand for ``numpy.tril``."""
    x = lift(m)
    rows, columns = x.shape[-2:]
    return ins.where(x.graph.constant(np.tri(rows, columns, k, bool)), x, 0.0 if x.kind == "real" else 0)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Value:
    """Stand for ``numpy.triu``."""
    x = lift(m)
    rows, columns = x.shape[-2:]
    return ins.where(x.graph.constant(np.tri(rows, columns, k - 1, bool)), 0.0 if x.kind == "real" else 0, x)


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """Stand for ``numpy.trace`` of a matrix."""
    return ins.sum_(diagonal(a, offset))


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """Stand for ``numpy.diagonal`` of a matrix."""
    x = lift(a)
    if x.ndim != 2 or (axis1, axis2) != (0, 1):
        raise refused(f"a diagonal of an array of shape {x.shape}", "Only matrices have traced diagonals")
    rows, columns = x.shape
    row, column = max(-offset, 0), max(offset, 0)
    size = max(min(rows - row, columns - column), 0)
    flat = ins.reshape(x, (x.size,))
    return ins.slice_(flat, [row * columns + column if size else 0], [size], [columns + 1])


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Value:
    """Stand for ``numpy.diag``: a matrix's diagonal, or a matrix with a diagonal."""
    x = lift(v)
    if x.ndim == 2:
        return diagonal(v, k)
    if x.ndim != 1:
        raise ins.ShapeError(f"expected one or two axes, got shape {x.shape}")
    n = x.size + abs(k)
    flat = ins.pad(x, (n * n,), [(max(-k, 0)) * n + max(k, 0)], [n + 1])
    return ins.reshape(flat, (n, n))


# choices


@implements(np.where)
def where(condition: Any, /, *choices: Any) -> Value:
    """Stand for ``numpy.where`` with both choices."""
    if len(choices) != 2:
        raise refused("np.where without choices", "The result's shape would depend on data: np.where(condition, a, b)")
    a, b = alike(lift(choices[0]), lift(choices[1]))
    return ins.where(lift(condition), a, b)


@implements(np.clip)
def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None) -> Value:
    """Stand for ``numpy.clip``."""
    x = lift(a)
    for op, bound in (("maximum", min if a_min is None else a_min), ("minimum", max if a_max is None else a_max)):
        if bound is not None:
            value, limit = alike(x, lift(bound))
            x = ins.binary(op, value, limit)
    return x


UFUNCS["clip"] = clip


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    """Stand for ``numpy.nan_to_num``, with limits for infinities given."""
    value = lift(x)
    if value.kind != "real":
        return value
    if posinf is None or neginf is None:
        raise refused("np.nan_to_num without posinf= and neginf=", "The largest number depends on the precision")
    value = ins.where(ins.compare("not_equal", value, value), nan, value)
    value = ins.where(ins.compare("equal", value, np.inf), posinf, value)
    return ins.where(ins.compare("equal", value, -np.inf), neginf, value)


@implements(np.round, np.around)
def round_(a: Any, decimals: int = 0, out: Any = None) -> Value:
    """Stand for ``numpy.round``."""
    x = lift(a)
    if x.kind != "real":
        return x
    scale = 10.0**decimals
    scaled = x if decimals == 0 else ins.multiply(x, scale)
    rounded: Value = UFUNCS["rint"](Traced(scaled))
    return rounded if decimals == 0 else ins.divide(rounded, scale)


@implements(np.cross)
def cross(a: Any, b: Any) -> Value:
    """Stand for ``numpy.cross`` of vectors [3]."""
    x, y = alike(lift(a), lift(b))
    if x.shape != (3,) or y.shape != (3,):
        raise ins.ShapeError(f"expected shapes (3,), got {x.shape} and {y.shape}")

    def turned(value: Value, by: int) -> Value:
        return _rolled(value, -by, 0)

    return ins.subtract(ins.multiply(turned(x, 1), turned(y, 2)), ins.multiply(turned(x, 2), turned(y, 1)))


def _outer(op: str) -> Any:
    def call(a: Any, b: Any) -> Value:
        x, y = lift(a), lift(b)
        spread = ins.reshape(x, (*x.shape, *[1] * y.ndim))
        result: Value = UFUNCS[op](Traced(spread), Traced(y))
        return result

    return call


for _op in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "less", "greater", "equal"):
    UFUNCS[f"{_op}.outer"] = _outer(_op)
