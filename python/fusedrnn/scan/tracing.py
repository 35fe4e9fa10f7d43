"""A user's step, run once with traced arrays: what comes out is its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusedrnn.scan import contractions, indexing, numpy_functions, numpy_shapes, reductions, ufuncs  # noqa: F401
from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Kind, Level, Shape, Step, Value
from fusedrnn.scan.trace import Trace, TraceError, tracing
from fusedrnn.scan.traced import KIND_NAMES, Memory, Traced, lift
from fusedrnn.scan.trees import Structure, flatten

__all__ = ["Abstract", "Recurrence", "TraceError", "trace_step"]


@dataclass(frozen=True)
class Abstract:
    """An array of one row without its numbers: no axes of time and batch, no precision."""

    shape: Shape
    kind: Kind


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A traced step and the structures that its leaves come from.

    Attributes:
        step: Its leaves stand in the order of the structures' leaves.
        parameters: Of ``step.shared``.
        state: Of ``step.states`` and ``step.new_states``.
        x: Of ``step.inputs``.
        context: Of ``step.rows``.
        y: Of ``step.outputs``.
    """

    step: Step
    parameters: Structure
    state: Structure
    x: Structure
    context: Structure
    y: Structure


def trace_step(
    function: Callable[..., Any], parameters: Any, state: Any, x: Any, context: Any = None, *, training: bool = True
) -> Recurrence:
    """Call ``function(parameters, state, x)``, or with the context as fourth argument, once with traced arrays.

    The structures have Abstracts as leaves; x and context may be None as a whole. What the step returns and does not
    depend on traced arrays, and what it closes over, is a constant of this moment; so are numbers of ``numpy.random``.
    In-place changes such as ``h += x`` rebind the name, as if the step owned the array.

    Raises:
        TraceError: For what cannot be traced, and for a new state that does not fit the state.
    """
    with tracing(training) as trace:
        arguments, structures, leaves = [], [], []
        for name, level, given in (
            ("params", Level.SHARED, parameters),
            ("state", Level.STEP, state),
            ("x", Level.STEP, x),
            ("context", Level.ROW, context),
        ):
            argument, structure, values = _enter(trace, name, level, given)
            arguments.append(argument)
            structures.append(structure)
            leaves.append(values)
        try:
            result = function(*arguments[: 3 if context is None else 4])
        except RecursionError as error:
            raise TraceError(f"{trace.graph.where or 'the step'}: the step calls itself without an end") from error
        except ValueError as error:  # NumPy's own, where an element of an ordinary array was to become a traced one
            if isinstance(error, TraceError) or not isinstance(error.__cause__, TraceError):
                raise
            raise TraceError(
                f"{error.__cause__} Instead of out[i] = a write np.where, np.stack or np.concatenate"
            ) from error
        if not isinstance(result, tuple) or len(result) != 2 or hasattr(result, "_fields"):
            got = f"a tuple of {len(result)}" if type(result) is tuple else type(result).__name__
            got = "an array" if isinstance(result, Traced) else got
            raise TraceError(f"{_definition(function)}: expected the step to return (new_state, y), got {got}")
        at = _definition(function)
        new_states = _new_states(at, result[0], structures[1], leaves[1])
        outputs, y = _leave(at, "y", result[1])
    shared, states, inputs, rows = leaves
    step = Step(trace.graph, *map(tuple, (shared, rows, states, inputs, new_states, outputs)))
    parameters, states_given, inputs_given, rows_given = structures
    return Recurrence(step, parameters, states_given, inputs_given, rows_given, y)


def _enter(trace: Trace, name: str, level: Level, given: Any) -> tuple[Any, Structure, list[Value]]:
    """Leaves of the graph for a structure of Abstracts, and the structure of traced arrays that the step gets."""
    abstracts, structure = flatten(given, name)
    values = []
    arrays = []
    for where, abstract in zip(structure.names, abstracts, strict=True):
        if not isinstance(abstract, Abstract):
            raise TypeError(f"{name}{where}: expected an Abstract, got {type(abstract).__name__}")
        value = trace.graph.leaf(name + where, abstract.shape, abstract.kind, level)
        values.append(value)
        arrays.append(Traced(value, Memory(name + where if level < Level.STEP else "")))
    return structure.pack(arrays), structure, values


def _leave(at: str, name: str, result: Any) -> tuple[list[Value], Structure]:
    """The values of what the step returned."""
    try:
        found, structure = flatten(result, name)
    except TypeError as error:
        raise TraceError(f"{at}: {error}") from None
    values = []
    for where, each in zip(structure.names, found, strict=True):
        try:
            values.append(lift(each))
        except TraceError as error:
            raise TraceError(f"{at}: {name}{where}: {str(error).partition(': ')[2]}") from None
    return values, structure


def _new_states(at: str, result: Any, structure: Structure, states: list[Value]) -> list[Value]:
    values, got = _leave(at, "new state", result)
    if got != structure:
        raise TraceError(
            f"{at}: new state: expected the structure of the state, {structure}, got {got}. "
            "A step returns (new_state, y)"
        )
    converted = []
    for name, value, state in zip(structure.names, values, states, strict=True):
        if value.shape != state.shape:
            raise TraceError(
                f"{at}: new state{name}: expected shape {state.shape}, got {value.shape}. "
                "A state keeps its shape: start from the shape that it has at the end"
            )
        if value.kind != state.kind:
            if state.kind == "real":
                value = ufuncs.real(value)
            elif state.kind == "integer" and value.kind == "boolean":
                value = ins.as_integer(value)
            else:
                raise TraceError(
                    f"{at}: new state{name}: expected {KIND_NAMES[state.kind]}, as in the state, "
                    f"got {KIND_NAMES[value.kind]}. "
                    "Give real numbers for the first state, or write .astype"
                )
        converted.append(value)
    return converted


def _definition(function: Any) -> str:
    """Where a step is defined: "file.py:12"."""
    function = getattr(function, "func", function)  # of functools.partial
    function = getattr(function, "__wrapped__", function)  # of functools.wraps
    if not hasattr(function, "__code__"):
        function = getattr(function, "__call__", function)  # noqa: B004  an object that is called
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}" if code else repr(function)
