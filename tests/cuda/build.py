"""The extension module `emulated`: the CUDA kernels and their bindings, compiled by the C++ compiler over the emulator.

It is built when a test first asks for it, two compilations at once, and kept until a source, a flag or the compiler
changes. Processes of one session share it: the first builds, the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CSRC, TESTS = ROOT / "csrc/cuda", ROOT / "tests/cuda"
FLAGS = ("-std=c++20", "-Og", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
MUTANTS = runpy.run_path(str(TESTS / "mutants.py"), run_name="mutants")
PRODUCTS = ("Fma", "Tf32", "Bfloat16", "Float16")


class Unavailable(Exception):
    """Why the module cannot be built on this machine."""


def load(cache: Path, flags: Sequence[str] = ()) -> Any:
    """The module, from a folder within ``cache``; ``flags`` are for compiler and linker.

    Raises:
        Unavailable: no C++ compiler, or no pybind11. RuntimeError: what the compiler said.
    """
    path = build(cache, flags)
    specification = importlib.util.spec_from_file_location("emulated", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def build(cache: Path, flags: Sequence[str] = ()) -> Path:
    """The module's file."""
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(compiler[0]) is None:
        raise Unavailable(f"there is no C++ compiler {compiler[0]}")
    if importlib.util.find_spec("pybind11") is None:
        raise Unavailable("there is no pybind11: pip install pybind11")
    command = [*compiler, *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", "")), *flags]
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / "lock"):
        folder = cache / _key(command)
        built = folder / "emulated.so"
        if not built.exists():
            for old in cache.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            folder.mkdir()
            _compile(command, folder, built)
    return built


def sources() -> list[Path]:
    """All that the module is made of."""
    folders = (CSRC, ROOT / "csrc/kernels", TESTS / "emulator")
    found = [p for folder in folders for p in folder.iterdir() if p.suffix in (".cpp", ".hpp", ".cu", ".cuh")]
    return sorted([*found, TESTS / "emulated.cpp", TESTS / "mutants.py", Path(__file__)])


def _key(command: Sequence[str]) -> str:
    import pybind11

    digest = hashlib.sha256()
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    for part in (*command, pybind11.__version__, sysconfig.get_config_var("EXT_SUFFIX")):
        digest.update(part.encode() + b"\0")
    for part in (version, *(path.read_bytes() for path in sources())):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _compile(command: Sequence[str], folder: Path, built: Path) -> None:
    import pybind11

    # An ABI of its own: fusedrnn._cuda has the same types, and may be in the same process.
    python = [
        f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", '-DPYBIND11_BUILD_ABI="_emulated"',
    ]  # fmt: skip
    include = [f"-I{TESTS / 'emulator'}", f"-I{CSRC}"]
    units = {"emulated": [*python, str(TESTS / "emulated.cpp")]}  # those that take longest come first
    for product in PRODUCTS:
        defines = [f"-DFUSEDRNN_CUDA_PRODUCT={product}", f"-DFUSEDRNN_CUDA_KERNELS={product.lower()}_kernels"]
        units[product] = [*defines, "-x", "c++", str(CSRC / "kernels.cu")]
    copy = folder / "mutants"
    copy.mkdir()
    kernels = MUTANTS["write"](CSRC, copy)
    for product, cell in MUTANTS["CELLS"].items():
        defines = [f"-DFUSEDRNN_CUDA_PRODUCT={product}", f"-DFUSEDRNN_CUDA_KERNELS={product.lower()}_kernels"]
        units[f"mutated_{product}"] = [*defines, f"-DFUSEDRNN_CUDA_CELL={cell}", "-x", "c++", str(kernels)]
    objects = {name: folder / f"{name}.o" for name in units}
    with ThreadPoolExecutor(2) as pool:
        compiled = [
            pool.submit(_run, [*command, *include, *arguments, "-c", "-o", str(objects[name])])
            for name, arguments in units.items()
        ]
        for one in compiled:
            one.result()
    linked = built.with_suffix(".part")  # the module appears whole or not at all
    undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    _run([*command, "-shared", *undefined, "-o", str(linked), *map(str, objects.values())])
    for o in objects.values():
        o.unlink()
    linked.rename(built)


def _run(command: Sequence[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # a sanitizer's, not for the compiler
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
