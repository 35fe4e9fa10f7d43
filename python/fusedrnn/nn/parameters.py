"""Parameters, and the buffers in which they lie side by side.

Where a parameter lies is known to the parameter alone. Whoever works on many at once (an optimizer, clipping, a
Trainer) holds a `ParameterSet`, which asks them whenever any parameter has moved, so that nobody keeps a dead array:
sets may be parts of each other, overlap, be made in any order, and be copied together with what they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedrnn.arrays import Array

ALIGNMENT = 64  # bytes: a cache line, and the widest vector

_layout = object()  # another one whenever a parameter gets other arrays: what sets have found out holds until then


def _changed() -> None:
    global _layout
    _layout = object()


class Parameter:
    """A trained array and its gradient.

    Attributes:
        data: float32 or float64, C-contiguous. grad: same shape and dtype, zero at first. Ask for them each time, for
            they become views into a buffer when an optimizer is made. An array that is assigned takes their place, and
            optimizers move that one from then on; after one of another shape or dtype, with which ``grad`` becomes
            zeros, they refuse to.

    Raises:
        TypeError: an array of another dtype. ValueError: a ``grad`` of another shape than ``data``.
    """

    __slots__ = ("_place", "data", "grad")
    _place: _Place | None

    def __init__(self, data: Array) -> None:
        self._place = None
        self.data: Array = _real("data", data)
        self.grad: Array = np.zeros_like(self.data)

    def __setattr__(self, name: str, value: Any) -> None:
        held = getattr(self, name, None)
        if held is None or value is held or name not in ("data", "grad"):  # the same: as after p.grad += g
            object.__setattr__(self, name, value)
            return
        array = _real(name, value)
        if name == "grad" and not _alike(array, self.data):
            raise ValueError(
                f"grad: expected shape {self.data.shape} and dtype {self.data.dtype} as data has, got {array.shape} "
                f"and {array.dtype}"
            )
        object.__setattr__(self, name, array)
        if not _alike(self.grad, self.data):
            object.__setattr__(self, "grad", np.zeros_like(self.data))
        _changed()

    @property
    def place(self) -> _Place | None:
        """Where it lies in a buffer; None where it has arrays of its own, or assigned ones."""
        place = self._place
        return place if place is not None and place.data is self.data and place.grad is self.grad else None

    def drop_grad(self) -> None:
        """Keep no gradient, as a copy that is never trained."""
        object.__setattr__(self, "grad", np.empty(0, self.data.dtype))
        _changed()

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


def _real(name: str, data: Any) -> Array:
    if not isinstance(data, np.ndarray):
        raise TypeError(f"{name}: expected an array of dtype float32 or float64, got {type(data).__name__}")
    if data.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {data.dtype}")
    array: Array = np.ascontiguousarray(data)
    return array if array.flags.writeable else array.copy()


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)


class _Place(NamedTuple):
    """Where a parameter lies: a buffer of values and one of gradients, the first element there, and its views."""

    buffer: tuple[Array, Array]
    start: int
    data: Array
    grad: Array

    # A copied parameter has arrays of its own, and lies in no buffer until somebody asks for one.

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nowhere, ()


def _nowhere() -> None:
    return None


def _bring_together(parameters: Iterable[Parameter], starts: list[int], dtype: np.dtype[Any]) -> None:
    """Move parameters into one new buffer, wherever they lay."""
    buffer = _aligned_zeros(starts[-1], dtype), _aligned_zeros(starts[-1], dtype)
    for p, start in zip(parameters, starts, strict=False):
        part = slice(start, start + p.data.size)
        data, grad = (a[part].reshape(p.data.shape) for a in buffer)
        data[...], grad[...] = p.data, p.grad
        p.data, p.grad, p._place = data, grad, _Place(buffer, start, data, grad)
    _changed()


# Neighbours in a set that are neighbours in memory too, or one parameter on its own: 1-D views of their data and grad,
# gaps included, and which of the set's elements they are, None for all.
Run: TypeAlias = "tuple[Array, Array, slice | None]"


class ParameterSet:
    """Parameters in a certain order, wherever they lie. What is kept for each of them, such as an optimizer's moments,
    is laid out in arrays of ``size`` elements in that order, every parameter starting on a 64-byte boundary.

    Args:
        parameters: all of one dtype, each given once.

    Attributes:
        parameters: a tuple of them. dtype: theirs. size: elements of all, gaps included. shapes: a list of theirs.

    Raises:
        ValueError: no parameters, one given twice, or one without gradient. TypeError: parameters of two dtypes.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        if not self.parameters:
            raise ValueError("parameters: expected at least one, got none")
        if len(set(self.parameters)) < len(self.parameters):
            twice = next(p for i, p in enumerate(self.parameters) if p in self.parameters[:i])
            raise ValueError(
                f"parameters: expected each once, got {twice!r} twice; of tied ones give one, as model.parameters() "
                "does, or list(dict.fromkeys(parameters))"
            )
        if any(p.grad.shape != p.data.shape for p in self.parameters):
            raise ValueError("parameters: expected trainable ones, got one of a frozen copy, which has no gradient")
        dtypes = {p.data.dtype for p in self.parameters}
        if len(dtypes) > 1:
            names = " and ".join(sorted(map(str, dtypes)))
            raise TypeError(f"parameters: expected one dtype for all, got {names}")
        self.dtype: np.dtype[Any] = dtypes.pop()
        self.shapes = [p.data.shape for p in self.parameters]
        step = ALIGNMENT // self.dtype.itemsize
        self._starts = [0]
        for p in self.parameters:
            self._starts.append(self._starts[-1] + -(-p.data.size // step) * step)
        self.size = self._starts[-1]
        self._runs: tuple[Run, ...] = ()
        self._seen: object = None  # the layout in which the runs were found

    def runs(self) -> tuple[Run, ...]:
        """Where the parameters lie now, in as few pieces as that allows; together they are ``size`` elements but for
        gaps.

        Raises ValueError where one has got another shape or dtype since the set was made.
        """
        if self._seen is not _layout:
            seen = _layout  # taken first: a thread that moves a parameter meanwhile makes us look again
            self._runs = self._find()
            self._seen = seen
        return self._runs

    def _find(self) -> tuple[Run, ...]:
        self._check()
        runs: list[Run] = []
        buffer, shift, begin = None, 0, 0  # of the last piece: its buffer, how far that lies behind the set, its start
        for p, start, stop in zip(self.parameters, self._starts, self._starts[1:], strict=False):
            place = p.place
            if place is None:
                buffer = None
                runs.append((p.data.reshape(-1), p.grad.reshape(-1), self._part(start, start + p.data.size)))
                continue
            if place.buffer is buffer and place.start - start == shift:
                runs.pop()
            else:
                buffer, shift, begin = place.buffer, place.start - start, start
            here = slice(shift + begin, shift + stop)
            runs.append((buffer[0][here], buffer[1][here], self._part(begin, stop)))
        return tuple(runs)

    def _part(self, start: int, stop: int) -> slice | None:
        return None if stop - start == self.size else slice(start, stop)

    def _check(self) -> None:
        for p, shape in zip(self.parameters, self.shapes, strict=True):
            if not self._fits(p, shape):
                raise ValueError(
                    f"parameters: one had shape {shape} and dtype {self.dtype} when its optimizer was made (or "
                    f"flatten() called), and has {p.data.shape} and {p.data.dtype} now: make a new optimizer"
                )

    def _fits(self, p: Parameter, shape: tuple[int, ...]) -> bool:
        return p.data.shape == shape and p.data.dtype == self.dtype and p.grad.shape == shape

    def holds(self, parameters: tuple[Parameter, ...]) -> bool:
        """Whether these are its parameters, in this order, and of the shapes and dtype that they had."""
        if self.parameters != parameters:
            return False
        return self._seen is _layout or all(map(self._fits, parameters, self.shapes))

    def joined_grad(self) -> Array:
        """The gradients of all, 1-D [size], the gaps zero: a copy where they lie in more than one piece."""
        joined: Array | None = None
        for _, grad, part in self.runs():
            if part is None:
                return grad
            if joined is None:
                joined = _aligned_zeros(self.size, self.dtype)
            joined[part] = grad
        assert joined is not None
        return joined

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, grad, _ in self.runs():
            grad.fill(0)

    def __getstate__(self) -> dict[str, Any]:
        # A copy's parameters lie elsewhere.
        return {**self.__dict__, "_runs": (), "_seen": None}


class FlatParameters(ParameterSet):
    """A set that moves its parameters into one buffer, their gradients into another, unless all lie in one already, be
    it a larger one: the optimizer is one pass, zeroing one memset, a checkpoint one write.

    Args:
        parameters: all of one dtype, each given once. Their ``data`` and ``grad`` become views.

    Attributes:
        data, grad: 1-D [size], 64-byte aligned; every parameter starts on such a boundary and the gaps stay zero.
            They are views of where the parameters lie now; those that lie in several buffers, or not in this order,
            are moved into one first. Ask for them each time.

    Raises:
        ValueError: as ``ParameterSet``, or two parameters that share an array. TypeError: parameters of two dtypes.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        super().__init__(parameters)
        places = [p.data.ctypes.data for p in self.parameters if p.data.size]
        if len(set(places)) < len(places):
            raise ValueError(
                "parameters: expected an array for each, got two that share one; tie them by assigning the Parameter "
                "itself, as in head.weight = embedding.weight"
            )
        self.gather()

    def gather(self) -> None:
        """Move the parameters into one buffer, unless they lie in one, which may have others beside and between them.

        Raises ValueError where one has got another shape or dtype since the set was made.
        """
        self._check()
        places = [p.place for p in self.parameters]
        if len({id(place and place.buffer) for place in places}) > 1 or places[0] is None:
            self._move()
        self.runs()

    def _find(self) -> tuple[Run, ...]:
        self._check()
        if any(p._place is None for p in self.parameters):  # of a copy; those in several buffers may stay there
            self._move()
        return super()._find()

    def _move(self) -> None:
        _bring_together(self.parameters, self._starts, self.dtype)

    def _whole(self) -> Run:
        if self.runs()[0][2] is not None:  # not all of them
            self._move()
        return self.runs()[0]

    @property
    def data(self) -> Array:
        """The values of all, 1-D [size]."""
        return self._whole()[0]

    @property
    def grad(self) -> Array:
        """The gradients of all, 1-D [size]."""
        return self._whole()[1]
