"""Dual numbers over NumPy arrays: forward-mode differentiation, exact to rounding (Clifford 1873; Wengert 1964).

A dual array is value + tangent e with e^2 = 0. Functions written in NumPy take it in place of an array and return
their value and their derivative along the tangent; ``fusedrnn.reference`` is such code, so that its forward gives
Jacobian-vector products and its backward second derivatives. An operation without a rule here is a TypeError, never
a wrong derivative. Code allocates with ``np.empty(shape, dtype, like=x)``, which makes a dual array of a dual x.

At kinks the slope is the one that the library's backward has: maximum(a, 0) has slope 0 at a = 0. |a| has slope 1
there, the side that ``a >= 0`` chooses, so that a sigmoid written with |a| is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# For each operand the slope of y = f(a) or y = f(a, b), from (y, a) or (y, a, b); called for dual operands only.
_SLOPES: dict[Any, tuple[Callable[..., Any], ...]] = {
    np.positive: (lambda y, a: 1,),
    np.negative: (lambda y, a: -1,),
    np.add: (lambda y, a, b: 1, lambda y, a, b: 1),
    np.subtract: (lambda y, a, b: 1, lambda y, a, b: -1),
    np.multiply: (lambda y, a, b: b, lambda y, a, b: a),
    np.true_divide: (lambda y, a, b: 1 / b, lambda y, a, b: -y / b),
    np.power: (lambda y, a, b: b * a ** (b - 1), lambda y, a, b: y * np.log(a)),
    np.square: (lambda y, a: 2 * a,),
    np.sqrt: (lambda y, a: 0.5 / y,),
    np.reciprocal: (lambda y, a: -y * y,),
    np.exp: (lambda y, a: y,),
    np.expm1: (lambda y, a: y + 1,),
    np.log: (lambda y, a: 1 / a,),
    np.log1p: (lambda y, a: 1 / (1 + a),),
    np.logaddexp: (lambda y, a, b: np.exp(a - y), lambda y, a, b: np.exp(b - y)),
    np.tanh: (lambda y, a: 1 - y * y,),
    np.absolute: (lambda y, a: np.sign(a) + (a == 0),),
    np.maximum: (lambda y, a, b: a > b, lambda y, a, b: a <= b),
    np.minimum: (lambda y, a, b: a < b, lambda y, a, b: a >= b),
}
_BILINEAR = {np.matmul, np.dot, np.einsum}
# Piecewise constant: no derivative, so that the result is a plain array.
_CONSTANT = {
    np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isnan, np.isfinite, np.sign,
    np.shape, np.ndim, np.size,
}  # fmt: skip
_LINEAR = {
    np.concatenate, np.stack, np.split, np.reshape, np.ravel, np.transpose, np.swapaxes, np.moveaxis, np.squeeze,
    np.expand_dims, np.broadcast_to, np.flip, np.repeat, np.take, np.sum, np.mean, np.where, np.copy,
}  # fmt: skip
_LINEAR_METHODS = {
    "astype", "copy", "mean", "ravel", "repeat", "reshape", "squeeze", "sum", "swapaxes", "take", "transpose",
}  # fmt: skip
_NEW = {np.empty, np.zeros, np.ones, np.full, np.empty_like, np.zeros_like, np.ones_like, np.full_like}


def value_of(a: Any) -> Any:
    """The value of a dual array, or what it is of anything else."""
    return a.value if isinstance(a, Dual) else a


def tangent_of(a: Any) -> Any:
    """The tangent of a dual array, or zeros for a plain one; Python's numbers, which have no dtype, give another."""
    if isinstance(a, Dual):
        return a.tangent
    return 0 if isinstance(a, (int, float)) else np.zeros_like(a)


def _parts(argument: Any, part: Callable[[Any], Any]) -> Any:
    """``part`` of a dual argument, or of every member of a sequence with a dual one; anything else as it is."""
    if isinstance(argument, Dual):
        return part(argument)
    if isinstance(argument, (list, tuple)) and any(isinstance(member, Dual) for member in argument):
        return [part(member) for member in argument]
    return argument


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """value + tangent e, both arrays of one shape and dtype."""

    __slots__ = ("tangent", "value")

    def __init__(self, value: Any, tangent: Any) -> None:
        self.value, self.tangent = value, tangent

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.value)

    @property
    def ndim(self) -> int:
        return np.ndim(self.value)

    @property
    def size(self) -> int:
        return np.size(self.value)

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def T(self) -> Dual:
        return Dual(self.value.T, self.tangent.T)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Dual:
        return Dual(self.value[index], self.tangent[index])

    def __setitem__(self, index: Any, new: Any) -> None:
        self.value[index] = value_of(new)
        self.tangent[index] = new.tangent if isinstance(new, Dual) else 0

    def __getattr__(self, name: str) -> Any:
        if name in ("var", "clip"):
            return lambda *args, **keywords: getattr(np, name)(self, *args, **keywords)
        if name not in _LINEAR_METHODS:
            raise AttributeError(f"a dual array has no {name}: differentiation/dual.py holds no rule for it")
        value, tangent = getattr(self.value, name), getattr(self.tangent, name)
        return lambda *args, **keywords: Dual(value(*args, **keywords), tangent(*args, **keywords))

    def __array__(self, *args: Any, **keywords: Any) -> Any:
        raise TypeError("a dual array fits into no plain one: allocate as in np.empty(shape, dtype, like=x)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **keywords: Any) -> Any:
        if method != "__call__" or keywords:
            raise TypeError(f"{ufunc.__name__}.{method} with {sorted(keywords)}: no rule for dual arrays")
        values = [value_of(a) for a in inputs]
        if ufunc in _CONSTANT:
            return ufunc(*values)
        if ufunc in _BILINEAR:
            result = self._bilinear(ufunc, *inputs)
        elif ufunc in _SLOPES:
            y = ufunc(*values)
            tangent = np.zeros_like(y)
            for slope, operand in zip(_SLOPES[ufunc], inputs, strict=True):
                if isinstance(operand, Dual):
                    tangent = tangent + slope(y, *values) * operand.tangent
            result = Dual(y, tangent.astype(y.dtype))
        else:
            raise TypeError(f"{ufunc.__name__}: no rule for dual arrays")
        if out is None:
            return result
        if not isinstance(out[0], Dual):
            return self.__array__()
        out[0][...] = result
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        values = [_parts(a, value_of) for a in args]
        if function in _CONSTANT:
            return function(*values, **keywords)
        if function in _NEW:
            new = function(*values, **keywords)
            return Dual(new, np.zeros_like(new))
        if function in _BILINEAR:
            return self._bilinear(function, *args, **keywords)
        if function is np.var:
            a, *rest = args
            deviation = a - np.mean(a, *rest, **{**keywords, "keepdims": True})
            return np.mean(deviation * deviation, *rest, **keywords)
        if function is np.clip:
            a, low, high = args
            return np.where((a < low) | (a > high), np.clip(value_of(a), low, high), a)
        if function not in _LINEAR:
            raise TypeError(f"np.{function.__name__}: no rule for dual arrays")
        if function is np.where:
            tangents = [args[0], *(tangent_of(a) for a in args[1:])]
        else:
            tangents = [_parts(a, tangent_of) for a in args]
        value, tangent = function(*values, **keywords), function(*tangents, **keywords)
        if isinstance(value, list):
            return [Dual(v, t) for v, t in zip(value, tangent, strict=True)]
        return Dual(value, tangent)

    @staticmethod
    def _bilinear(function: Any, *operands: Any, **keywords: Any) -> Dual:
        """The product rule: the sum over dual operands of the product with the tangent in that one's place."""
        values = [value_of(a) for a in operands]
        y = function(*values, **keywords)
        tangent = np.zeros_like(y)
        for k, operand in enumerate(operands):
            if isinstance(operand, Dual):
                replaced = [*values[:k], operand.tangent, *values[k + 1 :]]
                tangent = tangent + function(*replaced, **keywords)
        return Dual(y, tangent)
