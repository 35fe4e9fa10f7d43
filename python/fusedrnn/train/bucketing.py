"""Many to one over sequences of uneven length: padding that says where a row ends, batches of rows of like length, the
network, and what it gives. Estimators and tasks train the same network by the same batches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import GRU, LSTM, RNN, Embedding, ManyToMany, ManyToOne, Module
from fusedrnn.nn.module import as_generator
from fusedrnn.nn.padding import padded as padded

CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
_INFERENCE_ROWS = 256
_EMBEDDING_SCALE = 0.1  # of N(0, 1): rare integers then start near zero rather than as noise
_POOL = 16  # batches that are sorted by length together: rows of like length, in an order that still varies


def many_to_one(
    outputs: int,
    *,
    features: int | None = None,
    embedding: tuple[int, int] | None = None,
    cell: str = "gru",
    hidden_size: int = 64,
    num_layers: int = 1,
    bidirectional: bool = False,
    pooling: str | Sequence[str] | None = "last",
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    rng: np.random.Generator | int | None = None,
) -> ManyToOne:
    """A network over features [T_i, I] (``features`` is I), or over integers (``embedding``: how many, of what size).

    Others as of the layers and `fusedrnn.nn.ManyToOne`; without a ``pooling`` it is a `fusedrnn.nn.ManyToMany`.
    ``dropout`` is also that between layers. ValueError: a cell that is none.
    """
    if cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    generator = as_generator(rng)
    table = None
    if embedding is not None:
        table = Embedding(*embedding, rng=generator)
        table.weight.data *= np.float32(_EMBEDDING_SCALE)
        features = embedding[1]
    assert features is not None
    rnn = CELLS[cell](
        features, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout if num_layers > 1 else 0.0,
        recurrent_dropout=recurrent_dropout, rng=generator,
    )  # fmt: skip
    if pooling is None:
        return ManyToMany(rnn, outputs, embedding=table, input_dropout=input_dropout, dropout=dropout, rng=generator)
    return ManyToOne(
        rnn, outputs, embedding=table, pooling=pooling, input_dropout=input_dropout, dropout=dropout, rng=generator
    )


def infer(model: Module, sequences: Sequence[Array]) -> Array:
    """What ``model`` gives for sequences of uneven length, [..., n, outputs], in evaluation mode."""
    training, parts, order = model.training, [], []
    model.eval()
    try:
        for rows in by_length(np.array([len(s) for s in sequences]), _INFERENCE_ROWS):
            parts.append(model(padded([sequences[i] for i in rows])))
            order.append(rows)
    finally:
        model.train(training)
    whole: Array = np.take(np.concatenate(parts, axis=-2), np.argsort(np.concatenate(order)), axis=-2)
    return whole


def infer_steps(model: Module, sequences: Sequence[Array]) -> list[Array]:
    """Return what a `fusedrnn.nn.ManyToMany` gives at every step of sequences of uneven length, [T_i, outputs] each,
    in evaluation mode."""
    training = model.training
    found: list[Array] = [np.empty(0)] * len(sequences)
    model.eval()
    try:
        for rows in by_length(np.array([len(s) for s in sequences]), _INFERENCE_ROWS):
            outputs = model(padded([sequences[i] for i in rows]))
            for n, i in enumerate(rows):
                found[i] = np.ascontiguousarray(outputs[: len(sequences[i]), n])
    finally:
        model.train(training)
    return found


def by_length(lengths: Array, size: int) -> Iterator[Array]:
    """Row numbers [size] of batches for inference: all rows, of like length together."""
    order = np.argsort(lengths, kind="stable")
    return (order[i : i + size] for i in range(0, len(order), size))


class LengthBatches:
    """Batches of one epoch: rows shuffled, then of like length together, the batches in random order.

    Args:
        lengths: [n], of the sequences. size: rows of a batch; one of them holds what is left.
        seed: of the order. make: (row numbers, generator of that batch) -> (x, target).
    """

    def __init__(
        self,
        lengths: Array,
        size: int,
        seed: Sequence[int],
        make: Callable[[Array, np.random.Generator], tuple[Any, Any]],
    ) -> None:
        self.lengths, self.size, self.seed, self.make = lengths, size, list(seed), make

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size)

    @property
    def resume_key(self) -> list[Any]:
        """Return what the batches follow from: `fusedrnn.train.batches.Batches` has the same."""
        return [
            len(self.lengths),
            zlib.crc32(np.asarray(self.lengths, np.int64).tobytes()),
            self.size,
            *map(int, self.seed),
        ]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.skip(0)

    def skip(self, count: int) -> Iterator[tuple[Any, Any]]:
        """All batches but the first ``count``, which are not made."""
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(self.lengths))
        batches = []
        for start in range(0, len(order), _POOL * self.size):
            pool = order[start : start + _POOL * self.size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[i : i + self.size] for i in range(0, len(pool), self.size)]
        turns = rng.permutation(len(batches))[count:]
        return (self.make(batches[i], np.random.default_rng([*self.seed, int(i)])) for i in turns)
