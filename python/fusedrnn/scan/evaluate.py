"""A graph's values for one row in NumPy: the specification of every instruction.

Reals have the dtype of the call, integers are int64, booleans bool; an operand is converted to its result's kind first,
comparisons excepted. Kernels may differ by rounding where an order of sums or a formula is theirs to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan.graph import Shape, Value, needed

# (value, its operands, the dtype of reals) -> its array
Rule: TypeAlias = Callable[[Value, list[Array], Any], Array]
Uniform: TypeAlias = Callable[[int, Shape], Array]


def evaluate(
    results: Sequence[Value],
    given: Mapping[Value, Array],
    dtype: Any = np.float64,
    uniform: Uniform | None = None,
) -> list[Array]:
    """Compute values of one row. No warnings for infinities and NaN.

    Args:
        results: The values to compute.
        given: Arrays of the leaves, and of any other value that is known already; a total must be.
        dtype: float32 or float64, the dtype of reals.
        uniform: Gives the numbers of an instruction "uniform" from its stream and shape.

    Returns:
        An array for each of the results.

    Raises:
        ValueError: A leaf or a total is not given, a given array has another shape, or `uniform` is wanted and None.
        IndexError: A computed index is out of range; one below zero counts from the end.
    """
    known: dict[Value, Array] = {}
    for value, array in given.items():
        if np.shape(array) != value.shape:
            raise ValueError(f"{value!r} was given an array of shape {np.shape(array)}")
        known[value] = _of_kind(value, array, dtype)
    with np.errstate(all="ignore"):
        for value in _missing(results, known):
            known[value] = _compute(value, known, dtype, uniform)
    return [known[value] for value in results]


def _missing(results: Sequence[Value], known: Mapping[Value, Array]) -> list[Value]:
    """List what must be computed, in order: values that only given ones need are left out."""
    if not known:
        return needed(results)
    seen: set[Value] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value not in seen and value not in known:
            seen.add(value)
            pending.extend(value.inputs)
    return sorted(seen, key=lambda value: value.index)


def _compute(value: Value, known: Mapping[Value, Array], dtype: Any, uniform: Uniform | None) -> Array:
    if value.op == "constant":
        return _of_kind(value, value.graph.arrays[value.attributes[0]], dtype)
    if value.op in ("leaf", "total"):
        raise ValueError(f"{value!r} must be given: one row does not have it")
    if value.op == "uniform":
        if uniform is None:
            raise ValueError(f"{value!r} needs `uniform`, which gives its numbers")
        return _of_kind(value, uniform(value.attributes[0], value.shape), dtype)
    operands = [known[each] for each in value.inputs]
    return _of_kind(value, RULES[value.op](value, operands, dtype), dtype)


def _of_kind(value: Value, array: Any, dtype: Any) -> Array:
    return np.asarray(array, dtype_of(value, dtype))


def dtype_of(value: Value, dtype: Any) -> Any:
    """The dtype of a value's array where reals have the given one."""
    return {"real": np.dtype(dtype), "integer": np.dtype(np.int64), "boolean": np.dtype(np.bool_)}[value.kind]


# element by element


def _elementwise(function: Callable[..., Any]) -> Rule:
    """Apply a function after operands have become numbers of the result's kind."""

    def rule(value: Value, operands: list[Array], dtype: Any) -> Array:
        result: Array = function(*(_of_kind(value, each, dtype) for each in operands))
        return result

    return rule


def _comparison(function: Callable[..., Any]) -> Rule:
    """Compare reals of the call's dtype where one operand is real, else integers."""

    def rule(value: Value, operands: list[Array], dtype: Any) -> Array:
        real = any(each.kind == "real" for each in value.inputs)
        result: Array = function(*(np.asarray(each, dtype if real else np.int64) for each in operands))
        return result

    return rule


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), exact to rounding for large |x| too."""
    e = np.exp(-np.abs(x))
    result: Array = np.where(x < 0, e, 1) / (1 + e)
    return result


def _where(value: Value, operands: list[Array], dtype: Any) -> Array:
    condition, a, b = operands
    return np.where(condition, _of_kind(value, a, dtype), _of_kind(value, b, dtype))


def _as_integer(value: Value, operands: list[Array], dtype: Any) -> Array:
    """Drop what follows the point; of NaN and infinities the result is any integer."""
    result: Array = np.trunc(operands[0]).astype(np.int64)
    return result


# the same elements elsewhere


def _section(starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int]) -> tuple[Array, ...]:
    """The index of a slice, as ``numpy.ix_`` gives it."""
    return np.ix_(*(start + step * np.arange(size) for start, size, step in zip(starts, sizes, steps, strict=True)))


def _slice(value: Value, operands: list[Array], dtype: Any) -> Array:
    starts, steps = value.attributes
    result: Array = operands[0][_section(starts, value.shape, steps)]
    return result


def _pad(value: Value, operands: list[Array], dtype: Any) -> Array:
    starts, steps = value.attributes
    result = np.zeros(value.shape, operands[0].dtype)
    result[_section(starts, operands[0].shape, steps)] = operands[0]
    return result


def _concatenate(value: Value, operands: list[Array], dtype: Any) -> Array:
    return np.concatenate([_of_kind(value, each, dtype) for each in operands], value.attributes[0])


# along axes


def _sum(value: Value, operands: list[Array], dtype: Any) -> Array:
    result: Array = np.sum(_of_kind(value, operands[0], dtype), axis=value.attributes[0])
    return result


def _inner(value: Value, operands: list[Array], dtype: Any) -> Array:
    result: Array = np.sum(operands[0] * operands[1], axis=value.attributes[0])
    return result


def _argsort(value: Value, operands: list[Array], dtype: Any) -> Array:
    return np.argsort(operands[0], axis=value.attributes[0], kind="stable")


def _softmax(value: Value, operands: list[Array], dtype: Any) -> Array:
    (axis,) = value.attributes
    x = operands[0]
    if not x.shape[axis]:
        return x
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    result: Array = e / np.sum(e, axis=axis, keepdims=True)
    return result


def _recurrence(value: Value, operands: list[Array], dtype: Any) -> Array:
    axis, reverse = value.attributes
    a, b = (np.moveaxis(_of_kind(value, each, dtype), axis, 0) for each in operands)
    y = b.copy()
    places = range(len(y))
    for before, i in zip(*(order := places[::-1] if reverse else places, order[1:]), strict=False):
        y[i] = a[i] * y[before] + b[i]
    moved: Array = np.moveaxis(y, 0, axis)
    return moved


# by places that are computed


def _gather(value: Value, operands: list[Array], dtype: Any) -> Array:
    return np.take_along_axis(operands[0], operands[1], value.attributes[0])


def _scatter(value: Value, operands: list[Array], dtype: Any) -> Array:
    """Add each element of x where ``take_along_axis`` would find it; elements at one place add up."""
    (axis, _), (x, index) = value.attributes, operands
    result = np.zeros(value.shape, x.dtype)
    places: list[Array] = list(np.indices(x.shape, sparse=True))
    places[axis] = index
    np.add.at(result, tuple(places), x)
    return result


def _take(value: Value, operands: list[Array], dtype: Any) -> Array:
    table, index = operands
    result: Array = table[index]
    return result


def _put(value: Value, operands: list[Array], dtype: Any) -> Array:
    x, index = operands
    result = np.zeros(value.shape, x.dtype)
    np.add.at(result, index, x)
    return result


def _along(function: Callable[..., Any]) -> Rule:
    return lambda value, operands, dtype: function(operands[0], axis=value.attributes[0])


RULES: dict[str, Rule] = {
    **{
        name: _elementwise(getattr(np, name))
        for name in ("negative", "square", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh")
    },
    **{name: _elementwise(getattr(np, name)) for name in ("absolute", "sign", "floor")},
    **{name: _elementwise(getattr(np, name)) for name in ("add", "subtract", "multiply", "divide")},
    **{name: _elementwise(getattr(np, name)) for name in ("maximum", "minimum")},  # NaN where one is
    "reciprocal": _elementwise(lambda x: 1 / x),
    "sigmoid": _elementwise(sigmoid),
    "softplus": _elementwise(lambda x: np.logaddexp(x.dtype.type(0), x)),
    "relu": _elementwise(lambda x: np.maximum(x, 0)),
    "tanh_gradient": _elementwise(lambda g, v: g * (1 - v * v)),
    "sigmoid_gradient": _elementwise(lambda g, v: g * v * (1 - v)),
    **{name: _comparison(getattr(np, name)) for name in ("less", "less_equal", "equal", "not_equal")},
    **{name: _elementwise(getattr(np, name)) for name in ("logical_and", "logical_or", "logical_not")},
    "where": _where,
    "as_real": _elementwise(lambda x: x),
    "as_integer": _as_integer,
    "stop_gradient": _elementwise(lambda x: x),
    "broadcast": lambda value, operands, dtype: np.broadcast_to(operands[0], value.shape),
    "reshape": lambda value, operands, dtype: operands[0].reshape(value.shape),
    "transpose": lambda value, operands, dtype: operands[0].transpose(value.attributes[0]),
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "sum": _sum,
    "inner": _inner,
    "max": _along(np.max),
    "argmax": _along(np.argmax),
    "argsort": _argsort,
    "softmax": _softmax,
    "recurrence": _recurrence,
    "gather": _gather,
    "scatter": _scatter,
    "take": _take,
    "put": _put,
    "product": lambda value, operands, dtype: operands[0] @ operands[1],
}
