"""The LSTM: ``lstm_forward`` and ``lstm_backward``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusedrnn.arrays import Array
from fusedrnn.functional.call import run_backward, run_forward
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.gradients import LstmGradients
from fusedrnn.spec import LSTM


def lstm_forward(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    *,
    reverse: bool = False,
    training: bool = True,
    recompute: bool = False,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
    weight_peephole: Array | None = None,
    weight_hr: Array | None = None,
    coupled: bool = False,
    cell_clip: float | None = None,
    layer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None = None,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: Sequence[str] | None = None,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    return_c: bool = False,
    precision: str | None = None,
) -> Any:
    """LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates i, f, g, o.

    c_t = f c_(t-1) + i g and h_t = o tanh(c_t), with i, f, o = sigmoid and g = tanh of the four quarters of
    x_t weight_ih' + bias_ih + h_(t-1) weight_hh' + bias_hh. Equivalent to one layer of ``torch.nn.LSTM``.

    Args:
        x: [T, N, I]. h0, c0: [N, H], or None for zeros.
        weight_ih: [4H, I]. weight_hh: [4H, H]. bias_ih, bias_hh: [4H] or None.
        reverse, training, lengths, batch_sizes, resets: as ``rnn_forward``.
        recompute: keep c alone, a fifth of the memory, and let backward compute the gates once more: the same bits,
            for about a third more time. Not together with options that change the equations.
        weight_peephole: [3, H]: i and f also see c_(t-1), and o sees c_t, each unit its own, times the first, second
            and third row (Gers and Schmidhuber 2000).
        weight_hr: [P, H]: h_t = weight_hr (o tanh(c_t)) (Sak et al. 2014; ``proj_size`` of PyTorch). Then h0, h_n and y
            have P elements, and weight_hh is [4H, P].
        coupled: f = 1 - i (Greff et al. 2017); weights and biases have 3H rows, of i, g, o; no peephole of f.
        cell_clip: c_t is clipped to [-cell_clip, cell_clip] before o and h see it.
        layer_norm: as ``rnn_forward``, and of c_t on its way to h_t: ((gain_ih [4H], gain_hh [4H], gain_c [H]),
            (bias_ih, bias_hh, bias_c)).
        zoneout_h, zoneout_c: as ``rnn_forward``, for either state; h_t comes from c_t before zoneout. zoneout_h not
            together with weight_hr.
        recurrent_dropout, dropconnect, grad_clip, seed, layer, row_offset, step_offset: as ``rnn_forward``.
        activations: of the gates, of g and of the output, by the names of ``nonlinearity`` in ``rnn_forward``.
        return_c: all c_t [T, N, H] come last, and ``lstm_backward`` takes their gradient as dc.
        precision: as ``rnn_forward``; not together with options.

    Returns:
        y [T, N, H], h_n [N, H], c_n [N, H], reserve; with return_c also c.

    Raises:
        TypeError, ValueError: as ``rnn_forward``, and for an option out of its range.
    """
    parameters: tuple[Any, ...] = (weight_ih, weight_hh, bias_ih, bias_hh)
    options = None
    if (
        recompute or weight_peephole is not None or weight_hr is not None or coupled or cell_clip is not None
        or layer_norm is not None or zoneout_h or zoneout_c or recurrent_dropout or dropconnect
        or activations is not None or grad_clip is not None or precision is not None
    ):  # fmt: skip
        options = {
            "recompute": recompute, "coupled": coupled, "cell_clip": cell_clip, "zoneout_h": zoneout_h,
            "zoneout_c": zoneout_c, "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect,
            "activations": activations, "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset,
            "step_offset": step_offset, "precision": precision,
        }  # fmt: skip
        if weight_peephole is not None or weight_hr is not None:
            parameters = (*parameters, weight_peephole, weight_hr)
    return run_forward(
        LSTM, x, (h0, c0), parameters, (lengths, batch_sizes, resets), options, reverse, training, layer_norm, return_c
    )


def lstm_backward(
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    reserve: Reserve | None,
    *,
    dc: Array | None = None,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> LstmGradients:
    """Gradients of ``lstm_forward``; dc_n [N, H] is the gradient of c_n, dc [T, N, H] of all c_t, the rest as
    ``rnn_backward``. ``accumulate`` may go on with those of weight_peephole, weight_hr and layer_norm; after four alone
    the others are fresh."""
    return LstmGradients(*run_backward(LSTM, (dy, dh_n, dc_n, dc), reserve, input_grad, accumulate))
