"""A model, or one node of it, from a file."""

from __future__ import annotations

import os
from typing import Any

import onnx

from fusedrnn import nn
from fusedrnn.onnx import parts
from fusedrnn.onnx.reader import network


def load(model: str | os.PathLike[str] | onnx.ModelProto, *, node: str | None = None, dtype: Any = None) -> nn.Module:
    """A network with the weights of an ONNX model, as `fusedrnn.onnx.export`, `torch.onnx.export` or tf2onnx writes it.

    Args:
        model: a file, or the model itself. Its nodes are a chain: perhaps an embedding (Gather), then RNN, LSTM or GRU
            with layout=0, perhaps the last step (Gather, Slice and Squeeze, or the last layer's Y_h), linear layers
            (MatMul and Add, or Gemm). Initial states are zeros or inputs; ``sequence_lens`` of a model of recurrent
            nodes alone may be an input, the ``lengths`` of a call.
        node: the name of one RNN, LSTM or GRU to take out of a model that may be anything else, or the name of its
            first output; `recurrent_nodes` lists them. The node may stand in a body of If, Loop or Scan. Its weights
            are constants, or are put together of such. None takes the whole graph.
        dtype: of the weights; None leaves them, but widens float16 to float32.

    Returns:
        An ``nn.RNN``, ``LSTM`` or ``GRU``, in which consecutive nodes that fit are the layers of one stack; or a
        ``Sequential`` of such, ``Embedding``, ``LastStep`` and ``Linear``. In evaluation. Of one node the layer, time
        first: x, initial states and lengths are arguments of its calls, and y is [T, N, D * H] of Y [T, D, N, H].

    Raises:
        ValueError: a damaged file; whatever no network of ours has, by its node's name: clip, constant sequence_lens,
            ... and a graph that is none: cycles, names that come twice or from nowhere, sizes that do not fit. The
            message tells which operators are in the way and which nodes can be taken by name. A ``node`` that there
            is not, with those that there are.
            OSError: a file that cannot be read.
    """
    model = _model_of(model)
    if node is not None:
        return parts.layer_of(model, node, dtype)
    try:
        return network(model, dtype)
    except ValueError as error:
        raise ValueError(f"{error}{parts.advice(model)}") from None


def recurrent_nodes(model: str | os.PathLike[str] | onnx.ModelProto) -> list[parts.RecurrentNode]:
    """List the RNN, LSTM and GRU nodes of an ONNX model, those in bodies of If, Loop and Scan too.

    Args:
        model: a file, or the model itself; any operators may be around them.

    Returns:
        Of each node the ``name`` that `load` takes as ``node``, its ``op``, ``input_size``, ``hidden_size``,
        ``direction`` and ``place``, the bodies that it stands in. A size is None where the file does not tell it.

    Raises:
        ValueError: a damaged file, or a graph that is none. OSError: a file that cannot be read.
    """
    return parts.recurrent_nodes_of(_model_of(model))


def _model_of(given: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or that in a file, with the numbers in files beside it, where it has such."""
    if isinstance(given, onnx.ModelProto):
        return given
    path = os.fspath(given)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # of protobuf
        raise ValueError(f"{path}: truncated, or not an ONNX model ({error})") from None
    try:
        onnx.load_external_data_for_model(model, os.path.dirname(path))
    except Exception as error:  # OSError, or onnx's own about places outside the folder
        raise ValueError(f"{path}: the files with its numbers cannot be read ({error})") from None
    return model
