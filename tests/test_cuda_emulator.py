"""The emulator of tests/cuda runs right kernels, and names every race, deadlock and planted fault of wrong ones."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CUDA = Path(__file__).parent / "cuda"
COMPILER = shlex.split(os.environ.get("CXX", "")) or [shutil.which("c++") or shutil.which("g++") or ""]

pytestmark = [
    pytest.mark.slow,  # the tests of the kernels use the emulator too
    pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="the emulator needs a C++ compiler: CXX, c++ or g++"),
]


def compiled(source: Path, program: Path, *options: str) -> subprocess.CompletedProcess[str]:
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(CUDA / "emulator"), *options]
    return subprocess.run([*COMPILER, *flags, str(source), "-o", str(program)], capture_output=True, text=True)


def check(folder: Path, seeds: int, *options: str) -> None:
    build = compiled(CUDA / "emulator_checks.cpp", folder / "checks", *options)
    assert build.returncode == 0, build.stderr
    run = subprocess.run([folder / "checks", str(seeds)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


def test_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    check(tmp_path, 10)


def test_with_the_portable_context_switch(tmp_path: Path) -> None:
    check(tmp_path, 2, "-DFUSEDRNN_EMULATOR_UCONTEXT")


def test_under_the_sanitizers(tmp_path: Path) -> None:
    sanitizers = "-fsanitize=address,undefined"
    empty = tmp_path / "empty.cpp"
    empty.write_text("int main() {}\n")
    if compiled(empty, tmp_path / "empty", sanitizers).returncode != 0:
        pytest.skip("the compiler lacks the address or undefined-behaviour sanitizer")
    check(tmp_path, 1, sanitizers, "-fno-sanitize-recover=all")
