"""``freeze(precision=...)``: products of bfloat16 or int8, what is rounded where, and how far from float64 it is."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn, runtime

PRECISIONS = ("bfloat16", "int8")


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def parts(result):
    y, state = result
    return (y, *(state if isinstance(state, tuple) else (state,)))


def initial(layer, N):
    arrays = tuple(normal(layer.num_layers * layer.directions, N, layer.hidden_size, seed=s) for s in (2, 3))
    return arrays if isinstance(layer, nn.LSTM) else arrays[0]


def bfloat16(a):
    """To nearest even among the float32 whose lower half is zero, in float64; subnormal numbers are zero."""
    a = np.asarray(a, np.float32)
    bits = a.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.abs(a) < np.finfo(np.float32).tiny, 0, rounded).astype(np.float64)


def int8(a):
    """Each row to a scale times integers, in float64; the integers from float32, so that no tie tips over."""
    largest = np.abs(a).max(axis=-1, keepdims=True)
    return np.rint(a * (np.float32(127) / largest)).astype(np.float64) * (largest.astype(np.float64) / 127)


ROUND = {"bfloat16": bfloat16, "int8": int8}


def one_step(layer, rounded, x, state):
    """The equations in float64, every factor of a product rounded; weights of the first layer."""
    w_ih, w_hh, b_ih, b_hh = (p.astype(np.float64) for p in layer._weights(0)[:4])
    w_ih, w_hh = rounded(w_ih.astype(np.float32)), rounded(w_hh.astype(np.float32))
    h, *c = (s[0] for s in (state if isinstance(state, tuple) else (state,)))
    a, r, h64 = rounded(x[0]) @ w_ih.T + b_ih, rounded(h) @ w_hh.T + b_hh, h.astype(np.float64)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    if isinstance(layer, nn.RNN):
        return (np.maximum(a + r, 0) if layer.nonlinearity == "relu" else np.tanh(a + r),)
    if isinstance(layer, nn.LSTM):
        i, f, g, o = np.split(a + r, 4, axis=1)
        c_next = sigmoid(f) * c[0].astype(np.float64) + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c_next), c_next
    (a_r, a_z, a_n), (r_r, r_z, r_n) = np.split(a, 3, axis=1), np.split(r, 3, axis=1)
    reset, z = sigmoid(a_r + r_r), sigmoid(a_z + r_z)
    if layer.reset_after:
        n = np.tanh(a_n + reset * r_n)
    else:
        H = layer.hidden_size
        n = np.tanh(a_n + rounded((reset * h64).astype(np.float32)) @ w_hh[2 * H :].T + b_hh[2 * H :])
    return ((1 - z) * n + z * h64,)


@pytest.mark.parametrize(("N", "I", "H"), [(1, 1, 1), (3, 5, 7), (13, 24, 20), (6, 33, 49)])
def test_a_step_rounds_the_factors_and_nothing_else(make_layer, low_precision_isa, precision, N, I, H):  # noqa: E741
    layer = make_layer(I, H, rng=0)
    x, state = normal(1, N, I), initial(layer, N)
    y, *last = parts(layer.freeze(precision=precision)(x, state))
    expected = one_step(layer, ROUND[precision], x, state)
    # A GRU's r h comes out of float32 arithmetic, so it may be rounded to the other side.
    tipped = isinstance(layer, nn.GRU) and not layer.reset_after
    bound = 3e-5 if not tipped else 2**-8 / np.sqrt(H)
    for ours, want in zip(last, expected, strict=True):
        assert ours.dtype == np.float32
        assert np.max(np.abs(ours[0] - want)) <= bound
    assert np.array_equal(y[0], last[0][0])


def test_rounding_to_bfloat16(low_precision_isa):
    """y = relu(x) through an identity: to nearest even, infinity beyond the largest, subnormal numbers to zero."""
    one, tiny = np.float32(1), np.finfo(np.float32).tiny
    cases = {
        one + np.float32(2**-8): 1,  # a tie, to even
        one + np.float32(3 * 2**-8): 1 + 2**-6,  # likewise
        one + np.float32(2**-8 + 2**-20): 1 + 2**-7,
        np.float32(3.38e38): 3.3762391e38,
        tiny: tiny,
        tiny * np.float32(0.75): 0,
        np.float32(-5): 0,
    }
    x = np.array(list(cases), np.float32)
    layer = nn.RNN(len(x), len(x), nonlinearity="relu", bias=False, rng=0)
    layer.weight_ih_l0.data[:] = np.eye(len(x))
    y, _ = layer.freeze(precision="bfloat16")(x[None, None])
    np.testing.assert_array_equal(y[0, 0], np.array(list(cases.values()), np.float32))


def test_what_is_not_finite_stays_so(low_precision_isa, precision):
    layer = nn.RNN(4, 40, nonlinearity="relu", rng=0)
    frozen = layer.freeze(precision=precision)
    for value in (np.nan, np.inf, -np.inf):
        x = normal(1, 5, 4)
        clean, _ = frozen(x)
        x[0, 3, 1] = value
        y, _ = frozen(x)
        assert not np.isfinite(y[0, 3]).all()
        assert np.array_equal(np.delete(y, 3, axis=1), np.delete(clean, 3, axis=1))
    zeros, _ = frozen(np.zeros((1, 5, 4), np.float32))
    small, _ = frozen(np.full((1, 5, 4), 1e-40, np.float32))
    np.testing.assert_array_equal(zeros, small)
    np.testing.assert_allclose(
        zeros[0, 0], np.maximum(layer.bias_ih_l0.data + layer.bias_hh_l0.data, 0), rtol=0, atol=1e-7
    )


def test_sums_of_the_most_int8_terms_are_exact_and_of_one_more_refused(functional, low_precision_isa):
    """Beyond, integer sums could leave int32."""
    most = 2**17
    weights = [np.full((1, most), -1, np.float32), np.zeros((1, 1), np.float32)]
    h0 = np.zeros((1, 1), np.float32)
    options = {"nonlinearity": "relu", "precision": "int8", "training": False}
    y, *_ = functional.rnn_forward(np.full((1, 1, most), -1, np.float32), h0, *weights, None, None, **options)
    assert y[0, 0, 0] == pytest.approx(most, rel=1e-6)
    refused = r"precision: expected bfloat16 for sums of more than 131072 terms, got int8"
    more = [np.ones((1, most + 1), np.float32), weights[1]]
    with pytest.raises(ValueError, match=refused):
        functional.rnn_forward(np.ones((1, 1, most + 1), np.float32), h0, *more, None, None, **options)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True}, {"bias": False}], ids=str)
def test_the_same_bits_for_any_batch_and_cut_of_time(
    make_layer, low_precision_isa, precision, options, assert_same_bits
):
    layer = make_layer(9, 20, 2, rng=0, **options)
    frozen, x = layer.freeze(precision=precision), normal(6, 11, 9)
    state = initial(layer, 11)

    def run(x, state):
        y, *last = parts(frozen(x.swapaxes(0, 1) if layer.batch_first else x, state))
        return (y.swapaxes(0, 1) if layer.batch_first else y, *last)

    def rows(state, part):
        return tuple(s[:, part] for s in state) if isinstance(state, tuple) else state[:, part]

    whole = run(x, state)
    for part in (slice(0, 1), slice(3, 8), slice(10, None, -1)):
        assert_same_bits(run(x[:, part], rows(state, part)), rows(whole, part), str(part))
    if not layer.bidirectional:
        y1, *middle = run(x[:2], state)
        y2, *last = run(x[2:], tuple(middle) if len(middle) > 1 else middle[0])
        assert_same_bits((np.concatenate([y1, y2]), *last), whole)


def test_the_same_bits_for_any_threads(make_layer, precision, threads, assert_same_bits):
    """Rows shared, and units shared where rows are few or weights wide."""
    for T, N, I, H in ((3, 40, 16, 130), (4, 2, 70, 300)):  # noqa: E741
        frozen, x = make_layer(I, H, rng=0).freeze(precision=precision), normal(T, N, I)
        threads(1)
        expected = parts(frozen(x))
        for n in (2, 5):
            threads(n)
            assert_same_bits(parts(frozen(x)), expected, f"{n} threads")


def test_stream_has_the_bits_of_the_sequence(make_layer, precision, assert_same_bits):
    layer, x = make_layer(9, 20, 2, rng=0), normal(5, 3, 9)
    y, *last = parts(layer.freeze(precision=precision)(x))
    stream = layer.stream(3, precision=precision)
    assert_same_bits(np.stack([stream.step(a) for a in x]), y)
    state = stream.state
    assert_same_bits(state if isinstance(state, tuple) else (state,), tuple(last))


def test_instruction_sets_agree(make_layer, precision):
    """Up to the order and contraction of float32 sums; one step, since a later one may round h to the other side."""
    layer, x = make_layer(40, 50, rng=0), normal(1, 9, 40)
    state = initial(layer, 9)
    results = []
    for name in runtime.available_isas():
        with runtime.use_isa(name):
            results.append(layer.freeze(precision=precision)(x, state)[0])
    tipped = isinstance(layer, nn.GRU) and not layer.reset_after
    for y in results:
        assert np.max(np.abs(y - results[0])) <= (2**-8 / np.sqrt(50) if tipped else 1e-5)


@pytest.mark.parametrize(("precision", "unit"), [("bfloat16", 2**-8), ("int8", 1 / 254)])
def test_the_error_is_that_of_rounding(make_layer, precision, unit):
    """Against float64. A gate's sum over n terms w x, either factor off by up to `unit` of its size (int8: of the row's
    largest), is off by less than 2 unit sum abs(w) max abs(x); three deviations of what random signs leave of it,
    doubled for what the state hands on, is what the test allows, and a hundredth of that it demands."""
    T, N, I, H = 10, 8, 32, 64  # noqa: E741
    layer = make_layer(I, H, rng=0)
    exact = make_layer(I, H, rng=0, dtype="float64")
    for mine, theirs in zip(exact.parameters(), layer.parameters(), strict=True):
        mine.data[:] = theirs.data
    x = normal(T, N, I)
    y, _ = layer.freeze(precision=precision)(x)
    expected, _ = exact.eval()(x.astype(np.float64))
    sizes = [np.sqrt(np.mean(layer.weight_ih_l0.data**2) * I), np.sqrt(np.mean(layer.weight_hh_l0.data**2) * H)]
    largest = np.abs(x).max(), max(1, np.abs(y).max())
    bound = 2 * 3 * unit * (sizes[0] * largest[0] + sizes[1] * largest[1])
    error = np.max(np.abs(y - expected))
    assert bound / 100 < error < bound, (error, bound)


def test_errors(make_layer):
    layer = make_layer(3, 8, rng=0)
    for make in (layer.freeze, layer.stream):
        with pytest.raises(ValueError, match=r"precision: expected one of None, 'bfloat16', 'int8' .*, got 'float16'"):
            make(precision="float16")
    with pytest.raises(ValueError, match=r"precision: expected one of None for .* in float64, got 'int8'"):
        make_layer(3, 8, rng=0, dtype="float64").freeze(precision="int8")
    with pytest.raises(ValueError, match="precision: expected bfloat16 for sums of more than 131072 terms, got int8"):
        nn.RNN(2**17 + 1, 1, rng=0).freeze(precision="int8")
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        layer.freeze(precision="int8")(np.zeros((2, 2, 3)))


# training: fusedrnn.functional with precision="bfloat16"

TRAINED = ("rnn_tanh", "rnn_relu", "lstm", "gru_reset_after")


@pytest.fixture(params=TRAINED)
def trained(request, make_cell):
    return make_cell(request.param)


def test_training_runs_forward_as_inference_does(functional, trained, make_shape, make_problem, assert_same_bits):
    arguments, _ = make_problem(trained, make_shape(5, 7, 9, 20), np.float32)
    for reverse in (False, True):
        options = {"precision": "bfloat16", "reverse": reverse}
        outputs, reserve = trained.forward(functional, arguments, **options)
        expected, nothing = trained.forward(functional, arguments, training=False, **options)
        assert_same_bits(outputs, expected)
        assert reserve is not None
        assert nothing is None


def test_a_gradient_rounds_the_factors_and_nothing_else(functional, low_precision_isa):
    """One step of a relu layer, where dz is dy or zero, so that no rounding can tip over."""
    rng = np.random.default_rng(0)
    x, h0, w_ih, w_hh, dy = (
        rng.standard_normal(s).astype(np.float32) for s in [(1, 9, 5), (9, 20), (20, 5), (20, 20), (1, 9, 20)]
    )
    bias = np.zeros(20, np.float32)
    y, _, reserve = functional.rnn_forward(x, h0, w_ih, w_hh, bias, bias, nonlinearity="relu", precision="bfloat16")
    g = functional.rnn_backward(dy, None, reserve)
    dz = np.where(y[0] > 0, dy[0], np.float32(0))
    rounded = bfloat16(dz)
    expected = {
        "dx": (rounded @ bfloat16(w_ih))[None],
        "dh0": rounded @ bfloat16(w_hh),
        "dweight_ih": rounded.T @ bfloat16(x[0]),
        "dweight_hh": rounded.T @ bfloat16(h0),
        "dbias_ih": dz.astype(np.float64).sum(0),
    }
    for name, want in expected.items():
        np.testing.assert_allclose(getattr(g, name), want, rtol=0, atol=2e-5, err_msg=name)


# Without relu, whose derivative jumps where rounding changes a sign.
@pytest.mark.parametrize("trained", [name for name in TRAINED if name != "rnn_relu"], indirect=True)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_err_as_bfloat16_does(functional, reference, trained, make_shape, make_problem, in_float64, reverse):
    """Several blocks of steps, both states and their gradients; against float64. A bfloat16 has 8 bits, and errors of
    a norm's elements mostly cancel: a few hundredths of it would be a product gone wrong."""
    arguments, doutputs = make_problem(trained, make_shape(40, 30, 12, 64), np.float32)
    _, reserve = trained.forward(functional, arguments, precision="bfloat16", reverse=reverse)
    _, exact = trained.forward(reference, in_float64(arguments), reverse=reverse)
    ours = trained.backward(functional, doutputs, reserve)
    expected = trained.backward(reference, in_float64(doutputs), exact)
    for name, want in expected._asdict().items():
        if want is None:
            continue
        error = np.linalg.norm(getattr(ours, name) - want) / np.linalg.norm(want)
        assert 1e-5 < error < 0.03, f"{name}: {error}"


def test_pieces_of_a_sequence_hand_on_the_bits_of_the_whole(
    functional, trained, make_shape, make_problem, assert_same_bits
):
    arguments, doutputs = make_problem(trained, make_shape(40, 30, 12, 64), np.float32)
    names = trained.states
    outputs, reserve = trained.forward(functional, arguments, precision="bfloat16")
    whole = trained.backward(functional, doutputs, reserve)
    first, middle = trained.forward(functional, {**arguments, "x": arguments["x"][:23]}, precision="bfloat16")[0:2]
    states = dict(zip(names, first[1:], strict=True))
    second, end = trained.forward(functional, {**arguments, "x": arguments["x"][23:], **states}, precision="bfloat16")
    assert_same_bits((np.concatenate([first[0], second[0]]), *second[1:]), outputs)
    late = trained.backward(functional, (doutputs[0][23:], *doutputs[1:]), end)
    early = trained.backward(functional, (doutputs[0][:23], *(getattr(late, f"d{name}") for name in names)), middle)
    assert_same_bits(np.concatenate([early.dx, late.dx]), whole.dx)
    for name in names:
        assert_same_bits(getattr(early, f"d{name}"), getattr(whole, f"d{name}"), name)
    for name in ("dweight_ih", "dweight_hh", "dbias_ih"):
        # Rounding of factors is the same; the sums' order is not.
        want = getattr(whole, name)
        np.testing.assert_allclose(
            getattr(early, name) + getattr(late, name), want, rtol=0, atol=2e-5 * np.max(np.abs(want)), err_msg=name
        )


def test_gradients_have_the_same_bits_for_any_threads(
    functional, trained, make_shape, make_problem, threads, assert_same_bits
):
    for shape in (make_shape(3, 200, 16, 130), make_shape(4, 2, 70, 300)):
        arguments, doutputs = make_problem(trained, shape, np.float32)
        _, reserve = trained.forward(functional, arguments, precision="bfloat16")
        threads(1)
        expected = trained.backward(functional, doutputs, reserve)
        threads(3)
        assert_same_bits(trained.backward(functional, doutputs, reserve), expected)


def test_accumulate_and_what_is_left_out(functional, trained, make_shape, make_problem):
    arguments, doutputs = make_problem(trained, make_shape(4, 3, 5, 7), np.float32)
    _, reserve = trained.forward(functional, arguments, precision="bfloat16")
    once = trained.backward(functional, doutputs, reserve)
    names = ("dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh")
    into = tuple(np.ones_like(getattr(once, name)) for name in names)
    again = trained.backward(functional, doutputs, reserve, accumulate=into, input_grad=False)
    assert again.dx is None
    for name, array in zip(names, into, strict=True):
        assert getattr(again, name) is array
        np.testing.assert_allclose(array, 1 + getattr(once, name), rtol=1e-5, atol=1e-5, err_msg=name)
    zeros = trained.backward(functional, (None,) * len(doutputs), reserve)
    assert not any(np.any(a) for a in zeros if a is not None)


def test_errors_of_training(functional, make_cell, make_shape, make_problem):
    cell = make_cell("gru_reset_before")
    arguments, _ = make_problem(cell, make_shape(2, 2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="training: expected False with reset_after=False, got True"):
        cell.forward(functional, arguments, precision="bfloat16")
    cell = make_cell("lstm")
    arguments, _ = make_problem(cell, make_shape(2, 2, 3, 4), np.float32)
    for options, message in (
        ({"precision": "int8"}, "training: expected False for int8, got True"),
        ({"precision": "half"}, "precision: expected None, 'bfloat16' or 'int8', got 'half'"),
        ({"precision": "bfloat16", "recompute": True}, "precision: expected None together with recompute"),
        ({"precision": "bfloat16", "lengths": [1, 3]}, "lengths: expected numbers from 0 to 2, got 3 for row 1"),
        ({"precision": "bfloat16", "coupled": True}, "precision: expected None together with options"),
    ):
        with pytest.raises(ValueError, match=message):
            cell.forward(functional, arguments, **options)
    wide = {name: a.astype(np.float64) for name, a in arguments.items()}
    with pytest.raises(TypeError, match="x: expected float32 or bfloat16 together with precision, got float64"):
        cell.forward(functional, wide, precision="bfloat16")


# arrays in bfloat16

HALF_ARGUMENTS = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def in_torch(a):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(a).bfloat16()


def in_ml_dtypes(a):
    return a.astype(pytest.importorskip("ml_dtypes").bfloat16)


@pytest.fixture(params=[in_torch, in_ml_dtypes])
def halved(request):
    return request.param


@pytest.fixture(params=["all", "x", "weight_ih", "weight_hh"])
def some(request):
    return HALF_ARGUMENTS if request.param == "all" else (request.param,)


def test_arrays_in_bfloat16_give_the_bits_of_the_same_numbers_in_float32(
    functional, trained, halved, some, make_shape, make_problem, assert_same_bits
):
    """Several blocks of steps; an odd number of inputs, so that a last pair lacks its second number."""
    arguments, doutputs = make_problem(trained, make_shape(40, 30, 13, 64), np.float32)
    rounded = {name: bfloat16(a).astype(np.float32) for name, a in arguments.items()}
    halves = {name: halved(a) if name in some else a for name, a in rounded.items()}
    for reverse in (False, True):
        options = {"precision": "bfloat16", "reverse": reverse}
        expected, reserve = trained.forward(functional, rounded, **options)
        gradients = trained.backward(functional, doutputs, reserve)
        outputs, reserve = trained.forward(functional, halves, **options)
        assert_same_bits(outputs, expected)
        assert_same_bits(trained.backward(functional, doutputs, reserve), gradients)


def test_bfloat16_of_any_size_and_kind(functional, low_precision_isa, halved):
    """A product with every number of a bfloat16: as if it had been float32."""
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    values = np.where(np.isnan(values), np.float32(np.nan), values)
    x, weights = values.reshape(-1, 1, 16), (np.eye(16, dtype=np.float32), np.zeros((16, 16), np.float32))
    for value in (np.inf, -np.inf, np.nan):  # which would make NaN of all their row
        x = x[~np.any(x == value, axis=(1, 2)) & ~np.any(np.isnan(x), axis=(1, 2))]
    x = np.ascontiguousarray(x)
    options = {"nonlinearity": "relu", "training": False, "precision": "bfloat16"}
    expected, _, _ = functional.rnn_forward(x, None, *weights, **options)
    y, _, _ = functional.rnn_forward(halved(x), None, *weights, **options)
    np.testing.assert_array_equal(y, expected)
    for value in (np.inf, np.nan):
        x[0, 0, 3] = value
        y, _, _ = functional.rnn_forward(halved(x), None, *weights, **options)
        assert not np.isfinite(y[0]).all()


def test_int8_rounds_what_was_bfloat16(functional, trained, halved, make_shape, make_problem, assert_same_bits):
    arguments, _ = make_problem(trained, make_shape(3, 5, 9, 20), np.float32)
    rounded = {name: bfloat16(a).astype(np.float32) for name, a in arguments.items()}
    options = {"precision": "int8", "training": False}
    expected, _ = trained.forward(functional, rounded, **options)
    outputs, _ = trained.forward(functional, {name: halved(a) for name, a in rounded.items()}, **options)
    assert_same_bits(outputs, expected)


def test_errors_of_arrays_in_bfloat16(functional, halved, make_cell, make_shape, make_problem):
    cell = make_cell("lstm")
    arguments, (dy, *states) = make_problem(cell, make_shape(2, 2, 3, 4), np.float32)
    with pytest.raises(TypeError, match=r"^x: expected float32 or float64, got bfloat16, which goes together with a"):
        cell.forward(functional, {name: halved(a) for name, a in arguments.items()})
    for name in ("weight_ih", "h0"):
        with pytest.raises(TypeError, match=rf"^{name}: expected dtype float32 like x, got bfloat16"):
            cell.forward(functional, {**arguments, name: halved(arguments[name])})
        with pytest.raises(
            TypeError, match=rf"^{name}: expected float32 or bfloat16 together with precision, got int1"
        ):
            cell.forward(functional, {**arguments, name: arguments[name].astype(np.int16)}, precision="bfloat16")
    _, reserve = cell.forward(functional, {name: halved(a) for name, a in arguments.items()}, precision="bfloat16")
    with pytest.raises(TypeError, match=r"^dy: expected dtype float32 like y, got bfloat16"):
        cell.backward(functional, (halved(dy), *states), reserve)
