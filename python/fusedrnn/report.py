"""What a training run says: the progress bar, lines for a log, the final figures for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fusedrnn.checkpoint import write_atomically

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# a bar redrawn more often than this costs time and shows nothing more
_REDRAW_SECONDS = 0.1
# in a log file, lines without a metric come no more often than this
_LOG_SECONDS = 10.0


def say(text: str) -> None:
    """Print a line of running commentary to the error stream, where the progress bar lives."""
    print(text, file=sys.stderr, flush=True)


def coloured(text: str, value: float) -> str:
    """`text` in red for a `value` below 0.5, in green above, the stronger the farther, where the output is a terminal
    with colours and rich is there; else as it is."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return text
    console = Console(soft_wrap=True)
    with console.capture() as captured:
        console.print(Text(text, style=f"rgb({_shade(1 - value)},{_shade(value)},90)"), end="")
    return captured.get()


def _shade(value: float) -> int:
    return round(90 + 165 * min(1.0, max(0.0, 2 * value - 1)))


def format_metrics(metrics: Mapping[str, Any], baseline: Mapping[str, float] | None = None) -> str:
    """One line such as ``test_error 0.0312 (baseline 0.804)``."""
    parts = []
    for name, value in metrics.items():
        beside = f" (baseline {baseline[name]:.3g})" if baseline and name in baseline else ""
        parts.append(f"{name} {value:.4g}{beside}")
    return "  ".join(parts)


class Display:
    """Progress of a run: a rich bar on a terminal, plain lines where the error stream is a file or a pipe.

    A context manager. Without rich, or with `enabled` false, the bar is left out; nothing here raises for that.
    """

    def __init__(self, total: int, *, enabled: bool = True, baseline: Mapping[str, float] | None = None) -> None:
        self.total = total
        self.baseline = baseline
        self.enabled = enabled
        self._metrics = ""
        self._drawn = 0.0
        self._logged = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        if self.enabled and sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            except ImportError:
                return self
            self._bar = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                refresh_per_second=5,
            )
            self._task = self._bar.add_task("", total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float) -> None:
        """Move the bar to `step` and show the last batch's `loss` beside the last metrics."""
        if time.perf_counter() - self._drawn >= _REDRAW_SECONDS:
            self._draw(step, loss)

    def _draw(self, step: int, loss: float) -> None:
        if self._bar is not None and self._task is not None:
            self._drawn = time.perf_counter()
            self._bar.update(self._task, completed=step, description=f"loss {loss:.4g}  {self._metrics}")

    def record(self, record: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Show the new `metrics` of a `record`; in a log file, as one line."""
        if metrics:
            self._metrics = format_metrics(metrics, self.baseline)
        self._draw(record["step"], record["loss"])
        due = bool(metrics) or time.perf_counter() - self._logged >= _LOG_SECONDS
        if self.enabled and self._bar is None and due:
            self._logged = time.perf_counter()
            shown = format_metrics(metrics, self.baseline)
            say(f"epoch {record['epoch']}  step {record['step']}/{self.total}  loss {record['loss']:.4g}  {shown}")


def write_figures(
    path: Path, *, task: str, seed: int, steps: int, seconds: float, metrics: Mapping[str, float]
) -> None:
    """Write the final figures as one JSON object; raises OSError if the file cannot be written."""
    figures = {
        "task": task,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 3),
        "metrics": {name: float(value) for name, value in metrics.items()},
    }
    content = (json.dumps(figures) + "\n").encode()
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or /dev/stdout: a rename would replace it
    else:
        write_atomically(path, content)
