"""Reading words back: which letters of the font the strokes of each character look like. No network takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusedrnn.gradients import Array
from fusedrnn.script_font import Glyph
from fusedrnn.strokes import as_strokes, resampled
from fusedrnn.tasks.handwriting_writing import Writing

_POINTS = 24  # that a character is compared by
_SLANTS = np.linspace(-0.4, 0.6, 11)


class Reader:
    """Compare paths with the glyphs of a font in many slants, each of them centred and of one size.

    Args:
        glyphs: By character; those of ``alphabet`` are known to the reader.
    """

    def __init__(self, glyphs: Mapping[str, Glyph], alphabet: str) -> None:
        self.alphabet = alphabet
        shears = [np.array([[1.0, 0.0], [-slant, 1.0]]) for slant in _SLANTS]
        self.shapes = np.array(
            [[_shape(np.concatenate(glyphs[c].strokes) @ shear) for shear in shears] for c in alphabet]
        )  # [characters, slants, points, 2]

    def read(self, paths: Sequence[Array]) -> str:
        """Return the characters that paths [n, 2] look like most, one for each, all in the one slant that fits best."""
        costs = np.array([_warped(_shape(path), self.shapes) for path in paths])  # [paths, characters, slants]
        slant = costs.min(axis=1).sum(axis=0).argmin()
        return "".join(self.alphabet[i] for i in costs[:, :, slant].argmin(axis=1))


def paths_of(writing: Writing, characters: int) -> list[Array]:
    """Cut what was written into the path of each character [n, 2], where the window went on to the next."""
    place = np.maximum.accumulate(np.argmax(writing.window, axis=1)).clip(max=characters - 1)
    points = np.concatenate(as_strokes(writing.offsets))[1:]
    paths = [points[place == u] for u in range(characters)]
    return [path if len(path) > 1 else np.zeros((2, 2)) for path in paths]


def _shape(path: Array) -> Array:
    """Return points [24, 2] at equal distances along a path, centred, their mean square 1."""
    along = resampled(path, max(1e-9, float(np.hypot(*np.diff(path, axis=0).T).sum())) / (_POINTS - 1))
    whole = np.stack([np.interp(np.linspace(0, 1, _POINTS), np.linspace(0, 1, len(along)), a) for a in along.T], 1)
    whole -= whole.mean(0)
    shape: Array = whole / max(1e-9, float(np.sqrt(np.square(whole).sum(1).mean())))
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
