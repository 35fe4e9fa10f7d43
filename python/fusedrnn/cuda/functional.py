"""``fusedrnn.functional`` for arrays on a GPU: checks, what is refused, what is kept, gradients that are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusedrnn._core import NO_STEPS
from fusedrnn.cuda import cells, compiled
from fusedrnn.cuda.arrays import library_of, read
from fusedrnn.cuda.kept import Kept
from fusedrnn.spec import COUNTERS, Cell


def forward(
    cell: Cell,
    x: Any,
    states: Sequence[Any],
    parameters: Sequence[Any],
    lengths: Any,
    options: Mapping[str, Any],
    reverse: bool,
    training: bool,
) -> tuple[tuple[Any, ...], Kept | None]:
    """Return (y, h_n[, c_n]) and what backward needs; ``options`` are those that the plain cell has not.

    Raises:
        RuntimeError: no GPU can be used here. TypeError, ValueError: as ``fusedrnn.functional``, and an option that a
            GPU has not.
    """
    compiled.require()
    _refuse(cell, options)
    library = library_of(x)
    names = ("x", *cell.states, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    a = {"c0": None, **read(library, dict(zip(names, (x, *states, *parameters), strict=True)))}
    _check_shapes(cell.name, a)
    x = a["x"]
    steps, rows, _ = x.shape
    layer = cells.Layer(cell.name, (bool(reverse),), options.get("nonlinearity") == "relu")
    weights = cells.Weights(a["weight_ih"], a["weight_hh"], a["bias_ih"], a["bias_hh"])
    h0, c0 = (None if a[name] is None else a[name][None] for name in ("h0", "c0"))
    with library.computing(x):
        if lengths is not None:
            lengths = library.lengths(lengths, rows, steps, x)
        y, h_n, c_n, kept = cells.forward(library, layer, x, h0, c0, (weights,), lengths, training)
    outputs = (y, h_n[0]) if c_n is None else (y, h_n[0], c_n[0])
    if kept is None:
        return outputs, None
    initial = tuple(a[name] for name in cell.states)
    return outputs, Kept(library, layer, cell.name, x, initial, tuple(a[name] for name in names[-4:]), kept)


def backward(kept: Kept, doutputs: Sequence[Any], input_grad: bool, accumulate: Any) -> tuple[Any, ...]:
    """Return (dx, dh0[, dc0]) and the gradients of weights and biases."""
    library, y = kept.library, kept.y
    T, N, H = y.shape
    names = ("dy", "dh_n", "dc_n")[: len(doutputs)]
    given = read(library, {"y": y, **dict(zip(names, doutputs, strict=True))})
    for name in names:
        _check(name, given[name], (T, N, H) if name == "dy" else (N, H))
    dh_n, dc_n = (None if given.get(name) is None else given[name][None] for name in ("dh_n", "dc_n"))
    wanted = cells.Weights(True, True, *(bias is not None for bias in kept.parameters[2:]))
    with library.computing(y):
        found = cells.backward(library, kept.layer, kept.given, (wanted,), given["dy"], dh_n, dc_n, input_grad)
        parameters: tuple[Any, ...] = tuple(found.weights[0])
        if accumulate is not None:
            parameters = _added(accumulate, parameters)
    initial = (found.dh0[0],) if found.dc0 is None else (found.dh0[0], found.dc0[0])
    return (found.dx, *initial, *parameters)


def _refuse(cell: Cell, options: Mapping[str, Any]) -> None:
    """Raise for options that a GPU has not, by name."""
    for name, value in options.items():
        if name == "nonlinearity":
            if value not in ("tanh", "relu"):
                raise ValueError(f"nonlinearity: expected 'tanh' or 'relu' on a GPU, got {value!r}")
        elif name == "activations":
            raise ValueError(f"activations: expected {cell.activations} on a GPU, got {value!r}")
        elif name == "reset_after":
            raise ValueError("reset_after: expected True on a GPU, got False")
        elif name not in COUNTERS:
            raise ValueError(f"{name}: not on a GPU yet; expected its default, or arrays on the CPU")


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
