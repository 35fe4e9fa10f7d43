"""Captions of composed scenes: fresh pictures of pairs of objects that training has, and of pairs that it has not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.scenes import SIDE, draw_scenes, split_pairs
from fusedrnn.tasks.caption_runs import Examples, Exercise, Fresh, Recipe, set_up
from fusedrnn.tasks.task import Metrics, Options, Run
from fusedrnn.tasks.translate_runs import checked_score

TRAINING, TESTED = 80_000, 1_000
RECIPE = Recipe(rows=SIDE, columns=SIDE, channels=3)


def setup(options: Options) -> Run:
    """Make one run: scenes from the seed."""
    recipe = replace(RECIPE, score=checked_score(options.settings["attention"] or RECIPE.score))
    rng = np.random.default_rng(options.seed)
    seen, unseen = split_pairs(rng)

    def drawn(count: int, pairs: Array) -> Examples:
        pictures, scenes = draw_scenes(rng, count, pairs)
        return Examples(pictures, scenes.captions())

    training = drawn(TRAINING, seen)
    tests = Fresh(drawn(TESTED, seen), bleu="bleu_seen"), Fresh(drawn(TESTED, unseen), exact="exact_unseen")
    title = "Pairs of objects that training had not, and where attention was for each word"
    return set_up(options, Exercise("scenes", recipe, training, tests, title, headline))


def headline(metrics: Metrics) -> str:
    """Put the figures into words."""
    return (
        f"{100 * metrics['exact']:.1f} % of captions exact, of unseen pairs {100 * metrics['exact_unseen']:.1f} % "
        f"(BLEU-4 {metrics['bleu']:.1f}); of white paper {100 * metrics['blind_exact']:.1f} %"
    )
