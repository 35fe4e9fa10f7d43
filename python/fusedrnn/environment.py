"""Environment variables: what they may hold, and a word about names that nothing reads. An empty one counts as not set.

The engine reads ``FUSEDRNN_NUM_THREADS``, ``OMP_NUM_THREADS`` and ``FUSEDRNN_ISA`` itself, at their first use.
"""

from __future__ import annotations

import os
import warnings

# The last names a built module for the tests.
KNOWN = ("FUSEDRNN_NUM_THREADS", "FUSEDRNN_ISA", "FUSEDRNN_CHECK", "FUSEDRNN_CACHE", "FUSEDRNN_CUDA_MODULE")


def checks_arrays() -> bool:
    """Whether arrays are hashed between forward and backward: ``FUSEDRNN_CHECK=1``.

    Raises ValueError for another value than 0 and 1.
    """
    value = os.environ.get("FUSEDRNN_CHECK", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"FUSEDRNN_CHECK: expected 1, or 0 or nothing, got {value!r}")
    return value == "1"


def warn_of_unknown_names() -> None:
    """Say which variables look like ours and are not; a misspelt one would change nothing without a word."""
    unknown = sorted(name for name in os.environ if name.startswith("FUSEDRNN_") and name not in KNOWN)
    if not unknown:
        return
    import difflib  # which few processes need

    ends = {name.removeprefix("FUSEDRNN_"): name for name in KNOWN}
    for name in unknown:
        near = [ends[end] for end in difflib.get_close_matches(name.removeprefix("FUSEDRNN_"), ends, n=1)]
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KNOWN[:-1])}"
        warnings.warn(f"{name}: fusedrnn reads no environment variable of this name; {hint}", stacklevel=3)
