"""What the reader asks of an ONNX graph: constants, attributes, who takes a tensor, where a state comes from.

A file may come from anybody. A graph is checked as a whole before it is followed, each node once: its names, its order,
and, by onnx's own checker, every node against the operator that it names. Nothing here goes down a graph by recursion.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

import numpy as np
import onnx
from onnx import checker, defs, helper, numpy_helper

from fusedrnn.arrays import Array

SAME_VALUES = ("Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # of a state that is the same for all rows
_OLDEST_OPSET = 7  # older operators have other attributes
OWN_DOMAINS = ("", "ai.onnx")
_OF_GRAPHS = ("If", "Loop", "Scan", "SequenceMap")  # have no place in a chain, and the checker would want all around
MOST_INTEGERS = 64  # of a list of axes, steps or sizes: no tensor has more axes


def text(name: str | bytes) -> str:
    """A name that may be no UTF-8, which protobuf gives as bytes."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that a node has, text as str."""

    def decoded(value: Any) -> Any:
        return [text(v) for v in value] if isinstance(value, list) else text(value)

    return {a.name: decoded(helper.get_attribute_value(a)) for a in node.attribute}


def input_name(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, empty where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def label(node: onnx.NodeProto) -> str:
    """The name of a node, or of its first output."""
    return text(node.name or next(filter(None, node.output), "without a name"))


def constant_in(node: onnx.NodeProto) -> onnx.TensorProto | Array | None:
    """The numbers of a node Constant, None if it has text or a sparse tensor."""
    given = attributes(node)
    if "value" in given:
        return cast("onnx.TensorProto", given["value"])
    for kind, dtype in (("value_int", "i8"), ("value_ints", "i8"), ("value_float", "f4"), ("value_floats", "f4")):
        if kind in given:
            return np.array(given[kind], dtype)
    return None


def refused(node: onnx.NodeProto, wanted: str, got: Any) -> ValueError:
    """The error for a node that no network of ours has."""
    return ValueError(f"{node.op_type} {label(node)}: expected {wanted}, got {got}")


class Graph:
    """A graph by its tensors' names.

    Raises ValueError for a graph that is none: names that come twice or from nowhere, a cycle, nodes that are not what
    the version of ONNX's operators in use has.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._arrays: dict[str, Array] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        self.nodes: list[onnx.NodeProto] = []
        context = context_of(model)
        for node in graph.node:
            if node.domain not in OWN_DOMAINS:
                raise refused(node, "an operator of a recurrent network", f"{node.domain} {node.op_type}")
            if node.op_type not in _OF_GRAPHS:
                try:
                    checker.check_node(node, context)
                except checker.ValidationError as error:
                    raise refused(node, "what ONNX says of this operator", str(error).splitlines()[0]) from None
            if node.op_type != "Constant" or not self._keep_constant(node):
                self.nodes.append(node)
        self.inputs = [i for i in graph.input if not self.is_constant(i.name)]
        self.outputs = {o.name for o in graph.output}
        self.maker: dict[str, onnx.NodeProto] = {}
        self._takers: dict[str, list[onnx.NodeProto]] = {}
        self._used: set[int] = set()  # of nodes that turned out to have a place in the network, by id
        self._origins: dict[str, tuple[str, int] | None] = {}
        self._rows: dict[str, int] = {}  # of the parts of a Split, where they begin
        self._connect({s.values.name for s in graph.sparse_initializer})

    def _keep(self, name: str, tensor: onnx.TensorProto) -> None:
        if name in self._tensors or name in self._arrays:
            raise ValueError(f"{name}: expected one constant of this name, got two")
        self._tensors[name] = tensor

    def _keep_constant(self, node: onnx.NodeProto) -> bool:
        """Whether the node Constant has numbers that may be asked for."""
        found = constant_in(node)
        if found is None:
            return False
        name = node.output[0]
        self._keep(name, found if isinstance(found, onnx.TensorProto) else onnx.TensorProto())
        if not isinstance(found, onnx.TensorProto):
            self._arrays[name] = found
        return True

    def _connect(self, sparse: set[str]) -> None:
        """Who makes and who takes each tensor; ValueError where that is not clear, or goes round in a circle."""
        given = [i.name for i in self.inputs]
        if len(set(given)) != len(given):
            raise ValueError(f"model: expected inputs of different names, got {', '.join(map(text, given))}")
        known = {*given, *self._tensors, *sparse}
        for node in self.nodes:
            for name in filter(None, node.output):
                if name in known or name in self.maker:
                    raise refused(node, "outputs of names that nothing else has", name)
                self.maker[name] = node
        above: dict[int, list[int]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                if name not in known and name not in self.maker:
                    raise refused(node, "inputs that the model has", name)
                self._takers.setdefault(name, []).append(node)
            above[id(node)] = [id(self.maker[name]) for name in node.input if name in self.maker]
        for name in self.outputs:
            if name not in known and name not in self.maker:
                raise ValueError(f"{name}: expected an output that a node makes, got none")
        try:
            TopologicalSorter(above).prepare()
        except CycleError as error:
            first = next(node for node in self.nodes if id(node) == error.args[1][0])
            raise refused(first, "a graph without cycles", "an input that depends on the node's own output") from None

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a tensor's values, not just its shape."""
        return [node for node in self._takers.get(name, []) if node.op_type != "Shape"]

    def use(self, node: onnx.NodeProto) -> bool:
        """Count a node as understood; whether it was not before."""
        new = id(node) not in self._used
        self._used.add(id(node))
        return new

    def left_over(self) -> list[onnx.NodeProto]:
        """The nodes that are not."""
        return [node for node in self.nodes if id(node) not in self._used]

    def is_constant(self, name: str) -> bool:
        return name in self._tensors

    def value(self, name: str) -> Array:
        """The array of a constant. Raises ValueError for one that is damaged or not in the file."""
        if name not in self._arrays:
            self._arrays[name] = array_of(name, self._tensors[name])
        return self._arrays[name]

    def constant(self, node: onnx.NodeProto, index: int, what: str) -> Array:
        """The value of an input that has to be known."""
        name = input_name(node, index)
        if not self.is_constant(name):
            raise refused(node, f"a constant {what}", name or "none")
        return self.value(name)

    def integers(self, node: onnx.NodeProto, index: int, attribute: str, most: int = MOST_INTEGERS) -> list[int]:
        """What newer operators take as an input and older ones as an attribute; empty where there is neither."""
        if not input_name(node, index):
            return list(attributes(node).get(attribute, []))
        array = self.constant(node, index, attribute)
        if array.dtype.kind not in "iu" or array.size > most:
            raise refused(node, f"at most {most} integers as {attribute}", f"{array.dtype} {array.shape}")
        return [int(i) for i in array.reshape(-1)]

    def origin(self, name: str, taker: onnx.NodeProto) -> tuple[str, int] | None:
        """Where an initial state comes from: an input and the first of its rows, or None for zeros."""
        if not name:
            return None
        passed: list[tuple[str, int]] = []
        while name not in self._origins:
            above, row = self._above(name, taker)
            if above is None or above == name:
                self._origins[name] = None if above is None else (name, 0)
            else:
                passed.append((name, row))
                name = above
        found = self._origins[name]
        for name, row in reversed(passed):
            found = None if found is None else (found[0], found[1] + row)
            self._origins[name] = found
        return found

    def _above(self, name: str, taker: onnx.NodeProto) -> tuple[str | None, int]:
        """The tensor that an initial state is a part of and the part's first row; None if it is zeros, and its own
        name if it is an input."""
        if self.is_constant(name):
            if self.value(name).any():
                raise refused(taker, "an initial state of zeros or from an input", f"the constant {name}")
            return None, 0
        if name not in self.maker:
            return name, 0
        node = self.maker[name]
        self._use_all_above(node)
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            if value is None or not array_of(name, value).any():
                return None, 0
        if node.op_type in SAME_VALUES:
            return str(node.input[0]), 0
        if node.op_type in ("Slice", "Split", "Gather"):
            return str(node.input[0]), self._first_row(node, name)
        raise refused(taker, "an initial state of zeros or from an input", f"{node.op_type} {node.name or name}")

    def _first_row(self, node: onnx.NodeProto, name: str) -> int:
        """The row of the first axis at which a part of a tensor begins."""
        if node.op_type == "Slice":
            axes, steps = self.integers(node, 3, "axes") or [0], self.integers(node, 4, "steps") or [1]
            starts = self.integers(node, 1, "starts")
            if (axes, steps, len(starts)) == ([0], [1], 1):
                return starts[0]
        elif attributes(node).get("axis", 0) == 0:
            if node.op_type == "Gather":
                index = self.constant(node, 1, "index")
                if index.dtype.kind in "iu" and index.size == 1:
                    return int(index.reshape(-1)[0])
            else:
                if name not in self._rows:
                    sizes = self.integers(node, 1, "split", most=len(node.output))
                    if len(sizes) != len(node.output) or min(sizes) < 0:
                        raise refused(node, "the sizes of its parts", sizes)
                    self._rows.update(zip(node.output, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
                return self._rows[name]
        raise refused(node, "rows of an initial state", "other parts of it")

    def _use_all_above(self, node: onnx.NodeProto) -> None:
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if self.use(node) and node.op_type != "Shape":
                waiting += [self.maker[name] for name in node.input if name in self.maker]


def context_of(model: onnx.ModelProto) -> Any:
    """Return the context of onnx's checker, with the version of the operators."""
    versions = {o.version for o in model.opset_import if o.domain in OWN_DOMAINS}
    newest = defs.onnx_opset_version()
    if len(versions) != 1 or not _OLDEST_OPSET <= min(versions) <= newest:
        got = ", ".join(map(str, sorted(versions))) or "none"
        raise ValueError(f"model: expected one version of ONNX's operators from {_OLDEST_OPSET} to {newest}, got {got}")
    context = type(checker.DEFAULT_CONTEXT)()
    context.ir_version = model.ir_version
    context.opset_imports = dict.fromkeys(OWN_DOMAINS, min(versions))
    return context


def array_of(name: str, tensor: onnx.TensorProto) -> Array:
    """The numbers of a tensor of this file."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"{name}: expected numbers within the model, got a file beside it; load the model by its path")
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"{name}: expected sizes of at least 0, got {list(tensor.dims)}")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # KeyError, TypeError, ValueError: as the damage has it
        shape = list(tensor.dims)[:8]
        raise ValueError(f"{name}: expected a tensor of numbers of shape {shape}, got damaged data ({error})") from None
    return array
