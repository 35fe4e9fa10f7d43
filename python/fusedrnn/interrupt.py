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
    for number in taken:
        signal.signal(number, handle)
    try:
        yield requested
    finally:
        for number in taken:
            signal.signal(number, before[number])
