"""Fair timing on a noisy machine: every peer in a process of its own, taking turns, one at a time.

Own processes, since two thread pools in one fight for its cores. Turns, since a shared machine drifts: the ratio
of two neighbouring turns is trusted, an absolute time is not.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers import PEERS, errors, true_gradients
from benchmarks.workloads import Workload

TURN = 0.1  # seconds that one turn should last
PAUSE = 0.05  # before each turn: by then the thread pools of the one before have stopped spinning on its cores


@dataclass(frozen=True)
class Result:
    """Of one peer on one workload: seconds a step and how many times ours, medians over the turns; and its error."""

    workload: Workload
    peer: str
    threads: int
    seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    error: float


def _serve(connection: Connection, peer: str, workload: Workload, threads: int) -> None:
    """Child process: build the peer, then time as many steps as asked, each time it is asked."""
    try:
        model: Any = PEERS[peer](workload, threads)
        model.step()
        connection.send(None)
    except Exception as error:
        connection.send(error)
        return
    while (steps := connection.recv()) > 0:
        time.sleep(PAUSE)
        model.step()
        start = time.perf_counter()
        for _ in range(steps):
            model.step()
        connection.send((time.perf_counter() - start) / steps)


class _Timed:
    def __init__(self, peer: str, workload: Workload, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, peer, workload, threads), daemon=True)
        self.process.start()
        failure = self.connection.recv()
        if failure is not None:
            raise failure
        for steps in (1, 3):  # warm up, then guess how many fill a turn
            self.steps = max(1, int(TURN / self.turn(steps)))

    def turn(self, steps: int | None = None) -> float:
        self.connection.send(steps or self.steps)
        seconds: float = self.connection.recv()
        return seconds

    def close(self) -> None:
        self.connection.send(0)
        self.process.join()


def compare(
    workload: Workload, peers: list[str], threads: int, rounds: int, progress: Callable[[], None] = lambda: None
) -> list[Result]:
    """Time ours and every peer in turn, ``rounds`` times each; call ``progress`` after every round."""
    truth = true_gradients(workload)
    names = ["fusedrnn", *peers]
    timed = [_Timed(name, workload, threads) for name in names]
    turns: list[list[float]] = [[] for _ in names]
    for _ in range(rounds):
        for own, one in zip(turns, timed, strict=True):
            own.append(one.turn())
        progress()
    for one in timed:
        one.close()
    results = []
    for name, own in zip(names, turns, strict=True):
        ratios = [theirs / ours for theirs, ours in zip(own, turns[0], strict=True)]
        quarters = statistics.quantiles(ratios, n=4) if rounds > 1 else [ratios[0]] * 3
        error = errors(workload, name, truth)
        median = statistics.median(ratios)
        results.append(Result(workload, name, threads, statistics.median(own), median, quarters[0], quarters[2], error))
    return results
