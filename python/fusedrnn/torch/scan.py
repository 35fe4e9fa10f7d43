"""Any recurrence in PyTorch: a step of one sequence, written in NumPy, as a function for autograd and as a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn.functional.scan import ScanGradients, scan_backward, scan_forward
from fusedrnn.functional.scan_second import scan_double_backward
from fusedrnn.nn.scan_start import Start
from fusedrnn.nn.scan_trees import dotted, initial
from fusedrnn.scan.trees import Structure, flatten, leaves_of
from fusedrnn.torch.compiling import methods_run_as_they_are, never_traced
from fusedrnn.torch.support import DTYPES, transformed

_ROLES = ("params", "state", "x", "context", "reset_state")


@dataclass
class _Call:
    """A call of a scan: what its tensors are, and how it walks. Forward notes the reserve and what came out."""

    step: Callable[..., Any]
    structures: dict[str, Structure]
    options: dict[str, Any]
    input_grad: bool
    reserve: Any = None
    results: list[Structure] = field(default_factory=list)  # of y and the last state

    def trees(self, leaves: Sequence[Any]) -> list[Any]:
        """Leaves of the arguments in their structures, in the order of _ROLES."""
        left = list(leaves)
        found = []
        for role in _ROLES:
            structure = self.structures[role]
            mine, left = left[: structure.size], left[structure.size :]
            found.append(structure.pack(mine) if structure.form != "none" else None)
        return found

    def result_trees(self, leaves: Sequence[Any]) -> tuple[Any, Any]:
        """Leaves of y and of the last state in their structures."""
        y, state = self.results
        return y.pack(list(leaves)[: y.size]), state.pack(list(leaves)[y.size :])

    def gradients(self, found: ScanGradients) -> list[Tensor | None]:
        """A gradient for each leaf of the arguments."""
        parts = (found.dparams, found.dstate, found.dx, found.dcontext, found.dreset_state)
        leaves: list[Tensor | None] = []
        for role, part in zip(_ROLES, parts, strict=True):
            structure = self.structures[role]
            leaves += [None] * structure.size if part is None else [_tensor(a) for a in leaves_of(part, structure)]
        return leaves


def _tensor(array: Any) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().contiguous().numpy()


@methods_run_as_they_are
class _Scan(torch.autograd.Function):
    """(call, leaves of the arguments...) -> leaves of y and of the last state."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        params, state, x, context, reset_state = call.trees([_array(leaf) for leaf in leaves])
        y, state_n, call.reserve = scan_forward(
            call.step, params, state, x, context=context, reset_state=reset_state, **call.options
        )
        found: list[Any] = []
        call.results = []
        for name, tree in (("y", y), ("state_n", state_n)):
            arrays, structure = flatten(tree, name)
            call.results.append(structure)
            found += [torch.from_numpy(array) for array in arrays]
        ctx.call = call
        ctx.save_for_backward(*leaves)
        ctx.mark_non_differentiable(*(each for each in found if not each.is_floating_point()))
        ctx.set_materialize_grads(False)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        leaves = ctx.saved_tensors  # raises where one was changed in place
        if ctx.call.reserve is None:
            raise RuntimeError("the scan kept nothing for a backward: this may be a bug of fusedrnn")
        return None, *_ScanBackward.apply(ctx.call, len(gradients), *gradients, *leaves)


@methods_run_as_they_are
class _ScanBackward(torch.autograd.Function):
    """(call, count, gradients of the results..., leaves of the arguments...) -> gradients of those leaves."""

    @staticmethod
    def forward(ctx: Any, call: _Call, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients = [_array(each) for each in tensors[:count]]
        dy, dstate_n = call.result_trees(gradients)
        ctx.call, ctx.count = call, count
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return tuple(call.gradients(scan_backward(dy, dstate_n, call.reserve, input_grad=call.input_grad)))

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Any, ...]:
        found = _ScanDoubleBackward.apply(ctx.call, ctx.count, len(directions), *directions, *ctx.saved_tensors)
        return tuple(
            each if needed else None for each, needed in zip((None, None, *found), ctx.needs_input_grad, strict=True)
        )


@methods_run_as_they_are
class _ScanDoubleBackward(torch.autograd.Function):
    """(call, count, places, directions of the gradients of the arguments..., gradients of the results..., leaves of the
    arguments...) -> gradients of those of the results, and of those leaves.

    It is a function of its own so that a third derivative meets its error: ``once_differentiable`` has no way to the
    leaves, by which ``torch.autograd.grad`` would take theirs for zero.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, count: int, places: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        grads = ScanGradients(*call.trees([_array(each) for each in tensors[:places]]))
        dy, dstate_n = call.result_trees([_array(each) for each in tensors[places : places + count]])
        ddy, ddstate_n, found = scan_double_backward(grads, dy, dstate_n, call.reserve)
        y, state = call.results
        return *(_tensor(a) for a in (*leaves_of(ddy, y), *leaves_of(ddstate_n, state))), *call.gradients(found)

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> tuple[Any, ...]:
        raise RuntimeError("fusedrnn.torch.scan: expected derivatives of first or second order, got a third")


@never_traced
def scan(
    step: Callable[..., Any],
    params: Any,
    state: Any,
    x: Any,
    *,
    context: Any = None,
    steps: int | None = None,
    lengths: Any = None,
    resets: Tensor | None = None,
    reset_state: Any = None,
    reverse: bool = False,
    training: bool = True,
    recompute: int | bool | None = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """``fusedrnn.scan_forward`` over structures of tensors, for autograd; derivatives of first and second order.

    Args:
        step: ``step(params, state, x)``, or with the context, in NumPy, of one sequence: not in ``torch``.
        params, state, x, context, reset_state: As ``scan_forward``, of CPU tensors. Those that are not contiguous are
            copied. Integers and booleans have no gradient.
        steps, reverse, recompute, seed: As ``scan_forward``.
        lengths: N integers. resets: booleans [T, N].
        training: Whether ``fusedrnn.ops.dropout`` drops; without gradients nothing is kept for backward either way.

    Returns:
        y and the last state.

    Raises:
        TraceError: The step cannot be traced, or does not fit. TypeError, ValueError: As ``scan_forward``, and for
            tensors that are not on the CPU. RuntimeError: Within transforms of ``torch.func``.
    """
    if transformed():
        raise RuntimeError(
            "fusedrnn.torch.scan: expected plain autograd, got a transform of torch.func or forward mode"
        )
    leaves: list[Any] = []
    structures = {}
    for role, tree in zip(_ROLES, (params, state, x, context, reset_state), strict=True):
        found, structures[role] = flatten(tree, role)
        for where, leaf in zip(structures[role].names, found, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{role}{where}: expected a tensor, got {type(leaf).__name__}")
            if leaf.device.type != "cpu":
                raise ValueError(f"{role}{where}: expected a tensor on the CPU, got one on {leaf.device}")
            if leaf.is_floating_point() and leaf.dtype not in DTYPES:
                raise TypeError(f"{role}{where}: expected torch.float32 or torch.float64, got {leaf.dtype}")
        leaves += found
    options = {
        "steps": steps,
        "lengths": lengths.tolist() if isinstance(lengths, Tensor) else lengths,
        "resets": None if resets is None else resets.numpy(),
        "reverse": reverse,
        "training": training,
        "recompute": recompute,
        "seed": seed,
    }
    # PyTorch turns gradients off within a function; whether it wants them is asked before.
    options["keep"] = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    call = _Call(step, structures, options, any(leaf.requires_grad for leaf in flatten(x, "x")[0]))
    return call.result_trees(_Scan.apply(call, *leaves))


class Scan(torch.nn.Module):
    """``fusedrnn.nn.Scan`` as a module: a step in NumPy, its parameters and its initial state.

    Args:
        step: As `scan`. parameters: Initial values, tensors or arrays in dicts, tuples and lists; of a published cell
            all three: ``Scan(*fusedrnn.cells.JANET(28, 128))``.
        state: The state before the first step, of one sequence: shapes for zeros, or arrays. Or a function of the
            parameters that gives it, in NumPy: what it takes from them is learned.
        batch_first: Leaves of x and y are [N, T, ...].
        learned_state: The reals of the initial state are parameters.
        dtype: Of all reals, torch.float32 or torch.float64.

    Parameters have the names of `fusedrnn.nn.Scan`, "_" in the place of its dots: ``W``, ``cell_W``, ``state_0``.

    Raises:
        ValueError: A parameter's name that a module has already, or ``learned_state`` of a state that is a function.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        parameters: Any,
        state: Any,
        *,
        batch_first: bool = False,
        learned_state: bool = False,
        recompute: int | bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.step, self.batch_first, self.recompute = step, batch_first, recompute
        leaves, self._structure = flatten(parameters, "parameters")
        self._names = [name.replace(".", "_") for name in dotted(self._structure, "", "weight")]
        for name, leaf in zip(self._names, leaves, strict=True):
            self._add(name, torch.nn.Parameter(torch.as_tensor(np.array(leaf), dtype=dtype)))
        numpy_dtype = np.dtype("float32" if dtype is torch.float32 else "float64")
        self._start = Start(state) if callable(state) else None
        if self._start is not None and learned_state:
            raise ValueError("learned_state: expected a state of values, got a function of the parameters")
        begun = (
            state(self._structure.pack([np.array(leaf, numpy_dtype) for leaf in leaves])) if callable(state) else state
        )
        values, self._state_structure = flatten(initial("state", begun, numpy_dtype), "state")
        if self._start is not None:
            values = []  # the parameters have all there is to keep
        names = dotted(self._state_structure, "state", "state") if self._start is None else ()
        self._state_names = [name.replace(".", "_") for name in names]
        for name, value in zip(self._state_names, values, strict=True):
            tensor = torch.from_numpy(value.copy())
            if learned_state and tensor.is_floating_point():
                self._add(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor, persistent=False)

    def _add(self, name: str, parameter: torch.nn.Parameter) -> None:
        if hasattr(self, name):
            raise ValueError(f"parameters: expected a name that is free, got {name!r}")
        self.register_parameter(name, parameter)

    @never_traced
    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        context: Any = None,
        steps: int | None = None,
        lengths: Any = None,
        resets: Tensor | None = None,
        seed: int | None = None,
    ) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            x: [T, N, ...] of each leaf, or [N, T, ...] with batch_first.
            state: [N, ...] of each leaf; None: the initial one.
            context: [N, ...] of each leaf. steps: T where x is None. lengths: N integers.
            resets: booleans [T, N], or [N, T]: before such a step a row has its initial state again.
            seed: Of random numbers; by default from PyTorch's generator where the module trains.

        Returns:
            y and the last state.
        """
        if self.batch_first:
            x = _each(x, lambda leaf: leaf.transpose(0, 1))
            resets = None if resets is None else resets.transpose(0, 1)
        if torch.is_autocast_enabled("cpu"):  # layers before it may give bfloat16; a scan has its parameters' precision
            x, state, context = (_each(tree, self._cast) for tree in (x, state, context))
        rows = next((leaf.shape[1] for leaf in flatten(x, "x")[0]), None)
        if rows is None:
            rows = next((len(leaf) for leaf in (*flatten(state, "state")[0], *flatten(context, "context")[0])), 1)
        params = self._structure.pack([getattr(self, name) for name in self._names])
        first = self._first(params, rows)
        if seed is None:
            seed = int(torch.randint(1 << 62, ())) if self.training else 0
        y, state_n = scan(
            self.step, params, first if state is None else state, x, context=context, steps=steps, lengths=lengths,
            resets=resets, reset_state=first if resets is not None and self._state_structure.size else None,
            training=self.training, recompute=self.recompute, seed=seed,
        )  # fmt: skip
        return (_each(y, lambda leaf: leaf.transpose(0, 1)) if self.batch_first else y), state_n

    def _first(self, params: Any, rows: int) -> Any:
        """The initial state of so many rows, leaves [N, ...]."""
        if self._start is None:
            leaves = [getattr(self, name) for name in self._state_names]
        else:  # the only step of a recurrence without state, so that autograd knows it
            y, _ = scan(self._start, params, None, torch.zeros((1, 1), dtype=torch.bool))
            leaves = [leaf[0, 0] for leaf in flatten(y, "state")[0]]
        return self._state_structure.pack([leaf.expand(rows, *leaf.shape) for leaf in leaves])

    def _cast(self, leaf: Tensor) -> Tensor:
        dtype: torch.dtype = getattr(self, self._names[0]).dtype if self._names else torch.float32
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    def extra_repr(self) -> str:
        """What print shows: the step, and shapes of the parameters."""
        shapes = ", ".join(f"{name}={tuple(getattr(self, name).shape)}" for name in self._names)
        return f"{getattr(self.step, '__name__', type(self.step).__name__)}, {shapes}"


def _each(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    leaves, structure = flatten(tree, "x")
    return structure.pack([change(leaf) for leaf in leaves])
