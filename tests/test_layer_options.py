"""Every option of the recurrent layers: gradients, states, randomness, errors; frozen layers and streams."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.interop import layouts

NAMES = ("sigmoid", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")
GATES = {name: "sigmoid" if name in ("relu", "softplus", "identity") else name for name in NAMES}  # bounded
SHARED = {
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout_h": 0.3},
    "dropout": {"recurrent_dropout": 0.4, "dropconnect": 0.3, "grad_clip": 1e3},
    "initial": {"learn_initial_state": True, "layer_norm": True},
}
OPTIONS = {
    "LSTM": {
        **SHARED,
        "peephole": {"peephole": True, "zoneout_c": 0.2},
        "projection": {"proj_size": 3, "learn_initial_state": True, "layer_norm": True},
        "coupled": {"coupled": True, "peephole": True, "cell_clip": 0.6},
        "recompute": {"recompute": True},
        "residual": {"proj_size": 3, "residual": True, "bias": False},
        **{name: {"activations": (GATES[name], name, name)} for name in NAMES},
    },
    "GRU": {
        **SHARED,
        "reset_before": {"reset_after": False, "recurrent_dropout": 0.4, "zoneout_h": 0.3},
        **{name: {"activations": (GATES[name], name)} for name in NAMES},
    },
    "RNN": {**SHARED, **{name: {"nonlinearity": name} for name in NAMES}},
}
CASES = [(kind, name) for kind, options in OPTIONS.items() for name in options]
every_case = pytest.mark.parametrize(("kind", "name"), CASES)
T, N, I, H = 4, 3, 2, 5  # noqa: E741 - the shape letters of the whole library


def make(kind, name, *sizes, **keywords):
    return getattr(nn, kind)(*(sizes or (I, H, 2)), **{"rng": 0, **OPTIONS[kind][name], **keywords})


def normal(*shape, dtype="float64", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parts(result):
    y, state = result
    return (y, *(state if isinstance(state, tuple) else (state,)))


def states(layer, rows=N):
    """Initial states for a call: h0, or (h0, c0)."""
    arrays = [
        normal(layer.num_layers * layer.directions, rows, size, dtype=layer.dtype, seed=k)
        for k, size in enumerate(layer.states.sizes[0])
    ]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


# Frozen layers and streams


@every_case
@pytest.mark.parametrize("stack", [{}, {"bidirectional": True, "batch_first": True}], ids=["onward", "both_ways"])
def test_a_frozen_layer_has_the_layers_bits(kind, name, stack, assert_same_bits):
    layer = make(kind, name, I, 17, 2, dropout=0.5, **stack).eval()
    frozen, x = layer.freeze(), normal(T, N, I, dtype="float32")
    lengths, resets = [4, 0, 2], normal(T, N) > 0.5
    if layer.batch_first:
        x, resets = x.swapaxes(0, 1), resets.T
    expected = [
        parts(layer(x, state, **data))
        for state in (None, states(layer))
        for data in ({}, {"lengths": lengths}, {"resets": resets}, {"lengths": lengths, "resets": resets})
    ]
    layer.train()
    for parameter in layer.parameters():
        parameter.data.fill(0)
    for state in (None, states(layer)):
        for data in ({}, {"lengths": lengths}, {"resets": resets}, {"lengths": lengths, "resets": resets}):
            assert_same_bits(parts(frozen(x, state, **data)), expected.pop(0), f"{data}")
    assert all(not parameter.grad.any() and parameter.grad.size for parameter in layer.parameters())


@every_case
@pytest.mark.parametrize("rows", [1, N])
def test_a_stream_has_the_layers_bits(kind, name, rows, assert_same_bits):
    layer = make(kind, name, I, 17, 2, batch_first=rows == 1).eval()
    x, start = normal(T, rows, I, dtype="float32"), states(layer, rows)
    stream = layer.stream(rows)
    given = x.swapaxes(0, 1) if layer.batch_first else x
    from_start, from_zeros = parts(layer(given, start)), parts(layer(given))
    for parameter in layer.parameters():
        parameter.data.fill(0)
    for expected in (from_zeros, from_start):
        y = expected[0].swapaxes(0, 1) if layer.batch_first else expected[0]
        assert_same_bits(np.stack([stream.step(step) for step in x]), np.ascontiguousarray(y))
        assert_same_bits(parts((y, stream.state))[1:], expected[1:])
        stream.state = start
    if rows == 1:
        stream.reset()
        assert_same_bits(stream(x[0, 0]), from_zeros[0][0, 0])


def test_a_streams_states_are_copies():
    layer = nn.LSTM(I, H, peephole=True, rng=0)
    stream, x = layer.stream(), normal(1, I, dtype="float32")
    given = states(layer, 1)
    stream.state = given
    for array in (*given, *stream.state):
        array.fill(9)
    stream.state = before = stream.state
    first = stream(x)
    stream.state = before
    np.testing.assert_array_equal(stream(x), first)
    assert not (before[0] == 9).any()


def test_what_concerns_training_alone_does_not_keep_a_layer_from_being_packed(assert_same_bits):
    """One with nothing else computes in evaluation what a plain layer does, at a plain layer's pace."""
    x = normal(T, N, I, dtype="float32")
    for kind in ("LSTM", "GRU", "RNN"):
        layer, plain = make(kind, "dropout").eval(), getattr(nn, kind)(I, H, 2, rng=0).eval()
        assert_same_bits(parts(layer(x)), parts(plain(x)))
        for precision in (None, "int8"):
            ours, theirs = (one.freeze(precision=precision)(x) for one in (layer, plain))
            assert_same_bits(parts(ours), parts(theirs))


def test_errors_of_frozen_layers_and_streams():
    layer = nn.LSTM(I, H, peephole=True, cell_clip=1.0)
    message = r"precision: expected one of None for lstm in float32 with cell_clip, weight_peephole, got 'int8'"
    for call in (layer.freeze, layer.stream):
        with pytest.raises(ValueError, match=message):
            call(precision="int8")
    x = normal(T, N, I, dtype="float32")
    with pytest.raises(ValueError, match="lengths, resets: expected None with precision='bfloat16'"):
        nn.LSTM(I, H).freeze(precision="bfloat16")(x, lengths=[4, 4, 4], resets=np.ones((T, N), bool))
    with pytest.raises(ValueError, match=r"lengths: expected"):
        layer.freeze()(x, lengths=[4, 4])
    stream = layer.stream(2)
    for wrong in (x[0], x[0, 0], x[0, :2, :1]):
        with pytest.raises(ValueError, match=r"x: expected shape \(2, 2\), got"):
            stream(wrong)
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        stream(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="x: expected a NumPy array, got list"):
        stream([[0, 0]] * 2)
    with pytest.raises(ValueError, match="x: expected a C-contiguous array"):
        stream(np.zeros((2, 2), np.float32).T[::-1])
    kept = stream.state
    with pytest.raises(ValueError, match=r"c: expected shape \(1, 2, 5\), got"):
        stream.state = (np.ones((1, 2, 5), np.float32), np.ones((1, 3, 5), np.float32))
    np.testing.assert_array_equal(stream.state, kept)


# Gradients


# The layer hands on what the activations are called; each one's own slope is in tests/test_options.py.
@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case[1] not in NAMES or case[1] == "softsign"])
def test_gradients_are_those_of_differences(kind, name):
    """Of a stack in both directions, with masks: those that the layer draws next, the same in every call."""
    layer = make(kind, name, I, 3, 2, bidirectional=True, batch_first=True, dropout=0.4, dtype="float64")
    arguments = {"x": normal(N, T, I), "lengths": [4, 0, 2]}
    if layer.learn_initial_state:
        for parameter, array in layer.named_parameters():
            if parameter[:3] in ("h0_", "c0_"):
                array.data[...] = normal(*array.data.shape, seed=len(parameter))
    else:
        arguments["state" if kind == "LSTM" else "h0"] = states(layer)
    if not layer.layer_norm:  # of a state that is zero it is too steep for differences
        arguments["resets"] = normal(N, T, seed=2) > 0.6
    result = fusedrnn.gradcheck(layer, arguments, eps=2e-6, max_elements=2)
    real = ("x", *(name for name, _ in layer.named_parameters()))
    assert result.arguments.keys() >= set(real)
    assert {name.partition("[")[0] for name in result.arguments.keys() - set(real)} == arguments.keys() & {
        "state",
        "h0",
    }


def test_parameters_have_the_names_and_shapes_of_the_docstring():
    layer = nn.LSTM(I, H, 2, bidirectional=True, peephole=True, proj_size=3, coupled=True, layer_norm=True, rng=0)
    shapes = {
        name: parameter.data.shape for name, parameter in layer.named_parameters() if name.endswith("_l1_reverse")
    }
    assert shapes == {
        "weight_ih_l1_reverse": (3 * H, 6), "weight_hh_l1_reverse": (3 * H, 3),
        "bias_ih_l1_reverse": (3 * H,), "bias_hh_l1_reverse": (3 * H,),
        "gain_ih_l1_reverse": (3 * H,), "gain_hh_l1_reverse": (3 * H,), "gain_c_l1_reverse": (H,),
        "norm_bias_ih_l1_reverse": (3 * H,), "norm_bias_hh_l1_reverse": (3 * H,), "norm_bias_c_l1_reverse": (H,),
        "weight_peephole_l1_reverse": (3, H), "weight_hr_l1_reverse": (3, H),
    }  # fmt: skip
    assert (layer.gain_c_l0.data == 1).all()
    assert not layer.norm_bias_c_l0.data.any()
    assert 0 < np.abs(layer.weight_hr_l0.data).max() <= H**-0.5


@every_case
def test_a_state_dict_is_the_whole_layer(kind, name, assert_same_bits):
    layer, other = make(kind, name), make(kind, name, rng=1)
    for parameter in layer.parameters():
        parameter.data[...] += 0.1 * normal(*parameter.data.shape, dtype="float32")
    x = normal(T, N, I, dtype="float32")
    expected = parts(layer.eval()(x))
    assert other.eval()(x)[0].tobytes() != expected[0].tobytes()
    other.load_state_dict(layer.state_dict())
    assert_same_bits(parts(other(x)), expected)


# Randomness


@pytest.mark.parametrize(
    ("kind", "name"), [case for case in CASES if case[1] in ("zoneout", "dropout", "peephole", "reset_before")]
)
def test_every_call_in_training_has_masks_of_its_own(kind, name, assert_same_bits):
    layer, x = make(kind, name, bidirectional=True), normal(T, N, I, dtype="float32")
    before = layer.rng_state()
    first, second = parts(layer(x)), parts(layer(x))
    assert first[0].tobytes() != second[0].tobytes()
    layer.set_rng_state(before)
    assert_same_bits((parts(layer(x)), parts(layer(x))), (first, second))
    same = make(kind, name, bidirectional=True)
    assert_same_bits(parts(same(x)), first, "from the same seed")
    layer.eval()
    before = layer.rng_state()
    assert_same_bits(parts(layer(x)), parts(layer(x)), "in evaluation")
    assert layer.rng_state() == before


def test_masks_of_layers_and_directions_differ():
    """Where only the masks differ: equal weights, and x that both directions see alike."""
    layer = nn.RNN(4, 4, 2, bidirectional=True, nonlinearity="identity", bias=False, zoneout_h=0.5, rng=0)
    for name, parameter in layer.named_parameters():
        parameter.data[...] = 0
        if name.startswith("weight_ih"):
            parameter.data[:, :4] = np.eye(4)
    x = np.ones((1, 64, 4), np.float32)
    _, h_n = layer(
        x
    )  # one step from zeros: 0 where the unit is zoned out; the second layer sees the first's onward half
    onward, backward, second, _ = (part != 0 for part in h_n)
    assert 0.3 < onward.mean() < 0.7
    assert (onward != backward).mean() > 0.3
    assert 0.3 < second[onward].mean() < 0.7


def test_evaluation_uses_expectations():
    x, h0 = normal(1, N, I), normal(1, N, H)
    plain, zoneout = (nn.RNN(I, H, dtype="float64", rng=0, zoneout_h=p).eval() for p in (0.0, 0.25))
    h, hz = plain(x, h0)[1], zoneout(x, h0)[1]
    np.testing.assert_allclose(hz, 0.25 * h0 + 0.75 * h, rtol=1e-14)
    zoneout.train()
    draws = [zoneout(x, h0)[1] for _ in range(400)]
    zoneout.forget()
    for draw in draws:
        assert (np.minimum(np.abs(draw - h0), np.abs(draw - h)) < 1e-14).all()
    np.testing.assert_allclose(np.mean(draws, axis=0), hz, atol=0.25)


# Errors and representation


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(2, 3, activations=("tanh", "sine", "tanh")), "activations: expected sigmoid, .*, got 'sine'"),
        (lambda: nn.LSTM(2, 3, activations=("tanh", "tanh")), "activations: expected 3 names, got 2"),
        (lambda: nn.GRU(2, 3, activations=()), "activations: expected 2 names, got 0"),
        (lambda: nn.LSTM(2, 3, proj_size=-1), "proj_size: expected at least 0, got -1"),
        (lambda: nn.LSTM(2, 3, proj_size=1.5), "proj_size: expected an integer, got 1.5"),
        (lambda: nn.LSTM(2, 3, coupled=True, forget_bias=1.0), "forget_bias: expected None for coupled gates"),
        (lambda: nn.LSTM(2, 3, cell_clip=0), "cell_clip: expected a positive number or None, got 0"),
        (lambda: nn.RNN(2, 3, grad_clip=-1.0), "grad_clip: expected a positive number or None, got -1.0"),
        (lambda: nn.GRU(2, 3, zoneout_h=1.5), "zoneout_h: expected 0 <= p <= 1, got 1.5"),
        (lambda: nn.LSTM(2, 3, zoneout_c=-0.5), "zoneout_c: expected 0 <= p <= 1, got -0.5"),
        (lambda: nn.RNN(2, 3, recurrent_dropout=1.0), "recurrent_dropout: expected 0 <= p < 1, got 1.0"),
        (lambda: nn.LSTM(2, 3, dropconnect=float("nan")), "dropconnect: expected 0 <= p < 1, got nan"),
        (lambda: nn.LSTM(2, 3, recompute=True, peephole=True), "recompute: expected False together with weight_peep"),
        (lambda: nn.GRU(2, 3, recompute=True, layer_norm=True), "recompute: expected False together with layer_norm"),
        (lambda: nn.GRU(2, 3, layer_norm=True, reset_after=False), "layer_norm: expected None with reset_after=False"),
        (lambda: nn.LSTM(2, [3, 4], residual=True), r"residual: expected layers of one size, got hidden_size=\[3, 4\]"),
        (
            lambda: nn.LSTM(2, 5, proj_size=3)(np.ones((1, 1, 2), "f4"), (np.ones((1, 1, 5), "f4"),) * 2),
            r"h0: expected shape \(1, 1, 3\), got \(1, 1, 5\)",
        ),
    ],
)
def test_errors_name_the_option(call, message):
    """And come from the constructor, before any call."""
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()


def test_residual_goes_by_what_layers_return(assert_same_bits):
    """Projections to one size: layers whose cells differ in size may be residual."""
    layer, x = nn.LSTM(I, [4, 7], proj_size=3, residual=True, rng=0).eval(), normal(T, N, I, dtype="float32")
    y, (h_n, c_n) = layer(x)
    assert ([h.shape for h in h_n], [c.shape for c in c_n]) == ([(1, N, 3)] * 2, [(1, N, 4), (1, N, 7)])
    below = nn.LSTM(I, 4, proj_size=3, rng=0).eval()
    above = nn.LSTM(3, 7, proj_size=3, rng=0).eval()
    below.load_state_dict({name: a for name, a in layer.state_dict().items() if name.endswith("_l0")})
    above.load_state_dict({f"{name[:-1]}0": a for name, a in layer.state_dict().items() if name.endswith("_l1")})
    x = below(x)[0]
    assert_same_bits(y, above(x)[0] + x)


def test_usual_activations_are_the_plain_cell(assert_same_bits):
    x = normal(T, N, I, dtype="float32")
    for kind, usual in (("LSTM", ["sigmoid", "tanh", "tanh"]), ("GRU", ["sigmoid", "tanh"])):
        named, plain = (getattr(nn, kind)(I, 17, rng=0, recompute=True, **k) for k in ({"activations": usual}, {}))
        assert_same_bits(parts(named(x)), parts(plain(x)))


def test_options_are_shown():
    lstm = nn.LSTM(
        2, 5, 2, peephole=True, proj_size=3, coupled=True, cell_clip=2, activations=["relu", "tanh", "tanh"],
        layer_norm=True, zoneout_c=0.1, recurrent_dropout=0.2, dropconnect=0.3, grad_clip=4, learn_initial_state=True,
    )  # fmt: skip
    again = eval(repr(lstm), {"LSTM": nn.LSTM})
    assert repr(again) == repr(lstm)
    assert {n: a.shape for n, a in again.state_dict().items()} == {n: a.shape for n, a in lstm.state_dict().items()}
    assert again.options == lstm.options
    assert repr(nn.GRU(2, 3, zoneout_h=0.0, reset_after=False)) == "GRU(2, 3, reset_after=False)"
    assert repr(nn.RNN(2, 3, nonlinearity="softsign", zoneout_h=1)) == "RNN(2, 3, zoneout_h=1, nonlinearity='softsign')"


# PyTorch


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True, "bias": False}], ids=str)
def test_pytorchs_projection(options, assert_close):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    theirs = torch.nn.LSTM(I, H, 2, proj_size=3, **options).double()
    layer = nn.LSTM(I, H, 2, proj_size=3, dtype="float64", **options)
    layer.load_state_dict(layouts.from_pytorch(theirs.state_dict()))
    x, state = normal(T, N, I), states(layer, N if not options.get("batch_first") else T)
    inputs = torch.tensor(x, requires_grad=True), [torch.tensor(s, requires_grad=True) for s in state]
    y, last = theirs(inputs[0], tuple(inputs[1]))
    outputs = (y, *last)
    doutputs = [normal(*output.shape, seed=k) for k, output in enumerate(outputs)]
    torch.autograd.backward(outputs, [torch.tensor(d) for d in doutputs])
    for k, (ours, expected) in enumerate(zip(parts(layer(x, state)), outputs, strict=True)):
        assert_close(ours, expected.detach().numpy(), "float64", f"output {k}")
    dx, dstate = layer.backward(doutputs[0], tuple(doutputs[1:]))
    for ours, tensor in zip((dx, *dstate), (inputs[0], *inputs[1]), strict=True):
        assert_close(ours, tensor.grad.numpy(), "float64", "a gradient")
    for name, parameter in theirs.named_parameters():
        assert_close(getattr(layer, name).grad, parameter.grad.numpy(), "float64", name)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_pytorchs_packed_sequences(kind, assert_close):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    rnn = torch.nn.utils.rnn
    theirs = getattr(torch.nn, kind)(I, H, 2, bidirectional=True, batch_first=True).double()
    layer = getattr(nn, kind)(I, H, 2, bidirectional=True, batch_first=True, dtype="float64")
    layer.load_state_dict(layouts.from_pytorch(theirs.state_dict()))
    x, lengths = normal(5, T, I), [2, 4, 1, 4, 3]
    x_theirs = torch.tensor(x, requires_grad=True)
    packed, last = theirs(rnn.pack_padded_sequence(x_theirs, lengths, batch_first=True, enforce_sorted=False))
    y, _ = rnn.pad_packed_sequence(packed, batch_first=True)
    outputs = (y, *(last if kind == "LSTM" else (last,)))
    doutputs = [normal(*output.shape, seed=k) for k, output in enumerate(outputs)]
    torch.autograd.backward(outputs, [torch.tensor(d) for d in doutputs])
    for k, (ours, expected) in enumerate(zip(parts(layer(x, lengths=lengths)), outputs, strict=True)):
        assert_close(ours, expected.detach().numpy(), "float64", f"output {k}")
    dstate = tuple(doutputs[1:]) if kind == "LSTM" else doutputs[1]
    dx, _ = layer.backward(doutputs[0], dstate)
    assert_close(dx, x_theirs.grad.numpy(), "float64", "dx")
    for name, parameter in theirs.named_parameters():
        assert_close(getattr(layer, name).grad, parameter.grad.numpy(), "float64", name)
