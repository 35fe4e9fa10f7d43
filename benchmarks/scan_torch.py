"""The networks of `recurrences.py` over a batch in PyTorch: what needs no state once before the loop, and a step.

Written within TorchScript, so that one text runs eagerly, scripted and compiled. `prepare` returns the weights as the
step uses them, the input of each step and the context; states and parameters are those of `recurrences.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.recurrences import NORM, SHIFTS
from fusedrnn.cells.addressing import COSINE, LOG
from fusedrnn.cells.dnc import USAGE

Weights = dict[str, Tensor]
Leaves = list[Tensor]
Prepared = tuple[Weights, Tensor, Leaves]
Advanced = tuple[Leaves, Tensor]


def _input_products(p: Weights, x: Tensor) -> Tensor:
    """W x + b of all steps at once."""
    return functional.linear(x, p["W"][:, : x.size(2)], p["b"])


def _controller(p: Weights, x: Tensor) -> Weights:
    """With the weights of what an LSTM sees beside x, turned for `addmm`: what was read, or attended, then h."""
    w = p.copy()
    w["recurrent"] = torch.cat([p["W"][:, x.size(2) :], p["U"]], 1).t()
    w["out_t"] = p["out"].t()
    return w


def _lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def prepare_lstm(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of an LSTM."""
    return {"U": p["U"].t()}, _input_products(p, x), context


def lstm(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    h, c = _lstm_cell(torch.addmm(x, state[0], w["U"]), state[1])
    return [h, c], h


def _normalized(v: Tensor, gain: Tensor, bias: Tensor, epsilon: float = NORM) -> Tensor:
    return functional.layer_norm(v, gain.shape, gain, bias, epsilon)


def prepare_layer_norm_lstm(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of an LSTM with layer normalization."""
    x = _normalized(functional.linear(x, p["W"]), p["gain_x"], p["bias_x"]) + p["b"]
    return p, x, context


def layer_norm_lstm(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    of_h = _normalized(functional.linear(state[0], w["U"]), w["gain_h"], w["bias_h"])
    i, f, g, o = (x + of_h).chunk(4, 1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(_normalized(c, w["gain_c"], w["bias_c"]))
    return [h, c], h


def _lengths(rows: Tensor, epsilon: float = COSINE) -> Tensor:
    """Give the length of each row, with something beside zero."""
    return torch.sqrt(rows.square().sum(-1) + epsilon)


def _content(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """Weights [N, heads, slots] by the cosines of keys [N, heads, width] with the rows of memory."""
    norms = _lengths(keys).unsqueeze(2) * _lengths(memory).unsqueeze(1)
    return torch.softmax(strengths.unsqueeze(2) * torch.bmm(keys, memory.transpose(1, 2)) / norms, 2)


def _written(memory: Tensor, writing: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    column = writing.unsqueeze(2)
    return torch.addcmul(memory * (1 - column * erase.unsqueeze(1)), column, add.unsqueeze(1))


def prepare_ntm(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of a neural Turing machine."""
    w = _controller(p, x)
    w["heads_t"] = p["heads"].t()
    return w, _input_products(p, x), context


def _ntm_head(raw: Tensor, memory: Tensor, previous: Tensor, shifts: int = SHIFTS, epsilon: float = LOG) -> Tensor:
    width = memory.size(2)
    key, strength, gate, shift, sharpness = raw.split([width, 1, 1, shifts, 1], 1)
    gate = torch.sigmoid(gate)
    content = _content(memory, key.unsqueeze(1), functional.softplus(strength)).squeeze(1)
    weights = torch.lerp(previous, content, gate)
    back, stay, on = torch.softmax(shift, 1).chunk(3, 1)
    shifted = back * weights.roll(-1, 1) + stay * weights + on * weights.roll(1, 1)
    return torch.softmax((1 + functional.softplus(sharpness)) * torch.log(shifted + epsilon), 1)


def ntm(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    h, c, read, reading, writing, memory = state
    h, c = _lstm_cell(torch.addmm(x, torch.cat([read, h], 1), w["recurrent"]), c)
    width = read.size(1)
    raw = torch.addmm(w["heads_b"], h, w["heads_t"])
    head = raw.size(1) // 2 - width
    to_read, to_write, erase, add = raw.split([head, head, width, width], 1)
    writing = _ntm_head(to_write, memory, writing)
    memory = _written(memory, writing, torch.sigmoid(erase), add)
    reading = _ntm_head(to_read, memory, reading)
    read = torch.bmm(reading.unsqueeze(1), memory).squeeze(1)
    y = torch.addmm(w["out_b"], torch.cat([h, read], 1), w["out_t"])
    return [h, c, read, reading, writing, memory], y


def prepare_dnc(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of a differentiable neural computer; with a link's mask."""
    w = _controller(p, x)
    w["mask"] = 1 - torch.eye(state[4].size(1), dtype=x.dtype)
    w["interface_t"] = p["interface"].t()
    return w, _input_products(p, x), context


def _allocation(usage: Tensor, least: float = USAGE) -> Tensor:
    ascending, order = torch.sort(least + (1 - least) * usage, stable=True, dim=1)
    before = torch.cumprod(functional.pad(ascending[:, :-1], [1, 0], "constant", 1.0), 1)
    return torch.zeros_like(usage).scatter(1, order, (1 - ascending) * before)


def dnc(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    h, c, reads, memory, usage, precedence, link, writing, readings = state
    heads, width = reads.size(1), reads.size(2)
    h, c = _lstm_cell(torch.addmm(x, torch.cat([reads.flatten(1), h], 1), w["recurrent"]), c)
    sizes = [heads * width, heads, width, 1, width, width, heads, 1, 1, 3 * heads]
    keys, strengths, key, strength, erase, write, free, allocate, gate, modes = torch.addmm(
        w["interface_b"], h, w["interface_t"]
    ).split(sizes, 1)

    usage = (usage + writing - usage * writing) * torch.prod(1 - torch.sigmoid(free).unsqueeze(2) * readings, 1)
    content = _content(memory, key.unsqueeze(1), 1 + functional.softplus(strength)).squeeze(1)
    writing = torch.sigmoid(gate) * torch.lerp(content, _allocation(usage), torch.sigmoid(allocate))
    memory = _written(memory, writing, torch.sigmoid(erase), write)

    row, column = writing.unsqueeze(1), writing.unsqueeze(2)
    link = torch.addcmul((1 - column - row) * link, column, precedence.unsqueeze(1)) * w["mask"]
    precedence = (1 - writing.sum(1, keepdim=True)) * precedence + writing

    contents = _content(memory, keys.reshape(-1, heads, width), 1 + functional.softplus(strengths))
    back, stay, on = torch.softmax(modes.reshape(-1, heads, 3), 2).chunk(3, 2)
    readings = back * torch.bmm(readings, link) + stay * contents + on * torch.bmm(readings, link.transpose(1, 2))
    reads = torch.bmm(readings, memory)
    y = torch.addmm(w["out_b"], torch.cat([h, reads.flatten(1)], 1), w["out_t"])
    return [h, c, reads, memory, usage, precedence, link, writing, readings], y


def prepare_attention(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of an attention decoder; the context becomes encoded [N, S, F] and its keys."""
    w = _controller(p, x)
    w["query_t"] = p["query"].t()
    return w, _input_products(p, x), [context[0], functional.linear(context[0], p["keys"])]


def attention(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    h, c, attended = state
    encoded, keys = context
    h, c = _lstm_cell(torch.addmm(x, torch.cat([attended, h], 1), w["recurrent"]), c)
    energies = torch.matmul(torch.tanh(keys + torch.mm(h, w["query_t"]).unsqueeze(1)), w["v"])
    seen = torch.bmm(torch.softmax(energies, 1).unsqueeze(1), encoded).squeeze(1)
    attended = torch.tanh(torch.addmm(w["out_b"], torch.cat([h, seen], 1), w["out_t"]))
    return [h, c, attended], attended


def prepare_window(p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Prepared:
    """Of an LSTM with a window; the context gets the places of the characters, 1 to S."""
    w = {"recurrent": torch.cat([p["W"][:, x.size(2) :], p["U"]], 1).t(), "slide_t": p["slide"].t()}
    w["slide_b"] = p["slide_b"]
    places = torch.arange(1, context[0].size(1) + 1, dtype=x.dtype).unsqueeze(1)
    return w, _input_products(p, x), [context[0], places]


def window(w: Weights, state: Leaves, x: Tensor, context: Leaves) -> Advanced:
    """A step of it."""
    h, c, kappa, seen = state
    h, c = _lstm_cell(torch.addmm(x, torch.cat([seen, h], 1), w["recurrent"]), c)
    alpha, beta, slide = torch.exp(torch.addmm(w["slide_b"], h, w["slide_t"])).chunk(3, 1)
    kappa = kappa + slide
    distance = kappa.unsqueeze(1) - context[1]
    weights = torch.bmm(torch.exp(-beta.unsqueeze(1) * distance * distance), alpha.unsqueeze(2))
    seen = torch.bmm(weights.transpose(1, 2), context[0]).squeeze(1)
    return [h, c, kappa, seen], torch.cat([h, seen], 1)


class Text(NamedTuple):
    """Of a network."""

    prepare: Callable[..., Prepared]
    step: Callable[..., Advanced]


TEXTS = {
    "lstm": Text(prepare_lstm, lstm),
    "layer_norm_lstm": Text(prepare_layer_norm_lstm, layer_norm_lstm),
    "ntm": Text(prepare_ntm, ntm),
    "dnc": Text(prepare_dnc, dnc),
    "attention": Text(prepare_attention, attention),
    "window": Text(prepare_window, window),
}


class Loop(torch.nn.Module):
    """Steps over time."""

    def __init__(self, prepare: Any, step: Any) -> None:
        super().__init__()
        self.prepare, self.step = prepare, step

    def forward(self, p: Weights, state: Leaves, x: Tensor, context: Leaves) -> Tensor:
        """y [T, N, O]."""
        w, x, context = self.prepare(p, state, x, context)
        outputs: list[Tensor] = []
        for x_t in x.unbind(0):
            state, y = self.step(w, state, x_t, context)
            outputs.append(y)
        return torch.stack(outputs)
