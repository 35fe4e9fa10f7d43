"""What the cells' calls do with ``precision``: products of bfloat16 or int8, all else float32."""

from __future__ import annotations

from typing import Any

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional.reserve import (
    Accumulate,
    Reserve,
    make_reserve,
    parameter_gradients,
    read_sequences,
)


def low_precision_forward(
    cell: str,
    precision: str,
    x: Array,
    states: tuple[Array | None, Array | None],
    weights: tuple[Array, Array],
    biases: tuple[Array | None, Array | None],
    *,
    reverse: bool,
    training: bool,
    options: dict[str, Any] | None,
    sequences: tuple[Any, Any, Any],
    recompute: bool = False,
) -> Any:
    """y, h_n, c_n (of an LSTM, else None) and the reserve; ``cell`` is the core's name, with the option after an
    underscore. sequences: lengths, batch_sizes and resets. Other options of the call are refused."""
    if precision not in ("bfloat16", "int8"):
        raise ValueError(f"precision: expected None, 'bfloat16' or 'int8', got {precision!r}")
    if options is not None:
        raise ValueError("precision: expected None together with options that change the equations or the results")
    if recompute:
        raise ValueError("precision: expected None together with recompute")
    if training and (precision == "int8" or cell == "gru_reset_before"):
        what = "for int8" if precision == "int8" else "with reset_after=False"
        raise ValueError(f"training: expected False {what}, got True")
    lengths, batch_sizes, resets = read_sequences(*sequences)
    y, h_n, c_n, buffer = _core.low_precision_forward(
        cell, precision, x, *states, *weights, *biases, lengths, batch_sizes, resets, reverse, training
    )
    arrays = {"x": x, "h0": states[0], "c0": states[1], "y": y, "weight_ih": weights[0], "weight_hh": weights[1]}
    reserve = make_reserve(
        cell.split("_")[0], buffer, arrays, biases, reverse=reverse, lengths=lengths, batch_sizes=batch_sizes,
        resets=resets, options=None, low_precision_cell=cell,
    )  # fmt: skip
    return y, h_n, c_n, reserve


def low_precision_backward(
    reserve: Reserve,
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    input_grad: bool,
    accumulate: Accumulate | None,
) -> Any:
    """dx, dh0, dc0 (of an LSTM) and the gradients of weights and biases."""
    a, o = reserve.arrays, reserve.options
    parameters = parameter_gradients(reserve, accumulate)
    dx, dh0, dc0 = _core.low_precision_backward(
        o["low_precision_cell"], dy, dh_n, dc_n, a["x"], a["h0"], a["c0"], a["y"], a["weight_ih"], a["weight_hh"],
        reserve.buffer, o["lengths"], o["batch_sizes"], o["resets"], o["reverse"], input_grad, *parameters,
    )  # fmt: skip
    return dx, dh0, dc0, parameters
