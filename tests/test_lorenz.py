"""The Lorenz system: its integration, how long a forecast is valid, the regressions beside the network."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.tasks import TASKS, lorenz
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Options

LORENZ = TASKS["lorenz"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, size in {"TRAINING": 20, "HELD_OUT": 6, "POINTS": 200, "FREE_STEPS": 100}.items():
        monkeypatch.setattr(lorenz, name, size)


def begin(seed=0):
    preset = LORENZ.presets["smoke"]
    return lorenz.setup(Options(preset, preset.epochs, None, seed, settings=LORENZ.settings(preset, {})))


def start(rows):
    return np.random.default_rng(0).uniform(-15, 15, (rows, 3))


def test_equations():
    x, y, z = 1.0, 2.0, 3.0
    np.testing.assert_allclose(lorenz.flow(np.array([x, y, z])), [10.0, 1 * 25 - 2, 2 - 8.0])
    rest = np.array([np.sqrt(72), np.sqrt(72), 27])  # a fixed point
    np.testing.assert_allclose(lorenz.flow(rest), 0, atol=1e-12)


def test_integration_is_of_fourth_order():
    begin = start(20)
    fine = lorenz.trajectories(begin, 10, 192)
    errors = [np.abs(lorenz.trajectories(begin, 10, n) - fine).max() for n in (6, 12, 24)]
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 12


def test_valid_time_of_a_known_divergence():
    truth = np.zeros((50, 3, 3))
    forecast = np.zeros((50, 3, 3))
    forecast[20:, 0, 1] = 4.1  # of a spread of 10: over 0.4 from the 21st step on
    forecast[:, 1, 2] = 3.9
    forecast[0, 2, 0] = np.inf
    np.testing.assert_allclose(lorenz.valid_time(forecast, truth, 10.0), np.array([20, 50, 0]) * 0.06 * 0.9056)


@pytest.mark.parametrize(("lags", "quadratic"), [(2, False), (2, True)])
def test_regression_by_brute_force(lags, quadratic):
    x = lorenz.trajectories(start(8), 40)
    model = lorenz.LagRegression(x, lags, quadratic)
    z = (x - x.reshape(-1, 3).mean(0)) / x.reshape(-1, 3).std(0)
    rows, changes = [], []
    for n in range(8):
        for t in range(lags - 1, 39):
            past = np.concatenate([z[t - k, n] for k in range(lags)])
            row = [1.0, *past]
            if quadratic:
                row += [past[i] * past[j] for i in range(len(past)) for j in range(i, len(past))]
            rows.append(row)
            changes.append(z[t + 1, n] - z[t, n])
    residual = changes - np.array(rows) @ np.linalg.lstsq(np.array(rows), np.array(changes))[0]
    expected = np.mean(np.sum((residual * x.reshape(-1, 3).std(0)) ** 2, axis=1))
    assert model.sse(x) == pytest.approx(expected, rel=1e-5)
    one_by_one = [np.square(model(x[: t + 1]) - x[t + 1]).sum(2).mean() for t in range(lags - 1, 39)]
    assert np.mean(one_by_one) == pytest.approx(model.sse(x), rel=1e-6)


def test_a_quadratic_regression_is_far_better_than_a_linear_one():
    x = lorenz.trajectories(start(100), 334)
    learnt, held_out = x[:, :80], x[:, 80:]
    linear, quadratic = lorenz.LagRegression(learnt, 20), lorenz.LagRegression(learnt, 5, quadratic=True)
    assert 1 < linear.sse(held_out) < 2.5
    assert quadratic.sse(held_out) < 0.02


def test_free_run_continues_the_sequence():
    model = lorenz.NextPoint(8, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((5, 2, 3), dtype=np.float32)
    run = model.free_run(x, 4)
    assert run.shape == (4, 2, 3)
    for k in range(4):
        again = model(np.concatenate([x, run[:k]]))[-1]
        np.testing.assert_allclose(run[k], again, rtol=1e-5, atol=1e-6)


def test_test_trajectories_are_not_learnt_from(monkeypatch):
    one = begin()
    whole = lorenz.trajectories
    monkeypatch.setattr(lorenz, "trajectories", lambda *a: whole(*a) * np.where(np.arange(26) < 20, 1, 2)[:, None])
    other = begin()
    for (x, target), (y, goal) in zip(one.batches(0), other.batches(0), strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(target, goal)
        np.testing.assert_array_equal(x[1:], target[:-1])
    assert one.evaluate() != other.evaluate()


def test_a_short_run(no_pictures, tmp_path):
    metrics, line = run_task(LORENZ, Command("smoke", steps=12, out=tmp_path / "run", progress=False))
    assert metrics["sse"] < metrics["persistence_sse"]
    assert "quadratic VAR(5)" in line
    assert {"valid_time", "spread_error", "var_sse", "quadratic_valid_time"} < metrics.keys()
    assert metrics["quadratic_sse"] < metrics["var_sse"]
