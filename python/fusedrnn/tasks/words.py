"""Words: cutting text into them, numbering them, and logistic regression on bags of them, the baseline of sentiment."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from fusedrnn.arrays import Array

_WORD = re.compile(r"n't|'[a-z]{1,2}\b|[^\W_]+|[^\w\s]|_")


def words_of(text: str) -> list[str]:
    """Lower-case words, marks, and endings such as n't by themselves: "It isn't!" -> it is n't !"""
    return _WORD.findall(re.sub(r"n't\b", " n't", text.lower().replace("\u2019", "'").replace("''", '"')))


class WordNumbers:
    """Numbers of words from 1 on; 0 is any word that is not in it."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], at_least: int = 1, most: int | None = None) -> WordNumbers:
        """The words that occur ``at_least`` so often in texts, the most frequent first, ``most`` at most."""
        counts = Counter(word for text in texts for word in text)
        return cls(word for word, count in counts.most_common(most) if count >= at_least)

    def __len__(self) -> int:
        return 1 + len(self.words)

    def numbers(self, text: Sequence[str]) -> Array:
        """[T] int64 of T words."""
        return np.array([self._numbers.get(word, 0) for word in text], np.int64)


class BagOfWords:
    """Logistic regression on words and pairs of neighbours, however often and wherever they occur (TF-IDF).

    Features of a text: 1 + log(count), times log((1 + n) / (1 + texts with it)) + 1, scaled to length 1 in all.
    The minimum of C * (sum of losses) + |w|^2 / 2 by Newton's method, conjugate gradients within. Pairs that occur in
    one text only are left out, for time.

    Args:
        texts: words of each of n texts. positive: [n] booleans. C: 10 was the best of 1, 3 and 10 on review snippets.
        pairs: whether there are features of two words.
    """

    def __init__(self, texts: Sequence[Sequence[str]], positive: Array, C: float = 10.0, pairs: bool = True) -> None:
        self.pairs = pairs
        occurs = Counter(feature for text in texts for feature in set(self._features(text)))
        kept = [feature for feature, count in occurs.items() if count > 1 or isinstance(feature, str)]
        self._columns = {feature: column for column, feature in enumerate(kept)}
        self._idf = np.log((1 + len(texts)) / (1 + np.array([occurs[feature] for feature in kept]))) + 1
        self.weights, self.bias = self._fit(texts, np.where(positive, 1.0, -1.0), C)

    def _features(self, text: Sequence[str]) -> list[str | tuple[str, str]]:
        return [*text, *itertools.pairwise(text)] if self.pairs else [*text]

    def _table(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Array, Array]:
        """Rows, columns and values of the features, a sparse matrix."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            counts = Counter(self._columns[f] for f in self._features(text) if f in self._columns)
            own = np.fromiter(counts, np.int64, len(counts))
            value = (1 + np.log(np.fromiter(counts.values(), float, len(counts)))) * self._idf[own]
            rows.append(np.full(len(own), row))
            columns.append(own)
            values.append(value / max(np.sqrt(value @ value), 1e-12))
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)

    def _fit(self, texts: Sequence[Sequence[str]], sign: Array, C: float) -> tuple[Array, float]:
        rows, columns, values = self._table(texts)
        n, width = len(texts), len(self._columns)

        def product(w: Array) -> Array:  # X w, the bias as the last weight
            scores: Array = np.bincount(rows, values * w[columns], n) + w[-1]
            return scores

        def transposed(r: Array) -> Array:  # X' r
            sums: Array = np.append(np.bincount(columns, values * r[rows], width), r.sum())
            return sums

        def hessian(curvature: Array, p: Array) -> Array:
            return ridge * p + transposed(curvature * product(p))

        ridge = np.append(np.ones(width), 0.0)  # the bias is free
        w, scores = np.zeros(width + 1), np.zeros(n)
        for _ in range(100):
            likely = _sigmoid(sign * scores)
            gradient = ridge * w - C * transposed(sign * (1 - likely))
            if np.abs(gradient).max() < 1e-4:
                break
            curvature = C * likely * (1 - likely)
            step = _conjugate_gradients(partial(hessian, curvature), -gradient)
            along, size = product(step), 1.0
            value = _objective(w, ridge, sign * scores, C)
            while _objective(w + size * step, ridge, sign * (scores + size * along), C) > value and size > 1e-6:
                size /= 2
            w, scores = w + size * step, scores + size * along
        return w[:-1], float(w[-1])

    def __call__(self, texts: Sequence[Sequence[str]]) -> Array:
        """Scores [n] of texts; those above 0 are taken for positive."""
        rows, columns, values = self._table(texts)
        scores: Array = np.bincount(rows, values * self.weights[columns], len(texts)) + self.bias
        return scores

    def accuracy(self, texts: Sequence[Sequence[str]], positive: Array) -> float:
        """The fraction of texts classified rightly."""
        return float(np.mean((self(texts) > 0) == positive))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _objective(w: Array, ridge: Array, margins: Array, C: float) -> float:
    return float(C * np.logaddexp(0, -margins).sum() + 0.5 * (ridge * w * w).sum())


def _conjugate_gradients(times: Callable[[Array], Array], b: Array) -> Array:
    """A step x with A x near b, A positive definite: to a tenth of b, which Newton's method needs no better than."""
    x, r = np.zeros_like(b), b.copy()
    p, norm = r.copy(), float(r @ r)
    goal = 0.01 * norm
    for _ in range(200):
        if norm <= goal:
            break
        q = times(p)
        alpha = norm / float(p @ q)
        x += alpha * p
        r -= alpha * q
        norm, before = float(r @ r), norm
        p = r + (norm / before) * p
    return x
