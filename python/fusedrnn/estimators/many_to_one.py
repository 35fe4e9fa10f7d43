"""Estimators in the manner of scikit-learn: ``fit`` and ``predict`` over lists of sequences of uneven length.

They work in Pipeline, GridSearchCV and cross_val_score where scikit-learn (1.6 or later) is installed, and by
themselves, with the same methods, where it is not.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators import samples
from fusedrnn.estimators.given import column_names, unmasked
from fusedrnn.estimators.sklearn_bases import (
    BaseEstimator,
    ClassifierMixin,
    NotFittedError,
    RegressorMixin,
    check_classification_targets,
    check_consistent_length,
    column_or_1d,
    validate_data,
)
from fusedrnn.estimators.sklearn_fallback import all_or_nothing
from fusedrnn.nn import CrossEntropyLoss, ManyToOne, Module, MSELoss
from fusedrnn.optim import AdamW, CosineLR
from fusedrnn.sizes import size
from fusedrnn.train import Loss, Record, Trainer
from fusedrnn.train.bucketing import LengthBatches, infer, many_to_one, padded
from fusedrnn.train.distributed import World

Self = TypeVar("Self", bound="_SequenceEstimator")


class _SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """What the two share: parameters, sequences and their checks, training.

    Args:
        cell: "rnn", "lstm" or "gru". hidden_size, num_layers, bidirectional, recurrent_dropout: as of the layers.
        pooling: of the last layer's outputs, one or more of "last", "mean", "max".
        embedding_dim: None for sequences of features [T_i, I]; else sequences are integers [T_i], looked up in vectors
            of so many elements. num_embeddings: how many there are; None: as the integers in ``fit`` need.
        input_dropout, dropout: of what enters the recurrent layers, and of what leaves them.
        epochs, batch_size, lr, weight_decay, clip_norm: of training by Adam(W), the rate falling along a cosine.
        early_stopping: keep ``validation_fraction`` of the sequences out of training, stop after ``patience`` epochs
            without a smaller loss on them, and take the parameters of the best epoch.
        random_state: None, an integer, or a NumPy generator of either kind. verbose: show progress.

    Attributes after ``fit``: ``model_`` (a `fusedrnn.nn.ManyToOne`), ``history_`` (the Trainer's records), ``n_iter_``
    (epochs done), ``n_features_in_`` (I; 1 for integers).

    X is a list of arrays [T_i, I], or of integers [T_i]; or one array, [n, T, I] or [n, T]. Lists may also be object
    arrays or Series of pandas. Without embedding_dim arrays [T_i] are sequences of one feature, and a table [n, I], an
    array, DataFrame or list of lists, counts as n sequences of one step. A ``fit`` that is refused or interrupted
    leaves the estimator as it was.
    """

    def __init__(
        self,
        *,
        cell: str = "gru",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: str | tuple[str, ...] = "last",
        embedding_dim: int | None = None,
        num_embeddings: int | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 5e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        self.num_embeddings = num_embeddings
        self.input_dropout = input_dropout
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    history_: list[Record]
    n_iter_: int

    # sequences

    _read_as: str  # how X of fit was read: "sequences", "series" or "table"
    _columns: tuple[Any, ...] | None  # of its DataFrames

    def _sequences(self, X: Any, *, reset: bool = False) -> list[Array]:
        """X as a list of float32 [T_i, I] or int64 [T_i], checked; with ``reset`` it says what ``fit`` was given."""
        unmasked(X, "X")
        embedded = self.embedding_dim is not None if reset else self.model_.embedding is not None
        sequences = samples.integers(X) if embedded else self._features(X, reset)
        features = 1 if embedded else sequences[0].shape[1]
        if reset:
            self.n_features_in_ = features
        elif features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        return sequences

    def _features(self, X: Any, reset: bool) -> list[Array]:
        fitted_to = None if reset else self._read_as
        rows = samples.rows_of(X)
        if reset:
            self._columns = next(filter(None, map(column_names, rows or ())), None)
        width = 1 if reset else self.n_features_in_
        found = None if rows is None else samples.features(rows, fitted_to, width, self._columns)
        if found is not None:
            if reset:
                self._read_as = found[1]
                self.__dict__.pop("feature_names_in_", None)  # of a table that came before
            return found[0]
        if fitted_to not in (None, "table") and np.ndim(X) == 2:
            raise ValueError(
                f"X: expected sequences as in fit, got one array {np.shape(X)}; give [X] if it is one sequence, "
                "X[:, None] if each row is a sequence of one step"
            )
        try:  # a table: scikit-learn's own checks and words, names of columns included
            table = validate_data(self, X, reset=reset, dtype=np.float32)
        except ValueError as error:
            if np.ndim(X) == 2 and "an array element with a sequence" not in str(error):
                raise
            raise ValueError(f"{error}\nFor sequences give a list of arrays [T_i, I], [X] for one.") from None
        if reset:
            self._read_as = "table"
        return list(table[:, None, :])

    # training

    def _network(self, sequences: list[Array], outputs: int, rng: np.random.Generator) -> ManyToOne:
        embedding = None
        if self.embedding_dim is not None:
            needed = 1 + max((int(row.max()) for row in sequences if row.size), default=0)
            count = needed if self.num_embeddings is None else self.num_embeddings
            if size("num_embeddings", count) < needed:
                raise ValueError(f"num_embeddings: expected at least {needed}, as X needs, got {count}")
            embedding = count, self.embedding_dim
        return many_to_one(
            outputs,
            features=None if embedding else sequences[0].shape[1],
            embedding=embedding,
            cell=self.cell,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            pooling=self._pooling,
            input_dropout=self.input_dropout,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            rng=rng,
        )

    @property
    def _pooling(self) -> Any:
        return self.pooling

    def _train(
        self: Self,
        sequences: list[Array],
        targets: Callable[[Array], Array],
        outputs: int,
        loss: Callable[[], Loss],
        held_out_loss: Callable[[ManyToOne, list[Array], Array], float],
    ) -> Self:
        """Train a network anew.

        Args:
            targets: Those of a batch, of the numbers of its sequences. held_out_loss: Of a network, of sequences that
                are held out, and their numbers.
        """
        for name in ("epochs", "batch_size", "patience"):
            size(name, getattr(self, name))
        rng = _generator(self.random_state)
        kept, out = held_out(self, len(sequences), rng)
        lengths = np.array([len(sequences[i]) for i in kept])
        seed = int(rng.integers(2**31))
        self.model_ = model = self._network(sequences, outputs, rng)

        def batches(epoch: int) -> LengthBatches:
            return LengthBatches(
                lengths,
                self.batch_size,
                [seed, epoch],
                lambda rows, _: (padded([sequences[i] for i in kept[rows]]), targets(kept[rows])),
            )

        def evaluate() -> float:
            return held_out_loss(model, [sequences[i] for i in out], out)

        train(self, model, loss(), batches, len(kept), evaluate if len(out) else None, seed)
        return self

    def _train_pooled(self: Self, sequences: list[Array], targets: Array, outputs: int, loss: Any) -> Self:
        """Train a network anew that gives outputs for a sequence as a whole; targets [n, ...]."""
        return self._train(
            sequences,
            lambda rows: targets[rows],
            outputs,
            loss,
            lambda model, out, rows: loss()(infer(model, out), targets[rows]),
        )

    def _checked(self, X: Any) -> list[Array]:
        """Check sequences to predict from."""
        if not hasattr(self, "model_"):
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet: call fit first")
        sequences = self._sequences(X)
        embedding = self.model_.embedding
        if embedding is not None:
            most, count = max((int(row.max()) for row in sequences if row.size), default=0), len(embedding.weight.data)
            if most >= count:
                raise ValueError(f"X: expected integers below {count}, as in fit or num_embeddings, got {most}")
        return sequences

    def _infer(self, X: Any) -> Array:
        sequences = self._checked(X)
        return infer(self.model_, sequences)


def held_out(estimator: Any, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw which of so many sequences train, and which are held out for early stopping. ValueError: none, or all."""
    order = rng.permutation(count)
    held = math.ceil(estimator.validation_fraction * count) if estimator.early_stopping else 0
    if estimator.early_stopping and not 0 < held < count:
        raise ValueError(f"validation_fraction: expected some of {count} sequences, not all, got {held}")
    return order[held:], order[:held]


def train(
    estimator: Any,
    model: Module,
    loss: Loss,
    batches: Callable[[int], LengthBatches],
    count: int,
    evaluate: Callable[[], float] | None,
    seed: int,
) -> None:
    """Train a network as the parameters of an estimator say; it gets ``history_`` and ``n_iter_``.

    Args:
        batches: Of an epoch, of so many sequences (``count``). evaluate: The loss of those held out; None for none.
    """
    trainer = Trainer(
        model,
        loss,
        AdamW(model, lr=estimator.lr, weight_decay=estimator.weight_decay),  # Adam where that is 0
        batches=batches,
        evaluate=None if evaluate is None else (lambda: {"validation_loss": evaluate()}),
        epochs=estimator.epochs,
        schedule=CosineLR(estimator.epochs * -(-count // estimator.batch_size)),
        clip_norm=estimator.clip_norm,
        patience=None if evaluate is None else estimator.patience,
        monitor=None if evaluate is None else "validation_loss",
        seed=seed,
        progress=estimator.verbose,
        world=World(),  # a search may run many at once; processes that train as one are the Trainer's
    )
    estimator.history_ = trainer.fit()
    estimator.n_iter_ = trainer.epoch
    if evaluate is not None:
        trainer.restore_best()
    model.eval()


def _documented(summary: str, end: str) -> str:
    """The docstring of an estimator: what the two share under a summary of its own."""
    shared = (inspect.getdoc(_SequenceEstimator) or "").partition("\n\n")[2]
    return f"{summary}\n\n{shared}\n\n{end}"


class SequenceClassifier(ClassifierMixin, _SequenceEstimator):  # type: ignore[misc]
    __doc__ = _documented(
        "A recurrent network that tells classes of sequences apart: softmax over its pooled outputs.",
        "Further attribute: ``classes_``, sorted labels.",
    )

    def fit(self, X: Any, y: Any) -> SequenceClassifier:
        """Train anew on sequences X and their labels y [n]. ValueError: X, y or a parameter that does not fit."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        unmasked(y, "y")
        with all_or_nothing(self):
            sequences = self._sequences(X, reset=True)
            labels = column_or_1d(y, warn=True)
            check_consistent_length(sequences, labels)
            _check_finite(labels)
            check_classification_targets(labels)
            self.classes_, targets = np.unique(labels, return_inverse=True)
            if len(self.classes_) < 2:
                raise ValueError(f"y: expected at least 2 classes, got 1 class: {self.classes_[0]}")
            return self._train_pooled(sequences, targets.astype(np.int64), len(self.classes_), CrossEntropyLoss)

    def predict_proba(self, X: Any) -> Array:
        """Probabilities [n, classes], in the order of ``classes_``."""
        logits = self._infer(X).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> Array:
        """The likeliest label of each sequence, [n]."""
        likeliest = self._infer(X).argmax(axis=1)
        labels: Array = self.classes_[likeliest]
        return labels


class SequenceRegressor(RegressorMixin, _SequenceEstimator):  # type: ignore[misc]
    __doc__ = _documented(
        "A recurrent network that gives a number, or several, for each sequence: least squares.",
        "Targets are scaled to mean 0 and variance 1 for training, and back.",
    )

    def fit(self, X: Any, y: Any) -> SequenceRegressor:
        """Train anew on sequences X and numbers y, [n] or [n, outputs]. ValueError: what does not fit."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        unmasked(y, "y")
        with all_or_nothing(self):
            sequences = self._sequences(X, reset=True)
            try:
                if (kind := np.asarray(y).dtype).kind in "cmM":
                    raise TypeError(f"{kind} is no real number")
                targets = np.asarray(y, np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"y: expected numbers [n] or [n, outputs], got others ({error})") from None
            if targets.ndim == 2 and targets.shape[1] == 1:
                targets = column_or_1d(targets, warn=True)
            if targets.ndim not in (1, 2):
                raise ValueError(f"y: expected numbers [n] or [n, outputs], got {targets.shape}")
            check_consistent_length(sequences, targets)
            _check_finite(targets)
            self._flat = targets.ndim == 1
            table = targets.reshape(len(targets), -1)
            same = table.max(axis=0) == table.min(axis=0)  # whose deviation need not be 0: means are rounded
            self._mean = np.where(same, table[0], table.mean(axis=0))
            self._spread = np.where(same, 1.0, table.std(axis=0))
            scaled = ((table - self._mean) / self._spread).astype(np.float32)
            return self._train_pooled(sequences, scaled, table.shape[1], MSELoss)

    def predict(self, X: Any) -> Array:
        """Numbers [n], or [n, outputs] as y was."""
        numbers: Array = self._infer(X) * self._spread + self._mean
        return numbers[:, 0] if self._flat else numbers


def _check_finite(y: Array) -> None:
    missing = np.isnat(y) if y.dtype.kind in "mM" else y.dtype == object and [_is_missing(value) for value in y.flat]
    if np.any(missing):  # as scikit-learn says it
        raise ValueError("Input y contains NaN.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"Input y contains {'NaN' if np.isnan(y).any() else 'infinity'}.")


def _is_missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT."""
    return (
        value is None or type(value).__name__ in {"NAType", "NaTType"} or (isinstance(value, float) and value != value)
    )


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    return np.random.default_rng(random_state)
