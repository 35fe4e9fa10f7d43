"""``fusedrnn.ops`` over ordinary arrays; traced ones are in test_scan_tracing.py."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import ops

A = np.random.default_rng(0).standard_normal((3, 5))


def test_activations():
    np.testing.assert_allclose(ops.sigmoid(A), 1 / (1 + np.exp(-A)), rtol=1e-13)
    np.testing.assert_allclose(ops.softplus(A), np.log(1 + np.exp(A)), rtol=1e-13)
    np.testing.assert_array_equal(ops.relu(A), np.where(A > 0, A, 0))
    np.testing.assert_allclose(ops.silu(A), A / (1 + np.exp(-A)), rtol=1e-13)
    with np.errstate(over="raise", invalid="raise"):  # far out too
        np.testing.assert_allclose(ops.sigmoid(np.array([-800.0, 800])), [0, 1], atol=1e-300)
        np.testing.assert_allclose(ops.softplus(np.array([-800.0, 800])), [0, 800], atol=1e-300)


@pytest.mark.parametrize("axis", [0, -1])
def test_softmax_and_its_logarithm(axis):
    e = np.exp(A)
    np.testing.assert_allclose(ops.softmax(A, axis=axis), e / e.sum(axis, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(ops.logsumexp(A, axis=axis), np.log(e.sum(axis)), rtol=1e-13)
    np.testing.assert_allclose(ops.log_softmax(A, axis=axis), np.log(ops.softmax(A, axis=axis)), rtol=1e-12)
    np.testing.assert_allclose(ops.softmax(A + 1e4, axis=axis), ops.softmax(A, axis=axis), rtol=1e-9)


def test_layer_norm():
    gain, bias = np.arange(5.0), np.ones(5)
    y = ops.layer_norm(A[0], gain, bias, eps=1e-5)
    expected = (A[0] - A[0].mean()) / np.sqrt(A[0].var() + 1e-5) * gain + bias
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("width", [1, 3, 5, 13])
def test_circular_convolution(width):
    w, k = np.arange(13.0), np.random.default_rng(1).random(width)
    expected = [
        sum(w[(i - j) % 13] * k[j + width // 2] for j in range(-(width // 2), width // 2 + 1)) for i in range(13)
    ]
    np.testing.assert_allclose(ops.circular_convolve(w, k), expected, rtol=1e-13)


def test_places():
    np.testing.assert_array_equal(ops.one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert ops.argmax(np.array([1.0, 3, 3])) == 1
    np.testing.assert_array_equal(ops.stop_gradient(A), A)


def test_dropout_and_draws_of_a_scan():
    import fusedrnn

    def step(p, h, x):
        return h, {"mask": ops.dropout(x, 0.25), "u": ops.uniform((4,)), "k": ops.categorical(np.log(p))}

    p, h, x = np.array([0.2, 0.5, 0.3]), np.zeros((50, 1)), np.ones((40, 50, 6))
    y, _, _ = fusedrnn.scan_forward(step, p, h, x, seed=3)
    assert set(np.unique(y["mask"])) == {0, 1 / 0.75}
    assert abs(y["mask"].mean() - 1) < 0.02
    assert 0 <= y["u"].min() < 0.01
    assert 0.99 < y["u"].max() < 1
    np.testing.assert_allclose(np.bincount(y["k"].ravel()) / y["k"].size, p, atol=0.03)
    again, _, _ = fusedrnn.scan_forward(
        step, p, h[7:9], np.ascontiguousarray(x[10:, 7:9]), seed=3, row_offset=7, step_offset=10
    )
    for name in y:
        np.testing.assert_array_equal(again[name], y[name][10:, 7:9])
    calm, _, _ = fusedrnn.scan_forward(step, p, h, x, seed=3, training=False)
    np.testing.assert_array_equal(calm["mask"], x)
