"""Mixtures of bivariate Gaussians with an end flag: their loss, samples of them and their means.

Their parameters are a network's outputs as they come, 6K + 1 for K components, in this order: K logits of the weights
pi (softmax), K means mu_x, K means mu_y, K log sigma_x, K log sigma_y, K correlations rho before their tanh, and the
logit of the end flag. log sigma is clipped to [-7, 3], rho to [-0.999, 0.999].
"""

from __future__ import annotations

import math

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional.exchange import as_view

_LOG_SIGMA, _RHO = (-7, 3), 0.999  # as in csrc/kernels/mixture_density.hpp


def mixture_density_loss(parameters: Array, target: Array, weights: Array | None = None) -> tuple[float, Array]:
    """Negative log density of points and their end flags under mixtures (Bishop 1994; Graves 2013, section 4.1).

    -log sum_k pi_k N(x, y; mu_k, sigma_k, rho_k) - log Bernoulli(end), in nats, times the row's weight, summed over
    rows. Given the parameters, point and end flag are independent. Computed in logarithms, so that a point far from
    every component still has a gradient; a residual beyond 1e15 standard deviations (float64: 1e150) counts as that
    many. Where log sigma or rho is clipped, its gradient is zero.

    Args:
        parameters: [..., 6K + 1], see the module. target: [..., 3]: x, y, and the end flag from 0 to 1.
        weights: [...], at least 0; [..., 2] for the point's and the end flag's part apart; None for 1. What has weight
            0, such as steps past a sequence's end, is skipped, whatever it holds.

    Returns:
        The loss, and its gradient [..., 6K + 1].

    Raises:
        ValueError: shapes that do not fit, arrays that are not C-contiguous, weights below 0 or not finite.
        TypeError: other dtypes than float32 and float64, or several of them.
    """
    return _core.mixture_density(parameters, target, weights)


def mixture_density_sample(parameters: Array, rng: np.random.Generator, *, bias: float = 0.0) -> Array:
    """Points and end flags drawn from mixtures: for each row a component, then a point of its Gaussian.

    Args:
        parameters: [..., 6K + 1], see the module. rng: the only source of chance.
        bias: 0 draws from the mixture itself; the higher, the nearer to what is likeliest: log sigma less the bias, the
            logits of pi times 1 + bias (Graves 2013, section 5.4). The end flag knows no bias.

    Returns:
        [..., 3] of parameters' dtype: x, y, and 0 or 1.

    Raises:
        ValueError: a number of columns that is none of 6K + 1, a bias below 0 or not finite.
    """
    parameters, K = _components(parameters)
    if not 0 <= bias < math.inf:
        raise ValueError(f"bias: expected a finite number of at least 0, got {bias}")
    rows = parameters.shape[:-1]
    chance = rng.random((*rows, 2))
    normal = rng.standard_normal((*rows, 2))

    logits = parameters[..., :K].astype(np.float64)
    with np.errstate(over="ignore"):  # of a bias that is next to infinite
        cumulated = np.exp((logits - logits.max(-1, keepdims=True)) * (1 + bias)).cumsum(-1)
    component = (cumulated < chance[..., :1] * cumulated[..., -1:]).sum(-1, keepdims=True)
    mu_x, mu_y, log_x, log_y, r = (
        np.take_along_axis(parameters[..., i * K : (i + 1) * K], component, -1)[..., 0].astype(np.float64)
        for i in range(1, 6)
    )
    sigma_x, sigma_y = (np.exp(log_sigma.clip(*_LOG_SIGMA) - bias) for log_sigma in (log_x, log_y))
    rho = np.tanh(r).clip(-_RHO, _RHO)
    z1, z2 = normal[..., 0], normal[..., 1]
    end = chance[..., 1] < 1 / (1 + np.exp(-parameters[..., -1].astype(np.float64).clip(-700, 700)))
    drawn = [mu_x + sigma_x * z1, mu_y + sigma_y * (rho * z1 + np.sqrt(1 - rho**2) * z2), end]
    return np.stack(drawn, axis=-1).astype(parameters.dtype)


def mixture_density_mean(parameters: Array) -> Array:
    """Return the means of mixtures, sum of pi_k mu_k: [..., 2] of parameters [..., 6K + 1].

    Raises:
        ValueError: a number of columns that is none of 6K + 1.
    """
    parameters, K = _components(parameters)
    logits = parameters[..., :K].astype(np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    means = parameters[..., K : 3 * K].reshape(*parameters.shape[:-1], 2, K)
    mean = (weights[..., None, :] * means).sum(-1) / weights.sum(-1, keepdims=True)
    return np.asarray(mean.astype(parameters.dtype))


def _components(parameters: Array) -> tuple[Array, int]:
    """Read parameters in place, and count their components."""
    parameters = as_view("parameters", parameters)
    K, rest = divmod(parameters.shape[-1], 6) if parameters.ndim else (0, 0)
    if K < 1 or rest != 1:
        raise ValueError(f"parameters: expected shape [..., 6K + 1] for K components, got {parameters.shape}")
    return parameters, K
