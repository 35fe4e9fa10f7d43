"""Every plan can run: its blocks fit, and a grid that must be resident together is, by NVIDIA's own formula."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc/cuda"


def occupancy_header() -> Path | None:
    """The toolkit's include folder, beside nvcc or where CUDACXX points."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    folders = [Path(nvcc).resolve().parents[1]] if nvcc else []
    folders += [Path(os.environ["CUDA_HOME"])] if "CUDA_HOME" in os.environ else []
    folders += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    return next((f / "include" for f in folders if (f / "include/cuda_occupancy.h").exists()), None)


def kernels() -> str:
    """The table's registers, in the numbers that occupancy.cpp reads."""
    _, table = runpy.run_path(str(ROOT / "tests/cuda/resources.py"))["table"]()
    cells, products = ["Rnn", "Lstm", "Gru"], ["Fma", "Tf32", "Bfloat16", "Float16"]
    exchanges, majors = ["Near", "Grid", "Launches"], {"sm_80": 8, "sm_90a": 9, "sm_100": 10, "sm_120": 12}
    lines = []
    for name, row in table.items():
        if found := re.fullmatch(r"(forward|backward)<(\w+), (\w+), (\w+)>", name):
            direction, cell, product, exchange = found.groups()
            numbers = [direction == "backward", cells.index(cell), products.index(product), exchanges.index(exchange)]
            lines += [" ".join(map(str, map(int, [*numbers, majors[w], use.registers]))) for w, use in row.items()]
    return "\n".join(lines)


def test_plans_are_resident(tmp_path: Path) -> None:
    include = occupancy_header()
    if include is None:
        pytest.skip("needs cuda_occupancy.h, of CUDA's include folder: set CUDACXX or CUDA_HOME")
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"there is no C++ compiler {compiler[0]}")
    program = tmp_path / "occupancy"
    sources = [str(ROOT / "tests/cuda/occupancy.cpp"), str(CSRC / "plan.cpp")]
    flags = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-I", str(CSRC), "-isystem", str(include)]
    compiled = subprocess.run([*compiler, *flags, *sources, "-o", str(program)], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    run = subprocess.run([program], input=kernels(), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[:4000]
    assert int(run.stdout.split()[-4]) > 50_000
