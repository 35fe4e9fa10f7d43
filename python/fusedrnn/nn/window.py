"""The soft window along a text as layers, and the head that makes parameters of mixture densities."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import cells
from fusedrnn.arrays import Array
from fusedrnn.functional import mixture_density_mean, mixture_density_sample
from fusedrnn.nn.linear import Linear
from fusedrnn.nn.module import as_generator
from fusedrnn.nn.scan import Scan
from fusedrnn.sizes import size


class SoftWindow(Scan):
    """A window that slides along characters as it is told (Graves 2013): ``y, kappa = window(h, None, characters)``.

    h [T, N, H], characters [N, U, C] padded with rows of zeros; y is a `cells.WindowOutput`, of which ``y.window`` is
    [T, N, C], ``y.weights`` φ [T, N, U] and ``y.kappa`` [T, N, K].

    Args:
        hidden_size, components, spacing: As ``fusedrnn.cells.SoftWindow``.
        dtype, rng: As `Scan`, which has everything else.
    """

    def __init__(
        self,
        hidden_size: int,
        components: int = 10,
        *,
        spacing: float = 0.06,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        cell = cells.SoftWindow(hidden_size, components, spacing=spacing, rng=as_generator(rng), dtype=dtype)
        super().__init__(*cell, dtype=dtype)


class WindowLSTM(Scan):
    """An LSTM that sees a window along a text and moves it (Graves 2013): ``y, state = layer(x, None, characters)``.

    x [T, N, I], characters [N, U, C] padded with rows of zeros; y is a `cells.WindowOutput` of ``h`` [T, N, H],
    ``window`` [T, N, C], ``weights`` φ [T, N, U] and ``kappa`` [T, N, K].

    Args:
        input_size, characters, hidden_size, components, spacing: As ``fusedrnn.cells.WindowLSTM``.
        dtype, rng: As `Scan`, which has everything else.
    """

    def __init__(
        self,
        input_size: int,
        characters: int,
        hidden_size: int,
        components: int = 10,
        *,
        spacing: float = 0.06,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        cell = cells.WindowLSTM(
            input_size, characters, hidden_size, components, spacing=spacing, rng=as_generator(rng), dtype=dtype
        )
        super().__init__(*cell, dtype=dtype)


class MixtureDensity(Linear):
    """A linear layer whose outputs are parameters [..., 6K + 1] of mixtures of bivariate Gaussians with an end flag.

    Train it with `MixtureDensityLoss`; ``fusedrnn.functional.mixture_density`` says what the parameters mean.

    Args:
        in_features: F, of the layer below. components: K. dtype, rng: As `Linear`.
    """

    def __init__(
        self,
        in_features: int,
        components: int,
        *,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.components = size("components", components)
        super().__init__(in_features, 6 * self.components + 1, dtype=dtype, rng=rng)

    @staticmethod
    def sample(parameters: Array, rng: np.random.Generator, *, bias: float = 0.0) -> Array:
        """Draw points and end flags [..., 3], as `fusedrnn.mixture_density_sample`."""
        return mixture_density_sample(parameters, rng, bias=bias)

    @staticmethod
    def mean(parameters: Array) -> Array:
        """Return the means of the mixtures, [..., 2]."""
        return mixture_density_mean(parameters)

    def __repr__(self) -> str:
        return f"MixtureDensity({self.weight.data.shape[1]}, {self.components})"
