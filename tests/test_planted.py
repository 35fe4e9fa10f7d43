"""The list of planted bugs fits the sources, and its runner tells a bug that is noticed from one that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fusedrnn import _core
from tests.planted import __main__ as runner

ROOT = Path(__file__).parents[1]
BUGS = [bug for bugs in runner.LISTS.values() for bug in bugs]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_can_be_planted(bug):
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    assert bug.planted(text) != text
    for test in bug.tests.split():
        path, _, name = test.partition("::")
        assert f"def {name.split('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8") or not name, test


def test_names_are_unique():
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_the_runner_says_which_bugs_are_noticed(monkeypatch, capsys):
    """One of the lists, a comment, and one whose text is not there."""
    noticed = next(bug for bug in BUGS if bug.name == "embedding_keeps_a_callers_single_index")
    title = (ROOT / noticed.file).read_text(encoding="utf-8").splitlines()[0]
    unnoticed = replace(noticed, name="unnoticed", original=title, mutated='"""Another title."""')
    not_there = replace(noticed, name="not_there", original="no such text")
    monkeypatch.setattr(runner, "LISTS", {"some": (noticed, unnoticed, not_there)})
    monkeypatch.setattr(runner, "_current_modules", lambda: [Path(_core.__file__)])  # nothing to compile
    monkeypatch.setattr("sys.argv", ["python -m tests.planted", "--jobs", "1"])
    assert runner.main() == 1
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[3:5] for row in rows] == [
        ["caught", f"{noticed.name}:"], ["survived", "unnoticed:"], ["broken", "not_there:"]
    ]  # fmt: skip
    assert last == "1 caught, 1 survived, 1 broken"
