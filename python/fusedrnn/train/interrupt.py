"""Ctrl-C and SIGTERM that let a step finish."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SAID = {signal.SIGINT: b"Ctrl-C", signal.SIGTERM: b"SIGTERM"}


_handlers: list[Any] = []  # ours, while they are there
_masks = threading.local()


def _before_fork() -> None:
    if _handlers:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork() -> None:
    before = vars(_masks).pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child() -> None:
    """A forked child, such as a worker of a pool, ends by SIGTERM; until that is so none is delivered to it."""
    if signal.getsignal(signal.SIGTERM) in _handlers:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


class Interrupt:
    """What was asked for: ``signal`` is the number of the signal that came, None before."""

    signal: int | None = None

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None


@contextlib.contextmanager
def first_interrupt() -> Iterator[Interrupt]:
    """An object that the first Ctrl-C or SIGTERM sets; the second one does what it does without us.

    A signal that the process ignores, and a SIGTERM for which the program has a handler of its own, stay as they are.
    """
    requested = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread may touch signal handlers
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SAID}

    def handle(signum: int, frame: FrameType | None) -> None:
        requested.signal = signum
        for number in taken:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        # a handler may interrupt a print: only a bare write is safe here
        with contextlib.suppress(OSError):
            said = _SAID[signal.Signals(signum)]
            os.write(2, b"\n" + said + b": finishing this step and writing a checkpoint; once more stops at once\n")

    taken = [
        number
        for number, handler in before.items()
        if handler not in (None, signal.SIG_IGN) and (number == signal.SIGINT or handler == signal.SIG_DFL)
    ]
    _handlers.append(handle)
    for number in taken:
        signal.signal(number, handle)
    try:
        yield requested
    finally:
        for number in taken:
            signal.signal(number, before[number])
        _handlers.remove(handle)
