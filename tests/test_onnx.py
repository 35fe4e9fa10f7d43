"""ONNX models: ONNX Runtime computes from an exported one what we do, and an imported one is the network again."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedrnn import nn, optim

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install '.[onnx]'")

from fusedrnn.onnx import export, load  # noqa: E402 - only where there is ONNX


@pytest.fixture
def run():
    """run(model, **inputs) -> the outputs by name, from ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")

    def outputs(model, **inputs):
        content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))

    return outputs


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def trained(layer, x):
    """The layer after some steps towards zero, which move every parameter."""
    optimizer = optim.Adam(layer, lr=0.05)
    for _ in range(3):
        y = layer(x)[0]
        layer.backward(y / y.size)
        optimizer.step()
        optimizer.zero_grad()
    return layer.eval()


STACKS = {
    "plain": {},
    "two_layers": {"num_layers": 2, "dropout": 0.5},
    "both_ways": {"num_layers": 2, "bidirectional": True},
    "batch_first_no_bias": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}


@pytest.mark.parametrize("options", STACKS.values(), ids=STACKS.keys())
def test_a_trained_stack_there_and_back(make_layer, options, run, assert_close, assert_same_bits):
    """States are inputs and outputs; the model, exported from float32 for one shape, takes any T and N."""
    layer = make_layer(4, 6, rng=0, **options)
    swapped = layer.batch_first
    trained(layer, normal(5, 3, 4))
    model = export(layer, states=True)
    imported = load(model)
    assert type(imported) is type(layer)
    assert not imported.training
    for T, N in ((1, 1), (7, 2), (3, 5)):
        x = normal(N, T, 4) if swapped else normal(T, N, 4)
        states = [normal(layer.num_layers * layer.directions, N, 6) for _ in layer.state_names]
        state = tuple(states) if len(states) == 2 else states[0]
        y, last = layer(x, state)
        ours = (y, *last) if isinstance(last, tuple) else (y, last)
        feed = {"x": x, **dict(zip(layer.state_names, states, strict=True))}
        theirs = run(model, **feed)
        assert list(theirs) == ["y", "h_n", "c_n"][: len(ours)]
        for name, expected in theirs.items():
            assert_close(ours[["y", "h_n", "c_n"].index(name)], expected, "float32", name)
        y, last = imported(x, state)
        assert_same_bits((y, *last) if isinstance(last, tuple) else (y, last), ours)
        assert_same_bits(tuple(run(export(imported, states=True), **feed).values()), tuple(theirs.values()))
    assert_close(layer(x)[0], run(export(layer), x=x)["y"], "float32", "y from zeros")


OPTIONS = {
    "peephole": (nn.LSTM, {"peephole": True}),
    "coupled": (nn.LSTM, {"coupled": True}),
    "coupled_peephole": (nn.LSTM, {"coupled": True, "peephole": True, "bias": False}),
    "training_alone": (nn.LSTM, {"recurrent_dropout": 0.3, "dropconnect": 0.4, "grad_clip": 1.0}),
    "lstm_hard": (nn.LSTM, {"activations": ("hard_sigmoid", "softsign", "identity")}),
    "lstm_same": (nn.LSTM, {"activations": ("hard_sigmoid", "hard_sigmoid", "relu"), "peephole": True}),
    "gru_hard": (nn.GRU, {"activations": ("hard_sigmoid", "softsign")}),
    "gru_before": (nn.GRU, {"activations": ("sigmoid", "identity"), "reset_after": False}),
    **{
        name: (nn.RNN, {"nonlinearity": name})
        for name in ("sigmoid", "hard_sigmoid", "softplus", "softsign", "identity")
    },
}


@pytest.mark.parametrize(("make", "options"), OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("both", [False, True], ids=["onward", "both_ways"])
def test_options_and_lengths_there_and_back(make, options, both, run, assert_close, assert_same_bits):
    layer = trained(make(4, [6, 6] if both else [6, 5], bidirectional=both, rng=0, **options), normal(5, 3, 4))
    model = export(layer, states=True, lengths=True)
    imported = load(model)
    kept = {
        name: value for name, value in options.items() if name not in ("recurrent_dropout", "dropconnect", "grad_clip")
    }
    sizes = {"hidden_size": 6, "num_layers": 2} if both else {"hidden_size": [6, 5]}
    assert repr(imported) == repr(make(4, **sizes, bidirectional=both, **kept))
    x, lengths = normal(7, 3, 4), np.array([7, 1, 4], np.int32)
    if both:
        states = [(normal(4, 3, 6),)] * len(layer.state_names)
        names = [(name,) for name in layer.state_names]
    else:
        states = [(normal(1, 3, 6), normal(1, 3, 5))] * len(layer.state_names)
        names = [(f"{name}_l0", f"{name}_l1") for name in layer.state_names]
    given = [parts[0] if both else parts for parts in states]
    y, last = layer(x, tuple(given) if len(given) == 2 else given[0], lengths=lengths)
    last = last if len(given) == 2 else (last,)
    feed = {name: a for pair in zip(names, states, strict=True) for name, a in zip(*pair, strict=True)}
    theirs = run(model, x=x, lengths=lengths, **feed)
    ours = dict(zip(theirs, (y, *(last if both else [a for parts in last for a in parts])), strict=True))
    for name, expected in theirs.items():
        assert_close(ours[name], expected, "float32", name)
    again, _ = imported(x, tuple(given) if len(given) == 2 else given[0], lengths=lengths)
    assert_same_bits(again, y)
    assert_close(layer(x)[0], run(export(layer), x=x)["y"], "float32", "y from zeros, without lengths")


def test_names_of_states_where_layers_differ():
    model = nn.Sequential(nn.LSTM(2, [3, 4], rng=0), nn.GRU(4, 5, rng=0))
    exported = export(model, states=True, lengths=True)
    assert [i.name for i in exported.graph.input] == [
        "x", "0.h0_l0", "0.h0_l1", "0.c0_l0", "0.c0_l1", "1.h0", "lengths"
    ]  # fmt: skip
    assert [o.name for o in exported.graph.output] == [
        "y", "0.h_n_l0", "0.h_n_l1", "0.c_n_l0", "0.c_n_l1", "1.h_n"
    ]  # fmt: skip


def test_lengths_are_for_layers_alone():
    with pytest.raises(ValueError, match="lengths: expected False before LastStep 1, which takes the step T - 1"):
        export(nn.Sequential(nn.LSTM(2, 3), nn.LastStep()), lengths=True)
    model = export(nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 1)), lengths=True)
    with pytest.raises(ValueError, match=r"LSTM 0.lstm_l0: expected no sequence_lens among other layers.*got lengths"):
        load(model)
    stack = export(nn.LSTM(2, 3, 2), lengths=True)
    (second,) = [node for node in stack.graph.node if node.name == "lstm_l1"]
    second.input[4] = ""
    with pytest.raises(ValueError, match=r"LSTM lstm_l1: expected sequence_lens for all layers from one.*, got none"):
        load(stack)


def test_the_documents_example_runs(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs/exchange.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    variables: dict[str, object] = {}
    exec(compile(block, "exchange.md", "exec"), variables)
    assert len(variables["state"]) == 8


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["RNN", "LSTM", "GRU"]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("bias", "batch_first", "bidirectional")}),
    choices=st.tuples(st.booleans(), st.sampled_from(["float32", "float64"]), st.integers(14, 20)),
)
def test_export_and_load_give_the_same_layer(kind, sizes, options, choices):
    states, dtype, opset = choices
    layer = getattr(nn, kind)(*sizes, **options, dtype=dtype, rng=0)
    again = load(export(layer, states=states, opset=opset))
    assert (repr(again), again.dtype) == (repr(layer), layer.dtype)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array, err_msg=name)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_chain_of_modules(run, tmp_path, assert_close, assert_same_bits, batch_first):
    model = nn.Sequential(
        nn.Embedding(7, 3, rng=0),
        nn.LSTM(3, 5, batch_first=batch_first, rng=1),
        nn.Dropout(0.5),
        nn.GRU(5, 4, 2, batch_first=batch_first, bidirectional=True, reset_after=False, rng=2),
        nn.Sequential(nn.Linear(8, 6, rng=3), nn.LastStep(batch_first=batch_first)),  # names go on: 4.0.weight
        nn.Linear(6, 2, bias=False, rng=4),
    ).eval()
    path = tmp_path / "model.onnx"
    export(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    indices = np.random.default_rng(0).integers(0, 7, (4, 5))
    imported = load(path)
    assert_close(model(indices)[0], run(path.read_bytes(), x=indices)["y"], "float32", "y")
    assert_same_bits(imported(indices)[0], model(indices)[0])
    assert [type(getattr(imported, str(i))).__name__ for i in range(imported.length)] == [
        "Embedding", "LSTM", "GRU", "Linear", "LastStep", "Linear",
    ]  # fmt: skip


def test_a_sequence_in_pieces(run, assert_close):
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.LSTM(4, 5, 2, rng=1), nn.Linear(5, 2, rng=2)).eval()
    exported = export(model, states=True)
    x, h, c, y = normal(9, 2, 3), np.zeros((2, 2, 5), np.float32), np.zeros((2, 2, 5), np.float32), []
    for piece in np.split(x, 3):
        found = run(exported, x=piece, h0=h, c0=c)
        h, c = found["h_n"], found["c_n"]
        y.append(found["y"])
    assert_close(model(x)[0], np.concatenate(y), "float32", "y")


def test_float64_is_cast_on_request(run, assert_close):
    layer = nn.GRU(3, 4, dtype="float64", rng=0).eval()
    x = normal(5, 2, 3)
    assert_close(run(export(layer, dtype="float32"), x=x)["y"], layer(x.astype(float))[0], "float32", "y")
    assert load(export(layer), dtype="float32").dtype == np.float32


def test_layers_that_are_no_stack_stay_apart(assert_same_bits):
    model = nn.Sequential(nn.GRU(3, 5, rng=0), nn.GRU(5, 5, reset_after=False, rng=1), nn.GRU(5, 5, bias=False, rng=2))
    imported = load(export(model))
    assert imported.length == 3
    x = normal(4, 2, 3)
    assert_same_bits(imported(x)[0], model.eval()(x)[0])


@pytest.mark.parametrize("both", [(True, False), (False, True)])
def test_layers_of_other_directions_stay_apart(both, assert_same_bits):
    features = 10 if both[0] else 5
    model = nn.Sequential(nn.GRU(3, 5, bidirectional=both[0], rng=0), nn.GRU(features, 5, bidirectional=both[1], rng=1))
    imported = load(export(model))
    assert [getattr(imported, name).bidirectional for name in "01"] == list(both)
    x = normal(4, 2, 3)
    assert_same_bits(imported(x)[0], model.eval()(x)[0])


class Unknown(nn.Module):
    pass


class Residual(nn.GRU):
    """A layer with an option more than the exporter knows."""

    def __init__(self, input_size, hidden_size, *, residual=False):
        super().__init__(input_size, hidden_size)
        self.residual = residual


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Residual(1, 1, residual=True), {}, "residual: expected False, which alone ONNX has, got True"),
        (nn.LSTM(1, 2, proj_size=1), {}, "proj_size: expected 0, which alone ONNX has, got 1"),
        (nn.LSTM(1, 2, cell_clip=1.0), {}, "cell_clip: expected None, which alone ONNX has, got 1.0"),
        (nn.GRU(1, 2, layer_norm=True), {}, "layer_norm: expected False, which alone ONNX has, got True"),
        (nn.RNN(1, 2, zoneout_h=0.5), {}, "zoneout_h: expected 0.0, which alone ONNX has, got 0.5"),
        (nn.RNN(1, 2, learn_initial_state=True), {}, "learn_initial_state: expected False, which alone ONNX has"),
        (nn.RNN(1, 2, nonlinearity="hard_tanh"), {}, "activations: expected sigmoid, .* has, got 'hard_tanh'"),
        (nn.LSTM(1, 1), {"opset": 13}, "opset: expected 14 to .*, got 13"),
        (nn.Linear(1, 1), {}, "module: expected an RNN, LSTM or GRU in it, got none"),
        (nn.MinGRU(1, 2), {}, "module: expected RNN, .*, got MinGRU, for which ONNX has no operator"),
        (nn.Sequential(nn.IndRNN(1, 2), nn.LSTM(2, 2)), {}, "module: .*, got IndRNN 0, for which ONNX has no operator"),
        (nn.LSTMCell(1, 2), {}, "module: .*, got LSTMCell, for which ONNX has no operator"),
        (nn.ManyToOne(nn.LSTM(1, 1), 1), {}, r"module: .*, got ManyToOne, .* nn\.Sequential\(model\.rnn"),
        (object(), {}, "module: .*, got builtins.object, which is no module of fusedrnn.nn"),
        (nn.Sequential(nn.LSTM(1, 1), Unknown()), {}, "module: expected .*, got Unknown 1, for which ONNX has no"),
        (nn.Sequential(nn.LSTM(1, 1), nn.Embedding(1, 1)), {}, "module: .*, got Embedding 1 behind other modules"),
        (nn.Sequential(nn.LSTM(1, 1), nn.LastStep(), nn.LastStep()), {}, "expected one LastStep, got another: 2"),
        (nn.Sequential(nn.LSTM(1, 1), nn.LastStep(batch_first=True)), {}, "batch_first: expected the same"),
    ],
)
def test_export_refuses(module, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(module, tmp_path / "x.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_an_option_at_its_default_is_no_matter():
    assert repr(load(export(Residual(2, 3)))) == "GRU(2, 3)"


def changed(change, module=None):
    """An exported model after a change to the graph; nodes by operator."""
    model = export(module or nn.Sequential(nn.GRU(2, 3), nn.Linear(3, 1)), states=True)
    change(model.graph, {node.op_type: node for node in model.graph.node})
    return model


def attribute(name, value, op="GRU"):
    return lambda graph, nodes: nodes[op].attribute.append(onnx.helper.make_attribute(name, value))


def attributes(**values):
    def change(graph, nodes):
        for name, value in values.items():
            attribute(name, value)(graph, nodes)

    return change


def extra_input(index, op="GRU"):
    def change(graph, nodes):
        inputs = list(nodes[op].input)
        inputs += [""] * (index + 1 - len(inputs))
        inputs[index] = "more"
        graph.input.append(onnx.helper.make_tensor_value_info("more", 1, None))
        nodes[op].ClearField("input")
        nodes[op].input.extend(inputs)

    return change


def constant_lengths(graph, nodes):
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([5], np.int32), "lengths"))
    nodes["GRU"].input[4] = "lengths"


def start_at(values):
    """The state becomes a constant."""

    def change(graph, nodes):
        graph.initializer.append(onnx.numpy_helper.from_array(values, "start"))
        nodes["GRU"].input[5] = "start"
        graph.node.remove(nodes["Split"])

    return change


def append(*node, output="y", **attributes):
    """One more node, at the end if its output is y."""

    def change(graph, nodes):
        if output == "y":
            nodes["Identity"].output[0] = "before"
        graph.node.append(onnx.helper.make_node(*node, [output], "added", **attributes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (attribute("clip", 1.0), "GRU gru_l0: expected no clip, got 1.0"),
        (attribute("layout", 1), "GRU gru_l0: expected no layout, got 1"),
        (attribute("direction", "reverse"), "GRU gru_l0: expected the direction .*, got reverse"),
        (attribute("activations", ["Sigmoid", "Elu"]), "GRU gru_l0: expected activations among Sigmoid, .*, got Elu"),
        (attribute("activations", ["Sigmoid"]), "GRU gru_l0: expected 2 activations, .*, got sigmoid"),
        (attributes(activations=["Affine", "Tanh"], activation_alpha=[2.0]), "GRU gru_l0: expected Affine with.*2, 0"),
        (extra_input(4), "GRU gru_l0: expected no sequence_lens among other layers, which know none, got more"),
        (constant_lengths, "GRU gru_l0: expected sequence_lens for all layers from one input, or none, got lengths"),
        (extra_input(2), "GRU gru_l0: expected a constant R, got more"),
        (start_at(np.ones((1, 1, 3), np.float32)), "GRU gru_l0: expected an initial state of zeros.*constant start"),
        (append("Tanh", ["before"]), "Tanh added: expected an operator of a recurrent network"),
        (append("Add", ["before", "before"]), "Add added: expected a constant bias"),
        (append("Linear", ["before"], domain="other"), "Linear added: expected an operator.*got other Linear"),
        (append("Tanh", ["h_n"], output="z"), "Tanh added: expected a chain of layers, got a branch"),
        (append("Tanh", ["x"], output="z"), "Tanh added: expected a chain of layers, got another use of x"),
        (append("Transpose", ["before"], perm=[1, 0, 2]), "y: expected an output with the input's order of time"),
        (append("Transpose", ["before"], perm=[0, 1]), "Transpose added: expected an order of 3 axes"),
    ],
)  # fmt: skip
def test_load_refuses_by_name(change, message):
    model = changed(change)
    for node in model.graph.node:
        node.name = node.name.removeprefix("0.")
    with pytest.raises(ValueError, match=message):
        load(model)


def test_load_refuses_inputs_that_are_no_constants_and_a_second_path():
    with pytest.raises(ValueError, match="LSTM lstm_l0: expected a constant P, got more"):
        load(changed(extra_input(7, "LSTM"), nn.LSTM(2, 3)))
    with pytest.raises(ValueError, match="model: expected an RNN, LSTM or GRU"):
        load(onnx.helper.make_model(onnx.helper.make_graph(
            [], "nothing", [onnx.helper.make_tensor_value_info("x", 1, [1, 1, 1])], []
        )))  # fmt: skip


def test_load_refuses_layers_that_take_each_others_states():
    def change(graph, nodes):
        nodes["Split"].output[:] = nodes["Split"].output[::-1]

    with pytest.raises(ValueError, match="RNN rnn_l0: expected an initial state from row 0 of h0 on, got row 1"):
        load(changed(change, nn.RNN(2, 3, 2)))


def test_load_of_no_model(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match=r"x\.onnx: truncated, or not an ONNX model"):
        load(tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")


def test_initial_zeros_are_no_state(assert_same_bits):
    model = changed(start_at(np.zeros((1, 1, 3), np.float32)), nn.GRU(2, 3, rng=0))
    x = normal(4, 1, 2)
    assert_same_bits(load(model)(x)[0], nn.GRU(2, 3, rng=0).eval()(x)[0])


# What a network of PyTorch may do with (y, h_n): name -> (head(linear layer, y, h_n), the options it goes with)
READS = {
    "layer": (lambda head, y, h: (y, h), {"num_layers": 2}),
    "both_ways": (lambda head, y, h: head(y), {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "last_step": (lambda head, y, h: head(y[-1]), {"num_layers": 2, "bias": False}),
    "last_step_batch_first": (lambda head, y, h: head(y[:, -1]), {"batch_first": True}),
    "last_state": (lambda head, y, h: (head(h[-1]), h), {"num_layers": 2}),
}


@pytest.mark.parametrize("batch_first", [False, True])
def test_pytorchs_last_state_of_a_second_stack(batch_first, assert_close):
    """The states that are put together are those of its own layers."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.GRU(4, 6, batch_first=batch_first)
            self.second = torch.nn.GRU(6, 5, 2, batch_first=batch_first)
            self.head = torch.nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.second(self.first(x)[0])[1][-1])

    network, stream = Network().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor
        torch.onnx.export(network, (torch.zeros(5, 3, 4),), stream, dynamo=False)
    x = normal(6, 2, 4)
    with torch.no_grad():
        expected = network(torch.tensor(x))
    assert_close(load(onnx.load_from_string(stream.getvalue()))(x)[0], expected.numpy(), "float32", "head")


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(("read", "options"), READS.values(), ids=READS.keys())
def test_pytorchs_exports(kind, read, options, assert_close):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(4, 6, **options)
            self.head = torch.nn.Linear(12 if options.get("bidirectional") else 6, 3)

        def forward(self, x):
            y, state = self.rnn(x)
            return read(self.head, y, state[0] if kind == "LSTM" else state)

    network, stream = Network().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor
        names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "A", 1: "B"}}}
        torch.onnx.export(network, (torch.zeros(5, 3, 4),), stream, dynamo=False, **names)
    x = normal(6, 2, 4)
    y = load(onnx.load_from_string(stream.getvalue()))(x)
    with torch.no_grad():
        expected = network(torch.tensor(x))
    y, expected = (v[0] if isinstance(v, tuple) else v for v in (y, expected))
    assert_close(y, expected.numpy(), "float32", kind)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_layer_by_name_of_pytorchs_speech_model(kind, run, assert_close):
    """Its weights are put together by nodes, as the exporter leaves them without constant folding."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(2, 4, 3)
            self.rnn = getattr(torch.nn, kind)(4, 6, bidirectional=True)

        def forward(self, audio):
            features = self.conv(audio).relu().permute(2, 0, 1)
            return features, self.rnn(features)[0]

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor
        options = {"input_names": ["audio"], "dynamo": False, "do_constant_folding": False}
        torch.onnx.export(Network().eval(), (torch.zeros(3, 2, 9),), stream, **options)
    model = onnx.load_from_string(stream.getvalue())
    with pytest.raises(ValueError, match=rf"Conv \(/conv/Conv\), Relu .* '/rnn/{kind}'"):
        load(model)
    features, y = run(model, audio=normal(3, 2, 9)).values()
    assert_close(load(model, node=f"/rnn/{kind}")(features)[0], y, "float32", kind)
