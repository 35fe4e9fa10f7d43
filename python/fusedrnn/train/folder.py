"""The folder of a run: one run, one process at a time, files that are whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fusedrnn.atomic import write_atomically
from fusedrnn.json_values import nan_for_null, null_for_nan
from fusedrnn.train.checkpoint import CheckpointError, is_unfinished, make_writable_folder, sweep
from fusedrnn.train.errors import TrainingError
from fusedrnn.train.progress import Progress, Record

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where folders are not locked
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


class RunFolder:
    """``metrics.jsonl`` (one JSON object a line, null for a number that is not finite), ``checkpoint.safetensors`` and,
    where a metric is monitored, ``best.safetensors``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.safetensors"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.jsonl"

    def occupied(self) -> bool:
        """Whether a run was begun here; one that was killed before its first checkpoint was not."""
        return any(path.exists() for path in (self.checkpoint, self.best, self.metrics))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, the folder is there, nobody else's, and free of what killed processes left unfinished.

        Raises TrainingError where it cannot be written, or another process has it.
        """
        try:
            make_writable_folder(self.path)
        except OSError as error:
            raise TrainingError(f"cannot write to {self.path}: {error.strerror or error}") from None
        with _locked(self.path):
            sweep(self.path)
            yield

    def stamp(self) -> tuple[int, int, int] | None:
        """Return a stamp that changes when somebody writes the checkpoint; None without one."""
        try:
            found = self.checkpoint.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def append(self, record: Record) -> None:
        """Add a record to the metrics. Raises OSError."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(_line(record))

    def write_records(self, records: Sequence[Record]) -> None:
        """Make the metrics these records, whatever came after them. Raises OSError."""
        content = "".join(map(_line, records)).encode()
        try:
            if self.metrics.read_bytes() == content:
                return
        except FileNotFoundError:
            if not content:
                return
        write_atomically(self.metrics, content)

    def records(self, run: Progress) -> list[Record] | None:
        """The records up to a checkpoint; None where the file is gone.

        Raises CheckpointError where the file has other lines than the checkpoint counts.
        """
        if run.records == 0:
            return []
        try:
            lines = self.metrics.read_bytes().splitlines()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{self.metrics}: cannot be read: {error.strerror or error}") from None
        found: list[Any] = []
        with contextlib.suppress(ValueError, RecursionError):
            for line in lines[: run.records]:
                found.append(json.loads(line))
        whole = all(isinstance(record, dict) and type(record.get("step")) is int for record in found)
        last = found[-1]["step"] if whole and found else None
        if len(found) < run.records or last != run.recorded_step:
            raise CheckpointError(
                f"{self.metrics}: expected {run.records} records, the last of step {run.recorded_step}, as the "
                f"checkpoint beside it has it, got {len(found)}, the last of step {last}; move the file away to go on "
                "without them"
            )
        return [nan_for_null(record) for record in found]


def is_untouched(folder: Path) -> bool:
    """Whether an existing ``folder`` is as good as empty: at most a killed process's lock and unfinished files in it.

    Raises OSError where it cannot be read.
    """
    return all(path.name == _LOCK or is_unfinished(path) for path in folder.iterdir())


def _line(record: Record) -> str:
    return json.dumps(null_for_nan(record), allow_nan=False) + "\n"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process that has it, however that ends."""
    if fcntl is None:  # pragma: no cover
        yield
        return
    handle, process = _take(folder / _LOCK), os.getpid()
    try:
        yield
    finally:
        if handle is not None and os.getpid() == process:  # not in a forked child
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink()
            os.close(handle)


def _take(path: Path) -> int | None:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise TrainingError(f"cannot write to {path.parent}: {error.strerror or error}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace")
            dead = _is_dead(holder)
            with contextlib.suppress(OSError):
                if dead and os.path.samestat(os.fstat(handle), path.stat()):
                    path.unlink()  # the lock lives on in a process that the dead one forked
            os.close(handle)
            if dead:
                continue
            who = holder.strip() or "another process"
            raise TrainingError(
                f"{path.parent}: {who} is training there; wait until it ends, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)  # the one before us deleted it just then
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle


def _is_dead(holder: str) -> bool:
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
