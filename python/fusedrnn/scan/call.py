"""One call of a scan: its arguments read and checked, its program found, its results in the user's structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn._core import NO_STEPS
from fusedrnn.arrays import Array
from fusedrnn.scan.arguments import Arguments, contiguous, owned
from fusedrnn.scan.leaves import KINDS, named
from fusedrnn.scan.packing import Packing
from fusedrnn.scan.program import Program, Step, find_program
from fusedrnn.scan.trees import flatten
from fusedrnn.sequences import check_batch_sizes, read_sequences

_DTYPES = {"integer": np.int64, "boolean": np.bool_}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can run.

    Attributes:
        arrays: (shared, rows, states, inputs) in the order of the program's leaves, all of its dtype.
        steps, batch: T and N.
        lengths: [N] int64, or None for T in all rows.
        packing: How rows lie in packed sequences, or None.
        trees: The arguments by name.
    """

    program: Program
    arrays: tuple[list[Array], list[Array], list[Array], list[Array]]
    steps: int
    batch: int
    lengths: Array | None
    packing: Packing | None
    trees: Mapping[str, Any]

    def results(self, new_states: Sequence[Array], outputs: Sequence[Array]) -> tuple[Any, Any]:
        """(y, state_n) in the structures of the step."""
        recurrence = self.program.recurrence
        y = recurrence.y.pack(as_kinds(outputs, recurrence.step.outputs))
        if self.packing is not None:
            y = self.packing.packed(y)
        return y, recurrence.state.pack(as_kinds(new_states, recurrence.step.states))


def prepare(
    step: Step,
    params: Any,
    state: Any,
    x: Any,
    *,
    context: Any = None,
    steps: int | None = None,
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
    reset_state: Any = None,
    training: bool = True,
) -> Call:
    """Read and check the arguments of ``scan_forward``, and find or trace their program."""
    alive, sizes, reset = read_sequences(lengths, batch_sizes, resets)  # copies, which the caller cannot change
    packing = None
    if sizes is not None:
        if alive is not None:
            raise ValueError("lengths: expected None with batch_sizes, got both")
        if not sizes.size:
            raise ValueError(f"batch_sizes: {NO_STEPS}")
        check_batch_sizes(sizes.tolist(), _first_rows(x))
        packing = Packing(sizes)
        x, alive = packing.padded(x, "x"), packing.lengths
        reset = None if reset is None else packing.padded(reset, "resets")
    arguments = Arguments(params, state, x, context, reset_state, steps, None)
    trees = {"params": params, "state": state, "x": x, "context": context, "reset_state": reset_state}
    _check_sequences(arguments, alive, reset, state, reset_state)
    program = find_program(step, arguments, trees, training=training, resets=reset is not None)
    dtype = program.dtype
    # Of a program with resets the structures are ours: sorted by name, "reset" comes before "x".
    shared = _leaves(arguments.params, dtype, "params", params)
    states = _leaves(arguments.state, dtype, "state", state)
    inputs = _leaves(arguments.x, dtype, "x", x)
    rows = _leaves(arguments.context, dtype, "context", context)
    if reset is not None:
        inputs = [np.ascontiguousarray(reset, dtype), *inputs]
        rows = [*rows, *_leaves(arguments.reset_state, dtype, "reset_state", reset_state)]
    arrays = (shared, rows, states, inputs)
    return Call(program, arrays, arguments.steps, arguments.batch, alive, packing, trees)


def _first_rows(x: Any) -> int:
    for name, leaf in named(x, "x"):
        shape = np.shape(leaf)
        if not shape:
            raise ValueError(f"{name}: expected shape (sum of batch_sizes, ...), got {shape}")
        return int(shape[0])
    raise ValueError("batch_sizes: expected None without x, got some")


def _check_sequences(
    arguments: Arguments, lengths: Array | None, resets: Array | None, state: Any, reset_state: Any
) -> None:
    if lengths is not None:
        if lengths.shape != (arguments.batch,):
            raise ValueError(f"lengths: expected shape ({arguments.batch},), got {lengths.shape}")
        if lengths.size and (lengths.min() < 0 or lengths.max() > arguments.steps):
            raise ValueError(f"lengths: expected integers from 0 to {arguments.steps}, got {lengths.tolist()}")
    if resets is not None and resets.shape != (arguments.steps, arguments.batch):
        raise ValueError(f"resets: expected shape {(arguments.steps, arguments.batch)}, got {resets.shape}")
    if reset_state is not None:
        if resets is None:
            raise ValueError("reset_state: expected None without resets, got some")
        _check_like_state(arguments, state, reset_state)


def _check_like_state(arguments: Arguments, state: Any, reset_state: Any) -> None:
    wanted, got = flatten(state, "state")[1], flatten(reset_state, "reset_state")[1]
    if wanted != got:
        raise ValueError(f"reset_state: expected the structure of the state, {wanted}, got {got}")
    for where, leaf, like in zip(got.names, arguments.reset_state, arguments.state, strict=True):
        if leaf.shape != like.shape:
            raise ValueError(f"reset_state{where}: expected shape {like.shape} as the state has, got {leaf.shape}")
        kinds = [KINDS.get(each.dtype.kind, "other") for each in (like, leaf)]
        if kinds[0] != kinds[1]:
            raise TypeError(f"reset_state{where}: expected {kinds[0]} numbers as the state has, got {leaf.dtype}")


def _leaves(leaves: Sequence[Array], dtype: Any, role: str, tree: Any) -> list[Array]:
    """Reals as they are, integers and booleans as copies, all of the call's dtype."""
    found = [leaf if leaf.dtype == dtype else owned(leaf, dtype, role, tree).astype(dtype) for leaf in leaves]
    contiguous(found, role, tree)
    return found


def as_kinds(arrays: Sequence[Array], values: Sequence[Any]) -> list[Array]:
    """Integers and booleans in _DTYPES of their own again."""
    return [
        array.astype(_DTYPES[value.kind]) if value.kind in _DTYPES else array
        for array, value in zip(arrays, values, strict=True)
    ]
