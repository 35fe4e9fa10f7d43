"""Attention in PyTorch: over any queries at once, and in a decoder that attends at every step, in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusedrnn import cells
from fusedrnn.cells.attention import AttentionStep, Memory, attention_parameters
from fusedrnn.cells.cell import Initial
from fusedrnn.nn.attention import presence
from fusedrnn.sizes import size
from fusedrnn.torch.scan import Scan
from fusedrnn.torch.support import drawn_seed


def _context(memory: Tensor, features: int, lengths: Any, mask: Any) -> Memory:
    """Return the context of a step, vectors [N, S, F] and booleans [N, S], as ``fusedrnn.nn.attention.as_memory``."""
    if memory.dim() != 3 or memory.shape[2] != features or not memory.shape[0]:
        raise ValueError(f"memory: expected shape (S, N, {features}), got {tuple(memory.shape)}")
    lengths, mask = (each.numpy() if isinstance(each, Tensor) else each for each in (lengths, mask))
    present = torch.from_numpy(presence(memory.shape[0], memory.shape[1], lengths, mask))
    return Memory(memory.transpose(0, 1).masked_fill(~present[:, :, None], 0.0), present)


class Attention(torch.nn.Module):
    """``fusedrnn.nn.Attention`` as a module: ``seen, weights = attention(query, memory)``.

    Args:
        query_size, key_size, score, attention_size: As there; initial values are drawn by PyTorch's generator.
        dtype: torch.float32 or torch.float64.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "additive",
        attention_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        Q, F = size("query_size", query_size), size("key_size", key_size)
        width = F if attention_size is None else size("attention_size", attention_size)
        parameters = attention_parameters(score, Q, F, width, Initial(drawn_seed(), "float64"))
        self.key_size = F
        self.scan = Scan(AttentionStep(score), parameters, None, dtype=dtype)

    def forward(
        self, query: Tensor, memory: Tensor, *, memory_lengths: Any = None, memory_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: [T, N, Q]. memory: [S, N, F]. memory_lengths: N integers. memory_mask: booleans [S, N].

        Returns:
            What is seen [T, N, F], and the weights [T, N, S].
        """
        context = _context(memory, self.key_size, memory_lengths, memory_mask)
        (seen, weights), _ = self.scan(query, context=context)
        return seen, weights


class AttentionDecoder(torch.nn.Module):
    """``fusedrnn.nn.AttentionDecoder`` as a module: ``y, state, weights = decoder(x, memory)``.

    Args:
        input_size, hidden_size, memory_size, score, cell, num_layers, attention_size, input_feeding: As there; initial
            values are drawn by PyTorch's generator. dtype: torch.float32 or torch.float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        memory_size: int,
        *,
        score: str = "additive",
        cell: str = "lstm",
        num_layers: int = 1,
        attention_size: int | None = None,
        input_feeding: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        made = cells.AttentionDecoder(
            input_size, hidden_size, memory_size, score=score, cell=cell, num_layers=num_layers,
            attention_size=attention_size, input_feeding=input_feeding, rng=drawn_seed(), dtype="float64",
        )  # fmt: skip
        self.memory_size = size("memory_size", memory_size)
        self.scan = Scan(*made, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        state: Any = None,
        *,
        memory_lengths: Any = None,
        memory_mask: Tensor | None = None,
        lengths: Any = None,
    ) -> tuple[Tensor, Any, Tensor]:
        """Run over a sequence.

        Args:
            x: [T, N, I]. memory: [S, N, F]. state: `fusedrnn.cells.DecoderState` of leaves [N, ...], None for zeros.
            memory_lengths: N integers. memory_mask: booleans [S, N]. lengths: N integers, steps of x in each row.

        Returns:
            y [T, N, H], the last state, and the weights [T, N, S].
        """
        context = _context(memory, self.memory_size, memory_lengths, memory_mask)
        y, state = self.scan(x, state, context=context, lengths=lengths)
        return y.attended, state, y.weights
