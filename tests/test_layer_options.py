"""Every option of the recurrent layers: gradients, states, randomness, errors; frozen layers and streams."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn

NAMES = ("sigmoid", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")
SHARED = {
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout_h": 0.3},
    "dropout": {"recurrent_dropout": 0.4, "dropconnect": 0.3, "grad_clip": 1e3},
    "initial": {"learn_initial_state": True, "layer_norm": True},
}
OPTIONS = {
    "LSTM": {
        **SHARED,
        "peephole": {"peephole": True, "zoneout_c": 0.2},
        "projection": {"proj_size": 3, "learn_initial_state": True, "layer_norm": True},
        "coupled": {"coupled": True, "peephole": True, "cell_clip": 0.6},
        "recompute": {"recompute": True},
        "residual": {"proj_size": 3, "residual": True, "bias": False},
        **{name: {"activations": (name, name, name)} for name in NAMES},
    },
    "GRU": {
        **SHARED,
        "reset_before": {"reset_after": False, "recurrent_dropout": 0.4, "zoneout_h": 0.3},
        **{name: {"activations": (name, name)} for name in NAMES},
    },
    "RNN": {**SHARED, **{name: {"nonlinearity": name} for name in NAMES}},
}
CASES = [(kind, name) for kind, options in OPTIONS.items() for name in options]
every_case = pytest.mark.parametrize(("kind", "name"), CASES)
T, N, I, H = 4, 3, 2, 5  # noqa: E741 - the shape letters of the whole library


def make(kind, name, *sizes, **keywords):
    return getattr(nn, kind)(*(sizes or (I, H, 2)), **{"rng": 0, **OPTIONS[kind][name], **keywords})


def normal(*shape, dtype="float64", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parts(result):
    y, state = result
    return (y, *(state if isinstance(state, tuple) else (state,)))


def states(layer, rows=N):
    """Initial states for a call: h0, or (h0, c0)."""
    arrays = [
        normal(layer.num_layers * layer.directions, rows, size, dtype=layer.dtype, seed=k)
        for k, size in enumerate(layer._state_sizes[0])
    ]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


# Frozen layers and streams


@every_case
@pytest.mark.parametrize("stack", [{}, {"bidirectional": True, "batch_first": True}], ids=["onward", "both_ways"])
def test_a_frozen_layer_has_the_layers_bits(kind, name, stack, assert_same_bits):
    layer = make(kind, name, I, 17, 2, dropout=0.5, **stack).eval()
    frozen, x = layer.freeze(), normal(T, N, I, dtype="float32")
    lengths, resets = [4, 0, 2], normal(T, N) > 0.5
    if layer.batch_first:
        x, resets = x.swapaxes(0, 1), resets.T
    expected = [
        parts(layer(x, state, **data))
        for state in (None, states(layer))
        for data in ({}, {"lengths": lengths}, {"resets": resets}, {"lengths": lengths, "resets": resets})
    ]
    layer.train()
    for parameter in layer.parameters():
        parameter.data.fill(0)
    for state in (None, states(layer)):
        for data in ({}, {"lengths": lengths}, {"resets": resets}, {"lengths": lengths, "resets": resets}):
            assert_same_bits(parts(frozen(x, state, **data)), expected.pop(0), f"{data}")
    assert all(not parameter.grad.any() and parameter.grad.size for parameter in layer.parameters())


@every_case
@pytest.mark.parametrize("rows", [1, N])
def test_a_stream_has_the_layers_bits(kind, name, rows, assert_same_bits):
    layer = make(kind, name, I, 17, 2, batch_first=rows == 1).eval()
    x, start = normal(T, rows, I, dtype="float32"), states(layer, rows)
    stream = layer.stream(rows)
    given = x.swapaxes(0, 1) if layer.batch_first else x
    from_start, from_zeros = parts(layer(given, start)), parts(layer(given))
    for parameter in layer.parameters():
        parameter.data.fill(0)
    for expected in (from_zeros, from_start):
        y = expected[0].swapaxes(0, 1) if layer.batch_first else expected[0]
        assert_same_bits(np.stack([stream.step(step) for step in x]), np.ascontiguousarray(y))
        assert_same_bits(parts((y, stream.state))[1:], expected[1:])
        stream.state = start
    if rows == 1:
        stream.reset()
        assert_same_bits(stream(x[0, 0]), from_zeros[0][0, 0])


def test_a_streams_states_are_copies():
    layer = nn.LSTM(I, H, peephole=True, rng=0)
    stream, x = layer.stream(), normal(1, I, dtype="float32")
    given = states(layer, 1)
    stream.state = given
    for array in (*given, *stream.state):
        array.fill(9)
    stream.state = before = stream.state
    first = stream(x)
    stream.state = before
    np.testing.assert_array_equal(stream(x), first)
    assert not (before[0] == 9).any()


def test_what_concerns_training_alone_does_not_keep_a_layer_from_being_packed(assert_same_bits):
    """One with nothing else computes in evaluation what a plain layer does, at a plain layer's pace."""
    x = normal(T, N, I, dtype="float32")
    for kind in ("LSTM", "GRU", "RNN"):
        layer, plain = make(kind, "dropout").eval(), getattr(nn, kind)(I, H, 2, rng=0).eval()
        assert_same_bits(parts(layer(x)), parts(plain(x)))
        for precision in (None, "int8"):
            ours, theirs = (one.freeze(precision=precision)(x) for one in (layer, plain))
            assert_same_bits(parts(ours), parts(theirs))


def test_errors_of_frozen_layers_and_streams():
    layer = nn.LSTM(I, H, peephole=True, cell_clip=1.0)
    message = r"precision: expected one of None for lstm in float32 with cell_clip, weight_peephole, got 'int8'"
    for call in (layer.freeze, layer.stream):
        with pytest.raises(ValueError, match=message):
            call(precision="int8")
    x = normal(T, N, I, dtype="float32")
    with pytest.raises(ValueError, match="lengths, resets: expected None with precision='bfloat16'"):
        nn.LSTM(I, H).freeze(precision="bfloat16")(x, lengths=[4, 4, 4], resets=np.ones((T, N), bool))
    with pytest.raises(ValueError, match=r"lengths: expected"):
        layer.freeze()(x, lengths=[4, 4])
    stream = layer.stream(2)
    for wrong in (x[0], x[0, 0], x[0, :2, :1]):
        with pytest.raises(ValueError, match=r"x: expected shape \(2, 2\), got"):
            stream(wrong)
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        stream(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="x: expected a NumPy array, got list"):
        stream([[0, 0]] * 2)
    with pytest.raises(ValueError, match="x: expected a C-contiguous array"):
        stream(np.zeros((2, 2), np.float32).T[::-1])
    kept = stream.state
    with pytest.raises(ValueError, match=r"c: expected shape \(1, 2, 5\), got"):
        stream.state = (np.ones((1, 2, 5), np.float32), np.ones((1, 3, 5), np.float32))
    np.testing.assert_array_equal(stream.state, kept)
