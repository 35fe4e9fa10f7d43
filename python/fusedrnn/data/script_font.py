"""Cursive words, drawn with a font of single strokes: the script simplex of A. V. Hershey (1967), in the public domain.

The font is fetched with the package Hershey-Fonts, of which nothing is run. Each word has a slant, a size and a speed
of its own, and its points tremble: that is not handwriting, but what a pen would do.
"""

from __future__ import annotations

import base64
import bz2
import io
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sources
from fusedrnn.data.reading import DataError, members
from fusedrnn.data.strokes import Drawing, as_offsets, resampled

_PACKAGE = "Hershey-Fonts==2.1.0 --hash=sha256:e53ef56bdef231f10f0576a6570f49fcc8442e45115028bc52a7ade15d824581"
_MEMBER, _FONT = "HersheyFonts/HersheyFonts.py", "scripts"
_SHA256 = "573de96f7749d0b6417593a3fc211ce575d235f1238c8622b0ee22e33c2d02ce"
_TOUCHING = 2.5  # units of the font between two letters that the pen joins
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = " " + LETTERS + LETTERS.upper() + "0123456789.,!?'-"


class Glyph(NamedTuple):
    """A character of a font: where it begins and ends on the line, and its strokes [n, 2], y downwards."""

    left: float
    right: float
    strokes: list[Array]


class Style(NamedTuple):
    """How a text is written: size, slant (x for each y upwards), distance of points, and how much they tremble."""

    size: float
    slant: float
    spacing: float
    jitter: float


def load_font(say: Callable[[str], None]) -> dict[str, Glyph]:
    """Return the glyphs of `CHARACTERS`, from the cache folder or else fetched into it. Raises DataError."""

    def font(wheel: bytes) -> bytes:
        source = members(wheel, "Hershey-Fonts", [_MEMBER])[_MEMBER]
        packed = re.search(rb"base64 = B'''([A-Za-z0-9+/=\s]+)'''", source)
        if packed is None:
            raise DataError("Hershey-Fonts: has no fonts where they were")
        archive = bz2.decompress(base64.b64decode(packed.group(1)))
        with tarfile.open(fileobj=io.BytesIO(archive)) as fonts:
            member = fonts.extractfile(_FONT)
            return b"" if member is None else member.read()

    path = sources.cache_folder() / "hershey" / "scripts.jhf"
    content = sources.fetched(path, _SHA256, _PACKAGE, font, "a cursive font of single strokes (0.1 MB)", say)
    return read_font(content.decode())


def read_font(text: str) -> dict[str, Glyph]:
    """Read a font in Hershey's format, a glyph a line from the blank (32) on; lines that begin with # are comments.

    A line has five columns of a number, three with how many pairs follow, then pairs of letters that count from "R":
    left and right side, then x and y of points; " R" lifts the pen.
    """
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    glyphs = {}
    for code, line in enumerate(lines, 32):
        if (character := chr(code)) not in CHARACTERS:
            continue
        pairs = [line[8 + i : 10 + i] for i in range(0, len(line) - 9, 2)]
        strokes: list[list[tuple[int, int]]] = [[]]
        for pair in pairs[1:]:
            if pair == " R":
                strokes.append([])
            else:
                strokes[-1].append((ord(pair[0]) - ord("R"), ord(pair[1]) - ord("R")))
        left, right = (ord(letter) - ord("R") for letter in pairs[0])
        glyphs[character] = Glyph(left, right, [np.array(stroke, float) for stroke in strokes if len(stroke) > 1])
    return glyphs


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a style: sizes 0.85 to 1.15, slants -0.3 to 0.5, points 3.2 to 4.2 apart, which tremble by 0.12."""
    return Style(rng.uniform(0.85, 1.15), rng.uniform(-0.3, 0.5), rng.uniform(3.2, 4.2), 0.12)


def written(glyphs: Mapping[str, Glyph], text: str, style: Style, rng: np.random.Generator) -> Drawing:
    """Write a text in a style; letters that touch are joined. KeyError for a character without glyph."""
    strokes: list[Array] = []
    at = 0.0
    for character in text:
        glyph = glyphs[character]
        for stroke in glyph.strokes:
            placed = stroke + np.array([at - glyph.left, 0])
            if strokes and stroke is glyph.strokes[0] and np.hypot(*(placed[0] - strokes[-1][-1])) < _TOUCHING:
                strokes[-1] = np.concatenate([strokes[-1], placed])
            else:
                strokes.append(placed)
        at += glyph.right - glyph.left
    shear = np.array([[1.0, 0.0], [-style.slant, 1.0]])
    points = [resampled(stroke @ shear * style.size, style.spacing) for stroke in strokes]
    return Drawing(as_offsets([p + style.jitter * rng.standard_normal(p.shape) for p in points]), text)


def draw_text(rng: np.random.Generator, most: int) -> str:
    """Draw a text of at most so many characters: words of 3 to 6 letters, some with a capital, numbers, marks."""
    text = _draw_word(rng)
    while rng.random() < 0.5:
        longer = f"{text} {_draw_word(rng)}"
        if len(longer) > most:
            break
        text = longer
    return text + ("" if len(text) == most or rng.random() < 0.85 else rng.choice(list(".,!?")))


def _draw_word(rng: np.random.Generator) -> str:
    if rng.random() < 0.1:
        return "".join(rng.choice(list("0123456789"), rng.integers(1, 5)))
    word = "".join(rng.choice(list(LETTERS), rng.integers(3, 7)))
    if rng.random() < 0.2:
        word = word.capitalize()
    if rng.random() < 0.06:
        at = rng.integers(1, len(word))
        word = word[:at] + rng.choice(list("'-")) + word[at:]
    return word
