"""Cells with a memory beside what they put out: sums with exponential gates, and a matrix that the sequence writes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.ops import layer_norm, relu, sigmoid, softplus


def slstm(p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """i, f, z, o = W x + R h + b;  c = σ(f) c + exp(i) tanh(z);  n = σ(f) n + exp(i);  h = σ(o) c / n.

    Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517, in its form that cannot overflow: c
    and n are kept divided by exp(m), m = max(log σ(f) + m, i). R h is one product for each head, R [4, heads,
    H / heads, H / heads]. A unit whose n is zero has seen nothing and takes m = i, as in NX-AI's own code; so the
    state before the first step is zero.
    """
    h, c, n, m = state
    recurrent = np.reshape(p["R"] @ np.reshape(h, (p["R"].shape[1], -1, 1)), -1)
    i, f, z, o = np.split(p["W"] @ x + recurrent + p["b"], 4)
    kept = m - softplus(-f)  # log of what the last step's n weighs now
    m = np.where(n == 0, i, np.maximum(kept, i))
    f, i = np.exp(np.minimum(kept - m, 0)), np.exp(i - m)
    c, n = f * c + i * np.tanh(z), f * n + i
    h = sigmoid(o) * c / n
    return (h, c, n, m), h


def SLSTM(input_size: int, hidden_size: int, *, heads: int = 1, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `slstm` initial values, as the first block of NX-AI's xLSTM. State: h, c, n and m, all [H].

    R is zero; b of f runs in each head from 5 down to -7 as 5 - 12 (k / (H / heads - 1))^0.3, other biases are zero.
    W is U(-1/sqrt(I), 1/sqrt(I)).
    """
    if hidden_size % heads:
        raise ValueError(f"heads: expected a divisor of hidden_size {hidden_size}, got {heads}")
    draw, H, size = Initial(rng, dtype), hidden_size, hidden_size // heads
    bound = 1 / math.sqrt(input_size)
    b = draw.zeros(4, heads, size)
    b[1] = 5 - 12 * (np.arange(size) / max(size - 1, 1)) ** 0.3
    p = {
        "W": draw.uniform(-bound, bound, 4 * H, input_size),
        "R": draw.zeros(4, heads, size, size),
        "b": b.reshape(4 * H),
    }
    return Cell(slstm, p, tuple(draw.zeros(H) for _ in range(4)))


def fast_weights(
    p: Any, state: Any, x: Any, *, decay: float = 0.95, rate: float = 0.5, inner_steps: int = 1
) -> tuple[Any, Any]:
    """A = λ A + η h hᵀ;  v = W h + C x + b;  h = relu(v), then `inner_steps` times h = relu(LN(v + A h)).

    Ba, Hinton, Mnih, Leibo and Ionescu 2016, Using Fast Weights to Attend to the Recent Past, arXiv:1610.06258. λ is
    `decay`, η is `rate`. A remembers the states before, and draws the new one towards those that are like it.
    """
    h, A = state
    A = decay * A + rate * np.outer(h, h)
    v = p["W"] @ h + p["C"] @ x + p["b"]
    h = relu(v)
    for _ in range(inner_steps):
        h = relu(layer_norm(v + A @ h, p["gain"], p["bias"]))
    return (h, A), h


def FastWeights(
    input_size: int,
    hidden_size: int,
    *,
    decay: float = 0.95,
    rate: float = 0.5,
    inner_steps: int = 1,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `fast_weights` initial values. State: h [H], A [H, H].

    W is 0.05 times the identity; C is U(-1/sqrt(I), 1/sqrt(I)), the gain 1, biases zero.
    """
    if inner_steps < 0:
        raise ValueError(f"inner_steps: expected 0 or more, got {inner_steps}")
    draw, H, bound = Initial(rng, dtype), hidden_size, 1 / math.sqrt(input_size)
    p = {
        "W": draw.array(0.05 * np.eye(H)),
        "C": draw.uniform(-bound, bound, H, input_size),
        "b": draw.zeros(H),
        "gain": draw.full(1, H),
        "bias": draw.zeros(H),
    }
    step = partial(fast_weights, decay=decay, rate=rate, inner_steps=inner_steps)
    return Cell(step, p, (draw.zeros(H), draw.zeros(H, H)))
