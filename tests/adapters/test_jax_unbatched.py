"""Calls of one sequence, without a batch, and what vmap makes of them."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install '.[jax]'")

import jax.numpy as jnp  # noqa: E402

import fusedrnn.jax  # noqa: E402
from fusedrnn.jax.calls import GATES, STATES  # noqa: E402

T, N, I, H = 6, 4, 3, 5  # noqa: E741 - the shape letters of the whole library
pytestmark = pytest.mark.usefixtures("jax_config")
KINDS = ("rnn", "gru", "lstm")
OPTIONS = {
    "plain": {},
    "reverse": {"reverse": True},
    "resets": {"resets": True},
    "layer norm": {"layer_norm": True},
    "precision": {"precision": "bfloat16"},
}


def made(kind, dtype=np.float64):
    """(x [T, N, I], states [N, H], weights)."""
    r, gates = np.random.default_rng(0), GATES[kind]
    shapes = [(gates * H, I), (gates * H, H), (gates * H,), (gates * H,)]
    weights = [jnp.asarray(r.standard_normal(s) / 2, dtype) for s in shapes]
    x = jnp.asarray(r.standard_normal((T, N, I)), dtype)
    return x, [jnp.asarray(r.standard_normal((N, H)), dtype) for _ in STATES[kind]], weights


def keywords(kind, name):
    """(of the batched call, of row k)."""
    options = dict(OPTIONS[name])
    if options.pop("resets", False):
        resets = np.arange(T * N).reshape(T, N) % 5 == 2
        return {**options, "resets": resets}, lambda k: {**options, "resets": resets[:, k]}
    if options.pop("layer_norm", False):
        widths = [GATES[kind] * H] * 2 + [H] * (kind == "lstm")
        parts = tuple(tuple(jnp.full(w, v) for w in widths) for v in (1.5, 0.1))
        options["layer_norm"] = parts
    return options, lambda k: options


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_is_one_row(kind, name):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind, np.float32 if name == "precision" else np.float64)
    of_all, of_row = keywords(kind, name)
    y, *final = run(x, *states, *weights, **of_all)
    for k in range(N):
        found = run(x[:, k], *[s[k] for s in states], *weights, **of_row(k))
        assert found[0].shape == (T, H)
        for a, b in zip(found, [y[:, k], *[s[k] for s in final]], strict=True):
            np.testing.assert_array_equal(a, b)
    found = run(x[:, 0], *[None] * len(states), *weights, **of_row(0))
    expected = run(x, *[None] * len(states), *weights, **of_all)
    np.testing.assert_array_equal(found[0], expected[0][:, 0])


def test_cell_states_of_one_sequence():
    x, states, weights = made("lstm")
    y, h_n, c_n, c = fusedrnn.jax.lstm(x[:, 0], *[s[0] for s in states], *weights, return_c=True)
    assert (y.shape, h_n.shape, c_n.shape, c.shape) == ((T, H), (H,), (H,), (T, H))
    np.testing.assert_array_equal(c, fusedrnn.jax.lstm(x, *states, *weights, return_c=True)[3][:, 0])


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_vmap_is_one_call_of_all_rows(kind, axis, jitted, kernel_calls):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)

    def one(x, *states):
        return run(x, *states, *weights)

    mapped = jax.vmap(one, in_axes=(axis, *[0] * len(states)), out_axes=(1, *[0] * len(states)))
    found = (jax.jit(mapped) if jitted else mapped)(jnp.moveaxis(x, 1, axis), *states)
    jax.block_until_ready(found)
    assert kernel_calls == [("forward", N, False)]
    for a, b in zip(found, run(x, *states, *weights), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_batch_of_sequences(kind, kernel_calls):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)

    def of_rows(weights, x, states):
        y = jax.vmap(lambda x, *s: run(x, *s, *weights)[0], in_axes=(1, *[0] * len(states)))(x, *states)
        return jnp.sum(y**2)

    def of_batch(weights, x, states):
        return jnp.sum(run(x, *states, *weights)[0] ** 2)

    found = jax.value_and_grad(of_rows, (0, 1, 2))(weights, x, states)
    # of one row are the calls that check options
    assert [call[:2] for call in kernel_calls if call[1] > 1] == [("forward", N), ("backward", N)]
    expected = jax.value_and_grad(of_batch, (0, 1, 2))(weights, x, states)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    each = jax.vmap(jax.grad(lambda w, x, s: jnp.sum(run(x, *s, *w)[0] ** 2)), in_axes=(None, 1, 0))(weights, x, states)
    for a, b in zip(each, found[1][0], strict=True):
        np.testing.assert_allclose(a.sum(0), b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_and_second_order(kind):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)

    def loss(x_row):
        return jnp.sum(run(x_row, *[s[0] for s in states], *weights)[0] ** 3)

    def of_batch(x_row):
        return jnp.sum(run(x_row[:, None], *[s[:1] for s in states], *weights)[0] ** 3)

    direction = jnp.cos(x[:, 0])
    for f in (
        lambda g: jax.jvp(g, (x[:, 0],), (direction,))[1],
        lambda g: jax.jvp(jax.grad(g), (x[:, 0],), (direction,))[1],
    ):
        np.testing.assert_allclose(f(loss), f(of_batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_length(kind, traced):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    lengths = np.array([3, 6, 1, 0])
    expected = run(x, *states, *weights, lengths=lengths)
    for k in range(N):
        one = lambda n, k=k: run(x[:, k], *[s[k] for s in states], *weights, lengths=n)  # noqa: E731
        found = jax.jit(one)(lengths[k]) if traced else one(int(lengths[k]))
        for a, b in zip(found, [expected[0][:, k], *[s[k] for s in expected[1:]]], strict=True):
            np.testing.assert_array_equal(a, b)
    mapped = jax.vmap(lambda x, n, *s: run(x, *s, *weights, lengths=n)[0], in_axes=(1, 0, *[0] * len(states)))
    np.testing.assert_array_equal(mapped(x, lengths, *states), jnp.moveaxis(expected[0], 1, 0))


def test_nested_vmap_and_weights_of_each():
    x, (h0,), weights = made("gru")
    stacked = [jnp.stack([w, w / 2]) for w in weights]

    def one(x, h, w):
        return fusedrnn.jax.gru(x, h, *w)[1]

    found = jax.vmap(jax.vmap(one, in_axes=(1, 0, None)), in_axes=(None, None, 0))(x, h0, stacked)
    for k, scale in enumerate((1, 2)):
        np.testing.assert_array_equal(found[k], fusedrnn.jax.gru(x, h0, *[w / scale for w in weights])[1])


def test_masks_are_those_of_a_first_row():
    x, (h0,), weights = made("gru")
    options = {"zoneout_h": 0.5, "recurrent_dropout": 0.3, "seed": 7}
    found = fusedrnn.jax.gru(x[:, 0], h0[0], *weights, **options)[0]
    np.testing.assert_array_equal(found, fusedrnn.jax.gru(x, h0, *weights, **options)[0][:, 0])


def test_errors():
    x, states, weights = made("lstm")
    row = x[:, 0]
    for match, arguments, options in (
        (r"h0: expected shape \[H\] beside x \[T, I\], got \(4, 5\)", (row, states[0], states[1][0]), {}),
        (r"c0: expected shape \[H\] beside x \[T, I\], got \(4, 5\)", (row, None, states[1]), {}),
        (r"lengths: expected shape \[\] beside x \[T, I\], got \(1,\)", (row, None, None), {"lengths": [3]}),
        (r"resets: expected shape \[T\] beside x \[T, I\], got \(6, 4\)", (row, None, None),
         {"resets": np.zeros((T, N), bool)}),
        (r"lengths: expected numbers from 0 to 6, got \[7\]", (row, None, None), {"lengths": 7}),
        (r"x: expected shape \[T, N, I\] or \[T, I\], got \(6,\)", (row[:, 0], None, None), {}),
        (r"x: expected shape \[T, N, I\] or \[T, I\], got \(1, 6, 4, 3\)", (x[None], None, None), {}),
        ("weight_ih: expected shape", (row[:, :2], None, None), {}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            fusedrnn.jax.lstm(*arguments, *weights, **options)
