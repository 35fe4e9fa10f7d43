"""A run's folder is one run's, one process's at a time, and outlives kills at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.tasks.run import _fresh_folder
from fusedrnn.tasks.task import RunError
from fusedrnn.train import Trainer, TrainingError, TrainingInterrupted, TrainingTerminated
from fusedrnn.train.checkpoint import read_checkpoint
from fusedrnn.train.interrupt import first_interrupt

fcntl = pytest.importorskip("fcntl", reason="Windows has no fcntl: folders are not locked there")
ONE = np.ones((2, 1), "f4")


def make(out, *, act=lambda step: None, **options):
    """Four epochs of three batches; `act` is called when a batch is made."""
    model = nn.Linear(1, 1, rng=0)

    class Epoch:
        def __init__(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return 3

        def __iter__(self):
            for i in range(3):
                act(self.epoch * 3 + i)
                yield ONE, i * ONE

    settings = {"batches": Epoch, "epochs": 4, "progress": False, **options}
    return Trainer(model, nn.MSELoss(), optim.Adam(model, lr=0.1), out=out, **settings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = ["checkpoint.safetensors", "metrics.jsonl"]


# one at a time


def test_a_second_run_in_the_folder_is_refused_while_the_first_trains(tmp_path):
    refused = []

    def other(step):
        if step != 4:
            return
        for start in (lambda: make(tmp_path).fit(), lambda: make(tmp_path).resume().fit()):
            with pytest.raises(TrainingError) as error:
                start()
            refused.append(str(error.value))

    make(tmp_path, act=other).fit()
    assert len(refused) == 2
    for text in refused:
        assert f"process {os.getpid()} on " in text
        assert "is training there; wait until it ends, or choose another folder" in text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert names(tmp_path) == WHOLE, "no lock is left"


CHILD = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("test_run_folder", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
def act(step):
    print(step, flush=True)
    if step == {at}:
        {action}
from fusedrnn.train import folder
{before}
module.make({out!r}, act=act).fit()
"""


def child(out, at=0, action="time.sleep(60)", before=""):
    code = CHILD.format(path=__file__, out=str(out), at=at, action=action, before=before)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_another_process_holds_the_folder_as_long_as_it_lives(tmp_path):
    process = child(tmp_path)
    assert process.stdout.readline() == "0\n", process.stderr.read()
    with pytest.raises(TrainingError, match=f"process {process.pid} on .* is training there"):
        make(tmp_path).fit()
    process.kill()
    process.communicate(timeout=60)
    assert ".lock" in names(tmp_path)
    make(tmp_path).resume().fit()
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize("left", ["", "process 0 on", "nonsense", f"process {2**22 + 1} on elsewhere\n"])
def test_a_lock_that_nobody_holds_does_not_block(tmp_path, left):
    (tmp_path / ".lock").write_text(left)
    make(tmp_path).fit()
    assert names(tmp_path) == WHOLE


def test_a_lock_that_a_dead_process_left_to_its_children_does_not_block(tmp_path):
    """flock goes to forked processes, such as those that load data."""
    import socket

    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    os.write(handle, f"process {int(done.stdout)} on {socket.gethostname()}\n".encode())
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        make(tmp_path).fit()
    finally:
        os.close(handle)
    assert names(tmp_path) == WHOLE


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def fail(handle, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fail)
    make(tmp_path).fit()
    assert set(WHOLE) <= set(names(tmp_path))


def test_a_run_that_fails_gives_the_folder_back(tmp_path):
    def fail(step):
        if step == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(tmp_path, act=fail).fit()
    assert names(tmp_path) == WHOLE
    make(tmp_path).resume().fit()


# kills


def test_killed_before_the_first_checkpoint_the_folder_can_be_used_again(tmp_path):
    """Killed while it writes: what is left is no run, and goes."""
    out = tmp_path / "run"
    kill = "os.kill(os.getpid(), 9)"
    process = child(out, before=f"folder.os.fsync = lambda handle: {kill}")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    left = names(out)
    assert left[0].startswith(".checkpoint.safetensors.")
    assert left[1:] == [".lock"]
    assert _fresh_folder("any", out) == out, "the command takes it"
    make(out).fit()
    assert names(out) == WHOLE


def test_unfinished_files_are_swept_and_others_are_not(tmp_path):
    make(tmp_path, steps=2).fit()
    unfinished = [
        ".checkpoint.safetensors.a1_b2c3d",
        ".best.safetensors.abcdefgh",
        ".metrics.jsonl.abcdefgh",
        ".figures.json.abcdefgh",
        ".loss.png.abcdefgh",
        ".count-ones.png.abcdefgh",
    ]
    own = [".notes.txt.abcdefgh", ".checkpoint.safetensors", "checkpoint.safetensors.abcdefgh", ".loss.png.mine"]
    for name in (*unfinished, *own):
        (tmp_path / name).write_text("")
    make(tmp_path).resume().fit()
    assert names(tmp_path) == sorted([*WHOLE, *own])


@pytest.mark.parametrize("name", ["best.safetensors", "metrics.jsonl"])
def test_a_folder_with_parts_of_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(TrainingError, match="holds a checkpoint already"):
        make(tmp_path).fit()
    assert names(tmp_path) == [name]


def test_the_command_takes_folders_in_which_no_run_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "runs" / "count-ones"
    first.mkdir(parents=True)
    (first / ".lock").write_text("process 1 on elsewhere")
    (first / ".checkpoint.safetensors.abcdefgh").write_text("")
    assert str(_fresh_folder("count-ones", None)) == "runs/count-ones"
    (first / "notes").write_text("")
    assert str(_fresh_folder("count-ones", None)) == "runs/count-ones-2"
    with pytest.raises(RunError, match="has contents"):
        _fresh_folder("count-ones", first)


# SIGTERM


def test_sigterm_finishes_the_step_and_resumes_to_the_same_bits(tmp_path):
    def terminate(step):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingTerminated, match="interrupted after step 5; the checkpoint of step 5 stands") as error:
        make(tmp_path / "parts", act=terminate).fit()
    assert isinstance(error.value, TrainingInterrupted)
    assert error.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    parts, whole = make(tmp_path / "parts").resume(), make(tmp_path / "whole")
    assert parts.step == 5
    for trainer in (parts, whole):
        trainer.fit()
    one, other = (read_checkpoint(tmp_path / run / "checkpoint.safetensors").tensors for run in ("parts", "whole"))
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name])


def test_a_script_ends_with_the_status_of_sigterm(tmp_path):
    process = child(tmp_path, at=4, action="os.kill(os.getpid(), 15)")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "SIGTERM: finishing this step and writing a checkpoint" in errors
    assert "Traceback" not in errors
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["run"]["step"] == 5


def test_handlers_of_the_program_stay_and_so_do_ignored_signals():
    seen = []
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGTERM, lambda *_: seen.append("own"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with first_interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert not interrupt.is_set()
        assert seen == ["own"]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_after_the_first_signal_the_next_does_what_it_did(capfd):
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with first_interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert (interrupt.is_set(), interrupt.signal) == (True, signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert kept == {number: signal.getsignal(number) for number in kept}
    assert "once more stops at once" in capfd.readouterr().err


def test_off_the_main_thread_signals_are_left_alone():
    found = []

    def run():
        with first_interrupt() as interrupt:
            found.append(interrupt.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_metrics_torn_by_a_full_disk_are_mended_by_the_next_fit(tmp_path, monkeypatch):
    from fusedrnn.train.folder import RunFolder

    append = RunFolder.append

    def full(self, record):
        if record["step"] == 6:
            self.metrics.write_text(self.metrics.read_text() + '{"epoch": 2, "st')
            raise OSError(28, "No space left on device", str(self.metrics))
        append(self, record)

    trainer = make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", full)
        with pytest.raises(TrainingError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
            trainer.fit()
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == trainer.history
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
