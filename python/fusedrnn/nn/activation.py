"""Activation functions as layers, of arrays of any shape; names and meaning as in ``torch.nn``."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import ops
from fusedrnn.arrays import Array
from fusedrnn.nn.inputs import as_array
from fusedrnn.nn.module import Module


class _Elementwise(Module):
    """y = f(x), element by element; a subclass has ``_value`` and ``_slope``."""

    def forward(self, x: Array) -> Array:
        """Give f(x), of x's shape and dtype. TypeError: x is not real."""
        x = as_array("x", x)
        if x.dtype.kind != "f":
            raise TypeError(f"x: expected real numbers, got {x.dtype}")
        y: Array = np.asarray(self._value(x), x.dtype)
        self._push(self._kept(x, y))
        return y

    def backward(self, dy: Array) -> Array:
        """Give dx of dy, both of x's shape."""
        kept = self._pop()
        dy = np.asarray(dy)
        if dy.shape != kept.shape:
            self._saved.append(kept)
            raise ValueError(f"dy: expected shape {kept.shape}, got {dy.shape}")
        return np.asarray(dy * self._slope(kept), dy.dtype)

    def _kept(self, x: Array, y: Array) -> Array:
        """Choose what backward needs: y, where the slope follows from it; a copy, as callers may change theirs."""
        return np.array(y)

    def _value(self, x: Array) -> Any:
        raise NotImplementedError

    def _slope(self, kept: Array) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        options = ", ".join(f"{value:g}" for value in self._options())
        return f"{type(self).__name__}({options})"

    def _options(self) -> tuple[float, ...]:
        return ()


class Tanh(_Elementwise):
    """tanh(x)."""

    def _value(self, x: Array) -> Any:
        return np.tanh(x)

    def _slope(self, kept: Array) -> Any:
        return 1 - kept * kept


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))."""

    def _value(self, x: Array) -> Any:
        return ops.sigmoid(x)

    def _slope(self, kept: Array) -> Any:
        return kept * (1 - kept)


class ReLU(_Elementwise):
    """max(x, 0), whose slope at zero is zero."""

    def _value(self, x: Array) -> Any:
        return np.maximum(x, 0)

    def _slope(self, kept: Array) -> Any:
        return kept > 0


class LeakyReLU(_Elementwise):
    """x above zero, ``negative_slope`` x below (Maas et al. 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)

    def _value(self, x: Array) -> Any:
        return np.where(x > 0, x, self.negative_slope * x)

    def _kept(self, x: Array, y: Array) -> Array:
        return np.array(x)

    def _slope(self, kept: Array) -> Any:
        return np.where(kept > 0, kept.dtype.type(1), kept.dtype.type(self.negative_slope))

    def _options(self) -> tuple[float, ...]:
        return (self.negative_slope,)


class ELU(_Elementwise):
    """x above zero, ``alpha`` (exp(x) - 1) below (Clevert et al. 2016, arXiv:1511.07289)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = float(alpha)

    def _value(self, x: Array) -> Any:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def _kept(self, x: Array, y: Array) -> Array:
        return np.array(x)

    def _slope(self, kept: Array) -> Any:
        return np.where(kept > 0, kept.dtype.type(1), self.alpha * np.exp(np.minimum(kept, 0)))

    def _options(self) -> tuple[float, ...]:
        return (self.alpha,)


class SiLU(_Elementwise):
    """x σ(x) (Elfwing et al. 2018, arXiv:1702.03118)."""

    def _value(self, x: Array) -> Any:
        return x * ops.sigmoid(x)

    def _kept(self, x: Array, y: Array) -> Array:
        return np.array(x)

    def _slope(self, kept: Array) -> Any:
        s = ops.sigmoid(kept)
        return s + kept * (s * (1 - s))


class Softplus(_Elementwise):
    """log(1 + exp(x))."""

    def _value(self, x: Array) -> Any:
        return ops.softplus(x)

    def _kept(self, x: Array, y: Array) -> Array:
        return np.array(x)

    def _slope(self, kept: Array) -> Any:
        return ops.sigmoid(kept)


class Softmax(Module):
    """exp(x) over its sum along an axis.

    Args:
        dim: The axis. A loss that starts from logits needs none: see `CrossEntropyLoss`.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Array) -> Array:
        """Give shares that add up to 1, of x's shape."""
        y: Array = ops.softmax(as_array("x", x), axis=self.dim)
        self._push(y.copy())
        return y

    def backward(self, dy: Array) -> Array:
        """Give dx of dy."""
        y = self._pop()
        dx: Array = y * (dy - np.sum(dy * y, axis=self.dim, keepdims=True))
        return dx

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim})"


class LogSoftmax(Module):
    """The logarithm of `Softmax`, without overflow.

    Args:
        dim: The axis.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Array) -> Array:
        """Give logarithms of shares, of x's shape."""
        y: Array = ops.log_softmax(as_array("x", x), axis=self.dim)
        self._push(np.exp(y))
        return y

    def backward(self, dy: Array) -> Array:
        """Give dx of dy."""
        share = self._pop()
        dx: Array = dy - share * np.sum(dy, axis=self.dim, keepdims=True)
        return dx

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim})"
