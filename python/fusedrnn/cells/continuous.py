"""Cells that live in continuous time: oscillators, and cells that are told when a step happens."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.ops import sigmoid


def co_rnn(
    p: Any, state: Any, x: Any, *, dt: float = 0.042, gamma: float = 2.7, epsilon: float = 4.7
) -> tuple[Any, Any]:
    """z = z + Δt (tanh(W y + Z z + V x + b) - γ y - ε z);  y = y + Δt z.

    Rusch and Mishra 2021, Coupled Oscillatory Recurrent Neural Network, arXiv:2010.00951, with the explicit damping of
    the authors' code: y'' = tanh(W y + Z y' + V x + b) - γ y - ε y', stepped by Δt.
    """
    y, z = state
    force = np.tanh(p["W"] @ y + p["Z"] @ z + p["V"] @ x + p["b"])
    z = z + dt * (force - gamma * y - epsilon * z)
    y = y + dt * z
    return (y, z), y


def CoRNN(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 0.042,
    gamma: float = 2.7,
    epsilon: float = 4.7,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `co_rnn` initial values: all U(-a, a), a = 1/sqrt(I + 2 H), as the authors' code. State: y [H], z [H].

    The defaults of Δt, γ and ε are those that the authors use for MNIST pixel by pixel; they depend on the task.
    """
    draw, H = Initial(rng, dtype), hidden_size
    bound = 1 / math.sqrt(input_size + 2 * H)
    shapes: dict[str, tuple[int, ...]] = {"W": (H, H), "Z": (H, H), "V": (H, input_size), "b": (H,)}
    p = {name: draw.uniform(-bound, bound, *shape) for name, shape in shapes.items()}
    return Cell(partial(co_rnn, dt=dt, gamma=gamma, epsilon=epsilon), p, (draw.zeros(H), draw.zeros(H)))


def cfc(p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    """v = φ(W x + U s + b);  g, k, f, f_0 = V v + c;  s = σ(-f t - f_0) tanh(g) + σ(f t + f_0) tanh(k), x, t = input.

    Hasani et al. 2022, Closed-form Continuous-time Neural Networks, arXiv:2106.13898, as the authors' ncps has it: one
    backbone v for all parts, φ(a) = 1.7159 tanh(0.666 a). The input is a pair: x [I], and t, the time since the step
    before, a number.
    """
    x, t = x
    v = 1.7159 * np.tanh(0.666 * (p["W"] @ x + p["U"] @ state + p["b"]))
    g, k, f, f_0 = np.split(p["V"] @ v + p["c"], 4)
    late = sigmoid(f * t + f_0)
    state = (1 - late) * np.tanh(g) + late * np.tanh(k)
    return state, state


def CfC(
    input_size: int, hidden_size: int, *, backbone_size: int = 128, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `cfc` initial values: matrices of Glorot as in ncps, biases zero. State: s [H]."""
    draw, H, B = Initial(rng, dtype), hidden_size, backbone_size
    both = draw.glorot(1, B, input_size + H)
    p = {
        "W": both[:, :input_size].copy(),
        "U": both[:, input_size:].copy(),
        "b": draw.zeros(B),
        "V": draw.glorot(4, H, B),
        "c": draw.zeros(4 * H),
    }
    return Cell(cfc, p, draw.zeros(H))


def phased_lstm(p: Any, state: Any, x: Any, *, leak: float = 0.001) -> tuple[Any, Any]:
    """An LSTM with peepholes, c', h', of which k is taken over:  c = k c' + (1 - k) c;  h = k h' + (1 - k) h.

    Neil, Pfeiffer and Liu 2016, Phased LSTM: Accelerating Recurrent Network Training for Long or Event-based Sequences,
    arXiv:1610.09513. The phase φ = ((t - s) mod τ) / τ opens k: from 0 to 1 and back while φ < r, else k = leak φ.
    The input is a pair: x [I], and t, the time of the step, a number.
    """
    (h, c), (x, t) = state, x
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    p_i, p_f, p_o = p["peephole"]
    c_new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
    h_new = sigmoid(o + p_o * c_new) * np.tanh(c_new)
    cycles = (t - p["shift"]) / p["period"]
    phase, r = cycles - np.floor(cycles), p["open"]
    rising_or_falling = np.where(phase < r / 2, 2 * phase / r, 2 - 2 * phase / r)
    k = np.where(phase < r, rising_or_falling, leak * phase)
    h, c = k * h_new + (1 - k) * h, k * c_new + (1 - k) * c
    return (h, c), h


def PhasedLSTM(
    input_size: int,
    hidden_size: int,
    *,
    longest: float = math.exp(5),
    shortest: float = math.exp(1),
    opening: float = 0.05,
    leak: float = 0.001,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `phased_lstm` initial values. State: h [H], c [H].

    Periods are drawn evenly in their logarithm between the shortest and the longest (the defaults are the authors'),
    shifts evenly from all of a period; units are open for `opening` of it. Weights are U(-1/sqrt(H), 1/sqrt(H)),
    peepholes zero, b of f 1. The paper's leak is for training; at test time it has none.
    """
    if not 0 < shortest <= longest:
        raise ValueError(f"shortest: expected more than 0 and at most longest {longest}, got {shortest}")
    draw, H = Initial(rng, dtype), hidden_size
    period = np.exp(draw.uniform(math.log(shortest), math.log(longest), H))
    p = draw.affine(4, input_size, H) | {
        "peephole": draw.zeros(3, H),
        "period": period,
        "shift": period * draw.uniform(0, 1, H),
        "open": draw.full(opening, H),
    }
    p["b"][H : 2 * H] = 1
    return Cell(partial(phased_lstm, leak=leak), p, (draw.zeros(H), draw.zeros(H)))
