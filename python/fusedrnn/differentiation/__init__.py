"""Tools for gradients: checked by differences, one for each row of a batch, forward mode and second derivatives."""

from __future__ import annotations

from fusedrnn.differentiation.check import ArgumentCheck, GradcheckError, GradcheckResult, gradcheck
from fusedrnn.differentiation.forward_mode import hessian_vector_product, jvp
from fusedrnn.differentiation.rows import PerSequenceGradients, clipped_sum, per_sequence_gradients

__all__ = [
    "ArgumentCheck",
    "GradcheckError",
    "GradcheckResult",
    "PerSequenceGradients",
    "clipped_sum",
    "gradcheck",
    "hessian_vector_product",
    "jvp",
    "per_sequence_gradients",
]
