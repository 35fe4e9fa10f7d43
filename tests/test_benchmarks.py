"""What is timed against each other computes the same: whole training runs of ours and of NumPy agree, and so does
the printed table's error."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, workloads

ROOT = Path(__file__).parents[1]


@pytest.mark.usefixtures("threads")  # a peer sets their number
@pytest.mark.parametrize("name", list(workloads.WORKLOADS))
def test_trajectories_agree(name):
    """100 updates in float64: losses, and so everything before them, stay together."""
    workload = workloads.WORKLOADS[name]
    small = dataclasses.replace(workload, T=min(workload.T, 7), N=5, H=17)
    ours, numpy = peers.FusedRnn(small, 1, "float64"), peers.NumPy(small, 1, "float64")
    losses = np.array([(ours.step(), numpy.step()) for _ in range(100)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-9)
    assert losses[-1, 0] < losses[0, 0]


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_table(tmp_path):
    result = run("addition", "--peers", "numpy", "--rounds", "2", "--json", str(tmp_path / "figures.json"))
    assert result.returncode == 0, result.stderr
    rows = [line.split("|") for line in result.stdout.splitlines() if line.startswith("| addition")]
    assert [row[4].strip() for row in rows] == ["fusedrnn", "numpy"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["peer"] for figure in figures] == ["fusedrnn", "numpy"]
    assert all(0 < figure["error"] < 1e-5 and figure["seconds"] > 0 for figure in figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown workload 'nonsense'"),
        (["addition", "--peers", "abacus"], "unknown library 'abacus'"),
        (["addition", "--rounds", "0", "--peers", "numpy"], "--rounds: expected at least 1, got 0"),
        (["addition", "--threads", "1,0", "--peers", "numpy"], "--threads: expected numbers from 1 to 256, got '1,0'"),
        (["addition", "--threads", "two", "--peers", "numpy"], "--threads: expected numbers from 1 to 256, got 'two'"),
    ],
)
def test_wrong_arguments(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
