"""The Trainer: batches in, updated parameters, metrics and checkpoints out; interrupted runs resume bit for bit.

Started by ``mpirun``, several processes train as one: see `fusedrnn.distributed`.

A run folder holds ``metrics.jsonl`` (one JSON object a line), ``checkpoint.safetensors`` and, where a metric is
monitored, ``best.safetensors``. Checkpoints need the extra ``train``; without `out` nothing but NumPy is needed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fusedrnn.checkpoint import (
    Checkpoint,
    CheckpointError,
    make_writable_folder,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
)
from fusedrnn.distributed import World, find_world, fingerprint
from fusedrnn.interrupt import first_interrupt
from fusedrnn.nn import Module
from fusedrnn.optim import Optimizer, clip_grad_norm_, clip_grad_value_
from fusedrnn.report import Display
from fusedrnn.sizes import size
from fusedrnn.tbptt import put_together, take_apart

Array = npt.NDArray[Any]
Record = dict[str, Any]
Batch: TypeAlias = "tuple[Array, Array] | tuple[Array, Array, bool]"  # the second a `fusedrnn.tbptt.Window`


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, a folder that cannot be written. The last checkpoint stands."""


class TrainingInterrupted(TrainingError):
    """Ctrl-C: the step was finished and a checkpoint written before this was raised."""


class Loss(Protocol):
    """A loss as in `fusedrnn.nn`: called for its value, then asked for the gradient of the prediction."""

    def __call__(self, prediction: Array, target: Array, /) -> float: ...

    def backward(self) -> Array: ...


class Batches(Protocol):
    """The batches ``(x, target)`` of one epoch: a list, or anything that has a length and can be iterated."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass
class _State:
    """All of a run that is neither parameter nor optimizer state. JSON keeps every float exactly."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done of the epoch after them
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # since the last record
    loss_count: int = 0
    best: float | None = None
    best_epoch: int = 0
    stopped_early: bool = False
    history: list[Record] = field(default_factory=list)


class Trainer:
    """Trains `model` on batches until `epochs` or `steps` are done, early stopping or Ctrl-C.

    Args:
        model: called as ``model(x)``; ``model.backward(dprediction)`` adds to its gradients.
        loss: ``loss(prediction, target) -> float`` and ``loss.backward() -> dprediction``.
        optimizer: of the model's parameters or a part of them; the others stay. Its `lr` at construction is the base
            that `schedule` multiplies.
        batches: ``batches(epoch)`` gives a sized iterable of ``(x, target)``. It must depend on nothing but the
            epoch and what was fixed at construction, so that a resumed run sees the same batches. Long sequences
            come as `fusedrnn.tbptt.Windows`: the state goes from window to window, and into the checkpoint.
        evaluate: called in eval mode, gives metrics by name; after every `evaluate_every` epochs and at the end.
        epochs: how often to go through the batches.
        steps: at most so many updates in all.
        out: the run folder, made if need be; None writes nothing.
        schedule: ``schedule(step)`` gives the factor of the learning rate for the update with that number, from 0.
        clip_norm, clip_value: limits of the norm and the elements of the gradient of what the optimizer moves.
        patience: stop after so many epochs without a better `monitor` ("loss", or a metric; `mode` "min" or "max").
        checkpoint_every: also write a checkpoint after every so many updates; one is written after each epoch anyway.
        log_every: also record the loss after every so many updates; one record is made after each epoch anyway.
        seed: kept in the checkpoint; one of another seed is refused.
        progress: show a progress bar (on a terminal, with rich) or lines (in a log).
        baseline: figures to show beside the metrics of the same name.
        metadata: JSON-able, kept in the checkpoint.
        row_axes: along which axes of x and target the rows of a batch lie, such as (1, 0); several processes need it.
        world: the processes that share every batch; None: all that an MPI launcher started. The loss must be a mean
            over rows, or a sum with ``loss.reduction == "sum"``.

    Raises ValueError for arguments out of range or another model's optimizer, DistributedError as
    `fusedrnn.distributed.find_world` does.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        batches: Callable[[int], Batches],
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        epochs: int,
        steps: int | None = None,
        out: str | Path | None = None,
        schedule: Callable[[int], float] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        patience: int | None = None,
        monitor: str | None = None,
        mode: str = "min",
        evaluate_every: int = 1,
        checkpoint_every: int | None = None,
        log_every: int | None = None,
        seed: int = 0,
        progress: bool = True,
        baseline: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        row_axes: tuple[int, int] | None = None,
        world: World | None = None,
    ) -> None:
        counts = {
            "epochs": epochs,
            "steps": steps,
            "patience": patience,
            "evaluate_every": evaluate_every,
            "checkpoint_every": checkpoint_every,
            "log_every": log_every,
        }
        for name, value in counts.items():
            if value is not None:
                size(name, value)
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.batches = batches
        self.evaluate = evaluate
        self.epochs = epochs
        self.steps = steps
        self.out = None if out is None else Path(out)
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.patience = patience
        self.monitor = "loss" if monitor is None and patience is not None else monitor
        self.mode = mode
        self.evaluate_every = evaluate_every
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.seed = seed
        self.progress = progress
        self.baseline = baseline
        self.metadata = dict(metadata or {})
        self.row_axes = row_axes
        self._world = find_world() if world is None else world
        self._world.check(model, row_axes)
        self._summed = getattr(loss, "reduction", "mean") == "sum"
        self._base_lr = optimizer.lr
        self._trained, self._flat = optimizer.part_of(model), model.flatten()
        self._state = _State()
        self._carried: Any = None  # what the model returned as its state in the last window of a sequence
        self._saved_step: int | None = None
        self._best_parameters: Array | None = None

    @property
    def history(self) -> list[Record]:
        """The metric records so far, those of resumed parts included."""
        return self._state.history

    @property
    def step(self) -> int:
        """Updates done so far."""
        return self._state.step

    @property
    def epoch(self) -> int:
        """Epochs completed so far."""
        return self._state.epoch

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent in `fit`, those of resumed parts included."""
        return self._state.seconds

    @property
    def finished(self) -> bool:
        """Whether `fit` has nothing left to do."""
        state = self._state
        enough_steps = self.steps is not None and state.step >= self.steps
        return state.stopped_early or state.epoch >= self.epochs or enough_steps

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint goes, None without a run folder."""
        return None if self.out is None else self.out / "checkpoint.safetensors"

    def fit(self) -> list[Record]:
        """Train to the end and return the metric records.

        Raises TrainingError (loss not finite, folder not writable) and TrainingInterrupted (Ctrl-C; a second one
        raises KeyboardInterrupt at once). DistributedError: processes that differ in what should be the same.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._world.guard())
            self._trained, self._flat = self.optimizer.part_of(self.model), self.model.flatten()
            self._world.begin(self.model, self.optimizer, self._facts)
            self._prepare_folder()
            self.model.train()
            stack.callback(self.model.set_rows, None)
            shown = self.progress and self._world.rank == 0
            display = stack.enter_context(Display(self._total_steps(), enabled=shown, baseline=self.baseline))
            interrupt = stack.enter_context(first_interrupt())
            clock = time.perf_counter() - self._state.seconds
            while not self.finished:
                self._train_epoch(display, interrupt, clock)
        return self.history

    def _facts(self) -> Record:
        """What must be the same in all processes that train as one."""
        names = ("seed", "epochs", "steps", "patience", "monitor", "mode", "evaluate_every", "checkpoint_every")
        numbers = {name: getattr(self, name) for name in (*names, "log_every", "clip_norm", "clip_value", "row_axes")}
        return {**numbers, "out is None": self.out is None, "batches": len(self.batches(0)), "lr": self._base_lr}

    def resume(self, path: str | Path | None = None) -> Trainer:
        """Take up the run that the checkpoint in the run folder (or at `path`) left off; `fit` goes on from there.

        Lines of ``metrics.jsonl`` that came after the checkpoint are dropped. Raises CheckpointError.
        """
        source = self.checkpoint_path if path is None else Path(path)
        with self._world.guard():
            self._world.same("out is None", lambda: self.out is None)
            if source is None:
                raise ValueError("resume: expected a path, for this Trainer has no run folder")
            state = self._load(self._world.first(lambda: read_checkpoint(source)), source)
            self._state = state
            self._saved_step = state.step
            best = None if self.out is None else self.out / "best.safetensors"
            if state.best is not None and best is not None and self._world.first(best.exists):
                self._best_parameters = self._parameters_of(self._world.first(lambda: read_checkpoint(best)), best)
            if self.out is not None:
                content = "".join(json.dumps(record) + "\n" for record in state.history)
                self._write("metrics.jsonl", lambda path: write_atomically(path, content.encode()))
        return self

    def restore_best(self) -> None:
        """Give the model the parameters of the best monitored epoch. Raises TrainingError if there was none."""
        if self._best_parameters is None:
            raise TrainingError("no epoch was monitored yet, so there are no best parameters")
        self._flat.data[...] = self._best_parameters

    # one epoch, one update

    def _train_epoch(self, display: Display, interrupt: threading.Event, clock: float) -> None:
        state = self._state
        batches = self.batches(state.epoch)
        count = len(batches)
        for batch in itertools.islice(batches, state.batch, None):
            value = self._update(*batch)
            state.step += 1
            state.batch += 1
            state.loss_sum += value
            state.loss_count += 1
            display.update(state.step, value)
            complete = state.batch == count
            ends = complete or state.step == self.steps
            if complete:
                state.epoch += 1
                state.batch = 0
            if ends or (self.log_every is not None and state.step % self.log_every == 0):
                self._record(display, clock, epoch_ends=ends)
            state.seconds = time.perf_counter() - clock
            due = self.checkpoint_every is not None and state.step % self.checkpoint_every == 0
            interrupted = self._world.any(interrupt.is_set())
            if ends or due or interrupted:
                self._save()
            if interrupted:
                raise TrainingInterrupted(f"interrupted after step {state.step}{self._standing()}")
            if ends:
                return
        raise TrainingError(
            f"batches: epoch {state.epoch + 1} should have {count} batches, gave out at batch {state.batch}"
        )

    def _update(self, x: Array, target: Array, first: bool | None = None) -> float:
        state = self._state
        if self.schedule is not None:
            self.optimizer.lr = self._base_lr * self.schedule(state.step)
        self._flat.zero_grad()  # also of what the optimizer does not move, where gradients would add up for ever
        x, target, rows = self._world.take(x, target, self.row_axes, compare=state.batch == 0)
        self.model.set_rows(rows)
        prediction = self.model(x) if first is None else self._carry_on(x, first)
        value = 0.0
        if rows is not None and rows.share == 0:
            self.model.forget()  # a batch of fewer rows than there are processes: no loss, its gradient zero
        else:
            value = float(self.loss(prediction, target))
            self.model.backward(self.loss.backward())
        value = self._world.sum(value, self.optimizer.params, 1.0 if rows is None or self._summed else rows.share)
        if not math.isfinite(value):
            self._fail(f"loss is {value}")
        if self.clip_value is not None:
            clip_grad_value_(self.optimizer.params, self.clip_value)
        if self.clip_norm is not None:
            norm = clip_grad_norm_(self.optimizer.params, self.clip_norm)
            if not math.isfinite(norm):
                self._fail(f"the gradient's norm is {norm}")
        self.optimizer.step()
        return value

    def _carry_on(self, x: Array, first: bool) -> Array:
        """The prediction for one window of a sequence, from the state in which the window before it ended."""
        prediction, self._carried = self.model(x, None if first else self._carried)
        if first and self.out is not None:
            take_apart(self._carried, {})  # what no checkpoint could hold is refused now, not an epoch later
        return prediction  # type: ignore[no-any-return]

    def _fail(self, what: str) -> None:
        state = self._state
        raise TrainingError(f"{what} at step {state.step + 1} (epoch {state.epoch + 1}){self._standing()}")

    def _standing(self) -> str:
        if self._saved_step is None:
            return ""
        return f"; the checkpoint of step {self._saved_step} stands in {self.checkpoint_path}"

    # records, early stopping

    def _record(self, display: Display, clock: float, *, epoch_ends: bool) -> None:
        state = self._state
        due = epoch_ends and (state.epoch % self.evaluate_every == 0 or self.finished)
        metrics, seconds = self._world.first(lambda: self._measure(due, clock))
        record: Record = {
            "epoch": state.epoch if epoch_ends and state.batch == 0 else state.epoch + 1,
            "step": state.step,
            "seconds": seconds,
            "loss": state.loss_sum / state.loss_count,
            "lr": self.optimizer.lr,
            **metrics,
        }
        state.loss_sum, state.loss_count = 0.0, 0
        state.history.append(record)
        if self.out is not None:
            self._write("metrics.jsonl", lambda path: _append(path, json.dumps(record) + "\n"))
        display.record(record, metrics)
        if epoch_ends and self.monitor is not None:
            self._watch(record, metrics)

    def _measure(self, evaluation: bool, clock: float) -> tuple[dict[str, float], float]:
        """The metrics, if there is to be an evaluation, and the seconds so far."""
        metrics: dict[str, float] = {}
        if self.evaluate is not None and evaluation:
            self.model.eval()
            try:
                metrics = {name: float(value) for name, value in self.evaluate().items()}
            finally:
                self.model.train()
        return metrics, round(time.perf_counter() - clock, 3)

    def _watch(self, record: Record, metrics: Mapping[str, float]) -> None:
        state = self._state
        assert self.monitor is not None
        if self.monitor not in record:
            if metrics:
                known = ", ".join(["loss", *metrics])
                raise TrainingError(f"monitor: expected one of {known}, got {self.monitor}")
            return  # an epoch without evaluation
        value = record[self.monitor]
        sign = 1.0 if self.mode == "min" else -1.0
        if state.best is None or sign * value < sign * state.best:
            state.best, state.best_epoch = value, state.epoch
            self._best_parameters = self._flat.data.copy()
            self._save("best.safetensors")
        elif self.patience is not None and state.epoch - state.best_epoch >= self.patience:
            state.stopped_early = True

    # the run folder

    def _total_steps(self) -> int:
        total = self.epochs * len(self.batches(0))
        return total if self.steps is None else min(total, self.steps)

    def _prepare_folder(self) -> None:
        if self.out is None or self._saved_step is not None:
            return
        self._world.first(partial(_make_folder, self.out))
        self._save()  # from the first step on there is something to resume from

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        assert self.out is not None
        path = self.out / name

        def attempt() -> None:
            try:
                write(path)
            except OSError as error:
                raise TrainingError(f"cannot write {path}: {error.strerror or error}{self._standing()}") from None

        self._world.first(attempt)

    def _save(self, name: str = "checkpoint.safetensors") -> None:
        if self.out is None:
            return
        # a finite loss with a gradient that is not leaves parameters that no checkpoint should keep
        if not np.isfinite(self._flat.data).all():
            raise TrainingError(f"parameters are not finite after step {self._state.step}{self._standing()}")
        self._world.same("parameters, random state", lambda: (fingerprint(self._flat.data), self.model.rng_state()))
        states: dict[str, Array] = {}
        carried = take_apart(self._carried, states)
        tensors = self._world.join_rows(states, self.model._rows)
        tensors.update({f"model.{key}": array for key, array in self.model.state_dict().items()})
        numbers: dict[str, Any] = {}
        for key, value in self.optimizer.state_dict().items():
            if isinstance(value, np.ndarray):
                tensors[f"optimizer.{key}"] = value
            else:
                numbers[key] = value
        state = {
            "run": asdict(self._state),
            "seed": self.seed,
            "optimizer": type(self.optimizer).__name__,
            "optimizer_state": numbers,
            "trained": self._trained,
            "rng": self.model.rng_state(),
            "carried": carried,
            "metadata": self.metadata,
        }
        self._write(name, lambda path: write_checkpoint(path, tensors, state))
        if name == "checkpoint.safetensors":
            self._saved_step = self._state.step

    def _load(self, checkpoint: Checkpoint, source: Path) -> _State:
        stored = checkpoint.state
        wanted = {"seed": self.seed, "optimizer": type(self.optimizer).__name__, "trained": self._trained}
        for key, value in wanted.items():
            if stored.get(key) != value:
                raise CheckpointError(f"{source}: {key}: expected {value}, got {stored.get(key)}")
        run = stored.get("run", {})
        missing = {entry.name for entry in fields(_State)}.symmetric_difference(run)
        if missing:
            raise CheckpointError(f"{source}: its state does not fit: {', '.join(sorted(missing))}")
        try:
            self.model.load_state_dict(checkpoint.under("model."))
            self.optimizer.load_state_dict({**stored["optimizer_state"], **checkpoint.under("optimizer.")})
            self.model.set_rng_state(stored["rng"])
            states = {key: array for key, array in checkpoint.tensors.items() if key.startswith("state")}
            self._carried = put_together(stored.get("carried"), self._world.own_rows(states))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{source}: of another model or optimizer: {error}") from None
        return _State(**run)

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


def _make_folder(out: Path) -> None:
    try:
        make_writable_folder(out)
    except OSError as error:
        raise TrainingError(f"cannot write to {out}: {error.strerror or error}") from None
    if (out / "checkpoint.safetensors").exists():
        raise TrainingError(f"{out} holds a checkpoint already: call resume(), or choose another folder")


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line)
