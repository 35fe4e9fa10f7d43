"""gradcheck, jvp, Hessian-vector products and gradients by row of scans and of their layers."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn, ops, scan_backward, scan_forward
from tests.test_scan import CASES, VARIANTS, Call, at, each, pairs

SMALL = 1e-4


def arguments_of(call):
    given = {"params": call.p, "state": call.state, "x": call.x, "context": call.context}
    return {"step": call.step, **given, **call.options}


def drawn(tree, seed=7):
    rng = np.random.default_rng(seed)
    return each(lambda a: np.array(rng.normal(size=a.shape)) if a.dtype.kind == "f" else None, tree)


def moved(tree, directions, far):
    def move(leaf, direction):
        return leaf if direction is None else leaf + far * direction

    return tree if directions is None else each(move, tree, directions)


def difference(function, arguments, directions):
    """How fast the results of a function of a mapping change, by differences of fourth order."""
    total = None
    for place, factor in ((2, -1), (1, 8), (-1, -8), (-2, 1)):
        near = {name: moved(value, directions.get(name), place * SMALL) for name, value in arguments.items()}
        part = each(lambda a, factor=factor: a * (factor / (12 * SMALL)), function(near))
        total = part if total is None else each(np.add, total, part)
    return total


def close(ours, theirs):
    found = [(a, b) for a, b in pairs(ours, theirs) if a.dtype.kind == "f"]
    assert found
    for a, b in found:
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck_and_jvp_and_hessians_of_scans(name):
    call = Call(name, "all")
    given = arguments_of(call)
    checked = fusedrnn.gradcheck(scan_forward, given).arguments
    assert (
        len(checked)
        == sum(len(pairs(given[role])) for role in ("params", "state", "x", "context", "reset_state"))
        - {"attending": 2, "counting": 4, "rolling": 0}[name]
    )
    roles = [role for role in ("params", "state", "x", "context", "reset_state") if given.get(role) is not None]
    directions = {role: drawn(given[role]) for role in roles}
    outputs, tangents = fusedrnn.jvp(scan_forward, given, directions)
    close(outputs, call.loop())
    close(tangents, difference(lambda g: scan_forward(**g)[:2], given, directions))

    def gradients(g, doutputs=(call.dy, call.dstate_n)):
        found = scan_backward(*doutputs, scan_forward(**g)[2])
        return tuple(each(lambda a: a, getattr(found, f"d{role}")) for role in roles)

    found, products = fusedrnn.hessian_vector_product(scan_forward, given, (call.dy, call.dstate_n), directions)
    close(tuple(getattr(found, f"d{role}") for role in roles), gradients(given))
    close(tuple(getattr(products, f"d{role}") for role in roles), difference(gradients, given, directions))


def test_a_loss_that_is_a_function_and_an_option_given_before():
    call = Call("rolling", "plain")
    function = functools.partial(scan_forward, call.step, steps=4)
    given = {"params": call.p, "state": call.state, "x": None}

    checked = fusedrnn.gradcheck(function, (call.p, call.state, None)).arguments
    assert list(checked) == ["params[0]", "params[1]", "state"]

    def dloss(y, state_n):
        return 3 * y * y, np.exp(state_n)  # of sum(y ** 3) + sum(exp(state_n))

    def gradients(g):
        y, state_n, reserve = function(**g)
        return scan_backward(*dloss(y, state_n), reserve).dparams

    directions = {"params": drawn(call.p)}
    found, products = fusedrnn.hessian_vector_product(function, given, dloss, directions)
    close(found.dparams, gradients(given))
    close(products.dparams, difference(gradients, given, directions))
    outputs, tangents = fusedrnn.jvp(function, given, {"state": drawn(call.state)})
    assert outputs[0].shape == tangents[0].shape == (4, 3, 2)
    with pytest.raises(
        ValueError, match=r"directions: expected names among \['params', 'state', 'x'\], got \['steps'\]"
    ):
        fusedrnn.jvp(function, given, {"steps": 3})
    with pytest.raises(ValueError, match="training: expected True"):
        fusedrnn.jvp(function, given, {}, training=False)
    with pytest.raises(ValueError, match=r"directions.state: expected shape \(3, 2\), got \(2, 2\)"):
        fusedrnn.jvp(function, given, {"state": np.zeros((2, 2))})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_by_row_are_those_of_the_row_alone(name, variant):
    call = Call(name, variant)
    ours = fusedrnn.per_sequence_gradients(call.forward()[2], call.dy, call.dstate_n)
    whole = scan_backward(call.dy, call.dstate_n, call.forward()[2])
    for role in ("dstate", "dx", "dcontext", "dreset_state"):
        for a, b in pairs(getattr(whole, role), getattr(ours, role)):
            np.testing.assert_array_equal(a, b)
    alone = Call(name, variant)
    for n in range(3):
        own = slice(n, n + 1)
        length = int(call.options["lengths"][n]) if "lengths" in call.options else 5
        steps = max(length, 1)
        alone.state, alone.context = at(call.state, own), at(call.context, own)
        alone.x, dy = (each(np.copy, at(tree, slice(steps), own)) for tree in (call.x, call.dy))
        alone.options = {k: v for k, v in call.options.items() if k == "reverse"}
        if call.x is None:
            alone.options["steps"] = steps
        if not length:
            alone.options["lengths"] = [0]
        if "resets" in call.options:
            alone.options["resets"] = call.options["resets"][:steps, own]
        if "reset_state" in call.options:
            alone.options["reset_state"] = at(call.options["reset_state"], own)
        found = scan_backward(dy, at(call.dstate_n, own), alone.forward()[2])
        for a, b in pairs(found.dparams, ours.dparams):
            np.testing.assert_array_equal(a, b[n])
    norms = np.sqrt(sum(np.sum(g**2, axis=tuple(range(1, g.ndim))) for (g,) in pairs(ours.dparams)))
    clipped = fusedrnn.clipped_sum(ours.dparams, norms.max() / 2)
    factors = np.minimum(1, norms.max() / 2 / np.maximum(norms, 1e-300))
    for a, b in pairs(clipped, ours.dparams):
        np.testing.assert_allclose(a, np.tensordot(factors, b, 1), rtol=1e-12, atol=1e-14)


def plain(p, state, x):
    h = np.tanh(p["W"] @ x + p["U"] @ state)
    return h, h * h


LAYERS = {
    "plain": {},
    "learned": {"learned_state": True},
    "two directions": {"learned_state": True, "bidirectional": True, "batch_first": True},
}


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, given_state):
    rng = np.random.default_rng(0)
    layer = nn.Scan(
        plain, lambda g: {"W": g.normal(size=(3, 2)), "U": g.normal(size=(3, 3))}, np.ones(3), dtype="float64", rng=1,
        **LAYERS[name],
    )  # fmt: skip
    two = layer.bidirectional
    start = rng.normal(size=(2, 3))
    arguments = {"x": rng.normal(size=(2, 4, 2) if layer.batch_first else (4, 2, 2)), "resets": np.zeros((4, 2), bool)}
    arguments["resets"][2] = True
    if layer.batch_first:
        arguments["resets"] = arguments["resets"].T
    if given_state:
        arguments["state"] = (start, start + 1) if two else start
    values = {**layer.state_dict(), **arguments}
    directions = {key: drawn(value) for key, value in values.items() if key != "resets"}

    def call(given):
        layer.load_state_dict({key: given[key] for key in layer.state_dict()})
        return layer(**{key: given[key] for key in arguments})

    outputs, tangents = fusedrnn.jvp(layer, arguments, directions)
    close(outputs, call(values))
    close(tangents, difference(call, values, directions))
    call(values)  # with the weights that differences have moved
    layer.forget()
    dy, dlast = drawn(outputs, 9)

    def gradients(given):
        call(given)
        layer.zero_grad()
        dx, dstate = layer.backward(dy, dlast)
        found = {"x": dx, **{name: p.grad.copy() for name, p in layer.named_parameters()}}
        return {**found, "state": dstate}

    found, products = fusedrnn.hessian_vector_product(layer, arguments, (dy, dlast), directions)
    assert set(found) == {"x", "state", *layer.state_dict()}
    close(found, gradients(values))
    close(products, difference(gradients, values, directions))
    expected = gradients(values)
    call(values)
    assert not layer._saved[1:]
    rows = fusedrnn.per_sequence_gradients(layer, dy, dlast)
    assert not layer._saved
    close((rows.dx, rows.dinitial), (expected["x"], expected["state"]))
    assert set(rows.parameters) == set(layer.state_dict())
    for key, gradient in rows.parameters.items():
        assert len(gradient) == 2
        np.testing.assert_allclose(gradient.sum(axis=0), expected[key], rtol=1e-12, atol=1e-14)


def test_rows_and_second_derivatives_keep_their_random_numbers():
    rng = np.random.default_rng(0)
    p, h, x = np.array(0.5), rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    how = {"seed": 9, "row_offset": 2, "step_offset": 1}
    given = {"step": dropping, "params": p, "state": h, "x": x, **how}
    y, last, reserve = scan_forward(**given)
    whole = scan_backward(y, last, reserve)
    rows = fusedrnn.per_sequence_gradients(reserve, y, last)
    np.testing.assert_array_equal(rows.dx, whole.dx)
    np.testing.assert_allclose(rows.dparams.sum(), whole.dparams, rtol=1e-12)
    directions = {"params": np.array(1.0), "x": drawn(x)}
    _, products = fusedrnn.hessian_vector_product(scan_forward, given, (y, last), directions)
    expected = difference(lambda g: scan_backward(y, last, scan_forward(**g)[2])[:3], given, directions)
    close(products[:3], expected)


def dropping(p, state, x):
    h = np.tanh(p * x + ops.dropout(state, 0.5)) + ops.dropout(x * x * p, 0.3)
    return h, h
