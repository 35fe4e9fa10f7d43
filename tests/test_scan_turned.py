"""States that lie turned in the executor: nobody outside can tell, whatever is done to them."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.ops import softmax
from fusedrnn.reference import scan as reference
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.tracing import Abstract, trace_step
from fusedrnn.scan.turned import turned_states

ROWS, COLUMNS = 6, 3  # of the state, more rows than columns
T, N = 4, 3


def moved(m, v, w):
    """Do what makes turning worth it, so that each step below begins with a state that lies turned."""
    return m * (1 - v[:, None] * w) + v[:, None] * w


STEPS = {
    "broadcasts": lambda m, v, w: np.tanh(m * w + v[:, None]),
    "a constant matrix": lambda m, v, w: m + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) / 10,
    "a sum of columns": lambda m, v, w: m + np.sum(m * m, axis=1)[:, None],
    "a sum of rows": lambda m, v, w: m + np.sum(m * np.tanh(m), axis=0),
    "a sum of all": lambda m, v, w: m + np.sum(m),
    "the largest": lambda m, v, w: m - np.max(m, axis=0) - np.max(m, axis=1)[:, None],
    "places of the largest": lambda m, v, w: m * np.argmax(m, axis=1)[:, None],
    "softmax": lambda m, v, w: softmax(m, axis=0) - softmax(m, axis=1),
    "sums so far": lambda m, v, w: np.cumsum(m, axis=0) - np.cumsum(m, axis=1) / 3,
    "sorted": lambda m, v, w: np.take_along_axis(m, np.argsort(m, axis=0, kind="stable"), axis=0),
    "entries": lambda m, v, w: np.take(m, np.array([5, 0, 0, 2, 4, 1]), axis=0),
    "rolled": lambda m, v, w: np.roll(m, 1, axis=0) + np.roll(m, -1, axis=1),
    "parts": lambda m, v, w: np.concatenate([m[2:], m[::-1][:2] * 0.5]),
    "columns": lambda m, v, w: np.concatenate([m[:, 1:], v[:, None]], axis=1),
    "padded": lambda m, v, w: np.pad(m[1:-1], ((1, 1), (0, 0))),
    "a choice": lambda m, v, w: np.where(m > w, m, v[:, None]),
    "products": lambda m, v, w: m + np.outer(v, v @ m) + np.outer(m @ w, w),
    "a product of itself": lambda m, v, w: m + (m @ m.T) @ m / 9,
    "of a transpose": lambda m, v, w: (m.T + v).T,
    "another shape": lambda m, v, w: m + np.reshape(np.ravel(m)[::-1], (COLUMNS, ROWS)).T,
    "two that meet": lambda m, v, w: m * (v[:, None] * w) + np.outer(w @ m.T, np.ones(COLUMNS)),
}


def step_of(name):
    def step(p, state, x):
        m, h = state
        m = moved(m, x["v"] * p["v"], np.tanh(x["w"]))
        m = 0.5 * STEPS[name](m, x["v"], p["w"])
        return (m, h + np.sum(m, axis=0)), {"m": m, "mt": m.T * 2, "read": x["v"] @ m}

    return step


def arrays_of(dtype=np.float64):
    rng = np.random.default_rng(0)

    def some(*shape):
        return rng.uniform(-1, 1, shape).astype(np.float32).astype(dtype)

    p = {"v": some(ROWS), "w": some(COLUMNS)}
    return p, (some(N, ROWS, COLUMNS), some(N, COLUMNS)), {"v": some(T, N, ROWS), "w": some(T, N, COLUMNS)}


def traced(name):
    p, (m, h), x = arrays_of()

    def like(array, lead):
        return Abstract(array.shape[lead:], "real")

    state = like(m, 1), like(h, 1)
    return trace_step(
        step_of(name), *({k: like(v, 0) for k, v in p.items()}, state, {k: like(v, 2) for k, v in x.items()}), None
    )


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("name", STEPS)
def test_results_and_gradients_are_those_of_the_step(name, lanes):
    step = traced(name).step
    derivative = derive(step)
    run = Executable(step, derivative)
    assert run.turned == [True, False]
    p, states, x = arrays_of()
    given = [[p["v"], p["w"]], [], list(states), [x["v"], x["w"]]]
    how = {"steps": T, "batch": N}
    *found, kept = run.forward(*given, dtype=np.float64, lanes=lanes, **how)
    expected = reference.run(step, *given, **how)
    for ours, theirs in zip((found[0], found[1]), (expected.new_states, expected.outputs), strict=True):
        for array, wanted in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-11, atol=1e-12)
            assert array.flags.c_contiguous
    rng = np.random.default_rng(1)
    dstates = [rng.standard_normal(array.shape) for array in found[0]]
    doutputs = [rng.standard_normal(array.shape) for array in found[1]]
    back = run.backward(kept, dstates, doutputs)
    wanted = reference.gradients(derivative, *given, dnew_states=dstates, doutputs=doutputs, **how)
    for ours, theirs in zip(back, (wanted.states, wanted.inputs, wanted.rows, wanted.shared), strict=True):
        for array, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["products", "sorted", "softmax"])
def test_a_row_has_the_same_bits_in_any_layout(name):
    step = traced(name).step
    run = Executable(step, derive(step))
    p, states, x = arrays_of(np.float32)
    given = [[p["v"], p["w"]], [], list(states), [x["v"], x["w"]]]
    one, many = (
        run.forward(*given, steps=T, batch=N, dtype=np.float32, lanes=lanes, training=training)
        for lanes, training in ((1, True), (16, False))
    )
    for ours, theirs in zip((*one[0], *one[1]), (*many[0], *many[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_streams_trajectories_resets_and_recomputing_see_states_as_they_are():
    p, (m, h), x = arrays_of(np.float32)
    layer = nn.Scan(step_of("products"), p, (m[0], h[0]))
    y, state_n = layer(x)
    _, states = layer.trajectory(x)
    assert states[0].shape == (T, N, ROWS, COLUMNS)
    np.testing.assert_array_equal(states[0], y["m"])
    np.testing.assert_array_equal(state_n[0], y["m"][-1])
    stream = layer.stream(N)
    for t in range(T):
        if t == 2:  # put down and taken up again
            stream.state = tuple(leaf.copy() for leaf in stream.state)
        found = stream({key: value[t] for key, value in x.items()})
        np.testing.assert_array_equal(found["m"], y["m"][t])
        np.testing.assert_array_equal(stream.state[0], y["m"][t])
    stream.reset()
    np.testing.assert_array_equal(stream({key: value[0] for key, value in x.items()})["m"], y["m"][0])
    resets = np.zeros((T, N), bool)
    resets[2] = True
    again, _ = layer(x, resets=resets)
    np.testing.assert_array_equal(again["m"][2:], layer({k: v[2:].copy() for k, v in x.items()})[0]["m"])

    def gradients(**how):
        _, state_n, reserve = fusedrnn.scan_forward(step_of("products"), p, (m, h), x, **how)
        return fusedrnn.scan_backward(None, state_n, reserve)

    kept, computed = gradients(), gradients(recompute=1)
    np.testing.assert_array_equal(kept.dstate[0], computed.dstate[0])
    np.testing.assert_array_equal(kept.dparams["v"], computed.dparams["v"])


@pytest.mark.parametrize(
    ("of", "turned"), [((6, 3), True), ((3, 6), False), ((4, 4), False), ((6, 1), False), ((6,), False)]
)
def test_narrow_matrices_beside_vectors_are_turned(of, turned):
    def step(p, m, x):
        return m * p, m * p

    recurrence = trace_step(step, Abstract(of[-1:], "real"), Abstract(of, "real"), Abstract((2,), "real"), None)
    assert turned_states(recurrence.step) == [turned]
    plain = trace_step(lambda p, m, x: (2 * m, m), *[Abstract(of, "real")] * 3, None)
    assert turned_states(plain.step) == [False]
