"""The kernels' machine code: no spills, no local memory, tensor cores where they belong, no more registers than before.

A built module is checked whole: the installed fusedrnn._cuda, or the file that FUSEDRNN_CUDA_MODULE names. Otherwise
nvcc compiles a few kernels for one architecture. The table is tests/cuda/resources.json, which
`python tests/cuda/resources.py MODULE --write` makes anew.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc/cuda"
RESOURCES = runpy.run_path(str(ROOT / "tests/cuda/resources.py"))
ARCHITECTURES = {"sm_80", "sm_90a", "sm_100", "sm_120"}
# What one compilation of a few seconds takes: kernels of the most registers, of each exchange, with tensor cores.
SUBSET = """
#include "prepare.cuh"
#include "recurrence.cuh"
namespace fusedrnn::cuda {
template __global__ void forward<Lstm, Bfloat16, Near>(const Arguments);
template __global__ void backward<Lstm, Bfloat16, Grid>(const Arguments);
template __global__ void backward<Gru, Bfloat16, Launches>(const Arguments);
}
"""

# 128 numbers a thread, where there are registers for 64.
SPILLING = """
__global__ void __launch_bounds__(1024) kernel(float* x, int n) {
  float a[128];
  for (int i = 0; i < 128; ++i) a[i] = x[i * 1024 + threadIdx.x];
  for (int k = 0; k < n; ++k)
    for (int i = 0; i < 128; ++i) a[i] = a[i] * a[(i + 1) % 128] + a[(i + 7) % 128];
  for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x] = a[i];
}
"""


def built_module() -> Path | None:
    if named := os.environ.get("FUSEDRNN_CUDA_MODULE"):
        return Path(named)
    spec = importlib.util.find_spec("fusedrnn._cuda")
    return Path(spec.origin) if spec and spec.origin else None


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(
            f"needs {' and '.join(missing)} on PATH (nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm, nvcc, binutils)"
        )


def nvcc_version() -> str:
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", text)
    return f"nvcc {found[1]}" if found else "nvcc"


def compile_subset(folder: Path, source: str = SUBSET) -> subprocess.CompletedProcess[str]:
    (folder / "subset.cu").write_text(source)
    flags = f"--options-file={CSRC / 'nvcc.flags'}"
    includes = ["-I", str(CSRC / "nvidia"), "-I", str(CSRC)]
    command = ["nvcc", "-O3", flags, *includes, "-arch=sm_90a", "-cubin", "-o", "subset.cubin", "subset.cu"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_no_worse_than_the_table(tmp_path: Path) -> None:
    need("cuobjdump", "nvdisasm", "c++filt")
    module = built_module()
    uses: Any
    if module:
        compiler, uses = RESOURCES["compiler_of"](module), RESOURCES["read"](module)
        assert {where for row in uses.values() for where in row} == ARCHITECTURES
    else:
        need("nvcc")
        compiled = compile_subset(tmp_path)
        assert compiled.returncode == 0, compiled.stderr
        compiler, uses = nvcc_version(), RESOURCES["read"](tmp_path / "subset.cubin", "sm_90a")
        assert len(uses) == SUBSET.count("template")
    same = compiler == RESOURCES["table"]()[0]
    assert RESOURCES["findings"](uses, same, complete=module is not None) == []


def test_the_table_is_whole() -> None:
    """All kernels on all architectures; products in tensor cores have their instructions, and the others none."""
    _, kernels = RESOURCES["table"]()
    cells, products = ("Rnn", "Lstm", "Gru"), ("Fma", "Tf32", "Bfloat16", "Float16")
    exchanges = ("Near", "Grid", "Launches")
    passes = {
        f"{d}<{c}, {p}, {e}>" for d in ("forward", "backward") for c in cells for p in products for e in exchanges
    }
    prepares = {f"prepare<{p}, {g}, {b}>" for p in products for g in (1, 3, 4) for b in ("false", "true")}
    assert set(kernels) == passes | prepares
    for name, row in kernels.items():
        assert set(row) == ARCHITECTURES, name
        in_tensor_cores = name in passes and "Fma" not in name
        assert all((use.tensor > 0) == in_tensor_cores for use in row.values()), name
        assert all(use.registers <= 255 for use in row.values()), name


def test_findings_are_found() -> None:
    """Each kind of worsening is one finding."""
    compiler, kernels = RESOURCES["table"]()
    name, where = "forward<Lstm, Bfloat16, Near>", "sm_90a"
    use = kernels[name][where]

    def found(**changes: int) -> list[str]:
        return list(RESOURCES["findings"]({name: {where: use._replace(**changes)}}, True, complete=False))

    assert compiler.startswith("nvcc ")
    assert found() == []
    for change in (
        {"registers": use.registers + 1},
        {"tensor": use.tensor - 1},
        {"stack": 8},
        {"local": 1},
        {"generic": 1},
    ):
        assert len(found(**change)) == 1, change
    assert len(RESOURCES["findings"]({}, True, complete=True)) == sum(map(len, kernels.values()))


def test_spills_are_compile_errors(tmp_path: Path) -> None:
    need("nvcc")
    compiled = compile_subset(tmp_path, SPILLING)
    assert compiled.returncode != 0
    assert "Registers are spilled" in compiled.stderr
