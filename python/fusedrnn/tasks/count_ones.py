"""Counting the ones of a 16-bit number: many to one, a number's bits in, its count out of 17 classes.

The recipe is that of V. Moosavi's lecture "Introduction to Recurrent Neural Nets" (ETH Zurich, 2017), after monik.in,
"A noob's guide to implementing RNN-LSTM using Tensorflow" (2016): 2 layers of 24 LSTM units with forget bias 1 and
TensorFlow's initial values, softmax cross-entropy on the last step, Adam 0.001, batches of 200, 10,000 numbers to
train on, the other 55,536 to test on. Published there: 0.1 % test error at epoch 200.

Metrics: ``test_error``, the fraction of the 55,536 numbers miscounted; always answering 8 would give 0.804.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, CrossEntropyLoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import LastState, initialise_as_lecture
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import in_chunks, shuffled

BITS, TRAINING, BATCH, UNITS = 16, 10_000, 200, 24


def bits_of(numbers: Array) -> Array:
    """[T = 16, N, 1] float32, highest bit first, of integers [N]."""
    shifts = np.arange(BITS - 1, -1, -1)[:, None]
    return ((numbers[None, :] >> shifts) & 1).astype(np.float32)[:, :, None]


def setup(options: Options) -> Run:
    """One run: split, model and optimizer from the seed."""
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(2**BITS)
    x, counts = bits_of(order), bits_of(order).sum((0, 2)).astype(np.int64)
    model = LastState(LSTM(1, UNITS, 2), BITS + 1)
    initialise_as_lecture(model, rng)
    batches = shuffled(TRAINING, BATCH, options.seed, lambda rows, _: (x[:, rows], counts[rows]))

    def predicted() -> Array:
        return in_chunks(lambda part: model(part).argmax(1), x[:, TRAINING:])

    def evaluate() -> Metrics:
        return {"test_error": float(np.mean(predicted() != counts[TRAINING:]))}

    common = float(np.bincount(counts[:TRAINING]).argmax())
    title = f"{2**BITS - TRAINING:,} unseen numbers"
    return Run(
        model=model,
        loss=CrossEntropyLoss(),
        optimizer=Adam(model, lr=1e-3),
        batches=batches,
        row_axes=(1, 0),
        schedule=CosineLR(options.total_steps(len(batches(0)))) if options.settings.get("cosine") else None,
        evaluate=evaluate,
        evaluate_every=5,
        figures=evaluate,
        baseline={"test_error": float(np.mean(counts[TRAINING:] != common))},
        draw=lambda path, _: pictures.draw_confusion(path, counts[TRAINING:], predicted(), BITS + 1, title, "count"),
        headline=lambda m: f"test error {100 * m['test_error']:.3f} % of {2**BITS - TRAINING:,} unseen numbers",
    )


COUNT_ONES = Task(
    name="count-ones",
    about="count the ones of a 16-bit number (2-layer LSTM, many to one)",
    presets={
        "smoke": Preset("20 epochs, a few seconds", epochs=20),
        "default": Preset("the published 200 epochs", epochs=200),
        "best": Preset("400 epochs, the learning rate falling along a cosine", epochs=400, settings={"cosine": True}),
    },
    setup=setup,
)
