"""The Trainer: what it records, when it stops, and that an interrupted run ends in the very same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import Trainer, TrainingError, TrainingInterrupted
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint

BATCHES, EPOCHS = 5, 4


class Network(nn.Module):
    """A little of everything that a checkpoint must carry: dropout has a random state of its own."""

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.rnn = nn.GRU(3, 6, 2, dropout=0.3, rng=rng)
        self.head = nn.Linear(6, 2, rng=rng)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y)

    def backward(self, dout):
        self.rnn.backward(self.head.backward(dout))


class Data:
    """Batches that only epoch and index decide; `spoil(epoch, i, x)` may change them."""

    def __init__(self, spoil=lambda epoch, i, x: x):
        self.spoil = spoil

    def __call__(self, epoch):
        return [self.batch(epoch, i) for i in range(BATCHES)]

    def batch(self, epoch, i):
        rng = np.random.default_rng([epoch, i])
        x = rng.standard_normal((4, 7, 3), dtype=np.float32)
        return self.spoil(epoch, i, x), x[:, :, :2].cumsum(0)


def make(out=None, *, data=None, model=None, optimizer=optim.Adam, **options):
    model = model or Network()
    settings = {
        "batches": data or Data(),
        "epochs": EPOCHS,
        "progress": False,
        "clip_norm": 1.0,
        "schedule": optim.CosineLR(EPOCHS * BATCHES),
        "evaluate": lambda: {"weight": float(np.abs(model.head.weight.data).sum())},
        **options,
    }
    return Trainer(model, nn.MSELoss(), optimizer(model, lr=0.01), out=out, **settings)


def untimed(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def parameters(trainer):
    return trainer.model.flatten().data.copy()


def same(trainer, reference):
    np.testing.assert_array_equal(parameters(trainer), parameters(reference))
    assert untimed(trainer.history) == untimed(reference.history)


@pytest.fixture(scope="module")
def whole():
    trainer = make()
    trainer.fit()
    return trainer


def test_trains_and_records_every_epoch(whole):
    history = whole.history
    assert [r["epoch"] for r in history] == [1, 2, 3, 4]
    assert [r["step"] for r in history] == [5, 10, 15, 20]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[0]["lr"] > history[-1]["lr"] > 0
    assert whole.finished
    assert whole.seconds > 0
    assert [r["seconds"] for r in history] == sorted(r["seconds"] for r in history)
    assert history[-1]["weight"] == pytest.approx(np.abs(whole.model.head.weight.data).sum(), rel=1e-6)


def test_evaluation_runs_in_eval_mode_and_leaves_training_on():
    seen = []
    trainer = make(epochs=1, model=(model := Network()), evaluate=lambda: seen.append(model.training) or {})
    trainer.fit()
    assert seen == [False]
    assert model.training


def test_evaluate_every_and_at_the_end():
    history = make(evaluate_every=3, evaluate=lambda: {"m": 1.0}).fit()
    assert ["m" in r for r in history] == [False, False, True, True]


def test_log_every_adds_records_between_epochs():
    history = make(epochs=2, log_every=2).fit()
    assert [(r["epoch"], r["step"]) for r in history] == [(1, 2), (1, 4), (1, 5), (2, 6), (2, 8), (2, 10)]


def test_steps_stop_in_mid_epoch(whole):
    trainer = make(steps=7)
    trainer.fit()
    assert trainer.step == 7
    assert trainer.history[-1]["step"] == 7
    assert trainer.history[0] | {"seconds": 0} == whole.history[0] | {"seconds": 0}


def test_fit_again_does_nothing_more(whole):
    before = parameters(whole)
    whole.fit()
    np.testing.assert_array_equal(parameters(whole), before)


@pytest.mark.parametrize("steps", [1, 5, 7, 19])
@pytest.mark.parametrize("optimizer", [optim.Adam, optim.RMSprop])
def test_resume_gives_the_very_same_bits(tmp_path, steps, optimizer):
    reference = make(tmp_path / "whole", optimizer=optimizer)
    reference.fit()
    first = make(tmp_path / "parts", optimizer=optimizer, steps=steps)
    first.fit()
    second = make(tmp_path / "parts", optimizer=optimizer, model=Network(seed=9)).resume()
    assert second.step == steps
    second.fit()
    np.testing.assert_array_equal(parameters(second), parameters(reference))
    # the run that stopped at `steps` made a record there; what it recorded before and after is the same
    assert untimed(second.history)[-1]["weight"] == untimed(reference.history)[-1]["weight"]
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == second.history
    one, other = (read_checkpoint(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor, other.tensors[name], err_msg=name)


def test_a_record_is_the_mean_of_the_losses_since_the_last_one():
    class Counting(nn.MSELoss):
        calls = 0

        def __call__(self, prediction, target):
            super().__call__(prediction, target)
            self.calls += 1
            return float(self.calls)

    trainer = make(epochs=2, log_every=2)
    trainer.loss = Counting()
    assert [r["loss"] for r in trainer.fit()] == [1.5, 3.5, 5.0, 6.0, 7.5, 9.5]


GRADIENT = np.array([300.0, 4.0])


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, GRADIENT),
        ({"clip_value": 3.0}, [3.0, 3.0]),
        ({"clip_norm": 1.0}, GRADIENT / np.linalg.norm(GRADIENT)),
        ({"clip_value": 3.0, "clip_norm": 1.0}, [0.5**0.5, 0.5**0.5]),  # elements first, else it is about (1, 0)
    ],
    ids=["none", "value", "norm", "both"],
)
def test_an_update_goes_no_farther_than_the_limits(limits, expected):
    model = nn.Linear(2, 1, bias=False, dtype="float64")
    model.weight.data.fill(0)
    batch = GRADIENT[None], np.array([[-0.5]])  # (0 + 0.5)^2 has the slope x
    Trainer(
        model, nn.MSELoss(), optim.SGD(model, lr=0.5), batches=lambda _: [batch], epochs=1, progress=False, **limits
    ).fit()
    moved = -model.weight.data[0] / 0.5
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    assert np.abs(moved).max() <= limits.get("clip_value", np.inf)
    assert np.linalg.norm(moved) <= limits.get("clip_norm", np.inf)


class Stop(Exception):
    pass


def test_resume_after_a_crash_drops_later_records(tmp_path, whole):
    def crash(epoch, i, x):
        if (epoch, i) == (2, 3):
            raise Stop
        return x

    class Lazy(Data):
        def __call__(self, epoch):
            data = self

            class Epoch:
                def __len__(self):
                    return BATCHES

                def __iter__(self):
                    return (data.batch(epoch, i) for i in range(BATCHES))

            return Epoch()

    with pytest.raises(Stop):
        make(tmp_path, data=Lazy(crash), log_every=1000).fit()
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"epoch": 3, "step": 13, "loss"')  # torn by the crash
    trainer = make(tmp_path).resume()
    assert (trainer.epoch, trainer.step) == (2, 10)
    trainer.fit()
    same(trainer, whole)
    assert [json.loads(line) for line in metrics.read_text().splitlines()] == trainer.history


def test_ctrl_c_finishes_the_step_and_resumes_to_the_same_bits(tmp_path, whole):
    def press(epoch, i, x):
        if (epoch, i) == (1, 0):  # the list of this epoch is made before its first step
            signal.raise_signal(signal.SIGINT)
        return x

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match=r"interrupted after step 6; the checkpoint of step 6 stands in"):
        make(tmp_path, data=Data(press)).fit()
    assert signal.getsignal(signal.SIGINT) is before
    trainer = make(tmp_path).resume()
    assert trainer.step == 6
    trainer.fit()
    same(trainer, whole)


def test_training_off_the_main_thread_works(whole):
    trainer = make()
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    same(trainer, whole)


SLOW_RUN = """
import sys, time
sys.path.insert(0, {folder!r})
import importlib.util
spec = importlib.util.spec_from_file_location("test_train", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
def slow(epoch, i, x):
    return x
class Slow(module.Data):
    def __call__(self, epoch):
        class Epoch:
            def __len__(s): return module.BATCHES
            def __iter__(s):
                for i in range(module.BATCHES):
                    time.sleep(0.02)
                    print(i, flush=True)
                    yield module.Data().batch(epoch, i)
        return Epoch()
module.make({out!r}, data=Slow(), checkpoint_every=2).fit()
"""


def test_a_killed_process_resumes_to_the_same_bits(tmp_path, whole):
    """Without a chance to write a checkpoint; Ctrl-C in a process is in tests/test_cli.py."""
    script = SLOW_RUN.format(folder=str(Path(__file__).parent), path=__file__, out=str(tmp_path / "run"))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(8):
        process.stdout.readline()
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    trainer = make(tmp_path / "run").resume()
    assert 6 <= trainer.step <= 9
    trainer.fit()
    same(trainer, whole)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    def spoil(epoch, i, x):
        return x * np.float32("nan") if (epoch, i) == (1, 2) else x

    trainer = make(tmp_path, data=Data(spoil))
    with pytest.raises(TrainingError, match=r"loss is nan at step 8 \(epoch 2\); the checkpoint of step 5 stands in"):
        trainer.fit()
    stored = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert stored.state["run"]["step"] == 5
    assert all(np.isfinite(t).all() for t in stored.tensors.values())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_that_are_not_finite_never_reach_a_checkpoint(tmp_path, clip):
    class Overflow(nn.MSELoss):
        def backward(self):
            return super().backward() * np.float32("inf")

    model = Network()
    options = {"epochs": 1, "steps": 1, "out": tmp_path, "clip_norm": clip, "progress": False}
    trainer = Trainer(model, Overflow(), optim.SGD(model, lr=0.1), batches=Data(), **options)
    message = "parameters are not finite after step 1" if clip is None else "the gradient's norm is"
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    tensors = read_checkpoint(tmp_path / "checkpoint.safetensors").tensors
    assert all(np.isfinite(t).all() for t in tensors.values())


def test_patience_and_restore_best(tmp_path):
    values = iter([3.0, 1.0, 2.0, 1.5, 0.5, 0.1])
    trainer = make(tmp_path, epochs=6, patience=2, monitor="m", evaluate=lambda: {"m": next(values)})
    trainer.fit()
    assert trainer.epoch == 4
    assert trainer.finished
    trainer.restore_best()
    best = read_checkpoint(tmp_path / "best.safetensors")
    assert best.state["run"]["epoch"] == 2
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, best.tensors[f"model.{name}"])


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_constant_metric_stops(tmp_path, mode):
    trainer = make(tmp_path, epochs=6, patience=2, monitor="m", mode=mode, evaluate=lambda: {"m": 1.0})
    trainer.fit()
    assert trainer.epoch == 3
    assert read_checkpoint(tmp_path / "best.safetensors").state["run"]["epoch"] == 1, "the first of equals is the best"


def test_best_survives_resume(tmp_path):
    values = iter([3.0, 1.0, 2.0, 1.5])
    make(tmp_path, steps=10, monitor="m", evaluate=lambda: {"m": next(values)}).fit()
    trainer = make(tmp_path, monitor="m", evaluate=lambda: {"m": next(values)}).resume()
    trainer.fit()
    trainer.restore_best()
    best = read_checkpoint(tmp_path / "best.safetensors").tensors
    np.testing.assert_array_equal(trainer.model.state_dict()["head.bias"], best["model.head.bias"])


def test_monitor_max_and_unknown():
    values = iter([1.0, 2.0, 1.0, 1.0, 9.0])
    trainer = make(epochs=5, patience=2, monitor="m", mode="max", evaluate=lambda: {"m": next(values)})
    trainer.fit()
    assert trainer.epoch == 4
    with pytest.raises(TrainingError, match="monitor: expected one of loss, weight, got accuracy"):
        make(monitor="accuracy").fit()


def test_restore_best_without_any():
    with pytest.raises(TrainingError, match="no epoch was monitored"):
        make().restore_best()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"steps": -1}, "steps: expected at least 1, got -1"),
        ({"patience": 0}, "patience"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"log_every": 0}, "log_every"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"mode": "least"}, "mode: expected 'min' or 'max', got 'least'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_batches_that_give_out():
    class Short(Data):
        def __call__(self, epoch):
            class Epoch:
                def __len__(self):
                    return BATCHES + 1

                def __iter__(self):
                    return iter(Data()(epoch))

            return Epoch()

    with pytest.raises(TrainingError, match="epoch 1 should have 6 batches, gave out at batch 5"):
        make(data=Short()).fit()


def test_a_folder_with_a_checkpoint_is_refused(tmp_path):
    make(tmp_path, epochs=1).fit()
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"holds a checkpoint already: call resume\(\)"):
        make(tmp_path).fit()
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write to"):
        make(tmp_path / "file" / "run").fit()


def test_a_disk_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if trainer.step > 5 and str(target).endswith("checkpoint.safetensors"):
            raise OSError(28, "No space left on device")
        return replace(source, target)

    trainer = make(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TrainingError, match="No space left on device; the checkpoint of step 5 stands in"):
        trainer.fit()
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["run"]["step"] == 5
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "temporary files left behind"


def test_resume_refuses_what_does_not_fit(tmp_path):
    make(tmp_path, steps=3, seed=1).fit()
    with pytest.raises(CheckpointError, match="seed: expected 2, got 1"):
        make(tmp_path, seed=2).resume()
    with pytest.raises(CheckpointError, match="optimizer: expected RMSprop, got Adam"):
        make(tmp_path, seed=1, optimizer=optim.RMSprop).resume()

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 2)

    with pytest.raises(CheckpointError, match="of another model or optimizer"):
        make(tmp_path, seed=1, model=Other()).resume()
    with pytest.raises(ValueError, match="no run folder"):
        make().resume()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        make(tmp_path / "nowhere").resume()


def test_progress_lines_in_a_log(capfd):
    make(progress=True, epochs=2, baseline={"weight": 0.5}).fit()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2  step 10/10  loss ")
    assert "(baseline 0.5)" in lines[1]


def test_a_terminal_shows_a_bar_with_the_last_metrics():
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    script = (
        "import importlib.util as u\n"
        f"s = u.spec_from_file_location('t', {__file__!r}); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "print(m.make(progress=True, epochs=3).fit()[-1]['weight'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=terminal, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown.decode()
    last = shown.decode().rsplit("15/15", 1)[-1]
    assert f"weight {float(printed):.4g}" in last
