"""Any recurrence in JAX, on the CPU: a step of one sequence, written in NumPy, under ``jit``, ``grad`` and ``vmap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from fusedrnn.functional.scan import ScanGradients, scan_backward, scan_forward, trace
from fusedrnn.functional.scan_second import scan_double_backward
from fusedrnn.jax.host import on_host, one_by_one, primitive
from fusedrnn.nn.scan_start import Start
from fusedrnn.scan.program import Program
from fusedrnn.scan.tracing import TraceError
from fusedrnn.scan.trees import Structure, flatten, leaves_of

_ROLES = ("params", "state", "x", "context")
_LEAD = {"params": 0, "state": 1, "x": 2, "context": 1}


@dataclass(frozen=True)
class _Call:
    """All of a call but its arrays: hashable, as JAX asks of what it does not trace."""

    step: Callable[..., Any]
    structures: tuple[Structure, ...]
    options: tuple[tuple[str, Any], ...]
    uneven: bool  # whether the lengths are the last operand

    def trees(self, leaves: Sequence[Any]) -> list[Any]:
        """Leaves of the arguments in their structures, in the order of _ROLES."""
        left, found = list(leaves), []
        for structure in self.structures:
            found.append(structure.pack(left[: structure.size]))
            left = left[structure.size :]
        return found

    @property
    def count(self) -> int:
        """Leaves of the arguments, lengths aside."""
        return sum(structure.size for structure in self.structures)

    def program(self, shapes: Sequence[Any]) -> Program:
        """The program for operands of these shapes and dtypes."""
        arrays = [np.broadcast_to(np.zeros((), each.dtype), each.shape) for each in shapes[: self.count]]
        params, state, x, context = self.trees(arrays)
        training = dict(self.options)["training"]
        try:
            return trace(self.step, params, state, x, context=context, training=training)
        except TypeError as error:
            if "not a valid JAX type" not in str(error):
                raise
            raise TraceError(
                "the step calls a function of JAX: it is written in NumPy; instead of jnp write np"
            ) from error

    def results(self, *shapes: Any) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each leaf of y and of the last state."""
        recurrence, dtype = self.program(shapes).recurrence, self.program(shapes).dtype
        steps, rows = self.sizes(shapes)
        dtypes = {"real": dtype, "integer": jax.dtypes.canonicalize_dtype(np.int64), "boolean": np.dtype(bool)}
        step = recurrence.step
        found = [((steps, rows, *value.shape), dtypes[value.kind]) for value in step.outputs]
        return found + [((rows, *value.shape), dtypes[value.kind]) for value in step.states]

    def sizes(self, shapes: Sequence[Any]) -> tuple[int, int]:
        """T and N."""
        at = dict(zip(_ROLES, np.cumsum([0, *(structure.size for structure in self.structures)]), strict=False))
        steps = dict(self.options)["steps"]
        if self.structures[2].size:
            first = shapes[int(at["x"])].shape
            return int(first[0]), int(first[1])
        rows = shapes[int(at["state"])] if self.structures[1].size else shapes[int(at["context"])]
        return int(steps), int(rows.shape[0])

    # on the host

    def _run(self, arrays: Sequence[Any], keep: bool) -> tuple[Any, Any, Any]:
        params, state, x, context = self.trees([np.ascontiguousarray(a) for a in arrays[: self.count]])
        lengths = np.asarray(arrays[self.count]) if self.uneven else None
        return scan_forward(
            self.step, params, state, x, context=context, lengths=lengths, keep=keep, **dict(self.options)
        )

    def forward(self, *arrays: Any) -> list[Any]:
        """Leaves of y and of the last state."""
        y, state_n, _ = self._run(arrays, keep=False)
        shapes = self.results(*arrays)
        leaves = [*flatten(y, "y")[0], *flatten(state_n, "state_n")[0]]
        return [leaf.astype(dtype, copy=False) for leaf, (_, dtype) in zip(leaves, shapes, strict=True)]

    def _given(self, arrays: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, Any, Any]:
        """dy, the gradient of the last state, and a reserve: forward runs again, as JAX keeps arrays alone."""
        recurrence = self.program(arrays).recurrence
        kinds = [value.kind for value in (*recurrence.step.outputs, *recurrence.step.states)]
        left = iter(gradients)
        whole = [np.ascontiguousarray(next(left)) if kind == "real" else None for kind in kinds]
        count = len(recurrence.step.outputs)
        _, _, reserve = self._run(arrays, keep=True)
        return recurrence.y.pack(whole[:count]), recurrence.state.pack(whole[count:]), reserve

    def backward(self, *arrays: Any) -> list[Any]:
        """Gradients of the real leaves of the arguments: arrays, then the gradients of real results."""
        count = self.count + self.uneven
        dy, dstate_n, reserve = self._given(arrays[:count], arrays[count:])
        return self._real(scan_backward(dy, dstate_n, reserve))

    def double(self, *arrays: Any) -> list[Any]:
        """Gradients with respect to gradients of real results, then to real leaves: as backward, then directions."""
        count = self.count + self.uneven
        reals = sum(a.dtype.kind == "f" for a in arrays[: self.count])
        gradients, directions = arrays[count : len(arrays) - reals], iter(arrays[len(arrays) - reals :])
        dy, dstate_n, reserve = self._given(arrays[:count], gradients)
        along = [np.ascontiguousarray(next(directions)) if a.dtype.kind == "f" else None for a in arrays[: self.count]]
        ddy, ddstate_n, found = scan_double_backward(ScanGradients(*self.trees(along)), dy, dstate_n, reserve)
        recurrence = self.program(arrays).recurrence
        of_results = [*leaves_of(ddy, recurrence.y), *leaves_of(ddstate_n, recurrence.state)]
        return [each for each in of_results if each is not None] + self._real(found)

    def _real(self, found: ScanGradients) -> list[Any]:
        parts = (found.dparams, found.dstate, found.dx, found.dcontext)
        leaves = [
            leaf for part, structure in zip(parts, self.structures, strict=True) for leaf in leaves_of(part, structure)
        ]
        return [leaf for leaf in leaves if leaf is not None]


def _shape(array: Any) -> tuple[tuple[int, ...], Any]:
    return tuple(array.shape), array.dtype


def _real_shapes(*operands: Any, call: _Call) -> list[tuple[tuple[int, ...], Any]]:
    return [_shape(a) for a in operands[: call.count] if a.dtype.kind == "f"]


def _double_shapes(*operands: Any, call: _Call) -> list[tuple[tuple[int, ...], Any]]:
    reals = _real_shapes(*operands, call=call)
    given = operands[call.count + call.uneven : len(operands) - len(reals)]
    return [*(_shape(a) for a in given), *reals]


_forward_p = primitive("scan_forward", lambda *operands, call: call.results(*operands))
on_host(_forward_p, lambda *arrays, call: call.forward(*arrays))
_backward_p = primitive("scan_backward", _real_shapes)
on_host(_backward_p, lambda *arrays, call: call.backward(*arrays))
_double_p = primitive("scan_double_backward", _double_shapes)
on_host(_double_p, lambda *arrays, call: call.double(*arrays))


for _p in (_forward_p, _backward_p, _double_p):
    batching.primitive_batchers[_p] = partial(one_by_one, _p)


# Derivatives: of the function, and of its gradient.


def _is_real(a: Any) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.floating))


def _zero(a: Any) -> Any:
    """The gradient of integers and booleans, as JAX has it."""
    return np.zeros(a.shape, jax.dtypes.float0)


def _filled(operands: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, ...]:
    left = iter(gradients)
    return tuple(next(left) if _is_real(a) else _zero(a) for a in operands)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradients(call: _Call, gradients: Sequence[Any], operands: Sequence[Any]) -> Any:
    return tuple(_backward_p.bind(*operands, *gradients, call=call))


def _gradients_forward(call: _Call, gradients: Sequence[Any], operands: Sequence[Any]) -> Any:
    return _gradients(call, gradients, operands), (gradients, operands)


def _gradients_backward(call: _Call, kept: Any, directions: Sequence[Any]) -> Any:
    gradients, operands = kept
    found = _double_p.bind(*operands, *gradients, *directions, call=call)
    return tuple(found[: len(gradients)]), _filled(operands, found[len(gradients) :])


_gradients.defvjp(_gradients_forward, _gradients_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _results(call: _Call, operands: Sequence[Any]) -> Any:
    return tuple(_forward_p.bind(*operands, call=call))


def _results_forward(call: _Call, operands: Sequence[Any]) -> Any:
    return _results(call, operands), operands


def _results_backward(call: _Call, operands: Sequence[Any], gradients: Sequence[Any]) -> Any:
    real = tuple(g for g in gradients if g.dtype != jax.dtypes.float0)
    return (_filled(operands, _gradients(call, real, operands)),)


_results.defvjp(_results_forward, _results_backward)


def scan(
    step: Callable[..., Any],
    params: Any,
    state: Any,
    x: Any,
    *,
    context: Any = None,
    steps: int | None = None,
    lengths: Any = None,
    reverse: bool = False,
    training: bool = True,
    seed: int = 0,
) -> tuple[Any, Any]:
    """``fusedrnn.scan_forward`` over structures of JAX arrays; gradients in reverse mode, of first and second order.

    A call leaves XLA for one C++ call. The gradient computes forward again, since JAX keeps nothing but arrays.

    Args:
        step: ``step(params, state, x)``, or with the context, in NumPy, of one sequence: not in ``jax.numpy``.
        params, state, x, context: As ``scan_forward``: float32, or float64 under ``jax_enable_x64``; integers and
            booleans beside them. Rows N are there always: one sequence has N = 1. ``vmap`` calls once for each element.
        steps, reverse, training, seed: As ``scan_forward``; they are no arrays.
        lengths: N integers, which may be traced.

    Returns:
        y and the last state.

    Raises:
        TraceError: The step cannot be traced, or does not fit. TypeError, ValueError: As ``scan_forward``.
    """
    leaves: list[Any] = []
    structures = []
    for role, tree in zip(_ROLES, (params, state, x, context), strict=True):
        found, structure = flatten(tree, role)
        structures.append(structure)
        leaves += [jnp.asarray(leaf) for leaf in found]
    options = {"steps": steps, "reverse": reverse, "training": training, "seed": seed}
    call = _Call(step, tuple(structures), tuple(options.items()), lengths is not None)
    operands = leaves if lengths is None else [*leaves, jnp.asarray(lengths)]
    recurrence = call.program(leaves).recurrence
    results = _results(call, tuple(operands))
    count = len(recurrence.step.outputs)
    return recurrence.y.pack(results[:count]), recurrence.state.pack(results[count:])


def initial_state(state: Any, params: Any, rows: int) -> Any:
    """Return a cell's state before the first step, leaves [N, ...], for `scan`.

    Args:
        state: Of one sequence, as a cell of ``fusedrnn.cells`` has it: arrays, or a function of the parameters in
            NumPy, through which gradients go. params: As for `scan`. rows: N.

    Raises:
        TraceError: The function cannot be traced. TypeError, ValueError: As `scan`.
    """
    if callable(state):
        begun, _ = scan(Start(state), params, None, jnp.zeros((1, 1), bool))
        state = jax.tree.map(lambda leaf: leaf[0, 0], begun)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (rows, *jnp.shape(leaf))), state)
