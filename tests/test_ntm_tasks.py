"""The tasks of neural Turing machines: episodes, losses and counts, every task's coding, runs, and what a user asks."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.nn import BCEWithLogitsLoss, Linear, Module
from fusedrnn.plots import memory as memory_plots
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS, episodes, ntm_copy, ntm_ngram, ntm_recall, ntm_repeat_copy, ntm_runs, ntm_sort
from fusedrnn.tasks.memory_text import vectors_of, written
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint, write_checkpoint

MODULES = {
    "ntm-copy": ntm_copy,
    "ntm-repeat-copy": ntm_repeat_copy,
    "ntm-recall": ntm_recall,
    "ntm-ngram": ntm_ngram,
    "ntm-sort": ntm_sort,
}


def asked(target):
    """The bits [answered, N, O] of a target whose rows all answer at the same steps."""
    return target[target[:, 0, -1] > 0][:, :, :-1]


# episodes


def test_a_batch_follows_from_seed_epoch_and_number_alone():
    def made(seed, epoch):
        return [x.tobytes() for x, _ in episodes.episodes(ntm_copy.draw, 20, 3, seed)(epoch)]

    first = made(1, 2)
    assert first == made(1, 2)
    assert list(map(len, first)) == list(map(len, made(1, 2)))
    skipped = episodes.episodes(ntm_copy.draw, 20, 3, 1)(2).skip(15)
    assert [x.tobytes() for x, _ in skipped] == first[15:]
    assert not set(made(1, 3)) & set(first[:5] + first[5:]) - {x for x in first if len(x) < 400}
    own = ntm_copy.of_length(episodes.held_out(1, 0), 3, 20)[0].tobytes()
    assert own != ntm_copy.of_length(episodes.held_out(1, 1), 3, 20)[0].tobytes()
    assert own != ntm_copy.of_length(np.random.default_rng([1, 0, 0]), 3, 20)[0].tobytes()


@pytest.mark.parametrize("name", MODULES)
def test_weights_are_shared_among_the_rows_and_answers_are_bits(name):
    x, target = MODULES[name].draw(np.random.default_rng(0), 4)
    assert x.dtype == target.dtype == np.float32
    assert x.shape[:2] == target.shape[:2]
    assert set(np.unique(target[:, :, -1])) <= {0, 0.25}
    assert set(np.unique(target[:, :, :-1])) <= {0, 1}
    assert not target[target[:, :, -1] == 0].any()
    recipe = ntm_setup(name).metadata["recipe"]
    assert (x.shape[2], target.shape[2] - 1) == (recipe["inputs"], recipe["outputs"])


def ntm_setup(name, seed=0, **settings):
    from fusedrnn.tasks.task import Options

    task = TASKS[name]
    preset = task.presets["smoke"]
    return task.setup(Options(preset, 1, 1, seed, settings={**preset.settings, **settings}))


def test_the_loss_is_bits_of_a_sequence():
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal((5, 3, 2))).astype(np.float32)
    target = episodes.weighted(rng.integers(0, 2, (5, 3, 2)), np.array([0, 0, 1, 1, 1]))
    loss = episodes.BitsLoss()
    nats = BCEWithLogitsLoss("sum")(logits[2:], np.ascontiguousarray(target[2:, :, :-1]))
    assert loss(logits, target) == pytest.approx(nats / np.log(2) / 3, rel=1e-6)
    gradient = loss.backward()
    with pytest.raises(RuntimeError, match="expected a call"):
        loss.backward()
    for at in ((2, 0, 1), (4, 2, 0), (0, 1, 1)):
        moved = np.repeat(logits[None].astype(float), 2, 0)
        moved[0][at] += 1e-4
        moved[1][at] -= 1e-4
        high, low = episodes.bits_per_sequence(moved, target)
        assert gradient[at] == pytest.approx((high - low) / 2e-4, abs=1e-5)
    guess = np.zeros((1, *logits.shape), np.float32)
    assert episodes.bits_per_sequence(guess, target) == pytest.approx([6])
    with pytest.raises(ValueError, match="target: expected shape"):
        loss(logits, target[:, :, :-1])


def test_large_logits_cost_what_they_should():
    target = episodes.weighted(np.ones((1, 1, 1)), np.ones(1))
    loss = episodes.BitsLoss()
    assert loss(np.full((1, 1, 1), -1e4, np.float32), target) == pytest.approx(1e4 / np.log(2))
    assert loss.backward() == pytest.approx(-1 / np.log(2))
    assert loss(np.full((1, 1, 1), 1e4, np.float32), target) == 0


def test_wrong_bits_and_exact_sequences_are_counted_where_answers_are_asked():
    bits = np.zeros((4, 2, 2))
    target = episodes.weighted(bits, np.array([0, 0, 1, 1]))
    logits = np.full((2, 4, 2, 2), -1.0, np.float32)
    logits[:, 0] = 1  # where nobody asks
    logits[1, 2, 0, 1] = logits[1, 3, 0, 0] = 1
    assert episodes.wrong_bits(logits, target).tolist() == [0, 2 / 8]
    assert episodes.exact(logits, target).tolist() == [1, 0.5]
    assert episodes.exact(logits[0], target) == 1


class Plain(Module):
    """A linear layer on every step."""

    def __init__(self, rng):
        super().__init__()
        self.layer = Linear(3, 2, rng=rng)

    def forward(self, x):
        return self.layer(x)

    def backward(self, dy):
        self.layer.backward(dy)


def test_rivals_learn_as_they_would_alone():
    """The value is the first's, the gradients are each one's own, and one's large norm does not shrink the other's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    target = episodes.weighted(rng.integers(0, 2, (6, 2, 2)), np.ones(6))

    def trained(*seeds, clip_norm):
        model = SideBySide(*(Plain(seed) for seed in seeds))
        model.members[-1].layer.weight.data[...] *= 50
        optimizer, loss = episodes.RivalsAdam(model, 0.1, clip_norm), episodes.BitsLoss()
        value = loss(model(x), target)
        model.backward(loss.backward())
        norms = [np.linalg.norm(member.layer.weight.grad) for member in model.members]
        optimizer.step()
        clipped = [np.linalg.norm([np.linalg.norm(p.grad) for p in member.parameters()]) for member in model.members]
        return value, norms, clipped, model

    value, norms, clipped, model = trained(0, 1, clip_norm=0.5)
    alone, _, _, single = trained(1, clip_norm=0.5)
    assert min(norms) > 0.5
    assert clipped == pytest.approx([0.5, 0.5], rel=1e-4)
    assert value != pytest.approx(alone)
    own = episodes.BitsLoss()
    assert value == pytest.approx(own(Plain(0)(x), target))
    np.testing.assert_array_equal(model.members[1].layer.weight.data, single.members[0].layer.weight.data)


# codings


def test_when_a_machine_has_learnt_is_told_in_sequences():
    history = [{"step": 250 * (epoch + 1), "loss": loss} for epoch, loss in enumerate((84.0, 0.3, 0.05, 2.0, 0.01))]
    assert ntm_runs.learned_after(history, 0.05, rows=4) == {"learned_after": 3000.0}
    assert ntm_runs.learned_after(history[:2], 0.05, rows=4) == {"learned_after": np.inf}


def test_copy_asks_for_what_went_in():
    x, target = ntm_copy.draw(np.random.default_rng(3), 5)
    length = (len(x) - 1) // 2
    np.testing.assert_array_equal(x[:length, :, :8], asked(target))
    assert x[length].tolist() == [[0] * 8 + [1]] * 5
    assert not x[length + 1 :].any()
    assert not x[:length, :, 8].any()
    lengths = {(len(ntm_copy.draw(np.random.default_rng(seed), 1)[0]) - 1) // 2 for seed in range(300)}
    assert lengths == set(range(1, 21))


def test_repeat_copy_counts_and_ends():
    bits = np.random.default_rng(0).integers(0, 2, (3, 2, 8))
    x, target = ntm_repeat_copy.coded(bits, 4)
    answer = asked(target)
    assert answer.shape == (13, 2, 9)
    for copy in range(4):
        np.testing.assert_array_equal(answer[3 * copy : 3 * copy + 3, :, :8], bits)
    assert answer[:, :, 8].sum(0).tolist() == [1, 1]
    assert answer[-1].tolist() == [[0] * 8 + [1]] * 2
    told = [ntm_repeat_copy.coded(bits, copies)[0][3, 0, 9] for copies in range(1, 11)]
    assert np.mean(told) == pytest.approx(0, abs=1e-6)
    assert np.std(told) == pytest.approx(1, abs=1e-6)
    assert x[3, :, 8].tolist() == [1, 1]
    assert not x[4:].any()


def test_recall_asks_for_the_item_that_followed():
    x, target = ntm_recall.of_items(np.random.default_rng(1), 40, 5)
    assert len(x) == 4 * 5 + 5 + 3
    answer, numbers = asked(target), set()
    for row in range(40):
        items = x[:20, row].reshape(5, 4, 8)
        assert (items[:, 0, 6] == 1).all()
        query = x[20:25, row]
        assert query[[0, 4], 7].tolist() == [1, 1]
        (found,) = (n for n in range(5) if (items[n, 1:, :6] == query[1:4, :6]).all())
        numbers.add(found)
        np.testing.assert_array_equal(items[found + 1, 1:, :6], answer[:, row])
    assert numbers == {0, 1, 2, 3}
    assert x[:, :, 6].sum(0).tolist() == [5] * 40
    assert not x[25:].any()


def test_the_optimal_estimator_counts_what_followed_each_context():
    bits = ntm_ngram.draw_bits(np.random.default_rng(0), 2)
    likely = ntm_ngram.optimal(bits)
    for row in range(2):
        own = bits[:, row].tolist()
        for t in range(200):
            followed = [own[s] for s in range(5, t) if own[s - 5 : s] == own[t - 5 : t]] if t >= 5 else []
            assert likely[t, row] == pytest.approx((sum(followed) + 0.5) / (len(followed) + 1))
    x, target = ntm_ngram.coded(bits)
    np.testing.assert_array_equal(x[1:, :, 1], bits[:-1])
    np.testing.assert_array_equal(x[1:].sum(2), 1)
    assert not x[0].any()
    logits = np.log(likely / (1 - likely))[:, :, None]
    assert ntm_ngram.optimal_bits(target) == pytest.approx(float(episodes.bits_per_sequence(logits, target)))


def test_no_other_prior_predicts_the_tables_better():
    """Tables are from Beta(1/2, 1/2): counts that start at 1/2 are best, and all lose to who knows the table."""
    bits = ntm_ngram.draw_bits(np.random.default_rng(1), 2000)
    _, target = ntm_ngram.coded(bits)
    best = ntm_ngram.optimal_bits(target)
    likely = ntm_ngram.optimal(bits)
    for shrunk in (0.9, 0.97):  # towards 1/2, as larger first counts do
        other = 0.5 + shrunk * (likely - 0.5)
        cost = -np.log2(np.where(bits == 1, other, 1 - other)).sum(0).mean()
        assert cost > best
    assert 5 + 195 * 0.557 < best < 150  # 0.557 bits: the mean entropy of Beta(1/2, 1/2)


def test_sort_asks_for_the_highest_in_falling_order():
    x, target = ntm_sort.draw(np.random.default_rng(0), 3)
    assert len(x) == 37
    answer = asked(target)
    for row in range(3):
        pairs = sorted(((p, tuple(v)) for p, v in zip(x[:20, row, 8], x[:20, row, :8], strict=True)), reverse=True)
        np.testing.assert_array_equal(answer[:, row], [vector for _, vector in pairs[:16]])
    assert np.abs(x[:20, :, 8]).max() <= 1
    assert x[:20, :, 8].min() < -0.7
    assert x[20, :, 9].tolist() == [1, 1, 1]
    assert not x[21:].any()


# runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a few updates of every task, with small networks."""
    folder = tmp_path_factory.mktemp("ntm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ntm_copy, "LENGTHS", (50, 120))
        for module in (ntm_copy, ntm_repeat_copy, ntm_recall):
            patch.setattr(module, "LONG_ROWS", 2)
        patch.setattr(ntm_ngram, "TEST_ROWS", 3)
        patch.setattr(pictures, "draw_loss", lambda path, *rest: path.write_bytes(b""))
        for name in MODULES:
            run_task(TASKS[name], Command("smoke", steps=3, out=folder / name, progress=False))
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_a_run_tells_of_both_networks_and_draws(runs, name):
    import json

    figures = json.loads((runs / name / "figures.json").read_text())["metrics"]
    assert {"bits_per_sequence", "lstm_bits_per_sequence"} <= figures.keys()
    assert figures["bits_per_sequence"] != figures["lstm_bits_per_sequence"]
    picture = (runs / name / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


def test_the_network_that_is_asked_is_the_one_that_was_trained(runs):
    machine = ntm_runs.reload(runs / "ntm-copy", "ntm-copy")
    tensors = read_checkpoint(runs / "ntm-copy" / "best.safetensors").tensors
    for name, parameter in machine.named_parameters():
        np.testing.assert_array_equal(parameter.data, tensors[f"model.members.0.layer.{name}"])
    with pytest.raises(CheckpointError, match="not of ntm-sort"):
        ntm_runs.reload(runs / "ntm-copy", "ntm-sort")


STRUCTURE = ("inputs", "outputs", "units", "read_heads", "write_heads", "slots", "width", "lstm_units", "lstm_layers")


@pytest.mark.parametrize("field", STRUCTURE)
@pytest.mark.parametrize("wrong", [0, -1, 10**6, "many", None])
def test_a_recipe_that_is_not_the_files_is_refused(runs, tmp_path, field, wrong):
    tensors, state = read_checkpoint(runs / "ntm-copy" / "best.safetensors")
    state["metadata"]["recipe"][field] = wrong
    write_checkpoint(tmp_path / "checkpoint.safetensors", tensors, state)
    with pytest.raises(CheckpointError):
        ntm_runs.reload(tmp_path, "ntm-copy")


@pytest.mark.parametrize(
    ("name", "text", "steps", "last"),
    [
        ("ntm-copy", "10110010 00101101", 5, "of 16 bits wrong"),
        ("ntm-copy", "abc", 7, "of 24 bits wrong"),
        ("ntm-repeat-copy", "3 x ab", 10, "of 48 bits wrong; end mark"),
        ("ntm-sort", "3, 1.5 -2", 37, "of 24 bits wrong"),
    ],
)
def test_predict_tells_every_step(runs, name, text, steps, last):
    said = []
    TASKS[name].predict(runs / name, text, said.append)
    assert said[0].startswith("Slots ")
    rows = said[2 : 2 + steps]
    assert [int(row.split()[0]) for row in rows] == list(range(1, steps + 1))
    assert all(row.count("|") == 4 for row in rows)
    assert last in said[-1]
    assert len(said) == steps + 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ntm-copy", "", "expected 1 to 1,000 vectors"),
        ("ntm-copy", "101", "expected vectors of 8 bits, got '101'"),
        ("ntm-repeat-copy", "abc", "expected up to 100 copies and vectors"),
        ("ntm-repeat-copy", "0 x abc", "expected up to 100 copies and vectors"),
        ("ntm-sort", "1 two", "expected 2 to 16 numbers"),
        ("ntm-sort", "1", "expected 2 to 16 numbers"),
        ("ntm-sort", "1 nan", "expected 2 to 16 numbers"),
    ],
)
def test_what_cannot_be_asked_is_an_error(runs, name, text, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name].predict(runs / name, text, pytest.fail)


def test_a_copy_that_is_right_is_told_in_the_users_own_manner():
    vectors = vectors_of("10110010 00101101", 8)
    assert vectors.tolist() == [[1, 0, 1, 1, 0, 0, 1, 0], [0, 0, 1, 0, 1, 1, 0, 1]]
    assert written(vectors, "10110010 00101101") == "10110010 00101101"
    assert written(vectors_of("Grüße, 10", 8), "Grüße, 10") == "Grüße, 10"


def test_sort_finds_the_numbers_of_a_perfect_machine(monkeypatch):
    """With the right answers in place of a network's, the numbers come out sorted."""

    def perfect(machine, x, names, bits, say):
        _, target = ntm_sort.coded(x[:20, None, :8].astype(int), x[:20, 8:9])
        return target[:, 0, :-1].astype(int)

    monkeypatch.setattr(ntm_sort, "reload", lambda folder, name: None)
    monkeypatch.setattr(ntm_sort, "say_steps", perfect)
    said = []
    ntm_sort.predict(None, "3 1.5 -2 40 7 7.5", said.append)
    assert said == ["sorted: 40 7.5 7 3 1.5 -2", "0 of 48 bits wrong"]


# pictures


def test_the_slots_shown_are_those_in_use_in_their_circular_order():
    weightings = np.zeros((20, 64))
    for t in range(20):
        weightings[t, (60 + t) % 64] = 0.9
    assert memory_plots.slots_in_use(weightings).tolist() == [*range(60, 64), *range(16)]
    assert memory_plots.slots_in_use(np.zeros((3, 64))).tolist() == list(range(12))
    one = np.zeros((3, 8))
    one[:, 5] = 1
    assert sorted(memory_plots.slots_in_use(one)) == list(range(8))


def test_wrong_bits_are_marked_in_the_picture(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(memory_plots, "save_figure", lambda figure, path: figures.append(figure))
    asked_bits = np.full((4, 2), np.nan)
    asked_bits[2:] = [[1, 0], [1, 1]]
    answered = np.array([[0.9, 0.9], [0.1, 0.9], [0.9, 0.8], [0.7, 0.2]])
    weights = np.eye(4, 16)
    episode = memory_plots.Episode(np.eye(4, 3), asked_bits, answered, weights, weights, np.ones((16, 5)))
    curve = memory_plots.curve([{"step": 5, "bits": 3.0}, {"step": 6}], "bits", "own", 4)
    assert curve.points == [(20, 3.0)]
    memory_plots.draw_episode(tmp_path / "p.png", episode, [curve], ("a guess", 4.0), "title")
    titles = [axis.get_title() for axis in figures[0].axes]
    assert "what came out (2 wrong bits)" in titles
    assert sum(title.startswith("where it") for title in titles) == 2
    marks = figures[0].axes[2].collections[0].get_offsets()
    assert sorted(map(tuple, np.asarray(marks).tolist())) == [(2, 1), (3, 1)]
