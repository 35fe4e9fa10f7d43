"""The leaves of a call's arguments, in the order of `fusedrnn.scan.trees`, with a key of all that a program depends on.

This runs at every call, so it looks at types before anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.scan.trees import in_order

KINDS = {"f": "real", "i": "integer", "u": "integer", "b": "boolean"}


def flatten(tree: Any, lead: int, leaves: list[Any], key: list[Any]) -> None:
    """Append the leaves of a structure, and to the key its form and each leaf's shape after `lead` axes, and dtype."""
    kind = type(tree)
    if kind is np.ndarray:
        leaves.append(tree)
        shape = tree.shape
        key += (shape[lead:] if lead else shape, tree.dtype)
    elif kind is dict:
        names = in_order(tree)
        key += (kind, *names)
        for name in names:
            flatten(tree[name], lead, leaves, key)
    elif kind is tuple or kind is list:
        key += (kind, len(tree))
        for member in tree:
            flatten(member, lead, leaves, key)
    elif tree is None:
        key.append(None)
    elif isinstance(tree, dict):
        names = in_order(tree)
        key += (kind, *names)
        for name in names:
            flatten(tree[name], lead, leaves, key)
    elif isinstance(tree, (tuple, list)):
        key += (kind, len(tree))
        for member in tree:
            flatten(member, lead, leaves, key)
    else:
        flatten(read(tree), lead, leaves, key)


def read(value: Any) -> Array:
    """NumPy's scalars as arrays, arrays of another library in place; TypeError for what is no array."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if isinstance(value, np.generic):  # arithmetic of arrays without axes gives these
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        array: Array = _core.as_array(value, "array")
        return array
    raise NotAnArray(value)


class NotAnArray(TypeError):
    """A leaf that is none; whoever knows its name says so."""


def named(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, leaf) of every leaf: "params['W']", "state[0]"."""
    if isinstance(tree, dict):
        for key in in_order(tree):
            yield from named(tree[key], f"{name}[{key!r}]")
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for field, member in zip(tree._fields, tree, strict=True):
            yield from named(member, f"{name}.{field}")
    elif isinstance(tree, (tuple, list)):
        for index, member in enumerate(tree):
            yield from named(member, f"{name}[{index}]")
    elif tree is not None:
        yield name, tree
