"""exp, log, sin and their like of the kernels, swept against higher precision, in ulp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

# Largest error in ulp over normal results: the bounds that csrc/kernels/math.hpp, logarithm.hpp and
# trigonometric.hpp state.
BOUNDS = {
    **{"exp": 1.25, "sigmoid": 2.5, "tanh": 3.0, "softplus": 3.5},
    **{"log": 1.0, "log1p": 1.0, "expm1": 2.0, "sin": 2.0, "cos": 2.0},
}

functions = pytest.mark.parametrize("name", list(BOUNDS))


@pytest.fixture
def sweep():
    from fusedrnn import _core

    return _core.math_sweep


def _truth(name: str, x: np.ndarray) -> np.ndarray:
    """In the precision of x, which is wider than the precision under test."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        if name in ("log", "log1p", "expm1", "sin", "cos"):
            return getattr(np, name)(x)
        e = np.exp(-np.abs(x))
        if name == "exp":
            return np.exp(x)
        if name == "sigmoid":
            return np.where(x >= 0, 1, e) / (1 + e)
        if name == "tanh":
            return np.tanh(x)
        return np.maximum(x, 0) + np.log1p(e)


def _check(name: str, x: np.ndarray, sweep: Any, truth: np.ndarray, each_isa: Any) -> None:
    """Normal results within the bound; results below the smallest normal number may be flushed to zero."""
    tiny = np.finfo(x.dtype).tiny
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = truth.astype(x.dtype)
        infinite = np.isinf(rounded)
        normal = np.isfinite(rounded) & (np.abs(rounded) >= tiny)
        small = np.abs(rounded) < tiny
    spacing = np.spacing(np.abs(rounded[normal]))
    for isa in each_isa():
        ours = sweep(name, x)
        assert ours.dtype == x.dtype
        assert ours.shape == x.shape
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(rounded), err_msg=isa)
        np.testing.assert_array_equal(ours[infinite], rounded[infinite], err_msg=isa)
        ulp = np.abs(ours[normal].astype(truth.dtype) - truth[normal]) / spacing
        worst = int(np.argmax(np.where(np.isnan(ulp), np.inf, ulp)))
        at = f"{name}({float(x[normal][worst])!r}) on {isa}"
        assert ulp[worst] <= BOUNDS[name], f"{at}: {float(ulp[worst]):.3f} ulp, bound {BOUNDS[name]}"
        assert (np.abs(ours[small]) <= tiny).all(), isa


@functions
def test_float32_over_its_whole_range(name, each_isa, sweep):
    """Every 1009th bit pattern: all exponents, both signs, NaN and infinity; 1009 is prime."""
    x = np.arange(0, 2**32, 1009, dtype=np.uint32).view(np.float32)
    x[np.abs(x) < np.finfo(np.float32).tiny] = 0  # as which they count
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
    _check(name, x, sweep, _truth(name, wide), each_isa)


@functions
def test_float32_densely_where_the_function_bends(name, each_isa, sweep):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-width, width, 200_000) for width in (1, 10, 105)]).astype(np.float32)
    _check(name, x, sweep, _truth(name, x.astype(np.float64)), each_isa)


@functions
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="this machine's long double is no wider than a double")
def test_float64_against_long_double(name, each_isa, sweep):
    rng = np.random.default_rng(1)
    parts = [rng.uniform(-width, width, 30_000) for width in (1e-3, 1, 20, 750)]
    signs = rng.choice([-1.0, 1.0], 30_000)
    x = np.concatenate([*parts, signs * 10 ** rng.uniform(-300, 300, 30_000)])
    _check(name, x, sweep, _truth(name, x.astype(np.longdouble)), each_isa)


@functions
def test_special_values(name, dtype, isa, sweep):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    expected = {
        "exp": [np.nan, np.inf, 0, 1, 1],
        "sigmoid": [np.nan, 1, 0, 0.5, 0.5],
        "tanh": [np.nan, 1, -1, 0.0, -0.0],
        "softplus": [np.nan, np.inf, 0, np.log(2), np.log(2)],
        "log": [np.nan, np.inf, np.nan, -np.inf, -np.inf],
        "log1p": [np.nan, np.inf, np.nan, 0.0, -0.0],
        "expm1": [np.nan, np.inf, -1, 0.0, -0.0],
        "sin": [np.nan, np.nan, np.nan, 0.0, -0.0],
        "cos": [np.nan, np.nan, np.nan, 1, 1],
    }[name]
    ours = sweep(name, x)
    np.testing.assert_allclose(ours, np.array(expected, dtype), rtol=4 * np.finfo(dtype).eps, atol=0)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(ours[known]), np.signbit(np.array(expected, dtype)[known]))


@functions
def test_the_place_in_a_vector_changes_nothing(name, dtype, isa, sweep):
    """Full vectors and every length of tail give the same bits for the same number."""
    x = np.linspace(-30, 30, 67).astype(dtype)
    whole = sweep(name, x)
    for length in range(1, 35):
        for start in (0, 1, 5):
            np.testing.assert_array_equal(sweep(name, x[start : start + length].copy()), whole[start:][:length])
