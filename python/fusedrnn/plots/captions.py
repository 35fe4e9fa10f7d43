"""Pictures of captions: what a network wrote below a picture, and which rows and columns it looked at for each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.plots.pictures import new_figure, save_figure

_RIGHT, _WRONG, _SEEN = "#2a7f62", "#c8372d", "#2b5c9e"
_VEIL = 0.85  # how much of a picture is hidden where nothing was looked at
_INCHES = 1.05  # of a panel
_WIDTH = 8  # inches at least, as titles need
_LEAST = 0.15  # a weight that is told in words


class Captioned(NamedTuple):
    """A picture and its caption.

    Attributes:
        picture: [rows, columns, channels] uint8. words: What was written, the last one the end, [L + 1].
        weights: Of attention, [L + 1, rows + columns], None without. truth: The right caption, None where unknown.
    """

    picture: Array
    words: list[str]
    weights: Array | None
    truth: str | None = None

    @property
    def text(self) -> str:
        """Return the caption."""
        return " ".join(self.words[:-1])

    def margins(self, word: int) -> tuple[Array, Array]:
        """Return the weights of the rows and of the columns for a word, together 1; zeros without attention."""
        rows, columns = self.picture.shape[:2]
        weights = np.zeros(rows + columns) if self.weights is None else self.weights[word]
        return weights[:rows], weights[rows:]


def draw_captions(path: Path, shown: Sequence[Captioned], title: str) -> None:
    """Draw a row for each caption: the picture, then for each word where attention was. Wrong captions are red."""
    most = max(len(each.words) for each in shown)
    figure = new_figure(max(_WIDTH, _INCHES * (most + 2)), (_INCHES + 0.35) * len(shown) + 0.4)
    rows = figure.subplots(len(shown), most + 1, squeeze=False, width_ratios=[2.0] + [1.0] * most)
    for panels, each in zip(rows, shown, strict=True):
        _draw_picture(panels[0], each)
        _draw_words(panels[1:], each)
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, path)


def draw_caption(path: Path, each: Captioned, title: str) -> None:
    """Draw one picture, its caption below it, and beside it the attention of every word, six in a row."""
    across = min(6, len(each.words))
    down = -(-len(each.words) // across)
    figure = new_figure(1.6 * (across + 2), max(3.2, 1.9 * down) + 0.4)
    halves: Any = figure.subfigures(1, 2, width_ratios=[2, across])
    left, right = halves
    _draw_picture(left.subplots(), each, 10)
    _draw_words(right.subplots(down, across, squeeze=False).ravel(), each)
    figure.suptitle(title, fontsize=10, parse_math=False)
    save_figure(figure, path)


def _draw_picture(panel: Any, each: Captioned, fontsize: int = 7) -> None:
    panel.imshow(_as_colours(each.picture))
    wrong = each.truth is not None and each.truth != each.text
    lines = [_wrapped(each.text)] + ([f"not: {_wrapped(each.truth or '')}"] if wrong else [])
    panel.set_xlabel("\n".join(lines), fontsize=fontsize, color=_WRONG if wrong else _RIGHT)
    panel.set(xticks=[], yticks=[])


def _draw_words(panels: Sequence[Any], each: Captioned) -> None:
    """Veil the picture for each word but where rows and columns cross that were looked at; bars have the weights."""
    for panel in panels:
        panel.set_axis_off()
    colours = _as_colours(each.picture).astype(np.float64) / 255
    height, width = colours.shape[:2]
    for word, panel in zip(range(len(each.words)), panels, strict=False):
        rows, columns = each.margins(word)
        looked = rows[:, None] + columns[None, :]
        veil = _VEIL * (1 - looked / max(looked.max(), 1e-9))[..., None]
        panel.imshow(colours * (1 - veil) + 0.5 * veil, extent=(0, width, height, 0))
        reach = 0.3 * height
        panel.barh(np.arange(height) + 0.5, -reach * rows, height=1.0, left=-0.5, color=_SEEN)
        panel.bar(np.arange(width) + 0.5, -reach * columns, width=1.0, bottom=-0.5, color=_SEEN)
        panel.set(xlim=(-0.5 - reach, width), ylim=(height, -0.5 - reach))
        panel.set_title(each.words[word], fontsize=8, pad=1)


def _as_colours(picture: Array) -> Array:
    """Return [rows, columns, 3] of a picture with one or three channels."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _wrapped(text: str, width: int = 26) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def lines_of(each: Captioned) -> Iterator[str]:
    """Yield for each word the rows and columns that had most of its attention, with their weights."""
    if each.weights is None:
        return
    longest = max(map(len, each.words))
    for word, name in enumerate(each.words):
        parts = [
            f"{line} {int(i)} {weights[i]:.2f}"
            for line, weights in zip(("row", "column"), each.margins(word), strict=True)
            for i in np.argsort(-weights, kind="stable")[:2]
            if weights[i] >= _LEAST
        ]
        yield f"  {name:{longest}}  <- {', '.join(parts) or '(no line in particular)'}"
