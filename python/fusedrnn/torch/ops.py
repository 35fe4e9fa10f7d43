"""One layer in one direction, by whichever of three ways fits: autograd's function, in eager mode; the registered
operator, where a compiler looks; PyTorch's own operators, in forward mode and under the transforms of torch.func."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusedrnn.spec import Cell
from fusedrnn.torch import calls, operators
from fusedrnn.torch.calls import NO_SEQUENCES, Call
from fusedrnn.torch.composite import unroll
from fusedrnn.torch.function import Layer, Memory, Weights
from fusedrnn.torch.support import fallbacks, rounds_products, transformed


def layer(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor | None],
    parameters: Sequence[Tensor | None],
    *,
    sequences: tuple[Tensor | None, Tensor | None, Tensor | None] = NO_SEQUENCES,
    reverse: bool = False,
    options: dict[str, Any] | None = None,
    seed: Tensor | None = None,
    keep: bool = False,
    memory: Memory | None = None,
    place: int = 0,
    step: bool = False,
    stacked: bool = False,
    one_operator: bool = False,
    changeable: bool = False,
) -> tuple[Tensor, ...]:
    """(y, h_n[, c_n]) of one layer in one direction, or without y; gradients flow to x, states and parameters.

    Args:
        x: [T, N, I], or packed [sum of batch_sizes, I]; float32 or float64 on the CPU.
        states: h0 [N, P] (and c0 [N, H] of an LSTM), each may be None for zeros.
        parameters: in the order of ``cell.parameters``; those at the end may be left out.
        sequences: (lengths, batch_sizes, resets), as ``fusedrnn.functional`` takes them.
        options: what differs from the plain cell, by the names of ``calls.options_of``.
        seed: of the options that are random.
        keep: whether masks are drawn, also where no gradient is asked for; without it zoneout is its mean, whose
            gradient is the composite's.
        memory, place: of the module, and which of its layers and directions this is; for loops of calls.
        step: x is one step, [N, I], and y is left out.
        stacked: states have a leading axis of one, given and returned.
        one_operator, changeable: as ``Call``.

    Under torch.autocast to bfloat16, products are rounded where the kernels can.

    Raises:
        ValueError, TypeError: as ``fusedrnn.functional``.
    """
    tensors = (x, *states, *parameters)
    needed = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors])
    training = keep or (needed and not (options and ("zoneout_h" in options or "zoneout_c" in options)))
    if torch.is_autocast_enabled("cpu") and rounds_products(cell, x, parameters, options, training):
        options = {**(options or {}), "precision": "bfloat16"}
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        if step:
            x = x.unsqueeze(0)
        if stacked:
            states = [None if s is None else s[0] for s in states]
        y, *final = operators.run(cell, x, states, parameters, sequences, seed, reverse, options or {}, training)
        if needed and changeable:
            y = y.clone()  # the operator keeps its own, and this one may change
        if stacked:
            final = [s.unsqueeze(0) for s in final]
        return tuple(final) if step else (y, *final)
    through = transformed()
    if seed is not None:
        options = {**(options or {}), "seed": seed if through else int(seed)}
    call = Call(cell, sequences, reverse, training, options or None, step, stacked, one_operator, needed and changeable)
    if through:
        fallbacks[f"{cell.name.upper()}: forward mode and transforms of torch.func, step by step"] += 1
        with torch.autocast("cpu", enabled=False):
            return unroll(call, x, states, parameters)
    if needed:
        weights = Weights(parameters) if memory is None else memory.weights(place, parameters)
        if weights.again:
            return Layer.apply(call, weights, weights.token, x, *states)  # type: ignore[no-any-return]
        return Layer.apply(call, weights, None, *tensors)  # type: ignore[no-any-return]
    return calls.forward(call, x, states, calls.weights_of(parameters))[0]
