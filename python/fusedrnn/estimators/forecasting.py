"""Forecasts of series, linear and recurrent: what the task ``forecast`` and the estimator `Forecaster` share.

A series is ``z [T, C]``, T points of C channels at equal distances. An origin t is the last point that a forecast of
the points t + 1 to t + H may look at; nothing here looks further. `Autoregression` is the linear part in closed form,
`BandForecast` adds a network that corrects it and says how sure the forecast is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, Linear, Sequential

PENALTIES = tuple(10.0 ** np.arange(-3, 5))
LEVELS = (0.1, 0.9)  # the quantiles that bound a band
GAUSSIAN = (-1.2816, 0.0, 1.2816)  # the same quantiles of a standard normal distribution, around its mean
LOOK_BACK, WARM_UP, NOISE = 48, 12, 0.3  # steps of a window, those of them without a loss; added to inputs in training


def _unit(values: Array) -> Array:
    """[C]: what to divide by lest squares overflow or vanish; 1 for all usual numbers."""
    largest = np.abs(values).max(0)
    unit: Array = np.where((largest > 1e100) | ((largest < 1e-100) & (largest > 0)), largest, 1.0)
    return unit


class Scaling(NamedTuple):
    """Means and standard deviations ``[C]`` of the points to fit on; a channel that never changes keeps its unit."""

    mean: Array
    deviation: Array

    @classmethod
    def fit(cls, values: Array) -> Scaling:
        same = values.max(0) == values.min(0)  # whose deviation need not be 0: means are rounded
        unit = _unit(values)
        values = values / unit
        return cls(np.where(same, values[0], values.mean(0)) * unit, np.where(same, 1.0, values.std(0) * unit))

    def transform(self, values: Array) -> Array:
        scaled: Array = (values - self.mean) / self.deviation
        return scaled

    def inverse_transform(self, scaled: Array) -> Array:
        values: Array = scaled * self.deviation + self.mean
        return values


def find_period(z: Array, least: float = 0.3) -> int:
    """The season of z [T, C]: the lag of the highest peak of the autocorrelation, averaged over channels, up to a
    sixth of the series; 0 if none reaches `least`. The first peak within 0.05 of the highest counts, for its multiples
    peak as well. A peak is higher than what lies on either side of it and than the valley before it by 0.1."""
    z = z / _unit(z)
    centred = z - z.mean(0)
    spectrum = np.fft.rfft(centred, 2 * len(z), axis=0)
    sums = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[: len(z) // 6 + 2]
    overlap = (len(z) - np.arange(len(sums)))[:, None]
    correlation = (sums / overlap / np.maximum(sums[:1] / len(z), 1e-300)).mean(1)
    inner = correlation[1:-1]
    valley = np.minimum.accumulate(correlation)[1:-1]
    peak = (inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner >= least) & (inner > valley + 0.1)
    peaks = np.where(peak, inner, -np.inf)
    return int(1 + np.argmax(peaks >= peaks.max() - 0.05)) if peak.any() else 0


def season(z: Array, period: int, smoothing: float) -> Array:
    """[T + S, C]: for every point its value a season earlier, exponentially smoothed over the seasons before it.

    ``smoothing`` from 0 to 1 is the weight of the latest season: at 1 this is the seasonal naive forecast. The first
    season has nothing before it and stands for itself.
    """
    count = -(-len(z) // period)
    whole = np.full((count * period, z.shape[1]), np.nan)
    whole[: len(z)] = z
    seasons = whole.reshape(count, period, -1)
    levels = np.empty((count + 1, *seasons.shape[1:]))
    levels[0] = levels[1] = seasons[0]
    for k in range(1, count):
        levels[k + 1] = levels[k] + smoothing * (seasons[k] - levels[k])
    smoothed: Array = levels.reshape(-1, z.shape[1])[: len(z) + period]
    return smoothed


def expected(z: Array, horizon: int, period: int, smoothing: float = 1.0) -> Array:
    """[T, H, C]: for every origin what the season says of the next points; without a season the last value."""
    if period == 0:
        return np.repeat(z[:, None], horizon, axis=1)
    steps = np.arange(horizon) % period + 1  # more than a season ahead the last season known counts again
    ahead: Array = season(z, period, smoothing)[np.arange(len(z))[:, None] + steps]
    return ahead


def ahead(z: Array, origins: Array, horizon: int) -> Array:
    """[n, H, C]: the points that follow each origin."""
    return z[origins[:, None] + np.arange(1, horizon + 1)]


def lagged(z: Array, origins: Array, lags: int) -> Array:
    """[n, lags * C]: the last points up to each origin, the latest first."""
    return z[origins[:, None] - np.arange(lags)].reshape(len(origins), -1)


def rolling_origins(begin: int, end: int, horizon: int) -> Array:
    """All origins whose H points to forecast lie within ``begin <= point < end``."""
    return np.arange(begin - 1, end - horizon)


def least_points(horizon: int) -> int:
    """The shortest series, its last two fifths to validate and to test on."""
    return 5 * max(2 * horizon, -(-(LOOK_BACK + 2 * horizon) // 3))


def longest_period(cut: int, horizon: int) -> int:
    """The longest season that `cut` points to choose with allow for."""
    return (cut - LOOK_BACK - 2 * horizon) // 3


class Ridge:
    """Least squares with a penalty on the squared weights, the offset free of it; one factorization for all penalties.

    x [n, inputs], y [n, outputs].
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.x_mean, self.y_mean = x.mean(0), y.mean(0)
        centred = x - self.x_mean
        values, self.vectors = np.linalg.eigh(centred.T @ centred)
        self.values = np.maximum(values, 0)
        self.projected = self.vectors.T @ (centred.T @ (y - self.y_mean))

    def weights(self, penalty: float) -> tuple[Array, Array]:
        """(weights [inputs, outputs], offset [outputs])."""
        weights: Array = self.vectors @ (self.projected / (self.values + penalty)[:, None])
        return weights, self.y_mean - self.x_mean @ weights


class Autoregression:
    """Linear forecasts, for each horizon by its own ridge regression on the last `lags` points of all channels.

    Args:
        period: None regresses the points themselves; a season S, or 0 for none, regresses their deviations from what
            `expected` says, and adds them to it. smoothing: of the season.
    """

    def __init__(self, horizon: int, lags: int, period: int | None = None, smoothing: float = 1.0) -> None:
        self.horizon, self.lags, self.period, self.smoothing = horizon, lags, period, smoothing
        self.first = lags - 1 + 2 * (self.period or 0)  # the first origin to fit on: a season takes two to be one
        self.weights: tuple[Array, Array] | None = None
        self.penalty = 0.0

    def base(self, z: Array) -> Array:
        """[T, H, C]: what the forecasts deviate from."""
        if self.period is None:
            return np.zeros((len(z), self.horizon, z.shape[1]))
        return expected(z, self.horizon, self.period, self.smoothing)

    def deviations(self, z: Array) -> Array:
        """[T, C]: of every point from what was expected of it a point earlier, or a season earlier."""
        if self.period is None:
            return z
        if self.period == 0:
            return np.diff(z, axis=0, prepend=z[:1])
        deviations: Array = z - season(z, self.period, self.smoothing)[: len(z)]
        return deviations

    def prepared(self, z: Array, end: int) -> Ridge:
        """The regression over all origins whose points to forecast come before `end`."""
        origins = rolling_origins(self.first + 1, end, self.horizon)
        inputs, base = self.parts(z, origins)
        return Ridge(inputs, (ahead(z, origins, self.horizon) - base).reshape(len(origins), -1))

    def fit(self, z: Array, penalty: float) -> Autoregression:
        self.weights, self.penalty = self.prepared(z, len(z)).weights(penalty), penalty
        return self

    def refitted(self, z: Array) -> Autoregression:
        """The same choices, fitted on other points."""
        return Autoregression(self.horizon, self.lags, self.period, self.smoothing).fit(z, self.penalty)

    def __call__(self, z: Array, origins: Array) -> Array:
        """[n, H, C]: the forecasts from each origin, which must be `lags` - 1 or later."""
        assert self.weights is not None
        return self.combined(*self.parts(z, origins), self.weights)

    def parts(self, z: Array, origins: Array) -> tuple[Array, Array]:
        """What forecasts are made of, whatever the weights: the regression's inputs, and what is added to it."""
        return lagged(self.deviations(z), origins, self.lags), self.base(z)[origins]

    def combined(self, inputs: Array, base: Array, weights: tuple[Array, Array]) -> Array:
        """[n, H, C]: forecasts out of their parts."""
        forecast: Array = base + (inputs @ weights[0] + weights[1]).reshape(base.shape)
        return forecast


def choose(
    z: Array, cut: int, candidates: Iterable[Autoregression], channels: Array | slice = slice(None)
) -> tuple[Autoregression, Array]:
    """The autoregression and penalty that do best on the points from `cut` on when fitted before it, fitted on all of
    `z`; and its mean squared error there, [H], over the `channels` that count, as it was fitted before."""
    best: tuple[Array, Autoregression, float] | None = None
    for candidate in candidates:
        origins = rolling_origins(cut, len(z), candidate.horizon)
        truth = ahead(z, origins, candidate.horizon)[..., channels]
        ridge = candidate.prepared(z, cut)
        parts = candidate.parts(z, origins)
        for penalty in PENALTIES:
            forecast = candidate.combined(*parts, ridge.weights(penalty))
            error = np.mean((forecast[..., channels] - truth) ** 2, axis=(0, 2))
            if best is None or error.mean() < best[0].mean():
                best = error, candidate, penalty
    assert best is not None
    return best[1].fit(z, best[2]), best[0]


def lag_choices(points: int, channels: int, period: int) -> list[int]:
    """Lags worth trying with so many points to fit on: from 6 up to a season and a bit, no more weights than would be
    sensible."""
    wanted = {6, 12, 24, 48, 96, period + 1, period + 48}
    most = max(2, min(points // 4, 1200 // channels))
    return sorted({min(lags, most) for lags in wanted})


class Network(Sequential):
    """A Sequential that gives its outputs alone, without the states: each window starts anew."""

    def forward(self, x: Array, states: Any = None) -> Array:
        """Outputs [T, N, outputs] of x [T, N, inputs]."""
        out: Array = super().forward(x, states)[0]
        return out


class BandLoss:
    """Of a mean and the quantiles around it: squared error of the one, pinball loss of the others.

    prediction [T, N, H * C * 3] (lower quantile, mean, upper quantile) and target [T, N, H * C]; the first WARM_UP
    steps of a window do not count. The mean over all that counts is the loss. Quantiles: Koenker and Bassett 1978.
    """

    def __call__(self, prediction: Array, target: Array) -> float:
        spread = prediction.reshape(*target.shape, 3)
        error = target[..., None] - spread
        levels = np.array([LEVELS[0], 0.0, LEVELS[1]], spread.dtype)
        losses = np.maximum(levels * error, (levels - 1) * error)
        slopes = np.where(error > 0, -levels, 1 - levels)
        losses[..., 1], slopes[..., 1] = error[..., 1] ** 2 / 4, -error[..., 1] / 2
        slopes[:WARM_UP] = 0
        count = target[WARM_UP:].size
        self.slopes = (slopes / count).astype(prediction.dtype).reshape(prediction.shape)
        return float(losses[WARM_UP:].sum() / count)

    def backward(self) -> Array:
        return self.slopes


class BandForecast:
    """A linear forecast, corrected by an LSTM that also bounds it; made from the points that may be learnt from.

    The season is smoothed as in Smyl's ES-RNN (2020), and the linear part stands beside the recurrent one as in LSTNet
    (Lai et al. 2018). The linear part is fitted here; `network`, `batches` and `loss` are for a Trainer.

    It fits too well what it was fitted to, so that its bands are too narrow for other points, on short series by much.
    `before` gives the same forecast learnt from less, and `widen` reads off its errors on the rest how wide bands have
    to be (split conformal prediction: Vovk et al. 2005, Romano et al. 2019).

    Args:
        z: [T, C] scaled, all of it to be learnt from. cut: where its part to choose penalty, lags and smoothing on
            begins. horizon: H. period: S, 0 for none. linear: chosen already, and fitted.
    """

    def __init__(
        self,
        z: Array,
        cut: int,
        horizon: int,
        period: int,
        rng: np.random.Generator,
        units: int = 16,
        linear: Autoregression | None = None,
    ) -> None:
        channels = z.shape[1]
        self.z, self.cut, self.horizon, self.units = z, cut, horizon, units
        self.widening = np.ones(channels)
        if linear is None:
            smoothings = (1.0, 0.7, 0.5, 0.3, 0.1, 0.03) if period else (1.0,)
            lags = lag_choices(cut - 2 * period - horizon, channels, 0)
            linear, _ = choose(
                z, cut, [Autoregression(horizon, n, period, smoothing) for smoothing in smoothings for n in lags]
            )
        self.linear = linear
        origins = rolling_origins(self.linear.first + 1, len(z), horizon)
        residuals = ahead(z, origins, horizon) - self.linear(z, origins)
        self.scale = np.maximum(residuals.std(0), 1e-6)
        self.first = origins[0]
        self.inputs = self.features(z)
        self.targets = (residuals / self.scale).reshape(len(origins), -1).astype(np.float32)
        head = Linear(units, horizon * channels * 3, rng=rng)
        # training sets off from the linear forecast, with a band as if its errors were Gaussian
        head.weight.data *= 0.01
        assert head.bias is not None
        head.bias.data.reshape(-1, 3)[:] = GAUSSIAN
        self.network = Network(LSTM(2 * channels, units, forget_bias=1.0, rng=rng), head)
        self.loss = BandLoss()

    def features(self, z: Array) -> Array:
        """[T, 2 C] float32: the points, and their deviations from what was expected of them."""
        return np.concatenate([z, self.linear.deviations(z)], axis=1).astype(np.float32)

    def batch(self, rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
        """Windows that begin anywhere: inputs [T, N, 2 C] with noise, and the linear forecast's scaled errors."""
        length = min(LOOK_BACK, len(self.targets))
        begins = rng.integers(0, len(self.targets) - length + 1, rows)
        steps = np.arange(length)[:, None] + begins
        inputs = self.inputs[self.first + steps]
        return inputs + NOISE * rng.standard_normal(inputs.shape, dtype=np.float32), self.targets[steps]

    def __call__(self, z: Array, origins: Array) -> Array:
        """[n, H, C, 3]: lower quantile, mean and upper quantile from each origin, of scaled points z [T, C]."""
        features = self.features(z)
        steps = np.arange(1 - LOOK_BACK, 1)[:, None]
        parts, training = [], self.network.training
        self.network.eval()  # no backward comes
        try:
            for some in np.array_split(origins, -(-len(origins) // 500)):
                out = self.network(np.ascontiguousarray(features[np.maximum(steps + some, 0)]))[-1]
                parts.append(out.reshape(len(some), self.horizon, -1, 3))
        finally:
            self.network.train(training)
        spread: Array = np.concatenate(parts) * self.scale[..., None] + self.linear(z, origins)[..., None]
        middle, wide = spread[..., 1], self.widening
        spread[..., 0] = middle - wide * np.maximum(middle - spread[..., 0], 0)
        spread[..., 2] = middle + wide * np.maximum(spread[..., 2] - middle, 0)
        return spread

    def before(self, rng: np.random.Generator) -> BandForecast:
        """A forecast of the same choices that learns only from what lies before `cut`, to be trained alike."""
        known = self.z[: self.cut]
        linear = self.linear.refitted(known)
        return BandForecast(known, self.cut, self.horizon, linear.period or 0, rng, self.units, linear)

    def widen(self, other: BandForecast) -> None:
        """Set the bands as wide as those of `other`, which knows nothing from `cut` on, have to be to hold what they
        should there; for each channel one factor, at least 1.

        Errors of origins close to each other are alike, so a third of a horizon counts as one draw; of a half, bands
        held too much on short series, of a quarter, too little on random walks. The fewer draws there are, the wider,
        as split conformal prediction has it: for n of them the quantile's level is (n + 1) / n times as high.
        """
        origins = rolling_origins(self.cut, len(self.z), self.horizon)
        low, middle, high = np.moveaxis(other(self.z, origins), -1, 0)
        error = ahead(self.z, origins, self.horizon) - middle
        room = np.maximum(np.where(error < 0, middle - low, high - middle), 1e-9)
        draws = len(origins) / max(1.0, self.horizon / 3)
        level = min(1.0, (LEVELS[1] - LEVELS[0]) * (draws + 1) / draws)
        self.widening = np.maximum(1.0, np.quantile(np.abs(error) / room, level, axis=(0, 1)))


def free_run(forecast: Callable[[Array], Array], z: Array, steps: int) -> Array:
    """[steps, C]: forecasts that go on from themselves. ``forecast(z [T, C])`` gives the next points [K, C], which are
    appended before it is asked again."""
    start = len(z)
    while len(z) < start + steps:
        z = np.concatenate([z, forecast(z)])
    return z[start : start + steps]
