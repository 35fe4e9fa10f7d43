"""Instructions before they are ordered: what each reads and writes, and which products add up in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from fusedrnn.scan import instructions as to
from fusedrnn.scan.graph import Level, Step, Value
from fusedrnn.scan.instructions import ELEMENTWISE
from fusedrnn.scan.views import View, c_strides, collapsed, is_free, view_of

Stage = int
SHARED_BEFORE, ROW_BEFORE, STEP, ROW_AFTER, SHARED_AFTER = range(5)


def stage_of(value: Value) -> Stage:
    """When a value is computed."""
    if value.level is Level.STEP:
        return STEP
    if value.level is Level.ROW:
        return ROW_AFTER if value.after else ROW_BEFORE
    return SHARED_AFTER if value.after else SHARED_BEFORE


@dataclass(eq=False)
class Task:
    """One instruction.

    Attributes:
        kind: The executor's code, "element" for a part of a group.
        writes: The value whose memory it writes; None for one that stores to a sequence.
        reads: The views that it reads.
        final: Whether the value is complete then; products that add to it follow otherwise.
        numbers: What the code needs beside places.
        op: The elementwise instruction.
        size: Elements of one row.
        before: The task that must come before it, as it adds to its result.
    """

    kind: str
    writes: Value | None
    reads: list[View]
    size: int
    final: bool = True
    numbers: tuple[int, ...] = ()
    op: str = ""
    before: Task | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Stored(NamedTuple):
    """A sequence that rows write for a total: elements of a value from an offset on; once, or at each step."""

    base: Value
    offset: int
    size: int
    once: bool


class Total(NamedTuple):
    """A sum over rows, from what each step or row stores."""

    value: Value
    kind: str  # "product", "sum", "put"
    parts: tuple[Value, ...]


def total_of(value: Value) -> Total:
    """How a total over rows is computed: products of rows are one matrix product over all of them."""
    (x,) = value.inputs
    inner = x
    while is_free(inner) and inner.op == "reshape":
        inner = inner.inputs[0]
    # A product whose factors have more elements than it is computed for each row, and summed.
    if inner.op == "product" and inner.ndim == 2 and inner.size > inner.inputs[0].size + inner.inputs[1].size:
        a, b = inner.inputs
        return Total(value, "product", (to.transpose(a), b))
    if inner.op == "put" and inner.size == x.size:
        return Total(value, "put", inner.inputs)
    return Total(value, "sum", (x,))


class Tasks:
    """All tasks of a step, stage by stage.

    Args:
        step: The step.
        lent: Values that lie in memory already.
        pinned: Values that must have memory of their own: those of the reserve.
        uneven: Whether rows may end before others, so that totals must ask which still run.
    """

    def __init__(self, step: Step, lent: Mapping[Value, Any], pinned: Sequence[Value], uneven: bool) -> None:
        self.uneven = uneven
        self.step = step
        self.lent = lent
        self.stages: list[list[Task]] = [[] for _ in range(5)]
        self.totals: dict[Value, Total] = {}
        self.values = self._needed(pinned)
        self.uses = Counter(child for value in self.values for child in self._children(value))
        self.pinned = {*pinned, *step.results}
        self.own: set[Value] = {value for value in self.values if value in lent}
        self.sequences: dict[Stored, int] = {}
        self.inside: dict[Value, tuple[Value, int]] = {}  # parts that lie in what they are joined to, and where
        self.loaded = {*step.inputs, *step.rows}
        self._absorbed: set[Value] = set()
        self._chains: dict[Value, list[Value]] = {}
        before = -1
        while before < len(self.own):  # memory of its own changes how later views lie
            before = len(self.own)
            for value in self.values:
                self._own(value)
        self.states_after = {self.view(value).base for value in step.new_states}
        for value in reversed(self.values):
            if value.op == "add" and value not in self._absorbed and value not in lent:
                self._chain(value)
        for value in self.values:
            if value not in lent and value not in self._absorbed:
                self._plan(value)

    # which values there are

    def _needed(self, pinned: Sequence[Value]) -> list[Value]:
        seen: set[Value] = set()
        pending = [*self.step.results, *pinned]
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            if value.op == "total" and value.level is Level.SHARED and value not in self.lent:
                self.totals[value] = total_of(value)
            pending.extend(self._children(value))
        return sorted(seen, key=lambda value: value.index)

    def _children(self, value: Value) -> Sequence[Value]:
        if value in self.lent:
            return ()
        return self.totals[value].parts if value in self.totals else value.inputs

    def view(self, value: Value) -> View:
        """Where its elements are."""
        return view_of(value, self.own)

    def _own(self, value: Value) -> None:
        """Gives memory to what an instruction needs without gaps, where its elements lie scattered."""
        if value in self.lent:
            return
        for child in self._needs_contiguous(value):
            if not self.view(child).contiguous:
                self.own.add(child)
        for result in self.step.results:
            if result is value and not self.view(value).contiguous and not is_zero(value):
                self.own.add(value)

    def _needs_contiguous(self, value: Value) -> Sequence[Value]:
        if value in self.totals or (value.op == "total" and self.uneven):
            return self._children(value)
        if value.op in ELEMENTWISE or value.op in ("leaf", "constant", "pad", "concatenate") or is_free(value):
            return ()
        if value.op == "product":
            if self.is_outer(value):
                return ()
            shared = self.affine_side(value)
            if shared is not None:
                return (value.inputs[1 - shared],)
            return () if len(self._batch(value)[0]) == 1 else value.inputs
        return value.inputs

    def _batch(self, value: Value) -> tuple[list[int], list[list[int]]]:
        views = [self.view(each) for each in value.inputs]
        lead = value.ndim - 2
        own = View(value, 0, value.shape, c_strides(value.shape))
        return collapsed(value.shape[:lead], *(each.strides[:lead] for each in (*views, own)))

    def affine_side(self, value: Value) -> int | None:
        """Which factor of a product is alike for all rows, where the product with packed weights takes it."""
        if value.ndim != 2 or value.level is Level.SHARED:
            return None
        levels = [self.view(each).base.level for each in value.inputs]
        if levels[1] is Level.SHARED and levels[0] is not Level.SHARED:
            return 1
        if levels[0] is Level.SHARED and levels[1] is not Level.SHARED and value.shape[1] == 1:
            return 0
        return None

    # sums of products

    def _inner(self, value: Value) -> Value:
        """The value whose elements these are, in the same order, where nobody else reads them."""
        while (
            value not in self.pinned
            and value not in self.own
            and is_free(value)
            and self.uses[value] == 1
            and value.size == value.inputs[0].size
            and view_of(value, {value.inputs[0]}).contiguous
        ):
            value = value.inputs[0]
        return value

    def _is_sole(self, value: Value) -> bool:
        return self.uses[value] == 1 and value not in self.pinned and value not in self.own

    def is_outer(self, value: Value) -> bool:
        """Whether a product has one term, so that it is a multiplication of broadcasts."""
        one_row = value.size == max(value.shape, default=1)  # of weights, which a product takes as they are packed
        return (
            value.op == "product"
            and value.inputs[0].shape[-1] == 1
            and (self.affine_side(value) is None or not one_row)
        )

    def _adds_up(self, value: Value) -> bool:
        return value.op == "product" and not self.is_outer(value)

    def _chain(self, root: Value) -> None:
        """Notes the terms of a sum among which are products that nobody else reads: they add up in its memory."""
        terms: list[Value] = []
        inside: list[Value] = []
        products: list[Value] = []

        pending = [root]  # the last comes first; sums may be too long for calls within calls
        while pending:
            value = pending.pop()
            inner = self._inner(value)
            if inner.op == "add" and inner.level is root.level and (inner is root or self._is_sole(inner)):
                inside.append(inner)
                pending += inner.inputs[::-1]
            elif self._adds_up(inner) and stage_of(inner) == stage_of(root) and self._is_sole(inner):
                terms.append(inner)
                products.append(inner)
            else:
                terms.append(value)
        if products and stage_of(root) != SHARED_BEFORE:
            self._absorbed.update(value for value in inside if value is not root)
            self._absorbed.update(products)
            self._chains[root] = terms

    def _plan_chain(self, root: Value) -> None:
        terms = self._chains[root]
        products = [term for term in terms if term in self._absorbed]
        rest = [term for term in terms if term not in self._absorbed]
        bias = self._bias(products[0], rest)
        before: Task | None = None
        if rest and bias is None:
            before = self._add_rest(root, rest)
        for product in products:
            task = self._product(product, root, adds=before is not None, bias=bias)
            bias = None
            task.before = before
            task.final = product is products[-1]
            before = task

    def _bias(self, product: Value, rest: Sequence[Value]) -> View | None:
        """A term that each row of an affine product may start from."""
        side = self.affine_side(product)
        if len(rest) != 1 or side is None:
            return None
        view = self.view(rest[0])
        units = product.shape[side]
        if view.base.level is not Level.SHARED or (view.base in self.lent and view.base.size == 0):
            return None
        sizes, (strides,) = collapsed(view.shape, view.strides)
        if (sizes, strides) == ([units], [1]) and product.size == units:
            return view
        return view if (sizes, strides) == ([product.size // units, units], [0, 1]) else None

    def _add_rest(self, root: Value, rest: Sequence[Value]) -> Task:
        stage = self.stages[stage_of(root)]
        if len(rest) == 1:
            task = Task("element", root, [self.view(rest[0])], root.size, op="copy", final=False)
        else:
            total = rest[0]
            for term in rest[1:-1]:
                total = self._temporary("add", [total, term], root)
            task = Task("element", root, [self.view(total), self.view(rest[-1])], root.size, op="add", final=False)
        stage.append(task)
        return task

    def _temporary(self, op: str, inputs: Sequence[Value], like: Value) -> Value:
        """An elementwise value that no step asked for."""
        flat = [to.reshape(each, like.shape) for each in inputs]
        value = to.binary(op, *flat)
        if value not in self.own:
            self.own.add(value)
            views = [self.view(each) for each in flat]
            self.stages[stage_of(value)].append(Task("element", value, views, value.size, op=op))
        return value

    # each instruction

    def _plan(self, value: Value) -> None:
        stage = self.stages[stage_of(value)]
        views = [self.view(each) for each in value.inputs] if value not in self.totals else []
        if value in self._chains:
            return self._plan_chain(value)
        if value.op == "leaf":
            if value in self.loaded:
                stage.append(Task("load", value, [], value.size))
        elif value.op == "total":
            self._total(value)
        elif value.op == "constant" or (is_free(value) and self.view(value).base is not value):
            pass
        elif is_free(value):
            shape, source = value.shape, view_of(value, self.own - {value})
            if value.op == "reshape":
                shape, source = value.inputs[0].shape, self.view(value.inputs[0])
            self._move(value, shape, View(value, 0, shape, c_strides(shape)), source)
        elif value.op in ELEMENTWISE:
            op = {"as_integer": "truncate"}.get(value.op, value.op)
            stage.append(Task("element", value, views, value.size, op=op))
        elif self.is_outer(value):
            stage.append(Task("element", value, [_spread(view, value) for view in views], value.size, op="multiply"))
        elif value.op == "product":
            self._product(value, value, adds=False, bias=None)
        elif value.op == "concatenate":
            self._concatenate(value)
        elif value.op == "pad":
            self._pad(value)
        else:
            stage.append(self._along_axis(value))
        return None

    def _move(self, value: Value, shape: tuple[int, ...], out: View, source: View, before: Task | None = None) -> Task:
        sizes, (to_strides, from_strides) = collapsed(shape, out.strides, source.strides)
        details = {"sizes": sizes, "out": to_strides, "in": from_strides, "offset": out.offset}
        task = Task("move", value, [source], prod(shape), before=before, details=details)
        self.stages[stage_of(value)].append(task)
        return task

    def _concatenate(self, value: Value) -> None:
        """Parts are computed in their place, where nothing else says where they lie; others are moved there."""
        (axis,) = value.attributes
        strides = c_strides(value.shape)
        joined: list[View] = []
        before, first = None, 0
        for part in value.inputs:
            out = View(value, first * strides[axis], part.shape, strides)
            first += part.shape[axis]
            view = self.view(part)
            if not part.size:
                continue
            if out.contiguous and self._may_lie_inside(view, value):
                self.inside[view.base] = (value, out.offset)
                joined.append(view)
                continue
            before = self._move(value, part.shape, out, view, before)
            before.final = False
        if joined or before is None:
            join = Task("join", value, joined, value.size, before=before)
            self.stages[stage_of(value)].append(join)
        else:
            before.final = True

    def _may_lie_inside(self, view: View, value: Value) -> bool:
        base = view.base
        computed = base not in self.lent and base.op != "constant" and (base.op != "leaf" or base in self.loaded)
        return (
            computed
            and view.whole
            and base not in self.pinned
            and base not in self.states_after
            and base not in self.inside
            and base.op != "total"
            and stage_of(base) == stage_of(value)
        )

    def _pad(self, value: Value) -> None:
        zeros = Task("element", value, [], value.size, op="fill", final=False, details={"constant": 0.0})
        self.stages[stage_of(value)].append(zeros)
        starts, steps = value.attributes
        strides = c_strides(value.shape)
        offset = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        walked = tuple(step * stride for step, stride in zip(steps, strides, strict=True))
        (x,) = value.inputs
        self._move(value, x.shape, View(value, offset, x.shape, walked), self.view(x), zeros)

    def _product(self, value: Value, target: Value, *, adds: bool, bias: View | None) -> Task:
        side = self.affine_side(value)
        a, b = (self.view(each) for each in value.inputs)
        m, k, n = *value.inputs[0].shape[-2:], value.shape[-1]
        if side is not None:
            weights, x = (b, a) if side else (a, b)
            units = n if side else m
            strides = (b.strides[1], b.strides[0]) if side else a.strides
            details = {"weights": weights, "units": units, "depth": k, "strides": strides, "bias": bias}
            rows = m if side else 1
            task = Task("affine", target, [x], value.size, numbers=(rows, int(adds)), details=details)
        else:
            sizes, walks = self._batch(value)
            walks = [walk if len(walk) == 1 else [0] for walk in walks]
            shape = (
                *(sizes[0] if len(sizes) == 1 else 1, m, n, k),
                *(walks[0][0], *a.strides[-2:], walks[1][0], *b.strides[-2:]),
                *(walks[2][0], n, 1, int(adds)),
            )
            task = Task("product", target, [a, b], value.size, details={"shape": shape})
        self.stages[stage_of(value)].append(task)
        return task

    def _along_axis(self, value: Value) -> Task:
        views = [self.view(each) for each in value.inputs]
        x = value.inputs[0] if value.inputs else value
        if value.op == "uniform":
            return Task("uniform", value, [], value.size, numbers=(value.size, value.attributes[0]))
        if value.op == "take":
            index = value.inputs[1]
            numbers = (index.size, x.shape[0], prod(x.shape[1:]))
            return Task("take", value, views, value.size, numbers=numbers)
        if value.op == "put":
            index = value.inputs[1]
            numbers = (index.size, value.shape[0], prod(value.shape[1:]))
            return Task("put", value, views, value.size, numbers=numbers)
        axis = value.attributes[0] if value.op != "sum" else value.attributes[0][0]
        last = axis if value.op != "sum" else value.attributes[0][-1]
        shape = value.shape if value.op == "gather" else x.shape
        sizes = prod(shape[:axis]), prod(shape[axis : last + 1]), prod(shape[last + 1 :])
        extra: tuple[int, ...] = ()
        if value.op == "gather":
            extra = (x.shape[axis],)
        elif value.op == "scatter":
            extra = (value.shape[axis],)
        elif value.op == "recurrence":
            extra = (int(value.attributes[1]),)
        return Task(value.op, value, views, value.size, numbers=(*sizes, *extra))

    def _total(self, value: Value) -> None:
        if value.level is Level.ROW:
            view = self.view(value.inputs[0])
            if self.uneven:
                self.stages[STEP].append(Task("accumulate", value, [view], value.size))
            else:
                so_far = View(value, 0, value.shape, c_strides(value.shape))
                self.stages[STEP].append(Task("element", value, [so_far, view], value.size, op="add"))
            return
        for stored in self.stored(value):
            if stored not in self.sequences:
                self.sequences[stored] = len(self.sequences)
                view = View(stored.base, stored.offset, (stored.size,), (1,))
                stage = self.stages[ROW_AFTER if stored.once else STEP]
                stage.append(Task("store", None, [view], stored.size, details={"total": stored}))

    def stored(self, value: Value) -> list[Stored]:
        """The sequences that a total over rows reads."""
        once = value.inputs[0].level < Level.STEP
        views = [self.view(part) for part in self.totals[value].parts]
        return [Stored(view.base, view.offset, prod(view.shape), once) for view in views]


def _spread(view: View, value: Value) -> View:
    """A factor [..., m, 1] or [..., 1, n] of an outer product, over all of its elements."""
    strides = tuple(
        0 if n == 1 and whole != 1 else s for n, whole, s in zip(view.shape, value.shape, view.strides, strict=True)
    )
    return View(view.base, view.offset, value.shape, strides)


def is_zero(value: Value) -> bool:
    """Whether a value is known to be zeros."""
    base = view_of(value, ()).base
    return base.op == "constant" and not base.graph.arrays[base.attributes[0]].any()
