"""``layer.freeze()``: the bits of the layer over whole sequences, from a snapshot of its weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fusedrnn import nn, runtime


def parts(result):
    y, state = result
    return (y, *(state if isinstance(state, tuple) else (state,)))


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def initial(layer, N):
    arrays = tuple(normal(layer.num_layers * layer.directions, N, layer.hidden_size, dtype=layer.dtype) for _ in "hc")
    return arrays if isinstance(layer, nn.LSTM) else arrays[0]


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize(("T", "N", "sizes"), [(7, 1, (3, 24, 2)), (5, 13, (9, 20, 1)), (1, 2, (1, 1, 3))])
def test_the_bits_of_the_layer(make_layer, dtype, options, T, N, sizes, assert_same_bits):
    layer = make_layer(*sizes, dtype=dtype, rng=0, dropout=0.5 * (sizes[2] > 1), **options).eval()
    frozen = layer.freeze()
    x = normal(*((N, T) if layer.batch_first else (T, N)), sizes[0], dtype=dtype)
    for state in (None, initial(layer, N)):
        assert_same_bits(parts(frozen(x, state)), parts(layer(x, state)))


def test_it_is_a_snapshot_that_keeps_nothing(make_layer, assert_same_bits):
    layer = make_layer(3, 8, 2, rng=0, dropout=0.5)
    frozen, x = layer.freeze(), normal(4, 2, 3)
    expected = parts(layer.eval()(x))
    layer.train()
    for parameter in layer.parameters():
        parameter.data.fill(0)
    assert_same_bits(parts(frozen(x)), expected)  # no dropout either, though the layer trains again
    with pytest.raises(RuntimeError, match="no call is left"):
        layer.backward(expected[0])


def test_it_keeps_the_instruction_set_it_was_packed_for(make_layer, assert_same_bits):
    layer = make_layer(3, 20, rng=0).eval()
    x = normal(4, 2, 3)
    for name in runtime.available_isas():
        with runtime.use_isa(name):
            frozen, expected = layer.freeze(), parts(layer(x))
        for other in runtime.available_isas():
            with runtime.use_isa(other):
                assert_same_bits(parts(frozen(x)), expected, f"packed for {name}, called under {other}")


def test_from_several_python_threads(make_layer, assert_same_bits):
    layer = make_layer(16, 64, 2, rng=0).eval()
    frozen, x = layer.freeze(), normal(20, 30, 16)
    expected = parts(layer(x))
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: frozen(x), range(12)):
            assert_same_bits(parts(result), expected)


def test_errors(make_layer):
    layer = make_layer(3, 8, rng=0)
    frozen = layer.freeze()
    with pytest.raises(ValueError, match=r"x: expected shape \(T, N, 3\), got \(2, 3\)"):
        frozen(normal(2, 3))
    with pytest.raises(ValueError, match="x: expected a sequence length of at least 1, got 0"):
        frozen(normal(0, 2, 3))
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        frozen(np.zeros((2, 2, 3)))
    with pytest.raises((TypeError, ValueError), match=r"(h0|state): expected"):
        frozen(normal(2, 2, 3), normal(1, 3, 8))
