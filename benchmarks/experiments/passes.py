"""Optimizers and losses over buffers beyond the caches: bytes a second against what memory gives.

They do so little with each number that memory is their limit; what takes longer than it does more than one pass.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import flat
from benchmarks.flat import ARRAYS, PASSES, Pass
from benchmarks.limits import Limits
from benchmarks.options import Parser, Progress, number
from benchmarks.report import bars, machine, markdown, write_json
from benchmarks.timing import Worker, build, limits, ratio, take_turns, workers


@dataclass(frozen=True)
class Figures:
    """Of one library: seconds a pass, how many times ours, bytes a second as far as they must move, the share of the
    memory's bandwidth, and the error relative to the largest element."""

    work: Pass
    library: str
    threads: int
    seconds: float
    ratio: float
    bandwidth: float
    of_memory: float
    error: float


def measure(work: Pass, started: dict[str, Worker], bound: Limits, rounds: int, progress: Progress) -> list[Figures]:
    """In turn."""
    places = {name: (worker, work) for name, worker in started.items()}
    found = build(places)
    turns = take_turns({name: places[name] for name in found}, rounds, progress)
    wanted = flat.truth(work)["result"]
    figures = []
    for name, own in turns.items():
        started[name].drop(work)
        seconds = statistics.median(own)
        bandwidth = work.least_bytes / seconds
        error = float(np.max(np.abs(found[name]["result"] - wanted)) / np.max(np.abs(wanted)))
        median = ratio(own, turns["fusedrnn"])[0]
        share = bandwidth / bound.memory_bandwidth
        figures.append(Figures(work, name, bound.threads, seconds, median, bandwidth, share, error))
    return figures


def table(figures: Sequence[Figures]) -> str:
    """A row for each pass and library."""
    return markdown(
        "pass, elements:, threads:, library, ms:, GB/s:, of memory:, times ours:, error:",
        (
            (
                f.work.name, f"{f.work.elements:,}", str(f.threads), f.library, f"{f.seconds * 1e3:.3g}",
                f"{f.bandwidth / 1e9:.1f}", f"{100 * f.of_memory:.0f} %", f"{f.ratio:.2f}", f"{f.error:.1e}",
            )
            for f in figures
        ),
    )  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Time each pass."""
    parser = Parser(
        "passes",
        "Time optimizers' steps, clipping and losses (value and gradient) over flat float32 buffers. GB/s counts each "
        "array that the pass needs, read or written once; 'of memory' is its share of the measured bandwidth.",
    )
    parser.add_argument("passes", nargs="*", metavar="PASS", help=f"of {', '.join(ARRAYS)}; all by default")
    parser.add_argument(
        "--elements", type=number(flat.CLASSES, 1 << 30), default=1 << 24, metavar="N",
        help=f"a multiple of {flat.CLASSES} (default: %(default)s)",
    )  # fmt: skip
    parser.add_pytorch()
    parser.add_threads()
    parser.add_rounds(9)
    parser.add_files("the shares")
    given = parser.parse_args(arguments)
    for name in given.passes:
        if name not in ARRAYS:
            parser.error(f"unknown pass {name!r}; expected one of {', '.join(ARRAYS)}")
    if given.elements % flat.CLASSES:
        parser.error(f"--elements: expected a multiple of {flat.CLASSES}, got {given.elements}")

    about = machine(given.peers)
    bound = limits(given.threads, ["float32"])
    print(f"{about}\n{bound}", flush=True)
    wanted = [Pass(name, given.elements) for name in given.passes or ARRAYS]
    progress = Progress(len(wanted) * given.rounds)
    figures: list[Figures] = []
    with workers(["fusedrnn", *given.peers], given.threads, PASSES) as started:
        for work in wanted:
            figures += measure(work, started, bound, given.rounds, progress)
    print(table(figures))
    if given.json:
        write_json(given.json, about, limits=bound, results=figures)
    if given.plot:
        libraries = ("fusedrnn", *given.peers)
        series = {name: {f.work.name: f.of_memory for f in figures if f.library == name} for name in libraries}
        bars(given.plot, [work.name for work in wanted], series, "share of the memory's bandwidth", "linear")
    return 0
