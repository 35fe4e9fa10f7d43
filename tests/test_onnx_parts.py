"""ONNX graphs that are more than a chain: a recurrent node taken by name is the layer that ONNX Runtime computes there,
what is in the way is named, and Slice with Squeeze, as tf2onnx writes the last step, is read or refused, never misread.
"""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install '.[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fusedrnn.onnx import RecurrentNode, load, recurrent_nodes  # noqa: E402
from fusedrnn.onnx.scopes import Scopes  # noqa: E402

I, H = 3, 4  # noqa: E741 - the names of the house
KINDS = {"go_on": TensorProto.BOOL}  # of bodies' outputs that are no floats
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.fixture
def run():
    """run(model, **inputs) -> the outputs in order, from ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")

    def outputs(model, **inputs):
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, inputs)

    return outputs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def node(op, inputs, outputs, name="", **attributes):
    return helper.make_node(op, inputs.split(","), outputs.split(","), name, **attributes)


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=stored("", array))


def info(name, kind=TensorProto.FLOAT, dims=None):
    return helper.make_tensor_value_info(name, kind, dims)


def body(nodes, outputs, inputs=()):
    return helper.make_graph(nodes, "body", list(inputs), [info(name, KINDS.get(name, 1)) for name in outputs])


def made(nodes, outputs, weights=(), inputs=None, opset=17):
    inputs = [info("x", dims=["T", "N", I])] if inputs is None else inputs
    graph = helper.make_graph(list(nodes), "g", inputs, [info(name) for name in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weights_of(op, prefix="", directions=1):
    rows = GATES[op] * H
    shapes = {"W": (directions, rows, I), "R": (directions, rows, H), "B": (directions, 2 * rows)}
    return [stored(prefix + name, 0.4 * normal(*shape, seed=k)) for k, (name, shape) in enumerate(shapes.items())]


def y_of(Y):
    """Y [T, D, N, H] as our layers have it."""
    return Y.transpose(0, 2, 1, 3).reshape(Y.shape[0], Y.shape[2], -1)


LSTM_WEIGHTS = (  # as PyTorch's exporter puts them together of an LSTM's own arrays
    stored("ih", 0.4 * normal(4 * H, I, seed=1)), stored("hh", 0.4 * normal(1, H, 4 * H, seed=2)),
    stored("b_ih", normal(4 * H, seed=3)), stored("b_hh", normal(1, 4 * H, seed=4)),
    stored("0", [0]), stored("1", [1]), stored("-1", [-1]), stored("H", [H]), stored("3H", [3 * H]),
    stored("end", [np.iinfo(np.int64).max]), stored("back", [[-1]]),
)  # fmt: skip
LSTM_CHAIN = (
    node("Slice", "ih,0,H,0", "i"), node("Slice", "ih,3H,end,0", "o"), node("Slice", "ih,H,3H,0,1", "fg"),
    node("Concat", "i,o,fg", "ihs", axis=0), node("Unsqueeze", "ihs,0", "W"),
    node("Transpose", "hh", "hh_t", perm=[0, 2, 1]), node("Identity", "hh_t", "R"),
    node("Squeeze", "b_hh,0", "b_hh_1"), node("Concat", "b_ih,b_hh_1", "b", axis=-1), node("Unsqueeze", "b,0", "B"),
)  # fmt: skip


def speech_model():
    """Conv, then an If with an LSTM in one branch, whose weights are made outside, and a GRU in the other."""
    gru = [constant(w.name, numpy_helper.to_array(w)) for w in weights_of("GRU", "g")]
    then = body([node("LSTM", "f,W,R,B,,h0", "Y,Y_h", "/rnn/LSTM", hidden_size=H)], ["Y"])
    other = body([*gru, node("GRU", "f,gW,gR,gB", "V", hidden_size=H, linear_before_reset=1)], ["V"])
    return made(
        [
            node("Conv", "audio,kernel", "c", "/enc/Conv", pads=[1, 1]),
            node("Relu", "c", "r", "/enc/Relu"),
            node("Transpose", "r", "f", perm=[2, 0, 1]),
            *LSTM_CHAIN,
            node("If", "long", "z", "If_0", then_branch=then, else_branch=other),
            node("Sigmoid", "z", "y", "/dec/Sigmoid"),
        ],
        ["y", "z", "f"],
        [*LSTM_WEIGHTS, stored("kernel", normal(I, 2, 3))],
        [info("audio", dims=["N", 2, "T"]), info("long", TensorProto.BOOL, []), info("h0", dims=[1, "N", H])],
    )


def test_nodes_of_branches_are_what_onnx_runtime_computes_there(run, assert_close, tmp_path):
    model = speech_model()
    onnx.save(model, tmp_path / "speech.onnx")
    assert recurrent_nodes(tmp_path / "speech.onnx") == recurrent_nodes(model) == [
        RecurrentNode("V", "GRU", I, H, "forward", "If_0.else_branch/"),
        RecurrentNode("/rnn/LSTM", "LSTM", I, H, "forward", "If_0.then_branch/"),
    ]  # fmt: skip
    audio, h = normal(2, 2, 7), normal(1, 2, H, seed=9)
    for long, name in ((True, "/rnn/LSTM"), (True, "Y"), (True, "If_0.then_branch/Y"), (False, "V")):
        layer = load(tmp_path / "speech.onnx", node=name)
        assert repr(layer) == ("LSTM(3, 4)" if long else "GRU(3, 4)")
        assert not layer.training
        _, Y, features = run(model, audio=audio, long=np.array(long), h0=h)
        state = (h, np.zeros_like(h)) if long else None
        assert_close(layer(features, state)[0], y_of(Y), "float32", name)
    assert load(model, node="V", dtype="float64").dtype == np.float64


def test_the_refusal_of_the_whole_names_what_is_in_the_way():
    whole = speech_model()
    whole.graph.input[0].CopyFrom(info("audio", dims=["N", "T"]))
    with pytest.raises(ValueError, match=r"^audio: .*; operators that no network of ours has: ") as caught:
        load(whole)
    text = str(caught.value)
    for part in ("Conv (/enc/Conv)", "Relu (/enc/Relu)", "If (If_0)", "Sigmoid (/dec/Sigmoid)", "node=NAME"):
        assert part in text
    assert text.endswith("here: 'V', '/rnn/LSTM'")
    assert "LSTM (" not in text
    with pytest.raises(ValueError, match=r"^Conv /enc/Conv: .*got Conv; operators.*: Conv \(/enc/Conv\), Relu"):
        load(speech_model())


def test_a_message_stays_short_and_tells_foreign_operators():
    nodes = [node("Relu", f"y{i}" if i else "Y", f"y{i + 1}", f"relu{i}") for i in range(9)]
    foreign = node("FusedConv", "x", "q", "fused", domain="com.microsoft")
    layers = [node("RNN", "x,W,R,B", "Y" if i == 0 else f"Y{i}", f"rnn{i}", hidden_size=H) for i in range(60)]
    with pytest.raises(ValueError, match=r"got com\.microsoft FusedConv; ") as caught:
        load(made([*layers, *nodes, foreign], ["y9"], weights_of("RNN")))
    text = str(caught.value)
    assert "Relu (relu0, relu1, relu2 and 6 more), com.microsoft.FusedConv (fused); " in text
    assert text.endswith("'rnn49' and 10 more")


def test_a_node_of_loop_and_scan_bodies(run, assert_close):
    """The state of a round of the loop is the layer's state of a call."""
    loop = body(
        [node("RNN", "x,W,R,B,,h", "Y,Y_h", "rnn", hidden_size=H), node("Identity", "go", "go_on"),
         node("Scan", "x", "S", num_scan_inputs=1, body=body(
            [node("Unsqueeze", "row,zero", "rows"), node("GRU", "rows,gW,gR", "G", hidden_size=H)], ["G"],
            [info("row", dims=[2, I])]))],
        ["go_on", "Y_h", "Y", "S"],
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("h", dims=[1, 2, H])],
    )  # fmt: skip
    model = made(
        [node("Loop", "count,yes,h0", "h_n,Ys,Ss", "Loop_0", body=loop)],
        ["h_n", "Ys", "Ss"],
        [*weights_of("RNN"), *weights_of("GRU", "g"), stored("count", 2), stored("yes", True), stored("zero", [0])],
        [info("x", dims=["T", 2, I]), info("h0", dims=[1, 2, H])],
    )
    assert [(n.name, n.place) for n in recurrent_nodes(model)] == [
        ("rnn", "Loop_0.body/"), ("G", "Loop_0.body/S.body/"),
    ]  # fmt: skip
    x, h = normal(5, 2, I), normal(1, 2, H, seed=9)
    h_n, Ys, Ss = run(model, x=x, h0=h)
    rnn, gru = load(model, node="rnn"), load(model, node="G")
    for Y in Ys:
        y, h = rnn(x, h)
        assert_close(y, y_of(Y), "float32", "y")
    assert_close(h, h_n, "float32", "h_n")
    assert repr(gru) == "GRU(3, 4, bias=False, reset_after=False)"
    for row, G in zip(x, Ss[0], strict=True):
        assert_close(gru(row[None])[0], y_of(G), "float32", "the body of Scan")


@pytest.mark.parametrize("directions", [1, 2])
def test_lengths_and_states_are_arguments(directions, run, assert_close):
    options = {"direction": "bidirectional"} if directions == 2 else {}
    model = made(
        [node("Abs", "x", "a"), node("Cast", "n", "lengths", to=TensorProto.INT32),
         node("LSTM", "a,W,R,B,lengths,h,c", "Y,Y_h,Y_c", "lstm", hidden_size=H, **options)],
        ["Y", "Y_h", "Y_c"],
        weights_of("LSTM", directions=directions),
        [info("x", dims=["T", "N", I]), info("n", TensorProto.INT64), info("h"), info("c")],
    )  # fmt: skip
    x, n = normal(6, 3, I), np.array([6, 2, 4])
    h, c = normal(2, directions, 3, H, seed=5)
    Y, *states = run(model, x=x, n=n, h=h, c=c)
    y, ours = load(model, node="lstm")(np.abs(x), (h, c), lengths=n)
    assert_close(y, y_of(Y), "float32", "y")
    for mine, theirs in zip(ours, states, strict=True):
        assert_close(mine, theirs, "float32", "state")


@pytest.mark.parametrize(
    ("opset", "chain"),
    [
        (11, [node("Squeeze", "w2", "w1", axes=[0]), node("Unsqueeze", "w1", "W", axes=[-3])]),
        (11, [node("Squeeze", "w2", "w1"), node("Unsqueeze", "w1", "W", axes=[0])]),
        (9, [node("Slice", "w2", "W", axes=[0, 2], starts=[-9, 0], ends=[99, 3])]),
        (17, [node("Slice", "w2,last,first,axis,back", "w1"), node("Slice", "w1,last,first,axis,back", "W")]),
        (17, [node("Reshape", "w2,flat", "w1"), node("Reshape", "w1,shape", "W")]),
        (17, [node("Cast", "w2", "w1", to=TensorProto.DOUBLE), node("Cast", "w1", "W", to=TensorProto.FLOAT)]),
        (17, [node("Transpose", "w2", "w1"), node("Transpose", "w1", "w3", perm=[1, 0, 2]),
              node("Transpose", "w3", "W", perm=[2, 0, 1])]),
    ],
)  # fmt: skip
def test_ways_of_weights(opset, chain, run, assert_close):
    _, R, B = weights_of("RNN")
    given = [stored("w2", 0.4 * normal(1, H, I)), R, B, stored("last", [-1]), stored("first", [-(2**63)]),
        stored("axis", [-2]), stored("back", [-1]), stored("flat", [-1]), stored("shape", [1, 4, -1])]  # fmt: skip
    nodes = [*chain, node("Relu", "x", "r"), node("RNN", "r,W,R,B", "Y", "rnn", hidden_size=H)]
    model = made(nodes, ["Y"], given, opset=opset)
    x = normal(5, 2, I)
    assert_close(load(model, node="rnn")(np.maximum(x, 0))[0], y_of(run(model, x=x)[0]), "float32", "y")


def rnn(inputs="r,W,R,B", **attributes):
    return [node("Relu", "x", "r"), node("RNN", inputs, "Y,Y_h", "rnn", **{"hidden_size": H, **attributes})]


def taken(nodes, *weights, inputs=(), name="rnn"):
    names = {w.name for w in weights}
    given = [*(w for w in weights_of("RNN") if w.name not in names), *weights]
    return load(made(nodes, ["Y"], given, [info("x", dims=["T", "N", I]), *inputs]), node=name)


ONES, ZEROS = np.ones((1, 1, H), np.float32), np.zeros((1, 1, H), np.float32)
EXPANDED = [node("Shape", "x", "n"), node("Expand", "start,n", "e"), node("Slice", "e,from,to", "s"),
    *rnn("r,W,R,B,,s")]  # fmt: skip
PARTS = stored("from", [0]), stored("to", [1])
START = "RNN rnn: expected an initial state of zeros, or one that the graph is given or computes, got the constant "
REFUSED = {
    "reverse": (rnn(direction="reverse"), [], "RNN rnn: expected the direction forward or bidirectional, got reverse"),
    "clip": (rnn(clip=1.0), [], "RNN rnn: expected no clip"),
    "an input from nowhere": (rnn("r,W,R,B,,nothing"), [], "RNN rnn: expected inputs that the model has, got nothing"),
    "computed weights": ([node("Relu", "W", "w"), *rnn("r,w,R,B")], [],
        "RNN rnn: expected a constant W, got w, made by Relu w"),
    "weights that are given": (rnn("r,x,R,B"), [], "RNN rnn: expected a constant W, got x, an input of the model"),
    "weights with a computed part": ([node("Concat", "W,x", "w", axis=0), *rnn("r,w,R,B")], [],
        "RNN rnn: expected a constant W, got x, an input"),
    "no weights": (rnn("r,,R,B"), [], "RNN rnn: expected what ONNX says of this operator"),
    "weights of another size": ([node("Transpose", "W", "w"), *rnn("r,w,R,B")], [], r"RNN rnn: expected W of float32"),
    "constant lengths": (rnn("r,W,R,B,n"), [stored("n", np.array([5], np.int32))],
        "RNN rnn: expected sequence_lens that the graph is given or computes, or none, got the constant n"),
    "a start": (rnn("r,W,R,B,,start"), [stored("start", ONES)], START + "start"),
    "a learned start for all rows": (EXPANDED, [*PARTS, stored("start", ONES)], START + "start"),
    "a start of a value": ([node("ConstantOfShape", "to", "s", value=stored("v", np.array([2.0], np.float32))),
        *rnn("r,W,R,B,,s")], PARTS, START + "s"),
    "a start that is made up": ([node("Cos", "start", "s"), *rnn("r,W,R,B,,s")], [stored("start", ZEROS)], START + "s"),
    # hostile
    "a circle of weights": ([node("Identity", "b", "a", "first"), node("Identity", "a", "b"), *rnn("r,a,R,B")], [],
        "Identity (first|b): expected a graph without cycles"),
    "a circle of starts": ([node("Identity", "b", "a"), node("Identity", "a", "b"), *rnn("r,W,R,B,,a")], [],
        "RNN rnn: expected an initial state from a graph without cycles, got a"),
    "two of a name": ([node("Relu", "x", "W"), *rnn()], [], "Relu W: expected outputs of names that nothing else has"),
    "axes that there are not": ([node("Transpose", "W", "w", perm=[0, 1, 7]), *rnn("r,w,R,B")], [],
        "Transpose w: expected constants that it can take"),
    "a slice without steps": ([node("Slice", "W,from,to,from,from", "w"), *rnn("r,w,R,B")], PARTS,
        "Slice w: expected constants that it can take, got slice step"),
    "a slice twice": ([node("Slice", "W,two,two,same", "w"), *rnn("r,w,R,B")],
        [stored("two", [0, 0]), stored("same", [0, -3])], r"Slice w: expected constants .*, got axes \[0, -3\]"),
    "inputs of two dtypes": ([node("Concat", "W,d", "w", axis=0), *rnn("r,w,R,B")], [stored("d", np.ones((1, H, I)))],
        "Concat w: expected constants that it can take, got inputs of float32, float64"),
    "axes of floats": ([node("Unsqueeze", "W,R", "w"), *rnn("r,w,R,B")], [], "Unsqueeze w: .*axes of float32"),
    "a size that does not fit": ([node("Reshape", "W,to", "w"), *rnn("r,w,R,B")], PARTS, "Reshape w: .*cannot reshape"),
    "a cast to text": ([node("Cast", "W", "w", to=TensorProto.STRING), *rnn("r,w,R,B")], [], "Cast w: .*type 8"),
    "a Constant of text": ([helper.make_node("Constant", [], ["w"], value_string="w"), *rnn("r,w,R,B")], [],
        "RNN rnn: expected a constant W, got w, a Constant without numbers"),
    "damaged numbers": (rnn(), [onnx.TensorProto(name="W", data_type=1, dims=[1, H, I], raw_data=b"0")],
        "W: expected a tensor .* damaged"),
    "doubled without end": ([*(node("Concat", f"w{i},w{i}" if i else "W,W", f"w{i + 1}", axis=0) for i in range(60)),
        *rnn("r,w60,R,B")], [], "Concat w.*: expected .*, got more than 64 times the bytes of the file's constants"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "weights", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_node_that_cannot_be_taken(nodes, weights, message):
    with pytest.raises(ValueError, match=message):
        taken(nodes, *weights)


def test_starts_that_are_zeros_or_come_from_the_graph():
    assert repr(taken(EXPANDED, *PARTS, stored("start", ZEROS))) == "RNN(3, 4)"
    from_shape = [node("Shape", "x", "n"), node("ConstantOfShape", "n", "s"), *rnn("r,W,R,B,,s")]
    assert repr(taken(from_shape)) == "RNN(3, 4)"
    computed = [node("Concat", "start,h", "s", axis=0), *rnn("r,W,R,B,,s")]
    assert repr(taken(computed, stored("start", ONES), inputs=[info("h")])) == "RNN(3, 4)"


def test_an_input_of_a_body_is_no_constant():
    """Whatever stands outside under its name."""
    loop = body(rnn(), ["go", "Y", "W"], [info("i", 7, []), info("go", 9, []), info("W")])
    nodes = [node("Loop", "n,,W", "a,b,Y", "loop", body=loop)]
    with pytest.raises(ValueError, match=r"expected a constant W, got W, an input of the body loop\.body/"):
        taken(nodes, stored("n", 3))
    assert recurrent_nodes(made(nodes, ["Y"], [*weights_of("RNN"), stored("n", 3)]))[0][2:4] == (None, H)
    loop.initializer.append(weights_of("RNN")[0])
    with pytest.raises(ValueError, match="expected constants of different names"):
        taken([node("Loop", "n,,W", "a,b,Y", "loop", body=loop)], stored("n", 3))


def test_names_that_there_are_not_or_that_two_have():
    with pytest.raises(ValueError, match=r"^node: expected the name of a recurrent node, 'rnn', got 'lstm'$"):
        taken(rnn(), name="lstm")
    with pytest.raises(ValueError, match="got 'r'"):
        taken(rnn(), name="r")
    with pytest.raises(ValueError, match=r"node: expected a model with an RNN, LSTM or GRU in it, got none .* 'rnn'"):
        taken([node("Relu", "x", "Y")])


def test_two_nodes_of_one_name():
    def model(*outputs):
        bodies = [body([node("RNN", "x,W,R", out, "same", hidden_size=H)], [out]) for out in outputs]
        nodes = [node("If", "c", "z", then_branch=bodies[0], else_branch=bodies[1])]
        return made(nodes, ["z"], weights_of("RNN"), [info("x"), info("c", TensorProto.BOOL)])

    assert [n.name for n in recurrent_nodes(model("Y", "Z"))] == ["Z", "Y"]
    with pytest.raises(ValueError, match="recurrent node, 'Z', 'Y', got 'same', which 2 nodes have"):
        load(model("Y", "Z"), node="same")
    assert [n.name for n in recurrent_nodes(model("Y", "Y"))] == ["z.else_branch/same", "z.then_branch/same"]
    assert repr(load(model("Y", "Y"), node="z.then_branch/same")) == "RNN(3, 4, bias=False)"


def test_names_that_are_no_text():
    content = made(rnn(), ["Y"], weights_of("RNN")).SerializeToString()
    model = onnx.load_from_string(content.replace(b"rnn", b"r\xffn"))
    assert repr(load(model, node=recurrent_nodes(model)[0].name)) == "RNN(3, 4)"
    with pytest.raises(ValueError, match=r"^Relu r: .* 'r\ufffdn'$"):
        load(model)


def test_a_long_way_is_gone_once_and_without_recursion(monkeypatch):
    looked = []
    maker = Scopes._maker
    monkeypatch.setattr(Scopes, "_maker", lambda self, key: looked.append(key) or maker(self, key))
    way = [node("Identity", f"w{i}" if i else "W", f"w{i + 1}") for i in range(5000)]
    model = made([*way, *rnn("r,w5000,R,B")], ["Y"], weights_of("RNN"))
    assert repr(load(model, node="rnn")) == "RNN(3, 4)"
    many = [node("RNN", f"r,w{5000 - i},R,B", f"Y{i}", hidden_size=H) for i in range(40)]
    for end in ("W", "x"):  # a way that ends well, and one that does not
        looked.clear()
        way[0].input[0] = end
        listed = recurrent_nodes(made([*way, node("Relu", "x", "r"), *many], ["Y1"], weights_of("RNN")))
        assert [n.input_size for n in listed] == [I if end == "W" else None] * 40
        assert len(looked) <= 2 * len(set(looked)) <= 2 * 5004


# The last step as tf2onnx writes it for Keras: (nodes from Y to z, whether x is [N, T, I]).
MOST = {32: 2**31 - 1, 64: 2**63 - 1}


class Ending:
    """Nodes of an ending, in the form that an opset has."""

    def __init__(self, opset, bits=64):
        self.opset, self.bits, self.constants = opset, bits, []

    def numbers(self, values):
        name = f"n{len(self.constants)}"
        self.constants.append(stored(name, np.array(values, f"i{self.bits // 8}")))
        return name

    def squeeze(self, x, y, axes):
        if self.opset < 13:
            return node("Squeeze", x, y, f"squeeze_{y}", axes=axes)
        self.constants.append(stored(f"axes{len(self.constants)}", axes))
        return node("Squeeze", f"{x},{self.constants[-1].name}", y, f"squeeze_{y}")

    def slice(self, x, y, starts=(-1,), ends=None, axes=(0,), steps=None):
        ends = [MOST[self.bits]] * len(starts) if ends is None else ends
        if self.opset < 10:
            more = {} if axes is None else {"axes": list(axes)}
            return node("Slice", x, y, "slice", starts=list(starts), ends=list(ends), **more)
        lists = [starts, ends, axes, steps]
        names = ["" if values is None else self.numbers(list(values)) for values in lists]
        while not names[-1]:
            names.pop()
        return node("Slice", ",".join([x, *names]), y, "slice")


ENDINGS = {
    "time_first": (lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "s"), e.squeeze("s", "z", [0])], False),
    "rows_first": (
        lambda e: [
            e.squeeze("Y", "y", [1]), node("Transpose", "y", "b", perm=[1, 0, 2]),
            e.slice("b", "s", [0, -1, 0], None, [0, 1, 2]), e.squeeze("s", "z", [1]),
        ],
        True,
    ),
    "rows_first_all_axes": (
        lambda e: [
            e.squeeze("Y", "y", [-3]), node("Transpose", "y", "b", perm=[1, 0, 2]),
            e.slice("b", "s", [0, -1, 0], None, None, [1, 1, 1]), e.squeeze("s", "z", [-2]),
        ],
        True,
    ),
    "of_Y": (lambda e: [e.slice("Y", "s", axes=[-4]), e.squeeze("s", "z", [0, 1])], False),
    "of_Y_squeezed_twice": (
        lambda e: [e.slice("Y", "s", [-1, 0], [MOST[32], 1], [0, 1]), e.squeeze("s", "q", [-4]),
                   e.squeeze("q", "z", [-3])],
        False,
    ),
    "of_Y_rows_first": (
        lambda e: [
            node("Transpose", "Y", "b", perm=[2, 1, 0, 3]), e.slice("b", "s", axes=[2]), e.squeeze("s", "z", [-2, 1]),
        ],
        True,
    ),
    "moved_before_the_squeeze": (
        lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "s"), node("Transpose", "s", "b", perm=[1, 0, 2]),
                   e.squeeze("b", "z", [1])],
        False,
    ),
}  # fmt: skip


def keras(ending, opset, rows_first=False, directions=1):
    start = [node("Transpose", "x", "t", perm=[1, 0, 2])] if rows_first else [node("Identity", "x", "t")]
    options = {"direction": "bidirectional"} if directions == 2 else {}
    end = [node("MatMul", "z,kernel", "p"), node("Add", "p,bias", "out")]
    weights = [*weights_of("LSTM", directions=directions), stored("kernel", normal(H, 2)), stored("bias", normal(2))]
    nodes = [*start, node("LSTM", "t,W,R,B", "Y", "lstm", hidden_size=H, **options), *ending[1], *end]
    return made(nodes, ["out"], [*weights, *ending[0].constants], [info("x", dims=[None, None, I])], opset)


@pytest.mark.parametrize(("opset", "bits"), [(9, 64), (11, 32), (11, 64), (13, 32), (17, 64)])
@pytest.mark.parametrize(("ending", "rows_first"), ENDINGS.values(), ids=ENDINGS.keys())
def test_the_last_step_by_slice_and_squeeze(ending, rows_first, opset, bits, run, assert_close):
    form = Ending(opset, bits)
    model = keras((form, ending(form)), opset, rows_first)
    network = load(model)
    assert [type(m).__name__ for m in (getattr(network, str(i)) for i in range(network.length))] == [
        "LSTM", "LastStep", "Linear",
    ]  # fmt: skip
    for first, second in ((5, 3), (3, 5), (1, 1)):
        x = normal(first, second, I)
        assert_close(network(x)[0], run(model, x=x)[0], "float32", "out")


def squeezed(*arguments, **options):
    return lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "s", *arguments, **options), e.squeeze("s", "z", [0])]


LAST = r"Slice slice: expected the last step of the recurrent layer, \[-1:\] of the axis of time, got "
OTHERWISE = {
    "the first step": (squeezed([0], [1]), LAST + r"\[0:1:1\] of axis 0"),
    "the last but one": (squeezed([-2], [-1]), LAST + r"\[-2:-1:1\]"),
    "two steps": (squeezed([-2]), LAST + r"\[-2:9223372036854775807:1\]"),
    "a fixed step": (squeezed([4], [5]), LAST + r"\[4:5:1\]"),
    "nothing": (squeezed([-1], [-1]), LAST + r"\[-1:-1:1\]"),
    "nothing of few steps": (squeezed([-1], [7]), LAST + r"\[-1:7:1\]"),
    "backwards": (squeezed([-1], [-(2**63)], [0], [-1]), LAST + r"\[-1:-9223372036854775808:-1\]"),
    "none backwards": (squeezed([-1], None, [0], [-1]), LAST + r"\[-1:9223372036854775807:-1\]"),
    "one backwards": (squeezed([-1], [-2], [0], [-1]), LAST + r"\[-1:-2:-1\]"),
    "the last row": (squeezed(axes=[1]), LAST + ".* of axis 1"),
    "the last feature": (squeezed(axes=[-1]), LAST + ".* of axis 2"),
    "features": (squeezed([0], [H - 1], [2]), LAST + ".* of axis 2"),
    "some rows": (squeezed([-1, 0], [MOST[64], 2], [0, 1]), LAST + r"\[0:2:1\] of axis 1"),
    "an axis twice": (squeezed([-1, -1], None, [0, -3]), r"Slice slice: .*different axes, got axes \[0, -3\]"),
    "an axis too many": (squeezed(axes=[3]), r"Slice slice: .*, got axes \[3\]"),
    "too few ends": (squeezed([-1, 0], [MOST[64]], [0, 1]), "Slice slice: expected a start, an end and a step"),
    "squeezed elsewhere": (lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "s"), e.squeeze("s", "z", [1])],
        r"Squeeze squeeze_[zy]: expected the axis of one direction, or of the last step, got axes \[1\]"),
    "squeezed twice": (lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "s"), e.squeeze("s", "z", [0, -3])],
        r"Squeeze squeeze_[zy]: .*, got axes \[0, -3\]"),
    "squeezed before": (lambda e: [e.squeeze("Y", "y", [1]), e.squeeze("y", "z", [0])], "Squeeze squeeze_z: .*axes .0"),
    "not squeezed": (lambda e: [e.squeeze("Y", "y", [1]), e.slice("y", "z")], "out: expected an output with the input"),
    "sliced by a tensor": (lambda e: [e.squeeze("Y", "y", [1]), node("Slice", "W,y,y", "z", "slice")], "Slice slice: "),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "message"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_other_slices_are_refused(ending, message):
    form = Ending(17)
    with pytest.raises(ValueError, match=message):
        load(keras((form, ending(form)), 17))


def test_one_of_two_directions_is_refused():
    form = Ending(17)
    ending = [form.slice("Y", "d", [0], [1], [1]), form.squeeze("d", "y", [1]), form.slice("y", "s")]
    with pytest.raises(ValueError, match=LAST + r"\[0:1:1\] of axis 1"):
        load(keras((form, [*ending, form.squeeze("s", "z", [0])]), 17, directions=2))
    with pytest.raises(ValueError, match="Squeeze squeeze_z: expected the axis of one direction"):
        load(keras((form, [form.slice("Y", "s"), form.squeeze("s", "z", [0, 1])]), 17, directions=2))


def test_steps_of_x_are_no_last_step():
    form = Ending(17)
    nodes = [form.slice("x", "s"), node("RNN", "s,W,R,B", "Y", hidden_size=H), form.squeeze("Y", "y", [1])]
    with pytest.raises(ValueError, match=LAST):
        load(made(nodes, ["y"], [*weights_of("RNN"), *form.constants]))
