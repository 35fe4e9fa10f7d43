"""What the reader asks of an ONNX graph: constants, attributes, who takes a tensor, where a state comes from."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, numpy_helper

from fusedrnn.gradients import Array

_SAME_VALUES = ("Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # of a state that is the same for all rows


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that a node has, text as str."""

    def text(value: Any) -> Any:
        return (
            [text(v) for v in value]
            if isinstance(value, list)
            else value.decode()
            if isinstance(value, bytes)
            else value
        )

    return {a.name: text(helper.get_attribute_value(a)) for a in node.attribute}


def input_name(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, empty where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def refused(node: onnx.NodeProto, wanted: str, got: Any) -> ValueError:
    """The error for a node that no network of ours has."""
    return ValueError(f"{node.op_type} {node.name or node.output[0]}: expected {wanted}, got {got}")


class Graph:
    """A graph by its tensors' names; ``used`` collects the nodes that turned out to have a place in the network."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.inputs = [i for i in graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in graph.output]
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self._takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._takers.setdefault(name, []).append(node)
        self._used: set[str] = set()

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a tensor's values, not just its shape."""
        return [node for node in self._takers.get(name, []) if node.op_type != "Shape"]

    def use(self, node: onnx.NodeProto) -> None:
        """Count a node as understood."""
        self._used.update(node.output)

    def left_over(self) -> list[onnx.NodeProto]:
        """The nodes that are not."""
        return [node for node in self.nodes if self._used.isdisjoint(node.output)]

    def constant(self, node: onnx.NodeProto, index: int, what: str) -> Array:
        """The value of an input that has to be known."""
        name = input_name(node, index)
        if name not in self.constants:
            raise refused(node, f"a constant {what}", name or "none")
        return self.constants[name]

    def integers(self, node: onnx.NodeProto, index: int, attribute: str) -> list[int]:
        """What newer operators take as an input and older ones as an attribute; empty where there is neither."""
        if input_name(node, index):
            return [int(i) for i in self.constant(node, index, attribute).reshape(-1)]
        return list(attributes(node).get(attribute, []))

    def origin(self, name: str, taker: onnx.NodeProto) -> tuple[str, int] | None:
        """Where an initial state comes from: an input and the first of its rows, or None for zeros."""
        if not name:
            return None
        if name in self.constants:
            if self.constants[name].any():
                raise refused(taker, "an initial state of zeros or from an input", f"the constant {name}")
            return None
        if name not in self.maker:
            return name, 0
        node = self.maker[name]
        self._use_all_above(node)
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            if value is None or not numpy_helper.to_array(value).any():
                return None
        if node.op_type in _SAME_VALUES:
            return self.origin(node.input[0], taker)
        if node.op_type in ("Slice", "Split", "Gather"):
            source = self.origin(node.input[0], taker)
            return None if source is None else (source[0], source[1] + self._first_row(node, name))
        raise refused(taker, "an initial state of zeros or from an input", f"{node.op_type} {node.name or name}")

    def _first_row(self, node: onnx.NodeProto, name: str) -> int:
        """The row of the first axis at which a part of a tensor begins."""
        if node.op_type == "Slice":
            axes, steps = self.integers(node, 3, "axes") or [0], self.integers(node, 4, "steps") or [1]
            if (axes, steps) == ([0], [1]):
                return self.integers(node, 1, "starts")[0]
        elif attributes(node).get("axis", 0) == 0:
            if node.op_type == "Gather":
                return int(self.constant(node, 1, "index").reshape(-1)[0])
            return sum(self.integers(node, 1, "split")[: list(node.output).index(name)])
        raise refused(node, "rows of an initial state", "other parts of it")

    def _use_all_above(self, node: onnx.NodeProto) -> None:
        self.use(node)
        for name in node.input:
            if name in self.maker and node.op_type != "Shape" and self._used.isdisjoint(self.maker[name].output):
                self._use_all_above(self.maker[name])
