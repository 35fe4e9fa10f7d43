"""Checkpoints: arrays and one JSON object in a safetensors file that appears by rename.

A file holds the tensors ``model.<name>`` and ``optimizer.<name>``, and in its metadata, under one key, everything
else that a resumed run needs for the very same bits (see `fusedrnn.train`). Needs the extra ``train``.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusedrnn.atomic import write_atomically
from fusedrnn.extras import needed_for
from fusedrnn.interop.tensor_file import read_safetensors
from fusedrnn.json_values import plain

_METADATA_KEY = "fusedrnn.training"
_FORMAT = 2
# how `write_atomically` calls what it has not finished
_FILES = r"(?:checkpoint|best)\.safetensors|metrics\.jsonl|figures\.json|[\w-]+\.png"
_UNFINISHED = re.compile(rf"\.(?:{_FILES})\.[a-z0-9_]{{8}}")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, truncated, foreign, or of another model, optimizer or run."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds: arrays by name, and the JSON object beside them."""

    tensors: dict[str, npt.NDArray[Any]]
    state: dict[str, Any]

    def under(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays whose names begin with `prefix`, by the rest of their names."""
        return {key.removeprefix(prefix): a for key, a in self.tensors.items() if key.startswith(prefix)}


def sweep(folder: Path) -> None:
    """Delete what a process that was killed while it wrote a run's files left unfinished in `folder`."""
    for path in folder.iterdir():
        if is_unfinished(path):
            with contextlib.suppress(OSError):
                path.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether `path` has the name of a run's file that was not yet whole."""
    return _UNFINISHED.fullmatch(path.name) is not None


def make_writable_folder(folder: Path) -> None:
    """Create `folder` with its parents and prove by writing that files can be made in it; OSError otherwise."""
    with needed_for("a checkpoint", "train"):  # nothing is trained that cannot be kept
        import safetensors  # noqa: F401
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"fusedrnn")


def write_checkpoint(path: Path, tensors: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write arrays and a JSON-able `state` to `path`, by rename. Raises OSError if that fails."""
    with needed_for("a checkpoint", "train"):
        from safetensors.numpy import save

    metadata = {_METADATA_KEY: json.dumps({"format": _FORMAT, **plain(state, "state")}, allow_nan=False)}
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_atomically(path, save(contiguous, metadata=metadata))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises CheckpointError, which names the file, if it is missing, truncated, or not one of ours.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would never end
            raise CheckpointError(f"{path}: not a file")
        content = path.read_bytes()
        with needed_for("a checkpoint", "train"):
            tensors, metadata = read_safetensors(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if _METADATA_KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a training checkpoint of fusedrnn")
    try:
        state = json.loads(metadata[_METADATA_KEY])
    except (ValueError, RecursionError) as error:  # also numbers of too many digits, and lists too deep
        raise CheckpointError(f"{path}: its metadata is damaged ({error})") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: written by another version of fusedrnn, expected format {_FORMAT}")
    return Checkpoint(tensors, state)
