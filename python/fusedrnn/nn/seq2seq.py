"""Sequence to sequence: an encoder in both directions and a decoder that attends to what it read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.decoding import Hypothesis
from fusedrnn.nn.linear import Dropout, Embedding
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.padding import own_steps, padded
from fusedrnn.nn.recurrent import GRU, LSTM, RNN
from fusedrnn.nn.token_decoder import TokenDecoder
from fusedrnn.sizes import size

_LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class Seq2Seq(Module):
    """Logits of a target's tokens, of a source and the tokens before: ``logits = model((source, tokens))``.

    Vectors of the source's tokens go through dropout into bidirectional layers, whose outputs [S, N, 2H] are the
    memory of a `TokenDecoder`; it starts from their last states (Bahdanau et al. 2014, arXiv:1409.0473).

    Args:
        source_tokens, target_tokens: How many there are. embedding_dim: E of both. hidden_size: H, of each direction
            and of the decoder; with the score "dot" the decoder has 2H units, as many as the memory.
        encoder_layers: Of the encoder. score, cell, input_feeding, dropout, tied: As `TokenDecoder`.
        dtype: "float32" or "float64". rng: Seed or generator.
    """

    def __init__(
        self,
        source_tokens: int,
        target_tokens: int,
        embedding_dim: int,
        hidden_size: int,
        *,
        encoder_layers: int = 1,
        score: str | None = "additive",
        cell: str = "lstm",
        input_feeding: bool = True,
        dropout: float = 0.0,
        tied: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if cell not in _LAYERS:
            raise ValueError(f"cell: expected one of {', '.join(_LAYERS)}, got {cell!r}")
        generator = as_generator(rng)
        E, H = size("embedding_dim", embedding_dim), size("hidden_size", hidden_size)
        self.embedding = Embedding(source_tokens, E, dtype=dtype, rng=generator)
        self.before = Dropout(dropout, rng=generator)
        self.after = Dropout(dropout, rng=generator)
        self.before.time_major = self.after.time_major = True
        self.encoder: Any = _LAYERS[cell](
            E,
            H,
            encoder_layers,
            bidirectional=True,
            dropout=dropout if encoder_layers > 1 else 0.0,
            dtype=dtype,
            rng=generator,
        )
        self.decoder = TokenDecoder(
            target_tokens, E, 2 * H if score == "dot" else H, 2 * H, start_size=2 * H, score=score, cell=cell,
            input_feeding=input_feeding, dropout=dropout, tied=tied, dtype=dtype, rng=generator,
        )  # fmt: skip

    def encode(self, source: Array) -> tuple[Array, Array, Array]:
        """Read sources [S, N], -1 being padding: the memory [S, N, 2H], the start [N, 2H], lengths [N].

        Raises:
            ValueError: Shapes or tokens that do not fit, padding within a row, a row without tokens.
        """
        source = np.asarray(source)
        if source.ndim != 2 or source.dtype.kind not in "iu":
            raise ValueError(f"source: expected integers [S, N], got {source.dtype} {source.shape}")
        ids, lengths = own_steps(source)
        if not (lengths > 0).all():
            raise ValueError(f"source: expected at least one token in each row, got none in row {lengths.argmin()}")
        y, last = self.encoder(self.before(self.embedding(ids)), lengths=lengths)
        h_n = last[0] if isinstance(self.encoder, LSTM) else last
        start = np.concatenate([h_n[-2], h_n[-1]], axis=1)  # of the top layer, both directions
        return self.after(y), start, lengths

    def forward(self, x: tuple[Array, ...]) -> Array:
        """Give logits [T, N, V].

        Args:
            x: (source [S, N], tokens [T, N]), integers, -1 being padding; tokens are what the decoder reads, the one
                that begins first. A third, [T, N] booleans: there it reads its own (`TokenDecoder.with_own`).
        """
        source, tokens, *own = x
        memory, start, lengths = self.encode(source)
        if own:
            tokens = self.decoder.with_own(tokens, own[0], memory, start, lengths)
        logits: Array = self.decoder(tokens, memory, start, lengths)
        return logits

    def backward(self, dlogits: Array) -> None:
        """Add to the gradients; tokens have none."""
        dmemory, dstart = self.decoder.backward(dlogits)
        dy = self.after.backward(dmemory)
        dh_n = np.zeros((2 * self.encoder.num_layers, *np.split(dstart, 2, axis=1)[0].shape), dstart.dtype)
        dh_n[-2], dh_n[-1] = np.split(dstart, 2, axis=1)
        dx, _ = self.encoder.backward(dy, (dh_n, None) if isinstance(self.encoder, LSTM) else dh_n)
        self.embedding.backward(self.before.backward(dx))

    def write(
        self,
        sources: Sequence[Any],
        *,
        begin: int,
        end: int,
        most: int,
        beam: int = 1,
        length_penalty: float = 0.0,
        temperature: float = 0.0,
        never: tuple[int, ...] = (),
        rng: np.random.Generator | int | None = None,
        rows: int = 64,
    ) -> list[list[Hypothesis]]:
        """Write what belongs to each source, a sequence of integers: see `TokenDecoder.write`. In evaluation mode.

        Args:
            rows: Sources that are read at once, of similar lengths. The others are as there.
        """
        generator = as_generator(rng)
        arrays = [np.asarray(source, np.int64) for source in sources]
        order = np.argsort([len(source) for source in arrays], kind="stable")
        found: list[list[Hypothesis]] = [[] for _ in arrays]
        for at in range(0, len(arrays), size("rows", rows)):
            part = order[at : at + rows]
            memory, start, lengths = self.encode(padded([arrays[i] for i in part]))
            written = self.decoder.write(
                memory, start, lengths, begin=begin, end=end, most=most, beam=beam, length_penalty=length_penalty,
                temperature=temperature, never=never, rng=generator,
            )  # fmt: skip
            for i, hypotheses in zip(part, written, strict=True):
                source = len(arrays[i])
                found[i] = [h if h.weights is None else h._replace(weights=h.weights[:, :source]) for h in hypotheses]
        return found
