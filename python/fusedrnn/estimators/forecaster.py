"""`Forecaster`: what ``fusedrnn train forecast`` does, as an estimator in the manner of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators import bands
from fusedrnn.estimators.forecasting import (
    BandForecast,
    Scaling,
    ahead,
    find_period,
    free_run,
    least_points,
    longest_period,
    rolling_origins,
)
from fusedrnn.estimators.given import array, column_names, even_index, same_columns
from fusedrnn.estimators.sklearn_bases import BaseEstimator, NotFittedError
from fusedrnn.estimators.sklearn_fallback import all_or_nothing, determination
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.sizes import size
from fusedrnn.train import Record, Trainer
from fusedrnn.train.batches import Batches
from fusedrnn.train.distributed import World


class Forecaster(BaseEstimator):  # type: ignore[misc]
    """Forecasts a series of one channel or many: a season, a linear part, and an LSTM that corrects and bounds it.

    Args:
        horizon: how many steps ahead forecasts are made at once. period: the season in steps, 0 for none; None: found.
        hidden_size: units of the LSTM. steps: updates of its training by Adam, with batches of ``batch_size`` windows
            and a learning rate ``lr`` that falls along a cosine. random_state: None, an integer or a NumPy generator.
            verbose: show progress.

    Attributes after ``fit``: ``model_`` (a `fusedrnn.estimators.forecasting.BandForecast`), ``period_``, ``scaling_``,
    ``history_`` (the Trainer's records).
    """

    def __init__(
        self,
        *,
        horizon: int = 24,
        period: int | None = None,
        hidden_size: int = 16,
        steps: int = 300,
        batch_size: int = 16,
        lr: float = 1e-3,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.horizon = horizon
        self.period = period
        self.hidden_size = hidden_size
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Forecaster:
        """Learn from the series X, [T] or [T, C], points at equal distances; its last quarter is where lags, penalty
        and smoothing are chosen, and how wide the bands are. The index of a Series or DataFrame must be in order and
        without a hole. y: None; further series are columns of X.

        ValueError: a series or parameter that does not fit. A fit that is refused or interrupted leaves the estimator
        as it was.
        """
        _refuse("y", y)
        for name in ("horizon", "hidden_size", "steps", "batch_size"):
            size(name, getattr(self, name))
        values = self._points(X)
        index = even_index(X, "X")
        cut = len(values) * 3 // 4
        least = least_points(self.horizon) * 4 // 5
        if len(values) < least:
            raise ValueError(f"X: expected at least {least:,} points for horizon {self.horizon}, got {len(values):,}")
        longest = longest_period(cut, self.horizon)
        if self.period is not None and not 0 <= size("period", self.period, None) <= longest:
            raise ValueError(f"period: expected 0 (none) to {longest:,} for {len(values):,} points, got {self.period}")
        with all_or_nothing(self):
            period = find_period(values[:cut]) if self.period is None else self.period
            self.period_ = period if 1 < period <= longest else 0
            self.scaling_ = Scaling.fit(values)
            rng = np.random.default_rng(self.random_state)
            seed = int(rng.integers(2**31))
            self._flat = np.ndim(X) == 1
            self._columns, self._index = column_names(X), None if index is None else index[-3:]
            self._known = self.scaling_.transform(values)
            model = BandForecast(self._known, cut, self.horizon, self.period_, rng, self.hidden_size)
            trainer = Trainer(
                model.network,
                model.loss,
                Adam(model.network, lr=self.lr),
                batches=lambda epoch: Batches(
                    self.steps, lambda i: model.batch(np.random.default_rng([seed, i]), self.batch_size)
                ),
                epochs=1,
                schedule=CosineLR(self.steps),
                clip_norm=1.0,
                seed=seed,
                progress=self.verbose,
                world=World(),
            )
            self.history_: list[Record] = trainer.fit()
            model.network.eval()
            bands.calibrate(model, bands.Recipe(self.steps, self.batch_size, self.lr, seed))
            self.model_ = model
        return self

    def predict(self, horizon: int | None = None) -> Array:
        """[K], or [K, C] as X was: the K points after those of ``fit`` (None: the ``horizon`` of ``fit``). Beyond that
        the forecasts go on from themselves."""
        steps = self._horizon() if horizon is None else size("horizon", horizon)
        run = free_run(lambda z: self._spread(z)[..., 1], self._known, steps)
        return self._shaped(self.scaling_.inverse_transform(run))

    def predict_interval(self, horizon: int | None = None) -> tuple[Array, Array]:
        """Lower and upper bounds, shaped as ``predict`` gives the mean, that should hold 80 of 100 points. At most
        ``horizon`` steps, for how far errors would grow beyond is not known."""
        most = self._horizon()
        steps = most if horizon is None else size("horizon", horizon)
        if steps > most:
            raise ValueError(f"horizon: expected 1 to {most}, as in fit, got {steps}")
        spread = self._spread(self._known)[:steps]
        low, high = (self._shaped(self.scaling_.inverse_transform(spread[..., i])) for i in (0, 2))
        return low, high

    def score(self, X: Any, y: Any = None) -> float:
        """1 - squared error / variance of the forecasts from all origins of X, the series that follows that of ``fit``,
        over all steps ahead; the mean over channels."""
        horizon = self._horizon()
        _refuse("y", y)
        values = self._points(X)
        if values.shape[1] != self._known.shape[1]:
            raise ValueError(f"X: expected {self._known.shape[1]} channels as in fit, got {values.shape[1]}")
        same_columns(X, self._columns, "X")
        even_index(X, "X", before=self._index)
        if len(values) < horizon:
            raise ValueError(f"X: expected at least {horizon} points, as many as horizon, got {len(values)}")
        z = np.concatenate([self._known, self.scaling_.transform(values)])
        origins = rolling_origins(len(self._known), len(z), horizon)
        truth = ahead(z, origins, horizon)
        error = np.mean((self.model_(z, origins)[..., 1] - truth) ** 2, axis=(0, 1))
        return determination(error, np.var(truth, axis=(0, 1)))

    def _spread(self, z: Array) -> Array:
        """[H, C, 3] from the last point of z on."""
        last: Array = self.model_(z, np.array([len(z) - 1]))[0]
        return last

    def _shaped(self, values: Array) -> Array:
        return values[:, 0] if self._flat else values

    def _horizon(self) -> int:
        """That of ``fit``: what was set since is for the next one. NotFittedError where there was none."""
        if not hasattr(self, "model_"):
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet: call fit first")
        return self.model_.horizon

    def _points(self, X: Any) -> Array:
        values = array(X, "X")
        if values.ndim not in (1, 2) or 0 in values.shape or values.dtype.kind not in "fiub":
            raise ValueError(f"X: expected a series of numbers [T] or [T, C], got {values.dtype} {values.shape}")
        values = values.reshape(len(values), -1).astype(np.float64)
        if not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"X: expected finite numbers, got {values[tuple(row)]} at {tuple(map(int, row))}")
        return values


def _refuse(name: str, value: Any) -> None:
    """Refuse what scikit-learn's methods have and a series has no use for."""
    if value is not None:
        raise ValueError(f"{name}: expected None, got {type(value).__name__}; further series are columns of X")
