"""What forward keeps for backward, and how both read the arguments that all cells share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.environment import checks_arrays
from fusedrnn.functional.exchange import in_place

# Arrays that a backward call adds the parameters' gradients to: dweight_ih, dweight_hh, dbias_ih, dbias_hh, and where
# there are options those that the cell's Gradients has after them; of other cells all that their Gradients have.
Accumulate = tuple[Any, ...]

ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")


def _digests(arrays: dict[str, Any], options: dict[str, Any]) -> dict[str, bytes]:
    given = options.get("options") or {}
    named = {**arrays, **{name: given.get(name) for name in ("weight_peephole", "weight_hr")}}
    for kind, parts in zip(("gains", "biases"), given.get("layer_norm") or (), strict=False):
        named.update({f"layer_norm {kind}[{i}]": part for i, part in enumerate(parts)})
    read = {name: in_place(name, a) for name, a in named.items()}
    return {name: digest(a) for name, a in read.items() if a is not None and a.size}


def digest(array: Array) -> bytes:
    """A hash of an array's numbers."""
    return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").digest()


@dataclass(slots=True)  # not frozen, which would make it twice as slow to build: it is made in every training step
class Reserve:
    """Hold what backward needs from a forward call.

    ``buffer`` holds activated gates: LSTM [T, N, 5H] (i, f, g, o, c), GRU [T, N, 4H] (r, z, n, W_hn h + b_hn) or,
    reset before, [T, N, 3H]; RNN and IndRNN [T, N, 0], minGRU [T, N, 2H] (z, n). With recompute LSTM [T, N, H] (c) and
    GRU [T, N, 0]. Zoneout makes it [T, N, H] for the RNN (the state before zoneout); layer normalization adds both
    products of all gates, normalized, and the moments of what was normalized, [T, N, 16]. Its layout is the same on
    every instruction set. With ``lengths`` its rows lie as in a packed sequence, longest row first, from the beginning
    of the buffer.
    """

    cell: str
    buffer: Array
    arrays: dict[str, Any]  # None where a state was
    biases: tuple[Array | None, ...]
    options: dict[str, Any]
    digests: dict[str, bytes] = field(default_factory=dict, repr=False)

    def check(self, cell: str) -> None:
        """Raise unless this reserve came from ``<cell>_forward`` and, under FUSEDRNN_CHECK=1, its arrays still
        hold what they held then."""
        if self.cell != cell:
            raise TypeError(f"reserve: expected one of {cell}_forward, got one of {self.cell}_forward")
        for name, digest in _digests(self.arrays, self.options).items() if self.digests else ():
            if digest != self.digests[name]:
                raise RuntimeError(f"{name}: changed between {cell}_forward and {cell}_backward")


# Options that change the equations of more than one cell, with the values that change nothing.
PLAIN: dict[str, Any] = {
    "layer_norm": None,
    "zoneout_h": 0.0,
    "recurrent_dropout": 0.0,
    "dropconnect": 0.0,
    "activations": None,
    "grad_clip": None,
}
# Where a call's random numbers are.
COUNTERS: dict[str, Any] = {"seed": 0, "layer": 0, "row_offset": 0, "step_offset": 0}


def make_reserve(
    cell: str,
    buffer: Array | None,
    arrays: dict[str, Array | None],
    biases: tuple[Array | None, ...],
    **options: Any,
) -> Reserve | None:
    if buffer is None:
        return None
    if options.get("recompute"):
        arrays = {**arrays, "bias_ih": biases[0], "bias_hh": biases[1]}
    digests = _digests(arrays, options) if checks_arrays() else {}
    return Reserve(cell, buffer, arrays, biases, options, digests)


def reserve_width(cell: str, options: Mapping[str, Any], units: int, normalized: int) -> int:
    """The last axis of an RNN's, LSTM's or GRU's buffer; ``normalized``: the rows of its gates with layer_norm, or 0.
    Options that are not given are the plain cell's."""
    if cell == "lstm":
        kept = 1 if options.get("recompute") else 5
    elif cell == "gru":
        kept = 0 if options.get("recompute") else 4 if options.get("reset_after", True) else 3
    else:
        kept = 1 if options.get("zoneout_h") else 0
    return kept * units + (2 * normalized + 16 if normalized else 0)


def checked_reserve(reserve: Reserve | None, cell: str) -> Reserve:
    if not isinstance(reserve, Reserve):
        raise TypeError(
            f"reserve: expected the reserve of {cell}_forward(..., training=True), got {type(reserve).__name__}"
        )
    reserve.check(cell)
    return reserve


def parameter_gradients(reserve: Reserve, accumulate: Accumulate | None, *extra: str) -> Accumulate:
    """The arrays that the gradients go to: those given, or fresh zeros; ``extra`` names parameters after the biases."""
    bias_ih, bias_hh = reserve.biases
    options = reserve.options["options"]
    if options is None:
        if accumulate is not None and len(accumulate) == 4:  # a layer's step, which may take microseconds
            _, _, dbias_ih, dbias_hh = accumulate
            if (dbias_ih is None) is (bias_ih is None) and (dbias_hh is None) is (bias_hh is None):
                return accumulate + (None,) * len(extra)
        options = {}
    parameters = {
        "weight_ih": reserve.arrays["weight_ih"],
        "weight_hh": reserve.arrays["weight_hh"],
        "bias_ih": bias_ih,
        "bias_hh": bias_hh,
        **{name: options.get(name) for name in extra},
    }
    return gradient_arrays(parameters, accumulate, fewest=4)


def gradient_arrays(parameters: dict[str, Any], accumulate: Accumulate | None, fewest: int | None = None) -> Accumulate:
    """As ``parameter_gradients``, for any parameters, in their order; those beyond ``fewest`` need not be given."""
    if accumulate is None:
        return tuple(_zeros_like(parameter) for parameter in parameters.values())
    if not isinstance(accumulate, tuple) or len(accumulate) not in (fewest, len(parameters)):
        raise TypeError(f"accumulate: expected ({', '.join('d' + name for name in parameters)})")
    accumulate += tuple(_zeros_like(parameter) for parameter in list(parameters.values())[len(accumulate) :])
    for given, (name, parameter) in zip(accumulate, parameters.items(), strict=True):
        if (given is None) != (parameter is None):
            what = name.removesuffix("_ih").removesuffix("_hh")
            expected = f"None, as there was no {what}" if parameter is None else f"an array, as there was a {what}"
            raise ValueError(f"d{name}: expected {expected}")
    return accumulate


def _zeros_like(parameter: Any) -> Any:
    if parameter is None:
        return None
    if isinstance(parameter, (tuple, list)):
        return tuple(_zeros_like(part) for part in parameter)
    array = in_place("parameter", parameter)
    return np.zeros_like(array, np.float32 if array.dtype.itemsize == 2 else None)  # of a bfloat16: as its gradient


def read_sequences(lengths: Any, batch_sizes: Any, resets: Any) -> tuple[Array | None, Array | None, Array | None]:
    """The three as arrays that the compiled module takes: copies, for the caller may fill theirs anew before backward,
    and another thread even while the call runs."""
    return _integers("lengths", lengths), _integers("batch_sizes", batch_sizes), _booleans("resets", resets)


def check_batch_sizes(sizes: Sequence[int], rows: int) -> None:
    """The compiled module's errors for Python's integers, before anything is made that is as large as they say."""
    for step, size in enumerate(sizes):
        if size < 1 or (step and size > sizes[step - 1]):
            raise ValueError(f"batch_sizes: expected positive numbers that never increase, got {size} for step {step}")
    if sum(sizes) != rows:
        raise ValueError(f"batch_sizes: expected a sum of {rows}, the rows of x, got {sum(sizes)}")


def _integers(name: str, values: Sequence[int] | Array | None) -> Array | None:
    """Any sequence of integers as an int64 array."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.size and array.dtype.kind in "uO":  # beyond int64, which would wrap around
        of_python = (n for n in array.flat if isinstance(n, int))
        largest = array.max() if array.dtype.kind == "u" else max(of_python, default=0)
        if largest > np.iinfo(np.int64).max:
            raise ValueError(f"{name}: expected integers below 2^63, got {largest}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return np.array(array, np.int64, order="C")


def _booleans(name: str, values: Any) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.dtype != bool:
        raise TypeError(f"{name}: expected booleans, got {array.dtype}")
    return np.array(array, order="C")


def activation_names(activations: Any, plain: tuple[str, ...]) -> Any:
    """None for those of the plain cell; a list becomes a tuple, which stays as it is until backward. The compiled
    module refuses what is no names."""
    names = tuple(activations) if isinstance(activations, list) else activations
    return None if names == plain else names


def refuse_recompute(options: dict[str, Any], plain: dict[str, Any]) -> None:
    """What backward computes again is the plain cell."""
    given = {name: options[name] for name in plain if options[name] is not None}
    changed = [name for name, value in given.items() if plain[name] is None or plain[name] != value]
    raise ValueError(f"recompute: expected False together with {', '.join(changed) or 'return_c'}")
