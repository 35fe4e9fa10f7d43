"""The Trainer: batches in, updated parameters, metrics and checkpoints out; interrupted runs resume bit for bit.

Started by ``mpirun``, several processes train as one: see `fusedrnn.train.distributed`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from signal import SIGTERM
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy.typing as npt

from fusedrnn.json_values import plain
from fusedrnn.nn import Module
from fusedrnn.optim import Optimizer, clip_grad_norm_, clip_grad_value_
from fusedrnn.sizes import size
from fusedrnn.train.batches import identity, starting_at
from fusedrnn.train.display import Display
from fusedrnn.train.distributed import RowAxes, World, find_world
from fusedrnn.train.errors import TrainingError, TrainingInterrupted, TrainingTerminated
from fusedrnn.train.interrupt import Interrupt, first_interrupt
from fusedrnn.train.kept import KeptRun
from fusedrnn.train.progress import OWN_NAMES, Record
from fusedrnn.train.tbptt import flatten

Array = npt.NDArray[Any]
Batch: TypeAlias = "tuple[Array, Array] | tuple[Array, Array, bool]"  # the second a `fusedrnn.train.tbptt.Window`


class Loss(Protocol):
    """A loss as in `fusedrnn.nn`: called for its value, then asked for the gradient of the prediction."""

    def __call__(self, prediction: Array, target: Array, /) -> float: ...

    def backward(self) -> Array: ...


class BatchSource(Protocol):
    """The batches ``(x, target)`` of one epoch: a list, or anything that has a length and can be iterated.

    With a method ``skip(count)``, which gives an iterator over all but the first, a run that resumes within the epoch
    makes no batch twice; with an attribute ``resume_key``, fit for JSON, it knows them again.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Trainer(KeptRun):
    """Trains `model` on batches until `epochs` or `steps` are done, early stopping or Ctrl-C.

    Args:
        model: called as ``model(x)``; ``model.backward(dprediction)`` adds to its gradients.
        loss: ``loss(prediction, target) -> float`` and ``loss.backward() -> dprediction``.
        optimizer: of the model's parameters or a part of them; the others stay. Its `lr` at construction is the base
            that `schedule` multiplies, and what it is again after `fit`.
        batches: ``batches(epoch)`` gives a sized iterable of ``(x, target)``. It must depend on nothing but the
            epoch and what was fixed at construction, so that a resumed run sees the same batches. Long sequences
            come as `fusedrnn.train.tbptt.Windows`: the state goes from window to window, and into the checkpoint.
        evaluate: called in eval mode, gives metrics by name, but for the names that every record has (epoch, step,
            seconds, loss, lr); after every `evaluate_every` epochs and at the end.
        epochs: how often to go through the batches.
        steps: at most so many updates in all.
        out: the run folder, made if need be; None writes nothing.
        schedule: ``schedule(step)`` gives the factor of the learning rate for the update with that number, from 0.
        clip_norm, clip_value: limits of the norm and the elements of the gradient of what the optimizer moves.
        patience: stop after so many epochs without a better `monitor` ("loss", the mean over an epoch's rows, or a
            metric; `mode` "min" or "max"). NaN and infinity are never better.
        checkpoint_every: also write a checkpoint after every so many updates; one is written after each epoch anyway.
        log_every: also record the loss after every so many updates; one record is made after each epoch anyway. The
            loss of a record is the mean over the rows since the record before it.
        seed: kept in the checkpoint; one of another seed is refused.
        progress: show a progress bar (on a terminal, with rich) or lines (in a log).
        baseline: figures to show beside the metrics of the same name.
        metadata: JSON-able, NumPy's numbers and arrays included; kept in the checkpoint.
        row_axes: along which axes of x and target the rows of a batch lie, such as (1, 0), or ((1, 1), 0) of a tuple
            of arrays; several processes need it.
        world: the processes that share every batch; None: all that an MPI launcher started. The loss must be a mean
            over rows, or a sum with ``loss.reduction == "sum"``.

    Raises ValueError for arguments out of range or another model's optimizer, TypeError for metadata that JSON cannot
    hold, DistributedError as
    `fusedrnn.train.distributed.find_world` does.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        batches: Callable[[int], BatchSource],
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
        row_axes: RowAxes | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__()
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
        if monitor not in (None, "loss") and (evaluate is None or monitor in OWN_NAMES):
            known = "'loss'" if evaluate is None else "'loss' or a metric that evaluate gives"
            raise ValueError(f"monitor: expected {known}, got {monitor!r}")
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
        self.metadata = plain(dict(metadata or {}), "metadata")
        self.row_axes = row_axes
        self._world = find_world() if world is None else world
        self._world.check(model, row_axes)
        self._summed = getattr(loss, "reduction", "mean") == "sum"
        self._base_lr = optimizer.lr
        self._batches_an_epoch: int | None = None
        self._trained, self._flat = optimizer.part_of(model), model.flatten()

    @property
    def history(self) -> list[Record]:
        """The metric records so far, those of resumed parts included."""
        return self._history

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
        stopped_early = self.patience is not None and state.stalled >= self.patience
        return stopped_early or state.epoch >= self.epochs or enough_steps

    def fit(self) -> list[Record]:
        """Train to the end and return the metric records.

        Raises TrainingError (loss not finite, a folder that cannot be written or is another run's) and
        TrainingInterrupted (Ctrl-C; a second one raises KeyboardInterrupt at once; SIGTERM alike: TrainingTerminated,
        the second one kills). DistributedError: processes that differ in what should be the same.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._world.guard())
            self._trained, self._flat = self.optimizer.part_of(self.model), self.model.flatten()
            self._world.begin(self.model, self.optimizer, self._facts)
            self._prepare_folder(stack)
            self.model.forget().train()  # what a step that was given up has left
            stack.callback(self.model.set_rows, None)
            stack.callback(self._restore_lr)
            shown = self.progress and self._world.rank == 0
            display = stack.enter_context(Display(self._total_steps(), enabled=shown, baseline=self.baseline))
            interrupt = stack.enter_context(first_interrupt())
            clock = time.perf_counter() - self._state.seconds
            while not self.finished:
                self._train_epoch(display, interrupt, clock)
        return self.history

    def _facts(self) -> Record:
        """Return what must be the same in all processes that train as one."""
        names = ("seed", "epochs", "steps", "patience", "monitor", "mode", "evaluate_every", "checkpoint_every")
        numbers = {name: getattr(self, name) for name in (*names, "log_every", "clip_norm", "clip_value", "row_axes")}
        return {**numbers, "out is None": self.out is None, "batches": len(self.batches(0)), "lr": self._base_lr}

    # one epoch, one update

    def _train_epoch(self, display: Display, interrupt: Interrupt, clock: float) -> None:
        state = self._state
        batches = self.batches(state.epoch)
        count = len(batches)
        for batch in starting_at(batches, state.batch):
            if state.batch == 0 and self.out is not None:
                self._batches = identity(batches, batch)
            value = self._update(*batch)
            ends = state.add(value, 1 if self._summed else _size(batch[1]), count) or state.step == self.steps
            display.update(state.step, value)
            if ends or (self.log_every is not None and state.step % self.log_every == 0):
                self._record(display, clock, epoch_ends=ends)
            state.seconds = time.perf_counter() - clock
            due = self.checkpoint_every is not None and state.step % self.checkpoint_every == 0
            interrupted = self._world.any(interrupt.is_set())
            if ends or due or interrupted:
                self._save()
            if interrupted:
                kind = TrainingTerminated if self._world.any(interrupt.signal == SIGTERM) else TrainingInterrupted
                raise kind(f"interrupted after step {state.step}{self._standing()}")
            if ends:
                return
        raise TrainingError(
            f"batches: epoch {state.epoch + 1} should have {count} batches, gave out at batch {state.batch}"
        )

    def _update(self, x: Any, target: Any, first: bool | None = None) -> float:
        state = self._state
        if self.schedule is not None:
            factor = float(self.schedule(state.step))
            if not (math.isfinite(factor) and factor >= 0):
                self._fail(f"schedule: expected a finite factor of at least 0, got {factor},")
            self.optimizer.lr = self._base_lr * factor
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
        share = 1.0
        if rows is not None and not self._summed:
            divisor = getattr(self.loss, "divisor", None)  # a mean is over what counts, not over rows
            share = rows.share if divisor is None else self._world.share(divisor if rows.share else 0.0)
            value = value if share else 0.0  # a mean of nothing is NaN
        value = self._world.sum(value, self.optimizer.params, share)
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

    def _carry_on(self, x: Any, first: bool) -> Array:
        """The prediction for one window of a sequence, from the state in which the window before it ended."""
        prediction, self._carried = self.model(x, None if first else self._carried)
        if first and self.out is not None:
            flatten(self._carried, {})  # what no checkpoint could hold is refused now, not an epoch later
        return prediction  # type: ignore[no-any-return]

    def _fail(self, what: str) -> NoReturn:
        state = self._state
        raise TrainingError(f"{what} at step {state.step + 1} (epoch {state.epoch + 1}){self._standing()}")

    def _restore_lr(self) -> None:
        if self.schedule is not None:
            self.optimizer.lr = self._base_lr

    # records, early stopping

    def _record(self, display: Display, clock: float, *, epoch_ends: bool) -> None:
        state = self._state
        due = epoch_ends and (state.epoch % self.evaluate_every == 0 or self.finished)
        metrics, seconds = self._world.first(lambda: self._measure(due, clock))
        loss, of_epoch = state.means()
        record: Record = {
            "epoch": state.epoch if epoch_ends and state.batch == 0 else state.epoch + 1,
            "step": state.step,
            "seconds": seconds,
            "loss": loss,
            "lr": float(self.optimizer.lr),
            **metrics,
        }
        self._history.append(record)
        state.records, state.recorded_step = len(self._history), state.step
        if self.out is not None:
            self._write(lambda folder: folder.append(record))
        display.record(record, metrics)
        if epoch_ends and self.monitor is not None:
            self._watch({"loss": of_epoch, **metrics}, evaluated=due)

    def _measure(self, evaluation: bool, clock: float) -> tuple[dict[str, float], float]:
        """The metrics, if there is to be an evaluation, and the seconds so far."""
        metrics: dict[str, float] = {}
        if self.evaluate is not None and evaluation:
            self.model.eval()
            drawn = self.model.rng_state()
            try:
                metrics = _as_metrics(self.evaluate())
            finally:
                self.model.train()
                self.model.set_rng_state(drawn)  # so that training draws the same, whatever is looked at, and by whom
        return metrics, round(time.perf_counter() - clock, 3)

    def _watch(self, values: Mapping[str, float], *, evaluated: bool) -> None:
        assert self.monitor is not None
        if self.monitor not in values:
            if evaluated:
                raise TrainingError(f"monitor: expected one of {', '.join(values)}, got {self.monitor}")
            return
        if self._state.watch(values[self.monitor], self.mode):
            self._best_parameters = self._flat.data.copy()
            self._best_unsaved = True

    def _total_steps(self) -> int:
        if self._batches_an_epoch is None:
            self._batches_an_epoch = len(self.batches(0))  # once: they may be a list
        total = self.epochs * self._batches_an_epoch
        return total if self.steps is None else min(total, self.steps)


def _size(target: Any) -> int:
    """How many numbers a target has: the weight of its batch in a mean, proportional to its rows."""
    size = getattr(target[0] if isinstance(target, tuple) and target else target, "size", 1)
    return size if isinstance(size, int) and size > 0 else 1


def _as_metrics(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        raise TypeError(f"evaluate: expected metrics by name, got {type(found).__name__}")
    metrics = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise TypeError(f"evaluate: expected names of metrics as strings, got {name!r}")
        if name in OWN_NAMES:
            raise TrainingError(f"evaluate: {name} is what every record has under that name; call the metric otherwise")
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"evaluate: {name}: expected a number, got {type(value).__name__}") from None
    return metrics
