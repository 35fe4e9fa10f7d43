"""Composed scenes: two coloured shapes on white paper, and the one caption that is true of them.

"a large red square above a small blue circle": the upper or the left one comes first, so that each picture has one
caption. Shapes are drawn by signed distances, wherever they lie between the pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array

SIDE = 16  # pixels
SHAPES = ("square", "circle", "triangle")
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (240, 200, 30)}
SIZES = {"small": (3.7, 4.3), "large": (6.6, 7.2)}  # pixels, from and to
RELATIONS = ("above", "left of")
NOISE = 0.05  # standard deviation, of values from 0 to 1
KINDS = len(COLOURS) * len(SHAPES)  # of objects, large or small
_PAPER = 255  # white
_SLOPE = np.float32(np.sqrt(5))
_BLOCK = 5000  # pictures painted at once
_APART = 1.0  # pixels by which the distance along the relation is larger than that across


class Scenes(NamedTuple):
    """What is in n pictures: kinds [n, 2], colour * 3 + shape, sizes [n, 2], relations [n]; all by number."""

    kinds: Array
    sizes: Array
    relations: Array

    def pairs(self) -> Array:
        """Return the number of each ordered pair of kinds, [n], below KINDS * KINDS."""
        paired: Array = self.kinds[:, 0] * KINDS + self.kinds[:, 1]
        return paired

    def captions(self) -> list[str]:
        """Return the caption of each."""
        colours, sizes = list(COLOURS), list(SIZES)

        def told(kind: int, size: int) -> str:
            return f"a {sizes[size]} {colours[kind // len(SHAPES)]} {SHAPES[kind % len(SHAPES)]}"

        return [
            f"{told(*first)} {RELATIONS[relation]} {told(*second)}"
            for first, second, relation in zip(
                zip(self.kinds[:, 0], self.sizes[:, 0], strict=True),
                zip(self.kinds[:, 1], self.sizes[:, 1], strict=True),
                self.relations,
                strict=True,
            )
        ]


def draw_scenes(rng: np.random.Generator, count: int, pairs: Array) -> tuple[Array, Scenes]:
    """Draw so many scenes, whose pairs of kinds are among ``pairs`` [n], each as likely; sizes and relations too.

    Returns:
        Pictures [count, 16, 16, 3], uint8, with noise, and what is in them.
    """
    pair = pairs[rng.integers(len(pairs), size=count)]
    scenes = Scenes(
        np.stack([pair // KINDS, pair % KINDS], 1), rng.integers(2, size=(count, 2)), rng.integers(2, size=count)
    )
    low, high = np.array(list(SIZES.values())).T
    extent = rng.uniform(low[scenes.sizes], high[scenes.sizes])
    centres = placed(rng, scenes.relations, extent)
    blocks = [slice(at, at + _BLOCK) for at in range(0, count, _BLOCK)]
    parts = [painted(Scenes(*(each[b] for each in scenes)), extent[b], centres[b], rng) for b in blocks]
    return np.concatenate(parts), scenes


def placed(rng: np.random.Generator, relations: Array, extent: Array) -> Array:
    """Draw centres [n, 2, 2] (object; down, right) of squares of an extent [n, 2] that fit the picture.

    The first is clear of the second along the relation [n], where their centres are further apart than across it.
    """
    centres = np.zeros((len(relations), 2, 2))
    left = np.arange(len(relations))
    while left.size:
        half = extent[left, :, None] / 2
        drawn = rng.uniform(half, SIDE - half, (left.size, 2, 2))
        along, across = drawn.copy(), drawn[:, :, ::-1]
        turned = relations[left] == 1
        along[turned], across = across[turned], np.where(turned[:, None, None], drawn, across)
        distance = along[:, 1, 0] - along[:, 0, 0]
        fits = distance >= np.maximum(half.sum(axis=(1, 2)), np.abs(across[:, 1, 0] - across[:, 0, 0]) + _APART)
        centres[left[fits]] = drawn[fits]
        left = left[~fits]
    return centres


def painted(scenes: Scenes, extent: Array, centres: Array, rng: np.random.Generator | None = None) -> Array:
    """Paint scenes, with noise where there is a generator: uint8 [n, 16, 16, 3]."""
    pixels = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    palette = np.array(list(COLOURS.values()), np.float32)
    pictures = np.full((len(extent), SIDE, SIDE, 3), _PAPER, np.float32)
    extent, centres = extent.astype(np.float32), centres.astype(np.float32)
    for each in range(2):
        kinds, half = scenes.kinds[:, each], extent[:, each, None, None] / 2
        down = pixels[None, :, None] - centres[:, each, 0, None, None]
        right = np.abs(pixels[None, None, :] - centres[:, each, 1, None, None])
        shape = (kinds % len(SHAPES))[:, None, None]
        distance = np.select(
            [shape == 0, shape == 1], [_of_square(down, right, half), _of_circle(down, right, half)],
            _of_triangle(down, right, half),
        )  # fmt: skip
        covered = np.clip(0.5 - distance, 0, 1)[..., None]
        colours = palette[kinds // len(SHAPES)][:, None, None]
        pictures += covered * (colours - pictures)
    if rng is not None:
        pictures += np.float32(NOISE * 255) * rng.standard_normal(pictures.shape, np.float32)
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


# distances [n, 16, 16] of points from an outline, below 0 within; down: below the centre, right: beside it


def _of_square(down: Array, right: Array, half: Array) -> Array:
    distance: Array = np.maximum(np.abs(down), right) - half
    return distance


def _of_circle(down: Array, right: Array, half: Array) -> Array:
    distance: Array = np.hypot(down, right) - half
    return distance


def _of_triangle(down: Array, right: Array, half: Array) -> Array:
    """Return distances from a triangle as high as wide, its tip up: its sides are 2 right = down + half."""
    distance: Array = np.maximum(down - half, (2 * right - down - half) / _SLOPE)
    return distance


def split_pairs(rng: np.random.Generator, share: float = 0.1) -> tuple[Array, Array]:
    """Split the pairs of kinds, by their numbers: those that are seen in training, and the share that is not.

    Every kind is among the seen as the first and as the second object.
    """
    while True:
        order = rng.permutation(KINDS * KINDS)
        held = round(share * len(order))
        seen = np.sort(order[held:])
        if len(np.unique(seen // KINDS)) == len(np.unique(seen % KINDS)) == KINDS:
            return seen, np.sort(order[:held])
