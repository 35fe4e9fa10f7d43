"""The GRU: ``gru_forward`` and ``gru_backward``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.cuda import arrays as gpu_arrays
from fusedrnn.functional.exchange import parts_in_place
from fusedrnn.functional.gpu import gpu_backward, gpu_forward
from fusedrnn.functional.low_precision import low_precision_backward, low_precision_forward
from fusedrnn.functional.reserve import (
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
from fusedrnn.gradients import GruGradients


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
    if type(x) is not np.ndarray and gpu_arrays.on_gpu(x):
        return gpu_forward("gru", locals())  # type: ignore[no-any-return]  # all arguments, by name
    if activations is not None:
        activations = activation_names(activations, ("sigmoid", "tanh"))
    options = None
    if (
        layer_norm is not None or zoneout_h or recurrent_dropout or dropconnect or activations is not None
        or grad_clip is not None
    ):  # fmt: skip
        options = {
            "layer_norm": parts_in_place("layer_norm", layer_norm), "zoneout_h": zoneout_h,
            "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect, "activations": activations,
            "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset, "step_offset": step_offset,
        }  # fmt: skip
        if recompute:
            refuse_recompute(options, PLAIN)
    if precision is not None:
        y, h_n, _, reserve = low_precision_forward(
            "gru" if reset_after else "gru_reset_before", precision, x, (h0, None), (weight_ih, weight_hh),
            (bias_ih, bias_hh), reverse=reverse, training=training, options=options,
            sequences=(lengths, batch_sizes, resets), recompute=recompute,
        )  # fmt: skip
        return y, h_n, reserve
    if lengths is not None or batch_sizes is not None or resets is not None:
        lengths, batch_sizes, resets = read_sequences(lengths, batch_sizes, resets)
    y, h_n, buffer = _core.gru_forward(
        x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset_after, lengths, batch_sizes, resets, reverse, training,
        recompute, options,
    )  # fmt: skip
    arrays = {"x": x, "h0": h0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    reserve = make_reserve(
        "gru", buffer, arrays, (bias_ih, bias_hh), reset_after=reset_after, reverse=reverse, recompute=recompute,
        lengths=lengths, batch_sizes=batch_sizes, resets=resets, options=options,
    )  # fmt: skip
    return y, h_n, reserve


def gru_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> GruGradients:
    """Gradients of ``gru_forward``; arguments as ``rnn_backward``."""
    r = checked_reserve(reserve, "gru")
    if "gpu" in r.options:
        dx, dh0, _, parameters = gpu_backward(r, dy, dh_n, None, input_grad, accumulate)
        return GruGradients(dx, dh0, *parameters)
    if "low_precision_cell" in r.options:
        dx, dh0, _, parameters = low_precision_backward(r, dy, dh_n, None, input_grad, accumulate)
        return GruGradients(dx, dh0, *parameters)
    a, o = r.arrays, r.options
    parameters = parameter_gradients(r, accumulate, "layer_norm")
    dx, dh0 = _core.gru_backward(
        dy, dh_n, a["x"], a["h0"], a["y"], a["weight_ih"], a["weight_hh"], r.biases[0], r.biases[1], r.buffer,
        o["reset_after"], o["lengths"], o["batch_sizes"], o["resets"], o["reverse"], o["recompute"], o["options"],
        input_grad, *parameters,
    )  # fmt: skip
    return GruGradients(dx, dh0, *parameters)
