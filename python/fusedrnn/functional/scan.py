"""Any recurrence, written as one step of one sequence in NumPy: ``scan_forward``, ``scan_backward`` and ``trace``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.environment import checks_arrays
from fusedrnn.functional.reserve import digest
from fusedrnn.scan.arguments import Arguments, whole_number
from fusedrnn.scan.call import prepare
from fusedrnn.scan.execute import Kept
from fusedrnn.scan.leaves import named
from fusedrnn.scan.packing import Packing
from fusedrnn.scan.program import Program, find_program

Step = Callable[..., Any]


class ScanGradients(NamedTuple):
    """Gradients of a scan, structures as the arguments'; None in the place of integers and booleans.

    Attributes:
        dparams: Summed over steps and rows.
        dstate: [N, ...], of the state before the first step.
        dx: [T, N, ...], or None without x or when called with `input_grad=False`.
        dcontext: [N, ...], summed over the steps; None without context.
        dreset_state: [N, ...], or None without reset_state.
    """

    dparams: Any
    dstate: Any
    dx: Any
    dcontext: Any
    dreset_state: Any = None


@dataclass(slots=True)
class ScanReserve:
    """Hold what backward needs from a forward call of a scan: the program, and what its executor kept.

    Attributes:
        walk: Options of the call that the executor takes for second derivatives too.
    """

    program: Program
    kept: Kept
    packing: Packing | None
    walk: Mapping[str, Any]
    digests: list[tuple[str, Any, bytes]] = field(default_factory=list, repr=False)

    def check(self) -> None:
        """RuntimeError if arrays changed since forward, under FUSEDRNN_CHECK=1."""
        for name, array, before in self.digests:
            if digest(array) != before:
                raise RuntimeError(f"{name}: changed between scan_forward and scan_backward")


def scan_forward(
    step: Step,
    params: Any,
    state: Any,
    x: Any,
    *,
    context: Any = None,
    steps: int | None = None,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
    reset_state: Any = None,
    reverse: bool = False,
    training: bool = True,
    keep: bool | None = None,
    recompute: int | bool | None = None,
    seed: int | Callable[[Program], int] = 0,
    row_offset: int = 0,
    step_offset: int = 0,
) -> tuple[Any, Any, ScanReserve | None]:
    """Run a step over all steps and rows: ``state, y[t] = step(params, state, x[t])`` for each row, in one C++ call.

    The step is traced once, with arrays of one row: it sees no axis of the batch or of time. Structures are arrays, or
    dicts, tuples, lists and NamedTuples of arrays. Later calls with the same step, structures and shapes find the
    program; what the step closes over is a constant, and other numbers there make another program.

    Args:
        step: ``step(params, state, x)`` or ``step(params, state, x, context)``, which returns (new state, y).
        params: Parameters, shared by rows and steps. All reals are float32 or float64, all alike.
        state: The state before the first step, leaves [N, ...]; may also have integers and booleans.
        x: The inputs, leaves [T, N, ...]; integers and booleans too. None: the step gets None.
        context: Leaves [N, ...] that the step gets at each step as its fourth argument.
        steps: T where there is no x.
        lengths: N integers from 0 to T: row n takes part in its first lengths[n] steps. y is zero past them, and the
            state stays. With ``reverse`` the row begins at its own last step. Lengths within the context are the
            step's business.
        batch_sizes: [T] integers that never increase: x and y are packed, leaves [sum of batch_sizes, ...].
        resets: Booleans [T, N] (packed: [sum of batch_sizes]): before such a step the row's state is zero, or
            ``reset_state``, and no gradient passes.
        reset_state: As the state. None: zeros.
        reverse: Walk from the last step to the first; y keeps the order of x.
        training: Whether `fusedrnn.ops.dropout` drops.
        keep: Whether to keep a reserve for backward; otherwise None comes in its place. By default as ``training``.
        recompute: Keep the states of every so many steps alone, True for about sqrt(T) of them: backward computes the
            steps between again, to the same bits. None: where the reserve would be beyond 1 GiB. The distance is
            rounded up to a multiple of 512 / N.
        seed: Of random numbers, from 0 to 2^64 - 1, or a function that gives one for a program. ``row_offset``,
            ``step_offset``: which part of a batch and of a sequence this is, for them.

    Returns:
        y (the structure that the step returned, leaves [T, N, ...]), the last state, the reserve.

    Raises:
        TraceError: The step cannot be traced, or does not fit; the message names its line.
        TypeError: Other dtypes than float32 and float64, or not the same for all.
        ValueError: Shapes that do not fit, T = 0, arrays that are not C-contiguous, integers that the dtype has not.
        IndexError: An index that the step computed lies outside of its axis.
    """
    if not callable(step):
        raise TypeError(f"step: expected a function of (params, state, x), got {type(step).__name__}")
    if not callable(seed):
        whole_number("seed", seed, 0, 1 << 64)
    whole_number("row_offset", row_offset, 0, 1 << 32)
    whole_number("step_offset", step_offset, 0, 1 << 32)
    _check_recompute(recompute)
    call = prepare(
        step, params, state, x, context=context, steps=steps, lengths=lengths, batch_sizes=batch_sizes, resets=resets,
        reset_state=reset_state, training=training,
    )  # fmt: skip
    program = call.program
    walk: dict[str, Any] = {
        "lengths": call.lengths,
        "reverse": reverse,
        "seed": seed(program) if callable(seed) else seed,
        "row_offset": row_offset,
        "step_offset": step_offset,
    }
    *found, kept = program.executable.forward(
        *call.arrays, steps=call.steps, batch=call.batch, dtype=program.dtype,
        training=training if keep is None else keep, recompute=recompute,
        **walk,
    )  # fmt: skip
    y, state_n = call.results(found[0], found[1])
    if kept is None:
        return y, state_n, None
    reserve = ScanReserve(program, kept, call.packing, walk)
    if checks_arrays():
        reserve.digests = [
            (name, leaf, digest(leaf)) for role, tree in call.trees.items() for name, leaf in named(tree, role)
        ]
    return y, state_n, reserve


def checked_reserve(reserve: Any) -> ScanReserve:
    """The reserve of a call in training, whose arrays have not changed where that is looked at."""
    if not isinstance(reserve, ScanReserve):
        raise TypeError(f"reserve: expected that of scan_forward(..., training=True), got {type(reserve).__name__}")
    reserve.check()
    return reserve


def scan_backward(dy: Any, dstate_n: Any, reserve: ScanReserve | None, *, input_grad: bool = True) -> ScanGradients:
    """Gradients of ``scan_forward``, by the derivative of its program; it may run again on the same reserve.

    Args:
        dy: As y; it, or any of its leaves, may be None for zeros.
        dstate_n: As the state; likewise.
        reserve: Of the forward call, with training=True.
        input_grad: False leaves dx out (None).

    Raises:
        TypeError, ValueError: As ``scan_forward``. RuntimeError: under FUSEDRNN_CHECK=1, changed arrays.
    """
    reserve = checked_reserve(reserve)
    found = reserve.program.executable.backward(
        reserve.kept, *result_gradients(dy, dstate_n, reserve), input_grad=input_grad
    )
    return packed_gradients(reserve, *found, input_grad=input_grad)


def result_gradients(dy: Any, dstate_n: Any, reserve: ScanReserve) -> tuple[list[Any], list[Any]]:
    """(of the states, of the outputs): flat arrays, or None for zeros, for those that have a gradient."""
    program, run = reserve.program, reserve.kept.run
    recurrence, derivative = program.recurrence, program.derivative
    if reserve.packing is not None:
        dy = reserve.packing.padded(dy, "dy")
    doutputs = flat_gradients("dy", dy, recurrence.y, recurrence.step.outputs, (run.steps, run.batch), program.dtype)
    dstates = flat_gradients(
        "dstate_n", dstate_n, recurrence.state, recurrence.step.states, (run.batch,), program.dtype
    )
    return (
        [d for d, place in zip(dstates, derivative.states, strict=True) if place is not None],
        [d for d, place in zip(doutputs, derivative.outputs, strict=True) if place is not None],
    )


def placed(places: Sequence[int | None], gradients: Sequence[Any]) -> list[Any]:
    """Gradients of all values from those that have one, None for the others."""
    return [None if place is None else gradients[place] for place in places]


def packed_gradients(
    reserve: ScanReserve,
    states: Sequence[Any],
    inputs: Sequence[Any],
    rows: Sequence[Any],
    shared: Sequence[Any],
    *,
    input_grad: bool = True,
) -> ScanGradients:
    """The structures of gradients that stand in the places of the program's derivative."""
    program = reserve.program
    structures, derivative = program.structures, program.derivative
    inputs = placed(derivative.inputs, inputs) if input_grad else []
    rows, first = placed(derivative.rows, rows), []
    if program.resets:
        inputs = inputs[1:]
        first = rows[structures["context"].size :]
        rows = rows[: structures["context"].size]
    dx = structures["x"].pack(inputs) if input_grad else None
    if reserve.packing is not None and input_grad:
        dx = reserve.packing.packed(dx)
    return ScanGradients(
        structures["params"].pack(placed(derivative.shared, shared)),
        structures["state"].pack(placed(derivative.states, states)),
        dx,
        structures["context"].pack(rows),
        structures["reset_state"].pack(first),
    )


def trace(step: Step, params: Any, state: Any, x: Any, *, context: Any = None, training: bool = True) -> Program:
    """The program of a step for arrays of these shapes, as ``scan_forward`` takes them; print it to see what it does.

    Raises:
        TraceError: The step cannot be traced, or does not fit.
    """
    arguments = Arguments(params, state, x, context, None, None if x is not None else 1, None)
    trees = {"params": params, "state": state, "x": x, "context": context, "reset_state": None}
    return find_program(step, arguments, trees, training=training, resets=False)


def _check_recompute(recompute: int | bool | None) -> None:
    if recompute is not None and not isinstance(recompute, bool):
        whole_number("recompute", recompute, 1, 1 << 62)


def flat_gradients(
    name: str, given: Any, structure: Any, values: Sequence[Any], lead: tuple[int, ...], dtype: Any
) -> list[Array | None]:
    """Arrays of gradients for the leaves of a result, None for zeros."""
    if given is None:
        return [None] * len(values)
    found: list[Any] = []
    _match(name, given, structure, found)
    for where, gradient, value in zip(structure.names, found, values, strict=True):
        if gradient is None:
            continue
        at = f"{name}{where}"
        if value.kind != "real":
            raise ValueError(f"{at}: expected None, as {value.kind}s have no gradient")
        if not isinstance(gradient, np.ndarray):
            raise TypeError(f"{at}: expected a NumPy array or None, got {type(gradient).__name__}")
        if gradient.dtype != dtype:
            raise TypeError(f"{at}: expected dtype {dtype}, got {gradient.dtype}")
        if gradient.shape != lead + value.shape:
            raise ValueError(f"{at}: expected shape {lead + value.shape}, got {gradient.shape}")
        if not gradient.flags.c_contiguous:
            raise ValueError(f"{at}: expected a C-contiguous array; use numpy.ascontiguousarray")
    return found


def _match(name: str, given: Any, structure: Any, found: list[Any]) -> None:
    """Collects the leaves of a structure in which any part may be None."""
    if given is None:
        found += [None] * structure.size
        return
    if structure.form == "leaf":
        found.append(given)
        return
    if structure.form == "dict":
        if not isinstance(given, dict) or set(given) - set(structure.keys):
            raise ValueError(f"{name}: expected a dict with keys {list(structure.keys)}, got {_form(given)}")
        members = [(f"{name}[{key!r}]", given.get(key)) for key in structure.keys]
    else:
        if not isinstance(given, (tuple, list)) or len(given) != len(structure.children):
            raise ValueError(f"{name}: expected the structure {structure}, got {_form(given)}")
        members = [(f"{name}[{i}]", member) for i, member in enumerate(given)]
    for (where, member), child in zip(members, structure.children, strict=True):
        _match(where, member, child, found)


def _form(given: Any) -> str:
    if isinstance(given, dict):
        return f"a dict with keys {list(given)}"
    return f"{len(given)} entries" if isinstance(given, (tuple, list)) else type(given).__name__
