"""Fair timing on a noisy machine: every library in a process of its own, taking turns, one at a time.

Own processes, since two thread pools in one fight for its cores. Turns, since a shared machine drifts: the ratio
of two neighbouring turns is trusted, an absolute time is not. A process may use as many cores as threads were
asked for, so that a library that takes its number of threads from there has the same.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.compiled import CompiledPyTorch
from benchmarks.graphs import Jax, OnnxRuntime
from benchmarks.limits import Limits, measure
from benchmarks.peers import (
    Frozen,
    FrozenBfloat16,
    FrozenInt8,
    FusedRnn,
    NumPy,
    PyTorch,
    Recompute,
    Unsupported,
    deviation,
)
from benchmarks.workloads import Array, Workload

PEERS: dict[str, type[Any]] = {
    "fusedrnn": FusedRnn,
    "pytorch": PyTorch,
    "pytorch-compiled": CompiledPyTorch,
    "onnxruntime": OnnxRuntime,
    "jax": Jax,
    "numpy": NumPy,
    "frozen": Frozen,
    "frozen-bfloat16": FrozenBfloat16,
    "frozen-int8": FrozenInt8,
    "recompute": Recompute,
}
TURN = 0.1  # seconds that one turn should last
PAUSE = 0.05  # before each turn: by then the thread pools of the one before have stopped spinning on its cores


class Failed(RuntimeError):
    """A library failed in its process; the message says which, at what and why."""


Key = TypeVar("Key", bound=Hashable)


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
def _confined(threads: int, environment: Mapping[str, str]) -> Iterator[None]:
    """So many cores and these variables for a child that is started meanwhile, from its first import on."""
    had = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
        for name, value in had.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, factory: Callable[[Any, int], Any], threads: int) -> None:
    """Child process: build models and run them as asked; every request gets one answer, an exception for a failure."""
    models: dict[Any, Any] = {}
    while (request := connection.recv()) is not None:
        action, work, *rest = request
        answer: Any = None
        try:
            if action == "build":
                model = factory(work, threads)
                model.run()
                answer = model.results()
                models[work] = model
            elif action == "drop":
                del models[work]
                gc.collect()
            else:
                answer = _turn(models[work], *rest)
        except Unsupported as error:
            answer = error
        except Exception as error:  # of any library, whose own classes may not travel between processes
            answer = Failed(f"{factory.__name__}, {work}: {type(error).__name__}: {error}")
        connection.send(answer)


def _turn(model: Any, runs: int, warm: bool) -> tuple[float, float, float]:
    """When it began and ended, by a clock that all processes share, and this process's seconds on processors."""
    time.sleep(PAUSE)
    if warm:
        model.run()
    start, spent = time.monotonic(), time.process_time()
    for _ in range(runs):
        model.run()
    return start, time.monotonic(), time.process_time() - spent


def _answer(connection: Connection, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    connection.send(target(*arguments))


def _child(
    threads: int, environment: Mapping[str, str], target: Callable[..., None], *arguments: Any
) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    with _confined(threads, environment):
        process.start()
    theirs.close()
    return ours, process


def in_child(
    threads: int, target: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> Any:
    """What ``target`` returns in a fresh process with so many cores."""
    connection, process = _child(threads, environment or {}, _answer, target, arguments)
    try:
        return connection.recv()
    except EOFError:
        raise Failed(f"the process of {target.__name__} ended without an answer") from None
    finally:
        process.join()


def limits(threads: int, dtypes: list[str]) -> Limits:
    """Of this machine, in a process of its own."""
    found: Limits = in_child(threads, measure, threads, dtypes)
    return found


class Worker:
    """A library in a process of its own, which keeps what it built until that is dropped.

    ``factory(work, threads)`` makes a model in there, as ``peers.Peer`` describes it.
    """

    def __init__(
        self, factory: Callable[[Any, int], Any], threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = factory.__name__
        self.connection, self.process = _child(threads, environment or {}, _serve, factory, threads)

    def build(self, work: Any) -> dict[str, Array]:
        """Make the model and run it once: its results. Raises Unsupported, and Failed for what else failed."""
        self._send("build", work)
        results: dict[str, Array] = self._receive()
        return results

    def begin(self, work: Any, runs: int, warm: bool = True) -> None:
        """Start a turn, after a pause and, to be ``warm``, a run that is not timed; ``end`` must follow."""
        self._send("turn", work, runs, warm)

    def end(self) -> tuple[float, float]:
        """When the turn's timed runs began and ended, by ``time.monotonic``."""
        start, end, _ = self._receive()
        return start, end

    def turn(self, work: Any, runs: int, warm: bool = True) -> float:
        """Seconds a run."""
        self.begin(work, runs, warm)
        start, end = self.end()
        return (end - start) / runs

    def costs(self, work: Any, runs: int, warm: bool = True) -> tuple[float, float]:
        """Seconds a run, and seconds on processors, of all threads together."""
        self.begin(work, runs, warm)
        start, end, spent = self._receive()
        return (end - start) / runs, spent / runs

    def drop(self, work: Any) -> None:
        """Forget the model."""
        self._send("drop", work)
        self._receive()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join()

    def _send(self, *request: Any) -> None:
        try:
            self.connection.send(request)
        except OSError:
            raise Failed(f"{self.name}: its process ended") from None

    def _receive(self) -> Any:
        try:
            answer = self.connection.recv()
        except EOFError:
            raise Failed(f"{self.name}: its process ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextlib.contextmanager
def workers(
    names: Sequence[str], threads: int, factories: Mapping[str, Callable[[Any, int], Any]] = PEERS
) -> Iterator[dict[str, Worker]]:
    """One for each of these libraries, for as long as the block lasts."""
    started: dict[str, Worker] = {}
    try:
        for name in names:
            started[name] = Worker(factories[name], threads)
        yield started
    finally:
        for worker in started.values():
            worker.close()


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def build(places: Mapping[Key, tuple[Worker, Any]]) -> dict[Key, dict[str, Array]]:
    """First results of every place whose library can do the work; what cannot is said on standard error, once."""
    found = {}
    for key, (worker, work) in places.items():
        try:
            found[key] = worker.build(work)
        except Unsupported as reason:
            _say_once(f"{worker.name} is left out: {reason}")
    return found


def take_turns(
    places: Mapping[Key, tuple[Worker, Any]],
    rounds: int,
    progress: Callable[[], None] = lambda: None,
    turn: float | None = None,
    cost: Callable[..., Any] = lambda worker, *arguments: worker.turn(*arguments),
) -> dict[Key, list[Any]]:
    """Seconds a run of what was built in each place, in every round; all places have their turn in each round.

    A turn lasts about ``turn`` seconds, by default ``TURN``; 0 means that it is one run, with none before it to warm
    up. ``cost`` is another method of the worker that takes a turn, for what it returns.
    """
    turn = TURN if turn is None else turn
    runs = dict.fromkeys(places, 1)
    if turn > 0:
        for key, (worker, work) in places.items():
            runs[key] = max(1, int(turn / worker.turn(work, 1)))
            if runs[key] > 1:  # now that it is warm
                runs[key] = max(1, int(turn / worker.turn(work, runs[key])))
    turns: dict[Key, list[Any]] = {key: [] for key in places}
    for _ in range(rounds):
        for key, (worker, work) in places.items():
            turns[key].append(cost(worker, work, runs[key], turn > 0))
        progress()
    return turns


def ratio(own: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of the ratios of neighbouring turns."""
    ratios = [theirs / ours for theirs, ours in zip(own, base, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return statistics.median(ratios), low, high


def truth(workload: Workload) -> dict[str, Array]:
    """The workload's results in float64, by the reference."""
    model = NumPy(replace(workload, dtype="float64"), 1)
    model.run()
    return model.results()


def compare(
    workload: Workload,
    libraries: Mapping[str, Worker],
    limit: Limits,
    rounds: int,
    progress: Callable[[], None] = lambda: None,
    base: str = "fusedrnn",
) -> list[Result]:
    """Time every library that can do the work in turn, ``rounds`` times each; call ``progress`` after each round.

    Ratios are to ``base``, one of them. Raises what a library raises, but for Unsupported, which leaves it out.
    """
    places = {name: (worker, workload) for name, worker in libraries.items()}
    found = build(places)
    turns = take_turns({name: places[name] for name in found}, rounds, progress)
    wanted = truth(workload)
    results = []
    for name, own in turns.items():
        libraries[name].drop(workload)
        seconds = statistics.median(own)
        share, error = limit.seconds(workload) / seconds, deviation(found[name], wanted)
        results.append(Result(workload, name, limit.threads, seconds, *ratio(own, turns[base]), share, error))
    return results
