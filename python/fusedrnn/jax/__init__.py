"""Recurrent layers as functions of JAX, on the CPU: under ``jit``, ``grad``, ``vmap``, in forward mode and with second
derivatives (extra ``jax``). docs/jax.md has what they cost.

Shapes: x [T, N, I], h0 and c0 [N, H] or None for zeros, weights and biases as in `fusedrnn.functional`; all float32, or
all float64 under ``jax_enable_x64``. Options are those of `fusedrnn.functional`, by the same names.

A call leaves XLA for Python and the kernels and comes back with their results, forward and the gradient in reverse mode
alike. What the kernels do not compute, tangents and derivatives of gradients, is the cell step by step in JAX's own
operations (``composite``): exact, and as slow as ``lax.scan``.
"""

from __future__ import annotations

from fusedrnn.extras import needed_for

with needed_for("fusedrnn.jax", "jax"):
    import jax  # noqa: F401

from fusedrnn.jax.layers import gru, lstm, rnn
from fusedrnn.jax.scan import initial_state, scan

__all__ = ["gru", "initial_state", "lstm", "rnn", "scan"]
