"""The cells in plain PyTorch operators, for what the kernels do not compute: derivatives of their backward, forward
mode, the transforms of torch.func.

``double_backward`` runs the cell once more step by step and lets autograd differentiate its gradient, so it is as exact
and as slow as PyTorch's own loop, and of any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from fusedrnn.torch.calls import GRU, LSTM, Call

_REFUSED = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect", "grad_clip")
_Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]  # of W_ih x_t + b_ih and the states
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def unroll(
    call: Call, x: Tensor, states: Sequence[Tensor | None], parameters: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """(y, h_n[, c_n]), or without y, as ``calls.forward``."""
    if call.step:
        return unroll(replace(call, step=False), x.unsqueeze(0), states, parameters)[1:]
    if call.stacked:
        states = [None if s is None else s[0] for s in states]
        y, *final = unroll(replace(call, stacked=False), x, states, parameters)
        return y, *[s.unsqueeze(0) for s in final]
    given = dict(zip(call.cell.parameters, parameters, strict=False))
    lengths, batch_sizes, resets = call.sequences
    places = None
    if batch_sizes is not None:  # as rows of uneven length
        steps = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
        first = torch.cumsum(batch_sizes, 0) - batch_sizes
        places = (steps, torch.arange(len(x)) - first[steps])
        lengths = (batch_sizes[:, None] > torch.arange(int(batch_sizes[0]))).sum(0)
        T, N = len(batch_sizes), int(batch_sizes[0])
        x = x.new_zeros(T, N, x.shape[-1]).index_put(places, x)
        resets = None if resets is None else torch.zeros(T, N, dtype=torch.bool).index_put(places, resets)
    weight_hh, weight_hr = given["weight_hh"], given.get("weight_hr")
    assert weight_hh is not None
    T, N = x.shape[:2]
    elements = weight_hh.shape[1]
    units = elements if weight_hr is None else weight_hr.shape[1]
    widths = (elements, units)[: len(states)]
    now = tuple(x.new_zeros(N, w) if s is None else s for s, w in zip(states, widths, strict=True))
    step = _step(call, given)
    inputs = _product(x, given, "ih")
    ys: list[Tensor] = []
    for t in reversed(range(T)) if call.reverse else range(T):
        before = now
        if resets is not None:
            before = tuple(s.masked_fill(resets[t, :, None], 0) for s in before)
        after = step(inputs[t], before)
        y = after[0]
        if lengths is not None:
            alive = (lengths > t)[:, None]
            y = torch.where(alive, y, torch.zeros_like(y))
            after = tuple(torch.where(alive, a, b) for a, b in zip(after, now, strict=True))
        now = after
        ys.append(y)
    y = torch.stack(ys[::-1] if call.reverse else ys)
    return y if places is None else y[places], *now


def _product(x: Tensor, given: dict[str, Tensor | None], kind: str) -> Tensor:
    """W x + b, normalized where the layer is."""
    weight, bias, gain = given[f"weight_{kind}"], given.get(f"bias_{kind}"), given.get(f"gain_{kind}")
    if gain is None:
        return linear(x, weight, bias)
    out = layer_norm(linear(x, weight), gain.shape, gain, given.get(f"norm_bias_{kind}"))
    return out if bias is None else out + bias


def _step(call: Call, given: dict[str, Tensor | None]) -> _Step:
    options = call.options or {}
    refused = [name for name in _REFUSED if options.get(name)]
    if refused:
        raise NotImplementedError(f"second derivatives are not there with {', '.join(refused)}")
    if call.cell is LSTM:
        return lambda from_x, states: _lstm_step(from_x, states, given, options)
    if call.cell is GRU:
        return lambda from_x, states: _gru_step(from_x, states, given, options)
    activation = _ACTIVATIONS[options.get("nonlinearity", "tanh")]
    return lambda from_x, states: (activation(from_x + _product(states[0], given, "hh")),)


def _lstm_step(
    from_x: Tensor, states: tuple[Tensor, ...], given: dict[str, Tensor | None], options: dict[str, Any]
) -> tuple[Tensor, ...]:
    h, c = states
    coupled, clip = bool(options.get("coupled")), options.get("cell_clip")
    a_i, *a_f, a_g, a_o = (from_x + _product(h, given, "hh")).chunk(3 if coupled else 4, 1)  # a_f: one, or none
    peephole, weight_hr, gain = (given.get(name) for name in ("weight_peephole", "weight_hr", "gain_c"))
    if peephole is not None:
        a_i = a_i + peephole[0] * c
        a_f = [a + peephole[1] * c for a in a_f]
    i = torch.sigmoid(a_i)
    f = 1 - i if coupled else torch.sigmoid(a_f[0])
    c = f * c + i * torch.tanh(a_g)
    if clip is not None:
        c = c.clamp(-clip, clip)
    if peephole is not None:
        a_o = a_o + peephole[2] * c
    seen = c if gain is None else layer_norm(c, gain.shape, gain, given.get("norm_bias_c"))
    h = torch.sigmoid(a_o) * torch.tanh(seen)
    return h if weight_hr is None else linear(h, weight_hr), c


def _gru_step(
    from_x: Tensor, states: tuple[Tensor, ...], given: dict[str, Tensor | None], options: dict[str, Any]
) -> tuple[Tensor, ...]:
    (h,) = states
    x_r, x_z, x_n = from_x.chunk(3, 1)
    if options.get("reset_after", True):
        h_r, h_z, h_n = _product(h, given, "hh").chunk(3, 1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
    else:
        weight_hh, bias_hh = given["weight_hh"], given.get("bias_hh")
        assert weight_hh is not None
        rows = h.shape[1]
        biases = (None, None) if bias_hh is None else (bias_hh[: 2 * rows], bias_hh[2 * rows :])
        h_r, h_z = linear(h, weight_hh[: 2 * rows], biases[0]).chunk(2, 1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + linear(r * h, weight_hh[2 * rows :], biases[1]))
    return ((1 - z) * n + z * h,)


def double_backward(
    call: Call,
    ddinputs: Sequence[Tensor | None],
    doutputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
    """Gradients with respect to ``doutputs`` and to ``inputs`` = (x, states, parameters), where ``ddinputs`` is that of
    what ``calls.backward`` returns."""
    create_graph = torch.is_grad_enabled()
    states = len(call.cell.states)
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # Aliases, so that no gradient reaches an input by way of another that was computed from it.
        douts, ins = [_alias(t) for t in doutputs], [_alias(t) for t in inputs]
        targets = [t for t in (*douts, *ins) if t is not None]
        wanted = [(i, dd) for i, dd in zip(ins, ddinputs, strict=True) if i is not None and dd is not None]
        given = [d for d in douts if d is not None]
        second: Sequence[Tensor | None] = [None] * len(targets)
        if wanted and given:
            outputs = unroll(call, ins[0], ins[1 : 1 + states], ins[1 + states :])
            outputs = tuple(o for o, d in zip(outputs, douts, strict=True) if d is not None)
            first = _gradients(outputs, [i for i, _ in wanted], given, True)
            used = [(g, dd) for g, (_, dd) in zip(first, wanted, strict=True) if g is not None and g.requires_grad]
            if used:
                second = _gradients([g for g, _ in used], targets, [dd for _, dd in used], create_graph)
    found = iter(second)
    both = [None if t is None else next(found) for t in (*douts, *ins)]
    return tuple(both[: len(douts)]), tuple(both[len(douts) :])


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], doutputs: Sequence[Tensor], create_graph: bool
) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        outputs, inputs, doutputs, create_graph=create_graph, allow_unused=True
    )
    return gradients


def _alias(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
