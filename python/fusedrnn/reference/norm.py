"""Layer normalization (Ba et al. 2016), forward and backward, and the argument `layer_norm` of the cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..gradients import LayerNormGradients
from .checks import check_shape

EPSILON = 1e-5  # PyTorch's


def _standardized(v: Array) -> tuple[Array, Array]:
    """(v - mean v) / sqrt(var v + EPSILON) over the last axis, and the divisor's inverse."""
    centred = v - v.mean(axis=-1, keepdims=True)
    scale: Array = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
    return centred * scale, scale


class LayerNorm(NamedTuple):
    """LN(v; gain, bias) = gain (v - mean v) / sqrt(var v + EPSILON) + bias, over the last axis; var is biased."""

    gain: Array
    bias: Array | None

    def __call__(self, v: Array) -> Array:
        scaled: Array = self.gain * _standardized(v)[0]
        return scaled if self.bias is None else scaled + self.bias

    def backward(self, d: Array, v: Array) -> tuple[Array, Array, Array | None]:
        """Gradients of v, and of gain and bias summed over rows, given that of LN(v).

        With u the standardized v and du = gain d: dv = (du - mean du - u mean(u du)) / sqrt(var v + EPSILON).
        """
        u, scale = _standardized(v)
        du = self.gain * d
        dv = (du - du.mean(axis=-1, keepdims=True) - u * (u * du).mean(axis=-1, keepdims=True)) * scale
        return dv, (d * u).sum(axis=0), None if self.bias is None else d.sum(axis=0)


def find_norms(layer_norm: Any, widths: tuple[int, ...]) -> tuple[LayerNorm | None, ...]:
    """One LayerNorm for each width, of `layer_norm` = (gains, biases); all None where that is."""
    if layer_norm is None:
        return (None,) * len(widths)
    if len(layer_norm) != 2 or any(len(part) != len(widths) for part in layer_norm):
        raise ValueError(f"layer_norm: expected (gains, biases) of {len(widths)} each")
    norms = tuple(LayerNorm(gain, bias) for gain, bias in zip(*layer_norm, strict=True))
    for norm, width in zip(norms, widths, strict=True):
        for part in norm:
            check_shape("layer_norm", part, (width,))
    return norms


def norm_gradients(*pairs: tuple[Array | None, Array | None]) -> LayerNormGradients | None:
    """(dgains, dbiases), shaped like `layer_norm`, of each one's (dgain, dbias); None without layer normalization."""
    dgains = tuple(dgain for dgain, _ in pairs if dgain is not None)
    return (dgains, tuple(dbias for _, dbias in pairs)) if dgains else None
