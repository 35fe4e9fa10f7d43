"""Arrays as arguments and gradients hold them: alone, or in tuples, lists and dicts within one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fusedrnn.scan.trees import map_leaves

__all__ = ["is_real", "leaves", "map_leaves"]


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, leaf) of every leaf: "state[1]" is the second member of the argument ``state``."""
    if isinstance(tree, dict):
        for key, member in tree.items():
            yield from leaves(member, f"{name}[{key!r}]" if name else key)
    elif isinstance(tree, (tuple, list)):
        for index, member in enumerate(tree):
            yield from leaves(member, f"{name}[{index}]")
    elif tree is not None:
        yield name, tree


def is_real(leaf: Any) -> bool:
    """Whether a leaf is an array of floating point numbers, which alone have gradients."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
