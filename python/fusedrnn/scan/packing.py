"""Packed sequences, rows of all steps one after another, and the padded arrays that the executor walks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan.leaves import NotAnArray, read


class Packing:
    """How rows of uneven length lie in packed arrays.

    Args:
        batch_sizes: [T], rows at each step; they never increase.

    Attributes:
        rows: Of packed arrays, sum of batch_sizes.
        lengths: [N] steps of each row.
    """

    def __init__(self, batch_sizes: Array) -> None:
        self.shape = (len(batch_sizes), int(batch_sizes[0]))
        self.rows = int(batch_sizes.sum())
        self.present = np.arange(self.shape[1]) < batch_sizes[:, None]  # [T, N]
        self.lengths = self.present.sum(0).astype(np.int64)

    def padded(self, tree: Any, name: str) -> Any:
        """[T, N, ...] of each leaf [sum of batch_sizes, ...], zeros elsewhere; None stays None.

        What is no array stays too: whoever takes the result says so. Raises ValueError for another number of rows.
        """
        return self._each(tree, self._padded, name)

    def packed(self, tree: Any) -> Any:
        """[sum of batch_sizes, ...] of each leaf [T, N, ...]."""
        return self._each(tree, lambda leaf, _: leaf[self.present], "")

    def _padded(self, leaf: Any, name: str) -> Any:
        try:
            leaf = read(leaf)
        except NotAnArray:
            return leaf
        if leaf.shape[:1] != (self.rows,):
            wanted = f"({self.rows}, ...) of (sum of batch_sizes, ...)"
            raise ValueError(f"{name}: expected shape {wanted}, got {leaf.shape}")
        found = np.zeros(self.shape + leaf.shape[1:], leaf.dtype)
        found[self.present] = leaf
        return found

    def _each(self, tree: Any, change: Callable[[Any, str], Any], name: str) -> Any:
        if isinstance(tree, dict):
            return {key: self._each(member, change, f"{name}[{key!r}]") for key, member in tree.items()}
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            named = zip(tree._fields, tree, strict=True)
            return type(tree)(*(self._each(member, change, f"{name}.{field}") for field, member in named))
        if isinstance(tree, (tuple, list)):
            return type(tree)(self._each(member, change, f"{name}[{i}]") for i, member in enumerate(tree))
        return None if tree is None else change(tree, name)
