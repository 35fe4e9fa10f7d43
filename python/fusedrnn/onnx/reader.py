"""A network from an ONNX model whose nodes are a chain: embedding, RNN, LSTM or GRU, the last step, linear layers.

The chain is followed from the first input on, with a letter for every axis of the tensor at hand: "a" and "b" are the
input's first two, and the first recurrent node tells which is time; "D" directions, "F" features, "1" the axis of a
last step that is not squeezed yet. What exporters write between two layers (transposes, squeezes, reshapes) moves
letters. What has no place in the chain is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from fusedrnn import nn
from fusedrnn.arrays import Array
from fusedrnn.interop import layouts
from fusedrnn.onnx.activations import USUAL, from_attributes
from fusedrnn.onnx.graph import Graph, attributes, input_name, refused

_MOVES = ("Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
DTYPES = ("float32", "float64", "float16", "bfloat16")
_TO_THE_END = 2**31 - 1  # or more, as the end of a Slice: exporters write the largest integer of 32 or 64 bits
_SHARED = 64  # how many layers may take the same weights, on average


def network(model: onnx.ModelProto, dtype: Any) -> nn.Module:
    """The network that a whole graph is. Raises ValueError for a graph that is no chain of layers."""
    chain = _Chain(Graph(model))
    chain.follow()
    stacks: list[list[Any]] = []
    for step in chain.steps:
        if isinstance(step, Recurrent) and stacks and step.goes_on(stacks[-1][-1]):
            stacks[-1].append(step)
        else:
            stacks.append([step])
    if chain.lengths and len(stacks) > 1:
        raise refused(chain.recurrent[0], "no sequence_lens among other layers, which know none", chain.lengths)
    modules = [module_of(steps, chain.batch_first, dtype) for steps in stacks]
    return (modules[0] if len(modules) == 1 else nn.Sequential(*modules)).eval()


def _dtype(name: str, kind: int) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(kind)
    except Exception:  # KeyError or ValueError, for kinds that there are not
        dtype = np.dtype(object)
    if dtype.name not in DTYPES:
        raise ValueError(f"{name}: expected an input of {', '.join(DTYPES)} or of integers, got ONNX's type {kind}")
    return dtype


class Recurrent(NamedTuple):
    cell: str
    options: dict[str, Any]  # of our layer
    tensors: dict[str, Array]  # W, R, B, P

    def goes_on(self, below: Any) -> bool:
        """Whether this may be the next layer of the stack that ``below`` belongs to."""
        if not isinstance(below, Recurrent):
            return False
        return (
            self[:2] == below[:2]
            and self.tensors.keys() == below.tensors.keys()
            and len(self.tensors["R"]) == len(below.tensors["R"])
        )


class _Linear(NamedTuple):
    weight: Array  # [O, I]
    bias: Array | None


class _Embedding(NamedTuple):
    weight: Array  # [V, E]


class _LastStep(NamedTuple):
    pass


def module_of(steps: list[Any], batch_first: bool, dtype: Any) -> nn.Module:
    """The module of a step, or of recurrent steps that are one stack."""
    first = steps[0]
    if isinstance(first, _LastStep):
        return nn.LastStep(batch_first=batch_first)
    state: layouts.State = {}
    module: nn.Module
    if isinstance(first, Recurrent):
        coupled = first.options.get("coupled", False)
        for layer, step in enumerate(steps):
            state.update(layouts.from_onnx(step.tensors, step.cell, layer=layer, coupled=coupled, dtype=dtype))
        sizes = [step.tensors["R"].shape[2] for step in steps]
        module = getattr(nn, first.cell.upper())(
            first.tensors["W"].shape[2], sizes if len(set(sizes)) > 1 else sizes[0], len(steps),
            bias="B" in first.tensors, batch_first=batch_first, bidirectional=len(first.tensors["R"]) == 2,
            dtype=state["weight_ih_l0"].dtype, **first.options,
        )  # fmt: skip
    else:
        arrays = {name: a for name, a in first._asdict().items() if a is not None}
        state = layouts.from_pytorch(arrays, dtype=dtype)  # whose layout a linear layer and an embedding have
        rows, columns = state["weight"].shape
        if isinstance(first, _Embedding):
            module = nn.Embedding(rows, columns, dtype=state["weight"].dtype)
        else:
            module = nn.Linear(columns, rows, bias="bias" in state, dtype=state["weight"].dtype)
    module.load_state_dict(state)
    return module


class _Chain:
    """The steps of a graph, found by ``follow``.

    The method for a node's operator takes the node and returns the tensor that follows if it is not the first output.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Any] = []
        self.recurrent: list[onnx.NodeProto] = []
        self.order = ""  # of the axes that recurrent nodes take: "abF", or "baF" with batch_first
        self.lengths = ""  # the input that is sequence_lens of all recurrent nodes, if any
        self.rows: dict[str, int] = {}  # how many rows of an input with initial states have been taken
        self.dtype: np.dtype[Any] | None = None  # of all weights
        self.weights: set[str] = set()  # names of constants that are weights
        self.own, self.taken = 0, 0  # bytes of weights, each counted once, and as often as it is taken
        if not graph.inputs:
            raise ValueError("model: expected an input, got none")
        self.names = {i.name for i in graph.inputs}
        self.x, kind = graph.inputs[0].name, graph.inputs[0].type.tensor_type
        whole = kind.elem_type in (TensorProto.INT32, TensorProto.INT64)
        self.tensor, self.axes = self.x, "ab" if whole else "abF"
        self.width: int | None = None  # of the last axis, where it is known
        if kind.HasField("shape"):
            sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
            if len(sizes) != len(self.axes):
                raise ValueError(f"{self.x}: expected an input of {len(self.axes)} axes, got {len(sizes)}")
            self.width = None if whole else sizes[-1]
        if not whole:
            self.dtype = _dtype(self.x, kind.elem_type)

    @property
    def batch_first(self) -> bool:
        return self.order == "baF"

    def follow(self) -> None:
        graph = self.graph
        while nodes := graph.takers(self.tensor):
            if len(nodes) > 1 or self.tensor in graph.outputs:
                raise refused(nodes[-1], "a chain of layers", f"another use of {self.tensor}")
            (node,) = nodes
            if node.op_type not in OPERATORS:
                raise refused(node, "an operator of a recurrent network", node.op_type)
            graph.use(node)
            self.tensor = str(OPERATORS[node.op_type](self, node) or node.output[0])
        if not self.recurrent:
            raise ValueError("model: expected an RNN, LSTM or GRU that takes its first input, got none")
        if self.tensor not in graph.outputs or self.axes not in ("abF", self.order[1:]):
            raise ValueError(f"{self.tensor}: expected an output with the input's order of time and batch, got another")
        for node in self.recurrent:
            self._use_below(node.output[1:])
        for node in graph.left_over():
            if node.op_type != "Shape":
                raise refused(node, "a chain of layers", "a branch")

    def _use_below(self, names: Any) -> None:
        """Last states that are outputs, split or stacked in whatever way: our layers return them anyway."""
        waiting = list(names)
        while waiting:
            for node in self.graph.takers(waiting.pop()):
                if node.op_type in _MOVES and self.graph.use(node):
                    waiting += node.output

    def _identity(self, node: onnx.NodeProto) -> None:
        pass

    def _transpose(self, node: onnx.NodeProto) -> None:
        order = attributes(node).get("perm", range(len(self.axes))[::-1])
        if sorted(order) != list(range(len(self.axes))):
            raise refused(node, f"an order of {len(self.axes)} axes", list(order))
        self.axes = "".join(self.axes[k] for k in order)

    def _squeeze(self, node: onnx.NodeProto) -> None:
        found = self.graph.integers(node, 1, "axes")
        ones = [letter for letter in "1D" if letter in self.axes and (letter == "1" or self._directions() == 1)]
        letters = [self.axes[k] if -len(self.axes) <= k < len(self.axes) else "" for k in found]
        if not letters or len(set(letters)) != len(letters) or not {*letters} <= {*ones}:
            raise refused(node, "the axis of one direction, or of the last step", f"axes {found}")
        self.axes = "".join(letter for letter in self.axes if letter not in letters)

    def _slice(self, node: onnx.NodeProto) -> None:
        """The last step, [-1:] of time, which Squeeze then takes the axis from; other axes may be taken whole."""
        starts, ends = self.graph.integers(node, 1, "starts"), self.graph.integers(node, 2, "ends")
        axes = self.graph.integers(node, 3, "axes") or list(range(len(starts)))
        steps = self.graph.integers(node, 4, "steps") or [1] * len(starts)
        rank = len(self.axes)
        letters = [self.axes[k] if -rank <= k < rank else "" for k in axes]
        as_many = len(starts) == len(ends) == len(axes) == len(steps)
        if node.input[0] != self.tensor or not as_many or "" in letters or len(set(letters)) != len(letters):
            raise refused(node, "a start, an end and a step for each of different axes", f"axes {axes}")
        sizes = {"1": 1, "F": self.width, "D": self._directions() if "D" in self.axes else None}
        for letter, start, end, step in zip(letters, starts, ends, steps, strict=True):
            size = sizes.get(letter)
            if step == 1 and start == 0 and end >= (size or _TO_THE_END):
                continue
            if (start, step) != (-1, 1) or end < _TO_THE_END or not self.order or letter != self.order[0]:
                got = f"[{start}:{end}:{step}] of axis {self.axes.index(letter)}"
                raise refused(node, "the last step of the recurrent layer, [-1:] of the axis of time", got)
            self.steps.append(_LastStep())
            self.axes = self.axes.replace(letter, "1")

    def _reshape(self, node: onnx.NodeProto) -> None:
        wanted = self.graph.integers(node, 1, "shape")
        possible = len(self.axes) == 4 and len(wanted) == 3 and min(wanted) >= -1 and wanted.count(-1) <= 1
        if not self.axes.endswith("DF") or not possible or wanted[2] not in (-1, self._features()):
            raise refused(node, "directions side by side", f"shape {wanted}")
        self.axes, self.width = self.axes.replace("D", ""), self._features()

    def _gather(self, node: onnx.NodeProto) -> None:
        if node.input[1] == self.tensor and self.axes == "ab" and not attributes(node).get("axis", 0):
            table = self._weight(node, 0, "table of vectors", "V", "E")
            self.steps.append(_Embedding(table))
            self.axes, self.width = "abF", table.shape[1]
            return
        index, axis = self.graph.constant(node, 1, "index"), attributes(node).get("axis", 0)
        time = self.axes.find(self.order[:1] or "?")
        if index.shape or index != -1 or time < 0 or axis not in (time, time - len(self.axes)):
            raise refused(node, "the last step of the recurrent layer", f"index {index} of axis {axis}")
        self.steps.append(_LastStep())
        self.axes = self.axes.replace(self.order[0], "")

    def _matmul(self, node: onnx.NodeProto) -> None:
        self._linear(node, self._weight(node, 1, "weight", "I", "O").T, None)

    def _add(self, node: onnx.NodeProto) -> None:
        index = int(node.input[0] == self.tensor)
        bias = self.graph.constant(node, index, "bias")
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, _Linear) or last.bias is not None or bias.shape != last.weight.shape[:1]:
            raise refused(node, "the bias of a linear layer", f"shape {bias.shape}")
        self.steps[-1] = last._replace(bias=self._weight(node, index, "bias", len(bias)))

    def _gemm(self, node: onnx.NodeProto) -> None:
        options = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **attributes(node)}
        if (options["alpha"], options["beta"], options["transA"]) != (1, 1, 0) or len(self.axes) != 2:
            raise refused(node, "x W + b of x with 2 axes", f"{options}, {len(self.axes)} axes")
        weight = self._weight(node, 1, "weight", *("OI" if options["transB"] else "IO"))
        weight = weight if options["transB"] else weight.T
        bias = self._weight(node, 2, "bias", len(weight)) if input_name(node, 2) else None
        self._linear(node, weight, bias)

    def _linear(self, node: onnx.NodeProto, weight: Array, bias: Array | None) -> None:
        if node.input[0] != self.tensor or "D" in self.axes or self.axes[-1] != "F":
            raise refused(node, "a linear layer on the last axis", f"a weight of shape {weight.shape}")
        self._fits(node, weight.shape[1])
        self.steps.append(_Linear(weight, bias))
        self.width = len(weight)

    def _layer(self, node: onnx.NodeProto) -> str:
        self.order = self.order or self.axes
        if node.input[0] != self.tensor or self.axes != self.order or self.axes[2:] != "F":
            raise refused(node, "x with time, batch and features in the order of the layer below", "another")
        step = self._recurrent(node)
        self.steps.append(step)
        self.recurrent.append(node)
        for index in range(5, 7):
            source = self.graph.origin(input_name(node, index), node)
            if source is not None:
                if source[0] == self.x:
                    raise refused(node, "an initial state of zeros or from an input of its own", self.x)
                taken = self.rows.get(source[0], 0)
                if source[1] != taken:
                    raise refused(node, f"an initial state from row {taken} of {source[0]} on", f"row {source[1]}")
                self.rows[source[0]] = taken + self._directions()
        y = str(node.output[0])
        if not self.graph.takers(y) and y not in self.graph.outputs:
            return self._top_state(node)
        self.axes = f"{self.order[0]}D{self.order[1]}F"
        self.width = int(step.tensors["R"].shape[2])
        return y

    def _top_state(self, node: onnx.NodeProto) -> str:
        """The last step of the last layer, read off its Y_h [1, N, H] or off its stack's [L, N, H]."""
        states = [n.output[1] for n in self.recurrent if len(n.output) > 1]
        name, rows = (states or [""])[-1], 1
        for taker in self.graph.takers(name):
            count = len(taker.input)
            if taker.op_type == "Concat" and not attributes(taker)["axis"] and list(taker.input) == states[-count:]:
                name, rows = taker.output[0], count
        takers = [n for n in self.graph.takers(name) if n.op_type != "Concat"]
        if self._directions() == 1 and len(takers) == 1:
            (taker,) = takers
            one = taker.op_type == "Squeeze" and rows == 1 and self.graph.integers(taker, 1, "axes") == [0]
            if taker.op_type == "Gather" and not attributes(taker).get("axis", 0):
                index = self.graph.constant(taker, 1, "index")
                one = not index.ndim and index in (-1, rows - 1)
            if one:
                self.steps.append(_LastStep())
                self.axes, self.width = self.order[1:], self._features()
                return str(taker.output[0])
        raise refused(node, "Y, or Y_h of the last layer's one direction, to go on", "neither")

    def _recurrent(self, node: onnx.NodeProto) -> Recurrent:
        lengths = input_name(node, 4)
        if lengths != self.lengths and (self.recurrent or lengths not in self.names or lengths == self.x):
            raise refused(node, "sequence_lens for all layers from one input, or none", lengths or "none")
        self.lengths = lengths
        step = recurrent(node, self.graph.constant, self._weight)
        self._fits(node, step.tensors["W"].shape[2])
        return step

    def _weight(self, node: onnx.NodeProto, index: int, what: str, *shape: int | str) -> Array:
        """A constant that becomes a parameter, of this shape, in which a letter stands for any size but 0."""
        weight = self.graph.constant(node, index, what)
        self.dtype = weight.dtype if self.dtype is None else self.dtype
        check_weight(node, weight, what, self.dtype, shape)
        name = input_name(node, index)
        self.taken += weight.nbytes
        self.own += 0 if name in self.weights else weight.nbytes
        self.weights.add(name)
        if self.taken > _SHARED * self.own:  # or a small file would fill the memory
            raise refused(node, f"weights that at most {_SHARED} layers share", name)
        return weight

    def _fits(self, node: onnx.NodeProto, features: int) -> None:
        if self.width not in (None, features):
            raise refused(node, f"weights for {self.width} features, as it is given", features)

    def _directions(self) -> int:
        return len(self._top().tensors["R"])

    def _features(self) -> int:
        return self._directions() * int(self._top().tensors["R"].shape[2])

    def _top(self) -> Recurrent:
        return next(step for step in reversed(self.steps) if isinstance(step, Recurrent))


OPERATORS: dict[str, Callable[[_Chain, onnx.NodeProto], str | None]] = {
    "Add": _Chain._add,
    "Dropout": _Chain._identity,  # in inference
    "GRU": _Chain._layer,
    "Gather": _Chain._gather,
    "Gemm": _Chain._gemm,
    "Identity": _Chain._identity,
    "LSTM": _Chain._layer,
    "MatMul": _Chain._matmul,
    "RNN": _Chain._layer,
    "Reshape": _Chain._reshape,
    "Slice": _Chain._slice,
    "Squeeze": _Chain._squeeze,
    "Transpose": _Chain._transpose,
}


def recurrent(node: onnx.NodeProto, constant: Callable[..., Array], weight: Callable[..., Array]) -> Recurrent:
    """The layer of a node; ``constant(node, index, what)``, ``weight(node, index, what, *shape)`` give its inputs."""
    given = attributes(node)
    D = 2 if given.get("direction") == "bidirectional" else 1
    H = int(given["hidden_size"] if "hidden_size" in given else [0, *constant(node, 2, "R").shape][-1])
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[node.op_type] * H
    tensors = {"W": weight(node, 1, "W", D, rows, "I"), "R": weight(node, 2, "R", D, rows, H)}
    for index, name, size in ((3, "B", 2 * rows), (7, "P", 3 * H)):
        if input_name(node, index):
            tensors[name] = weight(node, index, name, D, size)
    return Recurrent(node.op_type.lower(), _options(node, "P" in tensors), tensors)


def check_weight(
    node: onnx.NodeProto, weight: Array, what: str, dtype: np.dtype[Any], shape: tuple[int | str, ...]
) -> None:
    """Raise ValueError for a parameter of another dtype or shape, in which a letter stands for any size but 0."""
    fits = len(shape) == weight.ndim and all(
        got > 0 if isinstance(want, str) else want == got for want, got in zip(shape, weight.shape, strict=True)
    )
    if not fits or weight.dtype != dtype or weight.dtype.name not in DTYPES:
        name = dtype.name if dtype.name in DTYPES else " or ".join(DTYPES)
        wanted = f"{what} of {name}, as before it, and shape ({', '.join(map(str, shape))})"
        raise refused(node, wanted, f"{weight.dtype} {weight.shape}")


def _options(node: onnx.NodeProto, peephole: bool) -> dict[str, Any]:
    """The arguments of our layer, besides sizes, that a node asks for."""
    given, cell = attributes(node), node.op_type.lower()
    # ONNX's clip bounds the sums of all gates; it is not the bound on c that other libraries call so.
    for name, default in (("clip", None), ("layout", 0)):
        if given.get(name, default) != default:
            raise refused(node, f"no {name}", given[name])
    direction = given.get("direction", "forward")
    if direction not in ("forward", "bidirectional"):
        raise refused(node, "the direction forward or bidirectional", direction)
    try:
        activations = from_attributes(given, cell, 2 if direction == "bidirectional" else 1)
    except ValueError as error:
        wanted, _, got = str(error).rpartition(", got ")
        raise refused(node, wanted, got) from None
    if cell == "rnn":
        return {"nonlinearity": activations[0]}
    options: dict[str, Any] = {} if activations == USUAL[cell] else {"activations": activations}
    if cell == "gru":
        return {**options, "reset_after": bool(given.get("linear_before_reset", 0))}
    return {**options, "peephole": peephole, "coupled": bool(given.get("input_forget", 0))}
