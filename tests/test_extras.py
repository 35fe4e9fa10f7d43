"""Without an optional library: which one is missing, what needs it, and the extra as it can be installed today."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fusedrnn import extras, load, save
from fusedrnn.train import checkpoint

ROOT = Path(__file__).parents[1]
# what is asked for -> library, extra
NEEDS = {
    "import fusedrnn.onnx": ("onnx", "onnx"),
    "import fusedrnn.torch": ("torch", "torch"),
    "import fusedrnn.jax": ("jax", "jax"),
    "import fusedrnn.cli": ("safetensors", "train"),
    "sys.modules['safetensors'] = types.ModuleType('safetensors'); import fusedrnn.cli": ("typer", "train"),
    "fusedrnn.interop.layouts.to_pytorch({})": ("torch", "torch"),
    "fusedrnn.plots.pictures.new_figure(1, 1)": ("matplotlib", "train"),
}


def test_what_is_missing_is_named_with_its_extra(run_python):
    """In one process that finds none of the libraries."""
    code = f"""
import sys, types
for name in ("onnx", "torch", "jax", "matplotlib", "safetensors", "typer"):
    sys.modules[name] = None
import fusedrnn, fusedrnn.interop.layouts, fusedrnn.plots.pictures
for statement in {list(NEEDS)!r}:
    try:
        exec(statement)
    except (ModuleNotFoundError, SystemExit) as error:
        print(getattr(error, "name", "-"), error)
"""
    done = run_python(code)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for line, (library, extra) in zip(lines, NEEDS.values(), strict=True):
        found = f"needs {library}, which is not installed; in a clone of fusedrnn: pip install '.[{extra}]'"
        assert line.endswith(found), line
        assert line.split()[0] in (library, "-")


def test_files_say_so_before_they_are_touched(tmp_path, monkeypatch):
    for hidden in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, hidden, None)
    path = tmp_path / "x.safetensors"
    for act in (lambda: save({}, path), lambda: checkpoint.write_checkpoint(path, {}, {})):
        with pytest.raises(ModuleNotFoundError, match=r"needs safetensors.*pip install '\.\[train\]'"):
            act()
    path.write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"a file \.safetensors needs safetensors.*'\.\[train\]'"):
        load(path)
    with pytest.raises(ModuleNotFoundError, match=r"a checkpoint needs safetensors.*'\.\[train\]'"):
        checkpoint.make_writable_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists(), "a run that cannot keep a checkpoint must not begin"


def test_a_library_that_is_broken_speaks_for_itself():
    with pytest.raises(ImportError, match="its own words"), extras.needed_for("this", "train"):
        raise ImportError("its own words")


def test_extras_are_those_that_there_are():
    optional = (ROOT / "pyproject.toml").read_text().split("optional-dependencies]")[1]
    declared = re.findall(r"^(\w+) = \[", optional, re.M)
    sources = [path.read_text() for path in (ROOT / "python").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'needed_for\([^)]*"(\w+)"\)', text)}
    named |= {name for text in sources for name in re.findall(r"how_to_install\('(\w+)'\)", text)}
    assert {"train", "mpi", "onnx", "jax", "torch"} == named <= set(declared)


def test_nothing_says_that_a_registry_has_fusedrnn():
    """Until there is a release: `pip install fusedrnn` would give a stranger's package, or nothing."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    files += [path for room in ("python", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    wrong = re.compile(r"pip install (-\S+ )*['\"]?fusedrnn")
    for path in files:
        if path.name not in ("CHANGELOG.md", Path(__file__).name):
            assert not wrong.search(path.read_text()), path
