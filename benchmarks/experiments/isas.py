"""What each instruction set is worth: the same workloads, one process for each set that this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.options import Parser, Progress, some_of
from benchmarks.report import bars, machine, markdown, title, write_json
from benchmarks.timing import PEERS, Result, Worker, compare, limits
from benchmarks.workloads import CELLS, SHAPES, choose


def main(arguments: Sequence[str]) -> int:
    """Time the ladder."""
    from fusedrnn import runtime

    available = runtime.available_isas()
    parser = Parser(
        "isas",
        "Time the same workloads under FUSEDRNN_ISA="
        + ", ".join(available)
        + " (those that this machine has), in turn. 'times widest' is how many times as long as with the widest.",
    )
    default = ["count-ones", "mnist"]
    parser.add_argument(
        "--shapes", type=some_of(SHAPES), default=default, metavar="LIST", help=f"(default: {','.join(default)})"
    )
    parser.add_some("cells", CELLS, "lstm,gru")
    parser.add_some("modes", ("infer", "train"), "infer,train")
    parser.add_threads()
    parser.add_rounds(9)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)

    chosen = choose(given.shapes, given.cells, given.modes, ["float32"])
    if not chosen:
        parser.error(f"none of the shapes has one of the modes {','.join(given.modes)}")
    about = machine([])
    bound = limits(given.threads, ["float32"])
    print(f"{about}\n{bound}", flush=True)
    widest = available[-1]
    progress = Progress(len(chosen) * given.rounds)
    ladder: dict[str, Worker] = {}
    results: list[Result] = []
    try:
        for isa in available:
            ladder[isa] = Worker(PEERS["fusedrnn"], given.threads, {"FUSEDRNN_ISA": isa})
        for workload in chosen:
            results += compare(workload, ladder, bound, given.rounds, progress, base=widest)
    finally:
        for worker in ladder.values():
            worker.close()

    def row(r: Result) -> tuple[str, ...]:
        return (
            title(r), r.workload.shape, str(r.threads), r.peer, f"{r.seconds * 1e3:.3g}",
            f"{r.workload.flops / r.seconds / 1e9:.3g}",
            "1" if r.peer == widest else f"{r.ratio:.2f} ({r.ratio_low:.2f}-{r.ratio_high:.2f})", f"{r.error:.1e}",
        )  # fmt: skip

    columns = "workload, shape, threads:, isa, ms:, GFLOP/s:, times widest (quartiles):, error:"
    print(markdown(columns, map(row, results)))
    if given.json:
        renamed = [{"isa": r.peer, **vars(replace(r, peer="fusedrnn"))} for r in results]
        write_json(given.json, about, limits=bound, results=renamed)
    if given.plot:
        series = {isa: {title(r): r.ratio for r in results if r.peer == isa} for isa in available}
        bars(given.plot, list(dict.fromkeys(map(title, results))), series, f"times as long as with {widest}")
    return 0
