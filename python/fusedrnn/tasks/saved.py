"""A run of a task as its folder has it, for those who ask the network something: every field read with care."""

from __future__ import annotations

from pathlib import Path

from fusedrnn.nn import Module
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint
from fusedrnn.train.stored import Part


class SavedRun:
    """The checkpoint in a run's folder.

    Args:
        best: take that of the best epoch, where there is one.

    Attributes:
        task: the name of its task, None where another program wrote it. metadata: what the task left there.

    Raises CheckpointError, as all methods do.
    """

    def __init__(self, folder: Path, *, best: bool = False) -> None:
        self.folder = folder
        file = folder / "best.safetensors"
        if not (best and file.exists()):
            file = folder / "checkpoint.safetensors"
        self._checkpoint = read_checkpoint(file)
        self.state = Part(self._checkpoint.state, file)
        self.metadata = self.state.of("metadata")
        task = self.metadata.entries().get("task")
        self.task: str | None = None if task is None else task.text()

    def require(self, task: str) -> None:
        """Refuse a run of another task."""
        if self.task != task:
            raise CheckpointError(f"{self.folder}: a run of {self.task or 'another program'}, not of {task}")

    def require_size(self, parameters: int, part: Part) -> None:
        """Refuse what would build a network of more parameters than the file has, before it takes the memory."""
        stored = sum(array.size for array in self._checkpoint.under("model.").values())
        if parameters > stored:
            part.refuse(f"a network of {parameters:,} parameters or more, but the file holds {stored:,}")

    def load(self, model: Module) -> None:
        """Give the model the parameters of the run, and set it to evaluation."""
        try:
            model.load_state_dict(self._checkpoint.under("model."))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.state.file}: of another version of this task: {error}") from None
        model.eval()
