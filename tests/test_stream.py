"""``layer.stream()``: the bits of the whole sequence one step at a time, from a snapshot of the weights."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn, runtime


def sequence(T, N, I, dtype="float32"):  # noqa: E741
    return np.random.default_rng(1).standard_normal((T, N, I)).astype(dtype)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("N", "sizes"), [(1, (3, 24, 2)), (5, (9, 20, 1)), (2, (1, 1, 3)), (13, (17, 33, 2))])
def test_the_bits_of_the_whole_sequence(make_layer, dtype, N, sizes, bias):
    layer = make_layer(*sizes, bias=bias, dtype=dtype, rng=0).eval()
    x = sequence(7, N, sizes[0], dtype)
    y, state = layer(x)
    stream = layer.stream(N)
    for t in range(len(x)):
        assert stream(x[t]).tobytes() == y[t].tobytes(), t
    for ours, wanted in zip(parts(stream.state), parts(state), strict=True):
        assert ours.tobytes() == wanted.tobytes()


def test_a_state_can_be_kept_and_taken_up(make_layer):
    x = sequence(6, 2, 3)
    stream = make_layer(3, 10, 2, rng=0).stream(2)
    first = [stream(step).copy() for step in x[:3]]
    kept = stream.state
    rest = [stream(step) for step in x[3:]]
    stream.state = kept
    assert all((stream(step) == y).all() for step, y in zip(x[3:], rest, strict=True))
    stream.reset()
    assert all((stream(step) == y).all() for step, y in zip(x[:3], first, strict=True))


def test_it_is_a_snapshot(make_layer):
    layer = make_layer(3, 8, rng=0)
    x = sequence(1, 1, 3)[0]
    stream, again = layer.stream(), layer.stream()
    before = stream(x)
    for parameter in layer.parameters():
        parameter.data.fill(0)
    np.testing.assert_array_equal(again(x), before)
    assert not layer.stream()(x).any()


def test_outputs_are_arrays_of_their_own(make_layer):
    stream = make_layer(3, 8, rng=0).stream()
    x = sequence(2, 1, 3)
    first = stream(x[0])
    copy = first.copy()
    stream(x[1])
    np.testing.assert_array_equal(first, copy)


def test_a_single_row_may_come_without_its_axis(make_layer):
    layer = make_layer(3, 8, rng=0)
    x = sequence(1, 1, 3)[0]
    flat = layer.stream()(x[0])
    assert flat.shape == (8,)
    np.testing.assert_array_equal(flat, layer.stream()(x)[0])


def test_it_keeps_the_instruction_set_it_was_packed_for(make_layer):
    layer = make_layer(3, 20, rng=0)
    x = sequence(4, 2, 3)
    for name in runtime.available_isas():
        with runtime.use_isa(name):
            stream, expected = layer.stream(2), layer.eval()(x)[0]
        for other in runtime.available_isas():
            stream.reset()
            with runtime.use_isa(other):
                assert all((stream(step) == y).all() for step, y in zip(x, expected, strict=True)), (name, other)


def test_errors():
    layer = nn.LSTM(3, 8, rng=0)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        layer.stream(0)
    with pytest.raises(ValueError, match="expected a layer of one direction"):
        nn.GRU(3, 8, bidirectional=True).stream()
    stream = layer.stream(2)
    for x in (np.zeros((1, 3), np.float32), np.zeros(3, np.float32), np.zeros((2, 4), np.float32)):
        with pytest.raises(ValueError, match=r"x: expected shape \(2, 3\), got"):
            stream(x)
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        stream(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="x: expected a NumPy array, got list"):
        stream([[0, 0, 0]] * 2)
    with pytest.raises(ValueError, match="x: expected a C-contiguous array"):
        stream(np.zeros((3, 2), np.float32).T)
    with pytest.raises(TypeError, match=r"state: expected \(h, c\), got ndarray"):
        stream.state = np.zeros((1, 2, 8), np.float32)
    with pytest.raises(ValueError, match=r"h: expected shape \(1, 2, 8\), got"):
        stream.state = (np.zeros((2, 8), np.float32),) * 2
    with pytest.raises(ValueError, match=r"h: expected shape \(1, 2, 8\)"):
        nn.GRU(3, 8).stream(2).state = np.zeros((1, 1, 8), np.float32)


@pytest.mark.parametrize(("sizes", "options"), [(8, {}), ([8, 6], {}), (8, {"peephole": True})], ids=str)
def test_a_state_that_is_refused_changes_nothing(sizes, options):
    """Not even h where c alone is wrong; in each of the three ways to step a layer."""
    stream = nn.LSTM(3, sizes, rng=0, **options).stream(2)
    stream(sequence(1, 2, 3)[0])
    h, c = before = stream.state
    layers = isinstance(c, tuple)
    good = tuple(np.ones_like(part) for part in h) if layers else np.ones_like(h)
    for wrong in (lambda part: part[..., 1:], lambda part: part.astype("f8"), lambda part: part.tolist()):
        bad = (*c[:-1], wrong(c[-1])) if layers else wrong(c)
        with pytest.raises((TypeError, ValueError), match=r"c(\[1\])?: expected"):
            stream.state = (good, bad)
        for ours, expected in zip(stream.state, before, strict=True):
            assert all((one == other).all() for one, other in zip(ours, expected, strict=True))
