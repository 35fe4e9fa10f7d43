"""The width of the bands of a `fusedrnn.estimators.forecasting.BandForecast` that holds what they say on points that it
has not seen: a second network, trained alike on less, tells.

This is part of making a forecast, before a run has a folder; so it is a plain loop, which Ctrl-C ends like any other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusedrnn.estimators.forecasting import BandForecast
from fusedrnn.optim import Adam, CosineLR, clip_grad_norm_


class Recipe(NamedTuple):
    """So many updates of Adam with batches of so many windows; the rate falls along a cosine, the norm is clipped."""

    steps: int
    batch_size: int
    lr: float
    seed: int


def train(model: BandForecast, recipe: Recipe) -> None:
    """Train the network, and leave it in evaluation."""
    optimizer, schedule = Adam(model.network, lr=recipe.lr), CosineLR(recipe.steps)
    model.network.train()
    for step in range(recipe.steps):
        optimizer.lr = recipe.lr * schedule(step)
        optimizer.zero_grad()
        x, target = model.batch(np.random.default_rng([recipe.seed, step]), recipe.batch_size)
        model.loss(model.network(x), target)
        model.network.backward(model.loss.backward())
        clip_grad_norm_(model.network.flatten(), 1.0)
        optimizer.step()
    model.network.eval()


def calibrate(model: BandForecast, recipe: Recipe) -> None:
    """Set how wide the bands are, by a second network, trained alike on the points before `cut` alone."""
    other = model.before(np.random.default_rng(recipe.seed))
    train(other, recipe)
    model.widen(other)
