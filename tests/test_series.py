"""CSV files as their owners mean them: the right numbers, or the line and the option that decides."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fusedrnn.data import series
from fusedrnn.data.sources import DataError
from fusedrnn.tasks import TASKS
from fusedrnn.tasks.run import Command, _as_begun
from fusedrnn.tasks.task import Options, RunError

LOAD = 20 + np.arange(40) / 4
HOURS = pd.date_range("2024-01-01", periods=40, freq="h")
DAYS = pd.date_range("2020-01-20", periods=40)
HALF = DAYS[0] - HOURS[0]
FRAME = pd.DataFrame({"load": LOAD}, index=HOURS)


@pytest.fixture
def read(tmp_path):
    """``read(content, **how)``: the series of a file with this text, and what was said of it."""

    def reading(content, **how):
        path = tmp_path / "a.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        said = []
        found = series.load_series(str(path), said.append, **how)
        assert found.source == "a.csv"
        assert found.values.dtype == np.float64
        return found, said[0]

    return reading


def lines(header, *columns, sep=","):
    return "".join(sep.join(map(str, row)) + "\n" for row in [header, *zip(*columns, strict=True)] if row)


FORMS = {
    "pandas with times": (FRAME.to_csv(), {}),
    "pandas with row numbers": (FRAME.reset_index(drop=True).to_csv(), {}),
    "pandas with row numbers, twice": (lines(["Unnamed: 0", "load"], range(40), LOAD), {}),
    "pandas in Europe": (FRAME.to_csv(sep=";", decimal=","), {}),
    "quoted decimal commas": (lines(["load"], [f'"{x:.2f}"'.replace(".", ",") for x in LOAD]), {}),
    "one column of decimal commas": (FRAME.to_csv(index=False, decimal=",", sep=";"), {"decimal": ","}),
    "newest first": (FRAME[::-1].to_csv(), {}),
    "shuffled": (FRAME.sample(frac=1, random_state=0).to_csv(), {}),
    "epochs shuffled": (lines(["epoch", "load"], range(40, 0, -1), LOAD[::-1]), {}),
    "row numbers shuffled": (FRAME.reset_index(drop=True).sample(frac=1, random_state=0).to_csv(), {}),
    "months": (pd.DataFrame({"load": LOAD}, pd.date_range("2000-01-31", periods=40, freq="MS")).to_csv(), {}),
    "working days": (pd.DataFrame({"load": LOAD}, pd.bdate_range("2020-01-02", periods=40)).to_csv(), {}),
    "years": (lines(["year", "load"], range(1900, 1940), LOAD), {}),
    "epochs": (lines(["timestamp", "load"], range(1_600_000_000, 1_600_000_000 + 2400, 60), LOAD), {}),
    "seconds": (lines(["t", "load"], np.arange(40) / 8, LOAD), {}),
    "days as numbers": (lines(["date", "load"], DAYS.strftime("%Y%m%d"), LOAD), {}),
    "days first": (lines(["day", "load"], DAYS.strftime("%d/%m/%Y"), LOAD), {}),
    "months first": (lines(["day", "load"], DAYS.strftime("%m/%d/%Y"), LOAD), {}),
    "German days": (lines(["day", "load"], pd.date_range("2020", periods=40).strftime("%d.%m.%Y"), LOAD), {}),
    "names of months": (lines(["day", "load"], DAYS.strftime("%d-%b-%Y"), LOAD), {}),
    "twelve hours": (lines(["t", "load"], (HOURS + HALF).strftime("%m/%d/%Y %I:%M %p"), LOAD), {}),
    "a day and its hour": (lines(["day", "at", "load"], HOURS.strftime("%Y-%m-%d"), HOURS.strftime("%H:%M"), LOAD), {}),
    "a format given": (lines(["day", "load"], DAYS.strftime("%y%d%m"), LOAD), {"date_format": "%y%d%m"}),
    "two columns of times": (lines(["a", "b", "load"], DAYS[::-1], DAYS, LOAD), {"time": "b"}),
    "times that are ignored": (lines(["a", "load"], ["2020-01-01"] * 40, LOAD), {"time": "none"}),
    "dollars": (lines(["load"], [f"${x:,.2f}" for x in LOAD]), {}),
    "euros": (lines(["day", "load"], DAYS, [f"{x:.2f} €".replace(".", ",") for x in LOAD], sep=";"), {}),
    "tabs": (FRAME.to_csv(sep="\t"), {}),
    "bars": (FRAME.to_csv(sep="|"), {}),
    "spaces": (lines(["a", "load"], ["x"] * 40, LOAD, sep="  "), {"sep": "space"}),
    "another sign": (lines(["a", "load"], ["x"] * 40, LOAD, sep="#"), {"sep": "#"}),
    "as Excel begins": ("sep=;\n" + FRAME.to_csv(sep=";"), {}),
    "as Excel writes Unicode": (FRAME.to_csv(sep="\t").encode("utf-16"), {}),
    "a mark of UTF-8": (b"\xef\xbb\xbf" + lines(["load"], LOAD).encode(), {}),
    "another encoding": (lines(["été", "load"], ["x"] * 40, LOAD).encode("cp1252"), {"encoding": "cp1252"}),
    "line ends of old": (FRAME.to_csv().replace("\n", "\r").encode(), {}),
    "line ends written twice": (FRAME.to_csv().replace("\n", "\r\r\n").encode(), {}),
    "those of one column": (b"load\r\r\n" + b"\r\r\n".join(str(x).encode() for x in LOAD), {}),
    "lines around": ("\n \n" + FRAME.to_csv() + "\n\n", {}),
    "a preamble": ("of a logger\nby X, Y and Z\n" + FRAME.to_csv(), {"header": 3}),
    "a sign at the ends": (lines(["load", ""], LOAD, [""] * 40), {}),
    "asked for": (lines(["load", "b"], LOAD, LOAD), {"columns": "load"}),
    "all quoted": (lines(['"day"', '"load"'], [f'"{d}"' for d in DAYS], [f'"{x}"' for x in LOAD]), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_are_read_as_they_are_meant(read, form):
    content, how = FORMS[form]
    found, _ = read(content, **how)
    assert found.names == ("load",)
    np.testing.assert_array_equal(found.values[:, 0], LOAD)


NUMBERS = {
    "1,234.5": (["1,234.5", "12"], [1234.5, 12]),
    "1.234,5": (["1.234,5", "12"], [1234.5, 12]),
    "1 234,5": (["1 234,5", "12"], [1234.5, 12]),
    "narrow spaces": (["1\u202f234,5", "9\u00a0876\u00a0543"], [1234.5, 9876543]),
    "apostrophes": (["1'234.5", "9\u2019876"], [1234.5, 9876]),
    "many dots": (["1.234.567", "3.456"], [1234567, 3456]),
    "shown by another": (["1,234", "5.5"], [1234, 5.5]),
    "a comma of decimals by another": (["1,234", "5,5"], [1.234, 5.5]),
    "a zero shows it": (["0,123", "1,234"], [0.123, 1.234]),
    "points are decimal": (["1.234", "5.678"], [1.234, 5.678]),
    "the typographer's minus": (["\u22121.5", "-2"], [-1.5, -2]),
    "signs": (["-$1.50", "$-2"], [-1.5, -2]),
    "per cent": (["45 %", "5%"], [45, 5]),
    "exponents": (["1e3", "-2.5E-1"], [1000, -0.25]),
    "the nearest double": (["0.1234567890123456789", "1e23"], [0.1234567890123456789, 1e23]),
}


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers(read, form):
    cells, expected = NUMBERS[form]
    found, _ = read(lines(["a", "b"], ["x", "y"], cells, sep=";"))
    assert found.values[:, 0].tolist() == expected


def test_columns_of_numbers_are_kept_and_the_rest_is_told(read):
    found, said = read("day;a b;kind;n;\n2013-01-01;1.5;x;2;\n2013-01-02;-2e3;y;3;\n2013-01-03;1;y;4;\n")
    assert found.names == ("a b", "n")
    np.testing.assert_array_equal(found.values, [[1.5, 2], [-2e3, 3], [1, 4]])
    assert said == (
        "a.csv: 3 points of a b, n; in order of day, 2013-01-01 00:00:00 to 2013-01-03 00:00:00, frequency D; "
        "left out: kind (no numbers), column5 (empty)"
    )


def test_what_was_done_is_told(read):
    assert "2024-01-02 15:00:00, frequency h, its lines put in that order" in read(FRAME[::-1].to_csv())[1]
    assert "with decimal commas" in read(FRAME.to_csv(sep=";", decimal=","))[1]
    assert "left out: b (not asked for)" in read("a,b\n1,2\n", columns="a")[1]


def test_without_header_columns_are_numbered(read):
    for content in ("\ufeff1,2\r\n\r\n3,4\r\n", "1,2\n3,4"):
        found, _ = read(content)
        assert found.names == ("column1", "column2")
        assert found.values.tolist() == [[1, 2], [3, 4]]


def test_without_header_a_column_of_times_costs_no_line(read):
    found, _ = read("2013-01-01,1.5\n2013-01-02,2.5\n")
    assert found.names == ("column2",)
    assert found.values.tolist() == [[1.5], [2.5]]
    assert read("0;1,5\n1;2,5\n2;2,5\n")[0].values.tolist() == [[1.5], [2.5], [2.5]]


def test_semicolons_part_what_commas_only_could(read):
    """Without a header, both would give two cells a line: but a comma within a number is its decimal sign."""
    found, _ = read(FRAME.to_csv(sep=";", decimal=",", header=False))
    assert found.names == ("column2",)
    np.testing.assert_array_equal(found.values[:, 0], LOAD)
    assert read("a;b,25\na;b,26\n")[0].values.tolist() == [[25], [26]]


@pytest.mark.parametrize(
    ("content", "how", "names"),
    [
        (",0,1\n0,1.5,2\n1,2.5,3\n", {}, ("0", "1")),
        ("day,2019,2020\n2013-01-01,1,2\n2013-01-02,3,4\n", {}, ("2019", "2020")),
        ('"2019","2020"\n1,2\n', {}, ("2019", "2020")),
        ("2019,2020,2021\n1.5,2.5,3.5\n", {"header": 1}, ("2019", "2020", "2021")),
        ("0,1\n1.5,2.5\n", {"header": 0}, ("column1", "column2")),
        ('t,"a, b"\n"x, y","1"\nz,2\n', {}, ("a, b",)),
        (",b\n0,2\n1,4\n", {"columns": ",b"}, ("", "b")),  # as runs of old had it
        ("index,b\n3,2\n1,4\n7,1\n", {}, ("index", "b")),  # it measures something
    ],
)
def test_names(read, content, how, names):
    assert read(content, **how)[0].names == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "expected text in UTF-8, got byte 0x89 at offset 0; --encoding NAME says another"),
        (b"a,b\n1,2\n\x003,4\n", "expected text in UTF-8, got a zero byte at offset 8"),
        (b"a,b\n1,2\n3\n", "line 3, column b: expected a finite number, got ''"),
        (b"a,b\n1,2\n3,4,5\n", "line 3: expected 2 cells as in line 1, got 3 by ','; --sep"),
        (b"sep=;\na;b\n\n1;2\n\n3;4;5\n", "line 6: expected 2 cells as in line 2, got 3 by ';'"),
        (b"a,b\n1,2\n\n3,4\n5,6\n", "line 3, column a: expected a finite number, got ''; fill the gap, or leave"),
        (b"a,b\n1,\n3,4\n", "line 2, column b: expected a finite number, got ''"),
        (b"a,b\n1,NA\n3,4\n", "line 2, column b: expected a finite number, got 'NA'"),
        (b"a,b\n1,inf\n3,4\n", "line 2, column b: expected a finite number, got 'inf'"),
        (b'a,b\n"x\ny",2\nz,n/a\n', "line 4, column b: expected a finite number, got 'n/a'"),
        (b"load\n1\n\n3\n", "line 3, column load: expected a finite number, got ''"),
        (b'load\n1\n""\n3\n', "line 3, column load: expected a finite number, got ''"),
        (b"2020-01-01,\n2020-01-02,3\n", "line 1, column column2: expected a finite number, got ''"),
        (b"NaN\n1\n2\n", "line 1, column column1: expected a finite number, got 'NaN'"),
        (b"a,a\n1,2\n3,4\n", "expected columns of different names, got 'a' twice"),
        (b"a,b\nx,y\nz,w\n", "expected a column of numbers, got none in 2 lines"),
        (b"a b\n1 2\n", "got none in 1 lines; --sep says what separates cells"),
        (b"a,b\n", "has a header and no line after it"),
        (b'a,b\n1,"2\n3,4\n', "line 2: a quote is opened and not closed"),
        (
            b"of a logger\na,b\n1,2\n",
            "line 2: expected 1 cell as in line 1, got 2 by ','.*--header the line of the names",
        ),
        (b"1;2,3\n4;5,6\n".replace(b"2", b"x"), "line 1: may be .*: --sep ',' or --sep ';'"),
        (b"1;2|3\n4;5|6\n", "line 1: may be 2 cells by ';' or 2 cells by '.': --sep ';' or --sep"),
        (b'load\n"1,234"\n"5,678"\n', "line 2, column load: '1,234' may be 1.234 or 1234: --decimal , or --decimal ."),
        (b"a;b\n1,5;2.5\n", "line 2: '1,5' has a decimal comma, line 2: '2.5' a decimal point: --decimal"),
        (b"a;b\n1,5;x\n2.5;x\n", "line 2, column a: '1,5' has a decimal comma and '2.5' a decimal point"),
        (b"load\n20,25\n20,50\n", "line 2: '20,25' may be a number with a comma or two cells: --decimal , for"),
        (b"20,25\n20,05\n", "line 2: '20,05' may be a number with a decimal comma or two cells"),
        (lines([], *np.modf(LOAD * 1.0)[::-1]).replace(".0,0.", ",").encode(), "line 1: '20,0' may be a number with a"),
        (
            b"a,b\n1,$2\n3,\xe2\x82\xac4\n",
            "line 3, column b: expected the same sign beside every number, got '€4' after",
        ),
        (b"0\n1\n2\n", "line 1: '0' may be names, as pandas writes them, or the first point: --header 1 or --header 0"),
        (b"2019,2020,2021\n1.5,2.5,3.5\n", "line 1: '2019, 2020, 2021' may be names"),
        (
            b"d,x\n05/02/2020,1\n06/02/2020,2\n",
            "line 2, column d: '05/02/2020' may be %d/%m/%Y or %m/%d/%Y: --date-form",
        ),
        (
            b"d,x\n2020-01-01,1\n2020-01-02,2\nfoo,3\n",
            "line 4, column d: expected a date as in the other lines, got 'foo'",
        ),
        (b"d,x\n2020-01-01,1\n2020-01-02,2\n,3\n", "line 4, column d: expected a date as in the other lines, got ''"),
        (
            FRAME.drop(HOURS[10:20]).to_csv().encode(),
            "line 12: .* the frequency is h: 10 points are missing, from 2024-",
        ),
        (pd.concat([FRAME[:5], FRAME[4:]]).to_csv().encode(), "line 7: 2024-01-01 04:00:00 comes twice; fill the gap"),
        (FRAME[::-1].drop(HOURS[10]).to_csv().encode(), "line 30: 2024-01-01 11:00:00 comes after 2024-01-01 09"),
        (b",b\n0,2\n1,4\n5,3\n6,2\n", "line 4: 5 comes after 1, where the usual step is 1; .*--time none"),
        (b"timestamp,b\n100,2\n160,4\n220,3\n400,2\n", "line 5: 400 comes after 220, where the usual step is 60"),
        (b"d,x\n2020-01-01,1\n2020-01-02,2\n2020-01-09,3\n2020-02-01,4\n", "line 4: .*: not at equal distances"),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        series.load_series(str(tmp_path / "a.csv"), pytest.fail)


def test_files_have_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("fusedrnn.data.tables._CELLS", 100)
    for content in ("," * 100, "1\n" * 99 + "1\n2", "1;2\n" * 51):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(DataError, match="expected at most 100 cells, got 10"):
            series.read_csv(tmp_path / "a.csv")
    monkeypatch.setattr("fusedrnn.data.tables._FILE_LIMIT", 100)
    with pytest.raises(DataError, match="expected at most 100 bytes, got"):
        series.read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sep": "ab"}, "--sep ab: expected one character, tab or space"),
        ({"sep": "\n"}, "--sep "),
        ({"encoding": "a\0b"}, "--encoding a\0b: there is no such encoding"),
        ({"decimal": ";"}, "--decimal ;: expected . or ,"),
        ({"header": 9}, "--header 9: there is no such line"),
        ({"encoding": "klingon"}, "--encoding klingon: there is no such encoding"),
        ({"columns": "a,c"}, "--columns c: expected some of d, a, k"),
        ({"columns": "k"}, "--columns k: expected a column of numbers, got none"),
        ({"time": "e"}, "--time e: expected one of d, a, k, or none"),
        ({"time": "k"}, "--time k: expected a column of such times, got none"),
        ({"date_format": "%H"}, "--date-format %H: expected a column of such times, got none"),
        ({"date_format": "%Q"}, "--date-format %Q: 'Q' is a bad directive"),
        ({"date_format": "%"}, "--date-format %: stray %"),
        ({"date_format": "%Y %Y"}, "--date-format %Y %Y: redefinition of group name 'Y'"),
    ],
)
def test_options_that_do_not_fit(read, how, message):
    with pytest.raises(DataError, match=message):
        read("d,a,k\n2020-01-01,1.5,x\n2020-01-02,2,y\n", **how)


def test_options_of_files_are_not_for_words():
    with pytest.raises(DataError, match="--date-format: an option of files, not of taylor"):
        series.load_series(None, pytest.fail, date_format="%Y")


def test_without_pandas_it_is_said(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DataError, match=r"takes pandas; in a clone of fusedrnn: pip install '\.\[train\]'"):
        read("a\n1\n")


def test_the_command_hands_its_options_on(monkeypatch):
    forecast, seen = TASKS["forecast"], {}
    preset = forecast.presets["default"]

    def load(where, say, **how):
        seen.update(how, where=where)
        raise DataError("seen")

    monkeypatch.setattr("fusedrnn.tasks.forecast.load_series", load)
    given = {
        "sep": ";",
        "decimal": ",",
        "header": 0,
        "time": "none",
        "columns": "a",
        "date_format": "%Y",
        "encoding": "x",
    }
    with pytest.raises(DataError, match="seen"):
        forecast.setup(Options(preset, 1, None, 0, "a.csv", pytest.fail, forecast.settings(preset, given)))
    assert seen == {"where": "a.csv", **given}


def test_a_run_of_old_goes_on_as_it_was(tmp_path, monkeypatch, read):
    """Options that came later are as their files were read then, or as given now; one that it had stays as it was."""
    state = {"metadata": {"task": "forecast", "preset": "default", "data": "a.csv", "epochs": None, "steps": None}}
    state["seed"] = 0
    state["metadata"]["own"] = {"horizon": 24, "target": None, "period": None}
    monkeypatch.setattr("fusedrnn.tasks.saved.read_checkpoint", lambda path: SimpleNamespace(state=state))
    begun = _as_begun(TASKS["forecast"], Command(resume=tmp_path, own={"sep": ","}))
    assert begun.own == {"horizon": 24, "target": None, "period": None, "time": "none", "sep": ","}
    assert _as_begun(TASKS["forecast"], Command(resume=tmp_path, own={"time": "day"})).own["time"] == "day"
    with pytest.raises(RunError, match="--horizon: the run was begun with 24, got 5"):
        _as_begun(TASKS["forecast"], Command(resume=tmp_path, own={"horizon": 5}))
    found, _ = read(",day,b\n5,2020-01-09,2\n3,2020-01-01,4\n", time="none")
    assert found.names == ("", "b")
    assert found.values.tolist() == [[5, 2], [3, 4]]


def test_ordinary_files_give_the_bits_that_they_gave(read):
    """For what is read of a file that a run goes on with must have the hash that it had."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((50, 2)) * 10.0 ** rng.integers(-9, 9, (50, 2))
    for form in ("{!r}", "{:.3f}", "{:.17g}", "{:e}"):
        cells = [[form.format(float(x)) for x in row] for row in numbers]
        found, _ = read(lines(["day", "a", "b"], [f"day {i}" for i in range(50)], *zip(*cells, strict=True)))
        assert found.names == ("a", "b")
        assert found.values.tobytes() == np.array([[float(cell) for cell in row] for row in cells]).tobytes()
