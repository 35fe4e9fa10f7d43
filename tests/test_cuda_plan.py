"""Every plan can run: its blocks fit, and a grid that must be resident together is, by NVIDIA's own formula."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("sizes", "tier", "rows", "message"),
    [  # sizes: steps, batch, hidden, directions
        ((1 << 14, 1 << 8, 1 << 7, 2), None, None, "steps .* less than 2"),
        ((1 << 15, 1 << 8, 1 << 7, 1), None, None, "steps .* less than 2"),
        ((1, 1, 1 << 15, 1), None, None, "hidden .* less than 2"),
        ((1, 1 << 25, 1, 1), None, None, "batch .* less than 2"),
        ((1, 1, 16, 1), "cluster", None, "hidden 16 does not fit the tier cluster"),
        ((1, 1, 4096, 1), "block", None, "hidden 4096 does not fit the tier block"),
        ((1, 1, 8192, 1), "grid", None, "hidden 8192 does not fit the tier grid"),
        ((1, 1, 40, 1), "grid", 0, "rows: 0 "),
        ((1, 1, 40, 1), "grid", 12, "rows: 12 "),
        ((1, 1, 40, 1), "steps", 8, "rows: 8 .* tier steps"),
        ((1, 1, 128, 1), "block", 16, "rows: 16 "),  # more than four units of rows to a thread
        ((1, 1, 800, 1), "grid", 64, "rows: 64 "),  # more than a block's shared memory
    ],
)
def test_what_has_no_plan_is_refused(
    emulated: Any, sizes: Any, tier: str | None, rows: int | None, message: str
) -> None:
    steps, batch, hidden, directions = sizes
    problem = emulated.Problem(
        emulated.Cell.lstm, emulated.Product.bfloat16, True, steps, batch, hidden, directions
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        emulated.make_plan(problem, emulated.Gpu(9, 0, 132), tier and emulated.Tier[tier], rows)


def test_the_largest_sizes_have_a_plan(emulated: Any) -> None:
    for sizes in ((1 << 14, (1 << 8) - 1, 1 << 7, 2), (1, 1, (1 << 15) - 1, 1), (1, 1 << 23, 1, 1)):
        emulated.make_plan(
            emulated.Problem(emulated.Cell.lstm, emulated.Product.bfloat16, False, *sizes), emulated.Gpu(9, 0, 132)
        )  # fmt: skip


def test_no_array_of_another_name(emulated: Any) -> None:
    problem = emulated.Problem(emulated.Cell.rnn, emulated.Product.fma, False, 1, 1, 1, 1)
    plan = emulated.make_plan(problem, emulated.Gpu(9, 0, 132))
    with pytest.raises(ValueError, match="arrays: there is none of the name dy_n"):
        emulated.run(problem, plan, {"dy_n": 0}, 0, False, 0, 0)


def test_shared_memory_of_known_gpus(emulated: Any) -> None:
    """Kilobytes that a block may have: CUDA's programming guide, table of technical specifications."""
    table = {(8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99, (12, 1): 99}
    assert {of: emulated.Gpu(*of, 100).shared_bytes // 1024 for of in table} == table
