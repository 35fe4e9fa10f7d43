"""Packed sequences, rows of all steps one after another, and the padded arrays that the executor walks."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.gradients import Array


class Packing:
    """How rows of uneven length lie in packed arrays.

    Args:
        batch_sizes: [T], rows at each step; they never increase.

    Attributes:
        lengths: [N] steps of each row.
    """

    def __init__(self, batch_sizes: Array) -> None:
        self.shape = (len(batch_sizes), int(batch_sizes[0]))
        self.present = np.arange(self.shape[1]) < batch_sizes[:, None]  # [T, N]
        self.lengths = self.present.sum(0).astype(np.int64)

    def padded(self, tree: Any) -> Any:
        """[T, N, ...] of each leaf [sum of batch_sizes, ...], zeros elsewhere; None stays None."""
        return self._each(tree, self._padded)

    def packed(self, tree: Any) -> Any:
        """[sum of batch_sizes, ...] of each leaf [T, N, ...]."""
        return self._each(tree, lambda leaf: leaf[self.present])

    def _padded(self, leaf: Array) -> Array:
        found = np.zeros(self.shape + leaf.shape[1:], leaf.dtype)
        found[self.present] = leaf
        return found

    def _each(self, tree: Any, change: Any) -> Any:
        if isinstance(tree, dict):
            return {key: self._each(member, change) for key, member in tree.items()}
        if isinstance(tree, (tuple, list)):
            members = [self._each(member, change) for member in tree]
            return type(tree)(*members) if hasattr(tree, "_fields") else type(tree)(members)
        return None if tree is None else change(np.asarray(tree))
