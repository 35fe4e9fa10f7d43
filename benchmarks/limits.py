"""What this machine can do, measured in the same run: products, cache and memory bandwidth, activations.

A workload's limit is the time that its products take at the peak; for one row, whose weights must come from the L2
caches again at each step, that of the recurrent weights' way if it is longer. Activations are left out, so that no row
can reach it quite. Weights beyond the caches come slower than the limit has them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.workloads import Array, Workload

_SECONDS = 0.15  # for each measurement
_PRODUCTS = (384, 768, 1536)  # rows and columns
_CACHED = (256 << 10, 512 << 10, 1 << 20)  # bytes beyond an L1 cache and, the smaller ones at least, within an L2
_BEYOND = 256 << 20  # bytes of each of two arrays, of which no core keeps much, though a shared cache might


@dataclass(frozen=True)
class Limits:
    """Of one number of threads, all of them together: flops a second by dtype, bytes a second from their L2 caches and
    from memory (by arrays of ``memory_bytes`` in all), seconds an activation."""

    threads: int
    flops: dict[str, float]
    cache_bandwidth: float
    memory_bandwidth: float
    memory_bytes: int
    activation: float

    def seconds(self, w: Workload) -> float:
        """That the workload takes at the least."""
        peak = self.flops[w.dtype]
        if w.N > 1:
            return w.flops / peak
        # forward and in training backward walk through time; the gradient of the weights is one product over all steps
        walks = 2 if w.mode == "train" else 1
        recurrent = w.T * w.recurrent_elements * walks
        if w.T == 1:  # then the input's weights are read for one row as well
            recurrent = w.weight_elements * walks
        walking = max(2 * recurrent / peak, recurrent * w.bytes_per_element / self.cache_bandwidth)
        return walking + (w.flops - 2 * recurrent) / peak

    def __str__(self) -> str:
        peaks = ", ".join(f"{flops / 1e9:.0f} GFLOP/s {dtype}" for dtype, flops in self.flops.items())
        return (
            f"{self.threads} thread{'s' * (self.threads > 1)}: {peaks}, {self.cache_bandwidth / 1e9:.0f} GB/s from L2, "
            f"{self.memory_bandwidth / 1e9:.1f} GB/s from memory ({self.memory_bytes >> 20} MiB), "
            f"{self.activation * 1e9:.2f} ns a tanh"
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
        for size in _PRODUCTS:  # of NumPy's BLAS and of our own products, whichever is faster
            a = np.full((size, size), 0.5, dtype)
            rates.append(2 * size**3 / best(lambda a=a: a @ a))  # type: ignore[misc]
            rates.append(2 * size**3 / best(lambda a=a: _core.linear_forward(a, a, None)))  # type: ignore[misc]
        flops[dtype] = max(rates)
    x = np.linspace(-4, 4, 4096, dtype=np.float32)
    activation = best(lambda: _core.math_sweep("tanh", x)) / x.size
    memory, size = memory_bandwidth(threads)
    return Limits(threads, flops, cache_bandwidth(threads), memory, size, activation)


def _together(pool: ThreadPoolExecutor, works: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """All of these at once, each in a thread of its own."""
    return lambda: [done.result() for done in [pool.submit(work) for work in works]]


def cache_bandwidth(threads: int) -> float:
    """Bytes a second that come from the L2 caches of so many cores: the best of dot products and of recurrent nets
    over one row, whose weights are read once a step. (Neither reaches the hardware's figure, each is a bound below.)"""
    import fusedrnn
    from fusedrnn import nn

    before = fusedrnn.get_num_threads()
    fusedrnn.set_num_threads(1)  # a call of each thread below, within it
    steps, repeats = 400, 50
    x = np.zeros((steps, 1, 1), np.float32)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for size in _CACHED:
            halves = [np.ones((2, size // 8), np.float32) for _ in range(threads)]

            def dots(pair: Array) -> None:
                for _ in range(repeats):
                    np.dot(pair[0], pair[1])

            seconds = best(_together(pool, [lambda pair=pair: dots(pair) for pair in halves]))  # type: ignore[misc]
            rates.append(threads * repeats * size / seconds)
            units = int((size / 16) ** 0.5)
            nets = [nn.LSTM(1, units - units % 16).eval() for _ in range(threads)]
            seconds = best(_together(pool, [lambda net=net: net(x) for net in nets]))  # type: ignore[misc]
            rates.append(threads * steps * 16 * nets[0].hidden_size ** 2 / seconds)
    fusedrnn.set_num_threads(before)
    return max(rates)


def memory_bandwidth(threads: int) -> tuple[float, int]:
    """Bytes a second of ``a += b`` by so many threads, 2 reads and 1 write an element, and the arrays' bytes in all."""
    count = min(_BEYOND, _available() // 8) // 4
    a, b = np.ones(count, np.float32), np.ones(count, np.float32)
    edges = [k * count // threads for k in range(threads + 1)]
    parts = [(a[low:high], b[low:high]) for low, high in itertools.pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        works = [lambda part=part: np.add(part[0], part[1], out=part[0]) for part in parts]
        return 3 * a.nbytes / best(_together(pool, works)), 2 * a.nbytes


def _available() -> int:
    """Bytes of memory that are free to use, or a modest guess."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 30
