"""What instructions compute, in numbers written out, and what evaluation refuses."""

import warnings

import numpy as np
import pytest

from fusedrnn.scan import instructions as to
from fusedrnn.scan.evaluate import evaluate
from fusedrnn.scan.graph import Graph, Level

NAN, INF = np.nan, np.inf


def constants(*arrays):
    graph = Graph()
    return [graph.constant(np.array(array)) for array in arrays]


def check(value, expected, kind="real"):
    (found,) = evaluate([value], {})
    np.testing.assert_array_equal(found, expected)
    assert (value.kind, found.dtype.kind, found.shape) == (
        kind,
        {"real": "f", "integer": "i"}.get(kind, "b"),
        value.shape,
    )


def test_elementwise_edges():
    small = 2.0**-70
    (x,) = constants([-1000.0, -0.0, 1e-7, 1000, INF, NAN])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(to.unary("sigmoid", x), [0, 0.5, 1 / (1 + np.exp(-1e-7)), 1, 1, NAN])
        check(to.unary("softplus", x), [0, np.log(2), np.logaddexp(0, 1e-7), 1000, INF, NAN])
        check(to.unary("relu", x), [0, 0, 1e-7, 1000, INF, NAN])
        check(to.unary("sign", x), [-1, 0, 1, 1, 1, NAN])
        check(to.unary("log1p", to.multiply(x, small)), np.multiply([-1000, 0, 1e-7, 1000, INF, NAN], small))
        check(to.divide(x, 0.0), [-INF, NAN, INF, INF, INF, NAN])
        check(to.binary("maximum", x, 0.0), [0, 0, 1e-7, 1000, INF, NAN])
        check(to.compare("less_equal", 0.0, x), [False, True, True, True, True, False], "boolean")
        check(to.compare("not_equal", x, x), [False] * 5 + [True], "boolean")
        check(to.where(to.compare("less", x, 1.0), 7.0, x), [7, 7, 7, 1000, INF, NAN])
    a, b = constants([2.0, 3.0], [0.5, -0.25])
    check(to.binary("tanh_gradient", a, b), [1.5, 3 * 0.9375])
    check(to.binary("sigmoid_gradient", a, b), [0.5, 3 * -0.25 * 1.25])


def test_kinds():
    whole, flags, x = constants([2**60 + 1, -7, 0], [True, False, True], [-2.9, 2.9, 0.5])
    check(to.add(whole, flags), [2**60 + 2, -7, 1], "integer")
    check(to.unary("square", flags), [1, 0, 1], "integer")
    check(to.sum_(flags), 2, "integer")
    check(to.divide(flags, 2), [0.5, 0, 0.5])
    check(to.as_integer(x), [-2, 2, 0], "integer")
    check(to.logical("logical_and", x, flags), [True, False, True], "boolean")
    check(to.concatenate([flags, whole], 0), [1, 0, 1, 2**60 + 1, -7, 0], "integer")
    check(to.where(flags, whole, x), [2.0**60, 2.9, 0])
    (found,) = evaluate([to.multiply(x, flags)], {}, np.float32)
    assert found.dtype == np.float32


def test_elements_elsewhere():
    (x,) = constants(np.arange(12.0).reshape(3, 4))
    check(to.slice_(x, (2, 0), (2, 2), (-2, 3)), [[8, 11], [0, 3]])
    check(to.pad(to.slice_(x, (0, 0), (2, 2)), (3, 4), (2, 1), (-2, 2)), [[0, 4, 0, 5], [0, 0, 0, 0], [0, 0, 0, 1]])
    check(to.concatenate([x, x], 1), np.concatenate([np.arange(12).reshape(3, 4)] * 2, 1))
    check(to.transpose(to.broadcast(x, (2, 3, 4)), (2, 0, 1)), np.arange(12).reshape(3, 4).T[:, None].repeat(2, 1))


def test_along_axes():
    x, flat = constants([[3.0, NAN, 1], [3, 5, 4]], [2.0, 3, 4])
    check(to.max_(x, 1), [NAN, 5])
    check(to.argmax(x, 0), [0, 0, 1], "integer")
    check(to.argsort(x, 1), [[2, 0, 1], [0, 2, 1]], "integer")
    check(to.sum_(x, (0,)), [6, NAN, 5])
    check(to.softmax(to.multiply(flat, 1000), 0), [0, 0, 1])
    check(to.recurrence(flat, 1.0, 0), [1, 4, 17])
    check(to.recurrence(flat, 1.0, 0, reverse=True), [9, 4, 1])
    check(to.argsort(constants([1, 0, 1, 0])[0], 0), [1, 3, 0, 2], "integer")


def test_computed_places():
    x, places, index = constants([[1.0, 2], [3, 4], [5, 6]], [[2, 0], [2, 1]], [2, 0, 2])
    check(to.gather(x, places, 0), [[5, 2], [5, 4]])
    check(to.scatter(to.slice_(x, (0, 0), (2, 2)), places, 0, 4), [[0, 2], [0, 4], [4, 0], [0, 0]])
    check(to.take(x, index), [[5, 6], [1, 2], [5, 6]])
    check(to.put(x, index, 4), [[3, 4], [0, 0], [6, 8], [0, 0]])
    with pytest.raises(IndexError):
        evaluate([to.take(x, to.add(index, 1))], {})


def test_what_must_be_given():
    graph = Graph()
    x = graph.leaf("x", (2,), "real", Level.STEP)
    whole = to.total(x, Level.SHARED)
    found = evaluate([to.multiply(whole, 2), x], {whole: np.array([1, 2]), x: np.zeros(2)})
    np.testing.assert_array_equal(found, [[2, 4], [0, 0]])
    with pytest.raises(ValueError, match=r"total.* must be given"):
        evaluate([whole], {x: np.zeros(2)})
    with pytest.raises(ValueError, match=r"leaf.* must be given"):
        evaluate([to.negative(x)], {})
    with pytest.raises(ValueError, match=r"an array of shape \(3,\)"):
        evaluate([x], {x: np.zeros(3)})
    with pytest.raises(ValueError, match=r"uniform.* needs `uniform`"):
        evaluate([to.uniform(graph, (2,), 0)], {})
