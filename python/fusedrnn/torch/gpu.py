"""Layers on a GPU: both directions of one in one call, for autograd, and a module's whole stack.

Nothing here waits for the GPU or reads from it, and all memory is the caching allocator's, so that calls can be
captured in a CUDA graph; but lengths from the host and packed sequences, which copy to the GPU, stay outside of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusedrnn.cuda import cells
from fusedrnn.cuda.arrays import Torch
from fusedrnn.sequences import check_batch_sizes
from fusedrnn.spec import Cell
from fusedrnn.torch.compiling import methods_run_as_they_are

_LIBRARY = Torch(torch)
_PLACE = 3  # of x among the arguments of ``_Layer``


@methods_run_as_they_are
class _Layer(torch.autograd.Function):
    """(layer, lengths, training, x, h0, c0, four parameters of each direction...) -> (y, h_n[, c_n])."""

    @staticmethod
    def forward(
        ctx: Any, layer: cells.Layer, lengths: Tensor | None, training: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        x, h0, c0, *parameters = [None if t is None else t.contiguous() for t in tensors]
        weights = [cells.Weights(*parameters[k : k + 4]) for k in range(0, len(parameters), 4)]
        y, h_n, c_n, kept = cells.forward(_LIBRARY, layer, x, h0, c0, weights, lengths, training)
        if kept is not None:
            ctx.layer, ctx.names = layer, tuple(kept)
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*kept.values())
        return (y, h_n) if c_n is None else (y, h_n, c_n)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None = None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # unpacked once, as checkpointing asks
        kept = dict(zip(ctx.names, saved, strict=True))
        needed = ctx.needs_input_grad[_PLACE:]
        wanted = [cells.Weights(*needed[k : k + 4]) for k in range(3, len(needed), 4)]
        dy, dh_n, dc_n = (None if d is None else d.contiguous() for d in (dy, dh_n, dc_n))
        with torch.no_grad(), _LIBRARY.computing(kept["x"]):
            found = cells.backward(_LIBRARY, ctx.layer, kept, wanted, dy, dh_n, dc_n, needed[0])
        gradients = [found.dx, found.dh0, found.dc0, *[d for of_one in found.weights for d in of_one]]
        gradients = [d if want else None for d, want in zip(gradients, needed, strict=True)]
        if torch.is_grad_enabled():
            gradients = list(_Once.apply(len(gradients), *gradients, *saved, dy, dh_n, dc_n))
        return *(None,) * _PLACE, *gradients


@methods_run_as_they_are
class _Once(torch.autograd.Function):
    """(how many, gradients..., what they depend on...) -> the gradients, which nobody can differentiate."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *ddgradients: Tensor | None) -> Any:
        raise RuntimeError(
            "fusedrnn on a GPU: there are no derivatives of gradients; the layers on the CPU and torch.nn's cells have"
        )


def layer(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor | None],
    parameters: Sequence[Sequence[Tensor | None]],
    *,
    lengths: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, ...]:
    """(y, h_n[, c_n]) of one layer; of two directions the second walks from the end.

    Args:
        x: [T, N, I]. states: h0 (and c0 of an LSTM) [D, N, H], each may be None for zeros.
        parameters: of each direction, in the order of ``cell.parameters``, of which four are read.
        lengths: int32 [N] on the GPU, from 0 to T.
    """
    h0, c0 = (*states, None)[:2]
    tensors = (x, h0, c0, *[p for of_one in parameters for p in of_one[:4]])
    training = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors])
    with _LIBRARY.computing(x):
        return _Layer.apply(  # type: ignore[no-any-return]
            cells.Layer(cell.name, (False, True)[: len(parameters)], relu), lengths, training, *tensors
        )


def step(
    cell: Cell, x: Tensor, states: Sequence[Tensor | None], parameters: Sequence[Tensor | None], relu: bool = False
) -> tuple[Tensor, ...]:
    """h (and c of an LSTM) [N, H] after one step x [N, I], from states [N, H] or None."""
    before = [None if s is None else s.unsqueeze(0) for s in states]
    return tuple([s.squeeze(0) for s in layer(cell, x.unsqueeze(0), before, [parameters], relu=relu)[1:]])


def walk(
    module: Any, x: Tensor, states: Sequence[Tensor], parameters: Sequence[Any], sequences: tuple[Any, Any, Any]
) -> tuple[Tensor, list[Tensor]]:
    """y and the final states [L * D, N, H] of a module's whole stack; ``sequences``: lengths, batch_sizes, None."""
    cell = module._kernel_cell
    lengths, batch_sizes, _ = sequences
    places = None
    if batch_sizes is not None:
        x, lengths, places = _unpacked(x, batch_sizes)
    elif lengths is not None:
        lengths = _LIBRARY.lengths(lengths, x.shape[1], x.shape[0], x)
    directions = 2 if module.bidirectional else 1
    finals = []
    for k in range(0, len(parameters), directions):
        if k and module.dropout and module.training:
            x = torch.nn.functional.dropout(x, module.dropout, True)
        initial = [s[k : k + directions] for s in states] or [None] * len(cell.states)
        x, *final = layer(
            cell, x, initial, parameters[k : k + directions], lengths=lengths, relu=module.mode == "RNN_RELU"
        )
        finals.append(final)
    if places is not None:
        x = x.flatten(0, 1).index_select(0, places)
    return x, finals[0] if len(finals) == 1 else [torch.cat(s) for s in zip(*finals, strict=True)]


def autocast(tensors: Sequence[Tensor], parameters: Sequence[Any]) -> tuple[list[Tensor], list[Any]]:
    """Under torch.autocast, x and states, and the parameters of each layer, in its dtype; as PyTorch's layers on a GPU
    do, whose outputs are of that dtype too. What is float64 stays so."""
    if not torch.is_autocast_enabled("cuda"):
        return list(tensors), list(parameters)
    dtype = torch.get_autocast_dtype("cuda")

    def cast(t: Tensor | None) -> Any:
        return t if t is None or not t.is_floating_point() or t.dtype is torch.float64 else t.to(dtype)

    return [cast(t) for t in tensors], [[cast(p) for p in of_one] for of_one in parameters]


def _unpacked(x: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From packed rows, longest first: x [T, N, I] with zeros past the ends, lengths, and the rows' places in
    [T * N]."""
    check_batch_sizes(batch_sizes.tolist(), len(x))
    T, N = len(batch_sizes), int(batch_sizes[0])  # batch_sizes is always on the CPU
    steps = torch.arange(T).repeat_interleave(batch_sizes)
    first = torch.cumsum(batch_sizes, 0) - batch_sizes
    places = (steps * N + torch.arange(len(x)) - first[steps]).to(x.device)
    lengths = (batch_sizes[:, None] > torch.arange(N)).sum(0).to(x.device, torch.int32)
    return x.new_zeros(T * N, x.shape[1]).index_copy(0, places, x).unflatten(0, (T, N)), lengths, places
