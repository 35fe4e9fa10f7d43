"""Layers of PyTorch on a GPU, whose kernels run on the emulator: tensors on the CPU count as a GPU's."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

NAMES = ("RNN", "LSTM", "GRU")
# Largest error relative to the largest value or 1. A bit is 2^-24 of float32, 2^-8 of bfloat16 and 2^-11 of float16; y,
# gates and dgates are rounded to it at each of 4 steps, and what is rounded passes through another layer.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 16 * 2.0**-9, torch.float16: 16 * 2.0**-12}


def in_float64(layer):
    """PyTorch's layer or cell with the same parameters."""
    kind = getattr(torch.nn, type(layer).__name__)
    constants = ("num_layers", "bidirectional", "batch_first", "dropout", "nonlinearity")
    given = {name: getattr(layer, name) for name in constants if hasattr(layer, name)}
    theirs = kind(layer.input_size, layer.hidden_size, bias=layer.bias, dtype=torch.float64, **given)
    theirs.load_state_dict(layer.state_dict())
    return theirs.train(layer.training)


@contextlib.contextmanager
def autocast(dtype):
    """torch.autocast, which would look for a GPU."""
    enabled, before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", before)


def leaves(tensors, dtype=torch.float32):
    """(as this dtype, the same numbers in float64), which record gradients."""
    ours = [t.detach().to(dtype).requires_grad_() for t in tensors]
    return ours, [t.detach().double().requires_grad_() for t in ours]


def flat(outputs):
    y, final = outputs
    data = y.data if isinstance(y, torch.nn.utils.rnn.PackedSequence) else y
    return [data, *(final if isinstance(final, tuple) else (final,))]


def assert_close(ours, expected, what, dtype=torch.float32):
    assert ours.dtype is dtype, what
    assert ours.shape == expected.shape, what
    ours, expected = ours.detach().double(), expected.detach()
    error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    assert error <= TOLERANCE[dtype], f"{what}: {error:.3g}"


def assert_like_pytorch(layer, emulated_gpu, call, tensors, dtype=torch.float32):
    """All outputs and gradients of call(layer, *tensors); every output has a gradient of its own."""
    theirs = in_float64(layer)
    ours_in, theirs_in = leaves(tensors, dtype)
    with emulated_gpu():
        outputs = flat(call(layer, *ours_in))
    expected = flat(call(theirs, *theirs_in))
    douts = [torch.randn(o.shape, dtype=torch.float64).to(dtype) for o in expected]
    torch.autograd.backward(outputs, douts)
    torch.autograd.backward(expected, [d.double() for d in douts])
    for k, (o, e) in enumerate(zip(outputs, expected, strict=True)):
        assert_close(o, e, f"output {k}", dtype)
    for k, (o, e) in enumerate(zip(ours_in, theirs_in, strict=True)):
        assert_close(o.grad, e.grad, f"gradient of input {k}", dtype)
    for (name, o), e in zip(layer.named_parameters(), theirs.parameters(), strict=True):
        assert_close(o.grad, e.grad, name, dtype)


def problem(name, layers=1, directions=1, batch_first=False):
    """x and states of T 4, N 3, I 5, H 17."""
    states = [torch.randn(layers * directions, 3, 17) for _ in range(2 if name == "LSTM" else 1)]
    return [torch.randn(*((3, 4) if batch_first else (4, 3)), 5), *states]


def with_states(layer, x, *states):
    return layer(x, states if len(states) > 1 else states[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"batch_first": True}],
    ids=lambda options: "_".join(options) or "plain",
)
def test_outputs_and_gradients_are_those_of_torch_nn(name, options, emulated_gpu, gpu_calls):
    torch.manual_seed(0)
    layer = getattr(ft, name)(5, 17, **options)
    layers, directions = options.get("num_layers", 1), 2 if options.get("bidirectional") else 1
    tensors = problem(name, layers, directions, "batch_first" in options)
    assert_like_pytorch(layer, emulated_gpu, with_states, tensors)
    assert gpu_calls() == layers, "both directions are one call"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_halves(name, low, emulated_gpu):
    torch.manual_seed(1)
    layer = getattr(ft, name)(5, 17, 2, bidirectional=True).to(low)
    assert_like_pytorch(layer, emulated_gpu, with_states, problem(name, 2, 2), low)


def test_relu_no_states_and_unbatched(emulated_gpu):
    torch.manual_seed(2)
    layer = ft.RNN(5, 17, nonlinearity="relu")
    assert_like_pytorch(layer, emulated_gpu, lambda layer, x: layer(x), [torch.randn(4, 3, 5)])
    assert_like_pytorch(copy.deepcopy(layer), emulated_gpu, lambda layer, x: layer(x), [torch.randn(4, 5)])
    assert_like_pytorch(
        ft.LSTM(5, 17), emulated_gpu, lambda layer, x, h, c: layer(x, (h, c)),
        [torch.randn(4, 5), torch.randn(1, 17), torch.randn(1, 17)],
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sort", [False, True])
def test_packed_sequences(name, sort, emulated_gpu):
    torch.manual_seed(3)
    layer = getattr(ft, name)(5, 17, 2, bidirectional=True)
    lengths = torch.tensor([4, 2, 1] if sort else [2, 4, 1])

    def call(layer, x, *states):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=sort)
        y, final = with_states(layer, packed, *states)
        return pad_packed_sequence(y)[0], final

    assert_like_pytorch(layer, emulated_gpu, call, problem(name, 2, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [[2, 4, 0], torch.tensor([2, 4, 0]), torch.tensor([2, 4, 0], dtype=torch.int32)])
def test_lengths_are_those_of_the_cpu(name, given, emulated_gpu):
    torch.manual_seed(4)
    layer = getattr(ft, name)(5, 17, bidirectional=True, batch_first=True)
    on_cpu = copy.deepcopy(layer)
    x, *states = problem(name, 1, 2, batch_first=True)
    hx = tuple(states) if name == "LSTM" else states[0]
    with emulated_gpu():
        outputs = flat(layer(x, hx, lengths=given))
    expected = flat(on_cpu(x, hx, lengths=given))
    sum(o.square().sum() for o in outputs).backward()
    sum(o.square().sum() for o in expected).backward()
    for o, e in zip(outputs, expected, strict=True):
        assert_close(o, e.double(), "output")
    for p, q in zip(layer.parameters(), on_cpu.parameters(), strict=True):
        assert_close(p.grad, q.grad.double(), "gradient")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name, bias, emulated_gpu, gpu_calls):
    torch.manual_seed(5)
    cell = getattr(ft, f"{name}Cell")(5, 17, bias=bias)

    def call(cell, x, *states):
        state = states if len(states) > 1 else states[0]
        for t in range(3):
            state = cell(x[t], state)
        h = state[0] if isinstance(state, tuple) else state
        return h, state

    tensors = problem(name)
    assert_like_pytorch(cell, emulated_gpu, call, [tensors[0], *[s[0] for s in tensors[1:]]])
    assert gpu_calls() == 3
    with emulated_gpu():
        one, row = cell(tensors[0][0, :1]), cell(tensors[0][0, 0])
    for batched, alone in zip(*[s if isinstance(s, tuple) else (s,) for s in (one, row)], strict=True):
        assert torch.equal(batched[0], alone)


def test_relu_cell(emulated_gpu):
    torch.manual_seed(5)
    cell = ft.RNNCell(5, 17, nonlinearity="relu")
    x = torch.randn(3, 5)
    with emulated_gpu():
        assert_close(cell(x), in_float64(cell)(x.double()), "h")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_again_and_in_inference(name, emulated_gpu):
    torch.manual_seed(6)
    layer = getattr(ft, name)(5, 17, bidirectional=True)
    x = torch.randn(4, 3, 5)
    found = []
    for _ in range(2):
        layer.zero_grad()
        with emulated_gpu():
            y, _ = layer(x)
        y.square().sum().backward()
        found.append([y, *[p.grad for p in layer.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    with emulated_gpu(), torch.no_grad():
        y, _ = layer(x)
    assert y.grad_fn is None
    assert torch.equal(y, found[0][0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wanted", ["x", "h0", "weight_ih_l0", "weight_hh_l0_reverse", "bias_ih_l0", "bias_hh_l0_reverse"]
)
def test_only_what_is_asked_for_is_computed(name, wanted, emulated_gpu, monkeypatch):
    """And has the same bits as beside all others."""
    from fusedrnn.cuda import cells

    computed = []
    backward = cells.backward
    monkeypatch.setattr(cells, "backward", lambda *a: computed.append(backward(*a)) or computed[-1])
    layer = getattr(ft, name)(5, 17, bidirectional=True)
    x, *states = problem(name, directions=2)
    given = {"x": x, "h0": states[0], **dict(layer.named_parameters())}

    def gradients(names):
        for key, tensor in given.items():
            tensor.grad = None
            tensor.requires_grad_(key in names)
        with emulated_gpu():
            y, _ = with_states(layer, x, *states)
        y.square().sum().backward()
        return {key: tensor.grad for key, tensor in given.items() if tensor.grad is not None}

    every, alone = gradients(given), gradients([wanted])
    assert every.keys() == given.keys()
    assert alone.keys() == {wanted}
    assert torch.equal(alone[wanted], every[wanted])
    found = computed[-1]
    parts = {"x": found.dx, **dict(zip(dict(layer.named_parameters()), sum(found.weights, ()), strict=True))}
    assert {key for key, part in parts.items() if part is not None} == {wanted} - {"h0"}, "the kernels give dh0"


def test_nothing_is_kept_where_nobody_can_ask_for_gradients(emulated_gpu, monkeypatch):
    from fusedrnn.cuda import cells

    kept = []
    forward = cells.forward
    monkeypatch.setattr(cells, "forward", lambda *a: [out := forward(*a), kept.append(out.kept is not None)][0])
    layer = ft.LSTM(5, 17)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        layer(x)
        layer.eval()(x)
        with torch.no_grad():
            layer(x)
        layer.requires_grad_(False)(x)
    assert kept == [True, True, False, False]


def test_dropout_between_layers(emulated_gpu):
    torch.manual_seed(7)
    layer = ft.LSTM(5, 17, 2, dropout=0.5)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        assert not torch.equal(layer(x)[0], layer(x)[0])
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_that_of_the_cpu_in_both_passes(name, emulated_gpu):
    torch.manual_seed(7)
    layer = getattr(ft, name)(5, 17, 3, dropout=0.25, bidirectional=True)
    found = []
    x = torch.randn(4, 3, 5)
    for where in (emulated_gpu, contextlib.nullcontext):
        own, given = copy.deepcopy(layer), x.clone().requires_grad_()
        torch.manual_seed(8)  # of the same masks
        with where():
            y, _ = own(given)
        y.square().sum().backward()
        found.append([y, given.grad, *[p.grad for p in own.parameters()]])
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected.double(), "dropout")


def test_tensors_that_are_not_contiguous(emulated_gpu):
    torch.manual_seed(7)
    layer = ft.GRU(5, 17, bidirectional=True)
    for name in ("weight_ih_l0", "weight_hh_l0_reverse"):
        weight = getattr(layer, name).detach()
        setattr(layer, name, torch.nn.Parameter(weight.t().contiguous().t()))

    def call(layer, x, h):  # an initial state that is learned, for all rows; gradients of other strides
        y, h_n = layer(x.transpose(0, 2), h.expand(-1, 3, -1))
        return y.transpose(0, 1), h_n.transpose(0, 2)

    assert_like_pytorch(layer, emulated_gpu, call, [torch.randn(5, 3, 4), torch.randn(2, 1, 17)])


class Watch(TorchFunctionMode):
    """Calls that bring values to the host, and so wait for a GPU."""

    def __init__(self):
        self.seen = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        name = getattr(function, "__name__", "")
        to_host = name == "to" and any(
            isinstance(a, str) and a == "cpu" for a in (*arguments[1:], *(keywords or {}).values())
        )
        reads = ("item", "tolist", "numpy", "cpu", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
        if to_host or name in (*reads, "__bool__", "__int__", "__float__", "__index__", "__array__"):
            self.seen.append(name)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_gpu(name, emulated_gpu, monkeypatch):
    """So that a CUDA graph can hold it."""
    from fusedrnn.cuda import arrays

    layer = getattr(ft, name)(5, 17, 2, dropout=0.5, bidirectional=True)
    cell = getattr(ft, f"{name}Cell")(5, 17)
    x = torch.randn(4, 3, 5, requires_grad=True)
    with Watch() as watch, emulated_gpu():
        monkeypatch.setattr(arrays, "on_gpu", lambda value: isinstance(value, torch.Tensor))
        y, _ = layer(x, lengths=torch.tensor([4, 2, 0]))
        state = cell(x[0])
        h = state[0] if name == "LSTM" else state
        torch.autograd.backward([y, h], [torch.ones_like(y), torch.ones_like(h)])
    assert watch.seen == []
    with Watch() as watch:
        x.detach().to("cpu").max().item()
    assert watch.seen == ["to", "item"]


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast(low, emulated_gpu, gpu_calls):
    torch.manual_seed(8)
    layer, cell = ft.LSTM(5, 17), ft.GRUCell(5, 17)
    x = torch.randn(4, 3, 5, requires_grad=True)
    h0, c0 = torch.randn(2, 1, 3, 17)
    with emulated_gpu(), autocast(low):
        y, (h_n, c_n) = layer(x, (h0, c0))
        h = cell(x[0], h0[0])
    assert gpu_calls() == 2
    assert {t.dtype for t in (y, h_n, c_n, h)} == {low}
    assert_close(y, in_float64(layer)(x.double(), (h0.double(), c0.double()))[0], "y", low)
    y.float().sum().backward()
    assert x.grad.dtype is layer.weight_hh_l0.grad.dtype is torch.float32


@pytest.mark.filterwarnings("ignore:.* on a GPU")
def test_autocast_leaves_float64_alone(emulated_gpu, gpu_calls):
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    with emulated_gpu(), autocast(torch.bfloat16):
        assert ft.LSTM(5, 17).double()(x)[0].dtype is torch.float64
        assert ft.GRUCell(5, 17).double()(x[0]).dtype is torch.float64
    assert len(ft.fallbacks) == 2
    assert gpu_calls() == 0


def test_products_are_not_cast(emulated_gpu, monkeypatch):
    """Nor is anything else that the kernels read, whoever calls under autocast."""
    from fusedrnn.cuda import cells

    seen = []

    def watch(name):
        function = getattr(cells, name)
        watched = lambda *a: seen.append((name, torch.is_autocast_enabled("cuda"))) or function(*a)  # noqa: E731
        monkeypatch.setattr(cells, name, watched)

    for name in ("forward", "backward"):
        watch(name)
    layer = ft.GRU(5, 17)
    x = torch.randn(4, 3, 5)
    weights = [p.detach() for p in layer.parameters()]
    with emulated_gpu(), autocast(torch.bfloat16):
        layer(x)[0].float().sum().backward()
        y, _, reserve = fusedrnn.gru_forward(x, None, *weights)
        fusedrnn.gru_backward(torch.ones_like(y), None, reserve)
    assert seen == [("forward", False), ("backward", False)] * 2


def test_second_derivatives_are_refused(emulated_gpu):
    layer = ft.GRU(5, 17)
    x = torch.randn(4, 3, 5, requires_grad=True)
    with emulated_gpu():
        y, _ = layer(x)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (plain,) = torch.autograd.grad(layer(x)[0].sum(), x)
    assert_close(dx, plain.double(), "dx")
    with pytest.raises(RuntimeError, match="there are no derivatives of gradients"):
        dx.sum().backward()


def test_a_weight_that_changed_before_backward_is_an_error(emulated_gpu):
    layer = ft.LSTM(5, 17)
    with emulated_gpu():
        y, _ = layer(torch.randn(4, 3, 5))
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_lengths_on_the_gpu_are_not_read(emulated_gpu, monkeypatch):
    from fusedrnn.cuda import arrays

    layer = ft.GRU(5, 17)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        expected, _ = layer(x, lengths=[4, 2, 0])
        monkeypatch.setattr(arrays, "on_gpu", lambda value: isinstance(value, torch.Tensor))
        y, _ = layer(x, lengths=torch.tensor([7, 2, -1]))
    assert torch.equal(y, expected)


@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
def test_functional_takes_tensors(low, emulated_gpu):
    torch.manual_seed(9)
    layer = torch.nn.GRU(5, 17).to(low)
    x = torch.randn(4, 3, 5).to(low)
    weights = [p.detach() for p in layer.parameters()]
    with emulated_gpu():
        y, h_n, reserve = fusedrnn.gru_forward(x, None, *weights)
        gradients = fusedrnn.gru_backward(torch.ones_like(y), None, reserve)
    theirs = in_float64(layer)
    expected, _ = theirs(x.double())
    expected.sum().backward()
    assert_close(y, expected, "y", low)
    assert_close(h_n, expected[-1], "h_n", low)
    for ours, parameter in zip(gradients[2:6], theirs.parameters(), strict=True):
        assert_close(ours, parameter.grad, "gradient", low)


def test_lengths_that_are_read_only(emulated_gpu):
    lengths = np.array([4, 2, 0], np.int32)
    lengths.setflags(write=False)
    x, weights = torch.randn(4, 3, 5), [p.detach() for p in torch.nn.GRU(5, 17).parameters()]
    with emulated_gpu():
        found = fusedrnn.gru_forward(x, None, *weights, lengths=lengths)
        expected = fusedrnn.gru_forward(x, None, *weights, lengths=[4, 2, 0])
    assert torch.equal(found[0], expected[0])


def test_the_stream_is_the_current_one_of_the_tensors_gpu():
    from fusedrnn.cuda import arrays

    entered = []

    @contextlib.contextmanager
    def device_of(tensor):
        entered.append(tensor.device)
        yield

    streams = SimpleNamespace(
        device_of=device_of, current_stream=lambda device=0: SimpleNamespace(cuda_stream=10 + device)
    )
    with arrays.Torch(SimpleNamespace(cuda=streams)).stream(SimpleNamespace(device=1)) as stream:
        assert stream == 11
    assert entered == [1]
