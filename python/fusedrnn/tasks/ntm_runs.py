"""The five tasks of the paper "Neural Turing Machines" share these: networks, a run of them, the same network again.

Graves, Wayne and Danihelka 2014, arXiv:1410.5401. A neural Turing machine and the plain LSTM that the paper sets beside
it see the same episodes, each with its own gradient, whose norm is clipped; both are moved by one optimizer at one
learning rate. The figures of both are of the epoch in which the machine's training loss was least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import NTM
from fusedrnn.ops import sigmoid
from fusedrnn.optim import CosineLR
from fusedrnn.plots import memory as memory_plots
from fusedrnn.tasks.episodes import (
    BitsLoss,
    Draw,
    Memory,
    RivalsRMSprop,
    bits_per_sequence,
    episodes,
    held_out,
    lstm,
    wrong_bits,
)
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Run


@dataclass(frozen=True)
class Recipe:
    """Two networks and how they learn; it stands in the checkpoint.

    Attributes:
        inputs, outputs: I and O. units: Of the machine's LSTM controller. read_heads, write_heads: How many.
        slots, width: The memory's size. lstm_units, lstm_layers: Of the plain LSTM.
        lr: Learning rate of the RMSprop of Graves (2013).
        rows, updates: Sequences in an update, and updates in an epoch.
    """

    inputs: int
    outputs: int
    units: int = 100
    read_heads: int = 1
    write_heads: int = 1
    slots: int = 128
    width: int = 20
    lstm_units: int = 256
    lstm_layers: int = 3
    lr: float = 1e-4
    rows: int = 1
    updates: int = 1000

    def networks(self, rng: np.random.Generator | None = None) -> SideBySide:
        """Make the machine and the LSTM, each with x [T, N, I] in and logits [T, N, O] out."""
        machine = NTM(
            self.inputs, self.outputs, self.units, slots=self.slots, width=self.width, read_heads=self.read_heads,
            write_heads=self.write_heads, rng=rng,
        )  # fmt: skip
        return SideBySide(Memory(machine), lstm(self.inputs, self.outputs, self.lstm_units, self.lstm_layers, rng))

    def least_size(self) -> int:
        """Return a number of parameters that the networks have at least; a memory is taken to be smaller than they."""
        told = self.width * (self.read_heads + self.write_heads)
        machine = self.units * (self.units + self.inputs + self.outputs + told)
        return machine + self.slots * self.width + self.lstm_layers * self.lstm_units**2


@dataclass(frozen=True)
class Exercise:
    """A task as a run needs it.

    Attributes:
        name: Of the task. recipe: Of the networks. draw: Makes episodes to train on. test: Held-out ones, (x, target),
            for every epoch. more: Measures what else is told of both networks in the end.
        shown: x [T, 1, I] and target [T, 1, O + 1] of the picture. level: The name and the bits a sequence of who
            does not use the memory, or cannot be beaten. headline: Puts the figures into words. learned: Bits a
            sequence at which the machine has learnt the task; `learned_after` then tells when.
    """

    name: str
    recipe: Recipe
    draw: Draw
    test: Sequence[tuple[Array, Array]]
    more: Callable[[SideBySide], Metrics]
    shown: tuple[Array, Array]
    level: tuple[str, float]
    headline: Callable[[Metrics], str]
    learned: float | None = None


def score(model: SideBySide, sets: Sequence[tuple[Array, Array]]) -> Metrics:
    """Return the bits a sequence of both networks and the machine's fraction of wrong bits, means over sets alike."""
    found = [(model(x), target) for x, target in sets]
    bits = np.mean([bits_per_sequence(logits, target) for logits, target in found], axis=0)
    wrong = np.mean([wrong_bits(logits, target) for logits, target in found], axis=0)
    return {
        "bits_per_sequence": float(bits[0]),
        "lstm_bits_per_sequence": float(bits[1]),
        "wrong_bits": float(wrong[0]),
        "lstm_wrong_bits": float(wrong[1]),
    }


def wrong_of(model: SideBySide, name: str, x: Array, target: Array) -> Metrics:
    """Return both networks' fractions of wrong bits on a set, as ``wrong_bits_NAME`` and ``lstm_wrong_bits_NAME``."""
    machine, plain = wrong_bits(model(x), target)
    return {f"wrong_bits_{name}": float(machine), f"lstm_wrong_bits_{name}": float(plain)}


def several(draw: Draw, seed: int, sets: int, rows: int, first: int = 0) -> list[tuple[Array, Array]]:
    """Make held-out sets of episodes, with the numbers from ``first`` on."""
    return [draw(held_out(seed, first + number), rows) for number in range(sets)]


def learned_after(history: Sequence[Mapping[str, Any]], bits: float, rows: int) -> Metrics:
    """Return after how many sequences an epoch's training loss was at most so many bits; infinity where none was."""
    steps = [record["step"] for record in history if record["loss"] <= bits]
    return {"learned_after": float(rows * min(steps)) if steps else float("inf")}


def setup_run(options: Options, exercise: Exercise) -> Run:
    """Make one run: networks, optimizer and episodes from the seed, the preset's settings over the recipe."""
    recipe = replace(exercise.recipe, **options.settings)
    model = recipe.networks(np.random.default_rng(options.seed))

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        curves = [
            memory_plots.curve(history, "bits_per_sequence", "neural Turing machine", recipe.rows),
            memory_plots.curve(history, "lstm_bits_per_sequence", "LSTM", recipe.rows),
        ]
        title = f"{exercise.name}: one sequence step by step, and how a neural Turing machine answered it"
        memory_plots.draw_episode(path, episode_of(machine_of(model), *exercise.shown), curves, exercise.level, title)

    def milestones(history: Sequence[Mapping[str, Any]]) -> Metrics:
        return {} if exercise.learned is None else learned_after(history, exercise.learned, recipe.rows)

    return Run(
        model=model,
        loss=BitsLoss(),
        optimizer=RivalsRMSprop(model, recipe.lr),
        batches=episodes(exercise.draw, recipe.updates, recipe.rows, options.seed),
        schedule=CosineLR(options.total_steps(recipe.updates), final=0.1),
        row_axes=(1, 1),
        evaluate=lambda: score(model, exercise.test),
        figures=lambda: {**score(model, exercise.test), **exercise.more(model)},
        baseline={"bits_per_sequence": exercise.level[1]},
        draw=draw,
        headline=exercise.headline,
        milestones=milestones,
        monitor="loss",
        metadata={"recipe": asdict(recipe)},
    )


def machine_of(model: SideBySide) -> NTM:
    """Return the neural Turing machine of the two networks."""
    memory = model.members[0]
    assert isinstance(memory, Memory)
    assert isinstance(memory.layer, NTM)
    return memory.layer


def episode_of(machine: NTM, x: Array, target: Array) -> memory_plots.Episode:
    """Run a sequence x [T, 1, I] for a picture, with the answers that a target [T, 1, O + 1] asks for."""
    logits, states = machine.trajectory(x)
    bits, asked = target[:, 0, :-1], target[:, 0, -1:] > 0
    return memory_plots.Episode(
        seen=x[:, 0],
        asked=np.where(asked, bits, np.nan),
        answered=sigmoid(logits[:, 0].astype(float)),
        written=states.write_weightings[:, 0].sum(1),
        read=states.read_weightings[:, 0].sum(1),
        memory=states.memory[-1, 0],
    )


def reload(folder: Path, name: str) -> NTM:
    """Return the neural Turing machine of a run of a task, in evaluation, as its best epoch left it.

    Raises CheckpointError for a folder without such a network.
    """
    saved = SavedRun(folder, best=True)
    saved.require(name)
    part = saved.metadata.of("recipe")
    recipe = part.fill(Recipe)
    saved.require_size(recipe.least_size(), part)
    try:
        model = recipe.networks()
    except (TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    return machine_of(model)
