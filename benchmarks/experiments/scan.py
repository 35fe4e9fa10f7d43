"""Recurrences written as one step in NumPy, beside the library's own cells and other libraries; on two threads; with
few rows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.options import Parser, Progress, cores, some_of
from benchmarks.peers import deviation
from benchmarks.recurrences import Case
from benchmarks.report import machine, markdown, write_json
from benchmarks.scan_peers import FACTORIES, PACKAGES
from benchmarks.timing import Worker, build, ratio, take_turns, workers
from benchmarks.workloads import Array

CASES = {
    "lstm": Case("lstm", T=28, N=128, I=28, H=128),
    "lstm-long": Case("lstm", T=1000, N=8, I=16, H=64),
    "lstm-small": Case("lstm", T=16, N=200, I=1, H=24),
    "layer-norm": Case("layer_norm_lstm", T=28, N=128, I=28, H=128),
    "ntm": Case("ntm", T=41, N=1, I=9, H=100, slots=128, width=20),
    "ntm-rows": Case("ntm", T=41, N=16, I=9, H=100, slots=128, width=20),
    "dnc": Case("dnc", T=44, N=16, I=9, H=64, slots=32, width=16),
    "dnc-large": Case("dnc", T=20, N=4, I=9, H=64, slots=256, width=64, heads=4),
    "decoder": Case("attention", T=20, N=64, I=128, H=128, S=20, F=128),
    "decoder-reversal": Case("attention", T=16, N=64, I=32, H=96, S=15, F=192),
    "decoder-captions": Case("attention", T=12, N=64, I=32, H=64, S=32, F=128),
    "decoder-sentences": Case("attention", T=12, N=64, I=256, H=256, S=12, F=512),
    "window": Case("window", T=112, N=32, I=3, H=96, heads=5, S=6, F=30),
    "window-large": Case("window", T=112, N=32, I=3, H=128, heads=10, S=10, F=55),
}
ON_TWO = (CASES["lstm"], replace(CASES["ntm"], N=32))  # threads
BY_ROWS = (CASES["lstm"], CASES["ntm"])
MOST_ROWS = 17  # one over a vector of 16 lanes
NAMES = (*CASES, "threads", "rows")
TRUTH = ("pytorch", "jax", "fusedrnn")  # whose results in float64 errors are measured from: the first that is there

Costs = list[tuple[float, float]]  # seconds, and seconds on processors, of a run in each round
Spread = tuple[float, float, float]  # median and quartiles


@dataclass(frozen=True)
class Figures:
    """Of one library and case: medians of seconds and of seconds on processors; how many times ours both are; the
    error."""

    case: Case
    library: str
    threads: int
    seconds: float
    processor: float
    times: Spread
    processor_times: Spread
    error: float


@dataclass(frozen=True)
class Threads:
    """Medians of seconds on one thread and on two; how many times as fast two are."""

    case: Case
    one: float
    two: float
    times: Spread


@dataclass(frozen=True)
class Rows:
    """The median of seconds; how many times as long as with a row less, None for one row."""

    case: Case
    seconds: float
    times: Spread | None


def _column(costs: Costs, at: int) -> list[float]:
    return [cost[at] for cost in costs]


def judge(
    case: Case, threads: int, turns: Mapping[str, Costs], found: Mapping[str, dict[str, Array]], truth: dict[str, Array]
) -> list[Figures]:
    """Gather what follows from the turns."""
    figures = []
    for name, own in turns.items():
        seconds, processor = (_column(own, at) for at in (0, 1))
        times, processor_times = (ratio(_column(own, at), _column(turns["fusedrnn"], at)) for at in (0, 1))
        medians = statistics.median(seconds), statistics.median(processor)
        error = deviation(found[name], truth)
        figures.append(Figures(case, name, threads, *medians, times, processor_times, error))
    return figures


def compare(
    case: Case, started: Mapping[str, Worker], threads: int, rounds: int, progress: Progress, turn: float | None = None
) -> list[Figures]:
    """All libraries in turn at one case."""
    exact = replace(case, dtype="float64")
    judged_by = next(name for name in TRUTH if name in started)
    truth = started[judged_by].build(exact)
    started[judged_by].drop(exact)
    places = {name: (worker, case) for name, worker in started.items()}
    found = build(places)
    turns = take_turns({name: places[name] for name in found}, rounds, progress, turn, Worker.costs)
    for name in turns:
        started[name].drop(case)
    return judge(case, threads, turns, found, truth)


def on_two_threads(cases: Sequence[Case], rounds: int, progress: Progress, turn: float | None = None) -> list[Threads]:
    """Ours on one thread and on two, in turn."""
    with workers(["fusedrnn"], 1, FACTORIES) as one, workers(["fusedrnn"], 2, FACTORIES) as two:
        places = {(case, t): (by["fusedrnn"], case) for case in cases for t, by in ((1, one), (2, two))}
        build(places)
        turns = take_turns(places, rounds, progress, turn)
    return [
        Threads(case, *(statistics.median(turns[case, t]) for t in (1, 2)), ratio(turns[case, 1], turns[case, 2]))
        for case in cases
    ]


def by_rows(case: Case, most: int, rounds: int, progress: Progress, turn: float | None = None) -> list[Rows]:
    """Ours with 1 to ``most`` rows, in turn, on one thread."""
    cases = [replace(case, N=N) for N in range(1, most + 1)]
    with workers(["fusedrnn"], 1, FACTORIES) as started:
        places = {c: (started["fusedrnn"], c) for c in cases}
        build(places)
        turns = take_turns(places, rounds, progress, turn)
    before: list[Spread | None] = [None, *(ratio(turns[c], turns[b]) for b, c in itertools.pairwise(cases))]
    return [Rows(c, statistics.median(turns[c]), times) for c, times in zip(cases, before, strict=True)]


def _spread(value: Spread) -> str:
    return f"{value[0]:.3g} ({value[1]:.3g}-{value[2]:.3g})"


def details(figures: Sequence[Figures]) -> str:
    """A row for each case and library."""
    return markdown(
        "network, shape, threads:, library, ms:, processor ms:, times ours (quartiles):, on processors:, error:",
        (
            (
                f.case.network, f.case.shape, str(f.threads), f.library, f"{f.seconds * 1e3:.3g}",
                f"{f.processor * 1e3:.3g}", "1" if f.library == "fusedrnn" else _spread(f.times),
                "1" if f.library == "fusedrnn" else f"{f.processor_times[0]:.3g}", f"{f.error:.0e}",
            )
            for f in figures
        ),
    )  # fmt: skip


def summary(figures: Sequence[Figures]) -> str:
    """A row for each case: how many times as long as the own cell the step takes, and the others as the step."""
    cells = {(f.case, f.library): f for f in figures}
    others = [
        name for name in FACTORIES if name not in ("fusedrnn", "native") and any(f.library == name for f in figures)
    ]

    def rows() -> Iterator[list[str]]:
        for case in dict.fromkeys(f.case for f in figures):
            ours, native = cells[case, "fusedrnn"], cells.get((case, "native"))
            peers = [cells.get((case, name)) for name in others]
            best = min((f.times[0] for f in peers if f), default=None)
            yield [
                case.network, case.shape, f"{ours.seconds * 1e3:.3g}", f"{1 / native.times[0]:.2f}" if native else "",
                *("" if f is None else f"{f.times[0]:.3g}" for f in peers), "" if best is None else f"{best:.3g}",
                f"{ours.error:.0e}",
            ]  # fmt: skip

    columns = ["network", "shape", "ms:", "over the own cell:", *(f"{name}:" for name in others), "best:", "error:"]
    return markdown(", ".join(columns), rows())


def threads_table(found: Sequence[Threads]) -> str:
    """A row for each case."""
    return markdown(
        "network, shape, ms on one thread:, on two:, times as fast (quartiles):",
        ((t.case.network, t.case.shape, f"{t.one * 1e3:.3g}", f"{t.two * 1e3:.3g}", _spread(t.times)) for t in found),
    )


def rows_table(found: Sequence[Rows]) -> str:
    """A row for each number of rows, and which one adds most to a row less."""
    table = markdown(
        "network, N:, ms:, us a row and step:, times a row less (quartiles):",
        (
            (
                r.case.network, str(r.case.N), f"{r.seconds * 1e3:.3g}",
                f"{r.seconds * 1e6 / (r.case.N * r.case.T):.3g}", "" if r.times is None else _spread(r.times),
            )
            for r in found
        ),
    )  # fmt: skip
    worst = max((r for r in found if r.times), key=lambda r: r.times[0] if r.times else 0)
    assert worst.times is not None
    return f"{table}\n\nlargest step: {worst.times[0]:.2f}, from N{worst.case.N - 1} to N{worst.case.N}"


def _there() -> list[str]:
    """Other libraries that can be imported here."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]


def main(arguments: Sequence[str]) -> int:
    """Time the steps."""
    there = _there()
    default = [name for name in there if name != "pytorch-compiled"]
    parser = Parser(
        "scan",
        "Time forward and backward, with all gradients, of networks written as one step in NumPy; beside the library's "
        "own cell, and beside the same equations in other libraries, in turns. 'threads' times ours on two threads "
        f"beside one, 'rows' with 1 to {MOST_ROWS} rows. Errors are the largest deviations from float64, of PyTorch's "
        "where that is installed.",
    )
    parser.add_argument(
        "--only",
        type=some_of(NAMES),
        default=list(NAMES),
        metavar="LIST",
        help=f"of {', '.join(NAMES)}; all by default",
    )
    parser.add_argument(
        "--peers", type=some_of(PACKAGES), default=default, metavar="LIST",
        help=f"libraries beside ours, of {', '.join(PACKAGES)} (default: {','.join(default) or 'none'})",
    )  # fmt: skip
    parser.add_argument("--compiled", action="store_true", help="also torch.compile, which takes minutes")
    parser.add_threads()
    parser.add_rounds(9)
    parser.add_files()
    given = parser.parse_args(arguments)
    peers = list(dict.fromkeys([*given.peers, *(["pytorch-compiled"] if given.compiled else [])]))
    for name in peers:
        if name not in there:
            parser.error(f"{name} is not installed: pip install {PACKAGES[name]}, or leave it out")

    packages = list(dict.fromkeys(PACKAGES[name] for name in peers))
    about = machine([]) + "".join(f", {name} {importlib.metadata.version(name)}" for name in packages)
    print(about, flush=True)
    cases = [CASES[name] for name in given.only if name in CASES]
    swept = BY_ROWS if "rows" in given.only else ()
    paired = ON_TWO if "threads" in given.only else ()
    if paired and cores() < 2:
        print("threads: left out, since this process may use one core alone", file=sys.stderr)
        paired = ()
    progress = Progress(given.rounds * (len(cases) + len(swept) + bool(paired)))

    figures: list[Figures] = []
    if cases:
        with workers(["fusedrnn", "native", *peers], given.threads, FACTORIES) as started:
            for case in cases:
                figures += compare(case, started, given.threads, given.rounds, progress)
        print(f"\n{details(figures)}\n\n{summary(figures)}", flush=True)
    pairs = on_two_threads(paired, given.rounds, progress) if paired else []
    if pairs:
        print(f"\n{threads_table(pairs)}", flush=True)
    sweeps = [by_rows(case, MOST_ROWS, given.rounds, progress) for case in swept]
    for sweep in sweeps:
        print(f"\n{rows_table(sweep)}", flush=True)
    if given.json:
        write_json(given.json, about, results=figures, threads=pairs, rows=sweeps)
    return 0
