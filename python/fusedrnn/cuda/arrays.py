"""Arrays on a GPU, and the libraries that allocate them and compute products: PyTorch and CuPy.

The kernels see addresses. Everything else that a layer needs of its arrays is a method of ``Library``, so that nobody
beside this file knows whose arrays they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

DTYPES = ("float32", "bfloat16", "float16")
_DLPACK_CUDA = (2, 13)  # memory of a GPU, and managed memory


def on_gpu(value: Any) -> bool:
    """Whether this is an array on a GPU: of PyTorch, of CuPy, or with ``__cuda_array_interface__`` or DLPack."""
    is_cuda = getattr(value, "is_cuda", None)
    if is_cuda is not None:
        return bool(is_cuda)
    if hasattr(value, "__cuda_array_interface__"):
        return True
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and device()[0] in _DLPACK_CUDA


class Library:
    """What a layer asks, within ``computing``, of the library whose arrays it is given. ``xp`` is its module."""

    name = ""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def owns(self, value: Any) -> bool:
        """Whether ``value`` is an array of this library."""
        raise NotImplementedError

    def adopt(self, value: Any) -> Any:
        """An array of this library on the memory of another's."""
        raise NotImplementedError

    def address(self, a: Any) -> int:
        raise NotImplementedError

    def ordinal(self, a: Any) -> int:
        """The number of the GPU that ``a`` is on."""
        raise NotImplementedError

    def dtype(self, a: Any) -> str:
        return str(a.dtype).removeprefix("torch.")

    def contiguous(self, a: Any) -> Any:
        raise NotImplementedError

    def empty(self, shape: Sequence[int], like: Any, dtype: str | None = None) -> Any:
        """Not initialized, on the GPU of ``like`` and of its dtype unless another is given."""
        raise NotImplementedError

    @contextmanager
    def computing(self, like: Any) -> Iterator[None]:
        """The GPU of ``like`` is the current one within, and what is computed keeps its factors' dtype: where cells are
        computed, since CuPy allocates on the current GPU and PyTorch's autocast would change dtypes."""
        raise NotImplementedError
        yield

    @contextmanager
    def stream(self, like: Any) -> Iterator[int]:
        """The library's current stream on the GPU of ``like``, which is the current one within."""
        raise NotImplementedError
        yield 0

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        """x [M, I] times weight [R, I] transposed, plus bias [R] or None."""
        raise NotImplementedError

    def total(self, a: Any) -> Any:
        """The sum over the first axis, of float32 at least, in the dtype of ``a``."""
        raise NotImplementedError

    def concatenate(self, parts: Sequence[Any]) -> Any:
        raise NotImplementedError

    def lengths(self, values: Any, rows: int, steps: int, like: Any) -> Any:
        """int32 [N] on the GPU of ``like``. Those from the host are checked; those on a GPU are not read, as that would
        wait for it, but clamped to what the kernels take."""
        if on_gpu(values):
            given = values if self.owns(values) else self.adopt(values)
            if self.dtype(given) not in ("int32", "int64"):
                raise TypeError(f"lengths: expected integers of 32 or 64 bits on a GPU, got {self.dtype(given)}")
            if tuple(given.shape) != (rows,):
                raise ValueError(f"lengths: expected shape ({rows},), got {tuple(given.shape)}")
            return self.integers(given.clip(0, steps), like)
        read = np.asarray(values)
        if read.dtype.kind not in "iu" and read.size:
            raise TypeError(f"lengths: expected integers, got {read.dtype}")
        if read.shape != (rows,):
            raise ValueError(f"lengths: expected shape ({rows},), got {read.shape}")
        if read.size and not 0 <= read.min() <= read.max() <= steps:
            raise ValueError(f"lengths: expected from 0 to {steps}, got {read.min()} to {read.max()}")
        return self.integers(np.array(read, np.int32), like)  # a copy: PyTorch takes no memory that is read-only

    def integers(self, values: Any, like: Any) -> Any:
        """An array of the host or of this library as int32 on the GPU of ``like``."""
        raise NotImplementedError

    def last_rows(self, a: Any, lengths: Any) -> Any:
        """[N, W]: of a [T, N, W], row n at its last step, and at step 0 where its length is 0."""
        raise NotImplementedError


class Torch(Library):
    """PyTorch."""

    name = "torch"

    def owns(self, value: Any) -> bool:
        return isinstance(value, self.xp.Tensor)

    def adopt(self, value: Any) -> Any:
        if hasattr(value, "__dlpack__"):
            return self.xp.from_dlpack(value)
        return self.xp.as_tensor(value, device="cuda")

    def address(self, a: Any) -> int:
        return int(a.data_ptr())

    def ordinal(self, a: Any) -> int:
        return int(a.get_device())

    def contiguous(self, a: Any) -> Any:
        return a.contiguous()

    def empty(self, shape: Sequence[int], like: Any, dtype: str | None = None) -> Any:
        return like.new_empty(tuple(shape), dtype=None if dtype is None else getattr(self.xp, dtype))

    @contextmanager
    def computing(self, like: Any) -> Iterator[None]:
        with self.xp.cuda.device_of(like), self.xp.autocast("cuda", enabled=False):
            yield

    @contextmanager
    def stream(self, like: Any) -> Iterator[int]:
        with self.xp.cuda.device_of(like):
            yield self.xp.cuda.current_stream(like.device).cuda_stream

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        return self.xp.nn.functional.linear(x, weight, bias)

    def total(self, a: Any) -> Any:
        return a.sum(0)

    def concatenate(self, parts: Sequence[Any]) -> Any:
        return self.xp.cat(tuple(parts))

    def integers(self, values: Any, like: Any) -> Any:
        tensor = values if self.owns(values) else self.xp.from_numpy(values)
        return tensor.to(like.device, self.xp.int32)

    def last_rows(self, a: Any, lengths: Any) -> Any:
        at = (lengths.long() - 1).clamp(min=0)
        return a.gather(0, at[None, :, None].expand(1, *a.shape[1:]))[0]


class CuPy(Library):
    """CuPy, or whatever has NumPy's functions. It has no bfloat16."""

    name = "cupy"

    def owns(self, value: Any) -> bool:
        return isinstance(value, self.xp.ndarray)

    def adopt(self, value: Any) -> Any:
        if hasattr(value, "__cuda_array_interface__"):
            return self.xp.asarray(value)
        return self.xp.from_dlpack(value)

    def address(self, a: Any) -> int:
        return int(a.data.ptr)

    def ordinal(self, a: Any) -> int:
        return int(a.device.id)

    def contiguous(self, a: Any) -> Any:
        with self.computing(a):
            return self.xp.ascontiguousarray(a)

    def empty(self, shape: Sequence[int], like: Any, dtype: str | None = None) -> Any:
        return self.xp.empty(tuple(shape), dtype or like.dtype)

    @contextmanager
    def computing(self, like: Any) -> Iterator[None]:
        with like.device:
            yield

    @contextmanager
    def stream(self, like: Any) -> Iterator[int]:
        with self.computing(like):
            yield self.xp.cuda.get_current_stream().ptr

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        out = x @ weight.T
        if bias is not None:
            out += bias
        return out

    def total(self, a: Any) -> Any:
        return a.sum(0, dtype=np.float32).astype(a.dtype)

    def concatenate(self, parts: Sequence[Any]) -> Any:
        return self.xp.concatenate(tuple(parts))

    def integers(self, values: Any, like: Any) -> Any:
        return self.xp.asarray(values, np.int32)

    def last_rows(self, a: Any, lengths: Any) -> Any:
        return a[(lengths - 1).clip(0, None), self.xp.arange(a.shape[1])]


def library_of(value: Any) -> Library:
    """The library whose array this is; of an array of neither, whichever is installed.

    Raises:
        RuntimeError: neither is.
    """
    for name, kind in (("torch", Torch), ("cupy", CuPy)):
        if name in sys.modules:
            library = kind(sys.modules[name])
            if library.owns(value):
                return library
    for name, kind in (("torch", Torch), ("cupy", CuPy)):
        if importlib.util.find_spec(name) is not None:
            return kind(importlib.import_module(name))
    raise RuntimeError("arrays on a GPU: expected PyTorch or CuPy to be installed, which multiplies and allocates them")


def read(library: Library, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays as the library's own, contiguous, all of one dtype on one GPU; None stays.

    Raises:
        TypeError, ValueError: which of them is not, by its name.
    """
    out: dict[str, Any] = {}
    first, dtype, ordinal = "", "", -1
    for name, value in arrays.items():
        out[name] = None
        if value is None:
            continue
        if not on_gpu(value):
            raise TypeError(f"{name}: expected an array on a GPU, got {_described(value)}")
        a = value if library.owns(value) else _adopted(library, name, value)
        if getattr(a, "requires_grad", False):
            raise TypeError(f"{name}: expected a tensor that records no gradients; use tensor.detach()")
        found = library.dtype(a)
        if found not in DTYPES:
            raise TypeError(f"{name}: expected float32, bfloat16 or float16 on a GPU, got {found}")
        if not first:
            first, dtype, ordinal = name, found, library.ordinal(a)
        if found != dtype:
            raise TypeError(f"{name}: expected {dtype} as {first}, got {found}")
        if library.ordinal(a) != ordinal:
            raise ValueError(f"{name}: expected to be on GPU {ordinal} as {first}, got GPU {library.ordinal(a)}")
        out[name] = library.contiguous(a)
    return out


def _adopted(library: Library, name: str, value: Any) -> Any:
    try:
        return library.adopt(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        hint = "; CuPy has no bfloat16, PyTorch has" if library.name == "cupy" else ""
        raise TypeError(f"{name}: expected an array that {library.name} can read: {error}{hint}") from error


def _described(value: Any) -> str:
    kind = type(value)
    place = " on the CPU" if isinstance(value, np.ndarray) or getattr(value, "is_cpu", False) else ""
    return f"{kind.__module__.split('.')[0]}.{kind.__name__}{place}"
