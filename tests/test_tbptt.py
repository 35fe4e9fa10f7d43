"""Truncated back-propagation through time: windows, the state that goes from one to the next, and resuming."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import Trainer
from fusedrnn.train.checkpoint import read_checkpoint
from fusedrnn.train.tbptt import Windows, flatten, unflatten

V, N, T = 6, 3, 23  # characters, columns, steps


def characters(seed=0, steps=T + 1):
    return np.random.default_rng(seed).integers(0, V, (steps, N))


def network(seed=0, kind=nn.LSTM, dropout=0.3, base=nn.Sequential):
    rng = np.random.default_rng(seed)
    rnn = kind(4, [5, 4], rng=rng, dropout=dropout, learn_initial_state=True)
    return base(nn.Embedding(V, 4, rng=rng), rnn, nn.Linear(4, V, rng=rng))


def sequences(epoch):
    """Two texts an epoch, of different lengths."""
    return [(text[:-1], text[1:]) for text in (characters(2 * epoch), characters(2 * epoch + 1, 12))]


def make(out=None, *, K=5, model=None, **options):
    model = model or network()
    settings = {
        "batches": lambda epoch: Windows(sequences(epoch), K),
        "epochs": 3,
        "progress": False,
        "clip_norm": 1.0,
        **options,
    }
    return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model, lr=0.01), out=out, **settings)


class Recorder(optim.SGD):
    """Keeps every step's gradient and moves nothing."""

    def __init__(self, model):
        super().__init__(model, lr=0.0)
        self.model, self.gradients = model, []

    def step(self):
        self.gradients.append(self.model.flatten().grad.copy())


def gradients_of(model, windows):
    """The gradient of each window, as the Trainer gives it to the optimizer, the parameters at rest."""
    recorder = Recorder(model)
    options = {"batches": lambda epoch: windows, "epochs": 1, "progress": False}
    Trainer(model, nn.CrossEntropyLoss(reduction="sum"), recorder, **options).fit()
    return recorder.gradients


@pytest.mark.parametrize("batch_first", [False, True])
def test_windows_cover_every_sequence_in_order(batch_first):
    pairs = [(np.arange(7 * 2).reshape(7, 2), np.arange(7 * 2).reshape(7, 2) + 100), (np.ones((4, 2)), np.ones((4, 2)))]
    if batch_first:
        pairs = [(x.swapaxes(0, 1), target.swapaxes(0, 1)) for x, target in pairs]
    windows = Windows(pairs, 3, batch_first=batch_first)
    axis = int(batch_first)
    found = list(windows)
    assert len(windows) == len(found) == 5
    assert [w.first for w in found] == [True, False, False, True, False]
    assert [w.x.shape[axis] for w in found] == [3, 3, 1, 3, 1]
    for (x, target), part in zip(pairs, (found[:3], found[3:]), strict=True):
        np.testing.assert_array_equal(np.concatenate([w.x for w in part], axis), x)
        np.testing.assert_array_equal(np.concatenate([w.target for w in part], axis), target)
        assert all(np.shares_memory(w.x, x) for w in part)


def test_a_window_of_the_whole_length_is_full_back_propagation(tmp_path):
    """Bit for bit that of a model without a state, on the same batches."""

    class Stateless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x)[0]

        def backward(self, dout):
            self.inner.backward(dout)

    truncated = make(K=T)
    truncated.fit()
    full = make(model=Stateless(), batches=sequences)
    full.fit()
    assert truncated.step == full.step == 6
    np.testing.assert_array_equal(truncated.model.flatten().data, full.model.flatten().data)
    assert [r["loss"] for r in truncated.history] == [r["loss"] for r in full.history]


def test_the_state_goes_on_and_gradients_do_not(finite_differences):
    """Each window's gradient is that of its own loss with the state before it held constant."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Embedding(V, 3, dtype="f8", rng=rng),
        nn.GRU(3, 4, 2, dtype="f8", rng=rng),
        nn.Linear(4, V, dtype="f8", rng=rng),
    )
    text = characters(steps=9)
    windows = Windows([(text[:-1], text[1:])], 3)
    gradients = gradients_of(model, windows)
    assert len(gradients) == 3
    loss, flat, state = nn.CrossEntropyLoss(reduction="sum"), model.flatten(), None
    model.eval()
    for window, ours in zip(windows, gradients, strict=True):
        start = flat.data.copy()

        def value(values, window=window, state=state):
            flat.data[...] = values["all"]
            return (np.float64(loss(model(window.x, state)[0], window.target)),)

        numeric = finite_differences(value, {"all": start.copy()}, (1.0,))["all"]
        flat.data[...] = start
        np.testing.assert_allclose(ours, numeric, rtol=1e-5, atol=1e-7)
        _, state = model(window.x, state)
    (full,) = gradients_of(model.train(), Windows([(text[:-1], text[1:])], 8))
    assert np.abs(sum(gradients) - full).max() > 1e-3


def test_what_lies_before_a_window_reaches_it_through_the_state_alone():
    """A change of the first window's targets changes its own gradient and no other; one of its x changes all."""
    text = characters()
    other_targets, other_x = text[1:].copy(), text[:-1].copy()
    other_targets[0] = (other_targets[0] + 1) % V
    other_x[0] = (other_x[0] + 1) % V

    def run(x, target):
        return gradients_of(network(dropout=0.0), Windows([(x, target)], 8))

    plain, targets, inputs = run(text[:-1], text[1:]), run(text[:-1], other_targets), run(other_x, text[1:])
    assert [np.array_equal(a, b) for a, b in zip(plain, targets, strict=True)] == [False, True, True]
    assert [np.array_equal(a, b) for a, b in zip(plain, inputs, strict=True)] == [False, False, False]


def test_every_sequence_starts_afresh():
    seen = []

    class Seen(nn.Sequential):
        def forward(self, x, states=None):
            prediction, after = super().forward(x, states)
            seen.append((states, after))
            return prediction, after

    gradients_of(network(base=Seen), Windows(sequences(0), 8))
    assert [before is None for before, _ in seen] == [True, False, False, True, False]
    for (_, after), (before, _) in pairwise(seen):
        assert before is None or before is after


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 8, 20])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_resume_goes_on_with_the_same_bits(tmp_path, steps, kind):
    """In the middle of a sequence, at its end, and at an epoch's (8 windows)."""
    make(tmp_path / "whole", model=network(kind=kind)).fit()
    make(tmp_path / "parts", model=network(kind=kind), steps=steps).fit()
    second = make(tmp_path / "parts", model=network(seed=9, kind=kind)).resume()
    assert second.step == steps
    second.fit()
    one, other = (read_checkpoint(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert one.tensors.keys() == other.tensors.keys()
    assert any(name.startswith("state.") for name in one.tensors)
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor, other.tensors[name], err_msg=name)


def test_a_state_that_no_checkpoint_can_hold_is_refused_at_once(tmp_path):
    class Odd(nn.Sequential):
        def forward(self, x, states=None):
            prediction, _ = super().forward(x)
            return prediction, ({"h": object()},)

    model = Odd(nn.Embedding(V, 4), nn.RNN(4, 5), nn.Linear(5, V))
    with pytest.raises(TypeError, match=r"state\.0\.h: expected arrays, or tuples, lists or dicts of them, got object"):
        make(tmp_path, model=model).fit()
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").state["run"]["step"] == 0


@pytest.mark.parametrize("state", [None, "a", ("a", ["b", None]), {"h": "a", "c": ("b", {})}, (), [["a"]]])
def test_any_nesting_goes_through_json_and_back(state):
    def filled(part):
        if isinstance(part, str):
            return np.full(2, ord(part))
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        return part if part is None else type(part)(filled(value) for value in part)

    arrays = {}
    rest = json.loads(json.dumps(flatten(filled(state), arrays)))
    again = unflatten(rest, arrays)
    assert repr(again) == repr(filled(state))


def test_a_sequential_with_recurrent_layers_is_called_as_one():
    rng = np.random.default_rng(0)
    first, second, head = nn.LSTM(2, 3, rng=rng), nn.GRU(3, 4, rng=rng), nn.Linear(4, 1, rng=rng)
    x = rng.standard_normal((5, 2, 2)).astype("f4")
    model = nn.Sequential(first, second, head)
    y, states = model(x)
    middle, one = first(x)
    top, two = second(middle)
    np.testing.assert_array_equal(y, head(top))
    for ours, wanted in zip((*states[0], states[1]), (*one, two), strict=True):
        np.testing.assert_array_equal(ours, wanted)
    model.forget()
    y, _ = model(x, states)
    assert model.backward(np.ones_like(y)).shape == x.shape
    np.testing.assert_array_equal(y, head(second(first(x, one)[0], two)[0]))
    with pytest.raises(ValueError, match="states: expected None or 2, one for each recurrent layer, got 1"):
        model(x, (one,))


@pytest.mark.parametrize(
    ("pairs", "steps", "message"),
    [
        ([], 3, "sequences: expected at least one"),
        ([(np.ones((4, 1)), np.ones((4, 1)))], 0, "steps: expected at least 1, got 0"),
        ([(np.ones((4, 1)), np.ones((5, 1)))], 3, r"sequences\[0\]: expected as many steps .* got 4 and 5"),
        ([(np.ones((0, 1)), np.ones((0, 1)))], 3, r"sequences\[0\]: expected as many steps .* at least 1, got 0 and 0"),
        ([(np.ones((4, 1)), np.ones(4))], 3, r"sequences\[0\]: expected shapes \(T, N, ...\), got \(4, 1\) and \(4,\)"),
    ],
)
def test_bad_sequences_are_named(pairs, steps, message):
    with pytest.raises(ValueError, match=message):
        Windows(pairs, steps)


def test_a_character_model_knows_what_lies_before_its_windows():
    """The five lines of the module's text. What ends "a--b" and "c--d" is known by a letter three steps back, which
    two of three windows do not hold."""
    tokens = np.tile([0, 3, 3, 1, 2, 3, 3, 4], 60)
    stream = tokens[: len(tokens) // 4 * 4].reshape(4, -1).T
    carried = Windows([(stream[:-1], stream[1:])], 3)
    losses = []
    for windows in (carried, [window._replace(first=True) for window in carried]):
        model = nn.Sequential(nn.Embedding(V, 8, rng=0), nn.GRU(8, 16, rng=0), nn.Linear(16, V, rng=0))
        options = {"batches": lambda epoch, windows=windows: windows, "epochs": 12, "progress": False}
        history = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model, lr=0.02), **options).fit()
        losses.append(history[-1]["loss"])
    guess = np.log(2) / 4 * 2 / 3  # the loss of who must toss a coin there
    assert losses[0] < guess / 2
    assert losses[1] > guess * 0.9
