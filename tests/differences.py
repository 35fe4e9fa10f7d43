"""Gradients beside central differences of a loss."""

from __future__ import annotations

import numpy as np
import pytest


def check_along_directions(loss, given, gradients, rng):
    """Hold each gradient to the slope of ``loss(*given)`` as its leaf moves along one random direction.

    Args:
        given: lists of arrays. gradients: lists of arrays, alike.
    """
    for group, own in enumerate(gradients):
        for place, gradient in enumerate(own):
            direction = rng.standard_normal(gradient.shape)
            ends = []
            for step in (1e-6, -1e-6):
                moved = [list(leaves) for leaves in given]
                moved[group][place] = moved[group][place] + step * direction
                ends.append(loss(*moved))
            expected = (ends[0] - ends[1]) / 2e-6
            assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-6, abs=1e-7), (group, place)
