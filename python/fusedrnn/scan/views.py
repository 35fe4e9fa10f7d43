"""Values that are the elements of another one, read with strides: what needs no instruction of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from fusedrnn.scan.graph import Shape, Value


def c_strides(shape: Shape) -> tuple[int, ...]:
    """Strides in elements of an array that lies in C order."""
    strides = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class View:
    """An element of `shape` at place p is that of ``base`` at offset + sum(p * strides), counted in C order."""

    base: Value
    offset: int
    shape: Shape
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """Whether its elements follow each other in C order."""
        expected = c_strides(self.shape)
        return all(n == 1 or s == e for n, s, e in zip(self.shape, self.strides, expected, strict=True))

    @property
    def whole(self) -> bool:
        """Whether it is all of its base, in its order."""
        return self.offset == 0 and self.contiguous and self.base.size == prod(self.shape)


def is_free(value: Value) -> bool:
    """Whether the instruction may be a view of what it reads."""
    if value.op in ("reshape", "transpose", "slice", "broadcast", "as_real", "stop_gradient"):
        return True
    return value.op == "as_integer" and value.inputs[0].kind != "real"


def view_of(value: Value, own: Collection[Value]) -> View:
    """Where a value's elements are; those in `own` have memory of their own."""
    if value in own or not is_free(value):
        return View(value, 0, value.shape, c_strides(value.shape))
    inner = view_of(value.inputs[0], own)
    strides: tuple[int, ...] | None
    if value.op == "transpose":
        (axes,) = value.attributes
        return View(inner.base, inner.offset, value.shape, tuple(inner.strides[axis] for axis in axes))
    if value.op == "slice":
        starts, steps = value.attributes
        offset = inner.offset + sum(start * stride for start, stride in zip(starts, inner.strides, strict=True))
        strides = tuple(step * stride for step, stride in zip(steps, inner.strides, strict=True))
        return View(inner.base, offset, value.shape, strides)
    if value.op == "broadcast":
        new = len(value.shape) - len(inner.shape)
        kept = tuple(
            0 if n == 1 and m != 1 else s for n, m, s in zip(inner.shape, value.shape[new:], inner.strides, strict=True)
        )
        return View(inner.base, inner.offset, value.shape, (0,) * new + kept)
    if value.op == "reshape":
        strides = reshaped_strides(inner.shape, inner.strides, value.shape)
        if strides is None:
            return View(value, 0, value.shape, c_strides(value.shape))
        return View(inner.base, inner.offset, value.shape, strides)
    return inner  # the same numbers under another kind


def reshaped_strides(shape: Shape, strides: tuple[int, ...], new: Shape) -> tuple[int, ...] | None:
    """Strides of a view in another shape of as many elements; None where it would have to be copied."""
    merged: list[list[int]] = []  # [elements, stride] of axes that follow each other without a gap
    for n, stride in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if merged and merged[-1][1] == stride * n:
            merged[-1] = [merged[-1][0] * n, stride]
        else:
            merged.append([n, stride])
    found: list[int] = []
    for n in reversed(new):
        if n == 1:
            found.append(0)
            continue
        while merged and merged[-1][0] == 1:
            merged.pop()
        if not merged or merged[-1][0] % n:
            return None if prod(new) else tuple(c_strides(new))
        found.append(merged[-1][1])
        merged[-1] = [merged[-1][0] // n, merged[-1][1] * n]
    return tuple(reversed(found))


def collapsed(shape: Shape, *strides: tuple[int, ...]) -> tuple[list[int], list[list[int]]]:
    """Fewer axes for the same walk: sizes, and the strides of each array over them. At least one axis remains."""
    sizes: list[int] = []
    walks: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if sizes and all(walk[-1] == s[axis] * n for walk, s in zip(walks, strides, strict=True)):
            sizes[-1] *= n
            for walk, s in zip(walks, strides, strict=True):
                walk[-1] = s[axis]
            continue
        sizes.append(n)
        for walk, s in zip(walks, strides, strict=True):
            walk.append(s[axis])
    if not sizes:
        return [1], [[0] for _ in strides]
    return sizes, walks
