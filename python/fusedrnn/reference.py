"""The specification: every cell forward and backward in plain NumPy, equation by equation.

The compiled kernels are tested against this file. It is slow and checks little (`fusedrnn.functional` does
both better), but it can be read. The functions have the names, arguments and results of
`fusedrnn.functional`, except that backward has no `accumulate`.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, G gates (1 RNN, 3 GRU, 4 LSTM): x [T, N, I];
h0, c0, h_n, c_n [N, H]; weight_ih [G*H, I]; weight_hh [G*H, H]; bias_ih, bias_hh [G*H]; y [T, N, H]. All
float32 or all float64; results keep the dtype. h0, c0, either bias, and dy, dh_n, dc_n may be None, which
means zero. `reverse=True` walks time from the last step to the first: then y[t] still belongs to x[t], and
h_n equals y[0]. New arrays are made `like=` an argument, so that dual arrays pass through
(`fusedrnn.differentiation.dual`).

Gate order and the GRU's default form are PyTorch's (documentation of torch.nn.RNN, torch.nn.LSTM and
torch.nn.GRU). `dgates` is the gradient of what enters the activations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .gradients import Array, GruGradients, LstmGradients, RnnGradients

__all__ = ["gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward"]


class _Layer(NamedTuple):
    """The arguments of forward that every backward needs, and the states before the first step."""

    x: Array
    h0: Array
    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None
    reverse: bool


class RnnReserve(NamedTuple):
    """What `rnn_forward` keeps for `rnn_backward`: y [T, N, H]."""

    layer: _Layer
    nonlinearity: str
    y: Array


class LstmReserve(NamedTuple):
    """What `lstm_forward` keeps for `lstm_backward`: gates [T, N, 4H] after activation; c, y [T, N, H]."""

    layer: _Layer
    c0: Array
    gates: Array
    c: Array
    y: Array


class GruReserve(NamedTuple):
    """What `gru_forward` keeps for `gru_backward`: gates [T, N, 3H] after activation; hidden_n, y [T, N, H].

    hidden_n is the product W_hn h + b_hn that r multiplies; zero and unused with `reset_after=False`.
    """

    layer: _Layer
    reset_after: bool
    gates: Array
    hidden_n: Array
    y: Array


def _sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), only ever with exponentials of numbers up to zero, so that nothing overflows."""
    e = np.exp(-np.abs(a))
    sigmoid: Array = np.where(a >= 0, 1, e) / (1 + e)
    return sigmoid


def _steps(T: int, reverse: bool) -> range:
    """The indices of time in the order in which forward walks them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def _layer(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reverse: bool,
) -> _Layer:
    if x.shape[0] == 0:
        raise ValueError("x: expected at least one time step, got shape " + str(x.shape))
    h0 = np.zeros((x.shape[1], weight_hh.shape[1]), x.dtype, like=x) if h0 is None else h0
    return _Layer(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)


def _affine(a: Array, weight: Array, bias: Array | None) -> Array:
    """W a + b for every row of a."""
    product: Array = a @ weight.T
    return product if bias is None else product + bias


def _previous(layer: _Layer, initial: Array, states: Array) -> Array:
    """[T, N, H]: the state that each step started from, given the states that the steps ended with."""
    if layer.reverse:
        return np.concatenate([states[1:], initial[None]])
    return np.concatenate([initial[None], states[:-1]])


def _or_zeros(d: Array | None, like: Array) -> Array:
    return np.zeros_like(like) if d is None else d


def _outer_sum(dgates: Array, inputs: Array) -> Array:
    """The gradient of W in gates = W inputs, summed over time and batch: sum over t, n of dgates inputs^T."""
    product: Array = dgates.reshape(-1, dgates.shape[-1]).T @ inputs.reshape(-1, inputs.shape[-1])
    return product


def _bias_sum(dgates: Array, bias: Array | None) -> Array | None:
    return None if bias is None else dgates.sum(axis=(0, 1))


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
) -> tuple[Array, Array, RnnReserve | None]:
    """h_t = act(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh) with act tanh or relu; y_t = h_t.

    Returns y [T, N, H], h_n [N, H] and the reserve for `rnn_backward` (None with `training=False`).
    Raises ValueError for no time step or an unknown nonlinearity.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    layer = _layer(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)
    h = layer.h0
    y = np.empty((*x.shape[:2], h.shape[1]), x.dtype, like=x)
    for t in _steps(len(x), reverse):
        a = _affine(x[t], weight_ih, bias_ih) + _affine(h, weight_hh, bias_hh)
        h = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)
        y[t] = h
    return y, h.copy(), RnnReserve(layer, nonlinearity, y) if training else None


def rnn_backward(dy: Array | None, dh_n: Array | None, reserve: RnnReserve, *, input_grad: bool = True) -> RnnGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `rnn_forward`.

    dgates_t = act'(a_t) dh_t with dh_t = dy_t + W_hh^T dgates_{t+1}; relu's slope at 0 is 0, as in PyTorch.
    """
    layer, y = reserve.layer, reserve.y
    dy = _or_zeros(dy, y)
    dh = _or_zeros(dh_n, layer.h0)
    dgates = np.empty_like(y)
    for t in reversed(_steps(len(y), layer.reverse)):
        dh = dh + dy[t]
        if reserve.nonlinearity == "tanh":
            slope = 1 - y[t] * y[t]
        else:
            slope = np.where(y[t] > 0, 1, 0 * y[t])  # 0 y and not 0: a NaN stays one
        dgates[t] = dh * slope
        dh = dgates[t] @ layer.weight_hh
    return RnnGradients(
        dx=dgates @ layer.weight_ih if input_grad else None,
        dh0=dh,
        dweight_ih=_outer_sum(dgates, layer.x),
        dweight_hh=_outer_sum(dgates, _previous(layer, layer.h0, y)),
        dbias_ih=_bias_sum(dgates, layer.bias_ih),
        dbias_hh=_bias_sum(dgates, layer.bias_hh),
    )


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
) -> tuple[Array, Array, Array, LstmReserve | None]:
    """i, f, g, o = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, through sigmoid, sigmoid, tanh, sigmoid; then

    c_t = f c_{t-1} + i g;  h_t = o tanh(c_t);  y_t = h_t.

    Returns y [T, N, H], h_n and c_n [N, H], and the reserve for `lstm_backward` (None with `training=False`).
    Raises ValueError for no time step.
    """
    layer = _layer(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)
    h = layer.h0
    c = c0 = np.zeros_like(h) if c0 is None else c0
    (T, N, _), H = x.shape, h.shape[1]
    y, cs = np.empty((T, N, H), x.dtype, like=x), np.empty((T, N, H), x.dtype, like=x)
    gates = np.empty((T, N, 4 * H), x.dtype, like=x)
    for t in _steps(T, reverse):
        a = _affine(x[t], weight_ih, bias_ih) + _affine(h, weight_hh, bias_hh)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = _sigmoid(a_i), _sigmoid(a_f), np.tanh(a_g), _sigmoid(a_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        y[t], cs[t], gates[t] = h, c, np.concatenate([i, f, g, o], axis=1)
    return y, h.copy(), c.copy(), LstmReserve(layer, c0, gates, cs, y) if training else None


def lstm_backward(
    dy: Array | None, dh_n: Array | None, dc_n: Array | None, reserve: LstmReserve, *, input_grad: bool = True
) -> LstmGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n), for every argument of `lstm_forward`.

    With dh_t = dy_t + W_hh^T dgates_{t+1} and dc_t = f_{t+1} dc_{t+1} + dh_t o tanh'(c_t):
    di = dc g, df = dc c_{t-1}, dg = dc i, do = dh tanh(c_t), each times the slope of its activation.
    """
    layer, y = reserve.layer, reserve.y
    dy = _or_zeros(dy, y)
    dh, dc = _or_zeros(dh_n, layer.h0), _or_zeros(dc_n, layer.h0)
    c_previous = _previous(layer, reserve.c0, reserve.c)
    dgates = np.empty_like(reserve.gates)
    for t in reversed(_steps(len(y), layer.reverse)):
        i, f, g, o = np.split(reserve.gates[t], 4, axis=1)
        tanh_c = np.tanh(reserve.c[t])
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        da_i = dc * g * i * (1 - i)
        da_f = dc * c_previous[t] * f * (1 - f)
        da_g = dc * i * (1 - g * g)
        da_o = dh * tanh_c * o * (1 - o)
        dgates[t] = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dh = dgates[t] @ layer.weight_hh
        dc = dc * f
    return LstmGradients(
        dx=dgates @ layer.weight_ih if input_grad else None,
        dh0=dh,
        dc0=dc,
        dweight_ih=_outer_sum(dgates, layer.x),
        dweight_hh=_outer_sum(dgates, _previous(layer, layer.h0, y)),
        dbias_ih=_bias_sum(dgates, layer.bias_ih),
        dbias_hh=_bias_sum(dgates, layer.bias_hh),
    )


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
) -> tuple[Array, Array, GruReserve | None]:
    """r, z = sigmoid(W_i x_t + b_i + W_h h_{t-1} + b_h) for each of the two gates; then with h = h_{t-1}

    reset_after (PyTorch, cuDNN):     n = tanh(W_in x_t + b_in + r (W_hn h + b_hn))
    else (Cho et al. 2014, v1):       n = tanh(W_in x_t + b_in + W_hn (r h) + b_hn)
    h_t = (1 - z) n + z h;  y_t = h_t.

    Returns y [T, N, H], h_n [N, H] and the reserve for `gru_backward` (None with `training=False`).
    Raises ValueError for no time step.
    """
    layer = _layer(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)
    h = layer.h0
    (T, N, _), H = x.shape, h.shape[1]
    W_hrz, W_hn = weight_hh[: 2 * H], weight_hh[2 * H :]
    b_hrz, b_hn = (None, None) if bias_hh is None else (bias_hh[: 2 * H], bias_hh[2 * H :])
    y, hidden_n = np.empty((T, N, H), x.dtype, like=x), np.zeros((T, N, H), x.dtype, like=x)
    gates = np.empty((T, N, 3 * H), x.dtype, like=x)
    for t in _steps(T, reverse):
        a_r, a_z, a_n = np.split(_affine(x[t], weight_ih, bias_ih), 3, axis=1)
        h_r, h_z = np.split(_affine(h, W_hrz, b_hrz), 2, axis=1)
        r, z = _sigmoid(a_r + h_r), _sigmoid(a_z + h_z)
        if reset_after:
            hidden_n[t] = _affine(h, W_hn, b_hn)
            n = np.tanh(a_n + r * hidden_n[t])
        else:
            n = np.tanh(a_n + _affine(r * h, W_hn, b_hn))
        h = (1 - z) * n + z * h
        y[t], gates[t] = h, np.concatenate([r, z, n], axis=1)
    return y, h.copy(), GruReserve(layer, reset_after, gates, hidden_n, y) if training else None


def gru_backward(dy: Array | None, dh_n: Array | None, reserve: GruReserve, *, input_grad: bool = True) -> GruGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `gru_forward`.

    With dh the gradient of h_t: dn = dh (1 - z), dz = dh (h_{t-1} - n), each times its slope; da_n is dn with
    its slope. Then reset_after gives dr = da_n (W_hn h + b_hn), and W_hn h + b_hn receives r da_n; otherwise
    dr = h_{t-1} (W_hn^T da_n).
    """
    layer, y = reserve.layer, reserve.y
    H = y.shape[2]
    W_hrz, W_hn = layer.weight_hh[: 2 * H], layer.weight_hh[2 * H :]
    dy = _or_zeros(dy, y)
    dh = _or_zeros(dh_n, layer.h0)
    h_previous = _previous(layer, layer.h0, y)
    dgates_i = np.empty_like(reserve.gates)  # what W_ih x + b_ih receives
    dgates_h = np.empty_like(reserve.gates)  # what the products with W_hh receive: differs in n's third
    for t in reversed(_steps(len(y), layer.reverse)):
        r, z, n = np.split(reserve.gates[t], 3, axis=1)
        dh = dh + dy[t]
        da_n = dh * (1 - z) * (1 - n * n)
        da_z = dh * (h_previous[t] - n) * z * (1 - z)
        if reserve.reset_after:
            da_r = da_n * reserve.hidden_n[t] * r * (1 - r)
            dhidden_n = da_n * r
            dh_through_n = dhidden_n @ W_hn
        else:
            drh = da_n @ W_hn
            da_r = drh * h_previous[t] * r * (1 - r)
            dhidden_n = da_n
            dh_through_n = drh * r
        dgates_i[t] = np.concatenate([da_r, da_z, da_n], axis=1)
        dgates_h[t] = np.concatenate([da_r, da_z, dhidden_n], axis=1)
        dh = dh * z + dgates_h[t, :, : 2 * H] @ W_hrz + dh_through_n
    # without reset_after, W_hn multiplies r h and not h
    input_of_n = h_previous if reserve.reset_after else reserve.gates[:, :, :H] * h_previous
    dweight_hrz = _outer_sum(dgates_h[:, :, : 2 * H], h_previous)
    dweight_hn = _outer_sum(dgates_h[:, :, 2 * H :], input_of_n)
    return GruGradients(
        dx=dgates_i @ layer.weight_ih if input_grad else None,
        dh0=dh,
        dweight_ih=_outer_sum(dgates_i, layer.x),
        dweight_hh=np.concatenate([dweight_hrz, dweight_hn]),
        dbias_ih=_bias_sum(dgates_i, layer.bias_ih),
        dbias_hh=_bias_sum(dgates_h, layer.bias_hh),
    )
