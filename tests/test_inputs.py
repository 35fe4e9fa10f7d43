"""The usual slips of a first program: NumPy's own dtypes, and the pair that a recurrent layer returns."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn

PAIR = nn.LSTM(3, 4, rng=0)(np.zeros((2, 3, 3), np.float32))


@pytest.mark.parametrize(
    "make", [lambda **o: nn.LSTM(4, 8, **o), lambda **o: nn.GRU(4, 8, **o), lambda **o: nn.Linear(4, 8, **o)]
)
def test_other_dtypes_say_what_to_do(make):
    for dtype, given, way in (
        ("float32", np.float64, "convert it with x.astype(np.float32), or make the layer with dtype='float64'"),
        ("float32", np.int64, "convert it with x.astype(np.float32)"),
        ("float32", bool, "convert it with x.astype(np.float32)"),
        ("float64", np.float32, "convert it with x.astype(np.float64), or make the layer with dtype='float32'"),
        ("float32", np.complex64, None),
        ("float32", object, None),
    ):
        text = f"x: expected dtype {dtype} as the layer has, got {np.dtype(given)}" + (f"; {way}" if way else "")
        with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
            make(dtype=dtype)(np.zeros((2, 3, 4), given))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: fusedrnn.rnn_forward(a.astype(int), None, a[0], a[0]),
         "x: expected float32 or float64, got int64; convert it with .astype(numpy.float32)"),
        (lambda a: fusedrnn.rnn_forward(a.astype("f4"), np.zeros((4, 4)), a[0].astype("f4"), a[0].astype("f4")),
         "h0: expected dtype float32 like x, got float64; convert it with .astype(numpy.float32)"),
        (lambda a: nn.MSELoss()(a.astype("f4"), a),
         "target: expected dtype float32 like prediction, got float64; convert it with .astype(numpy.float32)"),
        (lambda a: nn.BCEWithLogitsLoss()(a.astype(int), a),
         "logits: expected float32 or float64, got int64; convert it with .astype(numpy.float32)"),
        (lambda a: nn.MSELoss()(a.astype(complex), a), "prediction: expected float32 or float64, got complex128"),
    ],
)  # fmt: skip
def test_functions_and_losses_say_it_too(call, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call(np.zeros((4, 4, 4)))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("logits", lambda pair: nn.CrossEntropyLoss()(pair, np.zeros((2, 3), int))),
        ("targets", lambda pair: nn.CrossEntropyLoss()(pair[0], pair)),
        ("logits", lambda pair: nn.BCEWithLogitsLoss()(pair, pair[0])),
        ("prediction", lambda pair: nn.MSELoss()(pair, pair[0])),
        ("target", lambda pair: nn.MSELoss()(pair[0], pair)),
        ("parameters", lambda pair: nn.MixtureDensityLoss()(pair, np.zeros((2, 3, 3), np.float32))),
        ("x", lambda pair: nn.Linear(4, 2)(pair)),
        ("x", lambda pair: nn.GRU(4, 2)(pair)),
        ("x", lambda pair: nn.Dropout(0.5)(pair)),
        ("x", lambda pair: nn.LastStep()(pair)),
        ("y", lambda pair: nn.Pooling("last")(pair, np.array([2, 2, 2]))),
    ],
)
def test_what_a_recurrent_layer_returns_is_a_pair(name, call):
    for pair in (PAIR, nn.GRU(3, 4, rng=0)(np.zeros((2, 3, 3), np.float32))):
        with pytest.raises(TypeError, match=rf"^{name}: expected an array, got a tuple of two; .*: take \[0\]$"):
            call(pair)
