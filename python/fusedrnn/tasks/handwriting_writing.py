"""Writing with a trained network: any text, all its words in one style, or drawings without a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.strokes import Drawing, as_strokes
from fusedrnn.functional import mixture_density_sample
from fusedrnn.tasks.handwriting_model import PRESENT, Predictor, Synthesizer

POINTS_A_CHARACTER = 40  # at most: who has not come to the end by then never will
# The share of the window behind the last character with which a text is at its end when the pen is lifted. Of held-out
# texts it is less behind one in 20, a full stop then, and more before the end in one in 1,000.
_AT_END = 0.15
_BEHIND = 0.75  # the mean share of a stroke that belongs to nothing; of last strokes of held-out texts it is below 0.6
_TAIL = 12  # points after which a pen that is not lifted stops all the same, once most of the window is behind


class Writing(NamedTuple):
    """What was written: offsets [T, 3] without those it began with, and the window over the text, φ [T, U + 1].

    ``done`` tells whether the window came to the end.
    """

    offsets: Array
    window: Array
    done: bool


def numbered(text: str, alphabet: str) -> Array:
    """Return numbers [U] of a text's characters. ValueError for one that the alphabet does not have."""
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
    """Write a text, point by point, until the pen is lifted and the window goes on past it (Graves 2013, section 5.3).

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
    behind: list[float] = []  # the share of the window behind the last character, of each point
    done = False
    for step in range(len(given) + POINTS_A_CHARACTER * len(numbers)):
        window = first(x)
        h2 = second.step(np.concatenate([x, window.h, window.window], axis=1))
        if step < len(given):
            x[0, :3] = given[step]
            continue
        drawn = mixture_density_sample(head(np.concatenate([window.h, h2], axis=1)), rng, bias=bias)[0]
        phi = window.weights[0]
        share = float(phi[-1] / max(phi.sum(), 1e-12))
        lifted = bool(offsets) and offsets[-1][2] > 0
        done = (lifted and share >= _AT_END) or (len(behind) >= _TAIL and min(behind[-_TAIL:]) > 0.5)
        if done:
            break
        offsets.append(drawn)
        windows.append(phi)
        behind.append(share)
        x[0, :3] = drawn
    kept = _kept(np.array(offsets).reshape(-1, 3), np.array(behind))
    kept[-1:, 2] = 1  # whoever stops lifts the pen
    return Writing(kept, np.array(windows[: len(kept)]).reshape(len(kept), len(numbers) + 1), done)


def _kept(offsets: Array, behind: Array) -> Array:
    """Leave out a last stroke that was drawn, on the whole, when the window was behind the text."""
    lifted = np.flatnonzero(offsets[:-1, 2] > 0)
    start = int(lifted[-1]) + 1 if len(lifted) else 0
    return offsets[:start] if start and behind[start:].mean() > _BEHIND else offsets


class Word(NamedTuple):
    """A word: its strokes [n, 2], from x = 0 to the right, y from where its neighbours have it, and the gap before."""

    strokes: list[Array]
    gap: float


def write_words(
    model: Synthesizer,
    words: Sequence[str],
    alphabet: str,
    rng: np.random.Generator,
    *,
    bias: float = 0.0,
    style: Drawing | None = None,
) -> list[Word]:
    """Write words, each as if it stood behind a drawing in whose style it then is (Graves 2013, section 5.5).

    So all words of a text have one style and one line, and a text may be as long as one likes, though no example was.

    Args:
        style: That drawing, of a text without a blank; None for the first word, in a style of the network's own choice.
    """
    found: list[Word] = []
    end, right = np.zeros(2), 0.0  # of the drawing: its last point, and how far it reaches
    if style is not None:
        end, right = _ends(as_strokes(style.offsets))
    for word in words:
        if style is None:
            writing = write_text(model, numbered(word, alphabet), rng, bias=bias)
            strokes = as_strokes(writing.offsets)
            style, (end, right) = Drawing(writing.offsets, word), _ends(strokes)
            gap = 0.0
        else:
            text = numbered(f"{style.text} {word}", alphabet)
            writing = write_text(model, text, rng, bias=bias, begun=style.offsets)
            strokes = [stroke + end for stroke in as_strokes(writing.offsets[1:])]
            strokes = [stroke + writing.offsets[0, :2] for stroke in strokes]  # the way to its first point
            gap = float(min(stroke[:, 0].min() for stroke in strokes)) - right
        left = np.array([min(stroke[:, 0].min() for stroke in strokes), 0.0])
        found.append(Word([stroke - left for stroke in strokes], gap))
    return found


def _ends(strokes: Sequence[Array]) -> tuple[Array, float]:
    """Return the last point of strokes, and how far to the right they reach."""
    return strokes[-1][-1], float(max(stroke[:, 0].max() for stroke in strokes))


def on_a_line(words: Sequence[Word]) -> list[Array]:
    """Put words behind each other; return their strokes [n, 2]."""
    strokes: list[Array] = []
    right = 0.0
    for place, word in enumerate(words):
        left = right + word.gap if place else 0.0
        strokes += [stroke + np.array([left, 0.0]) for stroke in word.strokes]
        right = left + max(float(stroke[:, 0].max()) for stroke in word.strokes)
    return strokes


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
