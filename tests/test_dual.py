"""Dual arrays: every rule against differences, and never a wrong derivative where there is no rule."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.differentiation import dual
from fusedrnn.differentiation.dual import Dual

MATRIX = np.linspace(0.5, 2, 4).reshape(2, 2)
FUNCTIONS = {
    "signs": lambda a: +(-a),
    "sums": lambda a: (a + 2) + (MATRIX + a) - (a - MATRIX) * 3 + (1 - a) - a.T,
    "products": lambda a: a * a[::-1] * 2 + MATRIX * a,
    "quotients": lambda a: a / (a[::-1] + 3) + 1 / a + a / MATRIX,
    "powers": lambda a: a**3 + a**0.5 + 2.0**a + a ** a[::-1] + np.square(a) + np.sqrt(a) + np.reciprocal(a),
    "exponentials": lambda a: np.exp(a) + np.expm1(-a) + np.log(a) + np.log1p(a),
    "logaddexp": lambda a: np.logaddexp(a, 0) + np.logaddexp(a, a[::-1]),
    "tanh": np.tanh,
    "absolute": lambda a: np.abs(a - 1.2),
    "maximum": lambda a: np.maximum(a, 1.2) + np.maximum(a[::-1], a) + np.minimum(a, 1.2) + np.minimum(1.3, a),
    "clip": lambda a: np.clip(a, 0.8, 1.3) + a.clip(-5, 1.3),
    "where": lambda a: np.where(a > 1, a, 2) + np.where(a >= 1, 0, a * a) + np.where([[True], [False]], MATRIX, a),
    "matmul": lambda a: a @ MATRIX + MATRIX @ a.T + a @ a + np.dot(a, MATRIX),
    "einsum": lambda a: np.einsum("ij,kj->ik", a, a) + np.einsum("ij,j->i", MATRIX, a[0]),
    "moments": lambda a: a.sum(axis=0) + a.mean(axis=1) + np.var(a, axis=1) + a.var(axis=0, keepdims=True) + np.sum(a),
    "means": lambda a: np.mean(a, axis=1) + np.sum(a, axis=0),
    "shapes": lambda a: a.reshape(-1).reshape(2, 2) + a.swapaxes(0, 1) + a.transpose(1, 0) + a.ravel().take([[0, 3]]),
    "reshapes": lambda a: np.reshape(a, (2, 2)) + np.swapaxes(a, 0, 1) + np.transpose(a) + np.take(np.ravel(a), [0, 3]),
    "joins": lambda a: np.concatenate([a, MATRIX, *np.split(a * a, 2, axis=1)[:0], np.stack([a[0], a[1]])])[:, None],
    "axes": lambda a: (
        np.squeeze(np.expand_dims(np.flip(a, 0), 1), 1).squeeze() + np.moveaxis(a, 0, 1) + np.repeat(a[:1], 2, axis=0)
    ),
    "repeats": lambda a: a.repeat(2, axis=1)[:, ::2],
    "copies": lambda a: a.copy() + np.copy(a) + a.astype(np.float64) + np.broadcast_to(a[0], (2, 2)),
}


def _assigned(a):
    new = np.empty((2, 2), a.dtype, like=a)
    new[0], new[1] = a[1] * a[0], 3
    new[1] += a[0]
    new += a
    new[:, :1] = np.where(new[:, :1] > 100, new[:, :1], 0)
    zeros = np.zeros_like(a) + np.zeros((2, 2), a.dtype, like=a)
    ones = np.ones((2, 2), a.dtype, like=a) + np.ones_like(a) + np.full_like(a, 2) + np.full((2, 2), 3, a.dtype, like=a)
    other = np.empty_like(a)
    other[...] = ones
    return new + (zeros + other) * a


FUNCTIONS["assignments"] = _assigned


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_agrees_with_differences(name):
    function = FUNCTIONS[name]
    a, v = np.array([[0.7, 1.1], [1.9, 1.6]]), np.array([[0.3, -1.2], [0.8, 0.5]])
    result, step = function(Dual(a, v)), 1e-6
    np.testing.assert_array_equal(result.value, function(a))
    numeric = (function(a + step * v) - function(a - step * v)) / (2 * step)
    np.testing.assert_allclose(result.tangent, np.broadcast_to(numeric, result.shape), rtol=1e-8, atol=1e-9)
    single = function(Dual(a.astype("f4"), v.astype("f4")))
    assert single.tangent.dtype == single.value.dtype


def test_the_rules_are_all_tried():
    """No rule that the functions above do not go through."""
    used = set()

    class Watched(Dual):
        def __array_ufunc__(self, ufunc, *args, **keywords):
            used.add(ufunc)
            return _watched(super().__array_ufunc__(ufunc, *args, **keywords))

        def __array_function__(self, function, *args):
            used.add(function)
            return _watched(super().__array_function__(function, *args))

        def __getitem__(self, index):
            return _watched(super().__getitem__(index))

        def __getattr__(self, name):
            used.add(name)
            return super().__getattr__(name)

    def _watched(result):
        if isinstance(result, list):
            return [_watched(member) for member in result]
        return Watched(result.value, result.tangent) if isinstance(result, Dual) else result

    for function in FUNCTIONS.values():
        function(Watched(MATRIX.copy(), MATRIX.copy()))
    assert dual._SLOPES.keys() <= used
    assert used >= dual._BILINEAR


def test_comparisons_are_plain():
    a = Dual(np.array([0.0, 1.0, np.nan]), np.ones(3))
    np.testing.assert_array_equal(a > 0.5, [False, True, False])
    np.testing.assert_array_equal(np.isnan(a), [False, False, True])
    np.testing.assert_array_equal(np.sign(a[:2]), [0, 1])
    assert (np.shape(a), a.ndim, a.size, len(a)) == ((3,), 1, 3, 3)


def test_slopes_at_kinks_are_the_librarys():
    zero = Dual(np.zeros(1), np.ones(1))
    assert np.maximum(zero, 0).tangent == 0
    e = np.exp(-np.abs(zero))
    assert (np.where(zero >= 0, 1, e) / (1 + e)).tangent == 0.25  # a sigmoid


@pytest.mark.parametrize(
    "use",
    [
        np.arctan,
        np.linalg.norm,
        np.cumprod,
        np.add.accumulate,
        lambda a: a.max(),
        lambda a: np.add(a, a, where=[True, False]),
        np.asarray,
        lambda a: np.zeros(2).__setitem__(slice(None), a),
        lambda a: np.zeros(2).__iadd__(a),
    ],
    ids=["ufunc", "linalg", "function", "accumulate", "method", "where", "asarray", "assigned", "added"],
)
def test_what_has_no_rule_is_an_error(use):
    with pytest.raises((TypeError, AttributeError), match=r"no rule for|fits into no plain one"):
        use(Dual(np.ones(2), np.ones(2)))
