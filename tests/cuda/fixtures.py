"""Fixtures of tests/conftest.py: the kernels over the emulator, and the Python above them without a GPU."""

from __future__ import annotations

import contextlib
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

MULTIPROCESSORS = 8  # of the emulated GPU: small, so that plans of several launches come up


def mark_emulator(items: list[pytest.Item]) -> None:
    """The marker `emulator` for all that run on it."""
    for item in items:
        if "emulated" in getattr(item, "fixturenames", ()):
            item.add_marker("emulator")


@pytest.fixture(scope="session")
def emulated(pytestconfig: pytest.Config) -> Any:
    """What `fusedrnn._cuda` has over a GPU, over the emulator: tests/cuda/build.py."""
    build = runpy.run_path(str(Path(__file__).parent / "build.py"))
    try:
        return build["load"](pytestconfig.cache.mkdir("emulated"))
    except build["Unavailable"] as reason:
        pytest.skip(f"no emulator: {reason}")


@pytest.fixture
def emulated_gpu(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """The emulator in the place of `fusedrnn._cuda`. It is a context manager, within which tensors of PyTorch that are
    on the CPU count as a GPU's, but for integers, as lengths may come from either."""
    from fusedrnn.cuda import arrays, cells, compiled

    gpu = emulated.Gpu(9, 0, MULTIPROCESSORS)
    module = SimpleNamespace(**vars(emulated), gpu=lambda ordinal: gpu, missing=lambda: None)
    caches = (compiled.missing, compiled.gpu, cells._planned)
    monkeypatch.setattr(compiled, "module", lambda: module)
    monkeypatch.setattr(arrays.Torch, "stream", lambda self, like: contextlib.nullcontext(0))
    for cached in caches:
        cached.cache_clear()

    on_gpu, within = arrays.on_gpu, [0]

    def counts_as_on_gpu(value: Any) -> bool:
        return bool(within[0] and getattr(value, "is_cpu", False) and value.is_floating_point()) or on_gpu(value)

    @contextlib.contextmanager
    def tensors() -> Iterator[None]:
        within[0] += 1
        try:
            yield
        finally:
            within[0] -= 1

    monkeypatch.setattr(arrays, "on_gpu", counts_as_on_gpu)
    yield tensors
    for cached in caches:
        cached.cache_clear()


class _Array(np.ndarray):
    """An array in the CPU's memory with the face of CuPy's."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self) -> Any:
        return _Device()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return dict(self.__array_interface__)


class _Device(contextlib.nullcontext):  # type: ignore[type-arg]
    id = 0


@pytest.fixture
def gpu_array(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """An array of NumPy as one of "CuPy", which is NumPy here; None stays."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a, **k: function(*a, **k).view(_Array)

    names = ("ascontiguousarray", "asarray", "empty", "concatenate", "arange")
    stream = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=0))
    fake = SimpleNamespace(ndarray=_Array, cuda=stream, **{name: of(getattr(np, name)) for name in names})
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return lambda a: None if a is None else np.array(a).view(_Array)
