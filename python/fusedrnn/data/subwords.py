"""Subwords: a vocabulary of pieces of words learnt from texts by sentencepiece (Kudo and Richardson 2018)."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.extras import needed_for

UNKNOWN, BEGIN, END = 0, 1, 2


class Subwords:
    """Texts as numbers of pieces and back; UNKNOWN, BEGIN and END are the first numbers.

    Args:
        stored: What `stored` gave: the model of sentencepiece in base64.

    Raises:
        ValueError: For what is no such model.
    """

    def __init__(self, stored: str) -> None:
        self.stored = stored
        with needed_for("subwords", "train"):
            from sentencepiece import SentencePieceProcessor
        try:
            self._model: Any = SentencePieceProcessor(model_proto=base64.b64decode(stored, validate=True))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"not a model of sentencepiece ({error})") from None

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> Subwords:
        """Learn at most `size` pieces of texts, as a unigram model (Kudo 2018, arXiv:1804.10959).

        It runs in one thread, so that the same texts give the same pieces; texts stay as they are but for spaces.
        """
        with needed_for("subwords", "train"):
            from sentencepiece import SentencePieceTrainer
        written = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_name="identity",
            num_threads=1,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            minloglevel=2,
        )
        return cls(base64.b64encode(written.getvalue()).decode())

    def __len__(self) -> int:
        return int(self._model.get_piece_size())

    def numbers(self, text: str) -> Array:
        """Return the pieces of a text, [T] int64."""
        return np.array(self._model.encode(text), np.int64)

    def text(self, numbers: Sequence[int] | Array) -> str:
        """Return the text of pieces."""
        return str(self._model.decode([int(number) for number in numbers]))

    def pieces(self, numbers: Sequence[int] | Array) -> list[str]:
        """Return each piece as a reader should see it, the sign of a word's beginning as a space."""
        return [str(self._model.id_to_piece(int(number))).replace("\u2581", " ") for number in numbers]
