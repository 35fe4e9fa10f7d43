"""Reverse mode as a rewriting of a step's graph: the derivative is a step in the same graph, walked back in time.

What a value of level STEP adds to the gradient of a value of level ROW or SHARED goes through a total there, at the
value itself, so that what is computed once forward is differentiated once. Rules and what holds at ties:
`fusedrnn.scan.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from fusedrnn.scan.graph import Graph, Level, Shape, Step, Value, needed
from fusedrnn.scan.instructions import add, broadcast, concatenate, lift, subtract, total
from fusedrnn.scan.rules import contribution, minus

Places = tuple["int | None", ...]
# Terms of a gradient that a planner does better one by one, as sums over rows and steps of their own.
APART = frozenset(("product", "put", "scatter"))


@dataclass(frozen=True, eq=False)
class Derivative:
    """The derivative of a step, and where to find whose gradient.

    ``step`` takes and gives, in this order:

    - shared: the forward's, then gradients of its shared_outputs;
    - rows: the forward's, then gradients of its row_outputs;
    - states: gradients of the forward's new_states, given by the step after it in time;
    - inputs: the forward's, then the forward's states before the step, then gradients of its outputs;
    - new_states: gradients of the states before the step, as many as states and alike;
    - outputs, row_outputs, shared_outputs: gradients of the forward's inputs, rows and shared leaves.

    Integers and booleans have no gradient. So each tuple below has an entry for each of the forward's values of that
    name: the place of its gradient, or None where it has none or nobody wants it. Places count from the start of the
    tuple of ``step`` that is named. A gradient that is always zero has a place like the rest; it is a constant there.

    Attributes:
        forward: The step that was differentiated.
        step: Its derivative.
        states: Places in both ``step.states`` and ``step.new_states``.
        inputs: Places in ``step.outputs``.
        rows: Places in ``step.row_outputs``.
        shared: Places in ``step.shared_outputs``.
        outputs: Places in ``step.inputs``.
        row_outputs: Places in ``step.rows``.
        shared_outputs: Places in ``step.shared``.
    """

    forward: Step
    step: Step
    states: Places
    inputs: Places
    rows: Places
    shared: Places
    outputs: Places
    row_outputs: Places
    shared_outputs: Places

    def again(self, step: Step) -> Derivative:
        """Differentiate another form of the forward step, with respect to the same."""
        wishes = [[place is not None for place in places] for places in (self.inputs, self.rows, self.shared)]
        return derive(step, inputs=wishes[0], rows=wishes[1], shared=wishes[2])


def derive(
    step: Step,
    *,
    inputs: Sequence[bool] | None = None,
    rows: Sequence[bool] | None = None,
    shared: Sequence[bool] | None = None,
) -> Derivative:
    """Differentiate a step.

    A derivative of the derivative also has gradients of the states before each step, as those of any input. They belong
    to the forward step's states, and reach its other leaves where those states are outputs too: `with_states`.

    Args:
        step: A step whose values of level STEP do not depend on totals.
        inputs: Whose gradients are wanted, for each of ``step.inputs``; all by default.
        rows: The same for ``step.rows``.
        shared: The same for ``step.shared``.

    Returns:
        The derivative, in the graph of the step.
    """
    graph = step.graph
    states = [value.kind == "real" for value in step.states]
    wanted = {
        leaf
        for leaves, wishes in (
            (step.states, states),
            (step.inputs, inputs),
            (step.rows, rows),
            (step.shared, shared),
        )
        for leaf, wish in zip(leaves, [True] * len(leaves) if wishes is None else wishes, strict=True)
        if wish and leaf.kind == "real"
    }
    seeds = [
        _seeds(graph, step.new_states, Level.STEP, [value.attributes[0] for value in step.states], states),
        _seeds(graph, step.outputs, Level.STEP, [f"output {i}" for i in range(len(step.outputs))]),
        _seeds(graph, step.row_outputs, Level.ROW, [f"row output {i}" for i in range(len(step.row_outputs))]),
        _seeds(graph, step.shared_outputs, Level.SHARED, [f"total {i}" for i in range(len(step.shared_outputs))]),
    ]
    found = _gradients(step.results, [seed for group in seeds for seed in group], wanted)

    def given(leaves: Sequence[Value]) -> tuple[tuple[Value, ...], Places]:
        kept = [leaf for leaf in leaves if leaf in wanted]
        gradients = tuple(found[leaf] if leaf in found else _zeros(graph, leaf.shape) for leaf in kept)
        return gradients, _places([leaf in wanted for leaf in leaves], 0)

    new_states, state_places = given(step.states)
    outputs, input_places = given(step.inputs)
    row_outputs, row_places = given(step.rows)
    shared_outputs, shared_places = given(step.shared)
    dnew_states, doutputs, drow_outputs, dshared_outputs = seeds
    before = step.inputs + step.states
    derivative = Step(
        graph,
        shared=step.shared + _present(dshared_outputs),
        rows=step.rows + _present(drow_outputs),
        states=_present(dnew_states),
        inputs=before + _present(doutputs),
        new_states=new_states,
        outputs=outputs,
        row_outputs=row_outputs,
        shared_outputs=shared_outputs,
    )
    _check(derivative)
    return Derivative(
        step,
        derivative,
        state_places,
        input_places,
        row_places,
        shared_places,
        _places([seed is not None for seed in doutputs], len(before)),
        _places([seed is not None for seed in drow_outputs], len(step.rows)),
        _places([seed is not None for seed in dshared_outputs], len(step.shared)),
    )


def with_states(step: Step) -> Step:
    """The same step with its states before the step as further outputs, behind its own."""
    return Step(
        step.graph,
        step.shared,
        step.rows,
        step.states,
        step.inputs,
        step.new_states,
        step.outputs + step.states,
        step.row_outputs,
        step.shared_outputs,
    )


def _present(seeds: Iterable[Value | None]) -> tuple[Value, ...]:
    return tuple(seed for seed in seeds if seed is not None)


def _places(present: Sequence[bool], start: int) -> Places:
    """Places of those that are present, counted from start."""
    return tuple(start + sum(present[:i]) if there else None for i, there in enumerate(present))


def _seeds(
    graph: Graph, values: Sequence[Value], level: Level, names: Sequence[str], real: Sequence[bool] | None = None
) -> list[Value | None]:
    """Leaves for the gradients of results; None where a result has none."""
    real = [value.kind == "real" for value in values] if real is None else real
    return [
        graph.leaf(f"gradient of {name}", value.shape, "real", level) if there else None
        for value, name, there in zip(values, names, real, strict=True)
    ]


def _zeros(graph: Graph, shape: Shape) -> Value:
    return broadcast(graph.constant(0.0), shape)


def _gradients(results: Sequence[Value], seeds: Sequence[Value | None], wanted: set[Value]) -> dict[Value, Value]:
    """The gradients of all wanted values that are not zero."""
    order = needed(results)
    active = set(wanted)
    for value in order:
        if value.kind == "real" and any(each in active for each in value.inputs):
            active.add(value)
    terms: dict[Value, list[tuple[Level, Value]]] = {}
    for value, seed in zip(results, seeds, strict=True):
        if seed is not None and value in active:
            terms.setdefault(value, []).append((seed.level, seed))
    found: dict[Value, Value] = {}
    before = order[0].graph.where if order else ""
    for value in reversed(order):
        if value not in terms:
            continue
        value.graph.where = value.where
        g = _sum_of_terms(value, terms.pop(value))
        if value in wanted:
            found[value] = g
        for place, operand in enumerate(value.inputs):
            if operand in active:
                term = contribution(value, g, place)
                if term is not None:
                    terms.setdefault(operand, []).append((value.level, term))
    if order:
        order[0].graph.where = before
    return found


def _sum_of_terms(value: Value, terms: Sequence[tuple[Level, Value]]) -> Value:
    """The gradient of a value from its terms, each with the level of that which it comes from.

    A term may be of a lower level than what it comes from, where it is alike for all rows or steps; a total over those
    must count each of them, so that it is lifted first.
    """
    whole = [term for level, term in terms if level <= value.level]
    for level in Level:
        if level > value.level:
            below = [term for source, term in terms if source == level]
            plain = [term for term in below if _bare(term).op not in APART]
            apart = [term for term in below if _bare(term).op in APART]
            whole += [_total(term, level, value.level) for term in (*apart, *([_sum(plain)] if plain else ()))]
    return _sum(whole)


def _bare(term: Value) -> Value:
    """A term without its minus."""
    return term.inputs[0] if term.op == "negative" else term


def _total(term: Value, level: Level, lower: Level) -> Value:
    found = total(lift(_bare(term), level), lower)
    return minus(found) if term.op == "negative" else found


def _sum(terms: Sequence[Value]) -> Value:
    """The sum, in which those with a minus are subtracted."""
    added = _joined([term for term in terms if term.op != "negative"])
    taken = [term.inputs[0] for term in terms if term.op == "negative"]
    if not added:
        return minus(reduce(add, taken))
    return reduce(subtract, taken, reduce(add, added))


def _joined(terms: Sequence[Value]) -> list[Value]:
    """The same sum, where pads whose elements do not meet are one concatenation: the parts of what was split."""
    if sum(term.op == "pad" for term in terms) < 2:
        return list(terms)
    rest: list[Value] = []
    runs: dict[int, list[list[Value]]] = {}  # of each axis rows of pads that do not meet
    for term in sorted(terms, key=_start):
        axis = _padded_axis(term)
        if axis is None:
            rest.append(term)
            continue
        for run in runs.setdefault(axis, []):
            if _end(run[-1], axis) <= _start(term):
                run.append(term)
                break
        else:
            runs[axis].append([term])
    for axis, found in runs.items():
        rest += [_concatenated(run, axis) if len(run) > 1 else run[0] for run in found]
    return rest


def _padded_axis(term: Value) -> int | None:
    """The one axis along which a pad adds zeros, on either side alone."""
    if term.op != "pad" or set(term.attributes[1]) != {1}:
        return None
    axes = [axis for axis, n in enumerate(term.shape) if n != term.inputs[0].shape[axis]]
    return axes[0] if len(axes) == 1 else None


def _start(term: Value) -> int:
    axis = _padded_axis(term)
    return -1 if axis is None else int(term.attributes[0][axis])


def _end(term: Value, axis: int) -> int:
    return _start(term) + term.inputs[0].shape[axis]


def _concatenated(run: Sequence[Value], axis: int) -> Value:
    parts: list[Value] = []
    place = 0
    shape = run[0].shape
    for term in run:
        if _start(term) > place:
            parts.append(_zeros(term.graph, (*shape[:axis], _start(term) - place, *shape[axis + 1 :])))
        parts.append(term.inputs[0])
        place = _end(term, axis)
    if place < shape[axis]:
        parts.append(_zeros(run[0].graph, (*shape[:axis], shape[axis] - place, *shape[axis + 1 :])))
    return concatenate(parts, axis)


def _check(step: Step) -> None:
    """Each step must be computable before the totals over steps are known, each row before those over rows."""
    for value in needed(step.results):
        early = value.level == Level.ROW and any(each.after and each.level == Level.SHARED for each in value.inputs)
        if value.after and (value.level == Level.STEP or early):
            raise AssertionError(f"internal error: {value!r} of a derivative depends on a total that comes later")
    for value in step.new_states + step.outputs:
        if value.after:
            raise AssertionError(f"internal error: {value!r} is a result of each step and depends on a total")
