"""Pictures of sequence to sequence: where a decoder looked while it wrote, and how well it does over training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.plots.pictures import new_figure, save_figure

_COLOURS = ("#2a7f62", "#2b5c9e", "#c8372d", "#777777")
_LEAST = 0.15  # a weight that is told in words
_SHOWN = 12  # characters of a piece


class Translation(NamedTuple):
    """A source's pieces [S], the pieces written, the last one the end [L + 1], their text, and the weights of
    attention [L + 1, S], None without attention."""

    source: list[str]
    written: list[str]
    text: str
    weights: Array | None


def draw_attention(path: Path, translations: Sequence[tuple[str, Translation]], title: str) -> None:
    """Draw for each translation, below its own title, how much of its attention each piece written gave to each piece
    of the source: the darker the more."""
    columns = min(3, len(translations))
    rows = -(-len(translations) // columns)
    wide = max(len(t.source) for _, t in translations)
    high = max(len(t.written) for _, t in translations)
    figure = new_figure(columns * (1.6 + 0.24 * max(wide, 8)), rows * (1.5 + 0.22 * max(high, 6)))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(translations) :]:
        panel.set_axis_off()
    for panel, (name, t) in zip(panels, translations, strict=False):
        _attention(panel, t)
        panel.set_title(name, fontsize=9, parse_math=False)
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, path)


def _attention(panel: Any, t: Translation) -> None:
    weights = np.zeros((len(t.written), len(t.source))) if t.weights is None else t.weights
    panel.imshow(weights, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    _name(panel.set_xticks, t.source, rotation=90)
    _name(panel.set_yticks, t.written)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)


def _name(set_ticks: Any, pieces: Sequence[str], rotation: int = 0) -> None:
    """Write pieces at an axis; a space at the beginning, which begins a word, is drawn as such."""
    labels = [piece.replace(" ", "\u2581")[:_SHOWN] for piece in pieces]
    set_ticks(range(len(pieces)), labels, rotation=rotation, fontsize=8, family="DejaVu Sans", parse_math=False)


def lines_of(t: Translation) -> Iterator[str]:
    """Yield for each piece written the pieces of the source that had most of its attention, with their weights."""
    if t.weights is None:
        return
    width = max(len(piece) for piece in t.written)
    for piece, weights in zip(t.written, t.weights, strict=True):
        most = [int(i) for i in np.argsort(-weights, kind="stable")[:3] if weights[i] >= _LEAST]
        seen = ", ".join(f"{t.source[i].strip() or '(space)'} {weights[i]:.2f}" for i in most)
        yield f"  {piece:{width}}  <- {seen or '(no piece in particular)'}"


def draw_translations(
    path: Path,
    translations: Sequence[tuple[str, Translation]],
    history: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    levels: Mapping[str, float],
    title: str,
) -> None:
    """Draw attention and, in the last panel, metrics of the records over updates.

    Args:
        translations: With their titles; at most five. names: The metrics' legends. levels: Baselines by their legends,
            horizontal lines.
    """
    wide = max(len(t.source) for _, t in translations)
    high = max(len(t.written) for _, t in translations)
    rows = 1 if len(translations) < 3 else 2
    columns = -(-(len(translations) + 1) // rows)
    figure = new_figure(columns * (1.4 + 0.2 * max(wide, 10)), rows * (1.5 + 0.19 * max(high, 8)))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, t) in zip(panels, translations, strict=False):
        _attention(panel, t)
        panel.set_title(name, fontsize=8, parse_math=False)
    curve = panels[len(translations)]
    for (metric, legend), colour in zip(names.items(), _COLOURS, strict=False):
        points = [(record["step"], record[metric]) for record in history if metric in record]
        if points:
            curve.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=legend)
    for (legend, level), style in zip(levels.items(), ("--", ":"), strict=False):
        curve.axhline(level, color=_COLOURS[-1], linestyle=style, label=legend)
    curve.set(xlabel="updates")
    curve.grid(alpha=0.3)
    curve.legend(fontsize=7)
    for panel in panels[len(translations) + 1 :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, path)
