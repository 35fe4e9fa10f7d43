"""Bands hold what they say on points that were not learnt from: how their width is set."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.estimators import bands
from fusedrnn.estimators.forecaster import Forecaster
from fusedrnn.estimators.forecasting import BandForecast, ahead, rolling_origins

RECIPE = bands.Recipe(steps=120, batch_size=16, lr=1e-3, seed=0)


def waves(points, seed=0, channels=1):
    """Noise that remembers itself, with a season."""
    rng = np.random.default_rng(seed)
    z = np.zeros((points, channels))
    for t in range(1, points):
        z[t] = 0.8 * z[t - 1] + rng.standard_normal(channels)
    return z + 3 * np.sin(2 * np.pi * np.arange(points) / 24)[:, None]


def learnt(z, horizon=6, seed=0):
    model = BandForecast(z, len(z) * 3 // 4, horizon, 24, np.random.default_rng(seed))
    bands.train(model, RECIPE._replace(seed=seed))
    return model


def share(model, z, begin):
    """The part of the points from `begin` on that the bands hold, from all origins."""
    origins = rolling_origins(begin, len(z), model.horizon)
    low, _, high = np.moveaxis(model(z, origins), -1, 0)
    truth = ahead(z, origins, model.horizon)
    return float(np.mean((low <= truth) & (truth <= high)))


def test_bands_of_short_series_hold_what_they_say():
    """The mean of four, on 300 points that come after."""
    before, after = [], []
    for seed in range(4):
        z = waves(450, seed)
        model = learnt(z[:150], seed=seed)
        before.append(share(model, z, 150))
        middle = model(z, np.array([200]))[..., 1]
        bands.calibrate(model, RECIPE._replace(seed=seed))
        np.testing.assert_array_equal(model(z, np.array([200]))[..., 1], middle, "the forecast itself stays")
        after.append(share(model, z, 150))
    assert np.mean(before) < 0.72, "or there is nothing to mend"
    assert 0.77 < np.mean(after) < 0.92


def test_the_second_network_is_trained_as_the_first():
    """The plain loop gives the bits of the estimator's Trainer."""
    z = waves(200)
    estimator = Forecaster(horizon=6, period=24, steps=7, random_state=0).fit(z[:, 0])
    rng = np.random.default_rng(0)
    seed = int(rng.integers(2**31))
    known = estimator.scaling_.transform(z)
    model = BandForecast(known, 150, 6, 24, rng)
    bands.train(model, bands.Recipe(7, 16, 1e-3, seed))
    np.testing.assert_array_equal(model.network.flatten().data, estimator.model_.network.flatten().data)


def test_the_second_network_learns_from_nothing_that_it_is_judged_on():
    z = waves(200)
    model = learnt(z)
    changed = z.copy()
    changed[model.cut :] = 1e3
    others = []
    for values in (z, changed):
        model.z = values
        other = model.before(np.random.default_rng(0))
        bands.train(other, RECIPE._replace(steps=5))
        others.append(other(z, np.array([100])))
    np.testing.assert_array_equal(*others)
    assert (other.linear.lags, other.linear.smoothing) == (model.linear.lags, model.linear.smoothing)


class Constant:
    """A forecast of 0 within -1 and 1, whatever the series."""

    def __call__(self, z, origins):
        return np.broadcast_to(np.array([-1.0, 0.0, 1.0]), (len(origins), 6, z.shape[1], 3))


@pytest.mark.parametrize("points", [100, 200])
def test_the_factor_by_hand(points):
    """The quantile of errors over widths, of a level above 0.8 by the number of draws; a channel at a time; never less
    than 1."""
    z = np.random.default_rng(0).standard_normal((points, 3)) * [5.0, 0.5, 0.01]
    model = BandForecast(z, points * 3 // 4, 6, 0, np.random.default_rng(0))
    model.widen(Constant())
    origins = range(model.cut - 1, points - 6)
    draws = len(origins) / 2
    level = 0.8 * (draws + 1) / draws
    assert level < 1
    for channel in range(2):
        errors = [abs(z[t + k, channel]) for t in origins for k in range(1, 7)]
        assert model.widening[channel] == pytest.approx(max(1.0, np.quantile(errors, level)))
    assert model.widening[0] > 4 > model.widening[1]
    assert model.widening[2] == 1


def test_wider_bands_stand_around_the_same_mean():
    z = waves(150, channels=2)
    model = learnt(z)
    origins = np.array([100, 120])
    low, middle, high = np.moveaxis(model(z, origins), -1, 0)
    model.widening = np.array([2.0, 3.0])
    wider = np.moveaxis(model(z, origins), -1, 0)
    np.testing.assert_array_equal(wider[1], middle)
    np.testing.assert_allclose(middle - wider[0], (middle - low) * [2, 3], rtol=1e-6)
    np.testing.assert_allclose(wider[2] - middle, (high - middle) * [2, 3], rtol=1e-6)


def test_the_shortest_series_that_there_may_be():
    """Its first three quarters hold fewer origins than a window has steps."""
    model = Forecaster(horizon=1, steps=2, random_state=0).fit(waves(68)[:, 0])
    low, high = model.predict_interval()
    assert np.isfinite([low, high]).all()
    assert low < high
