"""Modules: names, flat buffers, state dictionaries, random state, copies."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.nn.module import Rows


class Tagger(nn.Module):
    """A network of a user: an embedding whose table is also the output layer's weight."""

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.embedding = nn.Embedding(7, 5, rng=rng)
        self.blocks = [nn.GRU(5, 5, rng=rng), nn.GRU(5, 5, rng=rng)]
        self.dropout = nn.Dropout(0.5, rng=rng)
        self.head = nn.Linear(5, 7, rng=rng)
        self.head.weight = self.embedding.weight

    def forward(self, indices):
        x = self.embedding(indices)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.dropout(x))

    def backward(self, dy):
        dy = self.dropout.backward(self.head.backward(dy))
        for block in reversed(self.blocks):
            dy, _ = block.backward(dy)
        self.embedding.backward(dy)


INDICES = np.array([[1, 2], [3, 6], [0, 0]])


def test_names_are_dotted_and_in_order():
    names = [name for name, _ in Tagger().named_parameters()]
    gru = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert names == [
        "embedding.weight",
        *(f"blocks.{k}.{name}" for k in (0, 1) for name in gru),
        "head.bias",
    ]
    assert set(Tagger().state_dict()) == {*names, "head.weight"}
    assert [name for name, _ in nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)).named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
    ]


def test_flat_buffers_are_aligned_shared_and_padded_with_zeros():
    model = Tagger()
    before = model.state_dict()
    flat = model.flatten()
    assert flat.data.ctypes.data % 64 == 0
    assert flat.grad.ctypes.data % 64 == 0
    used = np.zeros(flat.data.shape, bool)
    for p in model.parameters():
        offset = (p.data.ctypes.data - flat.data.ctypes.data) // 4
        assert p.data.ctypes.data % 64 == 0
        assert p.grad.ctypes.data - flat.grad.ctypes.data == 4 * offset
        assert not used[offset : offset + p.data.size].any()
        used[offset : offset + p.data.size] = True
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    model.backward(np.ones_like(model(INDICES)))
    assert flat.grad[used].any()
    for make in (optim.Adam, optim.Adagrad, optim.RMSprop, optim.GravesRMSprop, optim.AdamW):
        make(model).step()
    assert not flat.data[~used].any()
    assert not flat.grad[~used].any()
    assert np.any(flat.data[used] != 0)


def test_flatten_again_is_the_same_buffer_until_something_is_added():
    model = Tagger()
    flat = model.flatten()
    assert model.flatten() is flat
    model.extra = nn.Linear(2, 2)
    bigger = model.flatten()
    assert bigger is not flat
    assert bigger.data.size > flat.data.size
    assert np.may_share_memory(model.head.bias.data, bigger.data)


def test_zero_grad_clears_with_and_without_a_flat_buffer():
    model = Tagger()
    for _ in range(2):
        model.backward(np.ones_like(model(INDICES)))
        assert all(p.grad.any() for p in model.parameters())
        model.zero_grad()
        assert not any(p.grad.any() for p in model.parameters())
        model.flatten()


def test_a_tied_parameter_gets_the_gradients_of_both_its_uses(finite_differences):
    model = Tagger()
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, nn.Parameter):
                setattr(module, name, nn.Parameter(value.data.astype("f8")))
            elif name == "dtype":
                module.dtype = np.dtype("f8")
            elif name == "states":
                module.states = dataclasses.replace(value, dtype=np.dtype("f8"))
    model.head.weight = model.embedding.weight
    model.dropout.p = 0.0
    y = model(INDICES)
    dy = np.random.default_rng(0).standard_normal(y.shape)
    model.backward(dy)
    table = model.embedding.weight
    arguments = {"weight": table.data.copy()}

    def forward(values):
        table.data[...] = values["weight"]
        return (model(INDICES),)

    numeric = finite_differences(forward, arguments, (dy,))["weight"]
    np.testing.assert_allclose(table.grad, numeric, rtol=1e-6, atol=1e-8)


def test_parameters_of_two_dtypes_are_refused():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, dtype="float64"))
    with pytest.raises(TypeError, match="expected one dtype for all, got float32 and float64"):
        model.flatten()
    with pytest.raises(ValueError, match="expected at least one"):
        nn.Dropout().flatten()


def test_state_goes_from_one_model_to_another():
    a, b = Tagger(0), Tagger(1)
    b.flatten()
    b.load_state_dict(a.state_dict())
    np.testing.assert_array_equal(a.eval()(INDICES), b.eval()(INDICES))
    taken = a.state_dict()
    taken["head.bias"][...] = 9
    assert not np.any(a.head.bias.data == 9)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("head.bias"), KeyError, r"missing \['head.bias'\]"),
        (lambda s: s.update(more=s["head.bias"]), KeyError, r"unexpected \['more'\]"),
        (
            lambda s: s.update({"head.bias": np.ones(3, "f4")}),
            ValueError,
            r"head.bias: expected shape \(7,\), got \(3,\)",
        ),
        (lambda s: s.update({"head.bias": np.ones(7)}), TypeError, "head.bias: expected dtype float32, got float64"),
    ],
)
def test_a_foreign_state_is_refused_and_nothing_changes(change, error, message):
    model = Tagger(0)
    before, state = model.state_dict(), Tagger(1).state_dict()
    change(state)
    with pytest.raises(error, match=message):
        model.load_state_dict(state)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_random_state_goes_through_json():
    model = Tagger()
    state = json.loads(json.dumps(model.rng_state()))
    first = model(INDICES)
    assert np.any(model(INDICES) != first)
    model.set_rng_state(state)
    np.testing.assert_array_equal(model(INDICES), first)
    with pytest.raises(KeyError, match="expected generators"):
        model.set_rng_state({})


def test_every_generator_gets_its_own_state_back():
    model = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=1))
    state, x = model.rng_state(), np.ones((4, 20), "f4")
    masks = [getattr(model, name)(x) for name in "01"]
    assert np.any(masks[0] != masks[1])
    model.set_rng_state(state)
    for name, mask in zip("01", masks, strict=True):
        np.testing.assert_array_equal(getattr(model, name)(x), mask)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_is_a_model_of_its_own(duplicate):
    model = Tagger()
    optim.Adam(model)
    model(INDICES)
    other = duplicate(model).eval()
    np.testing.assert_array_equal(other(INDICES), model.eval()(INDICES))
    assert other.head.weight is other.embedding.weight
    before = model.state_dict()
    other.flatten().data.fill(0)
    assert not other.head.bias.data.any()
    np.testing.assert_array_equal(model.state_dict()["head.bias"], before["head.bias"])
    with pytest.raises(RuntimeError, match="no call is left"):
        other.head.backward(np.ones((3, 2, 7), "f4"))


def test_modes_reach_every_module():
    model = Tagger()
    assert all(not m.training for m in model.eval().modules())
    assert all(m.training for m in model.train().modules())


def test_a_sequence_of_modules_goes_back_in_reverse(finite_differences):
    model = nn.Sequential(nn.Linear(3, 4, dtype="f8", rng=0), nn.Dropout(0.0), nn.Linear(4, 2, dtype="f8", rng=1))
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    model(x)
    dx = model.backward(dy)
    model.eval()
    numeric = finite_differences(lambda v: (model(v["x"]),), {"x": x}, (dy,))["x"]
    np.testing.assert_allclose(dx, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_step_behind_recurrent_layers(finite_differences, batch_first):
    options = {"batch_first": batch_first, "dtype": "f8"}
    model = nn.Sequential(
        nn.LSTM(3, 4, **options, rng=0), nn.GRU(4, 2, **options, rng=1), nn.LastStep(batch_first=batch_first)
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 3))
    y, _ = model(x)
    dy = rng.standard_normal(y.shape)
    assert y.shape == (3 if batch_first else 5, 2)
    dx = model.backward(dy)
    model.eval()
    numeric = finite_differences(lambda v: model(v["x"])[:1], {"x": x}, (dy,))["x"]
    np.testing.assert_allclose(dx, numeric, rtol=1e-6, atol=1e-9)


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        nn.Module()(1)
    with pytest.raises(NotImplementedError, match="Module defines no backward"):
        nn.Module().backward(1)


def test_a_copy_is_of_no_joint_batch_and_names_stay_free():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = 3, nn.Linear(2, 2)

    module = Counting()
    module.set_rows(Rows(2, 4, 6, 1))
    assert copy.deepcopy(module)._rows is None
    assert copy.deepcopy(module.head)._rows is None
    assert module.rows == 3
    assert module.head._rows.share == pytest.approx(1 / 3)
    module.set_rows(None)
    assert module.head._rows is None


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize(("axis", "dimensions"), [(1, (4, 6, 3)), (1, (6, 3)), (0, (6, 4, 3)), (0, (6, 3))])
def test_dropout_draws_the_masks_of_the_joint_batch(axis, dimensions, time_major):
    """Of time-major networks rows are the last axis but one, before and after the last step was taken; of others the
    first, but for what lies within a stack of layers."""
    at = len(dimensions) - 2 if time_major or axis else 0

    def mask(rows, shape):
        layer = nn.Dropout(0.5, rng=0)
        layer.time_major = time_major
        layer.set_rows(rows)
        return layer(np.ones(shape, "f4"))

    joint = mask(None, dimensions)
    start, stop = 1, dimensions[at] - 1
    part = tuple(stop - start if k == at else n for k, n in enumerate(dimensions))
    ours = mask(Rows(start, stop, dimensions[at], axis), part)
    np.testing.assert_array_equal(ours, joint[(slice(None),) * at + (slice(start, stop),)])
    with pytest.raises(ValueError, match=rf"Dropout: expected {stop} rows on axis {at} of x, of a joint batch, got"):
        mask(Rows(0, stop, dimensions[at], axis), part)
