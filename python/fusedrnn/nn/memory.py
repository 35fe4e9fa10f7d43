"""Networks with a memory, as layers: the neural Turing machine and the differentiable neural computer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fusedrnn import cells
from fusedrnn.arrays import Array
from fusedrnn.cells.cell import Cell
from fusedrnn.cells.ntm import NTMStart
from fusedrnn.cells.ntm import Start as StartKind
from fusedrnn.nn.module import as_generator
from fusedrnn.nn.scan import Scan
from fusedrnn.nn.scan_start import Start
from fusedrnn.scan.trees import map_leaves

Self = TypeVar("Self", bound="MemoryNetwork")
_FAR = 20.0  # below the largest logit: a weight of 2e-9


class MemoryNetwork(Scan):
    """A layer whose cell has so many slots of memory, and can be given more.

    Args:
        cell: Makes it of slots, dtype and rng. slots: Rows of the memory.
        batch_first, recompute, dtype, rng: As `Scan`.
    """

    def __init__(
        self,
        cell: Callable[..., Cell],
        slots: int,
        *,
        batch_first: bool,
        recompute: int | bool | None,
        dtype: Any,
        rng: np.random.Generator | int | None,
    ) -> None:
        generator = as_generator(rng)
        made = cell(slots=slots, dtype=dtype, rng=generator)
        super().__init__(*made, batch_first=batch_first, recompute=recompute, dtype=dtype, rng=generator)
        self._cell = cell

    def enlarged(self: Self, slots: int) -> Self:
        """Make a copy with more slots of memory and the same parameters: capacity grows without training.

        Slots that are new begin as they do in a network of that size, and no weighting begins on them.

        Raises:
            ValueError: Fewer slots than there are.
        """
        larger = type(self).__new__(type(self))
        MemoryNetwork.__init__(
            larger, self._cell, slots, batch_first=self.batch_first, recompute=self.recompute, dtype=self.dtype, rng=0
        )
        if larger.slots < self.slots:
            raise ValueError(f"slots: expected at least {self.slots}, got {slots}")
        for (name, parameter), (_, own) in zip(larger.named_parameters(), self.named_parameters(), strict=True):
            put = _logits_within if name.endswith("weightings") else _within
            parameter.data[...] = put(parameter.data, own.data)
        if self._start is not None and larger._start is not None:
            starts: list[Any] = [larger._start.function, self._start.function]
            wide, own_start = (start.fixed for start in starts)
            weightings = {
                name: _logits_within(getattr(wide, name), getattr(own_start, name))
                for name in ("read_weightings", "write_weightings")
            }
            larger._start = Start(NTMStart(map_leaves(_within, wide, own_start)._replace(**weightings)))
        return larger.train(self.training)

    @property
    def slots(self) -> int:
        """Rows of the memory."""
        return len(self._state_structure.pack(self._state_values).memory)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self.step).items())
        sizes = f"{self.slots} slots, {sum(parameter.data.size for parameter in self.parameters()):,} parameters"
        return f"{type(self).__name__}({options}: {sizes})"


def _within(larger: Array, smaller: Array) -> Array:
    """Copy the larger array with the smaller one in its first corner."""
    found: Array = larger.copy()
    found[tuple(slice(0, size) for size in smaller.shape)] = smaller
    return found


def _logits_within(larger: Array, smaller: Array) -> Array:
    """Copy logits [heads, slots] to the first slots of the larger array, and give the others next to no weight."""
    found = _within(larger, smaller)
    found[:, smaller.shape[1] :] = smaller.max(axis=1, keepdims=True) - _FAR
    return found


class NTM(MemoryNetwork):
    """A neural Turing machine (Graves, Wayne and Danihelka 2014): ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, slots to clip: As ``fusedrnn.cells.NTM``, which says what they mean.
        batch_first, recompute, dtype, rng: As `Scan`, which has everything else: lengths, resets, streams.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | Sequence[int] = 100,
        *,
        slots: int = 128,
        width: int = 20,
        read_heads: int = 1,
        write_heads: int = 1,
        shifts: int = 1,
        controller: str = "lstm",
        memory: StartKind = "random",
        reads: StartKind = "constant",
        weightings: StartKind = "learned",
        start: StartKind = "constant",
        clip: float | None = 20.0,
        batch_first: bool = False,
        recompute: int | bool | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        cell = partial(
            cells.NTM,
            input_size,
            output_size,
            hidden_size,
            width=width,
            read_heads=read_heads,
            write_heads=write_heads,
            shifts=shifts,
            controller=controller,
            memory=memory,
            reads=reads,
            weightings=weightings,
            start=start,
            clip=clip,
        )
        super().__init__(cell, slots, batch_first=batch_first, recompute=recompute, dtype=dtype, rng=rng)


class DNC(MemoryNetwork):
    """A differentiable neural computer (Graves et al. 2016): ``y, state = net(x)``, x [T, N, I], y [T, N, O].

    Args:
        input_size, output_size, hidden_size, slots to clip: As ``fusedrnn.cells.DNC``, which says what they mean.
        batch_first, recompute, dtype, rng: As `Scan`, which has everything else: lengths, resets, streams.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | Sequence[int] = 100,
        *,
        slots: int = 32,
        width: int = 16,
        read_heads: int = 1,
        write_heads: int = 1,
        controller: str = "lstm",
        links: bool | int = True,
        free_gates: bool = True,
        key_mask: bool = False,
        deallocate: bool = False,
        sharp_links: bool = False,
        normalize: bool = False,
        clip: float | None = 20.0,
        batch_first: bool = False,
        recompute: int | bool | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        cell = partial(
            cells.DNC,
            input_size,
            output_size,
            hidden_size,
            width=width,
            read_heads=read_heads,
            write_heads=write_heads,
            controller=controller,
            links=links,
            free_gates=free_gates,
            key_mask=key_mask,
            deallocate=deallocate,
            sharp_links=sharp_links,
            normalize=normalize,
            clip=clip,
        )
        super().__init__(cell, slots, batch_first=batch_first, recompute=recompute, dtype=dtype, rng=rng)
