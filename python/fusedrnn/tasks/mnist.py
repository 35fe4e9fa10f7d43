"""Handwritten digits read row by row: many to one, 28 steps of 28 pixels, 10 classes.

The recipe is that of V. Moosavi's lecture "Introduction to Recurrent Neural Nets" (ETH Zurich, 2017), after A. Damien's
TensorFlow-Examples: 2 layers of 128 LSTM units with forget bias 1 and TensorFlow's initial values, softmax
cross-entropy on the last step, Adam 0.001, batches of 128. Published there: 98.4 % of 128 test images after 100,000
samples, which at that size means 94.5 to 99.6 %; ``--preset lecture`` is that budget. Ours: the learning rate starts
at 0.003 and falls along a cosine, the gradient's norm is clipped at 1. By default 6 epochs over all of the training
images; ``best`` adds shifts by up to 2 pixels.

Metrics: ``accuracy``, the fraction of the test images (10,000 of MNIST) classified rightly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sources
from fusedrnn.nn import LSTM, CrossEntropyLoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import LastState, initialise_as_lecture
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import in_chunks, shuffled

UNITS, BATCH, CLASSES = 128, 128, 10
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def rows_of(images: Array) -> Array:
    """[rows, N, columns] float32 from 0 to 1, the rows of an image as time, of uint8 [N, rows, columns]."""
    rows: Array = np.ascontiguousarray(images.transpose(1, 0, 2)).astype(np.float32)
    rows /= 255
    return rows


def shifted(images: Array, rng: np.random.Generator, most: int) -> Array:
    """Every image moved by up to ``most`` pixels either way, black coming in at the edge."""
    n, rows, columns = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    down, right = rng.integers(0, 2 * most + 1, (2, n))
    row = down[:, None] + np.arange(rows)
    column = right[:, None] + np.arange(columns)
    moved: Array = padded[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]
    return moved


def setup(options: Options) -> Run:
    """One run: images as ``--data`` says, model and optimizer from the seed."""
    images = sources.load_images(options.data, options.say)
    shift = options.settings.get("shift", 0)
    rng = np.random.default_rng(options.seed)
    columns = images.train_images.shape[2]
    model = LastState(LSTM(columns, UNITS, 2), CLASSES)
    initialise_as_lecture(model, rng)
    test_x, test_labels = rows_of(images.test_images), images.test_labels.astype(np.int64)

    def make(indices: Array, batch_rng: np.random.Generator) -> tuple[Array, Array]:
        chosen = images.train_images[indices]
        if shift:
            chosen = shifted(chosen, batch_rng, shift)
        return rows_of(chosen), images.train_labels[indices].astype(np.int64)

    batches = shuffled(len(images.train_images), BATCH, options.seed, make)

    def predicted() -> Array:
        return in_chunks(lambda part: model(part).argmax(1), test_x)

    def evaluate() -> Metrics:
        return {"accuracy": float(np.mean(predicted() == test_labels))}

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        guesses = predicted()
        wrong, good = np.flatnonzero(guesses != test_labels), np.flatnonzero(guesses == test_labels)
        shown = np.concatenate([good[:36], wrong[:36]])
        names = FASHION_NAMES if "Fashion" in images.source else tuple(map(str, range(CLASSES)))
        title = f"{images.source}: {len(wrong):,} of {len(test_labels):,} test images wrong, the first of either kind"
        pictures.draw_images(path, images.test_images[shown], test_labels[shown], guesses[shown], names, title)

    return Run(
        model=model,
        loss=CrossEntropyLoss(),
        optimizer=Adam(model, lr=3e-3),
        batches=batches,
        row_axes=(1, 0),
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=1.0,
        evaluate=evaluate,
        figures=evaluate,
        baseline={"accuracy": float(np.bincount(test_labels).max() / len(test_labels))},
        draw=draw,
        headline=lambda m: f"{100 * m['accuracy']:.2f} % of {len(test_labels):,} test images right ({images.source})",
    )


MNIST = Task(
    name="mnist",
    about="classify digits read row by row (2-layer LSTM, many to one)",
    presets={
        "smoke": Preset("250 updates, half a minute", epochs=1, steps=250),
        "lecture": Preset("the lecture's 781 updates (100,000 samples)", epochs=2, steps=781),
        "default": Preset("6 epochs", epochs=6),
        "best": Preset("20 epochs with shifted images", epochs=20, settings={"shift": 2}),
    },
    setup=setup,
    data='a folder of idx files (gzipped or not), or "full", "small" (5,000 digits), "fashion"; else fetched',
)
