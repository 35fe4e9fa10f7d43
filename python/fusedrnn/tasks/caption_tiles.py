"""Captions of canvases of real tiles, and whether attention was on the tiles that a word names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sources
from fusedrnn.data.sources import Bytes, Images
from fusedrnn.data.tiles import (
    DIGITS,
    FASHION,
    RELATIONS,
    SIDE,
    TILE,
    Layouts,
    draw_layouts,
    halved,
    painted,
    split_pairs,
)
from fusedrnn.decoding import Hypothesis
from fusedrnn.tasks.caption_runs import Examples, Exercise, Fresh, Recipe, set_up
from fusedrnn.tasks.task import Metrics, Options, Run
from fusedrnn.tasks.translate_runs import checked_score

TRAINING, TESTED = 80_000, 1_000
RECIPE = Recipe(rows=SIDE, columns=SIDE, channels=1, units=96, decoder_units=96, dropout=0.2)


def setup(options: Options) -> Run:
    """Make one run: tiles of the images' training part to train on, of their test part to test on."""
    recipe = replace(RECIPE, score=checked_score(options.settings["attention"] or RECIPE.score))
    images, names = load_tiles(options.say)
    options.say(f"tiles of {images.source}")
    rng = np.random.default_rng(options.seed)
    seen, unseen = split_pairs(rng)
    known, fresh = (halved(images.train_images), images.train_labels), (halved(images.test_images), images.test_labels)

    def drawn(count: int, pairs: Array, tiles: tuple[Bytes, Bytes]) -> tuple[Examples, Layouts]:
        layouts = draw_layouts(rng, count, pairs)
        return Examples(painted(layouts, *tiles, rng), layouts.captions(names)), layouts

    training, _ = drawn(TRAINING, seen, known)
    usual, _ = drawn(TESTED, seen, fresh)
    unusual, layouts = drawn(TESTED, unseen, fresh)
    return set_up(
        options,
        Exercise(
            "tiles",
            recipe,
            training,
            (Fresh(usual, bleu="bleu_seen"), Fresh(unusual, exact="exact_unseen")),
            f"Pairs of classes of {images.source} that training had not, and where attention was for each word",
            headline,
            lambda hypotheses, texts: attention_on_tiles(layouts, unusual.captions, hypotheses, texts),
            {"source": images.source},
        ),
    )


def load_tiles(say: Callable[[str], None]) -> tuple[Images, tuple[tuple[str, str], ...]]:
    """Return images and the names of their classes: Fashion-MNIST where it is installed, else MNIST, fetched."""
    if sources.FASHION_FOLDER.is_dir():
        return sources.load_images("fashion", say), FASHION
    say(f"tiles: Fashion-MNIST is not installed ({sources.FASHION_COMMAND}): MNIST")
    return sources.load_images("full", say), DIGITS


def attention_on_tiles(
    layouts: Layouts, captions: Sequence[str], hypotheses: Sequence[Hypothesis], texts: Sequence[str]
) -> Metrics:
    """Measure where attention was while the words that name tiles were written, in captions without a mistake.

    ``attention_on_tile`` is the share of these words for which the row and the column of strongest attention cross
    within a tile that the word names; ``attention_by_chance`` what any row and any column would give.
    """
    hits, areas = [0.0], [0.0]
    for i, (caption, text, hypothesis) in enumerate(zip(captions, texts, hypotheses, strict=True)):
        if text != caption or hypothesis.weights is None:
            continue
        before = caption.split(f" {RELATIONS[layouts.relations[i]]} ")[0]
        for group, word in enumerate((len(before.split()) - 1, len(caption.split()) - 1)):
            weights = hypothesis.weights[word]
            line = np.array([weights[:SIDE].argmax(), weights[SIDE:].argmax()])
            corners = layouts.places[i, group]
            hits.append(float(((corners <= line) & (line < corners + TILE)).all(axis=1).any()))
            areas.append(layouts.counts[i, group] * TILE**2 / SIDE**2)
    measured = slice(1 if len(hits) > 1 else 0, None)
    return {
        "attention_on_tile": float(np.mean(hits[measured])),
        "attention_by_chance": float(np.mean(areas[measured])),
    }


def headline(metrics: Metrics) -> str:
    """Put the figures into words."""
    return (
        f"{100 * metrics['exact']:.1f} % of captions exact, of unseen pairs {100 * metrics['exact_unseen']:.1f} % "
        f"(BLEU-4 {metrics['bleu']:.1f}); attention on the tile in {100 * metrics['attention_on_tile']:.1f} %, "
        f"by chance {100 * metrics['attention_by_chance']:.1f} %"
    )
