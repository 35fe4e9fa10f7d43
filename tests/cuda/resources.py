"""What the compiler made of the kernels: registers, memory and instructions, read from machine code by cuobjdump.

    python tests/cuda/resources.py MODULE [--write]

compares a built fusedrnn._cuda with the table beside this file, or writes that table. cuobjdump and nvdisasm
come with CUDA, or from the Python registry: nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_suffix(".json")


class Use(NamedTuple):
    """Of one kernel on one architecture; what the table keeps comes first."""

    registers: int  # of a thread
    shared: int  # bytes beside what a launch asks for: the system's own
    tensor: int  # instructions for tensor cores
    stack: int = 0  # bytes of a thread
    local: int = 0  # bytes of a thread, and instructions that read or write them
    generic: int = 0  # loads and stores that leave it to the hardware which memory they mean


KEPT = ("registers", "shared", "tensor")
Uses = dict[str, dict[str, Use]]  # of kernel and architecture

_ARCHITECTURE = re.compile(r"\.target\s+(sm_\w+)|code for (sm_\w+)|arch = (sm_\w+)")
_FUNCTION = re.compile(r"\s*Function\s*:?\s*(\w+)")
_RESOURCES = re.compile(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9]+)")


def _dump(file: Path, kind: str, architecture: str | None) -> list[tuple[str, str, str]]:
    """The lines of cuobjdump's `kind`, each with its architecture and kernel."""
    text = subprocess.run(
        ["cuobjdump", kind, str(file)], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    where, kernel, lines = architecture or "", "", []
    for line in text.splitlines():
        if (found := _ARCHITECTURE.search(line)) and not architecture:
            where = next(name for name in found.groups() if name)
        elif found := _FUNCTION.match(line):
            kernel = found[1]
        elif kernel:
            lines.append((where, kernel, line))
    return lines


def _short(mangled: list[str]) -> dict[str, str]:
    """Names such as forward<Lstm, Bfloat16, Grid>."""
    text = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for symbol, name in zip(mangled, text.splitlines(), strict=True):
        short = re.sub(r"fusedrnn::(cuda|device)::|^void |\(fusedrnn::cuda::Arguments\)$|\((int|bool)\)", "", name)
        names[symbol] = re.sub(r"Half<(b?)float16>", lambda m: "Bfloat16" if m[1] else "Float16", short)
    return names


def read(file: Path, architecture: str | None = None) -> Uses:
    """All kernels of a module, or of a cubin, whose one architecture cuobjdump does not always name."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for where, kernel, line in _dump(file, "-res-usage", architecture):
        if found := _RESOURCES.match(line):
            numbers[kernel, where] = [int(number) for number in found.groups()]
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for where, kernel, line in _dump(file, "-sass", architecture):
        if found := _INSTRUCTION.match(line):
            counts[kernel, where][found[1]] += 1
    names = _short(sorted({kernel for kernel, _ in numbers}))
    uses: Uses = defaultdict(dict)
    for (kernel, where), (registers, stack, shared, local) in sorted(numbers.items()):
        count = counts[kernel, where]
        uses[names[kernel]][where] = Use(
            registers,
            shared,
            tensor=sum(n for name, n in count.items() if name.endswith("MMA")),
            stack=stack,
            local=local + count["LDL"] + count["STL"],
            generic=count["LD"] + count["ST"],
        )
    return dict(uses)


def table() -> tuple[str, Uses]:
    """The compiler of the committed table, and what it made of the kernels."""
    content = json.loads(TABLE.read_text())
    kernels = {
        name: {where: Use(**dict(zip(KEPT, numbers, strict=True))) for where, numbers in row.items()}
        for name, row in content["kernels"].items()
    }
    return content["compiler"], kernels


def write(compiler: str, uses: Uses) -> None:
    """A line for each kernel."""
    rows = [
        f"    {json.dumps(name)}: {json.dumps({where: use[: len(KEPT)] for where, use in row.items()})}"
        for name, row in sorted(uses.items())
    ]
    head = f'{{\n  "compiler": {json.dumps(compiler)},\n  "columns": {json.dumps(KEPT)},\n  "kernels": {{\n'
    TABLE.write_text(head + ",\n".join(rows) + "\n  }\n}\n")


def findings(uses: Uses, same_compiler: bool, complete: bool) -> list[str]:
    """What is worse than the table, in words. `complete`: every kernel of the table is expected."""
    _, expected = table()
    found = []
    for name, row in uses.items():
        for where, use in row.items():
            what = f"{name} on {where}"
            found += [f"{what}: {use.stack} bytes of stack"] * (use.stack > 0)
            found += [f"{what}: local memory, {use.local} bytes and instructions"] * (use.local > 0)
            found += [f"{what}: {use.generic} generic loads and stores"] * (use.generic > 0)
            bar = expected.get(name, {}).get(where)
            if bar is None:
                found.append(f"{what}: not in the table")
                continue
            if use.tensor != bar.tensor:
                found.append(f"{what}: {use.tensor} instructions for tensor cores, {bar.tensor} in the table")
            if same_compiler and use.registers > bar.registers:
                found.append(f"{what}: {use.registers} registers, {bar.registers} in the table")
            if use.shared > bar.shared:
                found.append(f"{what}: {use.shared} bytes of shared memory, {bar.shared} in the table")
    if complete:
        gone = [f"{n} on {w}: missing" for n, row in expected.items() for w in row if w not in uses.get(n, {})]
        found += gone
    return found


def compiler_of(module: Path) -> str:
    """What the extension module says of its compiler, in a process of its own: pybind11 takes a module's types once."""
    script = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('_cuda', sys.argv[1]);"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); print(module.compiler)"
    )
    command = [sys.executable, "-c", script, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    module, writes = Path(sys.argv[1]), sys.argv[2:] == ["--write"]
    compiler, uses = compiler_of(module), read(module)
    if writes:
        write(compiler, uses)
    worse = findings(uses, compiler == table()[0], complete=True)
    print("\n".join(worse) or f"{sum(map(len, uses.values()))} kernels as in the table")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
