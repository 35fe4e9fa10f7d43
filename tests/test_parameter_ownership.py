"""Every optimizer that was given a parameter goes on moving it, whatever is flattened, clipped or copied later."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedrnn import nn, optim
from fusedrnn.nn.parameters import FlatParameters
from tests.parts import Net, X, Y

SHAPES = [(3,), (16,), (5, 7), (1,), (33,), (2, 3)]  # with and without a gap behind them, in both dtypes
OPTIMIZERS = [
    lambda p: optim.SGD(p, 0.1),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    lambda p: optim.Adagrad(p, 0.1, weight_decay=0.1),
    lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    lambda p: optim.GravesRMSprop(p, 0.01),
    lambda p: optim.Adam(p, 0.1, weight_decay=0.1),
    lambda p: optim.AdamW(p, 0.1),
]
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda given: pickle.loads(pickle.dumps(given))}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


def some(dtype="f4", seed=0):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in SHAPES]


def put(parameters, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    for p in parameters:
        p.grad[...] = scale * rng.standard_normal(p.data.shape)


def values(parameters):
    return [p.data.copy() for p in parameters]


def assert_same(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def learn(model, *optimizers):
    """One step of training by hand."""
    loss = nn.MSELoss()
    model.zero_grad()
    loss(model(X), Y)
    model.backward(loss.backward())
    for optimizer in optimizers:
        optimizer.step()


# any sequence of events against NumPy: numbers with few digits, so that no result depends on rounding


class World:
    """Parameters and optimizers, and beside each parameter what NumPy says that it should hold."""

    def __init__(self):
        self.parameters = [nn.Parameter(np.full(shape, k + 1.0)) for k, shape in enumerate(SHAPES[:4])]
        self.data = [np.full(shape, k + 1.0) for k, shape in enumerate(SHAPES[:4])]
        self.grad = [np.zeros(shape) for shape in SHAPES[:4]]
        self.optimizers = []  # (optimizer, {index: momentum})

    def chosen(self, keys):
        return list(dict.fromkeys(k % len(self.parameters) for k in keys))

    def happens(self, event, keys):
        chosen = self.chosen(keys)
        given = [self.parameters[k] for k in chosen]
        if event == "optimizer":
            self.optimizers.append((optim.SGD(given, 0.5, momentum=0.5), {k: 0.0 for k in chosen}))
        elif event == "gradients":
            for k, p in enumerate(self.parameters):
                g = np.random.default_rng([keys[0], k]).integers(-4, 5, p.data.shape).astype(float)
                p.grad += g
                self.grad[k] += g
        elif event in ("step", "zero") and self.optimizers:
            optimizer, momenta = self.optimizers[keys[0] % len(self.optimizers)]
            if event == "step":
                optimizer.step()
                for k in momenta:
                    momenta[k] = 0.5 * momenta[k] + self.grad[k]
                    self.data[k] = self.data[k] - 0.5 * momenta[k]
            else:
                optimizer.zero_grad()
                for k in momenta:
                    self.grad[k] = np.zeros_like(self.grad[k])
        elif event == "clip":
            optim.clip_grad_value_(given, 3.0)
            for k in chosen:
                self.grad[k] = np.clip(self.grad[k], -3, 3)
        elif event == "norm":
            wanted = math.sqrt(sum(float((self.grad[k] ** 2).sum()) for k in chosen))
            assert optim.clip_grad_norm_(iter(given), 1e9) == wanted
        elif event == "flatten":
            flat = FlatParameters(given)
            flat.data[...] *= 2
            flat.grad[...] *= 0.5
            assert_same(values(given), [2 * self.data[k] for k in chosen])
            for k in chosen:
                self.data[k], self.grad[k] = 2 * self.data[k], 0.5 * self.grad[k]
        elif event == "assign":
            for k in chosen:
                self.parameters[k].data = np.full(self.data[k].shape, 3.0)
                self.data[k] = np.full(self.data[k].shape, 3.0)
        elif event == "add":
            shape = SHAPES[keys[0] % len(SHAPES)]
            self.parameters.append(nn.Parameter(np.ones(shape)))
            self.data.append(np.ones(shape))
            self.grad.append(np.zeros(shape))
        else:
            return COPIES.get(event, lambda given: given)(self)
        return self

    def check(self):
        assert_same([p.data for p in self.parameters], self.data)
        assert_same([p.grad for p in self.parameters], self.grad)


EVENTS = ["optimizer", "gradients", "step", "zero", "clip", "norm", "flatten", "assign", "add", "deepcopy", "pickle"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(EVENTS), st.lists(st.integers(0, 7), min_size=1, max_size=6)), min_size=8, max_size=24
    )
)
def test_whatever_happens_every_optimizer_moves_its_parameters(events):
    world = World()
    for event, keys in [("optimizer", [0, 1]), *events, ("gradients", [0]), ("step", [0])]:
        before, left = world, [a.copy() for a in world.data]
        world = world.happens(event, keys)
        world.check()
        if world is not before:
            world.parameters[0].data += 1  # the original does not feel it
            world.data[0] = world.data[0] + 1
            assert_same(values(before.parameters), left)


# several optimizers have the bits of one


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(
    "parts",
    [
        [[0, 1, 2], [3, 4, 5]],  # neighbours
        [[0, 2, 4], [1, 3, 5]],  # every second
        [[5, 4, 3, 2, 1, 0]],  # another order
        [[4, 0], [5, 2, 3], [1]],
    ],
)
def test_optimizers_of_parts_have_the_bits_of_one(make, parts, dtype):
    for whole in ("never", "before", "between", "after"):
        assert_parts_are_one(make, parts, whole, dtype)


def assert_parts_are_one(make, parts, whole, dtype):
    one, ours = some(dtype), some(dtype)
    reference = make(one)
    if whole == "before":
        FlatParameters(ours)
    optimizers = [make([ours[k] for k in parts[0]])]
    if whole == "between":
        FlatParameters(ours)
    optimizers += [make([ours[k] for k in part]) for part in parts[1:]]
    for step in range(4):
        if whole == "after" and step == 2:
            FlatParameters(ours).data  # noqa: B018 - all into one buffer, in the order of the whole
        for parameters in (one, ours):
            put(parameters, step)
        reference.step()
        for optimizer in optimizers:
            optimizer.step()
        assert_same(values(ours), values(one))


def test_two_optimizers_share_an_encoder():
    """As two tasks that are trained in turns: the encoder learns from both, with the moments of either its own."""

    def moved(apart):
        encoder, *heads = some(seed=1)[:3]
        sets = [[encoder, head] for head in heads]
        optimizers = [[optim.Adam([p], 0.1) for p in s] if apart else [optim.Adam(s, 0.1)] for s in sets]
        for step in range(6):
            put([encoder, *heads], step)
            for optimizer in optimizers[step % 2]:
                optimizer.step()
        return values([encoder, *heads])

    # one optimizer a parameter, of which only the encoder's arrays ever move between buffers
    assert_same(moved(apart=False), moved(apart=True))


def test_the_usual_optimizer_is_one_pass_wherever_its_part_lies():
    model = Net()
    head, first = optim.Adam(model.head), optim.Adam(model.rnn)
    whole = optim.Adam(model)
    rnn = optim.Adam(list(model.rnn.parameters()))
    for optimizer in (head, first, whole, rnn):
        assert len(optimizer.params.runs()) == 1
    assert np.shares_memory(head.params.data, whole.params.data)
    assert np.shares_memory(rnn.params.grad, whole.params.grad)
    assert len(optim.Adam([*model.head.parameters(), model.rnn.weight_ih_l0]).params.runs()) == 2


def test_a_model_trains_in_parts_as_it_does_whole():
    one, other = Net(), Net()
    reference = optim.Adam(one, 0.05)
    parts = [optim.Adam(other.rnn, 0.05), optim.Adam(other.head.parameters(), 0.05)]
    for _ in range(5):
        learn(one, reference)
        learn(other, *parts)
        assert_same(values(other.parameters()), values(one.parameters()))


def test_what_is_added_later_gets_an_optimizer_of_its_own():
    model = Net()
    first = optim.Adam(model, 0.1)
    learn(model, first)
    model.extra = nn.Linear(2, 2, rng=0)
    second = optim.Adam(model.extra, 0.1)
    whole = optim.SGD(model, 0.1)
    for optimizer, moves in ((first, 6), (second, 2), (whole, 8)):
        before = values(model.parameters())
        put(model.parameters(), 1)
        optimizer.step()
        after = values(model.parameters())
        assert sum(np.any(a != b) for a, b in zip(before, after, strict=True)) == moves


def test_a_tied_parameter_moves_once_with_either_of_its_owners():
    model = nn.Sequential(nn.Embedding(4, 3, rng=0), nn.Linear(3, 4, rng=0))
    getattr(model, "1").weight = table = getattr(model, "0").weight
    optimizers = [optim.SGD(getattr(model, name), 1.0) for name in "01"] + [optim.SGD(model, 1.0)]
    for optimizer in optimizers:
        before = table.data.copy()
        table.grad[...] = 1
        optimizer.step()
        np.testing.assert_array_equal(table.data, before - 1)


def test_zero_grad_clears_only_its_part():
    parameters = some()
    optimizers = [optim.SGD(parameters[:3], 0.1), optim.SGD(parameters[2:], 0.1), optim.SGD(parameters[::2], 0.1)]
    for optimizer, cleared in zip(optimizers, ({0, 1, 2}, {2, 3, 4, 5}, {0, 2, 4}), strict=True):
        put(parameters, 0)
        optimizer.zero_grad()
        assert {k for k, p in enumerate(parameters) if not p.grad.any()} == cleared


# clipping


PLACES = {"alone": [], "whole": [[0, 1, 2, 3, 4, 5]], "reversed": [[5, 4, 3, 2, 1, 0]], "parts": [[4, 0], [1, 2, 5]]}


@pytest.mark.parametrize("part", [[0, 1, 2], [5, 0, 3], [4], [0, 1, 2, 3, 4, 5]])
def test_a_norm_is_that_of_the_set_asked_for_with_the_same_bits_wherever_it_lies(part, dtype):
    found = []
    for places in PLACES.values():
        parameters = some(dtype)
        for place in places:
            optim.SGD([parameters[k] for k in place], 0.1)
        put(parameters, 0)
        held, before = [(p.data, p.grad) for p in parameters], [p.grad.copy() for p in parameters]
        norm = optim.clip_grad_norm_([parameters[k] for k in part], 0.5)
        assert norm == pytest.approx(math.sqrt(sum(float((before[k].astype("f8") ** 2).sum()) for k in part)), rel=1e-6)
        for k, p in enumerate(parameters):
            if k not in part:
                np.testing.assert_array_equal(p.grad, before[k])
        # in place: whoever looks at a gradient sees it clipped
        assert all(p.data is data and p.grad is grad for p, (data, grad) in zip(parameters, held, strict=True))
        clipped = optim.clip_grad_norm_((parameters[k] for k in part), 1e9)
        assert clipped == pytest.approx(0.5, rel=1e-5)
        found.append((norm, clipped, *(p.grad.tobytes() for p in parameters)))
    assert len(set(found)) == 1


def test_clipping_a_part_leaves_the_optimizer_of_the_whole_alive():
    model = Net()
    optimizer = optim.Adam(model, 0.1)
    put(model.parameters(), 0, scale=10.0)
    others = [p.grad.copy() for p in model.rnn.parameters()]
    optim.clip_grad_value_(model.head, 0.5)
    optim.clip_grad_norm_(model.head.weight, 0.25)
    assert all(np.abs(p.grad).max() <= 0.5 for p in model.head.parameters())
    assert_same([p.grad for p in model.rnn.parameters()], others)
    before = values(model.parameters())
    optimizer.step()
    assert all(np.any(a != b) for a, b in zip(values(model.parameters()), before, strict=True))


# copies


HOLDERS = {  # how a model and its optimizer are held together, and how they are taken out again
    "tuple": (lambda m, o: (m, o), lambda held: held),
    "optimizer first": (lambda m, o: [o, m], lambda held: held[::-1]),
    "dict": (lambda m, o: {"m": m, "o": o}, lambda held: (held["m"], held["o"])),
    "object": (lambda m, o: SimpleNamespace(net=SimpleNamespace(m=m), o=o), lambda held: (held.net.m, held.o)),
}


@every_copy
@pytest.mark.parametrize(("hold", "take"), HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize("trained", [0, 2])
@pytest.mark.parametrize("part", [lambda m: m, lambda m: m.head, lambda m: [m.head.bias, *m.rnn.parameters()]])
def test_a_copied_optimizer_moves_the_copied_model(duplicate, hold, take, trained, part):
    model = Net()
    optimizer = optim.Adam(part(model), 0.1)
    for _ in range(trained):
        learn(model, optimizer)
    other, second = take(duplicate(hold(model, optimizer)))
    before = values(model.parameters())
    for _ in range(2):
        learn(other, second)
    assert_same(values(model.parameters()), before)
    for _ in range(2):
        learn(model, optimizer)
    assert_same(values(other.parameters()), values(model.parameters()))
    assert set(second.params.parameters) <= set(other.parameters())
    assert len(second.params.runs()) == 1  # as fast as the original
    assert any(np.any(a != b) for a, b in zip(values(model.parameters()), before, strict=True))


@every_copy
def test_copies_of_two_optimizers_share_as_the_originals_do(duplicate):
    encoder, *heads = some()[:3]
    optimizers = [optim.Adam([encoder, head], 0.1) for head in heads]
    copied, seconds = duplicate(([encoder, *heads], optimizers))
    for step, k in enumerate([0, 1, 1, 0]):
        for parameters, pair in (([encoder, *heads], optimizers), (copied, seconds)):
            put(parameters, step)
            pair[k].step()
    assert_same(values(copied), values([encoder, *heads]))


@every_copy
def test_an_optimizer_alone_brings_its_parameters_along(duplicate):
    model = Net()
    optimizer = optim.Adam(model, 0.1)
    before = values(model.parameters())
    other = duplicate(optimizer)
    put(other.params.parameters, 0)
    other.step()
    assert_same(values(model.parameters()), before)
    put(model.parameters(), 0)
    optimizer.step()
    assert_same(values(other.params.parameters), values(model.parameters()))


def test_shallow_copies_share_parameters():
    model = Net()
    optimizer = optim.SGD(model, 0.5)
    for m, o in ((copy.copy(model), optimizer), (model, copy.copy(optimizer))):
        before = values(model.parameters())
        put(m.parameters(), 0)
        o.step()
        assert all(np.any(a != b) for a, b in zip(values(m.parameters()), before, strict=True))
        assert_same(values(m.parameters()), values(model.parameters()))


def test_frozen_copies_leave_the_original_and_its_optimizer_alone():
    model = Net()
    optimizer = optim.Adam(model, 0.1)
    learn(model, optimizer)
    frozen, stream = model.rnn.freeze(), model.rnn.stream(8)
    wanted = model.rnn(X)[0]
    model.forget()
    other, second = copy.deepcopy((model, optimizer))
    copied = other.rnn.freeze()
    for m, o in ((model, optimizer), (other, second)):
        before = values(m.parameters())
        learn(m, o)
        assert all(np.any(a != b) for a, b in zip(values(m.parameters()), before, strict=True))
    assert_same([frozen(X)[0], copied(X)[0], np.stack([stream(x) for x in X])], [wanted] * 3)
