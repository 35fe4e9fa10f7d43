"""The LSTM, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..gradients import LstmGradients
from .activations import Activation, find_activations
from .checks import check_clip, check_recompute, check_shape
from .norm import LayerNorm, find_norms, norm_gradients
from .products import Affine, Recurrent, find_recurrent
from .random import find_random, zoned
from .sequences import Sequence, find_sequence
from .steps import LstmStep, lstm_step, split

ACTIVATIONS = ("sigmoid", "tanh", "tanh")  # gate, cell, output


class _Kept(NamedTuple):
    """Hold what backward needs of a step: the previous h as the product saw it, the previous c, and the rest."""

    dropped: Array
    c: Array
    new: LstmStep


class LstmReserve(NamedTuple):
    """What `lstm_forward` keeps for `lstm_backward`."""

    sequence: Sequence
    x: Array
    inputs: Affine
    recurrent: Recurrent
    activations: list[Activation]
    norm_c: LayerNorm | None
    weight_peephole: Array | None
    weight_hr: Array | None
    coupled: bool
    cell_clip: float | None
    zoneout_h: Array | None
    zoneout_c: Array | None
    kept: list[_Kept]


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
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
    weight_peephole: Array | None = None,
    weight_hr: Array | None = None,
    coupled: bool = False,
    cell_clip: float | None = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: tuple[str, ...] | None = None,
    grad_clip: float | None = None,
    seed: int = 0,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    return_c: bool = False,
) -> tuple[Any, ...]:
    """i, f, g, o = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, through sigmoid, sigmoid, tanh, sigmoid; then

    c_t = f c_{t-1} + i g;  h_t = o tanh(c_t);  y_t = h_t.

    Options; those not named here are every cell's (`fusedrnn.reference`):

    - `weight_peephole` [3, H]: i and f see p_i c_{t-1} and p_f c_{t-1}, o sees p_o c_t (Gers et al. 2002).
    - `coupled`: f = 1 - i, and weights have no rows for f (Greff et al. 2017).
    - `cell_clip`: c_t is clipped to [-cell_clip, cell_clip] (Sak et al. 2014); no gradient where it was.
    - `layer_norm` = ((gain_ih, gain_hh, gain_c), (bias_x, bias_h, bias_c)), [G*H], [G*H] and [H], normalizes
      W_ih x_t, W_hh h_{t-1} and the c_t that the output sees (Ba et al. 2016).
    - `weight_hr` [P, H]: h_t = W_hr (o tanh(c_t)) (Sak et al. 2014).
    - `zoneout_c`: as zoneout_h, for c. The output sees c_t before it.
    - `activations`: names for (gates, cell, output) in place of sigmoid, tanh, tanh.
    - `recompute`: nothing here; refused with an option that changes the equations, as the kernels do.
    - `return_c`: return all c_t, zero past the rows' ends.

    Returns y [T, N, P], h_n [N, P], c_n [N, H], the reserve for `lstm_backward` (None with `training=False`),
    and with `return_c` c [T, N, H].
    Raises ValueError for no time step, an option out of range or options that exclude each other.
    """
    gates = 3 if coupled else 4
    H, P = len(weight_hh) // gates, weight_hh.shape[1]
    check_recompute(
        recompute, weight_peephole=weight_peephole, weight_hr=weight_hr, coupled=coupled, cell_clip=cell_clip,
        layer_norm=layer_norm, zoneout_h=zoneout_h, zoneout_c=zoneout_c, recurrent_dropout=recurrent_dropout,
        dropconnect=dropconnect, activations=activations, grad_clip=grad_clip,
    )  # fmt: skip
    check_shape("weight_hh", weight_hh, (gates * H, H if weight_hr is None else P))
    check_shape("weight_hr", weight_hr, (P, H))
    check_shape("weight_peephole", weight_peephole, (3, H))
    check_clip("cell_clip", cell_clip)
    acts = find_activations(activations, ACTIVATIONS)
    values = [act.value for act in acts]
    sequence = find_sequence(x, lengths, batch_sizes, resets, reverse)
    random = find_random(training, seed, layer, reverse, row_offset, step_offset)
    norm_x, norm_h, norm_c = find_norms(layer_norm, (gates * H, gates * H, H))
    h_n, c_n = sequence.state("h0", h0, P), sequence.state("c0", c0, H)
    inputs = Affine(weight_ih, bias_ih, norm_x)
    recurrent = find_recurrent(weight_hh, bias_hh, norm_h, random, len(h_n), recurrent_dropout, dropconnect, grad_clip)
    zone_h = random.zoneout("zoneout_h", zoneout_h, sequence, P)
    zone_c = random.zoneout("zoneout_c", zoneout_c, sequence, H)

    options: dict[str, Any] = {
        "coupled": coupled,
        "peephole": weight_peephole,
        "clip": None if cell_clip is None else lambda c: np.clip(c, -cell_clip, cell_clip),
        "normalize": norm_c,
        "project": None if weight_hr is None else lambda h: h @ weight_hr.T,
    }
    x = sequence.flat(x)
    from_x = inputs(x)
    ys, cs, kept = [], [], []
    for step in sequence.steps:
        h, c = step.take(h_n), step.take(c_n)
        dropped = recurrent.dropped(h, step)
        new = lstm_step(from_x[step.at] + recurrent.affine(dropped), c, values, split, **options)
        h_next, c_next = new.h, new.c
        if zone_h is not None:  # zoneout, last
            h_next = zoned(zone_h[step.at], h, h_next)
        if zone_c is not None:
            c_next = zoned(zone_c[step.at], c, new.c)

        h_n[step.rows], c_n[step.rows] = h_next, c_next
        ys.append(h_next)
        cs.append(c_next)
        kept.append(_Kept(dropped, c, new))

    y = sequence.shaped(sequence.gather(ys))
    reserve = LstmReserve(
        sequence, x, inputs, recurrent, acts, norm_c, weight_peephole, weight_hr, coupled, cell_clip, zone_h, zone_c,
        kept,
    )  # fmt: skip
    c_all = (sequence.shaped(sequence.gather(cs)),) if return_c else ()
    return y, h_n, c_n, reserve if training else None, *c_all


def lstm_backward(
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    reserve: LstmReserve,
    *,
    dc: Array | None = None,
    input_grad: bool = True,
) -> LstmGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n), for every argument of `lstm_forward`.

    With dh_t = dy_t + W_hh^T da_{t+1} and dc_t = f_{t+1} dc_{t+1} + dh_t o tanh'(c_t):
    di = dc g, df = dc c_{t-1}, dg = dc i, do = dh tanh(c_t), each times the slope of its activation.
    `dc` [T, N, H], the gradient of all c_t, adds to dc_t.
    """
    (
        sequence, x, inputs, recurrent, activations, norm_c, weight_peephole, weight_hr, coupled, cell_clip,
        zone_h, zone_c, kept,
    ) = reserve  # fmt: skip
    gate, cell, output = activations
    P, H = recurrent.affine.weight.shape[1], kept[0].c.shape[1]
    dy, dcs = sequence.gradient("dy", dy, P), sequence.gradient("dc", dc, H)
    dh_state, dc_state = sequence.state("dh_n", dh_n, P), sequence.state("dc_n", dc_n, H)
    dpeephole, dprojection = sequence.zeros(3, H), sequence.zeros(P, H)
    dnorm_c: list[Any] = [None, None] if norm_c is None else [0, 0]
    das = []
    for step, (dropped, c, new) in zip(reversed(sequence.steps), reversed(kept), strict=True):
        _, candidate, i, f, g, o, uncut, b = new
        dh, dc = dh_state[step.rows] + dy[step.at], dc_state[step.rows] + dcs[step.at]
        dh_previous: Array | float = 0.0
        dc_previous: Array | float = 0.0

        if zone_c is not None:  # zoneout: what was kept goes straight to the previous state
            dc, dc_previous = dc * (1 - zone_c[step.at]), dc * zone_c[step.at]
        if zone_h is not None:
            dh, dh_previous = dh * (1 - zone_h[step.at]), dh * zone_h[step.at]
        if weight_hr is not None:  # projection
            dprojection += dh.T @ (o * b)
            dh = dh @ weight_hr

        da_o = dh * b * gate.slope(o)
        dnormed = dh * o * output.slope(b)
        if norm_c is not None:
            dnormed, *dn = norm_c.backward(dnormed, candidate)
            dnorm_c = [None if d is None else total + d for total, d in zip(dnorm_c, dn, strict=True)]
        dc = dc + dnormed
        if weight_peephole is not None:  # o saw the new c
            dpeephole[2] += (da_o * candidate).sum(axis=0)
            dc = dc + da_o * weight_peephole[2]

        if cell_clip is not None:  # cell clip
            dc = np.where(np.abs(uncut) > cell_clip, 0, dc)

        di, df = dc * g, dc * c
        if coupled:
            di = di - df  # f = 1 - i
        da_i = di * gate.slope(i)
        da_f = [] if coupled else [df * gate.slope(f)]
        da_g = dc * i * cell.slope(g)
        dc_previous = dc_previous + dc * f
        if weight_peephole is not None:  # i and f saw the previous c
            for row, da_row in enumerate([da_i, *da_f]):
                dpeephole[row] += (da_row * c).sum(axis=0)
                dc_previous = dc_previous + da_row * weight_peephole[row]

        da = np.concatenate([da_i, *da_f, da_g, da_o], axis=1)
        dh_previous = dh_previous + recurrent.dprevious(recurrent.affine.dinput(da, dropped), step)
        dh_state[step.rows], dc_state[step.rows] = step.cut(dh_previous), step.cut(dc_previous)
        das.append(da)

    da = sequence.gather(das[::-1])
    of_x = inputs.gradients(da, x)
    of_h = recurrent.affine.gradients(da, sequence.gather([k.dropped for k in kept]))
    return LstmGradients(
        dx=sequence.shaped(inputs.dinput(da, x)) if input_grad else None,
        dh0=dh_state,
        dc0=dc_state,
        dweight_ih=of_x.dweight,
        dweight_hh=recurrent.dweight(of_h.dweight),
        dbias_ih=of_x.dbias,
        dbias_hh=of_h.dbias,
        dweight_peephole=None if weight_peephole is None else dpeephole,
        dweight_hr=None if weight_hr is None else dprojection,
        dlayer_norm=norm_gradients(of_x.dnorm, of_h.dnorm, (dnorm_c[0], dnorm_c[1])),
    )
