"""A step traced, differentiated and planned once, and kept for later calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from threading import Lock, RLock
from typing import Any, TypeVar

import numpy as np

from fusedrnn.scan.arguments import Arguments, common_dtype
from fusedrnn.scan.closures import Dependencies
from fusedrnn.scan.derivative import Derivative, derive, with_states
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.graph import needed
from fusedrnn.scan.leaves import KINDS
from fusedrnn.scan.text import text
from fusedrnn.scan.tracing import Abstract, Recurrence, trace_step
from fusedrnn.scan.trees import Structure, flatten

Step = Callable[..., Any]
Made = TypeVar("Made")
# Programs of one step; the oldest goes.
MOST_PROGRAMS = 64


def _once(make: Callable[[Program], Made]) -> Callable[[Program], Made]:
    """Make it in one thread alone, as it adds to the step's graph."""

    def guarded(program: Program) -> Made:
        with program.lock:
            found: Made | None = vars(program).get(make.__name__)
            return make(program) if found is None else found

    return guarded


class Program:
    """What a step computes for arrays of these shapes; ``print(program)`` lists it.

    Attributes:
        name: Of the user's function.
        recurrence: The traced step, and the structures of its arguments and results.
        dtype: Of all reals.
        structures: Of the arguments, by their names.
        resets: Whether its first input says where states are reset, and its last rows to what.
    """

    def __init__(
        self, name: str, recurrence: Recurrence, dtype: Any, structures: Mapping[str, Structure], resets: bool
    ) -> None:
        self.name = name
        self.recurrence = recurrence
        self.dtype = dtype
        self.structures = structures
        self.resets = resets
        self.lock = RLock()

    @cached_property
    def draws(self) -> bool:
        """Whether the step draws random numbers."""
        return any(value.op == "uniform" for value in needed(self.recurrence.step.results))

    @cached_property
    @_once
    def derivative(self) -> Derivative:
        """The derivative of the step."""
        return derive(self.recurrence.step)

    @cached_property
    @_once
    def executable(self) -> Executable:
        """The step as the executor runs it."""
        return Executable(self.recurrence.step, self.derivative)

    @cached_property
    @_once
    def second(self) -> Executable:
        """The derivative as a program of its own, which has a derivative too."""
        step = self.derivative.step
        return Executable(step, derive(step))

    @cached_property
    @_once
    def with_states(self) -> Executable:
        """The step with its states before the step as further outputs, which `second` takes as inputs."""
        step = with_states(self.recurrence.step)
        return Executable(step, derive(step))

    def __str__(self) -> str:
        return text(self)


def _abstracts(tree: Any, lead: int, name: str) -> Any:
    leaves, structure = flatten(tree, name)
    return structure.pack([Abstract(np.shape(leaf)[lead:], KINDS[leaf.dtype.kind]) for leaf in leaves])  # type: ignore[arg-type]


def _with_resets(step: Step) -> Step:
    """The step, before which the states are what `first` says wherever `reset` is true."""

    def resettable(params: Any, state: Any, x: Any, context: Any) -> Any:
        given, first = context
        inputs, reset = x
        leaves, structure = flatten(state)
        if first is None:
            leaves = [np.where(reset, np.zeros(leaf.shape, leaf.dtype), leaf) for leaf in leaves]
        else:
            leaves = [np.where(reset, a, b) for a, b in zip(flatten(first)[0], leaves, strict=True)]
        arguments = (params, structure.pack(leaves), inputs)
        return step(*arguments) if given is None else step(*arguments, given)

    return resettable


class _Known:
    """Programs by all that they depend on.

    A key has objects by their `id`. So a program goes with the first of them that dies; what cannot say that it dies is
    kept alive.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.programs: dict[Any, tuple[list[Any], Program]] = {}

    def get(self, key: Any) -> Program | None:
        found = self.programs.get(key)
        return None if found is None else found[1]

    def put(self, key: Any, objects: list[Any], program: Program) -> Program:
        with self.lock:
            if key not in self.programs:
                while len(self.programs) >= MOST_PROGRAMS:
                    del self.programs[next(iter(self.programs))]
                self.programs[key] = ([self._watched(each, key) for each in objects], program)
            return self.programs[key][1]

    def _watched(self, each: Any, key: Any) -> Any:
        programs = weakref.ref(self)

        def forget(_: Any) -> None:
            known = programs()
            if known is not None:
                known.programs.pop(key, None)

        try:
            return weakref.ref(each, forget)
        except TypeError:
            return each


_known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


def _home(step: Step) -> _Known:
    """Where programs of a step's code are kept: functions made anew from the same code share it."""
    function = getattr(step, "__func__", step)
    owner = getattr(function, "__code__", None) or type(step)
    found = _known.get(owner)
    if found is None:
        found = _known.setdefault(owner, _Known())
    return found


def find_program(
    step: Step, arguments: Arguments, trees: Mapping[str, Any], *, training: bool, resets: bool
) -> Program:
    """The program of a step for arguments of these forms, traced now if it is not known.

    A step that depends on other numbers than when it was traced has another program.
    """
    home = _home(step)
    dependencies = Dependencies(step)
    key = (*dependencies.key, None, *arguments.key, training, resets)
    program = home.get(key)
    if program is not None:
        return program
    dtype = common_dtype(**trees)
    params, state, x, context, first = trees.values()
    abstract = (
        _abstracts(params, 0, "params"),
        _abstracts(state, 1, "state"),
        _abstracts(x, 2, "x"),
        _abstracts(context, 1, "context"),
    )
    if resets:
        given = (abstract[3], None if first is None else _abstracts(first, 1, "reset_state"))
        recurrence = trace_resets(step, *abstract[:3], given, training)
    else:
        recurrence = trace_step(step, *abstract, training=training)
    name = getattr(step, "__name__", type(step).__name__)
    structures = {role: flatten(tree, role)[1] for role, tree in trees.items()}
    return home.put(key, dependencies.objects, Program(name, recurrence, dtype, structures, resets))


def trace_resets(step: Step, params: Any, state: Any, x: Any, context: Any, training: bool) -> Recurrence:
    """Trace a step whose states are reset: context is (the step's own, first states), either of which may be None."""
    given, first = context
    parts = {"context": given, "first": first}
    present = {name: part for name, part in parts.items() if part is not None}
    inputs = {"reset": Abstract((), "boolean")} if x is None else {"reset": Abstract((), "boolean"), "x": x}

    def bridged(p: Any, s: Any, at: Any, more: Any = None) -> Any:
        more = {} if more is None else more
        return _with_resets(step)(p, s, (at.get("x"), at["reset"]), (more.get("context"), more.get("first")))

    bridged.__wrapped__ = step  # type: ignore[attr-defined]  # whose line errors name
    return trace_step(bridged, params, state, inputs, present or None, training=training)
