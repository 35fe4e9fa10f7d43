"""RNN, LSTM and GRU: ``torch.nn``'s layers whose forward runs on the kernels.

They are subclasses that, without options of ours, add no state of their own, so constructors, initial values,
``state_dict`` and all that PyTorch does with a layer are PyTorch's. A call that the kernels do not take goes to
PyTorch's own forward, and so does one that is wrong: its errors are PyTorch's.
"""

from __future__ import annotations

from operator import is_, lt
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fusedrnn import spec
from fusedrnn._core import NO_STEPS
from fusedrnn.cuda import arrays
from fusedrnn.torch import calls, gpu
from fusedrnn.torch.calls import NO_SEQUENCES
from fusedrnn.torch.compiling import runs_as_it_is
from fusedrnn.torch.function import memory_of
from fusedrnn.torch.kept import one_operator
from fusedrnn.torch.ops import layer as run_layer
from fusedrnn.torch.options import add_parameters, check_sizes, is_own_nonlinearity, of_a_call, take_options
from fusedrnn.torch.options import reset_parameters as reset_options
from fusedrnn.torch.options import text as options_text
from fusedrnn.torch.support import (
    NoSteps,
    autocast,
    autocast_outputs,
    fell_back,
    fx_call,
    only_kernels,
    prepare_scriptable,
    refusal,
)

_SIZES = ("input_size", "hidden_size", "num_layers")


class _Recurrent(torch.nn.RNNBase):
    """What the three share: inputs and states in PyTorch's layouts, and the walk through layers and directions."""

    _kernel_cell: Any  # a Cell, by a property: strict torch.export of PyTorch 2.6 takes no such attribute of a class
    _kernel_options: dict[str, Any] | None = None  # of the constructor, that torch.nn has not

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        options = take_options(self._kernel_cell, keywords)
        super().__init__(*check_sizes(self._kernel_cell, _SIZES, arguments, keywords), **keywords)
        if options is not None:
            self._kernel_options = options
            add_parameters(self)
            reset_options(self)

    def reset_parameters(self) -> None:
        """Initial values anew, as PyTorch's; gains of layer normalization are 1, their biases 0."""
        super().reset_parameters()
        if self._kernel_options is not None:
            reset_options(self)

    __prepare_scriptable__ = prepare_scriptable

    def extra_repr(self) -> str:
        return str(super().extra_repr()) + "".join(options_text(self._kernel_options))

    def forward(self, input: Any, hx: Any = None, lengths: Any = None, resets: Any = None) -> Any:
        """As the layer of ``torch.nn``, and beyond it:

        Args:
            input: [T, N, I], [N, T, I] with ``batch_first``, unbatched [T, I], or a PackedSequence.
            hx: h0 [L * D, N, P], or (h0, c0) of an LSTM; None for zeros.
            lengths: N integers from 0 to T, in any order: y is zero past a row's end, and h_n its own last state. Not
                with a PackedSequence.
            resets: booleans [T, N] (as ``input`` lies; packed: as its data): where true, the state is zero before that
                step.

        Raises:
            ValueError, RuntimeError: as PyTorch's; ValueError: T = 0, lengths or resets that do not fit, or in a call
                that the kernels do not take.
        """
        return self._kernel_run(input, hx, lengths, resets)

    @runs_as_it_is  # and forward not: Dynamo begins there with a layer that is compiled by itself
    def _kernel_run(self, input: Any, hx: Any, lengths: Any, resets: Any) -> Any:
        packed = isinstance(input, PackedSequence)
        x, batch_sizes = (input.data, input.batch_sizes) if packed else (input, None)
        sorted_indices = input.sorted_indices if packed else None
        compiling, unfit = torch.compiler.is_compiling(), ""
        if packed and not compiling:
            x, batch_sizes, unfit = _rows_in_use(x, batch_sizes, self.bidirectional)
        states = self._kernel_states(hx)
        if states is None or not isinstance(x, Tensor):
            return self._kernel_leave(input, hx, lengths, resets, "such arguments")
        parameters = self._kernel_parameters()
        if not packed and x.dim() in (2, 3) and not x.shape[int(self.batch_first and x.dim() == 3)]:
            raise NoSteps(f"input: {NO_STEPS}")
        dtypes, on_gpu = None, arrays.on_gpu(x)
        if on_gpu:
            (x, *states), parameters = gpu.autocast((x, *states), parameters)
        elif torch.is_autocast_enabled("cpu") and x.is_cpu:
            weight = parameters[0][0]
            dtypes = autocast_outputs(
                self._kernel_cell, (x, *states), weight, one_length=not packed, projected=self.proj_size > 0
            )
            x, *states = autocast((x, *states), weight.dtype)
        reason = unfit or refusal([x, *states, *[p for layer in parameters for p in layer if p is not None]])
        if on_gpu and not reason:
            reason = self._kernel_refusal_on_gpu(resets)
        if reason:
            result = self._kernel_leave(input, hx, lengths, resets, reason)
            fell_back(self, reason)  # where PyTorch had no error
            return result
        directions = 2 if self.bidirectional else 1
        if len(parameters) != self.num_layers * directions:  # attributes that somebody changed
            return self._kernel_leave(input, hx, lengths, resets, f"{len(parameters)} layers and directions")
        unfit = self._kernel_misfit(x, batch_sizes, states)
        if unfit:
            return self._kernel_leave(input, hx, lengths, resets, unfit)

        unbatched = x.dim() == 2 and not packed
        if unbatched:
            x, states = x.unsqueeze(1), [s.unsqueeze(1) for s in states]
        elif self.batch_first and not packed:
            x = x.transpose(0, 1)
        beyond = self._kernel_options is not None or lengths is not None or resets is not None or self.proj_size > 0
        whole = compiling or one_operator(self._kernel_cell, x, batch_sizes, beyond=beyond)
        if not packed and not x.is_contiguous():  # a copy where PyTorch has one, so that the input may change
            T, N = x.shape[:2]
            if whole or (T > 1 and N > 1 and x.stride(0) != N * x.stride(1)):
                x = x.contiguous()
        if sorted_indices is not None:
            states = [s.index_select(1, sorted_indices) for s in states]
        if batch_sizes is not None and not states and compiling:
            states = self._kernel_zeros(x, int(batch_sizes[0]))  # as an operator's outputs need a size
        sequences: Any = NO_SEQUENCES
        if packed or lengths is not None or resets is not None:
            lengths = self._kernel_lengths(lengths, packed, on_gpu)
            sequences = (lengths, batch_sizes, self._kernel_resets(resets, packed, unbatched))
            if not compiling:  # the operators that a compiler sees do it themselves
                sequences = calls.owned(sequences)
        if on_gpu:
            y, final = gpu.walk(self, x, states, parameters, sequences)
        else:
            y, final = self._kernel_walk(x, states, parameters, sequences, whole)
        if dtypes is not None:
            y, *final = (t.to(dtype) for t, dtype in zip((y, *final), dtypes, strict=True))

        if packed:
            y = PackedSequence(y, input.batch_sizes, sorted_indices, input.unsorted_indices)
            if input.unsorted_indices is not None:
                final = [s.index_select(1, input.unsorted_indices) for s in final]
        elif unbatched:
            y, final = y.squeeze(1), [s.squeeze(1) for s in final]
        elif self.batch_first:  # a view only where PyTorch has one
            y = y.transpose(0, 1) if whole or on_gpu or self._kernel_cell is spec.LSTM else y.transpose_(0, 1)
        return y, tuple(final) if len(final) > 1 else final[0]

    def _kernel_walk(
        self, x: Tensor, states: Any, parameters: Any, sequences: Any, whole: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """y and the final states [L * D, N, ...] of the whole stack."""
        directions = 2 if self.bidirectional else 1
        options, random = self._kernel_nonlinearity(), False
        if self._kernel_options is not None:
            own, random = of_a_call(self._kernel_options, self.training)
            options = {**(options or {}), **own}
        seed = torch.randint(2**63 - 1, ()) if random else None
        finals, memory = [], memory_of(self)
        alone = len(parameters) == 1
        for k, weights in enumerate(parameters):
            if k % directions == 0:
                if k and self.dropout and self.training:
                    x = torch.nn.functional.dropout(x, self.dropout, True)
                ys = []
            initial = (states if alone else [s[k] for s in states]) or [None] * len(self._kernel_cell.states)
            if random:
                options = {**options, "layer": k // directions}  # type: ignore[dict-item]
            # The y of others stays here, as an input or a part of what is put together.
            changeable = not whole and directions == 1 and k == len(parameters) - 1
            y, *final = run_layer(
                self._kernel_cell, x, initial, weights,
                sequences=sequences, reverse=k % directions == 1, options=options, seed=seed, keep=random,
                memory=memory, place=k, stacked=alone, one_operator=whole, changeable=changeable,
            )  # fmt: skip
            ys.append(y)
            finals.append(final)
            if len(ys) == directions:
                x = ys[0] if directions == 1 else torch.cat(ys, -1)
        return x, finals[0] if alone else [torch.stack(s) for s in zip(*finals, strict=True)]

    def _kernel_nonlinearity(self) -> dict[str, Any] | None:
        """What differs from the plain cell."""
        return None

    def _kernel_parameters(self) -> list[list[Any]]:
        """Return those of each layer and direction in the order of ``Cell.parameters``, from PyTorch's
        ``_flat_weights``, which a client may have set and PyTorch fills anew where a named parameter is another, be it
        parametrized or called functionally."""
        own, flat = self._parameters, self._flat_weights
        if not all(map(is_, map(own.get, self._flat_weights_names), flat)):
            if torch.compiler.is_compiling():  # an export takes no attributes that change
                flat = [getattr(self, name) for name in self._flat_weights_names]
            else:
                self._update_flat_weights()
                flat = self._flat_weights
        found, at = [], 0
        for names in self._all_weights:
            weights: list[Any] = flat[at : at + len(names)]
            at += len(names)
            if not self.bias:
                weights[2:2] = [None, None]
            if self._kernel_options is not None:
                suffix = names[0].removeprefix("weight_ih")
                given = dict(zip(names, weights, strict=False))
                beyond = list(self._kernel_cell.parameters)[4:]
                weights[4:] = [given.get(n + suffix, getattr(self, n + suffix, None)) for n in beyond]
            elif self.proj_size:
                weights[4:] = [None, weights[4]]
            found.append(weights)
        return found

    def _kernel_states(self, hx: Any) -> list[Tensor] | None:
        """hx as a list, empty for zeros; None where it is not what PyTorch takes."""
        if hx is None:
            return []
        if len(self._kernel_cell.states) == 1:
            return [hx] if isinstance(hx, Tensor) else None
        if isinstance(hx, (tuple, list)) and len(hx) == 2 and all(isinstance(s, Tensor) for s in hx):
            return list(hx)
        return None

    def _kernel_misfit(self, x: Tensor, batch_sizes: Tensor | None, states: Any) -> str:
        """Shapes that PyTorch's own forward has the error for, or of which it has nothing to compute."""
        dims = x.dim()
        if dims not in ((2,) if batch_sizes is not None else (2, 3)) or x.shape[-1] != self.input_size:
            return f"an input of shape {tuple(x.shape)}"
        if 0 in x.shape:
            return "empty inputs"
        if not states:
            return ""
        if batch_sizes is not None:
            rows = [int(batch_sizes[0])]
        elif dims == 2:
            rows = []
        else:
            rows = [x.shape[0 if self.batch_first else 1]]
        stack = self.num_layers * (2 if self.bidirectional else 1)
        for state, width in zip(states, (self.proj_size or self.hidden_size, self.hidden_size), strict=False):
            if state.shape != (stack, *rows, width):
                return f"a state of shape {tuple(state.shape)}"
        return ""

    def _kernel_refusal_on_gpu(self, resets: Any) -> str:
        """What the kernels do not compute on a GPU."""
        names = [
            *(self._kernel_options or ()),
            *["proj_size"] * bool(self.proj_size),
            *["resets"] * (resets is not None),
        ]
        return f"{', '.join(names)} on a GPU yet" if names else ""

    def _kernel_leave(self, input: Any, hx: Any, lengths: Any, resets: Any, reason: str) -> Any:
        """PyTorch's own forward, or its error."""
        options = {name: value for name, value in (("lengths", lengths), ("resets", resets)) if value is not None}
        node = fx_call(self, input, *(() if hx is None else (hx,)), **options)
        if node is not None:
            return node
        beyond = [name for name in self._kernel_options or () if name != "recompute"]
        beyond += options
        if beyond:
            raise only_kernels(", ".join(beyond), reason)
        if isinstance(input, PackedSequence):  # PyTorch's LSTM would not look, and read past an end
            self.check_input(input.data, input.batch_sizes)
            if self._kernel_states(hx):
                self.check_forward_args(input.data, hx, input.batch_sizes)
        return super().forward(input, hx)

    def _kernel_zeros(self, x: Tensor, rows: int) -> list[Tensor]:
        stack = self.num_layers * (2 if self.bidirectional else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self._kernel_cell.states)]
        return [x.new_zeros(stack, rows, width) for width in widths]

    def _kernel_lengths(self, lengths: Any, packed: bool, on_gpu: bool) -> Tensor | None:
        if lengths is None:
            return None
        if packed:
            raise ValueError("lengths: expected None beside a PackedSequence, which has its own")
        lengths = torch.as_tensor(lengths)
        if lengths.is_floating_point() or lengths.dtype is torch.bool:
            raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
        return lengths if on_gpu else lengths.to("cpu", torch.int64)

    def _kernel_resets(self, resets: Any, packed: bool, unbatched: bool) -> Tensor | None:
        if resets is None:
            return None
        resets = torch.as_tensor(resets)
        if resets.dtype is not torch.bool:
            raise TypeError(f"resets: expected booleans, got {resets.dtype}")
        if unbatched:
            return resets.unsqueeze(-1)
        return resets.transpose(0, 1) if self.batch_first and not packed else resets


def _rows_in_use(data: Any, batch_sizes: Tensor, bidirectional: bool) -> tuple[Any, Tensor, str]:
    """Packed rows without steps of no rows at the end, and without data that no step has, as PyTorch takes them; and
    what PyTorch has an error for, or computes in a way of its own: its reverse direction begins with the last data."""
    sizes = batch_sizes.tolist() if batch_sizes.dim() == 1 else []
    if not sizes or min(sizes) < 0 or not sizes[0]:
        return data, batch_sizes, ""
    if batch_sizes.dtype is not torch.int64:
        return data, batch_sizes, f"batch_sizes of {batch_sizes.dtype}"
    count = len(sizes)
    while not sizes[count - 1]:
        count -= 1
    if any(map(lt, sizes, sizes[1:])):  # also a step without rows before others
        return data, batch_sizes, "batch_sizes that increase"
    used = sum(sizes)
    if used > len(data) or (used < len(data) and bidirectional):
        return data, batch_sizes, f"packed data of {len(data)} rows where batch_sizes have {used}"
    batch_sizes = batch_sizes if count == len(sizes) else batch_sizes[:count]
    return data[:used] if used < len(data) else data, batch_sizes, ""


class RNN(_Recurrent, torch.nn.RNN):
    """``torch.nn.RNN`` on the kernels.

    Args:
        layer_norm: layer normalization in the cell, with parameters ``gain_ih_l0``, ``gain_hh_l0``,
            ``norm_bias_ih_l0``, ``norm_bias_hh_l0`` (an LSTM's c: ``gain_c_l0``, ``norm_bias_c_l0``), ...
        nonlinearity: as PyTorch's, or any other of ``fusedrnn.rnn_forward``.
        zoneout_h, recurrent_dropout, dropconnect, grad_clip: as ``fusedrnn.rnn_forward``; masks are drawn anew in each
            call, by PyTorch's generator, in training alone.
        others, which come first: as PyTorch's.

    Raises:
        TypeError, ValueError: as PyTorch's; an option of ours out of its range.
    """

    _kernel_cell = property(lambda self: spec.RNN)
    nonlinearity: str

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if len(arguments) > 3 and is_own_nonlinearity(arguments[3]):
            keywords["nonlinearity"], arguments = arguments[3], (*arguments[:3], "tanh", *arguments[4:])
        super().__init__(*arguments, **keywords)
        if self._kernel_options is not None:
            self.nonlinearity = self._kernel_options.get("nonlinearity", self.nonlinearity)

    def _kernel_nonlinearity(self) -> dict[str, Any] | None:
        return {"nonlinearity": "relu"} if self.mode == "RNN_RELU" else None


class LSTM(_Recurrent, torch.nn.LSTM):
    """``torch.nn.LSTM`` on the kernels.

    Args:
        peephole: the gates also see c, by parameters ``weight_peephole_l0`` [3, H], ...
        coupled: f = 1 - i, with 3H rows of i, g, o in the weights.
        activations, cell_clip, zoneout_c, recompute: as ``fusedrnn.lstm_forward``.
        others: as ``RNN``.
    """

    _kernel_cell = property(lambda self: spec.LSTM)


class GRU(_Recurrent, torch.nn.GRU):
    """``torch.nn.GRU`` on the kernels.

    Args:
        activations, reset_after, recompute: as ``fusedrnn.gru_forward``.
        others: as ``RNN``.
    """

    _kernel_cell = property(lambda self: spec.GRU)
