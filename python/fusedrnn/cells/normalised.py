"""Cells that normalize what they sum: layer normalization is of one sequence, batch normalization would not be."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.ops import layer_norm, relu, sigmoid


def layer_norm_lstm(p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """i, f, g, o = LN(W x) + LN(U h) + b;  c = σ(f) c + σ(i) tanh(g);  h = σ(o) tanh(LN(c)).

    Ba, Kiros and Hinton 2016, Layer Normalization, arXiv:1607.06450. LN is over all four gates together;
    the biases of the first two and b would add up, so b is their sum.
    """
    h, c = state
    a = layer_norm(p["W"] @ x, p["gain_x"]) + layer_norm(p["U"] @ h, p["gain_h"]) + p["b"]
    i, f, g, o = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(layer_norm(c, p["gain_c"], p["b_c"]))
    return (h, c), h


def LayerNormLSTM(
    input_size: int, hidden_size: int, *, forget_bias: float = 1.0, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `layer_norm_lstm` initial values. State: h [H], c [H].

    W and U are U(-1/sqrt(H), 1/sqrt(H)), gains 1 and biases 0 as in the paper, but b of f is the forget bias.
    """
    draw, H = Initial(rng, dtype), hidden_size
    p = draw.affine(4, input_size, H) | {"b": draw.zeros(4 * H), "b_c": draw.zeros(H)}
    p |= {"gain_x": draw.full(1, 4 * H), "gain_h": draw.full(1, 4 * H), "gain_c": draw.full(1, H)}
    p["b"][H : 2 * H] = forget_bias
    return Cell(layer_norm_lstm, p, (draw.zeros(H), draw.zeros(H)))


def layer_norm_gru(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """z, r = σ(LN(W x) + LN(U h) + b);  n = tanh(LN(W_n x) + b_n + r (LN(U_n h) + c));  h = (1 - z) h + z n.

    Ba, Kiros and Hinton 2016, Layer Normalization, arXiv:1607.06450. LN is over the two gates together,
    and over the candidate apart; z admits the new.
    """
    gates = 2 * len(h)
    a, b, gain_x, gain_h, u = p["W"] @ x, p["b"], p["gain_x"], p["gain_h"], p["U"] @ h
    zr = layer_norm(a[:gates], gain_x[:gates]) + layer_norm(u[:gates], gain_h[:gates]) + b[:gates]
    z, r = np.split(sigmoid(zr), 2)
    n = layer_norm(a[gates:], gain_x[gates:], b[gates:])
    n = np.tanh(n + r * layer_norm(u[gates:], gain_h[gates:], p["c"]))
    h = (1 - z) * h + z * n
    return h, h


def LayerNormGRU(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `layer_norm_gru` initial values: W and U U(-1/sqrt(H), 1/sqrt(H)), gains 1, biases 0. State: h [H]."""
    draw, H = Initial(rng, dtype), hidden_size
    p = draw.affine(3, input_size, H) | {"b": draw.zeros(3 * H), "c": draw.zeros(H)}
    p |= {"gain_x": draw.full(1, 3 * H), "gain_h": draw.full(1, 3 * H)}
    return Cell(layer_norm_gru, p, draw.zeros(H))


def li_gru(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """n, z = LN(W x) + U h;  h = σ(z) h + (1 - σ(z)) relu(n).

    Ravanelli, Brakel, Omologo and Bengio 2018, Light Gated Recurrent Units for Speech Recognition, arXiv:1803.10225.
    The paper normalizes W x over the batch, which no step of one sequence can do; LN over W x takes its place, as in
    SpeechBrain's LiGRU with normalization="layernorm".
    """
    n, z = np.split(layer_norm(p["W"] @ x, p["gain"], p["b"]) + p["U"] @ h, 2)
    z = sigmoid(z)
    h = z * h + (1 - z) * relu(n)
    return h, h


def LiGRU(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `li_gru` initial values: W of Glorot, both parts of U orthogonal, gain 1, b zero. State: h [H]."""
    draw, H = Initial(rng, dtype), hidden_size
    p = {
        "W": draw.glorot(2, H, input_size),
        "U": draw.orthogonal(2, H),
        "gain": draw.full(1, 2 * H),
        "b": draw.zeros(2 * H),
    }
    return Cell(li_gru, p, draw.zeros(H))
