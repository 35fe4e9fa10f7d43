"""Captions of emoji: their names, tested on things that training has not, or on pictures that it has not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import emoji_pictures
from fusedrnn.data.emoji_pictures import SIDE, Emoji
from fusedrnn.tasks.caption_runs import Examples, Exercise, Fresh, Recipe, set_up
from fusedrnn.tasks.task import Metrics, Options, Run, RunError
from fusedrnn.tasks.translate_runs import checked_score

SPLITS = ("groups", "pictures")
_TESTED = 0.1
_TIMES = 8  # shown in an epoch
RECIPE = Recipe(rows=SIDE, columns=SIDE, channels=3, units=96, decoder_units=128, embedding=64, dropout=0.4, most=12)


def setup(options: Options) -> Run:
    """Make one run: a tenth of the emoji is for the test, by the seed."""
    recipe = replace(RECIPE, score=checked_score(options.settings["attention"] or RECIPE.score))
    split = options.settings["split"] or SPLITS[0]
    if split not in SPLITS:
        raise RunError(f"--split: expected one of {', '.join(SPLITS)}, got {split}")
    emoji = emoji_pictures.load_emoji(options.say)
    for_test = tested(emoji, split, np.random.default_rng(options.seed))

    def examples(rows: Array) -> Examples:
        return Examples(emoji.pictures[rows], [emoji.captions[i] for i in rows])

    test = Fresh(examples(np.flatnonzero(for_test)), recall="word_recall")
    title = f"Emoji that training had not (split by {split}), and where attention was for each word"
    training = examples(np.flatnonzero(~for_test))
    return set_up(options, Exercise("emoji", recipe, training, (test,), title, headline, times=_TIMES))


def tested(emoji: Emoji, split: str, rng: np.random.Generator) -> Array:
    """Choose a tenth, [n] booleans, in random order: whole groups, or pictures whatever group they are of."""
    of = emoji.groups if split == "groups" else np.arange(len(emoji.groups))
    order = rng.permutation(of.max() + 1)
    enough = int(np.searchsorted(np.cumsum(np.bincount(of)[order]), _TESTED * len(of))) + 1
    chosen: Array = np.isin(of, order[:enough])
    return chosen


def headline(metrics: Metrics) -> str:
    """Put the figures into words."""
    return (
        f"{100 * metrics['word_recall']:.1f} % of the words of unseen emoji's names, {100 * metrics['exact']:.1f} % of "
        f"names exact, BLEU-4 {metrics['bleu']:.1f}; the most similar picture's name has "
        f"{100 * metrics['nearest_word_recall']:.1f} % of the words"
    )
