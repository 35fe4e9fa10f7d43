"""bfloat16 with sequences of uneven length, packed rows, and states that are reset."""

from __future__ import annotations

import itertools

import numpy as np
import pytest


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LENGTHS = [4, 0, 7, 1, 7, 3]


def by_rows(forward, backward, x, states, weights, dy, dstates, pieces, **options):
    """What calls of one row give, each piece of a sequence alone: y, dx [T, N, ...], states' gradients by row, the
    weights' gradients summed. pieces[n]: steps (first, last, reset) in the order of time of the walk."""
    y, dx = np.zeros(dy.shape, np.float32), np.zeros(x.shape, np.float32)
    last, initial = [s.copy() for s in states], [d.copy() for d in dstates]
    total = None
    for n, of_row in enumerate(pieces):
        calls = []
        for first, end, reset in of_row:
            given = [np.zeros_like(s[n : n + 1]) if reset else s[n : n + 1].copy() for s in last]
            rows = np.ascontiguousarray(x[first:end, n : n + 1])
            out = forward(rows, *given, *weights, **options)
            y[first:end, n] = out[0][:, 0]
            for s, new in zip(last, out[1:-1], strict=True):
                s[n] = new[0]
            calls.append((first, end, reset, out[-1]))
        for first, end, reset, reserve in reversed(calls):
            d = [i[n : n + 1].copy() for i in initial]
            g = backward(np.ascontiguousarray(dy[first:end, n : n + 1]), *d, reserve)
            dx[first:end, n] = g.dx[:, 0]
            for i, name in zip(initial, ("dh0", "dc0"), strict=False):
                i[n] = 0 if reset else getattr(g, name)[0]
            gradients = [g.dweight_ih, g.dweight_hh, g.dbias_ih, g.dbias_hh]
            total = gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
    return y, dx, last, initial, total


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("kind", ["lengths", "lengths reversed", "batch_sizes", "resets"])
def test_uneven_sequences_and_resets_have_the_bits_of_each_row_alone(functional, name, kind):
    T, N, I, H = 7, 6, 5, 19  # noqa: E741
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[name]
    forward, backward = getattr(functional, f"{name}_forward"), getattr(functional, f"{name}_backward")
    x, dy = normal(T, N, I), normal(T, N, H, seed=2)
    weights = [0.3 * normal(*shape, seed=3 + i) for i, shape in enumerate(((gates * H, I), (gates * H, H)))]
    weights += [normal(gates * H, seed=6), normal(gates * H, seed=7)]
    states = [normal(N, H, seed=8 + i) for i in range(2 if name == "lstm" else 1)]
    dstates = [normal(N, H, seed=18 + i) for i in range(len(states))]
    reverse = kind.endswith("reversed")
    lengths = [7, 7, 4, 3, 1, 1] if kind == "batch_sizes" else LENGTHS
    resets = np.random.default_rng(5).random((T, N)) < 0.3
    if kind == "resets":
        edges = [[0, *(t for t in range(1, T) if resets[t, n]), T] for n in range(N)]
        pieces = [[(a, b, resets[a, n]) for a, b in itertools.pairwise(e)] for n, e in enumerate(edges)]
        options = {"resets": resets}
    else:
        pieces = [[(0, length, False)] if length else [] for length in lengths]
        options = {"lengths": lengths}
    expected = by_rows(
        forward, backward, x, states, weights, dy, dstates, pieces, precision="bfloat16", reverse=reverse
    )
    of_x, of_dy, there = x, dy, np.arange(T)[:, None] < np.array(lengths)
    if kind == "batch_sizes":
        of_x, of_dy, options = x[there], dy[there], {"batch_sizes": there.sum(1)[there.any(1)]}
    out = forward(of_x, *states, *weights, precision="bfloat16", reverse=reverse, **options)
    g = backward(of_dy, *dstates, out[-1])
    y, dx, last, initial, total = expected
    if kind == "batch_sizes":
        y, dx = y[there], dx[there]
    np.testing.assert_array_equal(out[0], y)
    for a, b in zip(out[1:-1], last, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(g.dx, dx)
    for a, b in zip((g.dh0, *([g.dc0] if name == "lstm" else [])), initial, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((g.dweight_ih, g.dweight_hh, g.dbias_ih, g.dbias_hh), total, strict=True):
        # both round the same factors; sums differ in order alone
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
    inference = forward(of_x, *states, *weights, precision="bfloat16", training=False, reverse=reverse, **options)
    np.testing.assert_array_equal(inference[0], y)
