"""The derivative of each instruction, written in the same instructions, so that derivatives have derivatives.

`contribution(value, g, place)` is what value's gradient g adds to the gradient of its operand at that place. Ties and
edges, where there is no derivative or more than one:

- the largest along an axis: its gradient goes in equal shares to all that are largest;
- maximum and minimum of equal numbers: half to each;
- relu: 0 at 0. absolute: 0 at 0. sqrt at 0: g / 0, infinity (NaN for g = 0);
- where: the gradient is selected, not multiplied by a mask, so that infinities and NaN do not reach the branch that was
  not taken; the condition has none;
- comparisons, argsort, argmax, floor, sign, integers and booleans, random numbers, stop_gradient: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fusedrnn.scan import instructions as to
from fusedrnn.scan.graph import Value
from fusedrnn.scan.instructions import add, divide, multiply, negative, subtract, unary

# (value, its gradient, the operand's place) -> a term of that operand's gradient
Rule: TypeAlias = Callable[[Value, Value, int], "Value | None"]

NO_GRADIENT = frozenset(
    (
        *(*to.COMPARISONS, *to.LOGICAL, "sign", "floor", "argmax", "argsort"),
        *("as_real", "as_integer", "stop_gradient", "leaf", "constant", "uniform"),
    )
)


def contribution(value: Value, g: Value, place: int) -> Value | None:
    """What the gradient g of a value adds to that of its operand at a place; None for nothing."""
    if value.op in NO_GRADIENT or value.kind != "real" or value.inputs[place].kind != "real":
        return None
    if g.op == "negative" and value.inputs[place].size <= value.size:  # a minus costs least where values are small
        term = RULES[value.op](value, g.inputs[0], place)
        return term and minus(term)
    return RULES[value.op](value, g, place)


def minus(x: Value) -> Value:
    """-x; of a negative the value that it is of."""
    return x.inputs[0] if x.op == "negative" else negative(x)


def uniform_constant(value: Value) -> float | None:
    """The number that a value is in all its elements, where it is known now."""
    while value.op in ("broadcast", "reshape"):
        value = value.inputs[0]
    if value.op != "constant" or not value.size:
        return None
    array = value.graph.arrays[value.attributes[0]]
    first = array.flat[0]
    return float(first) if value.size == 1 or np.all(array == first) else None


# element by element


def _times(g: Value, factor: float) -> Value:
    """g times a number, before g is spread over a larger shape."""
    if factor == 1:
        return g
    if g.op == "broadcast":
        return to.broadcast(_times(g.inputs[0], factor), g.shape)
    if g.op == "reshape":
        return to.reshape(_times(g.inputs[0], factor), g.shape)
    return minus(g) if factor == -1 else multiply(g, factor)


def _unary(rule: Callable[[Value, Value, Value], Value]) -> Rule:
    """A rule over (g, x, v)."""
    return lambda value, g, place: rule(g, value.inputs[0], value)


def _subtract(value: Value, g: Value, place: int) -> Value:
    return minus(g) if place else g


def _multiply(value: Value, g: Value, place: int) -> Value | None:
    """The other factor times g; of a square both terms at once."""
    x, factor = value.inputs[place], value.inputs[1 - place]
    if x is factor:
        return None if place else multiply(_times(g, 2.0), x)
    known = uniform_constant(factor)
    return multiply(g, factor) if known is None else _times(g, known)


def _divide(value: Value, g: Value, place: int) -> Value:
    share = divide(g, value.inputs[1])
    return negative(multiply(share, value)) if place else share


def _extreme(value: Value, g: Value, place: int) -> Value:
    """All where this operand alone is taken, half where they are equal, nothing beside NaN."""
    a, b = value.inputs[place], value.inputs[1 - place]
    alone = to.compare("less", b, a) if value.op == "maximum" else to.compare("less", a, b)
    shared = to.where(to.compare("equal", *value.inputs), _times(g, 0.5), 0.0)
    return to.where(alone, g, shared)


def _tanh_gradient(value: Value, g: Value, place: int) -> Value:
    g0, v = value.inputs
    if not place:
        return to.binary("tanh_gradient", g, v)
    return multiply(multiply(multiply(g, g0), v), -2.0)


def _sigmoid_gradient(value: Value, g: Value, place: int) -> Value:
    g0, v = value.inputs
    if not place:
        return to.binary("sigmoid_gradient", g, v)
    return multiply(multiply(g, g0), subtract(1.0, multiply(v, 2.0)))


def _where(value: Value, g: Value, place: int) -> Value:
    condition = value.inputs[0]
    return to.where(condition, g, 0.0) if place == 1 else to.where(condition, 0.0, g)


# the same elements elsewhere


def _broadcast(value: Value, g: Value, place: int) -> Value:
    (x,) = value.inputs
    new = value.ndim - x.ndim
    axes = [*range(new), *(new + axis for axis, n in enumerate(x.shape) if n != value.shape[new + axis])]
    return to.reshape(to.sum_(g, axes), x.shape)


def _reshape(value: Value, g: Value, place: int) -> Value:
    return to.reshape(g, value.inputs[0].shape)


def _transpose(value: Value, g: Value, place: int) -> Value:
    return _transposed(g, np.argsort(value.attributes[0]).tolist())


def _transposed(g: Value, axes: list[int]) -> Value:
    """The same as a product of the factors exchanged, where g is one, or a sum of such: nothing must be moved then."""
    if axes == [1, 0] and g.op == "product":
        a, b = g.inputs
        return to.product(exchanged(b), exchanged(a))
    if axes == [1, 0] and g.op == "add" and any(each.op == "product" for each in g.inputs):
        return add(*(_transposed(each, axes) for each in g.inputs))
    return to.transpose(g, axes)


def _slice(value: Value, g: Value, place: int) -> Value:
    starts, steps = value.attributes
    return to.pad(g, value.inputs[0].shape, starts, steps)


def _pad(value: Value, g: Value, place: int) -> Value:
    starts, steps = value.attributes
    return to.slice_(g, starts, value.inputs[0].shape, steps)


def _concatenate(value: Value, g: Value, place: int) -> Value:
    (axis,) = value.attributes
    starts = [0] * value.ndim
    starts[axis] = sum(part.shape[axis] for part in value.inputs[:place])
    return to.slice_(g, starts, value.inputs[place].shape)


# along axes


def _spread(x: Value, axes: tuple[int, ...], like: Value) -> Value:
    """What a reduction of `like` over axes gave, again in all the places that it came from."""
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(like.shape))
    return to.broadcast(to.reshape(x, kept), like.shape)


def _sum(value: Value, g: Value, place: int) -> Value:
    return _spread(g, value.attributes[0], value.inputs[0])


def _inner(value: Value, g: Value, place: int) -> Value | None:
    """The other factor times the gradient; of a square both terms at once."""
    x, factor = value.inputs[place], value.inputs[1 - place]
    if x is factor:
        return None if place else multiply(_spread(_times(g, 2.0), value.attributes, x), x)
    return multiply(_spread(g, value.attributes, x), factor)


def _max(value: Value, g: Value, place: int) -> Value:
    x = value.inputs[0]
    largest = to.compare("equal", x, _spread(value, value.attributes, x))
    share = divide(g, to.as_real(to.sum_(largest, value.attributes)))
    return to.where(largest, _spread(share, value.attributes, x), 0.0)


def _softmax(value: Value, g: Value, place: int) -> Value:
    axes = value.attributes
    return multiply(value, subtract(g, _spread(to.sum_(multiply(g, value), axes), axes, value)))


def _recurrence(value: Value, g: Value, place: int) -> Value:
    """The recurrence that runs the other way; its sums times y of the place before are the gradient of a."""
    axis, reverse = value.attributes
    a = value.inputs[0]
    sums = to.recurrence(_moved(a, axis, back=not reverse), g, axis, not reverse)
    return sums if place else multiply(sums, _moved(value, axis, back=reverse))


def _moved(x: Value, axis: int, back: bool) -> Value:
    """The elements moved one place to the start (back) or the end of an axis, a zero in the place that is left.

    A recurrence does not read the factor in that place, so that factors of 1 may stay as they are.
    """
    if uniform_constant(x) == 1:
        return x
    starts = [0] * x.ndim
    kept = (*x.shape[:axis], max(x.shape[axis] - 1, 0), *x.shape[axis + 1 :])
    one = [int(i == axis) for i in range(x.ndim)]
    return to.pad(to.slice_(x, one if back else starts, kept), x.shape, starts if back else one)


# by places that are computed


def _gather(value: Value, g: Value, place: int) -> Value:
    (axis,) = value.attributes
    x, index = value.inputs
    return to.scatter(g, index, axis, x.shape[axis])


def _scatter(value: Value, g: Value, place: int) -> Value:
    return to.gather(g, value.inputs[1], value.attributes[0])


def _take(value: Value, g: Value, place: int) -> Value:
    table, index = value.inputs
    return to.put(g, index, table.shape[0])


def _put(value: Value, g: Value, place: int) -> Value:
    return to.take(g, value.inputs[1])


# products and totals


def exchanged(x: Value) -> Value:
    """Exchange the last two axes: a view of a vector, a transpose of a matrix."""
    if 1 in x.shape[-2:]:
        return to.reshape(x, (*x.shape[:-2], x.shape[-1], x.shape[-2]))
    return to.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _product(value: Value, g: Value, place: int) -> Value:
    a, b = value.inputs
    return to.product(exchanged(a), g) if place else to.product(g, exchanged(b))


def _through(value: Value, g: Value, place: int) -> Value:
    """A total's gradient is that of all that it adds: a value of a lower level serves at a higher one."""
    return g


RULES: dict[str, Rule] = {
    "negative": _unary(lambda g, x, v: minus(g)),
    "reciprocal": _unary(lambda g, x, v: negative(multiply(g, unary("square", v)))),
    "square": _unary(lambda g, x, v: multiply(_times(g, 2.0), x)),
    "sqrt": _unary(lambda g, x, v: divide(_times(g, 0.5), v)),
    "exp": _unary(lambda g, x, v: multiply(g, v)),
    "expm1": _unary(lambda g, x, v: multiply(g, add(v, 1.0))),
    "log": _unary(lambda g, x, v: divide(g, x)),
    "log1p": _unary(lambda g, x, v: divide(g, add(x, 1.0))),
    "sin": _unary(lambda g, x, v: multiply(g, unary("cos", x))),
    "cos": _unary(lambda g, x, v: negative(multiply(g, unary("sin", x)))),
    "tanh": _unary(lambda g, x, v: to.binary("tanh_gradient", g, v)),
    "sigmoid": _unary(lambda g, x, v: to.binary("sigmoid_gradient", g, v)),
    "softplus": _unary(lambda g, x, v: multiply(g, unary("sigmoid", x))),
    "relu": _unary(lambda g, x, v: to.where(to.compare("less", 0.0, x), g, 0.0)),
    "absolute": _unary(lambda g, x, v: multiply(g, unary("sign", x))),
    "add": _through,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "maximum": _extreme,
    "minimum": _extreme,
    "tanh_gradient": _tanh_gradient,
    "sigmoid_gradient": _sigmoid_gradient,
    "where": _where,
    "broadcast": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "sum": _sum,
    "inner": _inner,
    "max": _max,
    "softmax": _softmax,
    "recurrence": _recurrence,
    "gather": _gather,
    "scatter": _scatter,
    "take": _take,
    "put": _put,
    "product": _product,
    "total": _through,
}
