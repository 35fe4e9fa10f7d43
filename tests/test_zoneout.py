"""Zoneout keeps a state: to the bit, at every step, and its gradient with it."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn.functional
import fusedrnn.reference
from fusedrnn.reference.random import find_random
from fusedrnn.reference.sequences import find_sequence

T, N, I, H = 30, 3, 2, 20  # noqa: E741 - the shape letters of the whole library
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def arguments_of(kind, dtype, units=H):
    """x, the initial states, weights and biases."""
    rng, rows = np.random.default_rng(0), GATES[kind] * units
    states = [(N, units)] * (2 if kind == "lstm" else 1)
    shapes = [(T, N, I), *states, (rows, I), (rows, units), (rows,), (rows,)]
    weights = len(states) + 1
    return [
        (rng.standard_normal(shape) * (units**-0.5 if k >= weights else 1)).astype(dtype)
        for k, shape in enumerate(shapes)
    ]


def check_that_states_are_kept(module, kind, dtype):
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
def test_a_state_that_is_certainly_kept_never_changes(kind, dtype, isa):
    check_that_states_are_kept(fusedrnn.functional, kind, dtype)


@pytest.mark.parametrize("kind", GATES)
def test_nor_does_the_references(kind, dtype):
    check_that_states_are_kept(fusedrnn.reference, kind, dtype)


@pytest.mark.parametrize("units", [1, 64, 65, 300])
@pytest.mark.parametrize("kind", GATES)
def test_a_unit_is_kept_whole_or_not_at_all(kind, units, isa):
    """In training: those that the reference's numbers say, however many units share a row's counters."""
    arguments = arguments_of(kind, np.float32, units)
    y, *_ = getattr(fusedrnn.functional, f"{kind}_forward")(*arguments, zoneout_h=0.5, seed=3, layer=2, step_offset=1)
    before = np.concatenate([arguments[1][None], y[:-1]])
    random = find_random(training=True, seed=3, layer=2, reverse=False, row_offset=0, step_offset=1)
    wanted = random.zoneout("zoneout_h", 0.5, find_sequence(arguments[0], None, None, None, False), units)
    np.testing.assert_array_equal(y == before, wanted.reshape(y.shape) != 0)
