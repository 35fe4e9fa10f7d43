"""Cells whose products are with the input alone: a unit sees no state but its own, or none at all in its gates."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.ops import sigmoid, softplus


def sru(p: Any, c: Any, x: Any, *, scale: float = math.sqrt(3)) -> tuple[Any, Any]:
    """u, f, r = W x;  f, r = σ(f + v_f c + b_f), σ(r + v_r c + b_r);  c = f c + (1 - f) u;  y = r c + (1 - r) α x.

    Lei, Zhang, Wang, Dai and Artzi 2018, Simple Recurrent Units for Highly Parallelizable Recurrence, arXiv:1709.02755.
    Both gates see the c of the step before. α is `scale`; where the input is not as wide as c, S x stands for α x.
    """
    u, f, r = np.split(p["W"] @ x, 3)
    v_f, v_r = np.split(p["v"], 2)
    b_f, b_r = np.split(p["b"], 2)
    f, r = sigmoid(f + v_f * c + b_f), sigmoid(r + v_r * c + b_r)
    c = f * c + (1 - f) * u
    skipped = p["S"] @ x if "S" in p else scale * x
    return c, r * c + (1 - r) * skipped


def SRU(
    input_size: int, hidden_size: int, *, highway_bias: float = 0.0, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `sru` initial values, as the paper does. State: c [H].

    W has a variance of 1/I, its gates of 1/(2 I), v of 1/2, all uniform; b_f is 0, b_r the highway bias; α =
    sqrt(1 + 2 exp(highway bias)). S is there where input_size is not hidden_size, as W but times α.
    """
    draw, H = Initial(rng, dtype), hidden_size
    bound, half, scale = math.sqrt(3 / input_size), math.sqrt(0.5), math.sqrt(1 + 2 * math.exp(highway_bias))
    parts = [(H, bound), (2 * H, half * bound)]
    p = {
        "W": np.concatenate([draw.uniform(-each, each, rows, input_size) for rows, each in parts]),
        "v": draw.uniform(-half * math.sqrt(3), half * math.sqrt(3), 2 * H),
        "b": np.concatenate([draw.zeros(H), draw.full(highway_bias, H)]),
    }
    if input_size != H:
        p["S"] = draw.uniform(-scale * bound, scale * bound, H, input_size)
    return Cell(partial(sru, scale=scale), p, draw.zeros(H))


def min_lstm(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """f, i, n = W x + b;  h = (σ(f) h + σ(i) n) / (σ(f) + σ(i)).

    Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, Were RNNs All We Needed?, arXiv:2410.01201. The share of i is
    written as the paper's log form has it, which cannot become 0/0.
    """
    f, i, n = np.split(p["W"] @ x + p["b"], 3)
    admitted = sigmoid(softplus(-f) - softplus(-i))
    h = (1 - admitted) * h + admitted * n
    return h, h


def MinLSTM(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `min_lstm` initial values: W and b U(-1/sqrt(I), 1/sqrt(I)), as a linear layer of PyTorch. State: h [H]."""
    draw, bound = Initial(rng, dtype), 1 / math.sqrt(input_size)
    p = {
        "W": draw.uniform(-bound, bound, 3 * hidden_size, input_size),
        "b": draw.uniform(-bound, bound, 3 * hidden_size),
    }
    return Cell(min_lstm, p, draw.zeros(hidden_size))
