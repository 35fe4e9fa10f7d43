"""The experiment on steps: every library computes the same as the step in NumPy, and what follows from its figures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import scan_loops, scan_peers
from benchmarks.experiments import scan
from benchmarks.recurrences import NETWORKS, Case, draw

pytest.importorskip("torch")

SMALL = {
    case.network + (f"-{case.heads}" if case.network == "dnc" else ""): case
    for case in (
        Case("lstm", T=3, N=2, I=4, H=5, dtype="float64"),
        Case("layer_norm_lstm", T=3, N=2, I=4, H=5, dtype="float64"),
        Case("ntm", T=3, N=2, I=3, H=5, slots=8, width=4, dtype="float64"),
        Case("dnc", T=3, N=2, I=3, H=5, slots=8, width=4, dtype="float64"),
        Case("dnc", T=3, N=2, I=3, H=5, slots=6, width=5, heads=2, dtype="float64"),
        Case("attention", T=3, N=2, I=4, H=5, S=6, F=7, dtype="float64"),
        Case("window", T=3, N=2, I=4, H=5, heads=2, S=6, F=3, dtype="float64"),
    )
}
OF_LSTM = ("native", "pytorch-layer")


def results(library, case):
    model = scan_peers.FACTORIES[library](case, 1)
    model.run()
    return model.results()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", SMALL)
def test_a_step_is_plain_numpy(name):
    """Row by row and step by step, as it stands, in the arrays' own dtype."""
    case = SMALL[name]
    for dtype, tolerance in (("float64", 1e-13), ("float32", 2e-6)):
        case = dataclasses.replace(case, dtype=dtype)
        p, states, x, context, _ = draw(case)
        wanted = results("pytorch", case)["y"]
        for n in range(case.N):
            state = tuple(leaf[n] for leaf in states)
            given = [] if context is None else [{key: value[n] for key, value in context.items()}]
            for t in range(case.T):
                state, y = NETWORKS[case.network].step(p, state, x[t, n], *given)
                np.testing.assert_allclose(y, wanted[t, n], rtol=0, atol=tolerance)
                assert {leaf.dtype.name for leaf in (y, *state)} == {dtype}


@pytest.fixture
def precision():
    """JAX's, which a peer sets, as it was."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("library", ["fusedrnn", "pytorch-script", "jax", *OF_LSTM])
@pytest.mark.parametrize("name", SMALL)
def test_all_libraries_compute_the_same(name, library, request):
    case = SMALL[name]
    if library == "jax":
        request.getfixturevalue("precision")
    if case.network not in {"pytorch-layer": ("lstm",), "native": ("lstm", "layer_norm_lstm")}.get(library, NETWORKS):
        with pytest.raises(scan_peers.Unsupported):
            scan_peers.FACTORIES[library](case, 1)
        return
    wanted, found = results("pytorch", case), results(library, case)
    assert set(found) == set(wanted)
    assert len(found) == 2 + len(NETWORKS[case.network].parameters(case)) + len(draw(case).state) + bool(case.S)
    for key, value in wanted.items():
        assert np.abs(value).max() > 1e-6
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-13, err_msg=key)


def test_the_loop_for_numba():
    """The same text without its compiler."""
    case = SMALL["lstm"]
    p, state, x, _, dy = draw(case)
    h, c, gates = scan_loops.forward(p["W"], p["U"], p["b"], *state, x)
    gradients = scan_loops.backward(p["W"], p["U"], x, h, c, gates, dy)
    found = {"y": h[1:], **dict(zip(scan_loops.LEAVES, gradients, strict=True))}
    for key, value in results("pytorch", case).items():
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-13, err_msg=key)


def test_arrays_are_those_of_the_middle_of_a_sequence():
    """Weights sum to one, slots differ, and a link has no diagonal, and rows and columns that sum to one at most."""
    states = dict(
        zip(
            ("usage", "link", "writing", "readings"), [draw(SMALL["dnc-2"]).state[i] for i in (4, 6, 7, 8)], strict=True
        )
    )
    np.testing.assert_allclose(states["readings"].sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(states["writing"].sum(-1), 1, rtol=1e-6)
    assert (np.diff(np.sort(states["usage"])) > 0).all()
    assert (np.trace(states["link"], axis1=1, axis2=2) == 0).all()
    assert max(states["link"].sum(axis).max() for axis in (1, 2)) <= 1


def test_what_follows_from_the_turns():
    turns = {"fusedrnn": [(1.0, 2.0), (2.0, 2.0)], "native": [(0.5, 2.0), (1.0, 2.0)], "jax": [(3.0, 8.0), (6.0, 8.0)]}
    truth = {"y": np.full(2, 2.0)}
    found = {"fusedrnn": truth, "native": truth, "jax": {"y": np.array([2.0, 2.5])}}
    figures = scan.judge(SMALL["lstm"], 1, turns, found, truth)
    assert [(f.times[0], f.processor_times[0], f.error) for f in figures] == [(1, 1, 0), (0.5, 1, 0), (3, 4, 0.25)]
    row = scan.summary(figures).splitlines()[-1]
    assert row == "| lstm | T3 N2 I4 H5 | 1.5e+03 | 2.00 | 3 | 3 | 0e+00 |"


def test_the_largest_step_between_row_counts():
    seconds = [(1.0, None), (1.5, 1.5), (4.5, 3.0), (4.5, 1.0)]
    rows = [
        scan.Rows(dataclasses.replace(SMALL["lstm"], N=N), s, None if times is None else (times,) * 3)
        for N, (s, times) in enumerate(seconds, 1)
    ]
    assert scan.rows_table(rows).splitlines()[-1] == "largest step: 3.00, from N2 to N3"


def test_the_experiment_runs(tmp_path, monkeypatch, capsys):
    """At sizes that take no time, in processes of their own."""
    small = dataclasses.replace(SMALL["lstm"], dtype="float32")
    monkeypatch.setitem(scan.CASES, "lstm", small)
    monkeypatch.setattr(scan, "BY_ROWS", (small,))
    monkeypatch.setattr(scan, "MOST_ROWS", 2)
    monkeypatch.setattr(scan, "ON_TWO", (small,))
    monkeypatch.setattr(scan, "cores", lambda: 2)
    monkeypatch.setattr("benchmarks.timing.TURN", 0.001)
    file = tmp_path / "figures.json"
    wanted = ["scan", "--only", "lstm,threads,rows", "--peers", "pytorch", "--rounds", "1", "--json", str(file)]
    assert command.main(wanted) == 0
    said = json.loads(file.read_text())
    assert [r["library"] for r in said["results"]] == ["fusedrnn", "native", "pytorch"]
    assert all(0 < r["error"] < 1e-5 and r["processor"] > 0 for r in said["results"])
    assert [[r["case"]["N"] for r in sweep] for sweep in said["rows"]] == [[1, 2]]
    assert said["threads"][0]["times"][0] > 0
    printed = capsys.readouterr().out
    assert "| lstm | T3 N2 I4 H5 | 1 | native |" in printed
    assert "largest step: " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--only gru", "expected some of lstm, lstm-long"),
        ("--peers theano", "expected some of pytorch-layer, pytorch, pytorch-script"),
        ("--rounds 0", "expected at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["scan", *arguments.split()])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_library_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(scan, "_there", lambda: ["pytorch"])
    with pytest.raises(SystemExit):
        command.main(["scan", "--peers", "numba"])
    assert capsys.readouterr().err.endswith("numba is not installed: pip install numba, or leave it out\n")
