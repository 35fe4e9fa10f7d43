"""Runs of tasks: what they leave, how they resume, and the options that do not fit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fusedrnn import cli, nn, optim
from fusedrnn.data import script_font, sentence_pairs, sources
from fusedrnn.data.series import Series
from fusedrnn.plots import pictures
from fusedrnn.tasks import (
    TASKS,
    adding_problem,
    addition,
    caption_scenes,
    count_ones,
    dnc_babi,
    dnc_copy,
    dnc_graph,
    dnc_reuse,
    forecast,
    handwriting,
    lorenz,
    mnist,
    ntm_copy,
    ntm_ngram,
    ntm_recall,
    ntm_repeat_copy,
    polygon,
    sentiment,
    translate_sentences,
)
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Preset, Run, RunError, TaskOption
from fusedrnn.train import Trainer, TrainingInterrupted
from fusedrnn.train.batches import Batches
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint
from tests import strokes_made

PNG = b"\x89PNG\r\n\x1a\n"
STEPS = 5
COUNT_ONES = TASKS["count-ones"]
LITTLE = (
    (count_ones, {"BITS": 8, "TRAINING": 200, "BATCH": 30}),
    (addition, {"HELD_OUT": 50, "LONG_SUMS": 20}),
    (adding_problem, {"STEPS": 10, "UNITS": 8, "HELD_OUT": 50}),
    (mnist, {"UNITS": 8}),
    (polygon, {"TRAINING": 1000, "HELD_OUT": 100, "DRAWN": 50, "UNITS": 8}),
    (
        caption_scenes,
        {
            "TRAINING": 60,
            "TESTED": 20,
            "RECIPE": dataclasses.replace(caption_scenes.RECIPE, units=8, decoder_units=8),
        },
    ),
    (handwriting, {"TRAINING": 60, "HELD_OUT": 20, "READ": 2, "UNITS": 8}),
    (lorenz, {"TRAINING": 30, "HELD_OUT": 10, "POINTS": 190, "FREE_STEPS": 60, "DRAWN": 60}),
    (dnc_copy, {"TESTED": 5}),
    (dnc_reuse, {"TESTED": 5}),
    (dnc_graph, {"TESTED": 5}),
    (dnc_babi, {"TRAINING": 20, "TESTED": 5, "CHECKED": 5}),
    (ntm_copy, {"LENGTHS": (50, 120), "LONG_ROWS": 2}),
    (ntm_repeat_copy, {"LONG_ROWS": 2}),
    (ntm_recall, {"LONG_ROWS": 2}),
    (ntm_ngram, {"TEST_ROWS": 3}),
)


@pytest.fixture(autouse=True, scope="module")
def little_tasks():
    """Every task with little data, made or in place of what is fetched, and a small network: a run takes a moment."""
    rng = np.random.default_rng(0)

    def images(n):
        labels = rng.integers(0, 10, n).astype(np.uint8)
        pixels = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        pixels[np.arange(n), 2 * labels + 3] = 255
        return pixels, labels

    made = sources.Images(*images(300), *images(13), "little images")
    text = sources.Text("".join(rng.choice(list("abc \n"), 5_000)), "a little text")
    texts = [sources.Rated(f"this is {'not ' * (i % 2)}good number {i}", 2 - 4 * (i % 2)) for i in range(60)]
    series = Series(np.sin(np.arange(300) / 2)[:, None] + 0.1 * rng.standard_normal((300, 1)), ("load",), "made", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_images", lambda where, say: made)
        patch.setattr(sources, "load_text", lambda where, say: text)
        patch.setattr(sources, "load_rated", lambda say: dict.fromkeys(sources.RATED, texts))
        patch.setattr(script_font, "load_font", lambda say: strokes_made.glyphs())
        patch.setattr(forecast, "load_series", lambda where, say: series)
        reviews = dataclasses.replace(sentiment.RECIPES["reviews"], embedding=8, units=8)
        patch.setitem(sentiment.RECIPES, "reviews", reviews)
        pairs = [sentence_pairs.Pair(f"Das ist {a} {b}.", f"That is {b} {a}.") for a in "abcdef" for b in "ghijkl"]
        halves = sentence_pairs.Pairs(pairs[4:], pairs[:4], [], "little pairs")
        patch.setattr(sentence_pairs, "load_pairs", lambda where, say: halves)
        little = dataclasses.replace(translate_sentences.RECIPE, embedding=8, units=8, most=8)
        patch.setattr(translate_sentences, "RECIPE", little)
        patch.setitem(TASKS["text"].presets, "default", Preset("", 10, settings={"hidden": 8, "dropout": 0.1}))
        for module, sizes in LITTLE:
            for name, size in sizes.items():
                patch.setattr(module, name, size)
        yield


@dataclasses.dataclass
class Finished:
    """A run with its own picture, and what it returned, announced and gave the picture of the loss to draw."""

    name: str
    out: Path
    json: Path
    metrics: dict[str, float]
    line: str
    told: list[Path]
    lost: list[tuple[Any, ...]]


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory):
    """Every task's run of a few updates, which the tests below look at and leave as it is."""
    folder = tmp_path_factory.mktemp(request.param)
    out, json_file, told, lost = folder / "run", folder / "f.json", [], []

    def draw_loss(path, *rest):  # for itself in tests/test_plots.py
        path.write_bytes(b"")
        lost.append(rest)

    command = Command(steps=STEPS, seed=3, out=out, json=json_file, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw_loss", draw_loss)
        metrics, line = run_task(TASKS[request.param], command, told.append)
    return Finished(request.param, out, json_file, metrics, line, told, lost)


def test_a_short_run_leaves_all_it_should(finished):
    name, out = finished.name, finished.out
    assert finished.told == [out]
    left = {path.name for path in out.iterdir()} - {"best.safetensors"}  # of tasks that take the best epoch
    assert left == {"checkpoint.safetensors", "figures.json", "loss.png", "metrics.jsonl", f"{name}.png"}
    content = (out / f"{name}.png").read_bytes()
    assert content.startswith(PNG)
    assert len(content) > 5_000
    figures = json.loads(finished.json.read_text())
    assert figures == json.loads((out / "figures.json").read_text())
    assert {key: figures[key] for key in ("task", "seed", "steps")} == {"task": name, "seed": 3, "steps": STEPS}
    assert figures["seconds"] > 0
    metrics = finished.metrics
    unknown = {"learned_after"} & metrics.keys()  # nothing is learned so soon
    assert figures["metrics"] == {**metrics, **dict.fromkeys(unknown)}
    assert {metric for metric, value in metrics.items() if not np.isfinite(value)} == unknown
    assert finished.line.startswith(f"{name}: ")
    assert "after 5 updates" in finished.line
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert finished.lost == [(records, f"{name}, preset default, seed 3")]
    last = records[-1]
    assert last["step"] == STEPS
    shared = metrics.keys() & last.keys()
    assert shared
    assert {key: last[key] for key in shared} == {key: metrics[key] for key in shared}


def test_a_resumed_task_ends_in_the_same_bits(no_pictures, tmp_path, monkeypatch, capsys, finished):
    updates, update = itertools.count(1), Trainer._update

    def interrupted(self, *batch):
        if next(updates) == 3:
            signal.raise_signal(signal.SIGINT)  # the step is finished, and saved
        return update(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(TrainingInterrupted):
            run_task(TASKS[finished.name], Command(steps=STEPS, seed=3, out=tmp_path / "parts", progress=False))
    capsys.readouterr()
    assert run_task(TASKS[finished.name], Command(resume=tmp_path / "parts", progress=False))[0] == finished.metrics
    assert "fusedrnn:" not in capsys.readouterr().err, "it does nothing otherwise than it began"
    one, other = (
        read_checkpoint(folder / "checkpoint.safetensors").tensors for folder in (finished.out, tmp_path / "parts")
    )
    assert one.keys() == other.keys()
    assert all((one[key] == other[key]).all() for key in one)


def test_resuming_a_finished_run_only_draws_again(no_pictures, tmp_path, finished):
    out = shutil.copytree(finished.out, tmp_path / "run")
    (out / "loss.png").unlink()
    before = (out / "metrics.jsonl").read_bytes()
    assert run_task(TASKS[finished.name], Command(resume=out, progress=False))[0] == finished.metrics
    assert (out / "loss.png").exists()
    assert (out / "metrics.jsonl").read_bytes() == before


def test_another_schedule_is_said(no_pictures, tmp_path, capsys):
    def task(total):
        return of_one_weight([(ONE, ONE)] * 4, schedule=optim.CosineLR(total))

    run_task(task(4), Command(steps=2, out=tmp_path, progress=False))
    run_task(task(4), Command(resume=tmp_path, steps=3, progress=False))
    assert capsys.readouterr().err == ""
    run_task(task(8), Command(resume=tmp_path, steps=4, progress=False))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fusedrnn: {tmp_path / 'checkpoint.safetensors'}: schedule of update 1 was 0.85")


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
