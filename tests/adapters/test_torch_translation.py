"""The translation network in plain PyTorch, which the benchmark times: the same equations and the same updates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.translation import OurTraining  # noqa: E402
from benchmarks.translation_torch import TorchTraining  # noqa: E402
from fusedrnn.tasks.characters import Characters  # noqa: E402
from fusedrnn.tasks.translate_runs import Recipe, batch_of  # noqa: E402


@pytest.mark.parametrize("score", ["general", "additive"])
def test_both_learn_the_same(score):
    recipe = Recipe(6, 7, score=score, lexical=True, smoothing=0.1, lr=1e-2)
    letters, rng = Characters("abcdefgh"), np.random.default_rng(0)
    model = recipe.networks(letters, letters, rng)
    theirs, ours = TorchTraining(model, recipe, 1, 0), OurTraining(model, recipe)
    rows = [rng.integers(3, 11, rng.integers(1, 9)) for _ in range(10)]
    batch = batch_of(rows[:5], rows[5:])
    assert theirs.difference(model, batch) < 1e-5
    for _ in range(3):
        assert ours.update(batch, 1e-2) == pytest.approx(theirs.update(batch, 1e-2), abs=1e-4)
    assert theirs.difference(model, batch) < 1e-3
    theirs.model.head.bias.data += 1
    assert theirs.difference(model, batch) > 0.9
    theirs.give(model)
    assert theirs.difference(model, batch) < 1e-5
