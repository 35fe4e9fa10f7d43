"""The NumPy reference is right: by finite differences, by hand, and as PyTorch has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

SMALL = (3, 2, 3, 4)  # T, N, I, H; all different from the number of gates times H


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_every_gradient_agrees_with_finite_differences(
    cell, reverse, reference, make_problem, make_shape, finite_differences
):
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    _, reserve = cell.forward(reference, arguments, reverse=reverse)
    gradients = cell.backward(reference, doutputs, reserve)
    expected = finite_differences(
        lambda changed: cell.forward(reference, changed, reverse=reverse)[0], arguments, doutputs
    )
    for name, numeric in expected.items():
        analytic = getattr(gradients, "d" + name)
        assert analytic.shape == numeric.shape
        np.testing.assert_allclose(analytic, numeric, rtol=1e-7, atol=2e-8, err_msg=name)


def test_absent_states_biases_and_output_gradients_are_zeros(cell, reference, make_problem, make_shape):
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    absent = [name for name in arguments if name.startswith("bias") or name in cell.states]
    for name in absent:
        zeros, without = dict(arguments), dict(arguments)
        zeros[name], without[name] = np.zeros_like(arguments[name]), None
        expected, expected_reserve = cell.forward(reference, zeros)
        outputs, reserve = cell.forward(reference, without)
        np.testing.assert_equal(outputs, expected)
        gradients = cell.backward(reference, doutputs, reserve)._asdict()
        expected_gradients = cell.backward(reference, doutputs, expected_reserve)._asdict()
        if name.startswith("bias"):
            assert gradients.pop("d" + name) is None
            expected_gradients.pop("d" + name)
        np.testing.assert_equal(gradients, expected_gradients)

    _, reserve = cell.forward(reference, arguments)
    for k, doutput in enumerate(doutputs):
        zeros, without = list(doutputs), list(doutputs)
        zeros[k], without[k] = np.zeros_like(doutput), None
        expected = cell.backward(reference, tuple(zeros), reserve)
        np.testing.assert_equal(cell.backward(reference, tuple(without), reserve)._asdict(), expected._asdict())


def test_the_dtype_is_kept_and_results_are_fresh(cell, dtype, reference, make_problem, make_shape):
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), dtype)
    outputs, reserve = cell.forward(reference, arguments)
    gradients = cell.backward(reference, doutputs, reserve)
    arrays = [array for array in (*outputs, *gradients) if array is not None]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
    for k, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:k])
        assert not any(np.shares_memory(array, other) for other in [*arguments.values(), *doutputs])
    assert cell.backward(reference, doutputs, reserve, input_grad=False).dx is None
    assert cell.forward(reference, arguments, training=False)[1] is None


def test_reverse_is_the_flipped_sequence(cell, reference, make_problem, make_shape):
    arguments, _ = make_problem(cell, make_shape(*SMALL), np.float64)
    (y, *last), _ = cell.forward(reference, arguments, reverse=True)
    (y_flipped, *last_flipped), _ = cell.forward(reference, {**arguments, "x": arguments["x"][::-1]})
    np.testing.assert_equal(y, y_flipped[::-1])
    np.testing.assert_equal(last, last_flipped)
    np.testing.assert_equal(last[0], y[0])


def test_no_time_step_and_an_unknown_nonlinearity_are_refused(cell, reference, make_problem, make_shape):
    arguments, _ = make_problem(cell, make_shape(0, 2, 3, 4), np.float64)
    with pytest.raises(ValueError, match="x: expected at least one time step"):
        cell.forward(reference, arguments)
    if cell.kind == "rnn":
        with pytest.raises(ValueError, match=r"nonlinearity: expected one of sigmoid, tanh, .*, got 'tahn'"):
            reference.rnn_forward(*arguments.values(), nonlinearity="tahn")


def test_large_arguments_saturate_without_a_warning(cell, dtype, reference, make_problem, make_shape):
    """`filterwarnings = error` turns an overflow in exp into a failure."""
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), dtype)
    for name in ("weight_ih", "weight_hh"):
        arguments[name] *= dtype(1000)
    outputs, reserve = cell.forward(reference, arguments)
    gradients = cell.backward(reference, doutputs, reserve)
    assert all(np.isfinite(array).all() for array in [*outputs, *gradients] if array is not None)


# One step of one unit with distinct numbers, by the scalar formulas of PyTorch's documentation.
X, H0, C0 = 0.7, -0.4, 0.9
W_IH, W_HH, B_IH, B_HH = (
    (0.3, -0.5, 0.8, 1.1),
    (-0.6, 0.2, 0.9, -0.7),
    (0.1, 0.4, -0.2, 0.5),
    (0.05, -0.3, 0.6, 0.2),
)


def _sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def _by_hand(name: str) -> list[float]:
    a = [wi * X + bi for wi, bi in zip(W_IH, B_IH, strict=True)]
    b = [wh * H0 + bh for wh, bh in zip(W_HH, B_HH, strict=True)]
    if name == "rnn_tanh":
        return [math.tanh(a[0] + b[0])]
    if name == "rnn_relu":
        return [max(a[0] + b[0], 0.0)]
    if name == "lstm":
        i, f, o = (_sigmoid(a[k] + b[k]) for k in (0, 1, 3))
        c = f * C0 + i * math.tanh(a[2] + b[2])
        return [o * math.tanh(c), c]
    r, z = _sigmoid(a[0] + b[0]), _sigmoid(a[1] + b[1])
    if name == "gru_reset_after":
        n = math.tanh(a[2] + r * b[2])
    else:
        n = math.tanh(a[2] + W_HH[2] * (r * H0) + B_HH[2])
    return [(1 - z) * n + z * H0]


@pytest.mark.parametrize("name", ["rnn_tanh", "rnn_relu", "lstm", "gru_reset_after", "gru_reset_before"])
def test_one_step_of_one_unit_by_hand(name, reference, make_cell):
    cell = make_cell(name)
    gates = cell.gates
    values = {
        "x": np.full((1, 1, 1), X),
        "h0": np.full((1, 1), H0),
        "c0": np.full((1, 1), C0),
        "weight_ih": np.array(W_IH[:gates]).reshape(gates, 1),
        "weight_hh": np.array(W_HH[:gates]).reshape(gates, 1),
        "bias_ih": np.array(B_IH[:gates]),
        "bias_hh": np.array(B_HH[:gates]),
    }
    if cell.kind != "lstm":
        del values["c0"]
    (y, *last), _ = cell.forward(reference, values)
    expected = _by_hand(name)
    np.testing.assert_allclose([state.item() for state in last], expected, rtol=1e-14)
    assert y.item() == last[0].item()


@pytest.mark.parametrize("name", ["rnn_tanh", "rnn_relu", "lstm", "gru_reset_after"])
def test_outputs_and_gradients_are_pytorchs(name, reference, make_cell, make_problem, make_shape):
    """Both directions of a bidirectional layer at once, in float64."""
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs PyTorch")
    cell = make_cell(name)
    shape = make_shape(5, 3, 4, 6)
    onward, donward = make_problem(cell, shape, np.float64, seed=1)
    backward, dbackward = make_problem(cell, shape, np.float64, seed=2)
    backward["x"] = onward["x"]

    module = getattr(torch.nn, cell.kind.upper())
    options = {k: v for k, v in cell.options.items() if k == "nonlinearity"}
    layer = module(shape.I, shape.H, bidirectional=True, dtype=torch.float64, **options)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    with torch.no_grad():
        for parameter in names:
            getattr(layer, f"{parameter}_l0").copy_(torch.from_numpy(onward[parameter]))
            getattr(layer, f"{parameter}_l0_reverse").copy_(torch.from_numpy(backward[parameter]))
    x = torch.from_numpy(onward["x"]).requires_grad_()
    states = [torch.from_numpy(np.stack([onward[s], backward[s]])).requires_grad_() for s in cell.states]
    y, last = layer(x, tuple(states) if cell.kind == "lstm" else states[0])
    outputs = [y, *(last if cell.kind == "lstm" else [last])]
    doutputs = [np.concatenate([donward[0], dbackward[0]], axis=2)]
    doutputs += [np.stack(pair) for pair in zip(donward[1:], dbackward[1:], strict=True)]
    torch.autograd.backward(outputs, [torch.from_numpy(d) for d in doutputs])

    def same(ours, theirs, what):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=what)

    dx = 0
    H = shape.H
    for direction, arguments, grads, suffix in [
        (0, onward, donward, ""),
        (1, backward, dbackward, "_reverse"),
    ]:
        (our_y, *our_last), reserve = cell.forward(reference, arguments, reverse=bool(direction))
        gradients = cell.backward(reference, grads, reserve)
        same(our_y, y[:, :, direction * H : (direction + 1) * H], "y")
        for ours, theirs in zip(our_last, outputs[1:], strict=True):
            same(ours, theirs[direction], "last state")
        for state, tensor in zip(cell.states, states, strict=True):
            same(getattr(gradients, "d" + state), tensor.grad[direction], "d" + state)
        for parameter in names:
            theirs = getattr(layer, f"{parameter}_l0{suffix}").grad
            same(getattr(gradients, "d" + parameter), theirs, "d" + parameter + suffix)
        dx = dx + gradients.dx
    same(dx, x.grad, "dx")
