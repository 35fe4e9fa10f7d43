"""Any recurrence in JAX: values beside ``lax.scan``, derivatives of both orders, jit and vmap."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fusedrnn.jax as fj  # noqa: E402
from fusedrnn.ops import sigmoid  # noqa: E402
from fusedrnn.scan.tracing import TraceError  # noqa: E402

T, N, I, H = 4, 3, 2, 3  # noqa: E741 - the shape letters of the whole library


@pytest.fixture(autouse=True)
def doubles():
    with jax.enable_x64(True):
        yield


def lstm(p, state, x):
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def by_jax(p, state, x):
    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ p["W"].T + h @ p["U"].T + p["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    last, y = jax.lax.scan(step, state, x)
    return y, last


def tokens(p, h, x, context):
    h = np.tanh(p["U"] @ h + p["E"][x] + np.mean(context, axis=0))
    return h, {"h": h, "place": np.argmax(h)}


def drawn(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / 2)


@pytest.fixture
def arguments():
    p = {"W": drawn(0, 4 * H, I), "U": drawn(1, 4 * H, H), "b": drawn(2, 4 * H)}
    return p, (drawn(3, N, H), drawn(4, N, H)), drawn(5, T, N, I)


def test_values_and_gradients_are_those_of_lax_scan(arguments):
    def loss(function, *a):
        y, (h, c) = function(*a)
        return jnp.sum(jnp.sin(y)) + jnp.sum(h * c)

    ours = jax.jit(jax.value_and_grad(lambda *a: loss(lambda *b: fj.scan(lstm, *b), *a), argnums=(0, 1, 2)))
    theirs = jax.value_and_grad(lambda *a: loss(by_jax, *a), argnums=(0, 1, 2))
    for a, b in zip(jax.tree.leaves(ours(*arguments)), jax.tree.leaves(theirs(*arguments)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"lengths": jnp.array([4, 0, 2])}, {"reverse": True}], ids=["plain", "lengths", "reverse"]
)
def test_derivatives_of_both_orders(arguments, options):
    check_grads(lambda *a: fj.scan(lstm, *a, **options), arguments, order=2, modes=["rev"])


def test_tokens_context_and_integers_among_the_results():
    x = jnp.array(np.random.default_rng(6).integers(5, size=(T, N)))
    p, h, context = {"U": drawn(0, H, H), "E": drawn(1, 5, H)}, drawn(2, N, H), drawn(3, N, 4, H)

    def call(p, h, context):
        y, h_n = fj.scan(tokens, p, h, x, context=context)
        return y["h"], h_n

    check_grads(call, (p, h, context), order=2, modes=["rev"])
    y, _ = jax.jit(lambda: fj.scan(tokens, p, h, x, context=context))()
    np.testing.assert_array_equal(y["place"], np.argmax(y["h"], axis=-1))


def test_vmap_over_inputs_and_over_parameters(arguments):
    p, state, x = arguments
    xs = jnp.stack([x, 2 * x])
    ps = jax.tree.map(lambda a: jnp.stack([a, -a]), p)
    y = jax.vmap(lambda p, x: fj.scan(lstm, p, state, x)[0])(ps, xs)
    for i in range(2):
        one, _ = fj.scan(lstm, jax.tree.map(lambda a, i=i: a[i], ps), state, xs[i])
        np.testing.assert_array_equal(y[i], one)


def test_a_third_derivative_is_refused(arguments):
    p, state, x = arguments

    def f(a):
        return jnp.sum(fj.scan(lstm, p, state, a * x)[0])

    jax.grad(jax.grad(f))(1.0)
    with pytest.raises(NotImplementedError, match="scan_double_backward"):
        jax.grad(jax.grad(jax.grad(f)))(1.0)


def test_a_step_in_jax_numpy_is_refused(arguments):
    with pytest.raises(TraceError, match="instead of jnp write np"):
        fj.scan(lambda p, s, x: (s, jnp.tanh(x)), *arguments)
