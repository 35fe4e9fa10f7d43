"""The GRU: ``gru_forward`` and ``gru_backward``."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn.arrays import Array
from fusedrnn.functional.call import run_backward, run_forward
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.gradients import GruGradients
from fusedrnn.spec import GRU


def gru_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    *,
    reset_after: bool = True,
    reverse: bool = False,
    training: bool = True,
    recompute: bool = False,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
    layer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: Sequence[str] | None = None,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    precision: str | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """GRU (Cho et al. 2014), gates r, z, n: h_t = (1 - z) n + z h_(t-1), r and z sigmoid.

    With ``reset_after`` (PyTorch, cuDNN) n = tanh(W_in x + b_in + r (W_hn h + b_hn)); without (the paper)
    n = tanh(W_in x + b_in + W_hn (r h) + b_hn). Equivalent to one layer of ``torch.nn.GRU``.

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [3H, I]. weight_hh: [3H, H]. bias_ih, bias_hh: [3H] or None.
        reverse, training, lengths, batch_sizes, resets, precision: as ``rnn_forward``; precision with
            ``reset_after=False`` is for inference alone.
        recompute: keep nothing but y, and let backward compute the gates once more: the same bits, for about a third
            more time. Not together with options that change the equations.
        layer_norm: as ``rnn_forward``, of all three gates together; with ``reset_after`` alone.
        zoneout_h, recurrent_dropout, dropconnect, grad_clip, seed, layer, row_offset, step_offset: as ``rnn_forward``.
            z blends with h_(t-1) as it was before dropout, and zoneout comes last.
        activations: of the gates and of n, by the names of ``nonlinearity`` in ``rnn_forward``.

    Returns:
        y [T, N, H], h_n [N, H], reserve.

    Raises:
        TypeError, ValueError: as ``rnn_forward``.
    """
    options = None
    if (
        not reset_after or recompute or layer_norm is not None or zoneout_h or recurrent_dropout or dropconnect
        or activations is not None or grad_clip is not None or precision is not None
    ):  # fmt: skip
        options = {
            "reset_after": reset_after, "recompute": recompute, "zoneout_h": zoneout_h,
            "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect, "activations": activations,
            "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset, "step_offset": step_offset,
            "precision": precision,
        }  # fmt: skip
    return run_forward(  # type: ignore[no-any-return]
        GRU, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), (lengths, batch_sizes, resets), options, reverse,
        training, layer_norm,
    )  # fmt: skip


def gru_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> GruGradients:
    """Gradients of ``gru_forward``; arguments as ``rnn_backward``."""
    return GruGradients(*run_backward(GRU, (dy, dh_n), reserve, input_grad, accumulate))
