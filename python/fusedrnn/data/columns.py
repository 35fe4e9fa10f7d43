"""Cells of a column are read as numbers with their decimal sign, dates with their order, or nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array

MISSING = frozenset(["", "na", "n/a", "#n/a", "#na", "nan", "null", "none", "nil", "-", "--", ".", "?", "missing"])
_SYMBOL = "[$¢-¥฿₠-⃀]"
_SPACES = " '\u00a0\u2009\u2019\u202f"  # and apostrophes, which set thousands apart


def _number(decimal: str, group: str) -> re.Pattern[str]:
    whole = rf"(?:[1-9]\d{{0,2}}(?:(?P<group>[{group}{_SPACES}])\d{{3}})(?:(?P=group)\d{{3}})*|\d+)"
    digits = rf"(?:{whole}(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?"
    before, after = rf"(?:(?P<before>{_SYMBOL})\s?)?", rf"(?:\s?(?P<after>{_SYMBOL}|%))?"
    return re.compile(rf"(?P<sign>[+-]?)\s?{before}(?P<digits>(?(before)[+-]?){digits}){after}")


_NUMBER = {".": _number(r"\.", ","), ",": _number(",", r"\.")}


class Number(NamedTuple):
    """A number as Python writes it, and the sign of a currency or per cent that stood beside it."""

    text: str
    symbol: str


def number(cell: str, decimal: str) -> Number | None:
    """The number in a cell where `decimal`, point or comma, is the decimal sign; thousands may be set apart by the
    other one, a space or an apostrophe. None: it is none."""
    match = _NUMBER[decimal].fullmatch(cell.replace("\u2212", "-"))
    if match is None:
        return None
    digits = match["digits"]
    if match["group"]:
        digits = digits.replace(match["group"], "")
    sign = match["sign"] if digits[0] not in "+-" else ""
    return Number(sign + digits.replace(",", "."), match["before"] or match["after"] or "")


def is_number(cell: str) -> bool:
    """With either decimal sign."""
    return number(cell, ".") is not None or number(cell, ",") is not None


def is_missing(cell: str) -> bool:
    """Whether it is one of the words for a gap, or empty."""
    return cell.lower() in MISSING


class Ambiguous(ValueError):
    """Cells that mean one thing or another; ``rows`` are the places of those that show it."""

    def __init__(self, message: str, *rows: int) -> None:
        super().__init__(message)
        self.rows = rows


class BadLayout(ValueError):
    """A format of dates that is none, as one with a lone %."""


def decimal_sign(column: Sequence[str]) -> tuple[str | None, int]:
    """The decimal sign that a column's numbers show, and the place of one that shows it; None: they show none.

    Raises Ambiguous where both occur, or where a comma may be either: 1,234.
    """
    shown: dict[str, int] = {}
    either: int | None = None
    signs = set("".join(column)) & {".", ","}
    for row, cell in enumerate(column):
        if "." not in cell and "," not in cell:
            continue
        point, comma = number(cell, "."), number(cell, ",")
        if point is None or comma is None:
            if point is not comma:
                shown.setdefault("," if point is None else ".", row)
                if len(signs) == 1:
                    break  # what follows cannot differ
        elif point != comma and either is None and "," in cell:
            either = row
    if len(shown) == 2:
        raise Ambiguous(
            f"{column[shown[',']]!r} has a decimal comma and {column[shown['.']]!r} a decimal point", *shown.values()
        )
    if shown:
        return next(iter(shown.items()))
    return (None, 0) if either is None else ("either", either)


def numbers(column: Sequence[str], decimal: str) -> tuple[Array, int | None]:
    """[T] float64, NaN where there is no number, and the first place whose currency or per cent sign is another."""
    values = None
    if set("".join(column)) <= set("0123456789+-eE" + decimal):  # most files: nothing to take off
        with contextlib.suppress(ValueError):
            values = np.array([cell.replace(",", ".") for cell in column], str).astype(np.float64)
    if values is not None:
        return values, None
    found = [number(cell, decimal) for cell in column]
    symbols = [each.symbol for each in found if each is not None]
    odd = next((row for row, each in enumerate(found) if each is not None and each.symbol != symbols[0]), None)
    return np.array([float(each.text) if each is not None else np.nan for each in found]), odd


# dates


_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", " %I:%M%p", "T%H:%M", "T%H:%M:%S")
_DAYS = (
    *(
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%Y%m%d",
        "%d.%m.%Y",
        "%d.%m.%y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%m-%d-%Y",
    ),
    *("%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%m/%Y", "%Y/%m"),
    *("%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%B %d, %Y", "%B %d %Y", "%b %Y"),
    *("%B %Y", "%b-%Y"),
)
_ISO = re.compile(r"\d{4}-\d\d(-\d\d.*)?")
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")


def is_clock(column: Sequence[str]) -> bool:
    """Times of day without a date."""
    return all(map(_CLOCK.fullmatch, column))


def dates(column: Sequence[str], layout: str | None = None) -> tuple[Any, int | None] | None:
    """A pandas DatetimeIndex, NaT where a cell is no such date, and the first such place; None for no dates at all.

    ``layout`` is as in ``strftime``. Without it all cells must agree in one that is known, ISO 8601 before all. Raises
    Ambiguous where several fit and differ, such as 01/02/2020; BadLayout.
    """
    import pandas

    def parsed(form: str, cells: Sequence[str] = column) -> Any:
        zoned = form == "ISO8601" and any(re.search(r"(Z|[+-]\d\d:?\d\d)$", cell[10:]) for cell in cells)
        return pandas.DatetimeIndex(pandas.to_datetime(list(cells), format=form, errors="coerce", utc=zoned))

    def first_bad(index: Any) -> int | None:
        bad = np.flatnonzero(index.isna())
        return int(bad[0]) if len(bad) else None

    if layout is not None:
        try:
            index = parsed(layout)
        except (ValueError, re.error) as error:  # pandas makes a regular expression of it
            raise BadLayout(str(error)) from None
        return index, first_bad(index)
    known = next((row for row, cell in enumerate(column) if not is_missing(cell)), None)
    if known is None or not re.search(r"\d", column[known]):
        return None
    if _ISO.fullmatch(column[known]):
        index = parsed("ISO8601")
        return None if index[known : known + 1].isna()[0] else (index, first_bad(index))
    layouts = [day + clock for day in _DAYS for clock in _CLOCKS]
    layouts = [form for form in layouts if not parsed(form, column[known : known + 1]).isna()[0]]
    fitting: dict[str, Any] = {form: parsed(form) for form in layouts}
    whole = {form: index for form, index in fitting.items() if not index.isna().any()}
    if len(whole) > 1:
        one, *others = whole
        other = next((form for form in others if not whole[form].equals(whole[one])), None)
        if other is not None:
            row = int(np.flatnonzero(whole[one] != whole[other])[0])
            raise Ambiguous(f"{column[row]!r} may be {one} or {other}", row)
    if not fitting:
        return None
    index = next(iter(whole.values()), max(fitting.values(), key=lambda index: int(index.notna().sum())))
    return index, first_bad(index)
