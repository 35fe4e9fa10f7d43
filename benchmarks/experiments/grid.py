"""Shapes that nobody tuned for: drawn from a seed, sizes of no round number, inference and training.

Named shapes are what the kernels were written against; the geometric mean over these says how well that carries over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.options import Parser, Progress, number
from benchmarks.report import draw, machine, summary, table, write_json
from benchmarks.timing import Result, compare, limits, workers
from benchmarks.workloads import CELLS, Workload

RANGES = {"T": (5, 200), "N": (1, 256), "I": (1, 256), "H": (8, 512)}
MOST_FLOPS = 15e9  # of a training step, so that a turn stays short
GRID_CELLS = ("lstm", "gru")


def drawn(count: int, seed: int, cells: Sequence[str] = GRID_CELLS) -> list[Workload]:
    """So many training workloads, the cells in turn; T, N, I, H log-uniform over `RANGES`, one layer or two.

    The first ``count`` of a seed are the same for any larger count.
    """
    rng = np.random.default_rng(seed)
    found: list[Workload] = []
    while len(found) < count:
        sizes: dict[str, Any] = {
            name: round(math.exp(rng.uniform(math.log(low), math.log(high)))) for name, (low, high) in RANGES.items()
        }
        name = f"grid-{len(found) + 1}"
        workload = Workload(name, **sizes, L=int(rng.integers(1, 3)), C=10, cell=cells[len(found) % len(cells)])
        if workload.flops <= MOST_FLOPS:
            found.append(workload)
    return found


def main(arguments: Sequence[str]) -> int:
    """Time the grid."""
    parser = Parser(
        "grid",
        "Time training steps and inference, float32, of shapes drawn from a seed: log-uniform over "
        + ", ".join(f"{name} {low} to {high}" for name, (low, high) in RANGES.items())
        + f", one layer or two, at most {MOST_FLOPS / 1e9:.0f} GFLOP a training step; the cells take turns. Prints the "
        "table, the geometric mean of (best other library / ours) by mode, and each shape that is behind.",
    )
    parser.add_argument("--count", type=number(1, 1000), default=24, metavar="N", help="shapes (default: %(default)s)")
    parser.add_argument("--seed", type=number(0), default=0, help="that they are drawn from (default: %(default)s)")
    parser.add_some("cells", CELLS, ",".join(GRID_CELLS))
    parser.add_some("modes", ("infer", "train"), "infer,train")
    parser.add_peers("pytorch", "onnxruntime", "jax")
    parser.add_threads()
    parser.add_rounds(5)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)

    about = machine(given.peers)
    bound = limits(given.threads, ["float32"])
    print(f"{about}\n{bound}", flush=True)
    shapes = drawn(given.count, given.seed, given.cells)
    progress = Progress(len(shapes) * len(given.modes) * given.rounds)
    results: list[Result] = []
    with workers(["fusedrnn", *given.peers], given.threads) as libraries:
        for mode in given.modes:
            for shape in shapes:
                results += compare(replace(shape, mode=mode), libraries, bound, given.rounds, progress)
    print(table(results))
    if given.peers:
        print(summary(results))
    if given.json:
        write_json(given.json, about, seed=given.seed, limits=bound, results=results)
    if given.plot:
        draw(given.plot, results, shapes=True)
    return 0
