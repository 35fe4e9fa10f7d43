"""The states of a stack of recurrent layers: how many a cell has, how wide, and how they lie in what a layer takes.

L layers, D directions, N rows of the batch. A state of the whole stack is [L * D, N, W], layer by layer, forward before
reverse; in a stack whose layers differ in size it is a tuple of arrays [D, N, W], one a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn.inputs import as_array, require_dtype

States: TypeAlias = Any  # one state of the whole stack


@dataclass(frozen=True)
class StackStates:
    """Check, cut and join states.

    Attributes:
        names: of the initial states. sizes: of each layer the widths of its states. dtype: the layer's.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]
    directions: int
    dtype: Any

    @property
    def gradient_names(self) -> tuple[str, ...]:
        """The names of the final states' gradients."""
        return tuple(f"d{name[0]}_n" for name in self.names)

    @property
    def equal(self) -> bool:
        """Whether all layers have one size."""
        return len(set(self.sizes)) == 1

    def checked(self, name: str, a: Any, shape: tuple[int | str, ...]) -> Array:
        """Return ``a`` as an array, if it has the layer's dtype and the shape, where a letter allows any size.

        Raises:
            ValueError: another shape. TypeError: another dtype, or no array.
        """
        array = a if type(a) is np.ndarray else as_array(name, a)
        if array.dtype != self.dtype:
            require_dtype(name, array, self.dtype)
        # By a loop rather than all(): this is asked four times a training step, and steps may take microseconds.
        fits = array.ndim == len(shape)
        if fits:
            for want, got in zip(shape, array.shape, strict=True):
                if want != got and not isinstance(want, str):
                    fits = False
        if not fits:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
        return array

    def given(self, names: Sequence[str], states: Sequence[States], N: int, *, all: bool = False) -> tuple[States, ...]:
        """Return states that a caller gave, checked and contiguous; None for those left out, unless it takes all."""
        return tuple([
            None if state is None and not all else self._one(name, state, k, N)
            for k, (name, state) in enumerate(zip(names, states, strict=True))
        ])  # fmt: skip

    def _one(self, name: str, state: States, k: int, N: int) -> States:
        D = self.directions
        if self.equal:
            return np.ascontiguousarray(self.checked(name, state, (len(self.sizes) * D, N, self.sizes[0][k])))
        if not isinstance(state, (tuple, list)) or len(state) != len(self.sizes):
            got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise TypeError(f"{name}: expected {len(self.sizes)} arrays, one for each layer, got {got}")
        return tuple(
            np.ascontiguousarray(self.checked(f"{name}[{layer}]", a, (D, N, widths[k])))
            for layer, (a, widths) in enumerate(zip(state, self.sizes, strict=True))
        )

    def parts(self, state: States) -> list[Array]:
        """Return a state's parts of each layer and direction, [L * D] arrays [N, W]."""
        return list(state) if self.equal else [part for a in state for part in a]

    def whole(self, parts: Sequence[Array]) -> States:
        """Return the state of which these are the parts."""
        D = self.directions
        if self.equal:
            return _stacked(parts)
        return tuple(_stacked(parts[i : i + D]) for i in range(0, len(parts), D))

    def zeros(self, N: int) -> tuple[States, ...]:
        """Return the states that a call without initial states starts from."""
        return tuple(
            self.whole([np.zeros((N, widths[k]), self.dtype) for widths in self.sizes for _ in range(self.directions)])
            for k in range(len(self.names))
        )

    def repeated(self, values: Sequence[Sequence[Array]], N: int) -> tuple[States, ...]:
        """Return states with the same values [W] of each layer and direction in all rows."""
        return tuple(
            self.whole([np.repeat(of_part[k][None], N, axis=0) for of_part in values]) for k in range(len(self.names))
        )


def _stacked(parts: Sequence[Array]) -> Array:
    """Return [parts, N, W] of arrays [N, W]; np.stack takes several times as long for such small ones."""
    return parts[0][None] if len(parts) == 1 else np.array(parts)
