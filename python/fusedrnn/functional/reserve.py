"""What forward keeps for backward, and the gradients that backward adds to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.environment import checks_arrays
from fusedrnn.functional.exchange import in_place
from fusedrnn.spec import CELLS, Cell

# Arrays that a backward call adds the parameters' gradients to: dweight_ih, dweight_hh, dbias_ih, dbias_hh, and where
# there are options those that the cell's Gradients has after them; of other cells all that their Gradients have.
Accumulate = tuple[Any, ...]


def digest(array: Array) -> bytes:
    """Return a hash of an array's numbers."""
    return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").digest()


@dataclass(slots=True)  # not frozen, which would make it twice as slow to build: it is made in every training step
class Reserve:
    """Hold what backward needs from a forward call.

    Attributes:
        cell: its name.
        kept: the compiled module's (`_core.Reserve`): the call's settings, x, states, parameters, sequences, y and the
            buffer; or of a call on a GPU.
        digests: of the arrays, under FUSEDRNN_CHECK=1.
    """

    cell: str
    kept: Any
    digests: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def buffer(self) -> Array:
        """Activated gates: LSTM [T, N, 5H] (i, f, g, o, c), GRU [T, N, 4H] (r, z, n, W_hn h + b_hn) or, reset before,
        [T, N, 3H]; RNN and IndRNN [T, N, 0], minGRU [T, N, 2H] (z, n). With recompute LSTM [T, N, H] (c) and GRU
        [T, N, 0]. Zoneout makes it [T, N, H] for the RNN (the state before zoneout); layer normalization adds both
        products of all gates, normalized, and the moments of what was normalized, [T, N, 16]. Its layout is the same on
        every instruction set. With ``lengths`` its rows lie as in a packed sequence, longest row first, from the
        beginning of the buffer."""
        buffer: Array = self.kept.buffer
        return buffer

    def check(self, cell: str) -> None:
        """Raise unless this reserve came from ``<cell>_forward`` and, under FUSEDRNN_CHECK=1, its arrays still
        hold what they held then."""
        if self.cell != cell:
            raise TypeError(f"reserve: expected one of {cell}_forward, got one of {self.cell}_forward")
        for name, digest in _digests(self.cell, self.kept).items() if self.digests else ():
            if digest != self.digests[name]:
                raise RuntimeError(f"{name}: changed between {cell}_forward and {cell}_backward")


def _digests(name: str, kept: Any) -> dict[str, bytes]:
    cell = CELLS[name]
    named = {"x": kept.x, "y": kept.y, **dict(zip(cell.states, kept.states, strict=True))}
    again = kept.settings.options.get("recompute")  # alone makes backward read biases
    named.update({n: a for n, a in zip(cell.parameters, kept.parameters, strict=False) if again or n[:4] != "bias"})
    read = {name: in_place(name, a) for name, a in named.items()}
    return {name: digest(a) for name, a in read.items() if a is not None and a.size}


def reserve_of(cell: str, kept: Any) -> Reserve | None:
    """Return the reserve of a forward call, None in inference."""
    if kept is None:
        return None
    return Reserve(cell, kept, _digests(cell, kept) if checks_arrays() else {})


def checked_reserve(reserve: Reserve | None, cell: str) -> Reserve:
    """Return the reserve if it is one of ``<cell>_forward``.

    Raises:
        TypeError: it is not. RuntimeError: its arrays changed, under FUSEDRNN_CHECK=1.
    """
    if not isinstance(reserve, Reserve):
        raise TypeError(
            f"reserve: expected the reserve of {cell}_forward(..., training=True), got {type(reserve).__name__}"
        )
    reserve.check(cell)
    return reserve


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
    array = in_place("parameter", parameter)
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
