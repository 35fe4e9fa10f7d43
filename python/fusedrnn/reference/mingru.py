"""The minGRU (Feng et al. 2024, "Were RNNs all we needed?"), whose gates see no state, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..gradients import MinGruGradients
from .activations import ACTIVATIONS
from .products import Affine
from .sequences import Sequence, find_sequence

sigmoid = ACTIVATIONS["sigmoid"]


class _Kept(NamedTuple):
    """What backward needs of a step: the previous state, the gate and the candidate."""

    h: Array
    z: Array
    n: Array


class MinGruReserve(NamedTuple):
    """What `mingru_forward` keeps for `mingru_backward`."""

    sequence: Sequence
    x: Array
    inputs: Affine
    kept: list[_Kept]


def mingru_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    bias: Array | None = None,
    *,
    reverse: bool = False,
    training: bool = True,
    lengths: Any = None,
    batch_sizes: Any = None,
    resets: Any = None,
) -> tuple[Array, Array, MinGruReserve | None]:
    """z = sigmoid(W_z x_t + b_z);  n = W_n x_t + b_n;  h_t = (1 - z) h_{t-1} + z n;  y_t = h_t.

    weight_ih [2H, I] and bias [2H] have the rows of z, then of n. Here z admits the new, in a GRU it keeps the old.
    Options: `reverse`, `lengths`, `batch_sizes`, `resets` (`fusedrnn.reference`).

    Returns y [T, N, H], h_n [N, H] and the reserve for `mingru_backward` (None with `training=False`).
    Raises ValueError for no time step or an option out of range.
    """
    H = len(weight_ih) // 2
    sequence = find_sequence(x, lengths, batch_sizes, resets, reverse)
    inputs = Affine(weight_ih, bias)
    h_n = sequence.state("h0", h0, H)

    x = sequence.flat(x)
    from_x = inputs(x)
    ys, kept = [], []
    for step in sequence.steps:
        h = step.take(h_n)
        a_z, n = np.split(from_x[step.at], 2, axis=1)
        z = sigmoid.value(a_z)
        h_next = (1 - z) * h + z * n
        h_n[step.rows] = h_next
        ys.append(h_next)
        kept.append(_Kept(h, z, n))
    reserve = MinGruReserve(sequence, x, inputs, kept)
    return sequence.shaped(sequence.gather(ys)), h_n, reserve if training else None


def mingru_backward(
    dy: Array | None, dh_n: Array | None, reserve: MinGruReserve, *, input_grad: bool = True
) -> MinGruGradients:
    """Gradients of sum(dy * y) + sum(dh_n * h_n), for every argument of `mingru_forward`.

    With dh the gradient of h_t: da_z = dh (n - h_{t-1}) z (1 - z), dn = dh z, and h_{t-1} receives dh (1 - z).
    """
    sequence, x, inputs, kept = reserve
    H = len(inputs.weight) // 2
    dy = sequence.gradient("dy", dy, H)
    dstate = sequence.state("dh_n", dh_n, H)
    das = []
    for step, (h, z, n) in zip(reversed(sequence.steps), reversed(kept), strict=True):
        dh = dstate[step.rows] + dy[step.at]
        dstate[step.rows] = step.cut(dh * (1 - z))
        das.append(np.concatenate([dh * (n - h) * sigmoid.slope(z), dh * z], axis=1))

    da = sequence.gather(das[::-1])
    of_x = inputs.gradients(da, x)
    return MinGruGradients(
        dx=sequence.shaped(inputs.dinput(da, x)) if input_grad else None,
        dh0=dstate,
        dweight_ih=of_x.dweight,
        dbias=of_x.dbias,
    )
