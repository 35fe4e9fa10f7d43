"""The published cells: each against another text of its equations, what its paper says of it, its first values."""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import pytest

from fusedrnn import cells
from fusedrnn.ops import sigmoid
from tests import published

T, N, I, H = 7, 3, 4, 6  # noqa: E741 - the shape letters of the whole library
CELLS = {
    "rnn": cells.RNN,
    "lstm": cells.LSTM,
    "gru": cells.GRU,
    "layer_norm_lstm": cells.LayerNormLSTM,
    "layer_norm_gru": cells.LayerNormGRU,
    "li_gru": cells.LiGRU,
    "mgu": cells.MGU,
    "janet": cells.JANET,
    "ugrnn": cells.UGRNN,
    "augru": cells.AUGRU,
    "fast_grnn": cells.FastGRNN,
    "sru": cells.SRU,
    "min_lstm": cells.MinLSTM,
    "slstm": cells.SLSTM,
    "co_rnn": cells.CoRNN,
    "cfc": cells.CfC,
    "phased_lstm": cells.PhasedLSTM,
    "fast_weights": cells.FastWeights,
}
WITH_NUMBER = {"augru", "cfc", "phased_lstm"}  # their x is a pair
POSITIVE = {"period", "open", "shift"}  # parameters that noise would spoil


def made(name, *, input_size=I, seed=0, **options):
    """The cell in float64, its parameters all moved from their first values."""
    cell = CELLS[name](input_size, H, rng=seed, dtype="float64", **options)
    rng = np.random.default_rng(seed + 1)

    def moved(value):
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        return value + 0.4 * rng.standard_normal(value.shape)

    p = {key: value if key in POSITIVE else moved(value) for key, value in cell.parameters.items()}
    return cell._replace(parameters=p)


def inputs(name, rng, input_size=I):
    x = rng.standard_normal((T, N, input_size))
    if name not in WITH_NUMBER:
        return x
    numbers = {"augru": (0, 1), "cfc": (0, 3), "phased_lstm": (0, 4)}[name]
    numbers = rng.uniform(*numbers, (T, N))
    return x, numbers.cumsum(axis=0) if name == "phased_lstm" else numbers


def at(tree, *place):
    return tuple(part[place] for part in tree) if isinstance(tree, tuple) else tree[place]


def rollout(cell, x, state):
    """The step of one sequence, over the steps of each row; what `published` gives."""
    steps, rows = (x[0] if isinstance(x, tuple) else x).shape[:2]
    ys, last = [], []
    for n in range(rows):
        row_state, row_ys = at(state, n), []
        for t in range(steps):
            row_state, y = cell.step(cell.parameters, row_state, at(x, t, n))
            row_ys.append(y)
        ys.append(row_ys)
        last.append(row_state)
    if isinstance(state, tuple):
        return np.array(ys).swapaxes(0, 1), tuple(np.array(part) for part in zip(*last, strict=True))
    return np.array(ys).swapaxes(0, 1), np.array(last)


def some_state(name, cell, rng):
    """A state that such sequences can have: A symmetric, n above zero."""
    leaves = cell.state if isinstance(cell.state, tuple) else (cell.state,)
    state = [0.5 * rng.standard_normal((N, *leaf.shape)) for leaf in leaves]
    if name == "slstm":
        state[2] = 1 + state[2] ** 2
    return tuple(state) if isinstance(cell.state, tuple) else state[0]


OPTIONS = {"fast_grnn": [{}, {"input_rank": 2, "hidden_rank": 3}], "slstm": [{}, {"heads": 3}]}


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in CELLS for options in OPTIONS.get(name, [{}])], ids=str
)
def test_a_step_is_what_its_paper_says(name, options):
    rng = np.random.default_rng(2)
    cell = made(name, **options)
    x, state = inputs(name, rng), some_state(name, cell, rng)
    y, last = rollout(cell, x, state)
    expected, expected_last = getattr(published, name)(cell.parameters, x, state)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    if name != "slstm":  # whose last state is another: see below
        for leaf, other in zip(*((s if isinstance(s, tuple) else (s,)) for s in (last, expected_last)), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-12, atol=1e-13)


def test_sru_as_wide_as_its_input_passes_it_on():
    rng = np.random.default_rng(3)
    cell = made("sru", input_size=H)
    assert "S" not in cell.parameters
    x, state = inputs("sru", rng, H), rng.standard_normal((N, H))
    np.testing.assert_allclose(rollout(cell, x, state)[0], published.sru(cell.parameters, x, state)[0], rtol=1e-12)
    cell.parameters["b"][H:] = -50  # the highway is open: the output is the input, scaled
    np.testing.assert_allclose(rollout(cell, x, state)[0], np.sqrt(3) * x, rtol=1e-12)


def test_slstm_keeps_finite_what_would_overflow():
    """Inputs of thousands: exp(i) has no value in float64, h has."""
    cell = cells.SLSTM(1, 1, dtype="float64", rng=0)
    p = cell.parameters
    p["W"][:], p["b"][:] = np.array([[1.0], [0], [0], [0]]), np.array([0.0, 50, 1, 0])
    state = cell.state
    for i in (-2000.0, 3000.0, 3000.0, -3000.0):
        state, h = cell.step(p, state, np.array([i]))
        assert np.isfinite(state).all()
        np.testing.assert_allclose(h, 0.5 * np.tanh(1), rtol=1e-12)  # a mean of equal z, half of it let out
    np.testing.assert_allclose(state[2], 2, rtol=1e-12)  # the two steps of weight exp(3000), which f = σ(50) keeps
    np.testing.assert_allclose(state[3], 3000, rtol=1e-12)


def test_min_lstm_is_a_weighted_mean_even_where_both_gates_are_closed():
    cell = made("min_lstm")
    p, h, x = cell.parameters, np.full(H, 2.0), np.ones(I)
    for bias in (0, -800, 800):
        p["b"][: 2 * H] = bias
        p["W"][2 * H :], p["b"][2 * H :] = 0, 2  # the candidate is the state
        np.testing.assert_allclose(cell.step(p, h, x)[1], h, rtol=1e-14)
        p["b"][2 * H :] = 3
        f, i, _ = np.split(p["W"] @ x, 3)
        share = {0: sigmoid(i) / (sigmoid(f) + sigmoid(i)), -800: sigmoid(i - f), 800: np.full(H, 0.5)}[bias]
        np.testing.assert_allclose(cell.step(p, h, x)[1], 2 + share, rtol=1e-12)


def test_co_rnn_without_coupling_is_a_damped_oscillator():
    """Each unit's (y, z) is then multiplied by one matrix a step."""
    cell = cells.CoRNN(I, H, dtype="float64", rng=0, dt=0.1, gamma=1.5, epsilon=0.3)
    p = {name: np.zeros_like(value) for name, value in cell.parameters.items()}
    z_row = np.array([-0.1 * 1.5, 1 - 0.1 * 0.3])
    once = np.array([[1, 0] + 0.1 * z_row, z_row])
    start = np.random.default_rng(0).standard_normal((2, H))
    state = tuple(start)
    for _ in range(20):
        state, y = cell.step(p, state, np.ones(I))
    np.testing.assert_allclose(state, np.linalg.matrix_power(once, 20) @ start, rtol=1e-12)
    assert y is state[0]


def test_a_phased_lstm_sleeps_outside_of_its_phase():
    for leak in (0.0, 0.001):
        cell = cells.PhasedLSTM(I, 3, dtype="float64", rng=0, leak=leak)
        p = cell.parameters
        p["period"][:], p["shift"][:], p["open"][:] = 10, [0, 2, 9.5], 0.2  # open for 2 of 10
        state = (np.full(3, 0.3), np.full(3, -0.4))
        plain = cells.PhasedLSTM(I, 3, dtype="float64", rng=0)
        awake = {**p, "period": np.full(3, 1e9), "shift": np.full(3, -1e8), "open": np.full(3, 0.2)}  # k = 1
        full, _ = plain.step(awake, state, (np.ones(I), 0.0))
        (h, c), _ = cell.step(p, state, (np.ones(I), 20.5))
        k = np.array([0.5, leak * 0.85, 1.0])  # half open, asleep, at the top
        np.testing.assert_allclose(h, k * full[0] + (1 - k) * 0.3, rtol=1e-7)
        np.testing.assert_allclose(c, k * full[1] - (1 - k) * 0.4, rtol=1e-7)


def test_a_score_of_zero_leaves_augru_where_it_was():
    cell, h = made("augru"), np.arange(H, dtype=float)
    np.testing.assert_array_equal(cell.step(cell.parameters, h, (np.ones(I), 0.0))[0], h)


def test_cfc_runs_from_one_state_to_another_in_time():
    """At f = 1 it begins at tanh(g) and ends at tanh(k)."""
    cell = made("cfc")
    p = cell.parameters
    p["V"][:], p["c"][:] = 0, np.repeat([0.3, -0.7, 1.0, 0.0], H)
    for t, expected in ((-60.0, np.tanh(0.3)), (60.0, np.tanh(-0.7)), (0.0, (np.tanh(0.3) + np.tanh(-0.7)) / 2)):
        np.testing.assert_allclose(cell.step(p, np.zeros(H), (np.ones(I), t))[1], np.full(H, expected), rtol=1e-12)


def test_fast_weights_without_inner_steps_is_a_plain_network():
    cell = made("fast_weights", inner_steps=0)
    p, (h, A), x = cell.parameters, (np.full(H, 0.5), np.ones((H, H))), np.ones(I)
    (h_new, A_new), _ = cell.step(p, (h, A), x)
    np.testing.assert_allclose(h_new, np.maximum(p["W"] @ h + p["C"] @ x + p["b"], 0), rtol=1e-14)
    np.testing.assert_allclose(A_new, np.full((H, H), 0.95 + 0.5 * 0.25), rtol=1e-14)


def test_first_values_are_those_of_the_papers():
    """Forget biases, ζ and ν, periods, orthogonal matrices, the identity."""
    wide = 400
    b = cells.JANET(I, wide, longest=100, rng=0).parameters["b"]
    steps = np.exp(b[:wide])
    assert steps.min() >= 1
    assert 90 < steps.max() <= 99.001
    assert abs(steps.mean() - 50) < 5
    np.testing.assert_array_equal(b[wide:], 0)
    assert cells.LSTM(I, H, rng=0, forget_bias=2).parameters["b"][H : 2 * H].tolist() == [2] * H
    assert cells.UGRNN(I, H, rng=0).parameters["b"][:H].tolist() == [1] * H
    p = cells.FastGRNN(I, H, rng=0).parameters
    assert (p["zeta"], p["nu"], p["b_z"][0], p["b_n"][0]) == (1, -4, 1, 1)
    p = cells.PhasedLSTM(I, wide, longest=1000, shortest=10, rng=0).parameters
    assert 10 <= p["period"].min() < 11
    assert 900 < p["period"].max() <= 1000.01
    assert abs(np.log10(p["period"]).mean() - 2) < 0.12  # four deviations of the mean of 400
    assert (p["shift"] < p["period"]).all()
    U = cells.LiGRU(I, H, rng=0, dtype="float64").parameters["U"]
    for block in np.split(U, 2):
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-14)
    b = cells.SLSTM(I, H, heads=2, rng=0, dtype="float64").parameters["b"].reshape(4, 2, 3)
    np.testing.assert_allclose(b[1], [[5, 5 - 12 * 0.5**0.3, -7]] * 2)
    np.testing.assert_array_equal(b[[0, 2, 3]], 0)
    np.testing.assert_allclose(cells.FastWeights(I, H, rng=0).parameters["W"], 0.05 * np.eye(H), rtol=1e-7)
    p = cells.SRU(300, wide, rng=0, highway_bias=-1, dtype="float64").parameters
    u, gates, alpha = *np.split(p["W"], [wide]), 1 + 2 * np.exp(-1)
    for matrix, variance in ((u, 1 / 300), (gates, 0.5 / 300), (p["v"], 0.5), (p["S"], alpha / 300)):
        assert matrix.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("name", CELLS)
def test_values_have_one_precision_and_steps_keep_shapes(name):
    cell = CELLS[name](I, H, rng=0)
    again = CELLS[name](I, H, rng=0)
    x = (np.ones(I, np.float32), np.float32(1)) if name in WITH_NUMBER else np.ones(I, np.float32)
    new, y = cell.step(cell.parameters, cell.state, x)
    assert y.shape == (H,)
    assert np.isfinite(y).all()

    def leaves(tree):
        tree = tree.values() if isinstance(tree, dict) else tree
        return [leaf for part in tree for leaf in leaves(part)] if not isinstance(tree, np.ndarray) else [tree]

    assert [leaf.shape for leaf in leaves(new)] == [leaf.shape for leaf in leaves(cell.state)]
    assert {leaf.dtype for tree in (new, cell.state, cell.parameters) for leaf in leaves(tree)} == {np.dtype("float32")}
    for a, b in zip(leaves(cell.parameters), leaves(again.parameters), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CELLS)
def test_a_step_has_less_than_twenty_lines(name):
    function = ast.parse(textwrap.dedent(inspect.getsource(getattr(cells, name)))).body[0]
    assert ast.get_docstring(function)
    assert function.end_lineno - function.lineno + 1 < 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cells.LSTM(I, H, dtype="float16"), "dtype: expected float32 or float64, got float16"),
        (lambda: cells.SLSTM(I, H, heads=4), "heads: expected a divisor of hidden_size 6, got 4"),
        (lambda: cells.JANET(I, H, longest=2), "longest: expected more than 2 steps, got 2"),
        (lambda: cells.PhasedLSTM(I, H, shortest=9, longest=5), "shortest: expected more than 0 and at most longest 5"),
        (lambda: cells.FastWeights(I, H, inner_steps=-1), "inner_steps: expected 0 or more, got -1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
