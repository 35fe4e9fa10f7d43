"""Named shapes against other libraries, each speed beside its error and beside the machine's limit."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.options import Parser, Progress, numbers
from benchmarks.report import draw, machine, summary, table, write_json
from benchmarks.timing import Result, compare, limits, workers
from benchmarks.workloads import CELLS, DTYPES, MODES, SHAPES, choose


def main(arguments: Sequence[str], others: str = "") -> int:
    """Time what the command line names. ``others`` is what its help says of the other experiments."""
    parser = Parser(
        "shapes",
        "Time training steps, inference and single steps of named shapes against other libraries, every library in "
        "its own process, taking turns. 'times ours' is the median of turn-by-turn ratios; 'of limit' the share of "
        "what this machine's measured product rate or cache bandwidth allows; 'error' the largest relative deviation "
        "of a result from float64.",
        epilog=others,
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all by default")
    parser.add_some("cells", CELLS, "lstm")
    parser.add_some("modes", MODES, "train")
    parser.add_some("dtypes", DTYPES, "float32")
    parser.add_peers()
    parser.add_argument(
        "--threads", type=numbers(1, 256), default=[1], metavar="LIST", help="numbers of threads (default: 1)"
    )
    parser.add_rounds(15)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)
    for name in given.shapes:
        if name not in SHAPES:
            parser.error(f"unknown shape {name!r}; expected one of {', '.join(SHAPES)}")
    chosen = choose(given.shapes, given.cells, given.modes, given.dtypes)
    if not chosen:
        parser.error(f"none of the shapes has one of the modes {','.join(given.modes)}")

    about = machine(given.peers)
    print(about, flush=True)
    bounds = [limits(count, given.dtypes) for count in given.threads]
    for bound in bounds:
        print(bound, flush=True)
    results: list[Result] = []
    progress = Progress(len(chosen) * len(bounds) * given.rounds)
    for bound in bounds:
        with workers(["fusedrnn", *given.peers], bound.threads) as libraries:
            for workload in chosen:
                results += compare(workload, libraries, bound, given.rounds, progress)
    print(table(results))
    if given.peers:
        print(summary(results))
    if given.json:
        write_json(given.json, about, limits=bounds, results=results)
    if given.plot:
        draw(given.plot, results)
    return 0
