"""An estimator from sequences to sequences of other tokens and lengths: spelling to sound, dates to dates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators.many_to_one import _generator, held_out, train
from fusedrnn.estimators.sklearn_bases import BaseEstimator, NotFittedError, check_consistent_length
from fusedrnn.estimators.sklearn_fallback import all_or_nothing
from fusedrnn.nn import CrossEntropyLoss, Seq2Seq
from fusedrnn.nn.padding import padded
from fusedrnn.sizes import size
from fusedrnn.train import Record
from fusedrnn.train.bucketing import LengthBatches

Self = TypeVar("Self", bound="SequenceTranslator")
UNKNOWN, BEGIN, END = 0, 0, 1  # the first of the source's tokens, the first two of the target's
_UNKNOWN_SHARE = 0.01  # of the source's tokens in training, so that the network has seen one
_PADDING = -1


class SequenceTranslator(BaseEstimator):  # type: ignore[misc]
    """A network that reads a sequence of tokens and writes another, attending to what it read: `fusedrnn.nn.Seq2Seq`.

    Args:
        embedding_dim, hidden_size, cell, dropout: as of the network. attention: "additive", "dot", "general", or None.
        epochs, batch_size, lr, weight_decay, clip_norm: of training by Adam(W), the rate falling along a cosine.
        label_smoothing: of the loss. beam: hypotheses that ``predict`` follows; 1 takes the likeliest token each time.
        length_penalty: of the beam. max_length: tokens of a prediction at most; None: half as many again as the longest
            that ``fit`` saw. early_stopping: keep ``validation_fraction`` of the pairs out of training, stop after
            ``patience`` epochs without a smaller loss on them, and take the parameters of the best epoch.
        random_state: None, an integer, or a NumPy generator of either kind. verbose: show progress.

    Attributes after ``fit``: ``model_``, ``history_`` (the Trainer's records), ``n_iter_`` (epochs done),
    ``source_tokens_`` and ``target_tokens_``, sorted.

    X and y are lists of sequences of tokens: strings, which are sequences of characters, or lists of anything that can
    be looked up, such as words or numbers. What ``fit`` did not see is read as one unknown token. A ``fit`` that is
    refused or interrupted leaves the estimator as it was.
    """

    def __init__(
        self,
        *,
        embedding_dim: int = 32,
        hidden_size: int = 96,
        cell: str = "lstm",
        attention: str | None = "additive",
        dropout: float = 0.0,
        epochs: int = 30,
        batch_size: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 5.0,
        label_smoothing: float = 0.0,
        beam: int = 1,
        length_penalty: float = 0.0,
        max_length: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.cell = cell
        self.attention = attention
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.label_smoothing = label_smoothing
        self.beam = beam
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    history_: list[Record]
    n_iter_: int

    def fit(self: Self, X: Any, y: Any) -> Self:
        """Train anew on sequences X and those that belong to them, y. ValueError: what does not fit."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        for name in ("epochs", "batch_size", "patience", "beam"):
            size(name, getattr(self, name))
        with all_or_nothing(self):
            sources, targets = _sequences("X", X), _sequences("y", y)
            check_consistent_length(sources, targets)
            self.source_tokens_, self.target_tokens_ = _tokens(sources), _tokens(targets)
            self._written_as = "".join if all(isinstance(row, str) for row in y) else list
            self._longest = max(map(len, targets))
            codes = {token: number for number, token in enumerate(self.target_tokens_, END + 1)}
            read = self._read(sources)
            told = [np.array([BEGIN, *(codes[token] for token in row), END], np.int64) for row in targets]
            return self._train(read, told)

    def _read(self, sources: Sequence[Sequence[Any]]) -> list[Array]:
        """Number the tokens of sources, [T_i]."""
        codes = {token: number for number, token in enumerate(self.source_tokens_, UNKNOWN + 1)}
        return [np.array([codes.get(token, UNKNOWN) for token in row], np.int64) for row in sources]

    def _train(self: Self, read: list[Array], told: list[Array]) -> Self:
        rng = _generator(self.random_state)
        kept, out = held_out(self, len(read), rng)
        seed = int(rng.integers(2**31))
        self.model_ = model = Seq2Seq(
            len(self.source_tokens_) + 1, len(self.target_tokens_) + 2, self.embedding_dim, self.hidden_size,
            score=self.attention, cell=self.cell, dropout=self.dropout, rng=rng,
        )  # fmt: skip

        def pairs(rows: Array) -> tuple[tuple[Array, Array], Array]:
            source = padded([read[i] for i in rows])
            return (source, padded([told[i][:-1] for i in rows])), padded([told[i][1:] for i in rows])

        def make(rows: Array, batch_rng: np.random.Generator) -> tuple[tuple[Array, Array], Array]:
            (source, tokens), target = pairs(kept[rows])
            forgotten = (source >= 0) & (batch_rng.random(source.shape) < _UNKNOWN_SHARE)
            return (np.where(forgotten, UNKNOWN, source), tokens), target

        lengths = np.array([len(read[i]) for i in kept])

        def batches(epoch: int) -> LengthBatches:
            return LengthBatches(lengths, self.batch_size, [seed, epoch], make)

        loss = CrossEntropyLoss(ignore_index=_PADDING, label_smoothing=self.label_smoothing)
        train(self, model, loss, batches, len(kept), (lambda: self._loss(pairs, out)) if len(out) else None, seed)
        return self

    def _loss(self, pairs: Callable[[Array], tuple[tuple[Array, Array], Array]], rows: Array) -> float:
        """Return the loss a token of pairs that are held out, in evaluation mode."""
        loss, total, count = CrossEntropyLoss("sum", ignore_index=_PADDING), 0.0, 0
        for at in range(0, len(rows), self.batch_size):
            x, target = pairs(rows[at : at + self.batch_size])
            total += loss(self.model_(x), target)
            count += int((target >= 0).sum())
        return total / count

    def predict(self, X: Any) -> list[Any]:
        """Write what belongs to each sequence: strings where y of ``fit`` was strings, else lists of tokens."""
        if not hasattr(self, "model_"):
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet: call fit first")
        most = self.max_length if self.max_length is not None else math.ceil(1.5 * self._longest)
        written = self.model_.write(
            self._read(_sequences("X", X)), begin=BEGIN, end=END, most=size("max_length", most),
            beam=size("beam", self.beam), length_penalty=self.length_penalty, never=(BEGIN,),
        )  # fmt: skip
        return [self._written_as(self.target_tokens_[token - END - 1] for token in best.tokens) for best, *_ in written]

    def score(self, X: Any, y: Any) -> float:
        """Return the fraction of sequences written exactly."""
        predicted, wanted = self.predict(X), _sequences("y", y)
        check_consistent_length(predicted, wanted)
        return float(np.mean([list(a) == list(b) for a, b in zip(predicted, wanted, strict=True)]))


def _sequences(name: str, given: Any) -> list[Any]:
    """Read sequences of tokens. ValueError for what is none, naming the row."""
    if isinstance(given, (str, bytes)):
        raise ValueError(f"{name}: expected a list of sequences, got one {type(given).__name__}; give [{name}]")
    rows = list(given)
    if not rows:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    for i, row in enumerate(rows):
        if isinstance(row, (bytes, dict, set)) or not hasattr(row, "__len__") or not hasattr(row, "__getitem__"):
            raise ValueError(f"{name}[{i}]: expected a string or a list of tokens, got {type(row).__name__}")
        if name == "X" and not len(row):
            raise ValueError(f"X[{i}]: expected at least one token, got none")
    return [row if isinstance(row, str) else [_plain(token) for token in row] for row in rows]


def _plain(token: Any) -> Any:
    """Return a token as Python has it: NumPy's numbers are equal to its own, but of another type."""
    token = token.item() if isinstance(token, np.generic) else token
    try:
        hash(token)
    except TypeError:
        raise ValueError(f"expected tokens that can be looked up, got {type(token).__name__}") from None
    return token


def _tokens(sequences: Sequence[Sequence[Any]]) -> list[Any]:
    """Return all tokens of sequences, sorted, whatever their types."""
    return sorted({token for row in sequences for token in row}, key=lambda token: (type(token).__name__, token))
