"""Bases, checks and errors of estimators: scikit-learn's own where it is installed, else those of `protocol`."""

from __future__ import annotations

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data
except ImportError:
    from fusedrnn.estimators.sklearn_fallback import (
        BaseEstimator,
        ClassifierMixin,
        NotFittedError,
        RegressorMixin,
        check_classification_targets,
        check_consistent_length,
        column_or_1d,
        validate_data,
    )

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "NotFittedError",
    "RegressorMixin",
    "check_classification_targets",
    "check_consistent_length",
    "column_or_1d",
    "validate_data",
]
