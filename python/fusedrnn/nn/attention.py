"""Attention as layers: over any queries at once, and in a decoder that attends at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import cells
from fusedrnn.arrays import Array
from fusedrnn.cells.attention import AttentionStep, DecoderOutput, Memory, attention_parameters
from fusedrnn.cells.cell import Initial
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.scan import Scan
from fusedrnn.nn.scan_stream import ScanStream
from fusedrnn.sizes import size


def presence(S: int, N: int, lengths: Any = None, mask: Any = None) -> Array:
    """Return which of S vectors of N rows are there, [N, S] booleans.

    Args:
        lengths: [N], how many of each row, from the first. mask: [S, N] booleans instead, True where there is one.

    Raises:
        ValueError: Other shapes, a row without any vector, lengths together with a mask.
    """
    if lengths is not None and mask is not None:
        raise ValueError("memory_mask: expected it or memory_lengths, got both")
    if mask is not None:
        present = np.asarray(mask)
        if present.shape != (S, N) or present.dtype != bool:
            raise ValueError(f"memory_mask: expected booleans {(S, N)}, got {present.dtype} {present.shape}")
        present = present.T
    else:
        counts = np.full(N, S) if lengths is None else np.asarray(lengths)
        if counts.shape != (N,) or counts.dtype.kind not in "iu" or (N and not 0 <= counts.min() <= counts.max() <= S):
            raise ValueError(f"memory_lengths: expected [{N}] integers from 1 to {S}, got {lengths!r}")
        present = np.arange(S) < counts[:, None]
    if not present.any(axis=1).all():
        name = "memory_lengths" if mask is None else "memory_mask"
        row = int(np.argmin(present.any(axis=1)))
        raise ValueError(f"{name}: expected at least one vector to attend to in each row, got none in row {row}")
    return np.ascontiguousarray(present)


def as_memory(memory: Any, features: int, dtype: Any, lengths: Any = None, mask: Any = None) -> Memory:
    """Return the context of a step, vectors [N, S, F] and booleans [N, S], of a memory [S, N, F].

    Args:
        lengths, mask: As `presence`. What is not there has no effect, whatever it is.

    Raises:
        ValueError: Other shapes, and as `presence`. TypeError: Another dtype.
    """
    vectors = np.asarray(memory)
    if vectors.ndim != 3 or vectors.shape[2] != features or not vectors.shape[0]:
        raise ValueError(f"memory: expected shape (S, N, {features}), got {vectors.shape}")
    if vectors.dtype != dtype:
        raise TypeError(f"memory: expected dtype {dtype} as the layer has, got {vectors.dtype}")
    S, N, _ = vectors.shape
    present = presence(S, N, lengths, mask)
    rows = vectors.transpose(1, 0, 2)
    if not present.all():
        rows = np.where(present[:, :, None], rows, rows.dtype.type(0))  # a weight of 0 does not undo NaN
    return Memory(np.ascontiguousarray(rows), present)


class Attention(Module):
    """Attention of every query over a memory (Bahdanau et al. 2014; Luong et al. 2015): see `cells.attention.attend`.

    Args:
        query_size, key_size: Q and F. score: "additive", "dot" (Q = F) or "general".
        attention_size: Width of an additive score; None for F. dtype: "float32" or "float64".
        rng: Seed or generator of the initial values.

    Parameters: of the layer ``scan``: additive W [A, Q], U [A, F] and v [A]; general W [F, Q]; dot none.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "additive",
        attention_size: int | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        Q, F = size("query_size", query_size), size("key_size", key_size)
        width = F if attention_size is None else size("attention_size", attention_size)
        parameters = attention_parameters(score, Q, F, width, Initial(as_generator(rng), dtype))
        self.key_size = F
        self.scan = Scan(AttentionStep(score), parameters, None, dtype=dtype)

    def forward(
        self, query: Array, memory: Array, *, memory_lengths: Any = None, memory_mask: Any = None
    ) -> tuple[Array, Array]:
        """Attend.

        Args:
            query: [T, N, Q]. memory: [S, N, F]. memory_lengths, memory_mask: As `as_memory`.

        Returns:
            What is seen [T, N, F], and the weights [T, N, S], which add up to 1 and are 0 where nothing is present.
        """
        context = as_memory(memory, self.key_size, self.scan.dtype, memory_lengths, memory_mask)
        (seen, weights), _ = self.scan(query, None, context)
        return seen, weights

    def backward(self, dseen: Array | None, dweights: Array | None = None) -> tuple[Array, Array]:
        """Return dquery [T, N, Q] and dmemory [S, N, F], adding to the parameters' gradients; either may be None."""
        dquery, _, dcontext = self.scan.backward((dseen, dweights))
        return dquery, np.ascontiguousarray(dcontext.vectors.transpose(1, 0, 2))


class AttentionDecoder(Module):
    """A recurrent layer that attends to a memory at every step, in one call: `cells.attention.DecoderStep`.

    Args:
        input_size, hidden_size, memory_size: I, H and F. score, cell, num_layers, attention_size, input_feeding: As
            ``fusedrnn.cells.AttentionDecoder``. dtype: "float32" or "float64". rng: Seed or generator.

    Parameters: of the layer ``scan``, by the names of the cell's: ``cell.0.W``, ``attention.v``, ``out.W``...
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
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        made = cells.AttentionDecoder(
            input_size, hidden_size, memory_size, score=score, cell=cell, num_layers=num_layers,
            attention_size=attention_size, input_feeding=input_feeding, rng=as_generator(rng), dtype=dtype,
        )  # fmt: skip
        self.memory_size = size("memory_size", memory_size)
        self.scan = Scan(*made, dtype=dtype)

    def forward(
        self,
        x: Array,
        memory: Array,
        state: Any = None,
        *,
        memory_lengths: Any = None,
        memory_mask: Any = None,
        lengths: Any = None,
    ) -> tuple[Array, Any, Array]:
        """Run over a sequence.

        Args:
            x: [T, N, I]. memory: [S, N, F]. state: `cells.DecoderState` of leaves [N, ...], None for zeros.
            memory_lengths, memory_mask: As `as_memory`. lengths: [N], steps of x in each row.

        Returns:
            y [T, N, H], the last state, and the weights [T, N, S].
        """
        context = as_memory(memory, self.memory_size, self.scan.dtype, memory_lengths, memory_mask)
        y, state = self.scan(x, state, context, lengths=lengths)
        return y.attended, state, y.weights

    def backward(self, dy: Array | None, dstate_n: Any = None) -> tuple[Array, Any, Array]:
        """Return dx [T, N, I], the gradient of the first state and dmemory [S, N, F], adding to the parameters'."""
        dx, dstate, dcontext = self.scan.backward(DecoderOutput(dy, None), dstate_n)
        return dx, dstate, np.ascontiguousarray(dcontext.vectors.transpose(1, 0, 2))

    def stream(self, memory: Array, *, memory_lengths: Any = None, memory_mask: Any = None) -> DecoderStream:
        """Make a copy that takes one step a call over a memory [S, N, F], weights packed once."""
        context = as_memory(memory, self.memory_size, self.scan.dtype, memory_lengths, memory_mask)
        return DecoderStream(self.scan.stream(len(context.vectors), context=context))


class DecoderStream:
    """A snapshot of a decoder that is fed one step at a time; made by ``decoder.stream(memory)``."""

    def __init__(self, stream: ScanStream) -> None:
        self._stream = stream

    def step(self, x: Array) -> tuple[Array, Array]:
        """Take a step on x [N, I]; return y [N, H] and the weights [N, S]."""
        output = self._stream(x)
        return output.attended, output.weights

    @property
    def state(self) -> Any:
        """Return the state after the last step, leaves [N, ...]; assign one to go on from it."""
        return self._stream.state

    @state.setter
    def state(self, value: Any) -> None:
        self._stream.state = value
