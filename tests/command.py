"""Fixtures of tests/conftest.py: the command `fusedrnn` in this process, and training without drawing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures as empty files: drawing takes longer than the little training that most tests do."""
    from fusedrnn.plots import pictures

    def draw(path: Path, *rest: object) -> None:
        path.write_bytes(b"")

    for name in (name for name in vars(pictures) if name.startswith("draw_")):
        monkeypatch.setattr(pictures, name, draw)


@pytest.fixture
def command(
    no_pictures: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """command(*arguments): in the folder tmp_path, without pictures and the time that a process takes to start."""
    from fusedrnn import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = ["fusedrnn", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), *capsys.readouterr())

    return run
