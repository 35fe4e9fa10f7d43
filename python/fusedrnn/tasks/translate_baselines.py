"""What a translation must beat: a dictionary word for word, and the translation of the most similar known sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fusedrnn.data.sentence_pairs import Pair
from fusedrnn.tasks.alignment import expected_counts

_WORDS = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")
_ITERATIONS = 5


def words_of(text: str) -> list[str]:
    """Return words and signs."""
    return _WORDS.findall(text)


def joined(words: Sequence[str]) -> str:
    """Return the text of words and signs, begun with a capital letter."""
    text = re.sub(r" ([.,;:!?])", r"\1", " ".join(words))
    return text[:1].upper() + text[1:]


class Dictionary:
    """Word for word: for each the translation that is likeliest by IBM model 1 (Brown et al. 1993), in the source's
    order; signs and words not met stay as they are.

    Args:
        pairs: To learn it from.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        sources = [[word.lower() for word in _only_words(pair.source)] for pair in pairs]
        targets = [_only_words(pair.target) for pair in pairs]
        for target in targets:  # a sentence's first word has its capital letter for that alone
            target[:1] = [word if word[:2] in ("I", "I'") else word.lower() for word in target[:1]]
        both = [(one, other) for one, other in zip(sources, targets, strict=True) if one and other]
        sources, targets = [one for one, _ in both], [other for _, other in both]
        ours, theirs = _numbered(sources), _numbered(targets)
        counts = expected_counts(
            [np.array([ours[word] for word in source]) for source in sources],
            [np.array([theirs[word] for word in target]) for target in targets],
            _ITERATIONS,
        )
        names, words = list(theirs), list(ours)
        order = np.argsort(counts.times, kind="stable")  # the likeliest of a word comes last and stays
        self.words = {words[counts.source[i]]: names[counts.target[i]] for i in order}

    def translate(self, text: str) -> str:
        """Return a text word for word."""
        return joined([self.words.get(word.lower(), word) for word in words_of(text)])


def _only_words(text: str) -> list[str]:
    return [word for word in words_of(text) if word[0].isalnum()]


def _numbered(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    return {word: number for number, word in enumerate(dict.fromkeys(word for text in texts for word in text))}


class Nearest:
    """The translation of the known sentence that is most similar: cosine of words weighted by their rarity (TF-IDF).

    Args:
        pairs: The known ones.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        bags = [Counter(word.lower() for word in words_of(pair.source)) for pair in pairs]
        self.rarity = {
            word: float(np.log(len(bags) / count)) for word, count in Counter(w for bag in bags for w in bag).items()
        }
        self._rows: dict[str, list[int]] = {}
        self._values: dict[str, list[float]] = {}
        for row, bag in enumerate(bags):
            norm = sum((count * self.rarity[word]) ** 2 for word, count in bag.items()) ** 0.5
            for word, count in bag.items():
                self._rows.setdefault(word, []).append(row)
                self._values.setdefault(word, []).append(count * self.rarity[word] / max(norm, 1e-9))

    def nearest(self, text: str) -> Pair:
        """Return the known pair whose source is most similar; the first of those that are equally so."""
        similar = np.zeros(len(self.pairs))
        for word, count in Counter(word.lower() for word in words_of(text)).items():
            if word in self.rarity:
                similar[self._rows[word]] += count * self.rarity[word] * np.array(self._values[word])
        return self.pairs[int(similar.argmax())]

    def translate(self, text: str) -> str:
        """Return the translation of the known sentence most similar to a text."""
        return self.nearest(text).target
