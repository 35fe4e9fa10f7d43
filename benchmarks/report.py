"""What the measurements say: Markdown, JSON, and bars."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import fusedrnn
from benchmarks.limits import Limits
from benchmarks.timing import Result

DISTRIBUTIONS = {"pytorch": "torch", "onnxruntime": "onnxruntime", "jax": "jax", "numpy": "numpy"}
_COLOURS = {"pytorch": "#c8372d", "onnxruntime": "#2b5c9e", "jax": "#b8860b", "numpy": "#777777"}


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


def table(results: Sequence[Result]) -> str:
    """Markdown: a row for each workload, library and number of threads."""
    lines = [
        "| workload | shape | threads | library | ms | GFLOP/s | of limit | times ours (quartiles) | error |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        ratio = "1" if r.peer == "fusedrnn" else f"{r.ratio:.2f} ({r.ratio_low:.2f}-{r.ratio_high:.2f})"
        lines.append(
            f"| {title(r)} | {r.workload.shape} | {r.threads} | {r.peer} | {r.seconds * 1e3:.3g} | "
            f"{r.workload.flops / r.seconds / 1e9:.3g} | {100 * r.of_limit:.0f} % | {ratio} | {r.error:.1e} |"
        )
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """Geometric means of the best peer's ratio by mode, and where a peer is ahead."""
    best: dict[tuple[str, int], Result] = {}
    for r in results:
        key = (title(r), r.threads)
        if r.peer != "fusedrnn" and (key not in best or r.ratio < best[key].ratio):
            best[key] = r
    lines = []
    for mode in dict.fromkeys(r.workload.mode for r in best.values()):
        ratios = [r.ratio for r in best.values() if r.workload.mode == mode]
        mean = statistics.geometric_mean(ratios)
        lines.append(f"{mode}: the best of the others takes {mean:.2f} times as long, over {len(ratios)} rows")
    lines += [f"behind: {title(r)}, {r.threads} threads: {r.peer} {r.ratio:.2f}" for r in best.values() if r.ratio < 1]
    return "\n".join(lines)


def write_json(path: Path, about: str, limits: Sequence[Limits], results: Sequence[Result]) -> None:
    """Everything that was measured, for machines."""
    content = {"about": about, "limits": [asdict(x) for x in limits], "results": [asdict(r) for r in results]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def draw(path: Path, results: Sequence[Result]) -> None:
    """Bars: how many times as long as ours each library takes, a group for each workload. Needs matplotlib."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((title(r), r.threads) for r in results))
    peers = [p for p in DISTRIBUTIONS if any(r.peer == p for r in results)]
    figure = Figure(figsize=(8, 1 + 0.22 * len(groups) * (1 + len(peers)) / 1.5), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / max(1, len(peers))
    for index, peer in enumerate(peers):
        places = [(groups.index((title(r), r.threads)), r.ratio) for r in results if r.peer == peer]
        axis.barh(
            [place + (index - (len(peers) - 1) / 2) * height for place, _ in places],
            [ratio for _, ratio in places], height, color=_COLOURS[peer], label=peer,
        )  # fmt: skip
    axis.axvline(1, color="black", linewidth=1)
    labels = [f"{name}, {threads} thread{'s' * (threads > 1)}" for name, threads in groups]
    axis.set(xscale="log", xlabel="times as long as fusedrnn", yticks=range(len(groups)), yticklabels=labels)
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")
    axis.legend()
    figure.savefig(path, dpi=110)
