"""Samples of what a run has learnt: ``fusedrnn sample``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from fusedrnn.tasks.run import require_writable
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import RunError, SampleOptions, Task
from fusedrnn.train.checkpoint import CheckpointError


def sample_run(tasks: Mapping[str, Task], folder: Path, options: SampleOptions) -> None:
    """Draw from the network of the run in `folder`, as its task does it.

    Raises RunError for options out of range or that do not fit the task, CheckpointError where there is no run.
    """
    for option, number, least in (
        ("--count", options.count, 1),
        ("--length", options.length, 1),
        ("--seed", options.seed, 0),
    ):
        if number < least:
            raise RunError(f"{option}: expected at least {least}, got {number}")
    for option, value in (("--temperature", options.temperature), ("--bias", options.bias)):
        if not (math.isfinite(value) and value >= 0):
            raise RunError(f"{option}: expected a finite number of at least 0, got {value}")
    if options.out is not None:
        require_writable("--out", options.out)
    name = SavedRun(folder).task
    if name is None or name not in tasks:
        raise CheckpointError(f"{folder}: a run of {name or 'another program'}, not of a task of this one")
    draw = tasks[name].sample
    if draw is None:
        able = ", ".join(task.name for task in tasks.values() if task.sample is not None)
        raise RunError(f"{folder}: a run of {name}, which has nothing to sample; {able} has")
    if options.style is not None and not tasks[name].styles:
        able = ", ".join(task.name for task in tasks.values() if task.styles)
        raise RunError(f"--style: an option of {able}, not of {name}")
    draw(folder, options)
