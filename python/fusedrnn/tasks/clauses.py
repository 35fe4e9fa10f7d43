"""Sentences whose verdict hangs on one word: clauses with negations, where bags of words are of no use.

A clause is "the SUBJECT was [not | never] [very] ADJECTIVE"; clauses are joined by and, but. The sentence is positive
if its last clause is, negation counted. Adjectives, negations and lengths are drawn evenly, so that no word tells
anything by itself.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.gradients import Array

SUBJECTS = (
    "film", "plot", "cast", "music", "ending", "dialogue", "story", "acting", "pace", "script", "camera", "editing",
    "director", "humour", "finale", "scenery", "sound", "lighting", "soundtrack", "opening",
)  # fmt: skip
POSITIVE = (
    "good", "great", "lovely", "brilliant", "funny", "clever", "moving", "fresh", "charming", "superb", "bright",
    "warm", "witty", "graceful", "honest", "gripping", "elegant", "subtle", "bold", "delightful",
)  # fmt: skip
NEGATIVE = (
    "bad", "awful", "dull", "boring", "clumsy", "stale", "silly", "weak", "tired", "dreadful", "flat", "cold",
    "bland", "ugly", "noisy", "shallow", "lazy", "crude", "messy", "tedious",
)  # fmt: skip


def sentences(rng: np.random.Generator, count: int, fewest: int, most: int) -> tuple[list[list[str]], Array]:
    """So many sentences of ``fewest`` to ``most`` clauses as words, and whether each is positive, [count] booleans."""
    texts, positive = [], np.empty(count, np.bool_)
    for row in range(count):
        words: list[str] = []
        for number in range(rng.integers(fewest, most + 1)):
            good, negated, very = rng.integers(0, 2, 3).astype(bool)
            if number:
                words.append(str(rng.choice(["and", "but"])))
            words += ["the", SUBJECTS[rng.integers(len(SUBJECTS))], "was"]
            words += [("not", "never")[rng.integers(2)]] * int(negated) + ["very"] * int(very)
            words.append((POSITIVE if good else NEGATIVE)[rng.integers(len(POSITIVE))])
            positive[row] = good != negated
        texts.append(words)
    return texts, positive
