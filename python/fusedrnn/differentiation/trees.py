"""Arrays as arguments and gradients hold them: alone, or in tuples, lists and dicts within one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function`` of every leaf (and of the leaves at the same place in ``others``), in a tree of the same form.

    None holds no leaf and stays None.
    """
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_leaves(function, member, *(other[key] for other in others)) for key, member in tree.items()}
    if isinstance(tree, (tuple, list)):
        members = [map_leaves(function, *parts) for parts in zip(tree, *others, strict=True)]
        return type(tree)(*members) if hasattr(tree, "_fields") else type(tree)(members)
    return function(tree, *others)


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
