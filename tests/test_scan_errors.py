"""What scan_forward and scan_backward refuse: which argument, what was expected, what came."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn.scan.tracing import TraceError

T, N = 4, 3


def step(p, state, x, context=None):
    h = np.tanh(p["W"] @ x["a"] + state[0] + (0 if context is None else context))
    return (h, state[1]), h


def arguments():
    p = {"W": np.ones((2, 2))}
    return {"params": p, "state": (np.zeros((N, 2)), np.zeros(N, np.int64)), "x": {"a": np.zeros((T, N, 2))}}


def changed(**changes):
    given = arguments() | changes
    return fusedrnn.scan_forward(step, given.pop("params"), given.pop("state"), given.pop("x"), **given)


F32 = np.zeros((T, N, 2), np.float32)
STATE = (np.zeros((N, 2)), np.zeros(N, np.int64))
REFUSED = [
    (
        {"params": {"W": [[1.0]]}},
        TypeError,
        "params['W'][0][0]: expected an array, or a dict, tuple or list of arrays, got float; "
        "numpy.array(value, dtype) makes one of a number",
    ),
    (
        {"params": {"W": "ones"}},
        TypeError,
        "params['W']: expected an array, or a dict, tuple or list of arrays, got str",
    ),
    (
        {"params": {"W": np.ones((2, 2), int)}},
        TypeError,
        "params['W']: expected float32 or float64, got int64; "
        "integers and booleans go into x, state or context, or into the step as constants",
    ),
    (
        {"params": {"W": np.ones((2, 2), np.float16)}},
        TypeError,
        "params['W']: expected float32 or float64, got float16",
    ),
    (
        {"params": {"W": np.ones((2, 2)), "b": None}},
        TypeError,
        "params['b']: expected an array, got None: leave the entry out",
    ),
    ({"x": {"a": F32}}, TypeError, "x['a']: expected dtype float64 like params['W'], got float32"),
    (
        {"x": {"a": np.zeros((T, N, 2), complex)}},
        TypeError,
        "x['a']: expected float32 or float64, integers or booleans, got complex128",
    ),
    ({"x": {"a": np.zeros(T)}}, ValueError, "x['a']: expected shape (T, N, ...), got (4,)"),
    ({"x": {"a": np.zeros((0, N, 2))}}, ValueError, "x: expected a sequence length of at least 1, got 0"),
    (
        {"x": {"a": np.zeros((T, N, 2)), "b": np.zeros((T, 2))}},
        ValueError,
        "x['b']: expected shape (4, 3, ...) of (T, N, ...), got (4, 2)",
    ),
    (
        {"x": {"a": np.zeros((N, T, 2)).swapaxes(0, 1)}},
        ValueError,
        "x['a']: expected a C-contiguous array; use numpy.ascontiguousarray",
    ),
    ({"x": None}, ValueError, "steps: expected the number of steps, as x has no arrays, got None"),
    ({"x": None, "steps": 0}, ValueError, "steps: expected a sequence length of at least 1, got 0"),
    ({"x": None, "steps": 2.5}, TypeError, "steps: expected an integer, got 2.5"),
    ({"x": None, "steps": 2, "state": ()}, ValueError, "state: expected an array [N, ...], as x has none that tells N"),
    ({"steps": 3}, ValueError, "steps: expected None or 4, the steps of x, got 3"),
    ({"state": (np.zeros((2, 2)), STATE[1])}, ValueError, "state[0]: expected shape (3, ...) of (N, ...), got (2, 2)"),
    (
        {"state": (STATE[0], np.full(N, 2**60))},
        ValueError,
        "state[1]: expected integers from -9007199254740992 to 9007199254740992, "
        "which float64 has exactly, got 1152921504606846976",
    ),
    ({"context": np.zeros((2, 2))}, ValueError, "context: expected shape (3, ...) of (N, ...), got (2, 2)"),
    ({"context": np.zeros((N, 5))}, TraceError, "test_scan_errors.py:15: np.add: shapes (2,), (5,)"),
    ({"lengths": [1, 2]}, ValueError, "lengths: expected shape (3,), got (2,)"),
    ({"lengths": [1, 2, 5]}, ValueError, "lengths: expected integers from 0 to 4, got [1, 2, 5]"),
    ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths: expected integers, got float64"),
    ({"lengths": [1, 2, 3], "batch_sizes": [3, 1]}, ValueError, "lengths: expected None with batch_sizes, got both"),
    (
        {"batch_sizes": [1, 2], "x": {"a": np.zeros((3, 2))}},
        ValueError,
        "batch_sizes: expected positive numbers that never increase, got 2 for step 1",
    ),
    (
        {"batch_sizes": [2, 2], "x": {"a": np.zeros((3, 2))}},
        ValueError,
        "batch_sizes: expected a sum of 3, the rows of x, got 4",
    ),
    (
        {"batch_sizes": [], "x": {"a": np.zeros((0, 2))}},
        ValueError,
        "batch_sizes: expected a sequence length of at least 1, got 0",
    ),
    ({"batch_sizes": [1], "x": None}, ValueError, "batch_sizes: expected None without x, got some"),
    ({"resets": np.zeros((T, N))}, TypeError, "resets: expected booleans, got float64"),
    ({"resets": np.zeros((N, T), bool)}, ValueError, "resets: expected shape (4, 3), got (3, 4)"),
    ({"reset_state": STATE}, ValueError, "reset_state: expected None without resets, got some"),
    (
        {"resets": np.zeros((T, N), bool), "reset_state": STATE[0]},
        ValueError,
        "reset_state: expected the structure of the state, (*, *), got *",
    ),
    (
        {"resets": np.zeros((T, N), bool), "reset_state": (np.zeros((N, 1)), STATE[1])},
        ValueError,
        "reset_state[0]: expected shape (3, 2) as the state has, got (3, 1)",
    ),
    (
        {"resets": np.zeros((T, N), bool), "reset_state": (STATE[0], np.zeros(N))},
        TypeError,
        "reset_state[1]: expected integer numbers as the state has, got float64",
    ),
    ({"seed": -1}, ValueError, "seed: expected an integer from 0 to 18446744073709551615, got -1"),
    ({"seed": 1.5}, TypeError, "seed: expected an integer, got 1.5"),
    ({"row_offset": 1 << 32}, ValueError, "row_offset: expected an integer from 0 to 4294967295, got 4294967296"),
    ({"recompute": 0}, ValueError, "recompute: expected an integer from 1 to"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_forward_refuses(changes, kind, message):
    with pytest.raises(kind) as error:
        changed(**changes)
    assert str(error.value).startswith(message)


WRONG = [
    (np.zeros((T, N, 3)), None, ValueError, "dy: expected shape (4, 3, 2), got (4, 3, 3)"),
    (F32, None, TypeError, "dy: expected dtype float64, got float32"),
    ([0.0], None, TypeError, "dy: expected a NumPy array or None, got list"),
    (
        np.zeros((N, T, 2)).swapaxes(0, 1),
        None,
        ValueError,
        "dy: expected a C-contiguous array; use numpy.ascontiguousarray",
    ),
    (None, (None, np.zeros(N)), ValueError, "dstate_n[1]: expected None, as integers have no gradient"),
    (None, (None,), ValueError, "dstate_n: expected the structure (*, *), got 1 entries"),
    (None, np.zeros((N, 2)), ValueError, "dstate_n: expected the structure (*, *), got ndarray"),
]


@pytest.mark.parametrize(("dy", "dstate_n", "kind", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_backward_refuses(dy, dstate_n, kind, message):
    reserve = changed()[2]
    with pytest.raises(kind) as error:
        fusedrnn.scan_backward(dy, dstate_n, reserve)
    assert str(error.value) == message


def test_backward_refuses_other_reserves():
    with pytest.raises(TypeError, match=r"reserve: expected that of scan_forward\(..., training=True\), got NoneType"):
        fusedrnn.scan_backward(None, None, changed(training=False)[2])


def test_an_index_outside_is_refused():
    def take(p, state, x):
        return state, p[x]

    with pytest.raises(IndexError, match="an index that the step computed lies outside of its axis"):
        fusedrnn.scan_forward(take, np.zeros((5, 2)), np.zeros((2, 1)), np.array([[0, 5]]))


def test_other_orders_of_bytes_are_no_float64():
    def plus(p, state, x):
        return state + x, x

    p, state, x = (), np.full((1, 1), 0.5), np.full((2, 1, 1), 0.5)
    assert fusedrnn.scan_forward(plus, p, state, x)[1][0, 0] == 1.5
    with pytest.raises(TypeError, match="state: expected float32 or float64, integers or booleans, got >f8"):
        fusedrnn.scan_forward(plus, p, state.astype(">f8"), x)
    y, *_ = fusedrnn.scan_forward(plus, p, state, np.array([[[3]], [[4]]], ">i4"))
    assert y.ravel().tolist() == [3, 4]
    with pytest.raises(TypeError, match=r"step: expected a function of \(params, state, x\), got int"):
        fusedrnn.scan_forward(3, p, state, x)


def test_a_step_returns_a_state_and_an_output():
    with pytest.raises(TraceError, match=r"\d: expected the step to return \(new_state, y\), got an array"):
        fusedrnn.scan_forward(lambda p, h, x: h + x, (), np.zeros((1, 1)), np.zeros((2, 1, 1)))


def test_integers_that_float32_has_not_are_refused():
    def take(p, state, x):
        return state, p * x

    p, state = np.float32([1]), np.zeros((1, 1), np.float32)
    y, _, _ = fusedrnn.scan_forward(take, p, state, np.array([[1 << 24]]))
    assert y[0, 0, 0] == 1 << 24
    with pytest.raises(ValueError, match="x: expected integers from -16777216 to 16777216, which float32 has exactly"):
        fusedrnn.scan_forward(take, p, state, np.array([[(1 << 24) + 1]]))
