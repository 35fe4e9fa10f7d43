"""Whole models before and after ``fusedrnn.torch.accelerate``: seconds an epoch, and whether they learn the same.

Both are in one process, epoch by epoch in turn, from the same weights and batches, as `experiments/backend.py` has it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backend import PASSIVE, announce
from benchmarks.options import Parser, some_of
from benchmarks.report import COLOURS, markdown, write_json
from benchmarks.timing import in_child, ratio

NAMES = ("characters", "tagger", "forecaster")


@dataclass(frozen=True)
class Figures:
    """Of one model: seconds and mean loss of each epoch, before and after."""

    model: str
    swapped: dict[str, str]
    seconds: list[float]
    accelerated_seconds: list[float]
    losses: list[float]
    accelerated_losses: list[float]

    @property
    def times(self) -> tuple[float, float, float]:
        """How many times as long PyTorch's own layers take, with quartiles."""
        return ratio(self.seconds, self.accelerated_seconds)

    @property
    def differences(self) -> list[float]:
        """Of the losses, relative, by epoch."""
        pairs = zip(self.losses, self.accelerated_losses, strict=True)
        return [abs(ours - theirs) / abs(theirs) for theirs, ours in pairs]


def train(name: str, threads: int, epochs: int, small: bool = False) -> Figures:
    """In this process. ``small`` is the least of everything, for tests."""
    import torch

    import fusedrnn
    from benchmarks.models import MODELS, Size, Training
    from fusedrnn.torch import accelerate

    torch.set_num_threads(threads)
    fusedrnn.set_num_threads(threads)
    make, data, size = MODELS[name]
    if small:
        size = Size(batches=2, T=6, N=5, H=9)
    batches = data(size)
    plain, accelerated = (Training(make, batches, size) for _ in range(2))
    report = accelerate(accelerated.model)
    seconds: tuple[list[float], list[float]] = ([], [])
    losses: tuple[list[float], list[float]] = ([], [])
    for _ in range(epochs):
        for which, training in enumerate((plain, accelerated)):
            start = time.perf_counter()
            losses[which].append(training.epoch())
            seconds[which].append(time.perf_counter() - start)
    return Figures(name, report.swapped, *seconds, *losses)


def table(figures: Sequence[Figures]) -> str:
    """A row for each model."""
    return markdown(
        "model, s an epoch:, accelerated:, times:, first loss:, last loss:, largest difference by epoch",
        (
            (
                f.model, f"{statistics.median(f.seconds):.3g}", f"{statistics.median(f.accelerated_seconds):.3g}",
                f"{f.times[0]:.2f} ({f.times[1]:.2f} to {f.times[2]:.2f})", f"{f.losses[0]:.4f}",
                f"{f.losses[-1]:.4f}", " ".join(f"{d:.0e}" for d in f.differences),
            )
            for f in figures
        ),
    )  # fmt: skip


def draw(path: Path, figures: Sequence[Figures]) -> None:
    """The losses over the seconds that it took to reach them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(figures), 3.2), layout="constrained")
    for axis, f in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures, strict=True):
        both = {"pytorch": (f.seconds, f.losses), "fusedrnn": (f.accelerated_seconds, f.accelerated_losses)}
        for name, (seconds, losses) in both.items():
            passed = [sum(seconds[: epoch + 1]) for epoch in range(len(seconds))]
            axis.plot(passed, losses, color=COLOURS[name], label=name, marker=".")
        axis.set(title=f.model, xlabel="seconds", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str]) -> int:
    """Train the models."""
    parser = Parser(
        "accelerate",
        "Train plain PyTorch models on generated data before and after fusedrnn.torch.accelerate, epochs in turn, in "
        "one process with OMP_WAIT_POLICY=PASSIVE. 'times' is how many times as long an epoch takes before.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_size("epochs", 8, "of each")
    parser.add_threads()
    parser.add_files("the losses over time")
    given = parser.parse_args(arguments)
    try:
        names = some_of(NAMES)(",".join(given.models)) or list(NAMES)
    except Exception as error:
        parser.error(f"MODEL: {error}")
    about = announce(given.threads)
    figures = [in_child(given.threads, train, name, given.threads, given.epochs, environment=PASSIVE) for name in names]
    print(table(figures))
    if given.json:
        write_json(given.json, about, results=figures)
    if given.plot:
        draw(given.plot, figures)
    return 0
