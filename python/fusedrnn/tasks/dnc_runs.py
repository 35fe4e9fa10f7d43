"""The tasks of the differentiable neural computer share these: networks, how they learn, the same network again, its
state step by step in words.

Graves, Wayne, Reynolds et al. 2016, Hybrid computing using a neural network with dynamic external memory, Nature 538,
471. Every task trains a second network on the same batches, each with its own gradient: a computer without the part
that the task is about, or an LSTM. Held-out batches are scored after every epoch, and the figures are those of the
epoch in which the computer was best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import DNC, Module
from fusedrnn.plots.memory import Traces
from fusedrnn.tasks.episodes import Memory, RivalsAdam, lstm
from fusedrnn.tasks.memory_text import SHADES, shaded
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.saved import SavedRun


@dataclass(frozen=True)
class Recipe:
    """A differentiable neural computer, its rival, and how both learn; it stands in the checkpoint.

    Attributes:
        inputs, outputs: I and O. units: Of the controller. slots, width, read_heads, controller, key_mask, deallocate,
            sharp_links, normalize: As `fusedrnn.nn.DNC` has them.
        rival: "no links", "no free gates" (the same computer without them), or "lstm".
        lstm_units, lstm_layers: Of that LSTM.
        lr: Adam's. rows, updates: Sequences in an update, and updates in an epoch.
    """

    inputs: int
    outputs: int
    rival: str
    units: int = 64
    slots: int = 32
    width: int = 16
    read_heads: int = 1
    controller: str = "feedforward"
    key_mask: bool = False
    deallocate: bool = False
    sharp_links: bool = False
    normalize: bool = False
    lstm_units: int = 256
    lstm_layers: int = 1
    lr: float = 1e-3
    rows: int = 16
    updates: int = 500

    def networks(self, rng: np.random.Generator | None = None) -> SideBySide:
        """Make the computer and its rival, each with x [T, N, I] in and logits [T, N, O] out.

        Raises ValueError for a rival or an option that there is not.
        """

        def computer(links: bool = True, free_gates: bool = True) -> Memory:
            return Memory(
                DNC(
                    self.inputs, self.outputs, self.units, slots=self.slots, width=self.width,
                    read_heads=self.read_heads, controller=self.controller, key_mask=self.key_mask,
                    deallocate=self.deallocate, sharp_links=self.sharp_links and links, normalize=self.normalize,
                    links=links, free_gates=free_gates, rng=rng,
                )
            )  # fmt: skip

        rivals: dict[str, Callable[[], Module]] = {
            "no links": lambda: computer(links=False),
            "no free gates": lambda: computer(free_gates=False),
            "lstm": lambda: lstm(self.inputs, self.outputs, self.lstm_units, self.lstm_layers, rng),
        }
        if self.rival not in rivals:
            raise ValueError(f"rival: expected one of {', '.join(rivals)}, got {self.rival!r:.80}")
        return SideBySide(computer(), rivals[self.rival]())

    def optimizer(self, model: SideBySide) -> RivalsAdam:
        """Make the optimizer of both networks."""
        return RivalsAdam(model, self.lr)


def computer_of(model: SideBySide) -> DNC:
    """Return the differentiable neural computer of the two networks."""
    memory = model.members[0]
    assert isinstance(memory, Memory)
    assert isinstance(memory.layer, DNC)
    return memory.layer


def reload(saved: SavedRun, task: str) -> DNC:
    """Return the computer of a saved run of a task, in evaluation.

    Raises CheckpointError for a folder without such a network.
    """
    saved.require(task)
    part = saved.metadata.of("recipe")
    recipe = part.fill(Recipe)
    least = recipe.units * (recipe.inputs + recipe.outputs) + recipe.lstm_layers * (
        recipe.lstm_units**2 if recipe.rival == "lstm" else 0
    )
    saved.require_size(least, part)
    if not 1 <= recipe.slots <= 100_000:  # slots have no parameters, so that the file's size says nothing of them
        part.refuse(f"expected 1 to 100,000 slots, got {recipe.slots:,}")
    try:
        model = recipe.networks()
    except (TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    return computer_of(model)


def watch(computer: DNC, x: Array) -> Traces:
    """Run a sequence x [T, I] and return what happened at every step."""
    logits, states = computer.trajectory(np.ascontiguousarray(x[:, None]))
    return Traces(
        logits=logits[:, 0],
        written=states.write_weightings[:, 0].sum(1),
        read=states.read_weightings[:, 0].sum(1),
        usage=states.usage[:, 0],
        links=states.links[0][:, 0],
        memory=states.memory[-1, 0],
    )


def tell(seen: Traces, names: Sequence[str], answers: Sequence[str], say: Callable[[str], None]) -> None:
    """Tell every step: what went in and came out, and the slots that were written and read as shades.

    Args:
        seen: T steps. names, answers: T words for what went in and came out. say: Takes a line.
    """
    weights = np.maximum(seen.written, seen.read)
    slots = np.flatnonzero(weights.max(0) >= 0.1)
    if len(slots) == 0:
        slots = np.arange(weights.shape[1])
    say(f"One column a slot of the memory that was used, its weight from 0 to 1 as one of '{SHADES}'.")
    into, out = (max(3, *map(len, words)) for words in (names, answers))
    room = max(5, len(slots)) + 2
    say(f"{'step':>4}  {'in':<{into}}  {'out':<{out}}  {'wrote':<{room}}  read")
    for t, (name, answer) in enumerate(zip(names, answers, strict=True)):
        wrote, read = (f"{shaded(weightings[t, slots]):<{room}}" for weightings in (seen.written, seen.read))
        say(f"{t + 1:>4}  {name:<{into}}  {answer:<{out}}  {wrote}  {read}".rstrip())


def reload_best(folder: Path, task: str) -> DNC:
    """Return the computer of a task's run in a folder as its best epoch left it. Raises CheckpointError as `reload`."""
    return reload(SavedRun(folder, best=True), task)
