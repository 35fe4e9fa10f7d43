"""Adding two binary numbers bit by bit: many to many, two bits in, one bit of the sum out, lowest first.

The recipe is that of V. Moosavi's lecture "Introduction to Recurrent Neural Nets" (ETH Zurich, 2017), after the gist
nivwusquorum/b18ce332bde37e156034e5d3f60f8a23: 2 layers of 20 LSTM units, sigmoid cross-entropy on each step, Adam
0.01, batches of 16, 100 iterations an epoch, sums of 10 bits. Published there: 100 % bit accuracy at epoch 10. Ours:
the learning rate falls along a cosine and the gradient's norm is clipped at 1, so that no late spike undoes what
was learned; the bits to train on carry Gaussian noise of 0.1, so that a carry must be held with a margin, which is
what sums far longer than those of training need; the pairs to test on never occur in training.

Metrics: ``accuracy``, the fraction of right bits over 1,000 pairs of 9-bit numbers kept out of training;
``exact_64`` and ``exact_256``, the fraction of 1,000 sums of 64 and 256 bits without a wrong bit, though trained on
10. A network that cannot carry has an accuracy of 0.6 and no exact sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, BCEWithLogitsLoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import EveryStep
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import Batches

BITS, UNITS, BATCH, ITERATIONS, HELD_OUT = 10, 20, 16, 100, 1_000
LONG_SUMS = 1_000  # of each of LENGTHS
NOISE = np.float32(0.1)  # standard deviation
LENGTHS = (10, 16, 32, 64, 128, 256)


def add(a: Array, b: Array) -> Array:
    """Bits [T, N] of the sums of numbers given as bits [T, N], lowest first, the last carry dropped."""
    total = np.empty_like(a)
    carry = np.zeros_like(a[0])
    for t in range(len(a)):
        column = a[t] + b[t] + carry
        total[t], carry = column % 2, column // 2
    return total


def pairs_of_bits(a: Array, b: Array) -> tuple[Array, Array]:
    """x [T, N, 2] and target [T, N, 1], float32, of bits [T, N]."""
    x = np.stack([a, b], axis=2).astype(np.float32)
    return x, add(a, b)[:, :, None].astype(np.float32)


def bits_of(numbers: Array, bits: int) -> Array:
    """[bits, N] integers 0 and 1, lowest first, of integers [N]."""
    return (numbers[None, :] >> np.arange(bits)[:, None]) & 1


def random_sums(rng: np.random.Generator, bits: int, rows: int) -> tuple[Array, Array]:
    """Random sums of so many bits, the numbers one bit shorter so that no carry is lost."""
    a, b = rng.integers(0, 2, (2, bits, rows))
    a[-1] = b[-1] = 0
    return pairs_of_bits(a, b)


def setup(options: Options) -> Run:
    """One run: the pairs held out, model and optimizer from the seed."""
    rng = np.random.default_rng(options.seed)
    numbers = 2 ** (BITS - 1)
    held_out = rng.choice(numbers**2, HELD_OUT, replace=False)
    test_x, test_target = pairs_of_bits(bits_of(held_out // numbers, BITS), bits_of(held_out % numbers, BITS))
    for_training = np.delete(np.arange(numbers**2), held_out)
    model = EveryStep(LSTM(2, UNITS, 2, forget_bias=1.0, rng=rng), 1, rng=rng)

    def batches(epoch: int) -> Batches:
        def make(i: int) -> tuple[Array, Array]:
            batch_rng = np.random.default_rng([options.seed, epoch, i])
            pairs = batch_rng.choice(for_training, BATCH)
            x, target = pairs_of_bits(bits_of(pairs // numbers, BITS), bits_of(pairs % numbers, BITS))
            return x + NOISE * batch_rng.standard_normal(x.shape, np.float32), target

        return Batches(ITERATIONS, make)

    def right(x: Array, target: Array) -> Array:
        """Which bits are right, [T, N]."""
        return np.asarray((model(x) > 0) == (target > 0.5))[:, :, 0]

    def evaluate() -> Metrics:
        return {"accuracy": float(np.mean(right(test_x, test_target)))}

    def exact(bits: int) -> float:
        sums = random_sums(np.random.default_rng([options.seed, bits]), bits, LONG_SUMS)
        return float(np.mean(right(*sums).all(axis=0)))

    def figures() -> Metrics:
        return {**evaluate(), "exact_64": exact(64), "exact_256": exact(256)}

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        shown = slice(0, 14)
        bits = (model(np.ascontiguousarray(test_x[:, shown])) > 0)[:, :, 0].T
        truth = test_target[:, shown, 0].T.astype(bool)
        lengths = [exact(length) for length in LENGTHS]
        pictures.draw_sums(path, bits, truth, LENGTHS, lengths, without_carry, "sums of unseen pairs, wrong bits red")

    without_carry = float(np.mean((test_x.sum(2) % 2) == test_target[:, :, 0]))
    return Run(
        model=model,
        loss=BCEWithLogitsLoss(),
        optimizer=Adam(model, lr=1e-2),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(ITERATIONS)),
        clip_norm=1.0,
        evaluate=evaluate,
        figures=figures,
        baseline={"accuracy": without_carry},
        draw=draw,
        headline=lambda m: (
            f"{100 * m['accuracy']:.3f} % of the bits of {HELD_OUT:,} unseen sums right; exact sums: "
            f"{100 * m['exact_64']:.1f} % at 64 bits, {100 * m['exact_256']:.1f} % at 256"
        ),
    )


ADDITION = Task(
    name="addition",
    about="add two binary numbers bit by bit (2-layer LSTM, many to many)",
    presets={
        "smoke": Preset("5 epochs, a second", epochs=5),
        "default": Preset("20 epochs of 100 batches", epochs=20),
        "best": Preset("60 epochs", epochs=60),
    },
    setup=setup,
)
