"""The arguments of a call of scan, checked before any work; errors name the leaf, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from fusedrnn._core import NO_STEPS
from fusedrnn.arrays import Array
from fusedrnn.scan.leaves import KINDS, NotAnArray, flatten, named, read

_AXES = {"params": (), "state": ("N",), "context": ("N",), "reset_state": ("N",), "x": ("T", "N")}


class Arguments:
    """The leaves of one call, flat.

    Attributes:
        key: Hashable: the forms of the structures, and of each leaf the shape of one row and the dtype.
        params, state, context, x, reset_state: Lists of arrays.
        steps, batch: T and N.
    """

    __slots__ = ("batch", "context", "key", "params", "reset_state", "state", "steps", "x")

    def __init__(
        self, params: Any, state: Any, x: Any, context: Any, reset_state: Any, steps: int | None, batch: int | None
    ) -> None:
        self.key: list[Any] = []
        self.params: list[Array] = []
        self.state: list[Array] = []
        self.context: list[Array] = []
        self.reset_state: list[Array] = []
        self.x: list[Array] = []
        try:
            flatten(params, 0, self.params, self.key)
            flatten(state, 1, self.state, self.key)
            flatten(context, 1, self.context, self.key)
            flatten(x, 2, self.x, self.key)
            if reset_state is not None:
                flatten(reset_state, 1, self.reset_state, self.key)
        except NotAnArray:
            _refuse_other(params=params, state=state, context=context, x=x, reset_state=reset_state)
        if steps is not None:
            steps = whole_number("steps", steps, 0, 1 << 62)
        if self.x:
            shape = self.x[0].shape
            if len(shape) < 2:
                (name, _), *_ = named(x, "x")
                raise ValueError(f"{name}: expected shape (T, N, ...), got {shape}")
            if steps is not None and steps != shape[0]:
                raise ValueError(f"steps: expected None or {shape[0]}, the steps of x, got {steps}")
            steps, batch = shape[:2]
        elif steps is None:
            raise ValueError("steps: expected the number of steps, as x has no arrays, got None")
        elif batch is None:
            rows = self.state or self.context
            if not rows or not rows[0].ndim:
                raise ValueError("state: expected an array [N, ...], as x has none that tells N")
            batch = len(rows[0])
        if steps < 1:
            raise ValueError(f"{'x' if self.x else 'steps'}: {NO_STEPS}")
        self.steps, self.batch = steps, batch
        lead = (steps, batch)
        for leaf in self.x:
            if leaf.shape[:2] != lead:
                _refuse_lead("x", x, lead)
        rows_of = (batch,)
        for leaf in self.state:
            if leaf.shape[:1] != rows_of:
                _refuse_lead("state", state, rows_of)
        for leaf in self.context:
            if leaf.shape[:1] != rows_of:
                _refuse_lead("context", context, rows_of)
        for leaf in self.reset_state:
            if leaf.shape[:1] != rows_of:
                _refuse_lead("reset_state", reset_state, rows_of)


def _refuse_lead(role: str, tree: Any, lead: tuple[int, ...]) -> NoReturn:
    for name, leaf in named(tree, role):
        shape = np.shape(leaf)
        if shape[: len(lead)] != lead:
            wanted = ", ".join(map(str, lead))
            axes = ", ".join(_AXES[role])
            raise ValueError(f"{name}: expected shape ({wanted}, ...) of ({axes}, ...), got {shape}")
    raise AssertionError("internal error: no leaf with another shape")


def _refuse_other(**trees: Any) -> NoReturn:
    for role, tree in trees.items():
        for name, leaf in named(tree, role):
            try:
                read(leaf)
            except NotAnArray:
                hint = "; numpy.array(value, dtype) makes one of a number" * isinstance(leaf, (int, float))
                raise TypeError(
                    f"{name}: expected an array, or a dict, tuple or list of arrays, got {type(leaf).__name__}{hint}"
                ) from None
    raise AssertionError("internal error: every leaf is an array")


def common_dtype(**trees: Any) -> np.dtype[Any]:
    """The dtype of all real leaves; float64 where there are none.

    Raises TypeError where they differ, or for a leaf that is no array of numbers.
    """
    first, first_name = None, ""
    for role, tree in trees.items():
        for name, leaf in named(tree, role):
            dtype = read(leaf).dtype
            if dtype.kind not in KINDS or (dtype.kind == "f" and dtype not in (np.float32, np.float64)):
                others = "" if role == "params" else ", integers or booleans"
                raise TypeError(f"{name}: expected float32 or float64{others}, got {dtype}")
            if KINDS[dtype.kind] != "real":
                if role == "params":
                    raise TypeError(
                        f"{name}: expected float32 or float64, got {dtype}; integers and booleans go into x, state or "
                        "context, or into the step as constants"
                    )
            elif first is None:
                first, first_name = dtype, name
            elif dtype != first:
                raise TypeError(f"{name}: expected dtype {first} like {first_name}, got {dtype}")
    return np.dtype(np.float64) if first is None else first


def owned(leaf: Array, dtype: np.dtype[Any], role: str, tree: Any) -> Array:
    """A copy of integers as int64 that reals of `dtype` hold exactly, or of booleans."""
    if leaf.dtype == np.bool_:
        return np.array(leaf, order="C")
    most = 1 << (24 if dtype == np.float32 else 53)
    if leaf.size and (leaf.max() > most or leaf.min() < -most):
        for name, other in named(tree, role):
            other = read(other)
            if other.dtype.kind in "iu" and other.size and (other.max() > most or other.min() < -most):
                worst = int(other.max()) if other.max() > most else int(other.min())
                raise ValueError(
                    f"{name}: expected integers from {-most} to {most}, which {dtype} has exactly, got {worst}"
                )
    return np.array(leaf, np.int64, order="C")


def contiguous(leaves: Sequence[Array], role: str, tree: Any) -> None:
    """Raise ValueError unless all are C-contiguous."""
    for leaf in leaves:
        if not leaf.flags.c_contiguous:
            for name, other in named(tree, role):
                if not read(other).flags.c_contiguous:
                    raise ValueError(f"{name}: expected a C-contiguous array; use numpy.ascontiguousarray")


def whole_number(name: str, value: Any, least: int, below: int) -> int:
    """An integer in a range."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not least <= value < below:
        raise ValueError(f"{name}: expected an integer from {least} to {below - 1}, got {value}")
    return int(value)
