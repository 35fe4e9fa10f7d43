"""Mixture density loss of bivariate Gaussians and an end flag (Bishop 1994; Graves 2013, "Generating sequences with
recurrent neural networks", section 4.1)."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .checks import check_shape

LOG_SIGMA = (-7.0, 3.0)
RHO = 0.999


def mixture_density_loss(parameters: Array, target: Array, weights: Array | None = None) -> tuple[float, Array]:
    """-log sum_k pi_k N(x, y; mu_k, sigma_k, rho_k) - log Bernoulli(end; e), times the row's weight, summed.

    The columns of parameters are K logits of pi (softmax), K of mu_x, K of mu_y, K of log sigma_x, K of log sigma_y, K
    of rho before its tanh, and the logit of e. log sigma is clipped to [-7, 3] and rho to [-0.999, 0.999]: beyond, the
    gradient is zero.

    Args:
        parameters: [..., 6K + 1]. target: [..., 3], x, y and the end flag from 0 to 1. weights: [...], [..., 2]
            for the point's and the end flag's part apart, or None for 1.

    Returns:
        The loss and its gradient by parameters.
    """
    K, rest = divmod(parameters.shape[-1], 6)
    if K < 1 or rest != 1:
        raise ValueError(f"parameters: expected 6K + 1 columns for K components, got shape {parameters.shape}")
    check_shape("target", target, (*parameters.shape[:-1], 3))
    rows = parameters.shape[:-1]
    apart = weights is not None and weights.ndim > len(rows)
    check_shape("weights", weights, (*rows, 2) if apart else rows)
    w = np.ones(rows, parameters.dtype) if weights is None else weights
    w_point, w_end = (w[..., 0], w[..., 1]) if apart else (w, w)
    logits, mu_x, mu_y, raw_x, raw_y, raw_r = (parameters[..., i * K : (i + 1) * K] for i in range(6))
    e, (x, y, end) = parameters[..., -1], np.moveaxis(target, -1, 0)

    log_x, log_y = np.clip(raw_x, *LOG_SIGMA), np.clip(raw_y, *LOG_SIGMA)
    limit = np.arctanh(RHO)
    rho = np.tanh(np.clip(raw_r, -limit, limit))
    z1, z2 = (x[..., None] - mu_x) / np.exp(log_x), (y[..., None] - mu_y) / np.exp(log_y)
    C = 1 / (1 - rho**2)
    Z = z1**2 + z2**2 - 2 * rho * z1 * z2
    log_density = -np.log(2 * np.pi) - log_x - log_y + np.log(C) / 2 - C * Z / 2

    log_pi = logits - _log_sum_exp(logits)
    log_joint = log_pi + log_density
    log_likelihood = _log_sum_exp(log_joint)
    losses = np.stack([-log_likelihood[..., 0], np.logaddexp(0, e) - e * end], axis=-1)

    gamma = np.exp(log_joint - log_likelihood)  # responsibilities
    inside = [(raw >= LOG_SIGMA[0]) & (raw <= LOG_SIGMA[1]) for raw in (raw_x, raw_y)]
    gradient = np.concatenate(
        [
            np.exp(log_pi) - gamma,
            -gamma * C * (z1 - rho * z2) / np.exp(log_x),
            -gamma * C * (z2 - rho * z1) / np.exp(log_y),
            -gamma * (C * z1 * (z1 - rho * z2) - 1) * inside[0],
            -gamma * (C * z2 * (z2 - rho * z1) - 1) * inside[1],
            -gamma * (z1 * z2 + rho * (1 - C * Z)) * (np.abs(raw_r) <= limit),
            (np.exp(-np.logaddexp(0, -e)) - end)[..., None],
        ],
        axis=-1,
    )
    factors = np.concatenate([np.repeat(w_point[..., None], 6 * K, axis=-1), w_end[..., None]], axis=-1)
    both = factors[..., -2:]
    # where a weight is 0 nothing counts, whatever stands there
    total = float(np.sum(np.where(both > 0, both * losses, 0), dtype=np.float64))
    return total, np.where(factors > 0, factors * gradient, 0).astype(parameters.dtype)


def _log_sum_exp(x: Array) -> Array:
    highest = x.max(-1, keepdims=True)
    result: Array = highest + np.log(np.exp(x - highest).sum(-1, keepdims=True))
    return result
