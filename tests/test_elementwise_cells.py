"""Cells whose units see no state but their own: whatever stands in ELEMENTWISE_CELLS (conftest.py) goes through all."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from fusedrnn import functional, nn, reference, runtime

DATA = ("plain", "reverse", "lengths", "lengths_reverse", "lengths_resets_reverse", "packed", "packed_resets_reverse")
SHAPE = (5, 7, 3, 21)  # T, N, I, H
LAYERS = {
    "indrnn": (nn.IndRNN, {}),
    "indrnn_tanh": (nn.IndRNN, {"nonlinearity": "tanh"}),
    "mingru": (nn.MinGRU, {}),
}
every_layer = pytest.mark.parametrize(("make", "own"), LAYERS.values(), ids=LAYERS.keys())


def run(module, cell, arguments, doutputs, **keywords):
    """Outputs and gradients by name."""
    (y, h_n), reserve = cell.forward(module, arguments, **keywords)
    return {"y": y, "h_n": h_n, **cell.backward(module, doutputs, reserve)._asdict()}


def with_data(what, arguments, doutputs):
    """The problem with options of its data: (arguments, gradients, keywords)."""
    T, N, _ = arguments["x"].shape
    rng = np.random.default_rng(7)
    keywords = {"reverse": "reverse" in what}
    if "lengths" in what:
        keywords["lengths"] = rng.integers(0, T + 1, N)
    if "packed" in what:
        sizes = keywords["batch_sizes"] = np.sort(rng.integers(1, N + 1, T))[::-1]
        sizes[0] = N
        alive = np.arange(N) < sizes[:, None]
        arguments, doutputs = {**arguments, "x": arguments["x"][alive]}, (doutputs[0][alive], doutputs[1])
    if "resets" in what:
        keywords["resets"] = rng.random(arguments["x"].shape[:-1]) < 0.4
    return arguments, doutputs, keywords


@pytest.fixture
def problem(elementwise_cell, make_problem, make_shape):
    return make_problem(elementwise_cell, make_shape(*SHAPE), np.float32)


def test_outputs_and_gradients_are_the_references(
    elementwise_cell, shape, dtype, each_isa, make_problem, in_float64, assert_close
):
    for what in DATA:
        arguments, doutputs, keywords = with_data(what, *make_problem(elementwise_cell, shape, dtype))
        expected = run(reference, elementwise_cell, in_float64(arguments), in_float64(doutputs), **keywords)
        for isa in each_isa():
            ours = run(functional, elementwise_cell, arguments, doutputs, **keywords)
            assert ours.keys() == expected.keys()
            for name, theirs in expected.items():
                assert_close(ours[name], theirs, dtype, f"{name}, {what}, {isa}")


@pytest.mark.parametrize("name", ["sigmoid", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity"])
def test_every_nonlinearity_of_the_indrnn(name, dtype, make_cell, make_problem, make_shape, in_float64, assert_close):
    cell = replace(make_cell("indrnn_relu"), options={"nonlinearity": name})
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), dtype)
    expected = run(reference, cell, in_float64(arguments), in_float64(doutputs))
    for what, ours in run(functional, cell, arguments, doutputs).items():
        assert_close(ours, expected[what], dtype, what)


def test_any_mix_of_absent_arguments(elementwise_cell, problem, in_float64, assert_close):
    arguments, doutputs = problem
    for absent in itertools.product([False, True], repeat=4):
        given = {k: None if dict(zip(("h0", "bias"), absent, strict=False)).get(k) else v for k, v in arguments.items()}
        dgiven = tuple(None if gone else d for gone, d in zip(absent[2:], doutputs, strict=True))
        expected = run(reference, elementwise_cell, in_float64(given), in_float64(dgiven))
        for name, ours in run(functional, elementwise_cell, given, dgiven).items():
            assert_close(ours, expected[name], np.float32, f"{name} without {absent}") if ours is not None else None
            assert (ours is None) == (expected[name] is None), name


def test_inference_accumulation_and_no_input_gradient_keep_the_bits(elementwise_cell, problem, assert_same_bits):
    arguments, doutputs = problem
    outputs, reserve = elementwise_cell.forward(functional, arguments)
    inferred, nothing = elementwise_cell.forward(functional, arguments, training=False)
    assert nothing is None
    assert_same_bits(inferred, outputs)
    gradients = elementwise_cell.backward(functional, doutputs, reserve)
    assert_same_bits(elementwise_cell.backward(functional, doutputs, reserve), gradients, "again")
    without = elementwise_cell.backward(functional, doutputs, reserve, input_grad=False)
    assert_same_bits(without, gradients._replace(dx=None), "without dx")
    ones = tuple(np.ones_like(arguments[name]) for name in elementwise_cell.parameters)
    added = elementwise_cell.backward(functional, doutputs, reserve, accumulate=ones)
    for array, name in zip(ones, elementwise_cell.parameters, strict=True):
        assert getattr(added, f"d{name}") is array
        np.testing.assert_array_equal(array, 1 + getattr(gradients, f"d{name}"), err_msg=name)


@pytest.mark.parametrize("dimensions", [(16, 200, 3, 24), (80, 3, 9, 400), (6, 64, 70, 64)], ids=str)
def test_any_number_of_threads(elementwise_cell, dtype, dimensions, threads, make_problem, make_shape):
    problem = make_problem(elementwise_cell, make_shape(*dimensions), dtype)
    for what in ("plain", "lengths_resets_reverse"):
        arguments, doutputs, keywords = with_data(what, *problem)
        threads(1)
        expected = run(functional, elementwise_cell, arguments, doutputs, **keywords)
        for count in (2, 3, 5):
            threads(count)
            for name, ours in run(functional, elementwise_cell, arguments, doutputs, **keywords).items():
                np.testing.assert_array_equal(ours, expected[name], err_msg=f"{name}, {what}, {count} threads")


def test_any_batch_and_one_step_at_a_time(elementwise_cell, dtype, isa, make_problem, make_shape):
    arguments, (dy, dh_n) = make_problem(elementwise_cell, make_shape(4, 19, 40, 33), dtype)
    whole = run(functional, elementwise_cell, arguments, (dy, dh_n))
    contiguous = np.ascontiguousarray
    for rows in ([0], [18], [3, 1], list(range(2, 9)), list(np.random.default_rng(0).permutation(19))):
        chosen = {**arguments, "x": contiguous(arguments["x"][:, rows]), "h0": contiguous(arguments["h0"][rows])}
        ours = run(functional, elementwise_cell, chosen, (contiguous(dy[:, rows]), contiguous(dh_n[rows])))
        for name in ("y", "dx"):
            np.testing.assert_array_equal(ours[name], whole[name][:, rows], err_msg=f"{name} of {rows}")
        for name in ("h_n", "dh0"):
            np.testing.assert_array_equal(ours[name], whole[name][rows], err_msg=f"{name} of {rows}")
    h, reserves = arguments["h0"], []
    for t in range(4):
        (y, h), reserve = elementwise_cell.forward(functional, {**arguments, "x": arguments["x"][t : t + 1], "h0": h})
        np.testing.assert_array_equal(y[0], whole["y"][t], err_msg=f"step {t}")
        reserves.append(reserve)
    for t in (3, 2, 1, 0):
        gradients = elementwise_cell.backward(functional, (dy[t : t + 1], dh_n), reserves[t])
        np.testing.assert_array_equal(gradients.dx[0], whole["dx"][t], err_msg=f"dx of step {t}")
        dh_n = gradients.dh0
    np.testing.assert_array_equal(dh_n, whole["dh0"])


def test_blocks_of_steps_meet(elementwise_cell, make_problem, make_shape, in_float64, assert_close):
    """So many rows and steps that the products of a call come in several blocks."""
    arguments, doutputs, keywords = with_data(
        "lengths_resets_reverse", *make_problem(elementwise_cell, make_shape(60, 40, 2, 400), np.float32)
    )
    for used in ({}, keywords):
        expected = run(reference, elementwise_cell, in_float64(arguments), in_float64(doutputs), **used)
        for name, ours in run(functional, elementwise_cell, arguments, doutputs, **used).items():
            assert_close(ours, expected[name], np.float32, name)


def test_rows_without_a_step(cell, elementwise_cell, make_problem, make_shape):
    for any_cell in (cell, elementwise_cell):
        arguments, doutputs = make_problem(any_cell, make_shape(3, 2, 4, 5), np.float32)
        arguments["x"][...] = doutputs[0][...] = np.nan
        (y, h_n, *_), reserve = any_cell.forward(functional, arguments, lengths=[0, 0])
        gradients = any_cell.backward(functional, doutputs, reserve)
        assert not y.any()
        np.testing.assert_array_equal(h_n, arguments["h0"])
        np.testing.assert_array_equal(gradients.dh0, doutputs[1])
        assert not any(getattr(gradients, f"d{name}").any() for name in ("x", *any_cell.parameters))


@pytest.mark.parametrize("poison", [np.nan, np.inf], ids=["nan", "inf"])
def test_nan_and_infinity_propagate_as_in_the_reference(elementwise_cell, poison, problem, in_float64):
    for name in problem[0]:
        arguments = {k: v.copy() for k, v in problem[0].items()}
        arguments[name].flat[arguments[name].size // 2] = poison
        ours = run(functional, elementwise_cell, arguments, problem[1])
        with np.errstate(invalid="ignore"):
            expected = run(reference, elementwise_cell, in_float64(arguments), in_float64(problem[1]))
        for what, theirs in expected.items():
            message = f"{what}, {poison} in {name}"
            np.testing.assert_array_equal(np.isnan(ours[what]), np.isnan(theirs), err_msg=message)
            np.testing.assert_array_equal(np.isinf(ours[what]), np.isinf(theirs), err_msg=message)


def test_errors_name_the_argument(elementwise_cell, problem, make_cell, make_problem, make_shape):
    arguments, doutputs = problem
    forward, backward = elementwise_cell.forward, elementwise_cell.backward
    for name, value in arguments.items():
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got {re.escape(str((1, *value.shape)))}"):
            forward(functional, {**arguments, name: value[None]})
        with pytest.raises(ValueError, match=rf"^{name}: expected a C-contiguous"):
            forward(functional, {**arguments, name: value[::-1]})
        with pytest.raises(TypeError, match=rf"^{name}: expected .*, got list"):
            forward(functional, {**arguments, name: value.tolist()})
        if name not in ("x", "weight_ih"):
            wrong = np.concatenate([value, value])
            expected = rf"{name}: expected shape {value.shape}, got {wrong.shape}"
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
                forward(functional, {**arguments, name: wrong})
            with pytest.raises(TypeError, match=f"^{name}: expected dtype float32 like x, got float64"):
                forward(functional, {**arguments, name: value.astype(float)})
    with pytest.raises(ValueError, match=r"^x: expected a sequence length of at least 1"):
        forward(functional, {**arguments, "x": arguments["x"][:0]})
    with pytest.raises(ValueError, match=r"^lengths: expected numbers from 0 to 5, got 6 for row 0"):
        forward(functional, arguments, lengths=[6] * 7)

    _, reserve = forward(functional, arguments)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(5, 7, 21\), got \(4, 7, 21\)"):
        backward(functional, (doutputs[0][1:], None), reserve)
    good = [np.zeros_like(arguments[name]) for name in elementwise_cell.parameters]
    for k, name in enumerate(elementwise_cell.parameters):
        for wrong in (None, good[k][None]):
            with pytest.raises(ValueError, match=f"^d{name}: expected"):
                backward(functional, doutputs, reserve, accumulate=(*good[:k], wrong, *good[k + 1 :]))
    names = ", ".join(f"d{name}" for name in elementwise_cell.parameters)
    with pytest.raises(TypeError, match=re.escape(f"accumulate: expected ({names})")):
        backward(functional, doutputs, reserve, accumulate=tuple(good[1:]))
    rnn = make_cell("rnn_tanh")
    _, foreign = rnn.forward(functional, make_problem(rnn, make_shape(*SHAPE), np.float32)[0])
    with pytest.raises(TypeError, match=f"^reserve: expected one of {elementwise_cell.kind}_forward, got one of rnn"):
        backward(functional, doutputs, foreign)


def test_what_only_one_of_them_refuses(make_cell, make_problem, make_shape):
    arguments, _ = make_problem(make_cell("mingru"), make_shape(*SHAPE), np.float32)
    with pytest.raises(ValueError, match=r"^weight_ih: expected shape \[2H, I\], got \(41, 3\)"):
        functional.mingru_forward(arguments["x"], None, arguments["weight_ih"][1:])
    for refused in (lambda: nn.IndRNN(2, 3, nonlinearity="tahn"), lambda: _indrnn_with("tahn")):
        with pytest.raises(ValueError, match=r"^nonlinearity: expected .*sigmoid, tanh, .*, got 'tahn'"):
            refused()


def _indrnn_with(nonlinearity):
    x, ones = np.ones((1, 1, 2)), np.ones(3)
    return functional.indrnn_forward(x, None, np.ones((3, 2)), ones, nonlinearity=nonlinearity)


def test_changes_between_forward_and_backward_are_found(elementwise_cell, problem, monkeypatch):
    arguments, doutputs = problem
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    for name in ("x", "h0", "weight_ih"):
        _, reserve = elementwise_cell.forward(functional, arguments)
        arguments[name].flat[0] += 1
        with pytest.raises(RuntimeError, match=f"^{name}: changed between {elementwise_cell.kind}_forward"):
            elementwise_cell.backward(functional, doutputs, reserve)


@every_layer
@pytest.mark.parametrize(
    "options",
    [{"bidirectional": True, "num_layers": 2}, {"batch_first": True, "bias": False}, {"learn_initial_state": True}],
    ids=["two_both_ways", "batch_first_no_bias", "learned"],
)
def test_every_gradient_of_a_layer_agrees_with_finite_differences(make, own, options, finite_differences):
    layer = make(2, 3, dtype="float64", rng=0, **own, **options)
    parameters = dict(layer.named_parameters())
    rng = np.random.default_rng(1)
    arguments = {"x": rng.standard_normal((4, 2, 2)), **{name: p.data.copy() for name, p in parameters.items()}}

    def forward(values):
        for name, parameter in parameters.items():
            parameter.data[...] = values[name]
        return layer(values["x"])

    doutputs = tuple(rng.standard_normal(output.shape) for output in forward(arguments))
    dx, _ = layer.backward(*doutputs)
    layer.eval()
    numeric = finite_differences(forward, arguments, doutputs)
    for name, gradient in {"x": dx, **{name: p.grad for name, p in parameters.items()}}.items():
        np.testing.assert_allclose(gradient, numeric[name], rtol=1e-6, atol=1e-7, err_msg=name)


@every_layer
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_frozen_layers_and_streams_have_the_layers_bits(make, own, bias):
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype("f4")
    for isa in runtime.available_isas():
        with runtime.use_isa(isa):
            layer = make(3, 21, 2, bias=bias, bidirectional=True, rng=0, **own).eval()
            for ours, theirs in zip(layer.freeze()(x), layer(x), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            layer = make(3, 21, 2, bias=bias, rng=0, **own).eval()
            y, h_n = layer(x)
            frozen, stream = layer.freeze(), layer.stream(2)
        for other in runtime.available_isas():  # they keep the set that they were packed for
            with runtime.use_isa(other):
                np.testing.assert_array_equal(frozen(x)[0], y)
                stream.reset()
                np.testing.assert_array_equal([stream(step) for step in x], y)
                np.testing.assert_array_equal(stream.state, h_n)


def test_layers_say_what_they_are():
    layer = nn.IndRNN(2, 3, 2, nonlinearity="tanh", bidirectional=True, rng=0)
    assert repr(layer) == "IndRNN(2, 3, num_layers=2, bidirectional=True)"
    assert layer.nonlinearity == "tanh"
    shapes = {name: value.shape for name, value in nn.MinGRU(2, 3, rng=0).state_dict().items()}
    assert shapes == {"weight_ih_l0": (6, 2), "bias_l0": (6,)}
    weight_hh = nn.IndRNN(2, 500, rng=0).weight_hh_l0.data
    assert weight_hh.shape == (500,)
    assert weight_hh.min() >= 0
    assert 0.4 < weight_hh.mean() < 0.6


def test_pytorch_agrees(dtype, make_cell, make_problem, make_shape, assert_close):
    """The minGRU as Feng et al. write it, composed of PyTorch's operations in float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    cell = make_cell("mingru")
    arguments, doutputs = make_problem(cell, make_shape(9, 4, 5, 18), dtype)
    ours = run(functional, cell, arguments, doutputs)
    tensors = {name: torch.tensor(value).double().requires_grad_() for name, value in arguments.items()}
    h, ys = tensors["h0"], []
    for x in tensors["x"]:
        z, n = torch.nn.functional.linear(x, tensors["weight_ih"], tensors["bias"]).chunk(2, dim=1)
        h = torch.lerp(h, n, torch.sigmoid(z))
        ys.append(h)
    y = torch.stack(ys)
    torch.autograd.backward((y, h), tuple(torch.tensor(d).double() for d in doutputs))
    expected = {"y": y, "h_n": h, **{f"d{name}": tensor.grad for name, tensor in tensors.items()}}
    for name, theirs in expected.items():
        assert_close(ours[name], theirs.detach().numpy(), dtype, name)
