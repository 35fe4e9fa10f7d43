"""fusedrnn.torch's layers and cells do what torch.nn's do: outputs, gradients, random numbers, errors."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import calls  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

KINDS = {"rnn": ("RNN", {}), "rnn_relu": ("RNN", {"nonlinearity": "relu"}), "lstm": ("LSTM", {}), "gru": ("GRU", {})}
OPTIONS = {
    "plain": {},
    "no_bias": {"bias": False},
    "both_ways": {"bidirectional": True},
    "deep": {"num_layers": 3, "batch_first": True},
    "deep_both_ways": {"num_layers": 2, "bidirectional": True, "dropout": 0.4},
}
SHAPES = [(1, 1, 1, 1), (5, 3, 4, 7), (3, 17, 2, 24)]  # T, N, I, H
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def precision(request):
    return request.param


def pair(name, *sizes, dtype=torch.float64, **options):
    """Our module in dtype, and PyTorch's in float64 with the same numbers."""
    torch.manual_seed(0)
    ours = getattr(ft, name)(*sizes, dtype=dtype, **options)
    theirs = getattr(torch.nn, name)(*sizes, **options).double()
    theirs.load_state_dict({k: v.double() for k, v in ours.state_dict().items()})
    return ours, theirs


def flat(value):
    """The tensors of nested tuples."""
    return [value] if isinstance(value, torch.Tensor) else [t for v in value if v is not None for t in flat(v)]


def compare(ours, theirs, inputs, dtype):
    """Outputs and every gradient, of two modules at (x, hx) = inputs; both with the same random numbers."""
    results = []
    for module, kind in ((ours, dtype), (theirs, torch.float64)):
        given = [leaf(i, kind) for i in inputs]
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LSTM with projections")  # PyTorch's, of its own speed
            outputs = flat(module(*given))
        generator = torch.Generator().manual_seed(4)
        outputs = [o for o in outputs if o.is_floating_point()]
        weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(kind) for o in outputs]
        sources = [t for t in flat(given) if t.requires_grad] + list(module.parameters())
        gradients = torch.autograd.grad(outputs, sources, weights)
        results.append([*outputs, *gradients])
    for k, (a, b) in enumerate(zip(*results, strict=True)):
        assert a.dtype is dtype
        assert a.shape == b.shape
        error, scale = (float(t.detach().abs().max()) for t in (a.double() - b, b))
        assert error <= TOLERANCE[dtype] * max(1, scale), f"output or gradient {k} differs by {error:.3g}"


def leaf(value, dtype):
    if isinstance(value, tuple) and not isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return tuple(leaf(v, dtype) for v in value)
    if isinstance(value, torch.Tensor):
        return value.detach().to(dtype).requires_grad_()
    return None if value is None else value.to(dtype)


def initial(module, rows, generator=None):
    stack = module.num_layers * (2 if module.bidirectional else 1)
    h0 = torch.randn(stack, *rows, module.proj_size or module.hidden_size)
    return (h0, torch.randn(stack, *rows, module.hidden_size)) if isinstance(module, torch.nn.LSTM) else h0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_outputs_and_gradients(kind, options, sizes, precision, count_calls):
    T, N, I, H = sizes  # noqa: E741
    (name, own), keywords = KINDS[kind], OPTIONS[options]
    ours, theirs = pair(name, I, H, dtype=precision, **own, **keywords)
    x = torch.randn((N, T, I) if ours.batch_first else (T, N, I))
    compare(ours, theirs, (x, initial(ours, (N,))), precision)
    assert count_calls() == ours.num_layers * (2 if ours.bidirectional else 1)


@pytest.mark.parametrize("options", OPTIONS)
def test_projection(options, precision, count_calls):
    ours, theirs = pair("LSTM", 3, 6, proj_size=4, dtype=precision, **OPTIONS[options])
    compare(ours, theirs, (torch.randn(5, 5, 3), initial(ours, (5,))), precision)
    assert count_calls()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["plain", "deep", "deep_both_ways"])
@pytest.mark.parametrize("with_state", [False, True])
def test_unbatched(kind, options, with_state, precision, count_calls):
    (name, own), keywords = KINDS[kind], OPTIONS[options]
    ours, theirs = pair(name, 3, 5, dtype=precision, **own, **keywords)
    compare(ours, theirs, (torch.randn(6, 3), initial(ours, ()) if with_state else None), precision)
    assert count_calls()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["plain", "deep", "deep_both_ways"])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed(kind, options, with_state, enforce_sorted, precision, count_calls):
    (name, own), keywords = KINDS[kind], OPTIONS[options]
    ours, theirs = pair(name, 3, 5, dtype=precision, **own, **keywords)
    lengths = [5, 4, 4, 1] if enforce_sorted else [4, 1, 5, 4]
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in lengths], enforce_sorted=enforce_sorted)
    compare(ours, theirs, (packed, initial(ours, (4,)) if with_state else None), precision)
    assert count_calls()


def test_packed_rows_are_not_copied(monkeypatch):
    seen = []
    compiled = calls._core
    watched = {"forward": lambda *a: seen.append(a) or compiled.forward(*a), "views": compiled.views}
    monkeypatch.setattr(calls, "_core", SimpleNamespace(**watched))
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in (3, 2)])
    ft.GRU(3, 4)(packed)
    x, batch_sizes = seen[0][1], seen[0][4][1]
    assert x.ctypes.data == packed.data.data_ptr()
    assert batch_sizes.tolist() == [2, 2, 1]  # a copy


def test_gradient_of_packed_data():
    data = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 4, 3)]
    ours, theirs = pair("LSTM", 3, 4, bidirectional=True)
    found = []
    for module in (ours, theirs):
        y, _ = module(torch.nn.utils.rnn.pack_sequence(data, enforce_sorted=False))
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(y)
        assert lengths.tolist() == [2, 4, 3]
        found.append(torch.autograd.grad((padded**2).sum(), data))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("own", [{}, {"bias": False}])
@pytest.mark.parametrize("rows", [(), (1,), (6,)])
@pytest.mark.parametrize("with_state", [False, True])
def test_cells(name, own, rows, with_state, precision, count_calls):
    ours, theirs = pair(name, 3, 5, dtype=precision, **own)
    state = torch.randn(*rows, 5)
    hx = None if not with_state else (state, state + 1) if name == "LSTMCell" else state
    compare(ours, theirs, (torch.randn(*rows, 3), hx), precision)
    assert count_calls() == 1


def test_relu_cell(precision, count_calls):
    ours, theirs = pair("RNNCell", 3, 5, nonlinearity="relu", dtype=precision)
    compare(ours, theirs, (torch.randn(4, 3), torch.randn(4, 5)), precision)
    assert count_calls() == 1


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_constructors_and_checkpoints(name):
    torch.manual_seed(5)
    ours = getattr(ft, name)(4, 6)
    torch.manual_seed(5)
    theirs = getattr(torch.nn, name)(4, 6)
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(theirs)
    for (k, a), (l, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):  # noqa: E741
        assert k == l
        assert torch.equal(a, b)
    theirs.load_state_dict(ours.state_dict())
    if not name.endswith("Cell"):
        assert [[w.shape for w in layer] for layer in ours.all_weights] == [
            [w.shape for w in layer] for layer in theirs.all_weights
        ]


def error_of(call):
    with pytest.raises((RuntimeError, TypeError, ValueError, AttributeError)) as info:
        call()
    return type(info.value), str(info.value)


def outcome(make):
    """The error, or the parameters' shapes: PyTorch 2.6 takes what later versions refuse."""
    try:
        return {name: parameter.shape for name, parameter in make().named_parameters()}
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((0, 5), {}),
        ((3, 5, 0), {}),
        ((3, 5), {"dropout": 2}),
        ((3, 5), {"proj_size": 5}),
        ((3, 5), {"bias": 1}),
        ((3.0, 5), {}),
        ((3, 5), {"colour": "red"}),
    ],
)
def test_errors_of_constructors(arguments, keywords):
    ours, theirs = (outcome(lambda m=m: m(*arguments, **keywords)) for m in (ft.LSTM, torch.nn.LSTM))
    assert ours == theirs
    unknown = [error_of(lambda m=m: m(3, 5, nonlinearity="step")) for m in (ft.RNN, torch.nn.RNN)]
    assert unknown[0] == unknown[1]


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(4, 2, 7),),
        (torch.zeros(4, 2, 3, 1),),
        (torch.zeros(4, 2, 3, dtype=torch.float64),),
        (torch.zeros(4, 2, 3, dtype=torch.int64),),
        (torch.zeros(4, 2, 3), torch.zeros(1, 3, 5)),
        (torch.zeros(4, 2, 3), torch.zeros(2, 5)),
        (torch.zeros(4, 3), torch.zeros(1, 1, 5)),
        (torch.zeros(4, 2, 3), torch.zeros(1, 2, 5, dtype=torch.float64)),
        (None,),
        ([[1.0]],),
    ],
)
def test_errors_of_calls(name, arguments):
    """They are PyTorch's, word by word."""
    if name == "LSTM" and len(arguments) == 2:
        arguments = (arguments[0], (arguments[1], arguments[1]))
    ours, theirs = pair(name, 3, 5, dtype=torch.float32)
    assert error_of(lambda: ours(*arguments)) == error_of(lambda: theirs.float()(*arguments))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_errors_of_packed_sequences(name):
    """As those of PyTorch's GRU; its LSTM would read past the end."""
    layer = getattr(ft, name)(3, 5)
    batch_sizes = torch.tensor([2, 2])
    with pytest.raises(RuntimeError, match=r"must be equal to input_size\. Expected 3, got 7"):
        layer(torch.nn.utils.rnn.PackedSequence(torch.zeros(4, 7), batch_sizes))
    h0 = torch.zeros(1, 3, 5)
    with pytest.raises(RuntimeError, match=r"Expected hidden.* size \(1, 2, 5\), got \[1, 3, 5\]"):
        layer(torch.nn.utils.rnn.PackedSequence(torch.zeros(4, 3), batch_sizes), (h0, h0) if name == "LSTM" else h0)


def test_errors_of_cells():
    for name in ("RNNCell", "LSTMCell", "GRUCell"):
        ours, theirs = pair(name, 3, 5, dtype=torch.float32)
        for x in (torch.zeros(2, 2, 3), torch.zeros(2, 7)):
            assert error_of(lambda m=ours, x=x: m(x)) == error_of(lambda m=theirs, x=x: m.float()(x))


def test_no_rows():
    """As PyTorch: an empty batch has empty outputs, and so has a cell without units."""
    ours, theirs = pair("GRU", 3, 5, dtype=torch.float32)
    x = torch.zeros(4, 0, 3)
    assert [t.shape for t in ours(x)] == [t.shape for t in theirs.float()(x)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the initialization of parameters without elements
        cell = ft.GRUCell(3, 0)
    assert cell(torch.zeros(2, 3), torch.zeros(2, 0)).shape == (2, 0)
