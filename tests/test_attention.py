"""Attention over queries, and the decoder that attends: beside loops, finite differences, masks, streams, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fusedrnn import cells, nn
from fusedrnn.cells.attention import SCORES
from fusedrnn.scan.trees import flatten, map_leaves
from tests import attending
from tests.differences import check_along_directions

T, N, I, H, S = 4, 3, 3, 5, 6  # noqa: E741
LENGTHS = np.array([6, 2, 1])
every_score = pytest.mark.parametrize("score", SCORES)


def size_of(score):
    return H if score == "dot" else 4


def arrays(score, dtype="float64", queries=I):
    rng = np.random.default_rng(1)
    return rng.standard_normal((T, N, queries)).astype(dtype), rng.standard_normal((S, N, size_of(score))).astype(dtype)


def weighing(layer):
    """The layer's parameters as the steps name them."""
    return layer.scan._data(0)


@every_score
def test_attention_is_that_of_the_loops(score, isa):
    F = size_of(score)
    layer = nn.Attention(H, F, score=score, attention_size=7, dtype="float64", rng=0)
    query, memory = arrays(score, queries=H)
    seen, weights = layer(query, memory, memory_lengths=LENGTHS)
    assert seen.shape == (T, N, F)
    for t, n in itertools.product(range(T), range(N)):
        wanted, a = attending.attend(score, weighing(layer), query[t, n], memory[: LENGTHS[n], n])
        np.testing.assert_allclose(seen[t, n], wanted, rtol=1e-12)
        np.testing.assert_allclose(weights[t, n, : LENGTHS[n]], a, rtol=1e-12)
        np.testing.assert_array_equal(weights[t, n, LENGTHS[n] :], 0)


@every_score
def test_gradients_of_attention(score):
    rng = np.random.default_rng(2)
    layer = nn.Attention(H, size_of(score), score=score, attention_size=7, dtype="float64", rng=0)
    query, memory = arrays(score, queries=H)
    dseen, dweights = rng.standard_normal((T, N, size_of(score))), rng.standard_normal((T, N, S))
    parameters = list(layer.parameters())

    def loss(given, values):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data[...] = value
        seen, weights = layer.eval()(*given, memory_lengths=LENGTHS)
        return np.sum(seen * dseen) + np.sum(weights * dweights)

    values = [parameter.data.copy() for parameter in parameters]
    layer(query, memory, memory_lengths=LENGTHS)
    found = layer.backward(dseen, dweights)
    own = [parameter.grad for parameter in parameters]
    check_along_directions(loss, [[query, memory], values], [list(found), own], rng)
    assert not found[1][2:, 1].any(), "a vector that is masked gets none"


DECODERS = [
    *({"score": score, "input_feeding": feeding} for score in SCORES for feeding in (True, False)),
    {"cell": "gru"},
    {"cell": "rnn", "score": "general"},
    {"num_layers": 2, "attention_size": 3},
    {"cell": "gru", "num_layers": 2},
]


def decoder(options, dtype="float64"):
    F = size_of(options.get("score", "additive"))
    return nn.AttentionDecoder(I, H, F, dtype=dtype, rng=0, **options)


def first_state(layer, dtype="float64"):
    rng = np.random.default_rng(5)
    shapes = layer.scan._initial(0, N)
    return map_leaves(lambda leaf: rng.uniform(-0.5, 0.5, leaf.shape).astype(dtype), shapes)


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_a_decoder_is_that_of_the_loops(options):
    layer, score = decoder(options), options.get("score", "additive")
    x, memory = arrays(score)
    state = first_state(layer)
    y, last, weights = layer(x, memory, state, memory_lengths=LENGTHS, lengths=[4, 2, 3])
    for n, steps in enumerate((4, 2, 3)):
        rows = map_leaves(lambda leaf, n=n: leaf[n], state)
        wanted, a = attending.decode(
            layer.scan.step, weighing(layer), rows.layers, rows.attended, x[:steps, n], memory[: LENGTHS[n], n]
        )
        np.testing.assert_allclose(y[:steps, n], wanted, rtol=1e-11)
        np.testing.assert_allclose(weights[:steps, n, : LENGTHS[n]], a, rtol=1e-11)
        np.testing.assert_allclose(last.attended[n], wanted[-1], rtol=1e-11)
        np.testing.assert_array_equal(y[steps:, n], 0)


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_gradients_of_a_decoder(options):
    rng = np.random.default_rng(3)
    layer, score = decoder(options), options.get("score", "additive")
    x, memory = arrays(score)
    state = first_state(layer)
    leaves, structure = flatten(state)
    dy = rng.standard_normal((T, N, H))
    dlast = map_leaves(lambda leaf: rng.standard_normal(leaf.shape), state)
    parameters = list(layer.parameters())

    def loss(given, start, values):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data[...] = value
        y, last, _ = layer.eval()(*given, structure.pack(start), memory_lengths=LENGTHS)
        ends = zip(flatten(last)[0], flatten(dlast)[0], strict=True)
        return np.sum(y * dy) + sum(np.sum(a * b) for a, b in ends)

    values = [parameter.data.copy() for parameter in parameters]
    layer(x, memory, state, memory_lengths=LENGTHS)
    dx, dstate, dmemory = layer.backward(dy, dlast)
    own = [parameter.grad for parameter in parameters]
    check_along_directions(
        loss, [[x, memory], leaves, values], [[dx, dmemory], flatten(dstate)[0], own], np.random.default_rng(4)
    )


def test_what_is_masked_has_no_effect_whatever_it_is():
    layer = decoder({}, "float32").eval()
    x, memory = arrays("additive", "float32")
    absent = np.arange(S)[:, None] >= LENGTHS
    spoilt = np.where(absent[:, :, None], np.float32(np.nan), memory)
    wanted = layer(x, memory, memory_lengths=LENGTHS)
    for found in (layer(x, spoilt, memory_lengths=LENGTHS), layer(x, spoilt, memory_mask=~absent)):
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[2], wanted[2])
    padded = np.concatenate([memory, np.ones((5, N, 4), "float32")])
    more = layer(x, padded, memory_lengths=LENGTHS)
    np.testing.assert_allclose(more[0], wanted[0], atol=1e-6)
    np.testing.assert_array_equal(more[2][:, :, S:], 0)


def test_a_mask_may_have_gaps():
    layer = nn.Attention(H, 4, dtype="float64", rng=0)
    query, memory = arrays("additive", queries=H)
    mask = np.ones((S, N), bool)
    mask[[0, 3]] = False
    seen, weights = layer(query, memory, memory_mask=mask)
    alone, _ = layer(query, np.ascontiguousarray(memory[mask[:, 0]]))
    np.testing.assert_allclose(seen, alone, rtol=1e-12)
    assert not weights[:, :, [0, 3]].any()


def test_a_stream_has_the_bits_of_the_whole(isa):
    layer = decoder({"num_layers": 2}, "float32").eval()
    x, memory = arrays("additive", "float32")
    y, last, weights = layer(x, memory, memory_lengths=LENGTHS)
    stream = layer.stream(memory, memory_lengths=LENGTHS)
    for t in range(T):
        if t == 2:  # from another object, as beams do
            state, stream = stream.state, layer.stream(memory, memory_lengths=LENGTHS)
            stream.state = state
        found, a = stream.step(x[t])
        np.testing.assert_array_equal(found, y[t])
        np.testing.assert_array_equal(a, weights[t])
    for ours, wanted in zip(flatten(stream.state)[0], flatten(last)[0], strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_rows_threads_and_their_order_change_no_bit(threads):
    layer = decoder({}, "float32").eval()
    rng = np.random.default_rng(6)
    x = rng.standard_normal((T, 40, I)).astype("float32")
    memory = rng.standard_normal((S, 40, 4)).astype("float32")
    wanted = layer(x, memory)[0]
    threads(2)
    np.testing.assert_array_equal(layer(x, memory)[0], wanted)
    some = np.array([7, 31, 2])
    parts = (np.ascontiguousarray(a[:, some]) for a in (x, memory))
    np.testing.assert_array_equal(layer(*parts)[0], wanted[:, some])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Attention(3, 4, score="cosine"), "score: expected one of additive, dot, general, got 'cosine'"),
        (lambda: nn.Attention(3, 4, score="dot"), "expected queries and memory of one size, got 3 and 4"),
        (lambda: nn.Attention(0, 4), "query_size: expected at least 1, got 0"),
        (lambda: nn.AttentionDecoder(3, 4, 0), "memory_size: expected at least 1, got 0"),
        (lambda: nn.AttentionDecoder(3, 4, 5, cell="feedforward"), "cell: expected one of lstm, gru, rnn"),
        (lambda: nn.AttentionDecoder(3, 4, 5, num_layers=0), "num_layers: expected at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"memory": np.zeros((S, N, 5), "f")}, ValueError, r"memory: expected shape \(S, N, 4\), got \(6, 3, 5\)"),
        ({"memory": np.zeros((0, N, 4), "f")}, ValueError, "memory: expected shape"),
        ({"memory": np.zeros((S, N, 4))}, TypeError, "memory: expected dtype float32 as the layer has, got float64"),
        ({"memory_lengths": [6, 0, 1]}, ValueError, "memory_lengths: expected at least one vector .* in row 1"),
        ({"memory_lengths": [6, 7, 1]}, ValueError, "memory_lengths: expected .* from 1 to 6"),
        ({"memory_lengths": [6, 1]}, ValueError, r"memory_lengths: expected \[3\] integers"),
        ({"memory_mask": np.zeros((S, N), bool)}, ValueError, "memory_mask: expected at least one vector"),
        ({"memory_mask": np.ones((N, S), bool)}, ValueError, r"memory_mask: expected booleans \(6, 3\)"),
        ({"memory_mask": np.ones((S, N), bool), "memory_lengths": [1, 1, 1]}, ValueError, "got both"),
        ({"memory": np.zeros((S, 2, 4), "f")}, ValueError, "context"),
    ],
)
def test_arrays_that_do_not_fit(changes, error, message):
    given = {"x": np.zeros((T, N, I), "f"), "memory": np.zeros((S, N, 4), "f"), **changes}
    with pytest.raises(error, match=message):
        decoder({}, "float32")(given.pop("x"), given.pop("memory"), **given)


def test_cells_have_defaults_of_their_own():
    cell = cells.AttentionDecoder(I, H, 4, rng=0)
    assert cell.parameters["attention"]["W"].shape == (H, H)
    assert (cell.parameters["cell"][0]["b"][H : 2 * H] == 1).all()
    assert cell.parameters["cell"][0]["W"].shape == (4 * H, I + H)
