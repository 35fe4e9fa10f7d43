"""The arguments that say where rows begin and end: lengths, batch_sizes and resets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array


def read_sequences(lengths: Any, batch_sizes: Any, resets: Any) -> tuple[Array | None, Array | None, Array | None]:
    """The three as arrays that the compiled module takes: copies, for the caller may fill theirs anew before backward,
    and another thread even while the call runs."""
    return _integers("lengths", lengths), _integers("batch_sizes", batch_sizes), _booleans("resets", resets)


def check_batch_sizes(sizes: Sequence[int], rows: int) -> None:
    """The compiled module's errors for Python's integers, before anything is made that is as large as they say."""
    for step, size in enumerate(sizes):
        if size < 1 or (step and size > sizes[step - 1]):
            raise ValueError(f"batch_sizes: expected positive numbers that never increase, got {size} for step {step}")
    if sum(sizes) != rows:
        raise ValueError(f"batch_sizes: expected a sum of {rows}, the rows of x, got {sum(sizes)}")


def _integers(name: str, values: Sequence[int] | Array | None) -> Array | None:
    """Any sequence of integers as an int64 array."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.size and array.dtype.kind in "uO":  # beyond int64, which would wrap around
        of_python = (n for n in array.flat if isinstance(n, int))
        largest = array.max() if array.dtype.kind == "u" else max(of_python, default=0)
        if largest > np.iinfo(np.int64).max:
            raise ValueError(f"{name}: expected integers below 2^63, got {largest}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return np.array(array, np.int64, order="C")


def _booleans(name: str, values: Any) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.dtype != bool:
        raise TypeError(f"{name}: expected booleans, got {array.dtype}")
    return np.array(array, order="C")
