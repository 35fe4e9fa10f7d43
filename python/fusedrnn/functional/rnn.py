"""The plain recurrent network: ``rnn_forward`` and ``rnn_backward``."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn.arrays import Array
from fusedrnn.functional.call import run_backward, run_forward
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.gradients import RnnGradients
from fusedrnn.spec import RNN


def rnn_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    training: bool = True,
    lengths: Sequence[int] | Array | None = None,
    batch_sizes: Sequence[int] | Array | None = None,
    resets: Array | None = None,
    layer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    precision: str | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """h_t = f(x_t weight_ih' + bias_ih + h_(t-1) weight_hh' + bias_hh), f tanh (Elman 1990) or another activation.

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [H, I]. weight_hh: [H, H]. bias_ih, bias_hh: [H] or None.
        nonlinearity: f: "sigmoid", "tanh", "relu", "hard_sigmoid" (0.2 x + 0.5 between 0 and 1), "hard_tanh",
            "softsign", "softplus" or "identity".
        reverse: walk from the last step to the first; y keeps the order of x.
        training: keep a reserve for backward; otherwise None comes in its place.
        lengths: N integers from 0 to T, the rows' own: row n is x[:lengths[n], n], and with ``reverse`` its walk begins
            at its own last step. y is zero past the end, and h_n the state after the row's last step (h0 where there is
            none). Work follows the sum of the lengths; rows need no order.
        batch_sizes: [T] integers that never increase: x, y and their gradients are packed rows [sum of batch_sizes,
            ...], as in PyTorch's ``PackedSequence``, and N is the first of them. Not together with lengths.
        resets: booleans [T, N] (packed: [sum of batch_sizes]); where true, the state is zero before that step, and no
            gradient passes.
        layer_norm: ((gain_ih, gain_hh), (bias_ih, bias_hh)), as long as the rows of the weights, of layer normalization
            (Ba et al. 2016) of x_t weight_ih' and of h_(t-1) weight_hh', each over all its rows and before the biases
            are added. Each of the two biases here may be None.
        zoneout_h: probability with which a unit keeps its previous value (Krueger et al. 2017), from 0 to 1; in
            inference the mean of both values takes its place.
        recurrent_dropout: probability, below 1, of zeroing an element of h_(t-1) in the products, the same for all
            steps of a row (Gal and Ghahramani 2016); the others are divided by 1 - p. Training only.
        dropconnect: the same of an element of weight_hh, one mask a call (Wan et al. 2013; Merity et al. 2018).
        grad_clip: backward clips what comes to h_(t-1) through weight_hh to [-grad_clip, grad_clip] (Graves 2013).
        seed: from 0 to 2^64 - 1. Random numbers are counted by layer, direction, step, row and unit (Philox, Salmon et
            al. 2011), so masks depend neither on threads nor on how a batch or sequence is cut: a part of it says which
            by ``row_offset`` and ``step_offset``, below 2^32; ``layer`` is below 2^28.
        precision: "bfloat16" or "int8" (inference alone): factors of products, in backward too, are rounded to it;
            sums, states and gradients are float32. Arrays are float32 too; x, weights, biases and initial states may be
            bfloat16 (DLPack, ml_dtypes). Not together with options from layer_norm on.

    Returns:
        y [T, N, H], h_n [N, H] (the state after the last step walked), reserve.

    Raises:
        TypeError: dtype other than float32 or float64, or not the same for all.
        ValueError: a shape that does not fit, T = 0, an array that is not C-contiguous, an option out of its range.
    """
    options = None
    if (
        nonlinearity != "tanh" or layer_norm is not None or zoneout_h or recurrent_dropout or dropconnect
        or grad_clip is not None or precision is not None
    ):  # fmt: skip
        options = {
            "nonlinearity": nonlinearity, "zoneout_h": zoneout_h, "recurrent_dropout": recurrent_dropout,
            "dropconnect": dropconnect, "grad_clip": grad_clip, "seed": seed, "layer": layer,
            "row_offset": row_offset, "step_offset": step_offset, "precision": precision,
        }  # fmt: skip
    return run_forward(  # type: ignore[no-any-return]
        RNN, x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), (lengths, batch_sizes, resets), options, reverse,
        training, layer_norm,
    )  # fmt: skip


def rnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> RnnGradients:
    """Gradients of ``rnn_forward``, by back-propagation through time (Werbos 1990).

    Args:
        dy: [T, N, H], dh_n: [N, H]: gradients of y and h_n; either may be None for zeros.
        reserve: of the forward call, with training=True.
        input_grad: False leaves dx out (None), which saves time in a network's first layer.
        accumulate: (dweight_ih, dweight_hh, dbias_ih, dbias_hh) to add the parameters' gradients to, in place;
            they are returned. By default fresh arrays. With layer_norm its gradients (dgains, dbiases) come fifth.

    Raises:
        TypeError, ValueError: as ``rnn_forward``. RuntimeError: under FUSEDRNN_CHECK=1, changed arrays.
    """
    return RnnGradients(*run_backward(RNN, (dy, dh_n), reserve, input_grad, accumulate))
