"""Memory networks in JAX, by the cells' steps: the layers' values, gradients under jit, starts that are learned."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fusedrnn.jax as fj  # noqa: E402
from fusedrnn import cells, nn  # noqa: E402
from fusedrnn.scan.trees import flatten  # noqa: E402
from tests.memory_networks import I, N, O, inputs, made, somewhere  # noqa: E402

NETWORKS = {
    "ntm": (nn.NTM, cells.NTM, {"read_heads": 2, "memory": "learned", "start": "learned"}),
    "dnc": (nn.DNC, cells.DNC, {"read_heads": 2, "write_heads": 2, "key_mask": True, "sharp_links": True}),
    "sparse dnc": (nn.DNC, cells.DNC, {"links": 2, "controller": "gru", "normalize": True}),
}


pytestmark = pytest.mark.usefixtures("jax_config")


def alike(name):
    """The layer, and a cell with its parameters."""
    network, cell, options = NETWORKS[name]
    net = made(network, **options)
    made_cell = cell(I, O, 4, slots=5, width=3, dtype="float64", **options)
    return net, made_cell, net._data(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_under_jit_are_those_of_the_layer(name):
    net, cell, p = alike(name)
    x = inputs()
    y, state = net(x)
    dx, _ = net.backward(np.cos(y))

    @jax.jit
    def loss(p, x):
        y, last = fj.scan(cell.step, p, fj.initial_state(cell.state, p, N), x)
        return jnp.sum(jnp.sin(y)), (y, last)

    (dp, found_dx), (found, last) = jax.grad(loss, argnums=(0, 1), has_aux=True)(p, x)
    for ours, theirs in zip((found, *flatten(last, "")[0]), (y, *flatten(state, "")[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found_dx, dx, rtol=1e-11, atol=1e-13)
    expected = [net._table[name].grad for name in net._names[0]]
    for ours, theirs in zip(flatten(dp, "")[0], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_derivatives_of_both_orders(name):
    net, cell, p = alike(name)
    middle = None if name == "ntm" else jax.tree.map(jnp.asarray, somewhere(net))

    def call(part, x):
        params = {**p, **part}
        state = fj.initial_state(cell.state, params, N) if middle is None else middle
        return fj.scan(cell.step, params, state, x)[0]

    part = {key: p[key] for key in ("start", "out") if key in p}
    check_grads(call, (part, jnp.asarray(inputs(2))), order=2, modes=["rev"])


def test_the_state_of_any_cell():
    """Arrays of a cell, and a function of the parameters, for so many rows."""
    janet = cells.JANET(I, 4)
    np.testing.assert_array_equal(fj.initial_state(janet.state, janet.parameters, 3), np.zeros((3, 4)))
    p = {"h": jnp.arange(3.0)}
    gradient = jax.grad(lambda p: jnp.sum(fj.initial_state(lambda p: (2 * p["h"],), p, 5)[0]))(p)
    np.testing.assert_array_equal(gradient["h"], np.full(3, 10.0))
