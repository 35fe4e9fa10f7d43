"""RNN, LSTM and GRU on an NVIDIA GPU: whether it can be used, and how products of float32 are computed.

Nothing here is called to run a cell: ``fusedrnn.functional`` and ``fusedrnn.torch`` do so for arrays that are on a GPU.
The compiled module ``fusedrnn._cuda`` is optional and imported when a GPU is first asked for.
"""

from __future__ import annotations

from fusedrnn.cuda.compiled import allow_tf32, available, missing, require, tf32_allowed

__all__ = ["allow_tf32", "available", "missing", "require", "tf32_allowed"]
