"""State dicts in files: safetensors, or NumPy's ``.npz``, by the path's suffix."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.checkpoint import write_atomically
from fusedrnn.extras import needed_for
from fusedrnn.gradients import Array


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays by name, such as ``module.state_dict()``, to a file that appears by rename.

    Args:
        state: arrays of numbers. path: ends in ``.safetensors`` (which needs the package of that name: the extra
            ``train`` has it) or ``.npz``. A file that stands there is replaced, all at once.

    Raises:
        ValueError: another suffix. TypeError: a value that is no array of numbers. OSError: a file that cannot be
            written; the old one then stands. ImportError: without safetensors.
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

        content = to_bytes(arrays)
    write_atomically(path, content)


def load(path: str | os.PathLike[str], *, prefix: str = "") -> dict[str, Array]:
    """Read arrays by name, for ``module.load_state_dict(...)``, from a file that ``save`` or another library wrote.

    Args:
        path: as in ``save``. prefix: take the names that begin with it, and cut it off: ``"model."`` reads a network
            out of a checkpoint of ``fusedrnn train``, ``"rnn."`` a layer out of a network.

    Raises:
        FileNotFoundError: no such file. ValueError: another suffix, a damaged file. ImportError: without safetensors.
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
        with needed_for(f"a file {path.suffix}", "train"):
            from safetensors import SafetensorError
            from safetensors.numpy import load as from_bytes

        try:
            arrays = from_bytes(content)
        except SafetensorError as error:
            raise ValueError(f"{path}: truncated, or not a safetensors file ({error})") from None
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"path: expected a name that ends in .safetensors or .npz, got {path.name!r}")
    return path
