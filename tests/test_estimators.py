"""Estimators: what they learn, what they refuse, and scikit-learn's own checks where it is installed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fusedrnn.estimators import many_to_one, sklearn_fallback
from fusedrnn.estimators.many_to_one import SequenceClassifier, SequenceRegressor


def steps(n, features=1, seed=0):
    """Sequences of 3 to 8 steps."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rng.integers(3, 9), features)).astype(np.float32) for _ in range(n)]


def named(sequences):
    """Whether a sequence's first step is positive, as a word: nothing but memory tells."""
    return np.array(["up" if sequence[0, 0] > 0 else "down" for sequence in sequences])


@pytest.fixture(scope="module")
def fitted():
    X = steps(300)
    return SequenceClassifier(epochs=20, hidden_size=16, random_state=0).fit(X, named(X))


def test_a_classifier_learns_and_names_classes(fitted):
    X = steps(200, seed=1)
    assert fitted.score(X, named(X)) > 0.9
    assert fitted.classes_.tolist() == ["down", "up"]
    assert (fitted.n_features_in_, fitted.n_iter_, len(fitted.history_)) == (1, 20, 20)
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X)).all()


def test_rows_are_predicted_alike_alone_and_together(fitted):
    X = steps(20, seed=2)
    alone = np.concatenate([fitted.predict_proba([row]) for row in X])
    np.testing.assert_array_equal(alone, fitted.predict_proba(X))


def test_a_seed_decides_all():
    X = steps(40)
    runs = [SequenceClassifier(epochs=2, random_state=seed).fit(X, named(X)).predict_proba(X) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_a_regressor_learns_sums_in_their_own_units():
    def problem(n, seed):
        X = steps(n, 2, seed)
        return X, np.array([[1e4 + 300 * row[:, 0].sum(), row[:, 1].mean()] for row in X])

    model = SequenceRegressor(pooling=("last", "mean"), epochs=30, random_state=0).fit(*problem(300, 0))
    X, y = problem(200, 1)
    assert model.score(X, y) > 0.9
    assert model.predict(X).shape == (200, 2)
    single = SequenceRegressor(epochs=1, random_state=0).fit(X, y[:, 0])
    assert single.predict(X).shape == (200,)


def test_integers_are_looked_up():
    rng = np.random.default_rng(0)
    X = [rng.integers(0, 20, rng.integers(2, 9)) for _ in range(300)]
    y = np.array([(row >= 10).sum() > (row < 10).sum() for row in X])
    model = SequenceClassifier(embedding_dim=8, pooling="mean", epochs=30, random_state=0).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.9
    assert model.model_.embedding.weight.data.shape == (20, 8)
    with pytest.raises(ValueError, match="X: expected integers below 20, as in fit or num_embeddings, got 20"):
        model.predict([[20]])
    wider = SequenceClassifier(embedding_dim=8, num_embeddings=30, epochs=1).fit(X, y)
    assert wider.predict([[29], []]).shape == (2,)


def test_early_stopping_takes_the_best_epoch():
    X = steps(60)
    y = np.random.default_rng(5).integers(0, 2, 60)  # noise: the loss on what was held out soon rises
    model = SequenceClassifier(early_stopping=True, patience=3, lr=0.05, epochs=200, random_state=0).fit(X, y)
    losses = [record["validation_loss"] for record in model.history_]
    assert model.n_iter_ == len(losses) == int(np.argmin(losses)) + 1 + 3 < 200


class Watched:
    """What early stopping trains on and what it validates on, and the parameters at every validation."""

    def __init__(self, monkeypatch):
        self.trained, self.validated, self.parameters = set(), set(), []
        self.padded, self.infer = many_to_one.padded, many_to_one.infer
        monkeypatch.setattr(many_to_one, "padded", self.train)
        monkeypatch.setattr(many_to_one, "infer", self.validate)

    def train(self, rows):
        self.trained |= {row.tobytes() for row in rows}
        return self.padded(rows)

    def validate(self, model, rows):
        self.validated |= {row.tobytes() for row in rows}
        self.parameters.append(model.flatten().data.copy())
        return self.infer(model, rows)


def test_what_was_held_out_is_not_trained_on(monkeypatch):
    watched, X = Watched(monkeypatch), steps(20)
    SequenceRegressor(early_stopping=True, validation_fraction=0.25, epochs=2, hidden_size=4).fit(X, np.arange(20))
    assert len(watched.validated) == 5
    assert not watched.validated & watched.trained
    assert watched.validated | watched.trained == {row.tobytes() for row in X}


def test_a_part_of_a_sequence_is_one_to_validate_on(monkeypatch):
    watched, X = Watched(monkeypatch), steps(7)
    SequenceRegressor(early_stopping=True, validation_fraction=0.1, epochs=1, hidden_size=4).fit(X, np.arange(7))
    assert len(watched.validated) == 1


def test_the_fitted_parameters_are_those_of_the_best_epoch(monkeypatch):
    watched, X = Watched(monkeypatch), steps(20)
    y = np.random.default_rng(5).integers(0, 2, 20)  # noise: the loss on what was held out soon rises
    options = {"lr": 0.1, "epochs": 12, "patience": 12, "hidden_size": 8, "random_state": 0}
    model = SequenceClassifier(early_stopping=True, validation_fraction=0.3, **options).fit(X, y)
    best = int(np.argmin([record["validation_loss"] for record in model.history_]))
    assert best < 11, "the last epoch must be worse"
    np.testing.assert_array_equal(model.model_.flatten().data, watched.parameters[best])


def test_arrays_count_as_lists(fitted):
    X = np.random.default_rng(0).standard_normal((6, 4, 1))
    np.testing.assert_array_equal(fitted.predict(X), fitted.predict(list(X)))
    table = X[:, 0]
    with pytest.raises(ValueError, match=r"X: .* as in fit, got one array \(6, 1\); give \[X\] if it is one sequence"):
        fitted.predict(table)
    of_table = SequenceClassifier(epochs=1).fit(table, [0, 1] * 3)
    np.testing.assert_array_equal(of_table.predict(table), of_table.predict(X[:, :1]))


def test_estimators_pickle(fitted):
    X = steps(10, seed=3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))


GOOD = steps(4, 2)
Y = [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "X", "y", "message"),
    [
        ({}, [], [], "X: expected at least one sequence, got list of 0"),
        ({}, np.empty((0, 4, 2)), [], "X: expected at least one sequence, got ndarray of 0"),
        ({}, [np.full((2, 1), 1e300)] * 2, [0, 1], r"too large for dtype\(.float32.\): X\[0\] has 1e\+300"),
        ({}, [*GOOD[:3], np.zeros((2, 3))], Y, r"X\[3\]: expected numbers \[T, 2\] as in X\[0\]"),
        ({}, [*GOOD[:3], np.full((2, 2), np.nan)], Y, r"Input X contains NaN: X\[3\], step 0, feature 0"),
        ({}, GOOD, Y[:3], r"inconsistent numbers of samples: \[4, 3\]"),
        ({}, GOOD, [1] * 4, "y: expected at least 2 classes, got 1 class: 1"),
        ({}, GOOD, [0.1, 0.2, 0.3, 0.4], "Unknown label type: continuous"),
        ({}, GOOD, [0, 1, np.nan, 1], "Input y contains NaN"),
        ({}, GOOD, None, "requires y to be passed, but the target y is None"),
        ({"cell": "cnn"}, GOOD, Y, "cell: expected one of rnn, lstm, gru, got 'cnn'"),
        ({"pooling": "sum"}, GOOD, Y, "pooling: expected one or more of last, mean, max"),
        ({"epochs": 0}, GOOD, Y, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, GOOD, Y, "batch_size: expected at least 1, got 0"),
        ({"dropout": 1.5}, GOOD, Y, "dropout: expected a probability"),
        (
            {"early_stopping": True, "validation_fraction": 1.0}, GOOD, Y,
            "validation_fraction: expected some of 4 sequences, not all, got 4",
        ),
        ({"embedding_dim": 3}, GOOD, Y, r"X\[0\]: expected integers \[T\] with embedding_dim, got float32"),
        ({"embedding_dim": 3}, [[1], [-1]], Y[:2], r"X\[1\]: expected integers of at least 0, got -1"),
        ({"embedding_dim": 3, "num_embeddings": 2}, [[1], [2]], Y[:2], "num_embeddings: expected at least 3"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_training(options, X, y, message):
    model = SequenceClassifier(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert not hasattr(model, "history_")


def test_what_does_not_fit_the_fitted(fitted):
    with pytest.raises(ValueError, match="X has 2 features, but SequenceClassifier is expecting 1 features"):
        fitted.predict(GOOD)
    with pytest.raises(ValueError, match="not fitted yet"):
        SequenceClassifier().predict(GOOD)
    for y, message in (
        ([1, 2, 3, np.inf], "Input y contains infinity"),
        ([1, np.nan, 3, 4], "Input y contains NaN"),
        ([1, 2, 3], r"inconsistent numbers of samples: \[4, 3\]"),
        (list("abcd"), "y: expected numbers .*could not convert string to float"),
        ([[1], [2, 3], [4], [5]], r"y: expected numbers \[n\] or \[n, outputs\], got others"),
        (3.0, r"y: expected numbers \[n\] or \[n, outputs\], got \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceRegressor().fit(GOOD, y)


# with scikit-learn


@pytest.mark.parametrize("estimator", [SequenceClassifier, SequenceRegressor])
@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks provoke and announce them
def test_scikit_learns_checks(estimator):
    """All of them: a table counts as sequences of one step. Those it leaves out itself want an array API."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="scikit-learn is not installed")
    results = checks.check_estimator(estimator(hidden_size=16, epochs=10, lr=0.03), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert [(r["check_name"], str(r["exception"])) for r in results if r["status"] not in ("passed", "skipped")] == []


def test_searches_pipelines_and_clones():
    selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    X = steps(60)
    y = named(X)
    model = SequenceClassifier(epochs=3, hidden_size=8, random_state=0)
    pipeline = make_pipeline(FunctionTransformer(lambda rows: [row / 2 for row in rows]), model)
    assert len(selection.cross_val_score(pipeline, X, y, cv=3)) == 3
    search = selection.GridSearchCV(model, {"cell": ["gru", "rnn"], "hidden_size": [4, 8]}, cv=2).fit(X, y)
    assert search.best_estimator_.get_params()["hidden_size"] in (4, 8)
    assert search.predict(X).shape == (60,)
    copy = clone(model.set_params(lr=0.1))
    assert copy.get_params() == model.get_params()
    assert copy is not model


# without


def test_without_scikit_learn(run_python):
    """The same methods, from our own few lines in its place."""
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np
from fusedrnn.estimators.many_to_one import SequenceClassifier, SequenceRegressor
rng = np.random.default_rng(0)
X = [rng.standard_normal((rng.integers(1, 5), 2)) for _ in range(40)]
y = np.array([row[0, 0] for row in X])
model = SequenceClassifier(epochs=2, random_state=0).set_params(hidden_size=8)
print(model, model.fit(X, y > 0).score(X, y > 0) > 0.3, model.get_params()["hidden_size"])
regressor = SequenceRegressor(epochs=15, random_state=0).fit(X, y)
print(regressor.score(X, y) > 0.5, regressor.fit(np.ones((4, 3)), [1, 2, 3, 4]).predict(np.ones((2, 3))).shape)
fresh = SequenceRegressor()
fresh = SequenceRegressor()
for wrong in (lambda: model.set_params(depth=3), lambda: regressor.predict([["a"]]), lambda: fresh.predict(X)):
    try:
        wrong()
    except ValueError as error:
        print(str(error)[:30])
"""
    done = run_python(code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "SequenceClassifier(hidden_size=8, epochs=2, random_state=0) True 8",
        "True (2,)",
        "Invalid parameter 'depth' for ",
        "X[0]: expected numbers [T, I],",
        "This SequenceRegressor instanc",
    ]


def test_scores_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    truth, guess, weights = rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), rng.random(20)

    class Constant(sklearn_fallback.RegressorMixin, sklearn_fallback.ClassifierMixin):
        predict = staticmethod(lambda X: X)

    ours = sklearn_fallback.RegressorMixin.score(Constant(), guess, truth, weights)
    assert ours == pytest.approx(metrics.r2_score(truth, guess, sample_weight=weights))
    labels = (truth[:, 0] > 0, guess[:, 0] > 0)
    ours = sklearn_fallback.ClassifierMixin.score(Constant(), labels[1], labels[0], weights)
    assert ours == pytest.approx(metrics.accuracy_score(*labels, sample_weight=weights))
