"""Drawn characters of KanjiVG: strokes in the order of writing, as their author drew them (Ulrich Apel, CC BY-SA 3.0).

They are fetched with the package kanjivg, of which nothing is run: 6,703 kanji, kana, Latin letters and digits as
Bezier curves in a square of 109 units.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sources
from fusedrnn.data.reading import members
from fusedrnn.data.strokes import Drawing, as_offsets, resampled

_PACKAGE = "kanjivg==20260714 --hash=sha256:5190e7ec4eb513dbe6865b2ed52c58287fc10ea514b9409e4cf66ce7db41644d"
_SHA256 = "6a82fd091fb192b60380156c686b348441f9f36aeaaaf3852b13fce56f7399fe"
_FILE = re.compile(r"kanji/([0-9a-f]{5})\.svg")  # others are variants
_STROKE = re.compile(rb'<path id="kvg:[^"]*-s\d+"[^>]*?\bd="([^"]+)"')
_CURVE = np.linspace(0, 1, 13)[1:, None]  # where a Bezier curve is followed, of its whole


def load_kanji(say: Callable[[str], None], spacing: float = 8.0) -> list[Drawing]:
    """Return all characters by code point, points so many units apart; fetched if need be. Raises DataError."""

    def strokes(wheel: bytes) -> bytes:
        files = members(wheel, "KanjiVG")
        names = sorted(name for name in files if _FILE.fullmatch(name))
        return b"\n".join(b"\t".join([name[6:11].encode(), *_STROKE.findall(files[name])]) for name in names)

    path = sources.cache_folder() / "kanjivg" / "strokes.txt"
    content = sources.fetched(path, _SHA256, _PACKAGE, strokes, "the strokes of KanjiVG (22.6 MB)", say)
    found = []
    for line in content.decode().splitlines():
        code, *paths = line.split("\t")
        found.append(Drawing(as_offsets([resampled(read_path(p), spacing) for p in paths]), chr(int(code, 16))))
    return found


def read_path(path: str) -> Array:
    """Return points [n, 2] along a path of SVG that has M, m, C, c, S and s alone: moves and cubic Bezier curves.

    Raises:
        ValueError: Another command.
    """
    points: list[Array] = []
    here = control = np.zeros(2)
    for letter, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        values = np.array(re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers), float).reshape(-1, 2)
        size = {"m": 1, "c": 3, "s": 2}.get(letter.lower())
        if size is None or len(values) % size or not len(values):
            raise ValueError(f"path: expected M, C and S with their points, got {letter}{numbers}")
        for part in values.reshape(-1, size, 2):
            to = part + (here if letter.islower() else 0)
            if size == 1:
                points.append(to)
            else:
                begin = to[0] if size == 3 else 2 * here - control  # S: the last curve's control, mirrored
                control, end = to[-2], to[-1]
                t = _CURVE
                curve = (1 - t) ** 3 * here + 3 * (1 - t) ** 2 * t * begin + 3 * (1 - t) * t**2 * control + t**3 * end
                points.append(curve)
            here = to[-1]
            control = here if size == 1 else control
    return np.concatenate(points)
