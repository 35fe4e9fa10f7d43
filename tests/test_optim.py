"""Optimizers against their published formulas in float64, clipping, schedules, saved state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusedrnn import nn, optim

STEPS = 5


def sgd(p, g, s, lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        s["v"] = momentum * s.get("v", 0) + g
        g = g + momentum * s["v"] if nesterov else s["v"]
    return p - lr * g


def adagrad(p, g, s, lr=1e-2, eps=1e-10, eps_inside_sqrt=False, weight_decay=0.0):
    g = g + weight_decay * p
    s["n"] = s.get("n", 0) + g * g
    return p - lr * g / (np.sqrt(s["n"] + eps) if eps_inside_sqrt else np.sqrt(s["n"]) + eps)


def rmsprop(p, g, s, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, weight_decay=0.0, inside=False):
    g = g + weight_decay * p
    s["n"] = alpha * s.get("n", 0) + (1 - alpha) * g * g
    s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
    n = s["n"] - s["m"] ** 2 if centered else s["n"]
    s["v"] = momentum * s.get("v", 0) + g / (np.sqrt(n + eps) if inside else np.sqrt(n) + eps)
    return p - lr * s["v"]


def graves(p, g, s, lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4):
    s["n"] = alpha * s.get("n", 0) + (1 - alpha) * g * g
    s["g"] = alpha * s.get("g", 0) + (1 - alpha) * g
    s["delta"] = momentum * s.get("delta", 0) - lr * g / np.sqrt(s["n"] - s["g"] ** 2 + eps)
    return p + s["delta"]


def adam(p, g, s, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    s["t"] = s.get("t", 0) + 1
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    m, v = s["m"] / (1 - betas[0] ** s["t"]), s["v"] / (1 - betas[1] ** s["t"])
    return p - lr * m / (np.sqrt(v) + eps)


def adamw(p, g, s, weight_decay=1e-2, **options):
    return adam(p, g, s, weight_decay=weight_decay, decoupled=True, **options)


CASES = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adagrad, adagrad, {}),
    (optim.Adagrad, adagrad, {"lr": 0.1, "eps": 1e-8, "eps_inside_sqrt": True, "weight_decay": 0.1}),
    (optim.RMSprop, rmsprop, {}),
    (optim.RMSprop, rmsprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    (optim.GravesRMSprop, graves, {}),
    (optim.GravesRMSprop, graves, {"lr": 1e-2, "alpha": 0.9, "momentum": 0.5, "eps": 1e-3}),
    (optim.Adam, adam, {}),
    (optim.Adam, adam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, adamw, {}),
    (optim.AdamW, adamw, {"lr": 0.1, "weight_decay": 0.3}),
]
every_case = pytest.mark.parametrize(("make", "formula", "options"), CASES)


def model_of(dtype, seed=0):
    """3 parameters of odd sizes, and so gaps in the flat buffer."""
    return nn.Sequential(nn.Linear(7, 5, dtype=dtype, rng=seed), nn.Linear(5, 3, bias=False, dtype=dtype, rng=seed))


def gradients(model, step):
    rng = np.random.default_rng(step)
    return [rng.standard_normal(p.data.shape) for p in model.parameters()]


def put(model, values):
    for p, value in zip(model.parameters(), values, strict=True):
        p.grad[...] = value


@every_case
def test_steps_follow_the_formula(make, formula, options, dtype, isa):
    rtol = {"float64": 1e-12, "float32": 2e-5}[np.dtype(dtype).name]
    model = model_of(dtype)
    optimizer = make(model, **options)
    wanted = [p.data.astype("f8") for p in model.parameters()]
    memories = [{} for _ in wanted]
    for step in range(STEPS):
        values = gradients(model, step)
        put(model, values)
        optimizer.step()
        wanted = [formula(p, g, s, **options) for p, g, s in zip(wanted, values, memories, strict=True)]
    for p, value in zip(model.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.data, value, rtol=rtol, atol=rtol)
        assert p.data.dtype == np.dtype(dtype)


@every_case
def test_saved_state_goes_on_with_the_same_bits(make, formula, options):
    model, other = model_of("f4"), model_of("f4", seed=9)
    optimizer, second = make(model, **options), make(other, **options)
    for step in range(STEPS):
        if step == 2:
            optimizer.lr *= 0.5
            other.load_state_dict(model.state_dict())
            second.load_state_dict(optimizer.state_dict())
        for m, o in ((model, optimizer), (other, second)):
            put(m, gradients(m, step))
            o.step()
    np.testing.assert_array_equal(model.flatten().data, other.flatten().data)
    assert second.steps == optimizer.steps == STEPS


def test_a_foreign_state_is_refused():
    optimizer = optim.Adam(model_of("f4"))
    with pytest.raises(KeyError, match="optimizer state: expected"):
        optimizer.load_state_dict(optim.SGD(model_of("f4"), 0.1).state_dict())
    with pytest.raises(ValueError, match="exp_avg: expected shape"):
        optimizer.load_state_dict(optim.Adam(nn.Linear(2, 2)).state_dict())
    state = optimizer.state_dict()
    with pytest.raises(TypeError, match="exp_avg: expected dtype float32, got float64"):
        optimizer.load_state_dict({**state, "exp_avg": state["exp_avg"].astype("f8")})


def test_zero_gradient_moves_nothing():
    for make in (optim.Adam, optim.Adagrad, optim.RMSprop, optim.GravesRMSprop):
        model = model_of("f4")
        before = model.state_dict()
        make(model).step()
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


def test_a_variance_that_rounding_leaves_below_zero_counts_as_zero(dtype, isa):
    """A constant gradient has none; the difference of two averages then may be negative, and its root NaN."""
    for alpha in (0.9, 0.95, 0.99):
        model = model_of(dtype)
        optimizer = optim.RMSprop(model, lr=1e-9, alpha=alpha, centered=True)
        for p in model.parameters():
            p.grad[...] = np.linspace(0.5, 2, p.grad.size).reshape(p.grad.shape)
        for _ in range(1300):
            optimizer.step()
        assert all(np.isfinite(p.data).all() for p in model.parameters()), alpha


def test_nan_and_infinity_show():
    model = model_of("f4")
    put(model, [np.full(p.data.shape, np.nan) for p in model.parameters()])
    optim.Adam(model).step()
    assert all(np.isnan(p.data).all() for p in model.parameters())


def test_clipping_by_value(dtype):
    model = model_of(dtype)
    values = gradients(model, 0)
    put(model, values)
    optim.clip_grad_value_(model, 0.3)
    for p, g in zip(model.parameters(), values, strict=True):
        np.testing.assert_array_equal(p.grad, np.clip(g.astype(dtype), -dtype(0.3), dtype(0.3)))


def test_clipping_by_norm(dtype, isa):
    model = model_of(dtype)
    values = gradients(model, 0)
    norm = math.sqrt(sum(float(np.sum(g * g)) for g in values))
    put(model, values)
    assert optim.clip_grad_norm_(model, 1e9) == pytest.approx(norm, rel=1e-6)
    for p, g in zip(model.parameters(), values, strict=True):
        np.testing.assert_array_equal(p.grad, g.astype(dtype))
    assert optim.clip_grad_norm_(model, 0.5) == pytest.approx(norm, rel=1e-6)
    for p, g in zip(model.parameters(), values, strict=True):
        np.testing.assert_allclose(p.grad, g * 0.5 / norm, rtol=1e-5)
    assert optim.clip_grad_norm_(model, 1.0) == pytest.approx(0.5, rel=1e-5)


def test_the_norm_does_not_depend_on_threads(dtype, threads):
    """The sums of its pieces are added in one order."""
    model = nn.Linear(300, 400, dtype=dtype)
    put(model, gradients(model, 0))
    norms = []
    for count in (1, 2, 3):
        threads(count)
        norms.append(optim.clip_grad_norm_(model, 1e9))
    assert norms[0] == norms[1] == norms[2]


def test_schedules():
    assert [optim.ConstantLR()(s) for s in (0, 99)] == [1, 1]
    assert [optim.StepLR(10, 0.5)(s) for s in (0, 9, 10, 29)] == [1, 1, 0.5, 0.25]
    assert optim.ExponentialLR(0.9)(3) == pytest.approx(0.729)
    cosine = optim.CosineLR(100, final=0.1)
    assert [cosine(s) for s in (0, 50, 100, 1000)] == pytest.approx([1, 0.55, 0.1, 0.1])
    warmup = optim.LinearWarmup(4, optim.StepLR(2, 0.5))
    assert [warmup(s) for s in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5]
    assert [optim.LinearWarmup(0)(s) for s in (0, 5)] == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: optim.SGD(m, -1), "lr: expected a finite number of at least 0, got -1"),
        (lambda m: optim.SGD(m, math.nan), "lr: expected a finite number"),
        (lambda m: optim.SGD(m, 0.1, momentum=1.0), "momentum: expected"),
        (lambda m: optim.SGD(m, 0.1, nesterov=True), "momentum: expected a number above 0 with nesterov=True"),
        (lambda m: optim.Adam(m, betas=(0.9, 1.0)), r"betas\[1\]: expected"),
        (lambda m: optim.Adam(m, eps=0), "eps: expected a finite number above 0"),
        (lambda m: optim.Adam(m, weight_decay=-1), "weight_decay: expected"),
        (lambda m: optim.RMSprop(m, alpha=2), "alpha: expected"),
        (lambda m: optim.Adam([m]), "params: expected a Module or FlatParameters, got list"),
        (lambda m: optim.clip_grad_norm_(m, 0), "max_norm: expected a finite number above 0"),
        (lambda m: optim.clip_grad_value_(m, -1), "limit: expected a finite number above 0"),
        (lambda m: optim.StepLR(0), "step_size: expected"),
        (lambda m: optim.CosineLR(0), "total_steps: expected"),
        (lambda m: optim.ExponentialLR(0), "gamma: expected"),
        (lambda m: optim.LinearWarmup(-1), "warmup_steps: expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(model_of("f4"))


def test_an_optimizer_learns_a_line():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype("f4")
    target = (x @ np.array([[1.0], [-2.0], [0.5]], "f4") + 3).astype("f4")
    model, loss = nn.Linear(3, 1, rng=0), nn.MSELoss()
    optimizer = optim.Adam(model, lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        value = loss(model(x), target)
        model.backward(loss.backward())
        optimizer.step()
    assert value < 1e-6
