"""One gradient of every parameter for each row of a batch, as differential privacy and influence functions need."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from fusedrnn import functional
from fusedrnn.differentiation.trees import leaves, map_leaves
from fusedrnn.gradients import Array

# Where the rows lie in what a reserve and its options hold. Parameters have no rows.
_ROW_AXIS = {"x": 1, "y": 1, "c": 1, "h0": 0, "c0": 0, "lengths": 0, "resets": 1}
_PARAMETERS = ("weight", "bias", "layer_norm")


class PerSequenceGradients(NamedTuple):
    """Gradients row by row.

    Attributes:
        dx: [T, N, I], or None with input_grad=False. dinitial: (dh0,) or (dh0, dc0), each [N, H].
        parameters: name -> [N, ...] ("dweight_ih": [N, GH, I]) for every parameter that there was, in the order of the
            cell's gradients; a tuple of such where the parameter is a tuple.
    """

    dx: Array | None
    dinitial: tuple[Array, ...]
    parameters: dict[str, Any]


def _some_rows(name: str, value: Any, rows: slice) -> Any:
    """``value`` for these rows alone; TypeError for arrays whose rows are not known to lie anywhere."""
    if value is None or isinstance(value, (bool, int, float, str, np.generic)) or name.startswith(_PARAMETERS):
        return value
    axis = _ROW_AXIS.get(name)
    if axis is not None:
        return np.ascontiguousarray(np.asarray(value)[(slice(None),) * axis + (rows,)])
    if isinstance(value, tuple) and all(isinstance(member, (str, type(None))) for member in value):
        return value
    raise TypeError(f"{name}: expected an option whose rows can be told apart, got {type(value).__name__}")


def _reserve_of(reserve: functional.Reserve, rows: slice) -> functional.Reserve:
    """The reserve that forward would have kept for these rows alone: the same bits, as no row depends on others."""
    arrays = {name: _some_rows(name, value, rows) for name, value in reserve.arrays.items()}
    options = {name: _some_rows(name, value, rows) for name, value in reserve.options.items()}
    if "row_offset" in options:  # rows keep the random numbers that they had
        options["row_offset"] += rows.start
    buffer = np.ascontiguousarray(reserve.buffer[:, rows])
    return dataclasses.replace(reserve, buffer=buffer, arrays=arrays, options=options, digests={})


def per_sequence_gradients(
    reserve: functional.Reserve | None,
    dy: Array | None,
    dh_n: Array | None = None,
    dc_n: Array | None = None,
    *,
    input_grad: bool = True,
    **later: Array | None,
) -> PerSequenceGradients:
    """Gradients of every parameter for each row alone, in place of a cell's backward.

    Row n's are, bit for bit, what forward and backward of that row alone give. It is one backward call a row, from
    the reserve of the whole batch: no forward runs again.

    Args:
        reserve: of ``lstm_forward`` and its like, with training=True.
        dy: [T, N, H], dh_n, dc_n: [N, H]: gradients of the outputs, None for zeros; dc_n for an LSTM only.
        input_grad: False leaves dx out.
        later: gradients that the cell's backward takes by keyword, shaped as dy.

    Raises:
        TypeError: not a reserve; dc_n for another cell; an option of forward that this function does not know.
        ValueError: a shape that does not fit.
    """
    if not isinstance(reserve, functional.Reserve):
        raise TypeError(f"reserve: expected the reserve of a forward call in training, got {type(reserve).__name__}")
    lstm = reserve.cell == "lstm"
    if dc_n is not None and not lstm:
        raise TypeError(f"dc_n: expected None for {reserve.cell}, which has no cell state, got {type(dc_n).__name__}")
    reserve.check(reserve.cell)
    _reserve_of(reserve, slice(0, 0))  # refuses what has no rows
    backward = getattr(functional, f"{reserve.cell}_backward")
    T, N = reserve.arrays["x"].shape[:2]
    doutputs = {"dy": dy, "dh_n": dh_n, **({"dc_n": dc_n} if lstm else {}), **later}
    for name, gradient in doutputs.items():
        leading = (N,) if name.endswith("_n") else (T, N)
        if gradient is not None and gradient.shape[:-1] != leading:
            wanted = ", ".join(map(str, leading))
            raise ValueError(f"{name}: expected shape ({wanted}, H), got {gradient.shape}")

    def gradients(rows: slice) -> dict[str, Any]:
        parts = {
            name: None if d is None else np.ascontiguousarray(d[rows] if d.ndim == 2 else d[:, rows])
            for name, d in doutputs.items()
        }
        result = backward(**parts, reserve=_reserve_of(reserve, rows), input_grad=input_grad)
        return {name: gradient for name, gradient in result._asdict().items() if gradient is not None}

    # No row at all gives the shapes; every row then goes to its place.
    def place(name: str, gradient: Array) -> Array:
        axis, shape = _ROW_AXIS.get(name[1:]), list(gradient.shape)
        if axis is None:
            shape.insert(0, N)
        else:
            shape[axis] = N
        return np.empty(shape, gradient.dtype)

    results = {name: map_leaves(lambda g, n=name: place(n, g), g) for name, g in gradients(slice(0, 0)).items()}
    for n in range(N):
        for name, gradient in gradients(slice(n, n + 1)).items():
            for (_, whole), (_, part) in zip(leaves(results[name]), leaves(gradient), strict=True):
                by_row = np.moveaxis(whole, _ROW_AXIS.get(name[1:], 0), 0)
                by_row[n] = part.reshape(by_row.shape[1:])
    dx = results.pop("dx", None)
    dinitial = tuple(results.pop(name) for name in ("dh0", "dc0") if name in results)
    return PerSequenceGradients(dx, dinitial, results)


def clipped_sum(gradients: Any, max_norm: float) -> Any:
    """Sum over rows of gradients each scaled down to a norm of at most ``max_norm`` (DP-SGD, Abadi et al. 2016).

    Args:
        gradients: arrays [N, ...] in tuples, lists or dicts, such as ``PerSequenceGradients.parameters``, or a dict of
            those of several layers: a row's norm is over all of them.
        max_norm: C. Row n counts with the factor min(1, C / norm_n).

    Returns:
        The same tree without the axis N. The noise of DP-SGD is left to the caller.

    Raises:
        ValueError: max_norm not above 0, no array, or arrays of unequal N.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a number above 0, got {max_norm}")
    arrays = [array for _, array in leaves(gradients)]
    rows = {len(array) for array in arrays}
    if len(rows) != 1:
        raise ValueError(f"gradients: expected arrays of one number of rows, got {sorted(rows)}")
    norms = np.sqrt(sum(np.square(a, dtype=np.float64).sum(axis=tuple(range(1, a.ndim))) for a in arrays))
    factors = max_norm / np.maximum(norms, max_norm)

    def total(array: Array) -> Array:
        factor = factors.astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1))
        result: Array = (factor * array).sum(axis=0)
        return result

    return map_leaves(total, gradients)
