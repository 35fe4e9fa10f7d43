"""Steps made of others: one whose output is a state to begin with, and one that puts out its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.functional.scan import scan_backward, scan_forward, trace
from fusedrnn.scan.graph import needed
from fusedrnn.scan.trees import Structure, flatten, map_leaves

_NOTHING = np.zeros((1, 1), bool)  # x of one step and row


@dataclass(frozen=True)
class Start:
    """A function of the parameters that gives the state of one sequence before its first step, in NumPy."""

    function: Callable[[Any], Any]

    def __call__(self, p: Any, state: None, x: Any) -> tuple[None, Any]:
        """Be the only step of a recurrence without state: its output is the state, and x tells nothing."""
        del state, x
        return None, self.function(p)

    def state(self, p: Any, rows: int) -> Any:
        """Return the state of so many rows, leaves [N, ...]."""
        return map_leaves(lambda leaf: np.repeat(np.asarray(leaf)[None], rows, axis=0), self.function(p))

    def gradients(self, p: Any, dstate: Any) -> list[Array | None]:
        """Return the gradients of the leaves of p for one of the state, leaves [N, ...]; None for those not used."""
        leaves, structure = flatten(p)
        if not hasattr(self, "_used"):
            step = trace(self, p, None, _NOTHING).recurrence.step
            read = set(needed(step.results))
            used = tuple(place for place, leaf in enumerate(step.shared) if leaf in read)
            object.__setattr__(self, "_used", _Used(self.function, structure, used))
        step_of_used: _Used = vars(self)["_used"]
        found: list[Array | None] = [None] * len(leaves)
        if step_of_used.places:
            parts = [leaves[place] for place in step_of_used.places]
            _, _, reserve = scan_forward(step_of_used, parts, None, _NOTHING)
            dy = map_leaves(lambda leaf: leaf.sum(axis=0)[None, None], dstate)
            for place, gradient in zip(step_of_used.places, scan_backward(dy, None, reserve).dparams, strict=True):
                found[place] = gradient
        return found


@dataclass(frozen=True)
class _Used:
    """The same step over those parameters alone that the state depends on: the others have no gradient."""

    function: Callable[[Any], Any]
    structure: Structure
    places: tuple[int, ...]

    def __call__(self, parts: list[Any], state: None, x: Any) -> tuple[None, Any]:
        del state, x
        leaves: list[Any] = [None] * self.structure.size
        for place, part in zip(self.places, parts, strict=True):
            leaves[place] = part
        return None, self.function(self.structure.pack(leaves))


@dataclass(frozen=True)
class Trajectory:
    """A step that puts out its new state beside y."""

    step: Callable[..., Any]

    def __call__(self, p: Any, state: Any, x: Any, *context: Any) -> tuple[Any, Any]:
        """Take the step."""
        state, y = self.step(p, state, x, *context)
        return state, (y, state)
