"""``python -m benchmarks``: ours and others', speed beside error and beside the machine's limit."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks.report import DISTRIBUTIONS, draw, machine, summary, table, write_json
from benchmarks.timing import Result, compare, limits
from benchmarks.workloads import CELLS, DTYPES, MODES, SHAPES, choose


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time training steps, inference and single steps against other libraries, every library in its "
        "own process, taking turns. 'times ours' is the median of turn-by-turn ratios; 'of limit' the share of what "
        "this machine's measured product rate or cache bandwidth allows; 'error' the largest relative deviation of a "
        "result from float64.",
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all by default")
    for name, default, known in (("cells", "lstm", CELLS), ("modes", "train", MODES), ("dtypes", "float32", DTYPES)):
        parser.add_argument(f"--{name}", default=default, help=f"of {','.join(known)} (default: %(default)s)")
    installed = [name for name in DISTRIBUTIONS if importlib.util.find_spec(DISTRIBUTIONS[name])]
    parser.add_argument("--peers", default=",".join(installed), help="libraries beside ours (default: %(default)s)")
    parser.add_argument("--threads", default="1", help="numbers of threads, such as 1,2 (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each library (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the ratios there, a PNG")
    arguments = parser.parse_args()

    def listed(option: str, known: object) -> list[str]:
        values = [value for value in str(getattr(arguments, option)).split(",") if value]
        for value in values:
            if value not in known:  # type: ignore[operator]
                parser.error(f"--{option}: expected some of {', '.join(known)}, got {value!r}")  # type: ignore[call-overload]
        return values

    for name in arguments.shapes:
        if name not in SHAPES:
            parser.error(f"unknown shape {name!r}; expected one of {', '.join(SHAPES)}")
    peers = listed("peers", DISTRIBUTIONS)
    for name in peers:
        if name not in installed:
            parser.error(f"{name} is not installed: pip install {DISTRIBUTIONS[name]}, or leave it out of --peers")
    if arguments.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {arguments.rounds}")
    threads = [int(k) if k.isdecimal() else 0 for k in arguments.threads.split(",")]
    if not all(1 <= k <= 256 for k in threads):
        parser.error(f"--threads: expected numbers from 1 to 256, got {arguments.threads!r}")
    dtypes = listed("dtypes", DTYPES)
    chosen = choose(arguments.shapes, listed("cells", CELLS), listed("modes", MODES), dtypes)
    if not chosen:
        parser.error(f"none of the shapes has one of the modes {arguments.modes}")

    about = machine(peers)
    print(about, flush=True)
    bounds = [limits(count, dtypes) for count in threads]
    for bound in bounds:
        print(bound, flush=True)
    results: list[Result] = []
    total = len(chosen) * len(bounds) * arguments.rounds
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            print(f"\r{done} of {total} rounds", end="\n" if done == total else "", file=sys.stderr, flush=True)

    for workload in chosen:
        for bound in bounds:
            results += compare(workload, peers, bound, arguments.rounds, progress)
    print(table(results))
    if peers:
        print(summary(results))
    if arguments.json:
        write_json(arguments.json, about, bounds, results)
    if arguments.plot:
        draw(arguments.plot, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
