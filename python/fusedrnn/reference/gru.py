"""The GRU, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..gradients import GruGradients
from .activations import Activation, find_activations
from .checks import check_recompute
from .norm import find_norms, norm_gradients
from .products import Affine, Recurrent, find_recurrent
from .random import find_random, zoned
from .sequences import Sequence, find_sequence
from .steps import GruStep, gru_step, split

ACTIVATIONS = ("sigmoid", "tanh")  # gates, candidate


class _Kept(NamedTuple):
    """Hold what backward needs of a step: the previous state, that as the products saw it, and what was computed."""

    h: Array
    dropped: Array
    new: GruStep


class GruReserve(NamedTuple):
    """What `gru_forward` keeps for `gru_backward`."""

    sequence: Sequence
    x: Array
    inputs: Affine
    recurrent: Recurrent
    activations: list[Activation]
    reset_after: bool
    zoneout: Array | None
    kept: list[_Kept]


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
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: tuple[str, ...] | None = None,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
) -> tuple[Array, Array, GruReserve | None]:
    """r, z = sigmoid(W_i x_t + b_i + W_h h_{t-1} + b_h) for each of the two gates; then with h = h_{t-1}

    reset_after (PyTorch, cuDNN):     n = tanh(W_in x_t + b_in + r (W_hn h + b_hn))
    else (Cho et al. 2014, v1):       n = tanh(W_in x_t + b_in + W_hn (r h) + b_hn)
    h_t = (1 - z) n + z h;  y_t = h_t.

    Options; those not named here are every cell's (`fusedrnn.reference`):

    - `layer_norm` = ((gain_ih, gain_hh), (bias_x, bias_h)), all [3H], normalizes W_ih x_t and W_hh h_{t-1}; only
      with reset_after.
    - `activations`: names for (gates, candidate) in place of sigmoid, tanh.
    - `recompute`: nothing here; refused with an option that changes the equations, as the kernels do.

    Recurrent dropout reaches the products alone, not the h that z keeps. The blend comes before zoneout.

    Returns y [T, N, H], h_n [N, H] and the reserve for `gru_backward` (None with `training=False`).
    Raises ValueError for no time step, an option out of range or options that exclude each other.
    """
    H = weight_hh.shape[1]
    check_recompute(
        recompute, layer_norm=layer_norm, zoneout_h=zoneout_h, recurrent_dropout=recurrent_dropout,
        dropconnect=dropconnect, activations=activations, grad_clip=grad_clip,
    )  # fmt: skip
    if layer_norm is not None and not reset_after:
        raise ValueError("layer_norm: expected None with reset_after=False, got gains and biases")
    acts = find_activations(activations, ACTIVATIONS)
    values = [act.value for act in acts]
    sequence = find_sequence(x, lengths, batch_sizes, resets, reverse)
    random = find_random(training, seed, layer, reverse, row_offset, step_offset)
    norm_x, norm_h = find_norms(layer_norm, (3 * H, 3 * H))
    h_n = sequence.state("h0", h0, H)
    inputs = Affine(weight_ih, bias_ih, norm_x)
    recurrent = find_recurrent(weight_hh, bias_hh, norm_h, random, len(h_n), recurrent_dropout, dropconnect, grad_clip)
    parts = (slice(0, 2 * H), slice(2 * H, None))
    products: list[Any] = [recurrent.affine] if reset_after else [recurrent.affine.part(rows) for rows in parts]
    zoneout = random.zoneout("zoneout_h", zoneout_h, sequence, H)

    x = sequence.flat(x)
    from_x = inputs(x)
    ys, kept = [], []
    for step in sequence.steps:
        h = step.take(h_n)
        dropped = recurrent.dropped(h, step)
        new = gru_step(from_x[step.at], dropped, h, values, split, *products)
        h_next = new.h
        if zoneout is not None:  # some units keep the previous state
            h_next = zoned(zoneout[step.at], h, h_next)
        h_n[step.rows] = h_next
        ys.append(h_next)
        kept.append(_Kept(h, dropped, new))
    reserve = GruReserve(sequence, x, inputs, recurrent, acts, reset_after, zoneout, kept)
    return sequence.shaped(sequence.gather(ys)), h_n, reserve if training else None


def gru_backward(dy: Array | None, dh_n: Array | None, reserve: GruReserve, *, input_grad: bool = True) -> GruGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `gru_forward`.

    With dh the gradient of h_t: dn = dh (1 - z), dz = dh (h_{t-1} - n), each times its slope; da_n is dn with
    its slope. Then reset_after gives dr = da_n (W_hn h + b_hn), and W_hn h + b_hn receives r da_n; otherwise
    dr = h_{t-1} (W_hn^T da_n).
    """
    sequence, x, inputs, recurrent, (gate, candidate), reset_after, zoneout, kept = reserve
    H = recurrent.affine.weight.shape[1]
    hidden_rz, hidden_n = recurrent.affine.part(slice(0, 2 * H)), recurrent.affine.part(slice(2 * H, None))
    dy = sequence.gradient("dy", dy, H)
    dstate = sequence.state("dh_n", dh_n, H)
    das_x, das_h = [], []  # what the sums of x and of h receive: they differ in n's third
    for step, (h, dropped, (_, r, z, n, s)) in zip(reversed(sequence.steps), reversed(kept), strict=True):
        dh = dstate[step.rows] + dy[step.at]
        dh_previous: Array | float = 0.0
        if zoneout is not None:
            dh, dh_previous = dh * (1 - zoneout[step.at]), dh * zoneout[step.at]

        da_n = dh * (1 - z) * candidate.slope(n)
        da_z = dh * (h - n) * gate.slope(z)
        dh_previous = dh_previous + dh * z
        if reset_after:
            da_r = da_n * s * gate.slope(r)
            da_h = np.concatenate([da_r, da_z, da_n * r], axis=1)
            ddropped = recurrent.affine.dinput(da_h, dropped)
        else:
            ds = hidden_n.dinput(da_n, s)
            da_r = ds * dropped * gate.slope(r)
            da_h = np.concatenate([da_r, da_z, da_n], axis=1)
            ddropped = hidden_rz.dinput(da_h[:, : 2 * H], dropped) + ds * r
        dstate[step.rows] = step.cut(dh_previous + recurrent.dprevious(ddropped, step))
        das_x.append(np.concatenate([da_r, da_z, da_n], axis=1))
        das_h.append(da_h)

    da_x, da_h = sequence.gather(das_x[::-1]), sequence.gather(das_h[::-1])
    of_x = inputs.gradients(da_x, x)
    of_h = recurrent.affine.gradients(da_h, sequence.gather([k.dropped for k in kept]))
    dweight_hh = of_h.dweight
    if not reset_after:  # W_hn multiplied r h and not h
        of_n = hidden_n.gradients(da_h[:, 2 * H :], sequence.gather([k.new.s for k in kept]))
        dweight_hh = np.concatenate([dweight_hh[: 2 * H], of_n.dweight])
    return GruGradients(
        dx=sequence.shaped(inputs.dinput(da_x, x)) if input_grad else None,
        dh0=dstate,
        dweight_ih=of_x.dweight,
        dweight_hh=recurrent.dweight(dweight_hh),
        dbias_ih=of_x.dbias,
        dbias_hh=of_h.dbias,
        dlayer_norm=norm_gradients(of_x.dnorm, of_h.dnorm),
    )
