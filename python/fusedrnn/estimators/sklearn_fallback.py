"""What estimators have in common: a ``fit`` that does all or nothing; and what they take from scikit-learn, in its
manner, for where that is not installed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from fusedrnn.arrays import Array

Self = TypeVar("Self", bound="BaseEstimator")


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Within, attributes may be set one by one: an error, or an interrupt, puts back all those from before."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class NotFittedError(ValueError, AttributeError):
    """An estimator that was asked for something before ``fit``."""


class BaseEstimator:
    """Parameters are the constructor's arguments, kept under their names."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they are."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: Self, **params: Any) -> Self:
        """Replace some. Raises ValueError for a name that the constructor does not have."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self!r}. Valid ones: {sorted(known)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        usual = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value != usual[name]]
        return f"{type(self).__name__}({', '.join(changed)})"


class ClassifierMixin:
    """``score`` of classifiers."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of sequences classified rightly, weighted if asked for."""
        return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))  # type: ignore[attr-defined]


def determination(error: Array, variance: Array) -> float:
    """The mean over outputs of 1 - error / variance; of a truth that never changes 1 if there is no error, else 0."""
    moves = variance > 0
    return float(np.mean(np.where(moves, 1 - error / np.where(moves, variance, 1), error == 0)))


class RegressorMixin:
    """``score`` of regressors."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination, 1 - squared error / variance, mean over outputs."""
        truth = np.asarray(y, np.float64)
        error = np.average((self.predict(X) - truth) ** 2, axis=0, weights=sample_weight)  # type: ignore[attr-defined]
        mean = np.average(truth, axis=0, weights=sample_weight)
        return determination(error, np.average((truth - mean) ** 2, axis=0, weights=sample_weight))


def check_classification_targets(y: Array) -> None:
    """Raise ValueError for numbers that are no labels."""
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all():
        raise ValueError(
            "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes "
            "on a regression target with continuous values."
        )


def check_consistent_length(*arrays: Any) -> None:
    """Raise ValueError for arrays of different lengths."""
    lengths = [len(a) for a in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {lengths}")


def column_or_1d(y: Any, *, warn: bool = False) -> Array:
    """y as [n], of [n] or [n, 1]; ValueError for another shape."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {labels.shape} instead.")
    return labels


def validate_data(estimator: Any, X: Any, *, reset: bool, dtype: Any) -> Array:
    """X [n, I] as an array of finite numbers of this dtype; ValueError otherwise."""
    table = np.asarray(X)
    if table.ndim != 2 or table.dtype.kind not in "fiub" or 0 in table.shape:
        raise ValueError(f"X: expected sequences [T, I] or a table of numbers [n, I], got {table.dtype} {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"Input X contains {'NaN' if np.isnan(table).any() else 'infinity'}.")
    return table.astype(dtype)
