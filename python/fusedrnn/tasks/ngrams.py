"""N-grams with absolute discounting, interpolated: what a language model has to beat (Ney et al. 1994).

p_n(c | context) = max(count(context c) - D, 0) / count(context) + D kinds(context) / count(context) p_(n-1)(c | ...)

with kinds the number of different tokens that followed the context in training, the shorter context one token less,
p_0 = 1 / V, and p_n = p_(n-1) where the context never occurred. Sums to one over c for 0 < D < 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array

DISCOUNTS = tuple(k / 20 for k in range(8, 20))


class _Counts(NamedTuple):
    """Of one order, for every token held out: how often the gram that it ends occurs in training, how often that gram's
    context, and how many kinds of tokens follow the context. Each [held out] float64."""

    gram: Array
    context: Array
    kinds: Array


def _counts(train: Array, held_out: Array, size: int, orders: int) -> Iterator[_Counts]:
    tokens = np.concatenate([train, held_out]).astype(np.int64)
    start = len(train)
    # grams are known by numbers, counted up from 0 in each order, so that a pair of (context, token) fits 64 bits
    context = np.zeros(len(tokens), np.int64)
    for order in range(1, orders + 1):
        pairs, gram = np.unique(context * size + tokens, return_inverse=True)
        seen = slice(order - 1, start)  # before that a context is cut off by the text's beginning
        occurrences, contexts = (np.bincount(ids[seen], minlength=len(tokens)) for ids in (gram, context))
        kinds = np.bincount(pairs[occurrences[: len(pairs)] > 0] // size, minlength=len(tokens))
        before = context[start:]
        yield _Counts(*(a.astype(float) for a in (occurrences[gram[start:]], contexts[before], kinds[before])))
        context = np.concatenate([[0], gram[:-1]])


def probabilities(train: Array, held_out: Array, size: int, orders: int, discount: float) -> list[Array]:
    """p of every token of `held_out` [n], which goes on where `train` ends, for order 1, 2, ...: arrays [n] float64.

    Args:
        train, held_out: integers from 0 to size - 1, training longer than the highest order. discount: D.
    """
    return _interpolated(_counts(train, held_out, size, orders), size, discount)


def tuned_discount(train: Array, size: int, orders: int) -> float:
    """The D with which the best order has the least surprise in the last tenth of `train`, counted in the rest."""
    cut = len(train) * 9 // 10
    counts = list(_counts(train[:cut], train[cut:], size, orders))

    def surprise(discount: float) -> float:
        return min(-float(np.log(p).mean()) for p in _interpolated(counts, size, discount))

    return min(DISCOUNTS, key=surprise)


def _interpolated(counts: Iterable[_Counts], size: int, discount: float) -> list[Array]:
    found: list[Array] = []
    p: Array = np.array(1 / size)
    for order in counts:
        here = np.maximum(order.gram - discount, 0) + discount * order.kinds * p
        p = np.where(order.context > 0, here / np.maximum(order.context, 1), p)
        found.append(p)
    return found
