"""Other libraries' layouts: there and back, and the same function by that library's equations, or by the library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedrnn import nn
from fusedrnn.interop import layouts

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SIZES = st.fixed_dictionaries(
    {
        "input_size": st.integers(1, 9),
        "hidden_size": st.integers(1, 9),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "bias": st.booleans(),
        "dtype": st.sampled_from(["float32", "float64"]),
        "rng": st.integers(0, 99),
    }
)
quickly = settings(max_examples=25, deadline=None)


def assert_equal_states(state, expected):
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert state[name].dtype == array.dtype, name
        assert state[name].flags.c_contiguous, name
        np.testing.assert_array_equal(state[name], array, err_msg=name)


def outputs(layer, x, state=None):
    """y and the last states, in evaluation."""
    y, last = layer.eval()(x, state)
    return (y, *last) if isinstance(last, tuple) else (y, last)


@quickly
@given(kind=st.sampled_from(["rnn", "lstm", "gru"]), options=SIZES)
def test_onnx_and_back_is_the_same(kind, options):
    state = CELLS[kind](**options).state_dict()
    there = [layouts.to_onnx(state, kind, layer=k) for k in range(options["num_layers"])]
    back = {}
    for layer, tensors in enumerate(there):
        back.update(layouts.from_onnx(tensors, kind, layer=layer))
    assert_equal_states(back, state)
    assert there[0]["W"].shape[::2] == (1 + options["bidirectional"], options["input_size"])


@quickly
@given(kind=st.sampled_from(["rnn", "lstm", "gru"]), options=SIZES, reset_after=st.booleans())
def test_keras_and_back_is_the_same_function_and_then_the_same_weights(kind, options, reset_after):
    """The first way sums two biases into one, except for the GRU that needs both; from then on nothing changes."""
    own = {"reset_after": reset_after} if kind == "gru" else {}
    layer = CELLS[kind](**options, **own)

    def weights(state):
        return [layouts.to_keras(state, kind, layer=k, **own) for k in range(options["num_layers"])]

    there, back = weights(layer.state_dict()), {}
    for k, arrays in enumerate(there):
        back.update(layouts.from_keras(arrays, kind, layer=k))
    for arrays, again in zip(there, weights(back), strict=True):
        for a, b in zip(arrays, again, strict=True):
            np.testing.assert_array_equal(a, b)
    if kind == "gru" and reset_after:
        assert_equal_states(back, layer.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 3, options["input_size"])).astype(options["dtype"])
    before = outputs(layer, x)
    layer.load_state_dict(back)
    for a, b in zip(before, outputs(layer, x), strict=True):
        np.testing.assert_array_equal(a, b)  # to the bit


@quickly
@given(kind=st.sampled_from(["lstm", "gru"]), options=SIZES, layer=st.integers(0, 2))
def test_haste_and_back(kind, options, layer):
    options = {**options, "bidirectional": False, "num_layers": layer + 1}
    state = CELLS[kind](**options).state_dict()
    there = layouts.to_haste(state, kind, layer=layer)
    assert there.keys() >= {"kernel", "recurrent_kernel", "bias"}
    back = layouts.from_haste(there, kind, layer=layer)
    for name in ("kernel", "recurrent_kernel", "bias"):
        np.testing.assert_array_equal(layouts.to_haste(back, kind, layer=layer)[name], there[name])
    if options["bias"]:
        suffix = f"_l{layer}"
        total = state["bias_ih" + suffix] + state["bias_hh" + suffix]
        np.testing.assert_array_equal(back["bias_ih" + suffix] + back["bias_hh" + suffix], total)
        if kind == "gru":
            assert_equal_states(back, {k: v for k, v in state.items() if k.endswith(suffix)})


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm(order, x, kernel, recurrent_kernel, bias):
    """[T, N, H]: Keras's (order "ifgo") and haste's ("igfo") LSTM, from zeros."""
    h = c = np.zeros((x.shape[1], len(recurrent_kernel)))
    y = []
    for x_t in x:
        gate = dict(zip(order, np.split(x_t @ kernel + h @ recurrent_kernel + bias, 4, axis=1), strict=True))
        c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
        h = sigmoid(gate["o"]) * np.tanh(c)
        y.append(h)
    return np.stack(y)


def gru(reset_after, x, kernel, recurrent_kernel, bias, recurrent_bias):
    """[T, N, H]: Keras's and (reset after) haste's GRU, gates z, r, h, from zeros."""
    H = len(recurrent_kernel)
    h = np.zeros((x.shape[1], H))
    y = []
    for x_t in x:
        x_z, x_r, x_h = np.split(x_t @ kernel + bias, 3, axis=1)
        h_z, h_r, h_h = np.split(h @ recurrent_kernel + recurrent_bias, 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        if not reset_after:
            h_h = (r * h) @ recurrent_kernel[:, 2 * H :] + recurrent_bias[2 * H :]
            r = 1
        h = z * h + (1 - z) * np.tanh(x_h + r * h_h)
        y.append(h)
    return np.stack(y)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((5, 3, 4))


def test_kerass_equations(x, assert_close):
    layer = nn.LSTM(4, 6, dtype="float64", rng=0)
    y = lstm("ifgo", x, *layouts.to_keras(layer.state_dict(), "lstm"))
    assert_close(y, layer(x)[0], "float64", "LSTM")
    layer = nn.RNN(4, 6, dtype="float64", rng=0)
    kernel, recurrent_kernel, bias = layouts.to_keras(layer.state_dict(), "rnn")
    y, h = [], np.zeros((3, 6))
    for x_t in x:
        h = np.tanh(x_t @ kernel + h @ recurrent_kernel + bias)
        y.append(h)
    assert_close(np.stack(y), layer(x)[0], "float64", "SimpleRNN")


@pytest.mark.parametrize("reset_after", [True, False])
def test_kerass_equations_of_the_gru(x, reset_after, assert_close):
    layer = nn.GRU(4, 6, reset_after=reset_after, dtype="float64", rng=0)
    kernel, recurrent_kernel, bias = layouts.to_keras(layer.state_dict(), "gru", reset_after=reset_after)
    biases = bias if reset_after else (bias, np.zeros_like(bias))
    assert_close(gru(reset_after, x, kernel, recurrent_kernel, *biases), layer(x)[0], "float64", "GRU")


def test_hastes_equations(x, assert_close):
    for cell, equations in (("lstm", lambda *a: lstm("igfo", *a)), ("gru", lambda *a: gru(True, *a))):
        layer = CELLS[cell](4, 6, dtype="float64", rng=0)
        y = equations(x, *layouts.to_haste(layer.state_dict(), cell).values())
        assert_close(y, layer(x)[0], "float64", cell)


def test_onnxs_peepholes_are_i_o_f():
    state = nn.LSTM(2, 3, rng=0).state_dict()
    state["weight_peephole_l0"] = np.arange(9, dtype=np.float32).reshape(3, 3)  # i, f, o
    tensors = layouts.to_onnx(state, "lstm")
    np.testing.assert_array_equal(tensors["P"], [[0, 1, 2, 6, 7, 8, 3, 4, 5]])
    assert_equal_states(layouts.from_onnx(tensors, "lstm"), state)


def test_onnxs_coupled_gates_keep_rows_of_a_forget_gate():
    layer = nn.LSTM(2, 3, coupled=True, peephole=True, bidirectional=True, rng=0)
    state = layer.state_dict()
    tensors = layouts.to_onnx(state, "lstm", coupled=True)
    for name, array in (("R", "weight_hh_l0_reverse"), ("W", "weight_ih_l0_reverse")):
        i, g, o = np.split(state[array], 3)
        np.testing.assert_array_equal(tensors[name][1], np.concatenate([i, o, np.zeros_like(i), g]))
    assert tensors["B"].shape == (2, 24)
    tensors["R"][:, 6:9] = tensors["W"][:, 6:9] = 7  # they do nothing
    assert_equal_states(layouts.from_onnx(tensors, "lstm", coupled=True), state)


def test_halves_become_float32_and_dtype_casts():
    state = {"a.weight_ih": np.ones((4, 1), np.float16), "steps": np.array(3), "b.weight": np.ones(2)}
    ours = layouts.from_pytorch(state)
    assert {name: a.dtype.name for name, a in ours.items()} == {
        "a.weight_ih_l0": "float32",
        "steps": "int64",
        "b.weight": "float64",
    }
    assert layouts.from_pytorch(state, dtype="float32")["b.weight"].dtype == np.float32


def test_results_share_no_memory():
    state = nn.GRU(2, 3, rng=0).state_dict()
    arrays = [
        *layouts.to_keras(state, "gru"),
        *layouts.to_onnx(state, "gru").values(),
        *layouts.from_pytorch(state).values(),
    ]
    for array in arrays:
        assert not any(np.shares_memory(array, own) for own in state.values())


LSTM = nn.LSTM(2, 3, rng=0).state_dict()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layouts.from_keras([], "elman"), ValueError, "cell: expected 'rnn', 'lstm', 'gru', got 'elman'"),
        (lambda: layouts.to_haste(LSTM, "rnn"), ValueError, "cell: expected 'lstm', 'gru', got 'rnn'"),
        (lambda: layouts.from_keras([1], "lstm"), ValueError, "weights: expected kernel.*got 1 arrays"),
        (
            lambda: layouts.from_keras([np.ones((2, 12)), np.ones((3, 9))], "lstm"),
            ValueError,
            r"recurrent_kernel: expected shape \(3, 12\), got \(3, 9\)",
        ),
        (
            lambda: layouts.from_keras([np.ones((2, 9)), np.ones((3, 9)), np.ones((3, 9))], "gru"),
            ValueError,
            r"bias: expected shape \(2, 9\), got \(3, 9\)",
        ),
        (lambda: layouts.to_keras(LSTM, "gru"), ValueError, r"weight_.h_l0: expected shape \(9, .\), got \(12, .\)"),
        (lambda: layouts.to_keras(LSTM, "lstm", layer=1), KeyError, "expected weight_ih_l1, weight_hh_l1"),
        (
            lambda: layouts.to_onnx({**LSTM, "weight_hr_l0": np.ones((2, 3))}, "lstm"),
            ValueError,
            "weight_hr_l0: expected no such weights, which ONNX does not have",
        ),
        (
            lambda: layouts.to_keras({**LSTM, "weight_peephole_l0": np.ones((3, 3))}, "lstm"),
            ValueError,
            "weight_peephole_l0: expected no such weights, which Keras does not have",
        ),
        (
            lambda: layouts.to_haste(nn.LSTM(2, 3, bidirectional=True).state_dict(), "lstm"),
            ValueError,
            "state: expected one direction, as haste has",
        ),
        (lambda: layouts.from_haste({"kernel": 1}, "gru"), ValueError, "state_dict: expected kernel.*got kernel"),
        (
            lambda: layouts.from_onnx({"W": np.ones((1, 12, 2)), "R": np.ones((1, 9, 3))}, "lstm"),
            ValueError,
            r"R: expected shape \(1, 12, 3\), got \(1, 9, 3\)",
        ),
        (lambda: layouts.from_onnx({**layouts.to_onnx(LSTM, "lstm"), "P": np.ones((1, 8))}, "lstm"), ValueError, "P: "),
        (lambda: layouts.to_onnx({}, "gru", coupled=True), ValueError, "coupled: expected False for gru, got True"),
        (lambda: layouts.to_onnx(LSTM, "lstm", coupled=True), ValueError, r"weight_ih_l0: expected shape \(9, I\)"),
        (lambda: layouts.from_onnx({"P": np.ones((1, 9))}, "gru"), ValueError, r"tensors: .*got \['P'\]"),
    ],
)  # fmt: skip
def test_errors_name_the_array(call, error, message):
    with pytest.raises(error, match=message):
        call()


TORCH_OPTIONS = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}]


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", TORCH_OPTIONS, ids=["plain", "two_by_two", "no_bias"])
def test_pytorch_both_ways(name, options, assert_close):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    theirs, ours = getattr(torch.nn, name)(4, 6, **options), getattr(nn, name)(4, 6, rng=0, **options)
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    theirs.load_state_dict(layouts.to_pytorch(ours.state_dict()))
    with torch.no_grad():
        assert_close(outputs(ours, x)[0], theirs(torch.tensor(x))[0].numpy(), "float32", "ours in PyTorch")
        for parameter in theirs.parameters():
            parameter.uniform_(-0.5, 0.5)
        ours.load_state_dict(layouts.from_pytorch(theirs.state_dict()))
        assert_close(outputs(ours, x)[0], theirs(torch.tensor(x))[0].numpy(), "float32", "PyTorch's in ours")
    assert_equal_states(layouts.from_pytorch(layouts.to_pytorch(ours.state_dict())), ours.state_dict())


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_pytorchs_cells(name, assert_close):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    theirs, ours = getattr(torch.nn, name)(4, 6), getattr(nn, name)(4, 6)
    ours.layer.load_state_dict(layouts.from_pytorch(theirs.state_dict()))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    with torch.no_grad():
        h = theirs(torch.tensor(x))
    assert_close(ours.step(x), (h[0] if isinstance(h, tuple) else h).numpy(), "float32", name)
    back = layouts.to_pytorch(ours.layer.state_dict(), cell=True)
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    with pytest.raises(ValueError, match="weight_ih_l1: expected one layer of one direction"):
        layouts.to_pytorch(nn.GRU(1, 1, 2).state_dict(), cell=True)


def test_pytorchs_projection_prefixes_and_bfloat16():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(4, 6, proj_size=2), "head": torch.nn.Linear(2, 1)}).bfloat16()
    state = layouts.from_pytorch(model.state_dict())
    assert state.keys() == model.state_dict().keys()
    assert "rnn.weight_hr_l0" in state
    for name, tensor in model.state_dict().items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], tensor.float().numpy())
    model.float().load_state_dict(layouts.to_pytorch(state))
    assert layouts.to_pytorch(state, dtype="float64")["head.bias"].dtype == torch.float64


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")  # where nothing has imported Keras before; it needs no other library
    return pytest.importorskip("keras", minversion="3", reason="Keras 3 is not installed", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within Keras
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(
    ("kind", "name", "own"),
    [
        ("rnn", "SimpleRNN", {}),
        ("lstm", "LSTM", {}),
        ("gru", "GRU", {"reset_after": True}),
        ("gru", "GRU", {"reset_after": False}),
    ],
)
def test_keras_itself(keras, kind, name, own, use_bias, bidirectional, assert_close):
    layer = getattr(keras.layers, name)(6, return_sequences=True, use_bias=use_bias, **own)
    theirs = keras.layers.Bidirectional(layer) if bidirectional else layer
    ours = CELLS[kind](4, 6, bias=use_bias, bidirectional=bidirectional, batch_first=True, rng=0, **own)
    x = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    theirs(x)  # builds it
    theirs.set_weights(layouts.to_keras(ours.state_dict(), kind, **own))
    assert_close(outputs(ours, x)[0], np.asarray(theirs(x)), "float32", "ours in Keras")
    rng = np.random.default_rng(1)
    theirs.set_weights([rng.uniform(-0.5, 0.5, w.shape).astype(np.float32) for w in theirs.get_weights()])
    ours.load_state_dict(layouts.from_keras(theirs.get_weights(), kind))
    assert_close(outputs(ours, x)[0], np.asarray(theirs(x)), "float32", "Keras's in ours")
