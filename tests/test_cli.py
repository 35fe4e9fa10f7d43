"""The command as people meet it: help, exit codes, files, Ctrl-C and resume; in its own process where that matters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import fusedrnn
from fusedrnn import cuda
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS
from fusedrnn.tasks.run import Command, run_task

ENVIRONMENT = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "MPLBACKEND": "agg"}


def test_help_names_every_task_and_preset(command):
    assert command("--help").returncode == 0
    shown = command("train", "--help").stdout
    for task in TASKS.values():
        assert task.name in shown
        assert all(name in shown for name in task.presets)
    for option in ("preset", "epochs", "steps", "seed", "threads", "data", "out", "resume", "json", "quiet"):
        assert f"--{option}" in shown


def test_without_arguments_it_shows_help(command):
    shown = command()
    assert "train" in shown.stdout + shown.stderr


def test_version(command):
    assert command("--version").stdout == f"fusedrnn {fusedrnn.__version__}\n"


def test_info(command):
    config = json.loads(command("info", "--json").stdout)
    assert config == fusedrnn.show_config()
    plain = command("info").stdout
    assert all(str(config[name]) in plain for name in ("version", "compiler"))


def test_train_ends_with_the_figure(command, threads, tmp_path):
    done = command(
        "train", "addition", "--steps", 3, "--seed", 1, "--threads", 1, "--out", "run", "--json", "figures.json"
    )
    assert done.returncode == 0, done.stderr
    assert fusedrnn.get_num_threads() == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("addition: ")
    assert done.stdout.rstrip().endswith("results in run")
    assert "step 3/3" in done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["seed"] == 1
    assert set(figures["metrics"]) == {"accuracy", "exact_64", "exact_256"}
    assert "Traceback" not in done.stderr


def test_sample(command, tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 200)
    arguments = ("--preset", "smoke", "--steps", 1, "--quiet", "--data", "text.txt", "--out", "run")
    assert command("train", "text", *arguments).returncode == 0
    done = command("sample", "run", "--prime", "to be", "--length", 9, "--temperature", 0.5)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("to be")
    assert len(done.stdout) == len("to be") + 9 + 1
    for rest, code, message in (
        (["run", "--prime", "x"], 2, "--prime: 'x' does not occur"),
        (["run", "--out", "no/f"], 2, "--out: there is no folder no"),
        (["."], 1, "there is no checkpoint"),
    ):
        done = command("sample", *rest)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="pipes have no names here")
def test_json_to_a_pipe(command):
    """Which cannot be put in place by a rename, as a file is."""
    ours, theirs = os.pipe()
    done = command("train", "addition", "--steps", 1, "--quiet", "--out", "run", "--json", f"/dev/fd/{theirs}")
    os.close(theirs)
    with open(ours) as pipe:
        assert json.load(pipe)["steps"] == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "no task 'nonsense'; there are count-ones, addition"),
        (["addition", "--preset", "huge"], 2, "--preset: addition has smoke, default, best; got huge"),
        (["addition", "--threads", "0"], 2, "--threads: "),
        (["addition", "--steps", "x"], 2, "steps"),
        (["addition", "--out", "{file}"], 2, "--out: {file} is not a folder"),
        (["addition", "--out", "{file}/run"], 1, "cannot write to {file}/run"),
        (["addition", "--resume", "{empty}"], 1, "there is no checkpoint"),
        (["mnist", "--data", "/no/such/folder"], 1, "no such folder"),
    ],
)
def test_mistakes_end_in_one_line(command, tmp_path, arguments, code, message):
    places = {"file": str(tmp_path / "file"), "empty": str(tmp_path / "empty")}
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()
    done = command("train", *[a.format(**places) for a in arguments])
    assert done.returncode == code, done.stderr
    assert message.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "file").read_text() == "precious"


def test_a_truncated_checkpoint_is_refused_and_kept(command, tmp_path):
    run = tmp_path / "run"
    assert command("train", "addition", "--steps", 1, "--out", run).returncode == 0
    checkpoint = run / "checkpoint.safetensors"
    content = checkpoint.read_bytes()[:-100]
    checkpoint.write_bytes(content)
    done = command("train", "addition", "--resume", run)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fusedrnn: {checkpoint}: truncated, or not a safetensors file")
    assert "Traceback" not in done.stderr
    assert checkpoint.read_bytes() == content


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_loss", "draw_sums"):
            patch.setattr(pictures, name, lambda *rest: None)
        run_task(TASKS["addition"], Command(epochs=4, out=out, progress=False))
    return out


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_and_resume_end_in_the_same_bits(command, whole, tmp_path, presses):
    """The command in a process of its own, as Ctrl-C finds it; what it says is a log's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fusedrnn.cli", "train", "addition", "--epochs", "4", "--out", "parts"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline().startswith("epoch 1")
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert out == ""
    assert "go on with: fusedrnn train addition --resume parts" in errors
    assert "Traceback" not in errors
    resumed = command("train", "addition", "--resume", "parts", "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    one, other = (json.loads((run / "figures.json").read_text()) for run in (whole, tmp_path / "parts"))
    assert one["metrics"] == other["metrics"]
    one, other = (
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, tmp_path / "parts")
    )
    assert one == other


def test_selftest_without_a_gpu_says_what_is_missing(command, tmp_path):
    if cuda.available():
        pytest.skip("there is a GPU")
    done = command("selftest", "--cuda", "--out", "r.json")
    assert done.returncode == 1
    assert f"fusedrnn selftest: {cuda.missing()}" in done.stdout
    assert not list(tmp_path.iterdir())
    done = command("selftest")
    assert done.returncode == 2
    assert "--cuda" in done.stderr
