"""A CSV file as a table of cells: its encoding, separator and header found, or asked for where two would fit."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusedrnn.data.columns import dates, is_missing, is_number
from fusedrnn.data.reading import DataError, read_file
from fusedrnn.extras import how_to_install

SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_WORDS = {"tab": "\t", "\\t": "\t", "space": r"\s+", " ": r"\s+"}
_FILE_LIMIT = 256 << 20
_CELLS = 50_000_000
_SAMPLE = 1000  # lines on which separators are tried


class Table(NamedTuple):
    """Columns by place, each with its name ("" for none) and stripped cells; ``lines[i]`` is where row i stands."""

    path: Path
    names: tuple[str, ...]
    columns: list[list[str]]
    lines: list[int]
    named: bool


def read_table(path: Path, sep: str | None, decimal: str | None, header: int | None, encoding: str | None) -> Table:
    """The table in a file of at most 256 MiB. ``header`` is the line of the names, 0 for none, None to find out.

    Lines that are blank between others are rows of empty cells, for they may be gaps. Raises DataError with the line
    and, where two readings fit, the option that decides.
    """
    text = _text(path, encoding)
    found = re.search(r"[^ \t\n]", text)
    if found is None:
        raise DataError(f"{path}: is empty")
    start = text.rfind("\n", 0, found.start()) + 1
    first = text.count("\n", 0, start)
    text = text[start:].rstrip(" \t\n")
    top, _, rest = text.partition("\n")
    if sep is None and (said := re.fullmatch(r"\s*sep=(.)\s*", top, re.IGNORECASE)):
        sep, first, text = said[1], first + 1, rest  # as Excel writes it
    while header and first < header - 1:
        first, text = first + 1, text.partition("\n")[2]
    if header and (first > header - 1 or not text):
        raise DataError(f"{path}: --header {header}: there is no such line of names")
    if not text:
        raise DataError(f"{path}: is empty")
    top, *below = text.split("\n", _SAMPLE)[:_SAMPLE]
    spaced = any(each in top for each in SEPARATORS) and len(below) > 0 and not any(map(str.strip, below[::2]))
    cells = (text.count("\n") + 1) * (1 + max(map(top.count, SEPARATORS)))
    if cells > _CELLS:
        raise DataError(f"{path}: expected at most {_CELLS:,} cells, got {cells:,}")
    separator = _separator(path, text, first, decimal) if sep is None else _WORDS.get(sep, sep)
    if len(separator) != 1 and separator != r"\s+":
        raise DataError(f"--sep {sep}: expected one character, tab or space")
    rows = [[cell.strip() for cell in row] for row in _frame(path, text, separator, first).values.tolist()]
    numbers, line = [], first + 1
    for row in rows:
        numbers.append(line)
        line += 1 + sum(cell.count("\n") for cell in row)
    if spaced:  # a blank line after each other, as line ends give that were written twice
        numbers = [number for number, row in zip(numbers, rows, strict=True) if any(row)]
        rows = [row for row in rows if any(row)]
    if header is None:
        quoted = [line.lstrip().startswith('"') for line in [top, *filter(None, below)][:2]]
        header = _has_header(path, rows, numbers[0], quoted == [True, False])
    names = tuple(rows[0]) if header else tuple(f"column{place + 1}" for place in range(len(rows[0])))
    if header:
        rows, numbers = rows[1:], numbers[1:]
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: expected columns of different names, got {twice!r} twice")
    if not rows:
        raise DataError(f"{path}: has a header and no line after it")
    return Table(path, names, [list(column) for column in zip(*rows, strict=True)], numbers, bool(header))


def _text(path: Path, encoding: str | None) -> str:
    words = "" if path.suffix else ", and not one of the words taylor, weather"
    content = read_file(path, f"--data {path}", _FILE_LIMIT, words)
    expected = encoding or "UTF-8"
    if encoding is None:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        got = f"byte 0x{content[start]:02x} at offset {start:,}"
        raise DataError(f"{path}: expected text in {expected}, got {got}; --encoding NAME says another") from None
    except (LookupError, ValueError):
        raise DataError(f"--encoding {encoding}: there is no such encoding") from None
    if "\0" in text:
        raise DataError(f"{path}: expected text in {expected}, got a zero byte at offset {content.index(0):,}")
    return text.removeprefix("\ufeff").replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def _frame(path: Path, text: str, separator: str, first: int, rows: int | None = None) -> Any:
    """All cells as pandas reads them, as text."""
    try:
        import pandas
    except ImportError:
        raise DataError(f"{path}: to read CSV files takes pandas; {how_to_install('train')}") from None
    try:
        return pandas.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            nrows=rows,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pandas.errors.EmptyDataError:
        raise DataError(f"{path}: is empty") from None
    except pandas.errors.ParserError as error:
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
            wanted, line, got = map(int, found.groups())
            words = (
                f"expected {wanted} cell{'s' * (wanted > 1)} as in line {first + 1}, got {got} by {_named(separator)}"
            )
            raise DataError(
                f"{path}: line {first + line}: {words}; --sep says the separator, --header the line of the names"
            ) from None
        if found := re.search(r"EOF inside string starting at row (\d+)", str(error)):
            raise DataError(f"{path}: line {first + 1 + int(found[1])}: a quote is opened and not closed") from None
        raise DataError(f"{path}: not CSV ({error})") from None
    except ValueError as error:
        raise DataError(f"--sep {separator}: {error}") from None


def _named(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))


def _separator(path: Path, text: str, first: int, decimal: str | None) -> str:
    """The only separator that fits. Raises DataError where none or several do."""
    possible = [each for each in SEPARATORS if each != decimal]
    sample = [line for line in text.split("\n", _SAMPLE)[:_SAMPLE] if line.strip()]
    tables: dict[str, list[list[str]]] = {}
    for each in possible:
        try:
            frame = _frame(path, text, each, first, _SAMPLE)
        except DataError:
            continue
        rows = [row for cells in frame.values.tolist() if any(row := [cell.strip() for cell in cells])]
        if len(rows[0]) > 1 and 2 * sum(each in line for line in sample) >= len(sample):
            tables[each] = rows
    if not tables:
        return _of_one_column(path, text, first, possible)
    able = {each: rows for each, rows in tables.items() if any(is_number(cell) for row in rows[1:] for cell in row)}
    able = able or tables
    if len(able) > 1:  # a comma within a number is its decimal sign; a separator is within no cell
        others = {each: [other for other in able if other != each] for each in able}
        clean = [
            each
            for each, rows in able.items()
            if all(is_number(c) or not any(other in c for other in others[each]) for row in rows for c in row)
        ]
        if len(clean) != 1:
            ways = " or ".join(f"{len(rows[0])} cells by {_named(each)}" for each, rows in able.items())
            options = " or ".join(f"--sep {_named(each)}" for each in able)
            raise DataError(f"{path}: line {first + 1}: may be {ways}: {options}")
        able = {each: able[each] for each in clean}
    separator = next(iter(able))
    if separator == "," and decimal is None and (at := _halved(able[","])) is not None:
        cells = ",".join(able[","][at])
        raise DataError(
            f"{path}: line {first + 1 + at}: {cells!r} may be a number with a decimal comma or two cells: "
            "--decimal , or --sep ,"
        )
    return separator


def _of_one_column(path: Path, text: str, first: int, possible: Sequence[str]) -> str:
    """A separator that parts nothing. Raises DataError where lines differ in their cells."""
    lines = text.split("\n")
    commas = [(at, line) for at, line in enumerate(lines) if "," in line and '"' not in line]
    if "," in possible and commas and all(is_number(line.strip()) for _, line in commas):
        at, line = commas[0]
        raise DataError(
            f"{path}: line {first + 1 + at}: {line!r} may be a number with a comma or two cells: --decimal , for a "
            "decimal comma, --sep ; for one column"
        )
    for each in sorted(possible, key=lines[0].count, reverse=True):
        parted = sum(each in line for line in lines[1:])
        if each in lines[0] or 2 * parted > len(lines[1:]):
            _frame(path, text, each, first)  # says which line differs, unless it is within quotes
    return next((each for each in possible if each not in text), ";")


def _halved(rows: Sequence[Sequence[str]]) -> int | None:
    """A row where two cells look like one number that was cut at its decimal comma: whole ones, and after them digits
    such as 05, or in a file of two columns digits that never end in 0, as the shortest way to write a fraction."""
    whole = [all(re.fullmatch(r"[+-]?\d+", row[place]) for row in rows) for place in range(len(rows[0]))]
    for place in range(1, len(whole)):
        ends = [row[place] for row in rows]
        if whole[place - 1] and whole[place]:
            row = next((at for at, end in enumerate(ends) if len(end) > 1 and end[0] == "0"), None)
            shortest = len(ends) >= 30 and not any(len(end) > 1 and end[-1] == "0" for end in ends)
            if row is None and len(whole) == 2 and shortest and len(set(map(len, ends))) > 1:
                row = 0
            if row is not None:
                return row
    return None


def _has_header(path: Path, rows: Sequence[Sequence[str]], line: int, quoted: bool) -> bool:
    """Whether the first row names the columns. Raises DataError where it may and may not."""
    top, body = rows[0], rows[1:]
    numeric = [is_number(cell) for cell in top]
    if body and any(_is_date(cell) and _is_date(below) for cell, below in zip(top, body[0], strict=True)):
        return False  # the times have begun
    if quoted or not any(number or (is_missing(cell) and cell) for number, cell in zip(numeric, top, strict=True)):
        return True
    for place, cell in enumerate(top):
        below = [row[place] for row in body]
        if not numeric[place] and below and not (cell and is_missing(cell)):
            if all(map(is_number, below)):
                return True  # as before numbers: a name, or nothing, which pandas writes over an index
            if _is_date(below[0]) and not _is_date(cell):
                return True
    counted = [str(place) for place in range(len(top))]
    whole = all(re.fullmatch(r"[+-]?\d+", cell) for cell in top)
    broken = any("." in cell or "," in cell for row in body for cell in row)
    if list(top) == counted or (whole and len(top) > 2 and broken):
        raise DataError(
            f"{path}: line {line}: {', '.join(top)!r} may be names, as pandas writes them, or the first point: "
            f"--header {line} or --header 0"
        )
    return False


def _is_date(cell: str) -> bool:
    if is_number(cell):
        return False
    try:
        found = dates([cell])
    except ValueError:  # several kinds
        return True
    return found is not None and found[1] is None
