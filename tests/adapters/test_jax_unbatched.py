"""Calls of one sequence, without a batch, and what vmap makes of them."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install '.[jax]'")

import jax.numpy as jnp  # noqa: E402

import fusedrnn.jax  # noqa: E402
from fusedrnn.spec import CELLS  # noqa: E402

T, N, I, H = 6, 4, 3, 5  # noqa: E741 - the shape letters of the whole library
pytestmark = pytest.mark.usefixtures("jax_config")
KINDS = ("rnn", "gru", "lstm")
OPTIONS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": np.array([3, 6, 1, 0])},
    "resets": {"resets": np.arange(T * N).reshape(T, N) % 5 == 2},
    "layer norm": {"layer_norm": True},
    "grad clip": {"grad_clip": 0.1},
    "dropconnect": {"dropconnect": 0.4, "seed": 7},
    "precision": {"precision": "bfloat16"},
}
DROPPED = {"zoneout_h": 0.3, "recurrent_dropout": 0.3, "dropconnect": 0.1}
OF_ROWS = {"lengths": 0, "resets": 1}  # options with rows, and where


def made(kind, dtype=np.float64):
    """(x [T, N, I], states [N, H], weights)."""
    r, gates = np.random.default_rng(0), CELLS[kind].gates
    shapes = [(gates * H, I), (gates * H, H), (gates * H,), (gates * H,)]
    weights = [jnp.asarray(r.standard_normal(s) / 2, dtype) for s in shapes]
    x = jnp.asarray(r.standard_normal((T, N, I)), dtype)
    return x, [jnp.asarray(r.standard_normal((N, H)), dtype) for _ in tuple(CELLS[kind].states)], weights


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=OPTIONS)
def problem(request, kind):
    """(function, x, states, weights, options without rows, options with rows)."""
    options = dict(OPTIONS[request.param])
    if "layer_norm" in options:
        widths = [CELLS[kind].gates * H] * 2 + [H] * (kind == "lstm")
        options["layer_norm"] = tuple(tuple(jnp.full(w, v) for w in widths) for v in (1.5, 0.1))
    arrays = made(kind, np.float32 if "precision" in options else np.float64)
    of_rows = {name: jnp.asarray(options.pop(name)) for name in OF_ROWS if name in options}
    return getattr(fusedrnn.jax, kind), *arrays, options, of_rows


def mapped(run, states, of_rows, axis=1):
    """vmap of a function of (x, states, options with rows): (y, last states), N where a batch has it."""
    in_axes = (axis, [0] * len(states), {name: OF_ROWS[name] for name in of_rows})
    return jax.vmap(run, in_axes=in_axes, out_axes=(1, *[0] * len(states)))


def assert_equal_trees(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close_trees(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_one_sequence_is_one_row(problem):
    run, x, states, weights, options, of_rows = problem
    y, *final = run(x, *states, *weights, **options, **of_rows)
    for k in range(N):
        of_row = {name: jnp.take(a, k, OF_ROWS[name]) for name, a in of_rows.items()}
        found = run(x[:, k], *[s[k] for s in states], *weights, **options, **of_row)
        assert [a.shape for a in found] == [(T, H), *[(H,)] * len(states)]
        assert_equal_trees(found, [y[:, k], *[s[k] for s in final]])
    of_row = {name: jnp.take(a, 0, OF_ROWS[name]) for name, a in of_rows.items()}
    found = run(x[:, 0], *[None] * len(states), *weights, **options, **of_row)
    expected = run(x, *[None] * len(states), *weights, **options, **of_rows)
    np.testing.assert_array_equal(found[0], expected[0][:, 0])


def test_cell_states_peepholes_and_a_projection():
    x, (h0, c0), weights = made("lstm")
    r = np.random.default_rng(1)
    options = {"weight_peephole": jnp.asarray(r.standard_normal((3, H))), "return_c": True}
    options["weight_hr"] = jnp.asarray(r.standard_normal((2, H)))
    weights[1] = weights[1][:, :2]
    expected = fusedrnn.jax.lstm(x, h0[:, :2], c0, *weights, **options)
    found = fusedrnn.jax.lstm(x[:, 1], h0[1, :2], c0[1], *weights, **options)
    assert [a.shape for a in found] == [(T, 2), (2,), (H,), (T, H)]
    assert_equal_trees(found, [expected[0][:, 1], expected[1][1], expected[2][1], expected[3][:, 1]])
    one = jax.vmap(lambda x, h, c: fusedrnn.jax.lstm(x, h, c, *weights, **options), (1, 0, 0), (1, 0, 0, 1))
    assert_equal_trees(one(x, h0[:, :2], c0), expected)


@pytest.mark.parametrize("jitted", [False, True])
def test_vmap_is_one_call_of_all_rows(problem, jitted, kernel_calls):
    run, x, states, weights, options, of_rows = problem
    one = mapped(lambda x, s, rows: run(x, *s, *weights, **options, **rows), states, of_rows)
    found = jax.block_until_ready((jax.jit(one) if jitted else one)(x, states, of_rows))
    assert [call[:2] for call in kernel_calls if call[1] > 1] == [("forward", N)]
    assert len(kernel_calls) <= 2  # of one row is the call that checks options
    assert_equal_trees(found, run(x, *states, *weights, **options, **of_rows))


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_vmap_over_other_axes(kind, axis, kernel_calls):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    one = mapped(lambda x, s, rows: run(x, *s, *weights, **rows), states, {}, axis)
    found = jax.block_until_ready(one(jnp.moveaxis(x, 1, axis), states, {}))
    assert [call[:2] for call in kernel_calls] == [("forward", N)]
    assert_equal_trees(found, run(x, *states, *weights))
    alone = jax.vmap(lambda s: run(x[:, 0], *s, *weights)[0])(states)  # over states, with one x for all
    np.testing.assert_array_equal(
        alone, jax.vmap(lambda s: run(x[:, :1], *s, *weights)[0])([s[:, None] for s in states])[..., 0, :]
    )


def test_gradients_of_a_batch_of_sequences(problem, kernel_calls):
    """Gradients of all arguments come in one call of each way; and those of each element."""
    run, x, states, weights, options, of_rows = problem

    def loss(outputs):
        return sum(jnp.sum(a * jnp.cos(a)) for a in outputs)

    def of_rows_apart(arrays, x, states):
        one = mapped(lambda x, s, rows: run(x, *s, *arrays, **options, **rows), states, of_rows)
        return loss(one(x, states, of_rows))

    def of_batch(arrays, x, states):
        return loss(run(x, *states, *arrays, **options, **of_rows))

    found = jax.block_until_ready(jax.jit(jax.value_and_grad(of_rows_apart, (0, 1, 2)))(weights, x, states))
    assert [call[:2] for call in kernel_calls if call[1] > 1] == [("forward", N), ("backward", N)]
    expected = jax.jit(jax.value_and_grad(of_batch, (0, 1, 2)))(weights, x, states)
    assert_equal_trees(found, expected)

    def of_one(arrays, x, s, rows):
        return loss(run(x, *s, *arrays, **options, **rows))

    in_axes = (None, 1, [0] * len(states), {name: OF_ROWS[name] for name in of_rows})
    each = jax.vmap(jax.grad(of_one, (0, 1, 2)), in_axes)(weights, x, states, of_rows)
    tolerance = 1e-5 if "precision" in options else 1e-12
    total = [a.sum(0) for a in each[0]], jnp.moveaxis(each[1], 0, 1), each[2]
    for a, b in zip(jax.tree.leaves(total), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def hessian_product(function, x):
    return jax.jvp(jax.grad(function), (x,), (jnp.cos(x),))[1]


@pytest.mark.parametrize("name", ["uneven", "dropped"])
def test_forward_mode_and_second_order(kind, name):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    options = {**DROPPED, "seed": 3} if name == "dropped" else {}
    uneven = {**OPTIONS["lengths"], **OPTIONS["resets"]} if name == "uneven" else {}
    of_rows = {k: jnp.asarray(a) for k, a in uneven.items()}

    def tangent(function, x):
        return jax.jvp(function, (x,), (jnp.cos(x),))[1]

    for derivative in (tangent, hessian_product):

        def of_one(x, s, rows, derivative=derivative):
            return derivative(lambda x: jnp.sum(run(x, *s, *weights, **options, **rows)[0] ** 3), x)

        in_axes = (1, 0, {k: OF_ROWS[k] for k in of_rows})
        found = jax.vmap(of_one, in_axes)(x, states, of_rows)

        def of_row(k, derivative=derivative):  # a batch of one row, without vmap
            rows = {name: jnp.take(a, k[None], OF_ROWS[name]) for name, a in of_rows.items()}
            s = [s[k][None] for s in states]
            return derivative(lambda x: jnp.sum(run(x[:, None], *s, *weights, **options, **rows)[0] ** 3), x[:, k])

        assert_close_trees(found, jnp.stack([*map(jax.jit(of_row), jnp.arange(N))]))


def test_second_order_of_weights_through_vmap(kind):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    along = [jnp.cos(w) for w in weights]

    def of_rows(w):
        one = mapped(lambda x, s, _: run(x, *s, *w), states, {})
        return jnp.sum(one(x, states, {})[0] ** 3)

    def of_batch(w):
        return jnp.sum(run(x, *states, *w)[0] ** 3)

    found, expected = (jax.jvp(jax.jit(jax.grad(f)), (weights,), (along,))[1] for f in (of_rows, of_batch))
    assert_close_trees(found, expected)


@pytest.mark.parametrize("traced", [False, True])
def test_a_length_is_any_integer(kind, traced):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    lengths = np.array([3, 6, 1, 0])
    expected = run(x, *states, *weights, lengths=lengths)
    for k in range(N):
        one = lambda n, k=k: run(x[:, k], *[s[k] for s in states], *weights, lengths=n)  # noqa: E731
        for n in (int(lengths[k]), lengths[k], jnp.asarray(lengths[k])):
            found = jax.jit(one)(n) if traced else one(n)
            assert_equal_trees(found, [expected[0][:, k], *[s[k] for s in expected[1:]]])


def test_nested_vmap_and_weights_of_each(kernel_calls):
    x, (h0,), weights = made("gru")
    stacked = [jnp.stack([w, w / 2]) for w in weights]

    def one(x, h, w):
        return fusedrnn.jax.gru(x, h, *w)[1]

    rows = jax.vmap(one, in_axes=(1, 0, None))
    found = jax.block_until_ready(jax.vmap(rows, in_axes=(None, None, 0))(x, h0, stacked))
    assert [call[:2] for call in kernel_calls] == [("forward", N)] * 2  # one for each of the weights
    for k, scale in enumerate((1, 2)):
        np.testing.assert_array_equal(found[k], fusedrnn.jax.gru(x, h0, *[w / scale for w in weights])[1])
    kernel_calls.clear()
    twice = jax.block_until_ready(jax.vmap(rows, in_axes=(0, None, None))(jnp.stack([x, 2 * x]), h0, weights))
    assert [call[:2] for call in kernel_calls] == [("forward", 2 * N)]
    for k in range(2):
        np.testing.assert_array_equal(twice[k], fusedrnn.jax.gru((k + 1) * x, h0, *weights)[1])
    paired = jax.vmap(one, in_axes=(1, 0, 0))(x[:, :2], h0[:2], stacked)  # weights beside x
    np.testing.assert_array_equal(paired, jnp.stack([one(x[:, k], h0[k], [w[k] for w in stacked]) for k in range(2)]))


def test_no_elements(kind):
    run = getattr(fusedrnn.jax, kind)
    _, states, weights = made(kind)
    nothing = jnp.zeros((0, T, I))

    def one(w, x):
        return jnp.sum(run(x, *[None] * len(states), *w)[0])

    assert jax.vmap(lambda x: run(x, *[None] * len(states), *weights)[0])(nothing).shape == (0, T, H)
    assert jax.vmap(jax.grad(one, 1), (None, 0))(weights, nothing).shape == (0, T, I)
    gradients = jax.grad(lambda w: jax.vmap(one, (None, 0))(w, nothing).sum())(weights)
    assert_equal_trees(gradients, [jnp.zeros_like(w) for w in weights])


# Masks: of one sequence those of row `row_offset`.


def test_masks_are_those_of_a_row(kind):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    options = {**DROPPED, "seed": 7, **({"zoneout_c": 0.2} if kind == "lstm" else {})}
    expected = run(x, *states, *weights, **options)[0]
    for k in range(N):
        found = run(x[:, k], *[s[k] for s in states], *weights, **options, row_offset=k)[0]
        np.testing.assert_array_equal(found, expected[:, k])


def test_a_seed_for_all_and_a_key_for_each(kind):
    run = getattr(fusedrnn.jax, kind)
    x, states, weights = made(kind)
    keys = jax.random.split(jax.random.key(0), N)

    def one(w, x, s, seed):
        return jnp.sum(run(x, *s, *w, **DROPPED, seed=seed)[0] ** 2)

    for seed, of_seed in ((7, None), (keys, 0)):
        values = jax.vmap(one, (None, 1, 0, of_seed))(weights, x, states, seed)
        total = jax.jit(jax.grad(lambda w, of=of_seed, s=seed: jax.vmap(one, (None, 1, 0, of))(w, x, states, s).sum()))
        # batches of one row, of which the masks are a first row's
        seeds = [seed if of_seed is None else seed[k] for k in range(N)]
        batches = [(x[:, k : k + 1], [s[k : k + 1] for s in states], seeds[k]) for k in range(N)]
        np.testing.assert_allclose(values, [one(weights, *b) for b in batches], rtol=1e-12)
        expected = [jax.grad(one)(weights, *b) for b in batches]
        assert_close_trees(total(weights), [sum(parts) for parts in zip(*expected, strict=True)])


@pytest.mark.parametrize("jitted", [False, True])
def test_derivatives_of_masks_of_each_key(jitted):
    """Tangents and derivatives of gradients draw the masks of the seed that vmap maps."""
    x, (h0,), weights = made("gru")
    keys = jax.random.split(jax.random.key(0), N)

    def one(x, key):
        return hessian_product(lambda x: jnp.sum(fusedrnn.jax.gru(x, h0[0], *weights, **DROPPED, seed=key)[0] ** 3), x)

    rows = jax.vmap(one, (1, 0))
    found = (jax.jit(rows) if jitted else rows)(x, keys)
    assert_close_trees(found, jnp.stack([one(x[:, k], keys[k]) for k in range(N)]))


def test_a_scan_of_one_example_has_a_row():
    x, (h0,), (weight_ih, weight_hh, *_) = made("rnn")
    parameters = {"W": weight_ih, "U": weight_hh}

    def step(p, h, x):
        h = np.tanh(p["W"] @ x + p["U"] @ h)
        return h, h

    def loss(p, run):
        return jnp.sum(run(p) ** 2)

    def of_examples(p):
        return jax.vmap(lambda x, h: fusedrnn.jax.scan(step, p, h[None], x[:, None])[0][:, 0], (1, 0), 1)(x, h0)

    found, expected = (
        jax.value_and_grad(loss)(parameters, run)
        for run in (of_examples, lambda p: fusedrnn.jax.scan(step, p, h0, x)[0])
    )
    assert_close_trees(found, expected)
    with pytest.raises(ValueError, match="state: expected shape"):
        fusedrnn.jax.scan(step, parameters, h0[0], x[:, 0])


def test_errors():
    x, (h0, c0), weights = made("lstm")
    row, none = x[:, 0], (None, None)
    both = r"beside x \[T, N, I\], or {} beside x \[T, I\]; got {} beside x {}"
    alone, batch = r"\(6, 3\)", r"\(6, 4, 3\)"
    packed = (
        r"h0: expected shape \[N, H\] beside packed rows x \[M, I\], or \[H\] beside x \[T, I\] without batch_sizes"
    )
    for match, arguments, options in (
        (r"h0: expected shape \[N, H\] " + both.format(r"\[H\]", r"\(4, 5\)", alone), (row, h0, c0[1]), {}),
        (r"h0: expected shape \[N, H\] " + both.format(r"\[H\]", r"\(5,\)", batch), (x, h0[0], c0), {}),
        (r"c0: expected shape \[N, H\] " + both.format(r"\[H\]", r"\(4, 5\)", alone), (row, None, c0), {}),
        (r"lengths: expected shape \[N\] " + both.format(r"\[\]", r"\(1,\)", alone), (row, *none), {"lengths": [3]}),
        (r"lengths: expected shape \[N\] " + both.format(r"\[\]", r"\(\)", batch), (x, *none), {"lengths": 3}),
        (r"resets: expected shape \[T, N\] " + both.format(r"\[T\]", r"\(6, 4\)", alone), (row, *none),
         {"resets": np.zeros((T, N), bool)}),
        (r"resets: expected shape \[T, N\] " + both.format(r"\[T\]", r"\(6,\)", batch), (x, *none),
         {"resets": np.zeros(T, bool)}),
        (r"h0: expected shape \(5,\), got \(2,\)", (row, h0[0, :2], None), {}),
        (r"resets: expected shape \(6,\), got \(4,\)", (row, *none), {"resets": np.zeros(4, bool)}),
        (r"lengths: expected numbers from 0 to 6, got 7", (row, *none), {"lengths": 7}),
        (r"x: expected shape \[T, N, I\] or \[T, I\], got \(6,\)", (row[:, 0], *none), {}),
        (r"x: expected shape \[T, N, I\] or \[T, I\], got \(1, 6, 4, 3\)", (x[None], *none), {}),
        (r"weight_ih: expected shape \(20, 2\), got \(20, 3\)", (row[:, :2], *none), {}),
        (packed + r"; got \(5,\) beside x \(6, 3\)", (row, h0[0], None), {"batch_sizes": [1] * T}),
        (r"batch_sizes: expected a sum of 6, the rows of x, got 7; of one sequence, x \[T, I\], leave batch_sizes out",
         (row, *none), {"batch_sizes": [4, 3]}),
        ("lengths: expected None beside batch_sizes", (row, *none), {"batch_sizes": [1] * T, "lengths": 3}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{match}"):
            fusedrnn.jax.lstm(*arguments, *weights, **options)
    for match, options in (
        ("batch_sizes: expected a sequence of integers, got int", {"batch_sizes": 6}),
        ("lengths: expected integers, got float64", {"lengths": 2.5}),
        ("resets: expected booleans, got int64", {"resets": np.zeros(T, int)}),
    ):
        with pytest.raises(TypeError, match=f"^{match}"):
            fusedrnn.jax.lstm(row, *none, *weights, **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_traced_length_out_of_range():
    x, (h0,), weights = made("gru")
    rows = jax.jit(jax.vmap(lambda x, n: fusedrnn.jax.gru(x, h0[0], *weights, lengths=n)[0], (1, 0)))
    with pytest.raises(Exception, match="lengths: expected numbers from 0 to 6, got 9 for row 2"):
        rows(x, jnp.array([1, 2, 9, 3])).block_until_ready()
