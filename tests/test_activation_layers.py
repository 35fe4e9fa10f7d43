"""Activation layers: slopes by finite differences, extreme values, kept calls, in a Sequential."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn

ELEMENTWISE = [nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.LeakyReLU(0.1), nn.ELU(0.7), nn.SiLU(), nn.Softplus()]
LAYERS = [*ELEMENTWISE, nn.Softmax(), nn.Softmax(0), nn.LogSoftmax(), nn.LogSoftmax(1)]
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=repr)
FORMULAS = {
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "ReLU": lambda x: x * (x > 0),
    "LeakyReLU": lambda x: x * np.where(x > 0, 1, 0.1),
    "ELU": lambda x: np.where(x > 0, x, 0.7 * (np.exp(x) - 1)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log(1 + np.exp(x)),
}


@pytest.mark.parametrize("layer", ELEMENTWISE, ids=repr)
def test_values(layer, dtype):
    x = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(dtype)
    y = layer.eval()(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, FORMULAS[type(layer).__name__](x.astype(float)), rtol=1e-5, atol=1e-6)


def test_shares_add_up_to_one_along_their_axis(dtype):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    for dim in (0, 1, -1):
        y = nn.Softmax(dim).eval()(x)
        np.testing.assert_allclose(y.sum(dim), 1, rtol=1e-6)
        np.testing.assert_allclose(nn.LogSoftmax(dim).eval()(x), np.log(y), rtol=1e-4, atol=1e-6)


@every_layer
def test_backward_is_the_slope(layer):
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((3, 4)) * 2, rng.standard_normal((3, 4))
    layer.train()
    layer(x)
    dx = layer.backward(dy)
    layer.eval()
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        numeric = np.sum((layer(moved[0]) - layer(moved[1])) * dy) / 2e-6
        assert dx[place] == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@every_layer
def test_extreme_values(layer, dtype):
    """Neither warnings, which are errors here, nor anything that is not finite."""
    x = np.array([[-1e30, -1e4, -100, 0], [0, 100, 1e4, 1e30]], dtype)
    y = layer.train()(x)
    dx = layer.backward(np.ones_like(x))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert y.dtype == dx.dtype == dtype


@every_layer
def test_a_call_is_taken_back_once_and_keeps_what_it_saw(layer):
    layer.train()
    x = np.array([[0.5, -1.0], [2.0, 0.1]])
    y = layer(x)
    layer(x * 2)
    layer.backward(np.ones((2, 2)))
    wanted = layer.eval()(x)
    layer.train()
    y[:] = 7  # the caller's own
    first = layer.backward(np.ones((2, 2)))
    layer(x)
    np.testing.assert_allclose(layer.backward(np.ones((2, 2))), first)
    with pytest.raises(RuntimeError, match="no call is left"):
        layer.backward(np.ones((2, 2)))
    assert wanted.shape == (2, 2)


def test_within_a_network():
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=0), nn.LogSoftmax())
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("f")
    assert model(x).shape == (5, 2)
    assert model.backward(np.ones((5, 2), "f")).shape == (5, 3)
    assert not list(nn.Tanh().parameters())


def test_what_does_not_fit():
    with pytest.raises(TypeError, match="x: expected real numbers, got int64"):
        nn.Tanh()(np.arange(3))
    layer = nn.Sigmoid()
    layer(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"dy: expected shape \(2, 3\), got \(3,\)"):
        layer.backward(np.zeros(3))
    assert layer.backward(np.ones((2, 3))).shape == (2, 3), "a call refused may be made again"
