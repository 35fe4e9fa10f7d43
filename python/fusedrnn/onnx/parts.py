"""Recurrent nodes of a graph that is more than a chain of layers: which there are, and one of them as a layer."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np
import onnx

from fusedrnn import nn
from fusedrnn.arrays import Array
from fusedrnn.onnx.graph import OWN_DOMAINS, SAME_VALUES, array_of, attributes, input_name, label, refused, text
from fusedrnn.onnx.reader import OPERATORS, Recurrent, check_weight, module_of, recurrent
from fusedrnn.onnx.scopes import NotConstant, Scope, Scopes

_CELLS = ("RNN", "LSTM", "GRU")
# Besides layers: what exporters make shapes and initial states with.
_AROUND = {"Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Shape", "Split", "Unsqueeze"}
_MOVES = (*SAME_VALUES, "Cast", "Concat", "Gather", "Slice", "Split", "Tile", "Transpose")  # zeros stay zeros
_MOST_NAMES, _MOST_OF_A_KIND = 50, 3  # that a message lists


class RecurrentNode(NamedTuple):
    """A node RNN, LSTM or GRU of a model."""

    name: str  # what `load` takes as ``node``
    op: str
    input_size: int | None  # None where the weights are no constants
    hidden_size: int | None
    direction: str  # "forward", "reverse" or "bidirectional"
    place: str  # "" in the model's graph, "If_0.then_branch/" in a body


class _Found(NamedTuple):
    name: str
    node: onnx.NodeProto
    scope: Scope


def recurrent_nodes_of(model: onnx.ModelProto) -> list[RecurrentNode]:
    """The model's recurrent nodes, those of its graph first."""
    scopes = Scopes(model)
    return [_described(scopes, *found) for found in _all(scopes)]


def layer_of(model: onnx.ModelProto, name: str, dtype: Any) -> nn.Module:
    """The layer of the node of this name. Raises ValueError, with the names that there are, if none or two have it."""
    scopes = Scopes(model)
    _, node, scope = _named(_all(scopes), name)
    return module_of([_step(scopes, scope, node)], False, dtype).eval()


def advice(model: onnx.ModelProto) -> str:
    """How the refusal of a whole graph goes on: the operators that no network of ours has, and which nodes can be taken
    by name."""
    try:
        scopes = Scopes(model)
        names = [repr(name) for name, node, scope in _all(scopes) if _loads(scopes, scope, node)]
    except ValueError:
        return ""
    kinds: dict[str, list[str]] = {}
    for scope in scopes.all:
        for node in scope.nodes:
            own = node.domain in OWN_DOMAINS
            if not own or (node.op_type not in OPERATORS and node.op_type not in _AROUND):
                kinds.setdefault(node.op_type if own else f"{node.domain}.{node.op_type}", []).append(label(node))
    advised = ""
    if kinds:
        met = [f"{op} ({_listed(found, _MOST_OF_A_KIND)})" for op, found in kinds.items()]
        advised = f"; operators that no network of ours has: {_listed(met, _MOST_NAMES)}"
    if names:
        advised += (
            "; a recurrent node can be taken out by its name, fusedrnn.onnx.load(model, node=NAME), here: "
            f"{_listed(names, _MOST_NAMES)}"
        )
    return advised


def _listed(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _all(scopes: Scopes) -> list[_Found]:
    """The recurrent nodes, each by the shortest name that it alone has: its own, its output's, or with its place."""
    nodes = [
        (node, scope)
        for scope in scopes.all
        for node in scope.nodes
        if node.op_type in _CELLS and node.domain in OWN_DOMAINS
    ]
    counts: dict[str, int] = {}
    for node, scope in nodes:
        scopes.check(node)
        for name in dict.fromkeys(_names(node, scope)):
            counts[name] = counts.get(name, 0) + 1
    found = []
    for node, scope in nodes:
        names = _names(node, scope)
        found.append(_Found(next((name for name in names if counts[name] == 1), names[-1]), node, scope))
    return found


def _names(node: onnx.NodeProto, scope: Scope) -> list[str]:
    output = next(filter(None, node.output), "")
    names = [text(name) for name in (node.name, output) if name]
    return names + [scope.place + name for name in names]


def _named(nodes: list[_Found], name: str) -> _Found:
    if not nodes:
        raise ValueError(f"node: expected a model with an RNN, LSTM or GRU in it, got none of the name {name!r}")
    matches = [found for found in nodes if found.name == name]
    matches = matches or [found for found in nodes if name in _names(found.node, found.scope)]
    if len(matches) != 1:
        got = f"{name!r}, which {len(matches)} nodes have" if matches else repr(name)
        names = [repr(found.name) for found in matches or nodes]
        raise ValueError(f"node: expected the name of a recurrent node, {_listed(names, _MOST_NAMES)}, got {got}")
    return matches[0]


def _described(scopes: Scopes, name: str, node: onnx.NodeProto, scope: Scope) -> RecurrentNode:
    given = attributes(node)

    def size(index: int) -> int | None:
        try:
            shape = scopes.value(scope, input_name(node, index)).shape
        except NotConstant:
            return None
        return int(shape[2]) if len(shape) == 3 else None

    hidden = given["hidden_size"] if "hidden_size" in given else size(2)
    return RecurrentNode(name, node.op_type, size(1), hidden, given.get("direction", "forward"), scope.place)


def _loads(scopes: Scopes, scope: Scope, node: onnx.NodeProto) -> bool:
    try:
        _step(scopes, scope, node)
    except ValueError:
        return False
    return True


def _step(scopes: Scopes, scope: Scope, node: onnx.NodeProto) -> Recurrent:
    """The layer that a node is, wherever its input, initial states and lengths come from: a call gives them."""
    for name in filter(None, node.input):
        if scopes.home(scope, name) is None:
            raise refused(node, "inputs that the model has", name)
    dtypes: list[np.dtype[Any]] = []  # of W, which all weights have to have

    def constant(node: onnx.NodeProto, index: int, what: str) -> Array:
        try:
            return scopes.value(scope, input_name(node, index))
        except NotConstant as error:
            raise refused(node, f"a constant {what}", error) from None

    def weight(node: onnx.NodeProto, index: int, what: str, *shape: int | str) -> Array:
        array = constant(node, index, what)
        dtypes.append(array.dtype)
        check_weight(node, array, what, dtypes[0], shape)
        return array

    step = recurrent(node, constant, weight)
    lengths = input_name(node, 4)
    if lengths and _is_constant(scopes, scope, lengths):
        raise refused(node, "sequence_lens that the graph is given or computes, or none", f"the constant {lengths}")
    for index in (5, 6):
        _check_start(scopes, scope, node, input_name(node, index))
    return step


def _is_constant(scopes: Scopes, scope: Scope, name: str) -> bool:
    try:
        scopes.value(scope, name)
    except NotConstant:
        return False
    return True


def _check_start(scopes: Scopes, scope: Scope, taker: onnx.NodeProto, name: str) -> None:
    """Raise ValueError for an initial state in the file that is not zero: a call of the layer would begin elsewhere."""
    if not name or scopes.is_computed(scope, name):
        return
    start, waiting = name, [(scope, name)]
    above: dict[tuple[int, str], list[tuple[int, str]]] = {}
    while waiting:
        scope, name = waiting.pop()
        home = scopes.home(scope, name)
        if home is None or (home.number, name) in above:
            continue
        above[home.number, name] = []
        node = home.makers.get(name)
        if node is None or node.op_type == "Constant":
            zero = _is_constant(scopes, home, name) and not scopes.value(home, name).any()
        elif node.op_type == "ConstantOfShape":
            scopes.check(node)
            value = attributes(node).get("value")
            zero = value is None or not array_of(name, value).any()
        else:
            zero = node.op_type in _MOVES
            for taken in node.input if node.op_type == "Concat" else node.input[:1]:
                waiting.append((home, taken))
                around = scopes.home(home, taken)
                above[home.number, name] += [] if around is None else [(around.number, taken)]
        if not zero:
            wanted = "an initial state of zeros, or one that the graph is given or computes"
            raise refused(taker, wanted, f"the constant {name}")
    try:
        TopologicalSorter(above).prepare()
    except CycleError:
        raise refused(taker, "an initial state from a graph without cycles", start) from None
