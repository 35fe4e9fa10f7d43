"""The gradient tools take every option of every cell."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import functional
from fusedrnn.differentiation import GradcheckError
from fusedrnn.differentiation.trees import leaves, map_leaves

T, N, I, H, P = 4, 3, 2, 3, 2  # noqa: E741 - the shape letters of the whole library
RNG = np.random.default_rng(0)
RESETS = RNG.random((T, N)) < 0.3
NAMES = ("sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")


def _norm(*widths, biases=True):
    gains = tuple(RNG.uniform(0.5, 1.5, width) for width in widths)
    return gains, tuple(RNG.uniform(-0.5, 0.5, width) if biases else None for width in widths)


SHARED = {
    "lengths": {"lengths": [4, 0, 2]},
    "lengths_reverse": {"lengths": np.array([1, 4, 3]), "reverse": True},
    "packed": {"batch_sizes": [3, 2, 2, 1]},
    "resets": {"resets": RESETS, "reverse": True},
}
DRAWN = {
    "zoneout": {"zoneout_h": 0.4, "seed": 3, "row_offset": 2},
    "dropout": {"recurrent_dropout": 0.4, "dropconnect": 0.3, "seed": 5, "layer": 1},
}
OPTIONS = {
    "lstm": {
        **SHARED, **DRAWN,
        "peephole": {"weight_peephole": RNG.standard_normal((3, H)), "return_c": True},
        "projection": {"weight_hr": RNG.standard_normal((P, H)), "zoneout_c": 0.4},
        "coupled": {"coupled": True, "weight_peephole": RNG.standard_normal((3, H))},
        "cell_clip": {"cell_clip": 0.5},
        "layer_norm": {"layer_norm": _norm(4 * H, 4 * H, H)},
        "layer_norm_without_biases": {"layer_norm": _norm(4 * H, 4 * H, H, biases=False)},
        **{name: {"activations": (name, name, name)} for name in NAMES},
    },
    "gru": {
        **SHARED, **DRAWN,
        "reset_before": {"reset_after": False, "recurrent_dropout": 0.4},
        "layer_norm": {"layer_norm": _norm(3 * H, 3 * H)},
        **{name: {"activations": (name, name)} for name in NAMES},
    },
    "rnn": {
        **SHARED, **DRAWN,
        "layer_norm": {"layer_norm": _norm(H, H)},
        **{name: {"nonlinearity": name} for name in NAMES},
    },
    "indrnn": {**SHARED, **{name: {"nonlinearity": name} for name in NAMES}},
    "mingru": SHARED,
}  # fmt: skip
CASES = [(kind, name) for kind, options in OPTIONS.items() for name in options]


def _problem(kind, options):
    """(forward, its arguments by name, options included, gradients of its outputs)."""
    rng = np.random.default_rng(1)
    gates = 3 if "coupled" in options else {"lstm": 4, "gru": 3, "mingru": 2}.get(kind, 1)
    units = P if "weight_hr" in options else H
    lines = (sum(options["batch_sizes"]),) if "batch_sizes" in options else (T, N)
    shapes = {"x": (*lines, I), "h0": (N, units), "weight_ih": (gates * H, I)}
    if kind == "lstm":
        shapes["c0"] = (N, H)
    if kind in ("indrnn", "mingru"):
        shapes.update({"weight_hh": (H,)} if kind == "indrnn" else {}, bias=(gates * H,))
    else:
        shapes.update(weight_hh=(gates * H, units), bias_ih=(gates * H,), bias_hh=(gates * H,))
    arguments = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()}
    doutputs = [rng.standard_normal((*lines, units)), rng.standard_normal((N, units))]
    doutputs += [rng.standard_normal((N, H))] * (kind == "lstm")
    doutputs += [rng.standard_normal((*lines, H))] * ("return_c" in options)
    return getattr(functional, f"{kind}_forward"), {**arguments, **options}, doutputs


def _real(tree):
    return isinstance(tree, np.ndarray) and tree.dtype == np.float64


def _directions(arguments, seed):
    rng = np.random.default_rng(seed)
    real = {name: value for name, value in arguments.items() if any(_real(leaf) for _, leaf in leaves(value))}
    return map_leaves(lambda leaf: rng.standard_normal(leaf.shape), real)


def _inner(directions, gradients):
    """sum(directions * gradients), of trees by argument and by the fields of a gradient tuple."""
    ours = dict(leaves(directions))
    theirs = dict(leaves({name: getattr(gradients, "d" + name) for name in directions}))
    assert ours.keys() == theirs.keys()
    return sum(float(np.sum(ours[name] * theirs[name])) for name in ours)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_products_are_consistent(kind, name):
    """To rounding: backward is the transpose of forward mode, and the Hessian is symmetric."""
    forward, arguments, doutputs = _problem(kind, OPTIONS[kind][name])
    u, v = _directions(arguments, 2), _directions(arguments, 3)
    _, tangents = fusedrnn.jvp(forward, arguments, v)
    gradients, hv = fusedrnn.hessian_vector_product(forward, arguments, doutputs, v)
    _, hu = fusedrnn.hessian_vector_product(forward, arguments, doutputs, u)
    along = sum(float(np.sum(d * t)) for d, t in zip(doutputs, tangents, strict=True))
    np.testing.assert_allclose(along, _inner(v, gradients), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(_inner(u, hv), _inner(v, hu), rtol=1e-11, atol=1e-11)
    if "weight_hh" in arguments:  # products of two arguments: there is curvature, whatever the activation
        assert _inner(u, hv) != 0


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_products_agree_with_differences(kind, name):
    forward, arguments, doutputs = _problem(kind, OPTIONS[kind][name])
    v = _directions(arguments, 2)

    # squares make the loss curved where a cell is not
    def loss_gradient(*outputs):
        return [d * (1 + o) for d, o in zip(doutputs, outputs, strict=True)]

    def gradients(step):
        moved = {n: map_leaves(lambda a, d: a + step * d, a, v[n]) if n in v else a for n, a in arguments.items()}
        same, _ = fusedrnn.hessian_vector_product(forward, moved, loss_gradient, {})
        return dict(leaves(same._asdict()))

    _, products = fusedrnn.hessian_vector_product(forward, arguments, loss_gradient, v)
    above, below, step = gradients(1e-6), gradients(-1e-6), 1e-6
    for leaf, product in leaves(products._asdict()):
        numeric = (above[leaf] - below[leaf]) / (2 * step)
        np.testing.assert_allclose(product, numeric, rtol=1e-6, atol=2e-7, err_msg=leaf)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_gradcheck_takes_every_option(kind, name):
    forward, arguments, _ = _problem(kind, OPTIONS[kind][name])
    result = fusedrnn.gradcheck(forward, arguments, max_elements=3)
    assert result.arguments.keys() == {n for n, leaf in leaves(arguments) if _real(leaf)}


def test_a_gradient_clipped_on_purpose_is_none():
    forward, arguments, _ = _problem("lstm", {"grad_clip": 0.01})
    with pytest.raises(GradcheckError, match="h0: "):
        fusedrnn.gradcheck(forward, arguments)
