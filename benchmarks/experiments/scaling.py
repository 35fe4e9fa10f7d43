"""How time grows with T, N, H and threads. All points of all libraries have a turn in each round, so that the
machine's drift falls on all of them alike and cancels in their ratios.

Over T and N the work is proportional, so that time per unit should be flat. Large N need not be: outputs and reserve
leave the caches, and from there on memory bandwidth is the limit.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.limits import Limits
from benchmarks.options import Parser, Progress, cores, number, one_of
from benchmarks.peers import deviation
from benchmarks.report import COLOURS, machine, markdown, write_json
from benchmarks.timing import PEERS, Worker, build, limits, take_turns, truth
from benchmarks.workloads import CELLS, Workload

BASE = Workload("scaling", T=20, N=64, I=64, H=64, C=10)
LADDERS: dict[str, tuple[int, ...]] = {
    "T": (10, 30, 100, 300, 1000),
    "N": (32, 100, 320, 1000, 3200),
    "H": (16, 32, 64, 128, 256, 512, 1024),
}
UNITS = {"T": (1e6, "us a step"), "N": (1e6, "us a row"), "H": (1e12, "ps a flop"), "threads": (1e3, "ms x threads")}
THREADS = replace(BASE, T=50, N=320, H=128)  # enough work to share

LOSSES = ("last", "every")


@dataclass(frozen=True)
class Point:
    """One measurement: which axis, how far along it, who, with how many threads."""

    axis: str
    at: int
    library: str
    threads: int
    workload: Workload

    @property
    def work(self) -> float:
        """Units of work, whose time should be the same along the axis: steps, rows, flops, or a thread's share."""
        if self.axis == "threads":
            return 1 / self.threads
        return self.workload.flops if self.axis == "H" else self.at


@dataclass(frozen=True)
class Figures:
    """Of one point: seconds a run and a unit of work, how far off the axis's level that is, the share of the limit."""

    point: Point
    seconds: float
    unit: float
    off: float
    of_limit: float
    error: float


def points(axes: Sequence[str], libraries: Sequence[str], threads: int, most: int, **changes: Any) -> list[Point]:
    """All of these axes; ``threads`` for each but the axis of threads, which goes from 1 to ``most``. ``changes`` are
    made to every workload."""
    found = []
    for axis, library in itertools.product(axes, libraries):
        for at in range(1, most + 1) if axis == "threads" else LADDERS[axis]:
            here: dict[str, Any] = changes if axis == "threads" else {**changes, axis: at}
            workload = replace(THREADS if axis == "threads" else BASE, **here)
            found.append(Point(axis, at, library, at if axis == "threads" else threads, workload))
    return found


def deviations(turns: Mapping[Point, Sequence[float]]) -> dict[Point, float]:
    """Seconds a unit of work relative to the median along the axis (along threads: to one thread), less 1.

    The median over the rounds of what each round has: only the points of one round met the same machine, as it were.
    """
    found = {}
    for (axis, _), group in itertools.groupby(turns, lambda p: (p.axis, p.library)):
        members = list(group)
        rounds = [
            [seconds / p.work for p, seconds in zip(members, row, strict=True)]
            for row in zip(*(turns[p] for p in members), strict=True)
        ]
        for index, p in enumerate(members):
            levels = [row[0] if axis == "threads" else statistics.median(row) for row in rounds]
            found[p] = statistics.median(row[index] / level for row, level in zip(rounds, levels, strict=True)) - 1
    return found


def measure(places: Sequence[Point], bounds: Mapping[int, Limits], rounds: int, progress: Progress) -> list[Figures]:
    """A process for each library and number of threads, which keeps the models of all its points."""
    workers: dict[tuple[str, int], Worker] = {}
    try:
        for p in places:
            if (p.library, p.threads) not in workers:
                workers[p.library, p.threads] = Worker(PEERS[p.library], p.threads)
        located = {p: (workers[p.library, p.threads], p.workload) for p in places}
        found = build(located)
        turns = take_turns({p: located[p] for p in found}, rounds, progress)
    finally:
        for worker in workers.values():
            worker.close()
    off = deviations(turns)
    wanted = {w: truth(w) for w in dict.fromkeys(p.workload for p in found)}
    figures = []
    for p, own in turns.items():
        seconds = statistics.median(own)
        share = bounds[p.threads].seconds(p.workload) / seconds
        error = deviation(found[p], wanted[p.workload])
        figures.append(Figures(p, seconds, seconds / p.work, off[p], share, error))
    return figures


def table(figures: Sequence[Figures]) -> str:
    """A row for each point."""

    def row(f: Figures) -> tuple[str, ...]:
        p = f.point
        factor, unit = UNITS[p.axis]
        return (
            f"{p.axis} = {p.at}", p.workload.shape, str(p.threads), p.library, f"{f.seconds * 1e3:.3g}",
            f"{f.unit * factor:.3g} {unit}", f"{100 * f.off:+.0f} %", f"{100 * f.of_limit:.0f} %", f"{f.error:.1e}",
        )  # fmt: skip

    return markdown("point, shape, threads:, library, ms:, per unit:, off level:, of limit:, error:", map(row, figures))


def draw(path: Path, figures: Sequence[Figures]) -> None:
    """A panel for each axis: time a unit of work along it."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(f.point.axis for f in figures))
    figure = Figure(figsize=(4 * len(axes), 3.4), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        factor, unit = UNITS[axis]
        tallest = max(f.unit * factor for f in figures if f.point.axis == axis)
        for library in dict.fromkeys(f.point.library for f in figures):
            line = [f for f in figures if (f.point.axis, f.point.library) == (axis, library)]
            heights = [f.unit * factor for f in line]
            panel.plot([f.point.at for f in line], heights, "o-", color=COLOURS.get(library), label=library)
        panel.set(xlabel=axis, ylabel=unit, ylim=(0, 1.1 * tallest), xscale="linear" if axis == "threads" else "log")
        if axis == "threads":
            panel.set_xticks(sorted({f.point.at for f in figures if f.point.axis == axis}))
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str]) -> int:
    """Time the ladders."""
    parser = Parser(
        "scaling",
        "Time along T, N, H and threads, everything of a round in turn. 'off level' is the time a unit of work (a "
        "step, a row, a flop) against its median along the axis; along threads, threads x time against one thread's. "
        "Outputs of a large N leave the caches: from there on it is memory bandwidth that counts.",
    )
    axes = [*LADDERS, "threads"]
    parser.add_some("axes", axes, ",".join(axes))
    parser.add_one("cell", CELLS, "lstm")
    parser.add_one("mode", ("infer", "train"), "train")
    parser.add_argument(
        "--loss", type=one_of(LOSSES), default="last", metavar="STEP",
        help="last or every step; from the last alone, gradients fade over long T, down to subnormal numbers "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_peers("")
    parser.add_threads()
    parser.add_argument(
        "--most-threads", type=number(1, 256), default=cores(), metavar="K",
        help="where the axis of threads ends (default: %(default)s)",
    )  # fmt: skip
    parser.add_rounds(9)
    parser.add_files("a panel for each axis")
    given = parser.parse_args(arguments)

    about = machine(given.peers)
    print(about, flush=True)
    libraries = ["fusedrnn", *given.peers]
    changes = {"cell": given.cell, "mode": given.mode, "every_step": given.loss == "every"}
    places = points(given.axes, libraries, given.threads, given.most_threads, **changes)
    bounds = {count: limits(count, ["float32"]) for count in dict.fromkeys(p.threads for p in places)}
    for bound in bounds.values():
        print(bound, flush=True)
    figures = measure(places, bounds, given.rounds, Progress(given.rounds))
    print(table(figures))
    if given.json:
        write_json(given.json, about, limits=list(bounds.values()), results=figures)
    if given.plot:
        draw(given.plot, figures)
    return 0
