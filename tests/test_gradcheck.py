"""`gradcheck` passes what is right, finds what is wrong and says where."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import functional, nn
from fusedrnn.differentiation import GradcheckError

SMALL = (3, 2, 3, 4)  # T, N, I, H


@pytest.fixture
def lstm_arguments(make_cell, make_problem, make_shape):
    return make_problem(make_cell("lstm"), make_shape(*SMALL), np.float64)[0]


@pytest.mark.parametrize("options", [{}, {"reverse": True}], ids=["onward", "reverse"])
@pytest.mark.parametrize("module", ["functional", "reference"])
def test_every_cell_passes_in_every_element(cell, options, module, request, make_problem, make_shape):
    arguments, _ = make_problem(cell, make_shape(*SMALL), np.float64)
    forward = getattr(request.getfixturevalue(module), f"{cell.kind}_forward")
    result = fusedrnn.gradcheck(forward, arguments, **cell.options, **options)
    assert {name: len(a.indices) for name, a in result.arguments.items()} == {n: v.size for n, v in arguments.items()}
    # well inside: no pass is luck
    assert max(float(np.max(a.error / a.allowed)) for a in result.arguments.values()) < 0.1
    assert fusedrnn.gradcheck(forward, tuple(arguments.values()), **cell.options, **options)


def test_absent_states_and_biases_are_no_arguments(lstm_arguments):
    names = ("x", "weight_ih", "weight_hh")
    absent = {name: value if name in names else None for name, value in lstm_arguments.items()}
    assert tuple(fusedrnn.gradcheck(functional.lstm_forward, absent).arguments) == names


def _wrong(index, factor):
    """An LSTM's backward that is wrong in one element of dweight_hh; named as gradcheck looks for it."""

    def backward(dy, dh_n, dc_n, reserve):
        gradients = functional.lstm_backward(dy, dh_n, dc_n, reserve)
        gradients.dweight_hh[index] *= factor
        return gradients

    return backward


@pytest.mark.parametrize("factor", [1.0001, np.nan, -1], ids=["slightly", "nan", "sign"])
def test_one_wrong_element_is_found_and_named(lstm_arguments, factor):
    with pytest.raises(GradcheckError) as raised:
        fusedrnn.gradcheck(functional.lstm_forward, lstm_arguments, backward=_wrong((5, 2), factor))
    assert "weight_hh: 1 of 64 elements disagree\n  weight_hh[5, 2]: analytic " in str(raised.value)
    assert "x: 18 elements agree, largest error " in str(raised.value)

    result = fusedrnn.gradcheck(
        functional.lstm_forward, lstm_arguments, backward=_wrong((5, 2), factor), raise_exception=False
    )
    assert not result
    wrong = result.arguments["weight_hh"]
    assert [wrong.indices[k] for k in wrong.failures] == [(5, 2)]
    k = wrong.failures[0]
    np.testing.assert_allclose(wrong.analytic[k], wrong.numeric[k] * factor, rtol=1e-6)
    assert not any(a.failures for name, a in result.arguments.items() if name != "weight_hh")


def test_large_arrays_are_sampled_by_seed(lstm_arguments):
    def indices(**keywords):
        result = fusedrnn.gradcheck(functional.lstm_forward, lstm_arguments, **keywords)
        assert "weight_hh: 7 elements drawn of 64 agree" in str(result)
        return {name: a.indices for name, a in result.arguments.items()}

    drawn = indices(max_elements=7)
    assert {name: len(chosen) for name, chosen in drawn.items()} == dict.fromkeys(lstm_arguments, 7)
    assert all(len(set(chosen)) == 7 for chosen in drawn.values())
    assert indices(max_elements=7) == drawn
    assert indices(max_elements=7, rng=1) != drawn
    whole = fusedrnn.gradcheck(functional.lstm_forward, lstm_arguments, max_elements=None)
    assert len(whole.arguments["weight_hh"].indices) == 64


def test_options_that_hold_arrays_are_checked_too_and_integers_stay():
    def scaled_forward(x, *, gains=None, shift=0, order=None):
        y = gains[0] * np.tanh(x[order] + shift)
        return y, (x, gains, shift, order)

    def scaled_backward(dy, reserve):
        x, gains, shift, order = reserve
        dx = np.zeros_like(x)
        dx[order] = dy * gains[0] * (1 - np.tanh(x[order] + shift) ** 2)

        class Gradients:
            dgains = ((dy * np.tanh(x[order] + shift)).sum(axis=0), None)

        Gradients.dx = dx
        return Gradients

    x, gain, order = np.linspace(-1, 1, 6).reshape(3, 2), np.array([1.5, -2.0]), np.array([2, 0, 1])
    result = fusedrnn.gradcheck(scaled_forward, x, backward=scaled_backward, gains=(gain, None), order=order, shift=3)
    assert tuple(result.arguments) == ("x", "gains[0]")
    np.testing.assert_array_equal(order, [2, 0, 1])


def _trained(cell):
    cell.train()
    return cell


FLOAT64 = {"dtype": "float64", "rng": 0}
MODULES = {
    "rnn_without_bias": (nn.RNN(3, 4, bias=False, **FLOAT64), ["x"]),
    "lstm_stack": (nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.4, **FLOAT64), ["x", ("states", "states")]),
    "lstm_one_state": (nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True, **FLOAT64), ["x", ("states", None)]),
    "gru": (nn.GRU(3, 4, 2, bidirectional=True, reset_after=False, **FLOAT64), ["x", "states"]),
    "linear": (nn.Linear(3, 4, **FLOAT64), ["x"]),
    "embedding": (nn.Embedding(5, 4, **FLOAT64), ["indices"]),
    "dropout": (nn.Dropout(0.5, rng=0), ["x"]),
    "sequential": (
        nn.Sequential(nn.Linear(3, 4, **FLOAT64), nn.Dropout(0.5, rng=1), nn.Linear(4, 2, **FLOAT64)),
        ["x"],
    ),
    "cell": (_trained(nn.LSTMCell(3, 4, output_size=2, **FLOAT64)), ["rows"]),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_passes(name):
    """Inputs, initial states and parameters; the module and its arguments are as they were."""
    module, wanted = MODULES[name]
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((2, 3, 3)),
        "rows": rng.standard_normal((2, 3)),
        "states": rng.standard_normal((4, 2 if name == "lstm_one_state" else 3, 4)),
        "indices": np.array([[0, 4], [4, 2]]),
    }
    arguments = [tuple(map(given.get, w)) if isinstance(w, tuple) else given[w] for w in wanted]
    before, random_numbers = module.state_dict(), module.rng_state()
    copies = {key: value.copy() for key, value in given.items()}

    result = fusedrnn.gradcheck(module, arguments, max_elements=12)
    states = [w for w in (wanted[1] if isinstance(wanted[-1], tuple) else wanted[1:]) if w]
    inputs = [n for n in result.arguments if n not in before]
    assert len(inputs) == (name != "embedding") + len(states), inputs
    assert before.keys() <= result.arguments.keys()
    for parameter in module.parameters():
        assert not parameter.grad.any()
    np.testing.assert_equal(module.state_dict(), before)
    assert module.rng_state() == random_numbers
    np.testing.assert_equal(given, copies)
    with pytest.raises(RuntimeError, match="no call is left"):
        module.backward(rng.standard_normal((2, 3, 4)))


class _Forgetful(nn.Module):
    """A module whose parameter is forgotten by its backward, and whose input's gradient may be given."""

    def __init__(self, dx=None):
        super().__init__()
        self.scale, self.dx = nn.Parameter(np.array([2.0])), dx

    def forward(self, x):
        return x * self.scale.data

    def backward(self, dy):
        return dy * self.scale.data if self.dx is None else self.dx[0]


def test_a_forgotten_parameter_and_a_missing_gradient_are_found():
    x = np.ones((2, 3))
    with pytest.raises(GradcheckError, match=r"scale: 1 of 1 elements disagree\n  scale\[0\]: analytic 0, numeric"):
        fusedrnn.gradcheck(_Forgetful(), x)
    with pytest.raises(ValueError, match=r"x: expected a gradient of shape \(2, 3\), got None"):
        fusedrnn.gradcheck(_Forgetful([None]), x)
    with pytest.raises(ValueError, match=r"x: expected a gradient of shape \(2, 3\), got \(2,\)"):
        fusedrnn.gradcheck(_Forgetful([np.ones(2)]), x)


def test_what_cannot_be_checked_is_refused(lstm_arguments):
    with pytest.raises(TypeError, match="x: expected dtype float64 for differences, got float32"):
        fusedrnn.gradcheck(nn.LSTM(3, 4, **FLOAT64), np.ones((2, 1, 3), "f4"))
    with pytest.raises(TypeError, match="weight_ih_l0: expected dtype float64 for differences, got float32"):
        fusedrnn.gradcheck(nn.LSTM(3, 4), np.ones((2, 1, 3)))
    with pytest.raises(TypeError, match="backward: expected the gradient of tanh, as no tanh_backward stands beside"):
        fusedrnn.gradcheck(np.tanh, np.ones(3))
    with pytest.raises(TypeError, match=r"backward: expected a function with an argument `reserve`, got \['dy'\]"):
        fusedrnn.gradcheck(functional.lstm_forward, lstm_arguments, backward=lambda dy: dy)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        fusedrnn.gradcheck(functional.lstm_forward, lstm_arguments, nonsense=1)
    with pytest.raises(RuntimeError, match="no call is left to go back through"):
        fusedrnn.gradcheck(nn.Linear(3, 4, **FLOAT64).eval(), np.ones((2, 3)))
