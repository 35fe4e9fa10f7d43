"""What was held out stays out: metrics are of examples that no batch has, and no vocabulary knows their words."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.data import sources
from fusedrnn.data.series import Series
from fusedrnn.estimators.forecasting import BandForecast, Scaling, ahead
from fusedrnn.tasks import (
    TASKS,
    adding_problem,
    addition,
    count_ones,
    forecast,
    lorenz,
    mnist,
    polygon,
    sentiment,
)
from fusedrnn.tasks.models import LanguageModel
from fusedrnn.tasks.task import Options


def setup(name, preset="smoke", where=None):
    task = TASKS[name]
    chosen = task.presets[preset]
    settings = task.settings(chosen, {})
    return task.setup(Options(chosen, chosen.epochs, chosen.steps, 0, where, lambda line: None, settings))


# Tasks of columns [T, N, I]: how few examples there are to be, and how many of them are held out.
SMALL = {
    "count-ones": (count_ones, {"BITS": 8, "TRAINING": 150}, 106),
    "addition": (addition, {"BITS": 4, "HELD_OUT": 10, "NOISE": np.float32(0)}, 10),  # 54 pairs are drawn 1,600 times
    "mnist": (mnist, {}, 10),
    "adding-problem": (adding_problem, {"ITERATIONS": 3, "HELD_OUT": 20}, 20),
    "polygon": (polygon, {"TRAINING": 200, "HELD_OUT": 10, "DRAWN": 20, "in_a_symmetry": lambda v, n, rng: v}, 10),
    "lorenz": (lorenz, {"TRAINING": 30, "HELD_OUT": 10, "FREE_STEPS": 190}, 60),  # six windows of each trajectory
}


def columns(x):
    return {np.ascontiguousarray(column).tobytes() for column in x.swapaxes(0, 1)}


@pytest.mark.parametrize("name", SMALL)
def test_no_metric_looks_at_what_batches_have(monkeypatch, name):
    module, sizes, held_out = SMALL[name]
    for constant, value in sizes.items():
        monkeypatch.setattr(module, constant, value)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    images = sources.Images(pixels[:30], labels[:30], pixels[30:], labels[30:], "noise")
    monkeypatch.setattr(sources, "load_images", lambda where, say: images)
    run = setup(name)
    learnt = set().union(*(columns(x) for x, _ in run.batches(0)))
    assert len(learnt) >= held_out
    looked_at, forward = set(), run.model.forward

    def watched(x, *state):
        looked_at.update(columns(x))
        return forward(x, *state)

    run.model.forward = watched
    run.model.eval()
    for metrics in (run.evaluate, run.figures):
        looked_at.clear()
        metrics()
        assert len(looked_at) >= held_out
        assert not looked_at & learnt


def test_a_series_is_scored_on_its_last_fifth(monkeypatch):
    """By forecasts that know all points before it, and are off by 100 standard deviations on all after."""
    values = np.random.default_rng(0).standard_normal((300, 1)).cumsum(0)
    monkeypatch.setattr(forecast, "load_series", lambda where, say: Series(values, ("load",), "a walk", 0))
    run, horizon = setup("forecast"), 24
    known = np.append(Scaling.fit(values[:240]).transform(values), np.zeros((horizon, 1)), axis=0)

    def by_heart(self, z, origins):
        later = ahead(np.arange(len(known))[:, None], origins, horizon) >= 240
        return np.repeat((ahead(known, origins, horizon) + 100 * later)[..., None], 3, axis=3)

    monkeypatch.setattr(BandForecast, "__call__", by_heart)
    metrics = run.figures()
    errors = [metrics[name] for name in ("rmse_1", "rmse_6", "rmse_12", "rmse_24", "free_rmse")]
    np.testing.assert_allclose(errors, 100, rtol=1e-12)
    assert metrics["coverage"] == 0


@pytest.mark.parametrize(
    ("preset", "body", "tail", "unit"),
    [("smoke", "ab" * 1_080, "cd" * 120, "character"), ("words", "aye bee " * 567, "zebra " * 126, "word")],
)
def test_a_text_is_scored_on_its_last_tenth(monkeypatch, preset, body, tail, unit):
    """By a network that nothing but the tail surprises; words of the tail alone are unknown, however frequent."""
    monkeypatch.setattr(sources, "load_text", lambda where, say: sources.Text(body + tail, "a text"))
    run = setup("text", preset, "a text")
    vocabulary = run.metadata["vocabulary"]
    assert vocabulary == (["<unk>", "aye", "bee"] if unit == "word" else list("abcd"))
    of_tail = [vocabulary.index(token) for token in (("<unk>",) if unit == "word" else "cd")]
    monkeypatch.setattr(LanguageModel, "surprise", lambda self, tokens: np.isin(tokens[1:], of_tail).astype(float))
    metrics = run.figures()
    assert metrics[f"nats_per_{unit}"] == 1
    assert metrics["ngram_nats"] > 1, "n-grams of the body know nothing of the tail"


def test_texts_are_scored_on_those_held_out(monkeypatch):
    """By a network and a bag of words that go by the training texts, which the others contradict."""

    def texts(opinion, extra):
        return [[*"abc"[: 1 + i % 3], extra, opinion] for i in range(12)]

    def contrary(extra):
        return texts("good", extra) + texts("bad", extra), np.repeat([False, True], 12)

    train = texts("good", "x") + texts("bad", "x")
    held_out = {"tests": {"accuracy": contrary("tested")}, "validation": contrary("validated")}
    targets, every = np.repeat(np.float32([1, 0]), 12), np.ones(24, bool)
    corpus = sentiment.Corpus("made", train, targets, every, related=[], related_targets=targets[:0], **held_out)
    monkeypatch.setattr(sentiment, "from_folder", lambda folder, seed: corpus)
    run = setup("sentiment", where="made")
    vocabulary = run.metadata["vocabulary"]
    assert set(vocabulary) == {*"abcx", "good", "bad"}, "words of what is held out are unknown, however frequent"
    good = 1 + vocabulary.index("good")

    def by_opinion(model, texts):
        return np.array([[[9.0 if good in text else -9.0] for text in texts]])

    monkeypatch.setattr(sentiment, "infer", by_opinion)
    assert run.figures() == {"accuracy": 0}
    assert run.evaluate() == {"validation": 0}
    assert run.baseline == {"accuracy": 0, "validation": 0}


def test_related_texts_are_not_those_of_the_test():
    """Nor is a text that differs in what the network does not read."""
    own = [sources.Rated(f"text {i} is fine.", 2.0) for i in range(20)]
    elsewhere = [sources.Rated(f" Text {i} is FINE .", -2.0) for i in range(20)]
    files = dict(zip(sources.RATED, ([*own, *elsewhere], own, elsewhere, own), strict=True))
    corpus = sentiment.rated(files)
    tested = {tuple(words) for words in corpus.tests["accuracy"][0]}
    assert 4 <= len(tested) <= 8, "a fifth of the 40"
    assert len(corpus.train) == 2 * (20 - len(tested))
    assert len(corpus.related) == 3 * (20 - len(tested))
    assert not tested & {tuple(words) for words in [*corpus.train, *corpus.related]}
