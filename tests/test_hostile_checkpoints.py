"""Checkpoints that somebody else wrote, or nobody should have: resume, sample and predict name the field."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fusedrnn import nn, optim
from fusedrnn.tasks import TASKS, SampleOptions, polygon, sentiment, text
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.sample import sample_run
from fusedrnn.tasks.task import Preset, Run, RunError, TaskOption
from fusedrnn.train import Trainer
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint
from fusedrnn.train.stored import Part
from fusedrnn.train.tbptt import Windows

TOKENS = np.random.default_rng(0).integers(0, 4, (13, 2))
DEEP = "[" * 5000 + "]" * 5000
GONE = object()
WRONG = [
    GONE, None, True, -1, 0, 10**6, 2**63, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../../etc", [], {},
    [1], ["a", "a"], {"a": 1}, {"tuple": "state.0"}, {"tuple": [{"list": ["state.9"]}]}, ["x", 1], [[[[]]]],
]  # fmt: skip


def write(path: Path, tensors, state):
    """As it is: values that JSON has no word for included."""
    path.write_bytes(
        save(tensors, metadata={"fusedrnn.training": state if isinstance(state, str) else json.dumps(state)})
    )


def places(value, at=()):
    """Where values are in nested dicts and lists."""
    yield at
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*at, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def with_value(state, at, value):
    changed = copy.deepcopy(state)
    holder = changed
    for key in at[:-1]:
        holder = holder[key]
    if value is GONE:
        del holder[at[-1]]
    else:
        holder[at[-1]] = value
    return changed


# the Trainer


def make(out=None):
    rng = np.random.default_rng(1)
    model = nn.Sequential(
        nn.Embedding(4, 3, rng=rng), nn.LSTM(3, [4, 3], dropout=0.2, rng=rng), nn.Linear(3, 4, rng=rng)
    )
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        optim.Adam(model, lr=0.01),
        batches=lambda epoch: Windows([(TOKENS[:-1], TOKENS[1:])], 3),
        epochs=3,
        monitor="loss",
        progress=False,
        schedule=optim.CosineLR(12),
        metadata={"of": "any kind"},
        out=out,
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    trainer = make(folder)
    trainer.steps = 6
    trainer.fit()
    return folder, read_checkpoint(folder / "checkpoint.safetensors"), (folder / "metrics.jsonl").read_bytes()


def resume(folder):
    trainer = make(folder)
    before = trainer.model.flatten().data.copy(), trainer.optimizer.state_dict(), trainer.model.rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.resume()
    except CheckpointError as error:
        now = trainer.model.flatten().data, trainer.optimizer.state_dict(), trainer.model.rng_state()
        np.testing.assert_equal(now, before)
        return str(error)
    return trainer


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: "gone" if value is GONE else repr(value)[:20])
def test_any_field_of_any_kind_is_one_error_or_goes_on(tmp_path, begun, wrong):
    _, (tensors, state), metrics = begun
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    path = tmp_path / "checkpoint.safetensors"
    refused = 0
    for at in places(state):
        if at and at[0] != "metadata":
            write(path, tensors, with_value(state, at, wrong))
            found = resume(tmp_path)
            if isinstance(found, str):
                refused += 1
                assert path.name in found or "metrics.jsonl" in found, found
                assert len(found) < 1000
            else:
                assert found.step >= 0
    assert refused > 10


@pytest.mark.parametrize(
    ("at", "wrong", "words"),
    [
        (("run",), GONE, "run: missing"),
        (("run",), [], "run: expected an object, got []"),
        (("run", "step"), "6", "run.step: expected an integer from 0, got '6'"),
        (("run", "step"), True, "run.step: expected an integer from 0, got True"),
        (("run", "step"), -1, "run.step: expected an integer from 0, got -1"),
        (("run", "step"), 10**400, "run.step: expected an integer from 0, got 1000"),
        (("run", "best"), "x", "run.best: expected a finite number, got 'x'"),
        (("run", "best"), float("nan"), "run.best: expected a finite number, got nan"),
        (("run", "epoch"), GONE, "run: missing epoch"),
        (("run", "more"), 1, "run: unknown more"),
        (("run", "batch"), 10**6, "run.batch: expected less than the 4 of the epoch, got 1000000"),
        (("seed",), GONE, "seed: missing"),
        (("seed",), "0", "seed: expected an integer"),
        (("optimizer",), 3, "optimizer: expected a string, got 3"),
        (("optimizer_state",), None, "optimizer_state: expected an object, got None"),
        (("optimizer_state", "steps"), 2**63, "optimizer_state.steps: expected an integer from 0"),
        (("optimizer_state", "lr"), -0.1, "optimizer_state.lr: expected a number from 0, got -0.1"),
        (("optimizer_state", "lr"), "fast", "optimizer_state.lr: expected a finite number, got 'fast'"),
        (("rng",), [1], "rng: expected an object, got [1]"),
        (("carried",), GONE, "carried: missing"),
        (("metadata",), 1, "metadata: expected an object, got 1"),
        (("settings",), "x", "settings: expected an object, got 'x'"),
    ],
)
def test_the_field_is_named(tmp_path, begun, at, wrong, words):
    _, (tensors, state), metrics = begun
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    write(tmp_path / "checkpoint.safetensors", tensors, with_value(state, at, wrong) if wrong is not GONE or at else {})
    assert words in str(resume(tmp_path))


@pytest.mark.parametrize("name", ["pos", "buffer_pos"])
@pytest.mark.parametrize("place", [-1, 625, 10**9, 2**70])
def test_positions_in_a_generators_state_are_checked(name, place):
    """NumPy reads wherever they point."""
    kind = np.random.MT19937 if name == "pos" else np.random.Philox
    layer = nn.Dropout(0.5, rng=np.random.Generator(kind(0)))
    state = layer.rng_state()
    ((key, own),) = state.items()
    (own["state"] if name == "pos" else own)[name] = place
    before = layer.rng_state()
    with pytest.raises(ValueError, match=rf"rng_state: {key}\..*{name}: expected "):
        layer.set_rng_state(state)
    assert layer.rng_state() == before


NESTED = '{"format": 2, "run": ' + DEEP + "}"


@pytest.mark.parametrize(
    "text", ["1" * 5000, DEEP, NESTED, "NaN", ""], ids=["digits", "deep", "nested", "nan", "empty"]
)
def test_json_of_any_depth_and_length(tmp_path, text):
    write(tmp_path / "checkpoint.safetensors", {"model.a": np.zeros(3)}, text)
    assert "checkpoint.safetensors: " in str(resume(tmp_path))


TENSORS = {
    "none": lambda t: {},
    "one less": lambda t: {k: v for k, v in t.items() if k != "model.0.weight"},
    "one more": lambda t: {**t, "model.x": np.zeros(2)},
    "another dtype": lambda t: {**t, "model.0.weight": t["model.0.weight"].astype("f8")},
    "another shape": lambda t: {**t, "model.0.weight": t["model.0.weight"].T.copy()},
    "optimizer of another size": lambda t: {**t, "optimizer.exp_avg": np.zeros(1, "f4")},
    "no optimizer": lambda t: {k: v for k, v in t.items() if not k.startswith("optimizer.")},
    "no carried state": lambda t: {k: v for k, v in t.items() if not k.startswith("state")},
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(tmp_path, begun, name):
    _, (tensors, state), metrics = begun
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    write(tmp_path / "checkpoint.safetensors", TENSORS[name](tensors), state)
    assert "of another model or optimizer" in str(resume(tmp_path))


def test_every_truncation_is_refused(tmp_path, begun):
    folder, _, metrics = begun
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    content = (folder / "checkpoint.safetensors").read_bytes()
    for length in [*range(0, 64), *range(64, len(content), 97)]:
        (tmp_path / "checkpoint.safetensors").write_bytes(content[:length])
        assert "truncated, or not a safetensors file" in str(resume(tmp_path))


def test_a_damaged_best_is_named(tmp_path, begun):
    folder, _, metrics = begun
    for name in ("checkpoint.safetensors", "best.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    assert not isinstance(resume(tmp_path), str)
    _, state = read_checkpoint(folder / "best.safetensors")
    for change in (lambda: b"", lambda: (folder / "best.safetensors").read_bytes()[:-9]):
        (tmp_path / "best.safetensors").write_bytes(change())
        assert "best.safetensors: truncated" in str(resume(tmp_path))
    write(tmp_path / "best.safetensors", {"model.x": np.zeros(2)}, state)
    assert "best.safetensors: of another model" in str(resume(tmp_path))


# the command


def of_a_task(name, options=()):
    """A light task under a real one's name, with presets and options of its own."""

    def setup(options):
        model = nn.Linear(1, 1, rng=0)
        one = np.ones((1, 1), "f4")
        none = {"evaluate": dict, "figures": dict, "draw": lambda *_: None, "headline": str}
        batches = lambda epoch: [(one, one)]  # noqa: E731
        return Run(model, nn.MSELoss(), optim.SGD(model, lr=0.1), batches=batches, metadata={"sha": "abc"}, **none)

    presets = {"default": Preset("", 2)}
    return dataclasses.replace(TASKS[name], setup=setup, presets=presets, options=options, data="a path")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: "gone" if value is GONE else repr(value)[:20])
def test_resuming_with_the_command_is_one_error_or_goes_on(no_pictures, tmp_path, monkeypatch, wrong):
    task = of_a_task("count-ones", (TaskOption("count", int, "", 3), TaskOption("rate", float, "", 0.5)))
    run_task(task, Command(steps=1, out=tmp_path, data="x", progress=False))
    monkeypatch.setattr(Trainer, "fit", lambda self: [])  # some of these ask for a million epochs
    path = tmp_path / "checkpoint.safetensors"
    tensors, state = read_checkpoint(path)
    refused = 0
    for at in places({"metadata": state["metadata"], "seed": state["seed"]}):
        if at:
            write(path, tensors, with_value(state, at, wrong))
            with contextlib.suppress(CheckpointError, RunError):
                run_task(task, Command(resume=tmp_path, progress=False))
                continue
            refused += 1
    assert refused >= 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A text, polygons and sentiments, with networks that nobody trained."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    recipe = text.Recipe(hidden=6, embedding=3)
    reviews = sentiment.Recipe("gru", 3, 4, 1, True, "mean", 0.0, 0.0, 0.0, 0.0, 1e-3, 4)
    polygons = {"preset": "smoke"}
    made = {
        "text": (text.build(recipe, 3, rng), {"recipe": dataclasses.asdict(recipe), "vocabulary": ["\n", "a", "b"]}),
        "polygon": (polygon.make_model({"units": 64, "components": 10}, rng), polygons),
        "sentiment": (
            sentiment.network(reviews, 3, 2, rng),
            {"recipe": dataclasses.asdict(reviews), "members": 2, "vocabulary": ["good", "bad"]},
        ),
    }
    for name, (model, metadata) in made.items():
        (folder / name).mkdir()
        tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
        state = {"format": 2, "metadata": {"task": name, **metadata}}
        write(folder / name / "checkpoint.safetensors", tensors, state)
    return folder


def ask(name, folder):
    said = []
    if name == "sentiment":
        TASKS[name].predict(folder, "good", said.append)
    else:
        sample_run(TASKS, folder, SampleOptions(length=2, say=said.append))
    return said


@pytest.mark.parametrize("name", ["text", "polygon", "sentiment"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: "gone" if value is GONE else repr(value)[:20])
def test_asking_a_run_is_one_error_or_an_answer(tmp_path, runs, name, wrong):
    assert ask(name, runs / name)
    tensors, state = read_checkpoint(runs / name / "checkpoint.safetensors")
    refused = 0
    for at in places(state):
        if at:
            write(tmp_path / "checkpoint.safetensors", tensors, with_value(state, at, wrong))
            with contextlib.suppress(CheckpointError, RunError):
                ask(name, tmp_path)
                continue
            refused += 1
    assert refused >= 3


@pytest.mark.parametrize("name", ["text", "polygon", "sentiment"])
def test_asking_a_run_whose_tensors_do_not_fit(tmp_path, runs, name):
    tensors, state = read_checkpoint(runs / name / "checkpoint.safetensors")
    first = next(iter(tensors))
    for change in (
        {},
        {first: tensors[first]},
        {**tensors, first: np.zeros(2, "f4")},
        {**tensors, first: tensors[first].astype("f8")},
    ):
        write(tmp_path / "checkpoint.safetensors", change, state)
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: "):
            ask(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("text", ("metadata", "recipe", "hidden")),
        ("text", ("metadata", "recipe", "layers")),
        ("text", ("metadata", "recipe", "embedding")),
        ("sentiment", ("metadata", "recipe", "units")),
        ("sentiment", ("metadata", "recipe", "layers")),
        ("sentiment", ("metadata", "recipe", "embedding")),
        ("sentiment", ("metadata", "members")),
    ],
)
def test_no_network_is_built_that_the_file_does_not_hold(tmp_path, runs, name, at, monkeypatch):
    """However large its recipe: it would take all memory."""
    tensors, state = read_checkpoint(runs / name / "checkpoint.safetensors")
    write(tmp_path / "checkpoint.safetensors", tensors, with_value(state, at, 10**12))
    for module, builder in ((text, "build"), (sentiment, "network")):
        monkeypatch.setattr(module, builder, lambda *_: pytest.fail("a network was built"))
    with pytest.raises(CheckpointError, match="parameters or more, but the file holds"):
        ask(name, tmp_path)


def test_parts_know_where_they_are(tmp_path):
    part = Part({"a": {"b": [1, "x"]}}, tmp_path / "f")
    for read, words in (
        (lambda: part.of("c"), "c: missing"),
        (lambda: part.of("a").of("c"), "a.c: missing"),
        (lambda: part.of("a").of("b").of("c"), r"a.b: expected an object, got \[1, 'x'\]"),
        (lambda: part.of("a").of("b").texts(), "a.b: expected a list of strings"),
        (lambda: part.of("a").flag(), "a: expected true or false"),
        (lambda: Part([0] * 10**6, tmp_path / "f").text(), r"its metadata: expected a string, got \[0, 0, 0"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            read()
        assert str(error.value).startswith(f"{tmp_path / 'f'}: ")
        assert len(str(error.value)) < 300
