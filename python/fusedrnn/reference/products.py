"""The two sums that enter the gates, forward and backward: of the input, and of the previous state with its options."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Array
from .checks import check_clip
from .norm import LayerNorm
from .random import Random
from .sequences import Step


class AffineGradients(NamedTuple):
    """Gradients of an Affine's parameters, None where one is; `dnorm` is (dgain, dbias) of its LayerNorm."""

    dweight: Array
    dbias: Array | None
    dnorm: tuple[Array | None, Array | None]


class Affine(NamedTuple):
    """W v + b for every row v; LN(W v) + b with layer normalization."""

    weight: Array
    bias: Array | None
    norm: LayerNorm | None = None

    def __call__(self, v: Array) -> Array:
        sums: Array = v @ self.weight.T
        if self.norm is not None:
            sums = self.norm(sums)
        return sums if self.bias is None else sums + self.bias

    def dinput(self, dsums: Array, v: Array) -> Array:
        """The gradient of v, given that of the sums."""
        if self.norm is not None:
            dsums, _, _ = self.norm.backward(dsums, v @ self.weight.T)
        return dsums @ self.weight

    def gradients(self, dsums: Array, v: Array) -> AffineGradients:
        """The gradients of the parameters, summed over rows: of W, sum of dsums v^T."""
        dbias = None if self.bias is None else dsums.sum(axis=0)
        dnorm: tuple[Array | None, Array | None] = (None, None)
        if self.norm is not None:
            dsums, *of_norm = self.norm.backward(dsums, v @ self.weight.T)
            dnorm = (of_norm[0], of_norm[1])
        return AffineGradients(dsums.T @ v, dbias, dnorm)

    def part(self, rows: slice) -> Affine:
        """Some of the gates; without layer normalization, which is over all."""
        return Affine(self.weight[rows], None if self.bias is None else self.bias[rows])


class Recurrent(NamedTuple):
    """W_hh h + b_hh with what may be done to h, to W_hh and to the gradient of h.

    Attributes:
        affine: with W_hh after dropconnect.
        dropout: the mask of h [N, P], or None.
        dropconnect: the mask that W_hh [G*H, P] bears, or None.
        grad_clip: bound on the gradient of h, or None.
    """

    affine: Affine
    dropout: Array | None
    dropconnect: Array | None
    grad_clip: float | None

    def dropped(self, h: Array, step: Step) -> Array:
        """The previous state as the product sees it."""
        return h if self.dropout is None else h * self.dropout[step.rows]

    def dprevious(self, dproduct: Array, step: Step) -> Array:
        """The gradient of the previous state h, given that of `dropped(h)`."""
        dh = dproduct if self.dropout is None else dproduct * self.dropout[step.rows]
        return dh if self.grad_clip is None else np.clip(dh, -self.grad_clip, self.grad_clip)

    def dweight(self, dweight: Array) -> Array:
        """The gradient of W_hh, given that of what dropconnect left of it."""
        return dweight if self.dropconnect is None else dweight * self.dropconnect


def find_recurrent(
    weight_hh: Array,
    bias_hh: Array | None,
    norm: LayerNorm | None,
    random: Random,
    N: int,
    recurrent_dropout: float,
    dropconnect: float,
    grad_clip: float | None,
) -> Recurrent:
    """The recurrent product of a call, its masks drawn."""
    check_clip("grad_clip", grad_clip)
    dropout = random.recurrent_dropout(recurrent_dropout, (N, weight_hh.shape[1]), weight_hh.dtype)
    connected = random.dropconnect(dropconnect, weight_hh.shape, weight_hh.dtype)
    weight = weight_hh if connected is None else weight_hh * connected
    return Recurrent(Affine(weight, bias_hh, norm), dropout, connected, grad_clip)
