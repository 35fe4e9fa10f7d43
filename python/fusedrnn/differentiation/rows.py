"""One gradient of every parameter for each row of a batch, as differential privacy and influence functions need."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusedrnn import _core, functional
from fusedrnn.arrays import Array
from fusedrnn.differentiation.scans import gradients_by_row, layer_by_row
from fusedrnn.differentiation.trees import leaves, map_leaves
from fusedrnn.functional.reserve import check_reserve
from fusedrnn.functional.scan import ScanReserve
from fusedrnn.nn.scan import Scan
from fusedrnn.spec import CELLS


class PerSequenceGradients(NamedTuple):
    """Gradients row by row.

    Attributes:
        dx: shaped as x, or None with input_grad=False. dinitial: (dh0,) or (dh0, dc0), each [N, H].
        parameters: name -> [N, ...] ("dweight_ih": [N, GH, I]) for every parameter that there was, in the order of the
            cell's gradients; a tuple of such where the parameter is a tuple.
    """

    dx: Array | None
    dinitial: tuple[Array, ...]
    parameters: dict[str, Any]


class _Rows:
    """Where the rows of a call lie in its arrays: [T, N, ...], [N, ...] of states, or packed; and in its reserve."""

    def __init__(self, reserve: functional.Reserve) -> None:
        self.reserve = reserve
        x, (lengths, sizes, _) = reserve.x, reserve.sequences or (None, None, None)
        self.packed, self.ragged = sizes is not None, lengths is not None
        self.leading: tuple[int, ...] = x.shape[:-1]
        self.count = x.shape[1] if sizes is None else int(sizes[0])
        self._rank = np.arange(self.count)
        if lengths is not None:  # the reserve's rows lie as if packed, longest first
            self._rank[np.argsort(-lengths, kind="stable")] = np.arange(self.count)
            sizes = np.sum(lengths > np.arange(max(lengths, default=0))[:, None], axis=1)
        self._sizes: Array = np.empty(0, np.int64) if sizes is None else sizes

    def _lines(self, n: int) -> Array:
        """Where the steps of row n stand among packed ones."""
        rank, sizes = self._rank[n], self._sizes
        lines: Array = (np.cumsum(sizes) - sizes + rank)[sizes > rank]
        return lines

    def place(self, name: str, n: int) -> Any:
        """The index of row n in an array by its name; None for a parameter, which has no rows."""
        name = name.removeprefix("d")
        if name in ("h0", "c0", "h_n", "c_n", "lengths"):
            return slice(n, n + 1)
        if name not in ("x", "y", "c", "resets"):
            return None
        return self._lines(n) if self.packed else (slice(None), slice(n, n + 1))

    def _buffer(self, n: int) -> Array:
        buffer = self.reserve.buffer
        if self.packed:
            return buffer[self._lines(n)]
        if not self.ragged:
            return np.ascontiguousarray(buffer[:, n : n + 1])
        (T, N, width), lines = buffer.shape, self._lines(n)
        one = np.empty((T, 1, width), buffer.dtype)
        one[: len(lines), 0] = buffer.reshape(T * N, width)[lines]
        return one

    def alone(self, name: str, value: Any, n: int) -> Any:
        """What ``value`` is in a call of row n alone."""
        place = self.place(name, n)
        return value if value is None or place is None else np.ascontiguousarray(value[place])

    def reserve_of(self, n: int) -> functional.Reserve:
        """The reserve that forward would have kept for row n alone: the same bits, as no row depends on others."""
        kept = self.reserve
        states = zip(CELLS[self.reserve.cell].states, kept.states, strict=True)
        lengths, sizes, resets = kept.sequences or (None, None, None)
        if self.packed:
            sizes = np.ones(len(self._lines(n)), np.int64)
        settings = kept.settings
        if "row_offset" in settings.options:  # a row keeps the random numbers that it had
            settings = settings.replace(row_offset=settings.options["row_offset"] + n)
        return _core.Reserve(
            settings, self.alone("x", kept.x, n), tuple(self.alone(name, value, n) for name, value in states),
            kept.parameters, (self.alone("lengths", lengths, n), sizes, self.alone("resets", resets, n)),
            self.alone("y", kept.y, n), self._buffer(n),
        )  # fmt: skip


def per_sequence_gradients(
    reserve: Any,
    dy: Any,
    dh_n: Any = None,
    dc_n: Array | None = None,
    *,
    input_grad: bool = True,
    **later: Array | None,
) -> Any:
    """Gradients of every parameter for each row alone, in place of a cell's backward.

    Row n's are, bit for bit, what forward and backward of that row alone give (for the same random numbers with n more
    as its ``row_offset``). It is one backward call a row, from the reserve of the whole batch: no forward runs again.

    Args:
        reserve: of ``lstm_forward`` and its like, or of ``scan_forward``, with training=True and any options;
            or a layer of ``nn.Scan``, whose last call is taken back, without adding to its gradients.
        dy: shaped as y, dh_n, dc_n: [N, H]: gradients of the outputs, None for zeros; dc_n for an LSTM only.
        input_grad: False leaves dx out.
            Of a scan dy and the gradient of its last state, as ``scan_backward`` takes them.
        later: gradients that the cell's backward takes by keyword, shaped as y but for the last axis (an LSTM's dc).

    Returns:
        Gradients row by row; of a scan what ``scan_backward`` returns, in which the leaves of dparams are [N, ...]. A
        scan runs again row by row, forward too.

    Raises:
        TypeError: not a reserve; dc_n for another cell.
        ValueError: a shape that does not fit.
    """
    if isinstance(reserve, (ScanReserve, Scan)):
        if dc_n is not None or later:
            raise TypeError("dc_n: expected None for a scan, which has one state of any structure, got an array")
        if isinstance(reserve, Scan):
            return PerSequenceGradients(*layer_by_row(reserve, dy, dh_n, input_grad=input_grad))
        return gradients_by_row(reserve, dy, dh_n, input_grad=input_grad)
    if not isinstance(reserve, functional.Reserve):
        raise TypeError(f"reserve: expected the reserve of a forward call in training, got {type(reserve).__name__}")
    lstm = reserve.cell == "lstm"
    if dc_n is not None and not lstm:
        raise TypeError(f"dc_n: expected None for {reserve.cell}, which has no cell state, got {type(dc_n).__name__}")
    check_reserve(reserve, reserve.cell)
    backward = getattr(functional, f"{reserve.cell}_backward")
    rows = _Rows(reserve)
    doutputs = {"dy": dy, "dh_n": dh_n, **({"dc_n": dc_n} if lstm else {}), **later}
    for name, gradient in doutputs.items():
        leading = (rows.count,) if name.endswith("_n") else rows.leading
        if gradient is not None and gradient.shape[:-1] != leading:
            wanted = ", ".join(map(str, leading))
            raise ValueError(f"{name}: expected shape ({wanted}, H), got {gradient.shape}")

    def gradients(n: int | None) -> dict[str, Any]:
        if n is None:
            result = backward(**doutputs, reserve=reserve, input_grad=input_grad)
        else:
            parts = {name: rows.alone(name, d, n) for name, d in doutputs.items()}
            result = backward(**parts, reserve=rows.reserve_of(n), input_grad=input_grad)
        return {name: gradient for name, gradient in result._asdict().items() if gradient is not None}

    def room(name: str, gradient: Array) -> Array:
        if rows.place(name, 0) is None:
            return np.empty((rows.count, *gradient.shape), gradient.dtype)
        lead = rows.leading if name == "dx" else (rows.count,)
        return np.empty((*lead, gradient.shape[-1]), gradient.dtype)

    results: dict[str, Any] = {}
    for n in range(rows.count) if rows.count else (None,):
        for name, gradient in gradients(n).items():
            if name not in results:
                results[name] = map_leaves(lambda part, name=name: room(name, part), gradient)
            if n is not None:
                place = rows.place(name, n)
                place = n if place is None else place
                for (_, whole), (_, part) in zip(leaves(results[name]), leaves(gradient), strict=True):
                    whole[place] = part
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
