"""Programs are kept by all that a step depends on: its code, what it closes over, structures, shapes, dtypes."""

from __future__ import annotations

import functools
import gc
import math
import threading
import weakref

import numpy as np
import pytest

import fusedrnn
from fusedrnn.scan import program as programs

FACTOR = 2.0
TABLE = {"shift": np.zeros(2)}
UNUSED = [1]


def scaled(h, x):
    return FACTOR * x + h


def run(step, x=None, dtype="float64", p=(), h=None, **options):
    x = np.ones((1, 1, 2), dtype) if x is None else x
    h = np.zeros((x.shape[1], 2), dtype) if h is None else h
    y, _, reserve = fusedrnn.scan_forward(step, p, h, x, **options)
    return y[0, 0, 0] if isinstance(y, np.ndarray) else y, reserve.program


def closing(factor, offset):
    def step(p, h, x):
        return h, x * factor + offset

    return step


def test_functions_made_anew_share_a_program_where_they_close_over_the_same():
    y, first = run(closing(3.0, np.array([1.0, 2])))
    assert y == 4
    assert run(closing(3.0, np.array([1.0, 2])))[1] is first
    for factor, offset, expected in ((5.0, [1.0, 2], 6), (3.0, [0.5, 2], 3.5), (3, [1.0, 2], 4)):
        y, other = run(closing(factor, np.array(offset)))
        assert y == expected
        assert other is not first


def test_an_array_that_was_changed_in_place_is_another():
    offset = np.array([1.0, 2])
    step = closing(1.0, offset)
    y, first = run(step)
    offset[0] = 7
    assert (y, run(step)[0]) == (2, 8)
    offset[0] = 1
    assert run(step)[1] is first


class Owner:
    gain = 2.0

    def __init__(self):
        self.bias = np.zeros(2)
        self.notes = []

    def step(self, p, h, x):
        return h, self.gain * x + self.bias

    def __call__(self, p, h, x):
        return self.step(p, h, x)


def test_globals_attributes_defaults_and_what_functions_call(monkeypatch):
    def step(p, h, x, more=1.0):
        return h, scaled(h, x) + TABLE["shift"] * more

    y, first = run(step)
    assert y == 2
    monkeypatch.setitem(globals(), "UNUSED", [2])
    assert run(step)[1] is first
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert run(step)[0] == 3
    monkeypatch.setitem(TABLE, "shift", np.ones(2))
    assert run(step)[0] == 4
    assert run(functools.partial(step, more=4.0))[0] == 7
    step.__defaults__ = (2.0,)
    assert run(step)[0] == 5
    owner = Owner()
    for call in (owner.step, owner):
        owner.bias = np.zeros(2)
        y, first = run(call)
        owner.notes.append(y)
        assert run(call)[1] is first
        owner.bias = np.ones(2)
        assert run(call)[0] == 3
        owner.bias[0] = 5
        assert run(call)[0] == 7


def test_an_attribute_that_getattr_reads_by_a_constant():
    owner = Owner()

    def step(p, h, x):
        return h, getattr(owner, "gain") * x  # noqa: B009 - the name stands in a text

    assert run(step)[0] == 2
    owner.gain = 5.0
    assert run(step)[0] == 5


def test_signs_of_zero_and_nan_are_told_apart():
    def signs(number):
        return lambda p, h, x: (h, np.where(np.signbit(number), -x, x))

    assert run(signs(0.0))[0] == 1
    assert run(signs(-0.0))[0] == -1
    assert run(closing(math.nan, 0.0))[1] is run(closing(math.nan, 0.0))[1]


def test_shapes_dtypes_structures_and_modes_have_programs_of_their_own():
    def step(p, h, x):
        x = x["a"] if isinstance(x, dict) else x
        return h, x + 1.0

    first = run(step)[1]
    assert run(step, x=np.zeros((7, 5, 2)))[1] is first  # T and N are no part of it
    for options in (
        {"dtype": "float32"},
        {"x": np.ones((1, 1, 1))},
        {"x": {"a": np.ones((1, 1, 2))}, "h": np.zeros((1, 2))},
        {"p": [np.ones(1)]},
        {"h": np.zeros((1, 3))},
        {"resets": np.zeros((1, 1), bool)},
    ):
        assert run(step, **options)[1] is not first
    assert fusedrnn.trace(step, (), np.zeros((1, 2)), np.ones((1, 1, 2)), training=False) is not first
    assert fusedrnn.trace(step, (), np.zeros((1, 2)), np.ones((1, 1, 2))) is first


def test_the_oldest_program_goes_and_dead_steps_take_theirs_along():
    first = weakref.ref(run(closing(0.0, 0.0))[1])
    for factor in range(1, programs.MOST_PROGRAMS + 1):
        run(closing(float(factor), 0.0))
    gc.collect()
    assert first() is None
    scope = {}
    exec("def step(p, h, x):\n    return h, x", scope)
    program = weakref.ref(run(scope.pop("step"))[1])
    owner = Owner()
    of_method, of_object = (weakref.ref(run(step)[1]) for step in (owner.step, owner))
    gc.collect()
    assert program() is None
    assert of_object() is not None
    del owner
    gc.collect()
    assert of_method() is of_object() is None


def test_threads_that_meet_a_step_first_agree():
    def step(p, h, x):
        h = np.tanh(p[0] @ x + h)
        return h, h * h

    rng = np.random.default_rng(0)
    p, x, h = [rng.normal(size=(2, 2))], rng.normal(size=(3, 2, 2)), np.zeros((2, 2))
    barrier, found, failed = threading.Barrier(4), [], []

    def work():
        try:
            barrier.wait()
            y, _, reserve = fusedrnn.scan_forward(step, p, h, x)
            first = fusedrnn.scan_backward(y, None, reserve)
            second = fusedrnn.functional.scan_double_backward(first, y, None, reserve)
            found.append((y, first.dparams[0], second[2].dx, reserve.program))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for other in found[1:]:
        assert other[3] is found[0][3]
        for a, b in zip(other[:3], found[0][:3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_step_that_cannot_be_traced_is_tried_again():
    broken = [True]

    def step(p, h, x):
        if broken[0]:
            raise KeyError("not yet")
        return h, x

    with pytest.raises(KeyError, match="not yet"):
        run(step)
    broken[0] = False
    assert run(step)[0] == 1
