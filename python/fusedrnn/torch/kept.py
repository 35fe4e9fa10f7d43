"""A call keeps tensors for backward, some of which may change in place until then: those that PyTorch lets change.

PyTorch's layers are loops of operators, and autograd refuses the change of what an operator saved: the input of a
product where its weight needs a gradient, the weight where its input does, and never a bias. The y that a user sees is
a copy of the states. But an LSTM in float32 over rows of one length is one operator of oneDNN, which saves all that it
takes and gives, and an RNNCell saves the state that it returns.

Kernels read y where PyTorch has a copy, so the caller of such a layer gets a copy. Of an input PyTorch saves a view,
whose memory stays when ``data`` puts other memory under the input; ours sees that and refuses it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fusedrnn.spec import GRU, LSTM, RNN, Cell
from fusedrnn.torch.calls import Call

CHANGED = "one of the variables needed for gradient computation has been modified by an inplace operation: "


@dataclass(slots=True)
class _Free:
    """An input that may change: ``value`` is what the kernels read then."""

    tensor: Tensor  # part of the graph, for derivatives of gradients
    version: int
    value: Tensor

    def unchanged(self) -> bool:
        return _version(self.tensor) == self.version


def _version(tensor: Tensor) -> int:
    """How often a tensor changed; those of inference mode do not count."""
    return 0 if tensor.is_inference() else int(tensor._version)


class Kept:
    """The tensors that one call keeps: x and the states, each watched by autograd or free, and y."""

    __slots__ = ("_free", "_storages", "watched")

    def __init__(
        self, call: Call, inputs: Sequence[Tensor | None], parameters: Sequence[Tensor | None], y: Tensor
    ) -> None:
        #: x, the states and y, in this order, for ``save_for_backward``; the free ones and a y that nobody reads are
        #: None
        self.watched: list[Tensor | None] = [*inputs, y]
        self._free: dict[int, _Free] = {}
        self._storages: list[Any] = []
        if call.one_operator:
            return
        if call.plain():
            for place in _free_inputs(inputs, parameters):
                tensor = inputs[place]
                if tensor is not None:
                    read = place == 2 or (place == 1 and call.cell is GRU)  # else only for a gradient that nobody wants
                    self._free[place] = _Free(tensor, _version(tensor), tensor.clone() if read else tensor)
                    self.watched[place] = None
        if call.step:
            if call.cell is not RNN:
                self.watched[-1] = None  # the gradient of one step has no use for h after it
        else:
            self._storages = [
                None if t is None else (weakref.ref(t), t.untyped_storage()._cdata) for t in self.watched[:-1]
            ]

    def inputs(self, saved: list[Tensor | None], *, exact: bool) -> list[Tensor | None]:
        """x and the states, from what autograd saved. Of the free ones what kernels may read, or with ``exact`` the
        very tensors.

        Raises:
            RuntimeError: ``exact`` asks for a tensor that changed; or one has other memory by ``data``.
        """
        for tensor, known in zip(saved, self._storages, strict=False):
            # Hooks of saved tensors may give another, which they answer for.
            if known is not None and tensor is known[0]() and tensor.untyped_storage()._cdata != known[1]:
                raise RuntimeError(CHANGED + "an input of a recurrent layer, whose data was set to another tensor")
        for place, free in self._free.items():
            if exact and not free.unchanged():
                raise RuntimeError(CHANGED + "an input of a recurrent layer whose gradient is differentiated once more")
            saved[place] = free.tensor if exact else free.value
        return saved


def any_y(inputs: Sequence[Any], parameters: Sequence[Any]) -> Tensor:
    """Something of the shape of h after one step, x and the states being ``inputs``."""
    x, h0 = inputs[:2]
    return h0 if h0 is not None else x.new_empty(*x.shape[:-1], parameters[1].shape[1])


def _free_inputs(inputs: Sequence[Tensor | None], parameters: Sequence[Tensor | None]) -> Sequence[int]:
    """The places of x and states that no operator of PyTorch's would save."""
    weight_ih, weight_hh = parameters[:2]
    assert weight_ih is not None
    assert weight_hh is not None
    free_x, free_h0 = not weight_ih.requires_grad, not weight_hh.requires_grad
    if not (free_x or free_h0):
        return ()
    x, h0, *c0 = inputs
    # c is multiplied by a forget gate, which may be without a gradient.
    free_c0 = c0 and not any([t is not None and t.requires_grad for t in (x, h0, *parameters)])
    return [place for place, free in enumerate((free_x, free_h0, free_c0)) if free and place < len(inputs)]


def watched_parameters(call: Call, x: Tensor, input_grads: Sequence[bool], count: int) -> list[bool] | None:
    """Tell for each of ``count`` parameters whether PyTorch would save it: weights that an input with a gradient is
    multiplied by; None: all. ``input_grads``: whether x and h0 have gradients."""
    if call.one_operator or not call.plain():
        return None
    batch_sizes = call.sequences[1]
    several = not call.step and (x.shape[0] if batch_sizes is None else len(batch_sizes)) > 1
    return [input_grads[0], several or input_grads[1], False, False] + [True] * (count - 4)


def one_operator(cell: Cell, x: Tensor, batch_sizes: Tensor | None, *, beyond: bool) -> bool:
    """Whether PyTorch computes such a layer by one operator of oneDNN, which saves its inputs and y; ``beyond``: the
    call has what oneDNN has not."""
    if cell is not LSTM or beyond or x.dtype is not torch.float32 or not torch._C._get_mkldnn_enabled():
        return False
    return batch_sizes is None or (int(batch_sizes[0]) == int(batch_sizes[-1]) and _takes_packed_rows())


@cache
def _takes_packed_rows() -> bool:
    """Whether this PyTorch gives packed rows of one length to oneDNN, as newer ones do."""
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        x, state = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, 1)
        weights = [torch.zeros(4, 1), torch.zeros(4, 1)]
        y = torch._VF.lstm(x, torch.ones(1, dtype=torch.long), (state, state), weights, False, 1, 0.0, True, False)[0]
    nodes, found = [y.grad_fn], ""
    while nodes:
        node = nodes.pop()
        found += node.name()
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    return "Mkldnn" in found
