"""What a traced step may use of NumPy: each gives what NumPy gives."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusedrnn import ops
from fusedrnn.scan.evaluate import evaluate
from fusedrnn.scan.tracing import Abstract, trace_step

RNG = np.random.default_rng(0)
# a [4], m [4, 3], n [3, 4], t [2, 3, 4]: reals; pos [4] > 0; i [4]: integers; k: one; b [4]: booleans
GIVEN = {
    "a": RNG.standard_normal(4),
    "m": RNG.standard_normal((4, 3)),
    "n": RNG.standard_normal((3, 4)),
    "t": RNG.standard_normal((2, 3, 4)),
    "pos": RNG.uniform(0.2, 2, 4),
    "i": np.array([2, 0, 3, 1]),
    "k": np.array(2),
    "b": np.array([True, False, False, True]),
}
CONSTANT = RNG.standard_normal((4, 3))

FUNCTIONS = {
    # arithmetic
    "signs": lambda a, **_: [-a, +a, abs(a), np.sign(a), np.fabs(a)],
    "sums": lambda a, pos, **_: [a + 2, 2 - a, a * pos, a / pos, 1 / pos, a - pos, np.add(a, pos), np.subtract(1, a)],
    "integers": lambda i, k, **_: [i + 1, i * k, i // 2, i % 3, i - k, i / 2, -i, i**2, np.maximum(i, k)],
    "real quotients": lambda a, pos, **_: [a // pos, a % pos, np.floor(a), np.trunc(a), np.ceil(a)],
    "powers": lambda a, pos, **_: [a**2, a**3, pos**-1, pos**0.5, pos**1.5, 2**a, np.power(pos, 2.5), np.square(a)],
    "roots": lambda pos, **_: [np.sqrt(pos), np.reciprocal(pos), 1 / np.sqrt(pos)],
    "exponentials": lambda a, pos, **_: [np.exp(a), np.expm1(a), np.log(pos), np.log1p(pos), np.sin(a), np.cos(a)],
    "activations": lambda a, **_: [np.tanh(a), np.maximum(a, 0), np.minimum(a, 0.3), np.clip(a, -0.5, 0.5)],
    "comparisons": lambda a, pos, **_: [a < pos, a >= 0, a == a, a != pos, np.logical_not(a > 0), (a > 0) & (pos > 1)],
    "logic": lambda b, a, **_: [~b, b | (a > 0), b ^ (a > 0), np.where(b, a, 0), np.where(a > 0, 1, a), np.any(b)],
    # axes
    "reductions": lambda m, **_: [np.sum(m), m.sum(0), m.sum(axis=1, keepdims=True), m.mean(), np.mean(m, 1), m.max(1)],
    "more reductions": lambda t, **_: [t.sum((0, 2)), np.max(t), t.min(axis=(1, 2)), np.prod(t, 1), np.ptp(t, 2)],
    "moments": lambda m, **_: [np.var(m, 0), np.std(m), m.std(axis=1), m.var(axis=1, keepdims=True)],
    "running": lambda m, a, **_: [np.cumsum(m, 0), np.cumsum(a), np.cumprod(m, axis=1), np.diff(a)],
    "places": lambda m, a, **_: [np.argmax(m), np.argmax(m, 1), np.argmin(a), np.argsort(a), np.sort(m, axis=0)],
    "norms": lambda m, a, **_: [np.linalg.norm(a), np.linalg.norm(m, axis=1)],
    # products
    "products": lambda a, m, n, **_: [a @ m, m @ n, n @ a, np.dot(n, a), a.dot(m), np.matmul(m, n), np.inner(a, a)],
    "more products": lambda a, m, t, **_: [np.outer(a, a), t @ m, np.vdot(a, a), np.tensordot(t, m, 1), m.T @ m],
    "einsum": lambda m, n, t, **_: [np.einsum("ij,jk->ik", m, n), np.einsum("bij,jk->bik", t, m), np.einsum("ij->j", m)],
    # shapes
    "shapes": lambda m, t, **_: [m.T, m.reshape(2, 6), m.ravel(), t.transpose(2, 0, 1), np.swapaxes(t, 0, 2), t.mT],
    "more shapes": lambda m, t, **_: [np.moveaxis(t, 0, 2), m[None], np.squeeze(m[None]), np.expand_dims(m, 1)],
    "joins": lambda a, m, **_: [np.concatenate([a, a]), np.stack([m, m], 1), np.hstack([a, a]), np.vstack([m, m])],
    "cuts": lambda a, m, **_: [*np.split(a, 2), *np.split(m, [1, 3]), *np.array_split(a, 3), *np.hsplit(m, 3)],
    "turns": lambda a, m, **_: [np.roll(a, 1), np.roll(m, -1, axis=0), np.flip(a), m[::-1]],
    "copies": lambda a, m, **_: [np.tile(a, 2), np.repeat(a, 3), np.repeat(m, 2, axis=1), a.copy()],
    "frames": lambda a, m, n, **_: [np.pad(a, 1), np.tril(m), np.triu(n), np.trace(m), np.diag(a), np.diag(m @ n)],
    "broadcasts": lambda a, n, **_: [np.broadcast_to(a, (2, 4)), a + n, n * a, np.ones_like(n) * a],
    # indices
    "slices": lambda a, m, **_: [a[1:], a[-1], a[::2], m[1], m[:, 2], m[..., 0], m[1:3, ::-1], a[[2, 0]], m[[0, 3]]],
    "computed": lambda a, m, i, k, **_: [m[k], a[i], np.take(m, i, axis=0), np.take_along_axis(a, np.argsort(a), 0)],
    "constants": lambda m, **_: [m + CONSTANT, CONSTANT.T @ m, m[CONSTANT[:, 0] > 0], np.array([1.0, 2, 3]) * m],
    "types": lambda a, i, b, **_: [a.astype(int), i.astype(float), b.astype(np.float32), b * a, i + a, a.astype(bool)],
    # fusedrnn.ops
    "ops": lambda a, m, **_: [ops.sigmoid(a), ops.softplus(a), ops.relu(a), ops.softmax(m), ops.softmax(m, axis=0)],
    "more ops": lambda a, m, k, **_: [ops.logsumexp(m), ops.log_softmax(m), ops.layer_norm(m), ops.one_hot(k, 4)],
    "convolutions": lambda a, n, **_: [ops.circular_convolve(a, n[:, 0]), ops.argmax(a), ops.stop_gradient(a)],
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_traced_function_gives_what_numpy_gives(name):
    def step(p, state, x):
        return state, FUNCTIONS[name](**x)

    kinds = {"f": "real", "i": "integer", "b": "boolean"}
    x = {key: Abstract(value.shape, kinds[value.dtype.kind]) for key, value in GIVEN.items()}
    recurrence = trace_step(step, None, Abstract((), "real"), x)
    given = dict(zip(recurrence.step.inputs, [GIVEN[key] for key in sorted(GIVEN)], strict=True))
    found = recurrence.y.pack(evaluate(recurrence.step.outputs, given))
    expected = FUNCTIONS[name](**GIVEN)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=1e-12, atol=1e-14)


def test_the_text_of_a_lectures_class():
    class RNN:
        def __init__(self):
            rng = np.random.default_rng(1)
            self.W_hh, self.W_xh, self.W_hy = rng.standard_normal((5, 5)), rng.standard_normal((5, 3)), np.eye(2, 5)

        def step(self, x):
            self.h = np.tanh(np.dot(self.W_hh, self.h) + np.dot(self.W_xh, x))
            return np.dot(self.W_hy, self.h)

    def step(p, h, x):
        rnn = RNN()
        rnn.h = h
        y = rnn.step(x)
        return rnn.h, y

    recurrence = trace_step(step, None, Abstract((5,), "real"), Abstract((3,), "real"))
    h, x = np.ones(5), np.arange(3.0)
    (h_leaf,), (x_leaf,) = recurrence.step.states, recurrence.step.inputs
    found = evaluate([*recurrence.step.new_states, *recurrence.step.outputs], {h_leaf: h, x_leaf: x})
    for ours, theirs in zip(found, step(None, h, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_functions_of_any_kind_are_steps():
    class Callable:
        def __call__(self, p, h, x):
            return h + x, h

        def method(self, p, h, x):
            return h + x, h

    def scaled(scale, p, h, x):
        return h + scale * x, h

    steps = [Callable(), Callable().method, functools.partial(scaled, 2), lambda p, h, x: (h + x, h)]
    for step in steps:
        recurrence = trace_step(step, None, Abstract((2,), "real"), Abstract((2,), "real"))
        assert recurrence.step.new_states[0].op == "add"
