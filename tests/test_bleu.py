"""BLEU against its definition, written out, and at its ends."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from fusedrnn.tasks.bleu import corpus_bleu

HYPOTHESES = ["a large red square above a small blue circle", "a small red square left of a circle", "a a a a a"]
REFERENCES = ["a large red square above a small green circle", "a small red square left of a blue circle", "a b a c a"]


def by_definition(hypotheses, references):
    """Papineni et al. (2002): the brevity penalty times the geometric mean of clipped precisions, n-grams of 1 to 4."""
    ours, theirs = [h.split() for h in hypotheses], [r.split() for r in references]
    precisions = []
    for n in range(1, 5):
        hits = total = 0
        for one, other in zip(ours, theirs, strict=True):
            found, there = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (one, other))
            hits += sum((found & there).values())
            total += sum(found.values())
        precisions.append(hits / total)
    lengths = sum(map(len, ours)), sum(map(len, theirs))
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    return 100 * brevity * math.exp(sum(map(math.log, precisions)) / 4)


def test_it_is_papinenis():
    expected = by_definition(HYPOTHESES, REFERENCES)
    assert 20 < expected < 80
    assert corpus_bleu(HYPOTHESES, REFERENCES, tokenize="none") == pytest.approx(expected, rel=1e-6)


def test_the_ends_of_its_range():
    assert corpus_bleu(REFERENCES, REFERENCES, tokenize="none") == 100
    assert corpus_bleu(["x y z w"] * 3, REFERENCES, tokenize="none") == 0
    assert corpus_bleu(["a large"] * 3, REFERENCES, tokenize="none") == 0, "no 4-grams, and nothing is smoothed"
    assert corpus_bleu(["a large blue square"], ["a large red square"], tokenize="none", smooth="exp") > 0


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_as_many_references_as_hypotheses(hypotheses, references):
    with pytest.raises(ValueError, match="references: expected one for each of"):
        corpus_bleu(hypotheses, references)
