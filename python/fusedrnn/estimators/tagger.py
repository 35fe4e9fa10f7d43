"""An estimator that labels every step of a sequence: tagging, many to many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators.given import unmasked
from fusedrnn.estimators.many_to_one import _check_finite, _documented, _SequenceEstimator
from fusedrnn.estimators.sklearn_bases import check_consistent_length
from fusedrnn.estimators.sklearn_fallback import all_or_nothing
from fusedrnn.nn import CrossEntropyLoss, ManyToOne
from fusedrnn.train.bucketing import infer_steps, padded

_PADDING = -1


class SequenceTagger(_SequenceEstimator):
    __doc__ = _documented(
        "A recurrent network that gives every step of a sequence a label, such as a word its part of speech.",
        "It has no pooling: ``model_`` is a `fusedrnn.nn.ManyToMany`. Further attribute: ``classes_``, sorted labels.",
    )

    def __init__(
        self,
        *,
        cell: str = "gru",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
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
        super().__init__(
            cell=cell, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional,
            embedding_dim=embedding_dim, num_embeddings=num_embeddings, input_dropout=input_dropout, dropout=dropout,
            recurrent_dropout=recurrent_dropout, epochs=epochs, batch_size=batch_size, lr=lr,
            weight_decay=weight_decay, clip_norm=clip_norm, early_stopping=early_stopping,
            validation_fraction=validation_fraction, patience=patience, random_state=random_state, verbose=verbose,
        )  # fmt: skip

    @property
    def _pooling(self) -> None:
        return None

    def fit(self, X: Any, y: Any) -> SequenceTagger:
        """Train anew on sequences X and a sequence of labels for each, [T_i]. ValueError: what does not fit."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        with all_or_nothing(self):
            sequences = self._sequences(X, reset=True)
            labels = _labels(y, sequences)
            every = np.concatenate(labels)
            _check_finite(every)
            self.classes_, numbers = np.unique(every, return_inverse=True)
            if len(self.classes_) < 2:
                raise ValueError(f"y: expected at least 2 classes, got {len(self.classes_)}")
            cuts = np.cumsum([len(row) for row in labels])[:-1]
            targets = np.split(numbers.astype(np.int64), cuts)
            loss = partial(CrossEntropyLoss, ignore_index=_PADDING)

            def held_out_loss(model: ManyToOne, out: list[Array], rows: Array) -> float:
                logits = np.concatenate(infer_steps(model, out))
                return loss()(logits, np.concatenate([targets[i] for i in rows]))

            return self._train(
                sequences, lambda rows: padded([targets[i] for i in rows]), len(self.classes_), loss, held_out_loss
            )

    def predict_proba(self, X: Any) -> list[Array]:
        """Return probabilities [T_i, classes] of each sequence's steps, in the order of ``classes_``."""
        found = []
        sequences = self._checked(X)
        for logits in infer_steps(self.model_, sequences):
            odds = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
            found.append(odds / odds.sum(axis=1, keepdims=True))
        return found

    def predict(self, X: Any) -> list[Array]:
        """Return the likeliest label of each step, [T_i] of each sequence."""
        sequences = self._checked(X)
        return [self.classes_[logits.argmax(axis=1)] for logits in infer_steps(self.model_, sequences)]

    def score(self, X: Any, y: Any) -> float:
        """Return the fraction of all steps labelled rightly."""
        predicted = self.predict(X)
        right = np.concatenate([a == b for a, b in zip(predicted, _labels(y, predicted), strict=True)])
        return float(right.mean())


def _labels(y: Any, sequences: Sequence[Array]) -> list[Array]:
    """Read a sequence of labels for each sequence. ValueError where they are not as many as steps."""
    rows = list(y)
    check_consistent_length(sequences, rows)
    found = []
    for i, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
        unmasked(row, f"y[{i}]")
        if isinstance(row, (str, bytes)):
            raise ValueError(f"y[{i}]: expected {len(sequence)} labels, one for each step, got {row!r:.40}")
        labels = np.asarray(row)
        if labels.shape != (len(sequence),):
            raise ValueError(f"y[{i}]: expected {len(sequence)} labels, one for each step, got shape {labels.shape}")
        if len(labels):
            found.append(labels)
        else:
            found.append(np.empty(0, np.asarray(next((r for r in rows if len(r)), [0])).dtype))
    return found
