"""These functions stand for NumPy's sums, extremes, sorts and running sums while a step is traced."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import UFUNCS, implements, refused
from fusedrnn.scan.traced import converted, lift
from fusedrnn.scan.ufuncs import number, real


def _axes(x: Value, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    axes = [ins.axis_of(x, each) for each in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    if len(set(axes)) != len(axes):
        raise ins.ShapeError(f"axis {axis} names an axis twice")
    return tuple(sorted(axes))


def _kept(x: Value, axes: Sequence[int]) -> tuple[int, ...]:
    """The shape with axes of size 1 in place of those that went."""
    return tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))


def _one_axis(x: Value, axes: Sequence[int]) -> Value:
    """These axes as one, behind all others."""
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    size = math.prod(x.shape[axis] for axis in axes)
    return ins.reshape(ins.transpose(x, [*rest, *axes]), (*(x.shape[axis] for axis in rest), size))


def _reduction(reduce: Callable[[Value, tuple[int, ...]], Value]) -> Callable[..., Value]:
    """Give what reduces a value over axes NumPy's arguments."""

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Value:
        x = lift(a) if dtype is None else converted(a, dtype)
        axes = _axes(x, axis)
        y = reduce(x, axes)
        return ins.reshape(y, _kept(x, axes)) if keepdims is True else y

    return call


def _sum(x: Value, axes: tuple[int, ...]) -> Value:
    return ins.sum_(number(x), axes)


def _mean(x: Value, axes: tuple[int, ...]) -> Value:
    return ins.divide(ins.sum_(real(x), axes), float(math.prod(x.shape[axis] for axis in axes)))


def _max(x: Value, axes: tuple[int, ...]) -> Value:
    if not axes:
        return x
    if not math.prod(x.shape[axis] for axis in axes):
        raise ins.ShapeError(f"no largest element along an axis of size 0, shape {x.shape}")
    return ins.max_(x, axes[0]) if len(axes) == 1 else ins.max_(_one_axis(x, axes), -1)


def _any(x: Value, axes: tuple[int, ...]) -> Value:
    truth = ins.as_integer(x if x.kind == "boolean" else ins.compare("not_equal", x, 0))
    return ins.compare("not_equal", ins.sum_(truth, axes), 0)


def _all(x: Value, axes: tuple[int, ...]) -> Value:
    false = ins.logical("logical_not", x)
    return ins.logical("logical_not", _any(false, axes))


def _prod(x: Value, axes: tuple[int, ...]) -> Value:
    """The last of the running products: its derivative has no division."""
    x = number(x)
    if not axes:
        return x
    flat = _one_axis(x, axes)
    n = flat.shape[-1]
    if not n:
        return ins.broadcast(x.graph.constant(1.0 if x.kind == "real" else 1), flat.shape[:-1])
    running = _running_product(flat, flat.ndim - 1)
    last = ins.slice_(running, [0] * (flat.ndim - 1) + [n - 1], [*flat.shape[:-1], 1])
    return ins.reshape(last, flat.shape[:-1])


def _max_or_any(x: Value, axes: tuple[int, ...]) -> Value:
    return _any(x, axes) if x.kind == "boolean" else _max(x, axes)


def _min_or_all(x: Value, axes: tuple[int, ...]) -> Value:
    return _all(x, axes) if x.kind == "boolean" else ins.negative(_max(ins.negative(x), axes))


def _of_ufunc(reduction: Callable[..., Value]) -> Callable[..., Value]:
    """As ``ufunc.reduce``, whose axis is the first by default."""

    def reduce(a: Any, axis: Any = 0, **options: Any) -> Value:
        return reduction(a, axis, **options)

    return reduce


for _function, _ufunc, _reduce in (
    (np.sum, "add", _sum),
    (np.prod, "multiply", _prod),
    (np.max, "maximum", _max_or_any),
    (np.min, "minimum", _min_or_all),
    (np.any, "logical_or", _any),
    (np.all, "logical_and", _all),
):
    implements(_function)(_reduction(_reduce))

    UFUNCS[f"{_ufunc}.reduce"] = _of_ufunc(_reduction(_reduce))
implements(np.amax)(_reduction(_max_or_any))
implements(np.amin)(_reduction(_min_or_all))
implements(np.mean, np.average)(_reduction(_mean))


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Value:
    """Stand for ``numpy.ptp``: the largest minus the smallest."""
    largest, smallest = (_reduction(each)(a, axis, keepdims=keepdims) for each in (_max, _min_or_all))
    return ins.subtract(largest, smallest)


@implements(np.var)
def var(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False) -> Value:
    """Stand for ``numpy.var``: the mean of squared differences from the mean."""
    x = real(lift(a))
    axes = _axes(x, axis)
    n = math.prod(x.shape[each] for each in axes)
    mean = ins.reshape(_mean(x, axes), _kept(x, axes))
    y = ins.divide(ins.sum_(ins.unary("square", ins.subtract(x, mean)), axes), float(max(n - ddof, 0)))
    return ins.reshape(y, _kept(x, axes)) if keepdims is True else y


@implements(np.std)
def std(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False) -> Value:
    """Stand for ``numpy.std``: the root of ``var``, whose gradient is not finite at zero."""
    return ins.unary("sqrt", var(a, axis, ddof=ddof, keepdims=keepdims))


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    """As ``numpy.linalg.norm`` of vectors of order 1, 2 and inf, and of matrices by Frobenius."""
    value = real(lift(x))
    axes = _axes(value, axis)
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        y = ins.unary("sqrt", ins.sum_(ins.unary("square", value), axes))
    elif ord == 1 and len(axes) == 1:
        y = ins.sum_(ins.unary("absolute", value), axes)
    elif ord == math.inf and len(axes) == 1:
        y = _max(ins.unary("absolute", value), axes)
    else:
        raise refused(f"np.linalg.norm of order {ord} over {len(axes)} axes", "Traced are 1, 2, inf and Frobenius")
    return ins.reshape(y, _kept(value, axes)) if keepdims else y


def _place(a: Any, axis: int | None, keepdims: bool, sign: int) -> Value:
    x = number(lift(a))
    whole = ins.reshape(x, (x.size,)) if axis is None else x
    along = 0 if axis is None else ins.axis_of(x, axis)
    if not whole.shape[along]:
        raise ins.ShapeError(f"no largest element along an axis of size 0, shape {x.shape}")
    y = ins.argmax(whole if sign > 0 else ins.negative(whole), along)
    return ins.reshape(y, _kept(x, range(x.ndim) if axis is None else [along])) if keepdims is True else y


@implements(np.argmax)
def argmax(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Value:
    """Stand for ``numpy.argmax``: the first of equal ones."""
    return _place(a, axis, keepdims, 1)


@implements(np.argmin)
def argmin(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Value:
    """Stand for ``numpy.argmin``: the first of equal ones."""
    return _place(a, axis, keepdims, -1)


def _sorted(a: Any, axis: int | None) -> tuple[Value, Value, int]:
    x = number(lift(a))
    x = ins.reshape(x, (x.size,)) if axis is None else x
    along = ins.axis_of(x, -1 if axis is None else axis)
    return x, ins.argsort(x, along), along


@implements(np.argsort)
def argsort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: bool | None = None) -> Value:
    """Stand for ``numpy.argsort``, always stable."""
    return _sorted(a, axis)[1]


@implements(np.sort)
def sort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: bool | None = None) -> Value:
    """Stand for ``numpy.sort``."""
    return ins.gather(*_sorted(a, axis))


def _running_product(x: Value, axis: int) -> Value:
    """y_i = x_i y_(i-1) + b_i with b = (x_0, 0, 0, ...)."""
    first = ins.slice_(x, [0] * x.ndim, [min(n, 1) if i == axis else n for i, n in enumerate(x.shape)])
    return ins.recurrence(x, ins.pad(first, x.shape, [0] * x.ndim), axis)


def _running(a: Any, axis: int | None, dtype: Any, product: bool) -> Value:
    x = number(lift(a) if dtype is None else converted(a, dtype))
    if axis is None:
        x, axis = ins.reshape(x, (x.size,)), 0
    axis = ins.axis_of(x, axis)
    return _running_product(x, axis) if product else ins.recurrence(1.0 if x.kind == "real" else 1, x, axis)


@implements(np.cumsum)
def cumsum(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Value:
    """Stand for ``numpy.cumsum``."""
    return _running(a, axis, dtype, product=False)


@implements(np.cumprod)
def cumprod(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Value:
    """Stand for ``numpy.cumprod``."""
    return _running(a, axis, dtype, product=True)


UFUNCS["add.accumulate"] = lambda array, axis=0, **options: cumsum(array, axis, **options)
UFUNCS["multiply.accumulate"] = lambda array, axis=0, **options: cumprod(array, axis, **options)


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1) -> Value:
    """Stand for ``numpy.diff``: what each element exceeds the one before it by."""
    x = number(lift(a))
    axis = ins.axis_of(x, axis)
    for _ in range(n):
        starts, sizes = [0] * x.ndim, list(x.shape)
        sizes[axis] = max(sizes[axis] - 1, 0)
        before = ins.slice_(x, starts, sizes)
        starts[axis] = min(1, x.shape[axis])
        x = ins.subtract(ins.slice_(x, starts, sizes), before)
    return x
