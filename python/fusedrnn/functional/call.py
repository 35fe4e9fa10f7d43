"""A call of a cell, forward and backward: what all of them do with their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.cuda import arrays as gpu_arrays
from fusedrnn.functional.reserve import (
    Accumulate,
    Reserve,
    added_to,
    check_reserve,
    flat_norm,
    fresh_gradients,
    watched,
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
    if type(x) is not np.ndarray and gpu_arrays.on_gpu(x):
        from fusedrnn.cuda import functional

        beyond = {"layer_norm": layer_norm, "return_c": return_c or None, "batch_sizes": sequences[1]}
        beyond |= dict(zip(list(cell.parameters)[4:], parameters[4:], strict=False)) | {"resets": sequences[2]}
        given = cell.changed({**(options or {}), **beyond})
        outputs, kept = functional.forward(cell, x, states, parameters[:4], sequences[0], given, reverse, training)
        return (*outputs, kept)
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
    watched(results[1 + len(states)])
    return results


def run_backward(
    cell: Cell,
    doutputs: tuple[Any, ...],
    reserve: Reserve | None,
    input_grad: bool,
    accumulate: Accumulate | None,
) -> tuple[Any, ...]:
    """Return the fields of the cell's Gradients: those of x, the initial states, and the parameters, layer
    normalization's as one pair."""
    check_reserve(reserve, cell.name)
    kept: Any = reserve
    if not isinstance(kept, Reserve):
        from fusedrnn.cuda import functional

        if len(doutputs) > 1 + len(cell.states) and doutputs[-1] is not None:
            raise ValueError("dc: not on a GPU yet; expected None")
        return functional.backward(kept, doutputs[: 1 + len(cell.states)], input_grad, accumulate)
    parameters = kept.parameters
    norms = 2 * len(cell.norms) if "gain_ih" in cell.parameters else 0
    own = len(cell.parameters) - norms  # how many come before layer normalization's
    if accumulate is None:
        dparameters = fresh_gradients(parameters)
        dnorm = _nested(dparameters[own:])
    else:
        dparameters, dnorm = _accumulated(cell, parameters, accumulate, own)
    gradients = _core.backward(kept, doutputs, input_grad, dparameters)
    if not norms:
        return (*gradients, *dparameters)
    return (*gradients, *dparameters[:own], *(None,) * (own - len(dparameters)), dnorm)


def _nested(norm: tuple[Any, ...]) -> Any:
    """Return (dgains, dbiases), or None where there is no layer normalization."""
    half = len(norm) // 2
    return (norm[:half], norm[half:]) if norm and norm[0] is not None else None


def _accumulated(cell: Cell, parameters: Sequence[Any], accumulate: Any, own: int) -> tuple[tuple[Any, ...], Any]:
    """Return the arrays to add to, flat in the order of the cell's parameters, and layer normalization's as they were
    given."""
    if len(parameters) <= 4 and own < len(cell.parameters) and type(accumulate) is tuple and len(accumulate) == 4:
        _, _, dbias_ih, dbias_hh = accumulate  # a layer's step, which may take microseconds
        if (dbias_ih is None) is (parameters[2] is None) and (dbias_hh is None) is (parameters[3] is None):
            return accumulate, None
    named = dict(zip(cell.parameters, (*parameters, *(None,) * len(cell.parameters)), strict=False))
    if own == len(named):
        return added_to(named, accumulate, own), None
    flat = tuple(named.values())[own:]
    nested = dict(list(named.items())[:own]) | {"layer_norm": None if flat[0] is None else flat}
    given = added_to(nested, accumulate, 4)
    if len(given) == len(nested):
        dnorm = given[-1]
        return (*given[:-1], *(() if dnorm is None else flat_norm(cell, dnorm, "dlayer_norm"))), dnorm
    fresh = fresh_gradients(tuple(named.values())[len(given) :])
    return (*given, *fresh), _nested(fresh[own - len(given) :])
