"""A plan as the numbers that csrc/core/program_plan.cpp reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.scan.groups import GroupCode, Memory, Place, Register
from fusedrnn.scan.plan import Emitted, Plan

CODES = (
    *("group", "move", "sum", "inner", "max", "argmax", "argsort", "softmax", "recurrence", "product", "affine"),
    *("gather", "scatter", "take", "put", "uniform", "load", "store", "accumulate"),
)
MOVE_DIMS = 6
_TOTALS = {"product": 0, "sum": 1, "put": 2}


class _Writer:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.code: list[int] = []
        self.first = sum(map(len, plan.constants))
        self.known: dict[str, int] = {}  # constants of operations, behind the plan's

    def list(self, numbers: Sequence[int]) -> None:
        self.code += [len(numbers), *numbers]

    def constant(self, number: float | None) -> int:
        if number is None:
            return -1
        return self.known.setdefault(repr(float(number)), self.first + len(self.known))

    def axes(self, sizes: Sequence[int], *strides: Sequence[int]) -> None:
        if len(sizes) > MOVE_DIMS:
            raise ValueError(f"an array is read in an order of {len(sizes)} axes; reshape it in two steps")
        for numbers in (sizes, *strides):
            self.code += numbers

    def group(self, code: GroupCode) -> None:
        # A place whose stride differs between two operands stands twice.
        places: dict[tuple[Place, int], tuple[int, list[int | None]]] = {}

        def number(which: int, memory: Memory) -> int:
            key = (memory.place, 0)
            for again in range(len(code.passes) * 4):
                key = (memory.place, again)
                index, strides = places.setdefault(key, (len(places), [None] * len(code.passes)))
                if strides[which] in (None, memory.stride):
                    strides[which] = memory.stride
                    return -1 - index
            raise AssertionError("a place has too many strides: this may be a bug of fusedrnn")

        encoded: list[list[list[int]]] = []
        for which, passes in enumerate(code.passes):
            encoded.append([])
            for each in passes.operations:
                operands = [
                    operand.name if isinstance(operand, Register) else number(which, operand)
                    for operand in (each.out, *each.inputs)
                ]
                operands += [0] * (4 - len(operands))
                if each.code == "copy_scalar":
                    operands[1:3] = [0, operands[1]]
                codes = -1 if each.code == "broadcast" else _core.ELEMENTWISE[each.code]
                encoded[-1].append([codes, *operands, self.constant(each.constant)])
        self.code += [0, len(places), *(n for place, _ in places for n in place)]
        self.list([])
        self.code.append(len(code.passes))
        for which, passes in enumerate(code.passes):
            self.code += [passes.rows, passes.size]
            self.list([strides[which] or 0 for _, strides in places.values()])
            self.code.append(len(passes.operations))
            for numbers, each in zip(encoded[which], passes.operations, strict=True):
                self.code += numbers
                if each.code == "broadcast":
                    sizes, strides = each.pattern
                    self.code.append(len(sizes))
                    self.axes(sizes, strides)

    def instruction(self, each: Emitted) -> None:
        task = each.task
        self.code += [CODES.index(task.kind), len(each.places), *(number for place in each.places for number in place)]
        self.list(each.numbers)
        if task.kind == "move":
            details = task.details
            self.code += [len(details["sizes"]), 0]
            self.axes(details["sizes"], details["out"], details["in"])
        elif task.kind == "product":
            self.code += task.details["shape"]


def encode(plan: Plan) -> tuple[Array, Array]:
    """(code int64, constants float64) of a plan, for ``_core.Plan``."""
    writer = _Writer(plan)
    code, step = writer.code, plan.step
    lifted = sum(width for _, width, _ in plan.lifted)
    code += [plan.scratch, plan.state, plan.row, plan.row_totals, lifted, plan.shared, plan.reserve, plan.registers]
    code += [plan.flops, plan.lanes_from]
    writer.list([value.size for value in step.states])
    writer.list(plan.state_offsets)
    writer.list([value.size for value in step.shared])
    writer.list([step.inputs[i].size for i in plan.inputs])
    writer.list([step.rows[i].size for i in plan.rows])
    writer.list(plan.output_widths)
    writer.list(plan.row_output_widths)
    code += [len(plan.shared_output_places), *(n for place, _ in plan.shared_output_places for n in place)]
    writer.list([size for _, size in plan.shared_output_places])
    writer.list([each.size for each in plan.sequences])
    writer.list([int(each.once) for each in plan.sequences])
    code.append(len(plan.packed))
    for place, units, depth, stride_unit, stride_depth in plan.packed:
        code += [*place, units, depth, stride_unit, stride_depth]
    code.append(len(plan.lifted))
    for place, width, offset in plan.lifted:
        code += [*place, width, offset]
    code.append(len(plan.totals))
    for kind, *numbers in plan.totals:
        code += [_TOTALS[kind], *map(int, numbers)]
    for stage in plan.stages:
        code.append(len(stage))
        for each in stage:
            if isinstance(each, GroupCode):
                writer.group(each)
            else:
                writer.instruction(each)
    constants = [*plan.constants, np.array([float(each) for each in writer.known], np.float64)]
    return np.array(code, np.int64), np.concatenate(constants)
