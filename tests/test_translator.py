"""The estimator from sequences to sequences: what it learns, what it refuses, scikit-learn's tools."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fusedrnn.estimators.sklearn_fallback import NotFittedError
from fusedrnn.estimators.translator import SequenceTranslator

SMALL = {"epochs": 30, "hidden_size": 24, "embedding_dim": 12, "lr": 0.01, "random_state": 0}


def reversals(n, seed=0):
    rng = np.random.default_rng(seed)
    X = ["".join(rng.choice(list("abcd"), rng.integers(1, 5))) for _ in range(n)]
    return X, [word[::-1].upper() for word in X]


@pytest.fixture(scope="module")
def fitted():
    return SequenceTranslator(**SMALL).fit(*reversals(400))


def test_it_learns_to_reverse(fitted):
    X, y = reversals(100, seed=1)
    assert fitted.score(X, y) > 0.95
    predicted = fitted.predict(X)
    assert all(isinstance(word, str) for word in predicted)
    assert fitted.score(X, y) == np.mean([a == b for a, b in zip(predicted, y, strict=True)])
    assert fitted.source_tokens_ == list("abcd")
    assert fitted.target_tokens_ == list("ABCD")


def test_lists_of_any_tokens():
    rng = np.random.default_rng(0)
    X = [rng.integers(0, 4, rng.integers(1, 4)) for _ in range(300)]
    y = [[("n", int(v)) for v in row] + ["end"] for row in X]
    model = SequenceTranslator(**{**SMALL, "attention": "general", "cell": "gru", "epochs": 15}).fit(X, y)
    assert model.score(X[:50], y[:50]) > 0.9
    assert isinstance(model.predict([X[0]])[0], list)
    assert model.predict([[2, 1]]) == model.predict([np.array([2, 1], np.int32)])


def test_a_beam_and_a_longest_prediction(fitted):
    X, y = reversals(50, seed=2)
    twin = copy.deepcopy(fitted).set_params(beam=4, length_penalty=0.6)
    assert twin.score(X, y) > 0.95
    assert max(map(len, twin.set_params(max_length=2).predict(X))) == 2


def test_unknown_tokens_are_read_as_one(fitted):
    assert fitted.predict(["aßb"]) == fitted.predict(["a☃b"])


def test_early_stopping_takes_the_best_epoch():
    X, y = reversals(60)
    model = SequenceTranslator(**{**SMALL, "epochs": 6, "early_stopping": True, "patience": 2}).fit(X, y)
    assert all(np.isfinite(record["validation_loss"]) for record in model.history_)
    assert model.n_iter_ <= 6


def test_a_seed_decides_all_and_copies_predict_the_same(fitted):
    X, y = reversals(30)
    runs = [SequenceTranslator(**{**SMALL, "epochs": 2, "random_state": s}).fit(X, y).model_ for s in (1, 1, 2)]
    weights = [run.decoder.head.weight.data for run in runs]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()
    assert pickle.loads(pickle.dumps(fitted)).predict(X) == fitted.predict(X)


def test_a_sequence_is_written_alike_alone_and_among_others(fitted):
    X, _ = reversals(30, seed=3)
    assert [fitted.predict([x])[0] for x in X] == fitted.predict(X)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (["ab", "c"], ["a"], "inconsistent numbers of samples"),
        ("ab", ["a"], r"X: expected a list of sequences, got one str; give \[X\]"),
        ([], [], "X: expected at least one sequence, got none"),
        (["a", ""], ["a", "b"], r"X\[1\]: expected at least one token, got none"),
        (["a", 3], ["a", "b"], r"X\[1\]: expected a string or a list of tokens, got int"),
        ([[[1]], "a"], ["a", "b"], "expected tokens that can be looked up, got list"),
        (["a"], None, "requires y to be passed"),
    ],
)
def test_what_does_not_fit_leaves_the_estimator_as_it_was(X, y, message, fitted):
    model = copy.deepcopy(fitted)
    before = model.predict(["abcd"])
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert model.predict(["abcd"]) == before


def test_an_estimator_that_is_not_fitted():
    with pytest.raises((NotFittedError, ValueError), match="not fitted yet"):
        SequenceTranslator().predict(["a"])


def test_a_search_of_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    base = pytest.importorskip("sklearn.base")
    X, y = reversals(60)
    model = SequenceTranslator(**{**SMALL, "epochs": 1})
    assert base.clone(model).get_params() == model.get_params()
    search = selection.GridSearchCV(model, {"attention": ["dot", None]}, cv=2).fit(X, y)
    assert search.best_params_["attention"] in ("dot", None)
