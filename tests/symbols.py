"""Expressions of single elements as numbers: equal ones are equal. For `tests/plans.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fusedrnn.scan.graph import Level, Value, needed
from fusedrnn.scan.instructions import ELEMENTWISE

# An executor's code over a constant or a scalar, and what it is: (instruction, its operands from x, the other, k).
_VARIANTS: dict[str, Callable[..., tuple[str, tuple[Any, ...]]]] = {
    "add_constant": lambda x, k: ("add", (x, k)),
    "multiply_constant": lambda x, k: ("multiply", (x, k)),
    "constant_subtract": lambda x, k: ("subtract", (k, x)),
    "constant_divide": lambda x, k: ("divide", (k, x)),
    "maximum_constant": lambda x, k: ("maximum", (x, k)),
    "minimum_constant": lambda x, k: ("minimum", (x, k)),
    "less_constant": lambda x, k: ("less", (x, k)),
    "add_scalar": lambda x, s: ("add", (x, s)),
    "multiply_scalar": lambda x, s: ("multiply", (x, s)),
    "scalar_subtract": lambda x, s: ("subtract", (s, x)),
    "subtract_scalar": lambda x, s: ("subtract", (x, s)),
    "scalar_divide": lambda x, s: ("divide", (s, x)),
    "divide_scalar": lambda x, s: ("divide", (x, s)),
}
_COMMUTE = frozenset(("multiply", "maximum", "minimum", "equal", "not_equal", "logical_and", "logical_or"))


class Symbols:
    """All expressions, and those of a graph's values."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.keys: dict[Any, int] = {}
        self.names: list[Any] = []
        self.known: dict[Value, Any] = {}
        for value in needed(values):
            self._add(value)

    def of(self, value: Value) -> Any:
        """The symbols of a value's elements, in its shape."""
        for each in needed([value]) if value not in self.known else ():  # a value that the planner made
            self._add(each)
        return self.known[value]

    def _add(self, value: Value) -> None:
        if value not in self.known:
            self.known[value] = np.asarray(self._value(value), np.int64).reshape(value.shape)

    def make(self, *key: Any) -> int:
        """The number of an expression."""
        if key not in self.keys:
            self.keys[key] = len(self.names)
            self.names.append(key)
        return self.keys[key]

    def number(self, constant: float) -> int:
        """A constant."""
        return self.make("number", repr(float(constant)))

    # element by element

    def add(self, a: int, b: int) -> int:
        """A sum, as a set of terms."""
        terms: list[int] = []
        for each in (a, b):
            key = self.names[each]
            terms += key[1] if key[0] == "add" else [each]
        return self.make("add", tuple(sorted(terms)))

    def without(self, symbol: int, term: int) -> int:
        """A sum of two or more without one of its terms."""
        op, *rest = self.names[symbol]
        terms = list(rest[0]) if op == "add" else []
        if terms.count(term) != 1:
            return self.make("no sum", symbol)
        terms.remove(term)
        return terms[0] if len(terms) == 1 else self.make("add", tuple(terms))

    def elementwise(self, op: str, *operands: int) -> int:
        """An instruction over one element of each operand."""
        if op == "add":
            return self.add(*operands)
        if op == "copy":
            return operands[0]
        if op == "truncate":
            return self.make("as_integer", operands)
        if op == "subtract" and self.names[operands[1]][0] == "number":
            return self.add(operands[0], self.number(-float(self.names[operands[1]][1])))
        return self.make(op, tuple(sorted(operands)) if op in _COMMUTE else operands)

    def operation(self, code: str, constant: float | None) -> Callable[..., int]:
        """What an operation of a group does."""
        if code == "fill":
            assert constant is not None
            number = self.number(constant)
            return lambda: number
        if code == "copy_scalar":
            return lambda x: x
        if code in ("multiply_add", "multiply_add_scalar"):
            return lambda a, b, c: self.add(self.elementwise("multiply", a, b), c)
        if code in _VARIANTS:
            variant = _VARIANTS[code]
            if constant is None:
                return lambda x, s: self._variant(variant(x, s))
            number = self.number(constant)
            return lambda x: self._variant(variant(x, number))
        return lambda *operands: self.elementwise(code, *operands)

    def _variant(self, found: tuple[str, tuple[int, ...]]) -> int:
        return self.elementwise(found[0], *found[1])

    # more than one element

    def product_of(self, pairs: Sequence[tuple[int, int]]) -> int:
        """A sum of products, by ascending k; of one it is a multiplication."""
        if len(pairs) == 1:
            return self.elementwise("multiply", *pairs[0])
        return self.make("product", tuple((min(pair), max(pair)) for pair in pairs))

    def total_of(self, level: Level, source: Level) -> Callable[[int], int]:
        """A total from one level to another."""
        return lambda symbol: self.make("total", int(level), int(source), symbol)

    def _lines(self, x: Sequence[int], outer: int, n: int, inner: int) -> Any:
        return np.reshape(np.asarray(x, np.int64), (outer, n, inner))

    def inner(self, x: Sequence[int], y: Sequence[int], outer: int, n: int, inner: int) -> list[int]:
        """Sums of products along an axis."""
        lines = zip(self._lines(x, outer, n, inner), self._lines(y, outer, n, inner), strict=True)
        return [
            self.make("inner", tuple(zip(*pair, strict=True)))
            for a, b in lines
            for pair in zip(a.T.tolist(), b.T.tolist(), strict=True)
        ]

    def fold(self, x: Sequence[int], op: str, outer: int, n: int, inner: int) -> list[int]:
        """A result for each line along the axis."""
        lines = self._lines(x, outer, n, inner)
        return [self.make(op, tuple(lines[o, :, i].tolist())) for o in range(outer) for i in range(inner)]

    def over(self, x: Sequence[int], op: str, outer: int, n: int, inner: int) -> list[int]:
        """A result for each element, of its line."""
        lines = self._lines(x, outer, n, inner)
        return [self.make(op, place, tuple(lines[o, :, i].tolist())) for o, place, i in np.ndindex(outer, n, inner)]

    def recurrence(self, a: Sequence[int], b: Sequence[int], outer: int, n: int, inner: int, back: int) -> list[int]:
        """y_i = a_i y_(i-1) + b_i; the first a is not read."""
        of_a, of_b = self._lines(a, outer, n, inner), self._lines(b, outer, n, inner)
        found = of_b.copy()
        order = range(n)[::-1] if back else range(n)
        for before, place in pairwise(order):
            for o, i in np.ndindex(outer, inner):
                operands = (int(of_a[o, place, i]), int(found[o, before, i]), int(of_b[o, place, i]))
                found[o, place, i] = self.make("recurrence", operands)
        return [int(each) for each in found.flat]

    def gather(self, x: Sequence[int], at: Sequence[int], outer: int, n: int, inner: int, size: int) -> list[int]:
        """One of a line's elements, by a computed place."""
        lines, places = self._lines(x, outer, size, inner), self._lines(at, outer, n, inner)
        return [
            self.make("gather", tuple(lines[o, :, i].tolist()), int(places[o, k, i]))
            for o, k, i in np.ndindex(outer, n, inner)
        ]

    def scatter(self, x: Sequence[int], at: Sequence[int], outer: int, n: int, inner: int, size: int) -> list[int]:
        """A line's elements added at computed places."""
        lines, places = self._lines(x, outer, n, inner), self._lines(at, outer, n, inner)
        return [
            self.make("scatter", k, tuple(lines[o, :, i].tolist()), tuple(places[o, :, i].tolist()))
            for o, k, i in np.ndindex(outer, size, inner)
        ]

    def take(self, table: Sequence[int], at: Sequence[int], n: int, size: int, width: int) -> list[int]:
        """Entries of a table."""
        entries = np.reshape(np.asarray(table, np.int64), (size, width))
        return [self.make("take", tuple(entries[:, w].tolist()), int(at[k])) for k in range(n) for w in range(width)]

    def put(self, x: Sequence[int], at: Sequence[int], size: int, width: int) -> list[int]:
        """Entries added to a table of zeros."""
        entries, places = np.reshape(np.asarray(x, np.int64), (len(at), width)), tuple(int(each) for each in at)
        return [self.make("put", k, tuple(entries[:, w].tolist()), places) for k in range(size) for w in range(width)]

    def uniform(self, size: int, stream: int) -> list[int]:
        """Random numbers."""
        return [self.make("uniform", stream, i) for i in range(size)]

    # a graph's values

    def _value(self, value: Value) -> Any:
        op, inputs = value.op, [self.known[each] for each in value.inputs]
        if op == "leaf":
            return [self.make("leaf", value.index, i) for i in range(value.size)]
        if op == "constant":
            return [self.number(each) for each in value.graph.arrays[value.attributes[0]].reshape(-1)]
        if op in ("as_real", "stop_gradient") or (op == "as_integer" and value.inputs[0].kind != "real"):
            return inputs[0]
        if op in ELEMENTWISE:
            flat = [each.reshape(-1).tolist() for each in inputs]
            return [self.elementwise(op, *each) for each in zip(*flat, strict=True)]
        if hasattr(self, f"_{op}"):
            return getattr(self, f"_{op}")(value, *inputs)
        flat = [each.reshape(-1).tolist() for each in inputs]
        if op == "uniform":
            return self.uniform(value.size, value.attributes[0])
        if op == "total":
            total = self.total_of(value.level, value.inputs[0].level)
            return [total(each) for each in flat[0]]
        if op in ("take", "put"):
            index = value.inputs[1].size
            if op == "take":
                size = value.inputs[0].shape[0]
                return self.take(*flat, index, size, value.size // index if index else 0)
            return self.put(*flat, value.shape[0], value.inputs[0].size // index if index else 0)
        axes = value.attributes[0] if op == "sum" else (value.attributes[0],)
        shape = value.shape if op == "gather" else value.inputs[0].shape
        sizes = [int(np.prod(part, dtype=int)) for part in (shape[: axes[0]], shape[axes[0] : axes[-1] + 1])]
        sizes.append(int(np.prod(shape[axes[-1] + 1 :], dtype=int)))
        if op == "inner":
            return self.inner(*flat, *sizes)
        if op in ("sum", "max", "argmax"):
            return self.fold(flat[0], op, *sizes)
        if op in ("argsort", "softmax"):
            return self.over(flat[0], op, *sizes)
        if op == "recurrence":
            return self.recurrence(*flat, *sizes, int(value.attributes[1]))
        if op == "gather":
            return self.gather(*flat, *sizes, value.inputs[0].shape[axes[0]])
        if op == "scatter":
            return self.scatter(*flat, *sizes, value.attributes[1])
        raise AssertionError(f"{op} is not known to the verifier")

    def _broadcast(self, value: Value, x: Any) -> Any:
        return np.broadcast_to(x, value.shape)

    def _reshape(self, value: Value, x: Any) -> Any:
        return x.reshape(value.shape)

    def _transpose(self, value: Value, x: Any) -> Any:
        return x.transpose(value.attributes[0])

    def _section(self, value: Value, shape: tuple[int, ...]) -> Any:
        starts, steps = value.attributes
        return np.ix_(*(start + step * np.arange(n) for start, n, step in zip(starts, shape, steps, strict=True)))

    def _slice(self, value: Value, x: Any) -> Any:
        return x[self._section(value, value.shape)]

    def _pad(self, value: Value, x: Any) -> Any:
        found = np.full(value.shape, self.number(0.0))
        found[self._section(value, x.shape)] = x
        return found

    def _concatenate(self, value: Value, *parts: Any) -> Any:
        return np.concatenate(parts, value.attributes[0])

    def _product(self, value: Value, a: Any, b: Any) -> Any:
        found = []
        for place in np.ndindex(*value.shape):
            row, column = a[(*place[:-2], place[-2])], b[(*place[:-2], slice(None), place[-1])]
            found.append(self.product_of(list(zip(row.tolist(), column.tolist(), strict=True))))
        return found
