"""These functions stand for NumPy's ufuncs while a step is traced, by their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan import instructions as ins
from fusedrnn.scan.contractions import matmul
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import UFUNCS, refused
from fusedrnn.scan.traced import lift

_MOST = 1 << 20  # powers up to this one by repeated squares


def ufunc(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what stands for the ufuncs of these names."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        UFUNCS.update(dict.fromkeys(names, implementation))
        return implementation

    return register


def known(value: Value) -> Array | None:
    """The array of a constant."""
    return value.graph.arrays[value.attributes[0]] if value.op == "constant" else None


def real(value: Value) -> Value:
    """Real numbers; a constant stays a constant."""
    array = known(value)
    if array is None or value.kind == "real":
        return ins.as_real(value)
    return value.graph.constant(array.astype(np.float64))


def number(value: Value) -> Value:
    """Booleans as integers; numbers as they are."""
    return ins.as_integer(value) if value.kind == "boolean" else value


def alike(*values: Value) -> list[Value]:
    """Values of one kind, as NumPy promotes them: real beside a real, else integer, unless all are booleans."""
    kinds = {value.kind for value in values}
    if len(kinds) == 1:
        return list(values)
    return [real(value) if "real" in kinds else number(value) for value in values]


def _unary(op: str) -> Callable[[Any], Value]:
    return lambda x: ins.unary(op, real(lift(x)))


def _keeping(op: str) -> Callable[[Any], Value]:
    """An instruction that gives integers for integers."""

    def call(x: Any) -> Value:
        value = lift(x)
        if value.kind == "boolean":
            if op in ("negative", "sign"):
                raise refused(f"np.{op} of booleans", "Write ~a, or a.astype(float)")
            return value
        return ins.unary(op, value)

    return call


def _arithmetic(op: str, of_booleans: str | None) -> Callable[[Any, Any], Value]:
    def call(a: Any, b: Any) -> Value:
        x, y = alike(lift(a), lift(b))
        if x.kind != "boolean":
            return ins.binary(op, x, y)
        if of_booleans is None:
            raise refused(f"np.{op} of booleans", "Write a ^ b, or a.astype(float)")
        return ins.logical(of_booleans, x, y)

    return call


def _comparison(op: str, swapped: bool = False) -> Callable[[Any, Any], Value]:
    def call(a: Any, b: Any) -> Value:
        x, y = alike(lift(a), lift(b))
        if x.kind == "boolean" and op in ("less", "less_equal"):
            x, y = number(x), number(y)
        return ins.compare(op, y, x) if swapped else ins.compare(op, x, y)

    return call


def _logical(op: str) -> Callable[..., Value]:
    return lambda *operands: ins.logical(op, *map(lift, operands))


def _bitwise(op: str, symbol: str) -> Callable[..., Value]:
    def call(*operands: Any) -> Value:
        values = [lift(operand) for operand in operands]
        if any(value.kind != "boolean" for value in values):
            raise refused(f"the operator {symbol} over numbers", f"{symbol} takes booleans, such as (a > 0)")
        return ins.logical(op, *values)

    return call


for _name in ("sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "reciprocal"):
    UFUNCS[_name] = _unary(_name)
UFUNCS["expit"] = _unary("sigmoid")  # of scipy.special
for _name in ("negative", "square", "absolute", "sign", "floor"):
    UFUNCS[_name] = _keeping(_name)
for _name, _of_booleans in (
    *(("add", "logical_or"), ("subtract", None), ("multiply", "logical_and")),
    *(("maximum", "logical_or"), ("minimum", "logical_and")),
):
    UFUNCS[_name] = _arithmetic(_name, _of_booleans)
for _name in ("less", "less_equal", "equal", "not_equal"):
    UFUNCS[_name] = _comparison(_name)
UFUNCS["greater"] = _comparison("less", swapped=True)
UFUNCS["greater_equal"] = _comparison("less_equal", swapped=True)
for _name in ("logical_and", "logical_or", "logical_not"):
    UFUNCS[_name] = _logical(_name)
UFUNCS["bitwise_and"] = _bitwise("logical_and", "&")
UFUNCS["bitwise_or"] = _bitwise("logical_or", "|")
UFUNCS["invert"] = _bitwise("logical_not", "~")
UFUNCS["matmul"] = lambda a, b: matmul(lift(a), lift(b))


@ufunc("divide", "true_divide")
def divide(a: Any, b: Any) -> Value:
    """Stand for ``numpy.divide``: always real."""
    return ins.divide(real(lift(a)), real(lift(b)))


@ufunc("positive", "conjugate")
def _positive(x: Any) -> Value:
    return lift(x)


@ufunc("fabs")
def _fabs(x: Any) -> Value:
    return ins.unary("absolute", real(lift(x)))


@ufunc("floor_divide")
def floor_divide(a: Any, b: Any) -> Value:
    """Stand for ``numpy.floor_divide``."""
    return _floor_divide(*alike(*map(number, (lift(a), lift(b)))))


@ufunc("remainder")
def remainder(a: Any, b: Any) -> Value:
    """Stand for ``numpy.remainder``, with the sign of b: a - b floor(a / b)."""
    x, y = alike(*map(number, (lift(a), lift(b))))
    return ins.subtract(x, ins.multiply(y, _floor_divide(x, y)))


@ufunc("divmod")
def divmod_(a: Any, b: Any) -> tuple[Value, Value]:
    """Stand for ``numpy.divmod``."""
    return floor_divide(a, b), remainder(a, b)


def _floor_divide(x: Value, y: Value) -> Value:
    quotient = _floor(ins.divide(real(x), real(y)))
    return quotient if x.kind == "real" else ins.as_integer(quotient)


def _floor(x: Value) -> Value:
    return ins.unary("floor", x)


def _ceil(x: Value) -> Value:
    return ins.negative(_floor(ins.negative(x)))


@ufunc("ceil")
def ceil(x: Any) -> Value:
    """Stand for ``numpy.ceil``."""
    value = lift(x)
    return _ceil(value) if value.kind == "real" else value


@ufunc("trunc")
def trunc(x: Any) -> Value:
    """Stand for ``numpy.trunc``."""
    value = lift(x)
    if value.kind != "real":
        return value
    return ins.where(ins.compare("less", value, 0.0), _ceil(value), _floor(value))


@ufunc("rint")
def rint(x: Any) -> Value:
    """Stand for ``numpy.rint``: halves go to the even neighbour. Always real."""
    value = lift(x)
    if value.kind != "real":
        return real(value)
    half = ins.compare("equal", ins.subtract(value, _floor(value)), 0.5)
    even = ins.multiply(_floor(ins.add(ins.multiply(value, 0.5), 0.5)), 2.0)
    return ins.where(half, even, _floor(ins.add(value, 0.5)))


@ufunc("logical_xor", "bitwise_xor")
def exclusive_or(a: Any, b: Any) -> Value:
    """Stand for ``numpy.logical_xor``."""
    x, y = (ins.logical("logical_not", lift(each)) for each in (a, b))
    return ins.compare("not_equal", x, y)


@ufunc("isnan")
def isnan(x: Any) -> Value:
    """Stand for ``numpy.isnan``: a number that differs from itself."""
    value = lift(x)
    return ins.compare("not_equal", value, value)


@ufunc("isfinite")
def isfinite(x: Any) -> Value:
    """Stand for ``numpy.isfinite``."""
    return ins.compare("less", ins.unary("absolute", real(lift(x))), math.inf)


@ufunc("isinf")
def isinf(x: Any) -> Value:
    """Stand for ``numpy.isinf``."""
    return ins.compare("equal", ins.unary("absolute", real(lift(x))), math.inf)


@ufunc("exp2")
def exp2(x: Any) -> Value:
    """2 ** x."""
    return ins.unary("exp", ins.multiply(real(lift(x)), math.log(2)))


@ufunc("log2")
def log2(x: Any) -> Value:
    """The logarithm to base 2."""
    return ins.divide(ins.unary("log", real(lift(x))), math.log(2))


@ufunc("log10")
def log10(x: Any) -> Value:
    """The logarithm to base 10."""
    return ins.divide(ins.unary("log", real(lift(x))), math.log(10))


@ufunc("tan")
def tan(x: Any) -> Value:
    """sin x / cos x."""
    value = real(lift(x))
    return ins.divide(ins.unary("sin", value), ins.unary("cos", value))


@ufunc("sinh")
def sinh(x: Any) -> Value:
    """(u + u / (u + 1)) / 2 with u = expm1 x, which is exact near zero too."""
    u = ins.unary("expm1", real(lift(x)))
    return ins.multiply(ins.add(u, ins.divide(u, ins.add(u, 1.0))), 0.5)


@ufunc("cosh")
def cosh(x: Any) -> Value:
    """(exp x + exp -x) / 2."""
    value = real(lift(x))
    return ins.multiply(ins.add(ins.unary("exp", value), ins.unary("exp", ins.negative(value))), 0.5)


@ufunc("hypot")
def hypot(a: Any, b: Any) -> Value:
    """The root of a² + b²."""
    x, y = (ins.unary("square", real(lift(each))) for each in (a, b))
    return ins.unary("sqrt", ins.add(x, y))


@ufunc("logaddexp")
def logaddexp(a: Any, b: Any) -> Value:
    """log(exp a + exp b) = max(a, b) + softplus(-|a - b|); infinities that are equal differ by nothing."""
    x, y = (real(lift(each)) for each in (a, b))
    difference = ins.where(ins.compare("equal", x, y), 0.0, ins.subtract(x, y))
    beyond = ins.unary("softplus", ins.negative(ins.unary("absolute", difference)))
    return ins.add(ins.binary("maximum", x, y), beyond)


@ufunc("log_expit")
def log_expit(x: Any) -> Value:
    """The logarithm of scipy.special.expit: -softplus(-x)."""
    return ins.negative(ins.unary("softplus", ins.negative(real(lift(x)))))


@ufunc("logit")
def logit(x: Any) -> Value:
    """The inverse of scipy.special.expit: log(x / (1 - x))."""
    value = real(lift(x))
    return ins.unary("log", ins.divide(value, ins.subtract(1.0, value)))


@ufunc("power", "float_power")
def power(a: Any, b: Any) -> Value:
    """Stand for ``numpy.power``. Constant integers by products, ±0.5 by the root, all else as exp(b log a)."""
    base, exponent = lift(a), lift(b)
    array = known(exponent)
    if array is not None and array.size and (array == array.flat[0]).all():
        shape = np.broadcast_shapes(base.shape, array.shape)
        n = float(array.flat[0])
        if n.is_integer() and abs(n) <= _MOST:
            if n < 0 and base.kind != "real" and exponent.kind != "real":
                raise refused("integers to negative powers", "Write a.astype(float) ** b")
            start = real(base) if exponent.kind == "real" else number(base)
            product = ins.broadcast(_product(start, abs(int(n))), shape)
            return ins.unary("reciprocal", product) if n < 0 else product
        if abs(n) == 0.5:
            root = ins.broadcast(ins.unary("sqrt", real(base)), shape)
            return root if n > 0 else ins.unary("reciprocal", root)
    of = known(base)
    if of is not None and of.size and (of > 0).all():
        result = ins.unary("exp", ins.multiply(real(exponent), base.graph.constant(np.log(of))))
        return result if "real" in (base.kind, exponent.kind) else ins.as_integer(_floor(ins.add(result, 0.5)))
    if exponent.kind != "real":
        raise refused(
            "integer exponents that are no single constant",
            "Write np.exp(n * np.log(a)) where a is positive, or the product itself",
        )
    return ins.unary("exp", ins.multiply(exponent, ins.unary("log", real(base))))


def _product(x: Value, n: int) -> Value:
    """The n-th power by repeated squares."""
    if n == 0:
        return ins.broadcast(x.graph.constant(1.0 if x.kind == "real" else 1), x.shape)
    half = x if n == 1 else _product(x, n // 2)
    if n == 1:
        return half
    square = ins.unary("square", half)
    return ins.multiply(square, x) if n % 2 else square
