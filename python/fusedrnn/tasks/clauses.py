"""Sentences whose verdict hangs on one word: clauses with negations, where bags of words are of no use.

A clause is "the SUBJECT was [not | never] [very] ADJECTIVE"; clauses are joined by and, but. The sentence is positive
if its last clause is, negation counted. Adjectives, negations and lengths are drawn evenly, so that no word tells
anything by itself.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array

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
    clauses = rng.integers(fewest, most + 1, count)
    good, negated, very, never, but = rng.integers(0, 2, (5, count, most)).astype(bool).tolist()
    subjects, adjectives = rng.integers(0, len(SUBJECTS), (2, count, most)).tolist()
    texts, positive = [], np.empty(count, np.bool_)
    for row, last in enumerate(clauses.tolist()):
        words: list[str] = []
        for k in range(last):
            words += ["but" if but[row][k] else "and"] * (k > 0)
            words += ["the", SUBJECTS[subjects[row][k]], "was"]
            words += ["never" if never[row][k] else "not"] * negated[row][k] + ["very"] * very[row][k]
            words.append((POSITIVE if good[row][k] else NEGATIVE)[adjectives[row][k]])
        texts.append(words)
        positive[row] = good[row][last - 1] != negated[row][last - 1]
    return texts, positive
