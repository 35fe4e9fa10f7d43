"""The reference's options: gradients by finite differences, equations from plainer calls, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

SHAPE = (4, 3, 2, 3)  # T, N, I, H
KINDS = ["rnn", "lstm", "gru", "indrnn", "mingru"]
OF_MATRICES = ["rnn", "lstm", "gru"]
SMOOTH = ["sigmoid", "tanh", "softsign", "softplus", "identity"]
KINKED = ["relu", "hard_sigmoid", "hard_tanh"]
RESETS = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=bool)
SIZES = [3, 3, 2, 1]

DATA = [
    {},
    {"reverse": True},
    {"lengths": [4, 0, 2]},
    {"lengths": [1, 3, 2], "reverse": True},
    {"batch_sizes": SIZES},
    {"batch_sizes": SIZES, "reverse": True},
    {"resets": RESETS},
    {"resets": RESETS, "reverse": True, "lengths": [3, 4, 1]},
    {"batch_sizes": SIZES, "resets": RESETS.ravel()[:9]},
]
EQUATIONS = [
    {"norm": True},
    {"zoneout_h": 0.4},
    {"recurrent_dropout": 0.4},
    {"dropconnect": 0.4},
]
LSTM = [
    {"peephole": True},
    {"coupled": True},
    {"coupled": True, "peephole": True},
    {"projection": 2},
    {"cell_clip": 0.5},
    {"cell_clip": 0.5, "peephole": True, "norm": True},
    {"zoneout_c": 0.4},
    {"zoneout_h": 1.0, "zoneout_c": 1.0},
    *[
        {"activations": (gate, cell, output)}
        for gate, cell, output in zip(SMOOTH, SMOOTH[1:], SMOOTH[2:], strict=False)
    ],
    *[{"activations": (name, name, name)} for name in KINKED],
]
GRU = [
    {"reset_after": False},
    *[{"reset_after": False, **options} for options in EQUATIONS[1:]],
    *[{"activations": pair} for pair in zip(SMOOTH, [*KINKED, *SMOOTH], strict=False)],
    {"reset_after": False, "activations": ("hard_sigmoid", "softsign")},
]
SINGLE = [
    *[(kind, options) for kind in KINDS for options in DATA],
    *[(kind, options) for kind in OF_MATRICES for options in EQUATIONS],
    *[("lstm", options) for options in LSTM],
    *[("gru", options) for options in GRU],
    *[(kind, {"nonlinearity": name}) for kind in ("rnn", "indrnn") for name in SMOOTH + KINKED],
]


def _name(options):
    return "-".join(f"{k}={v}" for k, v in options.items() if k != "resets") or "plain"


def _random_options(kind, rng):
    """Each option with a probability of a third or a half; data options in every mixture that is allowed."""

    def one_of(names):
        return names[rng.integers(len(names))]

    options = {"reverse": bool(rng.integers(2)), "seed": int(rng.integers(2**63)), "layer": int(rng.integers(9))}
    data = one_of(["whole", "lengths", "packed"])
    if data == "lengths":
        options["lengths"] = rng.integers(0, 5, 3)
    if data == "packed":
        options["batch_sizes"] = SIZES
    if rng.integers(2):
        options["resets"] = rng.random((9,) if data == "packed" else (4, 3)) < 0.3
    for name, low, high in [("zoneout_h", 0.2, 0.6), ("recurrent_dropout", 0.2, 0.6), ("dropconnect", 0.2, 0.6)]:
        if rng.integers(2):
            options[name] = float(rng.uniform(low, high))
    options["norm"] = bool(rng.integers(2))
    if kind == "rnn":
        options["nonlinearity"] = one_of(SMOOTH + KINKED)
    if kind == "gru":
        options["reset_after"] = options["norm"] or bool(rng.integers(2))
        options["activations"] = (one_of(["sigmoid", "hard_sigmoid"]), one_of(SMOOTH + KINKED))
    if kind == "lstm":
        options.update(peephole=bool(rng.integers(2)), coupled=bool(rng.integers(2)))
        options["activations"] = (one_of(["sigmoid", "hard_sigmoid"]), one_of(SMOOTH + KINKED), one_of(SMOOTH + KINKED))
        if rng.integers(2):
            options["cell_clip"] = 0.8
        if rng.integers(2):
            options["zoneout_c"] = float(rng.uniform(0.2, 1))
        if rng.integers(3) == 0:
            options["projection"] = 2
            options.pop("zoneout_h", None)
    return options


def _check_gradients(call, reference):
    """Central differences of sum(doutput * output), for every argument along a random direction of all its numbers."""
    gradients = call.run(reference)[1]
    assert gradients.keys() == call.arguments.keys()
    rng = np.random.default_rng(1)
    step = 1e-6

    def loss(name, value):
        outputs, _ = call._replace(arguments={**call.arguments, name: value}).forward(reference)
        return sum(float(np.sum(d * output)) for d, output in zip(call.doutputs, outputs, strict=True))

    for name, value in call.arguments.items():
        assert gradients[name].shape == value.shape
        direction = rng.standard_normal(value.shape)
        numeric = (loss(name, value + step * direction) - loss(name, value - step * direction)) / (2 * step)
        analytic = float(np.sum(gradients[name] * direction))
        np.testing.assert_allclose(analytic, numeric, rtol=1e-7, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("kind", "options"), SINGLE, ids=[f"{kind}-{_name(options)}" for kind, options in SINGLE])
def test_gradients_of_each_option_agree_with_finite_differences(kind, options, reference, make_call):
    _check_gradients(make_call(kind, SHAPE, **options), reference)


@pytest.mark.parametrize("kind", OF_MATRICES)
@pytest.mark.parametrize("seed", range(25))
def test_gradients_of_mixed_options_agree_with_finite_differences(kind, seed, reference, make_call):
    options = _random_options(kind, np.random.default_rng(seed))
    _check_gradients(make_call(kind, SHAPE, problem=100 + seed, **options), reference)


@pytest.mark.parametrize("kind", OF_MATRICES)
@pytest.mark.parametrize("seed", range(8))
def test_mixed_options_keep_float32_and_the_callers_arrays(kind, seed, reference, make_call, assert_close):
    call = make_call(kind, SHAPE, problem=seed, **_random_options(kind, np.random.default_rng(1000 + seed)))
    expected_outputs, expected = call.run(reference)
    single = call._replace(
        arguments={name: a.astype(np.float32) for name, a in call.arguments.items()},
        doutputs=tuple(d.astype(np.float32) for d in call.doutputs),
    )
    given = [*single.arguments.values(), *single.doutputs]
    before = [a.copy() for a in given]
    outputs, reserve = single.forward(reference)
    gradients = single.backward(reference, reserve)
    for k, (ours, theirs) in enumerate(zip(outputs, expected_outputs, strict=True)):
        assert_close(ours, theirs, np.float32, f"output {k}")
    for name, theirs in expected.items():
        assert_close(gradients[name], theirs, np.float32, name)
    np.testing.assert_equal(single.backward(reference, reserve), gradients)
    np.testing.assert_equal(given, before)
    results = [*outputs, *gradients.values()]
    for k, array in enumerate(results):
        assert not any(np.shares_memory(array, other) for other in [*results[:k], *given])


@pytest.mark.parametrize("kind", OF_MATRICES)
@pytest.mark.parametrize("options", [{}, {"norm": True}, {"lengths": [4, 0, 2], "resets": RESETS}], ids=_name)
def test_inference_draws_nothing_and_keeps_nothing(kind, options, reference, make_call):
    expected, _ = make_call(kind, SHAPE, **options).forward(reference)
    dropped = {"recurrent_dropout": 0.4, "dropconnect": 0.4, "training": False}
    outputs, reserve = make_call(kind, SHAPE, **options, **dropped).forward(reference)
    assert reserve is None
    np.testing.assert_equal(outputs, expected)


@pytest.mark.parametrize("kind", OF_MATRICES)
def test_zoneout_at_inference_is_the_mean(kind, reference, make_call):
    """One step: h is (1 - p) of the plain step's and p of h0; the same for c, which h does not see."""
    shape = (1, *SHAPE[1:])
    plain = make_call(kind, shape)
    expected, _ = plain.forward(reference)
    zones = {"zoneout_h": 0.3, "zoneout_c": 0.8}
    zones = zones if kind == "lstm" else {"zoneout_h": 0.3}
    outputs, _ = make_call(kind, shape, **zones, training=False).forward(reference)
    np.testing.assert_allclose(outputs[1], 0.7 * expected[1] + 0.3 * plain.arguments["h0"], rtol=1e-14)
    if kind == "lstm":
        np.testing.assert_allclose(outputs[2], 0.2 * expected[2] + 0.8 * plain.arguments["c0"], rtol=1e-14)


def test_a_clipped_cell_lies_within_and_the_output_sees_it(reference, make_call):
    (_, h, c, _), _ = make_call("lstm", (1, 40, 2, 3)).forward(reference)
    (_, clipped_h, clipped_c, _), _ = make_call("lstm", (1, 40, 2, 3), cell_clip=0.5).forward(reference)
    assert 0.1 < np.mean(np.abs(c) > 0.5) < 0.9
    np.testing.assert_equal(clipped_c, np.clip(c, -0.5, 0.5))
    np.testing.assert_allclose(clipped_h, h / np.tanh(c) * np.tanh(clipped_c), rtol=1e-13)


def test_coupled_gates_are_an_lstm_whose_forget_gate_is_what_the_input_gate_leaves(reference, make_call):
    """sigmoid(-a) = 1 - sigmoid(a): the forget gate's rows are the input gate's, negated."""
    coupled = make_call("lstm", SHAPE, coupled=True, peephole=True)
    full = dict(coupled.arguments)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        i, g, o = np.split(full[name], 3)
        full[name] = np.concatenate([i, -i, g, o])
    p_i, _, p_o = full["weight_peephole"]
    full["weight_peephole"] = np.stack([p_i, -p_i, p_o])
    outputs, gradients = coupled.run(reference)
    expected, expected_gradients = coupled._replace(arguments=full, options={}).run(reference)
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(gradients["x"], expected_gradients["x"], rtol=1e-12, atol=1e-13)
    d_i, d_f, _, _ = np.split(expected_gradients["weight_ih"], 4)
    np.testing.assert_allclose(gradients["weight_ih"][: SHAPE[3]], d_i - d_f, rtol=1e-12, atol=1e-13)
    assert not gradients["weight_peephole"][1].any()


@pytest.mark.parametrize("kind", OF_MATRICES)
def test_layer_normalization_of_one_step_by_hand(kind, reference, make_call):
    call = make_call(kind, (1, *SHAPE[1:]), norm=True)
    a = call.arguments
    (y, *_), _ = call.forward(reference)

    def ln(v, gain, bias=0):
        return gain * (v - v.mean()) / np.sqrt(v.var() + 1e-5) + bias

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for n, (x, h) in enumerate(zip(a["x"][0], a["h0"], strict=True)):
        from_x = ln(a["weight_ih"] @ x, a["gain_0"], a["norm_bias_0"]) + a["bias_ih"]
        second_bias = a.get("norm_bias_1", 0)
        from_h = ln(a["weight_hh"] @ h, a["gain_1"], second_bias) + a["bias_hh"]
        if kind == "rnn":
            expected = np.tanh(from_x + from_h)
        elif kind == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4)
            c = sigmoid(f) * a["c0"][n] + sigmoid(i) * np.tanh(g)
            expected = sigmoid(o) * np.tanh(ln(c, a["gain_2"]))
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3), np.split(from_h, 3)
            z = sigmoid(x_z + h_z)
            expected = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h
        np.testing.assert_allclose(y[0, n], expected, rtol=1e-12)


def test_peepholes_and_a_projection_of_one_step_by_hand(reference, make_call):
    call = make_call("lstm", (1, *SHAPE[1:]), peephole=True, projection=2)
    a = call.arguments
    (y, h_n, c_n, _), _ = call.forward(reference)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    p_i, p_f, p_o = a["weight_peephole"]
    for n, (x, h, c) in enumerate(zip(a["x"][0], a["h0"], a["c0"], strict=True)):
        i, f, g, o = np.split(a["weight_ih"] @ x + a["bias_ih"] + a["weight_hh"] @ h + a["bias_hh"], 4)
        c_next = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
        h_next = a["weight_hr"] @ (sigmoid(o + p_o * c_next) * np.tanh(c_next))
        np.testing.assert_allclose(c_n[n], c_next, rtol=1e-12)
        np.testing.assert_allclose(h_n[n], h_next, rtol=1e-12)
        np.testing.assert_allclose(y[0, n], h_next, rtol=1e-12)


def test_indrnn_and_mingru_of_one_unit_by_hand(reference, make_call):
    call = make_call("indrnn", (2, 1, 1, 1), problem=3)
    w, u, b, h = (call.arguments[name].item() for name in ("weight_ih", "weight_hh", "bias", "h0"))
    (y, h_n), _ = call.forward(reference)
    for t, x in enumerate(call.arguments["x"].ravel()):
        h = max(w * x + u * h + b, 0)
        np.testing.assert_allclose(y[t].item(), h, rtol=1e-14)
    assert h_n.item() == y[1].item()
    assert h > 0

    call = make_call("mingru", (2, 1, 1, 1))
    (w_z, w_n), (b_z, b_n) = call.arguments["weight_ih"].ravel(), call.arguments["bias"]
    h = call.arguments["h0"].item()
    (y, h_n), _ = call.forward(reference)
    for t, x in enumerate(call.arguments["x"].ravel()):
        z = 1 / (1 + np.exp(-(w_z * x + b_z)))
        h = (1 - z) * h + z * (w_n * x + b_n)
        np.testing.assert_allclose(y[t].item(), h, rtol=1e-14)
    assert h_n.item() == y[1].item()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hard_sigmoid", [0, 0.1, 0.5, 0.9, 1]),
        ("hard_tanh", [-1, -1, 0, 1, 1]),
        ("softsign", [-3 / 4, -2 / 3, 0, 2 / 3, 3 / 4]),
        ("softplus", [np.log1p(np.exp(v)) for v in (-3, -2, 0, 2, 3)]),
        ("identity", [-3, -2, 0, 2, 3]),
        ("relu", [0, 0, 0, 2, 3]),
    ],
)
def test_activations_by_hand_with_slope_zero_at_kinks(name, values, dtype, reference):
    x = np.array([-3, -2, 0, 2, 3], dtype).reshape(1, 5, 1)
    one, zero = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    y, _, reserve = reference.rnn_forward(x, None, one, zero, nonlinearity=name)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.ravel(), values, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    if name in ("relu", "hard_tanh"):  # at -1, 0 and 1 as well
        x = np.array([-1, 0, 1], dtype).reshape(1, 3, 1)
        _, _, reserve = reference.rnn_forward(x, None, one, zero, nonlinearity=name)
        dx = reference.rnn_backward(np.ones_like(x), None, reserve).dx
        np.testing.assert_equal(dx.ravel(), [0, 0, 1] if name == "relu" else [0, 1, 0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn", {}),
        ("rnn", {"norm": True, "recurrent_dropout": 0.4, "dropconnect": 0.4}),
        ("lstm", {}),
        ("lstm", {"reverse": True, "peephole": True}),
        ("lstm", {"projection": 2, "zoneout_c": 0.4, "recurrent_dropout": 0.3}),
    ],
    ids=lambda value: value if isinstance(value, str) else _name(value),
)
def test_the_gradient_through_the_recurrent_product_is_clipped_at_every_step(kind, options, reference, make_call):
    """Steps one by one, each backward without a clip, and dh0 clipped between them."""
    call = make_call(kind, (4, 3, 2, 8), **options)
    bound = 0.2
    clipped = call._replace(options={**call.options, "grad_clip": bound}).run(reference)[1]
    order = range(3, -1, -1) if call.options.get("reverse") else range(4)
    steps, states = [], [name for name in ("h0", "c0") if name in call.arguments]
    arguments = dict(call.arguments)
    for t in order:
        step = call._replace(
            arguments={**arguments, "x": call.arguments["x"][t : t + 1]}, options={**call.options, "step_offset": t}
        )
        outputs, reserve = step.forward(reference)
        arguments.update(zip(states, outputs[1:3], strict=True))
        steps.append((t, step, reserve))
    carried, total, cut = list(call.doutputs[1:3]), {}, 0
    for t, step, reserve in reversed(steps):
        dy, dc = call.doutputs[0][t : t + 1], [d[t : t + 1] for d in call.doutputs[3:]]
        gradients = step._replace(doutputs=(dy, *carried, *dc)).backward(reference, reserve)
        cut += np.mean(np.abs(gradients["h0"]) > bound) / 4
        gradients["h0"] = np.clip(gradients["h0"], -bound, bound)
        carried = [gradients[name] for name in states]
        np.testing.assert_allclose(clipped["x"][t], gradients.pop("x")[0], rtol=1e-12, atol=1e-14)
        for name in gradients:
            total[name] = gradients[name] if name in states else total.get(name, 0) + gradients[name]
    assert 0.2 < cut < 0.9
    for name, expected in total.items():
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("reset_after", [True, False])
def test_what_a_gru_blends_and_zones_is_not_clipped(reset_after, reference, make_call):
    """One step with z known, as it sees neither x nor h: dh0 is k dh + (1 - k) z dh and the clipped rest."""
    shape, bound = (1, *SHAPE[1:]), 0.1
    call = make_call("gru", shape, reset_after=reset_after, zoneout_h=0.4, problem=5)
    H = shape[3]
    for name in ("weight_ih", "weight_hh"):
        call.arguments[name][H : 2 * H] = 0
    clipped = call._replace(options={**call.options, "grad_clip": bound}).run(reference)[1]
    (y, _), gradients = call.run(reference)
    k = np.isclose(y[0], call.arguments["h0"], rtol=1e-14)
    assert 0 < k.sum() < k.size
    z = 1 / (1 + np.exp(-(call.arguments["bias_ih"] + call.arguments["bias_hh"])[H : 2 * H]))
    through = (k + (1 - k) * z) * (call.doutputs[0][0] + call.doutputs[1])
    product = gradients["h0"] - through
    assert 0.2 < np.mean(np.abs(product) > bound) < 0.9
    np.testing.assert_allclose(clipped["h0"], through + np.clip(product, -bound, bound), rtol=1e-12, atol=1e-14)


REFUSED = [
    ("lstm", {"recompute": True, "cell_clip": 1.0}, "recompute: expected False with cell_clip, got True"),
    ("lstm", {"recompute": True, "peephole": True}, "recompute: expected False with weight_peephole, got True"),
    ("lstm", {"recompute": True, "coupled": True}, "recompute: expected False with coupled, got True"),
    ("lstm", {"recompute": True, "zoneout_c": 0.1}, "recompute: expected False with zoneout_c, got True"),
    ("gru", {"recompute": True, "norm": True}, "recompute: expected False with layer_norm, got True"),
    ("gru", {"recompute": True, "dropconnect": 0.1}, "recompute: expected False with dropconnect, got True"),
    ("gru", {"norm": True, "reset_after": False}, "layer_norm: expected None with reset_after=False"),
    ("rnn", {"batch_sizes": SIZES, "lengths": [1, 2, 3]}, "lengths: expected None with batch_sizes"),
    ("rnn", {"lengths": [1, 2, 5]}, "lengths: expected 3 integers from 0 to 4, got [1, 2, 5]"),
    ("gru", {"lengths": [1, -1, 2]}, "lengths: expected 3 integers from 0 to 4, got [1, -1, 2]"),
    ("lstm", {"lengths": [1, 2]}, "lengths: expected 3 integers from 0 to 4, got [1, 2]"),
    ("lstm", {"batch_sizes": [1, 2, 2]}, "batch_sizes: expected non-increasing integers from 1, got [1, 2, 2]"),
    ("lstm", {"batch_sizes": [3, 1, 0]}, "batch_sizes: expected non-increasing integers from 1, got [3, 1, 0]"),
    ("rnn", {"resets": RESETS[:3]}, "resets: expected shape (4, 3), got (3, 3)"),
    ("rnn", {"zoneout_h": 1.1}, "zoneout_h: expected 0 <= p <= 1, got 1.1"),
    ("lstm", {"zoneout_c": -0.1}, "zoneout_c: expected 0 <= p <= 1, got -0.1"),
    ("gru", {"recurrent_dropout": 1}, "recurrent_dropout: expected 0 <= p < 1, got 1"),
    ("gru", {"dropconnect": float("nan")}, "dropconnect: expected 0 <= p < 1, got nan"),
    ("lstm", {"cell_clip": 0}, "cell_clip: expected a positive number or None, got 0"),
    ("rnn", {"grad_clip": -1.0}, "grad_clip: expected a positive number or None, got -1.0"),
    ("rnn", {"seed": -1}, f"seed: expected an integer from 0 to {2**64 - 1}, got -1"),
    ("gru", {"seed": 2**64}, f"seed: expected an integer from 0 to {2**64 - 1}, got {2**64}"),
    ("lstm", {"activations": ("sigmoid", "tanh")}, "activations: expected 3 names, got 2"),
    ("gru", {"activations": ("sigmoid", "gelu")}, "activations: expected one of sigmoid, tanh, relu"),
    ("indrnn", {"nonlinearity": "gelu"}, "nonlinearity: expected one of sigmoid, tanh, relu"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED, ids=[message[:50] for _, _, message in REFUSED])
def test_what_does_not_go_together_is_refused_by_name(kind, options, message, reference, make_call):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_call(kind, SHAPE, **options).forward(reference)


def test_recompute_goes_with_data_options(reference, make_call):
    for kind in ("lstm", "gru"):
        expected, _ = make_call(kind, SHAPE, lengths=[1, 4, 2], resets=RESETS, problem=1).forward(reference)
        call = make_call(kind, SHAPE, lengths=[1, 4, 2], resets=RESETS, problem=1, recompute=True)
        np.testing.assert_equal(call.forward(reference)[0], expected)


@pytest.mark.parametrize("name", ["resets", "lengths", "batch_sizes"])
def test_data_options_of_another_type_are_refused(name, reference, make_call):
    value = {"resets": RESETS.astype(int), "lengths": [1.0, 2.0, 3.0], "batch_sizes": [3.0, 1.0]}[name]
    call = make_call("rnn", SHAPE)
    with pytest.raises(TypeError, match=f"{name}: expected"):
        call._replace(options={name: value}).forward(reference)


def test_a_seed_that_is_no_integer_is_refused(reference, make_call):
    with pytest.raises(TypeError, match="seed: expected an integer, got float"):
        make_call("rnn", SHAPE, seed=1.0).forward(reference)


def test_shapes_of_option_arrays_are_checked(reference, make_call):
    for name, options in [("weight_peephole", {"peephole": True}), ("weight_hr", {"projection": 2})]:
        call = make_call("lstm", SHAPE, **options)
        wrong = {**call.arguments, name: call.arguments[name][:, :-1]}
        with pytest.raises(ValueError, match=rf"{name}: expected shape \({len(wrong[name])}, 3\), got"):
            call._replace(arguments=wrong).forward(reference)
    call = make_call("lstm", SHAPE, norm=True)
    with pytest.raises(ValueError, match=r"layer_norm: expected shape \(12,\), got \(11,\)"):
        call._replace(arguments={**call.arguments, "gain_1": call.arguments["gain_1"][1:]}).forward(reference)
