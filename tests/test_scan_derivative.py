"""Derivatives of every instruction by float64 differences, first and second, and what holds at ties and edges."""

import numpy as np
import pytest

from fusedrnn.scan import instructions as to
from fusedrnn.scan import rules
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.evaluate import RULES, evaluate
from fusedrnn.scan.graph import Graph, Level, Step, needed

rng = np.random.default_rng(7)


def normal(*shape):
    return rng.normal(size=shape)


def positive(*shape):
    return rng.uniform(0.5, 2, size=shape)


def unary(op, make=normal):
    return lambda x: to.unary(op, x), (make(3, 5),)


def binary(op, a=normal, b=normal):
    return lambda a, b: to.binary(op, a, b), (a(3, 5), b(3, 5))


def constant(x, array):
    return x.graph.constant(np.array(array))


CASES = {
    **{op: unary(op) for op in ("negative", "square", "exp", "expm1", "sin", "cos", "tanh", "sigmoid", "softplus")},
    **{op: unary(op) for op in ("relu", "absolute")},
    **{op: unary(op, positive) for op in ("reciprocal", "sqrt", "log", "log1p")},
    **{op: binary(op) for op in ("add", "subtract", "multiply", "maximum", "minimum")},
    "divide": binary("divide", normal, positive),
    "tanh_gradient": binary("tanh_gradient"),
    "sigmoid_gradient": binary("sigmoid_gradient"),
    "where": (lambda a, b: to.where(to.compare("less", a, b), to.multiply(a, a), b), (normal(3, 5), normal(3, 5))),
    "broadcast": (lambda x: to.broadcast(x, (4, 3, 5)), (normal(3, 1),)),
    "reshape": (lambda x: to.reshape(x, (5, -1)), (normal(3, 5),)),
    "transpose": (lambda x: to.transpose(x, (1, 2, 0)), (normal(2, 3, 5),)),
    "slice": (lambda x: to.slice_(x, (2, 1), (3, 2), (-1, 3)), (normal(3, 5),)),
    "pad": (lambda x: to.pad(x, (7, 9), (1, 8), (2, -2)), (normal(3, 5),)),
    "concatenate": (lambda a, b: to.concatenate([a, b, a], 1), (normal(3, 2), normal(3, 3))),
    "sum": (lambda x: to.sum_(x, (0, 2)), (normal(2, 3, 5),)),
    "a transpose that two products read": (
        lambda x, a, b: (lambda t: to.add(to.product(a, t), to.product(b, t)))(to.transpose(x)),
        (normal(3, 4), normal(2, 4), normal(2, 4)),
    ),
    "inner": (lambda x, y: to.inner(x, y, 1), (normal(2, 3, 5), normal(2, 3, 5))),
    "inner of a square": (lambda x: to.inner(x, x, 0), (normal(2, 3),)),
    "max": (lambda x: to.max_(x, 1), (normal(2, 3, 5),)),
    "softmax": (lambda x: to.softmax(x, 0), (normal(3, 5),)),
    "recurrence": (lambda a, b: to.recurrence(a, b, 1), (normal(3, 5), normal(3, 5))),
    "recurrence back": (lambda a, b: to.recurrence(a, b, 0, True), (normal(3, 5), normal(3, 5))),
    "recurrence of one": (lambda a, b: to.recurrence(a, b, 0), (normal(1, 5), normal(1, 5))),
    "cumulative sum": (lambda x: to.recurrence(constant(x, 1.0), x, 1), (normal(3, 5),)),
    "gather": (lambda x: to.gather(x, constant(x, [[2, 0, 2, 1], [1, 1, 1, 1]]), 1), (normal(2, 3),)),
    "scatter": (lambda x: to.scatter(x, constant(x, [[2, 0, 2], [1, 1, 0]]), 1, 4), (normal(2, 3),)),
    "sorted": (lambda x: to.gather(x, to.argsort(x, 0), 0), (normal(5, 2),)),
    "take": (lambda x: to.take(x, constant(x, [[3, 0], [3, 1]])), (normal(4, 5),)),
    "put": (lambda x: to.put(x, constant(x, [[3, 0], [3, 1]]), 5), (normal(2, 2, 3),)),
    "product": (to.product, (normal(2, 3, 5), normal(2, 5, 4))),
    "outer product": (to.product, (normal(3, 1), normal(1, 5))),
    "matrix times vector": (to.matmul, (normal(3, 5), normal(5))),
    "rows times matrix": (to.matmul, (normal(2, 3, 5), normal(5, 4))),
    "split and joined": (
        lambda x: to.multiply(to.concatenate([to.slice_(x, (2,), (3,)), to.slice_(x, (0,), (2,))], 0), x),
        (normal(5),),
    ),
    "parts of a whole": (
        lambda x: to.multiply(to.slice_(x, (1,), (3,)), to.unary("tanh", to.slice_(x, (5,), (3,)))),
        (normal(9),),
    ),
    "one, minus one, sign": (
        lambda x: to.multiply(to.multiply(to.multiply(x, 1.0), -1.0), to.unary("sign", to.multiply(x, 2.0))),
        (normal(5),),
    ),
}


def step_of(function, arrays):
    graph = Graph()
    leaves = tuple(graph.leaf(f"x{i}", np.shape(array), "real", Level.STEP) for i, array in enumerate(arrays))
    return Step(graph, (), (), (), leaves, (), (function(*leaves),))


def given(step, arrays):
    return dict(zip(step.inputs, arrays, strict=True))


def differences(step, arrays, weights, i):
    """Of the sum of outputs times weights by input i."""
    gradient = np.empty_like(arrays[i])
    for place in np.ndindex(gradient.shape):
        sides = []
        for h in (1e-5, -1e-5):
            moved = [array.copy() for array in arrays]
            moved[i][place] += h
            outputs = evaluate(step.outputs, given(step, moved))
            sides.append(sum(np.sum(w * y) for w, y in zip(weights, outputs, strict=True)))
        gradient[place] = (sides[0] - sides[1]) / 2e-5
    return gradient


@pytest.mark.parametrize("name", CASES)
def test_first_and_second_derivatives_are_differences(name):
    function, arrays = CASES[name]
    step = step_of(function, arrays)
    for _ in range(2):
        weights = [normal(*value.shape) for value in step.outputs]
        derivative = derive(step).step
        gradients = evaluate(derivative.outputs, given(derivative, [*arrays, *weights]))
        for i, gradient in enumerate(gradients):
            np.testing.assert_allclose(gradient, differences(step, arrays, weights, i), rtol=1e-6, atol=1e-8)
        step, arrays = derivative, (*arrays, *weights)


def test_every_instruction_has_a_rule_or_no_gradient():
    assert set(rules.RULES) | rules.NO_GRADIENT == set(RULES) | {"leaf", "constant", "uniform", "total"}
    assert not set(rules.RULES) & rules.NO_GRADIENT
    tested = {value.op for function, arrays in CASES.values() for value in step_of(function, arrays).graph.values}
    assert set(rules.RULES) - {"total"} <= tested


def gradients(function, *arrays, g=None):
    """Of a function's result times g, of its sum by default."""
    arrays = [np.array(array, dtype=float) for array in arrays]
    step = step_of(function, arrays)
    derivative = derive(step).step
    g = np.ones(step.outputs[0].shape) if g is None else np.array(g)
    return evaluate(derivative.outputs, given(derivative, [*arrays, g]))


def test_ties():
    (largest,) = gradients(lambda x: to.max_(x, 0), [3, 1, 3, 3])
    np.testing.assert_array_equal(largest, [1 / 3, 0, 1 / 3, 1 / 3])
    for op, first in (("maximum", [0, 0.5, 1]), ("minimum", [1, 0.5, 0])):
        a, b = gradients(lambda a, b, op=op: to.binary(op, a, b), [1, 2, 3], [2, 2, 2])
        np.testing.assert_array_equal(a, first)
        np.testing.assert_array_equal(b, 1 - np.array(first))
    for op in ("relu", "absolute"):
        assert gradients(lambda x, op=op: to.unary(op, x), [0.0])[0] == 0
    assert gradients(lambda x: to.unary("sqrt", x), [0.0])[0] == np.inf


def test_where_selects():
    def function(a, b):
        return to.where(constant(a, [True, False, True, False]), to.multiply(a, a), b)

    da, db = gradients(function, [1, 2, 3, 4], [np.nan, 5, np.inf, 6], g=[3, np.nan, np.inf, 4])
    np.testing.assert_array_equal(da, [6, 0, np.inf, 0])
    np.testing.assert_array_equal(db, [0, np.nan, 0, 4])


def test_what_has_no_gradient():
    def function(x):
        steps = to.add(to.unary("floor", x), to.as_real(to.as_integer(x)))
        places = to.as_real(to.add(to.argsort(x, 0), to.broadcast(to.argmax(x, 0), x.shape)))
        return to.add(to.multiply(to.stop_gradient(x), x), to.add(steps, places))

    np.testing.assert_array_equal(gradients(function, [1.5, -2.5])[0], [1.5, -2.5])


def test_integers_have_no_place_and_what_is_not_wanted_none():
    graph = Graph()
    x = graph.leaf("x", (3,), "real", Level.STEP)
    count = graph.leaf("count", (), "integer", Level.STEP)
    h = graph.leaf("h", (3,), "real", Level.STEP)
    w = graph.leaf("w", (3,), "real", Level.SHARED)
    idle = graph.leaf("idle", (2,), "real", Level.SHARED)
    y = to.multiply(to.add(x, h), w)
    step = Step(graph, (w, idle), (), (count, h), (x,), (to.add(count, 1), y), (to.argmax(y, 0), y))
    found = derive(step, inputs=[False])
    assert (found.states, found.inputs, found.shared) == ((None, 0), (None,), (0, 1))
    assert found.outputs == (None, 3)
    assert found.step.inputs[:3] == (x, count, h)
    assert [value.shape for value in found.step.shared_outputs] == [(3,), (2,)]
    assert found.step.shared_outputs[1].op == "broadcast"
    assert not found.step.outputs


def test_parts_of_a_split_are_joined_once():
    graph = Graph()
    x = graph.leaf("x", (8,), "real", Level.STEP)
    parts = [to.slice_(x, (2 * i,), (2,)) for i in range(4)]
    y = to.multiply(to.add(parts[0], parts[1]), to.multiply(parts[2], parts[3]))
    (dx,) = derive(Step(graph, (), (), (), (x,), (), (y,))).step.outputs
    ops = [value.op for value in needed([dx])]
    assert dx.op == "concatenate"
    assert len(dx.inputs) == 4
    assert "pad" not in ops
    assert ops.count("add") == 1


def test_products_with_weights_stay_apart():
    graph = Graph()
    w = graph.leaf("w", (4, 3), "real", Level.SHARED)
    x = graph.leaf("x", (3,), "real", Level.STEP)
    h = graph.leaf("h", (3,), "real", Level.STEP)
    y = to.add(to.matmul(w, x), to.unary("tanh", to.matmul(w, h)))
    found = derive(Step(graph, (w,), (), (), (x, h), (), (y,))).step
    (dw,) = found.shared_outputs
    assert dw.op == "add"
    assert [each.op for each in dw.inputs] == ["total", "total"]
    assert all(each.inputs[0].op == "product" for each in dw.inputs)
    assert all(dx.inputs[0].op == "product" and dx.inputs[0].inputs[0].op == "transpose" for dx in found.outputs)


def test_no_step_waits_for_a_total():
    graph = Graph()
    x = graph.leaf("x", (2,), "real", Level.STEP)
    whole = to.total(x, Level.ROW)
    assert derive(Step(graph, (), (), (), (x,), (), (), (to.multiply(whole, 2.0),))).step.outputs[0].level == Level.ROW
    with pytest.raises(AssertionError, match=r"internal error: .* depends on a total"):
        derive(Step(graph, (), (), (), (x,), (), (), (to.unary("square", whole),)))
