"""Losses: a call gives the loss as a float, ``backward`` the gradient of the last call's prediction.

Classifying losses start from logits: softmax and sigmoid are fused into them, so that no logit overflows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional import mixture_density_loss
from fusedrnn.nn.inputs import as_array


class Weighted(NamedTuple):
    """A target and the weights of its rows or elements, as the batch of a Trainer brings both."""

    target: Array
    weights: Array


class _Loss:
    """Divides what a kernel sums up, and keeps the gradient for ``backward``."""

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f'reduction: expected "mean" or "sum", got {reduction!r}')
        self.reduction = reduction
        self._gradient: Array | None = None
        self._divisor = 0.0

    @property
    def divisor(self) -> float:
        """Tell what the last mean was over: rows, elements or weights; the Trainer weighs several processes by it."""
        return self._divisor

    def _reduced(self, total: float, gradient: Array, count: float) -> float:
        self._divisor = float(count)
        if self.reduction == "mean":
            gradient *= gradient.dtype.type(1 / count if count else 0)
            total = total / count if count else float("nan")
        self._gradient = gradient
        return total

    def backward(self) -> Array:
        """Gradient of the last loss with respect to its prediction, shaped like it; once per call.

        Raises RuntimeError where no call is left.
        """
        if self._gradient is None:
            raise RuntimeError(f"{type(self).__name__}.backward: expected a call of the loss first")
        gradient, self._gradient = self._gradient, None
        return gradient


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[target], as ``torch.nn.CrossEntropyLoss``.

    Args:
        reduction: "mean", over the rows that count or over their weights, or "sum".
        ignore_index: A target whose rows do not count, any integer; None for none.
        label_smoothing: This part of every target goes to all classes alike (Szegedy et al. 2016, arXiv:1512.00567).
    """

    def __init__(
        self, reduction: str = "mean", *, ignore_index: int | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a part from 0 to 1, got {label_smoothing}")
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def __call__(self, logits: Array, targets: Array | Weighted, weights: Array | None = None) -> float:
        """Loss of logits [..., C] for integer targets [...] from 0 to C - 1, weighted by weights [...].

        Args:
            targets: Or `Weighted` ones. weights: At least 0; None for 1. What has weight 0, such as steps past a
                sequence's end, has no effect, whatever it holds.

        Raises:
            ValueError: shapes that do not fit, a target out of range. TypeError: targets that are not integers.
        """
        targets, weights = _with_weights(targets, weights)
        logits, targets = as_array("logits", logits), as_array("targets", targets)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"targets: expected integers, got {targets.dtype}")
        if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
            raise ValueError(
                f"targets: expected shape {logits.shape[:-1]} for logits {logits.shape}, got {targets.shape}"
            )
        given = None if weights is None else _of_shape(weights, targets.shape, logits.dtype)
        rows = np.ascontiguousarray(logits).reshape(targets.size, logits.shape[-1])
        classes = np.array(targets, np.int64, order="C")  # checked, then read while other threads run
        if self.ignore_index is not None and (ignored := classes == self.ignore_index).any():
            given = np.where(ignored, 0, 1 if given is None else given).astype(logits.dtype)
        if given is not None:
            classes[given == 0] = 0  # nobody looks there
            given = given.reshape(-1)
        total, gradient = _core.softmax_cross_entropy(rows, classes.reshape(-1), given, self.label_smoothing)
        return self._reduced(total, gradient.reshape(logits.shape), _count(given, targets.size))


class _Elementwise(_Loss):
    """A loss that compares element by element; mean, over elements or their weights, or sum."""

    names: tuple[str, str]

    def _compare(self, kernel: Any, prediction: Array, target: Any, weights: Array | None) -> float:
        target, weights = _with_weights(target, weights)
        arrays = (as_array(name, value) for name, value in zip(self.names, (prediction, target), strict=True))
        first, second = map(np.ascontiguousarray, arrays)
        given = None if weights is None else _of_shape(weights, first.shape, first.dtype)
        total, gradient = kernel(first, second, given)
        return self._reduced(total, gradient, _count(given, gradient.size))


class BCEWithLogitsLoss(_Elementwise):
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), as ``torch.nn.BCEWithLogitsLoss``; mean or sum over elements."""

    names = ("logits", "targets")

    def __call__(self, logits: Array, targets: Array | Weighted, weights: Array | None = None) -> float:
        """Loss of logits [...] for targets of the same shape and dtype, from 0 to 1.

        Args:
            targets: Or `Weighted` ones. weights: Of a shape that broadcasts to that of the logits, at
                least 0; None for 1. What has weight 0 has no effect, whatever it holds.
        """
        return self._compare(_core.binary_cross_entropy, logits, targets, weights)


class MSELoss(_Elementwise):
    """(prediction - target)^2, as ``torch.nn.MSELoss``; mean or sum over elements."""

    names = ("prediction", "target")

    def __call__(self, prediction: Array, target: Array | Weighted, weights: Array | None = None) -> float:
        """Loss of a prediction [...] for a target of the same shape and dtype.

        Args:
            target: Or a `Weighted` one. weights: Of a shape that broadcasts to that of the prediction, at
                least 0; None for 1. What has weight 0 has no effect, whatever it holds.
        """
        return self._compare(_core.squared_error, prediction, target, weights)


def _with_weights(target: Any, weights: Array | None) -> tuple[Any, Array | None]:
    """Take a `Weighted` target apart. ValueError for weights twice."""
    if not isinstance(target, Weighted):
        return target, weights
    if weights is not None:
        raise ValueError("weights: expected them once, got a Weighted target and others")
    return target


def _of_shape(weights: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Broadcast weights to a shape. ValueError where they do not fit; TypeError for what is no number."""
    given = np.asarray(weights)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"weights: expected numbers or booleans, got {given.dtype}")
    try:
        whole = np.broadcast_to(given, shape)
    except ValueError:
        raise ValueError(f"weights: expected a shape that broadcasts to {shape}, got {given.shape}") from None
    return np.array(whole, dtype, order="C")


def _count(weights: Array | None, size: int) -> float:
    """Return what a mean divides by."""
    return size if weights is None else float(weights.sum(dtype=np.float64))


class MixtureDensityLoss(_Loss):
    """-log of a density of points with an end flag, as `fusedrnn.mixture_density_loss`; mean or sum over rows.

    The mean is over the sum of the points' weights, where there are any.
    """

    def __call__(self, parameters: Array, target: Array) -> float:
        """Loss of parameters [..., 6K + 1] for a target [..., 3] (x, y, end); its further columns are weights: one, or
        two for point and end flag apart."""
        parameters, target = as_array("parameters", parameters), as_array("target", target)
        columns = target.shape[-1] if target.ndim else 0
        if not 3 <= columns <= 5:
            raise ValueError(f"target: expected 3 to 5 columns, got shape {target.shape}")
        weights = None if columns == 3 else np.ascontiguousarray(target[..., 3] if columns == 4 else target[..., 3:])
        points = np.ascontiguousarray(target[..., :3])
        total, gradient = mixture_density_loss(np.ascontiguousarray(parameters), points, weights)
        count = target.size // 3 if columns == 3 else float(target[..., 3].sum(dtype=np.float64))
        return self._reduced(total, gradient, count)
