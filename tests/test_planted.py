"""The list of planted bugs fits the sources, and its runner tells a bug that is noticed from one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusedrnn import _core
from tests.planted import __main__ as runner
from tests.planted.bug import Bug

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
    """A text that a test of this file would notice, one that none does, and one that is not there."""
    of_errors = "python/fusedrnn/gates.py"
    first = (ROOT / of_errors).read_text(encoding="utf-8").splitlines()[0]
    here = "tests/test_planted.py::test_each_bug_can_be_planted"
    bugs = (
        Bug("noticed", "tests/planted/bug.py", "count(self.original)) != 1", "count(self.original)) == 1", here),
        Bug("unnoticed", of_errors, first, '"""Another line.', here),
        Bug("not_there", of_errors, "no such text", "", here),
    )
    monkeypatch.setattr(runner, "LISTS", {"some": bugs})
    monkeypatch.setattr(runner, "_current_modules", lambda: [Path(_core.__file__)])  # nothing to compile
    monkeypatch.setattr("sys.argv", ["python -m tests.planted", "--jobs", "1"])
    assert runner.main() == 1
    said = {line.split("  ")[-1].split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "caught" in said["noticed"]
    assert "survived" in said["unnoticed"]
    assert "broken" in said["not_there"]
    assert "1 caught, 1 survived, 1 broken" in said
