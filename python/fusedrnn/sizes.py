"""Sizes that a user gives, checked in one way by layers, cells, networks, estimators and PyTorch's modules."""

from __future__ import annotations

import operator
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

_OBJECTS = 8192  # bytes, about, of what Python has of one layer beside its numbers


def size(name: str, value: Any, least: int | None = 1) -> int:
    """``value`` as an int: an integer of Python or NumPy.

    Raises:
        TypeError: anything else, such as a float, a string or a boolean. ValueError: below ``least``.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    return number


def require_memory(sizes: dict[str, Any], elements: int, itemsize: int, layers: int = 0) -> None:
    """Raise ValueError, before memory is taken, unless this machine could hold so many numbers and layers.

    Args:
        sizes: what led to them, for the message. elements: how many numbers there will be, gradients included.
        itemsize: the bytes of each. layers: how many layers there will be.
    """
    needed, present = elements * itemsize + layers * _OBJECTS, machine_memory()
    if needed > present:
        names, values = ", ".join(sizes), ", ".join(map(repr, sizes.values()))
        raise ValueError(
            f"{names}: expected sizes that memory can hold, got {values}, which need {-(-needed >> 30):,} GiB of "
            f"{present >> 30:,}"
        )


@lru_cache(maxsize=1)
def machine_memory() -> int:
    """Bytes of memory that a process can have here, where the system tells; otherwise more than there are."""
    try:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        present = 1 << 47
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return present
    return min(present, int(limit)) if limit.isdigit() else present
