"""The LSTM alone in PyTensor, as a scan with its own gradients, and in numba, as loops with gradients by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers import Unsupported
from benchmarks.recurrences import Case, draw
from benchmarks.workloads import Array

LEAVES = ("p.W", "p.U", "p.b", "state.0", "state.1", "x")


def _lstm_alone(case: Case, library: str) -> None:
    if case.network != "lstm":
        raise Unsupported(f"{library} is compared with at the LSTM alone")


class PyTensor:
    """A scan over time, compiled with its gradients."""

    def __init__(self, case: Case, threads: int) -> None:
        del threads  # its BLAS takes them from the affinity mask
        _lstm_alone(case, "PyTensor")
        import pytensor
        import pytensor.tensor as pt

        arrays = draw(case)
        W, U, b, h0, c0, x, dy = [
            pt.tensor(name, dtype=case.dtype, shape=(None,) * value.ndim)
            for name, value in zip(
                (*LEAVES, "dy"), (*arrays.p.values(), *arrays.state, arrays.x, arrays.dy), strict=True
            )
        ]
        self._given = (*arrays.p.values(), *arrays.state, arrays.x, arrays.dy)
        H = case.H

        def step(x_t: Any, h: Any, c: Any, turned: Any) -> Any:
            gates = x_t + h @ turned
            i, f, o = (pt.sigmoid(gates[:, at * H : (at + 1) * H]) for at in (0, 1, 3))
            c = f * c + i * pt.tanh(gates[:, 2 * H : 3 * H])
            return o * pt.tanh(c), c

        y, _ = pytensor.scan(
            step, sequences=[x @ W.T + b], outputs_info=[h0, c0], non_sequences=[U.T], strict=True, return_updates=False
        )
        inputs = [W, U, b, h0, c0, x]
        self._call = pytensor.function([*inputs, dy], [y, *pytensor.grad((y * dy).sum(), inputs)])
        self._found: Any = None

    def run(self) -> None:
        """Forward and backward."""
        self._found = self._call(*self._given)

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        return dict(zip(("y", *LEAVES), self._found, strict=True))


def forward(W: Array, U: Array, b: Array, h0: Array, c0: Array, x: Array) -> tuple[Array, Array, Array]:
    """All h and c, the initial ones first, and the gates after activation."""
    T, N, inputs = x.shape
    H = h0.shape[1]
    gates = (x.reshape(T * N, inputs) @ W.T).reshape(T, N, 4 * H)
    h, c = np.empty((T + 1, N, H), x.dtype), np.empty((T + 1, N, H), x.dtype)
    h[0], c[0] = h0, c0
    one = x.dtype.type(1)
    for t in range(T):
        a = h[t] @ U.T
        for n in range(N):
            for k in range(H):
                i = one / (one + np.exp(-(gates[t, n, k] + a[n, k] + b[k])))
                f = one / (one + np.exp(-(gates[t, n, H + k] + a[n, H + k] + b[H + k])))
                g = np.tanh(gates[t, n, 2 * H + k] + a[n, 2 * H + k] + b[2 * H + k])
                o = one / (one + np.exp(-(gates[t, n, 3 * H + k] + a[n, 3 * H + k] + b[3 * H + k])))
                gates[t, n, k], gates[t, n, H + k], gates[t, n, 2 * H + k], gates[t, n, 3 * H + k] = i, f, g, o
                c[t + 1, n, k] = f * c[t, n, k] + i * g
                h[t + 1, n, k] = o * np.tanh(c[t + 1, n, k])
    return h, c, gates


def backward(
    W: Array, U: Array, x: Array, h: Array, c: Array, gates: Array, dy: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Gradients of W, U, b, h0, c0 and x; ``gates`` become their gradients."""
    T, N, inputs = x.shape
    H = h.shape[2]
    one = x.dtype.type(1)
    dh, dc = np.zeros((N, H), x.dtype), np.zeros((N, H), x.dtype)
    for t in range(T - 1, -1, -1):
        for n in range(N):
            for k in range(H):
                i, f, g, o = gates[t, n, k], gates[t, n, H + k], gates[t, n, 2 * H + k], gates[t, n, 3 * H + k]
                seen = np.tanh(c[t + 1, n, k])
                own = dh[n, k] + dy[t, n, k]
                through = dc[n, k] + own * o * (one - seen * seen)
                gates[t, n, k] = through * g * i * (one - i)
                gates[t, n, H + k] = through * c[t, n, k] * f * (one - f)
                gates[t, n, 2 * H + k] = through * i * (one - g * g)
                gates[t, n, 3 * H + k] = own * seen * o * (one - o)
                dc[n, k] = through * f
        dh = gates[t] @ U
    flat = gates.reshape(T * N, 4 * H)
    dW = flat.T @ x.reshape(T * N, inputs)
    dU = flat.T @ h[:T].copy().reshape(T * N, H)
    return dW, dU, flat.sum(axis=0), dh, dc, (flat @ W).reshape(T, N, inputs)


class Numba:
    """Loops over time, rows and units, with products in BLAS."""

    def __init__(self, case: Case, threads: int) -> None:
        del threads  # its BLAS takes them from the affinity mask
        _lstm_alone(case, "numba")
        import numba

        self._arrays = draw(case)
        self._forward, self._backward = numba.njit(forward), numba.njit(backward)
        self._found: Any = None

    def run(self) -> None:
        """Forward and backward."""
        p, state, x, _, dy = self._arrays
        h, c, gates = self._forward(p["W"], p["U"], p["b"], *state, x)
        self._found = h[1:], self._backward(p["W"], p["U"], x, h, c, gates, dy)

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        y, gradients = self._found
        return {"y": y, **dict(zip(LEAVES, gradients, strict=True))}
