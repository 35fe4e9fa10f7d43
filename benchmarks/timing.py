"""Fair timing on a noisy machine: every peer in a process of its own, taking turns, one at a time.

Own processes, since two thread pools in one fight for its cores. Turns, since a shared machine drifts: the ratio
of two neighbouring turns is trusted, an absolute time is not. A process may use as many cores as threads were
asked for, so that a library that takes its number of threads from there has the same.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.graphs import Jax, OnnxRuntime
from benchmarks.limits import Limits, measure
from benchmarks.peers import FusedRnn, NumPy, PyTorch, Unsupported, deviation
from benchmarks.workloads import Workload

PEERS: dict[str, type[Any]] = {
    "fusedrnn": FusedRnn,
    "pytorch": PyTorch,
    "onnxruntime": OnnxRuntime,
    "jax": Jax,
    "numpy": NumPy,
}
TURN = 0.1  # seconds that one turn should last
PAUSE = 0.05  # before each turn: by then the thread pools of the one before have stopped spinning on its cores


@dataclass(frozen=True)
class Result:
    """Of one peer on one workload: seconds a run and how many times ours, medians over the turns; the share of the
    machine's limit that it reaches; and its error."""

    workload: Workload
    peer: str
    threads: int
    seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    of_limit: float
    error: float


@contextlib.contextmanager
def _confined(threads: int) -> Iterator[None]:
    """So many cores for this process, and so for a child started meanwhile from its first import on."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(connection: Connection, peer: str, workload: Workload, threads: int) -> None:
    """Child process: build the peer, hand over its first results, then time as many runs as asked, whenever asked."""
    try:
        model = PEERS[peer](workload, threads)
        model.run()
        connection.send(model.results())
    except Exception as error:
        connection.send(error)
        return
    while (runs := connection.recv()) > 0:
        time.sleep(PAUSE)
        model.run()
        start = time.perf_counter()
        for _ in range(runs):
            model.run()
        connection.send((time.perf_counter() - start) / runs)


def _serve_limits(connection: Connection, threads: int, dtypes: list[str]) -> None:
    connection.send(measure(threads, dtypes))


def _child(threads: int, target: Callable[..., None], *arguments: Any) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    with _confined(threads):
        process.start()
    theirs.close()
    return ours, process


def limits(threads: int, dtypes: list[str]) -> Limits:
    """Of this machine, in a process of its own."""
    connection, process = _child(threads, _serve_limits, threads, dtypes)
    found: Limits = connection.recv()
    process.join()
    return found


class _Timed:
    def __init__(self, peer: str, workload: Workload, threads: int) -> None:
        self.connection, self.process = _child(threads, _serve, peer, workload, threads)
        self.results = self.connection.recv()
        if isinstance(self.results, Exception):
            raise self.results
        self.runs = max(1, int(TURN / self.turn(1)))
        if self.runs > 1:  # now that it is warm
            self.runs = max(1, int(TURN / self.turn(self.runs)))

    def turn(self, runs: int | None = None) -> float:
        self.connection.send(runs or self.runs)
        seconds: float = self.connection.recv()
        return seconds

    def close(self) -> None:
        self.connection.send(0)
        self.process.join()


def compare(
    workload: Workload, peers: list[str], limit: Limits, rounds: int, progress: Callable[[], None] = lambda: None
) -> list[Result]:
    """Time ours and every peer that can do the work in turn, ``rounds`` times each; call ``progress`` after each round.

    Raises what a peer raises, but for Unsupported, which leaves it out.
    """
    truth = NumPy(replace(workload, dtype="float64"), 1)
    truth.run()
    timed: dict[str, _Timed] = {}
    for name in ["fusedrnn", *peers]:
        try:
            timed[name] = _Timed(name, workload, limit.threads)
        except Unsupported:
            continue
    turns: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, one in timed.items():
            turns[name].append(one.turn())
        progress()
    results = []
    for name, own in turns.items():
        timed[name].close()
        ratios = [theirs / ours for theirs, ours in zip(own, turns["fusedrnn"], strict=True)]
        quarters = statistics.quantiles(ratios, n=4) if rounds > 1 else [ratios[0]] * 3
        seconds = statistics.median(own)
        share, error = limit.seconds(workload) / seconds, deviation(timed[name].results, truth.results())
        median = statistics.median(ratios)
        results.append(Result(workload, name, limit.threads, seconds, median, quarters[0], quarters[2], share, error))
    return results
