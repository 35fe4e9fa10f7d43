"""ONNX files that are damaged, or made to do harm: one ValueError, or the network that ONNX Runtime sees there too."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install '.[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fusedrnn.onnx import export, load  # noqa: E402


def zeros(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


WEIGHTS = (zeros("W", 1, 4, 3), zeros("R", 1, 4, 4), numpy_helper.from_array(np.array([1]), "one"))
LAYER = (
    helper.make_node("RNN", ["x", "W", "R"], ["Y", "Y_h"], "rnn", hidden_size=4),
    helper.make_node("Squeeze", ["Y", "one"], ["y"], "squeeze"),
)


def node(op, inputs, outputs, name="bad", **attributes):
    return helper.make_node(op, inputs, outputs, name, **attributes)


def info(name, kind=TensorProto.FLOAT, dims=None):
    return helper.make_tensor_value_info(name, kind, dims)


def made(nodes=LAYER, weights=WEIGHTS, inputs=(), outputs=("y",), x=None, opset=17):
    x = x or info("x", dims=["T", "N", 3])
    inputs = [x, *(info(name) for name in inputs)]
    graph = helper.make_graph(list(nodes), "g", inputs, [info(name) for name in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def layer(*inputs, outputs=("Y", "Y_h"), **attributes):
    return (node("RNN", inputs, outputs, **{"hidden_size": 4, **attributes}), LAYER[1])


def tensor(name="W", kind=TensorProto.FLOAT, dims=(1, 4, 3), raw=b"\0" * 48):
    return onnx.TensorProto(name=name, data_type=kind, dims=dims, raw_data=raw)


def outside(name):
    t = zeros(name, 1, 4, 3)
    onnx.external_data_helper.set_external_data(t, "/etc/passwd")
    t.ClearField("raw_data")
    t.data_location = onnx.TensorProto.EXTERNAL
    return t


def weights(*instead):
    """The usual ones, these in place of those of their names."""
    return (*(w for w in WEIGHTS if w.name not in {i.name for i in instead}), *instead)


def twice(attribute):
    first = node("Transpose", ["x"], ["a"], perm=[0, 1, 2])
    first.attribute.append(helper.make_attribute("perm", attribute))
    return first


def branch():
    """The body of an If, which takes x from outside."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["inner"])], "branch", [], [info("inner")])
    return node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)


CIRCLE = (node("Identity", ["b"], ["a"], "first"), node("Identity", ["a"], ["b"], "second"))
HOSTILE = {
    # names
    "an output that is an input": (made([node("Identity", ["x"], ["x"])]), "Identity bad: expected outputs of names"),
    "a cycle": (made([*CIRCLE, *LAYER]), "Identity (first|second): expected a graph without cycles"),
    "a cycle of weights": (made([*CIRCLE, *layer("x", "a", "R")]), "Identity .*: expected a graph without cycles"),
    "a cycle of states": (made([*CIRCLE, *layer("x", "W", "R", "", "", "a")]), "Identity .*without cycles"),
    "a node that takes itself": (made([*layer("Y", "W", "R")]), "RNN bad: expected a graph without cycles"),
    "one output of two nodes": (made([*LAYER, node("Relu", ["x"], ["Y"])]), "Relu bad: expected outputs of names .* Y"),
    "one name for two outputs": (made(layer("x", "W", "R", outputs=["Y", "Y"])), "RNN bad: expected outputs of names"),
    "constants of one name": (made(weights=(*WEIGHTS, WEIGHTS[0])), "W: expected one constant of this name, got two"),
    "inputs of one name": (made(inputs=["h", "h"]), "model: expected inputs of different names, got x, h, h"),
    "an input from nowhere": (made(layer("x", "W", "R", "", "", "h")), "RNN bad: expected inputs .* has, got h"),
    "no such output": (made(outputs=["y", "z"]), "z: expected an output that a node makes, got none"),
    # nodes
    "no output": (made([node("Dropout", ["x"], [])]), "Dropout bad: expected what ONNX says .*, got .*output size 0"),
    "an output without a name": (made([node("Identity", ["x"], [""])]), "Identity bad: expected what ONNX says"),
    "no inputs": (made([node("RNN", [], ["y"])]), "RNN bad: expected what ONNX says .*input size 0"),
    "an attribute that there is not": (made(layer("x", "W", "R", foo=1)), "RNN bad: .*Unrecognized attribute: foo"),
    "an attribute of another type": (made(layer("x", "W", "R", direction=1)), "RNN bad: .*Mismatched attribute type"),
    "an attribute twice": (made([twice([1, 0, 2]), *layer("a", "W", "R")]), "Transpose bad: .*multiple times"),
    "a graph in a layer": (made([node("RNN", [], ["y"], body=branch().attribute[0].g)]),
        "RNN bad: expected what ONNX says"),
    "no such operator": (made([node("Foo", ["x"], ["y"])]), "Foo bad: .*No Op registered for Foo"),
    "no such axes": (made([node("Transpose", ["x"], ["y"], perm=[0, 1, 9])]), "Transpose bad: expected an order of 3"),
    "a squeezed feature": (made([*LAYER, node("Squeeze", ["y", "m"], ["z"])],
        (*WEIGHTS, numpy_helper.from_array(np.array([-1]), "m")), outputs=["z"]), "Squeeze bad: .*of one direction"),
    "a branch": (made([*LAYER, branch()], inputs=["c"]), "If bad: expected a chain of layers, got a branch"),
    "too many axes": (made([node("Reshape", ["x", "many"], ["y"])],
        (numpy_helper.from_array(np.zeros(65, np.int64), "many"),)), "Reshape bad: expected at most 64 integers"),
    # sizes and numbers
    "a negative size": (made(weights=weights(tensor(dims=(1, -1, 3)))), "W: expected sizes of at least 0"),
    "a size without data": (made(weights=weights(tensor(dims=(1, 1 << 60, 3)))), "W: expected a tensor .* damaged"),
    "sizes that overflow": (made(weights=weights(tensor(dims=(1 << 40,) * 3, raw=b""))), "W: .* damaged data"),
    "too many sizes": (made(weights=weights(tensor(dims=(1,) * 1000))), "W: .* damaged data"),
    "no such type": (made(weights=weights(tensor(kind=99))), "W: expected a tensor of numbers"),
    "integers": (made(weights=weights(tensor(kind=TensorProto.INT32))), "RNN rnn: expected W of float32, .* got int32"),
    "other floats": (made(weights=weights(tensor(kind=TensorProto.DOUBLE, raw=b"\0" * 96))), "RNN rnn: .* got float64"),
    "W of other gates": (made(weights=weights(zeros("W", 1, 8, 3))), r"RNN rnn: expected W .* \(1, 4, I\), got .*8, 3"),
    "R that is no square": (made(weights=weights(zeros("R", 1, 4, 5))), r"RNN rnn: expected R .* \(1, 4, 4\), got"),
    "R without axes": (made(weights=weights(zeros("R"))), r"RNN rnn: expected R .*, got float32 \(\)"),
    "no features": (made(weights=weights(zeros("W", 1, 4, 0)), x=info("x")), r"RNN rnn: expected W .*\(1, 4, 0"),
    "another hidden_size": (made(layer("x", "W", "R", hidden_size=5)), r"RNN bad: expected W .* \(1, 5, I\)"),
    "one direction of two": (made(layer("x", "W", "R", direction="bidirectional")), r"RNN bad: .* \(2, 4, I\)"),
    "features that do not fit": (made(x=info("x", dims=["T", "N", 5])), "RNN rnn: expected weights for 5 features.*3"),
    "an x of two axes": (made(x=info("x", dims=["T", 3])), "x: expected an input of 3 axes, got 2"),
    "an x of text": (made(x=info("x", TensorProto.STRING, ["T", "N", 3])), "x: expected an input of float32, .*type 8"),
    "x as a state": (made(layer("x", "W", "R", "", "", "x")), "RNN bad: expected an initial state .* own, got x"),
    # versions and files
    "an x of no type": (made(x=onnx.ValueInfoProto(name="x")), "x: expected an input of float32, .*type 0"),
    "an old opset": (made(opset=6), "model: expected one version .* from 7 to .*, got 6"),
    "an opset of the future": (made(opset=1 << 40), "model: expected one version .*, got 1099511627776"),
    "a file of somebody's": (made(weights=weights(outside("W"))), "W: expected numbers within the model"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_one_error_names_the_node(model, message):
    with pytest.raises(ValueError, match=message):
        load(model)


def test_the_model_that_these_are_made_from_loads():
    assert repr(load(made())) == "RNN(3, 4, bias=False)"
    assert repr(load(made(LAYER[::-1]))) == "RNN(3, 4, bias=False)", "nodes in another order than the file's"


def test_a_graph_is_followed_without_recursion():
    """Ten times as deep as Python's stack, above a state and below the last one."""
    deep = 10_000
    above = [node("Identity", [f"a{i}" if i else "h"], [f"a{i + 1}"], f"a{i}") for i in range(deep)]
    below = [node("Identity", [f"b{i}" if i else "Y_h"], [f"b{i + 1}"], f"b{i}") for i in range(deep)]
    model = made([*above, *layer("x", "W", "R", "", "", f"a{deep}"), *below], inputs=["h"], outputs=["y", f"b{deep}"])
    assert repr(load(model)) == "RNN(3, 4, bias=False)"


def test_each_node_is_looked_at_once(monkeypatch):
    """However many layers share the way to their initial states."""
    from fusedrnn.onnx.graph import Graph

    looked = []
    above = Graph._above
    monkeypatch.setattr(Graph, "_above", lambda self, name, taker: looked.append(name) or above(self, name, taker))
    way = [node("Identity", [f"a{i}" if i else "h"], [f"a{i + 1}"], f"a{i}") for i in range(50)]
    layers = [
        n
        for i in range(40)
        for n in (
            node("RNN", [f"y{i}" if i else "x", "S" if i else "W", "R", "", "", "a50"], [f"Y{i + 1}"], hidden_size=4),
            node("Squeeze", [f"Y{i + 1}", "one"], [f"y{i + 1}"]),
        )
    ]
    model = made([*way, *layers], (*WEIGHTS, zeros("S", 1, 4, 4), zeros("h", 1, 1, 4)), outputs=["y40"])
    assert load(model).num_layers == 40
    assert len(looked) == len(set(looked)) == 51


def test_a_small_file_does_not_fill_the_memory():
    """Thousands of layers that share one large constant would be that many copies."""
    layers = [
        n
        for i in range(70)
        for n in (
            node("RNN", [f"y{i}" if i else "x", "R", "R"], [f"Y{i + 1}"], f"rnn{i}", hidden_size=4),
            node("Squeeze", [f"Y{i + 1}", "one"], [f"y{i + 1}"]),
        )
    ]
    with pytest.raises(ValueError, match="RNN rnn32: expected weights that at most 64 layers share, got R"):
        load(made(layers, outputs=["y70"], x=info("x", dims=["T", "N", 4])))


def test_numbers_in_a_file_beside_the_model(tmp_path, assert_same_bits):
    """As exporters of large models write them; outside of the folder they are nobody's to read."""
    network = nn.GRU(3, 40, rng=0).eval()
    model, path = export(network), tmp_path / "x.onnx"
    onnx.save(model, path, save_as_external_data=True, location="x.data", size_threshold=0)
    x = np.ones((4, 2, 3), np.float32)
    assert_same_bits(load(path)(x)[0], network(x)[0])
    (tmp_path / "x.data").unlink()
    with pytest.raises(ValueError, match=r"x\.onnx: the files with its numbers cannot be read"):
        load(path)
    path.write_bytes(made(weights=weights(outside("W"))).SerializeToString())
    with pytest.raises(ValueError, match=r"x\.onnx: the files with its numbers cannot be read"):
        load(path)


EXPORTED = {
    "rnn": (lambda: nn.RNN(2, 3, 2, bidirectional=True, nonlinearity="relu", rng=0), {"states": True}),
    "lstm": (lambda: nn.LSTM(2, 3, 2, bidirectional=True, batch_first=True, rng=0), {"lengths": True}),
    "peepholes": (lambda: nn.LSTM(2, [3, 2], peephole=True, coupled=True, rng=0), {"states": True}),
    "gru": (lambda: nn.GRU(2, 3, bias=False, activations=("hard_sigmoid", "softsign"), rng=0), {"opset": 14}),
    "chain": (
        lambda: nn.Sequential(
            nn.Embedding(5, 2, rng=0), nn.LSTM(2, 3, rng=1), nn.GRU(3, 2, bidirectional=True, reset_after=False, rng=2),
            nn.LastStep(), nn.Linear(4, 2, rng=3),
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "options"), EXPORTED.values(), ids=EXPORTED.keys())
def test_a_damaged_file_gives_an_error_or_what_onnx_runtime_computes(make, options, tmp_path):
    """Cut short anywhere, or with a bit that changed."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")
    runtime.set_default_logger_severity(4)
    rng, path = np.random.default_rng(0), tmp_path / "x.onnx"
    whole = export(make(), **options).SerializeToString()
    outcomes = {"refused": 0, "agrees": 0}
    for turn in range(80):
        damaged = bytearray(whole)
        if turn % 4 == 0:
            del damaged[rng.integers(len(damaged)) :]
        else:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            network = load(path)
        except ValueError:
            outcomes["refused"] += 1
            continue
        feed = inputs(onnx.load(path))
        try:
            expected = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        except Exception:
            continue  # Runtime checks what our network does not take from the file: names and the last states' shapes
        lengths = {name: a for name, a in feed.items() if name == "lengths"}
        ours = network(next(iter(feed.values())), **lengths)[0]
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        outcomes["agrees"] += 1
    assert min(outcomes.values()) >= 10


def inputs(model):
    """Something for each input, zeros for the states."""
    feed = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dims = [d.dim_value or {"T": 4, "N": 3}.get(d.dim_param, 3) for d in kind.shape.dim]
        numbers = np.arange(np.prod(dims)).reshape(dims) % 3 + 1 if value.name in ("x", "lengths") else np.zeros(dims)
        feed[value.name] = numbers.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return feed
