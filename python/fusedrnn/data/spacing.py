"""Whether the points of a series are at equal distances, by the times or numbers that they carry."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

_WINDOW = 10  # points in a row that are enough to see a frequency, months and working days included


class Uneven(ValueError):
    """Points that are out of order, come twice or are missing; ``row`` is the place where that shows."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def frequency(index: Any) -> str:
    """What lies between two points of a pandas Index of dates, periods, durations or numbers, in words: "D", "step 1".

    Empty for fewer than 3 points. Raises Uneven.
    """
    import pandas

    if isinstance(index, pandas.PeriodIndex):
        index = index.to_timestamp()
    missing = np.flatnonzero(index.isna())
    if len(missing):
        raise Uneven("the time is missing", int(missing[0]))
    back = np.flatnonzero(np.asarray(index[1:] < index[:-1]))
    if len(back):
        row = int(back[0]) + 1
        raise Uneven(f"{index[row]} comes after {index[row - 1]}: out of order", row)
    again = np.flatnonzero(np.asarray(index[1:] == index[:-1]))
    if len(again):
        row = int(again[0]) + 1
        raise Uneven(f"{index[row]} comes twice", row)
    if len(index) < 3:
        return ""
    if isinstance(index, pandas.DatetimeIndex | pandas.TimedeltaIndex):
        return _of_times(index)
    values = np.asarray(index, np.float64)
    steps = np.diff(values)
    usual = float(np.median(steps))
    odd = np.flatnonzero(~np.isclose(steps, usual, rtol=1e-3, atol=1e-9 * float(np.abs(values).max())))
    if len(odd):
        row = int(odd[0]) + 1
        raise Uneven(f"{index[row]} comes after {index[row - 1]}, where the usual step is {usual:g}", row)
    return f"step {usual:g}"


def _of_times(index: Any) -> str:
    import pandas

    if found := _usual(index) or _months(index):
        return found
    steps = index[1:] - index[:-1]
    parts = (index[at : at + _WINDOW] for at in range(0, max(len(index) - _WINDOW, 0) + 1, _WINDOW // 2))
    usual = next((freq for part in parts if len(part) > 2 and (freq := _usual(part))), "")
    if usual and isinstance(index, pandas.DatetimeIndex):
        grid = pandas.date_range(index[0], index[-1], freq=usual)
    else:
        grid = index[:0]
    gone = grid.difference(index)
    if len(gone):
        row = int(index.searchsorted(gone[0]))
        count = int(((gone > index[row - 1]) & (gone < index[row])).sum())
        raise Uneven(
            f"{index[row]} comes after {index[row - 1]}, where the frequency is {usual}: {count} points are missing, "
            f"from {gone[0]} on",
            row,
        )
    odd = np.flatnonzero(np.asarray(steps != pandas.Series(steps).mode()[0]))
    row = int(odd[0]) + 1 if len(odd) else 1
    raise Uneven(f"{index[row]} comes after {index[row - 1]}: not at equal distances", row)


def _usual(index: Any) -> str:
    """The frequency of points without a gap, such as "h" or "MS"; empty if there is none."""
    import pandas

    with warnings.catch_warnings():  # some versions say that others will return an offset
        warnings.simplefilter("ignore")
        found = pandas.infer_freq(index)
    return "" if found is None else str(getattr(found, "freqstr", found))


def _months(index: Any) -> str:
    """Months in words where all points are at the same day and time of theirs, such as the 15th; empty otherwise."""
    import pandas

    if not isinstance(index, pandas.DatetimeIndex) or len({(at.day, at.time()) for at in index}) > 1:
        return ""
    steps = set(np.diff(np.asarray(index.year) * 12 + np.asarray(index.month)).tolist())
    return f"months: {steps.pop()}" if len(steps) == 1 else ""
