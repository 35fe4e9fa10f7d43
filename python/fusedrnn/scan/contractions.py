"""Products of matrices and their relatives, all as one instruction: matmul, dot, inner, outer, tensordot, einsum."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import implements, refused
from fusedrnn.scan.traced import lift


def matmul(a: Value, b: Value) -> Value:
    """Stand for ``numpy.matmul``. Integers, which have no instruction for it, by sums of products."""
    if "real" in (a.kind, b.kind) or not a.ndim or not b.ndim:
        return ins.matmul(a, b)
    left = ins.as_integer(a if a.ndim > 1 else ins.reshape(a, (1, *a.shape)))
    right = ins.as_integer(b if b.ndim > 1 else ins.reshape(b, (*b.shape, 1)))
    if left.shape[-1] != right.shape[-2]:
        raise ins.ShapeError(f"shapes {a.shape} and {b.shape} do not fit a matrix product")
    products = ins.multiply(
        ins.reshape(left, (*left.shape, 1)), ins.reshape(right, (*right.shape[:-2], 1, *right.shape[-2:]))
    )
    y = ins.sum_(products, [-2])
    shape = list(y.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return ins.reshape(y, shape)


@implements(np.dot)
def dot(a: Any, b: Any) -> Value:
    """Stand for ``numpy.dot``."""
    x, y = lift(a), lift(b)
    if not x.ndim or not y.ndim:
        return ins.multiply(x, y)
    if y.ndim <= 2:
        return matmul(x, y)
    rest = y.shape[:-2] + y.shape[-1:]
    axes = (y.ndim - 2, *range(y.ndim - 2), y.ndim - 1)
    flat = ins.reshape(ins.transpose(y, axes), (y.shape[-2], prod(rest)))
    return ins.reshape(matmul(x, flat), x.shape[:-1] + rest)


@implements(np.vdot)
def vdot(a: Any, b: Any) -> Value:
    """Stand for ``numpy.vdot``."""
    x, y = lift(a), lift(b)
    return matmul(ins.reshape(x, (-1,)), ins.reshape(y, (-1,)))


@implements(np.inner)
def inner(a: Any, b: Any) -> Value:
    """Stand for ``numpy.inner``."""
    x, y = lift(a), lift(b)
    if not x.ndim or not y.ndim:
        return ins.multiply(x, y)
    return tensordot(a, b, axes=(-1, -1))


@implements(np.outer)
def outer(a: Any, b: Any) -> Value:
    """Stand for ``numpy.outer``."""
    x, y = lift(a), lift(b)
    return ins.multiply(ins.reshape(x, (x.size, 1)), ins.reshape(y, (1, y.size)))


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Value:
    """Stand for ``numpy.tensordot``."""
    x, y = lift(a), lift(b)
    if isinstance(axes, int):
        of_x, of_y = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    else:
        of_x, of_y = ([each] if isinstance(each, int) else list(each) for each in axes)
    of_x, of_y = [ins.axis_of(x, axis) for axis in of_x], [ins.axis_of(y, axis) for axis in of_y]
    left = [axis for axis in range(x.ndim) if axis not in of_x]
    right = [axis for axis in range(y.ndim) if axis not in of_y]
    if [x.shape[axis] for axis in of_x] != [y.shape[axis] for axis in of_y]:
        raise ins.ShapeError(f"axes {axes} of shapes {x.shape} and {y.shape} differ in size")
    k = prod(x.shape[axis] for axis in of_x)
    y = ins.reshape(ins.transpose(y, of_y + right), (k, -1) if k else (k, prod(y.shape[axis] for axis in right)))
    shape = tuple(x.shape[axis] for axis in left)
    kept = tuple(lift(b).shape[axis] for axis in right)
    return ins.reshape(matmul(ins.reshape(ins.transpose(x, left + of_x), (prod(shape), k)), y), shape + kept)


@implements(np.einsum)
def einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Value:
    """Stand for ``numpy.einsum`` with subscripts in a string, letters that name each axis of an operand once, no "...".

    Operands are joined from the left, two at a time.
    """
    if not isinstance(subscripts, str) or "." in subscripts:
        raise refused("np.einsum without letters for all axes", 'Write the subscripts in full, such as "mw,w->m"')
    text, arrow, target = subscripts.replace(" ", "").partition("->")
    terms = text.split(",")
    if len(terms) != len(operands):
        raise ins.ShapeError(f"expected {len(terms)} operands for {subscripts!r}, got {len(operands)}")
    if not arrow:
        target = "".join(sorted(letter for letter in set(text) - {","} if text.count(letter) == 1))
    values = [lift(operand) for operand in operands]
    for term, value in zip(terms, values, strict=True):
        if len(term) != value.ndim:
            raise ins.ShapeError(f"expected {len(term)} axes for {term!r}, got shape {value.shape}")
        if len(set(term)) != len(term):
            raise refused(f"a diagonal in np.einsum ({term!r})", "Multiply by np.eye, and sum")
    if set(target) - set(text) or len(set(target)) != len(target):
        raise ins.ShapeError(f"the result {target!r} does not follow from {text!r}")
    letters, value = terms[0], values[0]
    for place in range(1, len(values)):
        later = target + "".join(terms[place + 1 :])
        letters, value = _joined(letters, value, terms[place], values[place], later)
    letters, value = _summed(letters, value, target)
    return ins.transpose(value, [letters.index(letter) for letter in target])


def _summed(letters: str, value: Value, kept: str) -> tuple[str, Value]:
    """Sum over the axes whose letters are not kept."""
    axes = [axis for axis, letter in enumerate(letters) if letter not in kept]
    if not axes:
        return letters, value
    return "".join(letter for letter in letters if letter in kept), ins.sum_(value, axes)


def _joined(a: str, x: Value, b: str, y: Value, later: str) -> tuple[str, Value]:
    """Contract two operands over the letters that nothing later needs."""
    a, x = _summed(a, x, b + later)
    b, y = _summed(b, y, a + later)
    sizes: dict[str, int] = {}
    for letter, n in [*zip(a, x.shape, strict=True), *zip(b, y.shape, strict=True)]:
        if sizes.setdefault(letter, n) != n and 1 not in (n, sizes[letter]):
            raise ins.ShapeError(f"axis {letter!r} has sizes {sizes[letter]} and {n}")
        sizes[letter] = max(n, sizes[letter])
    x = ins.broadcast(x, tuple(sizes[letter] for letter in a))
    y = ins.broadcast(y, tuple(sizes[letter] for letter in b))
    lead = [letter for letter in a if letter in b and letter in later]
    over = [letter for letter in a if letter in b and letter not in later]
    left = [letter for letter in a if letter not in b]
    right = [letter for letter in b if letter not in a]

    def arranged(letters: str, value: Value, order: Sequence[str], shape: Sequence[int]) -> Value:
        moved = ins.transpose(value, [letters.index(letter) for letter in order])
        return ins.reshape(moved, shape)

    def size(group: Sequence[str]) -> int:
        return prod(sizes[letter] for letter in group)

    order = [*lead, *left, *right]
    shape = [sizes[letter] for letter in order]
    batch = [sizes[letter] for letter in lead]
    if not over:  # a product of elements
        product = ins.multiply(
            arranged(a, x, lead + left, [*batch, size(left), 1]), arranged(b, y, lead + right, [*batch, 1, size(right)])
        )
    else:
        product = matmul(
            arranged(a, x, lead + left + over, [*batch, size(left), size(over)]),
            arranged(b, y, lead + over + right, [*batch, size(over), size(right)]),
        )
    return "".join(order), ins.reshape(product, shape)
