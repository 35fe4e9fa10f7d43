"""A step's plan: its instructions in order, and where each value lies. `encode` makes the executor's numbers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan.graph import Level, Step, Value
from fusedrnn.scan.groups import GroupCode, Place, group_code
from fusedrnn.scan.schedule import Group, order
from fusedrnn.scan.tasks import (
    ROW_AFTER,
    ROW_BEFORE,
    STEP,
    Stored,
    Task,
    Tasks,
    is_zero,
    stage_of,
)
from fusedrnn.scan.views import View, c_strides


class Root(IntEnum):
    """Memory that places lie in; csrc/core/program.hpp says what each is."""

    SCRATCH = 0
    STATE = 1
    NEXT_STATE = 2
    ROW = 3
    TOTAL = 4
    LIFTED = 5
    RESERVE = 6
    KEPT_STATE = 7
    KEPT_NEXT = 8
    KEPT_ROW = 9
    SHARED = 10
    KEPT_SHARED = 11
    CONSTANT = 12
    FIRST_LEAF = 13


@dataclass(eq=False)
class Emitted:
    """A task with its places: what it writes first, then what it reads."""

    task: Task
    places: list[Place]
    numbers: tuple[int, ...]


class PlannedTotal(NamedTuple):
    """A total over rows: a product of sequences `a` [m, columns] and `b` [m, inputs], or as csrc/core/program.hpp says.

    `bias` is where the sum of `a` goes too, -1 for nowhere.
    """

    kind: str
    once: bool
    a: int
    b: int
    m: int
    columns: int
    inputs: int
    offset: int
    bias: int


@dataclass(eq=False)
class Plan:
    """All that the executor needs, and how its arrays match the step's.

    Attributes:
        inputs: Places in ``step.inputs`` of the sequences that the executor reads, in its order; `rows` likewise.
        outputs: Of each of ``step.outputs`` the executor's sequence, None for zeros; `row_outputs` and
            `shared_outputs` likewise.
        places: Where values lie, of levels ROW and SHARED for a derivative's plan.
    """

    step: Step
    stages: list[list[Emitted | GroupCode]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    outputs: list[int | None] = field(default_factory=list)
    row_outputs: list[int | None] = field(default_factory=list)
    shared_outputs: list[int | None] = field(default_factory=list)
    output_widths: list[int] = field(default_factory=list)
    row_output_widths: list[int] = field(default_factory=list)
    shared_output_places: list[tuple[Place, int]] = field(default_factory=list)
    state_offsets: list[int] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)
    lifted: list[tuple[Place, int, int]] = field(default_factory=list)
    packed: dict[tuple[Place, int, int, int, int], int] = field(default_factory=dict)
    totals: list[PlannedTotal] = field(default_factory=list)
    sequences: list[Stored] = field(default_factory=list)
    places: dict[Value, Place] = field(default_factory=dict)
    scratch: int = 0
    state: int = 0
    row: int = 0
    row_totals: int = 0
    shared: int = 0
    reserve: int = 0
    flops: int = 0
    affine_flops: int = 0  # of these, those of products with shared weights

    @property
    def lanes_from(self) -> int:
        """Rows from which a block of 16 is faster than rows one by one: packed products serve few rows well, other
        instructions do not."""
        return 9 if 8 * (self.flops - self.affine_flops) > self.affine_flops else 14

    @property
    def registers(self) -> int:
        """Chunks that the largest group needs."""
        return max(
            (each.registers for stage in self.stages for each in stage if isinstance(each, GroupCode)), default=0
        )


class _Planner:
    def __init__(
        self, step: Step, lent: Mapping[Value, Place], reserve: Mapping[Value, int], reserve_width: int, uneven: bool
    ) -> None:
        self.plan = Plan(step, reserve=reserve_width)
        self.step = step
        self.lent = lent
        self.reserve = reserve
        self.tasks = Tasks(step, lent, list(reserve), uneven)
        self.place: dict[Value, Place] = dict(lent)
        self.next_states: dict[Value, int] = {}
        self.constant_offsets: dict[Value, int] = {}
        self.lifted: dict[Value, int] = {}
        self._leaves()
        self._results()
        self._lasting()
        for stage in range(5):
            self._stage(stage)
        self.plan.row += self.plan.row_totals
        self.plan.sequences = list(self.tasks.sequences)
        self.plan.places = self.place

    # where things lie that last longer than a step

    def _leaves(self) -> None:
        plan, step = self.plan, self.step
        used = set(self.tasks.values)
        for i, leaf in enumerate(step.shared):
            self.place.setdefault(leaf, (Root.FIRST_LEAF + i, 0))
        for state in step.states:
            plan.state_offsets.append(plan.state)
            self.place.setdefault(state, (Root.STATE, plan.state))
            plan.state += state.size
        plan.inputs = [i for i, leaf in enumerate(step.inputs) if leaf in used and leaf not in self.lent]
        plan.rows = [i for i, leaf in enumerate(step.rows) if leaf in used and leaf not in self.lent]

    def _results(self) -> None:
        """Tasks that bring results where they are wanted."""
        plan, step, tasks = self.plan, self.step, self.tasks
        written = {task.writes for task in tasks.stages[STEP]}
        for offset, value in zip(plan.state_offsets, step.new_states, strict=True):
            view = tasks.view(value)
            base = view.base
            fresh = base in written and base not in self.place and base not in self.next_states
            if view.whole and fresh and base not in self.reserve:
                self.next_states[base] = offset
                continue
            details = {"place": (Root.NEXT_STATE, offset)}
            tasks.stages[STEP].append(Task("element", None, [view], value.size, op="copy", details=details))
        for values, found, widths, stage in (
            (step.outputs, plan.outputs, plan.output_widths, STEP),
            (step.row_outputs, plan.row_outputs, plan.row_output_widths, ROW_AFTER),
        ):
            for value in values:
                if is_zero(value):
                    found.append(None)
                    continue
                store: dict[str, object] = {"row_output" if stage == ROW_AFTER else "output": len(widths)}
                tasks.stages[stage].append(Task("store", None, [tasks.view(value)], value.size, details=store))
                found.append(len(widths))
                widths.append(value.size)

    def _lasting(self) -> None:
        """Memory of values that live as long as the call, or in the reserve."""
        plan = self.plan
        totals = [value for value in self.tasks.values if value.op == "total" and value.level is Level.ROW]
        for stage in self.tasks.stages:
            for task in stage:
                value = task.writes
                if value is None or value in self.place or value in totals or value in self.tasks.inside:
                    continue
                where = stage_of(value)
                if value in self.reserve:
                    self.place[value] = (Root.RESERVE, self.reserve[value])
                elif value in self.next_states:
                    self.place[value] = (Root.NEXT_STATE, self.next_states[value])
                elif where in (ROW_BEFORE, ROW_AFTER):
                    self.place[value] = (Root.ROW, plan.row)
                    plan.row += value.size
                elif where != STEP:
                    self._take_shared(value)
        self._settle_inside()
        for value in totals:
            if value not in self.place:
                self.place[value] = (Root.TOTAL, plan.row + plan.row_totals)
                plan.row_totals += value.size
        for value in self.tasks.totals:
            self._take_shared(value)
        self._totals()

    def _whole(self, value: Value) -> tuple[Value, int]:
        """The value that others have joined to it, in which this one lies, and where."""
        offset = 0
        while value in self.tasks.inside:
            value, more = self.tasks.inside[value]
            offset += more
        return value, offset

    def _settle_inside(self) -> None:
        """Places of parts of what has a place."""
        for value in self.tasks.inside:
            whole, offset = self._whole(value)
            if whole in self.place:
                root, start = self.place[whole]
                self.place[value] = (root, start + offset)

    def _take_shared(self, value: Value) -> None:
        self.place[value] = (Root.SHARED, self.plan.shared)
        self.plan.shared += -(-value.size // 16) * 16

    def _totals(self) -> None:
        """Totals over rows. A product whose first factor is summed too does both in one pass."""
        tasks = self.tasks
        sums: dict[int, list[int]] = {}  # of each sequence: where its sum goes, which two totals may want
        for value, total in tasks.totals.items():
            if total.kind == "sum":
                sums.setdefault(tasks.sequences[tasks.stored(value)[0]], []).append(self.place[value][1])
        for value, total in tasks.totals.items():
            stored = tasks.stored(value)
            numbers = [tasks.sequences[each] for each in stored]
            first, once = total.parts[0], stored[0].once
            a, b, offset = numbers[0], numbers[-1], self.place[value][1]
            if total.kind == "product":
                m, columns = first.shape
                bias = sums[a].pop() if m == 1 and sums.get(a) else -1
                planned = PlannedTotal("product", once, a, b, m, columns, total.parts[1].shape[1], offset, bias)
            elif total.kind == "put":
                index = total.parts[1].size
                width = first.size // index if index else 0
                size = value.size // width if width else 0  # of the table: the total may have another shape
                planned = PlannedTotal("put", once, a, b, size, width, index, offset, -1)
            else:
                continue
            self.plan.totals.append(planned)
        widths = [each.size for each in tasks.sequences]
        for a, offsets in sums.items():
            once = list(tasks.sequences)[a].once
            for offset in offsets:
                self.plan.totals.append(PlannedTotal("sum", once, a, a, 1, widths[a], 0, offset, -1))

    # operands

    def _constant(self, value: Value) -> Place:
        if value not in self.constant_offsets:
            array = value.graph.arrays[value.attributes[0]]
            self.constant_offsets[value] = sum(map(len, self.plan.constants))
            self.plan.constants.append(array.reshape(-1).astype(np.float64))
        return Root.CONSTANT, self.constant_offsets[value]

    def shared_place(self, view: View) -> Place:
        """Where a view of a shared value begins, as it lies."""
        base = view.base
        root, offset = self._constant(base) if base.op == "constant" else self.place[base]
        return root, offset + view.offset

    def operand(self, view: View, stage: int) -> Place:
        """Where a view begins, for an instruction over rows."""
        if view.base.level is not Level.SHARED or stage not in (ROW_BEFORE, STEP, ROW_AFTER):
            return self.shared_place(view)
        if view.base not in self.lifted:
            offset = sum(width for _, width, _ in self.plan.lifted)
            whole = View(view.base, 0, view.base.shape, c_strides(view.base.shape))
            self.plan.lifted.append((self.shared_place(whole), view.base.size, offset))
            self.lifted[view.base] = offset
        return Root.LIFTED, self.lifted[view.base] + view.offset

    # instructions

    def _stage(self, stage: int) -> None:
        ordered = order(self.tasks.stages[stage])
        for each in ordered:
            if isinstance(each, Group):
                each.memory.update(task.writes for task in each.tasks if task.writes in self.place)
        if stage == STEP:
            self._allocate(ordered)
        emitted: list[Emitted | GroupCode] = []
        for each in ordered:
            if isinstance(each, Task) and each.kind == "join":
                continue
            if isinstance(each, Group):
                emitted.append(group_code(each, lambda view: self.operand(view, stage), self._target))
                self.plan.flops += each.size * len(each.tasks) if stage == STEP else 0
            else:
                emitted.append(self._emit(each, stage))
        self.plan.stages.append(emitted)

    def _target(self, task: Task) -> Place:
        return task.details["place"] if task.writes is None else self.place[task.writes]

    def _emit(self, task: Task, stage: int) -> Emitted:
        plan = self.plan
        if task.kind == "load":
            leaf = task.writes
            assert leaf is not None
            if leaf in self.step.inputs:
                sequence = plan.inputs.index(self.step.inputs.index(leaf))
            else:
                sequence = len(plan.inputs) + plan.rows.index(self.step.rows.index(leaf))
            return Emitted(task, [self.place[leaf]], (sequence, task.size, int(stage == STEP)))
        reads = [self.operand(view, stage) for view in task.reads]
        if task.kind == "store":
            return Emitted(task, reads, (self._sequence(task), task.size, int(stage == STEP)))
        out = self._target(task)
        if task.kind == "affine":
            weights, bias = task.details["weights"], task.details["bias"]
            units, depth = task.details["units"], task.details["depth"]
            key = (self.shared_place(weights), units, depth, *task.details["strides"])
            index = plan.packed.setdefault(key, len(plan.packed))
            start = (-1, 0) if bias is None else self.shared_place(bias)
            self._count(2 * task.size * depth, stage)
            plan.affine_flops += 2 * task.size * depth if stage == STEP else 0
            return Emitted(task, [out, *reads, start], (index, *task.numbers))
        if task.kind == "product":
            self._count(2 * task.size * task.details["shape"][3], stage)
        elif task.kind in ("move", "accumulate"):
            self._count(task.size, stage)
            root, offset = out
            return Emitted(task, [(root, offset + task.details.get("offset", 0)), *reads], (task.size,))
        else:
            self._count(max([task.size, *(view.base.size for view in task.reads)]), stage)
        return Emitted(task, [out, *reads], task.numbers)

    def _count(self, flops: int, stage: int) -> None:
        if stage == STEP:
            self.plan.flops += flops

    def _sequence(self, task: Task) -> int:
        """Which sequence a store writes: outputs, then those of rows, then parts of totals."""
        details, plan = task.details, self.plan
        if "output" in details:
            return int(details["output"])
        if "row_output" in details:
            return len(plan.output_widths) + int(details["row_output"])
        before = len(plan.output_widths) + len(plan.row_output_widths)
        return before + self.tasks.sequences[details["total"]]

    def _allocate(self, ordered: Sequence[Task | Group]) -> None:
        """Scratch of a step: memory is free again when the last reader is done."""
        local = {
            task.writes
            for each in ordered
            if isinstance(each, Group)
            for task in each.tasks
            if task.writes is not None and task.writes not in each.memory
        }
        last: dict[Value, int] = {}
        first: dict[Value, int] = {}
        for i, each in enumerate(ordered):
            for task in each.tasks if isinstance(each, Group) else [each]:
                if task.writes is not None and task.writes not in self.place and task.writes not in local:
                    whole, _ = self._whole(task.writes)
                    first.setdefault(whole, i)
                    last[whole] = i
                for view in task.reads:
                    whole, _ = self._whole(view.base)
                    if whole in first:
                        last[whole] = i
        ending: dict[int, list[Value]] = {}
        for value, i in last.items():
            ending.setdefault(i, []).append(value)
        starting: dict[int, list[Value]] = {}
        for value, i in first.items():
            starting.setdefault(i, []).append(value)
        free: list[tuple[int, int]] = []  # gaps: offset and size, by offset
        for i in range(len(ordered)):
            for value in starting.get(i, ()):
                self.place[value] = (Root.SCRATCH, self._take(free, value.size))
            for value in ending.get(i, ()):
                _give(free, self.place[value][1], value.size)
        self._settle_inside()

    def _take(self, free: list[tuple[int, int]], size: int) -> int:
        fitting = [gap for gap in free if gap[1] >= size]
        if fitting:
            offset, gap = min(fitting, key=lambda each: each[1])
            free.remove((offset, gap))
            if gap > size:
                _give(free, offset + size, gap - size)
            return offset
        offset = self.plan.scratch
        self.plan.scratch += size
        return offset


def _give(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Adds a gap, and joins those that touch."""
    free.append((offset, size))
    free.sort()
    joined: list[tuple[int, int]] = []
    for start, length in free:
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((start, length))
    free[:] = joined


def make_plan(
    step: Step,
    *,
    lent: Mapping[Value, Place] | None = None,
    reserve: Mapping[Value, int] | None = None,
    width: int = 0,
    uneven: bool = False,
) -> Plan:
    """The plan of a step.

    Args:
        step: What to compute.
        lent: Where values lie that another plan computed: for a derivative what forward kept.
        reserve: Values to keep, and where in a row of the reserve; `width` is that row's.
        width: Elements of a row of the reserve.
        uneven: Whether rows may have lengths of their own.
    """
    planner = _Planner(step, lent or {}, reserve or {}, width, uneven)
    plan = planner.plan
    for value in step.shared_outputs:
        if is_zero(value):
            plan.shared_outputs.append(None)
            continue
        plan.shared_outputs.append(len(plan.shared_output_places))
        plan.shared_output_places.append((planner.shared_place(planner.tasks.view(value)), value.size))
    return plan
