"""Dates as people write them, and as ISO 8601 has them: a small translation that can be checked to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np

from fusedrnn.arrays import Array

FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _month(d: date) -> str:
    return _MONTHS[d.month - 1]


def _ordinal(day: int) -> str:
    ending = "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


FORMATS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {_month(d)} {d.year}",
    lambda d: f"{_month(d)} {d.day}, {d.year}",
    lambda d: f"{_DAYS[d.weekday()]}, {d.day} {_month(d)} {d.year}",
    lambda d: f"the {_ordinal(d.day)} of {_month(d)}, {d.year}",
    lambda d: f"{_month(d)[:3]} {_ordinal(d.day)} {d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day:02}/{d.month:02}/{d.year % 100:02}",  # the day first, as in Europe
    lambda d: f"{d.day} {_month(d)[:3].lower()} {d.year % 100:02}",
)


def alphabet() -> tuple[str, str]:
    """Return the characters of dates as people write them, and of ISO 8601."""
    days = [FIRST + timedelta(days=i) for i in range(366)]
    used = {character for d in days for form in FORMATS for character in form(d)} | set("0123456789")
    return "".join(sorted(used)), "-0123456789"


def split(seed: int, held_out: int) -> tuple[Array, Array]:
    """Return the days, counted from the first, that train and those that test, which are none of them: int64."""
    order = np.random.default_rng([seed, 1950]).permutation((LAST - FIRST).days + 1)
    return order[held_out:], order[:held_out]


def written(days: Array, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return days [n] in formats that are drawn, and in ISO 8601."""
    dates = [FIRST + timedelta(days=int(day)) for day in days]
    return [FORMATS[rng.integers(len(FORMATS))](d) for d in dates], [d.isoformat() for d in dates]
