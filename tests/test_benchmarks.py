"""What is timed against each other computes the same: whole training runs of ours and of NumPy agree."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, workloads

ROOT = Path(__file__).parents[1]
TRAINING = workloads.choose([], list(workloads.CELLS), ["train"], ["float64"])


@pytest.mark.usefixtures("threads")  # a peer sets their number
@pytest.mark.parametrize("workload", TRAINING, ids=lambda w: f"{w.name}-{w.cell}")
def test_trajectories_agree(workload):
    """25 updates in float64: losses, and so everything before them, stay together."""
    small = dataclasses.replace(workload, T=min(workload.T, 7), N=5, I=min(workload.I, 9), H=17)
    ours, numpy = peers.FusedRnn(small, 1), peers.NumPy(small, 1)
    losses = np.array([(ours.run(), numpy.run()) for _ in range(25)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-9)
    assert losses[-1, 0] < losses[0, 0]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", list(workloads.CELLS))
def test_steps_keep_their_state(kind):
    """After two steps ours and NumPy's outputs agree, and differ from those after one."""
    (workload,) = workloads.choose(["small-step"], [kind], ["step"], ["float64"])
    ours, numpy = peers.FusedRnn(workload, 1), peers.NumPy(workload, 1)
    seen = []
    for _ in range(2):
        ours.run()
        numpy.run()
        np.testing.assert_allclose(ours.results()["y"], numpy.results()["y"], rtol=0, atol=1e-12)
        seen.append(ours.results()["y"].copy())
    assert np.abs(seen[1] - seen[0]).max() > 1e-3


def test_no_experiment_named_means_shapes():
    """As the README has it, in a process of its own; and an error is one line."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("python -m benchmarks shapes: unknown shape 'nonsense'; expected one of count-ones")
    assert result.stderr.count("\n") == 1
