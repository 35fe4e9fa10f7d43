"""Second derivatives by programs: the gradient of a layer's backward, in C++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn.functional.scan import ScanGradients
from fusedrnn.functional.scan_second import scan_double_backward, unrun_reserve
from fusedrnn.scan.cells import cell_step
from fusedrnn.torch import composite, masks
from fusedrnn.torch.calls import Call, arrays_of, tensors_of
from fusedrnn.torch.support import batched, transformed

_Tensors = Sequence[Tensor | None]


def double_backward(call: Call, ddinputs: _Tensors, doutputs: _Tensors, inputs: _Tensors) -> tuple[_Tensors, _Tensors]:
    """Gradients with respect to ``doutputs`` and to ``inputs`` = (x, states, parameters), where ``ddinputs`` is that of
    what ``calls.backward`` returns.

    The composite gives those of clipped gradients, those that are differentiated once more, and whatever a compiler or
    a transform looks at.
    """
    clipped = (call.options or {}).get("grad_clip") is not None
    watched = transformed() or torch._C._len_torch_dispatch_stack() or torch.compiler.is_compiling()
    if clipped or watched or torch.is_grad_enabled() or batched((*ddinputs, *doutputs, *inputs)):
        return composite.double_backward(call, ddinputs, doutputs, inputs)
    return _by_program(call, ddinputs, doutputs, inputs)


def _by_program(call: Call, ddinputs: _Tensors, doutputs: _Tensors, inputs: _Tensors) -> tuple[_Tensors, _Tensors]:
    if call.step:
        (dy, *dfinal), (x, *of_x) = _by_program(
            replace(call, step=False),
            [_stacked(ddinputs[0]), *ddinputs[1:]],
            [None, *doutputs],
            [_stacked(inputs[0]), *inputs[1:]],
        )
        return dfinal, [None if x is None else x[0], *of_x]
    if call.stacked:
        at = slice(1, 1 + len(call.cell.states))
        given = [list(tensors) for tensors in (ddinputs, doutputs, inputs)]
        for tensors in given:
            tensors[at] = [None if t is None else t[0] for t in tensors[at]]
        results = tuple(map(list, _by_program(replace(call, stacked=False), *given)))
        for tensors in results:
            tensors[at] = [_stacked(t) for t in tensors[at]]
        return results[0], results[1]
    cell, options = call.cell, call.options or {}
    names = ("x", *cell.states, *cell.parameters)
    ins, dds = (dict(zip(names, tensors, strict=False)) for tensors in (inputs, ddinputs))
    arrays, along = (dict(zip(ts, arrays_of(list(ts.values())), strict=True)) for ts in (ins, dds))
    dy, *dfinal = arrays_of(doutputs)
    lengths, batch_sizes, resets = arrays_of(call.sequences)
    given, context, dropconnect = _masks(call, ins, batch_sizes)
    weights = {name: arrays[name] for name in cell.parameters if arrays.get(name) is not None}
    widths = (weights["weight_hh"].shape[1], _units(ins))
    N = len(arrays["x"][0]) if batch_sizes is None else int(batch_sizes[0])
    states = tuple(
        np.zeros((N, width), arrays["x"].dtype) if arrays[name] is None else arrays[name]
        for name, width in zip(cell.states, widths, strict=False)
    )
    step = cell_step(
        cell.name,
        tuple(options.get("activations") or cell.activations) or (options.get("nonlinearity", "tanh"),),
        coupled=options.get("coupled", False),
        cell_clip=options.get("cell_clip"),
        reset_after=options.get("reset_after", True),
    )
    reserve = unrun_reserve(
        step, {**weights, **dropconnect}, states, {"x": arrays["x"], **given}, context=context, lengths=lengths,
        batch_sizes=batch_sizes, resets=resets, reverse=call.reverse,
    )  # fmt: skip
    grads = ScanGradients(
        {name: along.get(name) for name in weights} | dict.fromkeys(dropconnect),
        tuple(along[name] for name in cell.states),
        {"x": along["x"]} | dict.fromkeys(given),
        None,
    )
    ddy, ddfinal, found = scan_double_backward(grads, dy, tuple(dfinal), reserve)
    gradients = {"x": found.dx["x"], **dict(zip(cell.states, found.dstate, strict=True)), **found.dparams}
    return (
        tensors_of([None if d is None else g for d, g in zip(doutputs, (ddy, *ddfinal), strict=True)]),
        tensors_of([None if t is None else gradients[name] for name, t in ins.items()]),
    )


def _units(inputs: dict[str, Tensor | None]) -> int:
    """H, where h may be a projection of H units."""
    weight_hr, weight_hh = inputs.get("weight_hr"), inputs["weight_hh"]
    assert weight_hh is not None
    return int(weight_hh.shape[1] if weight_hr is None else weight_hr.shape[1])


def _masks(call: Call, inputs: dict[str, Tensor | None], batch_sizes: Any) -> tuple[Any, Any, Any]:
    """By the names that `cell_step` gives them: zoneout's at each step, recurrent dropout's or None, dropconnect's."""
    x, weight_hh = inputs["x"], inputs["weight_hh"]
    assert x is not None
    assert weight_hh is not None
    T, N = x.shape[:2] if batch_sizes is None else (len(batch_sizes), int(batch_sizes[0]))
    *zoneout, dropout, dropconnect = masks.draw(call, T, N, _units(inputs), weight_hh)
    rows: Any = ... if batch_sizes is None else np.arange(N) < batch_sizes[:, None]
    given = {
        name: np.ascontiguousarray(mask.expand(T, N, -1).numpy()[rows])
        for name, mask in zip(("zoneout_h", "zoneout_c"), zoneout, strict=True)
        if mask is not None
    }
    return (
        given,
        None if dropout is None else {"recurrent_dropout": dropout.numpy()},
        {} if dropconnect is None else {"dropconnect": dropconnect.numpy()},
    )


def _stacked(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.unsqueeze(0)
