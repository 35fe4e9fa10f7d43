"""A layer as a primitive of JAX: how it runs, what vmap makes of it, and its derivatives.

Forward's tangents are a primitive of their own, linear in the tangents that come in: evaluated it is the composite, and
transposed, which is what gradients in reverse mode need, it is the backward of the kernels. All derivatives above are
those of the composite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from fusedrnn.jax import composite
from fusedrnn.jax.calls import CONSTANTS, Call, check
from fusedrnn.jax.host import on_host, one_by_one, primitive
from fusedrnn.spec import DRAWING

# The composite is traced once for a call and its shapes.
_outputs = jax.jit(lambda *operands, call: composite.unroll(call, call.named(operands)), static_argnames="call")
_tangents: Callable[..., Any] = jax.jit(composite.tangents, static_argnames="call")
_gradients = jax.jit(composite.gradients, static_argnames="call")


def _gradient_shapes(*operands: Any, call: Call) -> list[tuple[tuple[int, ...], Any]]:
    arrays = call.named(operands)
    return [(arrays[name].shape, arrays["y"].dtype) for name in call.wanted]


forward_p = primitive("forward", lambda *operands, call: call.results(*operands))
on_host(forward_p, lambda *arrays, call: call.forward(*arrays))
backward_p = primitive("backward", _gradient_shapes)
on_host(backward_p, lambda *arrays, call: call.backward(*arrays))
tangents_p = primitive("tangents", lambda *operands, call: call.results(*operands[: len(call.given)]))
mlir.register_lowering(tangents_p, mlir.lower_fun(composite.tangents, multiple_results=True))
tangents_p.def_impl(_tangents)


# vmap. Rows are independent, so that those of all elements can be the rows of one call.

_BY_ROW = tuple(name for name in DRAWING if name != "dropconnect")  # of which the mask of weights is the same for all
_ROWS = ("x", "h0", "c0", "lengths", "resets", "y", "reserve", "dy", "dh_n", "dc_n", "dc")
_AT_FRONT = ("h0", "c0", "lengths", "dh_n", "dc_n")  # where N is the first axis; elsewhere it is the second


def _merges(call: Call, batched: set[str]) -> bool:
    """Whether one call can have the rows of all elements: not where results or operands are not of rows, nor where the
    order of the kept rows follows from all their lengths together, nor where masks are counted by row: each element
    counts its own from 0."""
    kept = call.keep or "reserve" in call.given
    return (
        {*batched, *call.wanted} <= {*_ROWS}
        and not (kept and "lengths" in call.given)
        and not ("seed" in call.given and any(call.option(name) for name in _BY_ROW))
        and not call.option("batch_sizes")
    )


def _batch(p: Any, operands: Sequence[Any], dims: Sequence[Any], *, call: Call) -> Any:
    batched = {name for name, dim in zip(call.given, dims, strict=True) if dim is not None}
    if not _merges(call, batched):
        return one_by_one(p, operands, dims, call=call)
    B = next(a.shape[dim] for a, dim in zip(operands, dims, strict=True) if dim is not None)
    merged, rows = [], 0  # of one element
    for name, a, dim in zip(call.given, operands, dims, strict=True):
        if name in _ROWS:
            axis = 0 if name in _AT_FRONT else 1
            a = jnp.repeat(jnp.expand_dims(a, axis), B, axis) if dim is None else jnp.moveaxis(a, dim, axis)
            rows = a.shape[axis + 1]
            a = a.reshape(*a.shape[:axis], B * rows, *a.shape[axis + 2 :])
        merged.append(a)
    results = p.bind(*merged, call=call)
    axes = [a.ndim - 2 for a in results]  # of N, and where B will be
    split = [a.reshape(*a.shape[:axis], B, rows, a.shape[-1]) for a, axis in zip(results, axes, strict=True)]
    return split, axes


def _batch_composite(operands: Sequence[Any], dims: Sequence[Any], **parameters: Any) -> Any:
    results = jax.vmap(partial(_tangents, **parameters), in_axes=tuple(dims))(*operands)
    return results, [0] * len(results)


batching.primitive_batchers[forward_p] = partial(_batch, forward_p)
batching.primitive_batchers[backward_p] = partial(_batch, backward_p)
batching.primitive_batchers[tangents_p] = _batch_composite


# Derivatives.


def _along(function: Callable[..., Any], names: Sequence[str], primals: Any, tangents: Any, call: Call) -> Any:
    """Values and tangents of a function of the composite's; names are the operands'."""
    moved = [k for k, t in enumerate(tangents) if type(t) is not ad.Zero and names[k] not in CONSTANTS]

    def of_moved(*some: Any) -> Any:
        operands = list(primals)
        for k, a in zip(moved, some, strict=True):
            operands[k] = a
        return function(*operands, call=call)

    return jax.jvp(of_moved, [primals[k] for k in moved], [tangents[k] for k in moved])


def _forward_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: Call) -> Any:
    if "seed" not in call.given and any(call.option(name) for name in DRAWING):
        return _along(_outputs, call.given, primals, tangents, call)  # inference, of which the kernels keep nothing
    call, keep = replace(call, keep=True), call.keep
    check(call)  # int8 keeps nothing
    results = forward_p.bind(*primals, call=call)
    kept = dict(zip((*call.outputs, "reserve"), results, strict=False))
    kept = {name: a for name, a in kept.items() if name in ("y", "reserve")}
    moving = {
        name: t
        for name, t in zip(call.given, tangents, strict=True)
        if type(t) is not ad.Zero and name not in CONSTANTS
    }
    linear = replace(call, given=(*call.given, *kept), keep=False, wanted=tuple(moving))
    moved = tangents_p.bind(*primals, *kept.values(), *moving.values(), call=linear)
    results = results if keep else results[: len(moved)]
    return results, [*moved, *(jnp.zeros_like(a) for a in results[len(moved) :])]


def _transpose(cotangents: Sequence[Any], *operands: Any, call: Call) -> Any:
    kept, tangents = operands[: len(call.given)], operands[len(call.given) :]
    named = zip(call.outputs, cotangents, strict=True)
    given = {f"d{name}": ct for name, ct in named if type(ct) is not ad.Zero}
    linear = [name for name, t in zip(call.wanted, tangents, strict=True) if ad.is_undefined_primal(t)]
    of_linear = replace(call, given=(*call.given, *given), wanted=tuple(linear))
    found = dict(zip(linear, backward_p.bind(*kept, *given.values(), call=of_linear), strict=True))
    arrays = call.named(kept)
    gradients = [found[name].astype(arrays[name].dtype) if name in found else None for name in call.wanted]
    return [None] * len(kept) + gradients


def _tangents_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: Call) -> Any:
    names = (*call.given, *(f"tangent of {name}" for name in call.wanted))
    return _along(_tangents, names, primals, tangents, call)


def _backward_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: Call) -> Any:
    return backward_p.bind(*primals, call=call), _along(_gradients, call.given, primals, tangents, call)[1]


ad.primitive_jvps[forward_p] = _forward_jvp
ad.primitive_jvps[tangents_p] = _tangents_jvp
ad.primitive_jvps[backward_p] = _backward_jvp
ad.primitive_transposes[tangents_p] = _transpose
