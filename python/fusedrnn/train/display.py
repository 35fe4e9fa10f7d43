"""What a training run says: the progress bar, lines for a log, the final figures for machines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fusedrnn.atomic import write_atomically
from fusedrnn.json_values import null_for_nan

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# a bar redrawn more often than this costs time and shows nothing more
_REDRAW_SECONDS = 0.1
# in a log file, lines without a metric come no more often than this
_LOG_SECONDS = 10.0


def say(text: str) -> None:
    """Print a line of running commentary to the error stream, where the progress bar lives.

    Work goes on where there is no such stream or it fails; a character that it cannot show becomes a question mark.
    """
    stream = sys.stderr
    if stream is None:  # for print, None is the standard output
        return
    with contextlib.suppress(Exception):
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            coding = getattr(stream, "encoding", None) or "ascii"
            print(text.encode(coding, "replace").decode(coding), file=stream, flush=True)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except Exception:  # no stream, a closed one, or an object that can be written to and no more
        return False


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

    A context manager. Without rich, or with `enabled` false, the bar is left out. Whatever the error stream is, nothing
    here raises.
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
        self._untold: str | None = None  # the line of the last record, where it was not shown

    def __enter__(self) -> Display:
        if self.enabled and _is_terminal(sys.stderr):
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
            self._on_bar(self._bar.start)
        return self

    def _on_bar(self, act: Callable[[], object]) -> None:
        """A terminal may go away in the middle of a run: the bar goes then, the run does not."""
        try:
            act()
        except Exception:
            self._bar = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._on_bar(self._bar.stop)
        if self._untold is not None:
            say(self._untold)

    def update(self, step: int, loss: float) -> None:
        """Move the bar to `step` and show the last batch's `loss` beside the last metrics."""
        if time.perf_counter() - self._drawn >= _REDRAW_SECONDS:
            self._draw(step, loss)

    def _draw(self, step: int, loss: float) -> None:
        bar, task = self._bar, self._task
        if bar is not None and task is not None:
            self._drawn = time.perf_counter()
            shown = f"loss {loss:.4g}  {self._metrics}"
            self._on_bar(lambda: bar.update(task, completed=step, description=shown))

    def record(self, record: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Show the new `metrics` of a `record`; in a log file, as one line. The last record is always shown."""
        if metrics:
            self._metrics = format_metrics(metrics, self.baseline)
        self._draw(record["step"], record["loss"])
        if not self.enabled or self._bar is not None:
            return
        shown = format_metrics(metrics, self.baseline)
        line = (
            f"epoch {record['epoch']}  step {record['step']}/{self.total}  loss {record['loss']:.4g}  {shown}".rstrip()
        )
        if metrics or time.perf_counter() - self._logged >= _LOG_SECONDS:
            self._logged = time.perf_counter()
            self._untold = None
            say(line)
        else:
            self._untold = line


def write_figures(
    path: Path, *, task: str, seed: int, steps: int, seconds: float, metrics: Mapping[str, float]
) -> None:
    """Write the final figures as one JSON object, null for a metric that is not finite.

    Raises OSError if the file cannot be written.
    """
    figures = {
        "task": task,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 3),
        "metrics": null_for_nan({name: float(value) for name, value in metrics.items()}),
    }
    content = (json.dumps(figures, allow_nan=False) + "\n").encode()
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or /dev/stdout: a rename would replace it
    else:
        write_atomically(path, content)
