"""The networks of `recurrences.py` over a batch in JAX: what is done once before `jax.lax.scan`, and a step.

`prepare` returns the weights as the step uses them, the input of each step and the context; states and parameters are
those of `recurrences.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softmax, softplus

from benchmarks.recurrences import NORM, SHIFTS
from fusedrnn.cells.addressing import COSINE, LOG
from fusedrnn.cells.dnc import USAGE


def prepare(p: Any, x: Any, context: Any) -> tuple[Any, Any, Any]:
    """Turn all matrices, with those of the LSTM side by side: XLA's loop with one product of x and the rest at each
    step takes half as long as one that W x of all steps comes before."""
    turned = {name: value.T for name, value in p.items()}
    return turned | {"lstm": jnp.concatenate([turned["W"], turned["U"]])}, x, context


def _lstm_cell(w: Any, seen: Any, c: Any) -> tuple[Any, Any]:
    i, f, g, o = jnp.split(jnp.concatenate(seen, 1) @ w["lstm"] + w["b"], 4, 1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def lstm(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of an LSTM."""
    h, c = _lstm_cell(w, (x, state[0]), state[1])
    return (h, c), h


def _normalized(v: Any, gain: Any, bias: Any) -> Any:
    centred = v - v.mean(-1, keepdims=True)
    return gain * (centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + NORM)) + bias


def layer_norm_lstm(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of an LSTM with layer normalization."""
    h, c = state
    of_x = _normalized(x @ w["W"], w["gain_x"], w["bias_x"])
    of_h = _normalized(h @ w["U"], w["gain_h"], w["bias_h"])
    i, f, g, o = jnp.split(of_x + of_h + w["b"], 4, 1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(_normalized(c, w["gain_c"], w["bias_c"]))
    return (h, c), h


def _lengths(rows: Any) -> Any:
    """Give the length of each row, with something beside zero."""
    return jnp.sqrt((rows * rows).sum(-1) + COSINE)


def _content(memory: Any, keys: Any, strengths: Any) -> Any:
    """Weights [N, heads, slots] by the cosines of keys [N, heads, width] with the rows of memory."""
    norms = _lengths(keys)[:, :, None] * _lengths(memory)[:, None, :]
    return softmax(strengths[:, :, None] * jnp.einsum("nrw,nsw->nrs", keys, memory) / norms)


def _written(memory: Any, writing: Any, erase: Any, add: Any) -> Any:
    column = writing[:, :, None]
    return memory * (1 - column * erase[:, None]) + column * add[:, None]


def _ntm_head(raw: Any, memory: Any, previous: Any) -> Any:
    width = memory.shape[2]
    key, strength, gate, shift, sharpness = jnp.split(raw, [width, width + 1, width + 2, width + 2 + SHIFTS], 1)
    gate = sigmoid(gate)
    weights = gate * _content(memory, key[:, None], softplus(strength))[:, 0] + (1 - gate) * previous
    back, stay, on = jnp.split(softmax(shift), SHIFTS, 1)
    shifted = back * jnp.roll(weights, -1, 1) + stay * weights + on * jnp.roll(weights, 1, 1)
    return softmax((1 + softplus(sharpness)) * jnp.log(shifted + LOG))


def ntm(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of a neural Turing machine."""
    h, c, read, reading, writing, memory = state
    h, c = _lstm_cell(w, (x, read, h), c)
    width = read.shape[1]
    head = width + 3 + SHIFTS
    raw = h @ w["heads"] + w["heads_b"]
    to_read, to_write, erase, add = jnp.split(raw, [head, 2 * head, 2 * head + width], 1)
    writing = _ntm_head(to_write, memory, writing)
    memory = _written(memory, writing, sigmoid(erase), add)
    reading = _ntm_head(to_read, memory, reading)
    read = jnp.einsum("ns,nsw->nw", reading, memory)
    y = jnp.concatenate([h, read], 1) @ w["out"] + w["out_b"]
    return (h, c, read, reading, writing, memory), y


def _allocation(usage: Any) -> Any:
    usage = USAGE + (1 - USAGE) * usage
    order = jnp.argsort(usage, axis=1)
    ascending = jnp.take_along_axis(usage, order, 1)
    before = jnp.cumprod(jnp.pad(ascending[:, :-1], ((0, 0), (1, 0)), constant_values=1), 1)
    return jnp.take_along_axis((1 - ascending) * before, jnp.argsort(order, axis=1), 1)


def dnc(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of a differentiable neural computer."""
    h, c, reads, memory, usage, precedence, link, writing, readings = state
    rows, heads, width = reads.shape
    h, c = _lstm_cell(w, (x, reads.reshape(rows, -1), h), c)
    ends = []
    for size in (heads * width, heads, width, 1, width, width, heads, 1, 1):
        ends.append(size + (ends[-1] if ends else 0))
    keys, strengths, key, strength, erase, write, free, allocate, gate, modes = jnp.split(
        h @ w["interface"] + w["interface_b"], ends, 1
    )

    usage = (usage + writing - usage * writing) * jnp.prod(1 - sigmoid(free)[:, :, None] * readings, 1)
    allocate = sigmoid(allocate)
    content = _content(memory, key[:, None], 1 + softplus(strength))[:, 0]
    writing = sigmoid(gate) * (allocate * _allocation(usage) + (1 - allocate) * content)
    memory = _written(memory, writing, sigmoid(erase), write)

    row, column = writing[:, None], writing[:, :, None]
    link = (1 - column - row) * link + column * precedence[:, None]
    link = jnp.where(jnp.eye(link.shape[1], dtype=bool), 0, link)
    precedence = (1 - writing.sum(1, keepdims=True)) * precedence + writing

    contents = _content(memory, keys.reshape(rows, heads, width), 1 + softplus(strengths))
    back, stay, on = jnp.split(softmax(modes.reshape(rows, heads, 3)), 3, 2)
    behind, ahead = jnp.einsum("nrs,nst->nrt", readings, link), jnp.einsum("nrt,nst->nrs", readings, link)
    readings = back * behind + stay * contents + on * ahead
    reads = jnp.einsum("nrs,nsw->nrw", readings, memory)
    y = jnp.concatenate([h, reads.reshape(rows, -1)], 1) @ w["out"] + w["out_b"]
    return (h, c, reads, memory, usage, precedence, link, writing, readings), y


def prepare_attention(p: Any, x: Any, context: Any) -> tuple[Any, Any, Any]:
    """Of an attention decoder; the context gets the keys of what is encoded [N, S, F]."""
    encoded = context["encoded"]
    return prepare(p, x, {"encoded": encoded, "keys": encoded @ p["keys"].T})


def attention(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of it."""
    h, c, attended = state
    h, c = _lstm_cell(w, (x, attended, h), c)
    weights = softmax(jnp.tanh(context["keys"] + (h @ w["query"])[:, None]) @ w["v"])
    seen = jnp.einsum("ns,nsh->nh", weights, context["encoded"])
    attended = jnp.tanh(jnp.concatenate([h, seen], 1) @ w["out"] + w["out_b"])
    return (h, c, attended), attended


def window(w: Any, state: Any, x: Any, context: Any) -> tuple[Any, Any]:
    """A step of an LSTM with a window."""
    h, c, kappa, seen = state
    h, c = _lstm_cell(w, (x, seen, h), c)
    alpha, beta, slide = jnp.split(jnp.exp(h @ w["slide"] + w["slide_b"]), 3, 1)
    kappa = kappa + slide
    characters = context["encoded"]
    distance = kappa[:, None] - jnp.arange(1, characters.shape[1] + 1, dtype=x.dtype)[:, None]
    weights = jnp.einsum("nsk,nk->ns", jnp.exp(-beta[:, None] * distance * distance), alpha)
    seen = jnp.einsum("ns,nsf->nf", weights, characters)
    return (h, c, kappa, seen), jnp.concatenate([h, seen], 1)


class Text(NamedTuple):
    """Of a network."""

    prepare: Callable[..., Any]
    step: Callable[..., Any]


TEXTS = {
    "lstm": Text(prepare, lstm),
    "layer_norm_lstm": Text(prepare, layer_norm_lstm),
    "ntm": Text(prepare, ntm),
    "dnc": Text(prepare, dnc),
    "attention": Text(prepare_attention, attention),
    "window": Text(prepare, window),
}


def forward(text: Text, p: Any, state: Any, x: Any, context: Any) -> Any:
    """y [T, N, O]."""
    w, xs, context = text.prepare(p, x, context)
    return jax.lax.scan(lambda state, x: text.step(w, state, x, context), state, xs)[1]
