"""The figures that the README states, over seeds: full training runs. ``pytest -m slow`` runs them, in about ten
minutes on two cores."""

from __future__ import annotations

from statistics import median

import pytest

from fusedrnn.data import DataError
from fusedrnn.tasks import TASKS
from fusedrnn.tasks.run import Command, run_task

pytestmark = pytest.mark.slow


@pytest.fixture
def figures(tmp_path):
    """figures(task, seeds, preset): the final metrics of one run for each seed."""

    def train(task, seeds, preset="default"):
        commands = [Command(preset, seed=seed, out=tmp_path / f"{preset}-{seed}") for seed in range(seeds)]
        return [run_task(TASKS[task], command)[0] for command in commands]

    return train


def test_count_ones(figures):
    """Published: 0.1 % at epoch 200."""
    errors = [metrics["test_error"] for metrics in figures("count-ones", 5)]
    assert median(errors) <= 0.001, errors
    assert max(errors) <= 0.003, errors


def test_count_ones_smoke(figures):
    errors = [metrics["test_error"] for metrics in figures("count-ones", 3, "smoke")]
    assert max(errors) < 0.06, errors


def test_addition(figures):
    """Published: every bit right at epoch 10. And the carry is learnt, not the length."""
    runs = figures("addition", 5)
    assert [metrics["accuracy"] for metrics in runs] == [1.0] * 5
    assert min(metrics["exact_64"] for metrics in runs) >= 0.99, runs
    assert min(metrics["exact_256"] for metrics in runs) >= 0.99, runs


def test_adding_problem(figures):
    (metrics,) = figures("adding-problem", 1)
    assert metrics["lstm_mse"] <= 0.01
    assert metrics["rnn_mse"] >= 0.10


@pytest.fixture
def mnist(figures):
    def train(seeds, preset):
        try:
            return [metrics["accuracy"] for metrics in figures("mnist", seeds, preset)]
        except DataError as error:
            pytest.skip(f"MNIST cannot be had here: {error}")

    return train


def test_mnist_in_the_lectures_budget(mnist):
    """Published: 98.4 % of 128 images after 100,000 samples, that is 94.5 to 99.6 %."""
    accuracies = mnist(3, "lecture")
    assert median(accuracies) >= 0.955, accuracies


def test_mnist(mnist):
    assert mnist(1, "default")[0] >= 0.984


@pytest.mark.parametrize("preset", ["default", "smoke"])
def test_forecast(figures, preset):
    """Demand twelve hours ahead: better than last value, seasonal naive and the tuned ridge autoregression."""
    try:
        runs = figures("forecast", 3, preset)
    except DataError as error:
        pytest.skip(f"the series cannot be had here: {error}")
    best = min(runs[0][f"{name}_rmse_24"] for name in ("last", "seasonal", "ar"))
    assert median(metrics["rmse_24"] for metrics in runs) < best, runs
    assert 0.7 < median(metrics["coverage"] for metrics in runs) < 0.9, runs


def test_lorenz(figures):
    runs = figures("lorenz", 3)
    assert median(metrics["sse"] for metrics in runs) <= 0.30, runs
    assert median(metrics["valid_time"] for metrics in runs) >= 3.0, runs
    assert median(metrics["spread_error"] for metrics in runs) <= 0.10, runs


def test_lorenz_smoke(figures):
    (metrics,) = figures("lorenz", 1, "smoke")
    assert metrics["sse"] <= 0.8
