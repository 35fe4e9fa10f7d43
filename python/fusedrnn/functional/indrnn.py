"""The IndRNN: ``indrnn_forward`` and ``indrnn_backward``."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional.reserve import (
    Accumulate,
    Reserve,
    checked_reserve,
    gradient_arrays,
    make_reserve,
    read_sequences,
)
from fusedrnn.gradients import IndRnnGradients


def indrnn_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    *,
    nonlinearity: str = "relu",
    reverse: bool = False,
    training: bool = True,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """h_t = f(x_t weight_ih' + weight_hh h_(t-1) + bias), where every unit sees its own state alone (Li et al. 2018).

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [H, I]. weight_hh: [H], times h elementwise. bias: [H] or None.
        nonlinearity: f: sigmoid, tanh, relu, hard_sigmoid (0.2 x + 0.5 between 0 and 1), hard_tanh, softsign, softplus
            or identity.
        reverse, training, lengths, batch_sizes, resets: as ``rnn_forward``.

    Returns:
        y [T, N, H], h_n [N, H], reserve.

    Raises:
        TypeError, ValueError: as ``rnn_forward``; an unknown nonlinearity.
    """
    if lengths is not None or batch_sizes is not None or resets is not None:
        lengths, batch_sizes, resets = read_sequences(lengths, batch_sizes, resets)
    y, h_n, buffer = _core.indrnn_forward(
        x, h0, weight_ih, weight_hh, bias, nonlinearity, lengths, batch_sizes, resets, reverse, training
    )
    arrays = {"x": x, "h0": h0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    reserve = make_reserve(
        "indrnn", buffer, arrays, (bias,), nonlinearity=nonlinearity, reverse=reverse,
        lengths=lengths, batch_sizes=batch_sizes, resets=resets,
    )  # fmt: skip
    return y, h_n, reserve


def indrnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> IndRnnGradients:
    """Gradients of ``indrnn_forward``; arguments as ``rnn_backward``, accumulate (dweight_ih, dweight_hh, dbias)."""
    r = checked_reserve(reserve, "indrnn")
    a, o = r.arrays, r.options
    parameters = {"weight_ih": a["weight_ih"], "weight_hh": a["weight_hh"], "bias": r.biases[0]}
    gradients = gradient_arrays(parameters, accumulate)
    dx, dh0 = _core.indrnn_backward(
        dy, dh_n, a["x"], a["h0"], a["y"], a["weight_ih"], a["weight_hh"], r.buffer,
        o["nonlinearity"], o["lengths"], o["batch_sizes"], o["resets"], o["reverse"], input_grad, *gradients,
    )  # fmt: skip
    return IndRnnGradients(dx, dh0, *gradients)
