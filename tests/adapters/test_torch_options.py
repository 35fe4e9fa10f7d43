"""Options that torch.nn has not: as in fusedrnn.nn, differentiable, compiled, refused where they do not fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.nn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.spec import ACTIVATIONS  # noqa: E402
from fusedrnn.torch import calls  # noqa: E402

torch.set_num_threads(1)  # tests run side by side
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, while compiling and at a vmap

RANDOM = {"zoneout_h": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.25}
PLAIN = {
    "rnn_norm": ("RNN", {"layer_norm": True, "nonlinearity": "relu"}),
    "lstm_norm": ("LSTM", {"layer_norm": True, "peephole": True}),
    "lstm_coupled": ("LSTM", {"coupled": True, "peephole": True, "cell_clip": 0.4, "bias": False}),
    "lstm_recompute": ("LSTM", {"recompute": True}),
    "gru_norm": ("GRU", {"layer_norm": True}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "gru_recompute": ("GRU", {"recompute": True}),
    "rnn_activation": ("RNN", {"nonlinearity": "softsign"}),
    "lstm_activations": ("LSTM", {"activations": ["hard_sigmoid", "softplus", "softsign"], "peephole": True}),
    "gru_activations": ("GRU", {"activations": ("softsign", "identity")}),
}
RANDOMIZED = {
    "rnn": ("RNN", {**RANDOM, "layer_norm": True}),
    "lstm": ("LSTM", {**RANDOM, "zoneout_c": 0.2, "layer_norm": True, "peephole": True, "coupled": True}),
    "gru": ("GRU", RANDOM),
    "gru_before": ("GRU", {**RANDOM, "reset_after": False, "activations": ["softsign", "hard_tanh"]}),
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
    assert all(f"{option}={value}" in repr(layer) for option, value in layer._kernel_options.items())
    assert {"nonlinearity", *layer._kernel_options} >= {option for option in options if option != "bias"}


def function_of(name, options, data="dense", evaluate=False):
    """(f, inputs): the layer as a function of x and parameters, in float64, with the same masks in every call."""
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, dtype=torch.float64, **options).train(not evaluate)
    layer.requires_grad_(False)
    names = [n for n, _ in layer.named_parameters()]
    x = torch.randn(*((6,) if data == "packed" else (4, 2)), 2, dtype=torch.float64)
    keywords = {"lengths": [1, 4], "resets": torch.tensor([[0, 0], [1, 0], [0, 1], [0, 0]]).bool()}

    def f(x, *parameters):
        torch.manual_seed(1)
        if data == "packed":
            order = torch.tensor([1, 2, 0])
            x = torch.nn.utils.rnn.PackedSequence(x, torch.tensor([3, 2, 1]), order, order.argsort())
        given = dict(zip(names, parameters, strict=True))
        y, state = torch.func.functional_call(layer, given, (x,), keywords if data == "uneven" else {})
        return y.data if data == "packed" else y, *(state if isinstance(state, tuple) else (state,))

    inputs = [x, *(p.detach().clone() for p in layer.parameters())]
    return f, tuple(t.requires_grad_() for t in inputs)


@pytest.mark.parametrize("case", ALL)
def test_gradients(case):
    name, options = ALL[case]
    assert torch.autograd.gradcheck(*function_of(name, options), fast_mode=True)


@pytest.mark.parametrize("case", ALL)
def test_second_derivatives(case):
    assert torch.autograd.gradgradcheck(*function_of(*ALL[case]), fast_mode=True)


@pytest.mark.parametrize("case", RANDOMIZED)
@pytest.mark.parametrize(("data", "more"), [("packed", {"num_layers": 2}), ("uneven", {"bidirectional": True})])
def test_second_derivatives_draw_the_masks_of_each_place(case, data, more):
    name, options = RANDOMIZED[case]
    options = {**options, **more, "layer_norm": False, "peephole": False} if name == "LSTM" else {**options, **more}
    assert torch.autograd.gradgradcheck(*function_of(name, options, data), fast_mode=True)


def derivatives(f, x):
    """f's gradient and the derivative of it."""
    (dx,) = torch.autograd.grad(f(x), x, create_graph=True)
    rows = [torch.autograd.grad(d, x, retain_graph=True)[0].flatten() for d in dx.flatten()]
    return dx.detach(), torch.stack(rows)


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru", "gru_before"])
def test_clipped_gradients(case):
    """Backward's own derivative is exact, though what it returns is not forward's."""
    name, options = RANDOMIZED[case]
    f, inputs = function_of(name, {**options, "grad_clip": 0.03})
    unclipped, _ = function_of(name, options)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)
    x, *parameters = (t.detach() for t in inputs)
    x.requires_grad_()
    dy = torch.randn(4, 2, 3, dtype=torch.float64)

    def loss(x):
        return (f(x, *parameters)[0] * dy).sum()

    dx, second = derivatives(loss, x)
    free, _ = derivatives(lambda x: (unclipped(x, *parameters)[0] * dy).sum(), x)
    assert (dx - free).abs().max() > 1e-3  # it did clip
    gradient = torch.func.grad(loss)
    torch.testing.assert_close(gradient(x.detach()), dx)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        found = transform(gradient, **({"randomness": "same"} if transform is torch.func.jacfwd else {}))(x.detach())
        torch.testing.assert_close(found.reshape(second.shape), second)


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru"])
def test_transforms_draw_the_same_masks(case):
    name, options = RANDOMIZED[case]
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, num_layers=2, dtype=torch.float64, **options)
    parameters = {k: v.detach() for k, v in layer.named_parameters()}

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, (row[:, None],))[0].pow(2).sum()

    row = torch.randn(4, 2, dtype=torch.float64)
    torch.manual_seed(1)
    loss(dict(layer.named_parameters()), row).backward()
    expected = layer.weight_hh_l0.grad

    def of_each_row(randomness):
        torch.manual_seed(1)
        gradients = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness=randomness)
        return gradients(parameters, row.expand(3, 4, 2))["weight_hh_l0"]

    for own in of_each_row("same"):
        torch.testing.assert_close(own, expected)
    first, second, third = of_each_row("different")
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru"])
def test_gradients_of_zoneouts_mean(case, count_calls):
    name, options = RANDOMIZED[case]
    f, inputs = function_of(name, {**options, "bidirectional": True}, "uneven", evaluate=True)
    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)
    calls = count_calls()
    y = f(*inputs)[0]
    assert count_calls() == calls + 2  # forward is the kernels'
    with torch.no_grad():
        assert torch.equal(f(*inputs)[0], y)


def test_gradients_of_zoneouts_mean_compiled():
    import torch._dynamo

    name, options = RANDOMIZED["lstm"]
    torch._dynamo.reset()
    layer = getattr(ft, name)(2, 3, **options).eval()
    x = torch.randn(4, 2, 2, requires_grad=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        gradients = [torch.autograd.grad(g(x)[0].sum(), [x, *layer.parameters()]) for g in (layer, compiled)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    """Away from kinks, where differences would be of two slopes."""
    for name, count in (("LSTM", 3), ("GRU", 2), ("RNN", 1)):
        options = {"nonlinearity": activation} if name == "RNN" else {"activations": [activation] * count}
        f, inputs = function_of(name, options)
        assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)
        layer = getattr(ft, name)(2, 3, **options)
        other = getattr(fusedrnn.nn, name)(2, 3, **options)
        other.load_state_dict({k: v.numpy() for k, v in layer.state_dict().items()})
        x = torch.randn(4, 2, 2)
        np.testing.assert_array_equal(layer(x)[0].detach().numpy(), other(x.numpy())[0])
    assert (ft.LSTM(2, 3, activations=["sigmoid", "tanh", "tanh"])._kernel_options) is None
    layer = ft.RNN(2, 3, 2, "softplus", False)
    assert layer.nonlinearity == "softplus"
    assert not layer.bias
    assert layer.num_layers == 2


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


def test_masks_of_layers_and_directions_differ():
    """Where only the masks differ: equal weights, and x that both directions see alike."""
    layer = ft.RNN(4, 4, 2, bidirectional=True, nonlinearity="identity", bias=False, zoneout_h=0.5)
    for name, parameter in layer.named_parameters():
        torch.nn.init.zeros_(parameter)
        if name.startswith("weight_ih"):
            torch.nn.init.eye_(parameter)
    torch.manual_seed(0)
    with torch.no_grad():
        _, h_n = layer(torch.ones(1, 64, 4))
    # One step from zeros: 0 where the unit is zoned out; the second layer sees the onward half of the first.
    onward, backward, second, _ = h_n != 0
    assert 0.3 < onward.float().mean() < 0.7
    assert (onward != backward).float().mean() > 0.3
    assert 0.3 < second[onward].float().mean() < 0.7


@pytest.mark.parametrize("case", RANDOMIZED)
def test_operators(case):
    name, options = RANDOMIZED[case]
    cell = calls.CELLS[name.lower()]
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, **options)
    parameters = layer._kernel_parameters()[0]
    x, states = torch.randn(4, 2, 2, requires_grad=True), [None] * len(cell.states)
    plain = calls.options_of(cell)
    values = [options.get(option, value) for option, value in plain.items()]
    absent = [None] * (len(cell.parameters) - len(parameters))
    sequences = (None, None, None, torch.tensor(5))
    arguments = (x, *states, *parameters, *absent, *sequences, False, *values)
    operator = getattr(torch.ops.fusedrnn, f"{name.lower()}_forward").default
    # not by AOTDispatcher, which would compare what fills up a line of a normalized cell's reserve
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (*arguments, True), test_utils=checks)
    torch.library.opcheck(operator, (*arguments, False), test_utils=checks)


@pytest.mark.parametrize("option", ["recompute", "reset_after"])
def test_reserves_have_the_shape_that_compilers_are_told(option):
    cell = calls.GRU
    torch.manual_seed(0)
    layer, x = ft.GRU(2, 3), torch.randn(4, 2, 2)
    parameters = layer._kernel_parameters()[0]
    plain = calls.options_of(cell)
    values = list({**plain, option: not plain[option]}.values())
    arguments = (x, None, *parameters, *[None] * (len(cell.parameters) - 4), *[None] * 4, False, *values, True)
    torch.library.opcheck(torch.ops.fusedrnn.gru_forward.default, arguments, test_utils=("test_faketensor",))


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
        ("LSTM", {"recompute": True, "proj_size": 2}, ValueError, "recompute: expected False together with proj_size"),
        ("GRU", {"recompute": True, "zoneout_h": 0.1}, ValueError, "recompute: .* with zoneout_h"),
        ("LSTM", {"activations": ["tanh"]}, ValueError, r"activations: expected 3 of sigmoid, .*, got \['tanh'\]"),
        ("GRU", {"activations": ["tanh", "elu"]}, ValueError, "activations: expected 2 of sigmoid"),
        ("GRU", {"activations": "tanh"}, ValueError, "activations: expected 2 of sigmoid"),
        ("RNN", {"nonlinearity": "elu"}, ValueError, "Unknown nonlinearity 'elu'"),
        ("RNN", {"activations": ["tanh"]}, TypeError, "activations"),
    ):
        with pytest.raises(error, match=message):
            getattr(ft, name)(3, 4, **keywords)
    layer = ft.LSTM(3, 4, zoneout_c=0.1).eval()
    with pytest.raises(ValueError, match=r"zoneout_c: PyTorch's own layers have none.*torch.bfloat16"):
        layer.bfloat16()(torch.randn(5, 2, 3).bfloat16())
