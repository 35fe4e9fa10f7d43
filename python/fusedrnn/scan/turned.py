"""States that are matrices with more rows than columns, such as a memory of many narrow slots, lie turned.

What is done to such a state, element by element with a vector beside its rows or columns, goes through it row by row:
few long rows are faster than many short ones. Results have the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusedrnn.scan import instructions as to
from fusedrnn.scan.graph import Step, Value, needed
from fusedrnn.scan.instructions import ELEMENTWISE
from fusedrnn.scan.rules import exchanged

# Instructions along an axis, their first attribute, that keep the shapes of all that they read.
_ALONG = frozenset(("softmax", "argsort", "recurrence", "concatenate", "gather", "scatter"))
_REDUCTIONS = frozenset(("sum", "inner", "max", "argmax"))


def turned_states(step: Step) -> list[bool]:
    """Say which states are worth it."""
    values = [value for value in needed(step.results) if value.op in ELEMENTWISE and value.ndim == 2]
    shapes = {value.shape for value in values if any(_is_spread(each) for each in value.inputs)}
    return [value.shape in shapes and value.shape[0] > value.shape[1] > 1 for value in step.states]


def _is_spread(value: Value) -> bool:
    return value.op == "broadcast" and value.inputs[0].size > 1


def turn(step: Step, turned: Sequence[bool]) -> Step:
    """Rewrite a step so that these states have their axes exchanged; nothing else that it takes or gives changes."""
    if not any(turned):
        return step
    return _Turn(step, turned).step


class _Turn:
    """Rewrites value by value.

    Attributes:
        same: What stands for a value now.
        across: What stands for a matrix with its axes exchanged.
        first: The matrices of which that comes first.
    """

    def __init__(self, step: Step, turned: Sequence[bool]) -> None:
        self.same: dict[Value, Value] = {}
        self.across: dict[Value, Value] = {}
        self.first: set[Value] = set()
        graph = step.graph
        before = graph.where
        for state, wish in zip(step.states, turned, strict=True):
            if wish:
                self.first.add(state)
                self.across[state] = graph.leaf(state.attributes[0], state.shape[::-1], state.kind, state.level)
        for value in needed((*step.states, *step.results)):
            graph.where = value.where
            self._rewrite(value)
        new_states = tuple(
            self.turned(value) if wish else self.of(value) for value, wish in zip(step.new_states, turned, strict=True)
        )
        self.step = replace(
            step,
            states=tuple(self.across.get(state, state) for state in step.states),
            new_states=new_states,
            outputs=tuple(map(self.of, step.outputs)),
            row_outputs=tuple(map(self.of, step.row_outputs)),
            shared_outputs=tuple(map(self.of, step.shared_outputs)),
        )
        graph.where = before

    def of(self, value: Value) -> Value:
        """Return what stands for a value, in its shape."""
        if value not in self.same:
            self.same[value] = to.transpose(self.across[value])
        return self.same[value]

    def turned(self, value: Value) -> Value:
        """Return what stands for a matrix, with its axes exchanged; made so, where it is made of vectors."""
        if value not in self.across:
            self.across[value] = self._exchanged(value)
        return self.across[value]

    def _exchanged(self, value: Value) -> Value:
        if value.op == "constant":
            return value.graph.constant(value.graph.arrays[value.attributes[0]].T)
        if value.op == "broadcast" and value.level is value.inputs[0].level:
            inner = self.of(value.inputs[0])
            shape = (1,) * (2 - inner.ndim) + inner.shape
            return to.broadcast(to.reshape(inner, shape[::-1]), value.shape[::-1])
        if value.op in ELEMENTWISE:
            inputs = [self.turned(each) for each in value.inputs]
            return value.graph.make(value.op, inputs, value.shape[::-1], value.kind, value.attributes, value.level)
        if value.op == "product":
            return self._product(value)
        return to.transpose(self.of(value))

    def _product(self, value: Value) -> Value:
        """Return what stands for a product, with its axes exchanged."""
        a, b = (self.across[each] if each in self.first else exchanged(self.of(each)) for each in value.inputs)
        return to.product(b, a)

    def _rewrite(self, value: Value) -> None:
        if value in self.first:
            return
        if not any(each in self.first for each in value.inputs):
            self.same[value] = self._again(value, [self.of(each) for each in value.inputs])
        elif value.op == "transpose":
            self.same[value] = self.across[value.inputs[0]]
        elif value.op in ELEMENTWISE:
            self._turn(value, value.attributes)
        elif value.op in _ALONG:
            axis, *rest = value.attributes
            self._turn(value, (1 - axis, *rest))
        elif value.op in ("slice", "pad"):
            starts, steps = value.attributes
            self._turn(value, (starts[::-1], steps[::-1]))
        elif value.op in _REDUCTIONS:
            self._reduce(value)
        elif value.op == "product" and value.ndim == 2:
            self.same[value] = exchanged(self._product(value))  # whose gradients lie as the state does
        else:
            self.same[value] = self._again(value, [self.of(each) for each in value.inputs])

    def _again(self, value: Value, inputs: Sequence[Value]) -> Value:
        """Return the same instruction over what stands for its operands."""
        if all(new is old for new, old in zip(inputs, value.inputs, strict=True)):
            return value
        return value.graph.make(value.op, inputs, value.shape, value.kind, value.attributes, value.level)

    def _turn(self, value: Value, attributes: tuple[object, ...]) -> None:
        inputs = [self.turned(each) for each in value.inputs]
        self.first.add(value)
        self.across[value] = value.graph.make(value.op, inputs, value.shape[::-1], value.kind, attributes, value.level)

    def _reduce(self, value: Value) -> None:
        (of,) = value.attributes
        axes = (of,) if isinstance(of, (int, np.integer)) else of
        if len(axes) == 2:  # the order of such a sum is that of the matrix as it was
            self.same[value] = self._again(value, [self.of(each) for each in value.inputs])
            return
        other = (1 - axes[0],) if value.op == "sum" else 1 - axes[0]
        inputs = [self.turned(each) for each in value.inputs]
        self.same[value] = value.graph.make(value.op, inputs, value.shape, value.kind, (other,), value.level)
