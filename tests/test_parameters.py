"""Parameters: arrays that are assigned to them, gaps between them, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.nn.parameters import FlatParameters


class Net(nn.Module):
    """Recurrent layers and a head."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, rng=0), nn.Linear(5, 2, rng=0)


def put(parameters, seed):
    rng = np.random.default_rng(seed)
    for p in parameters:
        p.grad[...] = rng.standard_normal(p.data.shape)


def values(parameters):
    return [p.data.copy() for p in parameters]


def assert_same(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_optimizers_move_an_array_that_was_assigned():
    model = Net()
    optimizer, whole = optim.SGD(model.head, 1.0), optim.SGD(model, 1.0)
    bias = optim.SGD(model.head.bias, 1.0)
    model.head.bias.data = np.full(2, 3, "f4")
    assert bias.params.data.tolist() == [3, 3] + [0] * 14
    weight, given, gradient = model.head.weight, np.ones((2, 5), "f4"), np.full((2, 5), 2, "f4")
    weight.data, weight.grad = given, gradient
    optimizer.step()
    whole.step()
    assert weight.data is given
    np.testing.assert_array_equal(given, -3)
    assert optim.clip_grad_norm_(model.head, 1e9) == math.sqrt(40)
    optimizer.zero_grad()
    assert not gradient.any()
    optim.Adam(model)
    assert not np.shares_memory(weight.data, given)
    np.testing.assert_array_equal(weight.data, -3)


def test_averages_are_put_in_place_of_parameters_and_taken_out_again():
    """As exponential averages are evaluated: what is held meanwhile keeps its values, and training goes on from it."""
    model, other = Net(), Net()
    optimizers = optim.Adam(model, 0.1), optim.Adam(other, 0.1)
    averages = values(model.parameters())
    for step in range(3):
        for m, optimizer in zip((model, other), optimizers, strict=True):
            put(m.parameters(), step)
            optimizer.step()
        averages = [a / 2 + p.data / 2 for a, p in zip(averages, model.parameters(), strict=True)]
        held = [p.data for p in model.parameters()]
        for p, average in zip(model.parameters(), averages, strict=True):
            p.data = average
        assert_same(values(model.parameters()), averages)
        for p, data in zip(model.parameters(), held, strict=True):
            p.data = data
        assert_same(values(model.parameters()), values(other.parameters()))
    assert len(optimizers[0].params.runs()) == 1
    a, b = model.rnn.bias_ih_l0, model.rnn.bias_hh_l0
    wanted = values([b, a])
    a.data, b.data = b.data, a.data
    assert_same(values([a, b]), wanted)
    put(model.parameters(), 0)
    before = values(model.parameters())
    optimizers[0].step()
    assert all(np.any(x != y) for x, y in zip(values(model.parameters()), before, strict=True))


@pytest.mark.parametrize("new", [np.ones((3, 5), "f4"), np.ones((5, 2), "f4"), np.ones((2, 5), "f8")])
def test_another_shape_or_dtype_stops_the_optimizers_before_it(new):
    model = nn.Linear(5, 2, rng=0)
    optimizer, whole = optim.SGD(model.weight, 1.0, momentum=0.5), optim.Adam(model)
    model.weight.data = new
    assert model.weight.grad.shape == new.shape
    assert model.weight.grad.dtype == new.dtype
    for refused in (optimizer.step, whole.step, whole.zero_grad, lambda: optim.clip_grad_norm_(whole.params, 1.0)):
        with pytest.raises(ValueError, match=r"one had shape \(2, 5\) and dtype float32 .* make a new optimizer"):
            refused()
    assert optimizer.steps == whole.steps == 0
    again = optim.SGD(model if new.dtype == np.float32 else model.weight, 1.0)
    model.weight.grad[...] = 2
    again.step()
    np.testing.assert_array_equal(model.weight.data, new - 2)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("grad", np.zeros(3, "f4"), ValueError, r"grad: expected shape \(2, 5\) and dtype float32 as data has, got"),
        ("grad", np.zeros((2, 5)), ValueError, "grad: expected shape .* and float64"),
        ("grad", None, TypeError, "grad: expected an array .* got NoneType"),
        ("data", [1.0], TypeError, "data: expected an array .* got list"),
        ("data", np.zeros((2, 5), int), TypeError, "data: expected dtype float32 or float64, got int64"),
    ],
)
def test_what_no_parameter_can_hold_is_refused(name, value, error, message):
    model = nn.Linear(5, 2, rng=0)
    for _ in range(2):
        with pytest.raises(error, match=message):
            setattr(model.weight, name, value)
        optim.SGD(model, 1.0)


def test_gaps_stay_zero_and_data_is_one_array():
    rng = np.random.default_rng(0)
    shapes = [(3,), (16,), (5, 7), (1,), (33,), (2, 3)]  # with and without a gap behind them
    parameters = [nn.Parameter(rng.standard_normal(shape).astype("f4")) for shape in shapes]
    parts = [optim.AdamW([parameters[k] for k in part], 0.1) for part in ([1, 3], [0, 2, 4], [5])]
    whole, held = FlatParameters(parameters), FlatParameters(parameters[::-1])
    used, first = np.zeros(whole.size, bool), whole.data.ctypes.data
    for p in parameters:
        start = (p.data.ctypes.data - first) // 4
        assert start % 16 == 0
        used[start : start + p.data.size] = True
    for step in range(3):
        put(parameters, step)
        for flat in (whole, held)[step % 2 :]:
            optim.clip_grad_norm_(flat, 0.1)
        for optimizer in parts:
            optimizer.step()
        assert not whole.data[~used].any()
        assert not whole.grad[~used].any()
        assert whole.data[used].all()
        held.data[...] += 0.0  # the other order: they move
        assert held.data.size == whole.size


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda m: [m.head], TypeError, "params: expected a Module or FlatParameters, got list holding Linear"),
        (lambda m: m.named_parameters(), TypeError, "got generator holding tuple: a list must hold Parameters"),
        (lambda m: 3, TypeError, "params: expected a Module or FlatParameters, got int$"),
        (lambda m: [], ValueError, "expected at least one, got none"),
        (lambda m: [m.head.bias, m.head.weight, m.head.bias], ValueError, "expected each once, got Parameter.* twice"),
        (lambda m: [m.head.bias, nn.Parameter(m.head.bias.data)], ValueError, "got two that share one"),
        (lambda m: [m.head.bias, nn.Parameter(np.ones(2))], TypeError, "one dtype for all, got float32 and float64"),
        (lambda m: m.rnn.freeze()._layer, ValueError, "of a frozen copy"),
    ],
)
def test_what_no_optimizer_can_move_is_refused(params, error, message):
    model = Net()
    with pytest.raises(error, match=message):
        optim.Adam(params(model))
