"""Calls of training mode whose backward never comes pile up, and a module says so; those of a decoder are none."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fusedrnn import nn
from fusedrnn.nn.module import MOST_SEQUENCES, MOST_STEPS

X, STEP = np.ones((3, 2, 4), np.float32), np.ones((1, 2, 4), np.float32)


def piles_up(kind):
    """The warning of a module of this class."""
    return pytest.warns(
        RuntimeWarning, match=rf"^{kind}: more than [\d,]+ .* kept for a backward that has not come; call"
    )


@pytest.mark.parametrize("x", [X, STEP], ids=["sequences", "steps without a state"])
def test_sequences_without_backward_are_said_once(make_layer, x):
    layer = make_layer(4, 5, rng=0)
    for _ in range(MOST_SEQUENCES):
        layer(x)  # a warning would be an error here
    with piles_up(type(layer).__name__) as said:
        for _ in range(50):
            layer(x)
    assert len(said) == 1


def test_a_state_that_is_carried_on_makes_no_step_of_a_sequence():
    layer, state = nn.GRU(4, 5, rng=0), None
    with piles_up("GRU"):
        for _ in range(MOST_SEQUENCES + 1):
            _, state = layer(X, state)


def test_a_network_says_it_of_its_recurrent_layer():
    model = nn.Sequential(nn.LSTM(4, 5, rng=0), nn.Linear(5, 2, rng=0))
    with piles_up("LSTM"):
        for _ in range(MOST_SEQUENCES + 1):
            model(X)


@pytest.mark.parametrize(
    "call",
    [
        lambda layer: layer.backward(np.ones((3, 2, 5), np.float32)),
        lambda layer: layer.forget(),
        lambda layer: layer.eval(),
    ],
    ids=["backward", "forget", "eval"],
)
def test_nothing_is_said_where_the_way_out_is_taken(call):
    layer = nn.LSTM(4, 5, rng=0)
    for _ in range(MOST_SEQUENCES + 10):
        layer(X)
        call(layer)
    assert len(layer._saved) == len(layer._sequences) < 2


def test_a_decoder_takes_thousands_of_steps():
    layer, head, state = nn.GRU(4, 2, rng=0), nn.Linear(2, 4, rng=0), None
    x, steps = STEP, 3 * MOST_SEQUENCES
    for _ in range(2):  # two sentences, each from a fresh state
        state = None
        for _ in range(steps):
            y, state = layer(x, state)
            x = head(y)
    for _ in range(2):
        dstate = None
        for _ in range(steps):
            _, dstate = layer.backward(head.backward(STEP), dstate)
    assert len(layer._saved) == len(layer._sequences) == 0


def test_steps_without_end_are_said_too():
    linear, x = nn.Linear(4, 1, rng=0), np.ones((1, 4), np.float32)
    for _ in range(MOST_STEPS):
        linear(x)
    with piles_up("Linear"):
        linear(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_none_of_the_calls(copied):
    layer = nn.GRU(4, 5, rng=0)
    layer(X)
    other = copied(layer)
    for _ in range(MOST_SEQUENCES):
        other(X)
    other.forget()
    layer.backward(np.ones((3, 2, 5), np.float32))
