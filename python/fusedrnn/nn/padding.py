"""Rows of uneven length in one array: how they are padded, and where the padding of an array is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array


def padded(sequences: Sequence[Array]) -> Array:
    """Lay sequences into one array, time first, of at least one step.

    Integers [T_i] become ids [T, N] int64, -1 past a row's end; features [T_i, I] become a masked array [T, N, I] of
    their dtype, masked past the end: as `fusedrnn.nn.ManyToOne` reads them. Beneath the mask lies NaN: whoever loses
    the mask sees it.
    """
    first = sequences[0]
    T = max(1, *map(len, sequences)) if len(sequences) > 1 else max(1, len(first))
    whole: Array
    if first.ndim == 1:
        whole = np.full((T, len(sequences)), -1, np.int64)
    else:
        beneath = np.nan if first.dtype.kind == "f" else 0
        whole = np.ma.MaskedArray(np.full((T, len(sequences), first.shape[1]), beneath, first.dtype), mask=True)
    for n, sequence in enumerate(sequences):
        whole[: len(sequence), n] = sequence
    return whole


def own_steps(x: Array, lengths: Any = None) -> tuple[Array, Array]:
    """Return rows that all begin at step 0, zeros past their ends, x [T, N] or [T, N, I], and their steps [N], int64.

    Padding is where the caller says: past ``lengths`` [N]; else where x, a masked array of NumPy, is masked; else where
    ids are -1. It may stand before a row's own steps, behind them or both. A number never says it: NaN is NaN.

    Raises ValueError for padding between two steps of a row, for half of a step, for lengths that do not fit, and for
    ids below -1.
    """
    T, N = x.shape[:2]
    mask = np.ma.getmaskarray(x) if np.ma.isMaskedArray(x) else None
    values = np.asarray(np.ma.getdata(x))
    if not T:
        return values, np.zeros(N, np.int64)  # the layers say what they make of no steps
    inside: Array
    if lengths is not None:
        counts = np.asarray(lengths)
        if counts.shape != (N,) or counts.dtype.kind not in "iu" or (N and not 0 <= counts.min() <= counts.max() <= T):
            raise ValueError(f"lengths: expected [{N}] integers from 0 to {T}, got {lengths!r}")
        inside = np.arange(T)[:, None] < counts
        if mask is not None and mask[inside].any():
            raise ValueError("lengths: expected no step within them that x has masked, got one")
    elif mask is not None:
        inside = np.asarray(~mask.all(axis=2) if x.ndim == 3 else ~mask & (values != -1))
        if x.ndim == 3 and (mask.any(axis=2) == inside).any():
            step, row = np.argwhere(mask.any(axis=2) == inside)[0]
            raise ValueError(f"x: expected a mask of whole steps, got some features of step {step} of row {row}")
    else:
        inside = np.asarray(values != -1 if x.ndim == 2 else np.ones((T, N), bool))
    if x.ndim == 2 and (values[inside] < 0).any():
        step, row = np.argwhere(inside & (values < 0))[0]
        raise ValueError(
            f"x: expected ids of at least 0, -1 where a row is padded, got {values[step, row]} in row {row}"
        )
    counts = inside.sum(axis=0)
    first = inside.argmax(axis=0)
    if (gaps := (counts > 0) & (T - inside[::-1].argmax(axis=0) - first != counts)).any():
        row = int(np.argmax(gaps))
        step = int(first[row] + np.argmin(inside[first[row] :, row]))
        raise ValueError(f"x: expected padding before or behind the steps of a row, got it at step {step} of row {row}")
    if first.any():
        order = (np.arange(T)[:, None] + first) % T
        values = np.take_along_axis(values, order if x.ndim == 2 else order[:, :, None], axis=0)
    kept = np.arange(T)[:, None] < counts
    return np.where(kept if x.ndim == 2 else kept[:, :, None], values, values.dtype.type(0)), counts
