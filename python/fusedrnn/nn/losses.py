"""Losses: a call gives the loss as a float, ``backward`` the gradient of the last call's prediction.

Classifying losses start from logits: softmax and sigmoid are fused into them, so that no logit overflows.
"""

from __future__ import annotations

import numpy as np

from fusedrnn import _core
from fusedrnn.functional import mixture_density_loss
from fusedrnn.gradients import Array
from fusedrnn.nn.inputs import as_array


class _Loss:
    """Divides what a kernel sums up, and keeps the gradient for ``backward``."""

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f'reduction: expected "mean" or "sum", got {reduction!r}')
        self.reduction = reduction
        self._gradient: Array | None = None

    def _reduced(self, total: float, gradient: Array, count: float) -> float:
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
    """-log softmax(logits)[target], as ``torch.nn.CrossEntropyLoss``; ``reduction`` "mean" (over rows) or "sum"."""

    def __call__(self, logits: Array, targets: Array) -> float:
        """Loss of logits [..., C] for integer targets [...] from 0 to C - 1.

        Raises:
            ValueError: shapes that do not fit, a target out of range. TypeError: targets that are not integers.
        """
        logits, targets = as_array("logits", logits), as_array("targets", targets)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"targets: expected integers, got {targets.dtype}")
        if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
            raise ValueError(
                f"targets: expected shape {logits.shape[:-1]} for logits {logits.shape}, got {targets.shape}"
            )
        rows = np.ascontiguousarray(logits).reshape(targets.size, logits.shape[-1])
        classes = np.array(targets, np.int64, order="C").reshape(-1)  # checked, then read while other threads run
        total, gradient = _core.softmax_cross_entropy(rows, classes)
        return self._reduced(total, gradient.reshape(logits.shape), targets.size)


class BCEWithLogitsLoss(_Loss):
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), as ``torch.nn.BCEWithLogitsLoss``; mean or sum over elements."""

    def __call__(self, logits: Array, targets: Array) -> float:
        """Loss of logits [...] for targets of the same shape and dtype, from 0 to 1."""
        arrays = as_array("logits", logits), as_array("targets", targets)
        total, gradient = _core.binary_cross_entropy(*map(np.ascontiguousarray, arrays))
        return self._reduced(total, gradient, gradient.size)


class MSELoss(_Loss):
    """(prediction - target)^2, as ``torch.nn.MSELoss``; mean or sum over elements."""

    def __call__(self, prediction: Array, target: Array) -> float:
        """Loss of a prediction [...] for a target of the same shape and dtype."""
        arrays = as_array("prediction", prediction), as_array("target", target)
        total, gradient = _core.squared_error(*map(np.ascontiguousarray, arrays))
        return self._reduced(total, gradient, gradient.size)


class MixtureDensityLoss(_Loss):
    """-log of a density of points with an end flag, as `fusedrnn.mixture_density_loss`; mean or sum over rows.

    The mean is over the sum of the points' weights, where there are any. Several processes that share a batch of
    weighted rows need "sum", with weights that add up to 1 over the whole batch: the mean's divisor would be each
    one's own.
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
