"""The operators in PyTorch's own, for what knows no others: programs of ``torch.export`` on their way to ONNX.

A plain layer becomes the one operator that PyTorch's own layer is in such a program. A layer with options, lengths or
resets becomes the operators of its steps, of which there are as many as the example had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from fusedrnn.torch.calls import Call
from fusedrnn.torch.composite import unroll

_Tensors = Sequence[Tensor | None]


def register(operator: Any) -> None:
    """Register the decomposition of a forward operator."""
    count = len(operator.cell.states)

    def decomposed(*arguments: Any) -> tuple[Tensor, ...]:
        if get_proxy_mode() is None:  # somebody asks for shapes alone
            return operator.fake_forward(*arguments)  # type: ignore[no-any-return]
        (x, *rest), (*sequences, seed), (*options, training) = operator.split(arguments)
        if isinstance(x.shape[0], torch.SymInt) and not x.shape[0].node.is_constant():
            raise ValueError(
                f"{operator.cell.name}_forward: expected a program with a fixed number of steps, got a dynamic one, "
                "over which PyTorch's operators do not run; export with that dimension static, or write the layers "
                "with fusedrnn.onnx.export"
            )
        if training and seed is not None:
            return NotImplemented  # type: ignore[no-any-return] # PyTorch's operators do not draw these masks
        call = operator.call((*sequences, None), options, False)
        states, parameters = rest[:count], rest[count:]
        outputs = (_as_one if _is_one(call, parameters) else _as_steps)(call, x, states, parameters)
        # Nothing reads the reserve, as such a program has no backward.
        reserve = operator.fake_forward(*arguments)[-1]
        return *outputs, x.new_zeros(reserve.shape)

    register_decomposition(getattr(torch.ops.fusedrnn, f"{operator.cell.name}_forward").default)(decomposed)


def _is_one(call: Call, parameters: _Tensors) -> bool:
    """Whether PyTorch has an operator for it that ONNX has too, which knows no projection."""
    return call.plain() and all(p is None for p in parameters[4:]) and all(s is None for s in call.sequences)


def _as_one(call: Call, x: Tensor, states: _Tensors, parameters: _Tensors) -> tuple[Tensor, ...]:
    """By the operator of PyTorch's own layer; a reverse direction by x and y turned round."""
    weights = [p for p in parameters if p is not None]
    zeros = x.new_zeros((1, x.shape[1], weights[1].shape[1]))
    given = [zeros if state is None else state.unsqueeze(0) for state in states]
    if call.reverse:
        x = x.flip(0)
    plain = (1, 0.0, False, False, False)  # layers, dropout, train, bidirectional, batch_first
    name = call.cell.name
    if name == "rnn":
        name = f"rnn_{(call.options or call.cell.options)['nonlinearity']}"
    run = getattr(torch.ops.aten, name).input
    y, *final = run(x, given if len(given) > 1 else given[0], weights, parameters[2] is not None, *plain)
    return y.flip(0) if call.reverse else y, *[s.squeeze(0) for s in final]


def _as_steps(call: Call, x: Tensor, states: _Tensors, parameters: _Tensors) -> tuple[Tensor, ...]:
    options = {name: value for name, value in (call.options or {}).items() if name not in ("grad_clip", "recompute")}
    return unroll(replace(call, options=options or None), x, states, parameters)
