"""Indexing of traced arrays: integers, slices, ..., None, constant masks, arrays of integers, constant or traced."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import implements, refused
from fusedrnn.scan.traced import Traced, constant, lift


def is_view(key: Any, ndim: int) -> bool:
    """Whether NumPy's result shares memory with the array: slices alone do, a single element does not."""
    keys = key if isinstance(key, tuple) else (key,)
    basic = all(each is None or each is Ellipsis or isinstance(each, (int, np.integer, slice)) for each in keys)
    return basic and sum(isinstance(each, (int, np.integer)) for each in keys) < ndim


def item(array: Any, key: Any) -> Value:
    """Stand for ``array[key]``."""
    x = lift(array)
    keys = _full(x, key)
    # Integers beside arrays of integers are such arrays, as in NumPy.
    has_arrays = any(isinstance(each, (np.ndarray, Value)) for each in keys)
    starts, sizes, steps, shape, advanced = [], [], [], [], []
    axis = 0
    for each in keys:
        if each is None:
            shape.append(1)
            continue
        n = x.shape[axis]
        start, size, step = 0, n, 1
        if isinstance(each, slice):
            start, stop, step = each.indices(n)
            size = len(range(start, stop, step))
        elif isinstance(each, int) and not has_arrays:
            start, size = int(_inside(np.asarray(each), n, axis)), 1
        if isinstance(each, (np.ndarray, Value)) or (isinstance(each, int) and has_arrays):
            index = each if isinstance(each, Value) else _inside(np.asarray(each), n, axis)
            advanced.append((len(shape), index))
        if isinstance(each, slice) or has_arrays:
            shape.append(size)
        starts.append(start)
        sizes.append(size)
        steps.append(step)
        axis += 1
    result = ins.reshape(ins.slice_(x, starts, sizes, steps), shape)
    return _advanced(result, advanced) if advanced else result


def _full(x: Value, key: Any) -> list[Any]:
    """The key's entries, one for each axis and None: int, slice, an array of integers or a traced one."""
    entries: list[Any] = []
    for each in key if isinstance(key, tuple) else (key,):
        if each is None or each is Ellipsis or isinstance(each, slice):
            entries.append(each)
        elif isinstance(each, Traced):
            value = lift(each)
            if value.kind != "integer":
                instead = {
                    "boolean": "The result's shape would depend on data: keep the shape, write np.where(mask, a, 0)",
                    "real": "Write index.astype(int)",
                }
                raise refused(f"an index that is a traced {value.kind} array", instead[value.kind])
            entries.append(value)
        else:
            array = constant(each)
            if array.dtype.kind == "b":
                entries.extend(_places(x, array, entries))
            elif array.dtype.kind == "f" and array.size:
                raise refused(f"an index of real numbers ({array.dtype})", "Write index.astype(int)")
            else:
                array = array.astype(np.int64)
                entries.append(int(array) if isinstance(each, (int, np.integer)) else array)
    used = sum(each is not None and each is not Ellipsis for each in entries)
    if used > x.ndim or sum(each is Ellipsis for each in entries) > 1:
        raise ins.ShapeError(f"{used} indices for shape {x.shape}")
    if Ellipsis not in [each if each is Ellipsis else None for each in entries]:
        entries.append(Ellipsis)
    place = next(place for place, each in enumerate(entries) if each is Ellipsis)
    return entries[:place] + [slice(None)] * (x.ndim - used) + entries[place + 1 :]


def _places(x: Value, mask: Array, before: list[Any]) -> list[Array]:
    """A constant mask as integers, one array for each of its axes."""
    if not mask.ndim:
        raise refused("a single boolean as an index", "Write np.where(condition, a, b)")
    axis = sum(each is not None and each is not Ellipsis for each in before)
    sizes = x.shape[axis : axis + mask.ndim]
    if any(each is Ellipsis for each in before):
        sizes = mask.shape  # the axis is counted from the end; sizes are checked with the indices
    if sizes != mask.shape:
        raise ins.ShapeError(f"a mask of shape {mask.shape} does not fit shape {x.shape} from axis {axis}")
    return list(np.nonzero(mask))


def _inside(index: Array, n: int, axis: int) -> Array:
    """Indices counted from 0."""
    if index.size and not (-n <= index.min() and index.max() < n):
        raise ins.ShapeError(f"index {index.max() if index.max() >= n else index.min()} leaves axis {axis} of size {n}")
    return np.where(index < 0, index + n, index)


def _advanced(x: Value, advanced: list[tuple[int, Any]]) -> Value:
    """Take entries by index over some axes together, and put the new axes where NumPy puts them."""
    axes = [axis for axis, _ in advanced]
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    if len(advanced) == 1:
        index = advanced[0][1]
        if isinstance(index, np.ndarray) and (run := _run(index)) is not None:
            return _by_slice(x, axes[0], *run)
    else:
        index = _one_index(x, advanced)
    table = ins.reshape(
        ins.transpose(x, axes + rest),
        (int(np.prod([x.shape[axis] for axis in axes])), *(x.shape[axis] for axis in rest)),
    )
    index = index if isinstance(index, Value) else x.graph.constant(index)
    taken = ins.take(table, index)
    adjacent = axes == list(range(axes[0], axes[-1] + 1))
    place = axes[0] if adjacent else 0
    order = list(range(taken.ndim))
    moved = order[index.ndim : index.ndim + place] + order[: index.ndim] + order[index.ndim + place :]
    return ins.transpose(taken, moved)


def _one_index(x: Value, advanced: list[tuple[int, Any]]) -> Any:
    """Several indices as one into the axes that they name, laid out together."""
    if all(isinstance(index, np.ndarray) for _, index in advanced):
        try:
            arrays = np.broadcast_arrays(*(index for _, index in advanced))
        except ValueError:
            shapes = ", ".join(str(index.shape) for _, index in advanced)
            raise ins.ShapeError(f"indices of shapes {shapes} do not broadcast") from None
        return np.ravel_multi_index(arrays, [x.shape[axis] for axis, _ in advanced])
    total: Value | None = None
    for axis, each in advanced:
        n = x.shape[axis]
        index = each if isinstance(each, Value) else x.graph.constant(each)
        if isinstance(each, Value):
            index = ins.where(ins.compare("less", index, 0), ins.add(index, n), index)
        total = index if total is None else ins.add(ins.multiply(total, n), index)
    return total


def _run(index: Array) -> tuple[int, int, int] | None:
    """(start, size, step) of an index that a slice could write."""
    if index.ndim != 1 or not index.size:
        return None
    steps = set(np.diff(index).tolist()) or {1}
    return (int(index[0]), len(index), steps.pop()) if len(steps) == 1 and 0 not in steps else None


def _by_slice(x: Value, axis: int, start: int, size: int, step: int) -> Value:
    starts, sizes, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return ins.slice_(x, starts, sizes, steps)


@implements(np.take)
def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Value:
    """Stand for ``numpy.take``; indices may be traced."""
    if mode != "raise":
        raise refused(f"np.take with mode={mode!r}", "Bound the index by np.clip")
    x = lift(a)
    if axis is None:
        x, axis = ins.reshape(x, (x.size,)), 0
    axis = ins.axis_of(x, axis)
    if isinstance(indices, Traced):
        index: Any = lift(indices)
        if index.kind != "integer":
            raise refused(f"an index that is a traced {index.kind} array", "Write index.astype(int)")
    else:
        index = _inside(constant(indices).astype(np.int64), x.shape[axis], axis)
        if not index.ndim:
            return ins.reshape(_by_slice(x, axis, int(index), 1, 1), x.shape[:axis] + x.shape[axis + 1 :])
    return _advanced(x, [(axis, index)])


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Value:
    """Stand for ``numpy.take_along_axis``; axes of size 1 beside the one broadcast."""
    x, index = lift(arr), lift(indices)
    if axis is None:
        x, axis = ins.reshape(x, (x.size,)), 0
    axis = ins.axis_of(x, axis)
    if x.ndim != index.ndim:
        raise ins.ShapeError(f"an index of {index.ndim} axes for shape {x.shape}")
    if not isinstance(indices, Traced):
        index = x.graph.constant(_inside(constant(indices).astype(np.int64), x.shape[axis], axis))
    shape = [max(n, m) if 0 not in (n, m) else 0 for n, m in zip(x.shape, index.shape, strict=True)]
    of_x, of_index = list(shape), list(shape)
    of_x[axis], of_index[axis] = x.shape[axis], index.shape[axis]
    return ins.gather(ins.broadcast(x, tuple(of_x)), ins.broadcast(index, tuple(of_index)), axis)
