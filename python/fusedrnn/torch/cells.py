"""RNNCell, LSTMCell and GRUCell: ``torch.nn``'s whose step runs on the kernels, under the terms of ``modules``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusedrnn import spec
from fusedrnn.cuda import arrays
from fusedrnn.torch import gpu
from fusedrnn.torch.compiling import exporting, runs_as_it_is
from fusedrnn.torch.function import memory_of
from fusedrnn.torch.ops import layer as run_layer
from fusedrnn.torch.options import check_sizes
from fusedrnn.torch.support import autocast, autocast_outputs, fell_back, fx_call, prepare_scriptable, refusal

_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Step(torch.nn.RNNCellBase):
    __prepare_scriptable__ = prepare_scriptable
    _kernel_cell: Any  # a Cell, by a property: strict torch.export of PyTorch 2.6 takes no such attribute of a class

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        sizes = check_sizes(self._kernel_cell, ("input_size", "hidden_size"), arguments, keywords)
        super().__init__(*sizes, **keywords)

    @runs_as_it_is
    def forward(self, input: Any, hx: Any = None) -> Any:
        """As the cell of ``torch.nn``: input [N, I] or [I]; hx h [N, H] or [H], or (h, c) of an LSTM, None for zeros.

        Raises:
            ValueError, RuntimeError: as PyTorch's.
        """
        if torch.compiler.is_dynamo_compiling() and not exporting():
            return super().forward(input, hx)  # whose operators a compiler fuses over the steps of a loop
        cell = self._kernel_cell
        pair = len(cell.states) == 2 and isinstance(hx, (tuple, list))
        states = () if hx is None else tuple(hx) if pair else (hx,)
        if not all([isinstance(t, Tensor) for t in (input, *states)]) or len(states) not in (0, len(cell.states)):
            node = fx_call(self, input, *(() if hx is None else (hx,)))
            return super().forward(input, hx) if node is None else node
        x = input
        own = self._parameters
        parameters = [own[name] if name in own else getattr(self, name) for name in _PARAMETERS]
        dtypes, on_gpu = None, arrays.on_gpu(x)
        if on_gpu:
            (x, *states), (parameters,) = gpu.autocast((x, *states), (parameters,))  # type: ignore[assignment]
        elif torch.is_autocast_enabled("cpu") and x.is_cpu:
            dtypes = autocast_outputs(cell, (x, *states), parameters[0])
            x, *states = autocast((x, *states), parameters[0].dtype)  # type: ignore[assignment]
        expected = (*x.shape[:-1], self.hidden_size)
        reason = refusal([x, *states, *[p for p in parameters if p is not None]])
        if reason:
            result = super().forward(input, hx)
            fell_back(self, reason)  # where PyTorch had no error
            return result
        if (
            x.dim() not in (1, 2)
            or x.shape[-1] != self.input_size
            or 0 in (*x.shape, self.hidden_size)
            or any([s.shape != expected for s in states])
        ):
            return super().forward(input, hx)
        batched = x.dim() == 2
        if not batched:
            x, states = x.unsqueeze(0), tuple([s.unsqueeze(0) for s in states])
        states = states or (None,) * len(cell.states)
        if on_gpu:
            final = gpu.step(cell, x, states, parameters, relu=self._kernel_nonlinearity() is not None)
        else:
            final = run_layer(
                cell, x, states, parameters, options=self._kernel_nonlinearity(), memory=memory_of(self), step=True
            )
        if not batched:
            final = tuple([s.squeeze(0) for s in final])
        if dtypes is not None:
            final = tuple([s.to(dtype) for s, dtype in zip(final, dtypes[1:], strict=True)])
        return final if len(final) > 1 else final[0]

    def _kernel_nonlinearity(self) -> dict[str, Any] | None:
        return None


class RNNCell(_Step, torch.nn.RNNCell):
    """``torch.nn.RNNCell`` on the kernels."""

    _kernel_cell = property(lambda self: spec.RNN)

    def _kernel_nonlinearity(self) -> dict[str, Any] | None:
        return None if self.nonlinearity == "tanh" else {"nonlinearity": self.nonlinearity}


class LSTMCell(_Step, torch.nn.LSTMCell):
    """``torch.nn.LSTMCell`` on the kernels."""

    _kernel_cell = property(lambda self: spec.LSTM)


class GRUCell(_Step, torch.nn.GRUCell):
    """``torch.nn.GRUCell`` on the kernels."""

    _kernel_cell = property(lambda self: spec.GRU)
