"""Sharing cores: with another process like ours, and with PyTorch's threads in our own process.

A pool whose threads wait by spinning, or at a barrier that one descheduled thread holds up, loses far more on busy
cores than the work that others do there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.options import Parser, Progress, cores, installed
from benchmarks.peers import FusedRnn, deviation, hold_weights
from benchmarks.report import machine, markdown, write_json
from benchmarks.timing import PAUSE, PEERS, Worker, in_child, truth
from benchmarks.workloads import Workload

TURN = 0.4  # seconds of each process alone
CALLS = 6  # of ours in one turn of either kind
OPERATION = 5e-3  # seconds of PyTorch's product between two of our calls
WAITING: dict[str, dict[str, str]] = {"default": {}, "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}
# each a call of more than 20 ms on two cores
WORKLOADS = (
    Workload("mnist-wide", T=28, N=256, I=28, H=128, L=2, C=10, mode="train"),
    Workload("long-call", T=100, N=128, I=128, H=256, mode="infer"),
)


@dataclass(frozen=True)
class Processes:
    """Two processes at once against one after the other."""

    workload: Workload
    library: str
    threads: int
    alone: float
    at_once: float
    error: float


@dataclass(frozen=True)
class Alternation:
    """Our call's seconds alone, and with a product of PyTorch's before each; medians, and of the rounds' ratios."""

    workload: Workload
    waiting: str
    threads: int
    alone: float
    alternating: float
    ratio: float
    error: float


def processes(workload: Workload, library: str, threads: int, rounds: int, progress: Progress) -> Processes:
    """Medians of seconds a run of both: one process after the other, and at once."""
    pair = [Worker(PEERS[library], threads) for _ in range(2)]
    try:
        error = max(deviation(worker.build(workload), truth(workload)) for worker in pair)
        runs = max(1, int(TURN / pair[0].turn(workload, 2)))
        alone, at_once = [], []
        for _ in range(rounds):
            alone.append(sum(worker.turn(workload, runs) for worker in pair))
            for worker in pair:
                worker.begin(workload, runs)
            starts, ends = zip(*(worker.end() for worker in pair), strict=True)
            at_once.append((max(ends) - min(starts)) / runs)
            progress()
    finally:
        for worker in pair:
            worker.close()
    return Processes(workload, library, threads, statistics.median(alone), statistics.median(at_once), error)


def alternate(workload: Workload, threads: int, rounds: int) -> tuple[list[float], list[float], dict[str, Any]]:
    """In this process: medians by round of our call's seconds, alone and after a product, and our last results."""
    import torch

    model = FusedRnn(workload, threads)
    hold_weights(model)
    torch.set_num_threads(threads)
    size = 256
    while True:
        matrix = torch.full((size, size), 0.5)
        start = time.perf_counter()
        matrix @ matrix
        if time.perf_counter() - start > OPERATION:
            break
        size += 128

    def turn(before: Any) -> float:
        time.sleep(PAUSE)
        model.run()
        seconds = []
        for _ in range(CALLS):
            before()
            start = time.perf_counter()
            model.run()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    pairs = [(turn(lambda: None), turn(lambda: matrix @ matrix)) for _ in range(rounds)]
    alone, alternating = zip(*pairs, strict=True)
    return list(alone), list(alternating), model.results()


def alternation(workload: Workload, waiting: str, threads: int, rounds: int) -> Alternation:
    """In a fresh process, whose OpenMP threads wait as ``waiting`` says."""
    alone, alternating, results = in_child(threads, alternate, workload, threads, rounds, environment=WAITING[waiting])
    ratio = statistics.median(b / a for a, b in zip(alone, alternating, strict=True))
    error = deviation(results, truth(workload))
    return Alternation(
        workload, waiting, threads, statistics.median(alone), statistics.median(alternating), ratio, error
    )


def tables(pairs: Sequence[Processes], alternations: Sequence[Alternation]) -> str:
    """One for each experiment, what is demanded in its heading."""

    def name(w: Workload) -> str:
        return f"{w.name} {w.cell} {w.mode}"

    parts = []
    if pairs:
        rows = (
            (
                name(p.workload), p.workload.shape, f"2 x {p.threads}", p.library, f"{p.alone * 1e3:.3g}",
                f"{p.at_once * 1e3:.3g}", f"{p.at_once / p.alone:.2f}", f"{p.error:.1e}",
            )
            for p in pairs
        )  # fmt: skip
        columns = "workload, shape, threads:, library, one after the other ms:, at once ms:, ratio:, error:"
        parts.append(f"Two processes at once (demanded: at most 1.3)\n\n{markdown(columns, rows)}")
    if alternations:
        rows = (
            (
                name(a.workload), a.workload.shape, str(a.threads), a.waiting, f"{a.alone * 1e3:.3g}",
                f"{a.alternating * 1e3:.3g}", f"{a.ratio:.2f}", f"{a.error:.1e}",
            )
            for a in alternations
        )  # fmt: skip
        columns = "workload, shape, threads:, OpenMP waits, alone ms:, alternating ms:, ratio:, error:"
        heading = "Our call between PyTorch's (demanded: at most 1.10 in one of the two)"
        parts.append(f"{heading}\n\n{markdown(columns, rows)}")
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Measure both."""
    parser = Parser(
        "contention",
        "(1) Two processes, each with as many threads as there are cores, at once against one after the other. (2) Our "
        "call in one process with PyTorch's products between, against our call alone, OpenMP waiting as by default and "
        "passively. The second needs PyTorch.",
    )
    parts = ["processes", "libraries"] if "pytorch" in installed() else ["processes"]
    parser.add_some("parts", ("processes", "libraries"), ",".join(parts))
    parser.add_peers("")
    parser.add_threads(cores())
    parser.add_rounds(7)
    parser.add_files()
    given = parser.parse_args(arguments)
    if "libraries" in given.parts and "pytorch" not in installed():
        parser.error("--parts: expected processes alone, for PyTorch is not installed")

    about = machine(given.peers or (["pytorch"] if "libraries" in given.parts else []))
    print(about, flush=True)
    pairs, alternations = [], []
    if "processes" in given.parts:
        libraries = ["fusedrnn", *given.peers]
        progress = Progress(len(WORKLOADS) * len(libraries) * given.rounds)
        for workload in WORKLOADS:
            for library in libraries:
                pairs.append(processes(workload, library, given.threads, given.rounds, progress))
    if "libraries" in given.parts:
        progress = Progress(len(WORKLOADS) * len(WAITING), "processes")
        for workload in WORKLOADS:
            for waiting in WAITING:
                alternations.append(alternation(workload, waiting, given.threads, given.rounds))
                progress()
    print(tables(pairs, alternations))
    if given.json:
        write_json(given.json, about, processes=pairs, libraries=alternations)
    return 0
