"""Drawings of a pen: strokes as points, and as the offsets that a network reads and writes.

A stroke is an array [n, 2] of x (to the right) and y (downwards), as SVG has them. Offsets [T, 3] are dx, dy and 1
where the pen is lifted after the point; the first is that from where the pen starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array


class Drawing(NamedTuple):
    """Offsets [T, 3] float32, and the text that they write; "" where there is none."""

    offsets: Array
    text: str


def resampled(stroke: Array, spacing: float) -> Array:
    """Return points [n, 2] along a stroke at equal distances of about ``spacing``, its ends among them."""
    steps = np.hypot(*np.diff(stroke, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(1, round(float(along[-1]) / spacing))
    places = np.linspace(0, along[-1], count + 1)
    return np.stack([np.interp(places, along, axis) for axis in stroke.T], axis=1)


def as_offsets(strokes: Sequence[Array]) -> Array:
    """Return offsets [T, 3] float32 of strokes, from their first point, which is left out."""
    points = np.concatenate(strokes)
    lifted = np.zeros(len(points))
    lifted[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    return np.column_stack([np.diff(points, axis=0), lifted[1:]]).astype(np.float32)


def as_strokes(offsets: Array) -> list[Array]:
    """Return the strokes [n, 2] of offsets [T, 3], from the origin, which is the first point."""
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(offsets[:, :2], axis=0, dtype=np.float64)])
    ends = np.flatnonzero(offsets[:, 2] > 0.5) + 2
    return [stroke for stroke in np.split(points, ends) if len(stroke)]


def scale_of(drawings: Sequence[Drawing]) -> float:
    """Return the root mean square distance between neighbouring points: the unit of what a network sees."""
    squares = np.concatenate([np.square(d.offsets[:, :2].astype(np.float64)).sum(1) for d in drawings])
    return float(np.sqrt(squares.mean()))


def scaled(drawings: Sequence[Drawing], scale: float) -> list[Drawing]:
    """Divide the offsets of drawings by a scale, and leave the pen alone."""
    factors = np.array([1 / scale, 1 / scale, 1], np.float32)
    return [Drawing(d.offsets * factors, d.text) for d in drawings]
