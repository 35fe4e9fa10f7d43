"""The masks of a call as tensors, for the composite: the specification's numbers, which are the kernels'."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusedrnn.reference.random import find_random
from fusedrnn.reference.sequences import find_sequence
from fusedrnn.torch.calls import Call


class Masks(NamedTuple):
    """What zoneout keeps of h [T, N, P] and of c [T, N, H], the mask of h before the product [N, P], and that of
    weight_hh [G*H, P]; None where there is none."""

    zoneout_h: Tensor | None = None
    zoneout_c: Tensor | None = None
    recurrent_dropout: Tensor | None = None
    dropconnect: Tensor | None = None


def draw(call: Call, steps: int, rows: int, units: int, weight_hh: Tensor) -> Masks:
    """The masks of ``call``, or zoneout's mean where it is not in training; ``units`` is H."""
    options = call.options or {}
    p = {name: options.get(name, 0.0) for name in Masks._fields}
    if not any(p.values()):
        return Masks()
    random = find_random(call.training, options.get("seed", 0), options.get("layer", 0), call.reverse, 0, 0)
    shape = tuple(weight_hh.shape)
    places = find_sequence(np.empty((steps, rows, 0)), None, None, None, call.reverse)
    drawn = {
        "zoneout_h": random.zoneout("zoneout_h", p["zoneout_h"], places, shape[1]),
        "zoneout_c": random.zoneout("zoneout_c", p["zoneout_c"], places, units),
        "recurrent_dropout": random.recurrent_dropout(p["recurrent_dropout"], (rows, shape[1]), np.float64),
        "dropconnect": random.dropconnect(p["dropconnect"], shape, np.float64),
    }
    masks = {name: None if m is None else torch.from_numpy(m).to(weight_hh.dtype) for name, m in drawn.items()}
    for name in ("zoneout_h", "zoneout_c"):
        mask = masks[name]
        masks[name] = None if mask is None else mask.unflatten(0, (steps, rows))
    return Masks(**masks)
