"""scan_forward and scan_backward against a plain loop over the user's step in NumPy, and its differences."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

import fusedrnn
from fusedrnn import ops
from fusedrnn.differentiation.trees import map_leaves as each

T, N = 5, 3


class Memory(NamedTuple):
    h: Any
    m: Any


def attending(p, state, x, context):
    """Tokens, a memory written by outer products, attention over what a row has of its context, and sorting."""
    e = p["E"][x["token"]]
    query = np.tanh(p["W"] @ np.concatenate([e, state.h]) + x["add"])
    scores = np.where(np.arange(context["keys"].shape[0]) < context["length"], context["keys"] @ query, -1e30)
    read = ops.softmax(scores) @ context["keys"]
    m = 0.5 * state.m + np.outer(read, e)
    h = np.tanh(query + read + np.sum(m, axis=1))
    return Memory(h, m), {"z": np.sort(h), "a": {"top": np.max(m, axis=1)}}


def counting(p, state, x):
    """Integers and booleans in the state, which come back; a real one that depends on them."""
    count, seen, h = state
    seen = seen | (x > 0.5)
    count = count + seen
    h = 0.5 * h + np.where(seen, p * x, 0.1 * count)
    return (count, seen, h), (h, count, seen)


def rolling(p, state, x):
    """No x: the last output decides what comes next."""
    del x
    h = np.tanh(p[0] @ state + p[1])
    return h, h


def attending_arguments(rng):
    p = {"W": 0.5 * rng.normal(size=(3, 5)), "E": rng.normal(size=(4, 2))}
    state = Memory(rng.normal(size=(N, 3)), rng.normal(size=(N, 3, 2)))
    x = {"token": rng.integers(0, 4, (T, N)), "add": rng.normal(size=(T, N, 3))}
    return p, state, x, {"keys": rng.normal(size=(N, 6, 3)), "length": np.array([6, 2, 1])}


def counting_arguments(rng):
    state = (np.arange(N), np.zeros(N, bool), rng.normal(size=(N, 2)))
    return np.array(0.7), state, rng.uniform(size=(T, N)), None


def rolling_arguments(rng):
    return [rng.normal(size=(2, 2)), rng.normal(size=2)], rng.normal(size=(N, 2)), None, None


CASES = {"attending": attending, "counting": counting, "rolling": rolling}
ARGUMENTS = {"attending": attending_arguments, "counting": counting_arguments, "rolling": rolling_arguments}
LENGTHS, RESETS = np.array([2, 5, 0]), np.arange(T * N).reshape(T, N) % 4 == 2
VARIANTS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": LENGTHS},
    "all": {"lengths": [4, 5, 1], "resets": RESETS, "reset_state": True, "reverse": True},
    "resets": {"resets": RESETS},
}


def at(tree, *place):
    """Every leaf at a place."""
    return each(lambda leaf: leaf[place], tree)


def pairs(tree, *others):
    """Leaves of a structure, each with what stands in its place in others."""
    found = []
    each(lambda *leaves: found.append(leaves), tree, *others)
    return found


def flat(tree):
    return [leaf for (leaf,) in pairs(tree)]


def loop(step, p, state, x, context=None, *, steps=None, lengths=None, resets=None, reset_state=None, reverse=False):
    """(y, state_n) by calls of the step itself, row after row."""
    steps = len(flat(x)[0]) if steps is None else steps
    rows, final = [], []
    for n in range(len(flat(state)[0])):
        last = at(state, n)
        first = each(np.zeros_like, last) if reset_state is None else at(reset_state, n)
        given = () if context is None else (at(context, n),)
        ys = [None] * steps
        for t in range(steps)[:: -1 if reverse else 1]:
            if lengths is None or t < lengths[n]:
                if resets is not None and resets[t, n]:
                    last = first
                last, ys[t] = step(p, last, at(x, t, n), *given)
        template = next((y for y in ys if y is not None), None)
        rows.append((ys, template))
        final.append(last)
    template = next(template for _, template in rows if template is not None)
    rows = [[each(np.zeros_like, template) if y is None else y for y in ys] for ys, _ in rows]
    rows = [each(lambda *a: np.stack(a), *ys) for ys in rows]
    return each(lambda *a: np.stack(a, 1), *rows), each(lambda *a: np.stack(a), *final)


class Call:
    """Arguments of one of `CASES`, drawn, with options."""

    def __init__(self, name, variant, dtype=np.float64):
        rng = np.random.default_rng(3)
        self.step = CASES[name]
        self.p, self.state, self.x, self.context = ARGUMENTS[name](rng)
        self.options = dict(VARIANTS[variant])
        if self.x is None:
            self.options["steps"] = T
        if "reset_state" in self.options:
            self.options["reset_state"] = each(lambda leaf: leaf[::-1].copy(), self.state)
        y, state_n = self.loop()
        self.dy, self.dstate_n = (
            each(lambda a: np.array(rng.normal(size=a.shape)) if a.dtype.kind == "f" else None, tree)
            for tree in (y, state_n)
        )

    def loop(self):
        return loop(self.step, self.p, self.state, self.x, self.context, **self.options)

    def forward(self, **options):
        return fusedrnn.scan_forward(
            self.step, self.p, self.state, self.x, context=self.context, **self.options, **options
        )

    def loss(self):
        results = pairs(self.loop(), (self.dy, self.dstate_n))
        return sum(np.sum(array * weight) for array, weight in results if weight is not None)


def close(ours, theirs, rtol=1e-12, atol=1e-13):
    each(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def check(gradient, loss, array):
    """A gradient times a random direction is the difference of the loss along it."""
    before, rng = array.copy(), np.random.default_rng(11)
    for _ in range(2):
        direction, expected, h = rng.normal(size=array.shape), 0.0, 3e-4
        for place, factor in ((2, -1), (1, 8), (-1, -8), (-2, 1)):  # exact for polynomials of degree 4
            array[...] = before + place * h * direction
            expected += factor * loss() / (12 * h)
        array[...] = before
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_a_scan_is_a_loop_over_the_step_and_its_gradients_are_differences(name, variant):
    call = Call(name, variant)
    y, state_n, reserve = call.forward()
    expected_y, expected_state = call.loop()
    close(y, expected_y)
    close(state_n, expected_state)
    assert [a.dtype for a in flat((y, state_n))] == [a.dtype for a in flat((expected_y, expected_state))]
    grads = fusedrnn.scan_backward(call.dy, call.dstate_n, reserve)
    arrays = {
        "dparams": call.p,
        "dstate": call.state,
        "dx": call.x,
        "dcontext": call.context,
        "dreset_state": call.options.get("reset_state"),
    }
    for gradients, given in zip((getattr(grads, name) for name in arrays), arrays.values(), strict=True):
        assert type(gradients) is type(given) or not isinstance(given, (dict, tuple, list))
        for array, gradient in pairs(given, gradients):
            if array.dtype.kind == "f":
                assert gradient.shape == array.shape
                check(gradient, call.loss, array)
            else:
                assert gradient is None


def same(ours, theirs):
    """The same bits, and None in the same places."""
    found = []
    each(lambda *leaves: found.append(leaves), ours, theirs)
    assert found
    for a, b in found:
        np.testing.assert_array_equal(a, b)


def gradients(call, reserve, **options):
    return tuple(fusedrnn.scan_backward(call.dy, call.dstate_n, reserve, **options))


def test_dicts_of_another_order_are_the_same_arguments():
    call = Call("attending", "plain")
    y, _, reserve = call.forward()
    expected = gradients(call, reserve)
    for role in ("p", "x", "context"):
        setattr(call, role, dict(reversed(getattr(call, role).items())))
    call.dy = {"a": call.dy["a"], "z": call.dy["z"]}
    again, _, other = call.forward()
    same(again, y)
    same(gradients(call, other), expected)
    assert other.program is reserve.program


def test_packed_rows_are_rows_with_lengths():
    sizes, lengths = [3, 3, 2, 1], np.array([4, 3, 2])
    call = Call("attending", "plain")
    call.options["lengths"] = lengths
    call.x, call.dy = (each(lambda leaf: leaf[:4], tree) for tree in (call.x, call.dy))
    resets = call.options["resets"] = RESETS[:4]
    y, state_n, reserve = call.forward()
    expected = gradients(call, reserve)
    present = np.arange(4)[:, None] < lengths
    packed = Call("attending", "plain")
    packed.options |= {"batch_sizes": sizes, "resets": resets[present]}
    packed.x, packed.dy = (each(lambda leaf: leaf[present], tree) for tree in (call.x, call.dy))
    ours, state, other = packed.forward()
    same(ours, each(lambda leaf: leaf[present], y))
    same(state, state_n)
    found = gradients(packed, other)
    same(found[2]["add"], expected[2]["add"][present])
    assert found[2]["token"] is None
    same(found[:2], expected[:2])
    with pytest.raises(
        ValueError, match=r"dy\['z'\]: expected shape \(9, ...\) of \(sum of batch_sizes, ...\), got \(4, 3, 3\)"
    ):
        fusedrnn.scan_backward({"z": call.dy["z"]}, None, other)
    packed.x["token"] = packed.x["token"][:8]
    with pytest.raises(
        ValueError, match=r"x\['token'\]: expected shape \(9, ...\) of \(sum of batch_sizes, ...\), got \(8,\)"
    ):
        packed.forward()


def test_recomputed_steps_and_a_reserve_used_twice_give_the_same_bits(dtype):
    rng = np.random.default_rng(5)
    n, t = 200, 9  # checkpoints lie a multiple of 512 / N steps apart
    p = [np.asarray(rng.normal(size=shape), dtype) for shape in ((2, 2), (2,))]
    h, dy = (np.asarray(rng.normal(size=shape), dtype) for shape in ((n, 2), (t, n, 2)))
    y, state, reserve = fusedrnn.scan_forward(rolling, p, h, None, steps=t)
    expected = fusedrnn.scan_backward(dy, None, reserve)
    results, given = (y.copy(), state.copy()), dy.copy()
    y[...], state[...] = np.nan, np.nan  # the caller's own
    same(tuple(fusedrnn.scan_backward(dy, None, reserve)), tuple(expected))
    same(dy, given)
    for recompute in (True, 1, 4, False):
        again, last, other = fusedrnn.scan_forward(rolling, p, h, None, steps=t, recompute=recompute)
        same((again, last), results)
        same(tuple(fusedrnn.scan_backward(dy, None, other)), tuple(expected))
    assert fusedrnn.scan_forward(rolling, p, h, None, steps=t, recompute=4)[2].kept.nbytes < reserve.kept.nbytes


def test_gradients_left_out_are_zeros():
    call = Call("attending", "plain")
    _, _, reserve = call.forward()

    def zeros(tree):
        return each(np.zeros_like, tree)

    full = fusedrnn.scan_backward(
        {"z": call.dy["z"], "a": zeros(call.dy["a"])}, Memory(call.dstate_n.h, zeros(call.dstate_n.m)), reserve
    )
    for dy, dstate_n in (
        ({"z": call.dy["z"]}, Memory(call.dstate_n.h, None)),
        ({"z": call.dy["z"], "a": {"top": None}}, (call.dstate_n.h, None)),
        ({"z": call.dy["z"], "a": None}, [call.dstate_n.h, None]),
    ):
        same(tuple(fusedrnn.scan_backward(dy, dstate_n, reserve)), tuple(full))
    without = fusedrnn.scan_backward(call.dy, call.dstate_n, reserve, input_grad=False)
    assert without.dx is None
    whole = fusedrnn.scan_backward(call.dy, call.dstate_n, reserve)
    same(tuple(without), tuple(whole._replace(dx=None)))
    nothing = fusedrnn.scan_backward(None, None, reserve, input_grad=False)
    assert nothing.dx is None
    assert not any(np.any(leaf) for leaf in flat((nothing.dparams, nothing.dstate, nothing.dcontext)))


def test_no_rows_and_single_steps():
    call = Call("attending", "plain")
    call.state, call.context = (each(lambda leaf: leaf[:0], tree) for tree in (call.state, call.context))
    call.x = each(lambda leaf: leaf[:, :0], call.x)
    y, state_n, reserve = call.forward()
    assert y["z"].shape == (T, 0, 3)
    assert state_n.m.shape == (0, 3, 2)
    grads = fusedrnn.scan_backward(None, None, reserve)
    assert grads.dx["add"].shape == (T, 0, 3)
    assert not np.any(grads.dparams["W"])
    call = Call("attending", "plain")
    whole, last, _ = call.forward()
    state = call.state
    for t in range(T):
        y, state, reserve = fusedrnn.scan_forward(
            attending,
            call.p,
            state,
            at(call.x, slice(t, t + 1)),
            context=call.context,
            training=t % 2 == 0,
        )
        same(y, at(whole, slice(t, t + 1)))
        assert (reserve is None) == bool(t % 2)
    same(state, last)


def dropping(p, state, x):
    h = np.tanh(p * x + ops.dropout(state, 0.5))
    return h, (h, ops.dropout(np.ones(70), 0.25))


def test_random_numbers_belong_to_seed_row_and_step():
    rng = np.random.default_rng(2)
    p, h, x = np.array(0.5), rng.normal(size=(6, 4)), rng.normal(size=(7, 6, 4))
    (y, masks), _, reserve = fusedrnn.scan_forward(dropping, p, h, x, seed=9)
    assert set(np.unique(masks)) == {0, np.float64(1 / 0.75)}
    assert abs(np.mean(masks > 0) - 0.75) < 0.03
    assert len({row.tobytes() for row in masks.reshape(-1, 70)}) == 42
    part = fusedrnn.scan_forward(dropping, p, h[2:4], x[:, 2:4].copy(), seed=9, row_offset=2)
    same(part[0], (y[:, 2:4], masks[:, 2:4]))
    first = fusedrnn.scan_forward(dropping, p, h, x[:3], seed=9)
    second = fusedrnn.scan_forward(dropping, p, first[1], x[3:], seed=9, step_offset=3)
    same(second[0], (y[3:], masks[3:]))
    assert np.any(fusedrnn.scan_forward(dropping, p, h, x, seed=10)[0][1] != masks)
    (_, ones), _, none = fusedrnn.scan_forward(dropping, p, h, x, seed=9, training=False)
    assert none is None
    assert np.all(ones == 1)

    def loss():
        return np.sum(fusedrnn.scan_forward(dropping, p, h, x, seed=9)[0][0])

    grads = fusedrnn.scan_backward((np.ones_like(y), None), None, reserve)
    for gradient, array in ((grads.dparams, p), (grads.dstate, h), (grads.dx, x)):
        check(gradient, loss, array)


def test_arrays_that_change_before_backward_are_refused_under_check(monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    call = Call("attending", "plain")
    reserve = call.forward()[2]
    call.p["W"][0, 0] += 1
    with pytest.raises(RuntimeError, match=r"params\['W'\]: changed between scan_forward and scan_backward"):
        gradients(call, reserve)


def test_a_program_in_words():
    def step(p, state, x, context):
        h = np.tanh(p["W"] @ x + 2.5 * state + np.exp(context))
        return h, (h, np.sum(h))

    arrays = [np.zeros(shape, np.float32) for shape in ((2, 3), (1, 2), (1, 1, 3), (1, 2))]
    text = str(fusedrnn.trace(step, {"W": arrays[0]}, arrays[1], arrays[2], context=arrays[3]))
    first, *lines = (line.strip() for line in text.splitlines())
    assert first.startswith("step: 10 instructions forward, ")
    for line in (
        "params['W']: real [2, 3], once a call",
        "state: real [2], each step",
        "context: real [2], once a row",
        "new state = %13",
        "y[0] = %13",
        "y[1] = %14",
        "flops of a step and row: 22",  # 2 x 6 of the product, 2 x 4, 2 of the sum
        "flops once a row: 2",
        "reserve, floats of a step and row: 0",  # tanh is the state after the step
        "states, floats of a step and row: 2",
        "bytes kept for backward: 4 * N * (0 * T + 2 * (T + 1))",
        "constants: 1, of 1 elements",
    ):
        assert line in lines
    assert any(
        re.fullmatch(r"%\d+ = broadcast\(2\.5\): real \[2\], once a call  test_scan.py:\d+", line) for line in lines
    ), text
