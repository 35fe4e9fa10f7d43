"""What the adapter knows of each cell, and one call of it: a layer in one direction over tensors.

Tensors go to the compiled module in place and its arrays come back as tensors, so that nothing is copied but what is
not contiguous. No gradients are recorded here: ``function`` and ``operators`` do that.

T steps, N rows, I inputs, H units, P elements of h (H, or the size of an LSTM's projection).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn import _core
from fusedrnn.functional.reserve import COUNTERS, PLAIN

_compiled: Any = _core  # whose arguments are put together of parts here
_NORM = ("gain_ih", "gain_hh", "norm_bias_ih", "norm_bias_hh")
_NORM_LSTM = ("gain_ih", "gain_hh", "gain_c", "norm_bias_ih", "norm_bias_hh", "norm_bias_c")
_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LARGE = 1 << 13  # elements of y, from which on copying it to a tensor takes longer than to have one made first
_EXCHANGE = hasattr(Tensor, "__dlpack_c_exchange_api__")  # of PyTorch 2.10 and newer; reading it takes a third as long
NO_SEQUENCES = (None, None, None)
_SHARED: dict[str, Any] = {
    "zoneout_h": 0.0,
    "recurrent_dropout": 0.0,
    "dropconnect": 0.0,
    "grad_clip": None,
    "layer": 0,
    "precision": None,
}


@dataclass(frozen=True)
class Cell:
    """A cell: its states, its parameters in the order of every call (the plain cell's first), and its options.

    ``direct`` are arguments of the compiled functions, ``options`` those that its dictionary of options holds, both
    with the plain cell's values; None of ``activations`` stands for those of the field of that name. ``precision``,
    among the options, chooses other functions.
    """

    name: str
    gates: int
    states: tuple[str, ...]
    parameters: tuple[str, ...]
    direct: Mapping[str, Any]
    options: Mapping[str, Any]
    activations: tuple[str, ...] = ()

    def rows(self, options: Mapping[str, Any]) -> int:
        """The gates that have rows of the weights."""
        return 3 if options.get("coupled") else self.gates


RNN = Cell("rnn", 1, ("h0",), (*_WEIGHTS, *_NORM), {"nonlinearity": "tanh"}, _SHARED)
LSTM = Cell(
    "lstm",
    4,
    ("h0", "c0"),
    (*_WEIGHTS, "weight_peephole", "weight_hr", *_NORM_LSTM),
    {"recompute": False},
    {**_SHARED, "zoneout_c": 0.0, "coupled": False, "cell_clip": None, "activations": None},
    ("sigmoid", "tanh", "tanh"),
)
GRU = Cell(
    "gru",
    3,
    ("h0",),
    (*_WEIGHTS, *_NORM),
    {"reset_after": True, "recompute": False},
    {**_SHARED, "activations": None},
    ("sigmoid", "tanh"),
)
CELLS = {cell.name: cell for cell in (RNN, LSTM, GRU)}
# What the compiled module reads of its dictionary of options, and the plain cell.
_ALL_OPTIONS: dict[str, Any] = {
    **PLAIN,
    **COUNTERS,
    "weight_peephole": None,
    "weight_hr": None,
    "coupled": False,
    "cell_clip": None,
    "zoneout_c": 0.0,
}


@dataclass(slots=True)
class Call:
    """One call but for its differentiable tensors.

    ``sequences`` are lengths, batch_sizes and resets, tensors or None; ``options`` those of ``Cell.direct`` and
    ``Cell.options`` that are not the plain cell's, and the seed. ``training`` draws masks and keeps a reserve. With
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

    def direct(self) -> list[Any]:
        if self.options is None:
            return list(self.cell.direct.values())
        return [self.options.get(name, plain) for name, plain in self.cell.direct.items()]

    def compiled_options(self, parameters: Sequence[Any]) -> dict[str, Any] | None:
        """The dictionary of options with the arrays among them; None for the plain cell."""
        beside = (*self.cell.direct, "precision")
        given = {name: value for name, value in (self.options or {}).items() if name not in beside}
        extra = dict(zip(self.cell.parameters[4:], parameters[4:], strict=False))
        of_plain_kernels = (self.options or {}).get("nonlinearity") in (None, "tanh", "relu")
        if of_plain_kernels and not given and all(array is None for array in extra.values()):
            return None
        extra = {name: array for name, array in extra.items() if array is not None}
        if "gain_ih" in extra:
            kinds = ("ih", "hh", "c") if "gain_c" in extra else ("ih", "hh")
            gains = tuple(extra.pop(f"gain_{kind}") for kind in kinds)
            extra["layer_norm"] = (gains, tuple(extra.pop(f"norm_bias_{kind}", None) for kind in kinds))
        return {**_ALL_OPTIONS, **given, **extra}


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
    options = call.compiled_options(weights) if call.options or len(weights) > 4 else None
    x_, *initial = arrays_of((x, *states))
    if call.stacked:
        initial = [None if s is None else s[0] for s in initial]
    data = (x_[None] if call.step else x_, *initial, *weights[:4])
    # In training a caller's y lies in memory of PyTorch's, which may be resized, as whoever offloads activations does.
    own_y = y = None
    if not call.step and not call.changeable and x_.size // x_.shape[-1] * weights[1].shape[1] >= _LARGE:
        own_y = x.new_empty((*x.shape[:-1], weights[1].shape[1]))
        (y,) = arrays_of((own_y,))
    sequences = arrays_of(call.sequences)
    if call.options and "precision" in call.options:
        *outputs, c_n, reserve = _compiled.low_precision_forward(
            _low_precision_cell(call), call.options["precision"], data[0], *(*initial, None)[:2], *weights[:4],
            *sequences, call.reverse, call.training, y,
        )  # fmt: skip
        if c_n is not None:
            outputs.append(c_n)
    elif call.cell is LSTM:
        *outputs, reserve, _ = _compiled.lstm_forward(
            *data, *sequences, call.reverse, call.training, *call.direct(), options, False, y
        )
    elif call.cell is GRU:
        reset_after, recompute = call.direct()
        *outputs, reserve = _compiled.gru_forward(
            *data, reset_after, *sequences, call.reverse, call.training, recompute, options, y
        )
    else:
        *outputs, reserve = _compiled.rnn_forward(
            *data, *call.direct(), *sequences, call.reverse, call.training, options, y
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
    return tuple(tensors), None if reserve is None else torch.from_numpy(reserve)


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
    options = call.compiled_options(weights) if call.options or len(weights) > 4 else None
    dpeephole = dhr = dnorm = None
    if options is not None:
        extra = dict(zip(call.cell.parameters[4:], dweights[4:], strict=False))
        dpeephole, dhr, dnorm = extra.get("weight_peephole"), extra.get("weight_hr"), _norm_gradients(options, extra)
    *dy, x_, y_, buffer = arrays_of((*doutputs, x, y, reserve))
    initial = arrays_of(states)
    if call.step:
        dy, x_, y_ = [None, *dy], x_[None], y_[None]
    if call.stacked:
        dy[1:] = [None if d is None else d[0] for d in dy[1:]]
        initial = [None if s is None else s[0] for s in initial]
    kept = (x_, *initial, y_)
    sequences = arrays_of(call.sequences)
    if call.options and "precision" in call.options:
        dx, *dstates = _compiled.low_precision_backward(
            _low_precision_cell(call), *(*dy, None)[:3], x_, *(*initial, None)[:2], y_, *weights[:2], buffer,
            *sequences, call.reverse, input_grad, *dweights[:4],
        )  # fmt: skip
        dstates = dstates[: len(states)]
    elif call.cell is LSTM:
        dx, *dstates = _compiled.lstm_backward(
            *dy, None, *kept, *weights[:4], buffer, *sequences, call.reverse, *call.direct(), options, input_grad,
            *dweights[:4], dpeephole, dhr, dnorm,
        )  # fmt: skip
    elif call.cell is GRU:
        reset_after, recompute = call.direct()
        dx, *dstates = _compiled.gru_backward(
            *dy, *kept, *weights[:4], buffer, reset_after, *sequences, call.reverse, recompute, options, input_grad,
            *dweights[:4], dnorm,
        )  # fmt: skip
    else:
        dx, *dstates = _compiled.rnn_backward(
            *dy, *kept, *weights[:2], buffer, *call.direct(), *sequences, call.reverse, options, input_grad,
            *dweights[:4], dnorm,
        )  # fmt: skip
    if call.step and dx is not None:
        dx = dx[0]
    if call.stacked:
        dstates = [d[None] for d in dstates]
    return tensors_of((dx, *(None if s is None else d for s, d in zip(states, dstates, strict=True))))


def tensors_of(arrays: Sequence[Any]) -> list[Tensor | None]:
    """Tensors on the arrays' memory."""
    return [None if a is None else torch.from_numpy(a) for a in arrays]


def _norm_gradients(options: dict[str, Any] | None, gradients: Mapping[str, Any]) -> Any:
    """The gradients of ``layer_norm``, shaped like it."""
    if options is None or options["layer_norm"] is None:
        return None
    kinds = ("ih", "hh", "c")[: len(options["layer_norm"][0])]
    return tuple(gradients[f"gain_{kind}"] for kind in kinds), tuple(gradients[f"norm_bias_{kind}"] for kind in kinds)


def _low_precision_cell(call: Call) -> str:
    """The compiled module's name of the cell and its option."""
    option = call.direct()[0]
    return {"lstm": "lstm", "gru": "gru" if option else "gru_reset_before", "rnn": f"rnn_{option}"}[call.cell.name]
