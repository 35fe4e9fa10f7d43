"""Every experiment of the benchmarks: what it computes from its figures, and a run of each at its smallest."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import fusedrnn
from benchmarks import __main__ as command
from benchmarks import flat, limits, peers, report, timing, training, workloads
from benchmarks.experiments import contention, grid, memory, runs, scaling
from fusedrnn import runtime
from fusedrnn.tasks import addition

LIMITS = limits.Limits(1, {"float32": 1e11}, 1e11, 1e10, 1 << 20, 1e-9)
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
SMALL = workloads.Workload("small", T=7, N=5, I=3, H=17, C=3)


# what is drawn and computed


def test_the_grid_is_the_same_for_a_seed():
    drawn = grid.drawn(20, 3)
    assert drawn == grid.drawn(30, 3)[:20]
    assert drawn != grid.drawn(20, 4)
    assert [w.cell for w in drawn] == ["lstm", "gru"] * 10
    for w in drawn:
        assert w.flops <= grid.MOST_FLOPS
        assert all(low <= getattr(w, name) <= high for name, (low, high) in grid.RANGES.items())
    assert sum(w.H % 8 == 0 for w in drawn) < 8, "sizes are not rounded"
    assert {w.L for w in drawn} == {1, 2}


def test_scaling_is_judged_within_a_round():
    """The machine slows down to a third meanwhile; what is off the straight line is found all the same."""
    places = scaling.points(["T"], ["fusedrnn"], 1, 2, cell="gru", mode="infer")
    assert [p.at for p in places] == list(scaling.LADDERS["T"])
    assert {p.workload.cell for p in places} == {"gru"}
    off = [0.5, 0.0, -0.25, 0.0, 0.125]
    turns = {p: [p.at * (1 + x) * drift for drift in (1, 2, 3)] for p, x in zip(places, off, strict=True)}
    assert list(scaling.deviations(turns).values()) == pytest.approx(off)


def test_threads_are_judged_against_one():
    places = scaling.points(["threads"], ["fusedrnn"], 1, 4, mode="train")
    turns = {p: [drift / p.threads * (1 if p.threads == 1 else 1.2) for drift in (1, 5)] for p in places}
    assert list(scaling.deviations(turns).values()) == pytest.approx([0, 0.2, 0.2, 0.2])


def test_the_limit_of_a_single_row():
    """Its recurrent weights come from the cache at each step of either walk; the rest is products."""
    w = dataclasses.replace(SMALL, N=1, H=64, I=32)
    walks = 2 * w.T * 4 * 64 * 64
    slow = dataclasses.replace(LIMITS, cache_bandwidth=1e6)
    products = w.flops / 1e11
    assert slow.seconds(w) == pytest.approx(walks * 4 / 1e6 + products - 2 * walks / 1e11)
    assert dataclasses.replace(LIMITS, cache_bandwidth=1e15).seconds(w) == pytest.approx(products)
    two = dataclasses.replace(w, N=2)
    assert slow.seconds(two) == pytest.approx(two.flops / 1e11)


def test_places_take_turns():
    class Fake:
        def __init__(self):
            self.calls = []

        def turn(self, work, runs, warm=True):
            self.calls.append((work, warm))
            return 1.0

    worker = Fake()
    turns = timing.take_turns({"a": (worker, 1), "b": (worker, 2)}, 3, turn=0)
    assert worker.calls == [(1, False), (2, False)] * 3
    assert turns == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_the_summary_says_where_ours_is_behind():
    def result(peer, ratio, mode):
        work = dataclasses.replace(SMALL, mode=mode)
        return timing.Result(work, peer, 1, 1.0, ratio, ratio, ratio, 0.25, 1e-7)

    rows = [("fusedrnn", 1), ("jax", 4), ("numpy", 2)]
    results = [result(peer, ratio, "train") for peer, ratio in rows]
    results += [result(peer, ratio, "infer") for peer, ratio in [("fusedrnn", 1), ("jax", 0.5)]]
    summary = report.summary(results).splitlines()
    assert summary[0] == "train: the best of the others takes 2.00 times as long, over 1 rows"
    assert summary[2] == (
        "behind: small lstm infer T7 N5 I3 H17 L1, 1 threads: jax 0.50; ours reaches 25 % of the limit"
    )


# what is timed computes what it should


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", flat.ARRAYS)
def test_passes(name):
    work = flat.Pass(name, 4096)
    model = flat.FusedRnnPass(work, 1)
    model.run()
    found, wanted = model.results()["result"], flat.truth(work)["result"]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-7 * np.abs(wanted).max())
    again = model.results()["result"].copy()
    model.run()
    np.testing.assert_array_equal(model.results()["result"], again)


def test_adam_moves_seven_arrays():
    assert flat.Pass("adam", 1000).least_bytes == 28_000


@pytest.mark.usefixtures("threads")
def test_a_training_run_starts_anew_each_time(monkeypatch):
    monkeypatch.setattr(addition, "LONG_SUMS", 9)
    model = training.FusedRnnTraining(training.Training("addition", 2), 1)
    seen = []
    for _ in range(2):
        model.run()
        seen.append(model.results())
    assert seen[0] == seen[1]
    assert seen[0]["last_loss"] < seen[0]["first_loss"]
    assert 0.6 < seen[0]["accuracy"] <= 1


@pytest.mark.usefixtures("threads")
def test_pytorch_trains_to_the_same_figures():
    pytest.importorskip("torch")
    for task in ("addition", "count-ones"):
        ours, theirs = (kind(training.Training(task, 1), 1) for kind in training.TRAININGS.values())
        for model in (ours, theirs):
            model.run()
        for name, value in ours.results().items():
            np.testing.assert_allclose(value, theirs.results()[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_mnist_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path))
    mnist = training.Training("mnist", 1)
    assert "no images" in runs.missing(mnist)
    assert runs.missing(dataclasses.replace(mnist, data="small")) is None
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").touch()
    assert runs.missing(mnist) is None


@LINUX
@pytest.mark.parametrize(("kind", "mode", "times_y"), [("lstm", "train", 6), ("gru", "train", 5), ("rnn", "infer", 1)])
def test_memory_is_as_the_formula_has_it(kind, mode, times_y):
    y = 200 * 64 * 64 * 4
    work = workloads.Workload("memory", T=200, N=64, I=8, H=64, cell=kind, mode=mode)
    assert memory.formula(work) == times_y * y
    found = memory.measure("fusedrnn", work, 1)
    assert 0.97 * found.formula < found.peak < 1.1 * found.formula + 1e6  # scratch
    assert 0 < found.error < 1e-5


# processes


def test_a_child_has_its_own_environment(monkeypatch):
    monkeypatch.setenv("FUSEDRNN_NUM_THREADS", "2")
    changed = {"FUSEDRNN_NUM_THREADS": "3", "FUSEDRNN_ISA": "baseline"}
    config = timing.in_child(1, fusedrnn.show_config, environment=changed)
    assert (config["threads"], config["isa"]) == (3, "baseline")
    assert os.environ["FUSEDRNN_NUM_THREADS"] == "2"
    assert "FUSEDRNN_ISA" not in os.environ


def test_a_library_that_fails_is_named_and_goes_on():
    worker = timing.Worker(peers.FusedRnn, 1)
    with pytest.raises(timing.Failed, match="FusedRnn, no workload: AttributeError"):
        worker.build("no workload")
    assert worker.build(SMALL).keys() == SMALL.weights().keys()
    assert worker.turn(SMALL, 2) > 0
    worker.drop(SMALL)
    with pytest.raises(timing.Failed, match="KeyError"):
        worker.turn(SMALL, 1)
    worker.close()
    assert worker.process.exitcode == 0
    with pytest.raises(timing.Failed, match="its process ended"):
        worker.build(SMALL)


# every command at its smallest

COMMANDS = {
    "shapes": (["addition", "--peers", "numpy"], ()),
    "grid": (["--count", "1", "--seed", "3", "--modes", "infer", "--peers", "numpy"], ()),
    "scaling": (["--axes", "T"], [(scaling, "LADDERS", {"T": (5, 10)})]),
    "isas": (["--shapes", "addition", "--cells", "gru", "--modes", "infer"], ()),
    "memory": (["--cells", "rnn", "--modes", "train", "--peers", "", "--steps", "50"], ()),
    "runs": (["addition", "--epochs", "1", "--peers", ""], [(addition, "ITERATIONS", 3), (addition, "LONG_SUMS", 9)]),
    "contention": (
        ["--parts", "processes", "--threads", "1"],
        [(contention, "TURN", 1e-3), (contention, "WORKLOADS", (SMALL,))],
    ),
    "passes": (["adam", "--elements", "4096", "--peers", ""], ()),
    "variants": (
        [
            "--T=4",
            "--N=3",
            "--I=2",
            "--H=5",
            "--cells=lstm",
            "--modes=train",
            "--variants=lengths,peephole",
            "--peers=",
        ],
        (),
    ),
}
DRAWN = ("grid", "scaling", "isas")  # every kind of picture once


@pytest.fixture
def in_threads(monkeypatch):
    """Threads in place of the processes, which take long to start, and turns of next to no time. What was to be in the
    environment of each."""
    environments = []

    def child(threads, environment, target, *arguments):
        ours, theirs = multiprocessing.Pipe()

        def serve():
            with theirs:
                target(theirs, *arguments)

        environments.append(environment)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return ours, thread

    monkeypatch.setattr(timing, "_child", child)
    monkeypatch.setattr(timing, "TURN", 1e-3)
    monkeypatch.setattr(timing, "PAUSE", 0)
    return environments


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", [pytest.param(n, marks=LINUX if n == "memory" else ()) for n in COMMANDS])
def test_a_run(name, tmp_path, monkeypatch, capsys, in_threads):
    arguments, smaller = COMMANDS[name]
    for owner, attribute, value in smaller:
        monkeypatch.setattr(owner, attribute, value)
    module = importlib.import_module(f"benchmarks.experiments.{name}")
    if hasattr(module, "limits"):
        monkeypatch.setattr(module, "limits", lambda threads, dtypes: dataclasses.replace(LIMITS, threads=threads))
    if name not in DRAWN:
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_bytes(b"\x89PNG"))
    given = [*arguments, "--json", str(tmp_path / "figures.json")]
    if name != "shapes":  # which needs no name
        given.insert(0, name)
    if name != "memory":
        given += ["--rounds", "1"]
    if name != "contention":
        given += ["--plot", str(tmp_path / "figures.png")]
    assert command.main(given) == 0
    assert name == "contention" or (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "figures.json").read_text())
    printed = capsys.readouterr().out
    assert figures["about"] in printed
    found = figures["processes" if name == "contention" else "results"]
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(rows) == len(found) + 1
    if name != "runs":
        assert all(0 <= figure["error"] < 1e-5 for figure in found)
    if name in ("shapes", "grid"):
        assert [figure["peer"] for figure in found] == ["fusedrnn", "numpy"]
        assert all(figure["error"] > 0 and figure["of_limit"] > 0 for figure in found)
    if name == "isas":
        assert [figure["isa"] for figure in found] == runtime.available_isas()
        assert in_threads == [{"FUSEDRNN_ISA": isa} for isa in runtime.available_isas()]
    assert found


@pytest.mark.usefixtures("threads")
def test_a_machines_limits_are_measured(monkeypatch):
    for name, value in {"_SECONDS": 1e-4, "_PRODUCTS": (48,), "_CACHED": (1 << 12,), "_BEYOND": 1 << 12}.items():
        monkeypatch.setattr(limits, name, value)
    found = limits.measure(2, ["float32", "float64"])
    assert (found.threads, list(found.flops), found.memory_bytes) == (2, ["float32", "float64"], 1 << 13)
    rates = [*found.flops.values(), found.cache_bandwidth, found.memory_bandwidth, found.activation]
    assert all(0 < rate < math.inf for rate in rates)
    assert str(found).startswith("2 threads: ")


# command lines


@pytest.mark.parametrize("name", command.EXPERIMENTS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        command.main([name, "--help"])
    assert end.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "shapes addition --peers abacus",
            "--peers: expected some of pytorch, pytorch-compiled, onnxruntime, jax, numpy, frozen, frozen-bfloat16, "
            "frozen-int8, recompute",
        ),
        ("addition --peers numpy --rounds 0", "--rounds: expected at least 1, got 0"),
        ("addition --threads 1,0", "--threads: expected numbers from 1 to 256, got '1,0'"),
        ("addition --threads two", "--threads: expected numbers from 1 to 256, got 'two'"),
        ("addition --modes step", "none of the shapes has one of the modes step"),
        ("addition --json no/folder/file", "--json: expected a file in a folder that can be written to"),
        ("grid --cells lstm,elman", "--cells: expected some of lstm, gru, rnn, got 'elman'"),
        ("grid --threads 0", "--threads: expected a whole number from 1 to 256, got 0"),
        ("scaling --axes L", "--axes: expected some of T, N, H, threads, got 'L'"),
        ("scaling --cell elman", "--cell: expected one of lstm, gru, rnn, got 'elman'"),
        ("isas --shapes one-step", "none of the shapes has one of the modes infer,train"),
        ("memory --steps -3", "--steps: expected a whole number from 1 to 100000, got -3"),
        ("memory --peers numpy", "--peers: expected pytorch or nothing, got numpy"),
        ("runs chess", "unknown task 'chess'; expected one of count-ones, addition, mnist"),
        ("runs mnist --data nowhere", "--data: expected a folder, or one of full, small, fashion, got 'nowhere'"),
        ("contention --parts cores", "--parts: expected some of processes, libraries, got 'cores'"),
        ("variants --variants attention", "--variants: expected some of plain, lengths, packed rows, resets"),
        ("passes adamw", "unknown pass 'adamw'; expected one of sgd, momentum, adam"),
        ("passes --elements 17 --peers ", "--elements: expected a multiple of 16, got 17"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments.split(" "))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_default_experiment_names_the_others(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"{name}:" in said for name in command.EXPERIMENTS)
