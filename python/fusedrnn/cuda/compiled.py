"""The compiled module ``fusedrnn._cuda``: imported once somebody asks for it, with words for what is missing."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

BUILD = "pip install . -Ccmake.define.FUSEDRNN_CUDA=ON"

_tf32 = False


def available() -> bool:
    """Whether cells can run on a GPU here."""
    return missing() is None


@lru_cache(maxsize=1)
def missing() -> str | None:
    """None, or what keeps cells from running on a GPU: no compiled module, no driver, or no GPU."""
    try:
        reason: str | None = module().missing()
    except ImportError as error:
        if error.name == "fusedrnn._cuda":
            return f"fusedrnn was built without CUDA; with nvcc at hand, in a clone: {BUILD}"
        return f"the compiled module fusedrnn._cuda cannot be loaded: {error}"
    return reason


def require() -> Any:
    """The compiled module.

    Raises:
        RuntimeError: it cannot be used; the message says what is missing.
    """
    reason = missing()
    if reason is not None:
        raise RuntimeError(f"fusedrnn cannot use a GPU: {reason}")
    return module()


def allow_tf32(allow: bool) -> None:
    """Let products of h and float32 weights round their factors to TF32, with 10 bits after the point instead of 23:
    faster, and off until asked for. Products with x and of gradients are the array library's, with a switch of its own
    (``torch.backends.cuda.matmul.allow_tf32``)."""
    global _tf32
    _tf32 = bool(allow)


def tf32_allowed() -> bool:
    """Whether ``allow_tf32`` is on."""
    return _tf32


def module() -> Any:
    """The compiled module, whether or not there is a GPU."""
    return importlib.import_module("fusedrnn._cuda")


@lru_cache(maxsize=64)
def gpu(ordinal: int) -> Any:
    """What plans need to know of a GPU."""
    return require().gpu(ordinal)
