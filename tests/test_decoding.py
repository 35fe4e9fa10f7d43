"""Writing tokens over any stepper: beam search beside trying everything, samples, ends, penalties, weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fusedrnn.decoding import beam_search, sample

V, BEGIN, END = 5, 0, 1


def chain(seed=0, sharp=1.5):
    """A stepper whose logits follow from the row, the token before and how many there were; weights are [B, 2]."""
    table = np.random.default_rng(seed).standard_normal((3, 8, V, V)) * sharp

    def step(tokens, state):
        row, count = state["row"], state["count"]
        logits = table[row, count, tokens]
        weights = np.stack([row, count], axis=1).astype(float)
        return logits, {"row": row, "count": count + 1}, weights

    return step, {"row": np.arange(3), "count": np.zeros(3, np.int64)}


def log_p(step, row, tokens):
    """Of tokens and the end behind them."""
    total, state = 0.0, {"row": np.array([row]), "count": np.array([0])}
    for before, token in itertools.pairwise([BEGIN, *tokens, END]):
        logits, state, _ = step(np.array([before]), state)
        total += logits[0, token] - np.log(np.exp(logits[0]).sum())
    return total


def everything(step, row, most, penalty=0.0, never=()):
    """All sequences of at most so many tokens, best first: (score, tokens)."""
    inner = [token for token in range(V) if token != END and token not in never]
    found = []
    for length in range(most + 1):
        for tokens in itertools.product(inner, repeat=length):
            found.append((log_p(step, row, tokens) / ((6 + length) / 6) ** penalty, list(tokens)))
    return sorted(found, key=lambda pair: -pair[0])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all(seed, penalty):
    step, state = chain(seed)
    found = beam_search(step, state, rows=3, begin=BEGIN, end=END, most=3, width=150, length_penalty=penalty)
    for row, hypotheses in enumerate(found):
        wanted = everything(step, row, 3, penalty)
        assert len(hypotheses) == len(wanted) == 85
        for ours, (score, tokens) in zip(hypotheses[:20], wanted, strict=False):
            assert ours.tokens.tolist() == tokens
            assert ours.score == pytest.approx(score, rel=1e-12)
            assert ours.log_probability == pytest.approx(log_p(step, row, tokens), rel=1e-12)


def by_hand(step, row, width, most):
    """Beam search of one row, a list of prefixes at a time."""
    going, done = [(0.0, [])], []
    for _ in range(most + 1):
        after = []
        for score, tokens in going:
            for token in range(V) if len(tokens) < most else [END]:
                total = log_p(step, row, tokens) if token == END else None
                prefix = [BEGIN, *tokens, token]
                partial, state = 0.0, {"row": np.array([row]), "count": np.array([0])}
                for before, now in itertools.pairwise(prefix):
                    logits, state, _ = step(np.array([before]), state)
                    partial += logits[0, now] - np.log(np.exp(logits[0]).sum())
                assert total is None or total == pytest.approx(partial)
                assert partial <= score + 1e-9
                after.append((partial, [*tokens, token]))
        after.sort(key=lambda pair: -pair[0])
        done += [(score, tokens[:-1]) for score, tokens in after[:width] if tokens[-1] == END]
        going = [pair for pair in after if pair[1][-1] != END][:width]
    return sorted(done, key=lambda pair: -pair[0])[:width]


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_is_the_textbook_s(seed):
    step, state = chain(seed)
    found = beam_search(step, state, rows=3, begin=BEGIN, end=END, most=4, width=2)
    for row, hypotheses in enumerate(found):
        wanted = by_hand(step, row, 2, 4)
        assert hypotheses[0].tokens.tolist() == wanted[0][1]
        assert hypotheses[0].score == pytest.approx(wanted[0][0], rel=1e-12)


def test_rows_do_not_depend_on_their_neighbours():
    step, state = chain()
    together = beam_search(step, state, rows=3, begin=BEGIN, end=END, most=4, width=3)
    for row in range(3):
        alone = {"row": np.array([row]), "count": np.array([0])}
        (own,) = beam_search(step, alone, rows=1, begin=BEGIN, end=END, most=4, width=3)
        assert [h.tokens.tolist() for h in own] == [h.tokens.tolist() for h in together[row]]


def test_all_end_and_none_is_longer_than_asked():
    """The end is next to impossible here: it is taken only when there is room for nothing else."""

    def step(tokens, state):
        return np.where(np.arange(V) == END, -50.0, np.zeros((len(tokens), V))), state

    (found,) = beam_search(step, np.zeros(1), rows=1, begin=BEGIN, end=END, most=3, width=2)
    assert [len(h.tokens) for h in found] == [3, 3]
    assert all(h.ended for h in found)
    (greedy,) = sample(step, np.zeros(1), rows=1, begin=BEGIN, end=END, most=3, temperature=0)
    assert greedy.tokens.tolist() == [0, 0, 0]
    assert not greedy.ended
    assert greedy.log_probability == pytest.approx(-3 * np.log(4), rel=1e-6)


def test_the_likeliest_token_by_token():
    step, state = chain(3)
    found = sample(step, state, rows=3, begin=BEGIN, end=END, most=6, temperature=0)
    for row, hypothesis in enumerate(found):
        tokens, now = [], {"row": np.array([row]), "count": np.array([0])}
        while len(tokens) <= 6:
            logits, now, _ = step(np.array([[BEGIN, *tokens][-1]]), now)
            tokens.append(int(logits[0].argmax()))
            if tokens[-1] == END:
                break
        ended = tokens[-1] == END
        assert hypothesis.tokens.tolist() == tokens[: -1 if ended else 6]
        assert hypothesis.ended == ended
        if ended:
            assert hypothesis.log_probability == pytest.approx(log_p(step, row, tokens[:-1]), rel=1e-12)
        np.testing.assert_array_equal(hypothesis.weights[:, 0], row)
        np.testing.assert_array_equal(hypothesis.weights[:, 1], np.arange(len(hypothesis.tokens) + 1))


def test_weights_follow_the_path_of_a_beam():
    step, state = chain(1)

    def remembering(tokens, state):
        logits, inner, _ = step(tokens, state["inner"])
        return logits, {"inner": inner, "mark": tokens}, np.stack([tokens, state["mark"]], axis=1)

    whole = {"inner": state, "mark": np.full(3, 9)}
    for hypotheses in beam_search(remembering, whole, rows=3, begin=BEGIN, end=END, most=5, width=4):
        for h in hypotheses:
            read = [BEGIN, *h.tokens.tolist()]
            assert h.weights[:, 0].tolist() == read, "what the step of each weight read"
            assert h.weights[:, 1].tolist() == [9, *read[:-1]], "and its state went with it"


def share_of(tokens, **options):
    """How often each first token is drawn of the logits 0, 1, ..., 4."""

    def step(rows, state):
        return np.tile(np.arange(V, dtype=float), (len(rows), 1)), state

    found = sample(step, np.zeros(tokens), rows=tokens, begin=BEGIN, end=END, most=1, rng=0, **options)
    firsts = [int(h.tokens[0]) if h.tokens.size else END for h in found]
    return np.bincount(firsts, minlength=V) / tokens


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_samples_follow_the_probabilities():
    x = np.arange(V, dtype=float)
    assert np.abs(share_of(20_000) - softmax(x)).max() < 0.015
    assert np.abs(share_of(20_000, temperature=2.0) - softmax(x / 2)).max() < 0.015
    three = np.where(x >= 2, x, -np.inf)
    assert np.abs(share_of(20_000, top_k=3) - softmax(three)).max() < 0.015
    assert share_of(1_000, top_p=0.6)[4] == 1, "the likeliest has 0.64"
    two = np.where(x >= 3, x, -np.inf)
    assert np.abs(share_of(20_000, top_p=0.7) - softmax(two)).max() < 0.015
    assert share_of(1_000, never=(4, 3), temperature=0)[2] == 1
    assert share_of(1_000, temperature=1e-300)[4] == 1


def test_a_seed_says_what_is_drawn():
    step, state = chain(2, sharp=0.3)
    drawn = [
        [h.tokens.tolist() for h in sample(step, state, rows=3, begin=BEGIN, end=END, most=7, rng=seed)]
        for seed in (5, 5, 6)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (sample, {"rows": 0}, "rows: expected at least 1, got 0"),
        (sample, {"most": 0}, "most: expected at least 1, got 0"),
        (sample, {"temperature": -1}, "temperature: expected a finite number of at least 0"),
        (sample, {"temperature": np.nan}, "temperature: expected a finite number"),
        (sample, {"top_p": 0}, "top_p: expected a probability above 0, at most 1, got 0"),
        (sample, {"top_k": 0}, "top_k: expected at least 1, got 0"),
        (sample, {"never": (END,)}, "never: expected other tokens than the end, 1"),
        (beam_search, {"width": 0}, "width: expected at least 1, got 0"),
        (beam_search, {"length_penalty": -0.1}, "length_penalty: expected a finite number of at least 0"),
        (beam_search, {"never": (END,)}, "never: expected other tokens than the end, 1"),
    ],
)
def test_numbers_out_of_range(search, options, message):
    step, state = chain()
    with pytest.raises(ValueError, match=message):
        search(step, state, **{"rows": 3, "begin": BEGIN, "end": END, "most": 3, **options})
