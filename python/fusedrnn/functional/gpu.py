"""The way to a GPU, for calls whose arrays are on one: ``fusedrnn.cuda.functional``, imported by the first of them."""

from __future__ import annotations

from typing import Any


def gpu_forward(cell: str, arguments: dict[str, Any]) -> Any:
    """As ``<cell>_forward``, of all its arguments by name."""
    from fusedrnn.cuda import functional

    return functional.forward(cell, arguments)


def gpu_backward(*arguments: Any) -> Any:
    """As ``fusedrnn.cuda.functional.backward``."""
    from fusedrnn.cuda import functional

    return functional.backward(*arguments)
