"""Layers: stacks, directions, states, gradients, single steps, and the order in which calls are taken back."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn

LAYERS = {
    "rnn": lambda *a, **k: nn.RNN(*a, **k),
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "lstm": lambda *a, **k: nn.LSTM(*a, **k),
    "lstm_forget_bias": lambda *a, **k: nn.LSTM(*a, forget_bias=1.0, **k),
    "gru": lambda *a, **k: nn.GRU(*a, **k),
    "gru_reset_before": lambda *a, **k: nn.GRU(*a, reset_after=False, **k),
}
CELLS = {
    "rnn": (nn.RNNCell, nn.RNN),
    "lstm": (nn.LSTMCell, nn.LSTM),
    "gru": (nn.GRUCell, nn.GRU),
}
T, N, I, H, L = 4, 3, 3, 5, 2  # noqa: E741

every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
every_cell = pytest.mark.parametrize(("make_cell_object", "make_layer"), CELLS.values(), ids=CELLS.keys())


def flat_states(state):
    """(h_n,) or (h_n, c_n), whichever the layer has."""
    return state if isinstance(state, tuple) else (state,)


def as_state(parts):
    return parts if len(parts) == 2 else parts[0]


def initial_states(layer, batch, rng):
    rows = layer.num_layers * layer.directions
    return tuple(rng.standard_normal((rows, batch, layer.hidden_size)) for _ in layer.state_names)


@every_layer
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False, "batch_first": True}, {"bidirectional": True, "batch_first": True}],
    ids=["one_way", "no_bias-batch_first", "both_ways-batch_first"],
)
def test_every_gradient_agrees_with_finite_differences(make, options, finite_differences):
    if make is LAYERS["lstm_forget_bias"] and "bias" in options:
        with pytest.raises(ValueError, match="forget_bias: expected None for a layer without biases"):
            make(I, H, bias=False)
        return
    layer = make(2, 3, L, dtype="float64", rng=1, **options)
    rng = np.random.default_rng(2)
    arguments = {"x": rng.standard_normal((N, T, 2) if layer.batch_first else (T, N, 2))}
    names = layer.state_names
    arguments.update(zip(names, initial_states(layer, N, rng), strict=True))
    parameters = dict(layer.named_parameters())
    arguments.update({name: p.data.copy() for name, p in parameters.items()})

    def forward(values):
        layer.load_state_dict({name: values[name] for name in parameters})
        y, state = layer(values["x"], as_state(tuple(values[name] for name in names)))
        return (y, *flat_states(state))

    outputs = forward(arguments)
    doutputs = tuple(rng.standard_normal(o.shape) for o in outputs)
    dx, dstate = layer.backward(doutputs[0], as_state(doutputs[1:]))
    layer.eval()
    numeric = finite_differences(forward, arguments, doutputs)
    np.testing.assert_allclose(dx, numeric["x"], rtol=1e-6, atol=1e-7)
    for name, ours in zip(names, flat_states(dstate), strict=True):
        np.testing.assert_allclose(ours, numeric[name], rtol=1e-6, atol=1e-7, err_msg=name)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.grad, numeric[name], rtol=1e-6, atol=1e-7, err_msg=name)


@every_layer
def test_a_stack_is_its_layers_one_after_the_other(make, assert_same_bits):
    """Also pins the meaning of parameter names: layer k's are suffixed _lk, the way back's _reverse."""
    stack = make(I, H, 2, bidirectional=True, rng=0)
    x = np.random.default_rng(1).standard_normal((T, N, I)).astype("f4")
    y, state = stack(x)
    state_dict = stack.state_dict()
    below, finals = x, []
    for layer in range(2):
        parts = []
        for suffix in ("", "_reverse"):
            single = make(below.shape[2], H)
            single.load_state_dict(
                {name: state_dict[name.replace("_l0", f"_l{layer}") + suffix] for name in single.state_dict()}
            )
            out, final = single(np.ascontiguousarray(below[::-1]) if suffix else below)
            parts.append(out[::-1] if suffix else out)
            finals.append(flat_states(final))
        below = np.concatenate(parts, axis=2)
    assert_same_bits(np.ascontiguousarray(y), below)
    for k, ours in enumerate(flat_states(state)):
        assert_same_bits(ours, np.concatenate([f[k] for f in finals]))


@every_layer
def test_absent_gradients_are_zeros(make, assert_same_bits):
    layer = make(I, H, L, rng=0)
    x = np.ones((T, N, I), "f4")
    y, state = layer(x)
    zeros = as_state(tuple(np.zeros_like(s) for s in flat_states(state)))
    ones = as_state(tuple(np.ones_like(s) for s in flat_states(state)))

    def gradients(dy, dstate):
        layer.zero_grad()
        layer(x)
        dx, dinitial = layer.backward(dy, dstate)
        return (dx, *flat_states(dinitial), *(p.grad.copy() for p in layer.parameters()))

    assert_same_bits(gradients(np.ones_like(y), None), gradients(np.ones_like(y), zeros))
    np.testing.assert_array_equal(gradients(None, ones)[0], gradients(np.zeros_like(y), ones)[0])


@every_layer
def test_without_input_grad_only_dx_is_missing(make, assert_same_bits):
    layer = make(I, H, L, rng=0)
    x = np.random.default_rng(0).standard_normal((T, N, I)).astype("f4")
    y, _ = layer(x)
    layer(x)
    dx, _ = layer.backward(y)
    assert dx.shape == x.shape
    wanted = tuple(p.grad.copy() for p in layer.parameters())
    layer.zero_grad()
    dx, _ = layer.backward(y, input_grad=False)
    assert dx is None
    assert_same_bits(tuple(p.grad for p in layer.parameters()), wanted)


def test_calls_are_taken_back_last_first_and_gradients_add_up():
    layer = nn.GRU(I, H, rng=0, dtype="float64")
    rng = np.random.default_rng(1)
    xs = [rng.standard_normal((t, 2, I)) for t in (1, 3, 2)]
    alone = []
    for x in xs:
        layer.zero_grad()
        y, _ = layer(x)
        dx, _ = layer.backward(np.ones_like(y))
        alone.append((dx, [p.grad.copy() for p in layer.parameters()]))
    layer.zero_grad()
    ys = [layer(x)[0] for x in xs]
    for y, (dx, _) in zip(ys[::-1], alone[::-1], strict=True):
        np.testing.assert_array_equal(layer.backward(np.ones_like(y))[0], dx)
    for k, p in enumerate(layer.parameters()):
        np.testing.assert_allclose(p.grad, sum(grads[k] for _, grads in alone), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.LSTM(2, 3), np.ones((4, 1, 2), "f4")),
        (nn.Linear(2, 3), np.ones((4, 2), "f4")),
        (nn.Embedding(4, 3), np.ones((4, 2), np.int64)),
        (nn.Dropout(0.5), np.ones((4, 2), "f4")),
    ],
    ids=["lstm", "linear", "embedding", "dropout"],
)
def test_backward_without_a_call_is_an_error(layer, x):
    y = layer(x)
    dy = y[0] if isinstance(y, tuple) else y
    layer.backward(dy)
    with pytest.raises(RuntimeError, match="no call is left to go back through"):
        layer.backward(dy)
    layer.eval()
    layer(x)
    with pytest.raises(RuntimeError, match="no call is left to go back through"):
        layer.backward(dy)
    layer.train()
    layer(x)
    layer.forget()
    with pytest.raises(RuntimeError, match="no call is left to go back through"):
        layer.backward(dy)


@pytest.mark.parametrize(
    ("layer", "x", "wrong", "message"),
    [
        (nn.LSTM(2, 3), np.ones((4, 1, 2), "f4"), np.ones((4, 1, 4), "f4"), r"dy: expected shape \(4, 1, 3\)"),
        (nn.LSTM(2, 3), np.ones((4, 1, 2), "f4"), np.ones((4, 1, 3)), "dy: expected dtype float32"),
        (nn.Linear(2, 3), np.ones((4, 2), "f4"), np.ones((4, 2), "f4"), r"dy: expected shape \(4, 3\)"),
        (nn.Embedding(4, 3), np.ones((4, 2), int), np.ones((4, 2), "f4"), r"dy: expected shape \(4, 2, 3\)"),
    ],
    ids=["lstm_shape", "lstm_dtype", "linear", "embedding"],
)
def test_a_refused_gradient_may_be_given_again(layer, x, wrong, message):
    y = layer(x)
    dy = y[0] if isinstance(y, tuple) else y
    with pytest.raises((ValueError, TypeError), match=message):
        layer.backward(wrong)
    layer.backward(dy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(2, 3)(np.ones((4, 2), "f4")), r"x: expected shape \(T, N, 2\), got \(4, 2\)"),
        (lambda: nn.LSTM(2, 3)(np.ones((4, 1, 5), "f4")), r"x: expected shape \(T, N, 2\), got \(4, 1, 5\)"),
        (lambda: nn.GRU(2, 3, batch_first=True)(np.ones((4, 1), "f4")), r"x: expected shape \(N, T, 2\)"),
        (lambda: nn.LSTM(2, 3)(np.ones((4, 1, 2))), "x: expected dtype float32 as the layer has, got float64"),
        (lambda: nn.LSTM(2, 3)(np.ones((4, 1, 2), int)), "x: expected dtype float32 as the layer has, got int64"),
        (
            lambda: nn.GRU(2, 3, 2)(np.ones((4, 5, 2), "f4"), np.ones((1, 5, 3), "f4")),
            r"h0: expected shape \(2, 5, 3\), got \(1, 5, 3\)",
        ),
        (
            lambda: nn.LSTM(2, 3)(np.ones((4, 5, 2), "f4"), np.ones((1, 5, 3), "f4")),
            "state: expected a pair of arrays or None, got ndarray",
        ),
        (lambda: nn.LSTM(2, 3)(np.ones((0, 5, 2), "f4")), "x: expected a sequence length of at least 1, got 0"),
        (lambda: nn.LSTM(0, 3), "input_size: expected at least 1, got 0"),
        (lambda: nn.LSTM(2, -3), "hidden_size: expected at least 1, got -3"),
        (lambda: nn.LSTM(2, 3, 0), "num_layers: expected at least 1, got 0"),
        (lambda: nn.LSTM(2, 3, dropout=1.0), "dropout: expected a probability"),
        (lambda: nn.LSTM(2, 3, dtype="int32"), "data: expected dtype float32 or float64, got int32"),
        (lambda: nn.RNN(2, 3, nonlinearity="sine"), "nonlinearity: expected one of sigmoid, tanh"),
        (lambda: nn.Linear(2, 3)(np.ones((4, 3), "f4")), r"x: expected shape \(..., 2\), got \(4, 3\)"),
        (lambda: nn.Linear(2, 0), "out_features: expected at least 1, got 0"),
        (lambda: nn.Embedding(2, 3)(np.array([0, 2])), "indices: expected values from 0 to 1, got 0 to 2"),
        (lambda: nn.Embedding(2, 3)(np.array([-1])), "indices: expected values from 0 to 1, got -1"),
        (lambda: nn.Embedding(2, 3)(np.array([0.5])), "indices: expected integers, got float64"),
        (lambda: nn.RNNCell(2, 3).step(np.ones((1, 1, 2), "f4")), r"x: expected shape \(N, 2\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_input_need_not_be_contiguous(assert_same_bits):
    layer = nn.LSTM(3, 4, rng=0)
    wide = np.random.default_rng(0).standard_normal((5, 2, 6)).astype("f4")
    y, _ = layer(wide[:, :, ::2])
    wanted, _ = layer(np.ascontiguousarray(wide[:, :, ::2]))
    assert_same_bits(y, wanted)


def test_an_empty_batch_gives_empty_arrays():
    layer = nn.LSTM(3, 4, 2, bidirectional=True)
    y, (h_n, c_n) = layer(np.zeros((5, 0, 3), "f4"))
    dx, (dh0, dc0) = layer.backward(y)
    assert (y.shape, h_n.shape, c_n.shape) == ((5, 0, 8), (4, 0, 4), (4, 0, 4))
    assert (dx.shape, dh0.shape, dc0.shape) == ((5, 0, 3), (4, 0, 4), (4, 0, 4))
    assert all(not p.grad.any() for p in layer.parameters())


def test_initial_weights_follow_the_seed_and_pytorchs_bound():
    a, b, other = nn.LSTM(3, 16, rng=5), nn.LSTM(3, 16, rng=5), nn.LSTM(3, 16, rng=6)
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])
        assert np.any(value != other.state_dict()[name])
        assert 0.15 < np.abs(value).max() <= 0.25


def test_forget_bias_is_the_sum_of_both_biases():
    plain, shifted = nn.LSTM(2, 3, 2, rng=0), nn.LSTM(2, 3, 2, rng=0, forget_bias=1.5)
    for layer in range(2):
        before, after = plain.state_dict(), shifted.state_dict()
        name = f"bias_ih_l{layer}"
        np.testing.assert_allclose(after[name][3:6], before[name][3:6] + np.float32(1.5))
        np.testing.assert_array_equal(after[name][[0, 1, 2, 6, 7, 8]], before[name][[0, 1, 2, 6, 7, 8]])
        np.testing.assert_array_equal(after[f"bias_hh_l{layer}"][3:6], 0)


def test_dropout_works_between_layers_only_and_only_in_training(assert_same_bits):
    x = np.random.default_rng(0).standard_normal((T, N, I)).astype("f4")
    dry, dropped = nn.LSTM(I, H, 2, rng=0), nn.LSTM(I, H, 2, rng=0, dropout=0.5)
    y_dry, y = dry(x)[0], dropped(x)[0]
    assert np.any(y_dry != y)
    assert_same_bits(dropped.eval()(x)[0], y_dry)
    with pytest.warns(UserWarning, match=r"^dropout: it comes between layers, so dropout=0.5 does nothing in a single"):
        one = nn.LSTM(I, H, 1, rng=0, dropout=0.5)
    assert_same_bits(one(x)[0], nn.LSTM(I, H, 1, rng=0)(x)[0])


def test_dropout_in_a_stack_agrees_with_finite_differences(finite_differences):
    layer = nn.GRU(I, H, 3, dropout=0.4, rng=0, dtype="float64")
    masks = layer.rng_state()
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, H))

    def forward(values):
        layer.set_rng_state(masks)
        return (layer(values["x"])[0],)

    forward({"x": x})
    dx, _ = layer.backward(dy)
    np.testing.assert_allclose(dx, finite_differences(forward, {"x": x}, (dy,))["x"], rtol=1e-6, atol=1e-8)


def test_dropout_keeps_the_mean_and_the_share():
    dropout = nn.Dropout(0.3, rng=0)
    y = dropout(np.ones(100_000, "f4"))
    assert y.dtype == np.float32
    assert abs(float(np.mean(y == 0)) - 0.3) < 0.01
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    np.testing.assert_array_equal(dropout.backward(np.ones_like(y)), y)


@pytest.mark.parametrize("dimensions", [(3,), (5, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_agrees_with_finite_differences(dimensions, bias, finite_differences):
    layer = nn.Linear(3, 4, bias=bias, dtype="float64", rng=0)
    rng = np.random.default_rng(1)
    parameters = dict(layer.named_parameters())
    arguments = {"x": rng.standard_normal(dimensions), **{k: p.data.copy() for k, p in parameters.items()}}

    def forward(values):
        layer.load_state_dict({k: values[k] for k in parameters})
        return (layer(values["x"]),)

    (y,) = forward(arguments)
    np.testing.assert_allclose(
        y, arguments["x"] @ arguments["weight"].T + arguments.get("bias", 0), rtol=1e-12, atol=1e-14
    )
    dy = rng.standard_normal(y.shape)
    dx = layer.backward(dy)
    layer.eval()
    numeric = finite_differences(forward, arguments, (dy,))
    np.testing.assert_allclose(dx, numeric["x"], rtol=1e-6, atol=1e-9)
    for name, p in parameters.items():
        np.testing.assert_allclose(p.grad, numeric[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("padding", [0, 2, -1])
def test_a_padded_vector_is_zero_and_stays_so(padding):
    layer = nn.Embedding(4, 3, padding_idx=padding, rng=0)
    row = padding % 4
    plain = nn.Embedding(4, 3, rng=0)
    indices = np.array([[0, 1, 2], [3, 2, row]])
    y = layer(indices)
    assert not y[indices == row].any()
    np.testing.assert_array_equal(y[indices != row], plain(indices)[indices != row])
    dy = np.ones((2, 3, 3), "f")
    layer.backward(dy)
    plain.backward(dy)
    others = np.arange(4) != row
    np.testing.assert_array_equal(layer.weight.grad[others], plain.weight.grad[others])
    assert not layer.weight.grad[row].any()
    assert repr(layer) == f"Embedding(4, 3, padding_idx={row})"


def test_a_padding_that_there_is_not():
    for padding in (4, -5):
        with pytest.raises(ValueError, match=f"padding_idx: expected -4 to 3, got {padding}"):
            nn.Embedding(4, 3, padding_idx=padding)


@pytest.mark.parametrize("index_dtype", [np.int64, np.int32, np.uint8])
def test_embedding_looks_up_and_adds_up(index_dtype):
    layer = nn.Embedding(6, 3, rng=0)
    indices = np.array([[1, 5, 1], [0, 1, 5]], index_dtype)
    y = layer(indices)
    np.testing.assert_array_equal(y, layer.weight.data[indices])
    dy = np.random.default_rng(0).standard_normal(y.shape).astype("f4")
    indices[...] = 0  # the call was over: what it kept is its own
    layer.backward(dy)
    wanted = np.zeros((6, 3), "f4")
    np.add.at(wanted, np.array([[1, 5, 1], [0, 1, 5]]), dy)
    np.testing.assert_allclose(layer.weight.grad, wanted, rtol=1e-6)


def test_a_single_index_gives_a_single_vector():
    layer, index = nn.Embedding(6, 3, rng=0), np.array(5)
    y = layer(index)
    np.testing.assert_array_equal(y, layer.weight.data[5])
    index[...] = 0  # here, too, the call was over
    layer.backward(np.ones(3, "f4"))
    np.testing.assert_array_equal(layer.weight.grad, np.repeat([[0.0], [1.0]], [5, 1], axis=0) * np.ones(3))


@every_cell
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single_row"])
def test_steps_of_a_cell_are_the_layer_over_the_sequence(make_cell_object, make_layer, batched, assert_same_bits):
    cell, layer = make_cell_object(I, H, rng=3), make_layer(I, H, rng=3)
    x = np.random.default_rng(0).standard_normal((T, N if batched else 1, I)).astype("f4")
    y, _ = layer(x)
    assert cell.h is None
    for t in range(T):
        out = cell.step(x[t] if batched else x[t, 0])
        assert_same_bits(out, y[t] if batched else y[t, 0])
        assert_same_bits(np.ascontiguousarray(cell.h), out)
    cell.reset()
    assert cell.h is None
    np.testing.assert_array_equal(np.atleast_2d(cell.step(x[0, 0])), y[0, :1])


def test_an_lstm_cell_shows_its_memory():
    cell = nn.LSTMCell(2, 3, rng=0)
    assert cell.c is None
    cell.step(np.ones(2, "f4"))
    assert cell.c.shape == (3,)


@every_cell
def test_chained_cells_go_back_through_time(make_cell_object, make_layer, finite_differences):
    """The lecture's y = rnn2.step(rnn1.step(x)), trained."""
    first = make_cell_object(2, 3, dtype="float64", rng=0).train()
    second = make_cell_object(3, 4, output_size=2, dtype="float64", rng=1).train()
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((3, 2, 2)), rng.standard_normal((3, 2, 2))

    def forward(values):
        first.reset()
        second.reset()
        return (np.stack([second.step(first.step(step)) for step in values["x"]]),)

    forward({"x": x})
    dx = np.empty_like(x)
    for t in (2, 1, 0):
        dx[t] = first.backward(second.backward(dy[t]))
    first.eval()
    second.eval()
    np.testing.assert_allclose(dx, finite_differences(forward, {"x": x}, (dy,))["x"], rtol=1e-6, atol=1e-9)
    assert all(p.grad.any() for cell in (first, second) for p in cell.parameters())


def test_a_cell_keeps_its_batch_until_reset():
    cell = nn.GRUCell(2, 3)
    cell.step(np.ones((4, 2), "f4"))
    with pytest.raises(ValueError, match=r"x: expected 4 rows as the state has \(reset\(\) to change it\), got 5"):
        cell.step(np.ones((5, 2), "f4"))
    cell.reset()
    assert cell.step(np.ones((5, 2), "f4")).shape == (5, 3)


def test_representations_say_how_to_build_the_layer():
    assert repr(nn.LSTM(2, 3, 2, dropout=0.5, bidirectional=True)) == (
        "LSTM(2, 3, num_layers=2, dropout=0.5, bidirectional=True)"
    )
    assert repr(nn.Linear(2, 3, bias=False)) == "Linear(2, 3, bias=False)"
    assert repr(nn.Embedding(2, 3)) == "Embedding(2, 3)"
