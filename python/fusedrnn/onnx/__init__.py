"""ONNX models: ``export`` writes a network as one, ``load`` makes a network of one, or a layer of one node of it that
``recurrent_nodes`` lists. Needs the extra ``onnx``.
"""

from __future__ import annotations

from fusedrnn.extras import needed_for

with needed_for("fusedrnn.onnx", "onnx"):
    import onnx  # noqa: F401

from fusedrnn.onnx.loading import load, recurrent_nodes
from fusedrnn.onnx.parts import RecurrentNode
from fusedrnn.onnx.writer import export

__all__ = ["RecurrentNode", "export", "load", "recurrent_nodes"]
