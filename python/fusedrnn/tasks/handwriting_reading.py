"""Reading words back: which letters of the font the strokes of each character look like. No network takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.script_font import Glyph
from fusedrnn.data.strokes import as_strokes
from fusedrnn.tasks.handwriting_writing import Writing

_POINTS = 24  # that a character is compared by
_SLANTS, _SIZES = np.linspace(-0.4, 0.6, 11), (0.85, 1.0, 1.15)


class Reader:
    """Compare paths with the glyphs of a font in many slants and sizes, by dynamic time warping.

    Args:
        glyphs: By character; those of ``alphabet`` are known to the reader. scale: Units of the font in one of the
            paths'.
    """

    def __init__(self, glyphs: Mapping[str, Glyph], alphabet: str, scale: float) -> None:
        self.alphabet = alphabet
        styles = [np.array([[size, 0.0], [-slant * size, size]]) / scale for slant in _SLANTS for size in _SIZES]
        self.shapes = np.array(
            [[_shape(np.concatenate(glyphs[c].strokes) @ style) for style in styles] for c in alphabet]
        )  # [characters, styles, points, 2]

    def read(self, cuts: Sequence[Sequence[Array]]) -> str:
        """Return the characters that the paths of a word look like most, one for each.

        All are read in the one style that fits best, and in the cut that fits best.

        Args:
            cuts: The word as paths [n, 2] of its characters, cut in one way or another.
        """
        found = []
        for paths in cuts:
            costs = np.array([_warped(_shape(path), self.shapes) for path in paths])  # [paths, characters, styles]
            of_style = costs.min(axis=1).sum(axis=0)
            style = of_style.argmin()
            found.append((of_style[style], costs[:, :, style].argmin(axis=1)))
        _, best = min(found, key=lambda pair: float(pair[0]))
        return "".join(self.alphabet[i] for i in best)


def cuts_of(writing: Writing, characters: int) -> list[list[Array]]:
    """Cut what was written into the paths [n, 2] of its characters, where the window goes on to the next.

    The window is at the next character a little before the pen is: the cuts are up to three points later.
    """
    place = np.maximum.accumulate(np.argmax(writing.window, axis=1)).clip(max=characters - 1)
    points = np.concatenate(as_strokes(writing.offsets))[1:]
    cuts = []
    for late in range(4):
        places = np.concatenate([np.zeros(late, int), place])[: len(points)]
        paths = [points[places == u] for u in range(characters)]
        cuts.append([path if len(path) > 1 else np.zeros((2, 2)) for path in paths])
    return cuts


def _shape(path: Array) -> Array:
    """Return points [24, 2] at equal distances along a path, its middle at the origin."""
    steps = np.hypot(*np.diff(path, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    places = np.linspace(0, along[-1], _POINTS)
    whole = np.stack([np.interp(places, along, axis) for axis in path.T], axis=1)
    shape: Array = whole - whole.mean(0)
    return shape


def _warped(path: Array, others: Array) -> Array:
    """Return the costs of the best ways along a path [n, 2] and each of others [..., m, 2] (dynamic time warping, Sakoe
    and Chiba 1978): [...]."""
    distance = np.square(path[:, None] - others[..., None, :, :]).sum(-1)  # [..., n, m]
    best = np.full((*others.shape[:-2], others.shape[-2] + 1), np.inf)
    best[..., 0] = 0
    for i in range(len(path)):
        after = np.full_like(best, np.inf)
        for j in range(others.shape[-2]):
            before = np.minimum(np.minimum(best[..., j], best[..., j + 1]), after[..., j])
            after[..., j + 1] = distance[..., i, j] + before
        best = after
    return np.asarray(best[..., -1])
