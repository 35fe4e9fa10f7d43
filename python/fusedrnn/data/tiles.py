"""Canvases of real tiles: two to four images of Fashion-MNIST or MNIST, and the one caption that is true of them.

Two groups, each of one or two tiles of the same class, on a canvas of two by two fields. "a boot to the left of two
shirts": the first group has the left column and the second the right one; "above": rows instead. The left or upper
group comes first and the classes differ, so that each canvas has one caption.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.sources import Bytes

CLASSES = 10
TILE = 14  # pixels: images of 28 at half their size
FIELD = 16
SIDE = 2 * FIELD
MOST = 2  # tiles of a group
FASHION = (
    ("top", "tops"),
    ("pair of trousers", "pairs of trousers"),
    ("pullover", "pullovers"),
    ("dress", "dresses"),
    ("coat", "coats"),
    ("sandal", "sandals"),
    ("shirt", "shirts"),
    ("sneaker", "sneakers"),
    ("bag", "bags"),
    ("boot", "boots"),
)
DIGITS = tuple(
    (digit, digit + ("es" if digit == "six" else "s"))
    for digit in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
)
RELATIONS = ("to the left of", "above")


class Layouts(NamedTuple):
    """What is on n canvases: classes [n, 2] of the groups, how many tiles each has [n, 2], 1 or 2, relations [n] by
    number, and places [n, 2, 2, 2]: the upper left corners (down, right) of each group's tiles, in pixels; a group of
    one tile has it twice."""

    classes: Array
    counts: Array
    relations: Array
    places: Array

    def pairs(self) -> Array:
        """Return the number of each ordered pair of classes, [n], below 100."""
        paired: Array = self.classes[:, 0] * CLASSES + self.classes[:, 1]
        return paired

    def captions(self, names: tuple[tuple[str, str], ...]) -> list[str]:
        """Return the caption of each, with the classes' names for one and for several."""

        def told(kind: int, count: int) -> str:
            one, several = names[kind]
            return f"two {several}" if count == MOST else f"an {one}" if one == "eight" else f"a {one}"

        return [
            f"{told(*first)} {RELATIONS[relation]} {told(*second)}"
            for first, second, relation in zip(
                zip(self.classes[:, 0], self.counts[:, 0], strict=True),
                zip(self.classes[:, 1], self.counts[:, 1], strict=True),
                self.relations,
                strict=True,
            )
        ]


def draw_layouts(rng: np.random.Generator, count: int, pairs: Array) -> Layouts:
    """Draw so many layouts, whose pairs of classes are among ``pairs`` [n], each as likely; counts and relations too.

    Groups of one tile each lie in the same row (to the left of) or column (above). Each tile is up to two pixels off
    its field's corner, down and right.
    """
    pair = pairs[rng.integers(len(pairs), size=count)]
    counts, relations = rng.integers(1, MOST + 1, (count, 2)), rng.integers(2, size=count)
    across = rng.integers(2, size=(count, 2))  # where a group of one is across the relation
    across[:, 1] = np.where((counts == 1).all(axis=1), across[:, 0], across[:, 1])
    fields = np.empty((count, 2, MOST, 2), np.int64)  # along the relation, across it
    fields[..., 0] = np.arange(2)[:, None]
    fields[..., 1] = np.where((counts == MOST)[..., None], np.arange(MOST), across[..., None])
    left = relations == 0
    fields[left] = fields[left][..., ::-1]  # (down, right): along is right
    offset = rng.integers(FIELD - TILE + 1, size=fields.shape)
    places = FIELD * fields + offset
    places[counts == 1, 1] = places[counts == 1, 0]
    return Layouts(np.stack([pair // CLASSES, pair % CLASSES], 1), counts, relations, places)


def halved(images: Bytes) -> Bytes:
    """Return images [n, 28, 28] at half their size, uint8 [n, 14, 14]: each pixel is the mean of four."""
    parts = images.reshape(len(images), TILE, 2, TILE, 2).astype(np.float64)
    halves: Bytes = np.rint(parts.mean(axis=(2, 4))).astype(np.uint8)
    return halves


def painted(layouts: Layouts, images: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
    """Paint layouts with images [m, 14, 14] of their classes, drawn among those with the label: uint8 [n, 32, 32, 1].

    Images have their ink bright; the canvas is white paper. Every class must be among the labels [m].
    """
    of_class = [np.flatnonzero(labels == kind) for kind in range(CLASSES)]
    canvases = np.full((len(layouts.counts), SIDE, SIDE, 1), 255, np.uint8)
    drawn = rng.random((len(canvases), 2, MOST))
    for canvas, kinds, counts, places, at in zip(
        canvases, layouts.classes, layouts.counts, layouts.places, drawn, strict=True
    ):
        for kind, count, corners, chances in zip(kinds, counts, places, at, strict=True):
            for (down, right), chance in zip(corners[:count], chances, strict=False):
                image = images[of_class[kind][int(chance * len(of_class[kind]))]]
                canvas[down : down + TILE, right : right + TILE, 0] = 255 - image
    return canvases


def split_pairs(rng: np.random.Generator, held: int = 9) -> tuple[Array, Array]:
    """Split the 90 ordered pairs of different classes, by their numbers: those seen in training, and so many that are
    not. Every class is among the seen as the first and as the second."""
    pairs = np.array([a * CLASSES + b for a in range(CLASSES) for b in range(CLASSES) if a != b])
    while True:
        order = rng.permutation(pairs)
        seen = np.sort(order[held:])
        if len(np.unique(seen // CLASSES)) == len(np.unique(seen % CLASSES)) == CLASSES:
            return seen, np.sort(order[:held])
