"""The Lorenz system (1963) one step ahead, and then left to run on its own forecasts.

x' = 10 (y - x), y' = x (28 - z) - y, z' = x y - 8/3 z. As in V. Moosavi's lecture on dynamical systems (ETH Zurich,
2017): 2,000 trajectories from U(-15, 15) in each coordinate over 20 units of time, a point every 0.06. Ours: integrated
by Runge and Kutta's fourth-order method at 0.01; 2 layers of LSTM units that add to the point before, on standardised
coordinates; windows of 50 steps, batches of 100, Adam 0.003 falling along a cosine, the gradient's norm clipped at 1.

Metrics, on 200 trajectories kept out of training: ``sse``, the squared error one step ahead, summed over coordinates
in the system's own units, the mean over windows of 50 steps from their first step on (where nothing but one point is
known); ``valid_time``, how long a free run stays near the truth, the median in Lyapunov times of 1 / 0.9056 (the
largest exponent: Viswanath 1998), until the error exceeds 0.4 of the attractor's root mean square distance from its
mean; ``spread_error``, by which fraction the standard deviation of a free run of 1,000 steps misses that of the truth
from the same points on, in the worst coordinate. Beside it ``persistence_sse``, ``var_sse`` (linear, 20 lags),
``quadratic_sse`` and ``quadratic_valid_time`` (products of 5 lags, for the system is quadratic), regressions on 100
trajectories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.estimators.forecasting import Scaling, lagged
from fusedrnn.nn import LSTM, Linear, Module, MSELoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import shuffled

SIGMA, BETA, RHO = 10.0, 8 / 3, 28.0
STEP, SUBSTEPS, POINTS = 0.06, 6, 334
TRAINING, HELD_OUT = 1_800, 200
WINDOW, BATCH = 50, 100
EXPONENT, THRESHOLD = 0.9056, 0.4
FREE_STEPS, SETTLED, DRAWN = 1_000, 100, 400


def flow(state: Array) -> Array:
    """Time derivative [..., 3] of states [..., 3]."""
    x, y, z = state[..., 0], state[..., 1], state[..., 2]
    return np.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z], axis=-1)


def trajectories(start: Array, points: int, substeps: int = SUBSTEPS) -> Array:
    """[points, N, 3] float64 from ``start`` [N, 3] on, 0.06 apart, by Runge and Kutta's method in so many substeps."""
    h = STEP / substeps
    out = np.empty((points, *start.shape))
    state = out[0] = start
    for i in range(1, points):
        for _ in range(substeps):
            k1 = flow(state)
            k2 = flow(state + h / 2 * k1)
            k3 = flow(state + h / 2 * k2)
            k4 = flow(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        out[i] = state
    return out


def valid_time(forecast: Array, truth: Array, spread: float) -> Array:
    """[N]: Lyapunov times for which forecasts [T, N, 3] err by at most 0.4 of ``spread``; both begin a step after the
    last point that was known."""
    wrong = np.linalg.norm(forecast - truth, axis=2) > THRESHOLD * spread
    steps = np.where(wrong.any(0), wrong.argmax(0), len(wrong))
    times: Array = steps * STEP * EXPONENT
    return times


class LagRegression:
    """Least squares of the change to the next point on the last points, and with ``quadratic`` on their products."""

    def __init__(self, x: Array, lags: int, quadratic: bool = False) -> None:
        self.lags, self.quadratic = lags, quadratic
        self.scaling = Scaling.fit(x.reshape(-1, 3))
        z = self.scaling.transform(x)
        past = np.concatenate([self.inputs(z[:, n]) for n in range(x.shape[1])])
        change = np.concatenate([np.diff(z[lags - 1 :, n], axis=0) for n in range(x.shape[1])])
        self.weights = np.linalg.lstsq(past, change, rcond=1e-13)[0]

    def inputs(self, z: Array) -> Array:
        """[T - lags, inputs] of standardised z [T, 3]: the points before each one that is to be forecast."""
        return self.expand(lagged(z, np.arange(self.lags - 1, len(z) - 1), self.lags))

    def expand(self, past: Array) -> Array:
        """[n, inputs] of the last points [n, 3 * lags], the latest first."""
        parts = [np.ones((len(past), 1)), past]
        if self.quadratic:
            i, j = np.triu_indices(past.shape[1])
            parts.append(past[:, i] * past[:, j])
        return np.concatenate(parts, axis=1)

    def __call__(self, x: Array, steps: int = 1) -> Array:
        """[steps, N, 3]: the points after x [T, N, 3], each from the last ``lags``, forecasts among them."""
        z = self.scaling.transform(x[-self.lags :])
        for _ in range(steps):
            past = z[: -self.lags - 1 : -1].transpose(1, 0, 2).reshape(z.shape[1], -1)
            step = z[-1:] + self.expand(past) @ self.weights
            z = np.concatenate([z, step.clip(-1e3, 1e3)])  # one that has left the attractor may go anywhere
        return self.scaling.inverse_transform(z[-steps:])

    def sse(self, x: Array) -> float:
        """Summed squared error one step ahead, the mean over x [T, N, 3] after the first lags."""
        z = self.scaling.transform(x)
        errors = [
            (np.diff(z[self.lags - 1 :, n], axis=0) - self.inputs(z[:, n]) @ self.weights) * self.scaling.deviation
            for n in range(x.shape[1])
        ]
        return float(np.mean(np.square(errors).sum(-1)))


class NextPoint(Module):
    """x [T, N, 3] -> the next points: each point and what an LSTM adds to it."""

    def __init__(self, units: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.rnn = LSTM(3, units, 2, forget_bias=1.0, rng=rng)
        self.head = Linear(units, 3, rng=rng)
        self.state: Any = None

    def forward(self, x: Array, state: Any = None) -> Array:
        """[T, N, 3]; ``self.state`` is then that of the last step, to go on from."""
        y, self.state = self.rnn(x, state)
        out: Array = x + self.head(y)
        return out

    def backward(self, dout: Array) -> None:
        """Adds to the gradients; x is data and gets none."""
        self.rnn.backward(self.head.backward(dout), input_grad=False)

    def free_run(self, x: Array, steps: int) -> Array:
        """[steps, N, 3]: the points after x [T, N, 3], each from the forecasts before it."""
        points = [self(x)[-1:]]
        while len(points) < steps:
            points.append(self(points[-1], self.state))
        return np.concatenate(points)


def setup(options: Options) -> Run:
    """One run: trajectories and baselines, model and optimizer from the seed."""
    rng = np.random.default_rng(options.seed)
    truth = trajectories(rng.uniform(-15, 15, (TRAINING + HELD_OUT, 3)), POINTS)
    training, test = truth[:, :TRAINING], truth[:, TRAINING:]
    scaling = Scaling.fit(training.reshape(-1, 3))
    model = NextPoint(options.settings["units"], rng)

    def windows_of(x: Array) -> Array:
        begins = range(0, POINTS - WINDOW, WINDOW)
        return scaling.transform(np.concatenate([x[i : i + WINDOW + 1] for i in begins], axis=1)).astype(np.float32)

    learnt, windows = windows_of(training), windows_of(test)
    batches = shuffled(learnt.shape[1], BATCH, options.seed, lambda rows, _: (learnt[:-1, rows], learnt[1:, rows]))
    settled = test[SETTLED:]  # on the attractor by then
    known, to_come = settled[:WINDOW], settled[WINDOW:]
    spread = float(np.sqrt(np.square(settled - settled.mean((0, 1))).sum(2).mean()))

    def evaluate() -> Metrics:
        errors = (model(windows[:-1]) - windows[1:]) * scaling.deviation
        return {"sse": float(np.square(errors).sum(2).mean())}

    def free(steps: int) -> Array:
        return scaling.inverse_transform(model.free_run(scaling.transform(known).astype(np.float32), steps))

    var = LagRegression(training[:, :100], 20)
    quadratic = LagRegression(training[:, :100], 5, quadratic=True)
    beside = {
        "persistence_sse": float(np.square(np.diff(test, axis=0)).sum(2).mean()),
        "var_sse": var.sse(test),
        "quadratic_sse": quadratic.sse(test),
        "quadratic_valid_time": float(np.median(valid_time(quadratic(known, len(to_come)), to_come, spread))),
    }

    def figures() -> Metrics:
        run = free(FREE_STEPS)
        deviation = trajectories(known[-1], FREE_STEPS + 1)[1:].std((0, 1))  # from the same points on
        return {
            **evaluate(),
            "valid_time": float(np.median(valid_time(run[: len(to_come)], to_come, spread))),
            "spread_error": float(np.abs(run.std((0, 1)) / deviation - 1).max()),
            **beside,
        }

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        run = free(len(to_come))
        times = valid_time(run, to_come, spread)
        middle = int(np.argsort(times)[len(times) // 2])
        long = trajectories(known[-1, :1], DRAWN + 1)[1:, 0], free(DRAWN)[:, 0]
        title = f"free runs after {WINDOW} known points; of {HELD_OUT} the one of median valid time"
        axis = np.arange(1, len(run) + 1) * STEP * EXPONENT
        pictures.draw_attractor(path, *long, axis, to_come[:, middle], run[:, middle], float(times[middle]), title)

    return Run(
        model=model,
        loss=MSELoss(),
        optimizer=Adam(model, lr=3e-3),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=1.0,
        evaluate=evaluate,
        evaluate_every=10,
        figures=figures,
        baseline={"sse": beside["var_sse"]},
        draw=draw,
        headline=lambda m: (
            f"squared error one step ahead {m['sse']:.3f} (persistence {m['persistence_sse']:.1f}, linear VAR(20) "
            f"{m['var_sse']:.2f}, quadratic VAR(5) {m['quadratic_sse']:.4f}); "
            f"free run valid for {m['valid_time']:.2f} Lyapunov times (quadratic {m['quadratic_valid_time']:.2f}), "
            f"spread within {100 * m['spread_error']:.1f} %"
        ),
    )


LORENZ = Task(
    name="lorenz",
    about="forecast a chaotic system, one step and in free run (2-layer LSTM)",
    presets={
        "smoke": Preset("1,620 updates of 24 units, half a minute", epochs=15, settings={"units": 24}),
        "default": Preset("6,480 updates of 32 units, a few minutes", epochs=60, settings={"units": 32}),
        "best": Preset("21,600 updates of 64 units", epochs=200, settings={"units": 64}),
    },
    setup=setup,
)
