"""A step may not do these things: each refusal names the user's line, says what was seen and what to write instead."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fusedrnn
from fusedrnn import ops
from fusedrnn.scan.tracing import Abstract, TraceError, trace_step

LEAKED = []


def branch(p, h, x):
    if np.max(h) > 1:
        h = h / 2
    return h, h


def item_written(p, h, x):
    h[0] = x[0]
    return h, h


def out_given(p, h, x):
    c = np.zeros(3)
    np.add(h, x, out=c)
    return c, h


def written_into_a_constant(p, h, x):
    c = np.zeros(3)
    c += h
    return c, h


def item_of_a_constant_written(p, h, x):
    c = np.zeros(3)
    c[0] = h[0]
    return c, h


def one_of_zeros_written(p, h, x):
    c = np.zeros(3)
    c[np.argmax(h)] = 1
    return c, h


def array_of_traced(p, h, x):
    return np.array([h[0], h[1], x[0]]), h


def number(p, h, x):
    return h * float(h[0]), h


def python_range(p, h, x):
    for _ in range(h[0]):
        h = h + 1
    return h, h


def unknown(p, h, x):
    return np.linalg.inv(np.outer(h, x))[0], h


def convolution(p, h, x):
    return h, np.convolve(h, x, "same")


def far_from_all_others(p, h, x):
    return h, np.kron(h, x)


def unknown_ufunc(p, h, x):
    return np.arctan2(h, x), h


def leaks(p, h, x):
    if LEAKED:
        return h + LEAKED[0], h
    LEAKED.append(h)
    return h, h


def recursion(p, h, x):
    return recursion(p, h + 1, x)


def no_pair(p, h, x):
    return h


def other_shape(p, h, x):
    return np.concatenate([h, x]), h


def other_structure(p, h, x):
    return {"h": h}, h


def shapes_that_do_not_fit(p, h, x):
    return h @ np.ones((4, 3)), h


def complex_numbers(p, h, x):
    return h * 1j, h


def state_read_under_its_old_name(p, h, x):
    old = h[:2]
    h += x
    return h, old


def computed_index_into_a_constant(p, h, x):
    return h, np.eye(3)[np.argmax(h)]


def chosen_by_a_mask(p, h, x):
    return h, h[h > 0]


def shape_from_data(p, h, x):
    return h, np.zeros(np.argmax(h))


def integers_that_become_real_in_place(p, h, x):
    k = np.argmax(h)
    k += 0.5
    return h, k


def printed(p, h, x):
    return h, f"{h[0]:.2f}"


def index_outside(p, h, x):
    return h[3:] + h[3], h


def nothing_in_the_output(p, h, x):
    return h, (h, None)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (branch, ["np.where"]),
        (item_written, ["np.where", "np.concatenate"]),
        (out_given, ["out"]),
        (written_into_a_constant, []),
        (item_of_a_constant_written, ["np.concatenate"]),
        (one_of_zeros_written, ["ops.one_hot"]),
        (array_of_traced, ["np.stack"]),
        (number, []),
        (python_range, []),
        (unknown, ["inv", "products"]),
        (convolution, ["circular_convolve"]),
        (far_from_all_others, ["kron", "np.outer"]),
        (unknown_ufunc, ["arctan2"]),
        (recursion, ["without an end"]),
        (no_pair, ["(new_state, y)"]),
        (other_shape, ["(3,)", "(6,)", "keeps its shape"]),
        (other_structure, ["structure"]),
        (shapes_that_do_not_fit, ["(3,)", "(4, 3)"]),
        (complex_numbers, ["complex"]),
        (state_read_under_its_old_name, ["in place under another name", "a = a + b"]),
        (computed_index_into_a_constant, ["ops.take"]),
        (chosen_by_a_mask, ["shape would depend on data", "np.where"]),
        (shape_from_data, ["Python integer"]),
        (integers_that_become_real_in_place, ["expected integers of shape (), got real numbers"]),
        (printed, ["text"]),
        (index_outside, ["index 3", "size 3"]),
        (nothing_in_the_output, ["y[1]", "None"]),
    ],
)
def test_a_refusal_names_the_line_and_the_remedy(step, words):
    with pytest.raises(TraceError) as caught:
        trace_step(step, None, Abstract((3,), "real"), Abstract((3,), "real"))
    message = str(caught.value)
    line = re.search(r"test_scan_refusals\.py:(\d+)", message)
    first = step.__code__.co_firstlineno
    assert line, message
    assert first <= int(line[1]) <= first + 5, message
    for word in words:
        assert word in message


def test_an_array_of_another_trace():
    LEAKED.clear()
    trace_step(leaks, None, Abstract((3,), "real"), None)
    with pytest.raises(TraceError, match="another trace"):
        trace_step(leaks, None, Abstract((3,), "real"), None)


def test_parameters_are_not_changed_in_place():
    def step(p, h, x):
        p["b"] += h
        return h, h

    with pytest.raises(TraceError, match=r"params\['b'\] is changed in place"):
        trace_step(step, {"b": Abstract((3,), "real")}, Abstract((3,), "real"), None)


def test_a_step_too_long():
    def step(p, h, x):
        while True:
            h = np.tanh(h)

    with pytest.raises(TraceError, match="more than 100000 instructions"):
        trace_step(step, None, Abstract((3,), "real"), None)


def test_an_integer_state_stays_one():
    def step(p, k, x):
        return k * 0.5, k

    with pytest.raises(TraceError, match="expected integers"):
        trace_step(step, None, Abstract((), "integer"), None)


def test_random_numbers_need_a_scan():
    for draw in (lambda: ops.dropout(np.ones(3), 0.5), lambda: ops.uniform((2,)), lambda: ops.categorical(np.ones(3))):
        with pytest.raises((RuntimeError, TraceError), match="scan"):
            draw()
    np.testing.assert_array_equal(ops.dropout(np.ones(3), 0.0), np.ones(3))


def test_the_call_that_failed_leaves_the_next_one_alone():
    h, x = np.zeros((2, 3)), np.ones((4, 2, 3))
    with pytest.raises(TraceError):
        fusedrnn.scan_forward(branch, None, h, x)
    y, _, _ = fusedrnn.scan_forward(lambda p, h, x: (h + x, h + x), None, h, x)
    np.testing.assert_array_equal(y[-1], np.full((2, 3), 4.0))
