"""`.ci/run`: which stages may be left out, and what it takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("stage", ["cuda", "emulator-sanitizers", "threads", "sanitizers-avx512", "aarch64"])
def test_guards_name_all_that_their_stages_compile(stage):
    """Whatever the guarded files include is guarded, too."""
    function = SCRIPT[SCRIPT.index("guarded() {") : SCRIPT.index("# digest STAGE")]
    names = subprocess.run(
        ["bash", "-c", f"{function}\nguarded {stage}"], capture_output=True, text=True
    ).stdout.split()
    roots = [ROOT / name for name in names if "*" not in name]
    assert all(root.exists() for root in roots)
    assert {ROOT / "CMakeLists.txt", ROOT / "csrc/CMakeLists.txt"} <= set(roots)
    if stage == "threads":
        roots.append(ROOT / "csrc/kernels")  # its threads are core's
    sources = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*.[chu]*"))]
    for path in (path for path in sources if path.suffix in {".cpp", ".hpp", ".cu", ".cuh"}):
        for name in re.findall(r'#include "(.+)"', path.read_text()):
            other = (path.parent / name).resolve()
            held = any(other == root or other.is_relative_to(root) for root in roots)
            assert held or not other.is_file(), f"{path.name} includes {name}"


@pytest.fixture
def ci(tmp_path):
    """ci(lines, *arguments) -> what ``.ci/run`` says, in a repository of its own, with `lines` before its last part."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("pip", "python", "ccache"):
        (tmp_path / ".venv/bin" / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    (tmp_path / "CMakeLists.txt").write_text("before")
    (tmp_path / ".ci").mkdir()
    subprocess.run("git init -q && git add CMakeLists.txt", shell=True, cwd=tmp_path, check=True)

    def call(lines, *arguments, status=0):
        assert 'chosen=("$@")' in SCRIPT
        (tmp_path / ".ci/run").write_text(SCRIPT.replace('chosen=("$@")', f'{lines}\nchosen=("$@")'))
        done = subprocess.run(["bash", ".ci/run", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout

    return call


QUICK = 'for stage in "${stages[@]}"; do eval "stage_$stage() { echo ran $stage; }"; done\n'


def test_adapters_without_test_before_runs_all_tests(ci):
    assert "--only-skipped" not in (said := ci("", "adapters"))
    assert "--no-skips" in said
    assert "--only-skipped" in ci("stage_test() { test_ran=yes; }", "test", "adapters")


def test_a_stage_is_left_out_once_it_passed_and_until_its_files_change(ci, tmp_path):
    assert "ran threads" in ci(QUICK)
    said = ci(QUICK)
    assert "ran threads" not in said
    assert "ran test" in said
    assert "ran threads" in ci(QUICK, "all")
    (tmp_path / "CMakeLists.txt").write_text("after")
    assert "ran threads" in ci(QUICK)


def test_files_that_change_while_a_stage_runs_have_not_passed(ci):
    lines = QUICK + "stage_threads() { [ -e once ] || { touch once; echo after > CMakeLists.txt; }; echo ran threads; }"
    for expected in (True, True, False):
        assert ("ran threads" in ci(lines)) is expected


def test_a_stage_that_fails_ends_the_run_and_has_not_passed(ci):
    said = ci(QUICK + "stage_threads() { false; }", status=1)
    assert re.search(r"threads +\d+ s  FAILED", said)
    assert "ran aarch64" not in said
    assert "ran threads" in ci(QUICK)
    assert "no stage" in subprocess.run(["bash", ROOT / ".ci/run", "nonsense"], capture_output=True, text=True).stderr
