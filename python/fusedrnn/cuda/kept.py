"""What the reserve of a call on a GPU holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Kept:
    """Hold what the reserve of a call on a GPU needs, under the names that the compiled module's has.

    Attributes:
        parameters: weights and biases, None where there is no bias.
        given: the arrays of the call that backward reads on the GPU.
    """

    library: Any
    layer: Any
    cell: str
    x: Any
    states: tuple[Any, ...]
    parameters: tuple[Any, ...]
    given: dict[str, Any]
    digests: Any = None

    @property
    def y(self) -> Any:
        """All states."""
        return self.given["y"]

    @property
    def buffer(self) -> Any:
        """The activated gates; y where it suffices."""
        return self.y if self.given["gates"] is None else self.given["gates"]
