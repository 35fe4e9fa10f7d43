"""The tokens of a text, characters or words, as integers and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fusedrnn.arrays import Array

UNKNOWN = "<unk>"
_WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]|\n")


def split(text: str, words: bool) -> list[str]:
    """Characters, or words, punctuation marks and line ends; spaces between words are dropped."""
    return _WORDS.findall(text) if words else list(text)


def spaced(tokens: Sequence[str], words: bool) -> list[str]:
    """Characters as they are; words and marks each with the space that goes before it."""
    if not words:
        return list(tokens)
    found, last = [], "\n"
    for token in tokens:
        closing = len(token) == 1 and token in "\n.,;:!?)]"
        found.append(token if closing or last in "\n([" else f" {token}")
        last = token
    return found


class Vocabulary:
    """Tokens by number, the one with number 0 standing for all that are not in it, where it is "<unk>".

    Args:
        tokens: each once. words: whether they are words rather than characters.
    """

    def __init__(self, tokens: Sequence[str], words: bool) -> None:
        self.tokens, self.words = list(tokens), words
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        self.unknown = self._numbers.get(UNKNOWN) if words else None
        self.start = self._numbers.get("\n", len(self.tokens) - 1)

    @classmethod
    def of(cls, tokens: Iterable[str], words: bool, at_least: int = 1) -> Vocabulary:
        """All characters in order; of words those that occur so often, the frequent ones first, after "<unk>"."""
        if not words:
            return cls(sorted(set(tokens)), words)
        kept = (word for word, count in Counter(tokens).most_common() if count >= at_least)
        return cls([UNKNOWN, *kept], words)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, tokens: Sequence[str]) -> Array:
        """Integers [n] of n tokens. KeyError for a token that is not there, where there is no "<unk>"."""
        if self.unknown is None:
            return np.array([self._numbers[token] for token in tokens], np.int64)
        return np.array([self._numbers.get(token, self.unknown) for token in tokens], np.int64)

    def pieces(self, numbers: Array) -> list[str]:
        """The tokens of integers [n] as they are written one after the other."""
        return spaced([self.tokens[number] for number in numbers], self.words)

    def decode(self, numbers: Array) -> str:
        """The text of integers [n]."""
        return "".join(self.pieces(numbers))
