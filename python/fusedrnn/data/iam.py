"""Lines of handwriting as the IAM On-Line Handwriting Database (IAM-OnDB) has them in its files.

Liwicki and Bunke 2005. The database may be had after registration, and not be passed on: its users bring it. A folder
has ``lineStrokes/**/NAME-NN.xml`` with the pen's points, NN being the line, and ``ascii/**/NAME.txt`` with the text.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.reading import DataError, read_file
from fusedrnn.data.strokes import Drawing, as_offsets


def load_iam(folder: Path) -> list[Drawing]:
    """Return all lines that have strokes and a transcription, by name. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder, and not the word kanji")
    files = sorted((folder / "lineStrokes").rglob("*.xml"))
    if not files:
        raise DataError(f"--data {folder}: expected the files of IAM-OnDB, lineStrokes and ascii; has no lineStrokes")
    texts = {path.stem: _read_lines(path) for path in sorted((folder / "ascii").rglob("*.txt"))}
    found = []
    for path in files:
        name, _, line = path.stem.rpartition("-")
        lines = texts.get(name, [])
        if line.isdigit() and 1 <= int(line) <= len(lines):
            found.append(Drawing(_read_strokes(path), lines[int(line) - 1]))
    if not found:
        raise DataError(f"--data {folder}: has no line whose transcription is in ascii")
    return found


def _read_lines(path: Path) -> list[str]:
    """Return the lines behind "CSR:", which people corrected."""
    text = read_file(path).decode("utf-8", "replace")
    _, _, corrected = text.partition("CSR:")
    return [re.sub(r"\s+", " ", line).strip() for line in corrected.splitlines() if line.strip()]


def _read_strokes(path: Path) -> Array:
    try:
        tree = ElementTree.fromstring(read_file(path))
        strokes = [
            np.array([[float(point.attrib["x"]), float(point.attrib["y"])] for point in stroke.iter("Point")])
            for stroke in tree.iter("Stroke")
        ]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not the strokes of a line ({error})") from None
    strokes = [stroke for stroke in strokes if len(stroke)]
    if sum(map(len, strokes)) < 2:
        raise DataError(f"{path}: expected at least two points, got {sum(map(len, strokes))}")
    offsets = as_offsets(strokes)
    if not np.isfinite(offsets).all():
        raise DataError(f"{path}: expected finite points")
    return offsets
