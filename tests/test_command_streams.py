"""The command where the surroundings are poor: no reader, no characters, no home, no output at all."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fusedrnn.data import sources
from fusedrnn.tasks import text

ENVIRONMENT = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "MPLBACKEND": "agg"}
CHARACTERS = ["\n", "\u00e9", "\u65e5", "\U0001f642"]


def start(*arguments, **options):
    command = [sys.executable, "-m", "fusedrnn", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **{"env": ENVIRONMENT, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A text's run with characters that ASCII lacks; its network is not trained."""
    folder = tmp_path_factory.mktemp("run")
    recipe = text.Recipe(hidden=6, embedding=3)
    model = text.build(recipe, len(CHARACTERS), np.random.default_rng(0))
    metadata = {"task": "text", "recipe": dataclasses.asdict(recipe), "vocabulary": CHARACTERS}
    state = json.dumps({"format": 2, "metadata": metadata})
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    (folder / "checkpoint.safetensors").write_bytes(save(tensors, metadata={"fusedrnn.training": state}))
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1"])
def test_a_console_loses_the_characters_that_it_cannot_show(run, encoding):
    process = start("sample", run, "--length", 60, env={**ENVIRONMENT, "PYTHONIOENCODING": encoding})
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    shown = out.decode("latin-1")[:-1]
    assert len(shown) == 60
    assert "?" in shown
    assert ("\u00e9" in shown) == (encoding == "latin-1")


@pytest.mark.parametrize("length", [10, 3_000])
def test_a_reader_that_goes_away_ends_it_quietly(run, length):
    """Before anything is written, or in the middle of it."""
    process = start("sample", run, "--length", length, "--count", 3)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert errors == b""


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["--version"], ["--help"]])
def test_every_command_ends_quietly(arguments):
    process = start(*arguments)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (1, 128 + signal.SIGPIPE)
    assert errors == b""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sh")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(run, closed):
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m fusedrnn sample "$1" --length 5 {closed}', sys.executable, str(run)],
        env=ENVIRONMENT, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_python_m_is_the_command():
    out, errors = start("info", "--json").communicate(timeout=60)
    assert json.loads(out)["version"]
    assert errors == b""
    assert b"train" in start("--help").communicate(timeout=60)[0]


@pytest.fixture
def homeless(monkeypatch):
    def fail(cls=None):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    for name in ("FUSEDRNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_folder_the_way_out_is_named(homeless, command, tmp_path, monkeypatch):
    done = command("train", "mnist", "--steps", 1)
    assert done.returncode == 1
    assert "there is no home folder to keep fetched data in; set FUSEDRNN_CACHE to a folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert command("train", "addition", "--steps", 1, "--quiet").returncode == 0, "it needs no cache"
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))
    assert sources.cache_folder() == tmp_path / "cache"


def test_sigterm_of_the_command_saves_and_ends_with_143(tmp_path):
    process = start("train", "addition", "--epochs", 4, "--out", "run", cwd=tmp_path)
    assert process.stderr.readline().startswith(b"epoch 1")
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b""), errors
    assert b"go on with: fusedrnn train addition --resume run" in errors
    assert b"Traceback" not in errors
