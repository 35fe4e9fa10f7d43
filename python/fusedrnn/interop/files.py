"""State dicts in files: safetensors, or NumPy's ``.npz``, by the path's suffix."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.atomic import write_atomically
from fusedrnn.extras import needed_for
from fusedrnn.interop.tensor_file import check_savable, read_safetensors


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays by name, such as ``module.state_dict()``, to a file that appears by rename.

    Args:
        state: arrays of numbers. path: ends in ``.safetensors`` (which needs the package of that name: the extra
            ``train`` has it) or ``.npz``. A file that stands there is replaced, all at once.

    Raises:
        ValueError: another suffix. TypeError: a value that is no array of numbers, or of a dtype that safetensors
            lacks (complex128, longdouble). OSError: a file that cannot be written; the old one then stands.
            ImportError: without safetensors.
    """
    path = _checked(path)
    arrays: dict[str, Any] = {name: np.asarray(value, order="C") for name, value in state.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    if path.suffix == ".npz":
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        content = stream.getvalue()
    else:
        with needed_for(f"a file {path.suffix}", "train"):
            from safetensors.numpy import save as to_bytes

        for name, array in arrays.items():
            check_savable(name, array)
        content = to_bytes(arrays)
    write_atomically(path, content)


def load(path: str | os.PathLike[str], *, prefix: str = "") -> dict[str, Array]:
    """Read arrays by name, for ``module.load_state_dict(...)``, from a file that ``save`` or another library wrote.

    Args:
        path: as in ``save``. Every array keeps its dtype, but for those that NumPy lacks: bfloat16 and float8 (e4m3,
            e5m2) become float32, which holds all their values. prefix: take the names that begin with it, and cut it
            off: ``"model."`` reads a network out of a checkpoint of ``fusedrnn train``, ``"rnn."`` a layer out of a
            network.

    Raises:
        FileNotFoundError: no such file. ValueError: another suffix, a damaged file, an array of another dtype, which
            is named. ImportError: without safetensors.
    """
    path = _checked(path)
    content = path.read_bytes()
    if path.suffix == ".npz":
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except Exception as error:  # zipfile and NumPy raise about anything at damaged bytes
            raise ValueError(f"{path}: truncated, or not an npz file of numbers ({error})") from None
    else:
        try:
            with needed_for(f"a file {path.suffix}", "train"):
                arrays, _ = read_safetensors(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"path: expected a name that ends in .safetensors or .npz, got {path.name!r}")
    return path
