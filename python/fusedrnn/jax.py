"""Recurrent layers as functions of JAX, on the CPU: under ``jit``, ``grad`` and ``vmap`` (extra ``jax``).

A call leaves XLA for Python and the kernels and comes back with their results, some tens of microseconds beside the
call itself; docs/jax.md has the figures. Arrays go in without a copy and come out with one. XLA's own interface for
foreign functions would need JAX where fusedrnn is built.

Shapes: x [T, N, I], h0 and c0 [N, H] or None for zeros, weights and biases as in `fusedrnn.functional`; all float32, or
all float64 under ``jax_enable_x64``. ``lengths``: integers [N], which may be traced; ``reverse``: from the last step to
the first.

``vmap`` over x, states and lengths adds the new axis to the batch, one call for all. Where it goes over weights as
well, for backward, and for forward with lengths that keeps something for backward, it is one call after the other
(``jax.lax.map``).

Raises:
    TypeError, ValueError: as ``fusedrnn.functional`` where the call is traced. A traced length out of range is an error
        of JAX's runtime with our text.
    NotImplementedError: a second derivative; ``fusedrnn.hessian_vector_product`` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fusedrnn import functional
from fusedrnn.functional.reserve import Reserve

__all__ = ["gru", "lstm", "rnn"]

_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_SHAPED_LIKE_ROWS = ("x", "h0", "c0", "lengths")  # what vmap adds to the batch


@dataclass(frozen=True)
class _Call:
    """All of a call but its arrays. ``given`` names these in their order; absent ones were None."""

    kind: str
    options: tuple[tuple[str, Any], ...]
    given: tuple[str, ...] = ()
    training: bool = False
    input_grad: bool = True

    def forward(self, *operands: Any) -> tuple[Any, ...]:
        """Outputs, and what is kept where there is something to keep."""
        arrays = self.named(operands)
        function = getattr(functional, f"{self.kind}_forward")
        inputs = [arrays.get(name) for name in (*self.inputs, *_WEIGHTS)]
        *outputs, reserve = function(
            *inputs, lengths=arrays.get("lengths"), training=self.training, **dict(self.options)
        )
        return (*outputs, reserve.buffer) if self.training and self.kept else tuple(outputs)

    def backward(self, *operands: Any) -> tuple[Any, ...]:
        """Gradients of those arrays of forward that were given."""
        arrays = self.named(operands)
        options: dict[str, Any] = {"recompute": False, "batch_sizes": None, "resets": None, "options": None}
        options.update(self.options, lengths=_int64(arrays.get("lengths")))
        buffer = arrays.get("reserve")
        if buffer is None:
            buffer = np.empty((*arrays["x"].shape[:2], 0), arrays["x"].dtype)
        kept = {name: arrays.get(name) for name in (*self.inputs, "y", "weight_ih", "weight_hh")}
        reserve = Reserve(self.kind, buffer, kept, (arrays.get("bias_ih"), arrays.get("bias_hh")), options)
        function = getattr(functional, f"{self.kind}_backward")
        doutputs = [arrays.get(name) for name in self.doutputs]
        gradients = function(*doutputs, reserve, input_grad=self.input_grad)
        return tuple(getattr(gradients, f"d{name}") for name in self.wanted)

    def named(self, operands: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.given, operands, strict=True))

    def shapes(self, operands: Sequence[Any]) -> list[tuple[int, ...]]:
        """Those of forward's results."""
        arrays = self.named(operands)
        (T, N, _), H = arrays["x"].shape, arrays["weight_hh"].shape[1]
        kept = [(T, N, self.kept * H)] if self.training and self.kept else []
        return [(T, N, H), *[(N, H)] * len(self.states), *kept]

    @property
    def states(self) -> tuple[str, ...]:
        return ("h0", "c0") if self.kind == "lstm" else ("h0",)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", *self.states)

    @property
    def doutputs(self) -> tuple[str, ...]:
        return ("dy", *(f"d{name[0]}_n" for name in self.states))

    @property
    def wanted(self) -> tuple[str, ...]:
        """Arrays of forward, in their order, whose gradients backward returns."""
        names = [name for name in (*self.inputs, *_WEIGHTS) if name in self.given]
        return tuple(names if self.input_grad else names[1:])

    @property
    def kept(self) -> int:
        """Elements of the reserve for each unit, row and step."""
        options = dict(self.options)
        if self.kind == "lstm":
            return 1 if options["recompute"] else 5
        if self.kind == "gru":
            return 0 if options["recompute"] else 4 if options["reset_after"] else 3
        return 0


def _int64(lengths: Any) -> Any:
    return None if lengths is None else np.ascontiguousarray(lengths, np.int64)


# The two primitives. JAX's pure_callback would make arrays of JAX from its operands first: five times as slow, and on a
# machine of few cores they may wait for a thread that waits for them.


def _primitive(name: str, run: Any, shapes: Any) -> tuple[Any, Any]:
    """The primitive and a function that binds it, in a jit of its own where there is no other."""
    primitive = Primitive(f"fusedrnn_{name}")
    primitive.multiple_results = True

    def results_of(*operands: Any, call: _Call) -> Any:
        dtype = call.named(operands)["x"].dtype
        return [jax.core.ShapedArray(shape, dtype) for shape in shapes(call, operands)]

    primitive.def_abstract_eval(results_of)

    def lower(ctx: Any, *operands: Any, call: _Call) -> Any:
        def on_host(*arrays: Any) -> Any:
            return run(call, *arrays)

        results, _, _ = mlir.emit_python_callback(
            ctx, on_host, None, list(operands), ctx.avals_in, ctx.avals_out, has_side_effect=False
        )
        return results

    mlir.register_lowering(primitive, lower)
    bind = jax.jit(lambda call, *operands: primitive.bind(*operands, call=call), static_argnums=0, inline=True)
    return primitive, bind


def _backward_shapes(call: _Call, operands: Sequence[Any]) -> list[tuple[int, ...]]:
    arrays = call.named(operands)
    return [arrays[name].shape for name in call.wanted]


_forward_p, _forward = _primitive("forward", _Call.forward, _Call.shapes)
_backward_p, _backward = _primitive("backward", _Call.backward, _backward_shapes)


def _one_by_one(bind: Any, operands: Sequence[Any], dims: Sequence[Any], call: _Call) -> Any:
    batched = [jnp.moveaxis(a, dim, 0) for a, dim in zip(operands, dims, strict=True) if dim is not None]

    def one(parts: Any) -> Any:
        rest = iter(parts)
        return bind(call, *(a if dim is None else next(rest) for a, dim in zip(operands, dims, strict=True)))

    results = jax.lax.map(one, batched)
    return results, [0] * len(results)


def _batched_forward(operands: Sequence[Any], dims: Sequence[Any], *, call: _Call) -> Any:
    """[T, B, N, ...] as [T, B * N, ...]. What is kept with lengths lies in the order of all rows' lengths, so that the
    parts could not be told apart."""
    of_weights = any(dim is not None for name, dim in zip(call.given, dims, strict=True) if name.startswith(("w", "b")))
    if of_weights or (call.training and "lengths" in call.given):
        return _one_by_one(_forward, operands, dims, call)
    B = next(a.shape[dim] for a, dim in zip(operands, dims, strict=True) if dim is not None)
    merged = []
    for name, a, dim in zip(call.given, operands, dims, strict=True):
        if name in _SHAPED_LIKE_ROWS:
            axis = 1 if name == "x" else 0
            a = jnp.repeat(jnp.expand_dims(a, axis), B, axis) if dim is None else jnp.moveaxis(a, dim, axis)
            a = a.reshape(*a.shape[:axis], B * a.shape[axis + 1], *a.shape[axis + 2 :])
        merged.append(a)
    results = _forward(call, *merged)
    axes = [a.ndim - 2 for a in results]  # of N, and where B will be
    split = [
        a.reshape(*a.shape[:axis], B, a.shape[axis] // B, a.shape[-1]) for a, axis in zip(results, axes, strict=True)
    ]
    return split, axes


def _batched_backward(operands: Sequence[Any], dims: Sequence[Any], *, call: _Call) -> Any:
    return _one_by_one(_backward, operands, dims, call)


def _no_second_derivative(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(
        "fusedrnn.jax has first derivatives in reverse mode alone; for products with a Hessian there is "
        "fusedrnn.hessian_vector_product"
    )


batching.primitive_batchers[_forward_p] = _batched_forward
batching.primitive_batchers[_backward_p] = _batched_backward
for _primitive_of_either in (_forward_p, _backward_p):
    ad.primitive_jvps[_primitive_of_either] = _no_second_derivative


# The derivative. Arrays are a dict without those that are None, which JAX sorts: `given` has their order.


def _outputs(call: _Call, arrays: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(_forward(replace(call, given=tuple(arrays)), *arrays.values()))


def _keep(call: _Call, primals: dict[str, Any]) -> Any:
    arrays = {name: primal.value for name, primal in primals.items()}
    results = tuple(_forward(replace(call, given=tuple(arrays), training=True), *arrays.values()))
    outputs = results[: 1 + len(call.states)]
    kept = {**arrays, "y": outputs[0], **dict(zip(["reserve"], results[len(outputs) :], strict=False))}
    # Empty trees, as what is kept may only be arrays: whether anybody asks for the gradient of x.
    return outputs, (kept, () if primals["x"].perturbed else None)


def _gradients(call: _Call, residuals: Any, doutputs: Sequence[Any]) -> Any:
    kept, asked = residuals
    given = {
        name: d for name, d in zip(call.doutputs, doutputs, strict=True)
        if not isinstance(d, jax.custom_derivatives.SymbolicZero)
    }  # fmt: skip
    operands = {**kept, **given}
    call = replace(call, given=tuple(operands), input_grad=asked is not None)
    gradients = dict(zip(call.wanted, _backward(call, *operands.values()), strict=True))
    return ({name: gradients.get(name) for name in kept if name not in ("y", "reserve")},)


_layer = jax.custom_vjp(_outputs, nondiff_argnums=(0,))
_layer.defvjp(_keep, _gradients, symbolic_zeros=True)


def _checked(call: _Call, lengths: Any, **arrays: Any) -> tuple[Any, ...]:
    """The call, once every array fits; errors as those of the compiled module."""
    for name, a in arrays.items():
        if a is None and not name.startswith("weight") and name != "x":
            continue
        if not isinstance(a, (jax.Array, np.ndarray)):
            raise TypeError(f"{name}: expected an array, got {type(a).__name__}")
    present = {name: jnp.asarray(a) for name, a in arrays.items() if a is not None}
    dtype = present["x"].dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"x: expected float32 or float64, got {dtype}")
    for name, letters, axes in (("x", "[T, N, I]", 3), ("weight_hh", f"[{_GATES[call.kind]}H, H]", 2)):
        if present[name].ndim != axes:
            raise ValueError(f"{name}: expected shape {letters}, got {present[name].shape}")
    (T, N, I), H = present["x"].shape, present["weight_hh"].shape[1]  # noqa: E741
    for name, size, what in (("x", T, "sequence length"), ("x", I, "input size"), ("weight_hh", H, "hidden size")):
        if size < 1:
            raise ValueError(f"{name}: expected a {what} of at least 1, got 0")
    rows = _GATES[call.kind] * H
    shapes = {"x": (T, N, I), "h0": (N, H), "c0": (N, H), "weight_ih": (rows, I), "weight_hh": (rows, H)}
    for name, a in present.items():
        if a.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype} like x, got {a.dtype}")
        if a.shape != (shape := shapes.get(name, (rows,))):
            raise ValueError(f"{name}: expected shape {shape}, got {a.shape}")
    if lengths is not None:
        present["lengths"] = _checked_lengths(lengths, T, N)
    return tuple(_layer(call, present))


def _checked_lengths(lengths: Any, T: int, N: int) -> Any:
    array = jnp.asarray(lengths)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (N,):
        raise ValueError(f"lengths: expected shape ({N},), got {array.shape}")
    if N and not isinstance(array, jax.core.Tracer) and not bool(((array >= 0) & (array <= T)).all()):
        raise ValueError(f"lengths: expected numbers from 0 to {T}, got {array.tolist()}")
    return array


def rnn(
    x: Any,
    h0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    lengths: Any = None,
) -> tuple[Any, Any]:
    """y [T, N, H] and h_n [N, H] of ``fusedrnn.rnn_forward``; nonlinearity "tanh" or "relu". Weights [H, I], [H, H]."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected tanh or relu, got {nonlinearity!r}")
    call = _Call("rnn", (("nonlinearity", nonlinearity), ("reverse", bool(reverse))))
    arrays = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    y, h_n = _checked(call, lengths, x=x, h0=h0, **arrays)
    return y, h_n


def gru(
    x: Any,
    h0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    reset_after: bool = True,
    reverse: bool = False,
    recompute: bool = False,
    lengths: Any = None,
) -> tuple[Any, Any]:
    """y [T, N, H] and h_n [N, H] of ``fusedrnn.gru_forward``. Weights [3H, I], [3H, H], gates r, z, n."""
    options = (("reset_after", bool(reset_after)), ("reverse", bool(reverse)), ("recompute", bool(recompute)))
    arrays = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    y, h_n = _checked(_Call("gru", options), lengths, x=x, h0=h0, **arrays)
    return y, h_n


def lstm(
    x: Any,
    h0: Any,
    c0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    reverse: bool = False,
    recompute: bool = False,
    lengths: Any = None,
) -> tuple[Any, Any, Any]:
    """y [T, N, H], h_n and c_n [N, H] of ``fusedrnn.lstm_forward``. Weights [4H, I], [4H, H], gates i, f, g, o."""
    call = _Call("lstm", (("reverse", bool(reverse)), ("recompute", bool(recompute))))
    arrays = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    y, h_n, c_n = _checked(call, lengths, x=x, h0=h0, c0=c0, **arrays)
    return y, h_n, c_n
