"""PyTorch models on the kernels of fusedrnn: float32 and float64 on a CPU, and the plain cells in float32, bfloat16 and
float16 on an NVIDIA GPU (``fusedrnn.cuda``).

``accelerate(model)`` is the one line that a model needs; ``RNN``, ``LSTM``, ``GRU`` and the cells are ``torch.nn``'s
with another forward, and ``torch.ops.fusedrnn`` has the operators below them.
"""

from __future__ import annotations

from fusedrnn.extras import needed_for

with needed_for("fusedrnn.torch", "torch"):
    import torch  # noqa: F401

from fusedrnn.torch.accelerate import Report, accelerate, accelerating, restore
from fusedrnn.torch.attention import Attention, AttentionDecoder
from fusedrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.torch.decoding import beam_search, sample
from fusedrnn.torch.memory import DNC, NTM
from fusedrnn.torch.modules import GRU, LSTM, RNN
from fusedrnn.torch.scan import Scan, scan
from fusedrnn.torch.support import FallbackWarning, fallbacks
from fusedrnn.torch.window import MixtureDensity, SoftWindow, WindowLSTM, mixture_density_loss

__all__ = [
    "DNC",
    "GRU",
    "LSTM",
    "NTM",
    "RNN",
    "Attention",
    "AttentionDecoder",
    "FallbackWarning",
    "GRUCell",
    "LSTMCell",
    "MixtureDensity",
    "RNNCell",
    "Report",
    "Scan",
    "SoftWindow",
    "WindowLSTM",
    "accelerate",
    "accelerating",
    "beam_search",
    "fallbacks",
    "mixture_density_loss",
    "restore",
    "sample",
    "scan",
]
