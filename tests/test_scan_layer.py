"""nn.Scan: a layer of any recurrence against scan_forward, its parameters, two directions, streams."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fusedrnn
from fusedrnn import cells, nn, ops, optim
from fusedrnn.differentiation.trees import map_leaves as each
from fusedrnn.functional import scan_backward, scan_forward

T, N, I, H = 6, 3, 4, 5  # noqa: E741


def same(ours, theirs):
    found = []
    each(lambda *pair: found.append(pair), ours, theirs)
    assert found
    for a, b in found:
        np.testing.assert_array_equal(a, b)


def remembering(p, state, x, context):
    """A state with an integer, nested parameters, a context, and y in a dict."""
    h, count = state["h"], state["count"]
    gate = ops.sigmoid(p["gate"]["W"] @ x + p["gate"]["b"])
    h = gate * h + (1 - gate) * np.tanh(p["U"] @ h + context)
    count = count + 1
    return {"h": h, "count": count}, {"h": h / count, "count": count}


def plain(p, state, x):
    h = np.tanh(p["W"] @ x + p["U"] @ state)
    return h, h


def draw_plain(rng):
    return {"W": 0.5 * rng.normal(size=(H, I)), "U": 0.5 * rng.normal(size=(H, H))}


def make(**options):
    rng = np.random.default_rng(1)
    parameters = {
        "gate": {"W": rng.normal(size=(H, I)), "b": rng.normal(size=H)},
        "U": 0.5 * rng.normal(size=(H, H)),
    }
    state = {"h": rng.normal(size=H), "count": np.array(2)}
    options = {"dtype": "float64", "rng": 0, **options}
    return nn.Scan(remembering, parameters, state, **options)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(2)
    return rng.normal(size=(T, N, I)), rng.normal(size=(N, H)), rng.normal(size=(T, N, H)), rng.normal(size=(N, H))


def test_a_layer_is_scan_forward_with_its_parameters(drawn):
    x, context, dy, dh = drawn
    layer = make()
    assert list(layer.state_dict()) == ["U", "gate.W", "gate.b"]
    layer.flatten()
    params = {"gate": {"W": layer.state_dict()["gate.W"], "b": layer.state_dict()["gate.b"]}, "U": layer.U.data}
    start = {"h": np.tile(layer._state_values[1], (N, 1)), "count": np.full(N, 2)}
    expected_y, expected_last, reserve = scan_forward(remembering, params, start, x, context=context)
    expected = scan_backward({"h": dy}, {"h": dh}, reserve)
    y, last = layer(x, None, context)
    same((y, last), (expected_y, expected_last))
    dx, dstate, dcontext = layer.backward({"h": dy}, {"h": dh})
    same((dx, dcontext, dstate["h"]), (expected.dx, expected.dcontext, expected.dstate["h"]))
    assert dstate["count"] is None
    same([layer.U.grad, getattr(layer, "gate.W").grad], [expected.dparams["U"], expected.dparams["gate"]["W"]])
    one, other = np.asfortranarray(x), np.asfortranarray(context)  # a layer copies what is not contiguous
    same(layer(one, each(np.asfortranarray, start), other), (y, last))
    assert layer.backward({"h": np.asfortranarray(dy)}, {"h": np.asfortranarray(dh)}, input_grad=False)[0] is None
    same(layer.U.grad, 2 * expected.dparams["U"])  # the second call's are added
    with pytest.raises(RuntimeError, match=r"Scan.backward: no call is left"):
        layer.backward(None)
    layer.eval()
    layer(x, None, context)
    assert not layer._saved


def test_a_published_cell_is_the_layer_of_its_name(dtype):
    rng = np.random.default_rng(0)
    lstm = nn.LSTM(I, H, dtype=dtype, rng=3)
    layer = nn.Scan(*cells.LSTM(I, H, dtype=dtype), dtype=dtype)
    weights = lstm.state_dict()
    values = {"W": weights["weight_ih_l0"], "U": weights["weight_hh_l0"]}
    layer.load_state_dict({**values, "b": weights["bias_ih_l0"] + weights["bias_hh_l0"]})
    x = np.asarray(rng.normal(size=(T, N, I)), dtype)
    y, (h, c) = layer(x)
    expected, (h_n, c_n) = lstm(x)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
    for ours, theirs in ((y, expected), (h, h_n[0]), (c, c_n[0])):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, **tolerance)


LAYERS = {
    "plain": {},
    "learned": {"learned_state": True},
    "two directions": {"learned_state": True, "bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True},
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("call", ["plain", "state", "resets"])
def test_gradients_are_differences(name, call, drawn):
    x, state, _, other = drawn
    layer = nn.Scan(plain, draw_plain, np.linspace(-1, 1, H), dtype="float64", rng=4, **LAYERS[name])
    resets = np.arange(T * N).reshape(T, N) % 4 == 1
    if layer.batch_first:
        x, resets = np.ascontiguousarray(x.swapaxes(0, 1)), resets.T
    arguments = {"x": x}
    if call == "state":
        arguments["state"] = (state, other) if layer.bidirectional else state
    if call == "resets":
        arguments["resets"] = resets
    found = fusedrnn.gradcheck(layer, arguments).arguments
    suffixes = ("", "_reverse")[: layer.directions]
    learned = [f"state0{suffix}" for suffix in suffixes] * layer.learned_state
    wanted = {f"{part}{suffix}" for part in "WU" for suffix in suffixes} | set(learned)
    states = {"plain": set(), "resets": set(), "state": {"state[0]", "state[1]"} if layer.bidirectional else {"state"}}
    assert set(found) == {"x", *wanted, *states[call]}
    if call == "resets":
        for parameter in learned:  # rows that are reset start from it anew
            assert np.all(found[parameter].analytic != 0)


def test_two_directions_are_two_scans_side_by_side(drawn):
    x, state, dy, other = drawn
    layer = nn.Scan(plain, draw_plain, (H,), bidirectional=True, dtype="float64", rng=4)
    assert not np.array_equal(layer.W.data, layer.W_reverse.data)  # each is drawn
    lengths = np.array([3, 6, 1])
    y, last = layer(x, (state, other), lengths=lengths)
    dx, dstate = layer.backward(np.concatenate([dy, 2 * dy], axis=2), (None, state))
    parts = []
    for suffix, reverse, start, gradient, dlast in (
        ("", False, state, dy, None),
        ("_reverse", True, other, 2 * dy, state),
    ):
        p = {name: getattr(layer, name + suffix).data for name in "WU"}
        part, final, reserve = scan_forward(plain, p, start, x, lengths=lengths, reverse=reverse)
        grads = scan_backward(gradient, dlast, reserve)
        same(getattr(layer, f"W{suffix}").grad, grads.dparams["W"])
        parts.append((part, final, grads.dx, grads.dstate))
    (a, final_a, dx_a, dstate_a), (b, final_b, dx_b, dstate_b) = parts
    same((y, last, dx, dstate), (np.concatenate([a, b], axis=2), (final_a, final_b), dx_a + dx_b, (dstate_a, dstate_b)))
    with pytest.raises(
        ValueError, match="bidirectional: expected a step whose y is one array with an axis to join, got dict"
    ):
        make(bidirectional=True)(x, None, state)
    with pytest.raises(TypeError, match="state: expected a pair, one for each direction, got ndarray"):
        layer(x, state)
    with pytest.raises(ValueError, match="stream: expected a layer of one direction"):
        layer.stream()


def test_time_and_batch_first_and_packed_are_the_same_numbers(drawn):
    x, context, dy, _ = drawn
    layer, first = make(), make(batch_first=True)
    resets = np.arange(T * N).reshape(T, N) % 4 == 1
    y, last = layer(x, None, context, resets=resets)
    expected = layer.backward({"h": dy})
    ours, final = first(np.ascontiguousarray(x.swapaxes(0, 1)), None, context, resets=resets.T)
    dx, _, dcontext = first.backward({"h": dy.swapaxes(0, 1)})
    same((ours["h"].swapaxes(0, 1), final, dx.swapaxes(0, 1), dcontext), (y["h"], last, expected[0], expected[2]))
    present = np.arange(T)[:, None] < [6, 4, 1]
    y, last = layer(x, None, context, lengths=[6, 4, 1])
    for one in (layer, first):
        packed, final = one(x[present], None, context, batch_sizes=present.sum(1))
        same((packed, final), (each(lambda leaf: leaf[present], y), last))


def test_no_x_no_state_and_one_array():
    layer = nn.Scan(lambda p, h, x: (p * h, p * h), np.full(3, 0.5), np.ones(3), dtype="float64")
    assert list(layer.state_dict()) == ["weight"]
    y, last = layer(None, steps=4, batch=2)
    np.testing.assert_array_equal(y[:, 1, 0], [0.5, 0.25, 0.125, 0.0625])
    assert last.shape == (2, 3)
    layer = nn.Scan(lambda p, h, x: (h, p[0] * x), [np.ones(3)], None, dtype="float64")
    y, last = layer(np.ones((2, 1, 3)))
    assert last is None
    dx, dstate = layer.backward(y)
    assert dstate is None
    np.testing.assert_array_equal(dx, np.ones((2, 1, 3)))
    np.testing.assert_array_equal(getattr(layer, "0").grad, np.full(3, 2.0))


def dropping(p, h, x):
    h = ops.dropout(np.tanh(p["W"] @ x + h), 0.5)
    return h, h


def test_every_call_draws_numbers_of_its_own(drawn):
    x = drawn[0]
    layer = nn.Scan(dropping, {"W": np.ones((H, I))}, (H,), dtype="float64", rng=5)
    before = layer.rng_state()
    first, second = layer(x)[0], layer(x)[0]
    assert np.any((first == 0) != (second == 0))
    layer.set_rng_state(before)
    same(layer(x)[0], first)
    layer.set_rng_state(before)
    layer.set_rows(nn.module.Rows(1, 3, 3, 1))
    same(layer(x[:, 1:])[0], first[:, 1:])
    layer.eval()
    state = layer.rng_state()
    same(layer(x[:, 1:].copy())[0], layer(x[:, 1:].copy())[0])
    assert layer.rng_state() == state  # inference draws nothing


@pytest.mark.parametrize("learned", [False, True])
def test_a_stream_and_a_frozen_layer_have_the_bits_of_the_layer(learned, drawn):
    x, context, _, _ = drawn
    layer = make(learned_state=learned)
    frozen, stream = layer.freeze(), layer.stream(N, context=context)
    y, last = layer(x, None, context)
    same(frozen(x, None, context), (y, last))
    same(frozen(x, last, context, lengths=[1, 2, 3]), layer(x, last, context, lengths=[1, 2, 3]))
    layer.U.data[...] = 0  # later training does not reach them
    for t in range(T):
        if t == 3:
            kept = stream.state
        same(stream(x[t]), each(lambda leaf, t=t: leaf[t], y))
    same(stream.state, last)
    assert stream.state["count"].dtype == np.int64
    stream.state = kept
    same(stream(x[3])["h"], y["h"][3])
    stream.reset()
    same(stream(x[0])["h"], y["h"][0])
    kept["h"][...] = 0  # a copy
    for wrong, message in (
        (x[0, :2], r"x: expected forms, shapes"),
        (x[0].T, "x: expected"),
        (np.float32(x[0]), "x: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(wrong)
    with pytest.raises(ValueError, match=r"state: expected the structure \{'count': \*, 'h': \*\}, got \*"):
        stream.state = x[0]
    with pytest.raises(ValueError, match=r"state\['h'\]: expected shape \(3, 5\), got \(2, 5\)"):
        stream.state = {"h": np.zeros((2, H)), "count": np.zeros(3, int)}
    with pytest.raises(ValueError, match=r"x: expected shape \(3, ...\) of \(N, ...\), got \(2, 4\)"):
        layer.stream(N, context=context)(x[0, :2])


def test_a_stream_of_random_and_integer_steps_and_without_x():
    def sample(p, token, x):
        del x
        token = ops.categorical(p[token])
        return token, token

    layer = nn.Scan(sample, 3 * np.random.default_rng(0).normal(size=(6, 6)), np.array(2), rng=1).eval()
    before = layer.rng_state()
    whole, last = layer(None, steps=20, batch=4)
    assert whole.dtype == np.int64
    assert len(np.unique(whole)) > 2
    layer.set_rng_state(before)
    stream = layer.stream(4)
    same(np.stack([stream() for _ in range(20)]), whole)
    same(stream.state, last)
    stream.reset()
    assert np.any(np.stack([stream() for _ in range(20)]) != whole)


def test_chunks_of_a_sequence_have_the_bits_of_the_whole(drawn):
    x, context, _, _ = drawn
    layer = make()
    whole, last = layer(x, None, context)
    parts, state = [], None
    for t in range(0, T, 2):
        y, state = layer(x[t : t + 2], state, context)
        parts.append(y)
    same(each(lambda *a: np.concatenate(a), *parts), whole)
    same(state, last)


def test_copies_and_pickles_and_optimizers(drawn):
    x, context, dy, _ = drawn
    layer = make(learned_state=True, rng=3)
    y, _ = layer(x, None, context)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(other(x, None, context)[0], y)
        other.U.data[...] = 0
    same(layer(x, None, context)[0], y)
    layer.backward({"h": dy})
    before = layer.state_dict()
    assert list(before) == ["U", "gate.W", "gate.b", "state0.h"]
    optim.SGD(layer, lr=0.1).step()
    for name, value in layer.state_dict().items():
        np.testing.assert_allclose(value, before[name] - 0.1 * getattr(layer, name).grad, rtol=1e-12)
    model = nn.Sequential(
        nn.Scan(plain, draw_plain, (H,), dtype="float64", rng=0), nn.Linear(H, 2, dtype="float64", rng=0)
    )
    y, (state,) = model(x)
    assert (y.shape, state.shape) == ((T, N, 2), (N, H))
    assert model.backward(np.ones_like(y)).shape == x.shape


def test_refuses_what_does_not_fit(drawn):
    x = drawn[0]
    for arguments, kind, message in (
        ((plain, {"W": np.ones((2, 2), int)}, (2,)), TypeError, r"parameters\['W'\]: expected real numbers, got int64"),
        ((plain, {"a.b": np.ones(1), "a": {"b": np.ones(1)}}, (2,)), ValueError, "two called 'a.b'"),
        ((plain, {}, 2), TypeError, r"state: expected a shape, such as \(2,\), or an array, got 2"),
        ((plain, {}, "h"), TypeError, "state: expected a shape or an array of numbers or booleans, got str"),
        (
            (cells.LSTM(2, 2), {}, (2,)),
            TypeError,
            r"step: expected a function, got Cell; a cell is given as Scan\(\*cell\)",
        ),
    ):
        with pytest.raises(kind, match=message):
            nn.Scan(*arguments)
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got float16"):
        nn.Scan(plain, {}, (2,), dtype="float16")
    layer = nn.Scan(plain, draw_plain, (H,), rng=0)
    with pytest.raises(TypeError, match=r"x: expected dtype float32 like params\['U'\], got float64"):
        layer(x)
    with pytest.raises(ValueError, match=r"state: expected shape \(3, ...\) of \(N, ...\), got \(2, 5\)"):
        layer(np.float32(x), np.zeros((2, H), np.float32))
    y, _ = layer(np.float32(x))
    with pytest.raises(ValueError, match=r"dy: expected shape \(6, 3, 5\), got \(6, 3, 4\)"):
        layer.backward(np.zeros((T, N, 4), np.float32))
    layer.backward(np.zeros_like(y))  # the call refused may be made again


def reading(p, state, x):
    h = np.tanh(p["E"][x["token"]] + p["U"] @ state)
    return h, np.where(x["keep"], h, 0.0)


@pytest.mark.parametrize("batch", [1, 5, 20])
def test_streams_of_tokens_in_any_batch(batch, dtype):
    rng = np.random.default_rng(0)
    layer = nn.Scan(reading, {"E": rng.normal(size=(7, H)), "U": rng.normal(size=(H, H))}, (H,), dtype=dtype)
    x = {"token": rng.integers(0, 7, (T, batch)), "keep": rng.uniform(size=(T, batch)) > 0.3}
    y, last = layer.eval()(x)
    stream = layer.stream(batch)
    same(np.stack([stream(each(lambda leaf, t=t: leaf[t], x)) for t in range(T)]), y)
    same(stream.state, last)
    with pytest.raises(IndexError, match="lies outside"):
        stream({"token": np.full(batch, 7), "keep": x["keep"][0]})
    same(stream.state, last)  # a step refused changes nothing
