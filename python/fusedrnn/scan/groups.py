"""A group's tasks as operations over registers: chunks of some hundred elements that stay in the L1 cache.

Elements of a broadcast are read where they lie, if a group can be cut into rows in each of which the broadcast is one
element, or one row of its source. Else they are written to a register first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fusedrnn.scan.graph import Value
from fusedrnn.scan.schedule import Group, is_direct
from fusedrnn.scan.tasks import Task
from fusedrnn.scan.views import View, collapsed

Place = tuple[int, int]  # root and offset


@dataclass(frozen=True)
class Register:
    """A chunk's memory, by name and later by number."""

    name: int


@dataclass(frozen=True)
class Memory:
    """A place that moves on by so many elements from row to row."""

    place: Place
    stride: int


@dataclass(frozen=True)
class Scalar(Memory):
    """One element for a whole row."""


Operand = Register | Memory

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
# Instructions over an array and one element: by the place of the element.
_WITH_SCALAR = {
    "add": ("add_scalar", "add_scalar"),
    "multiply": ("multiply_scalar", "multiply_scalar"),
    "subtract": ("scalar_subtract", "subtract_scalar"),
    "divide": ("scalar_divide", "divide_scalar"),
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
class Passes:
    """A group's operations over rows of its elements."""

    rows: int
    size: int
    operations: list[Operation] = field(default_factory=list)
    registers: int = 0


@dataclass(eq=False)
class GroupCode:
    """A group as the executor takes it: all elements in one row, and where broadcasts ask for it as several rows."""

    group: Group
    passes: list[Passes]

    @property
    def registers(self) -> int:
        """Chunks that it needs."""
        return max(each.registers for each in self.passes)


def constant_of(view: View) -> float | None:
    """The number that all elements of a view are, if the step says so."""
    if view.base.op != "constant" or any(s for n, s in zip(view.shape, view.strides, strict=True) if n != 1):
        return None
    return float(view.base.graph.arrays[view.base.attributes[0]].reshape(-1)[view.offset])


def _rows_of(view: View, size: int) -> tuple[int, int] | None:
    """Rows and their size, in each of which a view is one element or a row of its source; None for one row."""
    if constant_of(view) is not None or is_direct(view, size):
        return None
    sizes, (strides,) = collapsed(view.shape, view.strides)
    return (sizes[0], sizes[1]) if len(sizes) == 2 and strides[1] in (0, 1) else None


class _Builder:
    def __init__(
        self,
        group: Group,
        shape: tuple[int, int],
        place: Callable[[View], Place],
        target: Callable[[Task], Place],
    ) -> None:
        self.group, self.place, self.target = group, place, target
        self.passes = Passes(*shape)
        self.registers: dict[Value, Operand] = {}
        self.filled: dict[object, Operand] = {}
        self.names = 0

    def name(self) -> Operand:
        self.names += 1
        return Register(self.names)

    def direct(self, place: Place) -> Operand:
        return Memory(place, self.passes.size)

    def read(self, view: View) -> Operand:
        """An operand; Scalar where it is one element for each row."""
        if view.base in self.registers:
            return self.registers[view.base]
        constant = constant_of(view)
        if constant is not None:
            return self.fill(("constant", repr(constant)), Operation("fill", self.name(), [], constant))
        if is_direct(view, self.group.size):
            return self.direct(self.place(view))
        sizes, (strides,) = collapsed(view.shape, view.strides)
        place = self.place(view)
        if strides == [0]:
            return Scalar(place, 0)
        if sizes == [self.passes.rows, self.passes.size] and strides[1] in (0, 1):
            return Scalar(place, strides[0]) if strides[1] == 0 else Memory(place, strides[0])
        key = (place, tuple(sizes), tuple(strides))
        return self.fill(key, Operation("broadcast", self.name(), [Memory(place, 0)], pattern=(sizes, strides)))

    def fill(self, key: object, operation: Operation) -> Operand:
        if key not in self.filled:
            self.filled[key] = operation.out
            self.passes.operations.append(operation)
        return self.filled[key]

    def array(self, operand: Operand) -> Operand:
        """The operand as one that all kernels take."""
        if not isinstance(operand, Scalar):
            return operand
        return self.fill(operand, Operation("copy_scalar", self.name(), [operand]))

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
        inputs = [self.read(view) for view in reads]
        scalars = [i for i, each in enumerate(inputs) if isinstance(each, Scalar)]
        if code in _WITH_SCALAR and len(scalars) == 1:
            inputs = [inputs[1 - scalars[0]], inputs[scalars[0]]]
            code = _WITH_SCALAR[code][scalars[0]]
        else:
            inputs = [self.array(each) for each in inputs]
        value = task.writes
        if value is not None and value not in self.group.memory:
            out = self.registers[value] = self.name()
        else:
            out = self.direct(self.target(task))
            if value is not None and task.final:
                self.registers[value] = out
        self.passes.operations.append(Operation(code, out, inputs, constant, value=value))


def _fuse(passes: Passes) -> None:
    """Products that one sum alone reads join it, where no memory sees them."""
    reads = Counter(each for operation in passes.operations for each in operation.inputs)
    fused = {"multiply": "multiply_add", "multiply_scalar": "multiply_add_scalar"}
    products: dict[Operand, Operation] = {
        operation.out: operation
        for operation in passes.operations
        if operation.code in fused and isinstance(operation.out, Register)
    }
    gone: set[Operation] = set()
    for operation in passes.operations:
        if operation.code != "add":
            continue
        for i, each in enumerate(operation.inputs):
            product = products.get(each)
            if product is not None and reads[each] == 1:
                operation.code = fused[product.code]
                operation.inputs = [*product.inputs, operation.inputs[1 - i]]
                gone.add(product)
                break
    passes.operations = [operation for operation in passes.operations if operation not in gone]


def _number_registers(passes: Passes) -> None:
    """Gives names numbers, each again when its last reader is done; constants, which are filled once, keep theirs."""
    last = {each: i for i, operation in enumerate(passes.operations) for each in operation.inputs}
    last |= {operation.out: -1 for operation in passes.operations if operation.code == "fill"}
    numbers: dict[Operand, Operand] = {}
    free: list[int] = []
    for i, operation in enumerate(passes.operations):
        read = {each for each in operation.inputs if isinstance(each, Register)}
        operation.inputs = [numbers[each] if each in read else each for each in operation.inputs]
        for each in sorted(read, key=lambda register: register.name):
            if last[each] == i:
                free.append(numbers.pop(each).name)  # type: ignore[union-attr]
        if isinstance(operation.out, Register):
            out = operation.out
            number = free.pop() if free and operation.code != "fill" else passes.registers
            passes.registers = max(passes.registers, number + 1)
            operation.out = Register(number)
            if out in last:
                numbers[out] = operation.out
            else:
                free.append(number)


def group_code(group: Group, place: Callable[[View], Place], target: Callable[[Task], Place]) -> GroupCode:
    """A group's operations. `place` tells where a view's base lies, `target` where a task writes."""
    shapes = [(1, group.size)]
    for task in group.tasks:
        for view in task.reads:
            found = _rows_of(view, group.size)
            if found is not None and len(shapes) == 1:
                shapes.append(found)
    code = GroupCode(group, [])
    for shape in shapes:
        builder = _Builder(group, shape, place, target)
        for task in group.tasks:
            builder.add(task)
        _fuse(builder.passes)
        _number_registers(builder.passes)
        code.passes.append(builder.passes)
    return code
