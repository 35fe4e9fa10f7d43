"""The differentiable neural computer: a memory that allocates slots, frees them, and knows in which order it wrote.

Graves, Wayne, Reynolds et al. 2016, Hybrid computing using a neural network with dynamic external memory, Nature 538,
471 to 476, Methods. Several write heads write one after the other in what the others left free, as in DeepMind's
code. Options are refinements: masks of keys, de-allocation and sharp links of Csordás and Schmidhuber 2019
(arXiv:1904.10278), normalization of Franke, Niehues and Waibel 2018 (arXiv:1807.02658).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.cells.addressing import bounded, by_content, check_clip, oneplus, sharpened, unpack, volume, write
from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.cells.controllers import control, hidden_sizes, stack
from fusedrnn.cells.links import SparseLinks, backwards, forwards, linked, preceding, resolved, sparsely_linked
from fusedrnn.ops import layer_norm, sigmoid, softmax
from fusedrnn.sizes import size

USAGE = 1e-6  # of a slot at least, where slots are allocated


class DNCState(NamedTuple):
    """Hold what a differentiable neural computer keeps from step to step.

    Attributes:
        controller: The state of each layer of the controller.
        reads: [read heads, width]. memory: [slots, width]. usage: [slots] in [0, 1].
        precedence: A list of [slots], one of each write head; empty without links.
        links: A list of [slots, slots] or `SparseLinks`, one of each write head; empty without links.
        write_weightings: [write heads, slots]. read_weightings: [read heads, slots].
    """

    controller: Any
    reads: Any
    memory: Any
    usage: Any
    precedence: Any
    links: Any
    write_weightings: Any
    read_weightings: Any


@dataclass(frozen=True)
class DNCStep:
    """One step of a differentiable neural computer over one sequence, as ``fusedrnn.scan_forward`` takes it.

    Attributes:
        controller: A key of `fusedrnn.cells.controllers.CONTROLLERS`.
        read_heads, write_heads: How many. width: Of a slot.
        links, free_gates, key_mask, deallocate, sharp_links, normalize, clip: As `DNC` has them.
    """

    controller: str
    read_heads: int
    write_heads: int
    width: int
    links: bool
    free_gates: bool
    key_mask: bool
    deallocate: bool
    sharp_links: bool
    normalize: bool
    clip: float | None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the interface's parts, by name, in the order of the rows of ``interface``."""
        reads, writes, width = self.read_heads, self.write_heads, self.width
        shapes: dict[str, tuple[int, ...]] = {
            "read_key": (reads, width), "read_strength": (reads,), "write_key": (writes, width),
            "write_strength": (writes,), "erase": (writes, width), "write": (writes, width),
        }  # fmt: skip
        if self.free_gates:
            shapes["free_gate"] = (reads,)
        shapes["allocation_gate"] = shapes["write_gate"] = (writes,)
        if self.links:
            shapes["read_mode"] = (reads, 1 + 2 * writes)
        if self.sharp_links:
            shapes["link_sharpness"] = (reads, 2 * writes)
        if self.key_mask:
            shapes |= {"read_mask": (reads, width), "write_mask": (writes, width)}
        return shapes

    def interface(self, p: Any, h: Any) -> dict[str, Any]:
        """Return the parts of the interface by name, nonlinearities applied, for the controller's output h."""
        raw = p["interface"]["W"] @ h
        if self.normalize:
            raw = layer_norm(raw, p["interface"]["gain"])
        part = unpack(bounded(raw + p["interface"]["b"], self.clip), self.shapes())
        for name in ("erase", "allocation_gate", "write_gate", "free_gate", "read_mask", "write_mask"):
            if name in part:
                part[name] = sigmoid(part[name])
        for name in ("read_strength", "write_strength", "link_sharpness"):
            if name in part:
                part[name] = oneplus(part[name])
        if self.links:
            part["read_mode"] = softmax(part["read_mode"], axis=1)
        return part

    def __call__(self, p: Any, state: DNCState, x: Any) -> tuple[DNCState, Any]:
        """Take a step: x [I], y [O]."""
        seen = np.concatenate([x, np.ravel(state.reads)])
        controller_state, h = control(self.controller, p["controller"], state.controller, seen)
        part = self.interface(p, h)

        kept: Any = retention(state.read_weightings, part["free_gate"]) if self.free_gates else None
        usage = used(state.usage, state.write_weightings, kept)
        content = by_content(state.memory, part["write_key"], part["write_strength"], part.get("write_mask"))
        writing = allotted(usage, content, part["allocation_gate"], part["write_gate"])
        memory = state.memory * kept[:, None] if self.deallocate else state.memory
        memory = write(memory, writing, part["erase"], part["write"])

        precedence, links = state.precedence, state.links
        reading = by_content(memory, part["read_key"], part["read_strength"], part.get("read_mask"))
        if self.links:
            heads = range(self.write_heads)
            update, wrote = sparsely_linked if isinstance(links[0], SparseLinks) else linked, resolved(writing)
            links = [update(links[head], wrote[head], precedence[head]) for head in heads]
            precedence = [preceding(precedence[head], wrote[head]) for head in heads]
            reading = self.directed(part, reading, state.read_weightings, links)
        reads = reading @ memory

        y = p["out"]["W"] @ np.concatenate([h, np.ravel(reads)]) + p["out"]["b"]
        return DNCState(controller_state, reads, memory, usage, precedence, links, writing, reading), y

    def directed(self, part: dict[str, Any], content: Any, before: Any, links: Any) -> Any:
        """Return read weightings [heads, slots]: by content, and along the links from what was read before."""
        modes, writes = part["read_mode"], self.write_heads
        reading = modes[:, writes : writes + 1] * content
        for head, link in enumerate(links):
            for walk, place in ((backwards, head), (forwards, writes + 1 + head)):
                along = walk(link, before)
                along = np.where(along < 0, 0.0, along)  # by rounding, where 1 - w[i] - w[j] is below zero
                if self.sharp_links:
                    along = sharpened(along, part["link_sharpness"][:, 2 * head + (walk is forwards)])
                reading = reading + modes[:, place : place + 1] * along
        return reading


def retention(reading: Any, free: Any) -> Any:
    """Return ψ [slots]: what no head frees, of read weightings [heads, slots] and free gates [heads]."""
    kept: Any = None
    for head in range(reading.shape[0]):
        left = 1 - free[head] * reading[head]
        left = np.where(left < 0, 0.0, left)  # a weight may be above one by rounding
        kept = left if kept is None else kept * left
    return kept


def used(usage: Any, writing: Any, kept: Any) -> Any:
    """Return u = (u + w - u w) ψ [slots]; as 1 - (1 - u) (1 - w), which rounding leaves within [0, 1].

    Args:
        usage: [slots]. writing: Weightings of the last step, [write heads, slots]. kept: ψ [slots]; None where
            nothing is freed.
    """
    unused = 1 - usage
    for head in range(writing.shape[0]):
        unused = unused * (1 - writing[head])
    return 1 - unused if kept is None else (1 - unused) * kept


def allocation(usage: Any) -> Any:
    """Return a weighting [slots] of the slots by how free they are; no gradient passes through their order.

    a[φ(j)] = (1 - u[φ(j)]) times the product of u[φ(i)] over i < j, φ the slots by ascending usage, ties by number.
    """
    usage = USAGE + (1 - USAGE) * usage
    order = np.argsort(usage, kind="stable")
    ascending = np.take(usage, order)
    before = np.cumprod(np.where(np.arange(len(usage)) == 0, 1.0, np.roll(ascending, 1)))
    return np.take((1 - ascending) * before, np.argsort(order))


def allotted(usage: Any, content: Any, allocate: Any, gate: Any) -> Any:
    """Return write weightings [heads, slots]: gate (allocate a + (1 - allocate) c), c by content [heads, slots].

    A head allocates in what those before it leave.
    """
    heads = content.shape[0]
    weightings = []
    for head in range(heads):
        free = allocation(usage)
        weightings.append(gate[head] * (allocate[head] * free + (1 - allocate[head]) * content[head]))
        if head + 1 < heads:
            usage = usage + (1 - usage) * (gate[head] * allocate[head]) * free
    return np.stack(weightings)


def DNC(
    input_size: int,
    output_size: int,
    hidden_size: int | Sequence[int] = 100,
    *,
    slots: int = 32,
    width: int = 16,
    read_heads: int = 1,
    write_heads: int = 1,
    controller: str = "lstm",
    links: bool | int = True,
    free_gates: bool = True,
    key_mask: bool = False,
    deallocate: bool = False,
    sharp_links: bool = False,
    normalize: bool = False,
    clip: float | None = 20.0,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `DNCStep` initial values. The state before the first step is zero.

    Args:
        input_size, output_size: I of x and O of y, which is linear in the controller's output and what was read.
        hidden_size: Units of the controller, or a list of those of each layer.
        slots, width: The memory's size. read_heads, write_heads: How many.
        controller: "lstm", "gru", "rnn" or "feedforward".
        links: Temporal links; False for none; a number K for the K strongest of each slot (see `SparseLinks`).
        free_gates: Reads may free what they read. key_mask: Heads say which columns count in a look-up by content.
        deallocate: What is freed is erased. sharp_links: Readings along links are raised to a power.
        normalize: Layer normalization of the interface.
        clip: Bounds the interface, before its nonlinearities; None for no bound.
        rng: Seed or generator. dtype: "float32" or "float64".

    Raises:
        ValueError: A size below 1, another name, a clip that is not above zero, de-allocation without free gates, sharp
            links without links.
    """
    if deallocate and not free_gates:
        raise ValueError("deallocate: expected free gates, got free_gates=False")
    if sharp_links and links is False:
        raise ValueError("sharp_links: expected links, got links=False")
    check_clip(clip)
    draw, hidden = Initial(rng, dtype), hidden_sizes(hidden_size)
    sparse = None if isinstance(links, bool) else min(size("links", links), size("slots", slots))
    step = DNCStep(
        controller, size("read_heads", read_heads), size("write_heads", write_heads), size("width", width),
        links is not False, free_gates, key_mask, deallocate, sharp_links, normalize, clip,
    )  # fmt: skip
    layers, states = stack(controller, size("input_size", input_size) + read_heads * width, hidden, draw)
    interface = draw.linear(sum(hidden), volume(step.shapes()))
    if normalize:
        interface["gain"] = draw.full(1, volume(step.shapes()))
    p = {
        "controller": layers,
        "interface": interface,
        "out": draw.linear(sum(hidden) + read_heads * width, size("output_size", output_size)),
    }
    slots, heads = size("slots", slots), range(write_heads if step.links else 0)
    state = DNCState(
        controller=tuple(states),
        reads=draw.zeros(read_heads, width),
        memory=draw.zeros(slots, width),
        usage=draw.zeros(slots),
        precedence=[draw.zeros(slots) for _ in heads],
        links=[_no_links(slots, sparse, draw) for _ in heads],
        write_weightings=draw.zeros(write_heads, slots),
        read_weightings=draw.zeros(read_heads, slots),
    )
    return Cell(step, p, state)


def _no_links(slots: int, sparse: int | None, draw: Initial) -> Any:
    if sparse is None:
        return draw.zeros(slots, slots)
    weights, places = (slots, sparse), np.full((slots, sparse), -1)
    return SparseLinks(draw.zeros(*weights), places, draw.zeros(*weights), places.copy())
