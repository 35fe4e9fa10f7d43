"""What the adapter knows of each cell, and one call of it: a layer in one direction over tensors.

Tensors go to the compiled module in place and its arrays come back as tensors, so that nothing is copied but what is
not contiguous. No gradients are recorded here: ``function`` and ``operators`` do that.

T steps, N rows, I inputs, H units, P elements of h (H, or the size of an LSTM's projection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn import _core
from fusedrnn.spec import COUNTERS, GRU, LSTM, RNN, Cell

_LARGE = 1 << 13  # elements of y, from which on copying it to a tensor takes longer than to have one made first
_EXCHANGE = hasattr(Tensor, "__dlpack_c_exchange_api__")  # of PyTorch 2.10 and newer; reading it takes a third as long
NO_SEQUENCES = (None, None, None)
CELLS: dict[str, Cell] = {cell.name: cell for cell in (RNN, LSTM, GRU)}
_PLAIN = {(name, reverse): _core.Settings(name, reverse=reverse) for name in CELLS for reverse in (False, True)}


def options_of(cell: Cell) -> dict[str, Any]:
    """Return the options of a layer's call here and their plain values; of the random numbers' counters a stack sets
    ``layer`` alone, and a call the seed."""
    return {name: plain for name, plain in cell.options.items() if name == "layer" or name not in COUNTERS}


@dataclass(slots=True)
class Call:
    """One call but for its differentiable tensors.

    ``sequences`` are lengths, batch_sizes and resets, tensors or None; ``options`` those of ``options_of`` that are not
    the plain cell's, and the seed. ``training`` draws masks and keeps a reserve. With
    ``step`` x is one step [N, I], and there is no y beside the new states. With ``stacked`` states are [1, N, P].
    ``one_operator``: PyTorch's own class has it as one operator, which lets nothing change before backward.
    ``changeable``: y goes to a caller who may change it, so that backward has a y of its own.
    """

    cell: Cell
    sequences: tuple[Tensor | None, Tensor | None, Tensor | None] = NO_SEQUENCES
    reverse: bool = False
    training: bool = True
    options: dict[str, Any] | None = None
    step: bool = False
    stacked: bool = False
    one_operator: bool = False
    changeable: bool = False

    @property
    def outputs(self) -> int:
        return len(self.cell.states) + (not self.step)

    def plain(self) -> bool:
        """Whether PyTorch's own class has such a call."""
        return self.options is None or (
            self.options.keys() == {"nonlinearity"} and self.options["nonlinearity"] in ("tanh", "relu")
        )

    def settings(self) -> Any:
        """For the compiled module."""
        if self.options is None:
            return _PLAIN[self.cell.name, self.reverse]
        return _core.Settings(self.cell.name, reverse=self.reverse, **self.options)


def owned(sequences: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Copies of lengths, batch_sizes and resets, for the caller may fill theirs anew before backward."""
    return [None if t is None else t.clone(memory_format=torch.contiguous_format) for t in sequences]


def arrays_of(tensors: Sequence[Tensor | None]) -> Sequence[Any]:
    """The tensors' memory as arrays; a copy only of what is not contiguous."""
    if tensors is NO_SEQUENCES:
        return tensors
    if not _EXCHANGE or any([t is not None and t.is_neg() for t in tensors]):
        if any([t is not None and t.numel() and not t.data_ptr() for t in tensors]):  # NumPy would take other memory
            raise ValueError("expected a tensor with memory; that of one of these was freed")
        return [None if t is None else t.contiguous().numpy(force=True) for t in tensors]
    return _core.views(tensors)


def weights_of(parameters: Sequence[Tensor | None]) -> Sequence[Any]:
    """``arrays_of`` parameters, as far as they have memory.

    Raises:
        ValueError: one has a storage that became smaller than it, as whoever shards or offloads a model makes it.
    """
    ih: Any = parameters[0]
    hh: Any = parameters[1]
    small = ih.untyped_storage().nbytes() < ih.nbytes or hh.untyped_storage().nbytes() < hh.nbytes
    if small and not (_fits(ih) and _fits(hh)):
        raise ValueError("expected weights with memory; the storage of one of these was resized to less than it holds")
    return arrays_of(parameters)


def _fits(tensor: Tensor) -> bool:
    """Whether a tensor's elements, which may share memory, lie within its storage."""
    spans = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    last = tensor.storage_offset() + sum(spans)
    return not tensor.numel() or (last + 1) * tensor.itemsize <= tensor.untyped_storage().nbytes()


def forward(
    call: Call, x: Tensor, states: Sequence[Tensor | None], weights: Sequence[Any]
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """(y, h_n[, c_n]), y only of a sequence, and the reserve, None without ``training``.

    ``weights`` are the parameters' arrays in the order of ``Cell.parameters``, of which only the first need be given.
    """
    x_, *initial = arrays_of((x, *states))
    if call.stacked:
        initial = [None if s is None else s[0] for s in initial]
    # In training a caller's y lies in memory of PyTorch's, which may be resized, as whoever offloads activations does.
    own_y = y = None
    if not call.step and not call.changeable and x_.size // x_.shape[-1] * weights[1].shape[1] >= _LARGE:
        own_y = x.new_empty((*x.shape[:-1], weights[1].shape[1]))
        (y,) = arrays_of((own_y,))
    data, parameters = x_[None] if call.step else x_, tuple(weights)
    *outputs, reserve = _core.forward(
        call.settings(), data, tuple(initial), parameters, _sequences(call), call.training, y
    )
    if call.step:
        del outputs[0]
    if call.stacked:
        outputs[1:] = [s[None] for s in outputs[1:]]
    tensors = [torch.from_numpy(a) for a in outputs]
    if own_y is not None:
        tensors[0] = own_y
    elif call.training and not (call.step or call.changeable):
        tensors[0] = tensors[0].clone()
    return tuple(tensors), None if reserve is None else torch.from_numpy(reserve.buffer)


def _sequences(call: Call) -> Any:
    return None if call.sequences is NO_SEQUENCES else tuple(arrays_of(call.sequences))


def zeros_like(weights: Sequence[Any]) -> list[Any]:
    """Arrays of zeros for ``backward`` to add to."""
    return [None if a is None else np.zeros(a.shape, a.dtype) for a in weights]


def backward(
    call: Call,
    doutputs: Sequence[Tensor | None],
    x: Tensor,
    states: Sequence[Tensor | None],
    weights: Sequence[Any],
    y: Tensor,
    reserve: Tensor,
    input_grad: bool,
    dweights: Sequence[Any],
) -> list[Tensor | None]:
    """[dx, dh0[, dc0]]; None for what there was not, and for dx without ``input_grad``. The gradients of the parameters
    are added to the arrays ``dweights``. ``y`` is h of one step."""
    *dy, x_, y_, buffer = arrays_of((*doutputs, x, y, reserve))
    initial = arrays_of(states)
    if call.step:
        dy, x_, y_ = [None, *dy], x_[None], y_[None]
    if call.stacked:
        dy[1:] = [None if d is None else d[0] for d in dy[1:]]
        initial = [None if s is None else s[0] for s in initial]
    kept = _core.Reserve(call.settings(), x_, tuple(initial), tuple(weights), _sequences(call), y_, buffer)
    dx, *dstates = _core.backward(kept, tuple(dy), input_grad, tuple(dweights))
    if call.step and dx is not None:
        dx = dx[0]
    if call.stacked:
        dstates = [d[None] for d in dstates]
    return tensors_of((dx, *(None if s is None else d for s, d in zip(states, dstates, strict=True))))


def tensors_of(arrays: Sequence[Any]) -> list[Tensor | None]:
    """Tensors on the arrays' memory."""
    return [None if a is None else torch.from_numpy(a) for a in arrays]
