"""Token decoders and sequence to sequence: gradients, padding, writing, scheduled sampling, tied weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from fusedrnn import nn
from fusedrnn.nn.padding import padded
from tests.differences import check_along_directions

SOURCE, TARGET, BEGIN, END = 7, 6, 0, 1
KINDS = [
    {"score": "additive"},
    {"score": "dot", "cell": "gru"},
    {"score": "general", "input_feeding": False, "encoder_layers": 2},
    {"score": None},
    {"score": None, "cell": "gru"},
    {"score": "additive", "cell": "rnn"},
]
every_kind = pytest.mark.parametrize("options", KINDS, ids=str)


def made(options, dtype="float64", **more):
    return nn.Seq2Seq(SOURCE, TARGET, 4, 3, dtype=dtype, rng=0, **options, **more)


def batch():
    """Sources of 5, 2 and 3 tokens, and what a decoder reads: 4, 3 and 1."""
    rng = np.random.default_rng(0)
    source = padded([rng.integers(SOURCE, size=n) for n in (5, 2, 3)])
    tokens = padded([np.concatenate([[BEGIN], rng.integers(2, TARGET, size=n)]) for n in (3, 2, 0)])
    return source, tokens


@every_kind
def test_gradients(options):
    rng = np.random.default_rng(1)
    model = made(options)
    logits = model(batch())
    dlogits = rng.standard_normal(logits.shape) * (batch()[1] >= 0)[:, :, None]
    parameters = list(model.parameters())

    def loss(values):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data[...] = value
        return np.sum(model.eval()(batch()) * dlogits)

    values = [parameter.data.copy() for parameter in parameters]
    model.backward(dlogits)
    check_along_directions(loss, [values], [[parameter.grad for parameter in parameters]], rng)
    assert all(parameter.grad.any() for parameter in parameters)


@every_kind
def test_padding_changes_no_output(options):
    model = made(options, "float32").eval()
    source, tokens = batch()
    wanted = model((source, tokens))
    longer = [np.concatenate([part, np.full((4, 3), -1)]) for part in (source, tokens)]
    found = model(tuple(longer))
    inside = tokens >= 0
    np.testing.assert_allclose(found[: len(tokens)][inside], wanted[inside], atol=1e-6)
    for row, (s, t) in enumerate(((5, 4), (2, 3), (3, 1))):
        alone = model((source[:s, row : row + 1], tokens[:t, row : row + 1]))
        np.testing.assert_allclose(alone[:, 0], wanted[:t, row], atol=1e-6)


@every_kind
def test_what_is_written_has_the_probability_of_what_is_read(options):
    model = made(options).eval()
    sources = [[1, 2, 3], [4], [5, 6]]
    for beam in (1, 3):
        written = model.write(sources, begin=BEGIN, end=END, most=5, beam=beam, never=(BEGIN,))
        for source, hypotheses in zip(sources, written, strict=True):
            assert 1 <= len(hypotheses) <= beam
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for h in hypotheses:
                read = np.array([[BEGIN, *h.tokens]]).T
                logits = model((np.array([source]).T, read))[:, 0]
                told = [*h.tokens, END][: len(logits) if h.ended else len(h.tokens)]
                logits[:, BEGIN] = -np.inf
                log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
                total = sum(log_p[t, token] for t, token in enumerate(told))
                assert h.log_probability == pytest.approx(total, rel=1e-9)
                if options["score"] is None:
                    assert h.weights is None
                else:
                    assert h.weights.shape == (len(h.tokens) + 1, len(source))
                    np.testing.assert_allclose(h.weights.sum(1), 1)


def test_what_is_written_does_not_depend_on_neighbours():
    model = made({"score": "additive"}, "float32").eval()
    sources = [np.random.default_rng(n).integers(SOURCE, size=n) for n in (3, 1, 5, 3, 2)]
    together = model.write(sources, begin=BEGIN, end=END, most=4, beam=2, rows=2)
    for source, hypotheses in zip(sources, together, strict=True):
        (alone,) = model.write([source], begin=BEGIN, end=END, most=4, beam=2)
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in hypotheses]


@every_kind
def test_scheduled_sampling_reads_its_own_likeliest_token(options):
    model = made(options)
    source, tokens = batch()
    own = np.zeros(tokens.shape, bool)
    own[1:, 0], own[2, 1] = True, True
    before = copy.deepcopy(model.rng_state())
    logits = model((source, tokens, own))
    assert model.rng_state() == before
    told = tokens.copy()
    for t in range(1, 4):  # as the decoder would write, a step at a time, with teachers where they are
        now = model.eval()((source, told[:t]))
        told[t] = np.where(own[t], now[-1].argmax(-1), told[t])
    assert (told != tokens).any(), "or nothing is tested"
    np.testing.assert_allclose(logits, model((source, told)), rtol=1e-12)
    model.train().forget()
    model((source, tokens, own))
    model.backward(np.ones_like(logits))
    found = [parameter.grad.copy() for parameter in model.parameters()]
    model.zero_grad()
    model((source, told))
    model.backward(np.ones_like(logits))
    for a, parameter in zip(found, model.parameters(), strict=True):
        np.testing.assert_allclose(a, parameter.grad, rtol=1e-12)


def test_tied_weights_are_one_parameter():
    model = nn.Seq2Seq(SOURCE, TARGET, 4, 4, tied=True, rng=0)
    names = [name for name, _ in model.named_parameters()]
    assert "decoder.embedding.weight" in names
    assert "decoder.head.weight" not in names
    model.backward(np.ones_like(model(batch())))
    assert model.decoder.head.weight.grad.any()
    with pytest.raises(ValueError, match="tied: expected embedding_dim = hidden_size, got 4 and 3"):
        made({}, tied=True)


def test_it_learns_to_reverse():
    """A few hundred updates on rows of three letters of four: attention has to find the place."""
    rng = np.random.default_rng(0)
    model = nn.Seq2Seq(4, 6, 16, 24, rng=0)
    loss = nn.CrossEntropyLoss(ignore_index=-1)
    from fusedrnn.optim import Adam

    optimizer = Adam(model, lr=0.01)
    for _ in range(200):
        letters = rng.integers(4, size=(3, 32))
        told = letters[::-1] + 2
        read = np.concatenate([np.full((1, 32), BEGIN), told])
        target = np.concatenate([told, np.full((1, 32), END)])
        model.zero_grad()
        loss(model((letters, read)), target)
        model.backward(loss.backward())
        optimizer.step()
    written = model.eval().write([[0, 1, 2], [3, 3, 1]], begin=BEGIN, end=END, most=5)
    assert [h[0].tokens.tolist() for h in written] == [[4, 3, 2], [3, 5, 5]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((np.zeros(3, int), np.zeros((2, 1), int)), r"source: expected integers \[S, N\], got int64 \(3,\)"),
        ((np.full((2, 1), -1), np.zeros((2, 1), int)), "source: expected at least one token in each row, got none"),
        ((np.zeros((2, 1)), np.zeros((2, 1), int)), "source: expected integers"),
        ((np.zeros((2, 1), int), np.zeros((2, 1))), "tokens: expected integers"),
        ((np.zeros((2, 1), int), np.array([[-1], [0]])), "tokens: expected -1 behind the end of a row alone"),
        ((np.zeros((2, 1), int), np.array([[0], [-2]])), "tokens: expected -1 behind the end of a row alone"),
        ((np.full((2, 1), 9), np.zeros((2, 1), int)), "indices: expected values from 0 to 6"),
        ((np.zeros((2, 1), int), np.full((2, 1), 6)), "indices: expected values from 0 to 5"),
    ],
)
def test_what_does_not_fit(x, message):
    with pytest.raises(ValueError, match=message):
        made({"score": "additive"})(x)


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="cell: expected one of lstm, gru, rnn, got 'mgu'"):
        made({"cell": "mgu"})
    with pytest.raises(ValueError, match="cell: expected one of lstm, gru, rnn, got 'mgu'"):
        nn.TokenDecoder(5, 3, 3, 4, start_size=2, cell="mgu")
    model = made({"score": "additive"}).eval()
    with pytest.raises(ValueError, match="temperature: expected 0 with a beam of 2, got 1"):
        model.write([[1]], begin=BEGIN, end=END, most=3, beam=2, temperature=1)
