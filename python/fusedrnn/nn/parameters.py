"""Parameters, and the one buffer in which a network keeps all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fusedrnn.gradients import Array

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class Parameter:
    """A trained array and its gradient.

    Attributes:
        data: float32 or float64, C-contiguous. grad: same shape and dtype, zero at first. Both may be views into
            the buffers of a ``FlatParameters``: write into them (``p.data[...] = value``) rather than replace them.
    """

    __slots__ = ("data", "grad")

    def __init__(self, data: Array) -> None:
        if data.dtype not in (np.float32, np.float64):
            raise TypeError(f"data: expected dtype float32 or float64, got {data.dtype}")
        self.data: Array = np.ascontiguousarray(data)
        self.grad: Array = np.zeros_like(self.data)

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


def _aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)


class FlatParameters:
    """Moves parameters into one buffer, their gradients into another: the optimizer is one pass, zeroing one
    memset, a checkpoint one write.

    Args:
        parameters: all of one dtype, each given once. Their ``data`` and ``grad`` become views.

    Attributes:
        data, grad: 1-D, 64-byte aligned; every parameter starts on such a boundary and the gaps stay zero.

    Raises:
        ValueError: no parameters. TypeError: parameters of two dtypes.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        if not self.parameters:
            raise ValueError("parameters: expected at least one, got a model without any")
        dtypes = {p.data.dtype for p in self.parameters}
        if len(dtypes) > 1:
            names = " and ".join(sorted(map(str, dtypes)))
            raise TypeError(f"parameters: expected one dtype for all, got {names}")
        dtype = dtypes.pop()
        step = ALIGNMENT // dtype.itemsize
        starts = [0]
        for p in self.parameters:
            starts.append(starts[-1] + -(-p.data.size // step) * step)
        self.data = _aligned_zeros(starts[-1], dtype)
        self.grad = _aligned_zeros(starts[-1], dtype)
        for p, start in zip(self.parameters, starts, strict=False):
            part = slice(start, start + p.data.size)
            for name, buffer in (("data", self.data), ("grad", self.grad)):
                view = buffer[part].reshape(p.data.shape)
                view[...] = getattr(p, name)
                setattr(p, name, view)

    def holds(self, parameters: Iterable[Parameter]) -> bool:
        """Whether these are the parameters in the buffers, in this order, none of them re-bound since."""
        given = tuple(parameters)
        return (
            len(given) == len(self.parameters)
            and all(a is b for a, b in zip(given, self.parameters, strict=True))
            and all(np.may_share_memory(p.data, self.data) and np.may_share_memory(p.grad, self.grad) for p in given)
        )

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        self.grad.fill(0)
