"""The minGRU: ``mingru_forward`` and ``mingru_backward``."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn.arrays import Array
from fusedrnn.functional.call import run_backward, run_forward
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.gradients import MinGruGradients
from fusedrnn.spec import MINGRU


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
    return run_forward(  # type: ignore[no-any-return]
        MINGRU, x, (h0,), (weight_ih, bias), (lengths, batch_sizes, resets), None, reverse, training
    )


def mingru_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> MinGruGradients:
    """Gradients of ``mingru_forward``; arguments as ``rnn_backward``, accumulate (dweight_ih, dbias)."""
    return MinGruGradients(*run_backward(MINGRU, (dy, dh_n), reserve, input_grad, accumulate))
