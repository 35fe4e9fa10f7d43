"""Batches as a pure function of seed and epoch, so that a resumed run sees what the first one would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fusedrnn.gradients import Array


class Batches:
    """So many batches, each made when its turn comes: ``make(i)`` gives ``(x, target)``.

    Iterating again gives the same batches, if ``make`` is a function of ``i`` alone.
    """

    def __init__(self, count: int, make: Callable[[int], tuple[Array, Array]]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return (self.make(i) for i in range(self.count))


def shuffled(
    rows: int, size: int, seed: int, make: Callable[[Array, np.random.Generator], tuple[Array, Array]]
) -> Callable[[int], Batches]:
    """Epochs over ``rows`` examples in an order that seed and epoch decide.

    Args:
        rows: number of examples. size: of a batch; the last one of an epoch holds what is left.
        make: (indices [size], generator of that batch) -> (x, target).
    """

    def epoch(number: int) -> Batches:
        order = np.random.default_rng([seed, number]).permutation(rows)
        return Batches(
            -(-rows // size),
            lambda i: make(order[i * size : (i + 1) * size], np.random.default_rng([seed, number, i])),
        )

    return epoch


def in_chunks(function: Callable[[Array], Array], x: Array, size: int = 2000) -> Array:
    """``function`` over x [T, N, I] some rows at a time, the results [..., n, ...] joined along their first axis."""
    return np.concatenate(
        [function(np.ascontiguousarray(x[:, i : i + size])) for i in range(0, x.shape[1], size)], axis=0
    )
