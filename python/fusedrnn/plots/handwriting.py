"""Pictures of handwriting: sheets of lines, the window over a text, and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.atomic import write_atomically
from fusedrnn.plots.pictures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MARGIN = "#1b2a4a", 2.0


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
    placed, tops = _under_each_other([line.strokes for line in lines], gap=4.0)
    left, top, right, bottom = _bounds(placed)
    height = 8.6 * (bottom - top) / (right - left)
    figure = new_figure(9, height + (3.4 if window is not None else 0.4))
    heights = [height] + ([3.0] if window is not None else [])
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_strokes(axes[0], placed)
    for line, at in zip(lines, tops, strict=True):
        axes[0].text(0, at - 0.7, line.label, fontsize=7, color="#777777", parse_math=False)
    if window is not None:
        _draw_window(axes[1], window)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def draw_lines(path: Path, lines: Sequence[Sequence[Array]]) -> None:
    """Draw lines of strokes under each other, without anything beside them, as a PNG of their size."""
    placed, _ = _under_each_other(lines)
    left, top, right, bottom = _bounds(placed)
    figure = new_figure(max(1.0, (right - left) / 14), max(0.5, (bottom - top) / 14))
    axis = figure.subplots()
    _draw_strokes(axis, placed)
    save_figure(figure, path)


def write_svg(path: Path, lines: Sequence[Sequence[Array]]) -> None:
    """Write lines of strokes under each other as an SVG, by rename. Raises OSError."""
    placed, _ = _under_each_other(lines)
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


def _under_each_other(lines: Sequence[Sequence[Array]], gap: float = 2.5) -> tuple[list[Array], list[float]]:
    """Move lines so that each begins at the left, below the one before; return their strokes, and where each begins."""
    placed: list[Array] = []
    tops = []
    top = 0.0
    for strokes in lines:
        left, high, _, low = _bounds(strokes, 0)
        placed += [stroke - [left, high - top] for stroke in strokes]
        tops.append(top)
        top += low - high + gap
    return placed, tops


def _bounds(strokes: Sequence[Array], margin: float = _MARGIN) -> tuple[float, float, float, float]:
    points = np.concatenate(strokes)
    (left, top), (right, bottom) = points.min(0) - margin, points.max(0) + margin
    return float(left), float(top), float(right), float(bottom)


def _draw_strokes(axis: Axes, strokes: Sequence[Array]) -> None:
    for stroke in strokes:
        axis.plot(*stroke.T, color=_INK, linewidth=1.1, solid_capstyle="round", solid_joinstyle="round")
    axis.set_aspect("equal")
    axis.invert_yaxis()
    axis.axis("off")


def _draw_window(axis: Axes, window: Window) -> None:
    axis.imshow(window.weights.T, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    axis.set_yticks(range(len(window.text)), [c if c != " " else "␣" for c in window.text], fontsize=8)
    axis.set_xlabel("points")
    axis.set_title("the window over the text, point by point", fontsize=9)
