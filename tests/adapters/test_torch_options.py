"""Options that torch.nn has not: as in fusedrnn.nn, differentiable, compiled, refused where they do not fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fusedrnn[torch]'")

import fusedrnn.nn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import calls  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

RANDOM = {"zoneout_h": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.25}
PLAIN = {
    "rnn_norm": ("RNN", {"layer_norm": True, "nonlinearity": "relu"}),
    "lstm_norm": ("LSTM", {"layer_norm": True, "peephole": True}),
    "lstm_coupled": ("LSTM", {"coupled": True, "peephole": True, "cell_clip": 0.4, "bias": False}),
    "lstm_recompute": ("LSTM", {"recompute": True}),
    "gru_norm": ("GRU", {"layer_norm": True}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "gru_recompute": ("GRU", {"recompute": True}),
}
RANDOMIZED = {
    "rnn": ("RNN", {**RANDOM, "layer_norm": True}),
    "lstm": ("LSTM", {**RANDOM, "zoneout_c": 0.2, "layer_norm": True, "peephole": True, "coupled": True}),
    "gru": ("GRU", RANDOM),
}
ALL = {**PLAIN, **{f"{name}_random": case for name, case in RANDOMIZED.items()}}


@pytest.mark.parametrize("case", ALL)
def test_evaluation_is_that_of_our_layers(case):
    """To the bit, from the same state dict."""
    name, options = ALL[case]
    torch.manual_seed(0)
    layer = getattr(ft, name)(3, 4, num_layers=2, bidirectional=True, **options).eval()
    other = getattr(fusedrnn.nn, name)(3, 4, num_layers=2, bidirectional=True, **options)
    other.load_state_dict({k: v.numpy() for k, v in layer.state_dict().items()})
    other.eval()
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        y, _ = layer(x)
    np.testing.assert_array_equal(y.numpy(), other(x.numpy())[0])
    assert torch.equal(copy.deepcopy(layer).requires_grad_(False)(x)[0], y)
    assert all(f"{option}={value}" in repr(layer) for option, value in layer.kernel_options.items())
    assert {"nonlinearity", *layer.kernel_options} >= {option for option in options if option != "bias"}


def function_of(name, options):
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, dtype=torch.float64, **options)
    layer.requires_grad_(False)
    names = [n for n, _ in layer.named_parameters()]

    def f(x, *parameters):
        torch.manual_seed(1)  # the same masks in every call
        y, state = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return y, *(state if isinstance(state, tuple) else (state,))

    inputs = [torch.randn(4, 2, 2, dtype=torch.float64), *(p.detach().clone() for p in layer.parameters())]
    return f, tuple(t.requires_grad_() for t in inputs)


@pytest.mark.parametrize("case", ALL)
def test_gradients(case):
    name, options = ALL[case]
    assert torch.autograd.gradcheck(*function_of(name, options), fast_mode=True)


@pytest.mark.parametrize("case", PLAIN)
def test_second_derivatives(case):
    assert torch.autograd.gradgradcheck(*function_of(*PLAIN[case]), fast_mode=True)


def test_second_derivatives_that_are_not_there():
    f, (x, *parameters) = function_of("GRU", {"zoneout_h": 0.1})
    (dx,) = torch.autograd.grad(f(x, *parameters)[0].sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are not there with zoneout_h"):
        dx.sum().backward()


@pytest.mark.parametrize("case", RANDOMIZED)
def test_random_numbers_are_pytorchs_generators(case):
    name, options = RANDOMIZED[case]
    layer = getattr(ft, name)(3, 4, num_layers=2, bidirectional=True, **options)
    x = torch.randn(5, 2, 3)
    torch.manual_seed(3)
    y, z = layer(x)[0], layer(x)[0]
    torch.manual_seed(3)
    assert torch.equal(layer(x)[0], y)
    assert not torch.equal(y, z)
    torch.manual_seed(3)
    with torch.no_grad():  # training's masks, though nothing is kept
        assert torch.equal(layer(x)[0], y)


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru"])
def test_operators(case):
    name, options = RANDOMIZED[case]
    cell = calls.CELLS[case]
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, **options)
    parameters = layer._layer_parameters(layer._all_weights[0])
    x, states = torch.randn(4, 2, 2, requires_grad=True), [None] * len(cell.states)
    plain = {**cell.direct, **cell.options}
    values = [options.get(option, value) for option, value in plain.items()]
    absent = [None] * (len(cell.parameters) - len(parameters))
    sequences = (None, None, None, torch.tensor(5))
    arguments = (x, *states, *parameters, *absent, *sequences, False, *values)
    operator = getattr(torch.ops.fusedrnn, f"{case}_forward").default
    # not by AOTDispatcher, which would compare what fills up a line of a normalized cell's reserve
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (*arguments, True), test_utils=checks)
    torch.library.opcheck(operator, (*arguments, False), test_utils=checks)


@pytest.mark.parametrize("option", ["recompute", "reset_after"])
def test_reserves_have_the_shape_that_compilers_are_told(option):
    cell = calls.GRU
    torch.manual_seed(0)
    layer, x = ft.GRU(2, 3), torch.randn(4, 2, 2)
    parameters = layer._layer_parameters(layer._all_weights[0])
    values = [value != (name == option) for name, value in cell.direct.items()] + list(cell.options.values())
    arguments = (x, None, *parameters, *[None] * (len(cell.parameters) - 4), *[None] * 4, False, *values, True)
    torch.library.opcheck(torch.ops.fusedrnn.gru_forward.default, arguments, test_utils=("test_faketensor",))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled():
    import torch._dynamo

    torch._dynamo.reset()
    layer, x = ft.LSTM(3, 4, zoneout_h=0.5, peephole=True), torch.randn(5, 2, 3)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.manual_seed(0)
        y, z = compiled(x)[0], compiled(x)[0]
    torch.manual_seed(0)
    assert torch.equal(layer(x)[0], y)
    assert not torch.equal(y, z)  # the seed is no constant of the graph


def test_initial_values():
    torch.manual_seed(0)
    layer = ft.LSTM(3, 4, layer_norm=True, peephole=True)
    torch.manual_seed(0)
    plain = torch.nn.LSTM(3, 4)
    for name, value in plain.named_parameters():
        assert torch.equal(getattr(layer, name), value)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    layer.reset_parameters()
    assert torch.equal(layer.gain_c_l0, torch.ones(4))
    assert not layer.norm_bias_hh_l0.any()
    assert 0 < layer.weight_peephole_l0.abs().max() <= 0.5


def test_restore_leaves_what_pytorch_has_not():
    layer = ft.GRU(3, 4, zoneout_h=0.1)
    assert ft.restore(layer).left == {"": "PyTorch's has none of its options"}
    assert type(layer) is ft.GRU


def test_errors():
    for name, keywords, error, message in (
        ("GRU", {"zoneout_h": 1.5}, ValueError, "zoneout_h: expected a probability, got 1.5"),
        ("GRU", {"dropconnect": 1}, ValueError, "dropconnect: expected a probability below 1, got 1"),
        ("RNN", {"grad_clip": -1}, ValueError, "grad_clip: expected None or a positive number"),
        ("LSTM", {"peephole": 1}, TypeError, "peephole: expected True or False, got int"),
        ("GRU", {"peephole": True}, TypeError, "peephole"),
        ("RNN", {"recompute": True}, TypeError, "recompute"),
        ("LSTM", {"reset_after": False}, TypeError, "reset_after"),
    ):
        with pytest.raises(error, match=message):
            getattr(ft, name)(3, 4, **keywords)
    layer = ft.LSTM(3, 4, zoneout_c=0.1).eval()
    with pytest.raises(RuntimeError, match="zoneout_c: no gradient in evaluation mode"):
        layer(torch.randn(5, 2, 3))
    with pytest.raises(ValueError, match=r"zoneout_c: PyTorch's own layers have none.*torch.bfloat16"):
        layer.bfloat16()(torch.randn(5, 2, 3).bfloat16())
