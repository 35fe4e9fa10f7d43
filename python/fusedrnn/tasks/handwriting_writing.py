"""Writing with a trained network: any text, word after word in one style, or drawings without a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusedrnn.functional import mixture_density_sample
from fusedrnn.gradients import Array
from fusedrnn.strokes import Drawing
from fusedrnn.tasks.handwriting_model import PRESENT, Predictor, Synthesizer

POINTS_A_CHARACTER = 40  # at most: who has not come to the end by then never will
_TAIL = 12  # points that may follow when the window is past the text, until the pen is lifted


class Writing(NamedTuple):
    """What was written: offsets [T, 3] without those it began with, and the window over the text, φ [T, U + 1].

    ``done`` tells whether the window came to the end.
    """

    offsets: Array
    window: Array
    done: bool


def numbered(text: str, alphabet: str) -> Array:
    """Numbers [U] of a text's characters. ValueError for one that the alphabet does not have."""
    unknown = sorted(set(text) - set(alphabet))
    if unknown:
        raise ValueError(f"expected characters of {alphabet!r}, got {', '.join(map(repr, unknown))}")
    return np.array([alphabet.index(character) for character in text], np.int64)


def write_text(
    model: Synthesizer,
    numbers: Array,
    rng: np.random.Generator,
    *,
    bias: float = 0.0,
    begun: Array | None = None,
) -> Writing:
    """Write a text, point by point, until the window is past its last character (Graves 2013, section 5.3).

    Args:
        numbers: Of the text's characters, [U]. bias: Of the densities (section 5.4).
        begun: Offsets [T, 3] of a drawing of the text's beginning, in whose style the network then goes on (5.5).
    """
    first = model.first.stream(1, context=model.characters(np.asarray(numbers)[:, None]))
    second, head = model.second.stream(1), model.head
    x = np.zeros((1, 4), np.float32)
    x[0, PRESENT] = 1
    given = np.zeros((0, 3), np.float32) if begun is None else begun
    offsets: list[Array] = []
    windows: list[Array] = []
    after = 0
    limit = POINTS_A_CHARACTER * len(numbers)
    for step in range(len(given) + limit):
        window = first(x)
        h2 = second.step(np.concatenate([x, window.h, window.window], axis=1))
        if step < len(given):
            x[0, :3] = given[step]
            continue
        drawn = mixture_density_sample(head(np.concatenate([window.h, h2], axis=1)), rng, bias=bias)[0]
        phi = window.weights[0]
        if phi[-1] > phi[:-1].max() and offsets:  # the place behind the last character has the most weight
            after += 1
            if offsets[-1][2] > 0 or after > _TAIL:
                break
        offsets.append(drawn)
        windows.append(phi)
        x[0, :3] = drawn
    if offsets:
        offsets[-1][2] = 1  # whoever stops lifts the pen
    shape = (len(offsets), -1)
    return Writing(np.array(offsets).reshape(len(offsets), 3), np.array(windows).reshape(shape), after > 0)


def write_words(
    model: Synthesizer,
    words: Sequence[str],
    alphabet: str,
    rng: np.random.Generator,
    *,
    bias: float = 0.0,
    style: Drawing | None = None,
) -> list[Writing]:
    """Write words one after the other, each in the style of the one before, which the network sees written.

    So a text may be as long as one likes, though no example was. Each but the first begins with the way of the pen from
    the word before.

    Args:
        style: A drawing in whose style the first word is written; None for the network's own choice.
    """
    before = style
    found = []
    for word in words:
        text = word if before is None else f"{before.text} {word}"
        begun = None if before is None else before.offsets
        writing = write_text(model, numbered(text, alphabet), rng, bias=bias, begun=begun)
        if before is not None:
            writing = writing._replace(window=writing.window[:, len(text) - len(word) :])
        found.append(writing)
        own = writing.offsets if before is None else writing.offsets[1:]  # without the way to it
        if len(own):
            before = Drawing(own, word)
    return found


def draw_points(model: Predictor, count: int, rng: np.random.Generator, *, bias: float, most: int) -> list[Array]:
    """Draw without a text: so many drawings of at most so many points, offsets [most, 3] each."""
    first, second = model.first.stream(count), model.second.stream(count)
    x = np.zeros((count, 4), np.float32)
    x[:, PRESENT] = 1
    drawn = np.zeros((most, count, 3), np.float32)
    for step in range(most):
        h1 = first.step(x)
        h2 = second.step(np.concatenate([x, h1], axis=1))
        drawn[step] = mixture_density_sample(model.head(np.concatenate([h1, h2], axis=1)), rng, bias=bias)
        x[:, :3] = drawn[step]
    drawn[-1, :, 2] = 1
    return [np.ascontiguousarray(drawn[:, n]) for n in range(count)]
