"""The Trainer: batches in, updated parameters, metrics and checkpoints out; interrupted runs resume bit for bit.

docs/trainer.md says what it promises. Checkpoints need the extra ``train``; without `out` nothing but NumPy is needed.
"""

from fusedrnn.train.errors import ResumeWarning, TrainingError, TrainingInterrupted, TrainingTerminated
from fusedrnn.train.progress import Record
from fusedrnn.train.trainer import Batch, BatchSource, Loss, Trainer

__all__ = [
    "Batch",
    "BatchSource",
    "Loss",
    "Record",
    "ResumeWarning",
    "Trainer",
    "TrainingError",
    "TrainingInterrupted",
    "TrainingTerminated",
]
