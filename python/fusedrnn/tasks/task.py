"""What a task is: presets, and a function that sets up one run of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusedrnn.nn import Module
from fusedrnn.optim import Optimizer, Schedule
from fusedrnn.train import BatchSource, Loss
from fusedrnn.train.display import say
from fusedrnn.train.distributed import RowAxes

Metrics = dict[str, float]


@dataclass(frozen=True)
class Preset:
    """How long to train, and what else a task wants to know. ``about`` is its line in the help."""

    about: str
    epochs: int
    steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskOption:
    """An option of a task's own: ``fusedrnn train TASK --name VALUE``, an underscore in the name being a dash there.

    ``kind`` is int, float, str or bool, the same in all tasks that have an option of this name; ``help`` says what the
    value means. Where it is not given, the preset's setting of the same name counts, else ``default``; a run that was
    begun before there was the option goes on with ``before``.
    """

    name: str
    kind: type
    help: str
    default: Any = None
    before: Any = None

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Options:
    """What the user asked for, the preset's gaps filled in; ``settings`` as `Task.settings` gives them."""

    preset: Preset
    epochs: int
    steps: int | None
    seed: int
    data: str | None = None
    say: Callable[[str], None] = say
    settings: Mapping[str, Any] = field(default_factory=dict)

    def total_steps(self, batches: int) -> int:
        """Updates in all, with so many batches in an epoch."""
        total = self.epochs * batches
        return total if self.steps is None else min(total, self.steps)


@dataclass
class Run:
    """One run, ready for the Trainer, and what is made of it in the end.

    ``figures()`` gives the final metrics and ``draw(path, history)`` the task's picture, both in evaluation mode;
    ``milestones(history)``, where there is one, adds what follows from the way there;
    ``headline(metrics)`` puts the figure into words. ``metadata`` is JSON-able and goes into the checkpoint: what
    `Task.sample` and `Task.predict` need beside the parameters, and what a resumed run must find as it was.
    ``evaluate``, ``baseline`` and the fields below it are the Trainer's arguments of those names; without ``row_axes``
    a task trains in one process only, and with a ``monitor`` the figures are those of its best epoch.
    """

    model: Module
    loss: Loss
    optimizer: Optimizer
    batches: Callable[[int], BatchSource]
    evaluate: Callable[[], Metrics]
    figures: Callable[[], Metrics]
    draw: Callable[[Path, Sequence[Mapping[str, Any]]], None]
    headline: Callable[[Metrics], str]
    milestones: Callable[[Sequence[Mapping[str, Any]]], Metrics] | None = None
    baseline: Metrics = field(default_factory=dict)
    schedule: Schedule | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    evaluate_every: int = 1
    row_axes: RowAxes | None = None
    monitor: str | None = None
    mode: str = "min"
    patience: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class RunError(RuntimeError):
    """Options that do not fit, or a folder that cannot be used; nothing was trained or sampled."""


@dataclass(frozen=True)
class SampleOptions:
    """What ``fusedrnn sample`` was given, for a task to make of it what it can.

    Attributes:
        prime: what the samples go on from, None for nothing. temperature: divides the logits; 0 takes the likeliest.
        bias: of a mixture's densities (Graves 2013), 0 for none. count, length: how many, and of how many steps at
            most. style: the number of an example to be like, from 1; None for none. seed: of all that is drawn.
            out: a file to write; None prints. say: prints.
    """

    prime: str | None = None
    temperature: float = 1.0
    bias: float = 0.0
    count: int = 1
    length: int = 500
    style: int | None = None
    seed: int = 0
    out: Path | None = None
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Task:
    """A task by name.

    ``data`` says what ``--data`` may be, and is empty where the task makes its own; ``options`` are those that the
    command has for this task beside the common ones. ``sample(folder, options)`` draws from the network of a run in
    that folder, where there is something to draw; options that do not fit it are a ``RunError``, and so is a style
    where the task has no ``styles``. ``predict(folder, text, say)`` tells, line by line, what the network makes of a
    text.
    """

    name: str
    about: str
    presets: Mapping[str, Preset]
    setup: Callable[[Options], Run]
    data: str = ""
    sample: Callable[[Path, SampleOptions], None] | None = None
    predict: Callable[[Path, str, Callable[[str], None]], None] | None = None
    options: tuple[TaskOption, ...] = ()
    styles: bool = False

    def settings(self, preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all own options and settings: defaults, the preset's over them, those given over both."""
        return {**{option.name: option.default for option in self.options}, **preset.settings, **given}
