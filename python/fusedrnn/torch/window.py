"""The soft window along a text in PyTorch, and mixtures of bivariate Gaussians: their head and their loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn import cells
from fusedrnn.functional import mixture_density_loss as _loss
from fusedrnn.functional import mixture_density_mean, mixture_density_sample
from fusedrnn.sizes import size
from fusedrnn.torch.compiling import methods_run_as_they_are, runs_as_it_is
from fusedrnn.torch.scan import Scan
from fusedrnn.torch.support import drawn_seed


class SoftWindow(Scan):
    """``fusedrnn.nn.SoftWindow`` as a module: ``y, kappa = window(h, context=characters)``.

    Args:
        hidden_size, components, spacing: As there; initial values are drawn by PyTorch's generator.
        dtype: As `Scan`, which has everything else.
    """

    def __init__(
        self,
        hidden_size: int,
        components: int = 10,
        *,
        spacing: float = 0.06,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        cell = cells.SoftWindow(hidden_size, components, spacing=spacing, rng=drawn_seed(), dtype="float64")
        super().__init__(*cell, dtype=dtype)


class WindowLSTM(Scan):
    """``fusedrnn.nn.WindowLSTM`` as a module: ``y, state = layer(x, context=characters)``.

    Args:
        input_size, characters, hidden_size, components, spacing: As there; initial values are drawn by PyTorch's
            generator. dtype: As `Scan`, which has everything else.
    """

    def __init__(
        self,
        input_size: int,
        characters: int,
        hidden_size: int,
        components: int = 10,
        *,
        spacing: float = 0.06,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        cell = cells.WindowLSTM(
            input_size, characters, hidden_size, components, spacing=spacing, rng=drawn_seed(), dtype="float64"
        )
        super().__init__(*cell, dtype=dtype)


class MixtureDensity(torch.nn.Linear):
    """``fusedrnn.nn.MixtureDensity`` as a module: parameters [..., 6K + 1] of mixtures, of features [..., F].

    Args:
        in_features: F. components: K. dtype: torch.float32 or torch.float64.
    """

    def __init__(self, in_features: int, components: int, *, dtype: torch.dtype = torch.float32) -> None:
        self.components = size("components", components)
        super().__init__(in_features, 6 * self.components + 1, dtype=dtype)

    @staticmethod
    @runs_as_it_is
    def sample(parameters: Tensor, *, bias: float = 0.0) -> Tensor:
        """Draw points and end flags [..., 3], by PyTorch's generator; see ``fusedrnn.mixture_density_sample``."""
        drawn = mixture_density_sample(_array(parameters), np.random.default_rng(drawn_seed()), bias=bias)
        return torch.from_numpy(drawn)

    @staticmethod
    @runs_as_it_is
    def mean(parameters: Tensor) -> Tensor:
        """Return the means of the mixtures, [..., 2], without gradients."""
        return torch.from_numpy(mixture_density_mean(_array(parameters)))


@methods_run_as_they_are
class _MixtureDensityLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameters: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        value, gradient = _loss(_array(parameters), _array(target), None if weights is None else _array(weights))
        ctx.save_for_backward(torch.from_numpy(gradient))
        return parameters.new_tensor(value)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * dloss, None, None


def mixture_density_loss(parameters: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``fusedrnn.mixture_density_loss``, summed over rows, for autograd; the target has no gradient.

    Args:
        parameters: [..., 6K + 1]. target: [..., 3]. weights: [...] or [..., 2], None for 1. All on the CPU.
    """
    loss: Tensor = _MixtureDensityLoss.apply(parameters, target, weights)
    return loss


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()
