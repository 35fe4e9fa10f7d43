"""How far a run has come: counts, the mean loss, the best epoch. All of it goes into the checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
OWN_NAMES = ("epoch", "step", "seconds", "loss", "lr")  # of a record, which no metric may have


@dataclass
class Progress:
    """All of a run that is neither parameter nor optimizer state, of a size that does not grow. JSON keeps every float
    exactly.

    Losses are weighted by the numbers in a batch's target, so that a mean is that of rows, however many a batch has.
    The first batch weighs 1: with batches of one size that is a plain mean, to the last bit.
    What decides (``epoch_sum``, ``epoch_count``) and what is only logged (``loss_sum``, ``loss_count``) are two things.
    """

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done of the epoch after them
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # since the last record
    loss_count: float = 0.0
    epoch_sum: float = 0.0  # since the epoch began
    epoch_count: float = 0.0
    unit: int = 0  # the size of the first batch
    best: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    stalled: int = 0  # epochs since the best one, when it was last looked at
    records: int = 0  # lines of metrics.jsonl
    recorded_step: int = 0  # of the last of them
    batches: int = 0  # of the epoch that the last update was in

    def add(self, loss: float, size: int, batches: int) -> bool:
        """Count an update by a batch of that size, of an epoch of so many; whether it completed the epoch."""
        self.unit = self.unit or size
        weight = size / self.unit
        self.step += 1
        self.batch += 1
        self.batches = batches
        self.loss_sum += loss * weight
        self.loss_count += weight
        self.epoch_sum += loss * weight
        self.epoch_count += weight
        if self.batch < batches:
            return False
        self.epoch += 1
        self.batch = 0
        return True

    def means(self) -> tuple[float, float]:
        """The mean loss since the last record, for the one that is made now, and that of the epoch so far."""
        state = self
        logged, whole = state.loss_sum / state.loss_count, state.epoch_sum / state.epoch_count
        state.loss_sum, state.loss_count = 0.0, 0.0
        if state.batch == 0:
            state.epoch_sum, state.epoch_count = 0.0, 0.0
        return logged, whole

    def watch(self, value: float, mode: str) -> bool:
        """Whether the monitored ``value`` is the best so far; the first of equals is, and what is not finite never."""
        state, sign = self, 1.0 if mode == "min" else -1.0
        if math.isfinite(value) and (state.best is None or sign * value < sign * state.best):
            state.best, state.best_epoch, state.best_step, state.stalled = value, state.epoch, state.step, 0
            return True
        state.stalled = state.epoch - state.best_epoch
        return False
