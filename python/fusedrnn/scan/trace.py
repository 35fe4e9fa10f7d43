"""The trace that runs now: its graph, the user's line that it is at, and errors that name that line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import FrameType
from typing import Any, TypeVar

from fusedrnn.scan.graph import Graph

LIMIT = 100_000  # instructions of one step

# What stands for NumPy's functions while a step is traced: by the function, and ufuncs by their name, since SciPy's
# are known without an import of SciPy. Those in VIEWS give arrays that share memory with their first argument in NumPy.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}
UFUNCS: dict[str, Callable[..., Any]] = {}
VIEWS: set[Any] = set()

_F = TypeVar("_F", bound=Callable[..., Any])


def implements(*functions: Any, view: bool = False) -> Callable[[_F], _F]:
    """Register what stands for these functions of NumPy."""

    def register(implementation: _F) -> _F:
        for function in functions:
            FUNCTIONS[function] = implementation
        if view:
            VIEWS.update(functions)
        return implementation

    return register


class TraceError(ValueError):
    """A step that cannot be traced. The message begins with the user's file and line."""


class Trace:
    """One run of a user's step with arrays that note what is done to them.

    Attributes:
        graph: Where the instructions go.
        training: Whether dropout drops.
        streams: Random calls so far, each of which has numbers of its own.
    """

    def __init__(self, training: bool) -> None:
        self.graph = Graph()
        self.training = training
        self.streams = 0

    def mark(self) -> None:
        """Note the user's line for the values that follow; TraceError if the step is too long."""
        self.graph.where = user_line()
        if len(self.graph.values) > LIMIT:
            raise refused(
                f"the step has more than {LIMIT} instructions",
                "Write loops over many elements with arrays: a Python loop is unrolled",
            )

    def stream(self) -> int:
        """The number of the next random call of the step, in the order of calls."""
        self.streams += 1
        return self.streams - 1


class _Current(threading.local):
    trace: Trace | None = None


_CURRENT = _Current()


def current() -> Trace | None:
    """The trace that runs in this thread, if one does."""
    return _CURRENT.trace


@contextmanager
def tracing(training: bool) -> Iterator[Trace]:
    """Make a new trace the current one. A trace inside of another hides it."""
    before = _CURRENT.trace
    _CURRENT.trace = Trace(training)
    try:
        yield _CURRENT.trace
    finally:
        _CURRENT.trace = before


def user_line() -> str:
    """The line that called us, "file.py:12": the innermost outside of NumPy, SciPy and the machinery of tracing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module not in _OURS:
            _OURS[module] = _is_ours(module)
        if not _OURS[module]:
            break
        frame = frame.f_back
    if frame is None:
        return "?"
    file = frame.f_code.co_filename
    if file not in _FILES:
        _FILES[file] = PurePath(file).name
    return f"{_FILES[file]}:{frame.f_lineno}"


_FILES: dict[str, str] = {}
_OURS: dict[str, bool] = {}


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("numpy", "scipy") or module == "fusedrnn.ops" or module.startswith("fusedrnn.scan.")


def refused(seen: str, instead: str = "") -> TraceError:
    """Make the error for what a step may not do: the user's line, what was seen, what to write instead."""
    return TraceError(f"{user_line()}: {seen}" + (f". {instead}" if instead else ""))
