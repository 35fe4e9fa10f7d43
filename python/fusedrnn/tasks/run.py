"""One run of a task from the command's options to its files: metrics, checkpoint, loss plot, picture, figures."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fusedrnn.json_values import plain
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Run, RunError, Task, TaskOption
from fusedrnn.train import ResumeWarning, Trainer
from fusedrnn.train.display import say, write_figures
from fusedrnn.train.distributed import World, find_world
from fusedrnn.train.folder import is_untouched
from fusedrnn.train.stored import Part


@dataclass
class Command:
    """What ``fusedrnn train`` was given; None where an option was not."""

    preset: str | None = None
    epochs: int | None = None
    steps: int | None = None
    seed: int | None = None
    data: str | None = None
    out: Path | None = None
    resume: Path | None = None
    json: Path | None = None
    progress: bool = True
    own: Mapping[str, Any] = field(default_factory=dict)  # of the task's own options those that were given


def run_task(
    task: Task, command: Command, announce: Callable[[Path], None] = lambda folder: None
) -> tuple[Metrics, str]:
    """Train, draw and report; the final metrics and the line that says them.

    ``announce`` is told the run's folder before training starts. Of several processes (`fusedrnn.train.distributed`)
    the first one alone writes and draws.
    Raises RunError, and what data, checkpoints and the Trainer raise.
    """
    world = find_world()
    with world.guard():
        return _run_task(task, command, announce, world)


def _run_task(task: Task, command: Command, announce: Callable[[Path], None], world: World) -> tuple[Metrics, str]:
    if command.resume is not None:
        command = world.first(partial(_as_begun, task, command))
    name = command.preset or "default"
    if name not in task.presets:
        raise RunError(f"--preset: {task.name} has {', '.join(task.presets)}; got {name}")
    if command.data is not None and not task.data:
        raise RunError(f"--data: {task.name} makes its own data")
    for name_of_option in command.own.keys() - {option.name for option in task.options}:
        takers = [other.name for other in TASKS.values() for option in other.options if option.name == name_of_option]
        flag = TaskOption(name_of_option, str, "").flag
        raise RunError(f"{flag}: an option of {', '.join(takers) or 'no task'}, not of {task.name}")
    preset = task.presets[name]
    seed = command.seed or 0
    if seed < 0:
        raise RunError(f"--seed: expected at least 0, got {seed}")
    if command.epochs is not None and command.steps is not None and command.resume is None:
        raise RunError("--epochs and --steps: give one of them")
    for option, value in (("--epochs", command.epochs), ("--steps", command.steps)):
        if value is not None and not 1 <= value <= 10**9:
            raise RunError(f"{option}: expected 1 to 1,000,000,000, got {value}")
    epochs, steps = preset.epochs, preset.steps
    if command.epochs is not None:
        epochs, steps = command.epochs, None
    if command.steps is not None:
        epochs, steps = max(epochs, command.steps), command.steps  # an epoch has at least one step
    if command.json is not None:
        world.first(partial(require_writable, "--json", command.json))
    folder = command.resume or world.first(partial(_fresh_folder, task.name, command.out))

    settings = task.settings(preset, command.own)
    options = Options(preset, epochs, steps, seed, command.data, say if world.rank == 0 else _silent, settings)
    run = world.after_first(partial(task.setup, options))
    trainer = Trainer(
        run.model,
        run.loss,
        run.optimizer,
        batches=run.batches,
        evaluate=run.evaluate,
        epochs=epochs,
        steps=steps,
        out=folder,
        schedule=run.schedule,
        clip_norm=run.clip_norm,
        clip_value=run.clip_value,
        evaluate_every=run.evaluate_every,
        monitor=run.monitor,
        mode=run.mode,
        patience=run.patience,
        seed=seed,
        progress=command.progress,
        baseline=run.baseline,
        checkpoint_every=1000,
        row_axes=run.row_axes,
        world=world,
        metadata={
            "task": task.name,
            "preset": name,
            "epochs": command.epochs,
            "steps": command.steps,
            "data": command.data,
            "own": {option.name: settings[option.name] for option in task.options},
            **run.metadata,
        },
    )
    if command.resume is not None:
        begun = world.first(lambda: SavedRun(folder).metadata.value)
        now = plain(dict(run.metadata), "metadata")
        if any(begun.get(key) != value for key, value in now.items()):
            raise RunError(f"--resume: the data or the recipe of {folder} has changed since")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ResumeWarning)
            trainer.resume()
        for warning in said:
            say(f"fusedrnn: {warning.message}")
    announce(folder)
    trainer.fit()
    if run.monitor is not None:
        trainer.restore_best()
    title = f"{task.name}, preset {name}, seed {seed}"
    return world.first(lambda: _report(task, run, trainer, folder, title, seed, command.json))


def _report(
    task: Task, run: Run, trainer: Trainer, folder: Path, title: str, seed: int, json: Path | None
) -> tuple[Metrics, str]:
    run.model.eval()
    metrics = run.figures()
    if run.milestones is not None:
        metrics |= run.milestones(trainer.history)
    figures: dict[str, Any] = {
        "task": task.name,
        "seed": seed,
        "steps": trainer.step,
        "seconds": trainer.seconds,
        "metrics": metrics,
    }
    write_figures(folder / "figures.json", **figures)
    if json is not None:
        write_figures(json, **figures)
    pictures.draw_loss(folder / "loss.png", trainer.history, title)
    run.draw(folder / f"{task.name}.png", trainer.history)
    line = f"{task.name}: {run.headline(metrics)}, after {trainer.step:,} updates in {trainer.seconds:.1f} s"
    return metrics, line


def _as_begun(task: Task, command: Command) -> Command:
    """The options that the run in ``command.resume`` was begun with; those given now must agree or extend it."""
    assert command.resume is not None
    if command.out is not None:
        raise RunError("--out: not with --resume, which goes on in its own folder")
    saved = SavedRun(command.resume)
    saved.require(task.name)
    begun, seed = saved.metadata.of, saved.state.of("seed").integer(most=None)
    preset, data = begun("preset").text(), begun("data").optional(Part.text)
    if preset not in task.presets:
        begun("preset").refuse(f"expected one of {', '.join(task.presets)}, got {preset!r:.80}")
    readers: dict[type, Callable[[Part], Any]] = {
        int: partial(Part.integer, least=-(10**9), most=10**9),
        float: Part.number,
        str: Part.text,
        bool: Part.flag,
    }
    parts = begun("own").entries()
    kinds = {option.name: option.kind for option in task.options}
    own = {name: part.optional(readers[kinds[name]]) for name, part in parts.items() if name in kinds}
    for flag, given, had in (
        ("--preset", command.preset, preset),
        ("--seed", command.seed, seed),
        ("--data", command.data, data),
        *((o.flag, command.own.get(o.name), own[o.name]) for o in task.options if o.name in own),  # some came later
    ):
        if given is not None and given != had:
            raise RunError(f"{flag}: the run was begun with {had}, got {given}; leave it out to resume")
    longer = command.epochs is not None or command.steps is not None
    count = partial(Part.integer, least=1, most=10**9)
    return Command(
        preset=preset,
        epochs=command.epochs if longer else begun("epochs").optional(count),
        steps=command.steps if longer else begun("steps").optional(count),
        seed=seed,
        data=data,
        resume=command.resume,
        json=command.json,
        progress=command.progress,
        own={**{o.name: o.before for o in task.options if o.before is not None}, **command.own, **own},
    )


def _fresh_folder(task: str, out: Path | None) -> Path:
    """The folder asked for, which must be empty or absent; else the first free one of runs/TASK, runs/TASK-2, ..."""
    if out is None:
        names = itertools.chain([task], (f"{task}-{number}" for number in itertools.count(2)))
        return next(folder for name in names if _is_free(folder := Path("runs") / name))
    if out.exists() and not out.is_dir():
        raise RunError(f"--out: {out} is not a folder")
    try:
        occupied = out.is_dir() and not is_untouched(out)
    except OSError as error:
        raise RunError(f"--out: {out} cannot be read: {error.strerror}") from None
    if occupied:
        raise RunError(f"--out: {out} has contents; choose another folder, or go on with its run: --resume {out}")
    return out


def _is_free(folder: Path) -> bool:
    try:
        return is_untouched(folder)
    except OSError:
        return not folder.exists()


def _silent(text: str) -> None:
    """What the first process says, the others need not."""


def require_writable(option: str, path: Path) -> None:
    """Fail before hours of training rather than after. Raises RunError that begins with the option."""
    parent = path.parent
    if path.is_dir():
        raise RunError(f"{option}: {path} is a folder")
    if not parent.is_dir():
        raise RunError(f"{option}: there is no folder {parent}")
    if not os.access(path if path.exists() else parent, os.W_OK):
        raise RunError(f"{option}: {path} cannot be written")
