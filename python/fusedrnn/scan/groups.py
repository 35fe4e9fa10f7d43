"""A group's tasks as operations over registers: chunks of some hundred elements that stay in the L1 cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fusedrnn.scan.graph import Value
from fusedrnn.scan.schedule import Group, is_direct
from fusedrnn.scan.tasks import Task
from fusedrnn.scan.views import View, collapsed

Place = tuple[int, int]  # root and offset
# Where an operand is: ("register", name), ("memory", place), or nowhere.
Operand = tuple[str, object] | None

# By which constant operand an instruction becomes one over a constant: (place of the constant, code, how it changes).
_WITH_CONSTANT: dict[str, dict[int, tuple[str, Callable[[float], float]]]] = {
    "add": {0: ("add_constant", lambda k: k), 1: ("add_constant", lambda k: k)},
    "multiply": {0: ("multiply_constant", lambda k: k), 1: ("multiply_constant", lambda k: k)},
    "subtract": {0: ("constant_subtract", lambda k: k), 1: ("add_constant", lambda k: -k)},
    "divide": {0: ("constant_divide", lambda k: k)},
    "maximum": {0: ("maximum_constant", lambda k: k), 1: ("maximum_constant", lambda k: k)},
    "minimum": {0: ("minimum_constant", lambda k: k), 1: ("minimum_constant", lambda k: k)},
    "less": {1: ("less_constant", lambda k: k)},
}


@dataclass(eq=False)
class Operation:
    """One pass over a chunk. `code` is an elementwise instruction, or "broadcast" of a view's source."""

    code: str
    out: Operand
    inputs: list[Operand]
    constant: float | None = None
    pattern: tuple[list[int], list[int]] = ([], [])
    value: Value | None = None  # that the operation computes


@dataclass(eq=False)
class GroupCode:
    """A group as the executor takes it."""

    size: int
    operations: list[Operation] = field(default_factory=list)
    registers: int = 0


def constant_of(view: View) -> float | None:
    """The number that all elements of a view are, if the step says so."""
    if view.base.op != "constant" or any(s for n, s in zip(view.shape, view.strides, strict=True) if n != 1):
        return None
    return float(view.base.graph.arrays[view.base.attributes[0]].reshape(-1)[view.offset])


class _Builder:
    def __init__(self, group: Group, place: Callable[[View], Place], target: Callable[[Task], Place]) -> None:
        self.group, self.place, self.target = group, place, target
        self.code = GroupCode(group.size)
        self.registers: dict[Value, Operand] = {}
        self.filled: dict[object, Operand] = {}
        self.names = 0

    def name(self) -> Operand:
        self.names += 1
        return "register", self.names

    def operand(self, view: View) -> Operand:
        if view.base in self.registers:
            return self.registers[view.base]
        constant = constant_of(view)
        if constant is not None:
            key: object = ("constant", repr(constant))
            if key not in self.filled:
                self.filled[key] = self.name()
                self.code.operations.append(Operation("fill", self.filled[key], [], constant))
            return self.filled[key]
        if is_direct(view, self.group.size):
            return "memory", self.place(view)
        sizes, (strides,) = collapsed(view.shape, view.strides)
        key = (self.place(view), tuple(sizes), tuple(strides))
        if key not in self.filled:
            self.filled[key] = self.name()
            source: Operand = ("memory", self.place(view))
            self.code.operations.append(Operation("broadcast", self.filled[key], [source], pattern=(sizes, strides)))
        return self.filled[key]

    def add(self, task: Task) -> None:
        code, constant, reads = task.op, task.details.get("constant"), list(task.reads)
        for i, (special, change) in _WITH_CONSTANT.get(code, {}).items():
            known = constant_of(reads[i])
            if known is not None and constant_of(reads[1 - i]) is None:
                code, constant, reads = special, change(known), [reads[1 - i]]
                break
        else:
            if code == "copy" and constant_of(reads[0]) is not None:
                code, constant, reads = "fill", constant_of(reads[0]), []
        inputs = [self.operand(view) for view in reads]
        value = task.writes
        if value is not None and value not in self.group.memory:
            out = self.registers[value] = self.name()
        else:
            out = "memory", self.target(task)
            if value is not None and task.final:
                self.registers[value] = out
        self.code.operations.append(Operation(code, out, inputs, constant, value=value))


def _fuse(code: GroupCode) -> None:
    """Products that one sum alone reads join it, where no memory sees them."""
    reads = Counter(each for operation in code.operations for each in operation.inputs)
    products = {
        operation.out: operation
        for operation in code.operations
        if operation.code == "multiply" and operation.out is not None and operation.out[0] == "register"
    }
    gone: set[Operation] = set()
    for operation in code.operations:
        if operation.code != "add":
            continue
        for i, each in enumerate(operation.inputs):
            product = products.get(each)
            if product is not None and reads[each] == 1:
                operation.code = "multiply_add"
                operation.inputs = [*product.inputs, operation.inputs[1 - i]]
                gone.add(product)
                break
    code.operations = [operation for operation in code.operations if operation not in gone]


def _number_registers(code: GroupCode) -> None:
    """Gives names numbers, each again when its last reader is done."""
    last = {each: i for i, operation in enumerate(code.operations) for each in operation.inputs}
    numbers: dict[Operand, int] = {}
    free: list[int] = []
    for i, operation in enumerate(code.operations):
        read = [each for each in operation.inputs if each is not None and each[0] == "register"]
        operation.inputs = [("register", numbers[each]) if each in read else each for each in operation.inputs]
        for each in dict.fromkeys(read):
            if last[each] == i:
                free.append(numbers.pop(each))
        out = operation.out
        if out is not None and out[0] == "register":
            number = free.pop() if free else code.registers
            code.registers = max(code.registers, number + 1)
            if out in last:
                numbers[out] = number
            else:
                free.append(number)
            operation.out = "register", number


def group_code(group: Group, place: Callable[[View], Place], target: Callable[[Task], Place]) -> GroupCode:
    """A group's operations. `place` tells where a view's base lies, `target` where a task writes."""
    builder = _Builder(group, place, target)
    for task in group.tasks:
        builder.add(task)
    _fuse(builder.code)
    _number_registers(builder.code)
    return builder.code
