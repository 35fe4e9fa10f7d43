"""``python -m benchmarks``: a table of training steps, ours and others', speed beside error."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import fusedrnn
from benchmarks.timing import Result, compare
from benchmarks.workloads import WORKLOADS

DISTRIBUTIONS = {"pytorch": "torch", "numpy": "numpy"}


def processor() -> str:
    """The model name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """The commit that is measured, with a + where files differ from it."""
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(peers: list[str]) -> str:
    """One line that says what the figures belong to."""
    config = fusedrnn.show_config()
    versions = [f"{name} {importlib.metadata.version(DISTRIBUTIONS[name])}" for name in peers]
    return (
        f"{processor()}, {config['isa']}, {platform.system()}, Python {platform.python_version()}, "
        f"fusedrnn {fusedrnn.__version__} at {commit()}" + "".join(f", {v}" for v in versions)
    )


def table(results: list[Result]) -> str:
    """Markdown: a row for each workload, library and number of threads."""
    lines = [
        "| training step | shape | threads | library | ms | GFLOP/s | times ours (quartiles) | error |",
        "|---|---|--:|---|--:|--:|--:|--:|",
    ]
    for r in results:
        w = r.workload
        ratio = "1" if r.peer == "fusedrnn" else f"{r.ratio:.2f} ({r.ratio_low:.2f}-{r.ratio_high:.2f})"
        lines.append(
            f"| {w.name} | {w.cell} {w.shape} | {r.threads} | {r.peer} | {r.seconds * 1e3:.3g} | "
            f"{w.flops / r.seconds / 1e9:.3g} | {ratio} | {r.error:.1e} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time training steps (forward, loss, backward, Adam; float32) against other libraries, every "
        "library in its own process, taking turns. 'times ours' is the median of turn-by-turn ratios; 'error' the "
        "largest relative deviation of a gradient from float64.",
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--peers", default="pytorch,numpy", help="libraries beside ours (default: %(default)s)")
    parser.add_argument("--threads", default="1", help="numbers of threads, such as 1,2 (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each library (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()

    unknown = [name for name in arguments.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; expected one of {', '.join(WORKLOADS)}")
    peers = [name for name in arguments.peers.split(",") if name]
    for name in peers:
        if name not in DISTRIBUTIONS:
            parser.error(f"unknown library {name!r}; expected one of {', '.join(DISTRIBUTIONS)}")
        if importlib.util.find_spec(DISTRIBUTIONS[name]) is None:
            parser.error(f"{name} is not installed: pip install {DISTRIBUTIONS[name]}, or leave it out of --peers")
    if arguments.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {arguments.rounds}")
    threads = [int(k) if k.isdecimal() else 0 for k in arguments.threads.split(",")]
    if not all(1 <= k <= 256 for k in threads):
        parser.error(f"--threads: expected numbers from 1 to 256, got {arguments.threads!r}")

    chosen = [WORKLOADS[name] for name in arguments.workloads or WORKLOADS]
    print(machine(peers), flush=True)
    results: list[Result] = []
    total = len(chosen) * len(threads) * arguments.rounds
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            print(f"\r{done} of {total} rounds", end="\n" if done == total else "", file=sys.stderr, flush=True)

    for workload in chosen:
        for count in threads:
            results += compare(workload, peers, count, arguments.rounds, progress)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
