"""Tasks: their data is what it says, and short runs leave everything a run should."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fusedrnn import cli, data, nn, optim, plots
from fusedrnn.batches import Batches, in_chunks, shuffled
from fusedrnn.checkpoint import CheckpointError, read_checkpoint
from fusedrnn.series import Series
from fusedrnn.tasks import TASKS, adding_problem, addition, count_ones, forecast, lorenz, mnist, polygon
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Options, Preset, Run, RunError, TaskOption
from fusedrnn.train import Trainer, TrainingInterrupted

PNG = b"\x89PNG\r\n\x1a\n"


def setup(module, seed=0, **options):
    task = {"count_ones": "count-ones", "adding_problem": "adding-problem"}.get(
        module.__name__.rsplit(".", 1)[1], module.__name__.rsplit(".", 1)[1]
    )
    preset = TASKS[task].presets["default"]
    settings = TASKS[task].settings(preset, {})
    return module.setup(
        Options(preset, preset.epochs, preset.steps, seed, say=pytest.fail, settings=settings, **options)
    )


@pytest.fixture
def little_data(tmp_path, monkeypatch):
    """Little images whose class is plain to see, a little text, and little rated texts in place of the real ones."""
    rng = np.random.default_rng(0)

    def images(n):
        labels = rng.integers(0, 10, n).astype(np.uint8)
        pixels = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        pixels[np.arange(n), 2 * labels + 3] = 255
        return pixels, labels

    made = data.Images(*images(300), *images(50), "little images")
    monkeypatch.setattr(data, "load_images", lambda where, say: made)
    text = "".join(rng.choice(list("abc \n"), 5_000))
    monkeypatch.setattr(data, "load_text", lambda where, say: data.Text(text, "a little text"))
    texts = [data.Rated(f"this is {'not ' * (i % 2)}good number {i}", 2 - 4 * (i % 2)) for i in range(60)]
    monkeypatch.setattr(data, "load_rated", lambda say: dict.fromkeys(data.RATED, texts))
    return made


@pytest.fixture(autouse=True)
def little_series(monkeypatch):
    """A short series in place of those that are fetched, and few of Lorenz's trajectories."""
    noise = np.random.default_rng(0).standard_normal((300, 1))
    values = np.sin(np.arange(300) / 2)[:, None] + 0.1 * noise
    monkeypatch.setattr(forecast, "load_series", lambda where, say: Series(values, ("load",), "a series", 0))
    for name, count in {"TRAINING": 30, "HELD_OUT": 10, "FREE_STEPS": 200}.items():
        monkeypatch.setattr(lorenz, name, count)


# data


def test_count_ones_counts():
    numbers = np.array([0, 1, 0b1000000000000000, 0b1011, 2**16 - 1])
    x = count_ones.bits_of(numbers)
    assert x.shape == (16, 5, 1)
    assert x.dtype == np.float32
    assert x[:, 2, 0].tolist() == [1] + 15 * [0]
    assert x.sum((0, 2)).tolist() == [n.bit_count() for n in numbers.tolist()]


def test_count_ones_splits_all_numbers_without_overlap():
    run = setup(count_ones)
    seen = set()
    for x, counts in run.batches(0):
        assert x.shape == (16, 200, 1)
        assert (x.sum((0, 2)) == counts).all()
        seen |= set((x[:, :, 0].T @ 2 ** np.arange(15, -1, -1)).astype(int).tolist())
    assert len(seen) == 10_000
    assert run.baseline["test_error"] == pytest.approx(0.804, abs=0.002)


def test_addition_adds():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 512, (2, 1000))
    x, target = addition.pairs_of_bits(addition.bits_of(a, 10), addition.bits_of(b, 10))
    powers = 2 ** np.arange(10)
    assert (powers @ x[:, :, 0] == a).all()
    assert (powers @ x[:, :, 1] == b).all()
    assert (powers @ target[:, :, 0] == a + b).all()


def test_long_sums_add():
    x, target = addition.random_sums(np.random.default_rng(1), 256, 20)
    for row in range(20):
        a, b, total = (
            int("".join(str(int(bit)) for bit in bits[::-1]), 2) for bits in (*x[:, row].T, target[:, row, 0])
        )
        assert a + b == total


def test_held_out_sums_never_occur_in_training(monkeypatch):
    held = []
    run = setup(addition)
    model = run.model
    monkeypatch.setattr(type(model), "forward", lambda self, x: held.append(x) or np.zeros((*x.shape[:2], 1), x.dtype))
    run.evaluate()
    pairs = {column.tobytes() for column in held[0].transpose(1, 0, 2).astype(np.int8)}
    assert len(pairs) == 1000
    for epoch in range(3):
        for x, target in run.batches(epoch):
            bits = (x > 0.5).astype(np.int8)
            assert (addition.add(bits[:, :, 0], bits[:, :, 1]) == target[:, :, 0]).all()
            assert not pairs & {column.tobytes() for column in np.ascontiguousarray(bits.transpose(1, 0, 2))}


def test_a_class_without_examples_has_no_errors():
    counts = np.array([[0, 0, 0], [1, 3, 0], [0, 0, 2]])
    assert plots.wrong_share(counts).tolist() == [0, 0.25, 0]


def test_adding_problem_marks_two():
    x, total = adding_problem.sequences(np.random.default_rng(0), 500)
    assert x.shape == (100, 500, 2)
    assert total.shape == (500, 1)
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert (marks[:50].sum(0) == 1).all()
    assert (marks[50:].sum(0) == 1).all()
    np.testing.assert_allclose((numbers * marks).sum(0), total[:, 0], rtol=1e-6)
    assert np.mean((total - 1) ** 2) == pytest.approx(1 / 6, rel=0.1)


def test_mnist_rows_and_shifts():
    images = np.zeros((3, 5, 4), np.uint8)
    images[:, 2, 1] = 255
    rows = mnist.rows_of(images)
    assert rows.shape == (5, 3, 4)
    assert rows[2, :, 1].tolist() == [1, 1, 1]
    assert rows.sum() == 3
    moved = mnist.shifted(np.repeat(images, 200, axis=0), np.random.default_rng(0), 2)
    places = np.argwhere(moved == 255)[:, 1:]
    assert places.min(0).tolist() == [0, 0]
    assert places.max(0).tolist() == [4, 3]
    assert np.abs(places - [2, 1]).max() == 2


@pytest.mark.parametrize("module", [count_ones, addition, adding_problem, polygon])
def test_batches_are_a_function_of_seed_and_epoch(module):
    def first(seed, epoch):
        x, target = next(iter(setup(module, seed).batches(epoch)))
        return x.tobytes() + target.tobytes()

    assert first(0, 3) == first(0, 3)
    assert len({first(0, 3), first(0, 4), first(1, 3)}) == 3


def test_seeds_give_other_networks():
    one, same, other = (setup(addition, seed).model.flatten().data for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


def test_shuffled_epochs_are_permutations():
    epochs = shuffled(10, 4, 0, lambda indices, rng: (indices, rng.random(1)))
    for number in range(3):
        batches = list(epochs(number))
        assert len(epochs(number)) == 3
        assert [len(x) for x, _ in batches] == [4, 4, 2]
        assert sorted(np.concatenate([x for x, _ in batches])) == list(range(10))


def test_in_chunks_joins():
    x = np.arange(24.0).reshape(2, 12, 1)
    np.testing.assert_array_equal(in_chunks(lambda part: part[0, :, 0], x, 5), x[0, :, 0])


# runs


@pytest.mark.parametrize("name", TASKS)
def test_a_short_run_leaves_all_it_should(tmp_path, little_data, name):
    out = tmp_path / "run"
    told = []
    steps = 4
    metrics, line = run_task(
        TASKS[name], Command(steps=steps, seed=3, out=out, json=tmp_path / "f.json", progress=False), told.append
    )
    assert told == [out]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["checkpoint.safetensors", "figures.json", "loss.png", "metrics.jsonl", f"{name}.png"]
    )
    for picture in ("loss.png", f"{name}.png"):
        content = (out / picture).read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 5_000
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures == json.loads((out / "figures.json").read_text())
    assert {key: figures[key] for key in ("task", "seed", "steps")} == {"task": name, "seed": 3, "steps": steps}
    assert figures["seconds"] > 0
    assert figures["metrics"] == metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert line.startswith(f"{name}: ")
    assert "after 4 updates" in line
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == steps
    shared = metrics.keys() & last.keys()
    assert shared
    assert {key: last[key] for key in shared} == {key: metrics[key] for key in shared}


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_task_ends_in_the_same_bits(no_pictures, tmp_path, little_data, monkeypatch, capsys, name):
    def run(**options):
        return run_task(TASKS[name], Command(progress=False, **options), lambda _: None)[0]

    whole = run(out=tmp_path / "whole", steps=5)
    updates, update = itertools.count(1), Trainer._update

    def interrupted(self, *batch):
        if next(updates) == 3:
            signal.raise_signal(signal.SIGINT)  # the step is finished, and saved
        return update(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(TrainingInterrupted):
            run(out=tmp_path / "parts", steps=5)
    capsys.readouterr()
    assert run(resume=tmp_path / "parts") == whole
    assert "fusedrnn:" not in capsys.readouterr().err, "it does nothing otherwise than it began"
    one, other = (read_checkpoint(tmp_path / p / "checkpoint.safetensors").tensors for p in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all((one[key] == other[key]).all() for key in one)


@pytest.mark.parametrize("name", TASKS)
def test_resuming_a_finished_run_only_draws_again(no_pictures, tmp_path, little_data, name):
    first = run_task(TASKS[name], Command(steps=2, out=tmp_path, progress=False))[0]
    (tmp_path / "loss.png").unlink()
    assert run_task(TASKS[name], Command(resume=tmp_path, progress=False))[0] == first
    assert (tmp_path / "loss.png").exists()


def test_a_longer_schedule_is_said(no_pictures, tmp_path, little_data, capsys):
    run_task(TASKS["lorenz"], Command(steps=2, out=tmp_path, progress=False))
    run_task(TASKS["lorenz"], Command(resume=tmp_path, steps=3, progress=False))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("fusedrnn:"))
    assert line.startswith(f"fusedrnn: {tmp_path / 'checkpoint.safetensors'}: schedule of update 1 was 0.5")


def of_one_weight(batches, **own):
    """A task whose network is a single weight, which is also what its metric and its figure are."""

    def setup(options):
        model = nn.Linear(1, 1, bias=False, rng=0)

        def weight():
            return {"weight": float(model.weight.data[0, 0])}

        own_part = {"evaluate": weight, "figures": weight, "draw": lambda *_: None, "headline": str, **own}
        return Run(model, nn.MSELoss(), optim.SGD(model, lr=1e-3), batches=lambda epoch: batches, **own_part)

    return dataclasses.replace(COUNT_ONES, setup=setup)


ONE = np.ones((1, 1), "f4")


def test_the_figures_are_those_of_the_best_epoch(no_pictures, tmp_path):
    task = of_one_weight([(ONE, 100 * ONE)], monitor="weight")  # it grows, and the least counts as the best
    metrics, _ = run_task(task, Command(epochs=3, out=tmp_path, progress=False))
    weights = [json.loads(line)["weight"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert metrics["weight"] == weights[0] < weights[1] < weights[2]


def test_a_crash_in_a_long_epoch_costs_a_thousand_updates_at_most(tmp_path):
    def make(i):
        if i == 1_000:
            raise ZeroDivisionError
        return ONE, ONE

    with pytest.raises(ZeroDivisionError):
        run_task(of_one_weight(Batches(5_000, make)), Command(out=tmp_path, progress=False))
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["run"]["step"] == 1_000


def test_presets_say_what_they_are():
    for task in TASKS.values():
        assert {"smoke", "default", "best"} <= task.presets.keys()
        assert all(preset.about for preset in task.presets.values())


COUNT_ONES = TASKS["count-ones"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "--preset: count-ones has smoke, default, best; got huge"),
        ({"epochs": 0}, "--epochs: expected 1 to 1,000,000,000, got 0"),
        ({"steps": -3}, "--steps: expected 1 to 1,000,000,000, got -3"),
        ({"epochs": 1, "steps": 1}, "--epochs and --steps: give one of them"),
        ({"seed": -1}, "--seed: expected at least 0, got -1"),
        ({"data": "x"}, "--data: count-ones makes its own data"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(RunError, match=message):
        run_task(COUNT_ONES, Command(out=tmp_path / "run", progress=False, **options))
    assert not (tmp_path / "run").exists(), "nothing may be made before the options are right"


def test_folders_that_do_not_fit(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RunError, match="is not a folder"):
        run_task(COUNT_ONES, Command(steps=1, out=tmp_path / "file", progress=False))
    with pytest.raises(RunError, match="has contents; choose another folder, or go on with its run: --resume"):
        run_task(COUNT_ONES, Command(steps=1, out=tmp_path, progress=False))
    assert (tmp_path / "file").read_text() == "precious"
    for json_file, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "f.json", "there is no folder")):
        with pytest.raises(RunError, match=message):
            run_task(COUNT_ONES, Command(steps=1, out=tmp_path / "run", json=json_file, progress=False))
    assert not (tmp_path / "run").exists()


def test_default_folders_are_numbered(no_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(2):
        run_task(COUNT_ONES, Command(steps=1, progress=False), folders.append)
    assert [str(folder) for folder in folders] == ["runs/count-ones", "runs/count-ones-2"]


def test_resume_takes_only_what_agrees(no_pictures, tmp_path):
    run_task(COUNT_ONES, Command(steps=1, seed=4, preset="smoke", out=tmp_path / "run", progress=False))
    for options, message in (
        ({"seed": 5}, "--seed: the run was begun with 4, got 5"),
        ({"preset": "best"}, "--preset: the run was begun with smoke, got best"),
        ({"out": tmp_path / "other"}, "--out: not with --resume"),
    ):
        with pytest.raises(RunError, match=message):
            run_task(COUNT_ONES, Command(resume=tmp_path / "run", progress=False, **options))
    with pytest.raises(CheckpointError, match="a run of count-ones, not of addition"):
        run_task(TASKS["addition"], Command(resume=tmp_path / "run", progress=False))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        run_task(COUNT_ONES, Command(resume=tmp_path / "none", progress=False))


@pytest.fixture
def with_options(monkeypatch):
    """A task with options of its own, and the settings that its setups got."""
    got = []
    task = dataclasses.replace(
        COUNT_ONES,
        name="with-options",
        presets={"default": Preset("", 1, 1), "deep": Preset("", 1, 1, {"horizon": 7})},
        setup=lambda options: got.append(options.settings) or COUNT_ONES.setup(options),
        options=(TaskOption("look_back", int, "so many steps", 12), TaskOption("horizon", int, "how far")),
    )
    monkeypatch.setitem(TASKS, task.name, task)
    return task, got


def test_own_options_go_over_presets_over_defaults(no_pictures, tmp_path, with_options):
    task, got = with_options
    for number, (preset, own) in enumerate([(None, {}), ("deep", {}), ("deep", {"horizon": 3, "look_back": 1})]):
        run_task(task, Command(preset, steps=1, out=tmp_path / str(number), own=own, progress=False))
    assert got == [
        {"look_back": 12, "horizon": None},
        {"look_back": 12, "horizon": 7},
        {"look_back": 1, "horizon": 3},
    ]


def test_resume_restores_own_options(no_pictures, tmp_path, with_options):
    task, got = with_options
    run_task(task, Command("deep", steps=1, out=tmp_path / "run", own={"look_back": 3}, progress=False))
    run_task(task, Command(resume=tmp_path / "run", own={"horizon": 7}, progress=False))
    assert got[0] == got[1] == {"look_back": 3, "horizon": 7}
    with pytest.raises(RunError, match="--look-back: the run was begun with 3, got 4"):
        run_task(task, Command(resume=tmp_path / "run", own={"look_back": 4}, progress=False))


def test_own_options_of_another_task(tmp_path, with_options):
    for own, message in (
        ({"look_back": 3}, "--look-back: an option of with-options, not of count-ones"),
        ({"colour": 3}, "--colour: an option of no task, not of count-ones"),
    ):
        with pytest.raises(RunError, match=message):
            run_task(COUNT_ONES, Command(out=tmp_path / "run", own=own, progress=False))
    assert not (tmp_path / "run").exists()


def test_the_command_has_own_options(with_options):
    """typer asks for the value's type, and the options of no task stay None."""
    got = {}

    def train(task: str, **own: Any) -> None:
        got.update(own)

    app = typer.Typer()
    app.command()(cli._with_own_options(train))
    run = CliRunner().invoke
    assert run(app, ["--look-back", "4", "any"]).exit_code == 0
    assert got["look_back"] == 4
    assert got["horizon"] is None
    wrong = run(app, ["any", "--horizon", "far"])
    assert wrong.exit_code == 2
    assert "--horizon" in wrong.output
    shown = cli._tasks_help()
    assert "--look-back: so many steps" in shown
    assert "--horizon: how far" in shown


def test_task_options_count_steps():
    assert Options(Preset("", 3), 3, None, 0).total_steps(10) == 30
    assert Options(Preset("", 3), 3, 7, 0).total_steps(10) == 7
