"""The IndRNN: ``indrnn_forward`` and ``indrnn_backward``."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn.arrays import Array
from fusedrnn.functional.call import run_backward, run_forward
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.gradients import IndRnnGradients
from fusedrnn.spec import INDRNN


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
    options = None if nonlinearity == "relu" else {"nonlinearity": nonlinearity}
    return run_forward(  # type: ignore[no-any-return]
        INDRNN, x, (h0,), (weight_ih, weight_hh, bias), (lengths, batch_sizes, resets), options, reverse, training
    )


def indrnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> IndRnnGradients:
    """Gradients of ``indrnn_forward``; arguments as ``rnn_backward``, accumulate (dweight_ih, dweight_hh, dbias)."""
    return IndRnnGradients(*run_backward(INDRNN, (dy, dh_n), reserve, input_grad, accumulate))
