"""A model as a tree of graphs, the bodies of If, Loop and Scan in it, and the constants that its nodes take.

What a node takes may be an initializer or a Constant of its own graph or of one around it, or come from such by a few
nodes, as PyTorch's exporters put weights together. A file may come from anybody: every node of such a way is looked at
once, nothing goes down by recursion, and what is put together stays in proportion to what the file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper

from fusedrnn.arrays import Array
from fusedrnn.onnx.graph import (
    MOST_INTEGERS,
    OWN_DOMAINS,
    array_of,
    attributes,
    constant_in,
    context_of,
    label,
    refused,
)

_MOST_COPIES = 64  # bytes that may be put together, for each byte of constants that were read
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


class NotConstant(ValueError):
    """A tensor whose numbers the file does not tell."""


class Scope:
    """One graph: who makes its tensors. Raises ValueError where a name has two."""

    def __init__(self, graph: onnx.GraphProto, around: Scope | None, place: str, number: int) -> None:
        self.around, self.place, self.number = around, place, number
        self.constants = {t.name: t for t in graph.initializer}
        self.nodes = list(graph.node)
        self.makers: dict[str, onnx.NodeProto] = {}
        # An initializer that is an input too is a default; of a body, somebody has to give the input.
        self.given = {i.name for i in graph.input if around is not None or i.name not in self.constants}
        self.given |= {t.values.name for t in graph.sparse_initializer}
        if len(self.constants) != len(graph.initializer) or self.given & self.constants.keys():
            raise ValueError(f"{place or 'model'}: expected constants of different names, got two of one name")
        for node in self.nodes:
            for name in filter(None, node.output):
                if name in self.given or name in self.constants or name in self.makers:
                    raise refused(node, "outputs of names that nothing else has", name)
                self.makers[name] = node

    def has(self, name: str) -> bool:
        return name in self.constants or name in self.makers or name in self.given


class Scopes:
    """All graphs of a model, its main one first. Raises ValueError for names that come twice, or no known opset."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._context = context_of(model)
        self.all: list[Scope] = []
        self._arrays: dict[tuple[int, str], Array] = {}
        self._failed: dict[tuple[int, str], ValueError] = {}  # so that no way is gone twice
        self._read = self._made = 0  # bytes
        self._computed: set[tuple[int, str]] | None = None
        waiting: list[tuple[onnx.GraphProto, Scope | None, str]] = [(model.graph, None, "")]
        for graph, around, place in waiting:  # which grows
            scope = Scope(graph, around, place, len(self.all))
            self.all.append(scope)
            for node in scope.nodes:
                for name, body in _bodies(node):
                    waiting.append((body, scope, f"{place}{label(node)}.{name}/"))

    def check(self, node: onnx.NodeProto) -> None:
        """Raise ValueError for a node that is not what ONNX says of its operator."""
        try:
            checker.check_node(node, self._context)
        except checker.ValidationError as error:
            raise refused(node, "what ONNX says of this operator", str(error).splitlines()[0]) from None

    def home(self, scope: Scope, name: str) -> Scope | None:
        """The graph that has a tensor: this one, or the next around it."""
        found: Scope | None = scope
        while found is not None and not found.has(name):
            found = found.around
        return found

    def value(self, scope: Scope, name: str) -> Array:
        """The numbers of a tensor that a node of ``scope`` takes.

        Raises NotConstant where the file does not tell them, ValueError for a graph or numbers that are damaged.
        """
        wanted = self._key(scope, name)
        stack, opened = [wanted], set[tuple[int, str]]()
        while stack:
            key = stack[-1]
            if key in self._arrays:
                stack.pop()
                continue
            try:
                self._step(key, stack, opened)
            except ValueError as error:
                self._failed.update(dict.fromkeys([key, *opened - self._arrays.keys()], error))
                raise
        return self._arrays[wanted]

    def _step(self, key: tuple[int, str], stack: list[tuple[int, str]], opened: set[tuple[int, str]]) -> None:
        """Find the numbers of the tensor on top of the stack, or put the tensors there that it is made of."""
        if key in self._failed:
            raise self._failed[key].with_traceback(None)
        node = self._maker(key)
        if node is None:
            return
        above = [self._key(self.all[key[0]], name) if name else None for name in node.input]
        missing = [k for k in above if k is not None and k not in self._arrays]
        if not missing:
            self._arrays[key] = self._result(node, [None if k is None else self._arrays[k] for k in above])
        elif key in opened:
            raise refused(node, "a graph without cycles", "an input that depends on the node's own output")
        else:
            opened.add(key)
            stack += missing

    def _key(self, scope: Scope, name: str) -> tuple[int, str]:
        home = self.home(scope, name) if name else None
        if home is None:
            raise NotConstant(f"{name}, which no node makes" if name else "none")
        return home.number, name

    def _maker(self, key: tuple[int, str]) -> onnx.NodeProto | None:
        """The node that a tensor's numbers follow from; None where the file has them, which are kept then."""
        scope, name = self.all[key[0]], key[1]
        if name in scope.constants:
            self._keep(key, array_of(name, scope.constants[name]))
            return None
        if name in scope.given:
            raise NotConstant(f"{name}, an input of the {'body ' + scope.place if scope.place else 'model'}")
        node = scope.makers[name]
        constant = node.op_type == "Constant"
        if node.domain not in OWN_DOMAINS or not (constant or node.op_type in _FOLDS):
            raise NotConstant(f"{name}, made by {node.op_type} {label(node)}")
        self.check(node)
        if not constant:
            return node
        found = constant_in(node)
        if found is None:
            raise NotConstant(f"{name}, a Constant without numbers")
        self._keep(key, array_of(name, found) if isinstance(found, onnx.TensorProto) else found)
        return None

    def _keep(self, key: tuple[int, str], array: Array) -> None:
        self._arrays[key] = array
        self._read += array.nbytes

    def _result(self, node: onnx.NodeProto, inputs: list[Array | None]) -> Array:
        fold = Fold(attributes(node), inputs, self._grow)
        try:
            return _FOLDS[node.op_type](fold)
        except (IndexError, TypeError, OverflowError, ValueError) as error:  # of ours, or numpy's
            raise refused(node, "constants that it can take", error) from None

    def _grow(self, size: int) -> None:
        self._made += size
        if self._made > _MOST_COPIES * self._read:  # or a small file would fill the memory
            raise ValueError(f"more than {_MOST_COPIES} times the bytes of the file's constants, put together")

    def is_computed(self, scope: Scope, name: str) -> bool:
        """Whether a tensor's numbers, not its shape alone, follow from what the model or a body is given."""
        if self._computed is None:
            self._computed = self._all_computed()
        home = self.home(scope, name)
        return home is not None and (home.number, name) in self._computed

    def _all_computed(self) -> set[tuple[int, str]]:
        takers: dict[tuple[int, str], list[tuple[int, onnx.NodeProto]]] = {}
        waiting = [(scope.number, name) for scope in self.all for name in scope.given]
        for scope in self.all:
            for node in scope.nodes:
                if any(True for _ in _bodies(node)):  # what comes out of a body may depend on anything
                    waiting += [(scope.number, name) for name in filter(None, node.output)]
                elif node.op_type not in ("Shape", "Size"):
                    for name in filter(None, node.input):
                        home = self.home(scope, name)
                        if home is not None:
                            takers.setdefault((home.number, name), []).append((scope.number, node))
        found: set[tuple[int, str]] = set()
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                waiting += [
                    (number, name) for number, node in takers.get(key, ()) for name in filter(None, node.output)
                ]
        return found


class Fold:
    """A node whose inputs are constants; the functions below compute its output.

    They raise ValueError, whose message tells what came instead of constants that the operator takes.
    """

    def __init__(self, given: dict[str, Any], inputs: list[Array | None], copies: Callable[[int], None]) -> None:
        self.given, self.inputs = given, inputs
        self.copies = copies  # counts bytes that the result takes besides those of the inputs

    @property
    def first(self) -> Array:
        return self.array(0)

    def array(self, index: int) -> Array:
        array = self.inputs[index]
        if array is None:
            raise ValueError(f"no input {index}")
        return array

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """Return the list that newer operators take as an input and older ones as an attribute."""
        array = self.inputs[index] if index < len(self.inputs) else None
        if array is None:
            return self.given.get(attribute)
        if array.dtype.kind not in "iu" or array.size > MOST_INTEGERS:
            raise ValueError(f"{attribute} of {array.dtype} {array.shape}, not of at most {MOST_INTEGERS} integers")
        return [int(i) for i in array.reshape(-1)]


def _transpose(fold: Fold) -> Array:
    return np.transpose(fold.first, fold.given.get("perm"))


def _concat(fold: Fold) -> Array:
    arrays = [fold.array(k) for k in range(len(fold.inputs))]
    if len({a.dtype for a in arrays}) > 1:
        raise ValueError(f"inputs of {', '.join(sorted({a.dtype.name for a in arrays}))}")
    fold.copies(sum(a.nbytes for a in arrays))
    return np.concatenate(arrays, axis=fold.given["axis"])


def _unsqueeze(fold: Fold) -> Array:
    return np.expand_dims(fold.first, tuple(fold.integers(1, "axes") or ()))


def _squeeze(fold: Fold) -> Array:
    axes = fold.integers(1, "axes")
    return np.squeeze(fold.first, None if axes is None else tuple(axes))


def _slice(fold: Fold) -> Array:
    array, starts, ends = fold.first, fold.integers(1, "starts") or [], fold.integers(2, "ends") or []
    axes = fold.integers(3, "axes") or list(range(len(starts)))
    steps = fold.integers(4, "steps") or [1] * len(starts)
    parts = [slice(None)] * array.ndim
    taken = {axis % array.ndim for axis in axes if -array.ndim <= axis < array.ndim}
    if not len(starts) == len(ends) == len(axes) == len(steps) == len(taken):
        raise ValueError(f"axes {axes} of {array.ndim}, starts {starts}, ends {ends}, steps {steps}")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)  # bounds outside the axis mean what they mean in Python
    return array[tuple(parts)]


def _reshape(fold: Fold) -> Array:
    array, sizes = fold.first, fold.integers(1, "shape") or []
    if not fold.given.get("allowzero"):
        sizes = [array.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    fold.copies(0 if array.flags.c_contiguous else array.nbytes)
    return array.reshape(sizes)


def _cast(fold: Fold) -> Array:
    if fold.given["to"] not in _FLOATS or fold.first.dtype not in map(helper.tensor_dtype_to_np_dtype, _FLOATS):
        raise ValueError(f"{fold.first.dtype} for ONNX's type {fold.given['to']}")
    dtype = helper.tensor_dtype_to_np_dtype(fold.given["to"])
    fold.copies(fold.first.size * dtype.itemsize)
    return fold.first.astype(dtype)


_FOLDS: dict[str, Callable[[Fold], Array]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Identity": lambda fold: fold.first,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def _bodies(node: onnx.NodeProto) -> Iterator[tuple[str, Any]]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for number, body in enumerate(attribute.graphs):
            yield f"{attribute.name}[{number}]", body
