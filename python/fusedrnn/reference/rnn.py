"""The plain recurrent layer, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..arrays import Array
from ..gradients import RnnGradients
from .activations import Activation, find_activation
from .norm import find_norms, norm_gradients
from .products import Affine, Recurrent, find_recurrent
from .random import find_random, zoned
from .sequences import Sequence, find_sequence


class _Kept(NamedTuple):
    """What backward needs of a step: the state that the product saw, and f(a), before zoneout."""

    dropped: Array
    f: Array


class RnnReserve(NamedTuple):
    """What `rnn_forward` keeps for `rnn_backward`."""

    sequence: Sequence
    x: Array
    inputs: Affine
    recurrent: Recurrent
    act: Activation
    zoneout: Array | None
    kept: list[_Kept]


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
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
) -> tuple[Array, Array, RnnReserve | None]:
    """h_t = act(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh); y_t = h_t.

    Options: `nonlinearity` is act, by any name of `activations`; layer_norm = ((gain_ih, gain_hh), (bias_x, bias_h)),
    all [H], normalizes W_ih x_t and W_hh h_{t-1}; the others are every cell's (`fusedrnn.reference`).

    Returns y [T, N, H], h_n [N, H] and the reserve for `rnn_backward` (None with `training=False`).
    Raises ValueError for no time step, an unknown nonlinearity, or an option out of range.
    """
    H = weight_hh.shape[0]
    act = find_activation("nonlinearity", nonlinearity)
    sequence = find_sequence(x, lengths, batch_sizes, resets, reverse)
    random = find_random(training, seed, layer, reverse, row_offset, step_offset)
    norm_x, norm_h = find_norms(layer_norm, (H, H))
    h_n = sequence.state("h0", h0, H)
    inputs = Affine(weight_ih, bias_ih, norm_x)
    recurrent = find_recurrent(weight_hh, bias_hh, norm_h, random, len(h_n), recurrent_dropout, dropconnect, grad_clip)
    zoneout = random.zoneout("zoneout_h", zoneout_h, sequence, H)

    x = sequence.flat(x)
    from_x = inputs(x)
    ys, kept = [], []
    for step in sequence.steps:
        h = step.take(h_n)
        dropped = recurrent.dropped(h, step)
        f = act.value(from_x[step.at] + recurrent.affine(dropped))
        h_next = f
        if zoneout is not None:  # some units keep the previous state
            h_next = zoned(zoneout[step.at], h, f)
        h_n[step.rows] = h_next
        ys.append(h_next)
        kept.append(_Kept(dropped, f))
    reserve = RnnReserve(sequence, x, inputs, recurrent, act, zoneout, kept)
    return sequence.shaped(sequence.gather(ys)), h_n, reserve if training else None


def rnn_backward(dy: Array | None, dh_n: Array | None, reserve: RnnReserve, *, input_grad: bool = True) -> RnnGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `rnn_forward`.

    da_t = act'(a_t) dh_t with dh_t = dy_t + W_hh^T da_{t+1}; relu's slope at 0 is 0, as in PyTorch.
    """
    sequence, x, inputs, recurrent, act, zoneout, kept = reserve
    H = len(recurrent.affine.weight)
    dy = sequence.gradient("dy", dy, H)
    dstate = sequence.state("dh_n", dh_n, H)
    das = []
    for step, k in zip(reversed(sequence.steps), reversed(kept), strict=True):
        dh = dstate[step.rows] + dy[step.at]
        df = dh
        dh_previous: Array | float = 0.0
        if zoneout is not None:
            df, dh_previous = dh * (1 - zoneout[step.at]), dh * zoneout[step.at]
        da = df * act.slope(k.f)
        dh_previous = dh_previous + recurrent.dprevious(recurrent.affine.dinput(da, k.dropped), step)
        dstate[step.rows] = step.cut(dh_previous)
        das.append(da)

    da = sequence.gather(das[::-1])
    of_x = inputs.gradients(da, x)
    of_h = recurrent.affine.gradients(da, sequence.gather([k.dropped for k in kept]))
    return RnnGradients(
        dx=sequence.shaped(inputs.dinput(da, x)) if input_grad else None,
        dh0=dstate,
        dweight_ih=of_x.dweight,
        dweight_hh=recurrent.dweight(of_h.dweight),
        dbias_ih=of_x.dbias,
        dbias_hh=of_h.dbias,
        dlayer_norm=norm_gradients(of_x.dnorm, of_h.dnorm),
    )
