"""Attention, decoders and windows once more, in plain loops over rows, steps and positions: what to hold ours to."""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attend(score, p, query, vectors):
    """Give (what a query [Q] sees of vectors [S, F], the weights [S])."""
    scores = []
    for vector in vectors:
        if score == "additive":
            scores.append(np.sum(p["v"] * np.tanh(p["W"] @ query + p["U"] @ vector)))
        elif score == "general":
            scores.append(np.sum((p["W"] @ query) * vector))
        else:
            scores.append(np.sum(query * vector))
    exponentials = [np.exp(e - max(scores)) for e in scores]
    weights = np.array(exponentials) / sum(exponentials)
    return sum(a * vector for a, vector in zip(weights, vectors, strict=True)), weights


def cell(kind, p, state, x):
    """Take one step of a cell; return its state and h."""
    if kind == "rnn":
        h = np.tanh(p["W"] @ x + p["U"] @ state + p["b"])
        return h, h
    if kind == "gru":
        H = len(state)
        a, b = p["W"] @ x + p["b"], p["U"] @ state
        r, z = sigmoid(a[:H] + b[:H]), sigmoid(a[H : 2 * H] + b[H : 2 * H])
        h = (1 - z) * np.tanh(a[2 * H :] + r * (b[2 * H :] + p["c"])) + z * state
        return h, h
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def decode(step, p, states, attended, x, vectors):
    """Run one row, x [T, I], over vectors [S, F]; return y [T, H] and the weights [T, S]."""
    ys, weights = [], []
    for now in x:
        seen = np.concatenate([now, attended]) if step.input_feeding else now
        below, hs, new = seen, [], []
        for layer, state in zip(p["cell"], states, strict=True):
            state, h = cell(step.cell, layer, state, below)
            new.append(state)
            hs.append(h)
            below = np.concatenate([seen, h])
        states, h = new, np.concatenate(hs)
        context, a = attend(step.score, p["attention"], h, vectors)
        attended = np.tanh(p["out"]["W"] @ np.concatenate([h, context]) + p["out"]["b"])
        ys.append(attended)
        weights.append(a)
    return np.array(ys), np.array(weights)


def slide(p, kappa, h, characters):
    """Move a window once; return κ, the window and φ."""
    K = len(kappa)
    raw = p["W"] @ h + p["b"]
    alpha, beta, kappa = np.exp(raw[:K]), np.exp(raw[K : 2 * K]), kappa + np.exp(raw[2 * K :])
    places = range(1, len(characters) + 1)
    phi = np.array([sum(alpha[k] * np.exp(-beta[k] * (kappa[k] - u) ** 2) for k in range(K)) for u in places])
    return kappa, sum(weight * c for weight, c in zip(phi, characters, strict=True)), phi
