"""The temporal links of a differentiable neural computer: which slot was written after which (Graves et al. 2016).

L[i, j] is the degree to which slot i was the next one written after slot j. Rows and columns sum to at most 1, the
diagonal is zero. `forwards` of a read weighting is L w, `backwards` is Lᵀ w.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusedrnn.ops import stop_gradient

MOST = 1 + 5e-6  # that a precedence may sum to: rounding would carry it further in tens of thousands of steps


def resolved(writing: Any) -> Any:
    """Return w as 1 - (1 - w): a write that 1 - w cannot tell from none makes no link.

    What a write adds to links and precedence is then what it takes from the others. With gates all but closed (w of
    1e-8 in float32) their sums would grow otherwise, to 1.0003 in 10,000 steps.
    """
    return 1 - (1 - writing)


def linked(links: Any, writing: Any, precedence: Any) -> Any:
    """Return the links after a write: L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j], with a diagonal of zeros.

    Args:
        links: [slots, slots]. writing: w [slots]. precedence: p [slots], that of before this write.
    """
    after = (1 - writing[:, None] - writing) * links + writing[:, None] * precedence
    return after * (1 - np.eye(len(writing), dtype=np.float32))


def preceding(precedence: Any, writing: Any) -> Any:
    """Return p = (1 - sum of w) p + w [slots], the degree to which each slot was the last one written."""
    left = 1 - np.sum(writing)  # below zero by rounding, perhaps
    after = np.where(left < 0, 0.0, left) * precedence + writing
    return after / stop_gradient(np.maximum(np.sum(after) / MOST, 1))


class SparseLinks(NamedTuple):
    """Hold the K strongest links of each slot, from it and to it: the approximation of O(slots K) memory.

    A pair of arrays [slots, K] has the links to slots that were written later, the other those to slots written
    earlier; both have the same links but where a slot has more than K. A weight of zero is no link; its slot is -1.

    Attributes:
        later, later_slots: L[later_slots[j, k], j]. earlier, earlier_slots: L[i, earlier_slots[i, k]].
    """

    later: Any
    later_slots: Any
    earlier: Any
    earlier_slots: Any


def forwards(links: Any, weightings: Any) -> Any:
    """Return L w [heads, slots] of links and read weightings [heads, slots]: what was written next."""
    if isinstance(links, SparseLinks):
        return _pulled(weightings, links.earlier, links.earlier_slots)
    return weightings @ links.T


def backwards(links: Any, weightings: Any) -> Any:
    """Return Lᵀ w [heads, slots] of links and read weightings [heads, slots]: what was written before."""
    if isinstance(links, SparseLinks):
        return _pulled(weightings, links.later, links.later_slots)
    return weightings @ links


def _pulled(weightings: Any, links: Any, slots: Any) -> Any:
    return np.sum(np.take(weightings, np.maximum(slots, 0), axis=1) * links, axis=2)


def sparsely_linked(links: SparseLinks, writing: Any, precedence: Any) -> SparseLinks:
    """Return the links after a write in which only the K largest weights of w and of p take part.

    Links below 1 / K vanish: as rows and columns sum to at most 1, none has more than K of the others.
    """
    K = links.later.shape[1]
    writes, written = _largest(writing, K)
    befores, before = _largest(precedence, K)
    w = np.sum(writes[:, None] * (written[:, None] == np.arange(len(writing))), axis=0)  # [slots], zero but for K
    p = np.sum(befores[:, None] * (before[:, None] == np.arange(len(writing))), axis=0)
    return SparseLinks(
        *_updated(links.later, links.later_slots, w, p, w, written, writes),
        *_updated(links.earlier, links.earlier_slots, w, w, p, before, befores),
    )


def _largest(weights: Any, K: int) -> tuple[Any, Any]:
    """Return the K largest weights [K], and where they are."""
    places = np.argsort(-weights, kind="stable")[:K]
    return np.take(weights, places), places


def _updated(
    links: Any, slots: Any, w: Any, of_row: Any, of_slot: Any, new_slots: Any, new_weights: Any
) -> tuple[Any, Any]:
    """Return the K strongest links of each row after a write.

    Args:
        links, slots: [slots, K]. w: [slots]. of_row, of_slot: [slots]; their product is what a link gains.
        new_slots, new_weights: [K], where `of_slot` is not zero, and its values there.
    """
    n, K = links.shape
    there = np.maximum(slots, 0)
    # The sum first: both halves have the same bits then, and agree on what is above 1 / K.
    kept = (1 - (w[:, None] + np.take(w, there))) * links + of_row[:, None] * np.take(of_slot, there)
    kept = np.where(slots < 0, 0.0, kept)
    known = np.any(slots[:, :, None] == new_slots, axis=1)  # [slots, K]: these have gained above
    itself = new_slots == np.arange(n)[:, None]
    fresh = np.where(known | itself, 0.0, of_row[:, None] * new_weights)
    found = np.concatenate([kept, fresh], axis=1)
    found = np.where(found < 1 / K, 0.0, found)
    places = np.argsort(-found, axis=1, kind="stable")[:, :K]
    all_slots = np.concatenate([slots, np.zeros_like(slots) + new_slots], axis=1)
    links = np.take_along_axis(found, places, axis=1)
    return links, np.where(links > 0, np.take_along_axis(all_slots, places, axis=1), -1)
