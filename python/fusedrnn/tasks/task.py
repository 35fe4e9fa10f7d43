"""What a task is: presets, and a function that sets up one run of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusedrnn.nn import Module
from fusedrnn.optim import Optimizer, Schedule
from fusedrnn.report import say
from fusedrnn.train import Batches, Loss

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
    value means. Where it is not given, the preset's setting of the same name counts, else ``default``.
    """

    name: str
    kind: type
    help: str
    default: Any = None

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
    ``headline(metrics)`` puts the figure into words. ``evaluate``, ``baseline`` and the fields below it are the
    Trainer's arguments of those names; without ``row_axes`` a task trains in one process only.
    """

    model: Module
    loss: Loss
    optimizer: Optimizer
    batches: Callable[[int], Batches]
    evaluate: Callable[[], Metrics]
    figures: Callable[[], Metrics]
    draw: Callable[[Path, Sequence[Mapping[str, Any]]], None]
    headline: Callable[[Metrics], str]
    baseline: Metrics = field(default_factory=dict)
    schedule: Schedule | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    evaluate_every: int = 1
    row_axes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Task:
    """A task by name. ``data`` says what ``--data`` may be, and is empty where the task makes its own; ``options``
    are those that the command has for this task beside the common ones."""

    name: str
    about: str
    presets: Mapping[str, Preset]
    setup: Callable[[Options], Run]
    data: str = ""
    options: tuple[TaskOption, ...] = ()

    def settings(self, preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all own options and settings: defaults, the preset's over them, those given over both."""
        return {**{option.name: option.default for option in self.options}, **preset.settings, **given}
