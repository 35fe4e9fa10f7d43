"""The network of captions: recurrent layers read a picture by rows and columns, a decoder attends to their states."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.decoding import Hypothesis
from fusedrnn.nn import LSTM, Dropout, Module, TokenDecoder
from fusedrnn.sizes import size

_ROWS = 250  # pictures that are captioned at once


class Captioner(Module):
    """Logits [T, N, V] of a caption's words, of a picture and the words before: ``logits = model((pictures, tokens))``.

    Two LSTMs in both directions read the picture, one a row a step from top to bottom, the other a column a step. Their
    outputs, [rows + columns, N, 2H], are the memory of a `fusedrnn.nn.TokenDecoder`, which starts from their last
    states. Pictures are uint8 [N, rows, columns, channels]; white is 0 to the network, black 1.

    Args:
        rows, columns, channels: Of pictures. tokens: V. embedding: E. units: H, of each LSTM and direction.
        decoder_units: H of the decoder; with the score "dot" it has 2H, as many as the memory.
        score: Of attention, as of `fusedrnn.nn.TokenDecoder`. dropout: Probability. dtype: "float32" or
            "float64". rng: Generator.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        channels: int,
        tokens: int,
        *,
        embedding: int,
        units: int,
        decoder_units: int,
        score: str | None = "additive",
        dropout: float = 0.0,
        dtype: Any = "float32",
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.shape = (size("rows", rows), size("columns", columns), size("channels", channels))
        self.by_rows = LSTM(columns * channels, units, bidirectional=True, forget_bias=1.0, dtype=dtype, rng=rng)
        self.by_columns = LSTM(rows * channels, units, bidirectional=True, forget_bias=1.0, dtype=dtype, rng=rng)
        self.after = Dropout(dropout, rng=rng)
        self.after.time_major = True
        self.decoder = TokenDecoder(
            tokens, embedding, 2 * units if score == "dot" else decoder_units, 2 * units, start_size=4 * units,
            score=score, dropout=dropout, dtype=dtype, rng=rng,
        )  # fmt: skip

    def encode(self, pictures: Array) -> tuple[Array, Array]:
        """Read pictures [N, rows, columns, channels]: the memory [rows + columns, N, 2H], the start [N, 4H].

        Raises:
            ValueError: Pictures of another shape or dtype.
        """
        pictures = np.asarray(pictures)
        if pictures.shape[1:] != self.shape or pictures.dtype != np.uint8:
            expected = ", ".join(map(str, self.shape))
            raise ValueError(f"pictures: expected uint8 (N, {expected}), got {pictures.dtype} {pictures.shape}")
        rows, columns, _ = self.shape
        N = len(pictures)
        ink = (255 - pictures).astype(self.by_rows.dtype) / 255
        down = np.ascontiguousarray(ink.transpose(1, 0, 2, 3)).reshape(rows, N, -1)
        across = np.ascontiguousarray(ink.transpose(2, 0, 1, 3)).reshape(columns, N, -1)
        (y_rows, (h_rows, _)), (y_columns, (h_columns, _)) = self.by_rows(down), self.by_columns(across)
        return self.after(np.concatenate([y_rows, y_columns])), np.concatenate([*h_rows, *h_columns], axis=1)

    def forward(self, x: tuple[Array, Array]) -> Array:
        """Give logits [T, N, V].

        Args:
            x: Pictures, and tokens [T, N], which the decoder reads: the one that begins first, -1 past a row's end.
        """
        pictures, tokens = x
        logits: Array = self.decoder(tokens, *self.encode(pictures))
        return logits

    def backward(self, dlogits: Array) -> None:
        """Add to the gradients; pictures have none."""
        dmemory, dstart = self.decoder.backward(dlogits)
        dmemory = self.after.backward(dmemory)
        dlast, rows = np.split(dstart, 4, axis=1), self.shape[0]
        for layer, dy, dh_n in (
            (self.by_rows, dmemory[:rows], dlast[:2]),
            (self.by_columns, dmemory[rows:], dlast[2:]),
        ):
            layer.backward(np.ascontiguousarray(dy), (np.stack(dh_n), None), input_grad=False)

    def write(
        self, pictures: Array, *, begin: int, end: int, most: int, beam: int = 1, never: tuple[int, ...] = ()
    ) -> list[Hypothesis]:
        """Write the best caption of each picture: arguments as of `encode` and `fusedrnn.nn.TokenDecoder.write`.

        In the mode that the network is in: `eval` first.
        """
        found: list[Hypothesis] = []
        for at in range(0, len(pictures), _ROWS):
            memory, start = self.encode(pictures[at : at + _ROWS])
            written = self.decoder.write(memory, start, begin=begin, end=end, most=most, beam=beam, never=never)
            found += [hypotheses[0] for hypotheses in written]
        return found
