"""The published cells as programs: each traces, computes what its step computes, and has the right derivative."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import cells
from fusedrnn.reference import scan as reference
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.evaluate import evaluate
from fusedrnn.scan.tracing import Abstract, trace_step
from fusedrnn.scan.trees import flatten
from tests.differences import check_along_directions
from tests.test_cells_published import CELLS, N, at, inputs, made, rollout, some_state

VARIANTS = [
    *((name, {}) for name in CELLS),
    ("sru", {"input_size": 6}),
    ("fast_grnn", {"input_rank": 2, "hidden_rank": 3}),
    ("slstm", {"heads": 2}),
    ("fast_weights", {"inner_steps": 3}),
]
T = 4


def traced(cell, state, x):
    """The recurrence of a cell for arrays of a batch."""

    def abstract(tree):
        leaves, structure = flatten(tree)
        return structure.pack([Abstract(np.shape(leaf), "real") for leaf in leaves])

    return trace_step(cell.step, abstract(cell.parameters), abstract(at(state, 0)), abstract(at(x, 0, 0)))


def drawn(name, options):
    rng = np.random.default_rng(4)
    cell = made(name, **options)
    x = at(inputs(name, rng, options.get("input_size", 4)), slice(T))
    return cell, some_state(name, cell, rng), x, rng


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_a_traced_step_computes_what_the_step_computes(name, options):
    cell, state, x, _ = drawn(name, options)
    recurrence = traced(cell, state, x)
    arguments = (cell.parameters, at(state, 0), at(x, 0, 0))
    given = [np.asarray(leaf) for tree in arguments for leaf in flatten(tree)[0]]
    found = evaluate(recurrence.step.results, dict(zip(recurrence.step.leaves, given, strict=True)))
    for a, b in zip(found, flatten(cell.step(*arguments))[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_a_derivative_is_that_of_the_loop_over_the_step(name, options):
    """The loss sums y and the last state under random weights; each leaf is moved along one random direction."""
    cell, state, x, rng = drawn(name, options)
    recurrence = traced(cell, state, x)
    (p, _), (s, s_form), (xs, x_form) = flatten(cell.parameters), flatten(state), flatten(x)
    dy, ds = rng.standard_normal((T, N, 6)), [rng.standard_normal(leaf.shape) for leaf in s]

    def loss(p, s, xs):
        moved = cell._replace(parameters=recurrence.parameters.pack(p))
        y, last = rollout(moved, x_form.pack(xs), s_form.pack(s))
        return np.sum(dy * y) + sum(np.sum(d * leaf) for d, leaf in zip(ds, flatten(last)[0], strict=True))

    p = [np.asarray(leaf) for leaf in p]
    found = reference.gradients(
        derive(recurrence.step), p, [], s, xs, dnew_states=ds, doutputs=[dy], steps=T, batch=N
    )  # fmt: skip
    check_along_directions(loss, [p, s, xs], [found.shared, found.states, found.inputs], rng)


def test_a_cells_options_are_constants_of_its_program():
    one, other = (cells.CoRNN(4, 6, dt=dt, rng=0, dtype="float64") for dt in (0.1, 0.2))
    state, x = tuple(np.ones((N, 6)) for _ in range(2)), np.ones((T, N, 4))
    y = [rollout(cell, x, state)[0] for cell in (one, other)]
    for cell, expected in zip((one, other), y, strict=True):
        run = traced(cell, state, x).step
        p, s = flatten(cell.parameters)[0], flatten(state)[0]
        np.testing.assert_allclose(reference.run(run, p, [], s, [x], steps=T, batch=N).outputs[0], expected)
    assert np.abs(y[0] - y[1]).max() > 1e-3


def test_gradients_of_slstm_stay_finite_from_its_zero_state():
    """In float32 exp(100) is infinite, and the first step divides by an n that began at zero."""
    cell = made("slstm")
    state, x = tuple(np.zeros((N, 6), np.float32) for _ in range(4)), np.zeros((T, N, 4), np.float32)
    x[:, :, 0] = np.array([[-1000, 1000, 0], [1000, -1000, 0], [-1000, -1000, 0], [0, 0, 0]])
    run = traced(cell, state, x).step
    p = [leaf.astype(np.float32) for leaf in flatten(cell.parameters)[0]]
    found = reference.gradients(
        derive(run), p, [], state, [x], doutputs=[np.ones((T, N, 6))], steps=T, batch=N, dtype=np.float32
    )
    for gradient in (*found.shared, *found.states, *found.inputs):
        assert np.isfinite(gradient).all()
