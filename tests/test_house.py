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
# From the bottom up; a module may import from its own floor and below. What is not named here serves all floors.
FLOORS = (
    ("_core",),
    ("functional", "runtime"),
    ("nn",),
    ("batches", "differentiation", "forecasting", "optim", "sequences"),
    ("bands",),
    ("distributed",),
    ("train", "onnx"),
    ("estimators", "forecaster"),
    ("tasks",),
    ("cli",),
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
    seen = 0
    for path in sorted(package.rglob("*.py")):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fusedrnn"):
                continue
            parts = (node.module or "").split(".")
            rooms = parts[1:2] or [alias.name for alias in node.names]
            for other in rooms:
                if own in floor and other in floor:
                    seen += 1
                    assert floor[other] <= floor[own], f"{path.name} imports {other}"
                served = own not in {"checkpoint", "files", "gates", "gradients", "reference"} or other not in floor
                assert served, f"{path.name} imports {other}"
    assert seen > 20


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
