"""Steps made of others: one whose output is a state to begin with, and one that puts out its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn.functional.scan import scan_backward, scan_forward
from fusedrnn.scan.trees import map_leaves


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

    def gradients(self, p: Any, dstate: Any) -> Any:
        """Return the gradients of the parameters for one of the state, leaves [N, ...]."""
        _, _, reserve = scan_forward(self, p, None, np.zeros((1, 1), bool))
        dy = map_leaves(lambda leaf: leaf.sum(axis=0)[None, None], dstate)
        return scan_backward(dy, None, reserve).dparams


@dataclass(frozen=True)
class Trajectory:
    """A step that puts out its new state beside y."""

    step: Callable[..., Any]

    def __call__(self, p: Any, state: Any, x: Any, *context: Any) -> tuple[Any, Any]:
        """Take the step."""
        state, y = self.step(p, state, x, *context)
        return state, (y, state)
