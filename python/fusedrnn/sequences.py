"""Sequences of uneven length: padding that says where a row ends, and batches of rows of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fusedrnn.gradients import Array

_POOL = 16  # batches that are sorted by length together: rows of like length, in an order that still varies


def padded(sequences: Sequence[Array]) -> Array:
    """Sequences as one array, time first, of at least one step.

    Integers [T_i] become ids [T, N] int64, -1 past a row's end; features [T_i, I] become [T, N, I] of their dtype, NaN
    past the end: as `fusedrnn.nn.ManyToOne` reads them.
    """
    first = sequences[0]
    T = max(1, *map(len, sequences)) if len(sequences) > 1 else max(1, len(first))
    whole: Array
    if first.ndim == 1:
        whole = np.full((T, len(sequences)), -1, np.int64)
    else:
        whole = np.full((T, len(sequences), first.shape[1]), np.nan, first.dtype)
    for n, sequence in enumerate(sequences):
        whole[: len(sequence), n] = sequence
    return whole


def by_length(lengths: Array, size: int) -> Iterator[Array]:
    """Row numbers [size] of batches for inference: all rows, of like length together."""
    order = np.argsort(lengths, kind="stable")
    return (order[i : i + size] for i in range(0, len(order), size))


class LengthBatches:
    """Batches of one epoch: rows shuffled, then of like length together, the batches in random order.

    Args:
        lengths: [n], of the sequences. size: rows of a batch; one of them holds what is left.
        seed: of the order. make: (row numbers, generator of that batch) -> (x, target).
    """

    def __init__(
        self,
        lengths: Array,
        size: int,
        seed: Sequence[int],
        make: Callable[[Array, np.random.Generator], tuple[Any, Any]],
    ) -> None:
        self.lengths, self.size, self.seed, self.make = lengths, size, list(seed), make

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(self.lengths))
        batches = []
        for start in range(0, len(order), _POOL * self.size):
            pool = order[start : start + _POOL * self.size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[i : i + self.size] for i in range(0, len(pool), self.size)]
        return (
            self.make(batches[i], np.random.default_rng([*self.seed, int(i)])) for i in rng.permutation(len(batches))
        )
