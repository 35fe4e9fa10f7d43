"""What a caller gives beside bare numbers: masks, and the index and columns of pandas, none of which may be lost."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.columns import dates
from fusedrnn.data.spacing import Uneven, frequency


def is_pandas(X: Any) -> bool:
    """Whether X is a Series or DataFrame, without importing pandas."""
    return hasattr(X, "iloc") and hasattr(X, "index")


def unmasked(X: Any, name: str) -> None:
    """Raise ValueError for a masked array with a masked value, or a sequence that has one: NumPy drops their masks."""
    rows = enumerate(X) if isinstance(X, (list, tuple)) else [(None, X)]
    for place, row in rows:
        if (isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row)) or row is np.ma.masked:
            where = name if place is None else f"{name}[{place}]"
            count = int(np.ma.getmaskarray(row).sum())
            raise ValueError(f"{where}: expected no masked values, got {count}: fill them or leave their points out")


def array(X: Any, name: str) -> Array:
    """X as an array; columns of pandas that may hold NA are numbers, NaN there. ValueError for masked values."""
    unmasked(X, name)
    if is_pandas(X):
        kinds = [X.dtype] if X.ndim == 1 else list(X.dtypes)
        if any(getattr(kind, "na_value", None) is not None and getattr(kind, "kind", "O") in "fiub" for kind in kinds):
            whole = {getattr(kind, "numpy_dtype", np.dtype(object)) for kind in kinds}
            if len(whole) == 1 and next(iter(whole)).kind in "iu" and not X.isna().to_numpy().any():
                return np.asarray(X.to_numpy(dtype=whole.pop()))
            try:
                return np.asarray(X.to_numpy(dtype=np.float64, na_value=np.nan))
            except (TypeError, ValueError):
                pass  # text among them: the caller refuses what it is
    return np.asarray(X)


def column_names(X: Any) -> tuple[Any, ...] | None:
    """Return the columns of a DataFrame; None for anything else."""
    return tuple(X.columns) if is_pandas(X) and X.ndim == 2 else None


def same_columns(X: Any, names: Sequence[Any] | None, name: str) -> None:
    """Raise ValueError if X is a DataFrame with other columns than ``names``, or the same in another order."""
    got = column_names(X)
    if got is not None and names is not None and list(got) != list(names):
        words = " in this order" if set(got) == set(names) else ""
        raise ValueError(f"{name}: expected the columns {list(names)}{words}, as in fit, got {list(got)}")


def in_order(X: Any, name: str) -> None:
    """Raise ValueError if the rows of a Series or DataFrame of pandas are not in the order of their index."""
    if is_pandas(X) and getattr(X.index, "nlevels", 1) == 1 and not _labels(X.index):
        index = X.index
        back = np.flatnonzero(np.asarray(index[1:] < index[:-1]))
        if len(back):
            row = int(back[0]) + 1
            raise ValueError(
                f"{name}: expected rows in the order of their index, got {index[row]} after {index[row - 1]}: "
                "sort_index() puts them in order, reset_index(drop=True) takes them as they are"
            )


def sequence(X: Any, name: str, columns: Sequence[Any] | None = None) -> Array:
    """X as an array, rows in order and columns as given; ValueError as `array`, `in_order` and `same_columns`."""
    in_order(X, name)
    same_columns(X, columns, name)
    return array(X, name)


def even_index(X: Any, name: str, before: Any = None) -> Any:
    """The index of X if it is of pandas and tells times or counts, checked to be at equal distances, else None.

    ``before`` is what this gave for the series that X goes on from. ValueError: points out of order, twice or missing.
    """
    if not is_pandas(X):
        return None
    index = X.index
    if getattr(index, "nlevels", 1) > 1:
        raise ValueError(f"{name}: expected one series, got an index of {index.nlevels} levels: {list(index.names)}")
    index = _as_times(index, name)
    if index is None:
        return None
    whole, start = index, 0
    if before is not None and _is_time(index) and type(before) is type(index):
        whole, start = before[-3:].append(index), len(before[-3:])
    try:
        frequency(whole)
    except (Uneven, TypeError) as error:
        row = getattr(error, "row", start) - start
        follows = " of the series that follows that of fit" if start else ""
        raise ValueError(
            f"{name}: expected points at equal distances{follows}; at point {max(row, 0)}: {error}. sort_index() puts "
            "them in order, asfreq() shows gaps to be filled, reset_index(drop=True) takes them as they are"
        ) from None
    return index


def _labels(index: Any) -> bool:
    """Whether its entries are names, which have no order in time."""
    return not (_is_time(index) or getattr(index.dtype, "kind", "O") in "iuf")


def _is_time(index: Any) -> bool:
    return type(index).__name__ in {"DatetimeIndex", "PeriodIndex", "TimedeltaIndex"}


def _as_times(index: Any, name: str) -> Any:
    """An index of dates as objects or text as a DatetimeIndex; None for other labels."""
    if not len(index) or not _labels(index):
        return index if len(index) else None
    import pandas

    if all(isinstance(each, datetime.date) for each in index):
        return pandas.DatetimeIndex(index)
    if all(isinstance(each, str) for each in index):
        try:
            found = dates([each.strip() for each in index])
        except ValueError as error:
            raise ValueError(f"{name}: its index: {error}: pandas.to_datetime makes dates of it") from None
        if found is not None and found[1] is None:
            return found[0]
    return None
