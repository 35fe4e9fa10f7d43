"""The calls for autograd in eager mode, where a registered operator's own Python would cost more than small kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusedrnn.torch import calls, composite
from fusedrnn.torch.calls import Call


class Layer(torch.autograd.Function):
    """(call, x, h0[, c0], parameters...) -> (y, h_n[, c_n])."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        first = 1 + len(call.cell.states)
        outputs, reserve = calls.forward(call, tensors[0], tensors[1:first], tensors[first:])
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, outputs[0], reserve)
        return outputs

    @staticmethod
    def backward(ctx: Any, *doutputs: Tensor | None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, *_backward(ctx.call, ctx.needs_input_grad[1], *doutputs, *tensors)
        kept = (tensors[-2].detach(), tensors[-1])  # y follows from the inputs: no gradient goes by way of it
        return None, *LayerBackward.apply(ctx.call, ctx.needs_input_grad[1], *doutputs, *tensors[:-2], *kept)


def _backward(call: Call, input_grad: bool, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """(doutputs, x, states, parameters, y, reserve) -> gradients of x, states and parameters."""
    count = len(call.cell.states)
    x, states = 1 + count, 2 + 2 * count
    if not call.training:  # which kept nothing
        return composite.backward(call, tensors[:x], tensors[x:-2], input_grad)
    return calls.backward(
        call, tensors[:x], tensors[x], tensors[x + 1 : states], tensors[states:-2], tensors[-2], tensors[-1],
        input_grad,
    )  # fmt: skip


class LayerBackward(torch.autograd.Function):
    """``_backward``, differentiable in doutputs, x, states and parameters; y and the reserve follow from them."""

    @staticmethod
    def forward(ctx: Any, call: Call, input_grad: bool, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[:-2])
        return _backward(call, input_grad, *tensors)

    @staticmethod
    def backward(ctx: Any, *ddinputs: Tensor | None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        outputs = 1 + len(ctx.call.cell.states)
        ddoutputs, dinputs = composite.double_backward(ctx.call, ddinputs, tensors[:outputs], tensors[outputs:])
        return None, None, *ddoutputs, *dinputs, None, None
