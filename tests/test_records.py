"""What a run logs: it decides nothing, it is JSON, any error stream will do, and it costs the same all along."""

from __future__ import annotations

import io
import json
import math
import sys
from itertools import pairwise

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import Trainer, TrainingError
from fusedrnn.train.display import Display, say, write_figures

X = np.random.default_rng(0).standard_normal((4, 20, 3)).astype("f4")
TARGET = X[:, :, :1].cumsum(0)


class Network(nn.Module):
    def __init__(self, rng=0):
        super().__init__()
        self.rnn = nn.GRU(3, 4, 2, dropout=0.3, rng=rng)
        self.head = nn.Linear(4, 1, rng=rng)

    def forward(self, x):
        return self.head(self.rnn(x)[0])

    def backward(self, dout):
        self.rnn.backward(self.head.backward(dout))


def cut(*sizes):
    """Batches of so many rows each."""
    ends = np.cumsum([0, *sizes])
    parts = [(X[:, a:b], TARGET[:, a:b]) for a, b in pairwise(ends)]
    return lambda epoch: [parts[i] for i in np.random.default_rng(epoch).permutation(len(parts))]


def make(out=None, *, model=None, lr=0.01, **options):
    model = model or Network()
    settings = {"batches": cut(4, 4, 4, 4, 4), "epochs": 3, "progress": False, **options}
    return Trainer(model, nn.MSELoss(), optim.Adam(model, lr=lr), out=out, **settings)


def lines_of(folder):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# what is logged decides nothing


def outcome(trainer):
    trainer.fit()
    last = trainer.model.flatten().data.copy()
    trainer.restore_best()
    return trainer.epoch, last.tolist(), trainer.model.flatten().data.tolist()


def noisy(epoch):
    """Losses that rise and fall from epoch to epoch, and within each."""
    rng = np.random.default_rng(epoch)
    return [(X[:, i : i + 4], rng.uniform(0, 2) * TARGET[:, i : i + 4]) for i in rng.permutation(range(0, 20, 4))]


@pytest.mark.parametrize(
    "told",
    [
        {"log_every": 1},
        {"log_every": 2},
        {"log_every": 3},
        {"log_every": 5},
        {"progress": True},
        {"checkpoint_every": 2},
    ],
    ids=str,
)
def test_what_is_logged_and_kept_decides_nothing(tmp_path, told):
    options = {"batches": noisy, "epochs": 20, "patience": 2}
    plain = outcome(make(**options))
    assert 2 < plain[0] < 20, "it must stop early to tell"
    assert outcome(make(tmp_path, **options, **told)) == plain


def test_the_loss_that_is_watched_is_the_mean_over_the_rows_of_the_epoch():
    """At rate 0 that is the loss of all rows at once, in batches of any sizes."""
    model = Network().eval()
    whole = nn.MSELoss()(model(X), TARGET)
    for sizes in ((20,), (8, 8, 4), (13, 7), (1, 18, 1)):
        for log_every in (None, 1):
            trainer = make(model=Network(), lr=0.0, batches=cut(*sizes), epochs=1, monitor="loss", log_every=log_every)
            for module in trainer.model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            history = trainer.fit()
            assert trainer._state.best == pytest.approx(whole, rel=1e-6)
            if log_every is None:
                assert history[0]["loss"] == pytest.approx(whole, rel=1e-6)


def test_a_summed_loss_counts_each_batch_once():
    def losses(**options):
        model = Network(rng=0)
        model.rnn.dropout.p = 0.0
        settings = {"batches": cut(16, 4), "epochs": 1, "progress": False, **options}
        return [r["loss"] for r in Trainer(model, nn.MSELoss("sum"), optim.SGD(model, lr=0.0), **settings).fit()]

    assert losses() == [pytest.approx(sum(losses(log_every=1)) / 2)]


def test_an_epoch_cut_by_steps_has_the_mean_of_the_whole_when_it_is_done(tmp_path, monkeypatch):
    from fusedrnn.train.progress import Progress

    seen = []
    watch = Progress.watch
    monkeypatch.setattr(Progress, "watch", lambda self, value, mode: seen.append(value) or watch(self, value, mode))
    make(monitor="loss", epochs=1).fit()
    make(tmp_path, monitor="loss", epochs=1, steps=3).fit()
    make(tmp_path, monitor="loss", epochs=1).resume().fit()
    whole, part, again = seen
    assert again == whole != part


# numbers that are none


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_best_and_json_stays_json(tmp_path, odd, mode):
    given = [odd, 0.5, 0.5, odd, odd]
    values = iter(given)
    trainer = make(tmp_path, epochs=9, evaluate=lambda: {"v": next(values)}, monitor="v", mode=mode, patience=3)
    trainer.fit()
    assert trainer.epoch == 5, "three epochs without a better one"
    assert (trainer._state.best, trainer._state.best_epoch) == (0.5, 2)
    assert [line["v"] for line in lines_of(tmp_path)] == [v if math.isfinite(v) else None for v in given]
    np.testing.assert_equal([record["v"] for record in trainer.history], given)
    again = make(tmp_path, epochs=9, evaluate=dict, monitor="v", mode=mode, patience=3).resume()
    assert again.finished
    np.testing.assert_equal([r["v"] for r in again.history], [v if math.isfinite(v) else math.nan for v in given])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again.fit()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_nothing_but_nan_stops_and_has_no_best():
    trainer = make(epochs=9, evaluate=lambda: {"v": np.nan}, monitor="v", patience=3)
    trainer.fit()
    assert trainer.epoch == 3
    with pytest.raises(TrainingError, match="v was not finite in any epoch, so there are no best parameters"):
        trainer.restore_best()


def test_a_rate_of_numpy_is_recorded(tmp_path):
    trainer = make(tmp_path, epochs=1)
    trainer.optimizer.lr = np.float32(0.5)
    trainer.fit()
    assert [record["lr"] for record in lines_of(tmp_path)] == [0.5]


def test_figures_are_json(tmp_path):
    metrics = {"a": math.nan, "b": np.float32("inf"), "c": np.float32(0.5)}
    write_figures(tmp_path / "f.json", task="t", seed=0, steps=1, seconds=1.0, metrics=metrics)
    assert json.loads((tmp_path / "f.json").read_text())["metrics"] == {"a": None, "b": None, "c": 0.5}
    assert "NaN" not in (tmp_path / "f.json").read_text()


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.5])
def test_a_schedule_gives_finite_factors(factor):
    with pytest.raises(TrainingError, match=r"schedule: expected a finite factor of at least 0, got .*, at step 3"):
        make(schedule=lambda step: factor if step == 2 else 1.0).fit()


# names


@pytest.mark.parametrize("name", ["epoch", "step", "seconds", "loss", "lr"])
def test_a_metric_cannot_take_a_records_name(tmp_path, name):
    with pytest.raises(TrainingError, match=f"evaluate: {name} is what every record has"):
        make(tmp_path, evaluate=lambda: {"fine": 1.0, name: -1.0}).fit()
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "evaluate: expected metrics by name, got NoneType"),
        (0.5, "evaluate: expected metrics by name, got float"),
        ({1: 0.5}, "evaluate: expected names of metrics as strings, got 1"),
        ({"v": "good"}, "evaluate: v: expected a number, got str"),
        ({"v": None}, "evaluate: v: expected a number, got NoneType"),
    ],
)
def test_metrics_are_numbers_by_name(given, message):
    with pytest.raises(TypeError, match=message):
        make(evaluate=lambda: given).fit()


@pytest.mark.parametrize("name", ["accuracy", "step", "lr"])
def test_a_monitor_that_never_comes_is_refused_at_once(name):
    with pytest.raises(ValueError, match=f"monitor: expected 'loss', got '{name}'"):
        make(monitor=name, patience=1)
    if name != "accuracy":
        with pytest.raises(ValueError, match=f"monitor: expected 'loss' or a metric that evaluate gives, got '{name}'"):
            make(monitor=name, evaluate=dict)


def test_a_monitor_that_evaluate_leaves_out_is_an_error():
    with pytest.raises(TrainingError, match="monitor: expected one of loss, got accuracy"):
        make(monitor="accuracy", evaluate=dict).fit()


# sizes


def test_a_checkpoint_does_not_grow_with_the_history(tmp_path):
    trainer = make(tmp_path, epochs=5, evaluate=lambda: {"v": 1.0}, log_every=1)
    sizes, most = [], 0
    for epochs in (5, 60):
        trainer.epochs = epochs
        trainer.fit()
        sizes.append((tmp_path / "checkpoint.safetensors").stat().st_size)
        most = max(most, len(lines_of(tmp_path)))
    assert most == 300
    assert abs(sizes[1] - sizes[0]) < 100
    assert lines_of(tmp_path) == trainer.history


def test_a_checkpoint_makes_no_batches(tmp_path):
    asked = []
    make(tmp_path, batches=lambda epoch: asked.append(epoch) or cut(10, 10)(epoch), checkpoint_every=1).fit()
    assert asked == [0, 0, 1, 2], "how many there are, and each epoch"


def test_a_record_is_one_write_at_the_end(tmp_path, monkeypatch):
    """Whatever was recorded before is neither read nor written again."""
    from fusedrnn.train.folder import RunFolder

    seen = []
    append = RunFolder.append
    monkeypatch.setattr(
        RunFolder, "append", lambda self, record: (seen.append(record["step"]), append(self, record))[1]
    )
    monkeypatch.setattr(RunFolder, "write_records", lambda *_: pytest.fail("only where a run is taken up again"))
    make(tmp_path).fit()
    assert seen == [5, 10, 15]


# any error stream


class OnlyWrites:
    """As notebooks and loggers put in its place: neither isatty nor encoding."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


class Broken(OnlyWrites):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self):
        raise ValueError("I/O operation on closed file")


class Terminal(Broken):
    """One that went away."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def fileno(self):
        raise io.UnsupportedOperation


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "kind",
    [lambda: None, OnlyWrites, Broken, Terminal, closed, object],
    ids=["none", "only_writes", "broken", "terminal", "closed", "object"],
)
def test_training_does_not_mind_the_error_stream(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    make(tmp_path, progress=True, evaluate=lambda: {"v": 1.0}).fit()
    say("more")
    monkeypatch.undo()
    assert capsys.readouterr().out == "", "what print does with None is not meant"


def test_an_error_stream_loses_what_it_cannot_show(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stderr", stream)
    say("caf\u00e9 \u65e5 done")
    stream.flush()
    assert raw.getvalue() == b"caf? ? done\n"


@pytest.mark.parametrize(("metrics", "lines"), [({}, 1), ({"v": 1.0}, 3)])
def test_a_short_run_says_at_least_how_it_ended(monkeypatch, metrics, lines):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    make(progress=True, log_every=1, evaluate=lambda: metrics).fit()
    said = stream.getvalue().splitlines()
    assert len(said) == lines
    assert said[-1].startswith("epoch 3  step 15/15  loss ")
    stream.seek(0)
    stream.truncate()
    with Display(3, enabled=False) as display:
        display.record({"epoch": 1, "step": 1, "loss": 1.0}, {})
    assert stream.getvalue() == ""


# any generator, any number


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_generator_of_numpy_resumes(tmp_path, kind):
    def model():
        return Network(np.random.Generator(getattr(np.random, kind)(0)))

    whole = make(tmp_path / "whole", model=model())
    whole.fit()
    make(tmp_path / "parts", model=model(), steps=7).fit()
    parts = make(tmp_path / "parts", model=Network(np.random.Generator(getattr(np.random, kind)(5)))).resume()
    parts.fit()
    np.testing.assert_array_equal(parts.model.flatten().data, whole.model.flatten().data)
    assert parts.model.rng_state() == whole.model.rng_state()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.float16(2), 2.0),
        (np.longdouble(0.25), 0.25),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(3), [0, 1, 2]),
        (np.ones((2, 1), "f4"), [[1.0], [1.0]]),
        (np.array(7), 7),
        ((1, (np.int8(2),)), [1, [2]]),
        ({"b": {"c": np.float32(1)}}, {"b": {"c": 1.0}}),
        ({1: "x"}, {"1": "x"}),
        (2**100, 2**100),
        (None, None),
    ],
    ids=repr,
)
def test_metadata_takes_any_number_of_numpy(tmp_path, value, stored):
    make(tmp_path, epochs=1, metadata={"a": value}, schedule=lambda step: np.float32(1), clip_norm=np.float32(9)).fit()
    from fusedrnn.train.checkpoint import read_checkpoint

    found = read_checkpoint(tmp_path / "checkpoint.safetensors").state["metadata"]["a"]
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({1, 2}, TypeError, r"metadata\.a\.b\[0\]: expected what JSON holds .*, got set"),
        (1j, TypeError, r"metadata\.a\.b\[0\]: expected what JSON holds .*, got complex"),
        (np.datetime64("2020-01-01"), TypeError, r"metadata\.a\.b\[0\]: expected what JSON holds .*, got date"),
        ({(1, 2): 3}, TypeError, r"metadata\.a\.b\[0\]: expected strings as keys, got \(1, 2\)"),
        (math.nan, ValueError, r"metadata\.a\.b\[0\]: expected a finite number"),
        (np.float32("inf"), ValueError, r"metadata\.a\.b\[0\]: expected a finite number"),
    ],
    ids=repr,
)
def test_metadata_that_json_cannot_hold_is_named_at_once(value, error, message):
    with pytest.raises(error, match=message):
        make(metadata={"a": {"b": [value]}})
