"""Forward mode and second derivatives: against the compiled gradients, against themselves, and as PyTorch has them."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import functional, reference

SMALL = (3, 2, 3, 4)  # T, N, I, H
STEP = 1e-5
OPTIONS = [{}, {"reverse": True}]
every_walk = pytest.mark.parametrize("options", OPTIONS, ids=["onward", "reverse"])


@pytest.fixture
def make_directions():
    def make(arguments, seed=0):
        rng = np.random.default_rng(seed)
        return {name: rng.standard_normal(value.shape) for name, value in arguments.items()}

    return make


def _moved(arguments, directions, step):
    return {name: value + step * directions[name] for name, value in arguments.items()}


def _inner(a, b):
    return sum(float(np.sum(x * y)) for x, y in zip(a, b, strict=True))


def _forward(cell):
    return getattr(functional, f"{cell.kind}_forward")


@every_walk
def test_jvp_agrees_with_differences_of_the_kernels(cell, options, make_problem, make_shape, make_directions):
    arguments, _ = make_problem(cell, make_shape(*SMALL), np.float64)
    directions = make_directions(arguments)
    outputs, tangents = fusedrnn.jvp(_forward(cell), arguments, directions, **cell.options, **options)
    for ours, theirs in zip(outputs, cell.forward(functional, arguments, **options)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    above, _ = cell.forward(functional, _moved(arguments, directions, STEP), **options)
    below, _ = cell.forward(functional, _moved(arguments, directions, -STEP), **options)
    for ours, a, b in zip(tangents, above, below, strict=True):
        np.testing.assert_allclose(ours, (a - b) / (2 * STEP), rtol=1e-6, atol=1e-7)


@every_walk
@pytest.mark.parametrize("zeros", [False, True], ids=["anywhere", "sums_of_zero"])
def test_forward_and_backward_mode_are_transposes(cell, options, zeros, make_problem, make_shape, make_directions):
    """To rounding: sum(doutputs * J v) = sum(J' doutputs * v). Also where every gate's sum is 0, where the
    sigmoid's |a| has its kink."""
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    if zeros:
        arguments = {n: value if n in cell.states else np.zeros_like(value) for n, value in arguments.items()}
    directions = make_directions(arguments)
    _, tangents = fusedrnn.jvp(_forward(cell), arguments, directions, **cell.options, **options)
    _, reserve = cell.forward(functional, arguments, **options)
    gradients = cell.backward(functional, doutputs, reserve)
    expected = _inner([getattr(gradients, "d" + name) for name in arguments], directions.values())
    assert abs(_inner(doutputs, tangents) - expected) <= 1e-12 * max(1, abs(expected))
    assert expected != 0 or cell.options == {"nonlinearity": "relu"}


@every_walk
def test_hessian_products_agree_with_differences_of_the_kernels(
    cell, options, make_problem, make_shape, make_directions
):
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    directions = make_directions(arguments)
    gradients, products = fusedrnn.hessian_vector_product(
        _forward(cell), arguments, doutputs, directions, **cell.options, **options
    )

    def compiled(step):
        _, reserve = cell.forward(functional, _moved(arguments, directions, step), **options)
        return cell.backward(functional, doutputs, reserve)

    assert type(products) is type(compiled(0))
    for name, ours, product, here, above, below in zip(
        products._fields, gradients, products, compiled(0), compiled(STEP), compiled(-STEP), strict=True
    ):
        if here is None:
            assert ours is None
            assert product is None
            continue
        np.testing.assert_allclose(ours, here, rtol=1e-11, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(product, (above - below) / (2 * STEP), rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_hessian_is_symmetric(cell, make_problem, make_shape, make_directions):
    """u'Hv = v'Hu, to rounding."""
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    u, v = make_directions(arguments, 1), make_directions(arguments, 2)
    sides = []
    for left, right in ((u, v), (v, u)):
        _, products = fusedrnn.hessian_vector_product(_forward(cell), arguments, doutputs, right, **cell.options)
        sides.append(_inner(left.values(), [getattr(products, "d" + name) for name in arguments]))
    assert abs(sides[0] - sides[1]) <= 1e-12 * abs(sides[0])
    assert sides[0] != 0


def test_any_loss_by_its_gradient(cell, make_problem, make_shape, make_directions):
    """sum(y^4) / 4 + sum(h_n^2) / 2: its own curvature counts, which fixed dy would leave out."""
    arguments, _ = make_problem(cell, make_shape(*SMALL), np.float64)
    directions = make_directions(arguments)

    def doutputs(y, h_n, *_):
        return (y**3, h_n, *(None for _ in cell.states[1:]))

    gradients, products = fusedrnn.hessian_vector_product(
        _forward(cell), arguments, doutputs, directions, **cell.options
    )

    def compiled(step):
        outputs, reserve = cell.forward(functional, _moved(arguments, directions, step))
        return cell.backward(functional, doutputs(*outputs), reserve)

    for name, ours, product, here, above, below in zip(
        products._fields, gradients, products, compiled(0), compiled(STEP), compiled(-STEP), strict=True
    ):
        if here is None:
            assert ours is None
            assert product is None
            continue
        np.testing.assert_allclose(ours, here, rtol=1e-11, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(product, (above - below) / (2 * STEP), rtol=1e-5, atol=1e-6, err_msg=name)


def test_absent_arguments_and_directions_are_zeros(make_cell, make_problem, make_shape, dtype, make_directions):
    cell = make_cell("lstm")
    arguments, (dy, *_) = make_problem(cell, make_shape(*SMALL), dtype)
    absent = {**arguments, "h0": None, "c0": None, "bias_hh": None}
    zeros = {name: np.zeros_like(arguments[name]) if value is None else value for name, value in absent.items()}
    direction = make_directions(arguments)["weight_hh"].astype(dtype)
    results = []
    for given, along, doutputs in [
        (absent, {"weight_hh": direction}, (dy, None, None)),
        (tuple(zeros.values()), (None, None, None, None, direction), [dy, *[np.zeros((2, 4), dtype)] * 2]),
    ]:
        outputs, tangents = fusedrnn.jvp(functional.lstm_forward, given, along)
        gradients, products = fusedrnn.hessian_vector_product(functional.lstm_forward, given, doutputs, along)
        results.append([*outputs, *tangents, *gradients[:6], *products[:6]])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs)
    assert products.dbias_hh is not None
    _, products = fusedrnn.hessian_vector_product(
        reference.lstm_forward, absent, (dy, None, None), {"weight_hh": direction}
    )
    assert products.dbias_hh is None
    np.testing.assert_array_equal(products.dweight_ih, results[0][-3])


def test_bad_input_is_named(make_cell, make_problem, make_shape):
    arguments, doutputs = make_problem(make_cell("lstm"), make_shape(*SMALL), np.float64)
    x, forward = arguments["x"], functional.lstm_forward

    def hvp(doutputs, **options):
        return fusedrnn.hessian_vector_product(forward, arguments, doutputs, {"x": x}, **options)

    with pytest.raises(ValueError, match=r"x: expected a direction of shape \(3, 2, 3\), got \(2, 2, 3\)"):
        fusedrnn.jvp(forward, arguments, {"x": x[1:]})
    with pytest.raises(ValueError, match="h0: expected no direction, as the argument is None, got one"):
        fusedrnn.jvp(forward, {**arguments, "h0": None}, {"h0": arguments["h0"]})
    with pytest.raises(TypeError, match="reverse: expected no direction, as it has no derivative, got one"):
        fusedrnn.jvp(forward, arguments, {"reverse": 1.0}, reverse=True)
    with pytest.raises(ValueError, match=r"directions: expected names among \[.*\], got \['w'\]"):
        fusedrnn.jvp(forward, arguments, {"w": x})
    with pytest.raises(ValueError, match=r"h0: expected shape \(2, 4\), got \(2, 3\)"):
        fusedrnn.jvp(forward, {**arguments, "h0": np.ones((2, 3))}, {})
    with pytest.raises(ValueError, match="doutputs: expected 3 gradients or None, got 2"):
        hvp(doutputs[:2])
    with pytest.raises(ValueError, match=r"doutputs\[1\]: expected shape \(2, 4\), got \(3, 2, 4\)"):
        hvp((None, doutputs[0], None))
    with pytest.raises(ValueError, match="training: expected True, as backward needs the reserve, got False"):
        hvp(doutputs, training=False)


@pytest.mark.parametrize("product", ["jvp", "hessian_vector_product"])
def test_arguments_are_checked_as_the_kernels_do(product, cell, make_problem, make_shape):
    """The reference alone would broadcast a bias, mix dtypes and take an array in any order."""
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    wrong = {
        "bias_ih": (np.ones(1), ValueError, r"bias_ih: expected shape \(\d+,\), got \(1,\)"),
        "h0": (arguments["h0"].astype("f4"), TypeError, "h0: expected dtype float64 like x, got float32"),
        "weight_hh": (np.asfortranarray(arguments["weight_hh"]), ValueError, "weight_hh: expected a C-contiguous"),
        "x": (arguments["x"].astype("f2"), TypeError, "x: expected float32 or float64, got float16"),
    }
    for name, (value, error, message) in wrong.items():
        given = [{**arguments, name: value}, *[doutputs] * (product != "jvp"), {}]
        with pytest.raises(error, match=message):
            getattr(fusedrnn, product)(_forward(cell), *given, **cell.options)


def _by_hand(torch, cell, arguments, reverse):
    """(y, *last states) of one layer, written in PyTorch's elementary operations, so that it has second derivatives."""
    x, h, *c, weight_ih, weight_hh, bias_ih, bias_hh = arguments
    steps = []
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        a, b = x[t] @ weight_ih.T + bias_ih, h @ weight_hh.T + bias_hh
        if cell.kind == "rnn":
            h = torch.tanh(a + b) if cell.options["nonlinearity"] == "tanh" else torch.relu(a + b)
        elif cell.kind == "lstm":
            i, f, g, o = (a + b).chunk(4, dim=1)
            c = [torch.sigmoid(f) * c[0] + torch.sigmoid(i) * torch.tanh(g)]
            h = torch.sigmoid(o) * torch.tanh(c[0])
        else:
            (a_r, a_z, a_n), (b_r, b_z, b_n) = a.chunk(3, dim=1), b.chunk(3, dim=1)
            r, z = torch.sigmoid(a_r + b_r), torch.sigmoid(a_z + b_z)
            if not cell.options["reset_after"]:
                third = len(weight_hh) // 3 * 2
                n = torch.tanh(a_n + (r * h) @ weight_hh[third:].T + bias_hh[third:])
            else:
                n = torch.tanh(a_n + r * b_n)
            h = (1 - z) * n + z * h
        steps.append(h)
    return (torch.stack(steps[::-1] if reverse else steps), h, *c)


@every_walk
def test_products_are_pytorchs(cell, options, make_problem, make_shape, make_directions):
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs PyTorch")
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    directions = make_directions(arguments)
    tensors = [torch.from_numpy(value).requires_grad_() for value in arguments.values()]
    outputs = _by_hand(torch, cell, tensors, **{"reverse": False, **options})
    loss = sum((torch.from_numpy(d) * (o + o**2)).sum() for d, o in zip(doutputs, outputs, strict=True))
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    along = sum((g * torch.from_numpy(v)).sum() for g, v in zip(gradients, directions.values(), strict=True))
    theirs = torch.autograd.grad(along, tensors)

    def loss_gradient(*outputs):
        return [d * (1 + 2 * o) for d, o in zip(doutputs, outputs, strict=True)]

    ours = fusedrnn.hessian_vector_product(
        _forward(cell), arguments, loss_gradient, directions, **cell.options, **options
    )
    for name, gradient, product in zip(arguments, gradients, theirs, strict=True):
        for mine, tensor in zip(ours, (gradient, product), strict=True):
            array = getattr(mine, "d" + name)
            np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-11, atol=1e-12, err_msg=name)
