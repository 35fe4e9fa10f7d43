"""Training of `fusedrnn.forecasting.BandForecast`, whose bands then hold what they say on points it has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusedrnn.batches import Batches
from fusedrnn.distributed import World
from fusedrnn.forecasting import BandForecast
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.train import Record, Trainer


class Recipe(NamedTuple):
    """So many updates of Adam with batches of so many windows, the rate falling along a cosine."""

    steps: int
    batch_size: int
    lr: float
    seed: int


def train(model: BandForecast, recipe: Recipe, *, progress: bool = False) -> list[Record]:
    """Train the network; the Trainer's records."""
    steps, batch_size, lr, seed = recipe
    trainer = Trainer(
        model.network,
        model.loss,
        Adam(model.network, lr=lr),
        batches=lambda epoch: Batches(steps, lambda i: model.batch(np.random.default_rng([seed, i]), batch_size)),
        epochs=1,
        schedule=CosineLR(steps),
        clip_norm=1.0,
        seed=seed,
        progress=progress,
        world=World(),
    )
    history = trainer.fit()
    model.network.eval()
    return history


def calibrate(model: BandForecast, recipe: Recipe) -> None:
    """Set how wide the bands are, by a second network, trained alike on the points before `cut` alone."""
    other = model.before(np.random.default_rng(recipe.seed))
    train(other, recipe)
    model.widen(other)
