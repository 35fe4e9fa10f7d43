"""Pictures of handwriting: sheets of lines, the window over a text, and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fusedrnn.checkpoint import write_atomically
from fusedrnn.gradients import Array
from fusedrnn.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MARGIN = "#1b2a4a", 8.0


class Line(NamedTuple):
    """What stands beside a line, and its strokes [n, 2], y downwards."""

    label: str
    strokes: list[Array]


class Window(NamedTuple):
    """A text, the strokes that wrote it, and the window over it at each point, φ [T, U + 1]."""

    text: str
    strokes: list[Array]
    weights: Array


def draw_sheet(path: Path, lines: Sequence[Line], window: Window | None, title: str) -> None:
    """Draw lines under each other, all in one scale, and a window over time below them, as a PNG."""
    figure = new_figure(9, 0.6 * len(lines) + (3.2 if window is not None else 0.4))
    heights = [1.0] * len(lines) + ([4.0] if window is not None else [])
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    width = max(float(np.ptp(np.concatenate(line.strokes)[:, 0])) for line in lines)
    for axis, line in zip(axes, lines, strict=False):
        _draw_strokes(axis, line.strokes)
        left = float(np.concatenate(line.strokes)[:, 0].min())
        axis.set_xlim(left - 0.02 * width, left + 1.02 * width)
        axis.set_title(line.label, fontsize=8, loc="left", color="#777777", pad=1)
    if window is not None:
        _draw_window(axes[-1], window)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def draw_lines(path: Path, lines: Sequence[Sequence[Array]]) -> None:
    """Draw lines of strokes under each other, without anything beside them, as a PNG of their size."""
    placed = _under_each_other(lines)
    left, top, right, bottom = _bounds(placed)
    figure = new_figure(max(1.0, (right - left) / 14), max(0.5, (bottom - top) / 14))
    axis = figure.subplots()
    _draw_strokes(axis, placed)
    save_figure(figure, path)


def write_svg(path: Path, lines: Sequence[Sequence[Array]]) -> None:
    """Write lines of strokes under each other as an SVG, by rename. Raises OSError."""
    placed = _under_each_other(lines)
    left, top, right, bottom = _bounds(placed)
    width, height = right - left, bottom - top
    ways = [" L".join(f"{x - left:.2f},{y - top:.2f}" for x, y in stroke) for stroke in placed]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{4 * width:.0f}" height="{4 * height:.0f}" '
        f'viewBox="0 0 {width:.2f} {height:.2f}">',
        f'<g fill="none" stroke="{_INK}" stroke-width="0.4" stroke-linecap="round" stroke-linejoin="round">',
        *(f'<path d="M{way}"/>' for way in ways),
        "</g>",
        "</svg>",
    ]
    write_atomically(path, "".join(part + "\n" for part in parts).encode())


def _under_each_other(lines: Sequence[Sequence[Array]]) -> list[Array]:
    """Move lines so that each begins at the left, below the one before."""
    placed: list[Array] = []
    top = 0.0
    for strokes in lines:
        left, high, _, low = _bounds(strokes, 0)
        placed += [stroke - [left, high - top] for stroke in strokes]
        top += low - high + 2.5
    return placed


def _bounds(strokes: Sequence[Array], margin: float = _MARGIN / 4) -> tuple[float, float, float, float]:
    points = np.concatenate(strokes)
    (left, top), (right, bottom) = points.min(0) - margin, points.max(0) + margin
    return float(left), float(top), float(right), float(bottom)


def _draw_strokes(axis: Axes, strokes: Sequence[Array]) -> None:
    for stroke in strokes:
        axis.plot(*stroke.T, color=_INK, linewidth=1.1, solid_capstyle="round", solid_joinstyle="round")
    axis.set_aspect("equal", adjustable="datalim")
    axis.invert_yaxis()
    axis.axis("off")


def _draw_window(axis: Axes, window: Window) -> None:
    axis.imshow(window.weights.T, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    axis.set_yticks(range(len(window.text)), [c if c != " " else "␣" for c in window.text], fontsize=8)
    axis.set_xlabel("points")
    axis.set_title("the window over the text, point by point", fontsize=9)
