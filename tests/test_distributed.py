"""Several processes train as one: what they learn is what one learns from the joint batch.

In threads over a communicator of our own, so that it holds where MPI is not installed; tests/test_mpirun.py starts
processes.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.nn.module import Rows
from fusedrnn.nn.padding import padded
from fusedrnn.train import Trainer, TrainingError, TrainingInterrupted
from fusedrnn.train.checkpoint import read_checkpoint
from fusedrnn.train.distributed import DistributedError, World
from fusedrnn.train.interrupt import Interrupt
from fusedrnn.train.tbptt import Windows
from tests.processes import Aborted, together

# rows of the batches of an epoch: odd, a single one, and many
ROWS = (7, 1, 12)


def fitted(size, function):
    """The Trainers of so many processes, which all trained to the end."""
    results, aborted = together(size, function)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert not aborted
    return results


class Network(nn.Module):
    """Every kind of mask that there is: between layers, of states, of weights, and before the head."""

    def __init__(self, dtype, seed, batch_first=False, masks=True):
        super().__init__()
        rng = np.random.default_rng(seed)
        options = {"dropout": 0.3, "zoneout_h": 0.2, "recurrent_dropout": 0.3, "dropconnect": 0.2} if masks else {}
        self.rnn = nn.LSTM(3, 5, 2, batch_first=batch_first, learn_initial_state=True, dtype=dtype, rng=rng, **options)
        self.dropout = nn.Dropout(0.25 if masks else 0.0, rng=rng)
        self.head = nn.Linear(5, 2, dtype=dtype, rng=rng)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(self.dropout(y))

    def backward(self, dout):
        self.rnn.backward(self.dropout.backward(self.head.backward(dout)))


class Data:
    """Batches of uneven size; `spoil(epoch, i, x)` may change them."""

    def __init__(self, dtype="float64", batch_first=False, spoil=lambda epoch, i, x: x):
        self.dtype, self.batch_first, self.spoil = dtype, batch_first, spoil

    def __call__(self, epoch):
        data = self

        class Epoch:
            def __len__(self):
                return len(ROWS)

            def __iter__(self):
                return (data.batch(epoch, i) for i in range(len(ROWS)))

        return Epoch()

    def batch(self, epoch, i):
        x = np.random.default_rng([epoch, i]).standard_normal((4, ROWS[i], 3)).astype(self.dtype)
        target = x[:, :, :2].cumsum(0)
        if self.batch_first:
            x, target = np.ascontiguousarray(x.swapaxes(0, 1)), np.ascontiguousarray(target.swapaxes(0, 1))
        return self.spoil(epoch, i, x), target


def make(world, out=None, *, dtype="float64", batch_first=False, reduction="mean", seed=0, model=None, **options):
    """A Trainer whose processes begin with parameters of their own, unless they are told the first one's."""
    model = model or Network(dtype, seed + world.rank, batch_first)
    settings = {
        "batches": Data(dtype, batch_first),
        "epochs": 3,
        "clip_norm": 0.3,
        "schedule": optim.CosineLR(3 * len(ROWS)),
        "row_axes": (0, 0) if batch_first else (1, 1),
        "progress": False,
        **options,
    }
    optimizer = settings.pop("optimizer", optim.Adam)(model, lr=0.02)
    return Trainer(model, nn.MSELoss(reduction), optimizer, out=out, world=world, **settings)


def trained(**options):
    """A function that makes a Trainer in a world and trains it."""

    def run(world):
        trainer = make(world, **options)
        trainer.fit()
        return trainer

    return run


def parameters(trainer):
    return trainer.model.flatten().data.copy()


def deviation(trainers, alone):
    """The largest difference from one process, relative to the largest parameter; all processes have the same bits."""
    first = parameters(trainers[0])
    for other in trainers[1:]:
        np.testing.assert_array_equal(parameters(other), first)
        assert other.history == trainers[0].history
    return float(np.abs(first - parameters(alone)).max() / np.abs(parameters(alone)).max())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_equal_one_on_the_joint_batch(size, reduction, batch_first):
    options = {"reduction": reduction, "batch_first": batch_first}
    alone = trained(**options)(World())
    trainers = fitted(size, trained(**options))
    assert deviation(trainers, alone) < 1e-12
    for ours, joint in zip(trainers[0].history, alone.history, strict=True):
        assert ours["loss"] == pytest.approx(joint["loss"], rel=1e-12)
    assert trainers[0].model.rng_state() == alone.model.rng_state()


def test_float32_is_close():
    assert deviation(fitted(2, trained(dtype="float32")), trained(dtype="float32")(World())) < 1e-5


def test_nothing_of_a_shared_batch_stays_in_the_model():
    for trainer in fitted(2, trained(epochs=1)):
        assert {module._rows for module in trainer.model.modules()} == {None}
        assert not any(module._saved for module in trainer.model.modules())


# batches of several arrays


def translating(reduction):
    """A function that trains on sources and targets of uneven length, most of a row ignored, with dropout."""

    def run(world):
        model = nn.Seq2Seq(7, 6, 4, 5, dropout=0.3, dtype="float64", rng=world.rank)

        def batches(epoch):
            rng = np.random.default_rng(epoch)
            found = []
            for rows in ROWS:
                source, tokens = (padded([rng.integers(6, size=n) for n in rng.integers(1, 6, rows)]) for _ in range(2))
                own, weights = rng.random(tokens.shape) < 0.3, rng.random(tokens.shape) * (tokens >= 0)
                weights[:, : rows // 2] = 0  # a process may have nothing that counts
                found.append(((source, tokens, own), nn.Weighted(np.where(weights > 0, tokens, -1), weights)))
            return found

        loss = nn.CrossEntropyLoss(reduction, ignore_index=-1, label_smoothing=0.1)
        optimizer = optim.Adam(model, lr=0.02)
        axes = ((1, 1, 1), 1)
        options = {"batches": batches, "epochs": 2, "row_axes": axes, "clip_norm": 0.3, "progress": False}
        trainer = Trainer(model, loss, optimizer, world=world, **options)
        trainer.fit()
        return trainer

    return run


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_tuples_of_arrays_and_means_of_what_counts(reduction):
    alone = translating(reduction)(World())
    trainers = fitted(2, translating(reduction))
    assert deviation(trainers, alone) < 1e-12
    for ours, joint in zip(trainers[0].history, alone.history, strict=True):
        assert ours["loss"] == pytest.approx(joint["loss"], rel=1e-12)


# windows of long sequences


def windows(world, out, steps=None, seed=0):
    rng = np.random.default_rng(seed + world.rank)
    rnn = nn.LSTM(4, [5, 4], dtype="float64", rng=rng, dropout=0.3, zoneout_c=0.2)
    parts = (nn.Embedding(6, 4, dtype="float64", rng=rng), rnn, nn.Linear(4, 6, dtype="float64", rng=rng))
    texts = [
        np.random.default_rng(k).integers(0, 6, (length, rows)) for k, (length, rows) in enumerate([(24, 3), (9, 5)])
    ]
    return Trainer(
        model := nn.Sequential(*parts),
        nn.CrossEntropyLoss(),
        optim.SGD(model, lr=0.3, momentum=0.5),
        batches=lambda epoch: Windows([(text[:-1], text[1:]) for text in texts], 5),
        epochs=2,
        steps=steps,
        out=out,
        row_axes=(1, 1),
        progress=False,
        world=world,
    )


@pytest.fixture(scope="module")
def read_in_one_go(tmp_path_factory):
    """The checkpoint of one process that trained on all windows."""
    out = tmp_path_factory.mktemp("whole")
    windows(World(), out).fit()
    return read_checkpoint(out / "checkpoint.safetensors")


# stopped in the first text (1, 3), in the second (6), in the second epoch (9)
@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [(2, 2, 3), (2, 2, 6), (2, 1, 1), (2, 1, 9), (1, 2, 3), (1, 2, 6), (2, 3, 1), (2, 3, 9)],
)
def test_a_carried_state_is_shared_by_rows_and_resumes_in_any_number_of_processes(
    tmp_path, read_in_one_go, before, after, steps
):
    def run(steps=None, resume=False):
        def member(world):
            trainer = windows(world, tmp_path, steps, seed=9 if resume else 0)
            (trainer.resume() if resume else trainer).fit()
            return trainer

        return member

    fitted(before, run(steps))
    fitted(after, run(resume=True))
    one, other = read_in_one_go, read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert one.tensors.keys() == other.tensors.keys()
    assert any(name.startswith("state.") for name in one.tensors)
    for name, tensor in one.tensors.items():
        np.testing.assert_allclose(other.tensors[name], tensor, rtol=0, atol=1e-12, err_msg=name)
    assert one.state["rng"] == other.state["rng"]


def test_states_without_rows_are_refused():
    def member(world):
        with pytest.raises(ValueError, match=r"state: expected a state \[..., N, H\] of 2 rows, got \(3, 4\)"):
            world.join_rows({"state": np.zeros((3, 4))}, Rows(0, 2, 5, 1))
        with pytest.raises(ValueError, match=r"state: expected a state \[..., N, H\], got \(4,\)"):
            world.own_rows({"state": np.zeros(4)})

    fitted(2, member)


# what all must agree on


def test_the_first_process_alone_evaluates_and_writes_and_all_stop_early(tmp_path):
    values = iter([3.0, 1.0, 2.0, 1.5, 0.5])

    def member(world):
        def evaluate():
            assert world.rank == 0
            return {"m": next(values)}

        out = tmp_path / "run" if world.rank == 0 else tmp_path / "never"
        trainer = make(world, out, epochs=5, patience=2, monitor="m", evaluate=evaluate)
        trainer.fit()
        trainer.restore_best()
        return trainer

    trainers = fitted(2, member)
    assert [trainer.epoch for trainer in trainers] == [4, 4]
    np.testing.assert_array_equal(parameters(trainers[0]), parameters(trainers[1]))
    best = read_checkpoint(tmp_path / "run" / "best.safetensors")
    np.testing.assert_array_equal(trainers[1].model.head.weight.data, best.tensors["model.head.weight"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == trainers[1].history
    assert not (tmp_path / "never").exists()


def test_ctrl_c_in_one_process_stops_all_after_the_same_step(tmp_path, monkeypatch):
    """And the run resumes to the bits that it would have had."""
    pressed = threading.local()

    @contextlib.contextmanager
    def interrupt():
        pressed.event = Interrupt()
        yield pressed.event

    monkeypatch.setattr("fusedrnn.train.trainer.first_interrupt", interrupt)

    def press(world):
        def spoil(epoch, i, x):
            if (epoch, i, world.rank) == (1, 1, 1):
                pressed.event.signal = signal.SIGINT
            return x

        return spoil

    results, aborted = together(2, lambda world: make(world, tmp_path, batches=Data(spoil=press(world))).fit())
    assert not aborted
    for result in results:
        assert isinstance(result, TrainingInterrupted)
        assert "interrupted after step 5; the checkpoint of step 5 stands in" in str(result)

    def resumed(world):
        trainer = make(world, tmp_path, seed=7).resume()
        trainer.fit()
        return trainer

    ours, whole = fitted(2, resumed), fitted(2, trained())
    np.testing.assert_array_equal(parameters(ours[0]), parameters(whole[0]))


@pytest.mark.parametrize("row", [0, 11])
def test_a_loss_that_is_not_finite_in_one_process_stops_all(row):
    def spoil(epoch, i, x):
        if (epoch, i) == (1, 2):
            x[0, row] = np.nan
        return x

    results, aborted = together(2, lambda world: make(world, batches=Data(spoil=spoil)).fit())
    assert not aborted
    for result in results:
        assert isinstance(result, TrainingError)
        assert str(result) == "loss is nan at step 6 (epoch 2)"


def test_what_the_first_process_cannot_write_all_raise(tmp_path):
    (tmp_path / "file").write_text("")
    results, aborted = together(2, lambda world: make(world, tmp_path / "file" / "run").fit())
    assert not aborted
    assert [type(result) for result in results] == [TrainingError, TrainingError]
    assert str(results[0]) == str(results[1])
    assert "cannot write to" in str(results[1])


def test_others_set_up_when_the_first_is_done(tmp_path):
    def fetch(world):
        found = (tmp_path / "data").exists()
        if world.rank == 0:
            time.sleep(0.1)
            (tmp_path / "data").write_text("")
        return found

    assert fitted(3, lambda world: world.after_first(lambda: fetch(world))) == [False, True, True]


def test_what_evaluation_raises_all_raise_even_if_it_cannot_be_pickled():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__("odd")

    def evaluate():
        raise Odd(1, 2)

    results, aborted = together(2, lambda world: make(world, evaluate=evaluate).fit())
    assert not aborted
    assert [type(result) for result in results] == [DistributedError, DistributedError]
    assert str(results[1]) == "Odd('odd')"


@pytest.mark.parametrize(("rank", "kind"), [(0, ZeroDivisionError), (1, KeyboardInterrupt)])
def test_an_error_in_one_process_ends_all(rank, kind, capfd, monkeypatch):
    moment = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(min(seconds, 0.01)))
    monkeypatch.setattr("fusedrnn.train.distributed.time", moment)  # a launcher is given half a second

    def member(world):
        def spoil(epoch, i, x):
            if (epoch, i, world.rank) == (1, 2, rank):
                raise kind("of this one alone")
            return x

        return make(world, batches=Data(spoil=spoil)).fit()

    results, aborted = together(2, member, patience=0.05)
    assert rank in aborted
    assert isinstance(results[rank], Aborted)
    errors = capfd.readouterr().err
    assert f"{kind.__name__}: of this one alone" in errors
    assert f"fusedrnn: error in process {rank} of 2; ending all" in errors


def test_an_error_in_all_processes_is_raised_as_ever():
    def spoil(epoch, i, x):
        if (epoch, i) == (1, 2):
            time.sleep(0.1 * (threading.get_ident() % 2))
            raise ZeroDivisionError("of all")
        return x

    results, aborted = together(2, lambda world: make(world, batches=Data(spoil=spoil)).fit())
    assert not aborted
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError]


def other_batches(world):
    return make(world, batches=Data(spoil=lambda epoch, i, x: x + world.rank * (epoch == 1)))


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (lambda world: make(world, checkpoint_every=1 + world.rank), "checkpoint_every: expected the same .* got 1 in"),
        (
            lambda world: make(world, epochs=3, row_axes=(1 - world.rank, 1)),
            r"row_axes: .* got \(1, 1\) in process 0 and \(0",
        ),
        (lambda world: make(world, optimizer=(optim.Adam, optim.SGD)[world.rank]), "optimizer: .* got Adam in"),
        (lambda world: make(world, dtype=("float32", "float64")[world.rank]), "parameters: expected the same"),
        (lambda world: make(world, optimizer=lambda m, lr: optim.SGD((m, m.head)[world.rank], lr)), "moves: expected"),
        (
            lambda world: make(world, "x" * world.rank or None).resume("y"),
            "out is None: .* got True in process 0 and False",
        ),
        (other_batches, "batches, x and target: expected the same in all 2 processes"),
    ],
)
def test_processes_that_differ_are_refused(maker, message):
    results, aborted = together(2, lambda world: maker(world).fit())
    assert not aborted
    for result in results:
        assert isinstance(result, DistributedError)
        assert re.search(message, str(result)), result


@pytest.mark.parametrize("drift", [lambda m: m.head.bias.data.fill(9), lambda m: m.dropout.rng.random()])
def test_processes_that_drifted_apart_write_no_checkpoint(tmp_path, drift):
    def member(world):
        def spoil(epoch, i, x):
            if world.rank == 1:
                drift(model)
            return x

        model = Network("float64", 0)
        return make(world, tmp_path, model=model, batches=Data(spoil=spoil)).fit()

    results, _ = together(2, member)
    assert [str(result).split(":")[0] for result in results] == ["parameters, random state"] * 2
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["run"]["step"] == 0


class OwnNoise(nn.Module):
    def __init__(self):
        super().__init__()
        self.noise, self.linear = np.random.default_rng(0), nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_axes": None}, r"row_axes: expected the axes of x and target along which 2 processes share the rows"),
        ({"row_axes": (3, 1)}, r"row_axes: expected an axis of x \(4, 7, 3\), got 3"),
        (
            {"row_axes": (1, 0)},
            r"row_axes: expected as many rows in x \(4, 7, 3\) as in target \(4, 7, 2\), got \(7, 4\)",
        ),
        ({"row_axes": ((1, 1), 1)}, r"row_axes: expected 1 axes, one for each array of x, got \(1, 1\)"),
        ({"model": OwnNoise()}, "model: OwnNoise has a random generator of its own, whose numbers 2 processes cannot"),
    ],
)
def test_what_cannot_be_shared_is_refused(options, message):
    results, _ = together(2, lambda world: make(world, **options).fit())
    for result in results:
        assert isinstance(result, ValueError)
        assert re.search(message, str(result)), result
