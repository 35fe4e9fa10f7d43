"""The pure interface: one call is one layer in one direction over a whole sequence.

Arrays are float32 or float64, all of one dtype, C-contiguous, used in place; nothing is cast or copied. T is
time, N batch, I input size, H hidden size, G the gates of the cell (RNN 1, GRU 3, LSTM 4).

``reserve`` is what a forward call keeps for its backward call: opaque, never altered, so backward may run more
than once. It refers to x, the initial states, y and the weights: changing one of them in between is an error of
the caller, which ``FUSEDRNN_CHECK=1`` in the environment finds (a hash at either end, so it costs time).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.gradients import Array, GruGradients, LstmGradients, RnnGradients

Accumulate = tuple[Array, Array, Array | None, Array | None]


def _digests(arrays: dict[str, Array | None]) -> dict[str, bytes]:
    return {
        name: hashlib.blake2b(np.ascontiguousarray(a).view(np.uint8).data).digest()
        for name, a in arrays.items()
        if a is not None and a.size
    }


@dataclass(slots=True)  # not frozen, which would make it twice as slow to build: it is made in every training step
class Reserve:
    """What backward needs from a forward call.

    ``buffer`` holds activated gates: LSTM [T, N, 5H] (i, f, g, o, c), GRU [T, N, 4H] (r, z, n, W_hn h + b_hn) or,
    reset before, [T, N, 3H]; RNN [T, N, 0]. With recompute LSTM [T, N, H] (c) and GRU [T, N, 0]. Its layout is the
    same on every instruction set.
    """

    cell: str
    buffer: Array
    arrays: dict[str, Any]  # None where a state was
    biases: tuple[Array | None, Array | None]
    options: dict[str, Any]
    digests: dict[str, bytes] = field(default_factory=dict, repr=False)

    def check(self, cell: str) -> None:
        """Raise unless this reserve came from ``<cell>_forward`` and, under FUSEDRNN_CHECK=1, its arrays still
        hold what they held then."""
        if self.cell != cell:
            raise TypeError(f"reserve: expected one of {cell}_forward, got one of {self.cell}_forward")
        for name, digest in _digests(self.arrays).items() if self.digests else ():
            if digest != self.digests[name]:
                raise RuntimeError(f"{name}: changed between {cell}_forward and {cell}_backward")


def _reserve(
    cell: str,
    buffer: Array | None,
    arrays: dict[str, Array | None],
    biases: tuple[Array | None, Array | None],
    **options: Any,
) -> Reserve | None:
    if buffer is None:
        return None
    if options.get("recompute"):
        arrays = {**arrays, "bias_ih": biases[0], "bias_hh": biases[1]}
    digests = _digests(arrays) if os.environ.get("FUSEDRNN_CHECK") == "1" else {}
    return Reserve(cell, buffer, arrays, biases, options, digests)


def _checked(reserve: Reserve | None, cell: str) -> Reserve:
    if not isinstance(reserve, Reserve):
        raise TypeError(
            f"reserve: expected the reserve of {cell}_forward(..., training=True), got {type(reserve).__name__}"
        )
    reserve.check(cell)
    return reserve


def _parameter_gradients(reserve: Reserve, accumulate: Accumulate | None) -> Accumulate:
    if accumulate is not None:
        if not isinstance(accumulate, tuple) or len(accumulate) != 4:
            raise TypeError("accumulate: expected (dweight_ih, dweight_hh, dbias_ih, dbias_hh)")
        for name, given, bias in zip(("dbias_ih", "dbias_hh"), accumulate[2:], reserve.biases, strict=True):
            if (given is None) != (bias is None):
                expected = "None, as there was no bias" if bias is None else "an array, as there was a bias"
                raise ValueError(f"{name}: expected {expected}")
        return accumulate
    weight_ih, weight_hh = reserve.arrays["weight_ih"], reserve.arrays["weight_hh"]
    assert weight_ih is not None
    assert weight_hh is not None
    bias_ih, bias_hh = reserve.biases
    return (
        np.zeros_like(weight_ih),
        np.zeros_like(weight_hh),
        None if bias_ih is None else np.zeros_like(bias_ih),
        None if bias_hh is None else np.zeros_like(bias_hh),
    )


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
) -> tuple[Array, Array, Reserve | None]:
    """h_t = f(x_t weight_ih' + bias_ih + h_(t-1) weight_hh' + bias_hh), f tanh or relu (Elman 1990).

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [H, I]. weight_hh: [H, H]. bias_ih, bias_hh: [H] or None.
        nonlinearity: "tanh" or "relu".
        reverse: walk from the last step to the first; y keeps the order of x.
        training: keep a reserve for backward; otherwise None comes in its place.

    Returns:
        y [T, N, H], h_n [N, H] (the state after the last step walked), reserve.

    Raises:
        TypeError: dtype other than float32 or float64, or not the same for all.
        ValueError: a shape that does not fit, T = 0, an array that is not C-contiguous.
    """
    y, h_n, buffer = _core.rnn_forward(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, reverse, training)
    arrays = {"x": x, "h0": h0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    reserve = _reserve("rnn", buffer, arrays, (bias_ih, bias_hh), nonlinearity=nonlinearity, reverse=reverse)
    return y, h_n, reserve


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
            they are returned. By default fresh arrays.

    Raises:
        TypeError, ValueError: as ``rnn_forward``. RuntimeError: under FUSEDRNN_CHECK=1, changed arrays.
    """
    r = _checked(reserve, "rnn")
    a = r.arrays
    parameters = _parameter_gradients(r, accumulate)
    dx, dh0 = _core.rnn_backward(
        dy, dh_n, a["x"], a["h0"], a["y"], a["weight_ih"], a["weight_hh"], r.buffer,
        r.options["nonlinearity"], r.options["reverse"], input_grad, *parameters,
    )  # fmt: skip
    return RnnGradients(dx, dh0, *parameters)


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
) -> tuple[Array, Array, Array, Reserve | None]:
    """LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates i, f, g, o.

    c_t = f c_(t-1) + i g and h_t = o tanh(c_t), with i, f, o = sigmoid and g = tanh of the four quarters of
    x_t weight_ih' + bias_ih + h_(t-1) weight_hh' + bias_hh. Equivalent to one layer of ``torch.nn.LSTM``.

    Args:
        x: [T, N, I]. h0, c0: [N, H], or None for zeros.
        weight_ih: [4H, I]. weight_hh: [4H, H]. bias_ih, bias_hh: [4H] or None.
        reverse, training: as ``rnn_forward``.
        recompute: keep c alone, a fifth of the memory, and let backward compute the gates once more: the same bits,
            for about a third more time.

    Returns:
        y [T, N, H], h_n [N, H], c_n [N, H], reserve.

    Raises:
        TypeError, ValueError: as ``rnn_forward``.
    """
    y, h_n, c_n, buffer = _core.lstm_forward(
        x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reverse, training, recompute
    )
    arrays = {"x": x, "h0": h0, "c0": c0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    reserve = _reserve("lstm", buffer, arrays, (bias_ih, bias_hh), reverse=reverse, recompute=recompute)
    return y, h_n, c_n, reserve


def lstm_backward(
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    reserve: Reserve | None,
    *,
    input_grad: bool = True,
    accumulate: Accumulate | None = None,
) -> LstmGradients:
    """Gradients of ``lstm_forward``; dc_n [N, H] is the gradient of c_n, the rest as ``rnn_backward``."""
    r = _checked(reserve, "lstm")
    a = r.arrays
    parameters = _parameter_gradients(r, accumulate)
    dx, dh0, dc0 = _core.lstm_backward(
        dy, dh_n, dc_n, a["x"], a["h0"], a["c0"], a["y"], a["weight_ih"], a["weight_hh"], r.biases[0], r.biases[1],
        r.buffer, r.options["reverse"], r.options["recompute"], input_grad, *parameters,
    )  # fmt: skip
    return LstmGradients(dx, dh0, dc0, *parameters)


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
) -> tuple[Array, Array, Reserve | None]:
    """GRU (Cho et al. 2014), gates r, z, n: h_t = (1 - z) n + z h_(t-1), r and z sigmoid.

    With ``reset_after`` (PyTorch, cuDNN) n = tanh(W_in x + b_in + r (W_hn h + b_hn)); without (the paper)
    n = tanh(W_in x + b_in + W_hn (r h) + b_hn). Equivalent to one layer of ``torch.nn.GRU``.

    Args:
        x: [T, N, I]. h0: [N, H], or None for zeros.
        weight_ih: [3H, I]. weight_hh: [3H, H]. bias_ih, bias_hh: [3H] or None.
        reverse, training: as ``rnn_forward``.
        recompute: keep nothing but y, and let backward compute the gates once more: the same bits, for about a third
            more time.

    Returns:
        y [T, N, H], h_n [N, H], reserve.

    Raises:
        TypeError, ValueError: as ``rnn_forward``.
    """
    y, h_n, buffer = _core.gru_forward(
        x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset_after, reverse, training, recompute
    )
    arrays = {"x": x, "h0": h0, "y": y, "weight_ih": weight_ih, "weight_hh": weight_hh}
    options = {"reset_after": reset_after, "reverse": reverse, "recompute": recompute}
    reserve = _reserve("gru", buffer, arrays, (bias_ih, bias_hh), **options)
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
    r = _checked(reserve, "gru")
    a = r.arrays
    parameters = _parameter_gradients(r, accumulate)
    dx, dh0 = _core.gru_backward(
        dy, dh_n, a["x"], a["h0"], a["y"], a["weight_ih"], a["weight_hh"], r.biases[0], r.biases[1], r.buffer,
        r.options["reset_after"], r.options["reverse"], r.options["recompute"], input_grad, *parameters,
    )  # fmt: skip
    return GruGradients(dx, dh0, *parameters)
