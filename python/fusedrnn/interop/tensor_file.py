"""Bytes of a safetensors file as NumPy arrays, every dtype of the format read exactly or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from fusedrnn.arrays import Array

_NUMPY = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "C64": np.complex64, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


def _bfloat16(data: Any) -> Array:
    wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return wide.view(np.float32)


def _e5m2(data: Any) -> Array:
    return (np.frombuffer(data, np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _e4m3(data: Any) -> Array:
    """No infinities; all ones is NaN."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent, np.ldexp(1 + mantissa / 8, exponent - 7), np.ldexp(mantissa / 8, -6))
    value[code & 127 == 127] = np.nan
    table = np.where(code & 128, -value, value).astype(np.float32)
    return table[np.frombuffer(data, np.uint8)]


# NumPy lacks these dtypes: they become float32, which holds every value of them.
_WIDENED: dict[str, Callable[[Any], Array]] = {"BF16": _bfloat16, "F8_E5M2": _e5m2, "F8_E4M3": _e4m3}


def read_safetensors(content: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays by name, and the text metadata, of a safetensors file. BF16, F8_E4M3 and F8_E5M2 become float32.

    Raises ValueError for bytes that are no such file, and for a tensor of another dtype, which it names.
    ImportError without safetensors.
    """
    import safetensors

    read: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    try:
        entries = read(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"truncated, or not a safetensors file ({error})") from None
    arrays = {}
    flat: Array
    for name, entry in entries:
        dtype, data = entry["dtype"], entry["data"]
        if dtype in _NUMPY:
            flat = np.frombuffer(data, np.dtype(_NUMPY[dtype]).newbyteorder("<")).astype(_NUMPY[dtype], copy=False)
        elif dtype in _WIDENED:
            flat = _WIDENED[dtype](data)
        else:
            known = ", ".join([*_NUMPY, *_WIDENED])
            raise ValueError(f"{name}: expected a dtype among {known}, got {dtype}; convert it where it was written")
        arrays[name] = (flat if flat.flags.writeable else flat.copy()).reshape(entry["shape"])
    return arrays, header.get("__metadata__") or {}


def check_savable(name: str, array: Array) -> None:
    """Raise TypeError for an array whose dtype the format cannot hold."""
    if array.dtype.newbyteorder("=") not in map(np.dtype, _NUMPY.values()):
        known = ", ".join(np.dtype(dtype).name for dtype in _NUMPY.values())
        raise TypeError(f"{name}: expected a dtype that safetensors holds ({known}), got {array.dtype}")
