"""The experiments on the PyTorch backend: what they time computes the same, what they compute, a run of each."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.backend import KINDS, Case, Functional, build
from benchmarks.experiments import accelerate, backend

torch = pytest.importorskip("torch")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recurrent", ["lstm", "gru", "rnn"])
def test_all_libraries_compute_the_same(recurrent, kind):
    case = Case("small", recurrent, T=5, N=4, I=3, H=7, L=1 if kind == "cell" else 2, kind=kind, dtype="float64")
    libraries = build(case, compiled=False)
    wanted = libraries["torch"].results()
    assert {"y", "x"} < set(wanted)
    for name in ("fusedrnn.torch", "functional"):
        found = libraries[name].results()
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-10, atol=1e-12, err_msg=f"{name} {key}")


def test_packed_sequences_are_uneven():
    sizes = Case("small", "gru", T=9, N=6, I=3, H=7, kind="packed").batch_sizes()
    assert 0 < sizes[-1] < sizes[0] == 6
    assert (np.diff(sizes) <= 0).all()
    assert len(Functional(Case("small", "gru", T=9, N=6, I=3, H=7, kind="packed")).forward()[0]) == sizes.sum()


def test_what_is_kept_of_the_advantage():
    turns = {"torch": [8.0, 16.0, 8.0], "fusedrnn.torch": [2.0, 4.0, 2.0], "functional": [1.0, 2.0, 1.0]}
    found = backend.judge(backend.TINY, turns, 1e-7, 2e-7)
    assert (found.torch[0], found.functional[0], found.kept) == (4, 8, 0.5)
    assert found.compiled is None


def test_rounds_are_in_turn():
    seen = []
    work = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    turns = backend.rounds_of(work, 2, turn=0)
    assert "".join(seen) == "aabb" + "aabb" + "bbaa"
    assert {name: len(turn) for name, turn in turns.items()} == {"a": 2, "b": 2}


def test_differences_are_relative():
    figures = accelerate.Figures("tagger", {}, [2.0, 4.0], [1.0, 1.0], [2.0, 4.0], [2.0, 3.0])
    assert figures.differences == [0, 0.25]
    assert figures.times[0] == 3


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", accelerate.NAMES)
def test_accelerated_models_learn_the_same(name):
    figures = accelerate.train(name, 1, 3, small=True)
    assert set(figures.swapped) == {"rnn"}
    assert max(figures.differences) < 1e-4
    assert figures.losses[-1] < figures.losses[0]


def test_backend_runs(tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert command.main(["backend", "addition", "--cells", "gru", "--rounds", "1", "--json", str(file)]) == 0
    said = json.loads(file.read_text())
    assert [r["case"]["kind"] for r in said["results"]] == ["layer", "packed"]
    assert all(0 < r["error"] < 1e-5 and r["kept"] > 0 for r in said["results"])
    assert [o["cell"] for o in said["overhead"]] == ["gru"]
    assert "| addition | gru | packed |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("backend wide", "SHAPE: expected some of count-ones, addition"),
        ("backend small --kinds layer", "none of the shapes is of the kinds layer"),
        ("accelerate chess", "MODEL: expected some of characters, tagger, forecaster, got 'chess'"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err
