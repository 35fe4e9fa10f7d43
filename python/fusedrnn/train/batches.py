"""Batches as a pure function of seed and epoch, so that a resumed run sees what the first one would have."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array


class Batches:
    """So many batches, each made when its turn comes: ``make(i)`` gives ``(x, target)``.

    Iterating again gives the same batches, if ``make`` is a function of ``i`` alone.

    Args:
        key: what the batches follow from, such as (rows, size, seed), fit for JSON: a run that resumes within an epoch
            and finds another key there is refused.
    """

    def __init__(self, count: int, make: Callable[[int], tuple[Array, Array]], key: Any = None) -> None:
        self.count, self.make, self.resume_key = count, make, key

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self.skip(0)

    def skip(self, count: int) -> Iterator[tuple[Array, Array]]:
        """All batches but the first ``count``, which are not made."""
        return (self.make(i) for i in range(count, self.count))


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
            key=[rows, size, seed],
        )

    return epoch


def in_chunks(function: Callable[[Array], Array], x: Array, size: int = 2000) -> Array:
    """``function`` over x [T, N, I] some rows at a time, the results [..., n, ...] joined along their first axis."""
    return np.concatenate(
        [function(np.ascontiguousarray(x[:, i : i + size])) for i in range(0, x.shape[1], size)], axis=0
    )


def starting_at(batches: Any, count: int) -> Iterator[Any]:
    """The batches of an epoch but the first ``count``, which are made only where there is no way round it.

    An object with a method ``skip(count)`` gives the rest itself, a sequence is indexed, all else iterated.
    """
    if count and hasattr(batches, "skip"):
        rest: Iterator[Any] = iter(batches.skip(count))
        return rest
    if count and _is_indexed(batches):
        return (batches[i] for i in range(count, len(batches)))
    return itertools.islice(batches, count, None)


def identity(batches: Any, first: Any = None) -> Any:
    """What tells the batches of an epoch from others, fit for JSON: their ``resume_key``, or a print of the first one.

    None for those that can skip batches but have no such key: their first batch is not made for this alone.

    Args:
        first: the first batch, where it is at hand.
    """
    key = getattr(batches, "resume_key", None)
    if key is not None:
        return key
    if hasattr(batches, "skip") or (_is_indexed(batches) and not isinstance(batches, (list, tuple))):
        return None
    if first is None:
        first = next(iter(batches), ())
    return [_print(part) for part in first[:2]]  # the third of a window says where it lies


def _is_indexed(batches: Any) -> bool:
    return isinstance(batches, Sequence) or (
        hasattr(batches, "__getitem__") and not hasattr(batches, "__iter__") and not isinstance(batches, Mapping)
    )


def _print(part: Any) -> str:
    """Shape, dtype and checksum of an array, without checksum one of objects; of a tuple those of its members; of
    anything else its type."""
    if isinstance(part, tuple):
        return f"({', '.join(map(_print, part))})"
    try:
        array = np.ascontiguousarray(part)
        if array.dtype.hasobject:  # its bytes are addresses, others in every process
            return f"{array.dtype} {np.shape(part)}"
        return f"{array.dtype} {np.shape(part)} {zlib.crc32(array.data):08x}"
    except (TypeError, ValueError):
        return type(part).__name__
