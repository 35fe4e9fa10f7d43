"""Values for JSON out of NumPy's and Python's own, and back into what a reader expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, name: str) -> Any:
    """``value`` as JSON has it: NumPy's numbers and arrays as Python's, tuples as lists, mappings as dicts.

    Args:
        name: of the value, for errors.

    Raises:
        TypeError: what JSON cannot hold. ValueError: NaN and infinity, for which JSON has no word.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = float(value) if isinstance(value, np.floating) else value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, for JSON has no other, got {value}")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key, name): plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
    raise TypeError(
        f"{name}: expected what JSON holds (numbers, strings, booleans, None, lists, dicts), got {type(value).__name__}"
    )


def _key(key: Any, name: str) -> str:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"{name}: expected strings as keys, got {key!r}")


def null_for_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with None, JSON's null, in place of numbers that are not finite."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def nan_for_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with NaN in place of None."""
    return {k: math.nan if v is None else v for k, v in values.items()}
