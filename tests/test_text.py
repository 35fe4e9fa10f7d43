"""Text: n-grams by brute force, windows that cover the text, samples with the model's distribution, min-char-rnn as it
was published."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.data import sources
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS, SampleOptions, text
from fusedrnn.tasks.models import LanguageModel
from fusedrnn.tasks.ngrams import DISCOUNTS, probabilities, tuned_discount
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.sample import sample_run
from fusedrnn.tasks.task import Options, RunError
from fusedrnn.tasks.vocabulary import Vocabulary, split
from fusedrnn.train import Trainer
from fusedrnn.train.checkpoint import CheckpointError, write_checkpoint

TEXT = TASKS["text"]
V = 5


def written(length, seed=0):
    """Sentences of a few words, so that there is something to learn."""
    rng = random.Random(seed)
    words = ["the", "a", "cat", "dog", "sees", "hears", "bird", "and,", "then.", "runs", "home"]
    found = ""
    while len(found) < length:
        found += rng.choice(words) + rng.choice([" ", " ", " ", "\n"])
    return found[:length]


def network(seed=0, tied=False, dtype="f4", **options):
    rng = np.random.default_rng(seed)
    embedding = nn.Embedding(V, 6, dtype=dtype, rng=rng)
    return LanguageModel(embedding, nn.LSTM(6, 6, 2, dtype=dtype, rng=rng), V, tied=tied, rng=rng, **options)


# n-grams


def brute_force(train, context, token, order, discount):
    """p_order(token | context), straight from the definition."""
    if order == 0:
        return 1 / V
    before = tuple(context[len(context) - order + 1 :])
    followers = [train[i] for i in range(order - 1, len(train)) if tuple(train[i - order + 1 : i]) == before]
    lower = brute_force(train, context, token, order - 1, discount)
    if not followers:
        return lower
    kinds = len(set(followers))
    return (max(followers.count(token) - discount, 0) + discount * kinds * lower) / len(followers)


def test_ngrams_are_those_of_the_definition():
    tokens = np.random.default_rng(0).choice(V - 1, 120, p=[0.6, 0.2, 0.1, 0.1])  # the last one never occurs
    train, held_out = tokens[:90].tolist(), [*tokens[90:].tolist(), V - 1]
    found = probabilities(np.array(train), np.array(held_out), V, 5, 0.7)
    whole = train + held_out
    for order, p in enumerate(found, 1):
        expected = [brute_force(train, whole[: 90 + i], token, order, 0.7) for i, token in enumerate(held_out)]
        np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_ngrams_sum_to_one():
    tokens = np.random.default_rng(1).integers(0, V - 1, 300)
    for end in (250, 271, 290):  # contexts of all orders, seen and not
        each = [probabilities(tokens[:250], np.append(tokens[250:end], token), V, 6, 0.6) for token in range(V)]
        np.testing.assert_allclose([sum(p[order][-1] for p in each) for order in range(6)], 1, rtol=1e-12)


def test_the_discount_suits_the_tail_of_training_best():
    content = written(600)
    vocabulary = Vocabulary.of(content, words=False)
    tokens, size = vocabulary.encode(content), len(vocabulary)

    def surprise(discount):
        return min(-np.log(p).mean() for p in probabilities(tokens[:540], tokens[540:], size, 4, discount))

    found = tuned_discount(tokens, size, 4)
    assert found in DISCOUNTS
    assert surprise(found) == min(map(surprise, DISCOUNTS))
    assert len(set(map(surprise, DISCOUNTS))) > 1


# tokens


def test_characters_there_and_back():
    content = "Ümläut, naïve\n\tcafé ☃"
    vocabulary = Vocabulary.of(content, words=False)
    numbers = vocabulary.encode(content)
    assert sorted(set(content)) == vocabulary.tokens
    assert vocabulary.decode(numbers) == content
    assert vocabulary.pieces(numbers) == list(content)
    with pytest.raises(KeyError, match="x"):
        vocabulary.encode("x")


def test_words_there_and_back():
    content = "Nay, I'll not (so) -- he said;\n\nno: well-met!"
    tokens = split(content, True)
    assert "|".join(tokens) == "Nay|,|I'll|not|(|so|)|-|-|he|said|;|\n|\n|no|:|well-met|!"
    vocabulary = Vocabulary.of(tokens, words=True)
    assert vocabulary.decode(vocabulary.encode(tokens)) == "Nay, I'll not (so) - - he said;\n\nno: well-met!"


def test_rare_words_are_unknown_and_frequent_ones_come_first():
    vocabulary = Vocabulary.of(list("abbcccdd"), words=True, at_least=2)
    assert vocabulary.tokens == ["<unk>", "c", "b", "d"]
    assert vocabulary.encode(["d", "a", "zebra", "c"]).tolist() == [3, 0, 0, 1]


def test_windows_cover_the_text_and_its_tail_is_held_out():
    recipe = text.Recipe(columns=3, steps=5)
    content = "".join(chr(0x4E00 + i) for i in range(100))
    corpus = text.Corpus.of(sources.Text(content, "x"), None, recipe)
    assert corpus.vocabulary.decode(corpus.train) == content[:90]
    assert corpus.vocabulary.decode(corpus.held_out) == content[90:]
    x, target = corpus.columns(3, 5)
    assert x.shape == (25, 3)
    np.testing.assert_array_equal(x.T.reshape(-1), corpus.train[:75])
    np.testing.assert_array_equal(target, x + 1)  # every character occurs once, in order


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("ab" * 6, False, "x: expected at least 18 characters, 9 in 10 of them for 3 columns of 5 steps, got 12"),
        ("a" * 40, True, "x: expected at least 18 words, 9 in 10 of them for 3 columns of 5 steps, got 1"),
        ("a" * 100, False, "x: expected at least two different characters, got only 'a'"),
        ("a " * 100, True, "x: expected at least two different words, got only 'a'"),
        (" ".join(f"w{i}" for i in range(100)), True, "x: expected at least two different words, got only '<unk>'"),
    ],
)
def test_texts_that_will_not_do(content, words, message):
    with pytest.raises(sources.DataError, match=message):
        text.Corpus.of(sources.Text(content, "x"), None, text.Recipe(words=words, columns=3, steps=5))


def test_the_shortest_text_that_will_do():
    assert text.Corpus.of(sources.Text("ab" * 9, "x"), None, text.Recipe(columns=3, steps=5)).columns(3, 5)[
        0
    ].shape == (
        5,
        3,
    )


# the model


@pytest.mark.parametrize("tied", [False, True])
def test_gradients(finite_differences, tied):
    model = network(tied=tied, dtype="f8")
    x, target = np.random.default_rng(0).integers(0, V, (2, 4, 3))
    loss, flat = nn.CrossEntropyLoss(), model.flatten()
    loss(model(x)[0], target)
    model.zero_grad()
    model.backward(loss.backward())
    assert len({id(p) for p in model.parameters()}) == (10 if tied else 11)
    model.eval()

    def value(arguments):
        flat.data[...] = arguments["p"]
        return (np.float64(loss(model(x)[0], target)),)

    expected = finite_differences(value, {"p": flat.data.copy()}, (1.0,))["p"]
    np.testing.assert_allclose(flat.grad, expected, atol=1e-8)


def test_surprise_in_chunks_is_that_at_once_bit_for_bit():
    model = network().eval()
    tokens = np.random.default_rng(0).integers(0, V, 50)
    whole = model.surprise(tokens)
    np.testing.assert_array_equal(model.surprise(tokens, 7), whole)
    logits, _ = model(tokens[:-1, None])
    assert whole.mean() == pytest.approx(nn.CrossEntropyLoss()(logits, tokens[1:, None]), rel=1e-6)


def test_samples_follow_the_models_distribution():
    model = network(3).eval()
    prime = np.array([1, 4, 2])
    logits = model(prime[:, None])[0][-1, 0].astype(float)
    for temperature in (0.3, 1.0, 3.0):
        p = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        share = np.bincount(model.generate(prime, 20_000, 1, temperature, 0)[:, 0], minlength=V) / 20_000
        assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 20_000)).all(), (temperature, share, p)
    share = np.bincount(model.generate(prime, 20_000, 1, 1e9, 0)[:, 0]) / 20_000
    np.testing.assert_allclose(share, 1 / V, atol=0.015)
    assert 2 not in model.generate(prime, 100, 20, 1.0, 0, never=2)


def test_the_coldest_sample_is_the_likeliest():
    model = network(4).eval()
    tokens = [0]
    for _ in range(12):
        tokens.append(int(model(np.array(tokens)[:, None])[0][-1, 0].argmax()))
    for temperature in (0.0, 1e-308, 1e-6):
        assert model.generate(np.array([0]), 2, 12, temperature, 0).tolist() == [tokens[1:]] * 2


def published(tokens, Wxh, Whh, Why, bh, by, lr):
    """Losses of min-char-rnn, one an update, by its equations; the parameters change in place."""
    parameters = (Wxh, Whh, Why, bh, by)
    memory = [np.zeros_like(p) for p in parameters]
    position, h = len(tokens), np.zeros(len(bh))
    while True:
        if position + 26 >= len(tokens):
            position, h = 0, np.zeros(len(bh))
        inputs, targets = tokens[position : position + 25], tokens[position + 1 : position + 26]
        steps = range(25)
        h = np.vstack([h, np.zeros((25, len(bh)))])
        for t in steps:
            h[t + 1] = np.tanh(Wxh[:, inputs[t]] + Whh @ h[t] + bh)
        e = np.exp(h[1:] @ Why.T + by)
        dy = e / e.sum(1, keepdims=True)
        loss = -np.log(dy[steps, targets]).sum()
        dy[steps, targets] -= 1
        dz, dh_next = np.empty((25, len(bh))), np.zeros(len(bh))
        for t in reversed(steps):
            dz[t] = (1 - h[t + 1] ** 2) * (Why.T @ dy[t] + dh_next)
            dh_next = Whh.T @ dz[t]
        dWxh = dz.T @ np.eye(len(by))[inputs]
        gradients = dWxh, dz.T @ h[:-1], dy.T @ h[1:], dz.sum(0), dy.sum(0)
        for p, d, m in zip(parameters, gradients, memory, strict=True):
            clipped = d.clip(-5, 5)
            m += clipped * clipped
            p -= lr * clipped / np.sqrt(m + 1e-8)
        h, position = h[-1], position + 25
        yield loss


@pytest.mark.parametrize(("lr", "updates"), [(0.01, 300), (0.1, 6)])
def test_min_char_rnn_follows_the_published_equations(tmp_path, lr, updates):
    """In float64, at a tenth of the published learning rate. That one itself is chaotic from the first updates on, a
    change of 1e-15 of a weight being one of 1e-3 of the loss a hundred updates later, so that only its first ones can
    be compared."""
    content = written(2_500)
    (tmp_path / "text").write_text(content)
    preset = TEXT.presets["min-char-rnn"]
    assert preset.settings["lr"] == 0.1
    preset = dataclasses.replace(preset, settings={**preset.settings, "dtype": "float64", "lr": lr})
    run = text.setup(Options(preset, 9, updates, 0, str(tmp_path / "text")))
    state = run.model.state_dict()
    size = len(state["head.bias"])
    assert state["rnn.weight_hh_l0"].shape == (100, 100)

    def split_bias(state):
        weight_ih = state["rnn.weight_ih_l0"]
        names = ("rnn.weight_hh_l0", "head.weight", "head.bias")
        Whh, Why, by = (state[name].copy() for name in names)
        return weight_ih[:, :size].copy(), Whh, Why, weight_ih[:, size].copy(), by

    ours = split_bias(state)
    assert all(0.008 < p.std() < 0.012 for p in ours[:3])
    assert not ours[3].any()
    assert not ours[4].any()
    characters = sorted(set(content))
    tokens = [characters.index(c) for c in content[: 2_500 * 9 // 10]]
    assert (len(tokens) - 1) % 25, "where it divides, the published loop leaves out one window more"
    losses = list(itertools.islice(published(tokens, *ours, lr), updates))
    settings = {"epochs": 9, "steps": updates, "clip_value": run.clip_value, "log_every": 1, "progress": False}
    history = Trainer(run.model, run.loss, run.optimizer, batches=run.batches, **settings).fit()
    np.testing.assert_allclose([record["loss"] for record in history], losses, rtol=1e-6)
    for found, expected in zip(split_bias(run.model.state_dict()), ours, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert updates < 300 or losses[-1] < 0.5 * losses[0]


# runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(preset): the folder of a short run on a small text, made once."""
    folders = {}
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(written(12_000))

    def train(preset):
        if preset not in folders:
            command = Command(preset, steps=12, data=str(folder / "text.txt"), out=folder / preset, progress=False)
            folders[preset] = folder / preset
            with pytest.MonkeyPatch.context() as patch:
                words = {**TEXT.presets["words"].settings, "hidden": 40, "embedding": 40}
                patch.setitem(TEXT.presets, "words", dataclasses.replace(TEXT.presets["words"], settings=words))
                patch.setattr(pictures, "draw_text", lambda *arguments: None)
                patch.setattr(pictures, "draw_loss", lambda *arguments: None)
                run_task(TEXT, command)
        return folders[preset]

    return train


def sampled(folder, **options):
    said = []
    sample_run(TASKS, folder, SampleOptions(say=said.append, **options))
    return said[0]


@pytest.mark.parametrize(("preset", "unit"), [("smoke", "character"), ("words", "word"), ("min-char-rnn", "character")])
def test_presets_run_and_are_sampled(run, preset, unit):
    folder = run(preset)
    metrics = json.loads((folder / "figures.json").read_text())["metrics"]
    nats = metrics[f"nats_per_{unit}"]
    assert 0 < metrics["ngram_nats"] < nats < 8
    other, expected = ("bits_per_character", nats / np.log(2)) if unit == "character" else ("perplexity", np.exp(nats))
    assert metrics[other] == pytest.approx(expected)
    one = sampled(folder, prime="the cat", count=2, length=30)
    parts = one.split("\n\n---\n\n")
    assert [part.startswith("the cat") for part in parts] == [True, True]
    assert parts[0] != parts[1]
    assert "<unk>" not in one
    if unit == "word":
        assert sampled(folder, prime="the zebra, cat", length=1).startswith("the zebra, cat"), "unknown, yet kept"
    assert sampled(folder, prime="the cat", count=2, length=30) == one
    assert sampled(folder, prime="the cat", count=2, length=30, seed=1) != one
    if unit == "character":
        assert [len(part) for part in parts] == [37, 37]


def test_the_prime_steers(run):
    """A greedy sample goes on from what the network read, not from a blank state."""
    folder = run("smoke")
    assert len({sampled(folder, prime=prime, temperature=0, length=10)[-10:] for prime in ("the b", "a do", "run")}) > 1


def test_samples_go_to_a_file(run, tmp_path):
    said = []
    sample_run(TASKS, run("smoke"), SampleOptions(length=8, out=tmp_path / "s.txt", say=said.append))
    assert not said
    assert (tmp_path / "s.txt").read_text() == sampled(run("smoke"), length=8) + "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count: expected at least 1, got 0"),
        ({"length": 0}, "--length: expected at least 1, got 0"),
        ({"seed": -1}, "--seed: expected at least 0, got -1"),
        ({"temperature": -1.0}, "--temperature: expected a finite number of at least 0, got -1"),
        ({"bias": float("nan")}, "--bias: expected a finite number of at least 0, got nan"),
        ({"bias": 1.0}, "--bias: expected 0, for text has no densities; see --temperature; got 1"),
        ({"prime": "the Zoo"}, "--prime: 'Z' does not occur in the text of "),
    ],
)
def test_samples_that_cannot_be(run, options, message):
    with pytest.raises(RunError, match=message):
        sampled(run("smoke"), **options)


def test_samples_of_no_run(run, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        sampled(tmp_path)
    with pytest.raises(RunError, match="--out: there is no folder"):
        sampled(run("smoke"), out=tmp_path / "no" / "s.txt")
    nn_only = {"addition": TASKS["addition"]}
    with pytest.raises(CheckpointError, match="a run of text, not of a task of this one"):
        sample_run(nn_only, run("smoke"), SampleOptions())
    write_checkpoint(tmp_path / "checkpoint.safetensors", {}, {"metadata": {"task": "addition"}})
    with pytest.raises(RunError, match=r"a run of addition, which has nothing to sample; .*text.* has"):
        sampled(tmp_path)


def test_resuming_on_another_text_is_refused(tmp_path, monkeypatch):
    for name in ("draw_loss", "draw_text"):
        monkeypatch.setattr(pictures, name, lambda *arguments: None)
    path = tmp_path / "text.txt"
    path.write_text(written(4_000))
    command = Command("smoke", steps=1, data=str(path), out=tmp_path / "run", progress=False)
    run_task(TEXT, command)
    path.write_text(written(4_000, seed=1))
    with pytest.raises(RunError, match=r"--resume: the data or the recipe of .* has changed since"):
        run_task(TEXT, Command(resume=tmp_path / "run", steps=2, progress=False))


def test_a_run_holds_what_other_programs_need(run):
    """The network's arrays by name, and the vocabulary beside them."""
    state = fusedrnn.load(run("smoke") / "checkpoint.safetensors", prefix="model.")
    assert state["rnn.weight_hh_l0"].shape == (512, 128)
    assert len(state["encoder.weight"]) == len(set(written(12_000)))
