"""The estimator that labels every step: what it learns, what it refuses, scikit-learn's tools."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fusedrnn.estimators.sklearn_fallback import NotFittedError
from fusedrnn.estimators.tagger import SequenceTagger


def problem(n, seed=0):
    """A step is "up" where the sum so far is positive: nothing but memory tells."""
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((rng.integers(1, 9), 1)) for _ in range(n)]
    return X, [np.where(x[:, 0].cumsum() > 0, "up", "down").tolist() for x in X]


SMALL = {"epochs": 15, "hidden_size": 16, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return SequenceTagger(**SMALL).fit(*problem(300))


def test_it_learns(fitted):
    X, y = problem(100, seed=1)
    assert fitted.score(X, y) > 0.9
    assert fitted.classes_.tolist() == ["down", "up"]
    predicted, likely = fitted.predict(X), fitted.predict_proba(X)
    for x, labels, p in zip(X, predicted, likely, strict=True):
        assert labels.shape == (len(x),)
        assert p.shape == (len(x), 2)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert (fitted.classes_[p.argmax(axis=1)] == labels).all()
    right = sum((np.array(a) == b).sum() for a, b in zip(y, predicted, strict=True))
    assert fitted.score(X, y) == pytest.approx(right / sum(map(len, X)))


def test_a_sequence_is_labelled_alike_alone_and_among_others(fitted):
    X, _ = problem(20, seed=2)
    for together, x in zip(fitted.predict_proba(X), X, strict=True):
        np.testing.assert_array_equal(together, fitted.predict_proba([x])[0])


def test_words_are_looked_up():
    rng = np.random.default_rng(0)
    X = [rng.integers(0, 6, rng.integers(1, 7)) for _ in range(200)]
    y = [[int(w % 3) for w in row] for row in X]
    model = SequenceTagger(embedding_dim=4, early_stopping=True, patience=30, **SMALL).fit(X, y)
    assert model.score(X, y) > 0.99
    assert "validation_loss" in model.history_[0]
    with pytest.raises(ValueError, match="X: expected integers below 6"):
        model.predict([[7]])


def test_a_seed_decides_all_and_copies_predict_the_same(fitted):
    X, y = problem(30)
    runs = [SequenceTagger(**{**SMALL, "epochs": 2, "random_state": s}).fit(X, y).predict_proba(X) for s in (1, 1, 2)]
    assert all((a == b).all() for a, b in zip(runs[0], runs[1], strict=True))
    assert any((a != b).any() for a, b in zip(runs[0], runs[2], strict=True))
    for twin in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert all((a == b).all() for a, b in zip(twin.predict(X), fitted.predict(X), strict=True))


def test_an_empty_sequence_has_no_labels(fitted):
    X, y = problem(5)
    assert fitted.predict([np.empty((0, 1)), X[0]])[0].tolist() == []
    SequenceTagger(**{**SMALL, "epochs": 1}).fit([np.empty((0, 1)), *X], [[], *y])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (X, [y[0][:-1], *y[1:]]), r"y\[0\]: expected \d labels, one for each step, got shape"),
        (lambda X, y: (X, ["up", *y[1:]]), r"y\[0\]: expected \d labels, one for each step, got 'up'"),
        (lambda X, y: (X, [["up"] * len(x) for x in X]), "y: expected at least 2 classes, got 1"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: ([np.full((2, 1), np.nan), *X[1:]], y), "Input X contains NaN"),
    ],
)
def test_what_does_not_fit_leaves_the_estimator_as_it_was(change, message, fitted):
    model = copy.deepcopy(fitted)
    X, y = problem(20)
    before = model.predict(X)
    with pytest.raises(ValueError, match=message):
        model.fit(*change(X, y))
    assert all((a == b).all() for a, b in zip(model.predict(X), before, strict=True))


def test_an_estimator_that_is_not_fitted():
    with pytest.raises((NotFittedError, ValueError), match="not fitted yet"):
        SequenceTagger().predict([[[1.0]]])
    with pytest.raises((NotFittedError, ValueError), match="not fitted yet"):
        SequenceTagger().predict_proba([[[1.0]]])


def test_parameters():
    model = SequenceTagger(hidden_size=7)
    assert model.get_params()["hidden_size"] == 7
    assert "pooling" not in model.get_params()
    assert model.set_params(cell="lstm").cell == "lstm"


def test_a_search_of_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    base = pytest.importorskip("sklearn.base")
    X, y = problem(60)
    model = SequenceTagger(**{**SMALL, "epochs": 2})
    assert base.clone(model).get_params() == model.get_params()
    search = selection.GridSearchCV(model, {"hidden_size": [4, 16]}, cv=3).fit(X, y)
    assert search.best_params_["hidden_size"] in (4, 16)
    assert 0 < search.best_score_ <= 1
