"""Layers of PyTorch on a GPU, whose kernels run on the emulator: tensors on the CPU count as a GPU's."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fusedrnn[torch]'")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

NAMES = ("RNN", "LSTM", "GRU")
# Largest error relative to the largest value or 1. A bit is 2^-24 of float32, 2^-8 of bfloat16 and 2^-11 of float16; y,
# gates and dgates are rounded to it at each of 4 steps, and what is rounded passes through another layer.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 16 * 2.0**-9, torch.float16: 16 * 2.0**-12}


@pytest.fixture
def gpu_calls(monkeypatch):
    """The number of passes forward through the kernels so far."""
    from fusedrnn.cuda import cells

    counted = []
    forward = cells.forward
    monkeypatch.setattr(cells, "forward", lambda *a, **k: counted.append(a) or forward(*a, **k))
    return lambda: len(counted)


def in_float64(layer):
    """PyTorch's layer or cell with the same parameters."""
    kind = getattr(torch.nn, type(layer).__name__)
    constants = ("num_layers", "bidirectional", "batch_first", "dropout", "nonlinearity")
    given = {name: getattr(layer, name) for name in constants if hasattr(layer, name)}
    theirs = kind(layer.input_size, layer.hidden_size, bias=layer.bias, dtype=torch.float64, **given)
    theirs.load_state_dict(layer.state_dict())
    return theirs.train(layer.training)


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
    x = torch.randn(3, 4, 5)
    with emulated_gpu():
        outputs = flat(layer(x, lengths=given))
    expected = flat(on_cpu(x, lengths=given))
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


def test_only_what_is_asked_for_has_a_gradient(emulated_gpu):
    layer = ft.GRU(5, 17)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        _, h_n = layer(x)
    h_n.sum().backward()
    assert x.grad is None
    layer.requires_grad_(False)
    x.requires_grad_()
    with emulated_gpu():
        layer(x)[0].sum().backward()
    assert x.grad is not None


def test_dropout_between_layers(emulated_gpu):
    torch.manual_seed(7)
    layer = ft.LSTM(5, 17, 2, dropout=0.5)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        assert not torch.equal(layer(x)[0], layer(x)[0])
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast(low, emulated_gpu):
    torch.manual_seed(8)
    layer, cell = ft.LSTM(5, 17), ft.GRUCell(5, 17)
    x = torch.randn(4, 3, 5, requires_grad=True)
    enabled, before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)  # torch.autocast would look for a GPU
    torch.set_autocast_dtype("cuda", low)
    try:
        with emulated_gpu():
            y, (h_n, c_n) = layer(x)
            h = cell(x[0])
    finally:
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", before)
    assert {t.dtype for t in (y, h_n, c_n, h)} == {low}
    assert_close(y, in_float64(layer)(x.double())[0], "y", low)
    y.float().sum().backward()
    assert x.grad.dtype is layer.weight_hh_l0.grad.dtype is torch.float32


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


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("LSTM", "layer_norm", True), ("LSTM", "peephole", True), ("LSTM", "coupled", True), ("LSTM", "cell_clip", 1.0),
     ("LSTM", "activations", ("sigmoid", "relu", "tanh")), ("GRU", "zoneout_h", 0.1), ("GRU", "reset_after", False),
     ("GRU", "recurrent_dropout", 0.1), ("RNN", "dropconnect", 0.1), ("RNN", "nonlinearity", "softsign"),
     ("RNN", "grad_clip", 1.0)],
)  # fmt: skip
def test_an_option_that_a_gpu_has_not_is_refused_by_name(name, option, value, emulated_gpu):
    layer = getattr(ft, name)(5, 17, **{option: value})
    with emulated_gpu(), pytest.raises(ValueError, match=f"^{option}: .* do not take {option} on a GPU"):
        layer(torch.randn(4, 3, 5))


def test_resets_are_refused(emulated_gpu):
    with emulated_gpu(), pytest.raises(ValueError, match=r"^resets: "):
        ft.GRU(5, 17)(torch.randn(4, 3, 5), resets=torch.zeros(4, 3, dtype=torch.bool))


def test_lengths_on_the_gpu_are_not_read(emulated_gpu, monkeypatch):
    from fusedrnn.cuda import arrays

    layer = ft.GRU(5, 17)
    x = torch.randn(4, 3, 5)
    with emulated_gpu():
        expected, _ = layer(x, lengths=[4, 2, 0])
        monkeypatch.setattr(arrays, "on_gpu", lambda value: isinstance(value, torch.Tensor))
        y, _ = layer(x, lengths=torch.tensor([7, 2, -1]))
    assert torch.equal(y, expected)


@pytest.mark.parametrize("lengths", [[1, 2], [1, 2, 5]])
def test_wrong_lengths(lengths, emulated_gpu):
    with emulated_gpu(), pytest.raises(ValueError, match=r"^lengths: "):
        ft.GRU(5, 17)(torch.randn(4, 3, 5), lengths=lengths)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_the_kernels_do_not_take_is_pytorchs_own(emulated_gpu, gpu_calls):
    with emulated_gpu():
        ft.LSTM(5, 17).double()(torch.randn(4, 3, 5, dtype=torch.float64))
        ft.LSTM(5, 17, proj_size=3)(torch.randn(4, 3, 5))
        ft.GRUCell(5, 17).double()(torch.randn(3, 5, dtype=torch.float64))
        with pytest.raises(ValueError, match=re.escape("lengths: PyTorch's own layers have none")):
            ft.LSTM(5, 17).double()(torch.randn(4, 3, 5, dtype=torch.float64), lengths=[1, 2, 3])
    assert gpu_calls() == 0


def test_what_is_missing_is_said_where_a_layer_goes_to_pytorch(emulated_gpu, gpu_calls, monkeypatch):
    from fusedrnn.cuda import compiled

    monkeypatch.setattr(compiled, "missing", lambda: "no NVIDIA driver is installed")
    layer = ft.LSTM(5, 17)
    with emulated_gpu(), pytest.warns(UserWarning, match="leaves layers on cpu to PyTorch: no NVIDIA driver is"):
        layer(torch.randn(4, 3, 5))
    assert gpu_calls() == 0
    with emulated_gpu():
        report = ft.accelerate(torch.nn.LSTM(5, 17))
    assert "no NVIDIA driver" in report.left[""]


def test_accelerate_takes_layers_on_a_gpu(emulated_gpu):
    model = torch.nn.ModuleList(
        [torch.nn.LSTM(5, 17).to(torch.bfloat16), torch.nn.GRU(5, 17).double(), torch.nn.GRUCell(5, 17)]
    )
    with emulated_gpu():
        report = ft.accelerate(model)
    assert list(report.swapped) == ["0", "2"]
    assert report.left["1"].endswith("the kernels take float32, bfloat16 and float16 on a GPU")


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


def test_tensors_of_two_places(emulated_gpu):
    x = torch.randn(4, 3, 5)
    weight = np.zeros((68, 5), np.float32)
    with emulated_gpu(), pytest.raises(TypeError, match=r"^weight_ih: expected an array on a GPU, got numpy.ndarray"):
        fusedrnn.lstm_forward(x, None, None, weight, torch.zeros(68, 17))
