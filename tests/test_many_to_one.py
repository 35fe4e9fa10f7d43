"""Many to one over sequences of uneven length: padding, batches, pooling and its gradient."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn
from fusedrnn.nn.many_to_one import own_steps
from fusedrnn.train.bucketing import LengthBatches, by_length, infer, many_to_one, padded
from fusedrnn.train.distributed import _part

RNG = np.random.default_rng(0)
LENGTHS = [3, 1, 5, 0, 2]
KINDS = ["last", "mean", "max", ("mean", "max", "last")]


def features(dtype=np.float64, size=2):
    return [RNG.standard_normal((length, size)).astype(dtype) for length in LENGTHS]


def integers(most=7):
    return [RNG.integers(0, most, length) for length in LENGTHS]


@pytest.mark.parametrize("sequences", [features(np.float32), integers()], ids=["features", "integers"])
def test_padding_tells_where_rows_end(sequences):
    x = padded(sequences)
    assert x.shape[:2] == (5, 5)
    assert own_steps(x)[1].tolist() == LENGTHS
    for n, sequence in enumerate(sequences):
        np.testing.assert_array_equal(x[: len(sequence), n], sequence)
    assert len(padded([sequences[3]])) == 1, "kernels need a step"


def networks():
    """(network, rows of steps, what they are padded with) for ids and features, in both directions."""
    sequences = [s for s in integers() if len(s)]
    yield many_to_one(2, embedding=(7, 4), bidirectional=True, pooling=("last", "mean", "max"), rng=0), sequences
    rows = [RNG.standard_normal((len(s), 3)).astype(np.float32) for s in sequences]
    yield many_to_one(2, features=3, bidirectional=True, pooling=("last", "mean", "max"), rng=0), rows


@pytest.mark.parametrize("before", [1, 3])
def test_padding_may_stand_before_the_steps(before):
    """As Keras's pad_sequences has it by default; there and behind, the same bits."""
    for model, rows in networks():
        whole = padded(rows)
        T = len(whole) + before + 1
        moved = np.ma.masked_all((T, *whole.shape[1:]), whole.dtype)
        for n, row in enumerate(rows):
            start = before if n % 2 else T - len(row)
            moved[start : start + len(row), n] = row
        moved = moved.filled(-1) if whole.ndim == 2 else moved
        np.testing.assert_array_equal(model.eval()(moved), model(whole))
        lengths = [len(row) for row in rows]
        filled = np.full_like(np.ma.getdata(whole), 5) if whole.ndim == 2 else np.full(whole.shape, np.nan, np.float32)
        for n, row in enumerate(rows):
            filled[: len(row), n] = row
        np.testing.assert_array_equal(model(filled, lengths=lengths), model(whole), "what lies past the lengths")


@pytest.mark.parametrize("place", [(1, 0, 0), (1, 0, 1), (4, 0, slice(None)), (slice(None), 0, slice(None))])
def test_nan_is_no_padding(place):
    """In one feature, in all of the last step, in all steps: as NumPy has it, it goes on, and to its own row alone."""
    x = RNG.standard_normal((5, 2, 2)).astype(np.float32)
    model = many_to_one(2, features=2, pooling=("last", "mean", "max"), rng=0).eval()
    whole = model(x)
    x[place] = np.nan
    out = model(x)
    assert np.isnan(out[0]).all()
    np.testing.assert_array_equal(out[1], whole[1])


def test_a_part_of_the_rows_keeps_its_padding():
    """As several processes share a batch."""
    whole = padded(features())
    np.testing.assert_array_equal(own_steps(_part(whole, slice(1, 4), 1))[1], LENGTHS[1:4])


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (np.array([[3], [-1], [4]]), None, "x: expected padding before or behind .* got it at step 1 of row 0"),
        (np.array([[3], [-2]]), None, "x: expected ids of at least 0, -1 where a row is padded, got -2 in row 0"),
        (np.array([[3], [-1]]), [2], "x: expected ids of at least 0.*got -1"),
        (np.array([[3], [1]]), [3], r"lengths: expected \[1\] integers from 0 to 2, got \[3\]"),
        (np.array([[3], [1]]), [1, 1], r"lengths: expected \[1\] integers"),
        (np.array([[3], [1]]), [1.5], r"lengths: expected \[1\] integers"),
        (np.zeros((2, 1, 1)), None, r"x: expected ids \[T, N\], time first, got shape \(2, 1, 1\)"),
    ],
)
def test_padding_that_is_none_is_refused(x, lengths, message):
    with pytest.raises(ValueError, match=message):
        many_to_one(2, embedding=(7, 4), rng=0)(x, lengths)


def test_masks_that_are_no_padding_are_refused():
    model = many_to_one(2, features=2, rng=0)
    x = np.ma.array(np.zeros((3, 1, 2), np.float32), mask=[[[0, 0]], [[0, 1]], [[0, 0]]])
    with pytest.raises(ValueError, match="x: expected a mask of whole steps, got some features of step 1 of row 0"):
        model(x)
    x.mask[1] = True
    with pytest.raises(ValueError, match="x: expected padding before or behind the steps"):
        model(x)
    with pytest.raises(ValueError, match="lengths: expected no step within them that x has masked"):
        model(x, [3])
    with pytest.raises(ValueError, match=r"x: expected features \[T, N, I\], time first, got shape \(2, 1\)"):
        model(np.zeros((2, 1)))


def pooled(y, lengths, kind, half):
    """The definition, row by row."""
    rows = []
    for n, length in enumerate(lengths):
        own = y[:length, n]
        if length == 0:
            rows.append(np.zeros(y.shape[2]))
        elif kind == "last":
            rows.append(np.concatenate([own[-1, :half], own[0, half:]]))
        else:
            rows.append(own.mean(axis=0) if kind == "mean" else own.max(axis=0))
    return np.array(rows)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_pooling_is_over_each_rows_own_steps(kinds, directions):
    y = RNG.standard_normal((5, 5, 4)) - 3  # a maximum over zeros past the end would be seen
    y[np.arange(5)[:, None] >= LENGTHS] = 0
    ours = nn.Pooling(kinds, directions)(y, np.array(LENGTHS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    expected = np.concatenate([pooled(y, LENGTHS, kind, 4 // directions) for kind in kinds], axis=1)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-14)


def test_last_of_both_directions_is_what_the_layer_ends_in():
    lstm = nn.LSTM(2, 3, 2, bidirectional=True, rng=0)
    x = padded(features(np.float32)).filled(0)
    y, (h_n, _) = lstm(x, lengths=LENGTHS)
    last = nn.Pooling("last", 2)(y, np.array(LENGTHS))
    np.testing.assert_array_equal(last, np.concatenate([h_n[2], h_n[3]], axis=1))


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.MinGRU])
@pytest.mark.parametrize("embedded", [False, True])
def test_every_gradient_agrees_with_finite_differences(kinds, layer, embedded):
    rnn = layer(3, 2, 2, bidirectional=True, dtype="float64", rng=1)
    table = nn.Embedding(7, 3, dtype="float64", rng=2) if embedded else None
    model = nn.ManyToOne(rnn, 2, embedding=table, pooling=kinds, rng=3)
    model.head.weight = nn.Parameter(model.head.weight.data.astype(np.float64))
    x = padded(integers() if embedded else features(size=3))
    dout = RNG.standard_normal((5, 2))
    model(x)
    model.backward(dout)
    assert not any(module._saved for module in model.modules())
    flat = model.flatten()
    ours = flat.grad.copy()
    model.eval()
    differences = np.zeros_like(ours)
    for i in np.flatnonzero(flat.data)[:: 3 if embedded else 2]:
        values = []
        for step in (1e-6, -1e-6):
            flat.data[i] += step
            values.append(float((dout * model(x)).sum()))
            flat.data[i] -= step
        differences[i] = (values[0] - values[1]) / 2e-6
        assert ours[i] == pytest.approx(differences[i], abs=1e-7), i


@pytest.mark.parametrize("units", [1, 5])
def test_what_lies_past_the_end_has_no_effect(units):
    """The same bits whatever a sequence is padded to, and whatever is beside it."""
    options = {"hidden_size": units, "bidirectional": units > 1, "pooling": ("last", "mean", "max")}
    model = many_to_one(2, embedding=(7, 4), rng=0, **options)
    sequences = [*integers(), *RNG.integers(0, 7, (20, 60))]
    together = infer(model, sequences)
    for n, sequence in enumerate(sequences):
        np.testing.assert_array_equal(infer(model, [sequence])[0], together[n])
    assert model.training


def test_rows_without_a_step_give_the_bias():
    model = many_to_one(2, features=3, pooling="max", rng=0)
    np.testing.assert_array_equal(infer(model, [np.empty((0, 3), np.float32)])[0], model.head.bias.data)


def test_batches_hold_every_row_once_and_rows_of_like_length():
    lengths = RNG.integers(1, 100, 1_000)
    batches = LengthBatches(lengths, 10, [3, 1], lambda rows, rng: (rows, rng.random()))
    seen, numbers = zip(*batches, strict=True)
    assert len(seen) == len(batches) == 100
    assert sorted(np.concatenate(seen)) == list(range(1_000))
    assert len(set(numbers)) == 100
    spread = np.mean([np.ptp(lengths[rows]) for rows in seen])
    assert spread < 20, "rows drawn at random would differ by 80"
    assert [rows.tolist() for rows, _ in batches] == [rows.tolist() for rows in seen]
    other = LengthBatches(lengths, 10, [3, 2], lambda rows, rng: (rows, 0))
    assert next(iter(other))[0].tolist() != seen[0].tolist()
    first = [lengths[rows].mean() for rows in seen[:50]]
    assert max(first) > 60 > 40 > min(first), "short and long batches come mixed"


def test_inference_goes_by_length():
    lengths = np.array([5, 1, 4, 1])
    assert [rows.tolist() for rows in by_length(lengths, 3)] == [[1, 3, 2], [0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "sum"}, "pooling: expected one or more of last, mean, max, got 'sum'"),
        ({"pooling": ()}, "pooling: expected one or more of last, mean, max"),
        ({"cell": "cnn"}, "cell: expected one of rnn, lstm, gru, got 'cnn'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        many_to_one(2, features=3, **options)
