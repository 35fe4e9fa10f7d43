"""The built-in cells with every option, as steps that `trace_step` takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fusedrnn import ops
from fusedrnn.reference.random import zoned
from fusedrnn.reference.steps import gru_step, lstm_step, split

Step = Callable[..., tuple[Any, Any]]

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": ops.sigmoid,
    "tanh": np.tanh,
    "relu": ops.relu,
    "hard_sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0.0, 1.0),
    "hard_tanh": lambda a: np.clip(a, -1.0, 1.0),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "softplus": ops.softplus,
    "identity": lambda a: a,
}


@lru_cache(maxsize=64)
def cell_step(
    cell: str,
    activations: tuple[str, ...],
    *,
    coupled: bool = False,
    cell_clip: float | None = None,
    reset_after: bool = True,
) -> Step:
    """Make the step of a cell: ``step(weights, states, given, context) -> (new states, h)``.

    What stands in the structures is an option that the step has; masks are given, not drawn.

    - weights: by the names of `fusedrnn.torch`, and "dropconnect" [G*H, P], what W_hh is multiplied by;
    - states: (h,) or (h, c);
    - given: "x", and "zoneout_h" [P] and "zoneout_c" [H], what is kept of the previous state, or its mean [1];
    - context: "recurrent_dropout" [P], what h is multiplied by before the products; or no context.

    Args:
        cell: "rnn", "lstm" or "gru".
        activations: Names, in the cell's order.
        coupled, cell_clip: Of the LSTM. reset_after: Of the GRU.
    """
    acts = [_ACTIVATIONS[name] for name in activations]

    def step(weights: Any, states: Any, given: Any, context: Any = None) -> tuple[Any, Any]:
        h, *c = states
        seen = h if context is None else h * context["recurrent_dropout"]
        weight_hh = weights["weight_hh"]
        if "dropconnect" in weights:
            weight_hh = weight_hh * weights["dropconnect"]
        product = partial(_affine, {**weights, "weight_hh": weight_hh}, "hh")
        a = _affine(weights, "ih", given["x"])
        after: tuple[Any, ...]
        if cell == "gru":
            after = (_gru(a, seen, h, acts, product, reset_after),)
        elif cell == "lstm":
            after = _lstm(a + product(seen), c[0], acts, weights, coupled, cell_clip)
        else:
            after = (acts[0](a + product(seen)),)
        kept = [given.get(name) for name in ("zoneout_h", "zoneout_c")]
        after = tuple(a if k is None else zoned(k, b, a) for k, b, a in zip(kept, states, after, strict=False))
        return after, after[0]

    return step


def _affine(weights: Any, kind: str, v: Any, rows: slice = slice(None)) -> Any:
    """W v + b, normalized where the layer is; of some rows of W."""
    bias, gain = weights.get(f"bias_{kind}"), weights.get(f"gain_{kind}")
    out = weights[f"weight_{kind}"][rows] @ v
    if gain is not None:
        out = ops.layer_norm(out, gain, weights.get(f"norm_bias_{kind}"))
    return out if bias is None else out + bias[rows]


def _gru(a: Any, seen: Any, h: Any, acts: Any, product: Any, reset_after: bool) -> Any:
    if reset_after:
        return gru_step(a, seen, h, acts, split, product).h
    gates = 2 * len(h)
    of_n = partial(product, rows=slice(gates, None))
    return gru_step(a, seen, h, acts, split, partial(product, rows=slice(gates)), of_n).h


def _lstm(a: Any, c: Any, acts: Any, weights: Any, coupled: bool, cell_clip: float | None) -> tuple[Any, Any]:
    weight_hr, gain = weights.get("weight_hr"), weights.get("gain_c")
    found = lstm_step(
        a, c, acts, split, coupled=coupled, peephole=weights.get("weight_peephole"),
        clip=None if cell_clip is None else lambda v: np.clip(v, -cell_clip, cell_clip),
        normalize=None if gain is None else lambda v: ops.layer_norm(v, gain, weights.get("norm_bias_c")),
        project=None if weight_hr is None else lambda v: weight_hr @ v,
    )  # fmt: skip
    return found.h, found.c
