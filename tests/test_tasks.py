"""Tasks: their data is what it says, and a seed decides it; what a run leaves is in test_task_runs.py."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.tasks import TASKS, adding_problem, addition, count_ones, mnist, polygon
from fusedrnn.tasks.task import Options, Preset
from fusedrnn.train.batches import in_chunks, shuffled


def setup(module, seed=0, **options):
    task = {"count_ones": "count-ones", "adding_problem": "adding-problem"}.get(
        module.__name__.rsplit(".", 1)[1], module.__name__.rsplit(".", 1)[1]
    )
    preset = TASKS[task].presets["default"]
    settings = TASKS[task].settings(preset, {})
    return module.setup(
        Options(preset, preset.epochs, preset.steps, seed, say=pytest.fail, settings=settings, **options)
    )


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


def test_presets_say_what_they_are():
    for task in TASKS.values():
        assert {"smoke", "default", "best"} <= task.presets.keys()
        assert all(preset.about for preset in task.presets.values())


def test_task_options_count_steps():
    assert Options(Preset("", 3), 3, None, 0).total_steps(10) == 30
    assert Options(Preset("", 3), 3, 7, 0).total_steps(10) == 7
