"""A layer's backward as a function that autograd differentiates once more: for derivatives of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusedrnn.torch import calls, composite
from fusedrnn.torch.calls import Call
from fusedrnn.torch.compiling import methods_run_as_they_are
from fusedrnn.torch.second import double_backward


def _backward(call: Call, input_grad: bool, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """(doutputs, x, states, parameters, y, reserve) -> gradients of x, states and parameters."""
    x = call.outputs
    states = x + 1 + len(call.cell.states)
    if not call.training:  # which kept nothing
        return composite.backward(call, tensors[:x], tensors[x:-2], input_grad)
    weights = calls.arrays_of(tensors[states:-2])
    dweights = calls.zeros_like(weights)
    gradients = calls.backward(
        call, tensors[:x], tensors[x], tensors[x + 1 : states], weights, tensors[-2], tensors[-1], input_grad, dweights
    )  # fmt: skip
    return *gradients, *calls.tensors_of(dweights)


@methods_run_as_they_are
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
        outputs = ctx.call.outputs
        ddoutputs, dinputs = double_backward(ctx.call, ddinputs, tensors[:outputs], tensors[outputs:])
        return None, None, *ddoutputs, *dinputs, None, None
