"""Processes that ``mpirun`` starts: what is asked of the launcher, and training as people start it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fusedrnn.tasks import TASKS
from fusedrnn.train import distributed
from fusedrnn.train.checkpoint import read_checkpoint
from fusedrnn.train.distributed import DistributedError, World, find_world
from tests import strokes_made


@pytest.fixture
def launched(monkeypatch):
    """As if started by MPICH's mpirun as one of two."""
    distributed._find_world.cache_clear()
    for name in ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PMI_SIZE", "2")
    yield
    distributed._find_world.cache_clear()


@pytest.mark.parametrize("size", ["1", None])
def test_one_process_needs_no_mpi(launched, monkeypatch, size):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", size) if size else monkeypatch.delenv("PMI_SIZE")
    assert type(find_world()) is World


def test_threads_that_ask_at_once_find_one_world(launched, monkeypatch):
    monkeypatch.delenv("PMI_SIZE")
    gate, found = threading.Barrier(4), []

    def slow():
        time.sleep(0.02)  # in which the others ask
        return World()

    monkeypatch.setattr(distributed, "World", slow)

    def ask():
        gate.wait()
        found.append(find_world())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(world) for world in found}) == 1


def test_several_processes_without_mpi4py_are_refused(launched, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(DistributedError, match=r"started 2 processes, but mpi4py .* pip install '\.\[mpi\]'"):
        find_world()


def test_a_launcher_of_another_mpi_is_named(launched, monkeypatch):
    alone = SimpleNamespace(Get_size=lambda: 1)
    module = SimpleNamespace(COMM_WORLD=alone, Get_library_version=lambda: "Some MPI 1.0\nand more")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=module))
    with pytest.raises(
        DistributedError, match=r"started 2 .* finds only its own: .* \(Some MPI 1.0\) than the launcher"
    ):
        find_world()


@pytest.mark.parametrize(
    ("masks", "own"),
    [
        ([{0, 1, 2, 3}] * 2, [2, 2]),
        ([{0, 1, 2, 3}] * 3, [1, 1, 1]),
        ([{0}] * 2, [1, 1]),
        ([{0, 1, 2}, {3, 4}], [3, 2]),
        ([{0, 1, 2, 3}, {2, 3}], [3, 1]),
    ],
)
def test_processes_share_the_cores_of_their_machine(monkeypatch, masks, own):
    for mask, threads in zip(masks, own, strict=True):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, mask=mask: mask)
        assert distributed._share_of_cores(SimpleNamespace(allgather=lambda own, masks=masks: masks)) == threads


def test_threads_that_were_chosen_stay(run_python):
    code = "from fusedrnn import runtime as r; print(r.threads_were_chosen()); {}; print(r.threads_were_chosen())"
    assert run_python(code.format("r.set_num_threads(1)")).stdout.split() == ["False", "True"]
    assert run_python(code.format("0"), FUSEDRNN_NUM_THREADS="2").stdout.split() == ["True", "True"]


# processes


TRAINING = """
import json, os, signal, sys
import numpy as np
from fusedrnn import get_num_threads, nn, optim
from fusedrnn.train.distributed import find_world
from fusedrnn.train.tbptt import Windows
from fusedrnn.train import Trainer, TrainingInterrupted

mode, out = sys.argv[1:]
world = find_world()
world.patience = 0.5
rng = np.random.default_rng(None if mode == "resume" else world.rank)
rnn = nn.GRU(3, 6, 2, dropout=0.3, zoneout_h=0.2, dtype="float64", rng=rng)
model = nn.Sequential(nn.Linear(2, 3, dtype="float64", rng=rng), rnn, nn.Linear(6, 2, dtype="float64", rng=rng))

def batches(epoch):
    if (epoch, world.rank, mode) == (1, 1, "interrupt"):
        os.kill(os.getpid(), signal.SIGINT)
    if (epoch, world.rank, mode) == (1, 1, "error"):
        1 / 0
    x = np.random.default_rng(epoch).standard_normal((11, 5, 2))
    return Windows([(x, x.cumsum(0))], 4)

options = {"batches": batches, "epochs": 3, "row_axes": (1, 1), "clip_norm": 1.0, "progress": True}
trainer = Trainer(model, nn.MSELoss(), optim.Adam(model, lr=0.01), out=f"{out}/run", **options)
stopped = False
try:
    (trainer.resume() if mode == "resume" else trainer).fit()
except TrainingInterrupted:
    stopped = True
facts = {"step": trainer.step, "stopped": stopped, "threads": get_num_threads(), "history": trainer.history}
np.save(f"{out}/{world.rank}.npy", model.flatten().data)
with open(f"{out}/{world.rank}.json", "w") as stream:
    json.dump(facts, stream)
"""


@pytest.fixture
def mpirun():
    """mpirun(n, *arguments of Python, timeout=120): n processes of this interpreter."""
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).with_name("mpirun")
    command = str(beside) if beside.exists() else shutil.which("mpirun")
    if command is None:
        pytest.skip("there is no mpirun")
    # the second is Open MPI's: more processes than cores, and by root
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUSEDRNN_")}
    openmpi = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

    def run(n, *arguments, timeout=120):
        return subprocess.run(
            [command, "-n", str(n), sys.executable, *map(str, arguments)],
            env={**inherited, **openmpi, **allowed, "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def train(mpirun, tmp_path):
    """train(n, mode, out): n processes run the program above; what each found, and its parameters."""
    program = tmp_path / "program.py"
    program.write_text(TRAINING)

    def run(n, mode, out):
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        done = mpirun(n, program, mode, folder)
        assert done.returncode == 0, done.stderr
        found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]
        return found, [np.load(folder / f"{rank}.npy") for rank in range(n)], done

    return run


def test_two_processes_equal_one(train, tmp_path):
    (alone,), (joint,), _ = train(1, "plain", "one")
    found, parameters, done = train(2, "plain", "two")
    np.testing.assert_array_equal(*parameters)
    assert np.abs(parameters[0] - joint).max() <= 1e-12 * np.abs(joint).max()
    assert found[0]["history"] == found[1]["history"]
    assert len(done.stderr.splitlines()) == 1, "no metric, so the last line alone; and none from the other process"
    for ours, theirs in zip(found[0]["history"], alone["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-12)
    cores = len(os.sched_getaffinity(0))
    assert alone["threads"] == cores
    assert all(1 <= facts["threads"] <= max(1, cores // 2) for facts in found)
    one, other = (read_checkpoint(tmp_path / name / "run" / "checkpoint.safetensors") for name in ("one", "two"))
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_allclose(other.tensors[name], tensor, rtol=0, atol=1e-11, err_msg=name)


def test_ctrl_c_in_one_process_stops_both_and_both_resume_to_the_same_bits(train):
    _, whole, _ = train(2, "plain", "whole")
    found, _, _ = train(2, "interrupt", "parts")
    assert [(facts["step"], facts["stopped"]) for facts in found] == [(4, True)] * 2
    found, parameters, _ = train(2, "resume", "parts")
    assert [facts["step"] for facts in found] == [9, 9]
    for ours in parameters:
        np.testing.assert_array_equal(ours, whole[0])
    assert found[0]["history"] == found[1]["history"]


@pytest.fixture
def digits(tmp_path):
    """A folder of 300 little images, named and laid out as MNIST."""
    folder = tmp_path / "digits"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, n in (("train", 300), ("t10k", 20)):
        for part, array in (
            ("images-idx3", rng.integers(0, 256, (n, 28, 28), np.uint8)),
            ("labels-idx1", rng.integers(0, 10, n, np.uint8)),
        ):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f"{split}-{part}-ubyte").write_bytes(content)
    return folder


@pytest.fixture
def series(tmp_path):
    """A CSV file of a season with noise."""
    values = np.sin(np.arange(300) / 2) + 0.1 * np.random.default_rng(0).standard_normal(300)
    (tmp_path / "series.csv").write_text("load\n" + "\n".join(map(str, values)))
    return tmp_path / "series.csv"


# Every task, as `fusedrnn train` runs it, but for the pictures; argument: what `command_of` gives for each, as JSON.
TASKS_IN_TURN = """
import json, sys
from pathlib import Path
from fusedrnn.plots import captions
from fusedrnn.plots import handwriting as handwriting_plots
from fusedrnn.plots import memory as memory_plots
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS, caption_scenes, dnc_babi, dnc_copy, dnc_graph, dnc_reuse
from fusedrnn.tasks import ntm_copy, ntm_ngram, ntm_recall, ntm_repeat_copy, translate_exact
from fusedrnn.tasks.run import Command, run_task

for module in (pictures, captions, memory_plots, handwriting_plots):
    for picture in [name for name in vars(module) if name.startswith("draw_")]:
        setattr(module, picture, lambda path, *rest: None)
for module in (dnc_babi, dnc_copy, dnc_graph, dnc_reuse, translate_exact):
    module.TESTED = 4
for module in (ntm_copy, ntm_recall, ntm_repeat_copy):
    module.LONG_ROWS = 2
caption_scenes.TRAINING, caption_scenes.TESTED = 200, 4
ntm_ngram.TEST_ROWS = 4
commands = json.loads(sys.argv[1])
for name, command in commands.items():
    metrics, _ = run_task(TASKS[name], Command(**{**command, "out": Path(command["out"])}))
    Path(f"{command['out']}.json").write_text(json.dumps(metrics))
"""


def test_every_task_trains_in_two_processes_as_in_one(mpirun, digits, series, tmp_path, run_python):
    """Each process takes its rows of every batch, along the axes that the task names."""
    (tmp_path / "text").write_text("to be or not to be, " * 600)
    data = {"mnist": digits, "forecast": series, "text": tmp_path / "text", "sentiment": "generated"}
    data |= {"translate": "reversal", "handwriting": strokes_made.iam_folder(tmp_path / "iam")}

    def commands(folder):
        (tmp_path / folder).mkdir()
        common = {"steps": 3, "progress": False}
        own = {name: {"data": str(data[name])} for name in data}
        return json.dumps({k: {**common, **own.get(k, {}), "out": str(tmp_path / folder / k)} for k in TASKS})

    joint = mpirun(2, "-c", TASKS_IN_TURN, commands("two"))
    assert joint.returncode == 0, joint.stderr
    alone = run_python(f"import sys; sys.argv.append({commands('one')!r})\n{TASKS_IN_TURN}", timeout=120)
    assert alone.returncode == 0, alone.stderr
    for name in TASKS:
        ours, theirs = (json.loads((tmp_path / folder / f"{name}.json").read_text()) for folder in ("two", "one"))
        assert ours == pytest.approx(theirs, rel=1e-3), name
        checkpoints = (tmp_path / folder / name / "checkpoint.safetensors" for folder in ("two", "one"))
        tensors, expected = (read_checkpoint(path).tensors for path in checkpoints)
        for key, tensor in expected.items():
            bound = 1e-4 * np.abs(tensor).max()
            np.testing.assert_allclose(tensors[key], tensor, rtol=0, atol=bound, err_msg=f"{name}: {key}")


def test_the_command_in_two_processes_says_and_writes_what_one_would(mpirun, tmp_path):
    command, run = ["-m", "fusedrnn.cli", "train", "addition"], tmp_path / "run"
    done = mpirun(2, *command, "--json", tmp_path / "figures.json", "--steps", 3, "--out", run)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("addition: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    files = {"checkpoint.safetensors", "figures.json", "loss.png", "metrics.jsonl", "addition.png"}
    assert {path.name for path in run.iterdir()} == files
    assert json.loads((tmp_path / "figures.json").read_text())["steps"] == 3
    again = mpirun(2, *command, "--resume", run, "--steps", 5)
    assert again.returncode == 0, again.stderr
    assert read_checkpoint(run / "checkpoint.safetensors").state["run"]["step"] == 5
    refused = mpirun(2, *command, "--out", run)
    assert refused.returncode != 0
    assert refused.stderr.count("has contents; choose another folder") == 1


def test_mistakes_end_in_one_line(mpirun, tmp_path):
    for arguments, message in (
        (["mnist", "--data", "/no/such/folder"], "fusedrnn: --data /no/such/folder: no such folder"),
        (["nonsense"], "fusedrnn: no task 'nonsense'; there are"),
    ):
        done = mpirun(2, "-m", "fusedrnn.cli", "train", *arguments, "--out", tmp_path / "run")
        assert done.returncode != 0
        assert done.stderr.count(message) == 1, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_error_in_one_process_ends_both(mpirun, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TRAINING)
    start = time.monotonic()
    done = mpirun(2, program, "error", tmp_path)
    assert time.monotonic() - start < 30
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert "fusedrnn: error in process 1 of 2; ending all" in done.stderr
    assert not list(tmp_path.glob("*.json"))
