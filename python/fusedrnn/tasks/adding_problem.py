"""The adding problem: remember two marked numbers among 100, side by side with an LSTM and a plain RNN.

Each step carries a number from U(0, 1) and a mark; one number of either half is marked, and after 100 steps the sum of
the two is asked for (Hochreiter and Schmidhuber 1997, in the form of Le et al. 2015). Always answering 1 has a
mean squared error of 1/6. The LSTM's cell carries the gradient over the 50 to 100 steps in between; in the plain
RNN it fades. Both nets have 64 units and see the same batches of 50: Adam 0.002, every net's own gradient.

Metrics, on 2,000 held-out sequences: ``lstm_mse`` and ``rnn_mse``.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import LSTM, RNN, MSELoss
from fusedrnn.optim import Adam
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import LastState, SideBySide
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import Batches

STEPS, UNITS, BATCH, ITERATIONS, HELD_OUT = 100, 64, 50, 100, 2_000


def sequences(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """x [T = 100, N, 2] (number, mark) and the sum of the two marked numbers [N, 1], float32."""
    numbers = rng.random((STEPS, rows), dtype=np.float32)
    marks = np.zeros_like(numbers)
    row = np.arange(rows)
    for half in (0, STEPS // 2):
        marks[half + rng.integers(0, STEPS // 2, rows), row] = 1
    return np.stack([numbers, marks], axis=2), (numbers * marks).sum(0)[:, None]


def setup(options: Options) -> Run:
    """One run: held-out sequences, models and optimizer from the seed."""
    rng = np.random.default_rng(options.seed)
    test_x, test_target = sequences(rng, HELD_OUT)
    model = SideBySide(
        LastState(LSTM(2, UNITS, forget_bias=1.0, rng=rng), 1, rng=rng), LastState(RNN(2, UNITS, rng=rng), 1, rng=rng)
    )

    def batches(epoch: int) -> Batches:
        def make(i: int) -> tuple[Array, Array]:
            x, target = sequences(np.random.default_rng([options.seed, epoch, i]), BATCH)
            return x, np.stack([target, target])

        return Batches(ITERATIONS, make)

    def evaluate() -> Metrics:
        errors = np.square(model(test_x) - test_target).mean(axis=(1, 2))
        return {"lstm_mse": float(errors[0]), "rnn_mse": float(errors[1])}

    guess = float(np.mean((test_target - 1) ** 2))
    names = {"lstm_mse": "LSTM", "rnn_mse": "plain RNN"}
    return Run(
        model=model,
        loss=MSELoss(),
        optimizer=Adam(model, lr=2e-3),
        batches=batches,
        row_axes=(1, 1),
        clip_value=0.1,
        evaluate=evaluate,
        evaluate_every=2,
        figures=evaluate,
        baseline={"lstm_mse": guess, "rnn_mse": guess},
        draw=lambda path, history: pictures.draw_curves(path, history, names, guess, f"adding problem, {STEPS} steps"),
        headline=lambda m: f"mean squared error {m['lstm_mse']:.4f} with an LSTM, {m['rnn_mse']:.4f} with a plain RNN",
    )


ADDING_PROBLEM = Task(
    name="adding-problem",
    about="remember two numbers over 100 steps: LSTM and plain RNN side by side",
    presets={
        "smoke": Preset("300 updates: runs, learns nothing yet", epochs=3),
        "default": Preset("5,000 updates", epochs=50),
        "best": Preset("10,000 updates", epochs=100),
    },
    setup=setup,
)
