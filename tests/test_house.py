"""The law of the house: calls go one way, files stay short, and what the documents say can be followed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENDINGS = {".py", ".pyi", ".cpp", ".hpp", ".cu", ".cuh"}
FILES = [path for room in ("csrc", "python", "tests", "benchmarks") for path in sorted((ROOT / room).rglob("*"))]
SOURCES = [path for path in FILES if path.suffix in ENDINGS]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "csrc/README.md", ROOT / "benchmarks/README.md"]

# room -> rooms that it may include from
INCLUDES = {"bindings": {"bindings", "core"}, "core": {"core", "kernels"}, "kernels": {"kernels"}}
# From the bottom up: every room and file of the package. A module may import from its own floor and below.
FLOORS = (
    ("_core", "_cuda", "arrays", "atomic", "environment", "extras", "json_values", "sizes", "spec"),
    ("gradients", "runtime", "sequences"),
    ("reference", "cuda", "scan", "ops"),
    ("cells", "functional"),
    ("decoding", "interop"),
    ("nn",),
    ("differentiation", "optim"),
    ("train", "onnx"),
    ("data", "plots"),
    ("torch", "jax", "estimators"),
    ("tasks",),
    ("cli",),
    ("__init__", "__main__"),
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("room", INCLUDES)
def test_includes_go_one_way(room):
    files = [path for path in SOURCES if path.is_relative_to(ROOT / "csrc" / room)]
    assert files
    for path in files:
        for name in re.findall(r'#include "(.+)"', path.read_text()):
            other = (path.parent / name).resolve()
            assert other.parent.name in INCLUDES[room], f"{path.name} includes {name}"
            is_contract = other.parent.name == room or other.name.endswith("table.hpp")
            assert room != "core" or is_contract, f"{path.name}: {name}"
        knows_python = re.search(r"Python\.h|pybind11|\bpy::", path.read_text())
        assert room == "bindings" or not knows_python, f"{path.name} knows Python"


def test_imports_go_one_way():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    package = ROOT / "python" / "fusedrnn"
    seen = set()
    for path in sorted(package.rglob("*.py")):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        assert own in floor, f"{own} stands on no floor"
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            name = node.module or ""
            if node.level == 2:  # as the reference imports, which needs no compiled module
                name = f"fusedrnn.{name}"
            if not name.startswith("fusedrnn") or name.startswith("fusedrnn."[:-1] + "_"):
                continue
            rooms = name.split(".")[1:2] or [alias.name for alias in node.names]
            for other in rooms:
                seen.add((own, other))
                assert floor.get(other, 0) <= floor[own], f"{path.name} imports {other}"
    assert len(seen) > 100


def test_the_readmes_examples_run():
    """In order, with the variables of those before; short, as examples should be."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for block, lines in zip(blocks, (12, 9, 15, 11, 5), strict=True):
        assert len(block.strip().splitlines()) <= lines
    variables: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), variables)
    assert variables["value"] < 0.01


@pytest.mark.parametrize("page", ["attention", "estimators", "forecast", "gradients", "memory", "your-own-cell"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    """In order, with the variables of those before, where they may write files."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), re.DOTALL)
    assert blocks
    variables: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), variables)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:csrc|tests|benchmarks|python)/[\w./]+)`", path.read_text()):
        assert (ROOT / name).exists(), name
