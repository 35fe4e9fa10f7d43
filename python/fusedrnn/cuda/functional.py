"""``fusedrnn.functional`` for arrays on a GPU: checks, what is refused, the reserve, gradients that are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusedrnn._core import NO_STEPS
from fusedrnn.cuda import cells, compiled
from fusedrnn.cuda.arrays import Library, library_of, read
from fusedrnn.functional.reserve import Accumulate, Reserve, activation_names

_ARRAYS = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
_TAKEN = (*_ARRAYS, "lengths", "reverse", "training")
_COUNTERS = ("seed", "layer", "row_offset", "step_offset")  # of random numbers, which no option here draws
_PLAIN_ACTIVATIONS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}


@dataclass
class _Kept:
    """What a reserve holds of a call on a GPU."""

    library: Library
    layer: cells.Layer
    arrays: dict[str, Any]


def forward(cell: str, arguments: dict[str, Any]) -> Any:
    """As ``<cell>_forward`` of ``fusedrnn.functional``, of all its arguments by name.

    Raises:
        RuntimeError: no GPU can be used here. TypeError, ValueError: as there, and an option that a GPU has not.
    """
    compiled.require()
    _refuse(cell, arguments)
    library = library_of(arguments["x"])
    a = read(library, {name: arguments.get(name) for name in _ARRAYS})
    _check_shapes(cell, a)
    x = a["x"]
    steps, rows, _ = x.shape
    layer = cells.Layer(cell, (bool(arguments["reverse"]),), arguments.get("nonlinearity") == "relu")
    weights = cells.Weights(a["weight_ih"], a["weight_hh"], a["bias_ih"], a["bias_hh"])
    h0, c0 = (None if a[name] is None else a[name][None] for name in ("h0", "c0"))
    lengths = arguments["lengths"]
    with library.computing(x):
        if lengths is not None:
            lengths = library.lengths(lengths, rows, steps, x)
        y, h_n, c_n, kept = cells.forward(library, layer, x, h0, c0, (weights,), lengths, arguments["training"])
    states = (h_n[0],) if c_n is None else (h_n[0], c_n[0])
    if kept is None:
        return y, *states, None
    buffer = kept["y"] if kept["gates"] is None else kept["gates"]
    reserve = Reserve(
        cell, buffer, {name: a[name] for name in _ARRAYS[:5]}, (a["bias_ih"], a["bias_hh"]),
        {"gpu": _Kept(library, layer, kept), "options": None},
    )  # fmt: skip
    return y, *states, reserve


def backward(
    reserve: Reserve,
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    input_grad: bool,
    accumulate: Accumulate | None,
) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    """dx, dh0, dc0 (of an LSTM) and the gradients of weights and biases."""
    kept: _Kept = reserve.options["gpu"]
    library, y = kept.library, kept.arrays["y"]
    T, N, H = y.shape
    given = read(library, {"y": y, "dy": dy, "dh_n": dh_n, "dc_n": dc_n})
    for name, expected in (("dy", (T, N, H)), ("dh_n", (N, H)), ("dc_n", (N, H))):
        _check(name, given[name], expected)
    dh_n, dc_n = (None if given[name] is None else given[name][None] for name in ("dh_n", "dc_n"))
    wanted = cells.Weights(True, True, *(bias is not None for bias in reserve.biases))
    with library.computing(y):
        found = cells.backward(library, kept.layer, kept.arrays, (wanted,), given["dy"], dh_n, dc_n, input_grad)
        parameters: tuple[Any, ...] = tuple(found.weights[0])
        if accumulate is not None:
            parameters = _added(accumulate, parameters)
    return found.dx, found.dh0[0], None if found.dc0 is None else found.dc0[0], parameters


def _refuse(cell: str, arguments: dict[str, Any]) -> None:
    """Options that a GPU has not, by name."""
    for name, value in arguments.items():
        if name in _TAKEN or name in _COUNTERS or value is None or value is False:
            continue
        if name == "nonlinearity":
            if value not in ("tanh", "relu"):
                raise ValueError(f"nonlinearity: expected 'tanh' or 'relu' on a GPU, got {value!r}")
        elif name == "reset_after":
            continue
        elif name == "activations":
            if activation_names(value, _PLAIN_ACTIVATIONS[cell]) is not None:
                raise ValueError(f"activations: expected {_PLAIN_ACTIVATIONS[cell]} on a GPU, got {value!r}")
        elif not isinstance(value, (int, float)) or value:
            raise ValueError(f"{name}: not on a GPU yet; expected its default, or arrays on the CPU")
    if arguments.get("reset_after") is False:
        raise ValueError("reset_after: expected True on a GPU, got False")


def _check_shapes(cell: str, a: dict[str, Any]) -> None:
    for name in ("x", "weight_ih", "weight_hh"):
        if a[name] is None:
            raise TypeError(f"{name}: expected an array on a GPU, got None")
    if len(a["x"].shape) != 3:
        raise ValueError(f"x: expected shape (T, N, I), got {tuple(a['x'].shape)}")
    T, N, I = a["x"].shape  # noqa: E741
    if T == 0:
        raise ValueError(f"x: {NO_STEPS}")
    if len(a["weight_hh"].shape) != 2 or not a["weight_hh"].shape[1]:
        raise ValueError(f"weight_hh: expected shape (G * H, H), got {tuple(a['weight_hh'].shape)}")
    H = a["weight_hh"].shape[1]
    rows = cells.GATES[cell] * H
    expected = {
        "weight_hh": (rows, H), "weight_ih": (rows, I), "bias_ih": (rows,), "bias_hh": (rows,), "h0": (N, H),
        "c0": (N, H),
    }  # fmt: skip
    for name, shape in expected.items():
        _check(name, a[name], shape)


def _check(name: str, a: Any, expected: tuple[int, ...]) -> None:
    if a is not None and tuple(a.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(a.shape)}")


def _added(accumulate: Any, parameters: Sequence[Any]) -> tuple[Any, ...]:
    """The given arrays, with the gradients added to them in place."""
    names = cells.Weights._fields
    if not isinstance(accumulate, tuple) or len(accumulate) != len(names):
        raise TypeError(f"accumulate: expected ({', '.join('d' + name for name in names)})")
    for name, total, gradient in zip(names, accumulate, parameters, strict=True):
        if (total is None) is not (gradient is None):
            raise ValueError(f"d{name}: expected {'None' if gradient is None else 'an array'}")
        if total is not None:
            _check(f"d{name}", total, tuple(gradient.shape))
    for total, gradient in zip(accumulate, parameters, strict=True):
        if total is not None:
            total += gradient
    return accumulate
