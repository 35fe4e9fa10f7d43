"""Forecasting series of one or many channels, with bands, beside the baselines that a forecast has to beat.

A ridge regression on deviations from a smoothed season and an LSTM of 16 units that corrects it and bounds it
(`fusedrnn.estimators.forecasting.BandForecast`). The last fifth of the series is the test, and nothing is fitted to it,
not even the scaling; penalty, lags and smoothing are chosen on the fifth before it, then all before the test is learnt
from. How wide the bands are is read off that fifth too, by a second network that learns from what comes before it.
Adam 0.001, falling along a cosine, 16 windows of 48 steps a batch, noise of 0.3 on the inputs, the gradient's norm
clipped at 1.

Metrics, over all origins of the test (rolling, without fitting again), in standard deviations of the training part, on
the target's channels: ``rmse_K`` of the mean forecast K steps ahead, beside it ``last_rmse_K`` (last value),
``seasonal_rmse_K`` (seasonal naive), ``ar_rmse_K`` (ridge autoregression on the points themselves, lags and penalty
chosen on validation) and ``linear_rmse_K`` (the linear part alone); ``coverage`` of the bands, which should be 0.8;
``free_rmse``, of one-step forecasts fed back for the whole horizon, and ``free_ar_rmse``, the autoregression's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.series import Series, load_series
from fusedrnn.data.sources import DataError
from fusedrnn.estimators import bands
from fusedrnn.estimators.forecasting import (
    LEVELS,
    LOOK_BACK,
    Autoregression,
    BandForecast,
    Scaling,
    ahead,
    choose,
    expected,
    find_period,
    free_run,
    lag_choices,
    least_points,
    longest_period,
    rolling_origins,
)
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, RunError, Task, TaskOption
from fusedrnn.train.batches import Batches

BATCH, ITERATIONS, UNITS, FREE_RUNS, LEARNING_RATE = 16, 100, 16, 24, 1e-3
NAMES = {"last": "last value", "seasonal": "seasonal naive", "ar": "ridge autoregression", "linear": "linear part"}


def rmse(forecast: Array, truth: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Root mean squared error, over all axes or some."""
    error: Array = np.sqrt(np.mean((forecast - truth) ** 2, axis=axis))
    return error


def target_channels(series: Series, target: str | None) -> Array:
    """The numbers of the channels that are scored: all, or the one asked for. Raises DataError."""
    if target is None:
        return np.arange(len(series.names))
    if target not in series.names:
        raise DataError(f"--target {target}: expected one of the columns of numbers {', '.join(series.names)}")
    return np.array([series.names.index(target)])


def split(series: Series, horizon: int, period: int | None) -> tuple[int, int, int]:
    """(where validation begins, where the test begins, the period in use). Raises DataError if the parts are too short.

    The period is the one asked for, else that of the series, else the one found in the training part.
    """
    points = len(series.values)
    cut, test = points * 3 // 5, points * 4 // 5
    least = least_points(horizon)
    if points < least:
        raise DataError(
            f"{series.source}: expected at least {least:,} points for windows of {LOOK_BACK} and --horizon {horizon}, "
            f"got {points:,}"
        )
    longest = longest_period(cut, horizon)
    if period is None:
        known = find_period(series.values[:cut]) if series.period is None else series.period
        return cut, test, known if known <= longest else 0
    if period > longest:
        raise DataError(
            f"--period: expected at most {longest:,} for {points:,} points and --horizon {horizon}, got {period}"
        )
    return cut, test, 0 if period == 1 else period


def setup(options: Options) -> Run:
    """One run: the series as ``--data`` says, baselines and linear part fitted, the network from the seed."""
    horizon: int = options.settings["horizon"]
    asked: int | None = options.settings["period"]
    if horizon < 1:
        raise RunError(f"--horizon: expected at least 1, got {horizon}")
    if asked is not None and asked < 0:
        raise RunError(f"--period: expected at least 0 (none), got {asked}")
    how = {name: value for name in READING if (value := options.settings[name]) is not None}
    series = load_series(options.data, options.say, **how)
    scored = target_channels(series, options.settings["target"])
    cut, test, period = split(series, horizon, asked)
    scaling = Scaling.fit(series.values[:test])
    z = scaling.transform(series.values)
    known = z[:test]  # nothing is fitted to what comes after
    channels = z.shape[1]

    model = BandForecast(known, cut, horizon, period, np.random.default_rng(options.seed), UNITS)
    updates = options.total_steps(ITERATIONS)
    bands.calibrate(model, bands.Recipe(updates, BATCH, LEARNING_RATE, options.seed))
    lags = lag_choices(cut - horizon, channels, period)
    plain, plain_error = choose(known, cut, [Autoregression(horizon, n) for n in lags], scored)

    origins = rolling_origins(test, len(z), horizon)
    truth = ahead(z, origins, horizon)[..., scored]
    baselines = {
        "last": expected(z, horizon, 0)[origins],
        "seasonal": expected(z, horizon, period)[origins],
        "ar": plain(z, origins),
        "linear": model.linear(z, origins),
    }
    errors = {name: rmse(forecast[..., scored], truth, (0, 2)) for name, forecast in baselines.items()}
    steps = sorted({1, -(-horizon // 4), -(-horizon // 2), horizon})

    # one step ahead, where there are most errors that do not overlap; by more than choosing among many may bring
    changes = np.diff(z[cut - 1 : test - horizon + 1, scored], axis=0)
    skill = period > 0 or plain_error[0] < 0.98 * float(np.mean(changes**2))
    if not skill:
        options.say(
            "NOTE: no season was found, and on validation the autoregression is no better than the last value, as with "
            "prices: no skill is claimed"
        )

    def batches(epoch: int) -> Batches:
        return Batches(ITERATIONS, lambda i: model.batch(np.random.default_rng([options.seed, epoch, i]), BATCH))

    def evaluate() -> Metrics:
        spread = model(z, origins)[:, :, scored]
        own = rmse(spread[..., 1], truth, (0, 2))
        inside = (spread[..., 0] <= truth) & (truth <= spread[..., 2])
        return {**{f"rmse_{k}": float(own[k - 1]) for k in steps}, "coverage": float(inside.mean())}

    def free_error(forecast: Any) -> float:
        some = origins[:: max(horizon, -(-len(origins) // FREE_RUNS))]
        runs = np.stack([free_run(lambda past: forecast(past)[:1], z[: t + 1], horizon) for t in some])
        return float(rmse(runs[..., scored], ahead(z, some, horizon)[..., scored]))

    def figures() -> Metrics:
        metrics = evaluate()
        for name, error in errors.items():
            metrics |= {f"{name}_rmse_{k}": float(error[k - 1]) for k in steps}
        metrics["free_rmse"] = free_error(lambda past: model(past, np.array([len(past) - 1]))[0, ..., 1])
        metrics["free_ar_rmse"] = free_error(lambda past: plain(past, np.array([len(past) - 1]))[0])
        options.say(table(metrics, steps))
        return metrics

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        channel = scored[0]
        shown = origins[:: max(horizon, 1)][:6]
        forecasts = model(z, shown)[:, :, channel] * scaling.deviation[channel] + scaling.mean[channel]
        begin, end = int(shown[0] + 1 - 2 * horizon), int(shown[-1] + 1 + horizon)
        title = f"{series.source}, {series.names[channel]}: {horizon} steps ahead, with {BAND} bands"
        times = shown[:, None] + np.arange(1, horizon + 1)
        points = np.arange(max(begin, 0), end)
        pictures.draw_forecast(
            path, points, series.values[points, channel], times, forecasts, series.names[channel], title
        )

    def headline(metrics: Metrics) -> str:
        beside = ", ".join(
            f"{NAMES[name]} {metrics[f'{name}_rmse_{horizon}']:.4f}" for name in ("last", "seasonal", "ar")
        )
        return (
            f"error {metrics[f'rmse_{horizon}']:.4f} standard deviations {horizon} steps ahead ({beside}), "
            f"{BAND} bands hold {100 * metrics['coverage']:.1f} %{'' if skill else '; no skill is claimed'}"
        )

    best = np.min([errors[name] for name in ("last", "seasonal", "ar")], axis=0)
    return Run(
        model=model.network,
        loss=model.loss,
        optimizer=Adam(model.network, lr=LEARNING_RATE),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(updates),
        clip_norm=1.0,
        evaluate=evaluate,
        figures=figures,
        baseline={f"rmse_{k}": float(best[k - 1]) for k in steps},
        draw=draw,
        headline=headline,
        metadata={"channels": list(series.names), "sha256": hashlib.sha256(series.values.tobytes()).hexdigest()},
    )


BAND = f"{100 * (LEVELS[1] - LEVELS[0]):.0f} %"


def table(metrics: Metrics, steps: Sequence[int]) -> str:
    """The errors of model and baselines at every reported horizon, one a line."""
    rows = [("steps ahead", [f"{k:8d}" for k in steps])]
    for key, name in {"": "this model", **{f"{key}_": name for key, name in NAMES.items()}}.items():
        rows.append((name, [f"{metrics[f'{key}rmse_{k}']:8.4f}" for k in steps]))
    return "\n".join(f"{name:22}{''.join(cells)}" for name, cells in rows)


# how a file is read, by the names of `fusedrnn.data.series.read_csv`
READING: dict[str, tuple[type, str]] = {
    "columns": (str, "the columns to look at, with commas between; else all of numbers that are no index"),
    "time": (str, "the column of times, none to take lines as they come; else found"),
    "date_format": (str, "how its dates are written, such as %d/%m/%Y; else found"),
    "sep": (str, "what separates cells: one character, tab or space; else found"),
    "decimal": (str, "the decimal sign, . or , ; else found"),
    "header": (int, "the line of the columns' names, 0 for none; else found"),
    "encoding": (str, "of the text, such as cp1252; else UTF-8"),
}


FORECAST = Task(
    name="forecast",
    about="forecast a series of one or many channels with bands (linear part and LSTM)",
    presets={
        "smoke": Preset("100 updates, seconds", epochs=1),
        "default": Preset("300 updates", epochs=3),
        "best": Preset("600 updates", epochs=6),
    },
    setup=setup,
    data='a CSV file, or "taylor" (demand for electricity), "weather" (six channels); else taylor, fetched',
    options=(
        TaskOption("target", str, "the column to score and draw; else all. All columns of numbers are looked at"),
        TaskOption("horizon", int, "how many steps ahead; else 24", 24),
        TaskOption("period", int, "the season in steps, 0 for none; else found"),
        *(TaskOption(name, *words, before="none" if name == "time" else None) for name, words in READING.items()),
    ),
)
