"""One step of a recurrence as a graph: what a value is, and which levels of repetition there are.

A graph is a list of values in the order in which they can be computed, each an instruction over earlier ones. Two equal
instructions over the same values are one value. Numbers have no precision yet: the call settles float32 or float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod
from typing import Any, Literal

import numpy as np

from fusedrnn.arrays import Array

Kind = Literal["real", "integer", "boolean"]
Shape = tuple[int, ...]


class Level(IntEnum):
    """How often a value is computed: once a call, once for each row of the batch, or at each step of each row.

    Values of a lower level may be used at a higher one. The way down is `total` alone, which sums over steps or rows.
    """

    SHARED = 0
    ROW = 1
    STEP = 2


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Stand for what an instruction gives, of one row: `shape` has no axis of the batch or of time.

    Attributes:
        graph: The graph that it belongs to.
        index: Its place in ``graph.values``.
        op: The instruction's name (`fusedrnn.scan.instructions` has them all); "leaf" for what comes from outside.
        inputs: What the instruction reads.
        attributes: Its constants, hashable; for "constant" the place of the array in ``graph.arrays``.
        shape: Of one row.
        kind: "real"; or "integer" and "boolean", which have no gradient.
        level: How often it is computed.
        after: Whether it depends on a total, and so is computed when all steps are done.
        where: "file.py:12", the line of the user's step that asked for it.
    """

    graph: Graph
    index: int
    op: str
    inputs: tuple[Value, ...]
    attributes: tuple[Any, ...]
    shape: Shape
    kind: Kind
    level: Level
    after: bool
    where: str

    @property
    def size(self) -> int:
        """Elements of one row."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes of one row."""
        return len(self.shape)

    def __repr__(self) -> str:
        inputs = ", ".join(f"%{value.index}" for value in self.inputs)
        return f"%{self.index} = {self.op}({inputs}){self.attributes or ''} {self.shape}"


@dataclass(eq=False)
class Graph:
    """Values in an order in which they can be computed.

    Attributes:
        values: All of them; a value's inputs stand before it.
        arrays: The constants, as float64, int64 or bool arrays.
        where: The user's line that is being traced, which new values note.
    """

    values: list[Value] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    where: str = ""
    _known: dict[Any, Value] = field(default_factory=dict, repr=False)

    def leaf(self, name: str, shape: Shape, kind: Kind, level: Level) -> Value:
        """A value that comes from outside; each call makes a new one."""
        return self._append("leaf", (), (name, len(self.values)), shape, kind, level, False)

    def constant(self, array: Any) -> Value:
        """A value known now, shared by all rows and steps; equal ones are one."""
        array = np.array(array)
        kind = _kind(array.dtype)
        array = array.astype({"real": np.float64, "integer": np.int64, "boolean": np.bool_}[kind])
        key = ("constant", kind, array.shape, array.tobytes())
        if key not in self._known:
            self.arrays.append(array)
            self._known[key] = self._append(
                "constant", (), (len(self.arrays) - 1,), array.shape, kind, Level.SHARED, False
            )
        return self._known[key]

    def make(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Shape,
        kind: Kind = "real",
        attributes: tuple[Any, ...] = (),
        level: Level | None = None,
    ) -> Value:
        """The value of an instruction. Its level is the highest of its inputs', unless it is given."""
        inputs = tuple(inputs)
        if level is None:
            level = max(value.level for value in inputs)
        after = any(value.after for value in inputs) or op == "total"
        key = (op, inputs, attributes, shape, kind, level)
        if key not in self._known:
            self._known[key] = self._append(op, inputs, attributes, shape, kind, level, after)
        return self._known[key]

    def _append(
        self,
        op: str,
        inputs: tuple[Value, ...],
        attributes: tuple[Any, ...],
        shape: Shape,
        kind: Kind,
        level: Level,
        after: bool,
    ) -> Value:
        value = Value(
            self, len(self.values), op, inputs, attributes, tuple(map(int, shape)), kind, level, after, self.where
        )
        self.values.append(value)
        return value


def _kind(dtype: Any) -> Kind:
    if dtype.kind == "b":
        return "boolean"
    if dtype.kind in "iu":
        return "integer"
    if dtype.kind == "f":
        return "real"
    raise TypeError(f"expected numbers or booleans, got {dtype}")


@dataclass(frozen=True, eq=False)
class Step:
    """Hold what one step of a recurrence takes and gives. Its derivative is a Step too, walked the other way in time.

    Attributes:
        graph: The graph of all that follows.
        shared: Leaves of level SHARED: parameters; in derivatives also gradients of what is shared.
        rows: Leaves of level ROW: the context, and gradients of totals over steps.
        states: Leaves of level STEP that the step before gave.
        inputs: Leaves of level STEP that come from sequences [T, N, ...].
        new_states: The states for the step after, one for each of `states`, shapes alike.
        outputs: Values of level STEP (or lower, then alike at each), kept as sequences [T, N, ...].
        row_outputs: Values of level ROW or lower, kept as [N, ...], mostly totals over steps.
        shared_outputs: Values of level SHARED, mostly totals over rows.
    """

    graph: Graph
    shared: tuple[Value, ...]
    rows: tuple[Value, ...]
    states: tuple[Value, ...]
    inputs: tuple[Value, ...]
    new_states: tuple[Value, ...]
    outputs: tuple[Value, ...]
    row_outputs: tuple[Value, ...] = ()
    shared_outputs: tuple[Value, ...] = ()

    @property
    def leaves(self) -> tuple[Value, ...]:
        """All that comes from outside."""
        return self.shared + self.rows + self.states + self.inputs

    @property
    def results(self) -> tuple[Value, ...]:
        """All that goes out."""
        return self.new_states + self.outputs + self.row_outputs + self.shared_outputs


def needed(results: Sequence[Value]) -> list[Value]:
    """All values that these depend on, and themselves, in the order in which they can be computed."""
    seen: set[Value] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value not in seen:
            seen.add(value)
            pending.extend(value.inputs)
    return sorted(seen, key=lambda value: value.index)
