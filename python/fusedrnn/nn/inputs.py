"""Arrays that a layer or loss is given: what they must be, with words for the usual slips."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.functional.exchange import as_view


def as_array(name: str, value: Any) -> Array:
    """``value`` as an array, of another library in place. TypeError: what a recurrent layer returns, with its state."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], np.ndarray):
        raise TypeError(
            f"{name}: expected an array, got a tuple of two; a recurrent layer returns (y, states), of which y is [0]: "
            "take [0]"
        )
    return np.asarray(as_view(name, value))


def require_dtype(name: str, array: Array, dtype: np.dtype[Any], of: str = "layer") -> None:
    """Raise TypeError for an array of another dtype than the layer's, with what to do: NumPy's own arrays are float64
    and int64."""
    if array.dtype == dtype:
        return
    text = f"{name}: expected dtype {dtype} as the {of} has, got {array.dtype}"
    if array.dtype.kind in "fiub":
        text += f"; convert it with {name}.astype(np.{dtype})"
        if array.dtype in (np.float32, np.float64):
            text += f", or make the {of} with dtype='{array.dtype}'"
    raise TypeError(text)
