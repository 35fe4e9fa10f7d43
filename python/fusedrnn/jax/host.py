"""Primitives of JAX, and how they run in Python on arrays of NumPy.

JAX's pure_callback would make arrays of JAX from its operands first: five times as slow, and on a machine of few cores
they may wait for a thread that waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir


def primitive(name: str, results: Callable[..., Sequence[tuple[tuple[int, ...], Any]]]) -> Any:
    """A primitive with several results, of whose work nothing is known yet.

    Args:
        results: (shape, dtype) of each, from the operands' abstract values and the parameters.
    """

    def evaluate(*avals: Any, **parameters: Any) -> list[Any]:
        for aval in avals:  # by the names that JAX has had for it
            if getattr(aval, "vma", None) or getattr(getattr(aval, "manual_axis_type", None), "varying", None):
                raise NotImplementedError("shard_map: expected check_vma=False around fusedrnn.jax, got True")
        return [jax.core.ShapedArray(*result) for result in results(*avals, **parameters)]

    p = Primitive(f"fusedrnn_{name}")
    p.multiple_results = True
    p.def_abstract_eval(evaluate)
    return p


def on_host(p: Any, run: Callable[..., Sequence[Any]]) -> None:
    """The primitive's work is ``run``, of the operands as arrays of NumPy, in place, and of the parameters by name."""

    def lower(ctx: Any, *operands: Any, **parameters: Any) -> Any:
        results, _, _ = mlir.emit_python_callback(
            ctx, lambda *arrays: tuple(run(*arrays, **parameters)), None, list(operands), ctx.avals_in, ctx.avals_out,
            has_side_effect=False,
        )  # fmt: skip
        return results

    mlir.register_lowering(p, lower)
    # outside of jit there is nothing to come back from
    p.def_impl(lambda *operands, **of: [jnp.asarray(a) for a in run(*map(np.asarray, operands), **of)])


def one_by_one(p: Any, operands: Sequence[Any], dims: Sequence[Any], **parameters: Any) -> Any:
    """Batch the primitive for vmap: one call after another, as elements may have weights or a seed of their own."""
    batched = [jnp.moveaxis(a, dim, 0) for a, dim in zip(operands, dims, strict=True) if dim is not None]

    def one(parts: Any) -> Any:
        rest = iter(parts)
        return p.bind(*(a if dim is None else next(rest) for a, dim in zip(operands, dims, strict=True)), **parameters)

    results = jax.lax.map(one, batched)
    return results, [0] * len(results)
