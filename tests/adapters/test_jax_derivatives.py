"""Forward mode and second derivatives of ``fusedrnn.jax``, beside those of the reference by dual numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fusedrnn

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
fj = pytest.importorskip("fusedrnn.jax")

from jax.test_util import check_grads  # noqa: E402

pytestmark = pytest.mark.usefixtures("jax_config")

RANDOM = ("zoneout_h", "recurrent_dropout", "dropconnect")
CASES = {
    "rnn": ("rnn", ("layer_norm", *RANDOM, "grad_clip"), ("resets", "lengths", "reverse")),
    "gru": ("gru", ("layer_norm", "activations", *RANDOM, "grad_clip"), ("resets", "batch_sizes")),
    "gru_reset_before": ("gru", ("reset_before", *RANDOM, "grad_clip"), ("lengths", "no_states")),
    "lstm_projection": (
        "lstm",
        ("peephole", "projection", "cell_clip", "layer_norm", "zoneout_c", *RANDOM[1:], "return_c", "grad_clip"),
        ("resets", "lengths", "reverse", "no_biases"),
    ),
    "lstm_coupled": ("lstm", ("peephole", "coupled", "zoneout_h", "zoneout_c"), ("resets", "batch_sizes", "reverse")),
}


@pytest.fixture(params=CASES)
def problem_of(request, make_case, make_shape):
    """(case, arrays that have derivatives, directions in them, the call of them)."""
    kind, options, data = CASES[request.param]
    case = make_case(kind, make_shape(3, 2, 2, 3), np.float64, options, seed=1, data=data)
    given = {"h0": None, **case.arguments, **case.keywords}
    reals = (*case.arguments, "weight_peephole", "weight_hr", "layer_norm")
    real = {name: given.pop(name) for name in reals if given.get(name) is not None}
    rng = np.random.default_rng(0)
    directions = jax.tree.map(lambda a: rng.standard_normal(a.shape), real)
    return case, real, directions, lambda real: getattr(fj, kind)(**real, **given)


def test_products_with_the_jacobian(problem_of, assert_close):
    """Of every option and all arrays together, as ``fusedrnn.jvp`` has them."""
    case, real, directions, run = problem_of
    _, tangents = jax.jit(partial(jax.jvp, run))((real,), (directions,))
    _, expected = fusedrnn.jvp(getattr(fusedrnn, f"{case.kind}_forward"), case.arguments, directions, **case.keywords)
    for k, (ours, want) in enumerate(zip(tangents, expected, strict=True)):
        assert_close(np.asarray(ours), want, np.float64, f"tangent {k}")


@pytest.mark.parametrize("problem_of", ["rnn", "gru", "lstm_coupled"], indirect=True)
def test_products_with_the_hessian(problem_of, assert_close):
    """Forward mode over the gradients, as ``fusedrnn.hessian_vector_product``."""
    case, real, directions, run = problem_of
    doutputs = tuple(case.doutputs.values())
    products = jax.jit(lambda real, along: jax.jvp(lambda r: jax.vjp(run, r)[1](doutputs)[0], (real,), (along,))[1])
    forward = getattr(fusedrnn, f"{case.kind}_forward")
    _, expected = fusedrnn.hessian_vector_product(forward, case.arguments, doutputs, directions, **case.keywords)
    for name, ours in products(real, directions).items():
        want = jax.tree.leaves(getattr(expected, f"d{name}"))
        for a, b in zip(jax.tree.leaves(ours), want, strict=True):
            assert_close(np.asarray(a), b, np.float64, name)


CELLS = {
    "rnn_tanh": ("rnn", {"lengths": np.array([2, 0])}),
    "gru_reset_after": ("gru", {"recompute": True}),
    "gru_reset_before": ("gru", {"reset_after": False}),
    "lstm": ("lstm", {}),
}


def problem(kind, T, N, I, H):  # noqa: E741
    rng = np.random.default_rng(2)
    R = {"rnn": 1, "gru": 3, "lstm": 4}[kind] * H
    shapes = {"x": (T, N, I), "h0": (N, H), "c0": (N, H), "weight_ih": (R, I), "weight_hh": (R, H), "bias_ih": (R,)}
    if kind != "lstm":
        del shapes["c0"]
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", CELLS)
def test_second_derivatives_by_differences(name):
    """In reverse mode over reverse mode, first derivatives in both."""
    kind, options = CELLS[name]
    arrays = problem(kind, 2, 2, 1, 2)
    run = jax.jit(lambda arrays: getattr(fj, kind)(**arrays, **options))
    check_grads(run, (arrays,), order=2, modes=("rev",))
    check_grads(run, (arrays,), order=1, modes=("fwd",))


def test_hessians_and_third_derivatives():
    """Of a loss row by row, and jax.hessian of the loss after a step by its gradient."""
    arrays = problem("rnn", 3, 2, 2, 2)

    def scan(h, arrays):
        """The equations, as one would write them in JAX."""

        def step(h, x):
            h = jnp.tanh(x @ arrays["weight_ih"].T + arrays["bias_ih"] + h @ arrays["weight_hh"].T)
            return h, h

        return jax.lax.scan(step, h, arrays["x"][:, : len(h)])[1]

    def loss(run, h, weight_hh):
        return jnp.sum(run(h, {**arrays, "weight_hh": weight_hh}) ** 3)

    def ours(h, arrays):
        return fj.rnn(**{**arrays, "h0": h, "x": arrays["x"][:, : len(h)]})[0]

    def after_a_step(run, h, weight_hh):
        return loss(run, h, weight_hh - 0.1 * jax.grad(partial(loss, run, h))(weight_hh))

    h = jnp.asarray(arrays["h0"])
    for function in (
        lambda run: jax.vmap(lambda h: jax.jacrev(jax.grad(partial(loss, run)))(h[None], arrays["weight_hh"]))(h),
        lambda run: jax.hessian(partial(after_a_step, run), argnums=1)(h, arrays["weight_hh"]),
        lambda run: jax.linearize(partial(loss, run, h), arrays["weight_hh"])[1](arrays["weight_hh"]),
    ):
        expected = jax.jit(lambda function=function: function(scan))()
        np.testing.assert_allclose(jax.jit(lambda function=function: function(ours))(), expected, rtol=1e-9, atol=1e-9)


def test_gradients_are_the_kernels_and_tangents_compute_no_gradient(kernel_calls):
    arrays = problem("lstm", 3, 2, 2, 2)
    jax.grad(lambda w: fj.lstm(**{**arrays, "weight_ih": w})[0].sum())(arrays["weight_ih"])
    jax.jvp(lambda w: fj.lstm(**{**arrays, "weight_ih": w})[0], (arrays["weight_ih"],), (arrays["weight_ih"],))
    of_these = [call[0] for call in kernel_calls if call[1] == 2]  # not the one that checks options, of one row
    assert of_these == ["forward", "backward", "forward"]


def test_a_precision_has_gradients_alone():
    arrays = {name: a.astype(np.float32) for name, a in problem("rnn", 3, 2, 2, 2).items()}

    def loss(x):
        return fj.rnn(**{**arrays, "x": x}, precision="bfloat16")[0].sum()

    x = arrays["x"]
    for derive in (lambda: jax.jvp(loss, (x,), (x,)), lambda: jax.grad(lambda x: jax.grad(loss)(x).sum())(x)):
        with pytest.raises(NotImplementedError, match=r"^precision: only gradients in reverse mode are there"):
            derive()
