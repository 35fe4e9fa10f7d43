"""The LSTM: ``lstm_forward`` and ``lstm_backward``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.cuda import arrays as gpu_arrays
from fusedrnn.functional.exchange import in_place, parts_in_place
from fusedrnn.functional.gpu import gpu_backward, gpu_forward
from fusedrnn.functional.low_precision import low_precision_backward, low_precision_forward
from fusedrnn.functional.reserve import (
    COUNTERS,
    PLAIN,
    Accumulate,
    Reserve,
    activation_names,
    checked_reserve,
    make_reserve,
    parameter_gradients,
    read_sequences,
    refuse_recompute,
)
from fusedrnn.gradients import LstmGradients

# What changes the equations, and the plain cell.
_PLAIN: dict[str, Any] = {
    **PLAIN,
    "weight_peephole": None,
    "weight_hr": None,
    "coupled": False,
    "cell_clip": None,
    "zoneout_c": 0.0,
}


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
    if type(x) is not np.ndarray and gpu_arrays.on_gpu(x):
        return gpu_forward("lstm", locals())  # all arguments, by name
    if activations is not None:
        activations = activation_names(activations, ("sigmoid", "tanh", "tanh"))
    options = None
    if (
        weight_peephole is not None or weight_hr is not None or coupled or cell_clip is not None
        or layer_norm is not None or zoneout_h or zoneout_c or recurrent_dropout or dropconnect
        or activations is not None or grad_clip is not None or return_c
    ):  # fmt: skip
        options = {
            "weight_peephole": in_place("weight_peephole", weight_peephole),
            "weight_hr": in_place("weight_hr", weight_hr), "coupled": coupled, "cell_clip": cell_clip,
            "layer_norm": parts_in_place("layer_norm", layer_norm), "zoneout_h": zoneout_h, "zoneout_c": zoneout_c,
            "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect, "activations": activations,
            "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset,
            "step_offset": step_offset,
        }  # fmt: skip
        if recompute:
            refuse_recompute(options, _PLAIN)
    if precision is not None:
        return low_precision_forward(
            "lstm", precision, x, (h0, c0), (weight_ih, weight_hh), (bias_ih, bias_hh),
            reverse=reverse, training=training, options=options,
            sequences=(lengths, batch_sizes, resets), recompute=recompute,
        )  # fmt: skip
    if lengths is not None or batch_sizes is not None or resets is not None:
        lengths, batch_sizes, resets = read_sequences(lengths, batch_sizes, resets)
    y, h_n, c_n, buffer, c = _core.lstm_forward(
        x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, batch_sizes, resets, reverse, training, recompute,
        options, return_c,
    )  # fmt: skip
    arrays = {"x": x, "h0": h0, "c0": c0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    reserve = make_reserve(
        "lstm", buffer, arrays, (bias_ih, bias_hh), reverse=reverse, recompute=recompute, lengths=lengths,
        batch_sizes=batch_sizes, resets=resets, options=options,
    )  # fmt: skip
    return (y, h_n, c_n, reserve, c) if return_c else (y, h_n, c_n, reserve)


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
    r = checked_reserve(reserve, "lstm")
    if "gpu" in r.options:
        if dc is not None:
            raise ValueError("dc: not on a GPU yet; expected None")
        dx, dh0, dc0, parameters = gpu_backward(r, dy, dh_n, dc_n, input_grad, accumulate)
        return LstmGradients(dx, dh0, dc0, *parameters)
    if "low_precision_cell" in r.options:
        if dc is not None:
            raise ValueError("dc: expected None, as forward was called with a precision")
        dx, dh0, dc0, parameters = low_precision_backward(r, dy, dh_n, dc_n, input_grad, accumulate)
        return LstmGradients(dx, dh0, dc0, *parameters)
    a, o = r.arrays, r.options
    parameters = parameter_gradients(r, accumulate, "weight_peephole", "weight_hr", "layer_norm")
    options = o["options"]
    if options is None and dc is not None:
        if o["recompute"]:
            raise ValueError("dc: expected None, as forward was called with recompute=True")
        options = {**_PLAIN, **COUNTERS}
    dx, dh0, dc0 = _core.lstm_backward(
        dy, dh_n, dc_n, dc, a["x"], a["h0"], a["c0"], a["y"], a["weight_ih"], a["weight_hh"], r.biases[0],
        r.biases[1], r.buffer, o["lengths"], o["batch_sizes"], o["resets"], o["reverse"], o["recompute"], options,
        input_grad, *parameters,
    )  # fmt: skip
    return LstmGradients(dx, dh0, dc0, *parameters)
