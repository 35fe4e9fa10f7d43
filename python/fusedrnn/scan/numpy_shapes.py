"""These stand for NumPy's functions of shape while a step is traced: the same elements under other axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import implements, refused
from fusedrnn.scan.traced import converted, lift


@implements(np.reshape, view=True)
def reshape(a: Any, /, shape: Any = None, order: Any = "C", *, newshape: Any = None) -> Value:
    """Stand for ``numpy.reshape`` in C order."""
    if order not in ("C", "A"):
        raise refused(f"order={order!r}", "Write np.transpose before and after")
    shape = newshape if shape is None else shape
    return ins.reshape(lift(a), tuple(shape) if isinstance(shape, (tuple, list, np.ndarray)) else (shape,))


@implements(np.ravel, view=True)
def ravel(a: Any, order: Any = "C") -> Value:
    """Stand for ``numpy.ravel`` in C order."""
    return reshape(a, (-1,), order=order) if lift(a).size else ins.reshape(lift(a), (0,))


@implements(np.transpose, view=True)
def transpose(a: Any, axes: Any = None) -> Value:
    """Stand for ``numpy.transpose``."""
    return ins.transpose(lift(a), axes)


@implements(np.swapaxes, view=True)
def swapaxes(a: Any, axis1: int, axis2: int) -> Value:
    """Stand for ``numpy.swapaxes``."""
    x = lift(a)
    axes = list(range(x.ndim))
    first, second = ins.axis_of(x, axis1), ins.axis_of(x, axis2)
    axes[first], axes[second] = second, first
    return ins.transpose(x, axes)


@implements(np.moveaxis, view=True)
def moveaxis(a: Any, source: Any, destination: Any) -> Value:
    """Stand for ``numpy.moveaxis``."""
    x = lift(a)
    sources, targets = (
        [ins.axis_of(x, axis) for axis in (each if isinstance(each, (tuple, list)) else [each])]
        for each in (source, destination)
    )
    if len(sources) != len(targets) or len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise ins.ShapeError(f"axes {source} cannot move to {destination}")
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return ins.transpose(x, order)


@implements(np.squeeze, view=True)
def squeeze(a: Any, axis: Any = None) -> Value:
    """Stand for ``numpy.squeeze``."""
    x = lift(a)
    if axis is None:
        axes = [place for place, n in enumerate(x.shape) if n == 1]
    else:
        axes = [ins.axis_of(x, each) for each in (axis if isinstance(axis, tuple) else (axis,))]
    if any(x.shape[each] != 1 for each in axes):
        raise ins.ShapeError(f"axis {axis} of shape {x.shape} has another size than 1")
    return ins.reshape(x, [n for place, n in enumerate(x.shape) if place not in axes])


@implements(np.expand_dims, view=True)
def expand_dims(a: Any, axis: Any) -> Value:
    """Stand for ``numpy.expand_dims``."""
    x = lift(a)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    ndim = x.ndim + len(axes)
    if any(not -ndim <= each < ndim for each in axes) or len({each % ndim for each in axes}) != len(axes):
        raise ins.ShapeError(f"axis {axis} does not fit {ndim} axes")
    sizes = iter(x.shape)
    new = {each % ndim for each in axes}
    return ins.reshape(x, [1 if place in new else next(sizes) for place in range(ndim)])


@implements(np.atleast_1d, view=True)
def atleast_1d(a: Any) -> Value:
    """Stand for ``numpy.atleast_1d`` of one array."""
    x = lift(a)
    return x if x.ndim else ins.reshape(x, (1,))


@implements(np.atleast_2d, view=True)
def atleast_2d(a: Any) -> Value:
    """Stand for ``numpy.atleast_2d`` of one array."""
    x = lift(a)
    return x if x.ndim > 1 else ins.reshape(x, (1, x.size))


@implements(np.broadcast_to, view=True)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Value:
    """Stand for ``numpy.broadcast_to``."""
    return ins.broadcast(lift(array), (shape,) if isinstance(shape, int) else tuple(shape))


@implements(np.shape)
def shape(a: Any) -> Any:
    """Stand for ``numpy.shape``."""
    return a.shape


@implements(np.ndim)
def ndim(a: Any) -> Any:
    """Stand for ``numpy.ndim``."""
    return a.ndim


@implements(np.size)
def size(a: Any, axis: int | None = None) -> Any:
    """Stand for ``numpy.size``."""
    return a.size if axis is None else a.shape[axis]


@implements(np.copy)
def copy(a: Any, order: Any = "K", subok: bool = False) -> Value:
    """Stand for ``numpy.copy``."""
    return lift(a)


@implements(*([np.astype] if hasattr(np, "astype") else []))  # since NumPy 2.1
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Value:
    """Stand for ``numpy.astype``."""
    return converted(x, dtype)
