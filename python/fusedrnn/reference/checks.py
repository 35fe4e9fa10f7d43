"""What is refused: `argument: expected ..., got ...`, before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array


def check_shape(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """None, an absent argument, has every shape."""
    if array is not None and array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def check_clip(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{name}: expected a positive number or None, got {value!r}")


def check_probability(name: str, p: float, *, one: bool) -> None:
    """0 <= p < 1, or p <= 1 with `one`."""
    if not (0 <= p < 1 or (one and p == 1)):
        raise ValueError(f"{name}: expected {'0 <= p <= 1' if one else '0 <= p < 1'}, got {p!r}")


def check_integer(name: str, value: int, end: int) -> None:
    if not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if not 0 <= value < end:
        raise ValueError(f"{name}: expected an integer from 0 to {end - 1}, got {value!r}")


def check_recompute(recompute: bool, **options: Any) -> None:
    """Recomputed gates are the plain cell's: no option may change its equations."""
    for name, value in options.items():
        absent = value is None or (isinstance(value, int | float) and value == 0)
        if recompute and not absent:
            raise ValueError(f"recompute: expected False with {name}, got True")
