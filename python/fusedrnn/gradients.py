"""What the backward functions return: one named tuple a cell, from kernels and reference alike.

Shapes: T steps, N rows of the batch, I inputs, H hidden units; an LSTM with a projection has states and columns of
weight_hh of its size P in place of H. Gradients of packed sequences are packed: [sum(batch_sizes), ...] in place of
[T, N, ...]. Every array has the dtype of the input.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .arrays import Array

# (dgains, dbiases), shaped like the argument layer_norm; None where a bias was
LayerNormGradients: TypeAlias = tuple[tuple[Array, ...], tuple[Array | None, ...]]


class RnnGradients(NamedTuple):
    """Gradients of a plain recurrent layer.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [H, I].
        dweight_hh: [H, H].
        dbias_ih: [H], or None where there was no `bias_ih`.
        dbias_hh: [H], or None where there was no `bias_hh`.
        dlayer_norm: (dgains, dbiases), shaped like `layer_norm`, or None where that was.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None
    dlayer_norm: LayerNormGradients | None = None


class LstmGradients(NamedTuple):
    """Gradients of an LSTM layer; the gates lie in the order i, f, g, o (i, g, o and 3H when coupled).

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dc0: [N, H], also when the initial cell state was None.
        dweight_ih: [4H, I].
        dweight_hh: [4H, H].
        dbias_ih: [4H], or None where there was no `bias_ih`.
        dbias_hh: [4H], or None where there was no `bias_hh`.
        dweight_peephole: [3, H], or None where there was no `weight_peephole`.
        dweight_hr: [P, H], or None where there was no `weight_hr`.
        dlayer_norm: (dgains, dbiases), shaped like `layer_norm`, or None where that was.
    """

    dx: Array | None
    dh0: Array
    dc0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None
    dweight_peephole: Array | None = None
    dweight_hr: Array | None = None
    dlayer_norm: LayerNormGradients | None = None


class GruGradients(NamedTuple):
    """Gradients of a GRU layer; the gates lie in the order r, z, n.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [3H, I].
        dweight_hh: [3H, H].
        dbias_ih: [3H], or None where there was no `bias_ih`.
        dbias_hh: [3H], or None where there was no `bias_hh`.
        dlayer_norm: (dgains, dbiases), shaped like `layer_norm`, or None where that was.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None
    dlayer_norm: LayerNormGradients | None = None


class IndRnnGradients(NamedTuple):
    """Gradients of an IndRNN layer.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [H, I].
        dweight_hh: [H].
        dbias: [H], or None where there was no `bias`.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias: Array | None


class MinGruGradients(NamedTuple):
    """Gradients of a minGRU layer; rows lie in the order z, n.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [2H, I].
        dbias: [2H], or None where there was no `bias`.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dbias: Array | None
