"""Losses from logits: values, gradients, extreme logits, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn


def softmax_loss(logits, targets):
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]


def sigmoid_loss(logits, targets):
    return np.logaddexp(0, logits) - targets * logits


def square_loss(prediction, target):
    return (prediction - target) ** 2


def problem(name, shape, rng):
    if name == "cross_entropy":
        return nn.CrossEntropyLoss, softmax_loss, rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])
    if name == "bce":
        return nn.BCEWithLogitsLoss, sigmoid_loss, rng.standard_normal(shape), rng.random(shape)
    return nn.MSELoss, square_loss, rng.standard_normal(shape), rng.standard_normal(shape)


every_loss = pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dimensions", [(1, 1), (5, 3), (2, 4, 17), (7, 33)])
def test_value_and_gradient(name, reduction, dimensions, isa, finite_differences):
    make, formula, prediction, target = problem(name, dimensions, np.random.default_rng(0))
    loss = make(reduction)
    elements = formula(prediction, target)
    wanted = float(elements.mean() if reduction == "mean" else elements.sum())
    assert loss(prediction, target) == pytest.approx(wanted, rel=1e-11, abs=1e-12)
    gradient = loss.backward()
    numeric = finite_differences(
        lambda v: (np.float64(loss(v["prediction"], target)),), {"prediction": prediction}, (1.0,)
    )["prediction"]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7)  # a sum of 231 losses, to 1e-16 / 1e-6 each

    single = make(reduction)
    target32 = target.astype("f4") if target.dtype == np.float64 else target
    prediction32 = prediction.astype("f4")
    assert single(prediction32, target32) == pytest.approx(wanted, rel=3e-5)
    assert single._gradient.dtype == np.float32
    np.testing.assert_allclose(single.backward(), gradient, rtol=3e-5, atol=3e-5)


def test_extreme_logits_neither_overflow_nor_lose_the_loss(dtype, isa):
    big = np.array([[1e4, -1e4, 0], [-1e30, 1e30, 1e30]], dtype)
    loss = nn.CrossEntropyLoss("sum")
    assert loss(big, np.array([1, 1])) == pytest.approx(2e4 + np.log(2), rel=1e-6)
    np.testing.assert_allclose(loss.backward(), [[1, -1, 0], [0, -0.5, 0.5]], atol=1e-6)
    loss = nn.BCEWithLogitsLoss("sum")
    logits, targets = np.array([1e4, -1e4, 1e30, -1e30], dtype), np.array([0, 1, 1, 0], dtype)
    assert loss(logits, targets) == pytest.approx(2e4, rel=1e-6)
    np.testing.assert_allclose(loss.backward(), [1, -1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 33, 1000])
def test_many_rows_overflow_no_product_of_their_sums(classes, dtype, isa):
    """The logarithms of rows are taken together, as that of a product: here of up to 5,000 factors."""
    rows = 5000 if classes < 100 else 300
    loss = nn.CrossEntropyLoss("sum")
    targets = np.arange(rows) % classes
    assert loss(np.zeros((rows, classes), dtype), targets) == pytest.approx(rows * np.log(classes), rel=1e-6)


def test_a_loss_beside_large_logits_is_not_lost(dtype, isa):
    """It is of the order of one where the logits are so large that one is below their last digit."""
    base = {"float32": 2.0**26, "float64": 2.0**55}[np.dtype(dtype).name]
    for classes in (2, 3, 4, 5, 33):
        loss = nn.CrossEntropyLoss("sum")
        logits = np.full((7, classes), base, dtype)
        assert loss(logits, np.arange(7) % classes) == pytest.approx(7 * np.log(classes), rel=1e-6)
        np.testing.assert_allclose(loss.backward().sum(-1), 0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 7, 9, 15, 17, 31, 33])
def test_a_row_does_not_see_the_next(classes, dtype, isa):
    """Not even one so much larger that beside it all exponentials would be zero."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((6, classes)).astype(dtype)
    logits[1::2] += dtype(1e4)
    targets = rng.integers(0, classes, 6)
    loss = nn.CrossEntropyLoss("sum")
    exact = logits.astype("f8")
    assert loss(logits, targets) == pytest.approx(softmax_loss(exact, targets).sum(), rel=1e-5)
    wanted = np.exp(exact - exact.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    wanted[np.arange(6), targets] -= 1
    np.testing.assert_allclose(loss.backward(), wanted, rtol=1e-5, atol=1e-6)


@every_loss
def test_value_and_gradient_do_not_depend_on_threads(name, threads):
    make, _, prediction, target = problem(name, (20_000, 5), np.random.default_rng(0))
    found = []
    for count in (1, 2, 3):
        threads(count)
        loss = make()
        found.append((loss(prediction, target), loss.backward().tobytes()))
    assert found[0] == found[1] == found[2]


@every_loss
def test_nan_shows(name):
    make, _, prediction, target = problem(name, (4, 3), np.random.default_rng(0))
    prediction[2, 1] = np.nan
    assert np.isnan(make()(prediction, target))


@every_loss
def test_nothing_to_average_is_nan_without_a_warning(name):
    make, _, prediction, target = problem(name, (0, 3), np.random.default_rng(0))
    loss = make()
    assert np.isnan(loss(prediction, target))
    assert loss.backward().shape == (0, 3)


@every_loss
def test_backward_is_once_per_call(name):
    make, _, prediction, target = problem(name, (4, 3), np.random.default_rng(0))
    loss = make()
    with pytest.raises(RuntimeError, match="expected a call of the loss first"):
        loss.backward()
    loss(prediction, target)
    loss.backward()
    with pytest.raises(RuntimeError, match="expected a call of the loss first"):
        loss.backward()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 3])),
            "targets: expected classes from 0 to 2, got 3",
        ),
        (
            lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, -1])),
            "targets: expected classes from 0 to 2, got -1",
        ),
        (lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 1, 2])), r"targets: expected shape \(2,\)"),
        (lambda: nn.CrossEntropyLoss()(np.float64(1), np.int64(0)), "targets: expected shape"),
        (lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.ones(2)), "targets: expected integers, got float64"),
        (lambda: nn.BCEWithLogitsLoss()(np.ones((2, 3)), np.ones((3, 2))), r"targets: expected shape \(2, 3\)"),
        (lambda: nn.BCEWithLogitsLoss()(np.ones(2), np.ones(2, int)), "targets: expected dtype float64"),
        (lambda: nn.MSELoss()(np.ones((2, 3)), np.ones(2)), r"target: expected shape \(2, 3\), got \(2,\)"),
        (lambda: nn.MSELoss()(np.ones(2), np.ones(2, "f4")), "target: expected dtype float64"),
        (lambda: nn.MSELoss("median"), 'reduction: expected "mean" or "sum"'),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dimensions", [(5, 3), (2, 4, 17), (7, 33)])
def test_weights(name, reduction, dimensions, isa, dtype):
    """What has weight 0 has no effect, whatever it holds; a mean is over the weights."""
    rng = np.random.default_rng(0)
    make, formula, prediction, target = problem(name, dimensions, rng)
    prediction = prediction.astype(dtype)
    target = target if target.dtype.kind == "i" else target.astype(dtype)
    weights = rng.uniform(0.5, 2, target.shape)
    weights[0], weights.reshape(-1)[-1] = 0, 0
    elements = formula(prediction.astype("f8"), target) * weights
    wanted = elements.sum() / (weights.sum() if reduction == "mean" else 1)
    spoilt, wrong = prediction.copy(), target.copy()
    spoilt[0], wrong[0] = np.nan, (-7 if target.dtype.kind == "i" else np.inf)
    tolerance = 1e-11 if dtype == np.float64 else 1e-5
    loss = make(reduction)
    for given in ((wrong, weights), (nn.Weighted(wrong, weights),)):  # as a batch of a Trainer brings both
        assert loss(spoilt, *given) == pytest.approx(wanted, rel=tolerance)
        gradient = loss.backward()
        assert not gradient[0].any()
    alone = make("sum")
    alone(prediction[1:], target[1:])
    per_row = weights[1:] if gradient.ndim == weights.ndim else weights[1:, ..., None]
    scale = weights.sum() if reduction == "mean" else 1
    np.testing.assert_allclose(gradient[1:], alone.backward() * per_row / scale, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("classes", [2, 4, 5, 17, 100])
def test_label_smoothing(classes, isa, dtype):
    """As if a part of every target were spread over all classes."""
    rng = np.random.default_rng(1)
    logits, targets = rng.standard_normal((6, classes)).astype(dtype) * 3, rng.integers(classes, size=6)
    shares = np.full((6, classes), 0.1 / classes)
    shares[np.arange(6), targets] += 0.9
    exact = logits.astype("f8")
    log_p = exact - exact.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    tolerance = 1e-12 if dtype == np.float64 else 3e-6
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert loss(logits, targets) == pytest.approx(-(shares * log_p).sum() / 6, rel=tolerance)
    np.testing.assert_allclose(loss.backward(), (np.exp(log_p) - shares) / 6, atol=tolerance)


def test_targets_that_are_ignored(dtype):
    logits = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(dtype)
    targets = np.array([[1, -1, 3], [-1, -1, 0]])
    loss, plain = nn.CrossEntropyLoss(ignore_index=-1), nn.CrossEntropyLoss()
    kept = targets >= 0
    assert loss(logits, targets) == pytest.approx(plain(logits[kept], targets[kept]), rel=1e-6)
    gradient = loss.backward()
    np.testing.assert_allclose(gradient[kept], plain.backward(), rtol=1e-5)
    assert not gradient[~kept].any()
    assert np.isnan(loss(logits, np.full((2, 3), -1))), "a mean of nothing, as PyTorch has it"
    with pytest.raises(ValueError, match="targets: expected classes from 0 to 3, got -1"):
        plain(logits, targets)
    with pytest.raises(ValueError, match="targets: expected classes from 0 to 3, got 4"):
        loss(logits, targets + 1 + (targets < 0) * -1)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.array([1, -1.0, 1]), ValueError, "weights: expected finite numbers of at least 0, got -1"),
        (np.array([1, np.nan, 1]), ValueError, "weights: expected finite numbers of at least 0, got nan"),
        (np.ones(2), ValueError, r"weights: expected a shape that broadcasts to \(3,\), got \(2,\)"),
        (np.array(["a"] * 3), TypeError, "weights: expected numbers or booleans"),
    ],
)
@every_loss
def test_weights_that_do_not_fit(name, weights, error, message):
    make, _, prediction, target = problem(name, (3,) if name != "cross_entropy" else (3, 2), np.random.default_rng(0))
    with pytest.raises(error, match=message):
        make()(prediction, target, weights)
    with pytest.raises(ValueError, match="weights: expected them once"):
        make()(prediction, nn.Weighted(target, weights), weights)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_a_smoothing_that_is_no_part(smoothing):
    with pytest.raises(ValueError, match="label_smoothing: expected a part from 0 to 1"):
        nn.CrossEntropyLoss(label_smoothing=smoothing)
