"""Convex polygons as data, and what can be said of any polygon.

Polygons are vertices [N, V, 2], each row's own ones first, and how many those are, n [N].
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array

FEWEST, MOST = 3, 8
LEAST_GAP, LARGEST_GAP = 0.25, 0.95 * np.pi


def polygons(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Vertices [N, 8, 2] float32, zero past a polygon's own, and how many it has, [N], from 3 to 8."""
    n = rng.integers(FEWEST, MOST + 1, count)
    gaps = np.empty((count, MOST))
    left = np.arange(count)
    while left.size:  # uniform angles, given the least gap, have exponential gaps; those with too large a one again
        gaps[left] = rng.standard_exponential((left.size, MOST)) * (np.arange(MOST) < n[left, None])
        gaps[left] *= (2 * np.pi - LEAST_GAP * n[left, None]) / gaps[left].sum(1, keepdims=True)
        left = left[gaps[left].max(1) + LEAST_GAP >= LARGEST_GAP]
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + (gaps + LEAST_GAP).cumsum(1)
    along, across = rng.uniform(0.4, 1, (2, count, 1))
    centre, turn = rng.uniform(-0.5, 0.5, (2, count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    u, v = along * np.cos(angle), across * np.sin(angle)
    x = centre[0] + np.cos(turn) * u - np.sin(turn) * v
    y = centre[1] + np.sin(turn) * u + np.cos(turn) * v
    vertices = np.stack([x, y], axis=2).astype(np.float32)
    return from_the_lowest(vertices, n), n


def from_the_lowest(vertices: Array, n: Array) -> Array:
    """Each polygon's vertices [N, V, 2] in their order, from its lowest one, of several lowest the leftmost."""
    step = np.arange(vertices.shape[1])
    own = step < n[:, None]
    y = np.where(own, vertices[:, :, 1], np.inf)
    x = np.where(y == y.min(1, keepdims=True), vertices[:, :, 0], np.inf)
    order = (x.argmin(1)[:, None] + step) % n[:, None]
    turned: Array = np.take_along_axis(vertices, order[:, :, None], 1) * own[:, :, None].astype(vertices.dtype)
    return turned


def in_a_symmetry(vertices: Array, n: Array, rng: np.random.Generator) -> Array:
    """Each polygon in one of the eight symmetries of the square around the origin, drawn by ``rng``: all of them are as
    likely as the polygon itself."""
    step = np.arange(vertices.shape[1])
    mirror = rng.random((len(n), 1)) < 0.5
    order = np.where(mirror, n[:, None] - 1 - step, step) % n[:, None]  # a mirror image goes round the other way
    place = np.take_along_axis(vertices, order[:, :, None], 1)
    z = (np.where(mirror, -place[:, :, 0], place[:, :, 0]) + 1j * place[:, :, 1]).astype(np.complex64)
    z *= np.array([1, 1j, -1, -1j], np.complex64)[rng.integers(0, 4, (len(n), 1))]
    return from_the_lowest(np.stack([z.real, z.imag], axis=2), n)


def edges(vertices: Array, n: Array) -> tuple[Array, Array]:
    """From each vertex to the next of its polygon, the last to the first, [N, V, 2]; which of them exist, [N, V]."""
    step = np.arange(vertices.shape[1])
    following = np.where(step + 1 < n[:, None], step + 1, 0)
    own = step < n[:, None]
    return (np.take_along_axis(vertices, following[:, :, None], 1) - vertices) * own[:, :, None], own


def is_convex(vertices: Array, n: Array) -> Array:
    """Which of the polygons [N, V, 2] of n vertices each are strictly convex, simple and counter-clockwise, [N].

    Every corner turns left, and all of them together once around: a star's corners turn left too, but twice around.
    """
    edge, own = edges(vertices.astype(np.float64), n)
    step = np.arange(vertices.shape[1])
    before = np.where(step > 0, step - 1, np.maximum(n[:, None] - 1, 0))
    came = np.take_along_axis(edge, before[:, :, None], 1)
    cross = came[:, :, 0] * edge[:, :, 1] - came[:, :, 1] * edge[:, :, 0]
    turn = np.where(own, np.arctan2(cross, (came * edge).sum(2)), 0).sum(1)
    convex: Array = (n >= 3) & (np.where(own, cross, 1) > 0).all(1) & (turn < 3 * np.pi)
    return convex


def areas(vertices: Array, n: Array) -> Array:
    """Signed areas [N]."""
    edge, own = edges(vertices, n)
    area: Array = np.where(own, vertices[:, :, 0] * edge[:, :, 1] - vertices[:, :, 1] * edge[:, :, 0], 0).sum(1) / 2
    return area


def centroid_deviation(vertices: Array, n: Array) -> float:
    """Root of the mean variance of the means of vertices, over both axes."""
    own = np.arange(vertices.shape[1]) < n[:, None]
    centroid = (vertices * own[:, :, None]).sum(1) / np.maximum(n, 1)[:, None]
    return float(np.sqrt(centroid.var(0).mean()))
