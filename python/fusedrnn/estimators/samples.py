"""What users give estimators as sequences: lists, arrays, object arrays, Series of pandas; read where the meaning is
plain, else refused with what to give instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators.given import sequence

_REMEDY = "give a list of arrays [T_i, I]"


def rows_of(X: Any) -> list[Any] | None:
    """The sequences that a list, an array [n, T, I] or a column of arrays holds; None where X may be a table."""
    rows = _held_by(X)
    return rows if rows is None else _some(rows, X)


def _some(rows: list[Any], X: Any) -> list[Any]:
    if not rows:
        raise ValueError(f"X: expected at least one sequence, got {type(X).__name__} of 0")
    return rows


def _held_by(X: Any) -> list[Any] | None:
    if isinstance(X, (list, tuple)):
        return list(X)
    if isinstance(X, (str, bytes, dict, set, Iterator)) and not hasattr(X, "shape"):
        raise ValueError(f"X: expected sequences, got {type(X).__name__}; {_REMEDY}")
    if getattr(X, "ndim", None) in (1, 3):
        array = np.asarray(X)
        if array.ndim == 3 or array.dtype == object:
            return list(array)
    return None


def features(
    rows: Sequence[Any], fitted_to: str | None, width: int = 1, columns: Sequence[Any] | None = None
) -> tuple[list[Array], str] | None:
    """Sequences as float32 [T_i, I], and how they were read: "sequences", or "series" of one feature each from [T_i].

    None for rows of a table: lists of numbers of one length, as in scikit-learn, or whatever rows [I] there are after a
    ``fit`` to a table. ``fitted_to``: how the rows of ``fit`` were read, None in it; ``width``: I there;
    ``columns``: the names in its DataFrames.

    Raises ValueError for what is neither, naming the row.
    """
    arrays = [_numbers(row, i, columns) for i, row in enumerate(rows)]
    axes = {a.ndim for a in arrays if a.shape != (0,)} or {1}
    if axes == {0}:
        return None
    if axes == {1}:
        lengths = {len(a) for a in arrays}
        listed = all(isinstance(row, (list, tuple)) for row in rows)
        if len(lengths) == 1 and (fitted_to == "table" or (fitted_to is None and listed)):
            return None
        if fitted_to == "table":
            raise ValueError(
                f"X: expected rows of a table as in fit, got sequences of {min(lengths)} to {max(lengths)}"
            )
        kind = "series"
        arrays = [a[:, None] if a.size else np.empty((0, width)) for a in arrays]
    else:
        kind, shown = "sequences", next(i for i, a in enumerate(arrays) if a.ndim == max(axes))
        first = arrays[shown]
        arrays = [a.reshape(0, *first.shape[1:]) if a.shape == (0,) else a for a in arrays]
        for i, a in enumerate(arrays):
            if a.ndim != 2 or a.shape[1:] != first.shape[1:]:
                wanted = f"[T, {first.shape[1]}] as in X[{shown}]" if first.ndim == 2 else "[T, I]"
                raise ValueError(f"X[{i}]: expected numbers {wanted}, got {a.dtype} {a.shape}; {_REMEDY}")
    for i, a in enumerate(arrays):
        if not np.isfinite(a).all():
            step, feature = np.argwhere(~np.isfinite(a))[0]
            what = "NaN" if np.isnan(a[step, feature]) else "infinity"
            raise ValueError(
                f"Input X contains {what}: X[{i}], step {step}, feature {feature}; fill it or leave it out"
            )
        if a.size and np.abs(a).max() > np.finfo(np.float32).max:
            raise ValueError(
                f"Input X contains a value too large for dtype('float32'): X[{i}] has {np.abs(a).max():.3g}; scale it"
            )
    return [a.astype(np.float32) for a in arrays], kind


def integers(X: Any) -> list[Array]:
    """Sequences as int64 [T_i], of at least 0. ValueError for others, naming the row."""
    rows = rows_of(X)
    if rows is None:
        table = np.asarray(X)
        if table.ndim != 2:
            raise ValueError(
                f"X: expected sequences of integers with embedding_dim, got {table.dtype} {table.shape}; give a list "
                "of arrays [T_i], [X] for one"
            )
        rows = _some(list(table), X)
    sequences = []
    for i, given in enumerate(rows):
        row = _array(given, i, "integers [T] with embedding_dim")
        if row.dtype == object and row.ndim == 1 and all(isinstance(v, (int, np.integer)) for v in row):
            with contextlib.suppress(OverflowError):
                row = row.astype(np.int64)
        if row.ndim != 1 or (row.dtype.kind not in "iu" and row.size):
            got = f"{row.dtype} {row.shape}"
            fix = "number the words first" if row.dtype.kind in "OUS" else "give a list of arrays [T_i] of integers"
            raise ValueError(f"X[{i}]: expected integers [T] with embedding_dim, got {got}; {fix}")
        if row.size and row.min() < 0:
            raise ValueError(f"X[{i}]: expected integers of at least 0, got {row.min()}")
        if row.size and row.max() > np.iinfo(np.int64).max:
            raise ValueError(f"X[{i}]: expected integers of int64, got {row.max()}")
        sequences.append(row.astype(np.int64))
    return sequences


def _array(row: Any, i: int, wanted: str, columns: Sequence[Any] | None = None) -> Array:
    try:
        array = sequence(row, f"X[{i}]", columns)
    except ValueError as error:
        if str(error).startswith(f"X[{i}]"):
            raise
        # rows within a row that differ in length
        raise ValueError(f"X[{i}]: expected {wanted}, got {type(row).__name__} ({error})") from None
    return array


def _numbers(row: Any, i: int, columns: Sequence[Any] | None) -> Array:
    array = _array(row, i, "numbers [T, I]", columns)
    if array.dtype == object:
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        fix = "number the words first, and set embedding_dim" if array.dtype.kind in "OUS" else _REMEDY
        raise ValueError(f"X[{i}]: expected numbers [T, I], got {array.dtype} {array.shape}; {fix}")
    return array
