"""The network of translations: sequence to sequence whose attention also sees the source's words themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, Seq2Seq, TokenDecoder
from fusedrnn.nn.padding import own_steps


class LexicalSeq2Seq(Seq2Seq):
    """`fusedrnn.nn.Seq2Seq` whose memory [S, N, 2H + E] has each source token's vector behind the encoder's output.

    So a word reaches the decoder by a short way, past the encoder, as its translation needs it (Nguyen and Chiang 2018,
    arXiv:1710.01329, do alike). From few sentences this learns far sooner.

    Args:
        source_tokens, target_tokens, embedding_dim, hidden_size, encoder_layers, score, cell, input_feeding, dropout,
            rng: As `fusedrnn.nn.Seq2Seq`; with the score "dot" the decoder has 2H + E units.
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
        rng: np.random.Generator,
    ) -> None:
        super().__init__(
            source_tokens, 1, embedding_dim, hidden_size, encoder_layers=encoder_layers, score=None, cell=cell,
            dropout=dropout, rng=rng,
        )  # fmt: skip
        E, H = embedding_dim, hidden_size
        self.decoder = TokenDecoder(
            target_tokens, E, 2 * H + E if score == "dot" else H, 2 * H + E, start_size=2 * H, score=score, cell=cell,
            input_feeding=input_feeding, dropout=dropout, rng=rng,
        )  # fmt: skip

    def encode(self, source: Array) -> tuple[Array, Array, Array]:
        """Read sources [S, N], -1 being padding: the memory [S, N, 2H + E], the start [N, 2H], lengths [N]."""
        ids, lengths = own_steps(np.asarray(source))
        words = self.before(self.embedding(ids))
        y, last = self.encoder(words, lengths=lengths)
        h_n = last[0] if isinstance(self.encoder, LSTM) else last
        return self.after(np.concatenate([y, words], axis=2)), np.concatenate([h_n[-2], h_n[-1]], axis=1), lengths

    def backward(self, dlogits: Array) -> None:
        """Add to the gradients; tokens have none."""
        dmemory, dstart = self.decoder.backward(dlogits)
        dmemory, H = self.after.backward(dmemory), self.encoder.hidden_size
        dh_n = np.zeros((2 * self.encoder.num_layers, len(dstart), H), dstart.dtype)
        dh_n[-2], dh_n[-1] = np.split(dstart, 2, axis=1)
        dlast: Any = (dh_n, None) if isinstance(self.encoder, LSTM) else dh_n
        dwords, _ = self.encoder.backward(np.ascontiguousarray(dmemory[..., : 2 * H]), dlast)
        self.embedding.backward(self.before.backward(dwords + dmemory[..., 2 * H :]))
