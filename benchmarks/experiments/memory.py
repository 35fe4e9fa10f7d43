"""Peak memory of one call beside the formula for what it must keep: outputs and the reserve for backward.

Every figure comes from a fresh process. A run over one row and one step first, so that code, gradients and moments
are in memory; then the kernel's record of the peak is reset, the real run follows, and the peak is read. Linux only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.options import Parser, Progress
from benchmarks.peers import deviation, hold_weights
from benchmarks.report import bars, machine, markdown, write_json
from benchmarks.timing import PEERS, in_child, truth
from benchmarks.workloads import CELLS, Array, Workload

RESERVE = {"lstm": 5, "gru": 4, "rnn": 0}  # times y; a plain RNN's backward needs no more than y
STEPS, ROWS, INPUTS, UNITS = 200, 64, 32, 128


@dataclass(frozen=True)
class Figures:
    """Of one library on one workload, in bytes: x, the formula, and what the process grew by at its peak."""

    workload: Workload
    library: str
    x: int
    formula: int
    peak: int
    error: float


def formula(w: Workload) -> int:
    """Bytes beyond x and parameters. Inference: y of a layer and of the one below. Training: y and reserve of every
    layer, and the gradients that go from layer to layer, two at most at a time."""
    y = w.T * w.N * w.H * w.bytes_per_element
    if w.mode != "train":
        return min(w.L, 2) * y
    return w.L * (1 + RESERVE[w.cell]) * y + (min(w.L - 1, 2) + w.every_step) * y


def _resident(field: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    (kib,) = re.findall(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) * 1024


def grown(library: str, w: Workload, threads: int) -> tuple[int, dict[str, Array]]:
    """Bytes that this process grows by at the peak of one run, and the run's results."""
    model = PEERS[library](w, threads)
    hold_weights(model)
    x, target = model.x, model.target
    model.x, model.target = x[:1, :1], target[:1, :1] if w.every_step else target[:1]
    model.run()
    model.x, model.target = x, target
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model.run()
    return _resident("VmHWM") - before, model.results()


def measure(library: str, w: Workload, threads: int) -> Figures:
    """In a fresh process."""
    peak, results = in_child(threads, grown, library, w, threads)
    x = w.T * w.N * w.I * w.bytes_per_element
    return Figures(w, library, x, formula(w), peak, deviation(results, truth(w)))


def main(arguments: Sequence[str]) -> int:
    """Measure each cell and mode."""
    parser = Parser(
        "memory",
        "Peak resident memory of a training step and of an inference beyond x and parameters, each in a fresh process "
        "(Linux only), beside the formula: y = T N H, reserve 5 T N H for an LSTM, 4 for a GRU, 0 for an RNN. What is "
        "beyond it is scratch: packed weights, a block's gate gradients and partial sums, and the heap's own.",
    )
    parser.add_some("cells", CELLS, ",".join(CELLS))
    parser.add_some("modes", ("infer", "train"), "infer,train")
    for name, default, what in (
        ("steps", STEPS, "T"), ("rows", ROWS, "N"), ("inputs", INPUTS, "I"), ("units", UNITS, "H"), ("layers", 1, "L")
    ):  # fmt: skip
        parser.add_size(name, default, what)
    parser.add_peers("pytorch")
    parser.add_threads()
    parser.add_files("the ratios of peak to formula")
    given = parser.parse_args(arguments)
    if not Path("/proc/self/clear_refs").exists():
        parser.error("expected Linux with /proc/self/clear_refs")
    others = [name for name in given.peers if name not in ("fusedrnn", "pytorch")]
    if others:
        parser.error(f"--peers: expected pytorch or nothing, got {','.join(others)}")

    about = machine(given.peers)
    print(about, flush=True)
    sizes = {"T": given.steps, "N": given.rows, "I": given.inputs, "H": given.units, "L": given.layers}
    wanted = [
        (library, Workload("memory", **sizes, cell=cell, mode=mode))
        for mode in given.modes
        for cell in given.cells
        for library in ("fusedrnn", *given.peers)
    ]
    progress = Progress(len(wanted), "processes")
    figures = []
    for library, workload in wanted:
        figures.append(measure(library, workload, given.threads))
        progress()
    print(table(figures))
    if given.json:
        write_json(given.json, about, threads=given.threads, results=figures)
    if given.plot:
        groups = list(dict.fromkeys(f"{f.workload.cell} {f.workload.mode}" for f in figures))
        series = {
            library: {
                f"{f.workload.cell} {f.workload.mode}": f.peak / f.formula for f in figures if f.library == library
            }
            for library in dict.fromkeys(f.library for f in figures)
        }
        bars(given.plot, groups, series, "peak over formula", "linear")
    return 0


def table(figures: Sequence[Figures]) -> str:
    """A row for each process."""

    def megabytes(count: int) -> str:
        return f"{count / 1e6:.1f}"

    return markdown(
        "cell, mode, shape, library, x MB:, formula MB:, peak MB:, beyond MB:, peak / formula:, error:",
        (
            (
                f.workload.cell, f.workload.mode, f.workload.shape, f.library, megabytes(f.x), megabytes(f.formula),
                megabytes(f.peak), megabytes(f.peak - f.formula), f"{f.peak / f.formula:.2f}", f"{f.error:.1e}",
            )
            for f in figures
        ),
    )  # fmt: skip
