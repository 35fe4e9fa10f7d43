"""Series, frames and masked arrays: their index, columns and masks count, or are refused."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from fusedrnn.estimators import given
from fusedrnn.estimators.forecaster import Forecaster
from fusedrnn.estimators.many_to_one import SequenceClassifier, SequenceRegressor

N = 150
HOURS = pd.date_range("2024-01-01", periods=N, freq="h")
VALUES = np.sin(np.arange(N) / 24 * 2 * np.pi)
DATED = pd.Series(VALUES, index=HOURS)
FRAME = pd.DataFrame({"a": VALUES, "b": np.cos(np.arange(N))}, index=HOURS)
COUNTED = DATED.reset_index(drop=True)


def forecaster():
    return Forecaster(horizon=2, period=12, steps=1, hidden_size=2, random_state=0)


GOOD = {
    "times": DATED,
    "a zone": DATED.tz_localize("Europe/Berlin"),
    "periods": DATED.to_period("h"),
    "durations": pd.Series(VALUES, index=HOURS - HOURS[0]),
    "months": pd.Series(VALUES, index=pd.date_range("2000-01-31", periods=N, freq="MS")),
    "the 15th of months": pd.Series(
        VALUES, index=pd.date_range("2000-01-01", periods=N, freq="MS") + pd.Timedelta("14D")
    ),
    "hours into summer": pd.Series(VALUES, index=pd.date_range("2024-03-30", periods=N, freq="h", tz="Europe/Berlin")),
    "days into summer": pd.Series(VALUES, index=pd.date_range("2024-03-01", periods=N, freq="D", tz="Europe/Berlin")),
    "days as objects": pd.Series(VALUES, index=[datetime.date(2024, 1, 1) + datetime.timedelta(k) for k in range(N)]),
    "times as text": pd.Series(VALUES, index=HOURS.astype(str)),
    "counts": pd.Series(VALUES, index=range(100, 100 + 2 * N, 2)),
    "fractions": pd.Series(VALUES, index=np.arange(N) * 0.1),
    "names": pd.Series(VALUES, index=[f"point {N - k}" for k in range(N)]),
    "a type that may hold NA": DATED.astype("Float64"),
    "a mask of nothing": np.ma.masked_greater(VALUES, 9),
}


@pytest.mark.parametrize("form", GOOD)
def test_an_index_in_order_changes_nothing(form):
    values = given.array(GOOD[form], "X")
    np.testing.assert_array_equal(values, VALUES)
    assert values.dtype == np.float64
    given.even_index(GOOD[form], "X")


BAD = {
    "shuffled": (DATED.sample(frac=1, random_state=0), r"out of order\. sort_index\(\)"),
    "newest first": (DATED[::-1], "at point 1: .* comes after .*: out of order"),
    "a hole": (DATED.drop(HOURS[50:60]), "at point 50: .* frequency is h: 10 points are missing, from 2024-01-03 02"),
    "twice": (pd.concat([DATED[:100], DATED[99:]]), "at point 100: 2024-01-05 03:00:00 comes twice"),
    "a time missing": (pd.Series(VALUES, index=[pd.NaT, *HOURS[1:]]), "at point 0: the time is missing"),
    "periods with a hole": (DATED.to_period("h").drop(pd.Period("2024-01-01 07:00", "h")), "1 points are missing"),
    "durations with a hole": (pd.Series(VALUES, index=HOURS - HOURS[0]).drop(HOURS[7] - HOURS[0]), "at point 7: "),
    "text with a hole": (pd.Series(VALUES, index=HOURS.astype(str)).drop(str(HOURS[20])), "1 points are missing"),
    "text of two meanings": (
        pd.Series(VALUES[:2], index=["01/02/2020", "02/02/2020"]),
        "its index: '01/02/2020' may be",
    ),
    "counts backwards": (COUNTED[::-1], "at point 1: 148 comes after 149: out of order"),
    "counts with a hole": (COUNTED.drop(5), "at point 5: 6 comes after 4, where the usual step is 1"),
    "a frame": (FRAME[::-1], "out of order"),
    "several series": (FRAME.stack(), "expected one series, got an index of 2 levels"),
    "masked": (np.ma.masked_less(VALUES, -0.9), "X: expected no masked values, got"),
    "masked in a list": ([*VALUES[:-1], np.ma.masked], r"X\[149\]: expected no masked values, got 1"),
    "NA": (DATED.astype("Float64").where(DATED > -0.9), "X: expected finite numbers, got nan"),
}


@pytest.mark.parametrize("form", BAD)
def test_a_series_is_not_taken_as_it_lies(form):
    series, message = BAD[form]
    with pytest.raises(ValueError, match=message):
        forecaster().fit(series)


def test_score_wants_the_same_columns_and_what_follows():
    model = forecaster().fit(FRAME[:130])
    expected = model.score(FRAME[130:].to_numpy())
    assert model.score(FRAME[130:]) == expected
    assert model.score(FRAME[130:].reset_index(drop=True)) == expected
    for frame, message in (
        (FRAME[130:][["b", "a"]], r"expected the columns \['a', 'b'\] in this order, as in fit, got \['b', 'a'\]"),
        (FRAME[130:].rename(columns={"b": "c"}), r"expected the columns \['a', 'b'\], as in fit, got \['a', 'c'\]"),
        (FRAME[133:], r"the series that follows that of fit; at point 0: .* 3 points are missing"),
        (FRAME[129:], "at point 0: 2024-01-06 09:00:00 comes twice"),
        (FRAME[130:].drop(HOURS[140]), "at point 10: .* 1 points are missing"),
    ):
        with pytest.raises(ValueError, match=message):
            model.score(frame)


SEQUENCES = [FRAME[k : k + 4 + k % 3] for k in range(0, 20)]
LABELS = np.arange(20) % 2


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_sequences_of_frames(kind):
    model = kind(epochs=1, hidden_size=2, random_state=0).fit(SEQUENCES, LABELS)
    plain = kind(epochs=1, hidden_size=2, random_state=0).fit([frame.to_numpy() for frame in SEQUENCES], LABELS)
    np.testing.assert_array_equal(model.predict(SEQUENCES), plain.predict(SEQUENCES))
    other = SEQUENCES[-1][["b", "a"]]
    with pytest.raises(ValueError, match=r"X\[0\]: expected the columns \['a', 'b'\] in this order, as in fit"):
        model.predict([other])
    for X, message in (
        (
            [SEQUENCES[0].to_numpy(), *SEQUENCES[1:-1], other],
            r"X\[19\]: expected the columns \['a', 'b'\] in this order",
        ),
        ([*SEQUENCES[:-1], SEQUENCES[-1][::-1]], r"X\[19\]: expected rows in the order of their index, got 2024-01-01"),
        ([*SEQUENCES[:-1], np.ma.masked_greater(np.ones((3, 2)), 0)], r"X\[19\]: expected no masked values, got 6"),
        (np.ma.masked_greater(np.ones((20, 3, 2)), 0), "X: expected no masked values, got 120"),
        (np.ma.masked_greater(np.ones((20, 2)), 0), "X: expected no masked values, got 40"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(epochs=1, hidden_size=2).fit(X, LABELS)
    with pytest.raises(ValueError, match="y: expected no masked values, got 10"):
        kind(epochs=1, hidden_size=2).fit(SEQUENCES, np.ma.masked_equal(LABELS, 1))


def test_sequences_of_tokens_in_a_series():
    rows = [pd.Series([1, 2, 3]), pd.Series([2, 1])]
    SequenceClassifier(epochs=1, hidden_size=2, embedding_dim=2).fit(rows, [0, 1])
    with pytest.raises(ValueError, match=r"X\[1\]: expected rows in the order of their index, got 0 after 1"):
        SequenceClassifier(epochs=1, hidden_size=2, embedding_dim=2).fit([rows[0], rows[1][::-1]], [0, 1])
