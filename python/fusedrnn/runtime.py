"""Threads, instruction sets and facts of the build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fusedrnn import _core

_chosen = False  # whether set_num_threads was called


def get_num_threads() -> int:
    """Threads that a call may use: ``set_num_threads``, else ``FUSEDRNN_NUM_THREADS``, else the cores of the affinity
    mask, of which ``OMP_NUM_THREADS`` may allow fewer."""
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Let calls use up to ``n`` threads. Results are the same bits for any number.

    Raises ValueError unless 1 <= n <= 256.
    """
    global _chosen
    _core.set_num_threads(n)
    _chosen = True


def threads_were_chosen() -> bool:
    """Whether ``set_num_threads`` or ``FUSEDRNN_NUM_THREADS`` said how many, rather than the affinity mask."""
    return _chosen or bool(os.environ.get("FUSEDRNN_NUM_THREADS"))


def available_isas() -> list[str]:
    """Instruction sets of this build that the processor runs, narrowest first."""
    return _core.available_isas()


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set within the block (process-wide, for tests and benchmarks).

    Raises ValueError if this processor or build lacks it.
    """
    before = _core.isa()
    _core.set_isa(name)
    try:
        yield
    finally:
        _core.set_isa(before)


def show_config() -> dict[str, Any]:
    """Version, instruction sets built, available and in use, threads and compiler, as a dictionary."""
    return {
        "version": _core.__version__,
        "isas_built": _core.built_isas(),
        "isas_available": _core.available_isas(),
        "isa": _core.isa(),
        "threads": _core.num_threads(),
        "compiler": _core.compiler,
    }
