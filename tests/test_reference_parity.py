"""The reference's options are what other libraries have under these names: PyTorch, ONNX and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

T, N, I, H = SHAPE = (5, 4, 3, 6)  # noqa: E741
SIZES = [4, 3, 3, 2, 1]
LENGTHS = [5, 4, 3, 1]
STATES = ("h0", "c0")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the comparison with PyTorch needs PyTorch")


def _same(ours, theirs, what=""):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-11, atol=1e-12, err_msg=what)


@pytest.mark.parametrize(
    ("kind", "projection"),
    [("rnn", None), ("lstm", None), ("lstm", 2), ("gru", None)],
    ids=["rnn", "lstm", "lstmp", "gru"],
)
def test_packed_rows_in_both_directions_and_projections_are_pytorchs(kind, projection, reference, make_call, torch):
    P = projection or H
    calls = [
        make_call(kind, SHAPE, problem=direction, projection=projection, batch_sizes=SIZES, reverse=bool(direction))
        for direction in (0, 1)
    ]
    options = {"proj_size": projection} if projection else {}
    layer = getattr(torch.nn, kind.upper())(I, H, bidirectional=True, dtype=torch.float64, **options)
    padded = torch.randn(T, N, I, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(padded, LENGTHS)
    assert packed.batch_sizes.tolist() == SIZES
    packed.data.retain_grad()
    for call, suffix in zip(calls, ("", "_reverse"), strict=True):
        call.arguments["x"] = packed.data.detach().numpy()
        for name, a in call.arguments.items():
            if name.startswith(("weight", "bias")):
                getattr(layer, f"{name}_l0{suffix}").data.copy_(torch.from_numpy(a))
    states = [name for name in STATES if name in calls[0].arguments]
    given = [torch.from_numpy(np.stack([c.arguments[name] for c in calls])).requires_grad_() for name in states]
    y, last = layer(packed, tuple(given) if kind == "lstm" else given[0])
    theirs = [y.data, *(last if kind == "lstm" else [last])]
    dtheirs = [np.concatenate([call.doutputs[0] for call in calls], axis=1)]
    dtheirs += [np.stack([call.doutputs[k] for call in calls]) for k in range(1, len(theirs))]
    torch.autograd.backward(theirs, [torch.from_numpy(d) for d in dtheirs])

    dx = 0
    for direction, (call, suffix) in enumerate(zip(calls, ("", "_reverse"), strict=True)):
        for d in call.doutputs[3:]:  # of all c, which PyTorch does not give
            d[:] = 0
        outputs, gradients = call.run(reference)
        _same(outputs[0], theirs[0][:, direction * P : (direction + 1) * P], "y")
        for ours, tensor in zip(outputs[1:3], theirs[1:], strict=True):
            _same(ours, tensor[direction], "last state")
        for name, gradient in gradients.items():
            if name in states:
                _same(gradient, given[states.index(name)].grad[direction], name)
            elif name != "x":
                _same(gradient, getattr(layer, f"{name}_l0{suffix}").grad, name + suffix)
        dx = dx + gradients["x"]
    _same(dx, packed.data.grad, "x")


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_layer_normalization_and_clipped_gradients_are_a_composition_of_pytorchs(kind, reference, make_call, torch):
    """The cells of torch.nn.functional.layer_norm and autograd, the gradient clipped by a hook on what W_hh sees."""
    bound = 0.1
    call = make_call(kind, SHAPE, norm=True, grad_clip=bound)
    a = {name: torch.from_numpy(value).requires_grad_() for name, value in call.arguments.items()}

    def ln(v, k):
        return torch.nn.functional.layer_norm(v, v.shape[-1:], a[f"gain_{k}"], a.get(f"norm_bias_{k}"), eps=1e-5)

    h, c, ys, cs = a["h0"], a.get("c0"), [], []
    for x in a["x"]:
        seen = h.clone()
        seen.register_hook(lambda d: d.clamp(-bound, bound))
        from_x, from_h = ln(x @ a["weight_ih"].T, 0) + a["bias_ih"], ln(seen @ a["weight_hh"].T, 1) + a["bias_hh"]
        if kind == "rnn":
            h = torch.tanh(from_x + from_h)
        elif kind == "lstm":
            i, f, g, o = (from_x + from_h).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(ln(c, 2))
            cs.append(c)
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, dim=1), from_h.chunk(3, dim=1)
            z = torch.sigmoid(x_z + h_z)
            h = (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h
        ys.append(h)
    theirs = [torch.stack(ys), h, *([c, torch.stack(cs)] if kind == "lstm" else [])]
    torch.autograd.backward(theirs, [torch.from_numpy(d) for d in call.doutputs])

    outputs, gradients = call.run(reference)
    for ours, tensor in zip(outputs, theirs, strict=True):
        _same(ours, tensor)
    for name, gradient in gradients.items():
        _same(gradient, a[name].grad, name)
    unclipped = call._replace(options={}).run(reference)[1]
    assert np.abs(unclipped["h0"] - gradients["h0"]).max() > 0.01


def _onnx_model(call, **attributes):
    """An LSTM node of float64 or float32 with the call's weights: gates i, o, f, c; peepholes i, o, f."""
    onnx = pytest.importorskip("onnx", reason="the comparison with ONNX needs onnx")
    from onnx import TensorProto, helper, numpy_helper

    a = call.arguments

    def gates(weights):
        i, f, g, o = np.split(weights, 4)
        return np.concatenate([i, o, f, g])

    p_i, p_f, p_o = a["weight_peephole"]
    constants = {
        "W": gates(a["weight_ih"])[None],
        "R": gates(a["weight_hh"])[None],
        "B": np.concatenate([gates(a["bias_ih"]), gates(a["bias_hh"])])[None],
        "h0": a["h0"][None],
        "c0": a["c0"][None],
        "P": np.concatenate([p_i, p_o, p_f])[None],
    }
    kind = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT}[a["x"].dtype.name]
    outputs = [helper.make_tensor_value_info("y", kind, [T, 1, N, H])]
    outputs += [helper.make_tensor_value_info(name, kind, [1, N, H]) for name in "hc"]
    inputs = [
        helper.make_tensor_value_info("x", kind, [T, N, I]),
        helper.make_tensor_value_info("n", TensorProto.INT32, [N]),
    ]
    node = helper.make_node(
        "LSTM", ["x", "W", "R", "B", "n", "h0", "c0", "P"], ["y", "h", "c"], hidden_size=H, **attributes
    )
    graph = helper.make_graph(
        [node], "lstm", inputs, outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def test_peepholes_are_onnxs(reference, make_call):
    """ONNX's own evaluator, in float64."""
    call = make_call("lstm", SHAPE, peephole=True)
    model = _onnx_model(call)
    from onnx.reference import ReferenceEvaluator

    y, h, c = ReferenceEvaluator(model).run(None, {"x": call.arguments["x"], "n": np.full(N, T, np.int32)})
    outputs, _ = call.forward(reference)
    for ours, theirs in zip(outputs, [y[:, 0], h[0], c[0]], strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(
    "names",
    [("sigmoid", "tanh", "tanh"), ("hard_sigmoid", "softsign", "relu"), ("sigmoid", "identity", "softplus")],
    ids=lambda names: names[1],
)
def test_peepholes_coupled_gates_lengths_and_activations_are_onnx_runtimes(
    direction, coupled, names, reference, make_call, assert_close
):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the comparison with ONNX Runtime needs onnxruntime")
    affine = {"activation_alpha": [1.0], "activation_beta": [0.0]} if "identity" in names else {}
    theirs = {"identity": "Affine", "hard_sigmoid": "HardSigmoid"}
    call = make_call("lstm", SHAPE, peephole=True)
    call = call._replace(
        arguments={name: a.astype(np.float32) for name, a in call.arguments.items()},
        options={"activations": names, "lengths": LENGTHS, "reverse": direction == "reverse"},
    )
    model = _onnx_model(
        call,
        activations=[theirs.get(name, name.capitalize()) for name in names],
        direction=direction,
        input_forget=int(coupled),
        **affine,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, h, c = session.run(None, {"x": call.arguments["x"], "n": np.array(LENGTHS, np.int32)})
    if coupled:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            i, _, g, o = np.split(call.arguments[name], 4)
            call.arguments[name] = np.concatenate([i, g, o])
        call.options["coupled"] = True
    wide = call._replace(arguments={name: a.astype(np.float64) for name, a in call.arguments.items()})
    outputs, _ = wide.forward(reference)
    for ours, found in zip(outputs, [y[:, 0], h[0], c[0]], strict=False):
        assert_close(found, ours, np.float32, "ONNX Runtime's")
