"""What the build promises: a small module with one public symbol, stubs that tell the truth, complete metadata."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fusedrnn
from fusedrnn import _core

MODULE = Path(_core.__file__)
PACKAGE = Path(fusedrnn.__file__).parent
ROOT = Path(__file__).parents[1]


def test_the_module_is_small():
    assert MODULE.stat().st_size < 8 * 2**20


def test_the_module_exports_its_initialiser_alone():
    """One exported kernel would be enough for another library's symbol of the same name to take its place."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm, of binutils")
    listing = subprocess.run([nm, "-D", "--defined-only", MODULE], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in listing.splitlines()] == ["PyInit__core"]


def cuda_module():
    spec = importlib.util.find_spec("fusedrnn._cuda")
    if spec is None:
        pytest.skip("fusedrnn was built without CUDA")
    return Path(spec.origin)


def test_the_cuda_module_is_small_and_stands_alone():
    """The CUDA runtime is linked in, its symbols are not shown, and no library of CUDA is asked for."""
    module = cuda_module()
    assert module.stat().st_size < 8 * 2**20
    if not (shutil.which("nm") and shutil.which("readelf")):
        pytest.skip("needs nm and readelf, of binutils")
    listing = subprocess.run(
        [shutil.which("nm"), "-D", "--defined-only", module], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == ["PyInit__cuda"]
    dynamic = subprocess.run([shutil.which("readelf"), "-d", module], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert needed
    assert not [name for name in needed if "cuda" in name or "cublas" in name]


def test_the_cuda_module_says_what_is_missing(request):
    cuda_module()
    request.getfixturevalue("emulated")  # which may be in the same process
    from fusedrnn import _cuda, cuda

    reason = cuda.missing()
    assert reason is None or "driver" in reason
    if reason is not None:
        with pytest.raises(RuntimeError, match="driver"):
            _cuda.gpu(0)


def cmake(*arguments, **environment):
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    environment = {**os.environ, **environment}
    return subprocess.run([shutil.which("cmake"), *arguments], capture_output=True, text=True, env=environment)


def configure(folder, **defines):
    """CMake's verdict on a build of this repository with no nvcc to be found."""
    pybind11 = importlib.util.find_spec("pybind11")
    if pybind11 is None:
        pytest.skip("needs pybind11")
    there = Path(pybind11.origin).parent / "share/cmake/pybind11"
    defines = {"Python_EXECUTABLE": sys.executable, "pybind11_DIR": there, **defines}
    options = [f"-D{name}={value}" for name, value in defines.items()]
    return cmake("-S", ROOT, "-B", folder / "build", *options, CUDACXX=str(folder / "no-nvcc"))


def test_cuda_without_nvcc_is_an_error_where_it_is_asked_for(tmp_path):
    done = configure(tmp_path, FUSEDRNN_CUDA="ON")
    assert done.returncode != 0
    assert "FUSEDRNN_CUDA=ON needs a working nvcc" in " ".join(done.stderr.split())


def test_cuda_takes_three_values():
    done = cmake("-DFUSEDRNN_CUDA=perhaps", "-P", ROOT / "csrc/cuda/language.cmake")
    assert done.returncode != 0
    assert "expected OFF, ON or AUTO, got perhaps" in " ".join(done.stderr.split())
    assert cmake("-DFUSEDRNN_CUDA=OFF", "-P", ROOT / "csrc/cuda/language.cmake").returncode == 0


def test_a_second_build_in_a_fresh_environment_compiles_nothing_again(tmp_path):
    """pip builds in an environment that is gone afterwards: no compilation may name a place in it."""
    done = configure(tmp_path, CMAKE_EXPORT_COMPILE_COMMANDS="ON")
    assert done.returncode == 0, done.stderr
    compilations = json.loads((tmp_path / "build/compile_commands.json").read_text())
    assert any("bindings" in one["file"] for one in compilations)
    environment = str(Path(importlib.util.find_spec("pybind11").origin).parent)
    assert not [one["file"] for one in compilations if environment in one["command"]]


def stub_functions():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def built_functions():
    """Names and parameters as pybind11 writes them into the docstrings."""
    functions = {}
    for name in dir(_core):
        documentation = getattr(getattr(_core, name), "__doc__", None) or ""
        if callable(getattr(_core, name)) and (match := re.match(rf"{name}\((.*)\) -> ", documentation)):
            functions[name] = re.findall(r"(\w+): ", match[1])
    return functions


def test_stubs_name_what_the_module_has():
    assert stub_functions() == built_functions()
    assert "forward" in stub_functions()
    names = {name for name in dir(_core) if not name.startswith("__")}
    classes = {"FrozenFloat32", "FrozenFloat64", "FrozenProgram", "Plan", "ProgramKept", "ProgramRun"}
    classes |= {"Reserve", "Settings", "Stack"}
    assert names - built_functions().keys() == {"ELEMENTWISE", "NO_STEPS", "compiler", *classes}


def test_typed():
    assert (PACKAGE / "py.typed").exists()


def test_metadata():
    metadata = importlib.metadata.metadata("fusedrnn")
    assert metadata["Version"] == fusedrnn.__version__ == _core.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    classifiers = metadata.get_all("Classifier")
    for minor in range(10, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    hard = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert [re.match(r"\w+", line)[0] for line in hard] == ["numpy"]
    assert {"train", "test", "bench"} <= set(metadata.get_all("Provides-Extra"))


def test_config_is_complete():
    config = fusedrnn.show_config()
    assert set(config) == {"version", "isas_built", "isas_available", "isa", "threads", "compiler"}
    assert config["isa"] in config["isas_available"]
    assert set(config["isas_available"]) <= set(config["isas_built"])
    assert config["isas_built"][0] == "baseline"
    assert config["threads"] >= 1
    assert re.fullmatch(r"(gcc|clang) \d+\.\d+\.\d+", config["compiler"])


def test_importing_needs_numpy_alone():
    """No extra is imported unless it is used."""
    import sys

    script = (
        "import sys, fusedrnn, fusedrnn.optim, fusedrnn.train, fusedrnn.reference, fusedrnn.functional\n"
        "extras = {'matplotlib', 'rich', 'safetensors', 'sklearn', 'typer', 'torch', 'fusedrnn._cuda'}\n"
        "extras &= set(sys.modules)\n"
        "assert not extras, extras\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
