"""The IndRNN (Li et al. 2018), whose units see no state but their own, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..arrays import Array
from ..gradients import IndRnnGradients
from .activations import Activation, find_activation
from .checks import check_shape
from .products import Affine
from .sequences import Sequence, find_sequence


class _Kept(NamedTuple):
    """What backward needs of a step: the states before and after."""

    h: Array
    h_next: Array


class IndRnnReserve(NamedTuple):
    """What `indrnn_forward` keeps for `indrnn_backward`."""

    sequence: Sequence
    x: Array
    inputs: Affine
    weight_hh: Array
    act: Activation
    kept: list[_Kept]


def indrnn_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    *,
    nonlinearity: str = "relu",
    reverse: bool = False,
    training: bool = True,
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
) -> tuple[Array, Array, IndRnnReserve | None]:
    """h_t = act(W x_t + u h_{t-1} + b), u h elementwise; y_t = h_t.

    weight_ih [H, I] is W, weight_hh [H] is u, bias [H]; `nonlinearity` is act, by any name of `activations`.
    Options: `reverse`, `lengths`, `batch_sizes`, `resets` (`fusedrnn.reference`).

    Returns y [T, N, H], h_n [N, H] and the reserve for `indrnn_backward` (None with `training=False`).
    Raises ValueError for no time step, an unknown nonlinearity or an option out of range.
    """
    H = len(weight_ih)
    check_shape("weight_hh", weight_hh, (H,))
    act = find_activation("nonlinearity", nonlinearity)
    sequence = find_sequence(x, lengths, batch_sizes, resets, reverse)
    inputs = Affine(weight_ih, bias)
    h_n = sequence.state("h0", h0, H)

    x = sequence.flat(x)
    from_x = inputs(x)
    ys, kept = [], []
    for step in sequence.steps:
        h = step.take(h_n)
        h_next = act.value(from_x[step.at] + weight_hh * h)
        h_n[step.rows] = h_next
        ys.append(h_next)
        kept.append(_Kept(h, h_next))
    reserve = IndRnnReserve(sequence, x, inputs, weight_hh, act, kept)
    return sequence.shaped(sequence.gather(ys)), h_n, reserve if training else None


def indrnn_backward(
    dy: Array | None, dh_n: Array | None, reserve: IndRnnReserve, *, input_grad: bool = True
) -> IndRnnGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `indrnn_forward`.

    da_t = act'(a_t) dh_t with dh_t = dy_t + u da_{t+1}; u receives the sum of da_t h_{t-1}.
    """
    sequence, x, inputs, weight_hh, act, kept = reserve
    H = len(weight_hh)
    dy = sequence.gradient("dy", dy, H)
    dstate = sequence.state("dh_n", dh_n, H)
    das = []
    for step, k in zip(reversed(sequence.steps), reversed(kept), strict=True):
        da = (dstate[step.rows] + dy[step.at]) * act.slope(k.h_next)
        dstate[step.rows] = step.cut(da * weight_hh)
        das.append(da)

    da = sequence.gather(das[::-1])
    of_x = inputs.gradients(da, x)
    return IndRnnGradients(
        dx=sequence.shaped(inputs.dinput(da, x)) if input_grad else None,
        dh0=dstate,
        dweight_ih=of_x.dweight,
        dweight_hh=(da * sequence.gather([k.h for k in kept])).sum(axis=0),
        dbias=of_x.dbias,
    )
