"""A verifier of plans: runs a plan's instructions over symbols, and compares what comes out with the step's own graph.

A symbol is a number that stands for an expression of one element; equal expressions have equal numbers. The graph and
the plan are evaluated apart, the plan from its places, strides and codes alone. Sums are sets of terms, as a plan may
add them up in another order. Memory is None where nothing was written, or what was written is not there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.scan.encode import encode
from fusedrnn.scan.graph import Level, Value
from fusedrnn.scan.groups import GroupCode, Memory, Passes, Register, Scalar
from fusedrnn.scan.plan import Emitted, Plan, Root
from tests.symbols import Symbols

SHARED_BEFORE, ROW_BEFORE, STEP, ROW_AFTER, SHARED_AFTER = range(5)
WRITABLE = {
    SHARED_BEFORE: {Root.SHARED},
    ROW_BEFORE: {Root.ROW},
    STEP: {Root.SCRATCH, Root.NEXT_STATE, Root.RESERVE, Root.TOTAL},
    ROW_AFTER: {Root.ROW},
    SHARED_AFTER: {Root.SHARED},
}


class PlanError(AssertionError):
    """What a plan does wrong, and where."""


def verify(plan: Plan, lent: Mapping[Value, Any] | None = None, reserve: Mapping[Value, int] | None = None) -> None:
    """Raise PlanError unless a plan computes its step.

    Args:
        plan: The plan.
        lent: Where values lie that forward computed, as `make_plan` took them.
        reserve: Places of values in a row of the reserve, as `make_plan` took them.
    """
    _Run(plan, lent or {}, reserve or {}).all()
    _core.Plan(*encode(plan))


class _Run:
    def __init__(self, plan: Plan, lent: Mapping[Value, Any], reserve: Mapping[Value, int]) -> None:
        self.plan, self.lent, self.reserve = plan, lent, reserve
        step = plan.step
        self.symbols = Symbols([*step.results, *lent, *reserve, *step.leaves])
        self.of = self.symbols.of
        widths = {
            Root.SCRATCH: plan.scratch,
            Root.STATE: plan.state,
            Root.NEXT_STATE: plan.state,
            Root.ROW: plan.row,
            Root.RESERVE: plan.reserve,
            Root.SHARED: plan.shared,
            Root.LIFTED: sum(width for _, width, _ in plan.lifted),
            Root.CONSTANT: sum(map(len, plan.constants)),
        }
        self.memory: dict[int, list[int | None]] = {root: [None] * width for root, width in widths.items()}
        for i, leaf in enumerate(step.shared):
            self.memory[Root.FIRST_LEAF + i] = list(self.of(leaf).flat)
        for value, (root, offset) in lent.items():
            cells = self.memory.setdefault(root, [])
            cells.extend([None] * (offset + value.size - len(cells)))
            cells[offset : offset + value.size] = list(self.of(value).flat)
        self.memory[Root.CONSTANT] = [self.symbols.number(each) for part in plan.constants for each in part]
        self.read_only = set(self.memory) if lent else set()
        self.read_only -= {Root.SCRATCH, Root.STATE, Root.NEXT_STATE, Root.ROW, Root.SHARED}
        self.stage = SHARED_BEFORE
        self.where = ""
        self.packed: list[Any] = []
        self.sequences: dict[int, list[int]] = {}

    def fail(self, why: str) -> None:
        raise PlanError(f"stage {self.stage}, {self.where}: {why}")

    # the call as the executor makes it

    def all(self) -> None:
        plan, memory = self.plan, self.memory
        self.run(SHARED_BEFORE)
        for (root, offset), units, depth, by_unit, by_depth in plan.packed:
            cells = [[offset + u * by_unit + k * by_depth for k in range(depth)] for u in range(units)]
            self.where = "packed weights"
            self.packed.append([[self.read(root, each, shared=True) for each in row] for row in cells])
        for (root, offset), width, at in plan.lifted:
            self.where = "lifted values"
            for i in range(width):
                self.memory[Root.LIFTED][at + i] = self.read(root, offset + i, shared=True)
        self.run(ROW_BEFORE)
        for _ in range(2):  # a second step sees what the first one spoilt
            memory[Root.SCRATCH] = [None] * plan.scratch
            memory[Root.NEXT_STATE] = [None] * plan.state
            if Root.RESERVE not in self.read_only:
                memory[Root.RESERVE] = [None] * plan.reserve
            for offset, state in zip(plan.state_offsets, plan.step.states, strict=True):
                memory[Root.STATE][offset : offset + state.size] = list(self.of(state).flat)
            self.sequences = {}
            first_total = plan.row - plan.row_totals
            starts = [self.symbols.make("start of a total", i) for i in range(plan.row_totals)]
            memory[Root.ROW][first_total:] = starts
            self.run(STEP)
            for offset, value in zip(plan.state_offsets, plan.step.new_states, strict=True):
                self.expect(Root.NEXT_STATE, offset, value, "a new state")
            for value, offset in self.reserve.items():
                self.expect(Root.RESERVE, offset, value, "of the reserve")
        memory[Root.SCRATCH] = [None] * plan.scratch
        total = self.symbols.total_of(Level.ROW, Level.STEP)
        for i, start in enumerate(starts, first_total):
            symbol = memory[Root.ROW][i]
            assert symbol is not None
            memory[Root.ROW][i] = total(self.symbols.without(symbol, start))
        self.run(ROW_AFTER)
        self.totals()
        self.run(SHARED_AFTER)
        self.results()

    def added_up(self, so_far: dict[int, int]) -> None:
        """Totals over steps to which a group added."""
        self.where = "totals over steps"
        cells = self.memory[Root.ROW]
        total = self.symbols.total_of(Level.ROW, Level.STEP)
        for value, (root, offset) in self.plan.places.items():
            if root != Root.TOTAL or value in self.lent:
                continue
            for i, symbol in enumerate(self.of(value.inputs[0]).flat, offset):
                if cells[i] != so_far[i]:
                    if i in self.accumulated or cells[i] != self.symbols.add(so_far[i], int(symbol)):
                        self.fail(f"the total at {i} is not that of {value.inputs[0]}")
                    self.accumulated[i] = total(int(symbol))
        for i in so_far:
            cells[i] = None

    def run(self, stage: int) -> None:
        self.stage = stage
        for i, each in enumerate(self.plan.stages[stage]):
            if isinstance(each, GroupCode):
                self.where = f"instruction {i}, a group"
                self.group(each)
            else:
                self.where = f"instruction {i}, {each.task.kind} of {each.task.writes}"
                getattr(self, each.task.kind)(each)
                if each.task.writes is not None and each.task.final and each.task.kind != "accumulate":
                    self.expect(*self.home(each), each.task.writes, "its value")

    def home(self, each: Emitted) -> tuple[int, int]:
        root, offset = each.places[0]
        return root, offset - each.task.details.get("offset", 0)

    def totals(self) -> None:
        plan = self.plan
        before = len(plan.output_widths) + len(plan.row_output_widths)
        written: set[int] = set()

        def put(offset: int, symbols: Sequence[int]) -> None:
            for i, symbol in enumerate(symbols, offset):
                if i in written:
                    self.fail(f"two totals write the shared element {i}")
                written.add(i)
                self.write(Root.SHARED, i, symbol)

        self.stage = SHARED_AFTER
        for kind, once, a, b, m, columns, inputs, offset, bias in plan.totals:
            self.where = f"a total at {offset}"
            first, second = self.sequences.get(before + a), self.sequences.get(before + b)
            if first is None or second is None:
                self.fail("it reads what no row stored")
            assert first is not None
            assert second is not None
            total = self.symbols.total_of(Level.SHARED, Level.ROW if once else Level.STEP)
            if kind == "product":
                pairs = self.symbols.product_of
                found = [
                    total(pairs([(first[k * columns + c], second[k * inputs + i]) for k in range(m)]))
                    for c in range(columns)
                    for i in range(inputs)
                ]
                put(offset, found)
                if bias >= 0:
                    put(bias, [total(each) for each in first])
            elif kind == "sum":
                put(offset, [total(each) for each in first])
            else:
                put(offset, [total(each) for each in self.symbols.put(first, second, m, columns)])

    def results(self) -> None:
        plan, step = self.plan, self.plan.step
        self.where = "results"
        first = 0
        for values, places, widths in (
            (step.outputs, plan.outputs, plan.output_widths),
            (step.row_outputs, plan.row_outputs, plan.row_output_widths),
        ):
            for value, place in zip(values, places, strict=True):
                found = None if place is None else self.sequences.get(first + place)
                zeros = [self.symbols.number(0.0)] * value.size
                if (zeros if place is None else found) != list(self.of(value).flat):
                    self.fail(f"a sequence is not {value}")
            first += len(widths)
        if len(self.sequences) != first + len(plan.sequences):
            self.fail(f"{first + len(plan.sequences)} sequences are declared, {len(self.sequences)} were stored")
        for value, place in zip(step.shared_outputs, plan.shared_outputs, strict=True):
            if place is None:
                if set(self.of(value).flat) - {self.symbols.number(0.0)}:
                    self.fail(f"{value} is not zeros")
                continue
            (root, offset), _ = plan.shared_output_places[place]
            self.expect(root, offset, value, "a shared output")
        for value, (root, offset) in plan.places.items():  # what a derivative's plan may read later
            if value not in self.lent and root in (Root.ROW, Root.TOTAL, Root.SHARED, Root.RESERVE, Root.NEXT_STATE):
                self.expect(root, offset, value, "kept for backward")

    # memory

    def cells(self, root: int, offset: int) -> list[int | None]:
        root = Root.ROW if root == Root.TOTAL else root
        cells = self.memory.get(root)
        if cells is None:
            self.fail(f"there is no memory {root}")
        assert cells is not None
        if not 0 <= offset < len(cells):
            self.fail(f"element {offset} lies outside of {Root(min(root, Root.FIRST_LEAF)).name} of {len(cells)}")
        return cells

    def read(self, root: int, offset: int, shared: bool = False) -> int:
        if self.stage in (ROW_BEFORE, STEP, ROW_AFTER) and not shared and root >= Root.SHARED:
            self.fail(f"rows read {Root(min(root, Root.FIRST_LEAF)).name}, which has no copy for lanes")
        if self.stage in (SHARED_BEFORE, SHARED_AFTER) and root < Root.SHARED:
            self.fail(f"what is shared reads {Root(root).name}")
        symbol = self.cells(root, offset)[offset]
        if symbol is None:
            self.fail(f"element {offset} of {Root(min(root, Root.FIRST_LEAF)).name} has no value")
        assert symbol is not None
        return symbol

    def read_many(self, place: tuple[int, int], count: int, shared: bool = False) -> list[int]:
        return [self.read(place[0], place[1] + i, shared) for i in range(count)]

    def write(self, root: int, offset: int, symbol: int) -> None:
        if root in self.read_only or root not in WRITABLE[self.stage]:
            self.fail(f"it writes to {Root(min(root, Root.FIRST_LEAF)).name}")
        if root == Root.TOTAL and offset < self.plan.row - self.plan.row_totals:
            self.fail(f"element {offset} is no total")
        self.cells(root, offset)[offset] = symbol

    def write_many(self, place: tuple[int, int], symbols: Sequence[int]) -> None:
        for i, symbol in enumerate(symbols):
            self.write(place[0], place[1] + i, symbol)

    def expect(self, root: int, offset: int, value: Value, what: str) -> None:
        for i, symbol in enumerate(self.of(value).flat):
            if self.cells(root, offset + i)[offset + i] != symbol:
                self.fail(f"element {i} of {value}, {what}, is not at {Root(min(root, Root.FIRST_LEAF)).name} {offset}")

    # groups

    def group(self, code: GroupCode) -> None:
        """All passes must do the same, and whatever the chunk."""
        found: list[Any] = []
        before = {root: list(cells) for root, cells in self.memory.items()}
        for passes in code.passes:
            for chunk in {1, max(1, passes.size)}:
                for root, cells in before.items():
                    self.memory[root] = list(cells)
                self.passes(passes, chunk)
                found.append({root: list(cells) for root, cells in self.memory.items()})
                if found[-1] != found[0]:
                    self.fail("chunks or rows of its elements change what it computes")

    def passes(self, passes: Passes, chunk: int) -> None:
        for row in range(passes.rows):
            for first in range(0, passes.size, chunk):
                registers: dict[int, list[int]] = {}
                count = min(chunk, passes.size - first)
                for operation in passes.operations:
                    self.operation(operation, passes, registers, row, first, count)

    def operation(
        self, operation: Any, passes: Passes, registers: dict[int, list[int]], row: int, first: int, count: int
    ) -> None:
        def operand(each: Any) -> list[int]:
            if isinstance(each, Register):
                if each.name not in registers:
                    self.fail(f"register {each.name} is read before it is written")
                return registers[each.name]
            root, offset = each.place
            offset += row * each.stride
            if isinstance(each, Scalar):
                return [self.read(root, offset)] * count
            return [self.read(root, offset + first + i) for i in range(count)]

        if operation.code == "broadcast":
            (source,), (sizes, strides) = operation.inputs, operation.pattern
            places = [row * passes.size + first + i for i in range(count)]
            shape = np.unravel_index(places, sizes) if count else [np.zeros(0, int)] * len(sizes)
            offsets = sum(np.asarray(p) * s for p, s in zip(shape, strides, strict=True))
            root, offset = source.place
            result = [self.read(root, offset + int(each)) for each in np.asarray(offsets).reshape(-1)]
        else:
            inputs = [operand(each) for each in operation.inputs]
            rule = self.symbols.operation(operation.code, operation.constant)
            result = [rule(*each) for each in zip(*inputs, strict=True)] if inputs else [rule() for _ in range(count)]
        if isinstance(operation.out, Register):
            if not 0 <= operation.out.name < max(1, self.plan.registers):
                self.fail(f"there is no register {operation.out.name}")
            registers[operation.out.name] = result
        else:
            assert isinstance(operation.out, Memory)
            root, offset = operation.out.place
            for i, symbol in enumerate(result):
                at = offset + row * operation.out.stride + first + i
                self.write(root, at, symbol)

    # what is no group: one method for each code

    def load(self, each: Emitted) -> None:
        sequence, size, by_step = each.numbers
        plan, step = self.plan, self.plan.step
        leaves = [step.inputs[i] for i in plan.inputs] + [step.rows[i] for i in plan.rows]
        leaf = leaves[sequence]
        if size != leaf.size or by_step != (self.stage == STEP) or by_step != (sequence < len(plan.inputs)):
            self.fail(f"it loads {leaf} as {size} elements, by step: {by_step}")
        self.write_many(each.places[0], [int(symbol) for symbol in self.of(leaf).flat])

    def store(self, each: Emitted) -> None:
        sequence, size, by_step = each.numbers
        if sequence in self.sequences or by_step != (self.stage == STEP):
            self.fail(f"sequence {sequence} is stored twice, or at another stage")
        plan = self.plan
        widths = [*plan.output_widths, *plan.row_output_widths, *(stored.size for stored in plan.sequences)]
        if size != widths[sequence]:
            self.fail(f"sequence {sequence} of {widths[sequence]} elements is stored as {size}")
        self.sequences[sequence] = self.read_many(each.places[0], size)

    def accumulate(self, each: Emitted) -> None:
        (size,), ((root, offset), source) = each.numbers, each.places
        if root != Root.TOTAL or self.stage != STEP or offset < self.plan.row - self.plan.row_totals:
            self.fail("a total over steps lies elsewhere")
        for i, symbol in enumerate(self.read_many(source, size)):
            self.write(Root.TOTAL, offset + i, self.symbols.add(self.read(Root.TOTAL, offset + i), symbol))

    def move(self, each: Emitted) -> None:
        details, (out, source) = each.task.details, each.places
        for place in np.ndindex(*details["sizes"]):
            to = out[1] + sum(p * s for p, s in zip(place, details["out"], strict=True))
            at = source[1] + sum(p * s for p, s in zip(place, details["in"], strict=True))
            self.write(out[0], to, self.read(source[0], at))

    def affine(self, each: Emitted) -> None:
        (index, rows, adds), (out, x, bias) = each.numbers, each.places
        weights = self.packed[index]
        units, depth = len(weights), len(weights[0]) if weights else 0
        for row in range(rows):
            inputs = self.read_many((x[0], x[1] + row * depth), depth)
            for u in range(units):
                at = out[1] + row * units + u
                symbol = self.symbols.product_of(list(zip(weights[u], inputs, strict=True)))
                if adds:
                    symbol = self.symbols.add(self.read(out[0], at), symbol)
                elif bias[0] >= 0:
                    symbol = self.symbols.add(self.read(bias[0], bias[1] + u, shared=True), symbol)
                self.write(out[0], at, symbol)

    def product(self, each: Emitted) -> None:
        out, a, b = each.places
        batch, m, n, depth, a_batch, a_m, a_k, b_batch, b_k, b_n, o_batch, o_m, o_n, adds = each.task.details["shape"]
        found = []
        for g, i, j in np.ndindex(batch, m, n):
            pairs = [
                (
                    self.read(a[0], a[1] + g * a_batch + i * a_m + k * a_k),
                    self.read(b[0], b[1] + g * b_batch + k * b_k + j * b_n),
                )
                for k in range(depth)
            ]
            at = out[1] + g * o_batch + i * o_m + j * o_n
            symbol = self.symbols.product_of(pairs)
            found.append((at, self.symbols.add(self.read(out[0], at), symbol) if adds else symbol))
        for at, symbol in found:
            self.write(out[0], at, symbol)

    def _along(self, each: Emitted, lengths: Callable[..., Sequence[int]], op: str, *rest: Any) -> None:
        """Reads all operands, then writes."""
        table = op == "take"
        inputs = [
            self.read_many(place, count, shared=table and i == 0)
            for i, (place, count) in enumerate(zip(each.places[1:], lengths(*each.numbers), strict=True))
        ]
        self.write_many(each.places[0], getattr(self.symbols, op)(*inputs, *rest, *each.numbers))

    def sum(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i], "fold", "sum")

    def inner(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i] * 2, "inner")

    def max(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i], "fold", "max")

    def argmax(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i], "fold", "argmax")

    def argsort(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i], "over", "argsort")

    def softmax(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i: [o * n * i], "over", "softmax")

    def recurrence(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i, back: [o * n * i] * 2, "recurrence")

    def gather(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i, size: [o * size * i, o * n * i], "gather")

    def scatter(self, each: Emitted) -> None:
        self._along(each, lambda o, n, i, size: [o * n * i] * 2, "scatter")

    def take(self, each: Emitted) -> None:
        self._along(each, lambda n, size, width: [size * width, n], "take")

    def put(self, each: Emitted) -> None:
        n, size, width = each.numbers
        x, index = self.read_many(each.places[1], n * width), self.read_many(each.places[2], n)
        self.write_many(each.places[0], self.symbols.put(x, index, size, width))

    def uniform(self, each: Emitted) -> None:
        size, stream = each.numbers
        self.write_many(each.places[0], self.symbols.uniform(size, stream))
