"""Arrays of other libraries, read in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import _core


def as_view(name: str, value: Any) -> Any:
    """An array on the memory of one with DLPack or the buffer protocol; None, and what is no such array, as it is.

    The compiled module does so with its arguments. This is for arrays that reach it in a dict or tuple, and for what
    Python asks of an array."""
    if value is None or isinstance(value, np.ndarray) or not _exports(value):
        return value
    return _core.as_array(value, name)


def _exports(value: Any) -> bool:
    if hasattr(value, "__dlpack__"):
        return True
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True
