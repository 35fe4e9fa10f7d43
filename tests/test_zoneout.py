"""Zoneout keeps a state: to the bit, at every step, and its gradient with it."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn.functional
import fusedrnn.reference

T, N, I, H = 30, 3, 2, 20  # noqa: E741 - the shape letters of the whole library
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def arguments_of(kind, dtype):
    """x, the initial states, weights and biases."""
    rng, rows = np.random.default_rng(0), GATES[kind] * H
    states = [(N, H)] * (2 if kind == "lstm" else 1)
    shapes = [(T, N, I), *states, (rows, I), (rows, H), (rows,), (rows,)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("module", [fusedrnn.functional, fusedrnn.reference], ids=["kernels", "reference"])
@pytest.mark.parametrize("kind", GATES)
def test_a_state_that_is_certainly_kept_never_changes(kind, module, dtype, isa):
    arguments = arguments_of(kind, dtype)
    states = arguments[1 : len(arguments) - 4]
    options = {"zoneout_h": 1.0, **({"zoneout_c": 1.0} if kind == "lstm" else {})}
    y, *last, reserve = getattr(module, f"{kind}_forward")(*arguments, **options)[: 2 + len(states)]
    assert (y == states[0]).all()
    for ours, state in zip(last, states, strict=True):
        np.testing.assert_array_equal(ours, state)
    dy, *dlast = (np.random.default_rng(1).standard_normal(a.shape).astype(dtype) for a in (y, *last))
    gradients = getattr(module, f"{kind}_backward")(dy, *dlast, reserve)
    np.testing.assert_allclose(gradients.dh0, dy.sum(0) + dlast[0], rtol=1e-5, atol=1e-5)
    assert not any(getattr(gradients, name).any() for name in ("dx", "dweight_ih", "dweight_hh", "dbias_ih"))


@pytest.mark.parametrize("kind", GATES)
def test_a_unit_is_kept_whole_or_not_at_all(kind, isa):
    """Of h with each unit's own chance in training: half of them are the previous step's to the bit."""
    arguments = arguments_of(kind, np.float32)
    y, *_ = getattr(fusedrnn.functional, f"{kind}_forward")(*arguments, zoneout_h=0.5, seed=3)
    kept = y[1:] == y[:-1]
    assert 0.45 < kept.mean() < 0.55  # of 1,740 draws, with a standard deviation of 0.012
