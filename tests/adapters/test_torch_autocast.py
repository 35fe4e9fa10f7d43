"""Under torch.autocast to bfloat16: PyTorch's dtypes, and the kernels' products in bfloat16 where they have them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import calls  # noqa: E402

torch.set_num_threads(1)  # tests run side by side
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),  # PyTorch's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own, while compiling
]

LAYERS = {
    "rnn": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm_projected": ("LSTM", {"proj_size": 2}),
    "gru": ("GRU", {}),
}
f32, bf16 = torch.float32, torch.bfloat16


def autocast(dtype=bf16):
    return torch.autocast("cpu", dtype=dtype)


def flat(outputs):
    """The tensors in a layer's or cell's outputs."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, torch.nn.utils.rnn.PackedSequence):
        return [outputs.data]
    return [t for part in outputs for t in flat(part)]


def pair(name, options):
    """Ours, and PyTorch's with the same parameters."""
    torch.manual_seed(0)
    ours, theirs = getattr(ft, name)(3, 4, **options), getattr(torch.nn, name)(3, 4, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def compare(modules, inputs):
    """Outputs and gradients: the same dtypes, and values as close as bfloat16's."""
    results = []
    for module in modules:
        given = [t.clone().requires_grad_() for t in flat(inputs[0:1])]
        x = inputs[0]._replace(data=given[0]) if isinstance(inputs[0], tuple) else given[0]
        with autocast():
            outputs = flat(module(x, *inputs[1:]))
        loss = sum((o.float() * torch.arange(o.numel()).view(o.shape).cos()).sum() for o in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, [*given, *module.parameters()])])
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype is theirs.dtype
        torch.testing.assert_close(
            mine.float(), theirs.float(), rtol=0, atol=0.03 * max(1, float(theirs.detach().abs().max()))
        )


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("states", [None, (f32, f32), (f32, bf16)], ids=["zeros", "float32", "bfloat16"])
@pytest.mark.parametrize("given", [f32, bf16], ids=["x_float32", "x_bfloat16"])
def test_dtypes_are_pytorchs(case, packed, states, given, count_calls):
    name, options = LAYERS[case]
    if case == "lstm" and not packed and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("PyTorch's own LSTM has no bfloat16 on this processor")
    x = torch.randn(5, 2, 3).to(given)
    if packed:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, [5, 3])
    hx = None
    if states:
        hx = tuple(torch.randn(1, 2, n).to(d) for n, d in zip((options.get("proj_size", 4), 4), states, strict=True))
        hx = hx if name == "LSTM" else hx[1]
    compare(pair(name, options), (x, hx))
    assert count_calls() == 1


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("given", [f32, bf16], ids=["float32", "bfloat16"])
def test_dtypes_of_cells_are_pytorchs(name, given, count_calls):
    x, h = torch.randn(2, 3), torch.randn(2, 4).to(given)
    modules = pair(name, {})
    compare(modules, (x, (h, h) if name == "LSTMCell" else h))
    compare(modules, (x.to(given),))
    assert count_calls() == 2


@pytest.mark.parametrize("case", ["rnn", "rnn_relu", "lstm", "gru"])
def test_products_are_those_of_the_functions_in_bfloat16(case):
    """To the bit, forward and backward, but for the rounding of outputs."""
    name, options = LAYERS[case]
    layer, _ = pair(name, options)
    x = torch.randn(5, 2, 3).requires_grad_()
    h0 = torch.zeros(1, 2, 4)
    with autocast():
        y, _ = layer(x, (h0, h0) if name == "LSTM" else h0)
    dy = torch.randn_like(y)
    y.backward(dy)
    numbers = [p.detach().numpy() for p in layer.parameters()]
    states = [np.zeros((2, 4), np.float32)] * (2 if name == "LSTM" else 1)
    kind = name.lower()
    outputs = getattr(fusedrnn, f"{kind}_forward")(
        x.detach().numpy(), *states, *numbers, precision="bfloat16", **options
    )
    assert torch.equal(torch.from_numpy(outputs[0]).to(y.dtype), y)
    nothing = [None] * len(states)
    gradients = getattr(fusedrnn, f"{kind}_backward")(dy.float().numpy(), *nothing, outputs[1 + len(states)])
    np.testing.assert_array_equal(x.grad.numpy(), gradients.dx)
    for parameter, name in zip(layer.parameters(), ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), strict=True):
        np.testing.assert_array_equal(parameter.grad.numpy(), getattr(gradients, f"d{name}"))


@pytest.fixture
def precisions(monkeypatch):
    """The precision of every forward call into the kernels."""
    seen = []
    forward = calls.forward
    monkeypatch.setattr(
        calls, "forward", lambda call, *a: seen.append((call.options or {}).get("precision")) or forward(call, *a)
    )
    return seen


def test_what_bfloat16_has_not_is_float32(precisions):
    x = torch.randn(5, 2, 3)
    for name, options in (
        ("LSTM", {"layer_norm": True}),
        ("LSTM", {"proj_size": 2}),
        ("LSTM", {"recompute": True}),
        ("RNN", {"nonlinearity": "softsign"}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"zoneout_h": 0.5}),
    ):
        layer = getattr(ft, name)(3, 4, **options).eval()
        expected = layer(x)[0]
        with autocast():
            y = layer(x)[0]
        torch.testing.assert_close(y, expected.to(y.dtype), rtol=0, atol=0)
        y.float().sum().backward()
        assert layer.weight_hh_l0.grad.dtype is f32
    assert set(precisions) == {None}
    with autocast(), torch.no_grad():
        ft.GRU(3, 4, reset_after=False)(x)  # inference it has
    assert precisions[-1] == "bfloat16"
    before = len(precisions)
    for module, dtype in ((ft.LSTM(3, 4), torch.float16), (ft.LSTM(3, 4).double(), bf16)):
        with autocast(dtype):
            y, _ = module(x.to(module.weight_ih_l0.dtype))
        assert y.dtype is module.weight_ih_l0.dtype
    assert precisions[before:] == [None, None]


def test_sequences_stacks_and_both_directions(precisions):
    layer = ft.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(2, 5, 3)
    expected, _ = layer(x, lengths=[2, 5])
    with autocast():
        y, _ = layer(x, lengths=[2, 5])
    assert precisions == [None] * 4 + ["bfloat16"] * 4
    assert not torch.equal(y, expected)
    torch.testing.assert_close(y, expected, rtol=0, atol=0.02)
    y.sum().backward()
    assert len(precisions) == 8


def test_second_derivatives_are_those_of_float32():
    """Rounding has no derivative, so it counts as none."""
    second = []
    layer, _ = pair("LSTM", {})
    x = torch.randn(5, 2, 3).requires_grad_()
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=bf16, enabled=enabled):
            y, _ = layer(x)
        (dx,) = torch.autograd.grad(y.float().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(dx.pow(2).sum(), layer.weight_hh_l0)[0])
    torch.testing.assert_close(second[1], second[0], rtol=0, atol=0.02 * float(second[0].abs().max()))
    with autocast():
        _, tangent = torch.func.jvp(lambda x: layer(x)[0], (x.detach(),), (torch.ones_like(x),))
    assert tangent.dtype is bf16


@pytest.mark.parametrize("case", ["rnn", "lstm", "gru"])
def test_operators(case):
    """The operators that a compiler sees are told of the precision."""
    name, _ = LAYERS[case]
    layer, _ = pair(name, {})
    cell = calls.CELLS[case]
    values = ({**calls.options_of(cell), "precision": "bfloat16"}).values()
    absent = [None] * (len(cell.parameters) - 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    states = [None] * len(cell.states)
    arguments = (x, *states, *layer.parameters(), *absent, None, None, None, None, False, *values, True)
    torch.library.opcheck(getattr(torch.ops.fusedrnn, f"{case}_forward").default, arguments)


def test_compiled(precisions):
    import torch._dynamo

    torch._dynamo.reset()
    layer, _ = pair("LSTM", {})
    x = torch.randn(5, 2, 3)
    with autocast(), torch._dynamo.config.patch(allow_rnn=True):
        y, _ = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
        assert precisions == ["bfloat16"]
        expected, _ = layer(x)
    assert torch.equal(y, expected)
    gradients = [torch.autograd.grad(o.float().sum(), layer.weight_hh_l0)[0] for o in (y, expected)]
    torch.testing.assert_close(*gradients)
