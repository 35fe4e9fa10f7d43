"""Second derivatives of scans: the gradient of `scan_backward`, by the derivative of the program's derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional.scan import (
    ScanGradients,
    ScanReserve,
    checked_reserve,
    flat_gradients,
    packed_gradients,
    placed,
    result_gradients,
)
from fusedrnn.scan.call import prepare
from fusedrnn.scan.execute import Kept
from fusedrnn.scan.graph import Value


def unrun_reserve(
    step: Callable[..., Any], params: Any, state: Any, x: Any, *, reverse: bool = False, **options: Any
) -> ScanReserve:
    """Prepare a call of ``scan_forward`` that has not run, for `scan_double_backward` alone, which runs it itself.

    Args:
        step, params, state, x, reverse: As ``scan_forward``.
        **options: Its context, lengths, batch_sizes, resets and reset_state.
    """
    call = prepare(step, params, state, x, **options)
    run = _core.ProgramRun(call.steps, call.batch, call.lengths, reverse, 0, 0, 0, 0)
    kept = Kept(None, run, call.arrays, call.program.dtype == np.float64, call.lengths is not None)
    return ScanReserve(call.program, kept, call.packing, {"lengths": call.lengths, "reverse": reverse})


def scan_double_backward(
    grads: ScanGradients, dy: Any, dstate_n: Any, reserve: ScanReserve | None, *, name: str = "grads.d"
) -> tuple[Any, Any, ScanGradients]:
    """Gradients of ``scan_backward(dy, dstate_n, reserve)``: of the sum of all that it returns times ``grads``.

    The forward pass runs again, its derivative, and the derivatives of both.

    Args:
        grads: For each gradient what it is multiplied by, in its structure and shape; the whole, or any part, may be
            None for zeros.
        dy: As given to ``scan_backward``.
        dstate_n: The same.
        reserve: Of the forward call; it may be used again.
        name: What errors call ``grads``, before the name of an argument.

    Returns:
        (gradient with respect to dy, to dstate_n, and those with respect to the arguments of the forward call).

    Raises:
        TypeError, ValueError, RuntimeError: As ``scan_backward``.
    """
    reserve = checked_reserve(reserve)
    program, run, walk = reserve.program, reserve.kept.run, reserve.walk
    shared, rows, states, inputs = reserve.kept.arrays
    how: dict[str, Any] = {"steps": run.steps, "batch": run.batch, "dtype": program.dtype}
    dstates, doutputs = result_gradients(dy, dstate_n, reserve)
    by_states, by_inputs, by_rows, by_shared = _cotangents(grads, reserve, name)
    forward, second = program.with_states, program.second
    assert forward.derivative is not None
    assert second.derivative is not None
    step = program.recurrence.step
    *found, kept = forward.forward(shared, rows, states, inputs, **how, **walk)
    before = found[1][len(step.outputs) :]
    given = [*inputs, *before, *doutputs]
    back = {**walk, "reverse": not walk["reverse"]}
    *_, kept_again = second.forward(shared, rows, dstates, given, **how, **back)
    assert kept is not None
    assert kept_again is not None
    first = second.backward(kept_again, by_states, by_inputs, by_rows, by_shared)
    # Of the derivative's inputs: forward's inputs, its states before each step, the gradients of its outputs.
    of_inputs = placed(second.derivative.inputs, first[1])
    count = len(step.inputs)
    of_before = [None] * len(step.outputs) + of_inputs[count : count + len(step.states)]
    through = forward.backward(
        kept,
        [None] * len(dstates),
        [each for each, place in zip(of_before, forward.derivative.outputs, strict=True) if place is not None],
    )
    gradients = packed_gradients(
        reserve,
        through[0],
        _sums(of_inputs[:count], through[1]),
        _sums(first[2], through[2]),
        _sums(first[3], through[3]),
    )
    of_outputs = iter(of_inputs[count + len(step.states) :])
    ddy = program.recurrence.y.pack(
        [None if place is None else next(of_outputs) for place in program.derivative.outputs]
    )
    if reserve.packing is not None:
        ddy = reserve.packing.packed(ddy)
    ddstate_n = program.recurrence.state.pack(placed(program.derivative.states, first[0]))
    return ddy, ddstate_n, gradients


def _sums(a: Sequence[Array | None], b: Sequence[Array]) -> list[Array]:
    """Give those of the real ones among a."""
    return [one + other for one, other in zip((each for each in a if each is not None), b, strict=True)]


def _cotangents(grads: Any, reserve: ScanReserve, name: str) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Flat (of states, inputs, rows, shared), for those that have a gradient."""
    program, run = reserve.program, reserve.kept.run
    step, derivative, structures = program.recurrence.step, program.derivative, program.structures
    dparams, dstate, dx, dcontext, dreset_state = (None,) * 5 if grads is None else grads
    if reserve.packing is not None:
        dx = reserve.packing.padded(dx, f"{name}x")
    context = structures["context"].size
    rows, sequences = (run.batch,), (run.steps, run.batch)

    def flat(role: str, given: Any, values: Sequence[Value], lead: tuple[int, ...]) -> list[Any]:
        return flat_gradients(f"{name}{role}", given, structures[role], values, lead, program.dtype)

    def zeros(found: Sequence[Any], values: Sequence[Value], lead: tuple[int, ...]) -> list[Any]:
        return [
            np.zeros(lead + value.shape, program.dtype) if each is None else each
            for each, value in zip(found, values, strict=True)
        ]

    own = step.inputs[1:] if program.resets else step.inputs
    of_x = [None] * (len(step.inputs) - len(own)) + flat("x", dx, own, sequences)
    of_rows = flat("context", dcontext, step.rows[:context], rows)
    of_rows += flat("reset_state", dreset_state, step.rows[context:], rows)
    lists = (
        (flat("state", dstate, step.states, rows), derivative.states),
        (of_x, derivative.inputs),
        (zeros(of_rows, step.rows, rows), derivative.rows),
        (zeros(flat("params", dparams, step.shared, ()), step.shared, ()), derivative.shared),
    )
    states, inputs, of_context, shared = (
        [each for each, place in zip(found, places, strict=True) if place is not None] for found, places in lists
    )
    return states, inputs, of_context, shared
