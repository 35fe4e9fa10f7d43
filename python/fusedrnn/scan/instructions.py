"""The instructions: one function each, which checks shapes and gives the new value.

Elementwise instructions broadcast their operands first, as NumPy does, by an instruction of its own; so does whatever
takes a Python number. Shapes have no axis of the batch. Ties and edges: `fusedrnn.scan.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TypeAlias

import numpy as np

from fusedrnn.scan.graph import Graph, Kind, Level, Shape, Value

Operand: TypeAlias = "Value | float | int | bool | np.generic"

# real -> real, element by element
REAL_UNARY = (
    *("negative", "reciprocal", "square", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos"),
    *("tanh", "sigmoid", "softplus", "relu", "absolute", "sign", "floor"),
)
REAL_BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
# g times the derivative of tanh (sigmoid) where that is v: g (1 - v²), g v (1 - v)
GRADIENTS = ("tanh_gradient", "sigmoid_gradient")
COMPARISONS = ("less", "less_equal", "equal", "not_equal")
LOGICAL = ("logical_and", "logical_or", "logical_not")
ELEMENTWISE = frozenset(
    (*REAL_UNARY, *REAL_BINARY, *GRADIENTS, *COMPARISONS, *LOGICAL, "where", "as_real", "as_integer", "stop_gradient")
)


class ShapeError(ValueError):
    """Shapes that do not fit an instruction."""


def _graph(*operands: Operand) -> Graph:
    return next(each.graph for each in operands if isinstance(each, Value))


def values(*operands: Operand) -> list[Value]:
    """Python numbers become constants."""
    graph = _graph(*operands)
    return [each if isinstance(each, Value) else graph.constant(each) for each in operands]


def together(*operands: Operand) -> list[Value]:
    """Values of one shape, by NumPy's rules of broadcasting."""
    found = values(*operands)
    try:
        shape = np.broadcast_shapes(*(each.shape for each in found))
    except ValueError:
        raise ShapeError(f"shapes {', '.join(str(each.shape) for each in found)} do not broadcast") from None
    return [broadcast(each, shape) for each in found]


def joined_kind(operands: Sequence[Value]) -> Kind:
    """Tell what arithmetic over these gives: real beside a real, else integer."""
    return "real" if any(each.kind == "real" for each in operands) else "integer"


# element by element


def unary(op: str, x: Operand) -> Value:
    """One of REAL_UNARY. Signs of integers and their like stay integers."""
    (x,) = values(x)
    keeps = op in ("negative", "square", "relu", "absolute", "sign", "floor") and x.kind != "real"
    return x.graph.make(op, [x], x.shape, "integer" if keeps else "real")


def binary(op: str, a: Operand, b: Operand) -> Value:
    """One of REAL_BINARY or GRADIENTS. Integers stay integers, save in quotients."""
    pair = together(a, b)
    kind = "real" if op in ("divide", *GRADIENTS) else joined_kind(pair)
    return pair[0].graph.make(op, pair, pair[0].shape, kind)


def add(a: Operand, b: Operand) -> Value:
    """a + b."""
    return binary("add", a, b)


def subtract(a: Operand, b: Operand) -> Value:
    """a - b."""
    return binary("subtract", a, b)


def multiply(a: Operand, b: Operand) -> Value:
    """a b."""
    return binary("multiply", a, b)


def divide(a: Operand, b: Operand) -> Value:
    """a / b."""
    return binary("divide", a, b)


def negative(x: Operand) -> Value:
    """-x."""
    return unary("negative", x)


def compare(op: str, a: Operand, b: Operand) -> Value:
    """One of COMPARISONS; false beside NaN, save not_equal."""
    pair = together(a, b)
    return pair[0].graph.make(op, pair, pair[0].shape, "boolean")


def logical(op: str, *operands: Operand) -> Value:
    """One of LOGICAL, over booleans; a number counts as true unless it is zero."""
    found = [each if each.kind == "boolean" else compare("not_equal", each, 0) for each in together(*operands)]
    return found[0].graph.make(op, found, found[0].shape, "boolean")


def where(condition: Operand, a: Operand, b: Operand) -> Value:
    """a where the condition holds, else b; the other's NaN does not show."""
    condition, a, b = together(condition, a, b)
    if condition.kind != "boolean":
        condition = compare("not_equal", condition, 0)
    kind: Kind = "boolean" if a.kind == b.kind == "boolean" else joined_kind([a, b])
    return a.graph.make("where", [condition, a, b], a.shape, kind)


def as_real(x: Value) -> Value:
    """Integers and booleans as numbers that have a gradient of zero."""
    return x if x.kind == "real" else x.graph.make("as_real", [x], x.shape, "real")


def as_integer(x: Value) -> Value:
    """Real numbers without what follows the point, as ``astype(int)``; booleans as 0 and 1."""
    return x if x.kind == "integer" else x.graph.make("as_integer", [x], x.shape, "integer")


def stop_gradient(x: Value) -> Value:
    """x, whose gradient ends here."""
    return x.graph.make("stop_gradient", [x], x.shape, x.kind)


# the same elements elsewhere


def broadcast(x: Value, shape: Shape) -> Value:
    """Stand for ``numpy.broadcast_to``."""
    shape = tuple(shape)
    if x.shape == shape:
        return x
    if len(shape) < x.ndim or any(n not in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False)):
        raise ShapeError(f"shape {x.shape} does not broadcast to {shape}")
    return x.graph.make("broadcast", [x], shape, x.kind)


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """Stand for ``numpy.reshape`` in C order; one of the sizes may be -1."""
    shape = tuple(map(int, shape))
    if shape.count(-1) == 1:
        rest = -int(np.prod(shape, dtype=np.int64))
        whole = x.size // rest if rest else 0
        shape = tuple(whole if n == -1 else n for n in shape)
    if min(shape, default=1) < 0 or int(np.prod(shape, dtype=np.int64)) != x.size:
        raise ShapeError(f"shape {x.shape} cannot be reshaped to {shape}")
    if x.op == "reshape":
        return reshape(x.inputs[0], shape)
    return x if x.shape == shape else x.graph.make("reshape", [x], shape, x.kind)


def transpose(x: Value, axes: Sequence[int] | None = None) -> Value:
    """Stand for ``numpy.transpose``."""
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(axis_of(x, axis) for axis in axes)
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"axes {axes} do not name each of the {x.ndim} axes of shape {x.shape} once")
    if x.op == "transpose":
        inner: tuple[int, ...] = x.attributes[0]
        return transpose(x.inputs[0], tuple(inner[axis] for axis in axes))
    if axes == tuple(range(x.ndim)):
        return x
    return x.graph.make("transpose", [x], tuple(x.shape[axis] for axis in axes), x.kind, (axes,))


def slice_(x: Value, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int] | None = None) -> Value:
    """Take of each axis elements starts + steps * (0, ..., sizes - 1); steps may be negative, indices are from 0."""
    starts, sizes = tuple(map(int, starts)), tuple(map(int, sizes))
    steps = (1,) * x.ndim if steps is None else tuple(map(int, steps))
    if len({x.ndim, len(starts), len(sizes), len(steps)}) != 1:
        raise ShapeError(f"a slice of shape {x.shape} needs {x.ndim} starts, sizes and steps")
    for n, start, size, step in zip(x.shape, starts, sizes, steps, strict=True):
        if size < 0 or (size and not (0 <= start < n and 0 <= start + step * (size - 1) < n)):
            raise ShapeError(f"a slice of {size} from {start} by {step} leaves an axis of {n}")
    if sizes == x.shape and set(steps) <= {1}:
        return x
    return x.graph.make("slice", [x], sizes, x.kind, (starts, steps))


def pad(x: Value, shape: Shape, starts: Sequence[int], steps: Sequence[int] | None = None) -> Value:
    """Zeros of a shape with x where ``slice_(result, starts, x.shape, steps)`` finds it."""
    shape, starts = tuple(shape), tuple(map(int, starts))
    steps = (1,) * x.ndim if steps is None else tuple(map(int, steps))
    if shape == x.shape and set(steps) <= {1}:
        return x
    return x.graph.make("pad", [x], shape, x.kind, (starts, steps))


def concatenate(parts: Sequence[Value], axis: int) -> Value:
    """Stand for ``numpy.concatenate``."""
    first = parts[0]
    axis = axis_of(first, axis)
    for part in parts:
        if part.ndim != first.ndim or any(
            n != m for i, (n, m) in enumerate(zip(part.shape, first.shape, strict=True)) if i != axis
        ):
            raise ShapeError(f"shapes {', '.join(str(each.shape) for each in parts)} differ beside axis {axis}")
    if len(parts) == 1:
        return first
    shape = (*first.shape[:axis], sum(part.shape[axis] for part in parts), *first.shape[axis + 1 :])
    kind: Kind = first.kind if len({part.kind for part in parts}) == 1 else joined_kind(parts)
    return first.graph.make("concatenate", parts, shape, kind, (axis,))


def axis_of(x: Value, axis: int) -> int:
    """An axis counted from 0; ShapeError where there is none."""
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"axis {axis} is none of shape {x.shape}")
    return int(axis) % x.ndim


# along axes


def sum_(x: Value, axes: Sequence[int] | None = None) -> Value:
    """The sum over axes, which go; all by default. In a fixed order: 16 partial sums (index mod 16), then in pairs."""
    chosen = tuple(range(x.ndim)) if axes is None else tuple(sorted({axis_of(x, axis) for axis in axes}))
    if not chosen:
        return x
    if chosen[-1] - chosen[0] >= len(chosen):  # axes apart: the last that follow each other come first
        first = next(axis for axis in chosen if set(range(axis, chosen[-1] + 1)) <= set(chosen))
        return sum_(sum_(x, range(first, chosen[-1] + 1)), [axis for axis in chosen if axis < first])
    if x.ndim == 2 and x.kind == "real" and len(chosen) == 1 and x.size >= _WORTH_A_PRODUCT:
        terms = _products(x, chosen[0], 1)
        if terms is not None:
            return reduce(add, terms)
    if x.op == "multiply" and len(chosen) == 1 and x.size >= _WORTH_A_PRODUCT and _are_whole(x.inputs):
        first_factor, second_factor = x.inputs
        return inner(first_factor, second_factor, chosen[0])
    shape = tuple(n for axis, n in enumerate(x.shape) if axis not in chosen)
    return x.graph.make("sum", [x], shape, "real" if x.kind == "real" else "integer", (chosen,))


# Elements from which a sum of products with a vector is a matrix product of its own.
_WORTH_A_PRODUCT = 64


def _products(x: Value, axis: int, sign: int) -> list[Value] | None:
    """Products of matrices with vectors whose sum is that of x along an axis; None if x is not made of such."""
    if x.op == "negative":
        return _products(x.inputs[0], axis, -sign)
    if x.op in ("add", "subtract"):
        a, b = x.inputs
        first, second = _products(a, axis, sign), _products(b, axis, sign if x.op == "add" else -sign)
        return None if first is None or second is None else first + second
    if x.op != "multiply":
        return None
    for matrix, other in (x.inputs, x.inputs[::-1]):
        vector = other.inputs[0] if other.op == "broadcast" else other
        shape = (1,) * (2 - vector.ndim) + vector.shape
        if shape[axis] != x.shape[axis] or shape[1 - axis] != 1:
            continue  # it varies along the other axis too
        vector = vector if sign > 0 else negative(vector)
        y = product(matrix, reshape(vector, (-1, 1))) if axis else product(reshape(vector, (1, -1)), matrix)
        return [reshape(y, (-1,))]
    return None


def _are_whole(factors: Sequence[Value]) -> bool:
    return all(each.kind == "real" and each.op != "broadcast" for each in factors)


def inner(x: Value, y: Value, axis: int) -> Value:
    """The sum of x y over an axis, which goes; in the order of `sum_`, each partial sum a chain of multiply-adds."""
    shape = tuple(n for i, n in enumerate(x.shape) if i != axis)
    return x.graph.make("inner", [x, y], shape, "real", (axis,))


def max_(x: Value, axis: int) -> Value:
    """The largest along an axis, which goes; NaN where one is."""
    axis = axis_of(x, axis)
    return x.graph.make("max", [x], x.shape[:axis] + x.shape[axis + 1 :], x.kind, (axis,))


def argmax(x: Value, axis: int) -> Value:
    """The place of the first largest along an axis, which goes."""
    axis = axis_of(x, axis)
    return x.graph.make("argmax", [x], x.shape[:axis] + x.shape[axis + 1 :], "integer", (axis,))


def argsort(x: Value, axis: int) -> Value:
    """The places that sort an axis, stable; NaN last."""
    return x.graph.make("argsort", [x], x.shape, "integer", (axis_of(x, axis),))


def softmax(x: Value, axis: int) -> Value:
    """exp(x - max x) over its sum along an axis."""
    return x.graph.make("softmax", [as_real(x)], x.shape, "real", (axis_of(x, axis),))


def recurrence(a: Operand, b: Operand, axis: int, reverse: bool = False) -> Value:
    """y_i = a_i y_(i-1) + b_i along an axis, from y_0 = b_0 (a_0 is not read); with reverse from the end.

    Cumulative sums have a = 1; cumulative products b = (a_0, 0, 0, ...).
    """
    a, b = together(a, b)
    return a.graph.make("recurrence", [a, b], a.shape, joined_kind([a, b]), (axis_of(a, axis), reverse))


# by places that are computed


def gather(x: Value, index: Value, axis: int) -> Value:
    """Stand for ``numpy.take_along_axis``: both have as many axes, sizes alike beside the one."""
    axis = axis_of(x, axis)
    _check_beside(x, index, axis)
    return x.graph.make("gather", [x, index], index.shape, x.kind, (axis,))


def scatter(x: Value, index: Value, axis: int, size: int) -> Value:
    """The adjoint of ``gather``: zeros of `size` along the axis, to which x is added at its places, in order."""
    _check_beside(x, index, axis)
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return x.graph.make("scatter", [x, index], shape, x.kind, (axis, size))


def _check_beside(x: Value, index: Value, axis: int) -> None:
    if index.kind != "integer":
        raise ShapeError(f"expected integers for an index, got {index.kind} numbers")
    beside = [(n, m) for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=False)) if i != axis]
    if x.ndim != index.ndim or any(n != m for n, m in beside):
        raise ShapeError(f"an index of shape {index.shape} does not fit shape {x.shape} along axis {axis}")


def take(table: Value, index: Value) -> Value:
    """Stand for ``table[index]``: entries of the first axis, of shape index.shape + table.shape[1:]."""
    if index.kind != "integer" or not table.ndim:
        raise ShapeError(f"expected an integer index into an array with axes, got {index.kind} into {table.shape}")
    return table.graph.make("take", [table, index], index.shape + table.shape[1:], table.kind)


def put(x: Value, index: Value, size: int) -> Value:
    """The adjoint of ``take``: zeros [size, ...], to whose entries x is added, in order."""
    shape = (size, *x.shape[index.ndim :])
    return x.graph.make("put", [x, index], shape, x.kind, (size,))


# products


def product(a: Value, b: Value) -> Value:
    """[..., m, k] times [..., k, n] over the same leading axes, each sum one chain of multiply-adds by ascending k.

    With a vector, over 32 terms or more, it is 16 chains, added as those of `sum_`.
    """
    a, b = as_real(a), as_real(b)
    if a.ndim < 2 or b.ndim != a.ndim or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"shapes {a.shape} and {b.shape} do not fit a matrix product")
    return a.graph.make("product", [a, b], (*a.shape[:-1], b.shape[-1]))


def matmul(a: Value, b: Value) -> Value:
    """Stand for ``numpy.matmul``, with its rules for vectors and leading axes."""
    if not a.ndim or not b.ndim:
        raise ShapeError(f"a matrix product needs axes, got shapes {a.shape} and {b.shape}")
    left = a if a.ndim > 1 else reshape(a, (1, *a.shape))
    right = b if b.ndim > 1 else reshape(b, (*b.shape, 1))
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(f"shapes {a.shape} and {b.shape} do not fit a matrix product")
    try:
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ShapeError(f"shapes {a.shape} and {b.shape} do not fit a matrix product") from None
    if right.ndim == 2 and left.ndim > 2:  # one product with all rows of the left
        flat = product(reshape(left, (-1, left.shape[-1])), right)
        y = reshape(flat, (*left.shape[:-1], right.shape[-1]))
    else:
        y = product(broadcast(left, lead + left.shape[-2:]), broadcast(right, lead + right.shape[-2:]))
    shape = list(y.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return reshape(y, shape)


# chance, and the way up and down the levels


def uniform(graph: Graph, shape: Shape, stream: int) -> Value:
    """Random numbers in [0, 1) of each row and step, a function of seed, stream, row, step and place alone."""
    return graph.make("uniform", [], shape, "real", (stream,), Level.STEP)


def lift(x: Value, level: Level) -> Value:
    """x at a higher level, alike for all rows or steps, by a "broadcast" to its own shape."""
    return x if x.level >= level else x.graph.make("broadcast", [x], x.shape, x.kind, (), level)


def total(x: Value, level: Level) -> Value:
    """The sum over what lies between x's level and a lower one: over steps to ROW, over steps and rows to SHARED."""
    return x if x.level <= level else x.graph.make("total", [x], x.shape, x.kind, (), level)
