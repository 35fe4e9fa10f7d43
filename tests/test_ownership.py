"""A call owns the integers and booleans that it was given: a buffer that is filled anew does not reach backward."""

from __future__ import annotations

import array

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn

T, N, I, H = 6, 4, 3, 5  # noqa: E741 - the shape letters of the whole library
CELLS = {"rnn": 1, "lstm": 4, "gru": 3, "indrnn": 1, "mingru": 2}
SEQUENCES = {
    "lengths": ([6, 2, 4, 1], [1, 6, 6, 6]),
    "batch_sizes": ([4, 3, 3, 2], [4, 4, 4, 4]),
    "resets": (np.arange(T * N).reshape(T, N) % 5 == 3, np.arange(T * N).reshape(T, N) % 5 == 1),
}


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def arguments(cell, packed=False):
    """x, states, weights and biases in float64."""
    rows, x = CELLS[cell] * H, normal(12, I) if packed else normal(T, N, I)
    states = [None] * (2 if cell == "lstm" else 1)
    hidden = {"indrnn": [normal(H)], "mingru": []}.get(cell, [normal(rows, H)])
    return [x, *states, normal(rows, I), *hidden, normal(rows)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("kind", CELLS)
def test_functions_keep_what_they_were_given(kind, name, reverse, assert_same_bits):
    forward, backward = (getattr(fusedrnn, f"{kind}_{way}") for way in ("forward", "backward"))
    before, after = SEQUENCES[name]
    given = np.array(before)
    y, *_, reserve = forward(*arguments(kind, name == "batch_sizes"), reverse=reverse, **{name: given})
    dstates = [None] * (2 if kind == "lstm" else 1)
    expected = backward(y, *dstates, reserve)
    given[...] = after
    assert_same_bits(backward(y, *dstates, reserve), expected)


def test_products_in_low_precision_keep_it_too(assert_same_bits):
    lengths, plain = np.array([6, 2, 4, 1]), [None if a is None else a.astype("f4") for a in arguments("rnn")]
    y, _, reserve = fusedrnn.rnn_forward(*plain, lengths=lengths, precision="bfloat16")
    expected = fusedrnn.rnn_backward(y, None, reserve)
    lengths[:] = 6
    assert_same_bits(fusedrnn.rnn_backward(y, None, reserve), expected)


def test_memory_of_others_is_not_kept(assert_same_bits):
    """Of a buffer that NumPy reads in place."""
    lengths = array.array("q", [6, 2, 4, 1])
    y, _, reserve = fusedrnn.rnn_forward(*arguments("rnn"), lengths=lengths)
    expected = fusedrnn.rnn_backward(y, None, reserve)
    lengths[1] = 6
    assert_same_bits(fusedrnn.rnn_backward(y, None, reserve), expected)


@pytest.mark.parametrize("name", ["lengths", "resets"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_keep_what_they_were_given(make_layer, name, batch_first, assert_same_bits):
    layer = make_layer(I, H, 2, bidirectional=True, batch_first=batch_first, dtype="float64", rng=0)
    x = normal(*((N, T) if batch_first else (T, N)), I)
    before, after = SEQUENCES[name]
    turned = batch_first and name == "resets"
    gradients = []
    for refilled in (False, True):
        given = np.array(before).T.copy() if turned else np.array(before)
        y, _ = layer(x, **{name: given})
        if refilled:
            given[...] = np.array(after).T if turned else after
        gradients.append(layer.backward(np.ones_like(y))[0])
    assert_same_bits(gradients[1], gradients[0])


@pytest.mark.parametrize("kind", ["last", "mean", "max"])
def test_pooling_keeps_its_lengths(kind, assert_same_bits):
    pooling, y = nn.Pooling(kind), normal(T, N, H)
    gradients = []
    for refilled in (False, True):
        lengths = np.array([6, 2, 4, 1])
        pooled = pooling(y, lengths)
        if refilled:
            lengths[:] = 5
        gradients.append(pooling.backward(np.ones_like(pooled)))
    assert_same_bits(gradients[1], gradients[0])


def test_per_sequence_gradients_are_of_the_lengths_of_the_call(assert_same_bits):
    lengths = np.array([6, 2, 4, 1])
    y, _, reserve = fusedrnn.rnn_forward(*arguments("rnn"), lengths=lengths)
    expected = fusedrnn.per_sequence_gradients(reserve, y).parameters["dweight_hh"]
    lengths[:] = [1, 6, 6, 6]
    assert_same_bits(fusedrnn.per_sequence_gradients(reserve, y).parameters["dweight_hh"], expected)
