"""A network as an ONNX model: operators RNN, LSTM and GRU, time first (layout=0), and little around them.

Shapes: T steps, N rows, I inputs, H hidden units, L layers, D directions. T and N stay free in the model.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fusedrnn import nn
from fusedrnn._core import __version__
from fusedrnn.arrays import Array
from fusedrnn.atomic import write_atomically
from fusedrnn.interop import layouts
from fusedrnn.onnx.activations import USUAL, to_attributes

_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
# Arguments of recurrent layers that the graph shows, or that do nothing in evaluation; others must have their defaults.
_KNOWN = {"nonlinearity", "reset_after", "recompute", "forget_bias", "input_size", "hidden_size", "num_layers", "bias"}
_KNOWN |= {"batch_first", "dropout", "bidirectional", "dtype", "rng", "peephole", "coupled", "activations"}
_KNOWN |= {"recurrent_dropout", "dropconnect", "grad_clip"}
_OLDEST_OPSET = 14  # RNN, LSTM and GRU with the attribute layout, as they stayed


def export(
    module: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    states: bool = False,
    lengths: bool = False,
    dtype: Any = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Write a network, as it computes after ``eval()``, as an ONNX model.

    Args:
        module: an RNN, LSTM or GRU, or a ``Sequential`` of such, ``Linear``, ``LastStep``, ``Dropout`` (left out) and,
            at its beginning, ``Embedding``: for example ``nn.Sequential(model.rnn, nn.LastStep(), model.head)``.
        path: a file to write, by rename; None writes none.
        states: the initial states are inputs too, ``h0`` and an LSTM's ``c0`` [L * D, N, H], and the last ones outputs,
            ``h_n`` and ``c_n``, so that a sequence may come in pieces. Where there are several recurrent modules, their
            names in the network stand before these: ``0.h0``; where layers of a module differ in size, the layer after
            them, each [D, N, H]: ``h0_l0``. Without it states begin as zeros.
        lengths: integers ``lengths`` [N] are an input too, as the layers' argument.
        dtype: of the model's numbers; None leaves them. ONNX Runtime's CPU operators compute in float32 alone.
        opset: the version of ONNX's operators, from 14.

    Returns:
        The model. Its input ``x`` is [T, N, I], or [N, T, I] with ``batch_first``, or integers [T, N] before an
        ``Embedding``; its outputs are ``y`` and, where the last module is recurrent, ``h_n`` and an LSTM's ``c_n``.

    Raises:
        ValueError: a module, option, weights or an opset that cannot be written. OSError: a file that cannot be.
    """
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"opset: expected {_OLDEST_OPSET} to {newest}, got {opset}")
    chain = list(_flat("", module))
    for position, (prefix, m) in enumerate(chain):
        if not isinstance(m, (*_RECURRENT, nn.Linear, nn.LastStep)) and (position or not isinstance(m, nn.Embedding)):
            raise _unknown(prefix, m)
    layers = [m for _, m in chain if isinstance(m, _RECURRENT)]
    if not layers:
        raise ValueError("module: expected an RNN, LSTM or GRU in it, got none")
    for layer in layers:
        _check_options(layer)
    if len({m.batch_first for _, m in chain if isinstance(m, (*_RECURRENT, nn.LastStep))}) > 1:
        raise ValueError("batch_first: expected the same in all modules, got True and False")
    graph = _Graph(layers[0].dtype if dtype is None else np.dtype(dtype))
    dims: list[Any] = ["N", "T"] if layers[0].batch_first else ["T", "N"]
    if isinstance(chain[0][1], nn.Embedding):
        inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, dims)]
    else:
        first = chain[0][1]
        features = first.weight.data.shape[1] if isinstance(first, nn.Linear) else layers[0].input_size
        inputs = [graph.described("x", [*dims, features])]
    outputs = []
    x = "x"
    for position, (prefix, m) in enumerate(chain):
        if isinstance(m, _RECURRENT):
            label = prefix if len(layers) > 1 else ""
            names = [label + name for name in m.state_names] if states else []
            last = [f"{label}{name[0]}_n" for name in m.state_names] if states or position == len(chain) - 1 else []
            x = graph.recurrent(m, prefix, x, names, last, "lengths" if lengths else "")
            inputs += [graph.described(*state) for name in names for state in _parts(m, name)]
            outputs += [graph.described(*state) for name in last for state in _parts(m, name)]
            features = m.hidden_size * m.directions
        elif isinstance(m, nn.Linear):
            x = graph.linear(m, prefix, x)
            features = len(m.weight.data)
        elif isinstance(m, nn.Embedding):
            x = graph.node("Gather", [graph.constant(f"{prefix}weight", m.weight.data), x], f"{prefix}y")
        elif "T" not in dims:
            raise ValueError(f"module: expected one LastStep, got another: {prefix[:-1]}")
        else:
            if lengths:
                raise ValueError(f"lengths: expected False before LastStep {prefix[:-1]}, which takes the step T - 1")
            index = graph.integers(f"{prefix}index", np.array(-1))
            x = graph.node("Gather", [x, index], f"{prefix}y", axis=dims.index("T"))
            dims.remove("T")
    if lengths:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["N"]))
    graph.node("Identity", [x], "y")
    outputs.insert(0, graph.described("y", [*dims, features]))
    model = graph.model(inputs, outputs, opset)
    if path is not None:
        write_atomically(Path(path), model.SerializeToString())
    return model


def _unknown(prefix: str, m: Any) -> ValueError:
    """The error for a module that is no link of the chain, with the way round where there is one."""
    name = f"{type(m).__name__} {prefix[:-1]}".strip()
    wanted = "module: expected RNN, LSTM, GRU, Linear, LastStep, Dropout, or an Embedding at the beginning, "
    if isinstance(m, nn.ManyToOne):
        return ValueError(
            f"{wanted}got {name}, whose pooling ONNX's chain lacks; with pooling='last' of rows of one length export "
            "nn.Sequential(model.rnn, nn.LastStep(), model.head), the embedding before it"
        )
    if isinstance(m, (nn.Frozen, nn.Stream)):
        return ValueError(f"{wanted}got {name}; export the module that it was made from")
    if not isinstance(m, nn.Module):
        return ValueError(f"{wanted}got {type(m).__module__}.{name}, which is no module of fusedrnn.nn")
    if isinstance(m, nn.Embedding):
        return ValueError(f"{wanted}got {name} behind other modules")
    return ValueError(f"{wanted}got {name}, for which ONNX has no operator")


def _flat(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(prefix of names, module) of a chain, without what does nothing in evaluation."""
    if isinstance(module, nn.Sequential):
        for i in range(module.length):
            yield from _flat(f"{prefix}{i}.", getattr(module, str(i)))
    elif not isinstance(module, nn.Dropout):
        yield prefix, module


def _parts(m: nn.RNN | nn.LSTM | nn.GRU, name: str) -> list[tuple[str, list[Any]]]:
    """Name and shape of a state of all layers, or of each where their sizes differ."""
    sizes = m.hidden_sizes
    if len(set(sizes)) == 1:
        return [(name, [m.num_layers * m.directions, "N", sizes[0]])]
    return [(f"{name}_l{i}", [m.directions, "N", size]) for i, size in enumerate(sizes)]


def _activations(m: nn.RNN | nn.LSTM | nn.GRU) -> dict[str, Any]:
    """The attributes of a layer's activations, where they are not the usual ones; of an RNN always."""
    if isinstance(m, nn.RNN):
        return to_attributes([m.nonlinearity], m.directions)
    names = m.options.get("activations", USUAL[m.cell])
    return {} if names == USUAL[m.cell] else to_attributes(names, m.directions)


def _check_options(layer: nn.Module) -> None:
    """Refuse by name what a constructor took and the graph would not show."""
    given = {**vars(layer), **vars(layer).get("options", {})}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        value = given.get(name, parameter.default)
        if name not in _KNOWN and value is not parameter.default and value != parameter.default:
            raise ValueError(f"{name}: expected {parameter.default!r}, which alone ONNX has, got {value!r}")


class _Graph:
    """Nodes and constants so far; every method adds some and returns the name of its result."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def described(self, name: str, dims: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(self.dtype), dims)

    def constant(self, name: str, array: Array) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array, self.dtype), name)
        return name

    def integers(self, name: str, values: Array) -> str:
        self.constants[name] = numpy_helper.from_array(values.astype(np.int64), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def linear(self, m: nn.Linear, prefix: str, x: str) -> str:
        weight = self.constant(f"{prefix}weight", m.weight.data.T)
        x = self.node("MatMul", [x, weight], f"{prefix}product")
        return x if m.bias is None else self.node("Add", [x, self.constant(f"{prefix}bias", m.bias.data)], f"{prefix}y")

    def recurrent(
        self, m: nn.RNN | nn.LSTM | nn.GRU, prefix: str, x: str, initial: list[str], last: list[str], lengths: str
    ) -> str:
        """y, shaped as ``m`` has it; ``initial`` and ``last`` name inputs and outputs [L * D, N, H], or are empty.

        Where the layers' sizes differ, these are inputs and outputs of each layer.
        """
        L, D = m.num_layers, m.directions
        weights = m.state_dict()
        options = {**({"direction": "bidirectional"} if D == 2 else {}), **_activations(m)}
        if isinstance(m, nn.GRU):
            options["linear_before_reset"] = int(m.reset_after)
        coupled = bool(m.options.get("coupled"))
        if coupled:
            options["input_forget"] = 1
        whole = len(set(m.hidden_sizes)) == 1
        starts, ends = ([[f"{name}_l{i}" for i in range(L)] for name in names] for names in (initial, last))
        for name, parts in zip(initial, starts, strict=True):
            if whole:
                rows = self.integers(f"{name}_rows", np.full(L, D))
                self.nodes.append(helper.make_node("Split", [name, rows], parts, f"{name}_split", axis=0))
        if m.batch_first:
            x = self.node("Transpose", [x], f"{prefix}x_time_first", perm=[1, 0, 2])
        for i in range(L):
            tensors = layouts.to_onnx(weights, m.cell, layer=i, coupled=coupled)
            W, R, B, P = (self.constant(f"{prefix}{k}_l{i}", tensors[k]) if k in tensors else "" for k in "WRBP")
            states = [*(parts[i] for parts in starts), "", ""][:2]
            inputs = [x, W, R, B, lengths, *states, P]
            while not inputs[-1]:
                inputs.pop()
            H = tensors["R"].shape[-1]
            found = [f"{prefix}Y_l{i}", *(parts[i] for parts in ends)]
            self.nodes.append(
                helper.make_node(m.cell.upper(), inputs, found, f"{prefix}{m.cell}_l{i}", hidden_size=H, **options)
            )
            x = f"{prefix}y_l{i}"  # [T, N, D * H] of Y [T, D, N, H]
            if D == 1:
                self.node("Squeeze", [found[0], self.integers("one", np.array([1]))], x)
            else:
                swapped = self.node("Transpose", [found[0]], f"{x}_rows_first", perm=[0, 2, 1, 3])
                shape = self.integers(f"{x}_shape", np.array([0, 0, D * H]))
                self.node("Reshape", [swapped, shape], x)
        for name, parts in zip(last, ends, strict=True):
            if whole:
                self.node("Concat", parts, name, axis=0)
        return self.node("Transpose", [x], f"{prefix}y_batch_first", perm=[1, 0, 2]) if m.batch_first else x

    def model(
        self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto], opset: int
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "fusedrnn", inputs, outputs, list(self.constants.values()))
        imports = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports),
            producer_name="fusedrnn",
            producer_version=__version__,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
