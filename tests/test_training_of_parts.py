"""A Trainer whose optimizer has a part of the model: what it moves, saves and refuses."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import Trainer
from fusedrnn.train.checkpoint import CheckpointError
from fusedrnn.train.distributed import MpiWorld
from tests.parts import Net, X, Y


def batches(epoch):
    return [(X[:, rows], Y[rows]) for rows in np.split(np.random.default_rng(epoch).permutation(8), 4)]


def trainer_of(model, optimizer, **options):
    return Trainer(model, nn.MSELoss(), optimizer, **{"batches": batches, "epochs": 3, "progress": False, **options})


def values(parameters):
    return [p.data.copy() for p in parameters]


def assert_same(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def by_hand(model, optimizer, epochs, **limits):
    for epoch in range(epochs):
        for x, y in batches(epoch):
            loss = nn.MSELoss()
            model.zero_grad()
            loss(model(x), y)
            model.backward(loss.backward())
            for clip, limit in limits.items():
                getattr(optim, clip)(optimizer.params, limit)
            optimizer.step()
    return values(model.parameters())


@pytest.mark.parametrize("part", [lambda m: m.head, lambda m: m.rnn, lambda m: [m.head.weight, m.rnn.weight_hh_l0]])
def test_a_trainer_moves_the_part_that_its_optimizer_has(part):
    model, other = Net(), Net()
    trainer = trainer_of(model, optim.Adam(part(model), 0.05), clip_norm=0.01, clip_value=0.1)
    history = trainer.fit()
    wanted = by_hand(other, optim.Adam(part(other), 0.05), 3, clip_grad_value_=0.1, clip_grad_norm_=0.01)
    assert_same(values(model.parameters()), wanted)
    assert_same([p.grad for p in model.parameters()], [p.grad for p in other.parameters()])
    assert history[-1]["loss"] < history[0]["loss"]
    moved = set(trainer.optimizer.params.parameters)
    for p, before in zip(model.parameters(), values(Net().parameters()), strict=True):
        assert np.any(p.data != before) == (p in moved)


def test_trainers_of_parts_take_turns():
    model, other = Net(), Net()
    trainers = [trainer_of(model, optim.Adam(part, 0.05), epochs=2) for part in (model.head, model.rnn)]
    optimizers = [optim.Adam(part, 0.05) for part in (other.head, other.rnn)]
    for trainer, optimizer in zip(trainers, optimizers, strict=True):
        trainer.fit()
        by_hand(other, optimizer, 2)
        assert_same(values(model.parameters()), values(other.parameters()))


def test_a_run_of_a_part_resumes_with_the_same_bits(tmp_path):
    def run(name, seed=0, part=lambda m: [m.head.bias, *m.rnn.parameters()], **options):
        model = Net(seed)
        return trainer_of(model, optim.Adam(part(model), 0.05), out=tmp_path / name, clip_norm=0.1, **options)

    whole = run("whole")
    whole.fit()
    run("parts", steps=5).fit()
    second = run("parts", seed=7).resume()
    second.fit()
    assert_same(values(second.model.parameters()), values(whole.model.parameters()))
    for part in (lambda m: m, lambda m: [*m.rnn.parameters(), m.head.bias]):  # the second has as many elements
        with pytest.raises(CheckpointError, match=r"trained: expected .* got \['head.bias', 'rnn.weight_ih_l0'"):
            run("parts", part=part).resume()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["copy", "pickle"])
@pytest.mark.parametrize("epochs", [0, 2])
def test_a_copied_trainer_trains_the_copied_model(duplicate, epochs):
    model = Net()
    trainer = trainer_of(model, optim.Adam(model, 0.05), epochs=4, steps=4 * epochs or None, monitor="loss")
    if epochs:
        trainer.fit()
    before = values(model.parameters())
    other = duplicate(trainer)
    for t in (other, trainer):
        t.steps = None
    other.fit()
    assert_same(values(model.parameters()), before)
    trainer.fit()
    assert_same(values(other.model.parameters()), values(model.parameters()))
    other.model.head.bias.data.fill(9)
    other.restore_best()
    assert not np.any(other.model.head.bias.data == 9)


def test_a_trainer_refuses_an_optimizer_of_other_parameters():
    model = Net()
    foreign = optim.Adam(Net(1))
    before = values(model.parameters())
    for optimizer in (foreign, optim.Adam([*model.parameters(), nn.Parameter(np.ones(2, "f4"))])):
        with pytest.raises(ValueError, match="optimizer: expected one of the model's parameters, got one that moves"):
            trainer_of(model, optimizer)
    optimizer = optim.Adam(model)
    trainer = trainer_of(model, optimizer)
    model.head = nn.Linear(5, 2, rng=3)  # the optimizer has the old one
    for refused in (trainer.fit, lambda: trainer_of(model, optimizer)):
        with pytest.raises(ValueError, match="got one that moves 2 others"):
            refused()
    assert_same(values(model.rnn.parameters()), before[:4])


def test_a_trainer_goes_on_after_a_layer_was_added():
    model = Net()
    trainer = trainer_of(model, optim.Adam(model, 0.05))
    model.extra = nn.Linear(2, 2, rng=0)
    extra = values(model.extra.parameters())
    trainer.fit()
    other = Net()
    wanted = by_hand(other, optim.Adam(other, 0.05), 3)
    assert_same(values(model.parameters())[:6], wanted)
    assert_same(values(model.extra.parameters()), extra)


def test_processes_share_the_gradients_of_the_part():
    def twice(send, array):
        array *= 2  # as if the other process had the same

    comm = SimpleNamespace(Get_rank=lambda: 0, Get_size=lambda: 2, Dup=lambda: None, Allreduce=twice)
    model = Net()
    whole, part = optim.SGD(model, 1.0), optim.SGD([model.head.bias, *model.rnn.parameters()], 1.0)
    for p in model.parameters():
        p.grad[...] = 1
    for optimizer, wanted, left in ((part, 1.5, 1.0), (whole, 2.25, 1.5)):
        assert MpiWorld(comm).sum(4.0, optimizer.params, 0.75) == 6
        assert all((p.grad == wanted).all() for p in part.params.parameters)
        assert (model.head.weight.grad == left).all()
    before = values(part.params.parameters)
    part.step()
    assert_same(values(part.params.parameters), [a - np.float32(2.25) for a in before])
