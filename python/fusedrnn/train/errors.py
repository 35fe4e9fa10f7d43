"""How training ends before its time, and what a resumed run says."""

from __future__ import annotations

import signal


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, a folder that cannot be used. The last checkpoint stands."""


class TrainingInterrupted(TrainingError):
    """Ctrl-C: the step was finished and a checkpoint written before this was raised."""


class TrainingTerminated(TrainingInterrupted, SystemExit):
    """SIGTERM: the same. A script that does not catch it ends with the exit status 143 that shells give for SIGTERM."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signal.SIGTERM


class ResumeWarning(UserWarning):
    """A resumed run does something otherwise than it began."""
