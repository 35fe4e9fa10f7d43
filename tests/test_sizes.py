"""Sizes that make no sense are refused at once, by name, wherever they are given; NumPy's integers are integers."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn, sizes
from fusedrnn.estimators.many_to_one import SequenceClassifier
from fusedrnn.tasks.models import LanguageModel, OneHot
from fusedrnn.train.tbptt import Windows

LAYERS = (nn.RNN, nn.LSTM, nn.GRU, nn.IndRNN, nn.MinGRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
NO_INTEGERS = ("4", 4.0, True, np.True_, None, 4j, np.float32(4), np.array([4, 4]))


@pytest.mark.parametrize("make", [*LAYERS, *CELLS], ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
def test_what_is_no_integer_is_named(make, wrong):
    for name, arguments in (("input_size", (wrong, 8)), ("hidden_size", (4, wrong))):
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer, got "):
            make(*arguments)


@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
def test_so_it_is_of_all_other_sizes(wrong):
    sequence = np.zeros((4, 1, 1))
    for name, call in {
        "num_layers": lambda: nn.LSTM(4, 8, wrong),
        "proj_size": lambda: nn.LSTM(4, 8, proj_size=wrong),
        "in_features": lambda: nn.Linear(wrong, 8),
        "out_features": lambda: nn.Linear(8, wrong),
        "output_size": lambda: nn.GRUCell(4, 8, output_size="8" if wrong is None else wrong),
        "outputs": lambda: nn.ManyToOne(nn.GRU(4, 8), wrong),
        "tokens": lambda: LanguageModel(OneHot(4), nn.GRU(5, 8), wrong),
        "num_embeddings": lambda: nn.Embedding(wrong, 8),
        "embedding_dim": lambda: nn.Embedding(8, wrong),
        "batch": lambda: nn.LSTM(4, 8).stream(wrong),
        "size": lambda: OneHot(wrong),
        "steps": lambda: Windows([(sequence, sequence)], wrong),
        "epochs": lambda: SequenceClassifier(epochs=wrong).fit([sequence[:, 0]] * 2, [0, 1]),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer, got "):
            call()


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
def test_integers_of_numpy_are_integers(make):
    layer = make(np.int64(4), np.uint8(8), np.int32(2))
    assert repr(layer) == repr(make(4, 8, 2))
    assert type(layer.input_size) is type(layer.hidden_size) is type(layer.num_layers) is int
    assert layer(np.zeros((3, 2, 4), np.float32))[0].shape == (3, 2, 8)


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("arguments", [(4, 2**40), (2**60, 4), (4, 8, 2**31), (4, 8, 10**30), (4, [8, 2**60])], ids=str)
def test_absurd_sizes_are_refused_before_memory_is_taken(make, arguments):
    names = "num_layers" if arguments[2:] else "input_size, hidden_size, num_layers"
    with pytest.raises(ValueError, match=f"^{names}: expected sizes that memory can hold, got .* GiB of "):
        make(*arguments)


def test_so_they_are_everywhere_else():
    for names, call in {
        "input_size, hidden_size, num_layers, proj_size": lambda: nn.LSTM(4, 8, proj_size=2**60),
        "input_size, hidden_size, num_layers": lambda: nn.LSTMCell(4, 2**40),
        "in_features, out_features": lambda: nn.Linear(2**40, 2**40),
        "num_embeddings, embedding_dim": lambda: nn.Embedding(2**60, 8),
        "batch": lambda: nn.GRU(4, 8).stream(2**50),
        "size": lambda: OneHot(2**40),
    }.items():
        with pytest.raises(ValueError, match=f"^{names}: expected sizes that memory can hold, got "):
            call()


def test_the_limit_is_this_machines_memory(monkeypatch):
    """Parameters and gradients, of 4 bytes each."""
    elements = 4 * 8 * (4 + 8 + 1 + 1)
    for limit, fits in ((2 * 4 * elements + 8192, True), (2 * 4 * elements + 8191, False)):
        monkeypatch.setattr(sizes, "machine_memory", lambda limit=limit: limit)
        if fits:
            nn.LSTM(4, 8)
        else:
            with pytest.raises(ValueError, match=r"^input_size, hidden_size, num_layers: expected sizes that memory"):
                nn.LSTM(4, 8)


def test_a_limit_of_the_system_is_part_of_it(monkeypatch):
    monkeypatch.setattr(sizes.Path, "read_text", lambda self: "1048576\n")
    assert sizes.machine_memory.__wrapped__() == 1 << 20
    monkeypatch.setattr(sizes.Path, "read_text", lambda self: "max\n")
    assert sizes.machine_memory.__wrapped__() > 1 << 27
