"""The minGRU: ``mingru_forward`` and ``mingru_backward``."""

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
from fusedrnn.gradients import MinGruGradients


def mingru_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    bias: Array | None = None,
    *,
    reverse: bool = False,
    training: bool = True,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """minGRU (Feng et al. 2024, "Were RNNs all we needed?"): h_t = (1 - z) h_(t-1) + z n, whose gates see no state.

    z = sigmoid(x_t W_z' + b_z), n = x_t W_n' + b_n; z admits the new, where a GRU's keeps the old. Computed step by
    step, with no need of the paper's parallel scan.

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [2H, I], rows of z, then of n. bias: [2H] or None.
        reverse, training, lengths, batch_sizes, resets: as ``rnn_forward``.

    Returns:
        y [T, N, H], h_n [N, H], reserve.

    Raises:
        TypeError, ValueError: as ``rnn_forward``.
    """
    if lengths is not None or batch_sizes is not None or resets is not None:
        lengths, batch_sizes, resets = read_sequences(lengths, batch_sizes, resets)
    y, h_n, buffer = _core.mingru_forward(x, h0, weight_ih, bias, lengths, batch_sizes, resets, reverse, training)
    arrays = {"x": x, "h0": h0, "y": y, "weight_ih": weight_ih}
    reserve = make_reserve(
        "mingru", buffer, arrays, (bias,), reverse=reverse, lengths=lengths, batch_sizes=batch_sizes, resets=resets
    )
    return y, h_n, reserve


def mingru_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> MinGruGradients:
    """Gradients of ``mingru_forward``; arguments as ``rnn_backward``, accumulate (dweight_ih, dbias)."""
    r = checked_reserve(reserve, "mingru")
    a, o = r.arrays, r.options
    gradients = gradient_arrays({"weight_ih": a["weight_ih"], "bias": r.biases[0]}, accumulate)
    dx, dh0 = _core.mingru_backward(
        dy, dh_n, a["x"], a["h0"], a["y"], a["weight_ih"], r.buffer,
        o["lengths"], o["batch_sizes"], o["resets"], o["reverse"], input_grad, *gradients,
    )  # fmt: skip
    return MinGruGradients(dx, dh0, *gradients)
