"""``fusedrnn.torch`` between PyTorch's own modules, which it replaces, and the functional interface, its floor.

All are in one process, as they are where the backend is used, with OMP_WAIT_POLICY=PASSIVE: PyTorch's threads would
otherwise spin for a while after each call, on the cores that the next one needs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.backend import KINDS, PASSIVE, Case, announce, build
from benchmarks.options import Parser, some_of
from benchmarks.peers import deviation
from benchmarks.report import bars, markdown, write_json
from benchmarks.timing import in_child, ratio
from benchmarks.workloads import CELLS, SHAPES

TURN = 0.05  # seconds
NAMED = ("count-ones", "addition", "mnist", "long", "single")
STEPS = {"small": (16, 20), "middle": (32, 64), "large": (64, 128)}  # N and H, of cells in a loop
TINY = Case("tiny", "lstm", T=1, N=1, I=4, H=4)  # whose kernels are short beside the call


@dataclass(frozen=True)
class Figures:
    """Of one case: seconds of a training step by library, medians over the turns; ratios of neighbouring turns with
    their quartiles; what is left of the functional interface's advantage; the error, and PyTorch's own."""

    case: Case
    seconds: dict[str, float]
    torch: tuple[float, float, float]
    compiled: tuple[float, float, float] | None
    functional: tuple[float, float, float]
    kept: float
    error: float
    torch_error: float


@dataclass(frozen=True)
class Overhead:
    """Microseconds that a call takes over the functional interface's, medians of the differences in a round."""

    cell: str
    forward: float
    training: float
    torch_forward: float
    torch_training: float


def cases(cells: Sequence[str], kinds: Sequence[str], dtypes: Sequence[str]) -> list[Case]:
    """All that there are of these."""
    found = []
    for dtype in dtypes:
        for kind in kinds:
            for cell in cells:
                if kind == "cell":
                    found += [Case(name, cell, 20, N, H, H, 1, kind, dtype) for name, (N, H) in STEPS.items()]
                    continue
                shapes = [SHAPES[name] for name in NAMED if kind == "layer" or SHAPES[name].N > 1]
                found += [Case(w.name, cell, w.T, w.N, w.I, w.H, w.L, kind, dtype) for w in shapes]
    return found


def rounds_of(work: dict[str, Callable[[], Any]], rounds: int, turn: float) -> dict[str, list[float]]:
    """Seconds of one call in each round; in turn, the order reversed from round to round."""
    calls = {}
    for name, run in work.items():
        run()
        start = time.perf_counter()
        run()
        calls[name] = max(1, round(turn / (time.perf_counter() - start)))
    turns: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds):
        for name in list(work)[:: 1 if number % 2 == 0 else -1]:
            work[name]()  # what the turn before left in the caches is not this one's
            start = time.perf_counter()
            for _ in range(calls[name]):
                work[name]()
            turns[name].append((time.perf_counter() - start) / calls[name])
    return turns


def judge(case: Case, turns: dict[str, list[float]], error: float, torch_error: float) -> Figures:
    """What follows from the turns."""
    ours = turns["fusedrnn.torch"]
    times, floor = ratio(turns["torch"], ours), ratio(turns["torch"], turns["functional"])
    return Figures(
        case,
        {name: statistics.median(seconds) for name, seconds in turns.items()},
        times,
        ratio(turns["compiled"], ours) if "compiled" in turns else None,
        floor,
        times[0] / floor[0],
        error,
        torch_error,
    )


def measure(wanted: Sequence[Case], threads: int, rounds: int, compiled: bool, turn: float = TURN) -> list[Figures]:
    """In this process."""
    import torch

    import fusedrnn
    from benchmarks.backend import Modules

    torch.set_num_threads(threads)
    fusedrnn.set_num_threads(threads)
    figures = []
    for case in wanted:
        libraries = build(case, compiled)
        truth = Modules(replace(case, dtype="float64"), torch.nn).results()
        error, torch_error = (deviation(libraries[name].results(), truth) for name in ("fusedrnn.torch", "torch"))
        turns = rounds_of({name: library.run for name, library in libraries.items()}, rounds, turn)
        figures.append(judge(case, turns, error, torch_error))
    return figures


def overheads(cells: Sequence[str], rounds: int, turn: float = TURN) -> list[Overhead]:
    """At `TINY`, in this process, with one thread."""
    import torch

    import fusedrnn

    torch.set_num_threads(1)
    fusedrnn.set_num_threads(1)
    found = []
    for cell in cells:
        libraries = build(replace(TINY, cell=cell), False)
        over: dict[str, list[float]] = {}
        for what in ("forward", "run"):
            turns = rounds_of({name: getattr(library, what) for name, library in libraries.items()}, rounds, turn)
            for name in ("fusedrnn.torch", "torch"):
                pairs = zip(turns[name], turns["functional"], strict=True)
                over.setdefault(name, []).append(1e6 * statistics.median(own - floor for own, floor in pairs))
        found.append(Overhead(cell, *over["fusedrnn.torch"], *over["torch"]))
    return found


def tables(figures: Sequence[Figures], calls: Sequence[Overhead]) -> str:
    """Training steps, then what a call costs."""

    def times(value: tuple[float, float, float] | None) -> str:
        return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"

    steps = markdown(
        "training step, cell, kind, dtype, shape, ms:, torch:, compiled:, torch over functional:, kept:, error:, "
        "torch's error:",
        (
            (
                f.case.name, f.case.cell, f.case.kind, f.case.dtype, f.case.shape,
                f"{1e3 * f.seconds['fusedrnn.torch']:.3g}", times(f.torch), times(f.compiled), times(f.functional),
                f"{100 * f.kept:.0f} %", f"{f.error:.0e}", f"{f.torch_error:.0e}",
            )
            for f in figures
        ),
    )  # fmt: skip
    overhead = markdown(
        "microseconds over functional, forward:, forward and backward:, torch forward:, torch forward and backward:",
        (
            (c.cell, *(f"{v:.1f}" for v in (c.forward, c.training, c.torch_forward, c.torch_training)))
            for c in calls
        ),
    )  # fmt: skip
    return f"{steps}\n\n{overhead}"


def main(arguments: Sequence[str]) -> int:
    """Time the backend."""
    parser = Parser(
        "backend",
        "Time training steps of torch.nn, fusedrnn.torch and the functional interface in one process, in turns, with "
        "OMP_WAIT_POLICY=PASSIVE. Columns say how many times as long as fusedrnn.torch (with quartiles) PyTorch takes; "
        "'kept' is the share of the functional interface's advantage that is left.",
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join((*NAMED, *STEPS))}; all by default")
    parser.add_some("cells", CELLS, "lstm,gru,rnn")
    parser.add_some("kinds", KINDS, "layer,packed,cell")
    parser.add_some("dtypes", ("float32", "float64"), "float32")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile, which takes minutes")
    parser.add_threads()
    parser.add_rounds(9)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)
    try:
        names = some_of((*NAMED, *STEPS))(",".join(given.shapes))
    except Exception as error:
        parser.error(f"SHAPE: {error}")
    wanted = [c for c in cases(given.cells, given.kinds, given.dtypes) if not names or c.name in names]
    if not wanted:
        parser.error(f"none of the shapes is of the kinds {','.join(given.kinds)}")
    about = announce(given.threads)
    figures = in_child(given.threads, measure, wanted, given.threads, given.rounds, given.compiled, environment=PASSIVE)
    calls = in_child(1, overheads, given.cells, given.rounds, environment=PASSIVE)
    print(tables(figures, calls))
    if given.json:
        write_json(given.json, about, results=figures, overhead=calls)
    if given.plot:
        groups = [f"{c.name} {c.cell} {c.kind} {c.dtype}" for c in wanted]
        series = {"pytorch": {group: f.torch[0] for group, f in zip(groups, figures, strict=True)}}
        bars(given.plot, groups, series, "times as long as fusedrnn.torch")
    return 0
