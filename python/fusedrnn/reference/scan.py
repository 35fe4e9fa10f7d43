"""A recurrence given as a step's graph, over all steps and rows, one row after the other: the executor's specification.

It serves steps and their derivatives alike. Arrays come as flat lists in the order of the step's leaves: shared [...],
rows [N, ...], states [N, ...], inputs [T, N, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array
from ..scan.derivative import Derivative, Places
from ..scan.evaluate import Uniform, dtype_of, evaluate
from ..scan.graph import Level, Shape, Step, Value, needed
from .random import WORD, philox4x32

Arrays: TypeAlias = Sequence[Array]
OptionalArrays: TypeAlias = "Sequence[Array | None]"


@dataclass(frozen=True)
class Walk:
    """How a scan goes over steps and rows.

    Attributes:
        steps: T.
        batch: N.
        lengths: [N] integers from 0 to T; None for T in all rows. A row takes part in the steps before its length. In
            the others its state stays, its outputs are zeros, and it adds nothing to totals over steps.
        reverse: Whether it goes from the last step to the first; a row then starts at its length - 1.
        seed: Of the random numbers.
        row_offset: The number of the first row, for the random numbers.
        step_offset: The number of the first step in time, for the random numbers.
        dtype: float32 or float64, of all reals.
    """

    steps: int
    batch: int
    lengths: Any = None
    reverse: bool = False
    seed: int = 0
    row_offset: int = 0
    step_offset: int = 0
    dtype: Any = np.float64

    def alive(self, row: int, step: int) -> bool:
        """Whether a row takes part in a step."""
        return self.lengths is None or step < int(self.lengths[row])

    def uniform(self, row: int, step: int) -> Uniform:
        """The random numbers of a row and step, as `evaluate` asks for them."""

        def numbers(stream: int, shape: Shape) -> Array:
            units = int(np.prod(shape, dtype=np.int64))
            return uniform(self.seed, row + self.row_offset, step + self.step_offset, stream, units).reshape(shape)

        return numbers

    def zeros(self, value: Value, *lead: int) -> Array:
        """An array for a value with leading axes."""
        return np.zeros((*lead, *value.shape), dtype_of(value, self.dtype))


class Scanned(NamedTuple):
    """Hold what a scan gives, in the order of the step's results.

    Attributes:
        new_states: [N, ...], after all steps.
        outputs: [T, N, ...].
        row_outputs: [N, ...].
        shared_outputs: [...].
        states_before: [T, N, ...], the states before each step.
    """

    new_states: list[Array]
    outputs: list[Array]
    row_outputs: list[Array]
    shared_outputs: list[Array]
    states_before: list[Array]


class ScanGradients(NamedTuple):
    """Gradients of a step's leaves, in their order and shaped like them; None for integers and what is not wanted."""

    states: list[Array | None]
    inputs: list[Array | None]
    rows: list[Array | None]
    shared: list[Array | None]


def uniform(seed: int, row: int, step: int, stream: int, units: int) -> Array:
    """Draw [units] numbers in [0, 1), multiples of 2^-24 and so exact in float32, as float64.

    They come from the counters (block, row, step, stream), whose words lie as those of masks do (`Random.words`).
    """
    u = np.arange(units, dtype=np.uint64)
    row_, step_, stream_ = (np.array([n & WORD], np.uint64) for n in (row, step, stream))
    words = philox4x32((u // 64 * 16 + u % 16, row_, step_, stream_), (seed & WORD, seed >> 32))
    chosen = np.stack(np.broadcast_arrays(*words))[u // 16 % 4, np.arange(units)]
    numbers: Array = (chosen >> np.uint64(8)) * 2.0**-24
    return numbers


def run(step: Step, shared: Arrays, rows: Arrays, states: Arrays, inputs: Arrays, **walk: Any) -> Scanned:
    """Compute a scan.

    Args:
        step: One step.
        shared: An array for each of ``step.shared``.
        rows: The same for ``step.rows``.
        states: The same for ``step.states``, before the first step.
        inputs: The same for ``step.inputs``.
        **walk: The fields of `Walk`; steps and batch are required.

    Returns:
        The results.
    """
    return _run(step, shared, rows, states, inputs, Walk(**walk))


def _run(step: Step, shared: Arrays, rows: Arrays, states: Arrays, inputs: Arrays, walk: Walk) -> Scanned:
    results = Scanned(
        [np.array(array, dtype_of(leaf, walk.dtype)) for leaf, array in zip(step.states, states, strict=True)],
        [walk.zeros(value, walk.steps, walk.batch) for value in step.outputs],
        [walk.zeros(value, walk.batch) for value in step.row_outputs],
        [],
        [walk.zeros(value, walk.steps, walk.batch) for value in step.states],
    )
    totals = [value for value in needed(step.results) if value.op == "total"]
    known = dict(zip(step.shared, shared, strict=True))
    sums = {value: walk.zeros(value) for value in totals if value.level == Level.SHARED}
    for row in range(walk.batch):
        own = known | _at(step.rows, rows, row)
        own_sums = {value: walk.zeros(value) for value in totals if value.level == Level.ROW}
        by_step = _Terms(totals, Level.STEP, own_sums | sums)
        for place in range(walk.steps)[:: -1 if walk.reverse else 1]:
            _put(results.states_before, [state[row] for state in results.new_states], place, row)
            if walk.alive(row, place):
                given = own | _at(step.states, results.states_before, place, row) | _at(step.inputs, inputs, place, row)
                wanted = [*step.new_states, *step.outputs, *by_step.values]
                found = evaluate(wanted, given, walk.dtype, walk.uniform(row, place))
                _put(results.new_states, found, row)
                _put(results.outputs, found[len(step.new_states) :], place, row)
                by_step.add(found[len(step.new_states) + len(step.outputs) :])
        by_row = _Terms(totals, Level.ROW, sums)
        found = evaluate([*step.row_outputs, *by_row.values], own | own_sums, walk.dtype)
        _put(results.row_outputs, found, row)
        by_row.add(found[len(step.row_outputs) :])
    results.shared_outputs.extend(evaluate(step.shared_outputs, known | sums, walk.dtype))
    return results


class _Terms:
    """Collect what totals add up that is computed at one level."""

    def __init__(self, totals: Sequence[Value], level: Level, sums: dict[Value, Array]) -> None:
        self._totals = [value for value in totals if value.inputs[0].level == level]
        self._sums = sums
        self.values = [value.inputs[0] for value in self._totals]

    def add(self, terms: Arrays) -> None:
        for value, term in zip(self._totals, terms, strict=True):
            self._sums[value] += term


def _at(leaves: Sequence[Value], arrays: Arrays, *place: int) -> dict[Value, Array]:
    return {leaf: array[place] for leaf, array in zip(leaves, arrays, strict=True)}


def _put(targets: Arrays, found: Arrays, *place: int) -> None:
    """Write as many as there are targets."""
    for target, array in zip(targets, found, strict=False):
        target[place] = array


def gradients(
    derivative: Derivative,
    shared: Arrays,
    rows: Arrays,
    states: Arrays,
    inputs: Arrays,
    *,
    dnew_states: OptionalArrays | None = None,
    doutputs: OptionalArrays | None = None,
    drow_outputs: OptionalArrays | None = None,
    dshared_outputs: OptionalArrays | None = None,
    **walk: Any,
) -> ScanGradients:
    """Compute a scan and its gradients.

    Args:
        derivative: The derivative of the step.
        shared, rows, states, inputs: As `run` takes them for ``derivative.forward``.
        dnew_states, doutputs, drow_outputs, dshared_outputs: The gradients of the forward's results, in their order;
            None for zeros. Those of integers are not read.
        **walk: The fields of `Walk`, of the forward scan.

    Returns:
        The gradients.
    """
    forward, step = derivative.forward, derivative.step
    how = Walk(**walk)
    before = _run(forward, shared, rows, states, inputs, how).states_before

    def given(values: Sequence[Value], places: Places, arrays: OptionalArrays | None, *lead: int) -> list[Array]:
        """The gradients of those results that have one."""
        arrays = [None] * len(values) if arrays is None else arrays
        return [
            np.zeros((*lead, *value.shape)) if array is None else array
            for value, place, array in zip(values, places, arrays, strict=True)
            if place is not None
        ]

    n = how.batch
    found = _run(
        step,
        [*shared, *given(forward.shared_outputs, derivative.shared_outputs, dshared_outputs)],
        [*rows, *given(forward.row_outputs, derivative.row_outputs, drow_outputs, n)],
        given(forward.states, derivative.states, dnew_states, n),
        [*inputs, *before, *given(forward.outputs, derivative.outputs, doutputs, how.steps, n)],
        replace(how, reverse=not how.reverse),
    )

    def of(places: Places, arrays: Arrays) -> list[Array | None]:
        return [None if place is None else arrays[place] for place in places]

    return ScanGradients(
        of(derivative.states, found.new_states),
        of(derivative.inputs, found.outputs),
        of(derivative.rows, found.row_outputs),
        of(derivative.shared, found.shared_outputs),
    )
