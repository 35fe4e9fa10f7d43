"""The words of captions as numbers, with the interface of `fusedrnn.data.subwords.Subwords`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.subwords import BEGIN, END, UNKNOWN
from fusedrnn.train.bucketing import padded


class Words:
    """Words behind UNKNOWN, BEGIN and END, parted by blanks.

    Args:
        stored: The words, each once.
    """

    def __init__(self, stored: Sequence[str]) -> None:
        self.stored = list(stored)
        self._numbers = {word: number for number, word in enumerate(self.stored, END + 1)}

    @classmethod
    def of(cls, captions: Iterable[str]) -> Words:
        """Take all words of captions, the most frequent first."""
        counts = Counter(word for caption in captions for word in caption.split())
        return cls([word for word, _ in counts.most_common()])

    def __len__(self) -> int:
        return END + 1 + len(self.stored)

    def numbers(self, text: str) -> Array:
        """Return the words of a text, [T] int64; UNKNOWN for those that are not here."""
        return np.array([self._numbers.get(word, UNKNOWN) for word in text.split()], np.int64)

    def text(self, numbers: Sequence[int] | Array) -> str:
        """Return the text of numbers; the first three are no words and give nothing."""
        return " ".join(self.stored[number - END - 1] for number in map(int, numbers) if number > END)


def columns(captions: Sequence[Array]) -> tuple[Array, Array]:
    """Lay the numbers of captions' words into what a decoder reads, BEGIN first, and what it should write, END last:
    both [T, N] int64, -1 past a row's end."""
    return padded([np.concatenate([[BEGIN], one]) for one in captions]), padded(
        [np.concatenate([one, [END]]) for one in captions]
    )
