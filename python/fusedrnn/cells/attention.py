"""Soft attention over a memory of vectors, and the decoder that attends at every step and sees what it attended last.

Bahdanau, Cho and Bengio 2014, Neural Machine Translation by Jointly Learning to Align and Translate, arXiv:1409.0473;
Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural Machine Translation, arXiv:1508.04025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.cells.controllers import control, stack
from fusedrnn.ops import softmax
from fusedrnn.sizes import size

SCORES = ("additive", "dot", "general")
_FAR = -1e30  # the score of what is masked: its weight is exactly zero


class Memory(NamedTuple):
    """What a sequence attends to: vectors [S, F], and which of them there are, [S] booleans."""

    vectors: Any
    present: Any


def attend(score: str, p: Any, query: Any, memory: Memory) -> tuple[Any, Any]:
    """Weigh a memory by how well each vector h_j fits a query q: a = softmax(e), seen = sum of a_j h_j.

    ``score`` "additive": e_j = v · tanh(W q + U h_j) (Bahdanau); "dot": e_j = q · h_j; "general": e_j = (W q) · h_j
    (Luong). U h_j depends on no step, so a scan computes it once for a sequence.

    Args:
        p: W, U, v, as the score has them. query: [Q].

    Returns:
        (seen [F], a [S]). Where nothing is present, a is the same everywhere.
    """
    vectors = memory.vectors
    if score == "additive":
        e = np.tanh(vectors @ p["U"].T + p["W"] @ query) @ p["v"]
    else:
        e = vectors @ (query if score == "dot" else p["W"] @ query)
    a = softmax(np.where(memory.present, e, _FAR))
    return a @ vectors, a


def attention_parameters(score: str, queries: int, features: int, width: int, draw: Initial) -> dict[str, Any]:
    """Draw what `attend` needs: W [width, Q] and U [width, F] Glorot's, v [width] U(±1/sqrt(width)).

    Args:
        queries: Q. features: F. width: of an additive score; a general one has W [F, Q], dot none.

    Raises:
        ValueError: A score that there is not, or sizes that a dot product does not fit.
    """
    if score not in SCORES:
        raise ValueError(f"score: expected one of {', '.join(SCORES)}, got {score!r}")
    if score == "dot":
        if queries != features:
            raise ValueError(f'score "dot": expected queries and memory of one size, got {queries} and {features}')
        return {}
    if score == "general":
        return {"W": draw.glorot(1, features, queries)}
    bound = 1 / np.sqrt(width)
    return {
        "W": draw.glorot(1, width, queries),
        "U": draw.glorot(1, width, features),
        "v": draw.uniform(-bound, bound, width),
    }


@dataclass(frozen=True)
class AttentionStep:
    """Attention alone, a step without a state: the input is a query [Q], y what it has seen and the weights."""

    score: str

    def __call__(self, p: Any, state: Any, query: Any, memory: Memory) -> tuple[Any, Any]:
        """Give (state, (seen [F], a [S]))."""
        return state, attend(self.score, p, query, memory)


class DecoderState(NamedTuple):
    """The state of each layer of a decoder, and the output of the step before [H]."""

    layers: Any
    attended: Any


class DecoderOutput(NamedTuple):
    """What a decoder gives: the attentional vector [H], and the weights [S] of the memory."""

    attended: Any
    weights: Any


@dataclass(frozen=True)
class DecoderStep:
    """h = cell([x; y⁻]);  seen = attention(h, memory);  y = tanh(C [h; seen] + b) (Luong et al. 2015, (5) and 3.3).

    Attributes:
        score: Of the attention, see `attend`. cell: "lstm", "gru" or "rnn"; of several layers each sees the input and
            the layer below, and h are those of all. input_feeding: Whether the cell sees y⁻, that of the step before.
    """

    score: str
    cell: str
    input_feeding: bool

    def __call__(self, p: Any, state: DecoderState, x: Any, memory: Memory) -> tuple[DecoderState, DecoderOutput]:
        """Take a step on the input x [I]."""
        seen_before = np.concatenate([x, state.attended]) if self.input_feeding else x
        layers, h = control(self.cell, p["cell"], state.layers, seen_before)
        seen, weights = attend(self.score, p["attention"], h, memory)
        attended = np.tanh(p["out"]["W"] @ np.concatenate([h, seen]) + p["out"]["b"])
        return DecoderState(layers, attended), DecoderOutput(attended, weights)


def AttentionDecoder(
    input_size: int,
    hidden_size: int,
    memory_size: int,
    *,
    score: str = "additive",
    cell: str = "lstm",
    num_layers: int = 1,
    attention_size: int | None = None,
    input_feeding: bool = True,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give a `DecoderStep` initial values: those of its cells, of the attention, and U(±1/sqrt(n)) of C.

    Args:
        input_size, hidden_size: I and H. memory_size: F. score, cell, input_feeding: As `DecoderStep`.
        num_layers: Of the cell. attention_size: Width of an additive score; None for H.
    """
    draw = Initial(rng, dtype)
    H, F = size("hidden_size", hidden_size), size("memory_size", memory_size)
    inputs = size("input_size", input_size) + (H if input_feeding else 0)
    width = H if attention_size is None else size("attention_size", attention_size)
    if cell == "feedforward":
        raise ValueError('cell: expected one of lstm, gru, rnn, got "feedforward"')
    units = [H] * size("num_layers", num_layers)
    layers, states = stack(cell, inputs, units, draw)
    p = {
        "cell": layers,
        "attention": attention_parameters(score, sum(units), F, width, draw),
        "out": draw.linear(sum(units) + F, H),
    }
    if cell == "lstm":
        for layer in layers:
            layer["b"][H : 2 * H] = 1.0
    state = DecoderState(tuple(states), draw.zeros(H))
    return Cell(DecoderStep(score, cell, input_feeding), p, state)
