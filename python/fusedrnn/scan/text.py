"""A program in words, for ``print(program)``: its instructions, what a step costs, what forward keeps for backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fusedrnn.scan.graph import Level, Shape, Step, Value, needed
from fusedrnn.scan.instructions import ELEMENTWISE

if TYPE_CHECKING:
    from fusedrnn.scan.program import Program

_OUTSIDE = frozenset(("leaf", "constant"))
_PASSES = {
    "sum": 1,
    "inner": 2,
    "max": 1,
    "argmax": 1,
    "total": 1,
    "recurrence": 2,
    "softmax": 4,
}  # operations an element read
_LEVELS = {Level.SHARED: "once a call", Level.ROW: "once a row", Level.STEP: "each step"}


def text(program: Program) -> str:
    """List the instructions of a step, then its flops, what the reserve has, and sizes in bytes.

    A flop is one operation of one element, exp and its like too; a product has two for each pair of factors. A state
    that lies turned (`fusedrnn.scan.turned`) is listed with its axes exchanged.
    """
    recurrence, executable = program.recurrence, program.executable
    step, derivative = executable.step, executable.derivative
    forward = _instructions(step)
    backward = [] if derivative is None else _instructions(derivative.step)
    backward = [value for value in backward if value not in set(forward)]
    constants = [value for value in needed(step.results) if value.op == "constant"]
    kept, states = executable.kept, step.states
    names = {value: str(value.attributes[0]) for value in needed((*step.results, *step.leaves)) if value.op == "leaf"}
    names |= {value: _constant(value) for value in constants}
    names |= {state: f"{names[state]}, turned" for state, wish in zip(states, executable.turned, strict=True) if wish}
    lines = [f"{program.name}: {len(forward)} instructions forward, {len(backward)} backward, {program.dtype}"]
    lines += [f"  {name}: {_form(leaf)}" for leaf, name in names.items() if leaf.op == "leaf"]
    lines += [_line(value, names) for value in forward]
    lines += _results("new state", recurrence.state.names, step.new_states, names)
    lines += _results("y", recurrence.y.names, step.outputs, names)
    flops = {level: sum(_flops(value) for value in forward if value.level == level) for level in Level}
    lines.append(f"flops of a step and row: {flops[Level.STEP]:,}")
    lines += [f"flops {_LEVELS[level]}: {flops[level]:,}" for level in (Level.ROW, Level.SHARED) if flops[level]]
    reserve, state = (sum(value.size for value in values) for values in (kept, states))
    element = np.dtype(program.dtype).itemsize
    lines.append(f"reserve, floats of a step and row: {reserve:,}")
    lines += [f"  {_name(value, names)} = {value.op} {list(value.shape)}" for value in kept]
    lines.append(f"states, floats of a step and row: {state:,}")
    lines.append(f"bytes kept for backward: {element} * N * ({reserve} * T + {state} * (T + 1))")
    constant = sum(value.size for value in constants)
    lines.append(f"constants: {len(constants)}, of {constant:,} elements")
    return "\n".join(lines)


def _instructions(step: Step) -> list[Value]:
    return [value for value in needed(step.results) if value.op not in _OUTSIDE]


def _name(value: Value, names: dict[Value, str]) -> str:
    return names.get(value, f"%{value.index}")


def _constant(value: Value) -> str:
    array = value.graph.arrays[value.attributes[0]]
    return f"{array.item():.6g}" if array.ndim == 0 and array.dtype.kind == "f" else f"constant {list(array.shape)}"


def _form(value: Value) -> str:
    return f"{value.kind} {list(value.shape)}, {_LEVELS[value.level]}"


def _line(value: Value, names: dict[Value, str]) -> str:
    arguments = [_name(each, names) for each in value.inputs] + [_attribute(each) for each in value.attributes]
    where = f"  {value.where}" if value.where else ""
    return f"  %{value.index} = {value.op}({', '.join(arguments)}): {_form(value)}{where}"


def _attribute(attribute: object) -> str:
    return str(list(attribute)) if isinstance(attribute, tuple) else str(attribute)


def _results(name: str, places: Sequence[str], values: Sequence[Value], names: dict[Value, str]) -> list[str]:
    return [f"  {name}{place} = {_name(value, names)}" for place, value in zip(places, values, strict=True)]


def _flops(value: Value) -> int:
    if value.op in ELEMENTWISE:
        return value.size
    if value.op == "product":
        return 2 * value.size * _inner(value.inputs[0].shape)
    return _PASSES.get(value.op, 0) * (value.inputs[0].size if value.inputs else 0)


def _inner(shape: Shape) -> int:
    return shape[-1] if shape else 1
