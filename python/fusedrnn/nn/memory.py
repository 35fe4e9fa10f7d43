"""Networks with a memory, as layers: the neural Turing machine and the differentiable neural computer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from fusedrnn import cells
from fusedrnn.cells.cell import Cell
from fusedrnn.cells.ntm import NTMStart
from fusedrnn.gradients import Array
from fusedrnn.nn.module import as_generator
from fusedrnn.nn.scan import Scan
from fusedrnn.nn.scan_start import Start
from fusedrnn.scan.trees import map_leaves

Self = TypeVar("Self", bound="MemoryNetwork")


class MemoryNetwork(Scan):
    """A layer whose cell has so many slots of memory, and can be given more.

    Args:
        cell: Makes it of sizes and options. sizes: I, O and H. batch_first, recompute, dtype, rng: As `Scan`.
        options: Of the cell.
    """

    def __init__(
        self,
        cell: Callable[..., Cell],
        sizes: tuple[int, int, int | Sequence[int]],
        batch_first: bool,
        recompute: int | bool | None,
        dtype: Any,
        rng: np.random.Generator | int | None,
        options: dict[str, Any],
    ) -> None:
        generator = as_generator(rng)
        made = cell(*sizes, **options, dtype=dtype, rng=generator)
        super().__init__(*made, batch_first=batch_first, recompute=recompute, dtype=dtype, rng=generator)
        self._sizes, self._options = sizes, options

    def enlarged(self: Self, slots: int) -> Self:
        """Make a copy with more slots of memory and the same parameters: capacity grows without training.

        Slots that are new begin as they do in a network of that size.

        Raises:
            ValueError: Fewer slots than there are.
        """
        network: Any = type(self)
        larger: Self = network(
            *self._sizes, **{**self._options, "slots": slots}, batch_first=self.batch_first, recompute=self.recompute,
            dtype=self.dtype, rng=0,
        )  # fmt: skip
        if larger.slots < self.slots:
            raise ValueError(f"slots: expected at least {self.slots}, got {slots}")
        for (_, parameter), (_, own) in zip(larger.named_parameters(), self.named_parameters(), strict=True):
            parameter.data[...] = _within(parameter.data, own.data)
        if self._start is not None and larger._start is not None:
            starts: list[Any] = [larger._start.function, self._start.function]
            larger._start = Start(NTMStart(map_leaves(_within, *(start.fixed for start in starts))))
        return larger.train(self.training)

    @property
    def slots(self) -> int:
        """Rows of the memory."""
        return len(self._state_structure.pack(self._state_values).memory)


def _within(larger: Array, smaller: Array) -> Array:
    """Copy the larger array with the smaller one in its first corner."""
    found: Array = larger.copy()
    found[tuple(slice(0, size) for size in smaller.shape)] = smaller
    return found


class NTM(MemoryNetwork):
    """A neural Turing machine (Graves, Wayne and Danihelka 2014): ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, options: As ``fusedrnn.cells.NTM``, which says what they mean.
        batch_first, recompute, dtype, rng: As `Scan`, which has everything else: lengths, resets, streams.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | Sequence[int] = 100,
        *,
        batch_first: bool = False,
        recompute: int | bool | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        **options: Any,
    ) -> None:
        sizes = (input_size, output_size, hidden_size)
        super().__init__(cells.NTM, sizes, batch_first, recompute, dtype, rng, options)


class DNC(MemoryNetwork):
    """A differentiable neural computer (Graves et al. 2016): ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, options: As ``fusedrnn.cells.DNC``, which says what they mean.
        batch_first, recompute, dtype, rng: As `Scan`, which has everything else: lengths, resets, streams.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | Sequence[int] = 100,
        *,
        batch_first: bool = False,
        recompute: int | bool | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        **options: Any,
    ) -> None:
        sizes = (input_size, output_size, hidden_size)
        super().__init__(cells.DNC, sizes, batch_first, recompute, dtype, rng, options)
