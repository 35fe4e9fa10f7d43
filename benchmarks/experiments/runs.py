"""Whole training runs of the lecture's tasks: seconds of the wall clock from first batch to last evaluation.

Everything counts here that a step alone does not show: making batches, the optimizer, evaluation, Python itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.options import Parser, Progress, number
from benchmarks.report import bars, machine, markdown, write_json
from benchmarks.timing import ratio, take_turns, workers
from benchmarks.training import TRAININGS, Training

EPOCHS = {"count-ones": 20, "addition": 20, "mnist": 1}


@dataclass(frozen=True)
class Figures:
    """Of one library: seconds of a run, how many times ours, and what it reached."""

    training: Training
    library: str
    seconds: float
    ratio: float
    reached: dict[str, float]


def measure(
    training: Training, libraries: Sequence[str], threads: int, rounds: int, progress: Progress
) -> list[Figures]:
    """Train in turn; the first run of each only warms up."""
    with workers(libraries, threads, TRAININGS) as started:
        reached = {name: worker.build(training) for name, worker in started.items()}
        places = {name: (worker, training) for name, worker in started.items()}
        turns = take_turns(places, rounds, progress, turn=0)
    return [
        Figures(
            training, name, statistics.median(own), ratio(own, turns["fusedrnn"])[0],
            {key: float(value) for key, value in reached[name].items()},
        )
        for name, own in turns.items()
    ]  # fmt: skip


def table(figures: Sequence[Figures]) -> str:
    """A row for each task and library."""
    return markdown(
        "task, epochs:, library, seconds:, times ours:, first epoch's loss:, last epoch's loss:, figures",
        (
            (
                f.training.task, str(f.training.epochs), f.library, f"{f.seconds:.2f}", f"{f.ratio:.2f}",
                f"{f.reached['first_loss']:.6f}", f"{f.reached['last_loss']:.6f}",
                "; ".join(f"{k} {v:.4f}" for k, v in f.reached.items() if not k.endswith("_loss")),
            )
            for f in figures
        ),
    )  # fmt: skip


def missing(training: Training) -> str | None:
    """Why its data cannot be had without fetching it, or None."""
    from fusedrnn.data import sources

    if training.task != "mnist" or training.data is not None:
        return None
    folder = sources.cache_folder() / "mnist"
    if any(folder.glob("*-ubyte*")):
        return None
    return f"no images in {folder}; `fusedrnn train mnist` fetches them, or give --data"


def main(arguments: Sequence[str]) -> int:
    """Train each task with each library."""
    parser = Parser(
        "runs",
        "Train the lecture's tasks from the same initial weights on the same batches, ours through the Trainer and "
        "PyTorch in a loop of its own, in turn. mnist is skipped where its images were not fetched before.",
    )
    tasks = list(EPOCHS)
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help=f"of {', '.join(tasks)}; all by default"
    )  # fmt: skip
    parser.add_argument(
        "--epochs", type=number(1, 10_000), metavar="N",
        help=f"of every task (default: {', '.join(f'{name} {count}' for name, count in EPOCHS.items())})",
    )  # fmt: skip
    parser.add_argument("--seed", type=number(0), default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument("--data", metavar="WHERE", help="mnist's images, as for `fusedrnn train mnist --data`")
    parser.add_pytorch()
    parser.add_threads()
    parser.add_rounds(3)
    parser.add_files("the ratios")
    given = parser.parse_args(arguments)
    for name in given.tasks:
        if name not in EPOCHS:
            parser.error(f"unknown task {name!r}; expected one of {', '.join(tasks)}")
    if given.data not in (None, "full", "small", "fashion") and not Path(given.data).is_dir():
        parser.error(f"--data: expected a folder, or one of full, small, fashion, got {given.data!r}")

    about = machine(given.peers)
    print(about, flush=True)
    wanted, skipped = [], {}
    for name in given.tasks or tasks:
        training = Training(name, given.epochs or EPOCHS[name], given.seed)
        if name == "mnist":
            training = replace(training, data=given.data)
        if reason := missing(training):
            skipped[name] = reason
            print(f"{name} is skipped: {reason}", flush=True)
        else:
            wanted.append(training)
    progress = Progress(len(wanted) * given.rounds)
    figures: list[Figures] = []
    for training in wanted:
        figures += measure(training, ["fusedrnn", *given.peers], given.threads, given.rounds, progress)
    print(table(figures))
    if given.json:
        write_json(given.json, about, threads=given.threads, results=figures, skipped=skipped)
    if given.plot:
        series = {name: {f.training.task: f.ratio for f in figures if f.library == name} for name in given.peers}
        bars(given.plot, [training.task for training in wanted], series, "times as long as fusedrnn")
    return 0
