"""The estimator of series: shapes, scores, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.estimators.forecaster import Forecaster, NotFittedError
from fusedrnn.estimators.forecasting import BandForecast


def made(points=420, channels=None, seed=0):
    times = np.arange(points)[:, None] + np.arange(channels or 1)
    z = 50 + 3 * np.sin(2 * np.pi * times / 20) + 0.3 * np.random.default_rng(seed).standard_normal(times.shape)
    return z if channels else z[:, 0]


@pytest.fixture(scope="module")
def fitted():
    return Forecaster(horizon=10, steps=40, random_state=0).fit(made()[:360])


def test_forecasts_follow_the_season(fitted):
    assert fitted.period_ == 20
    forecast = fitted.predict()
    assert forecast.shape == (10,)
    truth = made()[360:]
    assert np.sqrt(np.mean((forecast - truth[:10]) ** 2)) < 0.6
    far = fitted.predict(60)
    np.testing.assert_array_equal(far[:10], forecast)
    assert np.sqrt(np.mean((far - truth) ** 2)) < 0.8
    low, high = fitted.predict_interval(4)
    assert (low < forecast[:4]).all()
    assert (forecast[:4] < high).all()


def test_score_by_hand(fitted):
    later = made()[360:]
    squares, truths = [], []
    for t in range(0, 51):
        again = Forecaster(**fitted.get_params())
        again.__dict__.update(fitted.__dict__)
        again._known = fitted.scaling_.transform(made()[: 360 + t, None])
        squares.append((again.predict() - later[t : t + 10]) ** 2)
        truths.append(later[t : t + 10])
    expected = 1 - np.mean(squares) / np.var(truths)
    assert fitted.score(later) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.9


def test_many_channels():
    model = Forecaster(horizon=5, period=20, steps=5, random_state=1).fit(made(channels=3)[:400])
    assert model.predict(7).shape == (7, 3)
    assert [bound.shape for bound in model.predict_interval()] == [(5, 3)] * 2
    assert model.score(made(channels=3)[400:]) > 0.9


def test_the_same_random_state_gives_the_same_bits():
    one, same, other = (Forecaster(horizon=5, steps=5, random_state=n).fit(made()).predict() for n in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_every_update_sees_windows_of_its_own(monkeypatch):
    seen, batch = [], BandForecast.batch

    def watched(self, rng, rows):
        x, target = batch(self, rng, rows)
        seen.append(target.tobytes())
        return x, target

    monkeypatch.setattr(BandForecast, "batch", watched)
    Forecaster(horizon=5, steps=4, random_state=0).fit(made())
    assert len(set(seen[:4])) == len(set(seen[4:])) == 4, "those of the network, and of the one that sets the bands"


def test_parameters_are_kept():
    model = Forecaster(horizon=7)
    assert model.set_params(steps=3, lr=0.1) is model
    assert model.get_params()["steps"] == 3
    assert Forecaster(**model.get_params()).get_params() == model.get_params()
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        model.set_params(colour=1)


@pytest.mark.parametrize(
    ("parameters", "series", "message"),
    [
        ({}, made(100), "X: expected at least 192 points for horizon 24, got 100"),
        ({}, np.full(300, np.nan), r"X: expected finite numbers, got nan at \(0, 0\)"),
        ({}, np.zeros((2, 3, 4)), r"X: expected a series of numbers \[T\] or \[T, C\], got float64 \(2, 3, 4\)"),
        ({}, ["a", "b"], "X: expected a series of numbers"),
        ({"horizon": 0}, made(), "horizon: expected at least 1, got 0"),
        ({"horizon": 5.0}, made(), "horizon: expected an integer, got 5.0"),
        ({"period": 20.0}, made(), "period: expected an integer, got 20.0"),
        ({"steps": 0}, made(), "steps: expected at least 1, got 0"),
        ({"period": 200}, made(), r"period: expected 0 \(none\) to 73 for 420 points, got 200"),
    ],
)
def test_what_fit_refuses(parameters, series, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Forecaster(**parameters).fit(series)


def test_a_second_argument_is_refused():
    """As sktime has it: fit(y, X)."""
    with pytest.raises(ValueError, match="y: expected None, got ndarray; further series are columns of X"):
        Forecaster(horizon=5).fit(made(), made())


def test_a_fitted_one_is_asked_as_it_was_fitted():
    """Whatever parameters were set since: they are for the next fit."""
    model = Forecaster(horizon=5, steps=5, random_state=0).fit(made()[:380])
    expected = model.predict(), model.predict_interval(), model.score(made()[380:])
    model.set_params(horizon=10)
    found = model.predict(), model.predict_interval(), model.score(made()[380:])
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_fitted_one_refuses(fitted):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        Forecaster().predict()
    for call, message in (
        (lambda: fitted.predict(0), "horizon: expected at least 1, got 0"),
        (lambda: fitted.predict(2.5), "horizon: expected an integer, got 2.5"),
        (lambda: fitted.predict([1, 2]), r"horizon: expected an integer, got \[1, 2\]"),
        (lambda: fitted.predict_interval(2.0), "horizon: expected an integer, got 2.0"),
        (lambda: fitted.score(made(), made()), "y: expected None, got ndarray; further series are columns of X"),
        (lambda: fitted.predict_interval(11), "horizon: expected 1 to 10, as in fit, got 11"),
        (lambda: fitted.score(made()[:9]), "X: expected at least 10 points"),
        (lambda: fitted.score(made(channels=2)), "X: expected 1 channels as in fit, got 2"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.parametrize("unit", [1e200, 1e-200])
def test_series_in_units_whose_squares_are_no_numbers(unit):
    series = np.sin(np.arange(300) / 24 * 2 * np.pi)
    made = [
        Forecaster(horizon=3, steps=1, hidden_size=2, random_state=0).fit(series * scale).predict() / scale
        for scale in (1, unit)
    ]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-3, atol=1e-5)
