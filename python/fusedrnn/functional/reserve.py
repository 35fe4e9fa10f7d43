"""What forward keeps for backward, and the gradients that backward adds to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.cuda.kept import Kept
from fusedrnn.environment import checks_arrays
from fusedrnn.functional.exchange import as_view
from fusedrnn.spec import CELLS, Cell

#: What forward keeps for backward: the call's settings, x, states, parameters, sequences, y, and a ``buffer`` of
#: activated gates: LSTM [T, N, 5H] (i, f, g, o, c), GRU [T, N, 4H] (r, z, n, W_hn h + b_hn) or, reset before,
#: [T, N, 3H]; RNN and IndRNN [T, N, 0], minGRU [T, N, 2H] (z, n). With recompute LSTM [T, N, H] (c) and GRU [T, N, 0].
#: Zoneout makes it [T, N, H] for the RNN (the state before zoneout); layer normalization adds both products of all
#: gates, normalized, and the moments of what was normalized, [T, N, 16]. Its layout is the same on every instruction
#: set. With ``lengths`` its rows lie as in a packed sequence, longest row first, from the beginning of the buffer.
Reserve = _core.Reserve
# Arrays that a backward call adds the parameters' gradients to: dweight_ih, dweight_hh, dbias_ih, dbias_hh, and where
# there are options those that the cell's Gradients has after them; of other cells all that their Gradients have.
Accumulate = tuple[Any, ...]


def digest(array: Array) -> bytes:
    """Return a hash of an array's numbers."""
    return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").digest()


def watched(reserve: Any) -> Any:
    """Return the reserve of a forward call, under FUSEDRNN_CHECK=1 with hashes of its arrays."""
    if reserve is not None and checks_arrays():
        reserve.digests = _digests(reserve)
    return reserve


def _digests(reserve: Any) -> dict[str, bytes]:
    cell = CELLS[reserve.cell]
    named = {"x": reserve.x, "y": reserve.y, **dict(zip(cell.states, reserve.states, strict=True))}
    again = reserve.settings.options.get("recompute")  # alone makes backward read biases
    parameters = zip(cell.parameters, reserve.parameters, strict=False)
    named.update({name: a for name, a in parameters if again or not name.startswith("bias")})
    read = {name: as_view(name, a) for name, a in named.items()}
    return {name: digest(a) for name, a in read.items() if a is not None and a.size}


def check_reserve(reserve: Any, cell: str) -> None:
    """Check that a reserve is one of ``<cell>_forward``.

    Raises:
        TypeError: it is not. RuntimeError: an array does not hold what it held then, under FUSEDRNN_CHECK=1.
    """
    if not isinstance(reserve, (Reserve, Kept)):
        raise TypeError(
            f"reserve: expected the reserve of {cell}_forward(..., training=True), got {type(reserve).__name__}"
        )
    if reserve.cell != cell:
        raise TypeError(f"reserve: expected one of {cell}_forward, got one of {reserve.cell}_forward")
    if reserve.digests:
        for name, found in _digests(reserve).items():
            if found != reserve.digests[name]:
                raise RuntimeError(f"{name}: changed between {cell}_forward and {cell}_backward")


def flat_norm(cell: Cell, layer_norm: Any, name: str = "layer_norm") -> tuple[Any, ...]:
    """Return (gains..., biases...) of ((gains), (biases)), as many as the cell normalizes.

    Raises:
        TypeError, ValueError: it has another structure.
    """
    both = _parts(layer_norm, name, 2, "parts (gains, biases)")
    gains, biases = (
        _parts(part, name, len(cell.norms), what) for part, what in zip(both, ("gains", "biases"), strict=True)
    )
    return (*gains, *biases)


def _parts(value: Any, name: str, count: int, what: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected {what}, got {value!r}")
    if len(value) != count:
        raise ValueError(f"{name}: expected {count} {what}, got {len(value)}")
    return tuple(value)


def fresh_gradients(parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return zeros shaped like the parameters, None where there is none."""
    return tuple(None if p is None else _zeros_like(p) for p in parameters)


def _zeros_like(parameter: Any) -> Array:
    array = as_view("parameter", parameter)
    return np.zeros_like(array, np.float32 if array.dtype.itemsize == 2 else None)  # of a bfloat16: as its gradient


def added_to(parameters: Mapping[str, Any], accumulate: Any, fewest: int) -> tuple[Any, ...]:
    """Return the arrays that gradients are added to: those of ``accumulate``, and zeros for the parameters after the
    first ``fewest`` that it leaves out.

    Raises:
        TypeError, ValueError: it does not fit the parameters.
    """
    if not isinstance(accumulate, tuple) or len(accumulate) not in (fewest, len(parameters)):
        raise TypeError(f"accumulate: expected ({', '.join('d' + name for name in parameters)})")
    for given, (name, parameter) in zip(accumulate, parameters.items(), strict=False):
        if (given is None) != (parameter is None):
            what = name.removesuffix("_ih").removesuffix("_hh")
            expected = f"None, as there was no {what}" if parameter is None else f"an array, as there was a {what}"
            raise ValueError(f"d{name}: expected {expected}")
    return accumulate
