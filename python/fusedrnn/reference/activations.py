"""The activations by name, with their slopes as functions of the value: backward need not keep what entered.

At a kink, and where a value is flat, the slope is 0, as in PyTorch. Where the value is NaN, so is the slope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..arrays import Array


class Activation(NamedTuple):
    """`value` of what enters, and its derivative there, `slope`, of the value."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), only ever with exponentials of numbers up to zero, so that nothing overflows."""
    e = np.exp(-np.abs(a))
    sigmoid: Array = np.where(a >= 0, 1, e) / (1 + e)
    return sigmoid


def _inside(inside: Array, slope: float, y: Array) -> Array:
    """`slope` there and 0 elsewhere; 0 y and not 0, so that a NaN stays one."""
    return np.where(inside, slope, 0 * y)


ACTIVATIONS = {
    "sigmoid": Activation(_sigmoid, lambda y: y * (1 - y)),
    "tanh": Activation(np.tanh, lambda y: 1 - y * y),
    "relu": Activation(lambda a: np.maximum(a, 0), lambda y: _inside(y > 0, 1, y)),
    # as ONNX and Keras before version 3 have it
    "hard_sigmoid": Activation(lambda a: np.clip(0.2 * a + 0.5, 0, 1), lambda y: _inside((y > 0) & (y < 1), 0.2, y)),
    "hard_tanh": Activation(lambda a: np.clip(a, -1, 1), lambda y: _inside(np.abs(y) < 1, 1, y)),
    "softsign": Activation(lambda a: a / (1 + np.abs(a)), lambda y: (1 - np.abs(y)) ** 2),
    "softplus": Activation(lambda a: np.logaddexp(a, 0), lambda y: -np.expm1(-y)),
    "identity": Activation(lambda a: a, np.ones_like),
}


def find_activation(argument: str, name: str) -> Activation:
    """The activation of that name; ValueError, which names `argument`, for one that does not exist."""
    if name not in ACTIVATIONS:
        raise ValueError(f"{argument}: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def find_activations(names: tuple[str, ...] | None, default: tuple[str, ...]) -> list[Activation]:
    """The activations of a cell that has as many as `default`, which None stands for."""
    names = default if names is None else tuple(names)
    if len(names) != len(default):
        raise ValueError(f"activations: expected {len(default)} names, got {len(names)}")
    return [find_activation("activations", name) for name in names]
