"""Numbers below the smallest normal one count as zero within a call, on every thread, and nowhere after it."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import functional, nn, optim

TINY = np.finfo(np.float32).tiny


def test_a_faded_gradient_is_zero(threads):
    """Through 300 steps of a forget gate of about a half the loss of the last step leaves nothing of the first."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 40, 3)).astype(np.float32)
    weights = [rng.uniform(-0.1, 0.1, shape).astype(np.float32) for shape in ((96, 3), (96, 24), (96,), (96,))]
    found = []
    for count in (1, 3):
        threads(count)
        y, _, _, reserve = functional.lstm_forward(x, None, None, *weights)
        gradients = [d for d in functional.lstm_backward(None, y[-1].copy(), None, reserve) if d is not None]
        found.append(gradients)
        assert not gradients[0][0].any()  # dx
        for gradient in gradients:
            magnitude = np.abs(gradient)
            assert not ((magnitude > 0) & (magnitude < TINY)).any()
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_a_stream_has_the_sequences_bits():
    layer = nn.RNN(1, 4, nonlinearity="relu", bias=False, rng=0).eval()
    for parameter in layer.parameters():
        parameter.data[...] = np.abs(parameter.data) * np.float32(0.1)
    x = np.zeros((60, 1, 1), np.float32)
    x[0] = 1
    y, _ = layer(x)
    stream = layer.stream()
    assert all(stream(x[t]).tobytes() == y[t].tobytes() for t in range(len(x)))
    assert y[0].any()
    assert not y[-1].any()


def test_a_frozen_layer_adds_biases_as_a_call_does():
    """A subnormal bias counts as zero beside the other one, also where they are added ahead of all calls."""
    layer = nn.RNN(1, 3, nonlinearity="relu", rng=0).eval()
    for parameter in layer.parameters():
        parameter.data[...] = 0
    bias_ih, bias_hh = [p.data for p in layer.parameters() if p.data.ndim == 1]
    bias_ih[...], bias_hh[...] = TINY, TINY / np.float32(2)
    x = np.zeros((1, 1, 1), np.float32)
    y, _ = layer(x)
    assert (y == TINY).all()
    assert layer.freeze()(x)[0].tobytes() == y.tobytes()
    assert layer.stream()(x[0]).tobytes() == y[0].tobytes()


@pytest.mark.parametrize("calls", [1, 2])
def test_the_caller_keeps_subnormals(calls):
    layer = nn.LSTM(2, 8, rng=0)
    optimizer = optim.Adam(layer)
    for _ in range(calls):
        y, _ = layer(np.ones((3, 2, 2), np.float32))
        layer.backward(y)
        optimizer.step()
    layer.stream()(np.ones((1, 2), np.float32))
    half = np.float32(TINY) / np.float32(2)
    assert 0 < half < TINY
