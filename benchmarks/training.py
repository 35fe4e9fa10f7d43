"""Whole training runs of a task, ours through the Trainer and PyTorch's in a loop as its users write it.

Both take the task's own `Run`: initial weights, batches, schedule, clipping and evaluation are the same, so that the
figures in the end should be, but for rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import Unsupported
from benchmarks.workloads import Array
from fusedrnn.tasks.models import LastState


@dataclass(frozen=True)
class Training:
    """A task's default recipe over so many epochs."""

    task: str
    epochs: int
    seed: int = 0
    data: str | None = None

    def setup(self) -> Any:
        """The task's run, made anew."""
        from fusedrnn.tasks import TASKS, Options

        task = TASKS[self.task]
        preset = task.presets["default"]
        settings = task.settings(preset, {})
        return task.setup(Options(preset, self.epochs, None, self.seed, self.data, lambda line: None, settings))


class _Trained:
    """What both have: the run, its initial state, and results of the last training."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.task_run = training.setup()
        self.initial = self.task_run.model.state_dict()
        self.losses: list[float] = []  # means of the epochs

    def results(self) -> dict[str, Array]:
        """The task's final figures, and the mean loss of the first and the last epoch."""
        self.task_run.model.eval()
        figures = {name: np.asarray(value) for name, value in self.task_run.figures().items()}
        return {**figures, "first_loss": np.asarray(self.losses[0]), "last_loss": np.asarray(self.losses[-1])}


class FusedRnnTraining(_Trained):
    """The Trainer without a folder; the state from before each run is put back."""

    def __init__(self, training: Training, threads: int) -> None:
        import fusedrnn

        fusedrnn.set_num_threads(threads)
        super().__init__(training)
        self.optimizer_state = self.task_run.optimizer.state_dict()

    def run(self) -> None:
        from fusedrnn.train import Trainer

        run = self.task_run
        run.model.load_state_dict(self.initial)
        run.optimizer.load_state_dict(self.optimizer_state)
        trainer = Trainer(
            run.model, run.loss, run.optimizer, batches=run.batches, evaluate=run.evaluate, epochs=self.training.epochs,
            schedule=run.schedule, clip_norm=run.clip_norm, clip_value=run.clip_value,
            evaluate_every=run.evaluate_every, progress=False,
        )  # fmt: skip
        self.losses = [record["loss"] for record in trainer.fit()]


class PyTorchTraining(_Trained):
    """The same in PyTorch, Adam and its layers; it also answers when the task evaluates its model."""

    def __init__(self, training: Training, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        super().__init__(training)
        self.torch = torch
        run = self.task_run
        ours = run.model
        rnn, head = getattr(ours, "rnn", None), getattr(ours, "head", None)
        kinds = {"CrossEntropyLoss": torch.nn.CrossEntropyLoss, "BCEWithLogitsLoss": torch.nn.BCEWithLogitsLoss}
        loss = kinds.get(type(run.loss).__name__)
        if rnn is None or head is None or loss is None or type(run.optimizer).__name__ != "Adam":
            raise Unsupported(f"{training.task}: not one recurrent stack with a linear layer under Adam")
        outputs = self.initial["head.weight"].shape[0]
        self.model = torch.nn.ModuleDict(
            {
                "rnn": getattr(torch.nn, type(rnn).__name__)(rnn.input_size, rnn.hidden_size, rnn.num_layers),
                "head": torch.nn.Linear(rnn.hidden_size, outputs),
            }
        )
        self.loss = loss()
        self.last_step = type(ours) is LastState
        ours.forward = self._evaluated

    def _predict(self, x: Any) -> Any:
        y, _ = self.model["rnn"](x)
        return self.model["head"](y[-1] if self.last_step else y)

    def _evaluated(self, x: Array) -> Array:
        with self.torch.inference_mode():
            predicted: Array = self._predict(self.torch.from_numpy(np.ascontiguousarray(x))).numpy()
            return predicted

    def run(self) -> None:
        torch, run, epochs = self.torch, self.task_run, self.training.epochs
        self.model.load_state_dict({name: torch.tensor(value) for name, value in self.initial.items()})
        base = run.optimizer.lr
        optimizer = torch.optim.Adam(self.model.parameters(), lr=base)
        self.losses, step = [], 0
        for epoch in range(epochs):
            seen = []
            for x, target in run.batches(epoch):
                if run.schedule is not None:
                    optimizer.param_groups[0]["lr"] = base * run.schedule(step)
                optimizer.zero_grad()
                loss = self.loss(self._predict(torch.from_numpy(np.ascontiguousarray(x))), torch.from_numpy(target))
                seen.append(loss.item())
                if not math.isfinite(seen[-1]):
                    raise RuntimeError(f"loss is {seen[-1]} at step {step}")
                loss.backward()
                if run.clip_value is not None:
                    torch.nn.utils.clip_grad_value_(self.model.parameters(), run.clip_value)
                if run.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), run.clip_norm)
                optimizer.step()
                step += 1
            self.losses.append(sum(seen) / len(seen))
            if (epoch + 1) % run.evaluate_every == 0 or epoch + 1 == epochs:
                run.evaluate()


TRAININGS = {"fusedrnn": FusedRnnTraining, "pytorch": PyTorchTraining}
