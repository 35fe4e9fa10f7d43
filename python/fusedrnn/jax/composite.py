"""The cells in JAX's own operators, for what the kernels do not compute: tangents, and derivatives of gradients.

Every option but ``precision``, by the equations of ``fusedrnn.reference``, whose masks come in as constants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from fusedrnn.jax.calls import Call, Sizes, seed_of
from fusedrnn.jax.host import on_host, one_by_one, primitive
from fusedrnn.reference.norm import EPSILON
from fusedrnn.reference.random import find_random, zoned
from fusedrnn.reference.sequences import find_sequence
from fusedrnn.reference.steps import gru_step, lstm_step
from fusedrnn.spec import DRAWING

_Arrays = dict[str, Any]
_Step = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]  # of W_ih x_t + b_ih and the states: the new states

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "hard_sigmoid": lambda a: jax.lax.clamp(0.0, 0.2 * a + 0.5, 1.0),
    "hard_tanh": lambda a: jax.lax.clamp(-1.0, a, 1.0),
    "softsign": lambda a: a / (1 + jnp.abs(a)),
    "softplus": jax.nn.softplus,
    "identity": lambda a: a,
}
_split = partial(jnp.split, axis=-1)


def unroll(call: Call, arrays: _Arrays, clip: bool = True) -> tuple[Any, ...]:
    """(y, h_n[, c_n][, c]), as ``Call.forward``; ``clip``: whether derivatives are those of a clipped gradient."""
    if call.option("precision"):
        raise NotImplementedError("precision: only gradients in reverse mode are there; expected None")
    sizes = call.sizes(arrays)
    masks = _masks(call, arrays, sizes)
    x, given, places = _steps(call, arrays, masks, sizes)
    weights = dict(arrays)
    if "dropconnect" in masks:
        weights["weight_hh"] = weights["weight_hh"] * masks["dropconnect"]
    bound = call.option("grad_clip") if clip else None
    dropout = masks.get("recurrent_dropout")

    def seen(h: Any) -> Any:
        """The previous state as the products see it."""
        h = h if bound is None else _clipping(float(bound), h)
        return h if dropout is None else h * dropout

    cell = _CELLS[call.kind](call, weights, seen)
    names = tuple(call.cell.states)
    outputs = range(2) if call.option("return_c") else range(1)

    def step(states: tuple[Any, ...], given: _Arrays) -> Any:
        before, alive = states, given["alive"]
        if given["resets"] is not None:
            before = tuple(jnp.where(given["resets"], 0, s) for s in states)
        after = cell(given["from_x"], before)
        keeps = [given[name] for name in names]
        after = tuple(a if k is None else zoned(k, b, a) for a, b, k in zip(after, before, keeps, strict=True))
        if alive is None:
            return after, tuple(after[k] for k in outputs)
        shown = tuple(jnp.where(alive, after[k], 0) for k in outputs)
        return tuple(jnp.where(alive, a, s) for a, s in zip(after, states, strict=True)), shown

    widths = (sizes.P, sizes.H)[: len(names)]
    start = tuple(
        arrays[name] if name in arrays else jnp.zeros((sizes.N, width), x.dtype)
        for name, width in zip(names, widths, strict=True)
    )
    given["from_x"] = _affine(x, weights, "ih")
    states, shown = jax.lax.scan(step, start, given, reverse=call.option("reverse"))
    y, *c = shown if places is None else [a[places] for a in shown]
    return (y, *states, *c)


def _steps(call: Call, arrays: _Arrays, masks: _Arrays, sizes: Sizes) -> tuple[Any, _Arrays, Any]:
    """x [T, N, I]; what else there is at each step, [T, N, ...] or None: which rows are alive and which reset, and by
    the names of states which units zoneout keeps; and the places of packed rows."""
    x, lengths, batch_sizes = arrays["x"], arrays.get("lengths"), call.option("batch_sizes")
    given: _Arrays = {"alive": None, "resets": arrays.get("resets")}
    given.update(h0=masks.get("zoneout_h"), c0=masks.get("zoneout_c"))
    places, T, N = None, x.shape[0], sizes.N
    if batch_sizes:  # as rows of uneven length
        T, rows = len(batch_sizes), np.arange(N)
        lengths = (np.array(batch_sizes)[:, None] > rows).sum(0)
        places = (np.repeat(np.arange(T), batch_sizes), np.concatenate([rows[:n] for n in batch_sizes]))

    def spread(a: Any) -> Any:
        return a if places is None else jnp.zeros((T, N, *a.shape[1:]), a.dtype).at[places].set(a)

    x = spread(x)
    if given["resets"] is not None:
        given["resets"] = spread(given["resets"])[..., None]
    if lengths is not None:
        given["alive"] = (jnp.arange(T)[:, None] < lengths)[..., None]
        x = jnp.where(given["alive"], x, 0)  # whatever stood there, as 0 times NaN is one
    for name in ("h0", "c0"):
        if (mask := given[name]) is not None:
            given[name] = spread(mask).reshape(T, N, -1) if mask.ndim else jnp.full((T, 1, 1), mask)
    return x, given, places


def tangents(*operands: Any, call: Call) -> tuple[Any, ...]:
    """The outputs' tangents: of the call's operands, and then the tangents of the wanted ones."""
    arrays = call.named(operands[: len(call.given)])
    wanted = {name: arrays[name] for name in call.wanted}
    along = dict(zip(call.wanted, operands[len(call.given) :], strict=True))
    _, moved = jax.jvp(lambda some: unroll(call, {**arrays, **some}, clip=False), (wanted,), (along,))
    return tuple(moved)


def gradients(*operands: Any, call: Call) -> tuple[Any, ...]:
    """As ``Call.backward``; neither y nor the reserve are looked at, as both follow from the rest."""
    arrays = call.named(operands)
    wanted = {name: arrays[name] for name in call.wanted}
    outputs, pull = jax.vjp(lambda some: unroll(call, {**arrays, **some}), wanted)
    doutputs = [arrays.get(f"d{name}") for name in call.outputs]
    (found,) = pull(tuple(jnp.zeros_like(a) if d is None else d for a, d in zip(outputs, doutputs, strict=True)))
    return tuple(found[name] for name in call.wanted)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _clipping(bound: float, h: Any) -> Any:
    """h, whose gradient is clipped."""
    return h


_clipping.defvjp(lambda bound, h: (h, None), lambda bound, _, dh: (jax.lax.clamp(-bound, dh, bound),))


# Masks, by their options.


def _masks(call: Call, arrays: _Arrays, sizes: Sizes) -> _Arrays:
    names = [name for name in DRAWING if call.option(name)]
    if "seed" in arrays:
        x = arrays["x"]
        return dict(zip(names, _masks_p.bind(arrays["seed"], call=call, sizes=sizes, dtype=x.dtype), strict=True))
    return {name: jnp.asarray(call.option(name), arrays["x"].dtype) for name in names}  # zoneout's mean, in inference


def _mask_shapes(sizes: Sizes) -> _Arrays:
    rows = int(np.prod(sizes.lead))
    return {
        "zoneout_h": (rows, sizes.P), "zoneout_c": (rows, sizes.H),
        "recurrent_dropout": (sizes.N, sizes.P), "dropconnect": (sizes.R, sizes.P),
    }  # fmt: skip


def _draw(seed: Any, *, call: Call, sizes: Sizes, dtype: Any) -> list[Any]:
    counters = [call.option(name) for name in ("layer", "reverse", "row_offset", "step_offset")]
    random = find_random(True, seed_of(seed), *counters)
    sequence = find_sequence(np.empty((*sizes.lead, 0), dtype), None, call.option("batch_sizes"), None, False)
    masks = []
    for name, shape in _mask_shapes(sizes).items():
        p = call.option(name)
        if p and name.startswith("zoneout"):
            masks.append(random.zoneout(name, p, sequence, shape[1]))
        elif p:
            masks.append(getattr(random, name)(p, shape, dtype))
    return masks


def _drawn(_: Any, *, call: Call, sizes: Sizes, dtype: Any) -> list[Any]:
    return [(shape, dtype) for name, shape in _mask_shapes(sizes).items() if call.option(name)]


_masks_p = primitive("masks", _drawn)
on_host(_masks_p, _draw)
batching.primitive_batchers[_masks_p] = partial(one_by_one, _masks_p)  # of seeds


# The cells: a step, of the call, its arrays and what the products see of h.


def _affine(v: Any, weights: _Arrays, kind: str, rows: slice = slice(None)) -> Any:
    """W v + b, normalized where the layer is; of some rows of W."""
    bias, gain = weights.get(f"bias_{kind}"), weights.get(f"gain_{kind}")
    out = v @ weights[f"weight_{kind}"][rows].T
    if gain is not None:
        out = _normalized(out, gain, weights.get(f"norm_bias_{kind}"))
    return out if bias is None else out + bias[rows]


def _normalized(v: Any, gain: Any, bias: Any) -> Any:
    centred = v - v.mean(-1, keepdims=True)
    out = gain * centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPSILON)
    return out if bias is None else out + bias


def _rnn(call: Call, weights: _Arrays, seen: Callable[[Any], Any]) -> _Step:
    activation = _ACTIVATIONS[call.option("nonlinearity")]
    return lambda from_x, states: (activation(from_x + _affine(seen(states[0]), weights, "hh")),)


def _lstm(call: Call, weights: _Arrays, seen: Callable[[Any], Any]) -> _Step:
    acts = [_ACTIVATIONS[name] for name in call.option("activations") or call.cell.activations]
    weight_hr, gain, clip = weights.get("weight_hr"), weights.get("gain_c"), call.option("cell_clip")
    options = {
        "coupled": call.option("coupled"),
        "peephole": weights.get("weight_peephole"),
        "clip": None if clip is None else lambda c: jax.lax.clamp(-float(clip), c, float(clip)),
        "normalize": None if gain is None else lambda c: _normalized(c, gain, weights.get("norm_bias_c")),
        "project": None if weight_hr is None else lambda h: h @ weight_hr.T,
    }
    return lambda from_x, states: lstm_step(
        from_x + _affine(seen(states[0]), weights, "hh"), states[1], acts, _split, **options
    )[:2]


def _gru(call: Call, weights: _Arrays, seen: Callable[[Any], Any]) -> _Step:
    acts = [_ACTIVATIONS[name] for name in call.option("activations") or call.cell.activations]
    gates = 2 * weights["weight_hh"].shape[1]
    rows = [slice(None)] if call.option("reset_after") else [slice(gates), slice(gates, None)]
    products = [partial(_affine, weights=weights, kind="hh", rows=each) for each in rows]
    return lambda from_x, states: gru_step(from_x, seen(states[0]), states[0], acts, _split, *products)[:1]


_CELLS = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
