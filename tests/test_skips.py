"""What one run skipped, a later one runs or fails on: tests/skips.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = Path(__file__).with_name("skips.py")
TESTS = """
import os
import pytest

@pytest.mark.parametrize("name", ["numpy", "no_such_library"])
def test_of(name):
    if not os.environ.get("INSTALLED"):
        pytest.importorskip("no_such_library", reason="a library is missing")

def test_of_no_library():
    pass

def test_of_the_machine():
    pytest.skip("there is a GPU")
"""
MODULE = """
import os
import pytest

if not os.environ.get("INSTALLED"):
    pytest.skip("a library is missing", allow_module_level=True)

def test_whole_module():
    pass
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(*options, installed="") -> (exit status, the last line)."""
    conftest = f"import runpy\nhooks = runpy.run_path({str(SKIPS)!r})\n"
    conftest += "pytest_addoption, pytest_configure = hooks['pytest_addoption'], hooks['pytest_configure']\n"
    for name, text in {"conftest.py": conftest, "test_one.py": TESTS, "test_two.py": MODULE}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def call(*options, installed=""):
        monkeypatch.setenv("INSTALLED", installed)
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes longer than these tests
        command = [sys.executable, "-m", "pytest", "-q", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    return call


def test_what_was_skipped_runs_once_it_can_and_fails_until_then(run):
    status, said = run()
    assert status == 0
    assert "1 passed, 4 skipped" in said
    status, said = run("--only-skipped", "--no-skips", "--continue-on-collection-errors")
    assert status == 1
    assert "2 failed, 1 skipped, 1 deselected, 1 error" in said
    assert "a library is missing" in said
    assert "install what is missing, or add the reason to tests/skips.py" in said
    status, said = run("--only-skipped", "--no-skips", "--may-skip", "is missing")
    assert status == 0
    assert "4 skipped" in said
    status, said = run("--only-skipped", "--no-skips", installed="yes")
    assert status == 0
    assert "3 passed, 1 skipped, 1 deselected" in said
    _, said = run("--only-skipped", installed="yes")
    assert "1 skipped, 4 deselected" in said


def test_without_a_run_before_all_are_run(run):
    _, said = run("--only-skipped", installed="yes")
    assert "4 passed, 1 skipped" in said
