"""What estimators take as sequences, and what a fit that fails leaves behind."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fusedrnn.estimators.forecaster import Forecaster
from fusedrnn.estimators.many_to_one import SequenceClassifier, SequenceRegressor
from fusedrnn.train import Trainer

RNG = np.random.default_rng(0)
LENGTHS = [3, 5, 4, 3, 6, 5]
SEQUENCES = [RNG.standard_normal((n, 2)) for n in LENGTHS]
SERIES = [row[:, 0] for row in SEQUENCES]
IDS = [RNG.integers(0, 5, n) for n in LENGTHS]
Y = [0, 1, 0, 1, 1, 0]


def boxed(rows):
    """An object array of arrays, as NumPy and pandas hold what is ragged."""
    box = np.empty(len(rows), object)
    box[:] = rows
    return box


class Column:
    """What pandas' Series is to a reader: one axis, labels that do not begin at 0, values behind ``__array__``."""

    ndim, dtype, shape = 1, np.dtype(object), (len(LENGTHS),)

    def __init__(self, rows):
        self.rows = boxed(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, label):
        raise KeyError(label)

    def __array__(self, dtype=None, copy=None):
        return self.rows


WAYS = {
    "tuple": tuple,
    "object array": boxed,
    "column": Column,
    "lists": lambda rows: [row.tolist() for row in rows],
    "rows of objects": lambda rows: [row.astype(object) for row in rows],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("rows", [SEQUENCES, SERIES, IDS], ids=["features", "one feature", "integers"])
def test_sequences_may_come_in_whatever_holds_them(rows, way):
    model = SequenceClassifier(hidden_size=3, epochs=1, embedding_dim=2 if rows is IDS else None, random_state=0)
    plain = [row[:, None] for row in rows] if rows is SERIES else rows
    expected = model.fit(plain, Y).predict_proba(plain)
    np.testing.assert_array_equal(model.fit(way(rows), Y).predict_proba(way(rows)), expected)
    assert model.n_features_in_ == (2 if rows is SEQUENCES else 1)


@pytest.mark.parametrize("rows", [SEQUENCES, SERIES, IDS], ids=["features", "one feature", "integers"])
def test_columns_of_pandas(rows):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    model = SequenceRegressor(hidden_size=3, epochs=1, embedding_dim=2 if rows is IDS else None, random_state=0)
    expected = model.fit(rows, Y).predict(rows)
    labels = range(10, 16)
    X, y = pandas.Series(rows, index=labels), pandas.Series(Y, index=labels)
    np.testing.assert_array_equal(model.fit(X, y).predict(X), expected)


def test_an_array_of_objects_is_one_of_numbers():
    X = np.array([row[:3] for row in SEQUENCES])
    model = SequenceClassifier(hidden_size=3, epochs=1, random_state=0)
    expected = model.fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X.astype(object), Y).predict_proba(X.astype(object)), expected)


def test_arrays_of_one_feature_are_sequences_whatever_their_lengths():
    """Not sequences if they differ in length, and a table if by chance they do not."""
    model = SequenceClassifier(hidden_size=3, epochs=1, random_state=0).fit([row[:3] for row in SERIES], Y)
    assert model.n_features_in_ == 1
    for rows in (SERIES, SERIES[:1], [row[:, None] for row in SERIES]):
        assert model.predict(rows).shape == (len(rows),)


def test_a_table_is_a_table_as_lists_too():
    table = np.array([row[0] for row in SEQUENCES])
    model = SequenceClassifier(hidden_size=3, epochs=1, random_state=0)
    expected = model.fit(table, Y).predict_proba(table)
    np.testing.assert_array_equal(model.predict_proba(list(table)), expected)
    np.testing.assert_array_equal(model.fit(table.tolist(), Y).predict_proba(table.tolist()), expected)
    with pytest.raises(ValueError, match="X: expected rows of a table as in fit, got sequences of 1 to 2"):
        model.predict([[1.0, 2.0], [1.0]])


def test_rows_without_steps_are_rows():
    model = SequenceClassifier(hidden_size=3, epochs=1, random_state=0).fit([*SEQUENCES[:5], []], Y)
    np.testing.assert_array_equal(model.predict_proba([[]]), model.predict_proba([np.empty((0, 2))]))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (Column([]), "X: expected at least one sequence, got Column of 0"),
        ((row for row in SEQUENCES), r"X: expected sequences, got generator; give a list of arrays \[T_i, I\]"),
        ("abc", r"X: expected sequences, got str; give a list of arrays"),
        (
            list("abcdef"),
            r"X\[0\]: expected numbers \[T, I\], got <U1 .*; number the words first, and set embedding_dim",
        ),
        (
            [*SEQUENCES[:5], SERIES[5]],
            r"X\[5\]: expected numbers \[T, 2\] as in X\[0\], got float64 \(5,\); give a list",
        ),
        ([[[1, 2], [3]]] * 6, r"X\[0\]: expected numbers \[T, I\], got list \(.*inhomogeneous"),
        ([*SEQUENCES[:5], SEQUENCES[5] + 1j], r"X\[5\]: expected numbers \[T, I\], got complex128"),
        (boxed([*SERIES[:5], SERIES[5] * np.inf]), r"Input X contains infinity: X\[5\], step 0, feature 0; fill it"),
        (SERIES[0], r"For sequences give a list of arrays \[T_i, I\], \[X\] for one"),
        (None, r"For sequences give a list of arrays \[T_i, I\], \[X\] for one"),
    ],
)
def test_what_is_not_plain_says_what_to_give(X, message):
    model = SequenceClassifier(hidden_size=3, epochs=1)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (IDS[0], r"X: expected sequences of integers .*; give a list of arrays \[T_i\], \[X\] for one"),
        (
            [["a", "b"]] * 6,
            r"X\[0\]: expected integers \[T\] with embedding_dim, got <U1 \(2,\); number the words first",
        ),
        ([row + 0.5 for row in IDS], r"X\[0\]: expected integers .*got float64 .*give a list of arrays \[T_i\]"),
        ([[[1, 2], [3]]] * 6, r"X\[0\]: expected integers \[T\] with embedding_dim, got list \(.*inhomogeneous"),
        (np.empty((0, 3), int), "X: expected at least one sequence, got ndarray of 0"),
        ([np.array([2**64 - 1, 1], np.uint64)] * 6, r"X\[0\]: expected integers of int64, got 18446744073709551615"),
        ([np.array([2**70, 1], object)] * 6, r"X\[0\]: expected integers \[T\] with embedding_dim, got object"),
    ],
)
def test_what_are_no_integers_says_what_to_give(X, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(hidden_size=3, epochs=1, embedding_dim=2, num_embeddings=9).fit(X, Y)


def test_whole_numbers_of_pandas_that_may_hold_na_are_integers():
    pandas = pytest.importorskip("pandas")

    def fitted(X):
        model = SequenceClassifier(hidden_size=3, epochs=1, embedding_dim=2, random_state=0)
        return model.fit(X, Y).predict_proba(X)

    for kind in ("Int64", "UInt8"):
        assert np.array_equal(fitted([pandas.Series(row, dtype=kind) for row in IDS]), fitted(IDS))
    with pytest.raises(ValueError, match=r"X\[0\]: expected integers \[T\] with embedding_dim, got float64"):
        fitted([pandas.Series([1, None], dtype="Int64")] * 6)


# a fit that fails


WAVE = np.sin(np.arange(200) / 3) + 0.1 * RNG.standard_normal(200)
ESTIMATORS = {
    "classifier": (
        lambda: SequenceClassifier(hidden_size=3, epochs=1), (SEQUENCES, Y), lambda m: m.predict_proba(SEQUENCES)
    ),
    "regressor": (lambda: SequenceRegressor(hidden_size=3, epochs=1), (SEQUENCES, Y), lambda m: m.predict(SEQUENCES)),
    "forecaster": (lambda: Forecaster(horizon=5, steps=3), (WAVE,), lambda m: m.predict_interval()),
}  # fmt: skip
TABLE = RNG.standard_normal((4, 3))
LATE = {"hidden_size": -1}  # refused when the network is made, after X and y were looked at
REFUSED = [
    ("classifier", {}, (SEQUENCES, Y[:5]), r"inconsistent numbers of samples: \[6, 5\]"),
    ("classifier", {}, ([row[:, :1] for row in SEQUENCES], [1] * 6), "y: expected at least 2 classes"),
    ("classifier", {"cell": "foo"}, (TABLE, list("abcd")), "cell: expected one of"),
    ("classifier", LATE, (TABLE, list("abcd")), "hidden_size: expected"),
    ("classifier", {"embedding_dim": 2, "num_embeddings": 1}, (IDS, list("abcabc")), "num_embeddings: expected"),
    ("regressor", {}, (TABLE, [1.0, 2.0, np.nan, 4.0]), "Input y contains NaN"),
    ("regressor", {"cell": "foo"}, (TABLE, RNG.standard_normal((4, 2))), "cell: expected one of"),
    ("regressor", LATE, (TABLE, RNG.standard_normal((4, 2))), "hidden_size: expected"),
    ("forecaster", {"horizon": 8}, (WAVE[:20],), "X: expected at least 88 points"),
    ("forecaster", {"horizon": 8, "period": 999}, (WAVE[:, None],), "period: expected 0"),
    ("forecaster", {"horizon": 8, "period": 0, "lr": -1.0}, (WAVE[:, None],), "lr: expected"),
]


@pytest.mark.parametrize(("kind", "parameters", "data", "message"), REFUSED)
def test_a_refused_fit_leaves_the_old_model_whole(kind, parameters, data, message):
    make, good, ask = ESTIMATORS[kind]
    model = make().set_params(random_state=0).fit(*good)
    before, expected = {k: v for k, v in vars(model).items() if k not in parameters}, pickle.dumps(ask(model))
    model.set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(*data)
    assert pickle.dumps(ask(model)) == expected
    assert {k: v for k, v in vars(model).items() if k not in parameters} == before
    fresh = make().set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        fresh.fit(*data)
    assert vars(fresh) == vars(make().set_params(**parameters)), "nothing half fitted"


@pytest.mark.parametrize("kind", ["string", "category", "object"])
def test_a_label_that_is_missing_is_said_to_be(kind):
    pandas = pytest.importorskip("pandas")
    gap = {"object": np.nan}.get(kind)
    for labels in (pandas.Series([*"abcab", gap], dtype=kind), np.array([*"abcab", None], object)):
        with pytest.raises(ValueError, match="Input y contains NaN"):
            SequenceClassifier(hidden_size=3, epochs=1).fit(SEQUENCES, labels)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        SequenceClassifier(hidden_size=3, epochs=1).fit(SEQUENCES, np.array(["2020", "2021", "NaT"] * 2, "M8[D]"))


@pytest.mark.parametrize("y", [np.arange(6) + 1j, np.arange(6).astype("M8[D]"), np.arange(6).astype("m8[h]")])
def test_what_float64_would_drop_is_no_target(y):
    with pytest.raises(ValueError, match=r"y: expected numbers .*is no real number"):
        SequenceRegressor(hidden_size=3, epochs=1).fit(SEQUENCES, y)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_interrupted_fit_leaves_the_old_model_whole(kind, monkeypatch):
    make, good, ask = ESTIMATORS[kind]
    model = make().set_params(random_state=0).fit(*good)
    expected = pickle.dumps(ask(model))

    def interrupted(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*good)
    assert pickle.dumps(ask(model)) == expected


def test_a_fitted_estimator_is_asked_as_it_was_fitted():
    """Whatever parameters were set since: they are for the next fit."""
    model = SequenceClassifier(hidden_size=3, epochs=1, random_state=0).fit(SEQUENCES, Y)
    expected = model.predict_proba(SEQUENCES)
    np.testing.assert_array_equal(model.set_params(embedding_dim=4).predict_proba(SEQUENCES), expected)
