"""Microseconds that a step of the CUDA path should take, on paper: no GPU has run it yet.

``python -m benchmarks.cuda_model`` prints the tables, ``--write`` renews them in ``benchmarks/cuda.md``. The plans are
the library's own (``fusedrnn._cuda``, or the module that ``--module`` names: the tests' emulator has the same planner);
what a step of a plan costs is added up here from the figures of ``cuda_figures.py``.

A step is a chain: the team's blocks send each other the operand, multiply, and finish their units; nothing of the next
step can start before. So the parts are added, and within a part the slowest resource counts:

product    multiply-adds; the chain of sums that wait for each other; shared memory; weights that are read from L2
exchange   bytes and trips, from a block's last store to the others' first product
pointwise  the sums of a block's warps, the formulas, the stores
loads      of what the formulas read: what of it neither the exchange nor the product hides
memory     bytes of a step, as far as they take longer than all that
waves      where a GPU does not hold all teams at once: the same again for each further wave
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.cuda_figures import (
    CELLS,
    COPY,
    COPY_TRIPS,
    FLAG_TRIPS,
    FMA_LATENCY,
    GPUS,
    HIDING_TRIPS,
    POLL_TRIPS,
    PUBLISHED,
    PUSH,
    PUSHES,
    QUAD_TURNS,
    RECIPROCAL,
    RELEASE_TRIPS,
    SHARED_BYTES,
    Cell,
    Gpu,
    assumptions,
)

PAGE = Path(__file__).with_name("cuda.md")
BEGIN, END = "<!-- tables: python -m benchmarks.cuda_model --write -->", "<!-- end of tables -->"
HIDDEN = (128, 256, 512, 768, 1024, 2048)
BATCHES = (1, 16, 64, 128)
STEPS = 512
SCHEDULERS = 4  # of a multiprocessor
WARP, ROW_GROUP, UNITS = 32, 8, 16
PARTIAL_STRIDE = 20  # csrc/cuda/arguments.hpp


@dataclass(frozen=True)
class Problem:
    """One row of a table."""

    cell: str
    product: str
    backward: bool
    batch: int
    hidden: int
    directions: int = 1

    @property
    def of_cell(self) -> Cell:
        return CELLS[self.cell, self.backward]

    @property
    def cell_gates(self) -> int:
        return {"rnn": 1, "lstm": 4, "gru": 3}[self.cell]

    @property
    def gates(self) -> int:
        """Sums to a unit."""
        return 1 if self.backward else self.cell_gates

    @property
    def pieces(self) -> int:
        """Of the operand: h, or the gradients of the gates."""
        return self.cell_gates if self.backward else 1

    @property
    def element_bytes(self) -> int:
        return 4 if self.product in ("fma", "tf32") else 2

    @property
    def quads(self) -> int:
        """16 bytes of weights that a lane has of a tile."""
        return (4 if self.product == "fma" else 1) * self.gates

    @property
    def tile_bytes(self) -> int:
        return self.quads * 16 * WARP

    @property
    def tile_terms(self) -> int:
        return 32 if self.product == "fma" else 32 // self.element_bytes


@dataclass(frozen=True)
class Step:
    """Microseconds of a step, by what takes them."""

    product: float
    exchange: float
    pointwise: float
    loads: float
    memory: float
    waves: float

    @property
    def total(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))


def plan_of(cuda: Any, problem: Problem, gpu: Gpu, tier: str | None = None) -> Any:
    """The library's plan, of ``tier`` if it is given: ValueError where the problem does not fit that."""
    shape = cuda.Problem(
        cuda.Cell[problem.cell],
        cuda.Product[problem.product],
        problem.backward,
        STEPS,
        problem.batch,
        problem.hidden,
        problem.directions,
    )
    kind = cuda.Gpu(gpu.major, 0, gpu.multiprocessors)
    return cuda.make_plan(shape, kind) if tier is None else cuda.make_plan(shape, kind, cuda.Tier[tier])


def waves(problem: Problem, plan: Any, gpu: Gpu) -> int:
    """How often the GPU is filled with teams."""
    layout, teams = plan.layout, plan.row_tiles * problem.directions
    if plan.tier.name == "grid":
        return ceil(plan.row_tiles / plan.tiles_per_launch)
    if plan.tier.name == "cluster":
        return ceil(teams / (gpu.clusters * (gpu.multiprocessors // gpu.clusters // layout.members)))
    return ceil(teams * layout.members / gpu.multiprocessors)


def blocks_at_once(problem: Problem, plan: Any, gpu: Gpu) -> int:
    """That share the L2 cache's bandwidth."""
    of_wave = ceil(plan.row_tiles * problem.directions / waves(problem, plan, gpu))
    return min(of_wave * plan.layout.members, gpu.multiprocessors)


def l2_bytes_per_cycle(problem: Problem, plan: Any, gpu: Gpu) -> float:
    """From L2 to each block."""
    return min(gpu.l2_port, gpu.l2_bandwidth * 1e3 / gpu.clock / blocks_at_once(problem, plan, gpu))


def rows_of(problem: Problem, plan: Any) -> int:
    """Of a team that the batch fills as far as it can."""
    return min(problem.batch, plan.layout.rows)


def weight_bytes(problem: Problem, plan: Any) -> dict[str, int]:
    """Where the weights of a block lie; what is `streamed` is read again at each pass over the tiles."""
    layout = plan.layout
    of_tile = layout.groups * layout.splits * problem.tile_bytes
    return {
        "registers": layout.register_tiles * of_tile,
        "shared": layout.shared_tiles * of_tile,
        "streamed": (layout.tiles_per_warp - layout.register_tiles - layout.shared_tiles) * of_tile,
    }


def operand_bytes(problem: Problem, plan: Any) -> int:
    """That a block needs of the others, in a step."""
    layout = plan.layout
    if plan.tier.name == "block":
        return 0
    if plan.tier.name == "cluster":
        own = layout.rows * problem.pieces * layout.groups * UNITS * problem.element_bytes
        return int(own * (layout.members - 1))
    return int(layout.rows * layout.operand_stride)


def product_cycles(problem: Problem, plan: Any, gpu: Gpu) -> float:
    """From the operand's arrival to the block's sums in shared memory."""
    layout, rows, resident = plan.layout, rows_of(problem, plan), plan.tier.name != "steps"
    warps, tiles = layout.groups * layout.splits, layout.tiles_per_warp
    if problem.product == "fma":
        passes = ceil(rows / (2 if resident else 4))
        padded = passes * (2 if resident else 4)
        busy = padded * tiles * problem.quads * 4 * WARP * warps / gpu.fma
        chain = passes * (gpu.shared_latency + tiles * 4 * FMA_LATENCY)  # four terms of a tile to a lane
        operand = padded * tiles * QUAD_TURNS
        sums = padded * (_shuffles(problem.quads) + ceil(problem.quads / 4))
    else:
        groups = ceil(rows / ROW_GROUP)
        passes = groups if resident else ceil(groups / 4)
        rate = gpu.tf32 if problem.product == "tf32" else gpu.tensor
        busy = groups * tiles * problem.gates * (UNITS * ROW_GROUP * problem.tile_terms) * warps / rate
        chain = passes * (gpu.shared_latency + ceil(tiles / (4 if problem.gates == 1 else 1)) * gpu.mma_latency)
        operand = groups * tiles * 2  # 32 bytes of each of eight rows
        sums = groups * problem.gates * 4
    of_weights = weight_bytes(problem, plan)
    shared = warps * (sums + (operand if resident else 0)) + passes * of_weights["shared"] / SHARED_BYTES
    per_cycle = l2_bytes_per_cycle(problem, plan, gpu)
    from_l2 = passes * of_weights["streamed"] + (0 if resident else operand_bytes(problem, plan))
    streamed = max(from_l2 / per_cycle, passes * gpu.l2_latency) if from_l2 else 0
    return max(busy, chain, shared) + streamed + gpu.sync


def _shuffles(count: int) -> int:
    """To add up `count` sums over eight lanes, halved while they can be."""
    total = 0
    for _ in range(3):
        count = count // 2 if count % 2 == 0 else count
        total += count
    return total


def exchange_cycles(problem: Problem, plan: Any, gpu: Gpu) -> tuple[float, float]:
    """From a block's last store to the operand's arrival, and how much of that hides the start of its loads."""
    layout, size = plan.layout, operand_bytes(problem, plan)
    if plan.tier.name == "block":
        return gpu.sync + gpu.shared_latency, 0
    if plan.tier.name == "steps":
        return gpu.launch * 1e3 * gpu.clock, 0
    if plan.tier.name == "cluster":
        parts = size / (layout.members - 1) / 16 / plan.threads
        pushes = PUSHES.cycles + ceil(parts) * (layout.members - 1) * PUSH.cycles
        flight = gpu.near_latency + max(0, size / gpu.near_bandwidth - pushes)
        return gpu.sync + pushes + flight, flight
    trips = RELEASE_TRIPS + FLAG_TRIPS + POLL_TRIPS + COPY_TRIPS
    copy = max(size / l2_bytes_per_cycle(problem, plan, gpu), COPY.cycles)
    return 3 * gpu.sync + trips * gpu.l2_latency + copy, HIDING_TRIPS * gpu.l2_latency


def elements_of_thread(problem: Problem, plan: Any) -> int:
    """Units of rows that the busiest thread finishes."""
    return ceil(rows_of(problem, plan) * plan.layout.groups * UNITS / plan.threads)


def pointwise_cycles(problem: Problem, plan: Any, gpu: Gpu) -> float:
    """The longer of: what a warp takes alone, one element after another; what a scheduler issues for its warps."""
    layout, cell = plan.layout, problem.of_cell
    elements, sums = elements_of_thread(problem, plan), ceil(layout.splits / 2)
    all_elements = rows_of(problem, plan) * layout.groups * UNITS
    waits = cell.reciprocals * RECIPROCAL + sums * gpu.shared_latency
    alone = elements * (cell.formulas.cycles + sums * cell.two_splits.cycles + waits)
    issued = ceil(all_elements / WARP / SCHEDULERS) * (cell.formulas.instructions + sums * cell.two_splits.instructions)
    return max(alone, issued)


def memory_bytes(problem: Problem) -> int:
    """Of a step's inputs and outputs, all rows."""
    cell, units = problem.of_cell, problem.batch * problem.directions * problem.hidden
    return units * ((cell.read + cell.written) * problem.element_bytes + (cell.float_read + cell.float_written) * 4)


def predict(problem: Problem, plan: Any, gpu: Gpu) -> Step:
    """A step of the plan."""
    product = product_cycles(problem, plan, gpu)
    exchange, hides = exchange_cycles(problem, plan, gpu)
    pointwise = pointwise_cycles(problem, plan, gpu)
    prefetch = elements_of_thread(problem, plan) * problem.of_cell.prefetch.cycles
    late = max(0, gpu.memory_latency - max(0, hides - prefetch) - product)
    loads = max(0, prefetch - hides) + late
    count = waves(problem, plan, gpu)
    through_memory = memory_bytes(problem) / gpu.memory_bandwidth / 1e3 * gpu.clock / count
    memory = max(0, through_memory - product - exchange - pointwise - loads)
    of_wave = product, exchange, pointwise, loads, memory
    cycles = *of_wave, (count - 1) * sum(of_wave)
    return Step(*(part / gpu.clock / 1e3 for part in cycles))


# --- Tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """Markdown; the columns `words` hold words, the others numbers."""
    rule = ["---" if i in words else "--:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def overview(cuda: Any, product: str, backward: bool, cells: Sequence[str] = ("rnn", "lstm", "gru")) -> str:
    """All sizes on all GPUs."""
    rows = []
    for cell in cells:
        for hidden in HIDDEN:
            row = [f"{cell.upper()} {hidden}"]
            for gpu in GPUS.values():
                for batch in BATCHES:
                    problem = Problem(cell, product, backward, batch, hidden)
                    row.append(_us(predict(problem, plan_of(cuda, problem, gpu), gpu).total))
            rows.append(row)
    return table(["", *(f"{gpu} N={batch}" for gpu in GPUS for batch in BATCHES)], rows)


def decomposition(cuda: Any, cell: str, product: str, batch: int, gpu: Gpu) -> str:
    """Where a step's time goes."""
    rows = []
    for backward in (False, True):
        for hidden in HIDDEN:
            problem = Problem(cell, product, backward, batch, hidden)
            plan = plan_of(cuda, problem, gpu)
            step, layout = predict(problem, plan, gpu), plan.layout
            rows.append(
                [
                    f"{'backward' if backward else 'forward'} {hidden}",
                    plan.tier.name,
                    f"{layout.members} x {layout.groups} x {layout.splits}, {layout.rows}",
                    *(_us(getattr(step, part.name)) for part in fields(step)),
                    _us(step.total),
                ]
            )
    parts = [part.name for part in fields(Step)]
    return table(["", "tier", "members x groups x splits, rows", *parts, "total"], rows, (0, 1, 2))


def tiers(cuda: Any, cell: str, product: str, batch: int, gpu: Gpu) -> str:
    """What the model says of the tiers that the plan passed over."""
    rows = []
    for backward in (False, True):
        for hidden in HIDDEN:
            problem = Problem(cell, product, backward, batch, hidden)
            totals = dict(of_tiers(cuda, problem, gpu))
            chosen = plan_of(cuda, problem, gpu).tier.name
            names = ("block", "cluster", "grid", "steps")
            cells = [_us(totals[name]) + (" *" if name == chosen else "") if name in totals else "" for name in names]
            rows.append([f"{'backward' if backward else 'forward'} {hidden}", *cells])
    return table(["", "block", "cluster", "grid", "steps"], rows)


def of_tiers(cuda: Any, problem: Problem, gpu: Gpu) -> Iterator[tuple[str, float]]:
    """Microseconds of each tier that the problem fits."""
    for tier in ("block", "cluster", "grid", "steps"):
        try:
            plan = plan_of(cuda, problem, gpu, tier)
        except ValueError:
            continue
        yield tier, predict(problem, plan, gpu).total


def published(cuda: Any) -> str:
    """Others' figures, and what the model says of the same step."""
    rows = [[p.who, p.dtype, "published by FlashRNN", _us(p.forward), _us(p.backward)] for p in PUBLISHED]
    for product in ("bfloat16", "fma"):
        steps = []
        for backward in (False, True):
            problem = Problem("lstm", product, backward, 16, 768)
            steps.append(_us(predict(problem, plan_of(cuda, problem, GPUS["H100"]), GPUS["H100"]).total))
        rows.append(["fusedrnn", "float32" if product == "fma" else product, "predicted, never run", *steps])
    return table(["", "numbers", "", "forward", "backward"], rows, (0, 1, 2))


def figures() -> str:
    """What is assumed of the GPUs."""
    rows = [
        [f"`{name}`", *(f"{value:g}" if value else "" for value in values), unit, source]
        for name, unit, source, values in assumptions()
    ]
    return table(["", *GPUS, "unit", "source"], rows, (0, 4, 5))


def _us(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def tables(cuda: Any) -> str:
    """All of the page."""
    h100 = GPUS["H100"]
    sections = [
        ("Beside published figures", published(cuda)),
        *(
            (f"{'Backward' if backward else 'Forward'}, {words}", overview(cuda, product, backward))
            for product, words in (("bfloat16", "bfloat16"), ("fma", "float32"))
            for backward in (False, True)
        ),
        *(
            (f"{'Backward' if backward else 'Forward'}, TF32, of the LSTM", overview(cuda, "tf32", backward, ["lstm"]))
            for backward in (False, True)
        ),
        *(
            (f"Where the time goes: LSTM, {words}, H100, N={batch}", decomposition(cuda, "lstm", product, batch, h100))
            for product, words in (("bfloat16", "bfloat16"), ("fma", "float32"))
            for batch in (16, 128)
        ),
        *(
            (f"Other tiers: LSTM, {words}, H100, N=16 (* the plan's)", tiers(cuda, "lstm", product, 16, h100))
            for product, words in (("bfloat16", "bfloat16"), ("fma", "float32"))
        ),
        ("What is assumed of the GPUs", figures()),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections)


def page(cuda: Any, text: str) -> str:
    """The page with its tables renewed."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(cuda)}\n\n{END}{rest.split(END)[1]}"


def load(path: str | None) -> Any:
    """The compiled module with the planner."""
    if path is None:
        return importlib.import_module("fusedrnn._cuda")
    name = Path(path).name.split(".")[0]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or write them."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.cuda_model", description=__doc__.split("\n")[0])
    parser.add_argument("--module", metavar="PATH", help="of the extension module that plans; fusedrnn._cuda")
    parser.add_argument("--write", action="store_true", help=f"renew the tables of benchmarks/{PAGE.name}")
    options = parser.parse_args(arguments)
    try:
        cuda = load(options.module)
    except ImportError as error:
        print(f"python -m benchmarks.cuda_model: {error}; build with CUDA, or give --module", file=sys.stderr)
        return 1
    if options.write:
        PAGE.write_text(page(cuda, PAGE.read_text()))
    else:
        print(tables(cuda))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
