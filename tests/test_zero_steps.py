"""x without steps is refused in one way by all that take sequences; rows without steps are fine."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn

REFUSED = (
    r"^[xy]: expected a sequence length of at least 1, got 0: .* leave the call out, or give each row its own .*lengths"
)
EMPTY = np.empty((0, 2, 4), np.float32)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fusedrnn.rnn_forward(EMPTY, None, zeros(5, 4), zeros(5, 5)),
        lambda: fusedrnn.lstm_forward(EMPTY, None, None, zeros(20, 4), zeros(20, 5)),
        lambda: fusedrnn.gru_forward(EMPTY, None, zeros(15, 4), zeros(15, 5), precision="bfloat16", training=False),
        lambda: fusedrnn.indrnn_forward(EMPTY, None, zeros(5, 4), zeros(5)),
        lambda: fusedrnn.mingru_forward(EMPTY, None, zeros(10, 4)),
        lambda: fusedrnn.rnn_forward(EMPTY, None, zeros(5, 4), zeros(5, 5), lengths=[0, 0]),
        lambda: nn.LSTM(4, 5).freeze()(EMPTY),
        lambda: nn.LSTM(4, 5).freeze(precision="int8")(EMPTY),
        lambda: nn.GRU(4, 5, batch_first=True)(EMPTY.transpose(1, 0, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 5))(EMPTY),
        lambda: nn.ManyToOne(nn.GRU(4, 5), 2)(EMPTY),
        lambda: nn.ManyToOne(nn.GRU(4, 5), 2, embedding=nn.Embedding(3, 4))(np.empty((0, 2), np.int64)),
        lambda: nn.LastStep()(EMPTY),
        lambda: nn.Pooling("mean")(EMPTY, np.zeros(2, np.int64)),
    ],
)
def test_no_steps_are_refused_with_the_way_round(call):
    with pytest.raises(ValueError, match=REFUSED):
        call()


def test_layers_refuse_them(make_layer):
    with pytest.raises(ValueError, match=REFUSED):
        make_layer(4, 5, 2, bidirectional=True)(EMPTY, lengths=[0, 0])


def test_the_way_round(make_layer, assert_same_bits):
    """Rows without steps give zeros and the states that they were given."""
    layer = make_layer(4, 5, rng=0)
    h = np.full((1, 2, 5), 0.5, np.float32)
    state = (h, h) if isinstance(layer, nn.LSTM) else h
    y, last = layer(zeros(1, 2, 4), state, lengths=[0, 0])
    assert not y.any()
    assert_same_bits(last, state)
