"""ONNX models: ``export`` writes a network as one, ``load`` makes a network of one. Needs the extra ``onnx``."""

from __future__ import annotations

from fusedrnn.extras import needed_for

with needed_for("fusedrnn.onnx", "onnx"):
    import onnx  # noqa: F401

from fusedrnn.onnx.reader import load
from fusedrnn.onnx.writer import export

__all__ = ["export", "load"]
