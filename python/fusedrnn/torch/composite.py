"""The cells in plain PyTorch operators, for what neither kernels nor programs compute: forward mode, the transforms of
torch.func, derivatives from the third on, those of clipped gradients, the gradient of zoneout's mean.

``double_backward`` runs the cell once more step by step and lets autograd differentiate its gradient, so it is as exact
and as slow as PyTorch's own loop, and of any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import hardtanh, layer_norm, linear, softsign

from fusedrnn.reference.random import zoned
from fusedrnn.reference.steps import gru_step, lstm_step
from fusedrnn.sequences import check_batch_sizes
from fusedrnn.spec import GRU, LSTM
from fusedrnn.torch import masks
from fusedrnn.torch.calls import Call
from fusedrnn.torch.compiling import methods_run_as_they_are

# of W_ih x_t + b_ih, h as the product sees it, and the states
_Step = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
_Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, _Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hard_sigmoid": lambda a: hardtanh(0.2 * a + 0.5, 0.0, 1.0),
    "hard_tanh": hardtanh,
    "softsign": softsign,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),  # PyTorch's softplus is linear from 20
    "identity": lambda a: a,
}
_split = partial(torch.chunk, dim=-1)


@dataclass
class _Clipping:
    """The bound on what reaches h through weight_hh, None for none."""

    bound: float | None


@dataclass
class _Levels:
    """How many nested derivatives take a tensor for a variable."""

    count: int = 0


def unroll(
    call: Call,
    x: Tensor,
    states: Sequence[Tensor | None],
    parameters: Sequence[Tensor | None],
    clipping: _Clipping | None = None,
) -> tuple[Tensor, ...]:
    """(y, h_n[, c_n]), or without y, as ``calls.forward``. What clips gradients is ``clipping``, or the call's
    ``grad_clip``."""
    if call.step:
        return unroll(replace(call, step=False), x.unsqueeze(0), states, parameters, clipping)[1:]
    if call.stacked:
        states = [None if s is None else s[0] for s in states]
        y, *final = unroll(replace(call, stacked=False), x, states, parameters, clipping)
        return y, *[s.unsqueeze(0) for s in final]
    given = dict(zip(call.cell.parameters, parameters, strict=False))
    clipping = clipping or _Clipping((call.options or {}).get("grad_clip"))
    lengths, batch_sizes, resets = call.sequences
    places = None
    if batch_sizes is not None:  # as rows of uneven length
        check_batch_sizes(batch_sizes.tolist(), len(x))
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
    zoneout_h, zoneout_c, dropout, dropconnect = masks.draw(call, T, N, units, weight_hh)
    if dropconnect is not None:
        given["weight_hh"] = weight_hh * dropconnect
    step = _step(call, given)
    inputs = _product(x, given, "ih")
    ys: list[Tensor] = []
    for t in reversed(range(T)) if call.reverse else range(T):
        before = now
        if resets is not None:
            before = tuple(s.masked_fill(resets[t, :, None], 0) for s in before)
        seen = before[0] if clipping.bound is None else _ClippedGradient.apply(before[0], clipping, _Levels())
        after = step(inputs[t], seen if dropout is None else seen * dropout, before)
        if zoneout_h is not None or zoneout_c is not None:
            after = tuple(
                a if keep is None else zoned(keep[t], b, a)
                for a, b, keep in zip(after, before, (zoneout_h, zoneout_c), strict=False)
            )
        y = after[0]
        if lengths is not None:
            alive = (lengths > t)[:, None]
            y = torch.where(alive, y, torch.zeros_like(y))
            after = tuple(torch.where(alive, a, b) for a, b in zip(after, now, strict=True))
        now = after
        ys.append(y)
    y = torch.stack(ys[::-1] if call.reverse else ys)
    return y if places is None else y[places], *now


@methods_run_as_they_are
class _ClippedGradient(torch.autograd.Function):
    """h itself, whose gradient is clipped to the bound that ``clipping`` has when backward runs.

    Of nested transforms of torch.func that differentiate h, the innermost clips, whose context is set up last: the
    others differentiate what it gives.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor, clipping: _Clipping, levels: _Levels) -> Tensor:
        return h.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.clipping, ctx.levels = inputs
        if ctx.needs_input_grad[0]:
            ctx.levels.count += 1
        ctx.level = ctx.levels.count

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, None, None]:
        bound = ctx.clipping.bound
        clips = bound is not None and ctx.level == ctx.levels.count
        return dh.clamp(-bound, bound) if clips else dh, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return tangent.clone()


def _product(x: Tensor, given: dict[str, Tensor | None], kind: str) -> Tensor:
    """W x + b, normalized where the layer is."""
    weight, bias, gain = given[f"weight_{kind}"], given.get(f"bias_{kind}"), given.get(f"gain_{kind}")
    if gain is None:
        return linear(x, weight, bias)
    out = layer_norm(linear(x, weight), gain.shape, gain, given.get(f"norm_bias_{kind}"))
    return out if bias is None else out + bias


def _step(call: Call, given: dict[str, Tensor | None]) -> _Step:
    options = call.options or {}
    acts = [_ACTIVATIONS[name] for name in options.get("activations") or call.cell.activations]
    product = partial(_product, given=given, kind="hh")
    if call.cell is LSTM:
        weight_hr, gain, clip = given.get("weight_hr"), given.get("gain_c"), options.get("cell_clip")
        more: dict[str, Any] = {
            "coupled": bool(options.get("coupled")),
            "peephole": given.get("weight_peephole"),
            "clip": None if clip is None else partial(torch.clamp, min=-clip, max=clip),
            "normalize": None if gain is None else lambda c: layer_norm(c, gain.shape, gain, given.get("norm_bias_c")),
            "project": None if weight_hr is None else partial(linear, weight=weight_hr),
        }
        return lambda from_x, seen, states: lstm_step(from_x + product(seen), states[1], acts, _split, **more)[:2]
    if call.cell is GRU:
        products = (product,) if options.get("reset_after", True) else _products_before(given)
        return lambda from_x, seen, states: gru_step(from_x, seen, states[0], acts, _split, *products)[:1]
    activation = _ACTIVATIONS[options.get("nonlinearity", "tanh")]
    return lambda from_x, seen, states: (activation(from_x + product(seen)),)


def _products_before(given: dict[str, Tensor | None]) -> list[_Activation]:
    """Return those of r and z, and of n, for the reset before the product."""
    weight, bias = given["weight_hh"], given.get("bias_hh")
    assert weight is not None
    parts = (slice(2 * weight.shape[1]), slice(2 * weight.shape[1], None))
    return [partial(linear, weight=weight[p], bias=None if bias is None else bias[p]) for p in parts]


def backward(
    call: Call, doutputs: Sequence[Tensor | None], inputs: Sequence[Tensor | None], input_grad: bool
) -> tuple[Tensor | None, ...]:
    """As ``calls.backward``, with inputs = (x, states, parameters), for a call that kept nothing."""
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        ins = [None if t is None else t.detach().requires_grad_() for t in inputs]
        wanted = [t if k or input_grad else None for k, t in enumerate(ins)]
        found = iter(_first(call, doutputs, ins, [t for t in wanted if t is not None], False, None))
        both = [None if t is None else (t, next(found)) for t in wanted]
    return tuple(None if b is None else torch.zeros_like(b[0]) if b[1] is None else b[1] for b in both)


def double_backward(
    call: Call,
    ddinputs: Sequence[Tensor | None],
    doutputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
    """Gradients with respect to ``doutputs`` and to ``inputs`` = (x, states, parameters), where ``ddinputs`` is that of
    what ``calls.backward`` returns."""
    create_graph = torch.is_grad_enabled()
    clipping = _Clipping((call.options or {}).get("grad_clip"))
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # Aliases, so that no gradient reaches an input by way of another that was computed from it.
        douts, ins = [_alias(t) for t in doutputs], [_alias(t) for t in inputs]
        targets = [t for t in (*douts, *ins) if t is not None]
        wanted = [(i, dd) for i, dd in zip(ins, ddinputs, strict=True) if i is not None and dd is not None]
        first = _first(call, douts, ins, [i for i, _ in wanted], True, clipping)
        # What is differentiated now is the clipped gradient, through states that do not depend on clipping.
        clipping.bound = None
        used = [(g, dd) for g, (_, dd) in zip(first, wanted, strict=True) if g is not None and g.requires_grad]
        second = _gradients([g for g, _ in used], targets, [dd for _, dd in used], create_graph)
    found = iter(second)
    both = [None if t is None else next(found) for t in (*douts, *ins)]
    return tuple(both[: len(douts)]), tuple(both[len(douts) :])


def _first(
    call: Call,
    doutputs: Sequence[Tensor | None],
    inputs: Sequence[Any],
    wanted: Sequence[Tensor],
    create_graph: bool,
    clipping: _Clipping | None,
) -> Sequence[Tensor | None]:
    """The gradients of ``wanted``, which are among inputs = (x, states, parameters); None for what plays no part."""
    if not wanted or all(d is None for d in doutputs):
        return [None] * len(wanted)
    first = 1 + len(call.cell.states)
    outputs = unroll(call, inputs[0], inputs[1:first], inputs[first:], clipping)
    given = [(o, d) for o, d in zip(outputs, doutputs, strict=True) if d is not None]
    return _gradients([o for o, _ in given], wanted, [d for _, d in given], create_graph)


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], doutputs: Sequence[Tensor], create_graph: bool
) -> Sequence[Tensor | None]:
    if not outputs:
        return [None] * len(inputs)
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        outputs, inputs, doutputs, create_graph=create_graph, allow_unused=True
    )
    return gradients


def _alias(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
