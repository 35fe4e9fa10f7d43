"""A call of a cell, forward and backward: what all of them do with their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.cuda.arrays import on_gpu
from fusedrnn.functional.reserve import (
    Accumulate,
    Reserve,
    added_to,
    checked_reserve,
    flat_norm,
    fresh_gradients,
    reserve_of,
)
from fusedrnn.sequences import read_sequences
from fusedrnn.spec import CELLS, Cell

_PLAIN = {name: (_core.Settings(name), _core.Settings(name, reverse=True)) for name in CELLS}


def run_forward(
    cell: Cell,
    x: Any,
    states: tuple[Any, ...],
    parameters: tuple[Any, ...],
    sequences: tuple[Any, Any, Any],
    options: dict[str, Any] | None,
    reverse: bool,
    training: bool,
    layer_norm: Any = None,
    return_c: bool = False,
) -> Any:
    """Return (y, h_n[, c_n], reserve[, c]). ``parameters`` are those of ``cell`` up to layer normalization's, which
    follow from ``layer_norm``; ``options`` None for the plain cell; ``sequences`` lengths, batch_sizes, resets."""
    if type(x) is not np.ndarray and on_gpu(x):
        from fusedrnn.cuda import functional

        beyond = {"layer_norm": layer_norm, "return_c": return_c or None, "batch_sizes": sequences[1]}
        beyond |= dict(zip(list(cell.parameters)[4:], parameters[4:], strict=False)) | {"resets": sequences[2]}
        given = cell.changed({**(options or {}), **beyond})
        outputs, kept = functional.forward(cell, x, states, parameters[:4], sequences[0], given, reverse, training)
        return (*outputs, None if kept is None else Reserve(cell.name, kept))
    if layer_norm is not None:
        norm = flat_norm(cell, layer_norm)
        for kind, gain in zip(cell.norms, norm, strict=False):
            if gain is None:
                raise TypeError(f"layer_norm gain_{kind}: expected a NumPy array, got NoneType")
        parameters = (*parameters, *(None,) * (len(cell.parameters) - len(norm) - len(parameters)), *norm)
    settings: Any
    if options is None:
        settings = _PLAIN[cell.name][bool(reverse)]
    else:
        settings = _core.Settings(cell.name, reverse=reverse, **options)
    lengths, batch_sizes, resets = sequences
    plain = lengths is None and batch_sizes is None and resets is None
    read = None if plain else read_sequences(lengths, batch_sizes, resets)
    results = _core.forward(settings, x, states, parameters, read, training, None, return_c)
    at = 1 + len(states)
    return (*results[:at], reserve_of(cell.name, results[at]), *results[at + 1 :])


def run_backward(
    cell: Cell,
    doutputs: tuple[Any, ...],
    reserve: Reserve | None,
    input_grad: bool,
    accumulate: Accumulate | None,
) -> tuple[Any, ...]:
    """Return the fields of the cell's Gradients: those of x, the initial states, and the parameters, layer
    normalization's as one pair."""
    r = checked_reserve(reserve, cell.name)
    kept = r.kept
    if not isinstance(kept, _core.Reserve):
        from fusedrnn.cuda import functional

        if len(doutputs) > 1 + len(cell.states) and doutputs[-1] is not None:
            raise ValueError("dc: not on a GPU yet; expected None")
        return functional.backward(kept, doutputs[: 1 + len(cell.states)], input_grad, accumulate)
    parameters = kept.parameters
    if accumulate is None:
        dparameters = fresh_gradients(parameters)
    else:
        dparameters = _accumulated(cell, parameters, accumulate)
    gradients = _core.backward(kept, doutputs, input_grad, dparameters)
    if "gain_ih" not in cell.parameters:
        return (*gradients, *dparameters)
    count = 2 * len(cell.norms)
    before = len(cell.parameters) - count
    own = (*dparameters[:before], *(None,) * (before - len(dparameters)))
    norm = dparameters[before:]
    return (*gradients, *own, (norm[: count // 2], norm[count // 2 :]) if norm and norm[0] is not None else None)


def _accumulated(cell: Cell, parameters: Sequence[Any], accumulate: Any) -> tuple[Any, ...]:
    """Return the arrays of ``accumulate`` flat, in the order of the cell's parameters."""
    if len(parameters) <= 4 and "gain_ih" in cell.parameters and type(accumulate) is tuple and len(accumulate) == 4:
        _, _, dbias_ih, dbias_hh = accumulate  # a layer's step, which may take microseconds
        if (dbias_ih is None) is (parameters[2] is None) and (dbias_hh is None) is (parameters[3] is None):
            return accumulate
    named = dict(zip(cell.parameters, (*parameters, *(None,) * len(cell.parameters)), strict=False))
    if "gain_ih" not in named:
        return added_to(named, accumulate, len(named))
    norms = [name for name in named if "gain" in name or "norm" in name]
    own = {name: value for name, value in named.items() if name not in norms}
    flat = tuple(named[name] for name in norms)
    nested = own | {"layer_norm": None if flat[0] is None else flat}
    given = added_to(nested, accumulate, 4)
    fresh = fresh_gradients(tuple(own.values())[len(given) :])
    if len(given) == len(nested):
        dnorm = given[-1]
        return (*given[:-1], *(() if dnorm is None else flat_norm(cell, dnorm, "dlayer_norm")))
    return (*given, *fresh, *(fresh_gradients(flat) if flat[0] is not None else ()))
