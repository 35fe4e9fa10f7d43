"""The reference of scans against plain loops over the user's step, the LSTM's reference, and differences."""

import numpy as np
import pytest

from fusedrnn import reference
from fusedrnn.ops import sigmoid
from fusedrnn.reference.random import philox4x32
from fusedrnn.reference.scan import gradients, run, uniform
from fusedrnn.scan import instructions as to
from fusedrnn.scan.derivative import derive, with_states
from fusedrnn.scan.graph import Graph, Level, Step
from fusedrnn.scan.tracing import Abstract, trace_step

T, N = 5, 3
LENGTHS = np.array([2, 5, 0])


def lstm(p, state, x):
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def memory(p, state, x, context):
    """Attention over a context of which a part is computed once a row, sorting, an outer product, a scaled weight."""
    m, h = state
    keys = np.tanh(context @ (np.exp(p["scale"]) * p["keys"]))
    scores = keys @ np.tanh(p["W"] @ x + h)
    weights = np.exp(scores - np.max(scores))
    read = (weights / np.sum(weights)) @ context
    order = np.argsort(read)
    m = 0.5 * m + np.outer(np.take(read, order), h) * p["bias"]
    h = np.tanh(m @ h + np.cumsum(read) + x[0])
    return (m, h), (np.max(m, axis=1), h * np.roll(read, 1))


def descending(p, state, x):
    """A weight that descends the gradient of its own loss at each step."""
    (w,) = state
    error = np.tanh(w @ x) - p["target"] @ x
    slope = np.outer(error * (1 - np.tanh(w @ x) ** 2), x)
    w = w - np.exp(p["rate"]) * slope
    return (w,), np.tanh(w @ x)


CASES = {
    "lstm": (lstm, {"W": (8, 3), "U": (8, 2), "b": (8,)}, ((2,), (2,)), (3,), None),
    "memory": (
        memory,
        {"scale": (), "keys": (4, 4), "W": (4, 3), "bias": (4,)},
        ((4, 4), (4,)),
        (3,),
        (5, 4),
    ),
    "descending": (descending, {"target": (3, 4), "rate": ()}, ((3, 4),), (4,), None),
}


class Drawn:
    """A traced step, and arrays for all of its leaves and for the gradients of its results."""

    def __init__(self, name, seed=3):
        self.function, parameters, state, x, context = CASES[name]
        rng = np.random.default_rng(seed)

        def real(shape):
            return Abstract(shape, "real")

        self.p = {key: np.array(0.7 * rng.normal(size=shape)) for key, shape in parameters.items()}
        self.traced = trace_step(
            self.function,
            {key: real(shape) for key, shape in parameters.items()},
            tuple(map(real, state)),
            real(x),
            None if context is None else real(context),
        )
        self.step = self.traced.step
        self.shared = [self.p[key] for key in sorted(self.p)]
        self.rows = [] if context is None else [rng.normal(size=(N, *context))]
        self.states = [rng.normal(size=(N, *shape)) for shape in state]
        self.inputs = [rng.normal(size=(T, N, *x))]
        self.dnew_states = [rng.normal(size=(N, *shape)) for shape in state]
        self.doutputs = [rng.normal(size=(T, N, *value.shape)) for value in self.step.outputs]

    @property
    def arrays(self):
        return self.shared, self.rows, self.states, self.inputs

    def loss(self, results):
        return sum(
            np.sum(g * array)
            for g, array in zip(self.dnew_states + self.doutputs, results.new_states + results.outputs, strict=True)
        )


def check(gradient, loss, array, tolerance):
    """Compare a gradient times random directions with differences of a loss, which reads the array."""
    before, rng = array.copy(), np.random.default_rng(11)
    for _ in range(3):
        direction = rng.normal(size=array.shape)
        expected, h = 0.0, 3e-4
        for place, factor in ((2, -1), (1, 8), (-1, -8), (-2, 1)):  # exact for polynomials of degree 4
            array[...] = before + place * h * direction
            expected += factor * loss() / (12 * h)
        array[...] = before
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_scan_is_a_loop_over_the_users_step(name, reverse):
    case = Drawn(name)
    found = run(case.step, *case.arrays, steps=T, batch=N, lengths=LENGTHS, reverse=reverse)
    for row in range(N):
        state = tuple(array[row] for array in case.states)
        for t in range(T)[:: -1 if reverse else 1]:
            y = None
            for kept, array in zip(found.states_before, state, strict=True):
                np.testing.assert_allclose(kept[t, row], array, rtol=1e-12)
            if t < LENGTHS[row]:
                context = [array[row] for array in case.rows]
                state, y = case.function(case.p, state, case.inputs[0][t, row], *context)
            parts = y if isinstance(y, tuple) else [y] * len(found.outputs)
            for output, part in zip(found.outputs, parts, strict=True):
                np.testing.assert_allclose(output[t, row], 0 if part is None else part, rtol=1e-12)
        for new_state, array in zip(found.new_states, state, strict=True):
            np.testing.assert_allclose(new_state[row], array, rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_agrees_with_its_own_reference(reverse):
    case = Drawn("lstm")
    (x,), (h0, c0), p = case.inputs, case.states, case.p
    how = {"lengths": [2, 5, 4], "reverse": reverse}
    y, h_n, c_n, reserve = reference.lstm_forward(x, h0, c0, p["W"], p["U"], p["b"], **how)
    found = run(case.step, *case.arrays, steps=T, batch=N, **how)
    for ours, theirs in zip([*found.outputs, *found.new_states], (y, h_n, c_n), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    expected = reference.lstm_backward(case.doutputs[0], *case.dnew_states, reserve)
    grads = gradients(
        *(derive(case.step), *case.arrays),
        dnew_states=case.dnew_states,
        doutputs=case.doutputs,
        steps=T,
        batch=N,
        **how,
    )
    ours = [*grads.inputs, *grads.states, *grads.shared]  # shared: U, W, b
    names = ("dx", "dh0", "dc0", "dweight_hh", "dweight_ih", "dbias_ih")
    for array, name in zip(ours, names, strict=True):
        np.testing.assert_allclose(array, getattr(expected, name), rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", ["memory", "descending"])
def test_gradients_are_differences(name):
    case = Drawn(name)
    how = {"steps": T, "batch": N, "lengths": LENGTHS, "reverse": name == "memory"}
    grads = gradients(derive(case.step), *case.arrays, dnew_states=case.dnew_states, doutputs=case.doutputs, **how)
    for leaves, group in zip((grads.shared, grads.rows, grads.states, grads.inputs), case.arrays, strict=True):
        for gradient, array in zip(leaves, group, strict=True):
            check(gradient, lambda: case.loss(run(case.step, *case.arrays, **how)), array, 1e-7)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_differences_of_the_first(name):
    """Of the first gradients times random numbers, by what comes from outside, through the kept states too."""
    case = Drawn(name)
    how = {"steps": T, "batch": N, "lengths": LENGTHS}
    back = how | {"reverse": True}
    first = derive(case.step)
    second = derive(first.step)
    rng = np.random.default_rng(5)
    groups = ("states", "inputs", "rows", "shared")
    weights = {
        group: [np.array(rng.normal(size=array.shape)) for array in arrays]
        for group, arrays in zip(groups, (case.states, case.inputs, case.rows, case.shared), strict=True)
    }

    def loss():
        found = gradients(first, *case.arrays, dnew_states=case.dnew_states, doutputs=case.doutputs, **how)
        return sum(
            np.sum(w * array)
            for group in groups
            for w, array in zip(weights[group], getattr(found, group), strict=True)
        )

    before = run(case.step, *case.arrays, **how).states_before
    by_first = gradients(
        second,
        *(case.shared, case.rows, case.dnew_states, [*case.inputs, *before, *case.doutputs]),
        dnew_states=weights["states"],
        doutputs=weights["inputs"],
        drow_outputs=weights["rows"],
        dshared_outputs=weights["shared"],
        **back,
    )
    inputs, states = len(case.inputs), len(case.states)
    dbefore = by_first.inputs[inputs : inputs + states]
    by_states = gradients(
        derive(with_states(case.step)), *case.arrays, doutputs=[None] * len(case.doutputs) + dbefore, **how
    )
    expected = [
        (case.shared, [a + b for a, b in zip(by_first.shared, by_states.shared, strict=True)]),
        (case.rows, [a + b for a, b in zip(by_first.rows, by_states.rows, strict=True)]),
        (case.inputs, [a + b for a, b in zip(by_first.inputs, by_states.inputs, strict=False)]),
        (case.states, by_states.states),
        (case.dnew_states, by_first.states),
        (case.doutputs, by_first.inputs[inputs + states :]),
    ]
    for arrays, found in expected:
        for array, gradient in zip(arrays, found, strict=True):
            check(gradient, loss, array, 1e-7)


def test_totals_count_each_step_of_each_row():
    """An output of a lower level is alike at each step; its gradient is the sum over those that a row takes part in."""
    graph = Graph()
    w = graph.leaf("w", (2,), "real", Level.SHARED)
    c = graph.leaf("c", (2,), "real", Level.ROW)
    step = Step(graph, (w,), (c,), (), (), (), (to.multiply(w, c),))
    c_, w_ = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([7.0, 8])
    first, ones = derive(step), np.ones((T, N, 2))
    how = {"steps": T, "batch": N, "lengths": LENGTHS}
    found = gradients(first, [w_], [c_], [], [], doutputs=[ones], **how)
    np.testing.assert_array_equal(found.rows[0], LENGTHS[:, None] * w_)
    np.testing.assert_array_equal(found.shared[0], LENGTHS @ c_)
    # the gradient of c is linear in w and in dy
    twice = gradients(
        derive(first.step), [w_], [c_], [], [ones], drow_outputs=[np.ones((N, 2))], dshared_outputs=[w_], **how
    )
    np.testing.assert_array_equal(twice.shared[0], [LENGTHS.sum()] * 2)
    np.testing.assert_array_equal(twice.rows[0], LENGTHS[:, None] * w_)


def test_uniform_numbers_are_words_of_counters():
    numbers = uniform(seed=5 << 32 | 9, row=3, step=2, stream=1, units=70)
    for u, block, word in ((0, 0, 0), (17, 1, 1), (63, 15, 3), (69, 21, 0)):
        counter = tuple(np.array([n], np.uint64) for n in (block, 3, 2, 1))
        assert numbers[u] * 2**32 == int(philox4x32(counter, (9, 5))[word][0]) >> 8 << 8
    graph = Graph()
    step = Step(graph, (), (), (), (), (), (to.uniform(graph, (2, 3), 4),))
    whole = run(step, [], [], [], [], steps=4, batch=3, seed=8).outputs[0]
    part = run(step, [], [], [], [], steps=2, batch=2, seed=8, row_offset=1, step_offset=2, reverse=True).outputs[0]
    np.testing.assert_array_equal(part, whole[2:, 1:])
    assert len(np.unique(whole)) == whole.size
