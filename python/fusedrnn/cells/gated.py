"""Cells with gates that see the input and the state: those that everybody knows, and their published relatives.

In all of them W multiplies the input, U the state, and rows of W, U and b stand gate by gate in the order of the text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.ops import sigmoid


def rnn(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """h = tanh(W x + U h + b), the network of Elman (1990)."""
    h = np.tanh(p["W"] @ x + p["U"] @ h + p["b"])
    return h, h


def RNN(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `rnn` initial values: all U(-1/sqrt(H), 1/sqrt(H)). State: h [H]."""
    draw = Initial(rng, dtype)
    return Cell(rnn, draw.affine(1, input_size, hidden_size), draw.zeros(hidden_size))


def lstm(p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """i, f, g, o = W x + U h + b;  c = σ(f) c + σ(i) tanh(g);  h = σ(o) tanh(c) (Gers et al. 2000)."""
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def LSTM(
    input_size: int, hidden_size: int, *, forget_bias: float = 1.0, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `lstm` initial values: U(-1/sqrt(H), 1/sqrt(H)), b of f the forget bias. State: h [H], c [H]."""
    draw = Initial(rng, dtype)
    p = draw.affine(4, input_size, hidden_size)
    p["b"][hidden_size : 2 * hidden_size] = forget_bias
    return Cell(lstm, p, (draw.zeros(hidden_size), draw.zeros(hidden_size)))


def gru(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """r, z = σ(W x + U h + b);  n = tanh(W_n x + b_n + r (U_n h + c));  h = (1 - z) n + z h.

    Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, arXiv:1406.1078, with r after the
    product, as in cuDNN and PyTorch; c is the bias inside.
    """
    r, z, n = np.split(p["W"] @ x + p["b"], 3)
    r_h, z_h, n_h = np.split(p["U"] @ h, 3)
    r, z = sigmoid(r + r_h), sigmoid(z + z_h)
    n = np.tanh(n + r * (n_h + p["c"]))
    h = (1 - z) * n + z * h
    return h, h


def GRU(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `gru` initial values: U(-1/sqrt(H), 1/sqrt(H)), c zero. State: h [H]."""
    draw = Initial(rng, dtype)
    p = draw.affine(3, input_size, hidden_size) | {"c": draw.zeros(hidden_size)}
    return Cell(gru, p, draw.zeros(hidden_size))


def mgu(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """f = σ(W_f x + U_f h + b_f);  n = tanh(W_n x + U_n (f h) + b_n);  h = (1 - f) h + f n.

    Zhou, Wu, Zhang and Zhou 2016, Minimal Gated Unit for Recurrent Neural Networks, arXiv:1603.09420.
    """
    f, n = np.split(p["W"] @ x + p["b"], 2)
    U_f, U_n = np.split(p["U"], 2)
    f = sigmoid(f + U_f @ h)
    n = np.tanh(n + U_n @ (f * h))
    h = (1 - f) * h + f * n
    return h, h


def MGU(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `mgu` initial values: all U(-1/sqrt(H), 1/sqrt(H)). State: h [H]."""
    draw = Initial(rng, dtype)
    return Cell(mgu, draw.affine(2, input_size, hidden_size), draw.zeros(hidden_size))


def janet(p: Any, c: Any, x: Any) -> tuple[Any, Any]:
    """s, n = W x + U c + b;  c = σ(s) c + (1 - σ(s - 1)) tanh(n).

    Van der Westhuizen and Lasenby 2018, The Unreasonable Effectiveness of the Forget Gate, arXiv:1804.04849: an LSTM
    with a forget gate alone. The 1 is the paper's β, by which more is admitted than forgotten.
    """
    s, n = np.split(p["W"] @ x + p["U"] @ c + p["b"], 2)
    c = sigmoid(s) * c + (1 - sigmoid(s - 1)) * np.tanh(n)
    return c, c


def JANET(input_size: int, hidden_size: int, *, longest: float = 784, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `janet` initial values. State: c [H].

    W and U are Glorot's, b of n zero and b of s is log U(1, longest - 1), the chrono initialization for dependencies
    over at most `longest` steps (Tallec and Ollivier 2018); 784 are the pixels of a picture of MNIST.
    """
    if longest <= 2:
        raise ValueError(f"longest: expected more than 2 steps, got {longest}")
    draw = Initial(rng, dtype)
    b_s = np.log(draw.uniform(1, longest - 1, hidden_size))
    p = {
        "W": draw.glorot(2, hidden_size, input_size),
        "U": draw.glorot(2, hidden_size, hidden_size),
        "b": np.concatenate([b_s, draw.zeros(hidden_size)]),
    }
    return Cell(janet, p, draw.zeros(hidden_size))


def ugrnn(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """g, n = W x + U h + b;  h = σ(g) h + (1 - σ(g)) tanh(n).

    Collins, Sohl-Dickstein and Sussillo 2017, Capacity and Trainability in Recurrent Neural Networks, arXiv:1611.09913:
    the update gate RNN.
    """
    g, n = np.split(p["W"] @ x + p["U"] @ h + p["b"], 2)
    g = sigmoid(g)
    h = g * h + (1 - g) * np.tanh(n)
    return h, h


def UGRNN(
    input_size: int, hidden_size: int, *, forget_bias: float = 1.0, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `ugrnn` initial values: U(-1/sqrt(H), 1/sqrt(H)), b of g the forget bias. State: h [H]."""
    draw = Initial(rng, dtype)
    p = draw.affine(2, input_size, hidden_size)
    p["b"][:hidden_size] = forget_bias
    return Cell(ugrnn, p, draw.zeros(hidden_size))


def augru(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """r, u = σ(W x + U h + b);  n = tanh(W_n x + r (U_n h) + b_n);  h = (1 - a u) h + a u n, with x, a = the input.

    Zhou, Mou, Fan et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction, arXiv:1809.03672: a
    GRU whose update the score of an attention scales. The input is a pair: x [I], and the score a, a number.
    """
    x, a = x
    r, u, n = np.split(p["W"] @ x + p["b"], 3)
    r_h, u_h, n_h = np.split(p["U"] @ h, 3)
    r, u = sigmoid(r + r_h), a * sigmoid(u + u_h)
    h = (1 - u) * h + u * np.tanh(n + r * n_h)
    return h, h


def AUGRU(input_size: int, hidden_size: int, *, rng: Rng = None, dtype: Any = "float32") -> Cell:
    """Give `augru` initial values: all U(-1/sqrt(H), 1/sqrt(H)). State: h [H]."""
    draw = Initial(rng, dtype)
    return Cell(augru, draw.affine(3, input_size, hidden_size), draw.zeros(hidden_size))


def fast_grnn(p: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """a = W x + U h;  z = σ(a + b_z);  n = tanh(a + b_n);  h = (σ(ζ) (1 - z) + σ(ν)) n + z h.

    Kusupati et al. 2018, FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated Recurrent Neural Network,
    arXiv:1901.02358. Gate and candidate share W and U, each a tuple of one matrix or of two whose product it is.
    """
    v, u = x, h
    for matrix in p["W"]:
        v = matrix @ v
    for matrix in p["U"]:
        u = matrix @ u
    z = sigmoid(v + u + p["b_z"])
    n = np.tanh(v + u + p["b_n"])
    h = (sigmoid(p["zeta"]) * (1 - z) + sigmoid(p["nu"])) * n + z * h
    return h, h


def FastGRNN(
    input_size: int,
    hidden_size: int,
    *,
    input_rank: int | None = None,
    hidden_rank: int | None = None,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `fast_grnn` initial values, as the authors' EdgeML does. State: h [H].

    Matrices are N(0, 0.1²), biases 1, ζ = 1 and ν = -4. With a rank W or U is a product of two matrices, the first
    applied first.
    """
    draw = Initial(rng, dtype)

    def matrices(columns: int, rank: int | None) -> tuple[Any, ...]:
        if rank is None:
            return (draw.normal(0.1, hidden_size, columns),)
        return draw.normal(0.1, rank, columns), draw.normal(0.1, hidden_size, rank)

    p = {
        "W": matrices(input_size, input_rank),
        "U": matrices(hidden_size, hidden_rank),
        "b_z": draw.full(1, hidden_size),
        "b_n": draw.full(1, hidden_size),
        "zeta": draw.full(1, 1),
        "nu": draw.full(-4, 1),
    }
    return Cell(fast_grnn, p, draw.zeros(hidden_size))
