"""Taking a run up again: what does not fit is refused and changes nothing, what differs is said, and no batch is done
twice."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import ResumeWarning, Trainer, TrainingError
from fusedrnn.train.batches import Batches, identity, shuffled
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint, write_checkpoint

ROWS = 40
X = np.random.default_rng(0).standard_normal((6, ROWS, 3)).astype("f4")
Y = (X.sum((0, 2)) > 0).astype(int)


def network(seed=0, dropout=0.2, rng=None):
    return nn.ManyToOne(nn.LSTM(3, 5, rng=seed), 2, dropout=dropout, rng=seed if rng is None else rng)


def batches(size=8, seed=0, made=None):
    def make(rows, rng):
        if made is not None:
            made.append(rows.tolist())
        return X[:, rows], Y[rows]

    return shuffled(ROWS, size, seed, make)


def make(out=None, *, model=None, optimizer=None, **options):
    model = model or network()
    settings = {"batches": batches(), "epochs": 3, "progress": False, **options}
    return Trainer(model, nn.CrossEntropyLoss(), optimizer or optim.Adam(model, lr=0.01), out=out, **settings)


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def metric(*values):
    given = iter(values)
    return lambda: {"v": next(given)}


# from another folder


def test_a_run_goes_on_in_another_folder_and_leaves_its_own_alone(tmp_path):
    first = make(tmp_path / "a", epochs=2, monitor="loss")
    first.fit()
    before = content_of(tmp_path / "a")
    second = make(tmp_path / "b", monitor="loss").resume(tmp_path / "a")
    assert not (tmp_path / "b").exists(), "nothing is written before fit"
    second.fit()
    whole = make(tmp_path / "whole", monitor="loss")
    whole.fit()
    np.testing.assert_array_equal(second.model.flatten().data, whole.model.flatten().data)
    assert content_of(tmp_path / "a") == before
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(before)
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == second.history
    assert [r["loss"] for r in second.history] == [r["loss"] for r in whole.history]
    again = make(tmp_path / "b", model=network(4), monitor="loss").resume()
    again.restore_best()
    whole.restore_best()
    np.testing.assert_array_equal(again.model.flatten().data, whole.model.flatten().data)


def test_the_best_parameters_come_with_the_checkpoint_from_its_folder(tmp_path):
    first = make(tmp_path / "a", epochs=2, evaluate=metric(0.1, 0.2), monitor="v")
    first.fit()
    first.restore_best()
    for out in (None, tmp_path / "b"):
        second = make(out, evaluate=metric(0.9), monitor="v").resume(tmp_path / "a" / "checkpoint.safetensors")
        second.fit()
        second.restore_best()
        np.testing.assert_array_equal(second.model.flatten().data, first.model.flatten().data)
    best = read_checkpoint(tmp_path / "b" / "best.safetensors").tensors
    np.testing.assert_array_equal(best["model.head.bias"], first.model.state_dict()["head.bias"])


def test_a_folder_with_another_run_is_refused(tmp_path):
    make(tmp_path / "a", epochs=2).fit()
    other = make(tmp_path / "b", model=network(9), epochs=1)
    other.fit()
    before = content_of(tmp_path / "b")
    model = network(5)
    fresh = model.flatten().data.copy()
    trainer = make(tmp_path / "b", model=model)
    with pytest.raises(TrainingError, match=r"b holds a run of its own, not that of .*a.checkpoint\.safetensors"):
        trainer.resume(tmp_path / "a")
    assert content_of(tmp_path / "b") == before
    np.testing.assert_array_equal(model.flatten().data, fresh)
    assert (trainer.step, trainer.history) == (0, [])


def test_a_run_that_began_in_the_folder_meanwhile_is_not_overwritten(tmp_path):
    make(tmp_path / "a", epochs=1).fit()
    trainer = make(tmp_path / "b").resume(tmp_path / "a")
    make(tmp_path / "b", epochs=1).fit()
    before = content_of(tmp_path / "b")
    with pytest.raises(TrainingError, match="b holds a run of its own"):
        trainer.fit()
    assert content_of(tmp_path / "b") == before


def test_a_run_that_went_on_meanwhile_is_not_set_back(tmp_path):
    make(tmp_path, epochs=1).fit()
    early, late = make(tmp_path, epochs=2).resume(), make(tmp_path, epochs=2).resume()
    late.fit()
    before = content_of(tmp_path)
    with pytest.raises(TrainingError, match=r"has changed since this Trainer read or wrote it; call resume\(\) again"):
        early.fit()
    assert content_of(tmp_path) == before


def test_the_best_epoch_can_be_gone_back_to(tmp_path):
    make(tmp_path, evaluate=metric(0.3, 0.1, 0.2), monitor="v").fit()
    trainer = make(tmp_path, evaluate=metric(0.5), monitor="v").resume(tmp_path / "best.safetensors")
    assert (trainer.epoch, len(trainer.history)) == (2, 2)
    trainer.fit()
    assert [json.loads(line)["v"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0.3, 0.1, 0.5]


def test_a_crash_between_checkpoint_and_best_loses_no_best_parameters(tmp_path):
    trainer = make(tmp_path, epochs=2, evaluate=metric(0.3, 0.1), monitor="v")
    trainer.fit()
    best = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").unlink()
    again = make(tmp_path, model=network(3), epochs=2, evaluate=metric(), monitor="v").resume()
    again.restore_best()
    np.testing.assert_array_equal(again.model.flatten().data, trainer.model.flatten().data)
    again.fit()
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_checkpoint_alone_says_what_it_misses(tmp_path):
    make(tmp_path, epochs=2, evaluate=metric(0.1, 0.2), monitor="v").fit()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "x.safetensors").write_bytes((tmp_path / "checkpoint.safetensors").read_bytes())
    trainer = make(evaluate=metric(0.9), monitor="v")
    with pytest.warns(ResumeWarning, match=r"metrics\.jsonl is gone.*parameters of the best epoch, 1, are not in"):
        trainer.resume(tmp_path / "alone" / "x.safetensors")
    assert (trainer.epoch, trainer.history) == (2, [])
    trainer.fit()
    with pytest.raises(TrainingError, match="the parameters of the best epoch, 1, were not beside"):
        trainer.restore_best()


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n[2]\n", "null\n" * 2, "x\n" * 2, '{"step": 1}\n' * 2, "[" * 10**5])
def test_metrics_of_something_else_are_refused_and_kept(tmp_path, text):
    make(tmp_path, epochs=2).fit()
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: expected 2 records, the last of step 10"):
        make(tmp_path).resume()
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_the_best_parameters_go_where_the_models_parameters_lie(tmp_path):
    trainer = make(tmp_path, epochs=2, evaluate=metric(0.1, 0.2), monitor="v")
    trainer.fit()
    best = read_checkpoint(tmp_path / "best.safetensors").tensors
    for parameter in trainer.model.parameters():
        parameter.data = np.zeros_like(parameter.data)
    trainer.restore_best()
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, best[f"model.{name}"])


# what is refused


def changed(folder, change):
    tensors, state = read_checkpoint(folder / "checkpoint.safetensors")
    change(tensors, state)
    write_checkpoint(folder / "checkpoint.safetensors", tensors, state)


REFUSED = {
    "seed": (lambda t, s: None, {"seed": 3}),
    "optimizer": (lambda t, s: None, {"optimizer": lambda m: optim.SGD(m, 0.1)}),
    "optimizer state": (lambda t, s: t.pop("optimizer.exp_avg_sq"), {}),
    "optimizer steps": (lambda t, s: s["optimizer_state"].update(steps=-1), {}),
    "parameters": (lambda t, s: t.update({"model.head.bias": np.zeros(3, "f4")}), {}),
    "no generator": (lambda t, s: s.update(rng={}), {}),
    "generator": (lambda t, s: s["rng"][next(iter(s["rng"]))].update(has_uint32="x"), {}),
    "carried": (lambda t, s: s.update(carried={"tuple": ["state.7"]}), {}),
    "monitor": (lambda t, s: None, {"monitor": "v", "evaluate": metric(1.0)}),
    "mode": (lambda t, s: None, {"mode": "max"}),
    "batches": (lambda t, s: None, {"batches": batches(4)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(tmp_path, name):
    make(tmp_path, model=network(3), steps=8, monitor="loss").fit()
    change, options = REFUSED[name]
    changed(tmp_path, change)
    model = network(5)
    optimizer = options.pop("optimizer", optim.Adam)(model) if "optimizer" in options else optim.Adam(model, lr=0.01)
    optimizer.step()
    trainer = make(tmp_path, model=model, optimizer=optimizer, **{"monitor": "loss", **options})
    before = model.flatten().data.copy(), optimizer.state_dict(), model.rng_state(), content_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: "):
        trainer.resume()
    after = model.flatten().data, optimizer.state_dict(), model.rng_state(), content_of(tmp_path)
    np.testing.assert_equal(after, before)
    assert (trainer.step, trainer.epoch, trainer.history, trainer.seconds) == (0, 0, [], 0.0)
    with pytest.raises(TrainingError, match="no epoch was monitored yet"):
        trainer.restore_best()


# what is said


SAID = {
    "lr was 0.01, is 0.001": {"optimizer": lambda m: optim.Adam(m, lr=0.001)},
    "optimizer.betas was": {"optimizer": lambda m: optim.Adam(m, lr=0.01, betas=(0.8, 0.99))},
    "optimizer.weight_decay was 0.0, is 0.1": {"optimizer": lambda m: optim.Adam(m, lr=0.01, weight_decay=0.1)},
    "clip_norm was None, is 1.0": {"clip_norm": 1.0},
    "clip_value was None, is 2": {"clip_value": 2},
    "patience was None, is 50": {"patience": 50},
    "mode was 'min', is 'max'": {"mode": "max"},
    "evaluate_every was 1, is 2": {"evaluate_every": 2},
    "schedule of update 1 was 1.0, is": {"schedule": optim.CosineLR(30)},
    "batches of epoch 2: expected 5, of .40, 8, 0., got 10, of .40, 4, 0.": {"batches": batches(4)},
    "batches of epoch 2: expected 5, of .40, 8, 0., got 5, of .40, 9, 0.": {"batches": batches(9)},
    "batches of epoch 2: expected 5, of .40, 8, 0., got 5, of .40, 8, 1.": {"batches": batches(seed=1)},
}


@pytest.mark.parametrize("words", SAID)
def test_what_a_resumed_run_does_otherwise_is_said_and_done(tmp_path, words):
    make(tmp_path, epochs=2).fit()
    options = dict(SAID[words])
    model = network(5)
    optimizer = options.pop("optimizer", lambda m: optim.Adam(m, lr=0.01))(model)
    trainer = make(tmp_path, model=model, optimizer=optimizer, **options)
    with pytest.warns(ResumeWarning, match=words):
        trainer.resume()
    rate = optimizer.lr
    trainer.fit()
    if "lr" in words:
        assert trainer.history[-1]["lr"] == rate == 0.001
    if "optimizer" not in SAID[words]:
        make(tmp_path, **options).resume()  # the run has these settings now


def test_another_dropout_is_said(tmp_path):
    make(tmp_path, epochs=1).fit()
    with pytest.warns(ResumeWarning, match=r"model\.\w+\.p was 0\.2, is 0\.7"):
        make(tmp_path, model=network(dropout=0.7)).resume()


def test_what_a_users_optimizer_counts_is_no_setting(tmp_path):
    class Counting(optim.Adam):
        calls = 0

        def step(self):
            self.calls += 1
            super().step()

    def start(**options):
        model = network()
        return make(tmp_path, model=model, optimizer=Counting(model, lr=0.01, **options))

    first = start()
    first.steps = 7
    first.fit()
    start().resume()
    with pytest.warns(ResumeWarning, match=r"optimizer\.eps was 1e-08, is 0\.1$"):
        start(eps=0.1).resume()


def test_a_users_optimizer_may_keep_more_than_numbers(tmp_path):
    class Named(optim.Adam):
        kept = None

        def state_dict(self):
            return {**super().state_dict(), "kept": {"on": True, "name": "a", "none": None}}

        def load_state_dict(self, state):
            super().load_state_dict({name: value for name, value in state.items() if name != "kept"})
            self.kept = state["kept"]

    model = network()
    make(tmp_path, model=model, optimizer=Named(model), epochs=1).fit()
    model = network()
    trainer = make(tmp_path, model=model, optimizer=Named(model), epochs=1).resume()
    assert trainer.optimizer.kept == {"on": True, "name": "a", "none": None}


def test_a_said_change_that_is_an_error_changes_nothing(tmp_path):
    make(tmp_path, model=network(3), epochs=1).fit()
    model = network(5)
    fresh = model.flatten().data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ResumeWarning):
            make(tmp_path, model=model, clip_norm=1.0).resume()
    np.testing.assert_array_equal(model.flatten().data, fresh)


def test_a_longer_run_and_a_constant_schedule_are_no_change(tmp_path):
    make(tmp_path, steps=3).fit()
    make(tmp_path, epochs=7, schedule=optim.ConstantLR(), log_every=2, checkpoint_every=2).resume().fit()


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    make(tmp_path, epochs=20, evaluate=lambda: {"v": 1.0}, monitor="v", patience=2).fit()
    more = {"epochs": 6, "evaluate": lambda: {"v": 1.0}, "monitor": "v"}
    assert make(tmp_path, patience=2, **more).resume().finished
    trainer = make(tmp_path, patience=50, **more)
    with pytest.warns(ResumeWarning, match="patience was 2, is 50"):
        trainer.resume()
    trainer.fit()
    assert trainer.epoch == 6


def test_a_rate_that_was_lowered_on_the_way_stays_lowered(tmp_path):
    """As by a user's evaluate: it is the optimizer's own, and no change of the caller's."""

    def run(out, **options):
        model = network()
        optimizer = optim.Adam(model, lr=0.01)

        def evaluate():
            optimizer.lr /= 2
            return {}

        return make(out, model=model, optimizer=optimizer, evaluate=evaluate, **options)

    run(tmp_path / "parts", epochs=1).fit()
    parts, whole = run(tmp_path / "parts").resume(), run(tmp_path / "whole")
    for trainer in (parts, whole):
        trainer.fit()
    assert [r["lr"] for r in parts.history] == [r["lr"] for r in whole.history] == [0.005, 0.0025, 0.00125]
    np.testing.assert_array_equal(parts.model.flatten().data, whole.model.flatten().data)


# the rate that a schedule multiplies


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_a_second_trainer_starts_from_the_optimizers_own_rate(end):
    model = network()
    optimizer = optim.Adam(model, lr=0.01)
    options = {"schedule": optim.CosineLR(10), "epochs": 2}
    if end == "failed":
        options["evaluate"] = lambda: {"v": 1 / 0}
        with pytest.raises(ZeroDivisionError):
            make(model=model, optimizer=optimizer, **options).fit()
    else:
        assert make(model=model, optimizer=optimizer, **options).fit()[-1]["lr"] < 0.001
    assert optimizer.lr == 0.01
    second = make(model=model, optimizer=optimizer, schedule=optim.CosineLR(15))
    assert second.fit()[0]["lr"] == 0.01 * optim.CosineLR(15)(4)


def test_a_checkpoint_has_the_optimizers_own_rate(tmp_path):
    make(tmp_path, epochs=2, schedule=optim.CosineLR(10)).fit()
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["optimizer_state"]["lr"] == 0.01


# batches that were done


def test_batches_that_were_done_are_not_made_again(tmp_path):
    first, rest, whole = [], [], []
    make(tmp_path / "parts", epochs=1, steps=3, batches=batches(made=first)).fit()
    make(tmp_path / "parts", epochs=1, batches=batches(made=rest)).resume().fit()
    make(epochs=1, batches=batches(made=whole)).fit()
    assert first + rest == whole
    assert len(rest) == 2


@pytest.mark.parametrize("kind", ["list", "tuple", "iterable", "indexed", "Batches", "skip"])
def test_every_kind_of_batches_goes_on_where_it_was(tmp_path, kind):
    made = []

    def batch(i):
        made.append(i)
        return X[:, i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]

    class Iterable:
        def __len__(self):
            return 5

        def __iter__(self):
            return map(batch, range(5))

    class Skip(Iterable):
        def skip(self, count):
            return map(batch, range(count, 5))

    class Indexed:
        def __len__(self):
            return 5

        def __getitem__(self, i):
            if i >= 5:
                raise IndexError
            return batch(i)

    ways = {
        "list": lambda epoch: [batch(i) for i in range(5)],
        "tuple": lambda epoch: tuple(batch(i) for i in range(5)),
        "iterable": lambda epoch: Iterable(),
        "indexed": lambda epoch: Indexed(),
        "Batches": lambda epoch: Batches(5, batch),
        "skip": lambda epoch: Skip(),
    }
    whole = make(tmp_path / "whole", batches=ways[kind])
    whole.fit()
    make(tmp_path / "parts", batches=ways[kind], steps=8).fit()
    made.clear()
    parts = make(tmp_path / "parts", model=network(2), batches=ways[kind]).resume()
    parts.fit()
    np.testing.assert_array_equal(parts.model.flatten().data, whole.model.flatten().data)
    if kind in ("indexed", "Batches", "skip"):
        assert made == [3, 4, *range(5)], "what was done is not made"
    make(tmp_path / "short", batches=ways[kind], steps=8).fit()
    with pytest.raises(CheckpointError, match="batches of epoch 2: expected 5, "):
        make(tmp_path / "short", batches=lambda epoch: ways["list"](epoch)[:4]).resume()


@pytest.mark.parametrize("where", ["x", "target", "size"])
def test_other_rows_in_as_many_batches_are_refused_within_an_epoch(tmp_path, where):
    def cut(size, x=X, y=Y):
        return lambda epoch: [(x[:, i : i + size], y[i : i + size]) for i in range(0, ROWS, size)]

    make(tmp_path, batches=cut(8), steps=3).fit()
    other = {"x": cut(8, x=X + 1), "target": cut(8, y=1 - Y), "size": cut(9)}[where]
    assert len(other(0)) == 5
    with pytest.raises(CheckpointError, match="within an epoch a run goes on with the same batches"):
        make(tmp_path, batches=other).resume()
    make(tmp_path, batches=cut(8)).resume().fit()


def test_batches_of_objects_are_known_again_wherever_they_lie():
    def lists(length):  # objects of their own each time
        x = np.empty(4, object)
        x[:] = [[i] * length for i in range(4)]
        return [(x, np.zeros(4))]

    first, second = lists(3), lists(3)
    assert identity(first) == identity(second)
