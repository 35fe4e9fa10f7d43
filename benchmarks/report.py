"""What the measurements say: Markdown, JSON, and bars."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import fusedrnn
from benchmarks.timing import Result

DISTRIBUTIONS = {
    "pytorch": "torch",
    "pytorch-compiled": "torch",
    "onnxruntime": "onnxruntime",
    "jax": "jax",
    "numpy": "numpy",
    "frozen": "fusedrnn",
    "frozen-bfloat16": "fusedrnn",
    "frozen-int8": "fusedrnn",
    "recompute": "fusedrnn",
}
OWN = (
    "fusedrnn",
    "frozen",
    "frozen-bfloat16",
    "frozen-int8",
    "recompute",
)  # this library, as it comes and with an option
COLOURS = {
    "fusedrnn": "#2a7f62",
    "pytorch": "#c8372d",
    "pytorch-compiled": "#e08a5b",
    "onnxruntime": "#2b5c9e",
    "jax": "#b8860b",
    "numpy": "#777777",
    "frozen": "#7fbf9f",
    "frozen-bfloat16": "#a9d6c0",
    "frozen-int8": "#cfe8dc",
    "recompute": "#1b4d3e",
}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit that is measured, with a + where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(peers: Sequence[str]) -> str:
    """One line that says what the figures belong to."""
    config = fusedrnn.show_config()
    versions = [f"{name} {importlib.metadata.version(DISTRIBUTIONS[name])}" for name in peers]
    return (
        f"{_processor()}, {config['isa']}, {platform.system()}, Python {platform.python_version()}, "
        f"{config['compiler']}, fusedrnn {fusedrnn.__version__} at {_commit()}" + "".join(f", {v}" for v in versions)
    )


def title(result: Result) -> str:
    """A workload's name with cell, mode and dtype."""
    w = result.workload
    return f"{w.name} {w.cell} {w.mode}" + (" float64" if w.dtype == "float64" else "")


def markdown(columns: str, rows: Iterable[Sequence[str]]) -> str:
    """A table with these columns, as in "name, seconds:": a colon asks for the right edge."""
    names = [name.strip() for name in columns.split(",")]
    rules = "|".join("--:" if name.endswith(":") else "---" for name in names)
    lines = [f"| {' | '.join(name.removesuffix(':') for name in names)} |", f"|{rules}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def table(results: Sequence[Result]) -> str:
    """A row for each workload, library and number of threads."""
    return markdown(
        "workload, shape, threads:, library, ms:, GFLOP/s:, of limit:, times ours (quartiles):, error:",
        (
            (
                title(r), r.workload.shape, str(r.threads), r.peer, f"{r.seconds * 1e3:.3g}",
                f"{r.workload.flops / r.seconds / 1e9:.3g}", f"{100 * r.of_limit:.0f} %",
                "1" if r.peer == "fusedrnn" else f"{r.ratio:.2f} ({r.ratio_low:.2f}-{r.ratio_high:.2f})",
                f"{r.error:.1e}",
            )
            for r in results
        ),
    )  # fmt: skip


def best_peers(results: Sequence[Result]) -> list[Result]:
    """The fastest of the others on every workload and number of threads."""
    best: dict[tuple[str, str, int], Result] = {}
    for r in results:
        key = (title(r), r.workload.shape, r.threads)
        if r.peer not in OWN and (key not in best or r.ratio < best[key].ratio):
            best[key] = r
    return list(best.values())


def summary(results: Sequence[Result]) -> str:
    """Geometric means of the best peer's ratio by mode, and where a peer is ahead, with the share of the limit that
    ours reaches there."""
    best = best_peers(results)
    lines = []
    for mode in dict.fromkeys(r.workload.mode for r in best):
        ratios = [r.ratio for r in best if r.workload.mode == mode]
        mean = statistics.geometric_mean(ratios)
        lines.append(f"{mode}: the best of the others takes {mean:.2f} times as long, over {len(ratios)} rows")
    for r in best:
        if r.ratio < 1:
            (ours,) = (o for o in results if (o.workload, o.threads, o.peer) == (r.workload, r.threads, "fusedrnn"))
            lines.append(
                f"behind: {title(r)} {r.workload.shape}, {r.threads} threads: {r.peer} {r.ratio:.2f}; "
                f"ours reaches {100 * ours.of_limit:.0f} % of the limit"
            )
    return "\n".join(lines)


def write_json(path: Path, about: str, **figures: Any) -> None:
    """Everything that was measured, for machines."""
    path.write_text(json.dumps({"about": about, **figures}, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def bars(
    path: Path, groups: Sequence[str], series: Mapping[str, Mapping[str, float]], label: str, scale: str = "log"
) -> None:
    """A PNG of horizontal bars, a group for each of ``groups``, that reach to ``series[name][group]``: from 1 on a
    ``scale`` "log", which shows ratios either way alike, or from 0 on a "linear" one. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure(figsize=(8, 1 + 0.22 * len(groups) * (1 + len(series)) / 1.5), layout="constrained")
    axis = figure.subplots()
    height, start = 0.8 / max(1, len(series)), 1 if scale == "log" else 0
    for index, (name, lengths) in enumerate(series.items()):
        places = [(groups.index(group), length) for group, length in lengths.items()]
        axis.barh(
            [place + (index - (len(series) - 1) / 2) * height for place, _ in places],
            [length - start for _, length in places], height, left=start, color=COLOURS.get(name), label=name,
        )  # fmt: skip
    axis.axvline(1, color="black", linewidth=1)
    axis.set(xscale=scale, xlabel=label, yticks=range(len(groups)), yticklabels=groups)
    if scale == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.minorticks_off()
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")
    if series:
        axis.legend()
    figure.savefig(path, dpi=110)


def draw(path: Path, results: Sequence[Result], shapes: bool = False) -> None:
    """How many times as long as ours each library takes, a group for each workload; named by their shapes if asked."""

    def group(r: Result) -> str:
        name = f"{r.workload.shape} {r.workload.cell} {r.workload.mode}" if shapes else title(r)
        return f"{name}, {r.threads} thread{'s' * (r.threads > 1)}"

    groups = list(dict.fromkeys(group(r) for r in results))
    peers = [p for p in DISTRIBUTIONS if any(r.peer == p for r in results)]
    series = {peer: {group(r): r.ratio for r in results if r.peer == peer} for peer in peers}
    bars(path, groups, series, "times as long as fusedrnn")
