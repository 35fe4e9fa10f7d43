"""The half of the Trainer that keeps a run: its folder, its checkpoints, and how it is taken up again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.atomic import write_atomically
from fusedrnn.json_values import plain
from fusedrnn.nn import FlatParameters, Module
from fusedrnn.optim import Optimizer
from fusedrnn.train.batches import identity
from fusedrnn.train.checkpoint import Checkpoint, CheckpointError, read_checkpoint, write_checkpoint
from fusedrnn.train.distributed import World, fingerprint
from fusedrnn.train.errors import ResumeWarning, TrainingError
from fusedrnn.train.folder import RunFolder
from fusedrnn.train.progress import Progress, Record
from fusedrnn.train.snapshot import Snapshot, differences, read_snapshot, settings_of, undone_on_error
from fusedrnn.train.tbptt import flatten, unflatten

Self = TypeVar("Self", bound="KeptRun")


class KeptRun:
    """A Trainer's part that keeps a run: `Trainer` says what the attributes are."""

    model: Module
    loss: Any
    optimizer: Optimizer
    batches: Callable[[int], Any]
    out: Path | None
    schedule: Callable[[int], float] | None
    clip_norm: float | None
    clip_value: float | None
    patience: int | None
    monitor: str | None
    mode: str
    evaluate_every: int
    seed: int
    metadata: dict[str, Any]
    _world: World
    _flat: FlatParameters
    _base_lr: float
    _trained: list[str] | None  # what the optimizer moves, None for all

    def __init__(self) -> None:
        self._state = Progress()
        self._history: list[Record] = []
        self._batches: Any = None  # what tells the batches of the current epoch from others
        self._carried: Any = None  # what the model returned as its state in the last window of a sequence
        self._best_parameters: Array | None = None
        self._best_unsaved = False
        self._saved_step: int | None = None
        self._origin: Path | None = None  # the checkpoint that was read or written last
        self._stamp: Any = None  # of the folder's checkpoint at that time

    def _total_steps(self) -> int:
        raise NotImplementedError

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint goes, None without a run folder."""
        return None if self.out is None else RunFolder(self.out).checkpoint

    def resume(self: Self, path: str | Path | None = None) -> Self:
        """Take up the run that the checkpoint in the run folder (or `path`, a checkpoint or its folder) left off.

        `fit` goes on from there: in the run's own folder, where lines of ``metrics.jsonl`` that came after the
        checkpoint are dropped, or in another one, which gets a copy of the records and the best parameters. What this
        Trainer will do otherwise than the run did so far is a ResumeWarning.

        Raises CheckpointError for a checkpoint that is damaged or of another model, optimizer, seed, monitor, or of
        other batches in the middle of an epoch; TrainingError where `out` holds another run. Nothing changes then.
        """
        source = self.checkpoint_path if path is None else Path(path)
        with self._world.guard():
            self._world.same("out is None", lambda: self.out is None)
            if source is None:
                raise ValueError("resume: expected a path, for this Trainer has no run folder")
            if source.is_dir():
                source = RunFolder(source).checkpoint
            origin = RunFolder(source.parent)
            self._trained, self._flat = self.optimizer.part_of(self.model), self.model.flatten()
            checkpoint, stamp = self._world.first(lambda: self._read(source))
            snapshot = read_snapshot(checkpoint, source)
            self._refuse(snapshot, source)
            run = snapshot.run
            history = self._world.first(lambda: origin.records(run))
            stored_best = self._world.first(lambda: _best_of(run, origin))
            changed = differences(snapshot.settings, self._settings(), self.schedule)
            self._check_batches(snapshot, source, changed)
            if history is None:
                changed.append(f"{origin.metrics} is gone, the history starts anew")
            if run.best is not None and stored_best is None and run.best_step != run.step:
                changed.append(f"the parameters of the best epoch, {run.best_epoch}, are not in {origin.best}")
            best = None if stored_best is None else self._parameters_of(stored_best, origin.best)
            own_lr = self.optimizer.lr
            with undone_on_error(self.model, self.optimizer):
                carried = self._load(snapshot, source)
                if changed and self._world.rank == 0:
                    warnings.warn(f"{source}: {'; '.join(changed)}", ResumeWarning, stacklevel=2)
            if self.schedule is not None or snapshot.settings.get("lr") != self._base_lr:
                self.optimizer.lr = own_lr
            is_best = run.best is not None and run.best_step == run.step
            self._state, self._history, self._carried = run, history or [], carried
            self._batches = snapshot.batches
            self._best_parameters = self._flat.data.copy() if is_best else best
            self._best_unsaved = is_best and stored_best is None
            self._saved_step, self._origin, self._stamp = run.step, source, stamp
        return self

    def restore_best(self) -> None:
        """Give the model the parameters of the best monitored epoch.

        Raises TrainingError if there was none, or a resumed run did not find them.
        """
        state = self._state
        if self._best_parameters is None and state.best is not None:
            raise TrainingError(
                f"the parameters of the best epoch, {state.best_epoch}, were not beside the checkpoint that was resumed"
            )
        if self._best_parameters is None and state.stalled:
            raise TrainingError(f"{self.monitor} was not finite in any epoch, so there are no best parameters")
        if self._best_parameters is None:
            raise TrainingError("no epoch was monitored yet, so there are no best parameters")
        self._flat = self.model.flatten()  # where the parameters lie now
        self._flat.data[...] = self._best_parameters

    # the run folder

    def _standing(self) -> str:
        if self._saved_step is None:
            return ""
        return f"; the checkpoint of step {self._saved_step} stands in {self.checkpoint_path}"

    def _prepare_folder(self, stack: contextlib.ExitStack) -> None:
        """Take the folder for this run alone, with all in it that a resumed run needs to be resumed again."""
        if self.out is None:
            return
        begun = self._saved_step is not None
        moved = self._world.first(lambda: self._take_folder(stack))
        if not begun or moved or self._best_unsaved:
            self._save()  # from the first step on there is something to resume from
        if begun:
            self._write(lambda folder: folder.write_records(self._history))

    def _take_folder(self, stack: contextlib.ExitStack) -> bool:
        """Whether the run comes from another place than this folder's checkpoint."""
        assert self.out is not None
        folder = RunFolder(self.out)
        stack.enter_context(folder.held())
        if self._saved_step is None:
            if folder.occupied():
                raise TrainingError(f"{self.out} holds a checkpoint already: call resume(), or choose another folder")
            return False
        if self._origin is None or _same(self._origin, folder.checkpoint):
            if folder.stamp() != self._stamp:
                raise TrainingError(
                    f"{folder.checkpoint} has changed since this Trainer read or wrote it; call resume() again"
                )
            return False
        origin = RunFolder(self._origin.parent)
        if not _same(origin.path, folder.path):
            self._refuse_other_run(self._origin)
            if self._best_parameters is not None and not self._best_unsaved:
                write_atomically(folder.best, origin.best.read_bytes())
        return True

    def _write(self, write: Callable[[RunFolder], None]) -> None:
        assert self.out is not None
        folder = RunFolder(self.out)

        def attempt() -> None:
            try:
                write(folder)
            except OSError as error:
                where = error.filename or folder.path
                raise TrainingError(f"cannot write {where}: {error.strerror or error}{self._standing()}") from None

        self._world.first(attempt)

    def _save(self) -> None:
        if self.out is None:
            return
        # a finite loss with a gradient that is not leaves parameters that no checkpoint should keep
        if not np.isfinite(self._flat.data).all():
            raise TrainingError(f"parameters are not finite after step {self._state.step}{self._standing()}")
        self._world.same("parameters, random state", lambda: (fingerprint(self._flat.data), self.model.rng_state()))
        states: dict[str, Array] = {}
        carried = flatten(self._carried, states)
        tensors = self._world.join_rows(states, self.model._rows)
        tensors.update({f"model.{key}": array for key, array in self.model.state_dict().items()})
        numbers: dict[str, Any] = {}
        for key, value in self.optimizer.state_dict().items():
            if isinstance(value, np.ndarray):
                tensors[f"optimizer.{key}"] = value
            else:
                numbers[key] = value
        if self.schedule is not None:
            numbers["lr"] = self._base_lr  # the optimizer's own rate; the schedule follows from the step
        snapshot = Snapshot(
            run=self._state,
            seed=self.seed,
            optimizer=type(self.optimizer).__name__,
            optimizer_state=numbers,
            trained=self._trained,
            rng=self.model.rng_state(),
            carried=carried,
            metadata=self.metadata,
            settings=self._settings(),
            batches=self._batches,
            tensors=tensors,
        )

        def write(folder: RunFolder) -> None:
            # the best one second: until it is there, the checkpoint itself is of that step
            for path in (folder.checkpoint, folder.best)[: 2 if self._best_unsaved else 1]:
                write_checkpoint(path, tensors, snapshot.state())
            self._stamp, self._origin = folder.stamp(), folder.checkpoint

        self._write(write)
        self._best_unsaved = False
        self._saved_step = self._state.step

    def _settings(self) -> Record:
        names = ("clip_norm", "clip_value", "patience", "monitor", "mode", "evaluate_every")
        options = {"lr": self._base_lr, **{name: getattr(self, name) for name in names}}
        total = self._total_steps()
        return settings_of(self.model, self.optimizer, self.loss, self.schedule, total, options)

    # resuming

    def _read(self, source: Path) -> tuple[Any, Any]:
        self._refuse_other_run(source)
        stamp = RunFolder(source.parent).stamp()
        return read_checkpoint(source), stamp

    def _refuse_other_run(self, source: Path) -> None:
        """Raise TrainingError where the folder holds another run than that of the checkpoint ``source``."""
        if self.out is not None and not _same(source.parent, self.out) and RunFolder(self.out).occupied():
            raise TrainingError(f"{self.out} holds a run of its own, not that of {source}: choose another folder")

    def _refuse(self, stored: Snapshot, source: Path) -> None:
        wanted = {"seed": self.seed, "optimizer": type(self.optimizer).__name__, "trained": self._trained}
        if stored.run.best is not None and self.monitor is not None:
            wanted |= {"monitor": self.monitor, "mode": self.mode}  # else the best would be that of another measure
        for key, value in wanted.items():
            found = stored.settings.get(key) if key in ("monitor", "mode") else getattr(stored, key)
            if found != value:
                raise CheckpointError(f"{source}: {key}: expected {value}, got {found}")

    def _check_batches(self, stored: Snapshot, source: Path, changed: list[str]) -> None:
        """Compare the batches of the epoch that the run was in: what it did of them must not be done again."""
        run = stored.run
        if run.step == 0:
            return
        epoch = run.epoch if run.batch else run.epoch - 1
        batches = self.batches(epoch)
        now = plain(identity(batches), "batches")
        if len(batches) == run.batches and now == stored.batches:
            return
        was, found = (f"{count}, of {told}" for count, told in ((run.batches, stored.batches), (len(batches), now)))
        what = f"batches of epoch {epoch + 1}: expected {was:.120}, got {found:.120}"
        if run.batch:
            raise CheckpointError(f"{source}: {what}; within an epoch a run goes on with the same batches")
        changed.append(what)

    def _load(self, stored: Snapshot, source: Path) -> Any:
        """Give model and optimizer what is stored; the carried state."""
        checkpoint = Checkpoint(stored.tensors, {})
        try:
            self.model.load_state_dict(checkpoint.under("model."))
            self.optimizer.load_state_dict({**stored.optimizer_state, **checkpoint.under("optimizer.")})
            self.model.set_rng_state(stored.rng)
            states = {key: array for key, array in stored.tensors.items() if key.startswith("state")}
            return unflatten(stored.carried, self._world.own_rows(states))
        except Exception as error:  # a model's own load_state_dict may raise about anything
            raise CheckpointError(f"{source}: of another model or optimizer: {error}") from None

    def _parameters_of(self, checkpoint: Checkpoint, source: Path) -> Array:
        """The flat parameter buffer that `checkpoint` would give, the model left as it is."""
        current = self._flat.data.copy()
        try:
            self.model.load_state_dict(checkpoint.under("model."))
            best: Array = self._flat.data.copy()
            return best
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{source}: of another model: {error}") from None
        finally:
            self._flat.data[...] = current


def _best_of(run: Progress, folder: RunFolder) -> Checkpoint | None:
    """The checkpoint of the best epoch, where it is still in the folder."""
    if run.best is None or not folder.best.exists():
        return None
    found = read_checkpoint(folder.best)
    return found if read_snapshot(found, folder.best).run.step == run.best_step else None


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
