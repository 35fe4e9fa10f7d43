"""The tasks of memory networks share these: bits go in, bits are answered, and only the steps of the answer count.

A target ``[T, N, O + 1]`` holds the bits to answer and, in its last channel, the weight of every step: 1 / N where an
answer is expected, so that the weighted sum of a batch is the mean over its sequences, else 0. All rows of a batch have
one length, which the batch's own generator draws. Losses are in bits (logarithms to base 2) summed over a sequence, the
unit of Graves, Wayne and Danihelka (2014, "Neural Turing Machines"): who knows nothing pays one for each bit asked.

Memory networks fall back now and then after they have learnt a task. A task therefore keeps the epoch with the least
training loss (``Run.monitor``), a mean over all its sequences; its figures are of that epoch, on held-out episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, Module, Scan
from fusedrnn.optim import Adam, GravesRMSprop, Optimizer, clip_grad_norm_
from fusedrnn.tasks.models import EveryStep, SideBySide
from fusedrnn.train.batches import Batches

Draw: TypeAlias = Callable[[np.random.Generator, int], "tuple[Array, Array]"]  # (generator, rows) -> x, target
HELD_OUT = 2**31  # in the place of an epoch: no run has so many


# data


def weighted(bits: Array, answered: Array) -> Array:
    """Return the target [T, N, O + 1] float32 of bits [T, N, O] that count on the steps ``answered``, booleans [T]."""
    steps, rows, _ = bits.shape
    target = np.zeros((steps, rows, bits.shape[2] + 1), np.float32)
    target[:, :, :-1] = bits
    target[:, :, -1] = np.asarray(answered, np.float32)[:, None] / rows
    return target


def episodes(draw: Draw, count: int, rows: int, seed: int) -> Callable[[int], Batches]:
    """Make the epochs: ``count`` batches of ``rows`` episodes, each from seed, epoch and its number alone.

    ``draw(generator, rows)`` returns x [T, rows, I] and target [T, rows, O + 1]; T is its own choice in every batch.
    """

    def batches(epoch: int) -> Batches:
        return Batches(count, lambda i: draw(np.random.default_rng([seed, epoch, i]), rows), [count, rows, seed])

    return batches


def held_out(seed: int, number: int) -> np.random.Generator:
    """Return the generator of a set of episodes, one for each number, that no batch of this seed has."""
    return np.random.default_rng([seed, HELD_OUT, number])


# networks


class Memory(Module):
    """A memory network, or any recurrence whose y are logits: ``x [T, N, I]`` -> ``[T, N, O]``."""

    def __init__(self, layer: Scan) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Array) -> Array:
        """Return logits [T, N, O] of x [T, N, I], from the layer's initial state."""
        logits: Array = self.layer(x)[0]
        return logits

    def backward(self, dlogits: Array) -> None:
        """Add to the gradients; x is data and gets none."""
        self.layer.backward(dlogits, input_grad=False)


def lstm(inputs: int, outputs: int, units: int, layers: int, rng: np.random.Generator | None = None) -> EveryStep:
    """Make the baseline, a stack of LSTM layers with forget biases of 1 and a linear layer on every step."""
    return EveryStep(LSTM(inputs, units, layers, forget_bias=1.0, rng=rng), outputs, rng=rng)


class _OwnNorms(Optimizer):
    """An optimizer of rivals that clips the gradient of each by its own norm before a step."""

    def __init__(self, model: SideBySide, lr: float, clip_norm: float = 10.0) -> None:
        super().__init__(model, lr)
        self.members, self.clip_norm = model.members, clip_norm

    def step(self) -> None:
        """Clip every member's gradient, then update all."""
        for member in self.members:
            clip_grad_norm_(member, self.clip_norm)
        super().step()


class RivalsRMSprop(_OwnNorms, GravesRMSprop):
    """The RMSprop of Graves (2013) over `SideBySide`, each gradient clipped by its own norm."""


class RivalsAdam(_OwnNorms, Adam):
    """Adam over `SideBySide`, each gradient clipped by its own norm."""


# losses and counts: logits [..., T, N, O] may have an axis of rivals in front; target [T, N, O + 1]


class BitsLoss:
    """Cross-entropy in bits (base 2) from logits, summed over the answer of a sequence, the mean over sequences.

    Of rivals each gets its gradient; the value is that of the first. It is a sum over rows: the target has the weights.
    """

    reduction = "sum"

    def __init__(self) -> None:
        self._gradient: Array | None = None

    def __call__(self, logits: Array, target: Array) -> float:
        """Return the loss of logits [..., T, N, O] for a target [T, N, O + 1]. Raises ValueError for other shapes."""
        bits, weight = _parts(logits, target)
        probability = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))  # of a 1; beyond 80 float32 has nothing but 0 and 1
        self._gradient = ((probability - bits) * (weight / np.log(2))).astype(logits.dtype, copy=False)
        return float(np.ravel(bits_per_sequence(logits, target))[0])

    def backward(self) -> Array:
        """Return the gradient of the last call's logits, once. Raises RuntimeError where no call is left."""
        if self._gradient is None:
            raise RuntimeError("BitsLoss.backward: expected a call of the loss first")
        gradient, self._gradient = self._gradient, None
        return gradient


def bits_per_sequence(logits: Array, target: Array) -> Array:
    """Return the cross-entropy of the answers in bits, summed over a sequence, mean over sequences: [...] float64."""
    bits, weight = _parts(logits, target)
    total: Array = (weight * (np.logaddexp(0, logits) - bits * logits)).sum((-3, -2, -1), dtype=np.float64)
    return np.asarray(total / np.log(2))


def wrong_bits(logits: Array, target: Array) -> Array:
    """Return the fraction of the bits of the answers that are wrong, the likelier value being taken: [...] float64."""
    bits, weight = _parts(logits, target)
    wrong = ((logits > 0) != (bits > 0.5)) & (weight > 0)
    counted = np.count_nonzero(weight) * bits.shape[-1]
    share: Array = wrong.sum((-3, -2, -1)) / counted
    return share


def exact(logits: Array, target: Array) -> Array:
    """Return the fraction of sequences whose answer has no wrong bit: [...] float64."""
    bits, weight = _parts(logits, target)
    wrong = ((logits > 0) != (bits > 0.5)) & (weight > 0)
    right: Array = np.mean(~wrong.any((-3, -1)), axis=-1)
    return right


def _parts(logits: Array, target: Array) -> tuple[Array, Array]:
    """Bits [T, N, O] and weights [T, N, 1] of a target."""
    expected = (*logits.shape[-3:-1], logits.shape[-1] + 1)
    if logits.ndim < 3 or target.shape != expected:
        raise ValueError(f"target: expected shape {expected} for logits {logits.shape}, got {target.shape}")
    return target[:, :, :-1], target[:, :, -1:]
