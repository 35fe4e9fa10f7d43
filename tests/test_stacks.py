"""Stacks: a size per layer, residual connections, learned initial states; and the state carried from call to call."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fusedrnn import functional, nn, optim

T, N, I = 5, 3, 2  # noqa: E741
STACKS = {
    "sizes": {"hidden_size": [3, 1, 2]},
    "residual": {"hidden_size": 2, "num_layers": 3, "residual": True},
    "learned": {"hidden_size": 3, "num_layers": 2, "learn_initial_state": True},
    "sizes_learned": {"hidden_size": [2, 3], "learn_initial_state": True},
    "all_equal": {"hidden_size": [2, 2], "residual": True, "learn_initial_state": True},
}
every_stack = pytest.mark.parametrize("options", STACKS.values(), ids=STACKS.keys())


def normal(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def make_stack(make_layer, options, **more):
    """A stack whose learned states are not zeros, as after some training."""
    layer = make_layer(I, **options, rng=0, **more)
    for k, names in enumerate(layer._initial_names):
        for j, name in enumerate(names):
            parameter = getattr(layer, name)
            parameter.data[...] = normal(*parameter.data.shape, seed=10 * k + j)
    return layer


def parts(states):
    """Every array of a state, whether it is one, a pair, or a tuple of them by layer."""
    return [states] if isinstance(states, np.ndarray) else [a for s in states for a in parts(s)]


def like(states, arrays):
    """The arrays, an iterator, in the form of ``states``."""
    if isinstance(states, np.ndarray):
        return next(arrays)
    return tuple(like(s, arrays) for s in states)


@every_stack
@pytest.mark.parametrize(
    ("bidirectional", "given"), [(False, True), (True, False)], ids=["one_way-state", "both_ways-no_state"]
)
def test_every_gradient_agrees_with_finite_differences(make_layer, options, bidirectional, given, finite_differences):
    layer = make_stack(make_layer, options, bidirectional=bidirectional, dtype="float64")
    parameters = dict(layer.named_parameters())
    x = normal(2, 2, I, dtype=float)
    _, form = layer.eval()(x)
    layer.train()
    arguments = {"x": x, **{name: p.data.copy() for name, p in parameters.items()}}
    if given:
        arguments.update({f"state{k}": normal(*a.shape, dtype=float, seed=k) for k, a in enumerate(parts(form))})

    def forward(values):
        for name, parameter in parameters.items():
            parameter.data[...] = values[name]
        y, state = layer(values["x"], like(form, (v for k, v in values.items() if "state" in k)) if given else None)
        return (y, *parts(state))

    outputs = forward(arguments)
    doutputs = tuple(normal(*o.shape, dtype=float, seed=k) for k, o in enumerate(outputs))
    dx, dstate = layer.backward(doutputs[0], like(form, iter(doutputs[1:])))
    layer.eval()
    numeric = finite_differences(forward, arguments, doutputs)
    ours = {"x": dx, **{name: p.grad for name, p in parameters.items()}}
    ours.update({f"state{k}": a for k, a in enumerate(parts(dstate))} if given else {})
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, numeric[name], rtol=1e-6, atol=1e-7, err_msg=name)


@every_stack
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
def test_a_stack_is_its_layers_one_after_the_other(make_layer, options, bidirectional, assert_same_bits):
    stack = make_stack(make_layer, options, bidirectional=bidirectional)
    x = normal(T, N, I)
    y, states = stack(x)
    values, below, finals = stack.state_dict(), x, []
    learned = stack.learn_initial_state
    for k, size in enumerate(stack.hidden_sizes):
        single = make_layer(below.shape[2], size, bidirectional=bidirectional, learn_initial_state=learned)
        single.load_state_dict({name: values[name.replace("_l0", f"_l{k}")] for name in single.state_dict()})
        out, final = single(below)
        below = out + below if stack.residual and k > 0 else out
        finals.append(parts(final))
    assert_same_bits(y, below)
    by_state = list(zip(*finals, strict=True))
    if len(set(stack.hidden_sizes)) == 1:
        by_state = [np.concatenate(arrays) for arrays in by_state]
    for ours, wanted in zip(parts(states), parts(by_state), strict=True):
        assert_same_bits(ours, wanted)


def test_the_form_of_the_states_follows_from_the_sizes():
    x = normal(T, N, I)
    y, (h_n, c_n) = nn.LSTM(I, [4, 4], bidirectional=True)(x)
    assert (y.shape, h_n.shape, c_n.shape) == ((T, N, 8), (4, N, 4), (4, N, 4))
    layer = nn.LSTM(I, [4, 6], bidirectional=True)
    y, (h_n, c_n) = layer(x)
    assert y.shape == (T, N, 12)
    assert [a.shape for a in h_n] == [a.shape for a in c_n] == [(2, N, 4), (2, N, 6)]
    assert (layer.hidden_size, layer.hidden_sizes, layer.num_layers) == (6, (4, 6), 2)


def test_equal_sizes_in_a_list_are_the_plain_stack(make_layer, assert_same_bits):
    listed, plain = make_layer(I, [4, 4], rng=3), make_layer(I, 4, 2, rng=3)
    assert listed.state_dict().keys() == plain.state_dict().keys()
    (y, state), (wanted, wanted_state) = listed(normal(T, N, I)), plain(normal(T, N, I))
    assert_same_bits(y, wanted)
    assert_same_bits(tuple(parts(state)), tuple(parts(wanted_state)))


def test_learned_states_begin_as_zeros_and_change_no_other_value(make_layer, assert_same_bits):
    plain, learned = make_layer(I, [3, 4], rng=0), make_layer(I, [3, 4], rng=0, learn_initial_state=True)
    values = learned.state_dict()
    for name, value in plain.state_dict().items():
        assert_same_bits(values.pop(name), value)
    assert list(values) == [f"{state}_l{k}" for k in (0, 1) for state in plain.state_names]
    assert not any(value.any() for value in values.values())
    assert_same_bits(learned(normal(T, N, I))[0], plain(normal(T, N, I))[0])


def test_a_learned_state_is_that_state_given_for_every_row(make_layer, assert_same_bits):
    layer = make_stack(make_layer, STACKS["learned"], bidirectional=True)
    state = tuple(
        np.stack([np.tile(getattr(layer, names[k]).data, (N, 1)) for names in layer._initial_names])
        for k in range(len(layer.state_names))
    )
    given, free = layer(normal(T, N, I), state if len(state) == 2 else state[0]), layer(normal(T, N, I))
    assert_same_bits((given[0], *parts(given[1])), (free[0], *parts(free[1])))
    _, dstate = layer.backward(free[0])  # of the call without a state
    for k, gradient in enumerate(parts(dstate)):
        for names, rows in zip(layer._initial_names, gradient, strict=True):
            np.testing.assert_allclose(getattr(layer, names[k]).grad, rows.sum(0), rtol=1e-6)
    layer.zero_grad()
    layer.backward(given[0])
    assert not any(getattr(layer, name).grad.any() for names in layer._initial_names for name in names)


def test_of_an_lstm_either_state_may_be_given_and_the_other_learned(assert_same_bits):
    layer = make_stack(nn.LSTM, {"hidden_size": 4, "learn_initial_state": True})
    h0 = normal(1, N, 4)
    y, _ = layer(normal(T, N, I), (h0, None))
    assert_same_bits(y, layer(normal(T, N, I), (h0, np.tile(layer.c0_l0.data, (1, N, 1))))[0])
    layer.forget()
    layer(normal(T, N, I), (h0, None))
    layer.backward(y)
    assert layer.c0_l0.grad.any()
    assert not layer.h0_l0.grad.any()


def test_training_learns_the_initial_state():
    layer = nn.GRU(1, 3, rng=0, learn_initial_state=True)
    optimizer, loss = optim.Adam(layer, lr=0.05), nn.MSELoss()
    x, target = np.zeros((1, 4, 1), "f4"), np.full((1, 4, 3), 0.5, "f4")
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        getattr(layer, name).data.fill(0)  # then h_1 = h_0 / 2
    first = loss(layer.eval()(x)[0], target)
    for _ in range(3):
        layer.train().zero_grad()
        value = loss(layer(x)[0], target)
        layer.backward(loss.backward())
        optimizer.step()
    assert value < first
    assert layer.h0_l0.data.all()


def test_dropout_with_residual_connections_agrees_with_finite_differences(make_layer, finite_differences):
    layer = make_layer(I, 4, 3, residual=True, dropout=0.4, rng=0, dtype="float64")
    masks = layer.rng_state()
    x, dy = normal(T, N, I, dtype=float), normal(T, N, 4, dtype=float)

    def forward(values):
        layer.set_rng_state(masks)
        return (layer(values["x"])[0],)

    forward({"x": x})
    dx, _ = layer.backward(dy)
    np.testing.assert_allclose(dx, finite_differences(forward, {"x": x}, (dy,))["x"], rtol=1e-6, atol=1e-8)


def test_only_the_last_state_has_a_gradient(make_layer, assert_same_bits):
    """dy None takes a way of its own past the residual connections."""
    layer = make_layer(I, 4, 3, residual=True, rng=0)
    found = []
    for dy in (None, np.zeros((T, N, 4), "f4")):
        layer.zero_grad()
        _, state = layer(normal(T, N, I))
        ones = like(state, iter([np.ones_like(a) for a in parts(state)]))
        dx, dstate = layer.backward(dy, ones)
        found.append((dx, *parts(dstate), *(p.grad.copy() for p in layer.parameters())))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, wanted)


@every_stack
@pytest.mark.parametrize("more", [{}, {"bidirectional": True}, {"batch_first": True}], ids=str)
def test_a_frozen_stack_has_the_layers_bits(make_layer, options, more, dtype, assert_same_bits):
    layer = make_stack(make_layer, options, dtype=dtype, dropout=0.5, **more).eval()
    frozen, x = layer.freeze(), normal(T, N, I, dtype=dtype)
    y, state = layer(x)
    again = layer(x, state)
    for parameter in layer.parameters():
        parameter.data.fill(0)  # a snapshot: learned states too
    for (out, last), (wanted, wanted_last) in ((frozen(x), (y, state)), (frozen(x, state), again)):
        assert_same_bits((out, *parts(last)), (wanted, *parts(wanted_last)))


@every_stack
@pytest.mark.parametrize("batch", [1, N])
def test_a_stream_has_the_layers_bits(make_layer, options, dtype, batch, assert_same_bits):
    layer = make_stack(make_layer, options, dtype=dtype).eval()
    stream, x = layer.stream(batch), normal(T, batch, I, dtype=dtype)
    y, state = layer(x)
    again, _ = layer(x, state)
    for parameter in layer.parameters():
        parameter.data.fill(0)
    for expected in (y, again):  # the second from where the first ended
        for step, wanted in zip(x, expected, strict=True):
            assert_same_bits(stream(step), wanted)
    stream.reset()
    assert_same_bits(np.stack([stream.step(step) for step in x]), y)
    assert_same_bits(tuple(parts(stream.state)), tuple(parts(state)))
    stream.state = state
    assert_same_bits(np.stack([stream(step) for step in x]), again)
    if batch == 1:
        stream.reset()
        assert_same_bits(stream(x[0, 0]), y[0, 0])


@every_stack
def test_chunks_have_the_bits_of_the_whole(make_layer, options, assert_same_bits):
    layer = make_stack(make_layer, options).eval()
    x = normal(11, N, I)
    y, state = layer(x)
    for call in (layer, layer.freeze()):
        for length in (1, 4):
            carried, outputs = None, []
            for start in range(0, len(x), length):
                out, carried = call(x[start : start + length], carried)
                outputs.append(out)
            assert_same_bits(np.concatenate(outputs), y)
            assert_same_bits(tuple(parts(carried)), tuple(parts(state)))


def through_pickle(state, path):
    path.write_bytes(pickle.dumps(state))
    return pickle.loads(path.read_bytes())


def through_npz(state, path):
    np.savez(path, *parts(state))
    with np.load(f"{path}.npz") as stored:
        return like(state, iter([stored[name] for name in stored.files]))


def through_safetensors(state, path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is of the extra `train`")
    safetensors.save_file({str(k): a for k, a in enumerate(parts(state))}, path)
    stored = safetensors.load_file(path)
    return like(state, iter([stored[str(k)] for k in range(len(stored))]))


@pytest.mark.parametrize("through", [through_pickle, through_npz, through_safetensors])
@pytest.mark.parametrize("options", [{"hidden_size": 4, "num_layers": 2}, STACKS["sizes"]], ids=["plain", "sizes"])
def test_a_streams_state_goes_through_a_file(make_layer, options, through, tmp_path, assert_same_bits):
    layer = make_stack(make_layer, options)
    x = normal(T, N, I)
    first, second = layer.stream(N), layer.stream(N)
    for step in x[:3]:
        first(step)
    second.state = through(first.state, tmp_path / "state")
    for step in x[3:]:
        assert_same_bits(second(step), first(step))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(2, [3, 0]), ValueError, "hidden_size: expected at least 1, got 0"),
        (lambda: nn.LSTM(2, []), TypeError, r"hidden_size: expected an integer, or one for each layer, got \[\]"),
        (lambda: nn.GRU(2, 3.0), TypeError, "hidden_size: expected an integer, got 3.0"),
        (lambda: nn.GRU(2, [3, 2.5]), TypeError, "hidden_size: expected an integer, got 2.5"),
        (lambda: nn.LSTM(2, [3, 4], 3), ValueError, "num_layers: expected 2, as hidden_size has, got 3"),
        (
            lambda: nn.RNN(2, [3, 4], residual=True),
            ValueError,
            r"residual: expected layers of one size, got hidden_size=\[3, 4\]",
        ),
        (
            lambda: nn.GRU(2, [3, 4])(normal(T, N, 2), normal(2, N, 3)),
            TypeError,
            "h0: expected 2 arrays, one for each layer, got ndarray",
        ),
        (
            lambda: nn.GRU(2, [3, 4])(normal(T, N, 2), [normal(1, N, 3)]),
            TypeError,
            "h0: expected 2 arrays, one for each layer, got 1",
        ),
        (
            lambda: nn.LSTM(2, [3, 4])(normal(T, N, 2), (None, [normal(1, N, 3), normal(1, N, 3)])),
            ValueError,
            r"c0\[1\]: expected shape \(1, 3, 4\), got \(1, 3, 3\)",
        ),
        (
            lambda: nn.LSTM(2, [3, 4])(normal(T, N, 2), ([normal(1, N, 3), None], None)),
            TypeError,
            r"h0\[1\]: expected dtype float32 as the layer has, got object",
        ),
        (
            lambda: setattr(nn.GRU(2, [3, 4]).stream(), "state", [normal(1, 1, 3), normal(1, 2, 4)]),
            ValueError,
            r"h\[1\]: expected shape \(1, 1, 4\), got \(1, 2, 4\)",
        ),
        (
            lambda: setattr(nn.LSTM(2, 3, 2, residual=True).stream(), "state", (normal(2, 1, 3), None)),
            TypeError,
            "c: expected dtype float32 as the layer has, got object",
        ),
        (lambda: nn.LSTM(2, [3, 4], residual=False).stream()(normal(2, 2)), ValueError, "x: expected shape"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_representations_say_how_to_build_the_layer():
    layer = nn.GRU(2, [3, 4], learn_initial_state=True)
    assert repr(layer) == "GRU(2, [3, 4], learn_initial_state=True)"
    assert repr(nn.LSTM(2, 3, 2, residual=True)) == "LSTM(2, 3, num_layers=2, residual=True)"


def test_options_can_be_read():
    assert nn.RNN(2, 3, nonlinearity="relu").nonlinearity == "relu"
    assert nn.LSTM(2, 3, recompute=True).recompute
    gru = nn.GRU(2, 3, reset_after=False)
    assert (gru.reset_after, gru.recompute) == (False, False)


def test_a_copy_is_a_stack_of_its_own(make_layer, assert_same_bits):
    layer = make_stack(make_layer, STACKS["sizes_learned"]).eval()
    other = copy.deepcopy(layer)
    y, _ = layer(normal(T, N, I))
    layer.flatten().data.fill(0)
    assert_same_bits(other(normal(T, N, I))[0], y)


def test_the_forget_bias_is_in_its_place_in_every_layer():
    layer = nn.LSTM(2, [3, 4], bidirectional=True, rng=0, forget_bias=1.0)
    plain = nn.LSTM(2, [3, 4], bidirectional=True, rng=0)
    for k, size in enumerate(layer.hidden_sizes):
        for suffix in ("", "_reverse"):
            name = f"bias_ih_l{k}{suffix}"
            moved = getattr(layer, name).data != getattr(plain, name).data
            assert np.flatnonzero(moved).tolist() == list(range(size, 2 * size))


def test_a_parameter_beyond_the_four_goes_by_keyword_and_gets_its_gradient(finite_differences):
    """How a cell with more parameters is added: its table and its functions."""

    def forward(x, h0, *weights, weight_gain, **options):
        y, h_n, reserve = functional.gru_forward(x * weight_gain, h0, *weights, **options)
        return y, h_n, (x, weight_gain, reserve)

    def backward(dy, dh_n, reserve, **options):
        x, weight_gain, inner = reserve
        gradients = functional.gru_backward(dy, dh_n, inner, **options)
        return Gradients(gradients, gradients.dx * weight_gain, (gradients.dx * x).sum((0, 1)))

    class Gradients(tuple):
        def __new__(cls, gradients, dx, dweight_gain):
            self = super().__new__(cls, gradients._replace(dx=dx))
            self.dweight_gain = dweight_gain
            return self

    class Gained(nn.GRU):
        functions = (forward, backward)

        def _table(self, inputs, hidden):
            return {**super()._table(inputs, hidden), "weight_gain": ((inputs,), 1.5)}

    layer = Gained(I, [3, 4], dtype="float64", rng=0)
    assert (layer.weight_gain_l1.data == np.full(3, 1.5)).all()
    parameters = dict(layer.named_parameters())
    x, dy = normal(T, N, I, dtype=float), normal(T, N, 4, dtype=float)

    def run(values):
        layer.load_state_dict(values)
        return (layer(x)[0],)

    values = layer.state_dict()
    run(values)
    layer.backward(dy)
    layer.eval()
    numeric = finite_differences(run, values, (dy,))
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.grad, numeric[name], rtol=1e-6, atol=1e-8, err_msg=name)
