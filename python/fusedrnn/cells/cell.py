"""The record of a cell, and how initial values are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedrnn.arrays import Array

Step: TypeAlias = Callable[..., tuple[Any, Any]]
Rng: TypeAlias = np.random.Generator | int | None


class Cell(NamedTuple):
    """A recurrence of one sequence, with values to begin with; ``nn.Scan(*cell)`` is a layer of it.

    Attributes:
        step: ``step(parameters, state, x) -> (new state, y)``, in NumPy, of one sequence and one step.
        parameters: Arrays by name, with initial values.
        state: The state before the first step, of one sequence: an array, or a tuple of arrays.
    """

    step: Step
    parameters: dict[str, Any]
    state: Any


class Initial:
    """Draw initial values of one precision.

    Args:
        rng: Seed or generator; None for a random seed. dtype: "float32" or "float64".
    """

    def __init__(self, rng: np.random.Generator | int | None, dtype: Any) -> None:
        self.rng = np.random.default_rng(rng)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")

    def array(self, values: Any) -> Array:
        """Copy values into an array."""
        return np.array(values, self.dtype)

    def full(self, value: float, *shape: int) -> Array:
        """Fill an array with one value."""
        return np.full(shape, value, self.dtype)

    def zeros(self, *shape: int) -> Array:
        """Make an array of zeros."""
        return np.zeros(shape, self.dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Draw from U(low, high)."""
        return self.array(self.rng.uniform(low, high, shape))

    def normal(self, deviation: float, *shape: int) -> Array:
        """Draw from N(0, deviation²)."""
        return self.array(deviation * self.rng.standard_normal(shape))

    def glorot(self, blocks: int, rows: int, columns: int) -> Array:
        """Draw `blocks` matrices, one above the other, from U(-a, a), a² = 6 / (rows + columns) (Glorot 2010)."""
        bound = math.sqrt(6 / (rows + columns))
        return self.uniform(-bound, bound, blocks * rows, columns)

    def orthogonal(self, blocks: int, size: int) -> Array:
        """Draw `blocks` orthogonal matrices, one above the other, uniformly among all (Saxe et al. 2014)."""
        q, r = np.linalg.qr(self.rng.standard_normal((blocks, size, size)))
        signs = np.sign(np.diagonal(r, axis1=1, axis2=2))
        return self.array((q * signs[:, None]).reshape(blocks * size, size))

    def affine(self, gates: int, inputs: int, hidden: int) -> dict[str, Array]:
        """Draw W [gates * H, I], U [gates * H, H] and b [gates * H] from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch does."""
        bound, rows = 1 / math.sqrt(hidden), gates * hidden
        return {
            "W": self.uniform(-bound, bound, rows, inputs),
            "U": self.uniform(-bound, bound, rows, hidden),
            "b": self.uniform(-bound, bound, rows),
        }

    def linear(self, inputs: int, outputs: int) -> dict[str, Array]:
        """Draw W [outputs, I] from U(-1/sqrt(I), 1/sqrt(I)), and b [outputs] of zeros."""
        bound = 1 / math.sqrt(inputs)
        return {"W": self.uniform(-bound, bound, outputs, inputs), "b": self.zeros(outputs)}
