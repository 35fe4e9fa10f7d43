"""The published cells once more, over whole batches, written from other texts than `fusedrnn.cells`.

Each takes parameters, x [T, N, I] (or a pair of that and numbers [T, N]) and the initial state's leaves [N, ...], and
gives y [T, N, H] and the last state.
"""

from __future__ import annotations

import math

import numpy as np

from fusedrnn import reference


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normalized(a, gain, bias=0.0):
    mean = a.mean(axis=-1, keepdims=True)
    return gain * (a - mean) / np.sqrt(((a - mean) ** 2).mean(axis=-1, keepdims=True) + 1e-5) + bias


def by_gate(names, *arrays):
    """For each gate the rows of each array that are its own."""
    return dict(zip(names, zip(*(np.split(array, len(names)) for array in arrays), strict=True), strict=True))


def over_time(step, x, state):
    """The step of a batch, over all of time."""
    ys = []
    for t in range(len(x[0] if isinstance(x, tuple) else x)):
        state, y = step(state, tuple(part[t] for part in x) if isinstance(x, tuple) else x[t])
        ys.append(y)
    return np.stack(ys), state


def rnn(p, x, h):
    y, h, _ = reference.rnn_forward(x, h, p["W"], p["U"], p["b"])
    return y, h


def lstm(p, x, state):
    y, h, c, _ = reference.lstm_forward(x, *state, p["W"], p["U"], p["b"])
    return y, (h, c)


def gru(p, x, h):
    inside = np.concatenate([np.zeros(2 * h.shape[1]), p["c"]])
    y, h, _ = reference.gru_forward(x, h, p["W"], p["U"], p["b"], inside)
    return y, h


def layer_norm_lstm(p, x, state):
    norms = (p["gain_x"], p["gain_h"], p["gain_c"]), (p["b"], 0 * p["b"], p["b_c"])
    y, h, c, _ = reference.lstm_forward(x, *state, p["W"], p["U"], layer_norm=norms)
    return y, (h, c)


def layer_norm_gru(p, x, h):
    """Ba et al., (26) to (28). The option of `reference.gru_forward` is another: one mean over all three parts."""
    H = h.shape[1]
    (W_zr, W), (U_zr, U) = np.split(p["W"], [2 * H]), np.split(p["U"], [2 * H])
    a1, a3 = np.split(p["gain_h"], [2 * H])
    a2, a4 = np.split(p["gain_x"], [2 * H])
    b_zr, b = np.split(p["b"], [2 * H])

    def step(h, x):
        zr = normalized(h @ U_zr.T, a1) + normalized(x @ W_zr.T, a2) + b_zr
        z, r = sigmoid(zr[:, :H]), sigmoid(zr[:, H:])
        candidate = np.tanh(normalized(x @ W.T, a4, b) + r * normalized(h @ U.T, a3, p["c"]))
        h = (1 - z) * h + z * candidate
        return h, h

    return over_time(step, x, h)


def li_gru(p, x, h):
    """SpeechBrain's LiGRU_Layer with normalization="layernorm"."""
    w = normalized(x @ p["W"].T, p["gain"], p["b"])

    def step(h, w):
        at, zt = np.array_split(w + h @ p["U"].T, 2, axis=1)
        zt = sigmoid(zt)
        h = zt * h + (1 - zt) * at.clip(0)
        return h, h

    return over_time(step, w, h)


def mgu(p, x, h):
    """The paper's (4) to (6), with one matrix over [h, x] a gate."""
    (U_f, W_f, b_f), (U_h, W_h, b_h) = by_gate("fh", p["U"], p["W"], p["b"]).values()
    W_f, W_h = np.hstack([U_f, W_f]), np.hstack([U_h, W_h])

    def step(h, x):
        f = sigmoid(np.hstack([h, x]) @ W_f.T + b_f)
        candidate = np.tanh(np.hstack([f * h, x]) @ W_h.T + b_h)
        h = (1 - f) * h + f * candidate
        return h, h

    return over_time(step, x, h)


def janet(p, x, c):
    """The authors' rnn_cells.py: new_c = c*sigmoid(f) + sigmoid(1-f)*tanh(j)."""
    W = np.hstack([p["W"], p["U"]])

    def step(c, x):
        f, j = np.split(np.hstack([x, c]) @ W.T + p["b"], 2, axis=1)
        c = c * sigmoid(f) + sigmoid(1 - f) * np.tanh(j)
        return c, c

    return over_time(step, x, c)


def ugrnn(p, x, h):
    """tf.contrib.rnn.UGRNNCell."""
    W = np.hstack([p["W"], p["U"]])

    def step(h, x):
        g, c = np.split(np.hstack([x, h]) @ W.T + p["b"], 2, axis=1)
        g = sigmoid(g)
        h = g * h + (1.0 - g) * np.tanh(c)
        return h, h

    return over_time(step, x, h)


def augru(p, x, h):
    """DIEN's (2) to (5) and (8), (9): the GRU gate by gate, its update times the score."""
    parts = by_gate("ruh", p["W"], p["U"], p["b"])

    def step(h, x):
        i, a = x
        (Wr, Ur, br), (Wu, Uu, bu), (Wh, Uh, bh) = (parts[gate] for gate in "ruh")
        u = sigmoid(i @ Wu.T + h @ Uu.T + bu)
        r = sigmoid(i @ Wr.T + h @ Ur.T + br)
        candidate = np.tanh(i @ Wh.T + r * (h @ Uh.T) + bh)
        u = a[:, None] * u
        h = h + u * (candidate - h)
        return h, h

    return over_time(step, x, h)


def fast_grnn(p, x, h):
    """EdgeML's FastGRNNCell."""
    W = p["W"][0] if len(p["W"]) == 1 else p["W"][1] @ p["W"][0]
    U = p["U"][0] if len(p["U"]) == 1 else p["U"][1] @ p["U"][0]

    def step(state, x):
        pre_comp = x @ W.T + state @ U.T
        z, c = sigmoid(pre_comp + p["b_z"]), np.tanh(pre_comp + p["b_n"])
        h = z * state + (sigmoid(p["zeta"]) * (1.0 - z) + sigmoid(p["nu"])) * c
        return h, h

    return over_time(step, x, h)


def sru(p, x, c):
    """asappresearch/sru's elementwise_recurrence_naive, unit by unit, with scale_x = sqrt(3) or a fourth matrix."""
    T, N, H = *x.shape[:2], c.shape[1]
    U = x @ p["W"].T
    prime = x @ p["S"].T if "S" in p else math.sqrt(3) * x
    h, c = np.empty((T, N, H)), c.copy()
    for t in range(T):
        for n in range(N):
            for k in range(H):
                previous = c[n, k]
                forget = sigmoid(U[t, n, H + k] + previous * p["v"][k] + p["b"][k])
                reset = sigmoid(U[t, n, 2 * H + k] + previous * p["v"][H + k] + p["b"][H + k])
                c[n, k] = U[t, n, k] + (previous - U[t, n, k]) * forget
                h[t, n, k] = (c[n, k] - prime[t, n, k]) * reset + prime[t, n, k]
    return h, c


def min_lstm(p, x, h):
    """The paper's parallel form: h_t = F_t (h_0 + sum of i'_k n_k / F_k), F_t = f'_1 ... f'_t."""
    f, i, n = np.split(x @ p["W"].T + p["b"], 3, axis=2)
    f, i = sigmoid(f), sigmoid(i)
    f, i = f / (f + i), i / (f + i)
    product = np.cumprod(f, axis=0)
    y = product * (h + np.cumsum(i * n / product, axis=0))
    return y, y[-1]


def slstm(p, x, state):
    """xLSTM's (8) to (14), without the stabilizer and head by head. Of a state before it c, n are times exp(m)."""
    h, c, n, m = state
    c, n = c * np.exp(m), n * np.exp(m)
    heads, size = p["R"].shape[1:3]

    def step(state, x):
        h, c, n, _ = state
        parts = []
        for W, b, R in zip(np.split(p["W"], 4), np.split(p["b"], 4), p["R"], strict=True):
            mixed = [h[:, k * size : (k + 1) * size] @ R[k].T for k in range(heads)]
            parts.append(x @ W.T + np.hstack(mixed) + b)
        i, f, z, o = np.exp(parts[0]), sigmoid(parts[1]), np.tanh(parts[2]), sigmoid(parts[3])
        c, n = f * c + i * z, f * n + i
        h = o * (c / n)
        return (h, c, n, None), h

    return over_time(step, x, (h, c, n, None))


def co_rnn(p, x, state):
    """The authors' coRNNCell, with hy and hz together in one product."""
    W = np.hstack([p["V"], p["Z"], p["W"]])

    def step(state, x):
        hy, hz = state
        hz = hz + 0.042 * (np.tanh(np.hstack([x, hz, hy]) @ W.T + p["b"]) - 2.7 * hy - 4.7 * hz)
        hy = hy + 0.042 * hz
        return (hy, hz), hy

    return over_time(step, x, state)


def cfc(p, x, state):
    """ncps.torch.CfCCell in its default mode, one layer of backbone."""
    (ff1, b1), (ff2, b2), (a, b_a), (b, b_b) = by_gate("12ab", p["V"], p["c"]).values()

    def step(hx, x):
        inputs, ts = x
        v = np.concatenate([inputs, hx], axis=1) @ np.hstack([p["W"], p["U"]]).T + p["b"]
        v = 1.7159 * np.tanh(0.666 * v)
        t_interp = sigmoid((v @ a.T + b_a) * ts[:, None] + v @ b.T + b_b)
        hx = np.tanh(v @ ff1.T + b1) * (1.0 - t_interp) + t_interp * np.tanh(v @ ff2.T + b2)
        return hx, hx

    return over_time(step, x, state)


def phased_lstm(p, x, state):
    """dannyneil/public_plstm: calc_time_gate and step_masked around an LSTM with peepholes."""
    on_end = p["open"] * p["period"]
    w_i, w_f, w_o = p["peephole"]
    parts = by_gate("ifgo", p["W"], p["U"], p["b"])

    def step(state, x):
        h, c = state
        i, f, g, o = (x[0] @ W.T + h @ U.T + b for W, U, b in parts.values())
        c_new = sigmoid(f + c * w_f) * c + sigmoid(i + c * w_i) * np.tanh(g)
        h_new = sigmoid(o + c_new * w_o) * np.tanh(c_new)
        in_cycle = np.mod(x[1][:, None] - p["shift"], p["period"])
        up, down = in_cycle <= on_end / 2, (in_cycle > on_end / 2) & (in_cycle <= on_end)
        mask = np.select(
            [up, down],
            [in_cycle / (on_end / 2), (on_end - in_cycle) / (on_end / 2)],
            0.001 * in_cycle / p["period"],
        )
        h, c = mask * h_new + (1.0 - mask) * h, mask * c_new + (1.0 - mask) * c
        return (h, c), h

    return over_time(step, x, state)


def fast_weights(p, x, state):
    """The paper's second form, an attention to all states before: A h_s = λ^t A_0 h_s + η Σ λ^(t-k) h_k (h_k h_s)."""
    (h, A), ys, seen = state, [], []
    for t in range(len(x)):
        seen.append(h)
        v = h @ p["W"].T + x[t] @ p["C"].T + p["b"]
        inner = v.clip(0)
        remembered = 0.95 ** (t + 1) * np.einsum("nij,nj->ni", A, inner)
        for k, past in enumerate(seen):
            remembered += 0.5 * 0.95 ** (t - k) * past * (past * inner).sum(axis=1, keepdims=True)
        h = normalized(v + remembered, p["gain"], p["bias"]).clip(0)
        ys.append(h)
    weights = [0.5 * 0.95 ** (len(x) - 1 - k) for k in range(len(x))]
    A = 0.95 ** len(x) * A + sum(w * np.einsum("ni,nj->nij", past, past) for w, past in zip(weights, seen, strict=True))
    return np.stack(ys), (h, A)
