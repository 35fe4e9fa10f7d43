"""The neural Turing machine: a controller with heads that read and write a memory by content and by place.

Graves, Wayne and Danihelka 2014, Neural Turing Machines, arXiv:1410.5401. The paper leaves open in which order heads
work: here all write first, and the others read what was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fusedrnn.cells.addressing import address, bounded, check_clip, unpack, volume, write
from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.cells.controllers import control, hidden_sizes, stack
from fusedrnn.ops import sigmoid, softmax
from fusedrnn.scan.trees import map_leaves
from fusedrnn.sizes import size

Start: TypeAlias = Literal["learned", "constant", "random"]
_STARTS = ("learned", "constant", "random")
_FIRST_SLOT = 0.9  # its weight before the first step: slots that are all alike would stay so
_MEMORY = 1e-6  # of a constant memory (Collier and Beel 2018, arXiv:1807.08518)


class NTMState(NamedTuple):
    """Hold what a neural Turing machine keeps from step to step.

    Attributes:
        controller: The state of each layer of the controller.
        reads: [read heads, width]. read_weightings: [read heads, slots]. write_weightings: [write heads, slots].
        memory: [slots, width].
    """

    controller: Any
    reads: Any
    read_weightings: Any
    write_weightings: Any
    memory: Any


@dataclass(frozen=True)
class NTMStep:
    """One step of a neural Turing machine over one sequence, as ``fusedrnn.scan_forward`` takes it.

    Attributes:
        controller: A key of `fusedrnn.cells.controllers.CONTROLLERS`.
        read_heads, write_heads: How many. width: Of a slot. shifts: k, of shifts from -k to k.
        clip: Bounds what the heads are told, before its nonlinearities; None for no bound.
    """

    controller: str
    read_heads: int
    write_heads: int
    width: int
    shifts: int
    clip: float | None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what the controller tells the heads, by name, in the order of the rows of ``heads``."""
        shapes: dict[str, tuple[int, ...]] = {}
        for kind, heads in (("read", self.read_heads), ("write", self.write_heads)):
            shapes[f"{kind}_key"] = (heads, self.width)
            shapes[f"{kind}_strength"] = shapes[f"{kind}_gate"] = (heads,)
            shapes[f"{kind}_shift"] = (heads, 2 * self.shifts + 1)
            shapes[f"{kind}_sharpness"] = (heads,)
        return shapes | {"erase": (self.write_heads, self.width), "add": (self.write_heads, self.width)}

    def told(self, p: Any, h: Any) -> dict[str, Any]:
        """Return what the controller's output h tells the heads, by name."""
        return unpack(bounded(p["heads"]["W"] @ h + p["heads"]["b"], self.clip), self.shapes())

    def __call__(self, p: Any, state: NTMState, x: Any) -> tuple[NTMState, Any]:
        """Take a step: x [I], y [O]."""
        seen = np.concatenate([x, np.ravel(state.reads)])
        controller_state, h = control(self.controller, p["controller"], state.controller, seen)
        told = self.told(p, h)

        writing = address(state.memory, state.write_weightings, _of("write", told))
        memory = write(state.memory, writing, sigmoid(told["erase"]), told["add"])

        reading = address(memory, state.read_weightings, _of("read", told))
        reads = reading @ memory

        y = p["out"]["W"] @ np.concatenate([h, np.ravel(reads)]) + p["out"]["b"]
        return NTMState(controller_state, reads, reading, writing, memory), y


def _of(kind: str, told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[f"{kind}_{name}"] for name in ("key", "strength", "gate", "shift", "sharpness")}


@dataclass(frozen=True, eq=False)
class NTMStart:
    """The state of a neural Turing machine before the first step, as a function of its parameters.

    Attributes:
        fixed: What is not learned, with weightings as logits.
    """

    fixed: NTMState

    def __call__(self, p: Any) -> NTMState:
        """Return the state of one sequence."""
        logits = self.fixed._replace(**p.get("start", {}))
        return logits._replace(
            read_weightings=softmax(logits.read_weightings, axis=1),
            write_weightings=softmax(logits.write_weightings, axis=1),
        )


def NTM(
    input_size: int,
    output_size: int,
    hidden_size: int | Sequence[int] = 100,
    *,
    slots: int = 128,
    width: int = 20,
    read_heads: int = 1,
    write_heads: int = 1,
    shifts: int = 1,
    controller: str = "lstm",
    memory: Start = "random",
    reads: Start = "constant",
    weightings: Start = "learned",
    start: Start = "constant",
    clip: float | None = 20.0,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `NTMStep` initial values.

    Args:
        input_size, output_size: I of x and O of y, which is linear in the controller's output and what was read.
        hidden_size: Units of the controller, or a list of those of each layer.
        slots, width: The memory's size. read_heads, write_heads: How many. shifts: k; heads move from -k to k slots.
        controller: "lstm", "gru", "rnn" or "feedforward".
        memory, reads, weightings, start: Where the memory, the reads, the weightings and the controller's state begin:
            "learned", a parameter; "constant" (a memory of 1e-6, weightings of 0.9 on the first slot, else
            zero); or "random": the same for every seed (a memory from U(-1, 1) / sqrt(slots + width)).
        clip: Bounds what the heads are told, before its nonlinearities; None for no bound.
        rng: Seed or generator. dtype: "float32" or "float64".

    Raises:
        ValueError: A size below 1, more shifts than slots, another name, a clip that is not above zero.
    """
    check_clip(clip)
    draw, hidden = Initial(rng, dtype), hidden_sizes(hidden_size)
    step = NTMStep(
        controller, size("read_heads", read_heads), size("write_heads", write_heads), size("width", width),
        size("shifts", shifts, 0), clip,
    )  # fmt: skip
    if 2 * shifts + 1 > size("slots", slots):
        raise ValueError(f"shifts: expected at most {(slots - 1) // 2} for {slots} slots, got {shifts}")
    layers, states = stack(controller, size("input_size", input_size) + read_heads * width, hidden, draw)
    p: dict[str, Any] = {
        "controller": layers,
        "heads": draw.linear(sum(hidden), volume(step.shapes())),
        "out": draw.linear(sum(hidden) + read_heads * width, size("output_size", output_size)),
    }
    kinds = {
        "controller": ("start", start),
        "reads": ("reads", reads),
        "read_weightings": ("weightings", weightings),
        "write_weightings": ("weightings", weightings),
        "memory": ("memory", memory),
    }
    for name, kind in kinds.values():
        if kind not in _STARTS:
            raise ValueError(f"{name}: expected one of {', '.join(_STARTS)}, got {kind!r}")
    fixed = _first(step, slots, states, {field: kind for field, (_, kind) in kinds.items()}, draw.dtype)
    learned = {field: getattr(fixed, field) for field, (_, kind) in kinds.items() if kind == "learned"}
    if learned:
        p["start"] = learned
    return Cell(step, p, NTMStart(fixed))


def _first(step: NTMStep, slots: int, controller: Any, kinds: dict[str, str], dtype: Any) -> NTMState:
    """Make the state before the first step, with weightings as logits; random numbers do not depend on any seed."""
    draw = Initial(0, dtype)
    bound = 1 / math.sqrt(slots + step.width)
    memory = draw.uniform(-bound, bound, slots, step.width)
    if kinds["memory"] == "constant":
        memory = draw.full(_MEMORY, slots, step.width)

    def logits(heads: int, kind: str) -> Any:
        first = draw.normal(1, heads, slots)
        peak = math.log(_FIRST_SLOT / (1 - _FIRST_SLOT) * max(slots - 1, 1))
        return first if kind == "random" else draw.array(np.where(np.arange(slots) == 0, peak, 0 * first))

    def small(kind: str, *shape: int) -> Any:
        return draw.uniform(-bound, bound, *shape) if kind == "random" else draw.zeros(*shape)

    return NTMState(
        map_leaves(lambda leaf: small(kinds["controller"], *leaf.shape), tuple(controller)),
        small(kinds["reads"], step.read_heads, step.width),
        logits(step.read_heads, kinds["read_weightings"]),
        logits(step.write_heads, kinds["write_weightings"]),
        memory,
    )
