"""Derivatives through fusedrnn.torch: first, second, by transforms, and what autograd promises about them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import torch.autograd.forward_ad as forward_ad  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import calls, function, ops  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

CASES = {
    "rnn": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "lstm_both_ways": ("LSTM", {"bidirectional": True}),
    "gru_no_bias": ("GRU", {"bias": False}),
    "lstm_projected": ("LSTM", {"proj_size": 1, "bidirectional": True}),
}


def function_of(name, options, data="dense"):
    """(f, inputs): the layer as a function of x, initial states and parameters, in float64."""
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 2, dtype=torch.float64, **options)
    layer.requires_grad_(False)
    names = [n for n, _ in layer.named_parameters()]
    directions = 2 if layer.bidirectional else 1
    states = [torch.randn(directions, 3, layer.proj_size or 2, dtype=torch.float64)]
    if name == "LSTM":
        states.append(torch.randn(directions, 3, 2, dtype=torch.float64))
    x = torch.randn(*((5,) if data == "packed" else (3, 3)), 2, dtype=torch.float64)
    keywords = {"lengths": [1, 0, 3]} if data == "lengths" else {}
    if data == "resets":
        keywords = {"resets": torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]]).bool()}

    def f(x, *rest):
        hx = rest[: len(states)]
        if data == "packed":
            order = torch.tensor([2, 0, 1])
            x = torch.nn.utils.rnn.PackedSequence(x, torch.tensor([3, 1, 1]), order, order.argsort())
        parameters = dict(zip(names, rest[len(states) :], strict=True))
        y, final = torch.func.functional_call(layer, parameters, (x, hx if len(hx) > 1 else hx[0]), keywords)
        return y.data if data == "packed" else y, *(final if isinstance(final, tuple) else (final,))

    inputs = [x, *states, *(p.detach().clone() for p in layer.parameters())]
    return f, tuple(t.requires_grad_() for t in inputs)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    f, inputs = function_of(*CASES[case])
    assert torch.autograd.gradcheck(f, inputs)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case):
    f, inputs = function_of(*CASES[case])
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


@pytest.mark.parametrize("case", ["rnn", "lstm_both_ways", "lstm_projected", "gru"])
@pytest.mark.parametrize("data", ["packed", "lengths", "resets"])
def test_gradients_of_sequences(case, data):
    f, inputs = function_of(*CASES[case], data)
    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


def test_all_second_derivatives_of_each_cell():
    for case in ("rnn", "lstm", "gru"):
        f, inputs = function_of(*CASES[case])
        assert torch.autograd.gradgradcheck(lambda *a, f=f: f(*a)[1:], inputs)


def test_third_derivatives():
    f, inputs = function_of("GRU", {})
    x = inputs[0]
    ours = torch.nn.GRU(2, 2, dtype=torch.float64)
    ours.load_state_dict(dict(zip(dict(ours.named_parameters()), inputs[2:], strict=True)))

    def third(g):
        for _ in range(3):
            (g,) = torch.autograd.grad((g**2).sum(), x, create_graph=True)
        return g

    torch.testing.assert_close(third(f(*inputs)[0]), third(ours(x, inputs[1])[0]), rtol=1e-9, atol=1e-11)


def test_an_input_computed_from_another():
    """The gradient's derivative does not take one input's way for another's."""
    results = []
    for kind in (ft, torch.nn):
        torch.manual_seed(0)
        layer = kind.LSTM(2, 3, dtype=torch.float64)
        x = torch.ones(4, 1, 2, dtype=torch.float64, requires_grad=True)
        h0 = (x.sum() * torch.ones(1, 1, 3, dtype=torch.float64)).sin()
        y, _ = layer(x, (h0, h0 * 2))
        (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        results.append(torch.autograd.grad((dx**2).sum(), [x, *layer.parameters()]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # PyTorch's own, at its first vmap
@pytest.mark.parametrize("case", ["rnn_relu", "lstm", "gru"])
def test_forward_mode_and_transforms(case):
    name, options = CASES[case]
    torch.manual_seed(0)
    layer = getattr(ft, name)(2, 3, dtype=torch.float64, **options)
    x, tangent = torch.randn(2, 4, 1, 2, dtype=torch.float64)
    with forward_ad.dual_level():
        directional = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))[0]).tangent
    step = 1e-6
    difference = (layer(x + step * tangent)[0] - layer(x - step * tangent)[0]) / (2 * step)
    torch.testing.assert_close(directional, difference, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))[1], directional)

    parameters = {k: v.detach() for k, v in layer.named_parameters()}

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, (row[:, None],))[0].pow(2).sum()

    rows = torch.randn(3, 4, 2, dtype=torch.float64)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, rows)
    layer(rows.transpose(0, 1))[0].pow(2).sum().backward()
    for parameter, value in layer.named_parameters():
        torch.testing.assert_close(each[parameter].sum(0), value.grad)


@pytest.mark.parametrize("name", calls.CELLS)
@pytest.mark.parametrize("packed", [False, True], ids=["lengths_and_resets_reversed", "packed"])
def test_operators(name, packed):
    """Schemas, fake kernels, autograd and functionalization, by PyTorch's own checks."""
    torch.manual_seed(0)
    cell = calls.CELLS[name]
    G, H, I = cell.gates, 3, 2  # noqa: E741
    leaf = (lambda *shape: torch.randn(*shape)) if packed else (lambda *shape: torch.randn(*shape, requires_grad=True))
    x = leaf(*((6,) if packed else (4, 3)), I)
    states = [leaf(3, H) for _ in cell.states]
    weights = [leaf(*shape) for shape in ((G * H, I), (G * H, H), (G * H,), (G * H,))]
    inputs = (x, *states, *weights, *[None] * (len(cell.parameters) - 4))
    sequences = (torch.tensor([4, 0, 2]), None, torch.rand(4, 3) < 0.5, None)
    if packed:
        sequences = (None, torch.tensor([3, 2, 1]), None, None)
    options = [not packed, *calls.options_of(cell).values()]
    forward = getattr(torch.ops.fusedrnn, f"{name}_forward").default
    torch.library.opcheck(forward, (*inputs, *sequences, *options, True))
    y, *rest, reserve = (t.detach() for t in forward(*inputs, *sequences, *options, True))
    doutputs = [leaf(*y.shape), None, *[torch.randn_like(t) for t in rest[1:]]]
    backward = getattr(torch.ops.fusedrnn, f"{name}_backward").default
    arguments = (*doutputs, *inputs, y, reserve, *sequences, *options, True)
    # its own derivative is a loop that AOTDispatcher would take seconds to unroll
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(backward, arguments, test_utils=checks)


class Looking(TorchDispatchMode):
    """A mode that looks at operators, as compilers and counters do."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", ["layer", "stack", "loop"])
def test_gradients_of_many_outputs_at_once(case):
    """Under vmap the kernels run once for each: the same bits."""
    torch.manual_seed(0)
    x = torch.randn(4, 2, 3, requires_grad=True)
    if case == "loop":
        layer, hx, steps = ft.LSTMCell(3, 5), None, []
        for step in x:
            hx = layer(step, hx)
            steps.append(hx[0])
        y = torch.stack(steps)
    else:
        options = {"recurrent_dropout": 0.5} if case == "layer" else {"num_layers": 2, "bidirectional": True}
        layer = ft.LSTM(3, 5, **options)
        y, _ = layer(x, lengths=[4, 2])
    variables, doutputs = [x, *layer.parameters()], torch.randn(3, *y.shape)
    each = [torch.autograd.grad(y, variables, d, retain_graph=True) for d in doutputs]
    batched = torch.autograd.grad(y, variables, doutputs, retain_graph=True, is_grads_batched=True)
    mapped = torch.func.vmap(lambda d: torch.autograd.grad(y, variables, d, retain_graph=True))(doutputs)
    for gradients, a, b in zip(zip(*each, strict=True), batched, mapped, strict=True):
        assert torch.equal(torch.stack(gradients), a)
        assert torch.equal(a, b)


def test_operators_and_eager_mode_agree():
    torch.manual_seed(0)
    layer = ft.LSTM(2, 3, dtype=torch.float64)
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    sources = [x, *layer.parameters()]

    def derivatives():
        y, _ = layer(x)
        first = torch.autograd.grad(y.sum(), sources, create_graph=True)
        return [y, *first, *torch.autograd.grad(first[0].pow(2).sum(), sources)]

    expected = derivatives()
    with Looking() as mode:
        found = derivatives()
    assert [name for name in mode.seen if "fusedrnn" in name] == ["fusedrnn::lstm_forward", "fusedrnn::lstm_backward"]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_backward_twice():
    layer = ft.LSTM(2, 3)
    y, _ = layer(torch.randn(4, 1, 2))
    y.sum().backward(retain_graph=True)
    once = layer.weight_hh_l0.grad.clone()
    y.sum().backward()
    torch.testing.assert_close(layer.weight_hh_l0.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_only_what_is_needed(monkeypatch):
    asked = []
    backward = calls.backward
    monkeypatch.setattr(calls, "backward", lambda *a: asked.append(a[-2]) or backward(*a))
    layer = ft.LSTM(2, 3, num_layers=2)
    x = torch.randn(4, 1, 2)
    layer(x)[0].sum().backward()
    assert asked == [True, False]  # dx of the second layer alone
    layer.requires_grad_(False)
    assert not layer(x)[0].requires_grad
    x.requires_grad_()
    layer(x)[0].sum().backward()
    assert x.grad is not None
    assert all(p.grad is None or p.requires_grad is False for p in layer.parameters())
    trainings = []
    forward = calls.forward
    monkeypatch.setattr(calls, "forward", lambda call, *a: trainings.append(call.training) or forward(call, *a))
    with torch.no_grad():
        layer(x)
    assert trainings == [False, False]


def test_checkpointing_and_saved_tensor_hooks():
    layer = ft.GRU(2, 3)
    x = torch.randn(5, 2, 2, requires_grad=True)
    layer(x)[0].sum().backward()
    expected = x.grad.clone()
    x.grad = None
    torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=False).sum().backward()
    assert torch.equal(x.grad, expected)
    x.grad = None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y, _ = layer(x)
    y.sum().backward()
    assert torch.equal(x.grad, expected)


def test_eager_mode_takes_the_short_way(monkeypatch):
    """The registered operators' own Python would cost more than a small layer."""
    monkeypatch.setattr(ops.operators, "run", lambda *a: pytest.fail("an operator was called"))
    y, _ = ft.LSTM(2, 3)(torch.randn(4, 1, 2))
    assert isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction)
    assert function.Layer.__name__ in type(y.grad_fn).__name__
