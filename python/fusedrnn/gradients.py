"""What the backward functions return: one named tuple a cell, from kernels and reference alike.

Shapes: T steps, N rows of the batch, I inputs, H hidden units. Every array has the dtype of the input.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class RnnGradients(NamedTuple):
    """Gradients of a plain recurrent layer.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [H, I].
        dweight_hh: [H, H].
        dbias_ih: [H], or None where there was no `bias_ih`.
        dbias_hh: [H], or None where there was no `bias_hh`.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None


class LstmGradients(NamedTuple):
    """Gradients of an LSTM layer; the gates lie in the order i, f, g, o.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dc0: [N, H], also when the initial cell state was None.
        dweight_ih: [4H, I].
        dweight_hh: [4H, H].
        dbias_ih: [4H], or None where there was no `bias_ih`.
        dbias_hh: [4H], or None where there was no `bias_hh`.
    """

    dx: Array | None
    dh0: Array
    dc0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None


class GruGradients(NamedTuple):
    """Gradients of a GRU layer; the gates lie in the order r, z, n.

    Attributes:
        dx: [T, N, I], or None when called with `input_grad=False`.
        dh0: [N, H], also when the initial state was None.
        dweight_ih: [3H, I].
        dweight_hh: [3H, H].
        dbias_ih: [3H], or None where there was no `bias_ih`.
        dbias_hh: [3H], or None where there was no `bias_hh`.
    """

    dx: Array | None
    dh0: Array
    dweight_ih: Array
    dweight_hh: Array
    dbias_ih: Array | None
    dbias_hh: Array | None
