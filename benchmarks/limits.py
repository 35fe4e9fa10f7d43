"""What this machine can do, measured in the same run: products, cache bandwidth, and what activations cost.

A workload's limit is the time that its products take at the peak, or its weights take to come from the cache where
few rows share them, whichever is longer; activations are left out, so that no row can reach it quite.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.workloads import Workload

_SECONDS = 0.15  # for each measurement
_CACHED = 384 << 10  # bytes, within an L2 cache and beyond an L1


@dataclass(frozen=True)
class Limits:
    """Of one number of threads: flops a second by dtype, bytes a second, seconds an activation."""

    threads: int
    flops: dict[str, float]
    cache_bandwidth: float
    activation: float

    def seconds(self, w: Workload) -> float:
        """That the workload takes at the least."""
        passes = 3 if w.mode == "train" else 1
        weight_bytes = passes * w.T * w.weight_elements * w.bytes_per_element
        from_cache = weight_bytes / self.cache_bandwidth if w.N == 1 else 0.0
        return max(w.flops / self.flops[w.dtype], from_cache)

    def __str__(self) -> str:
        peaks = ", ".join(f"{flops / 1e9:.0f} GFLOP/s {dtype}" for dtype, flops in self.flops.items())
        return (
            f"{self.threads} thread{'s' * (self.threads > 1)}: {peaks}, {self.cache_bandwidth / 1e9:.0f} GB/s from the "
            f"L2 cache of one core, {self.activation * 1e9:.2f} ns a tanh"
        )


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest call."""
    work()
    end, fastest = time.perf_counter() + _SECONDS, float("inf")
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def measure(threads: int, dtypes: list[str]) -> Limits:
    """In this process, whose affinity mask should hold as many cores as ``threads``."""
    import fusedrnn
    from fusedrnn import _core

    fusedrnn.set_num_threads(threads)
    flops = {}
    for dtype in dtypes:
        rates = []
        for size in (384, 768, 1536):  # of NumPy's BLAS and of our own products, whichever is faster
            a = np.full((size, size), 0.5, dtype)
            rates.append(2 * size**3 / best(lambda a=a: a @ a))  # type: ignore[misc]
            rates.append(2 * size**3 / best(lambda a=a: _core.linear_forward(a, a, None)))  # type: ignore[misc]
        flops[dtype] = max(rates)
    half = np.ones(_CACHED // 8, np.float32)  # sdot reads two such
    other = half.copy()
    x = np.linspace(-4, 4, 4096, dtype=np.float32)
    bandwidth = _CACHED / best(lambda: np.dot(half, other))
    return Limits(threads, flops, bandwidth, best(lambda: _core.math_sweep("tanh", x)) / x.size)
