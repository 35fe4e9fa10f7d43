"""The masks of a call as tensors, for the composite: the specification's numbers, which are the kernels'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusedrnn.reference.random import Random, find_random
from fusedrnn.reference.sequences import find_sequence
from fusedrnn.torch.calls import Call
from fusedrnn.torch.compiling import methods_run_as_they_are

_Drawing = Callable[[Tensor], tuple[Tensor, ...]]  # of a seed


class Masks(NamedTuple):
    """What zoneout keeps of h [T, N, P] and of c [T, N, H] (its mean: [T, 1, 1]), the mask of h before the product
    [N, P], and that of weight_hh [G*H, P]; None where there is none."""

    zoneout_h: Tensor | None = None
    zoneout_c: Tensor | None = None
    recurrent_dropout: Tensor | None = None
    dropconnect: Tensor | None = None


def draw(call: Call, steps: int, rows: int, units: int, weight_hh: Tensor) -> Masks:
    """The masks of ``call``; zoneout's mean alone where it is not in training. ``units`` is H.

    The seed may be a tensor, so that under torch.func.vmap all examples have the same masks or each its own.
    """
    options = call.options or {}
    names = [name for name in Masks._fields if options.get(name)]
    if not call.training:
        means = [name for name in names if name.startswith("zoneout")]
        return Masks(**{name: weight_hh.new_full((steps, 1, 1), options[name]) for name in means})
    if not names:
        return Masks()
    places = find_sequence(np.empty((steps, rows, 0)), None, None, None, call.reverse)
    elements = weight_hh.shape[1]

    def mask(random: Random, name: str) -> Any:
        p = options[name]
        if name == "dropconnect":
            return random.dropconnect(p, tuple(weight_hh.shape), np.float64)
        if name == "recurrent_dropout":
            return random.recurrent_dropout(p, (rows, elements), np.float64)
        return random.zoneout(name, p, places, elements if name == "zoneout_h" else units)

    def drawn(seed: Tensor) -> tuple[Tensor, ...]:
        random = find_random(True, int(seed), options.get("layer", 0), call.reverse, 0, 0)
        masks = [torch.from_numpy(mask(random, name)).to(weight_hh.dtype) for name in names]
        shaped = zip(masks, names, strict=True)
        return tuple(m.unflatten(0, (steps, rows)) if name.startswith("zoneout") else m for m, name in shaped)

    masks = _Drawn.apply(torch.as_tensor(options.get("seed", 0)), drawn)
    return Masks(**dict(zip(names, masks, strict=True)))


@methods_run_as_they_are
class _Drawn(torch.autograd.Function):
    """(seed, drawing) -> its tensors; under vmap a seed for each example gives each its own."""

    @staticmethod
    def forward(seed: Tensor, drawing: _Drawing) -> tuple[Tensor, ...]:
        return drawing(seed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], seeds: Tensor, drawing: _Drawing) -> tuple[Any, Any]:
        each = [_Drawn.apply(seed, drawing) for seed in seeds.unbind(in_dims[0])]
        masks = tuple(torch.stack(of_one) for of_one in zip(*each, strict=True))
        return masks, (0,) * len(masks)
