"""What options cost: every variant of a cell beside the plain cell, and sequences of uneven length beside their sum."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.options import Parser, Progress
from benchmarks.peers import deviation
from benchmarks.report import bars, machine, markdown, write_json
from benchmarks.timing import Worker, build, ratio, take_turns, workers
from benchmarks.variants import FACTORIES, VARIANTS, Variant, truth
from benchmarks.workloads import CELLS


@dataclass(frozen=True)
class Figures:
    """Of one library and variant: seconds, how many times as long as our plain cell (its work counted by the steps that
    there are), with quartiles, and the error."""

    variant: Variant
    library: str
    threads: int
    seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    error: float


def measure(
    variants: Sequence[Variant], started: dict[str, Worker], threads: int, rounds: int, progress: Progress
) -> list[Figures]:
    """All variants of one cell and mode in turn, the plain one first."""
    places = {(name, v): (worker, v) for v in variants for name, worker in started.items()}
    found = build(places)
    turns = take_turns({key: places[key] for key in found}, rounds, progress)
    plain = turns["fusedrnn", variants[0]]
    figures = []
    wanted = {v: truth(v) for v in variants}
    for (name, v), own in turns.items():
        started[name].drop(v)
        median, low, high = (value / v.work for value in ratio(own, plain))
        error = deviation(found[name, v], wanted[v])
        figures.append(Figures(v, name, threads, statistics.median(own), median, low, high, error))
    return figures


def main(arguments: Sequence[str]) -> int:
    """Time the variants."""
    parser = Parser(
        "variants",
        "Time one layer with each option beside the plain one, in turns. 'times plain' is how many times as long as our"
        " plain cell takes; with lengths, drawn from 1 to T, as it takes for as many steps. The error is the largest "
        "deviation from the float64 reference, of y and in training of dx and the weights' gradients.",
    )
    parser.add_some("variants", VARIANTS, ",".join(VARIANTS))
    parser.add_some("cells", CELLS, "lstm,gru,rnn")
    parser.add_some("modes", ("infer", "train"), "infer,train")
    for name, size in (("T", 30), ("N", 64), ("I", 128), ("H", 128)):
        parser.add_size(name, size, f"{name} of the shape")
    parser.add_pytorch()
    parser.add_threads()
    parser.add_rounds(9)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)

    names = ["plain", *(name for name in given.variants if name != "plain")]
    groups = [
        [Variant(v, cell, mode, given.T, given.N, given.I, given.H) for v in names if cell in VARIANTS[v][0]]
        for cell in given.cells
        for mode in given.modes
    ]
    about = machine(given.peers)
    print(about, flush=True)
    progress = Progress(len(groups) * given.rounds)
    figures: list[Figures] = []
    with workers(["fusedrnn", *given.peers], given.threads, FACTORIES) as started:
        for variants in groups:
            figures += measure(variants, started, given.threads, given.rounds, progress)

    print(f"\nT{given.T} N{given.N} I{given.I} H{given.H}, threads: {given.threads}\n")
    print(
        markdown(
            "cell, mode, option, library, ms:, times plain (quartiles):, error:",
            (
                (
                    f.variant.cell.upper(), f.variant.mode, f.variant.name, f.library, f"{f.seconds * 1e3:.3g}",
                    f"{f.ratio:.2f} ({f.ratio_low:.2f}-{f.ratio_high:.2f})", f"{f.error:.1e}",
                )
                for f in figures
            ),
        )
    )  # fmt: skip
    if given.json:
        write_json(given.json, about, results=figures)
    if given.plot:
        ours = [f for f in figures if f.library == "fusedrnn"]
        series = {
            f"{cell.upper()} {mode}": {
                f.variant.name: f.ratio for f in ours if (f.variant.cell, f.variant.mode) == (cell, mode)
            }
            for cell in given.cells
            for mode in given.modes
        }
        bars(given.plot, names, series, "times as long as the plain cell", "linear")
    return 0
