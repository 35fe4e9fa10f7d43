"""What the layer of any recurrence does with nested arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan.leaves import named
from fusedrnn.scan.trees import Structure, map_leaves


def initial(name: str, state: Any, dtype: np.dtype[Any]) -> Any:
    """The values of one row's state: arrays as they are, reals of `dtype`, and zeros for shapes."""
    if state is None:
        return None
    if isinstance(state, dict):
        return {key: initial(f"{name}[{key!r}]", member, dtype) for key, member in state.items()}
    if isinstance(state, (tuple, list)):
        if type(state) is tuple and all(_is_size(member) for member in state):
            return np.zeros(state, dtype)
        members = [initial(f"{name}[{i}]", member, dtype) for i, member in enumerate(state)]
        return type(state)(*members) if hasattr(state, "_fields") else type(state)(members)
    if _is_size(state):
        raise TypeError(f"{name}: expected a shape, such as ({state},), or an array, got {state}")
    array = np.array(state, order="C")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected a shape or an array of numbers or booleans, got {type(state).__name__}")
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def dotted(structure: Structure, prefix: str, alone: str) -> Iterator[str]:
    """Names of leaves with dots within: "W", "cell.W"; that of the only one where the whole is a leaf."""
    if structure.form == "leaf":
        yield prefix or alone
        return
    for place, child in enumerate(structure.children):
        if structure.form == "dict":
            part = str(structure.keys[place])
        else:
            part = structure.type._fields[place] if structure.form == "named" else str(place)
        yield from dotted(child, f"{prefix}.{part}" if prefix else part, alone)


def contiguous(tree: Any) -> Any:
    """The same with copies of arrays that are not C-contiguous."""

    def copied(leaf: Any) -> Any:
        return np.ascontiguousarray(leaf) if isinstance(leaf, np.ndarray) and not leaf.flags.c_contiguous else leaf

    return map_leaves(copied, tree)


def swapped(tree: Any) -> Any:
    """Time and batch exchanged in each leaf, copied."""

    def swap(leaf: Any) -> Any:
        array = np.asarray(leaf)
        return np.ascontiguousarray(array.swapaxes(0, 1)) if array.ndim > 1 else array

    return map_leaves(swap, tree)


def rows_of(x: Any, batch_sizes: Any, state: Any, context: Any) -> int:
    """N, from whatever tells it; 1 where nothing does. Arrays that do not fit are found later."""
    if batch_sizes is not None:
        sizes = np.ravel(batch_sizes)
        return int(sizes[0]) if sizes.size else 0
    for tree, axis in ((x, 1), (state, 0), (context, 0)):
        for _, leaf in named(tree, ""):
            shape = np.shape(leaf)
            return int(shape[axis]) if len(shape) > axis else 1
    return 1


def joined(ys: Sequence[Any], lead: int) -> Array:
    """The outputs of two directions on the last axis, which comes after so many of time and batch."""
    for y in ys:
        if not isinstance(y, np.ndarray) or y.ndim <= lead:
            got = f"an array of shape {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__
            raise ValueError(f"bidirectional: expected a step whose y is one array with an axis to join, got {got}")
    return np.concatenate(ys, axis=-1)


def halves(dy: Any) -> tuple[Any, Any]:
    """The parts of each direction."""
    if dy is None:
        return None, None
    if not isinstance(dy, np.ndarray) or dy.ndim < 1 or dy.shape[-1] % 2:
        got = dy.shape if isinstance(dy, np.ndarray) else type(dy).__name__
        raise ValueError(f"dy: expected an array with both directions on its last axis, got {got}")
    middle = dy.shape[-1] // 2
    return np.ascontiguousarray(dy[..., :middle]), np.ascontiguousarray(dy[..., middle:])


def added(trees: Sequence[Any]) -> Any:
    """The sum, leaf by leaf."""
    first, *others = trees
    for other in others:
        first = map_leaves(np.add, first, other)
    return first
