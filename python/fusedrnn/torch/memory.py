"""Networks with a memory as modules: the neural Turing machine and the differentiable neural computer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fusedrnn import cells
from fusedrnn.cells.cell import Cell
from fusedrnn.torch.scan import Scan
from fusedrnn.torch.support import drawn_seed


class _MemoryNetwork(Scan):
    _cell: Callable[..., Cell]

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | Sequence[int] = 100,
        *,
        batch_first: bool = False,
        recompute: int | bool | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        cell = type(self)._cell(input_size, output_size, hidden_size, rng=drawn_seed(), dtype="float64", **options)
        super().__init__(*cell, batch_first=batch_first, recompute=recompute, dtype=dtype)


class NTM(_MemoryNetwork):
    """``fusedrnn.nn.NTM`` as a module: ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, options: As ``fusedrnn.cells.NTM``, which says what they mean; initial
            values are drawn by PyTorch's generator.
        batch_first, recompute, dtype: As `Scan`, which has everything else.
    """

    _cell = staticmethod(cells.NTM)


class DNC(_MemoryNetwork):
    """``fusedrnn.nn.DNC`` as a module: ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, options: As ``fusedrnn.cells.DNC``, which says what they mean; initial
            values are drawn by PyTorch's generator.
        batch_first, recompute, dtype: As `Scan`, which has everything else.
    """

    _cell = staticmethod(cells.DNC)
