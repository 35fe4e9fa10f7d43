"""Random numbers of masks, counter-based: each is a function of the seed and of its place alone.

So a mask depends neither on the batch's size nor on the order of the work, and a part of a batch or of a sequence
can draw the whole one's numbers (`row_offset`, `step_offset`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from .checks import check_integer, check_probability
from .sequences import Sequence

KINDS = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect")
WORD = 0xFFFFFFFF


def philox4x32(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: four arrays of uint64 below 2^32, of shapes that broadcast.
        key: two integers below 2^32.

    Returns:
        The four words of each counter, uint64 below 2^32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        high0, low0 = product0 >> np.uint64(32), product0 & np.uint64(WORD)
        high1, low1 = product1 >> np.uint64(32), product1 & np.uint64(WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


class Random(NamedTuple):
    """The random numbers of one call: of one layer in one direction."""

    training: bool
    seed: int
    layer: int
    reverse: bool
    row_offset: int
    step_offset: int

    def words(self, kind: str, rows: Array, steps: Array, units: int) -> Array:
        """[len(rows), units] uint64 below 2^32: the numbers of each row at its step.

        A counter is (block, row, step, layer and direction and kind), and unit u of a row has word (u // 16) % 4 of
        block (u // 64) * 16 + u % 16: 64 units are the four words of 16 blocks, each vector of 16 units one word.
        """
        stream = self.layer << 4 | self.reverse << 3 | KINDS.index(kind)
        groups = -(-units // 64)
        block = np.arange(groups * 16, dtype=np.uint64)
        row, step = (np.asarray(a, np.uint64)[:, None] & np.uint64(WORD) for a in (rows, steps))
        drawn = philox4x32((block, row, step, np.array([stream], np.uint64)), (self.seed & WORD, self.seed >> 32))
        words = np.stack([w.reshape(-1, groups, 16) for w in np.broadcast_arrays(*drawn)], axis=2)
        return words.reshape(-1, groups * 64)[:, :units]

    def _hits(self, kind: str, p: float, rows: Array, steps: Array, units: int) -> Array:
        """True with probability p."""
        hits: Array = self.words(kind, rows, steps, units) < np.uint64(int(p * 2**32))
        return hits

    def zoneout(self, kind: str, p: float, sequence: Sequence, units: int) -> Array | None:
        """k [M, units], as x lies flat: 1 where a unit keeps its previous value; at inference p; None for p = 0."""
        check_probability(kind, p, one=True)
        rows, steps = sequence.places()
        if p == 0:
            return None
        if not self.training:
            return np.full((len(rows), units), p, sequence.x.dtype)
        hits = self._hits(kind, p, rows + self.row_offset, steps + self.step_offset, units)
        return hits.astype(sequence.x.dtype)

    def recurrent_dropout(self, p: float, shape: tuple[int, int], dtype: Any) -> Array | None:
        """The mask of the states h [N, P], one for all steps."""
        rows = np.arange(shape[0]) + self.row_offset
        return self._dropout("recurrent_dropout", p, rows, shape[1], dtype)

    def dropconnect(self, p: float, shape: tuple[int, int], dtype: Any) -> Array | None:
        """The mask of weight_hh [G*H, P], whose rows take the place of the batch's."""
        return self._dropout("dropconnect", p, np.arange(shape[0]), shape[1], dtype)

    def _dropout(self, kind: str, p: float, rows: Array, units: int, dtype: Any) -> Array | None:
        """0 where dropped and 1/(1-p) elsewhere; None where nothing is."""
        check_probability(kind, p, one=False)
        if p == 0 or not self.training:
            return None
        hits = self._hits(kind, p, rows, np.zeros_like(rows), units)
        return np.where(hits, 0, 1 / (1 - p)).astype(dtype)


def zoned(k: Array, before: Array, after: Array) -> Array:
    """The state after a step with zoneout: ``before`` to the bit where k is 1, ``after`` where it is 0."""
    state: Array = k * before + (1 - k) * after
    return state


def find_random(training: bool, seed: int, layer: int, reverse: bool, row_offset: int, step_offset: int) -> Random:
    """The random numbers of a call; ValueError for one that is out of range."""
    check_integer("seed", seed, 1 << 64)
    check_integer("layer", layer, 1 << 28)
    check_integer("row_offset", row_offset, 1 << 32)
    check_integer("step_offset", step_offset, 1 << 32)
    return Random(training, seed, layer, reverse, row_offset, step_offset)
