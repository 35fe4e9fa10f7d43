"""The mixture density loss beside its reference and finite differences, its limits, and the sampler."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import mixture_density_loss, mixture_density_sample, nn, reference


def problem(rows, K, dtype="f8", seed=0):
    """Parameters [rows, 6K + 1], target [rows, 3] and weights [rows] whose every third is zero."""
    rng = np.random.default_rng(seed)
    parameters = rng.standard_normal((rows, 6 * K + 1))
    target = np.column_stack([rng.standard_normal((rows, 2)), rng.random(rows) < 0.3])
    weights = rng.random(rows) * (np.arange(rows) % 3 > 0)
    return parameters.astype(dtype), target.astype(dtype), weights.astype(dtype)


def one_component(mu=(0, 0), log_sigma=(0, 0), r=0.0, end=0.0, dtype="f8"):
    return np.array([[0, *mu, *log_sigma, r, end]], dtype)


# loss


@pytest.mark.parametrize("K", [1, 2, 5, 8, 17, 20])
def test_value_and_gradient_are_the_references(K, dtype, isa):
    parameters, target, weights = problem(7, K, dtype)
    for given in (None, weights, np.column_stack([weights, weights[::-1]])):
        loss, gradient = mixture_density_loss(parameters, target, given)
        exact = [None if a is None else a.astype("f8") for a in (parameters, target, given)]
        wanted, wanted_gradient = reference.mixture_density_loss(*exact)
        assert gradient.dtype == dtype
        tolerance = 1e-12 if dtype == np.float64 else 2e-6
        assert loss == pytest.approx(wanted, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(gradient, wanted_gradient, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("module", ["kernels", "reference"])
def test_gradient_is_that_of_finite_differences(module, finite_differences):
    parameters, target, weights = problem(6, 3)
    parameters[3:] *= 4  # some of them beyond the limits
    loss = mixture_density_loss if module == "kernels" else reference.mixture_density_loss
    assert (np.abs(parameters[:, 9:15] + 2) > 5).any()
    assert (np.abs(parameters[:, 15:18]) > 3.9).any()
    numeric = finite_differences(
        lambda v: (np.float64(loss(v["parameters"], target, weights)[0]),), {"parameters": parameters}, (1.0,)
    )["parameters"]
    np.testing.assert_allclose(loss(parameters, target, weights)[1], numeric, rtol=1e-6, atol=1e-5)


def test_a_single_gaussian_is_the_textbooks(isa):
    mean, sigma, rho = np.array([0.3, -1.2]), np.array([0.5, 2.0]), 0.7
    covariance = np.array([[sigma[0] ** 2, rho * sigma.prod()], [rho * sigma.prod(), sigma[1] ** 2]])
    point = np.array([1.0, 0.4])
    offset = point - mean
    log_density = -0.5 * (
        offset @ np.linalg.solve(covariance, offset) + np.log(np.linalg.det(covariance)) + 2 * np.log(2 * np.pi)
    )
    parameters = one_component(mean, np.log(sigma), np.arctanh(rho), end=np.log(3))
    for end, chance in ((1, 0.75), (0, 0.25)):
        loss, _ = mixture_density_loss(parameters, np.array([[*point, end]]))
        assert loss == pytest.approx(-log_density - np.log(chance), rel=1e-12)


def test_density_integrates_to_one():
    """A wrong sign of rho or a factor of the density would show."""
    parameters, _, _ = problem(1, 4)
    parameters[:, 12:20] = 0.3 * parameters[:, 12:20] - 0.5
    parameters[:, -1] = -800  # no end: its factor is one
    axis = np.arange(-8, 8, 0.1)
    points = np.stack([*np.meshgrid(axis, axis), np.zeros((axis.size, axis.size))], -1).reshape(-1, 3)
    densities = [np.exp(-mixture_density_loss(parameters, point[None])[0]) for point in points]
    assert sum(densities) * 0.1**2 == pytest.approx(1, abs=1e-6)


def test_correlations_near_one_lose_no_digits(isa):
    """x = y under rho = 0.999: in z1^2 + z2^2 - 2 rho z1 z2 three digits of float32 would cancel."""
    parameters = one_component(r=9, dtype="f4")
    target = np.array([[3, 3, 0]], "f4")
    loss, gradient = mixture_density_loss(parameters, target)
    wanted, wanted_gradient = reference.mixture_density_loss(parameters.astype("f8"), target.astype("f8"))
    assert loss == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)


def test_a_point_far_away_has_a_gradient(dtype, isa):
    """Densities themselves would underflow to zero, and with them the gradient exactly where it is needed."""
    parameters = one_component(log_sigma=(-7, -7), dtype=dtype)
    loss, gradient = mixture_density_loss(parameters, np.array([[3, 0, 0]], dtype))
    z = 3 * np.exp(7.0)
    assert loss == pytest.approx(z * z / 2 + np.log(2 * np.pi) - 14 + np.log(2), rel=1e-5)
    assert gradient[0, 1] == pytest.approx(-z * np.exp(7.0), rel=1e-5)


def test_extreme_parameters_stay_finite(dtype, isa):
    rng = np.random.default_rng(0)
    for size in (1e3, 1e10, 1e30):
        parameters = (size * rng.choice([-1, 0, 1], (50, 6 * 5 + 1))).astype(dtype)
        target = np.column_stack([size * rng.standard_normal((50, 2)), rng.random(50) < 0.5]).astype(dtype)
        loss, gradient = mixture_density_loss(parameters, target)
        assert np.isfinite(loss), size
        assert np.isfinite(gradient).all(), size


def test_a_density_beside_large_logits_is_not_lost(dtype, isa):
    """It is of the order of one where the logits are so large that one is below their last digit."""
    base = {"float32": 2.0**26, "float64": 2.0**55}[np.dtype(dtype).name]
    parameters, target, _ = problem(50, 5, dtype)
    parameters[:, :5] = 0
    wanted, wanted_gradient = mixture_density_loss(parameters, target)
    parameters[:, :5] = base
    loss, gradient = mixture_density_loss(parameters, target)
    assert loss == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)


def test_limits_of_sigma_and_rho(dtype, isa):
    target = np.array([[0.5, 0.25, 0]], dtype)
    for name, inside, beyond in (("log_sigma", (-7, 3), (-9, 30)), ("r", np.arctanh(0.999), 20)):
        at = mixture_density_loss(one_component(**{name: inside}, dtype=dtype), target)
        outside = mixture_density_loss(one_component(**{name: beyond}, dtype=dtype), target)
        assert outside[0] == pytest.approx(at[0], rel=1e-5)
        columns = slice(3, 5) if name == "log_sigma" else slice(5, 6)
        assert (outside[1][0, columns] == 0).all()
    duplicate = mixture_density_loss(one_component(log_sigma=(-50, -50), dtype=dtype), np.zeros((1, 3), dtype))[0]
    assert duplicate == pytest.approx(np.log(2 * np.pi) - 14 + np.log(2), rel=1e-5)  # and not minus infinity


def test_weights_of_points_and_end_flags_apart(dtype, isa):
    parameters, target, weights = problem(9, 4, dtype)
    none = np.zeros_like(weights)
    both = mixture_density_loss(parameters, target, np.column_stack([weights, weights]))
    whole = mixture_density_loss(parameters, target, weights)
    assert both[0] == whole[0]
    np.testing.assert_array_equal(both[1], whole[1])
    nowhere = target.copy()
    nowhere[:, :2] = np.nan
    flags, of_flags = mixture_density_loss(parameters, nowhere, np.column_stack([none, weights]))
    x = parameters[:, -1].astype("f8")
    assert flags == pytest.approx(float(weights @ (np.logaddexp(0, x) - x * target[:, 2])), rel=1e-5)
    assert (of_flags[:, :-1] == 0).all()
    never = target.copy()
    never[:, 2] = np.nan
    points, of_points = mixture_density_loss(parameters, never, np.column_stack([weights, none]))
    assert (of_points[:, -1] == 0).all()
    assert points + flags == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_array_equal(of_points + of_flags, whole[1])


def test_rows_of_weight_zero_hold_anything(dtype, isa):
    parameters, target, weights = problem(9, 4, dtype)
    loss, gradient = mixture_density_loss(parameters, target, weights)
    parameters[weights == 0], target[weights == 0] = np.nan, np.inf
    again, same = mixture_density_loss(parameters, target, weights)
    assert again == loss
    np.testing.assert_array_equal(same, gradient)
    assert (gradient[weights == 0] == 0).all()
    kept = weights > 0
    assert mixture_density_loss(parameters[kept], target[kept], weights[kept])[0] == pytest.approx(loss, rel=1e-14)


def test_nan_shows(isa):
    for column in range(13):
        parameters, target, _ = problem(3, 2)
        parameters[1, column] = np.nan
        loss, gradient = mixture_density_loss(parameters, target)
        assert np.isnan(loss), column
        assert np.isnan(gradient[1]).any()
        assert np.isfinite(gradient[[0, 2]]).all()


def test_a_row_does_not_depend_on_the_others_nor_on_threads(dtype, isa, threads):
    parameters, target, weights = problem(2000, 20, dtype)
    threads(1)
    loss, gradient = mixture_density_loss(parameters, target, weights)
    threads(2)
    again, same = mixture_density_loss(parameters, target, weights)
    assert again == loss
    np.testing.assert_array_equal(same, gradient)
    part = slice(700, 731)
    np.testing.assert_array_equal(
        mixture_density_loss(parameters[part], target[part], weights[part])[1], gradient[part]
    )


def test_leading_axes_and_foreign_arrays():
    parameters, target, weights = problem(12, 2)
    flat, gradient = mixture_density_loss(parameters, target, weights)
    loss, shaped = mixture_density_loss(
        parameters.reshape(3, 4, 13), target.reshape(3, 4, 3), memoryview(weights.reshape(3, 4))
    )
    assert loss == flat
    np.testing.assert_array_equal(shaped, gradient.reshape(3, 4, 13))
    single, alone = mixture_density_loss(parameters[1], target[1])
    assert single == mixture_density_loss(parameters[1:2], target[1:2])[0]
    assert alone.shape == (13,)
    assert mixture_density_loss(parameters[:0], target[:0])[0] == 0


@pytest.mark.parametrize("function", [mixture_density_loss, reference.mixture_density_loss])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": np.ones((4, 12))}, r"parameters: expected .*6K \+ 1.*, got .*\(4, 12\)"),
        ({"parameters": np.ones((4, 1))}, r"parameters: expected .*6K \+ 1"),
        ({"target": np.ones((4, 2))}, r"target: expected shape \(4, 3\), got \(4, 2\)"),
        ({"weights": np.ones((4, 1))}, r"weights: expected shape \(4, 2\), got \(4, 1\)"),
        ({"weights": np.ones(3)}, r"weights: expected shape \(4,\), got \(3,\)"),
    ],
)
def test_bad_shapes_are_named(function, change, message):
    arguments = {"parameters": np.ones((4, 13)), "target": np.ones((4, 3)), "weights": np.ones(4), **change}
    with pytest.raises(ValueError, match=message):
        function(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"parameters": [1.0]}, TypeError, "parameters: expected a NumPy array, got list"),
        ({"parameters": np.array(1.0)}, ValueError, "parameters: expected shape"),
        ({"parameters": np.ones((4, 13), int)}, TypeError, "parameters: expected float32 or float64, got int64"),
        ({"target": np.ones((4, 3), "f4")}, TypeError, "target: expected dtype float64 like parameters, got float32"),
        ({"target": np.ones((3, 4)).T}, ValueError, "target: expected a C-contiguous array"),
        ({"weights": np.array([1, -1, 1, 1.0])}, ValueError, "weights: expected finite numbers of at least 0, got -1"),
        ({"weights": np.array([1, 1, np.nan, 1])}, ValueError, "weights: .*got nan at position 2"),
        ({"weights": np.array([np.inf, 1, 1, 1])}, ValueError, "weights: .*got inf at position 0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {"parameters": np.ones((4, 13)), "target": np.ones((4, 3)), "weights": np.ones(4), **change}
    with pytest.raises(error, match=message):
        mixture_density_loss(**arguments)


# the loss of fusedrnn.nn


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_class(reduction):
    parameters, target, weights = problem(12, 3)
    shaped = parameters.reshape(3, 4, 19)
    loss = nn.MixtureDensityLoss(reduction)
    apart = np.column_stack([weights, np.ones(12)])
    for given, count in ((None, 12), (weights, weights.sum()), (apart, weights.sum())):
        whole = target if given is None else np.column_stack([target, given])
        total, gradient = mixture_density_loss(parameters, target, given)
        divisor = count if reduction == "mean" else 1
        assert loss(shaped, whole.reshape(3, 4, -1)) == pytest.approx(total / divisor, rel=1e-13)
        np.testing.assert_allclose(loss.backward(), gradient.reshape(3, 4, 19) / divisor, rtol=1e-13)
    with pytest.raises(RuntimeError, match=r"MixtureDensityLoss\.backward: expected a call of the loss first"):
        loss.backward()
    for columns in (2, 6):
        with pytest.raises(ValueError, match=r"target: expected 3 to 5 columns, got shape \(3, 4, "):
            loss(shaped, np.ones((3, 4, columns)))
    with pytest.raises(ValueError, match=r"target: expected shape \(3, 4, 3\), got \(4, 3, 3\)"):
        loss(shaped, np.ones((4, 3, 3)))


def test_a_mean_over_nothing_is_nan_without_a_warning():
    parameters, target, _ = problem(4, 2)
    loss = nn.MixtureDensityLoss()
    assert np.isnan(loss(parameters, np.column_stack([target, np.zeros(4)])))
    assert (loss.backward() == 0).all()


# sampler


def test_samples_have_the_mixtures_moments():
    pi, mu = np.array([0.2, 0.8]), np.array([[-3.0, 1.0], [2.0, -1.0]])
    sigma, rho, end = np.array([[0.5, 1.0], [1.5, 0.3]]), np.array([0.9, -0.6]), 0.3
    row = [*np.log(pi), *mu.T.ravel(), *np.log(sigma).T.ravel(), *np.arctanh(rho), np.log(end / (1 - end))]
    drawn = mixture_density_sample(np.tile(row, (40_000, 1)), np.random.default_rng(0))
    assert set(drawn[:, 2]) == {0, 1}
    assert drawn[:, 2].mean() == pytest.approx(end, abs=0.01)
    mean = pi @ mu
    np.testing.assert_allclose(drawn[:, :2].mean(0), mean, atol=0.05)
    covariance = sum(
        p * (np.array([[s[0] ** 2, r * s.prod()], [r * s.prod(), s[1] ** 2]]) + np.outer(m - mean, m - mean))
        for p, m, s, r in zip(pi, mu, sigma, rho, strict=True)
    )
    np.testing.assert_allclose(np.cov(drawn[:, :2].T), covariance, atol=0.1)


def test_the_likeliest_parameters_are_those_drawn_from():
    """The loss is least, in expectation, at the distribution that the samples came from."""
    parameters, _, _ = problem(1, 3, seed=4)
    many = np.repeat(parameters, 20_000, 0)
    target = mixture_density_sample(many, np.random.default_rng(1))
    loss, gradient = mixture_density_loss(many, target)
    standard_error = gradient.std(0) / np.sqrt(len(many))
    assert (np.abs(gradient.mean(0)) < 4 * standard_error).all()
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert mixture_density_loss(many + 0.5 * rng.standard_normal(many.shape[1]), target)[0] > loss


def test_bias_narrows():
    row = np.array([[1.0, 0.0, -5, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0.0]])
    many = np.repeat(row, 10_000, 0)
    plain, biased = (mixture_density_sample(many, np.random.default_rng(0), bias=b) for b in (0.0, 2.0))
    first = [(drawn[:, 0] < 0).mean() for drawn in (plain, biased)]
    assert first[0] == pytest.approx(1 / (1 + np.exp(-1)), abs=0.02)
    assert first[1] == pytest.approx(1 / (1 + np.exp(-3)), abs=0.02)
    assert plain[:, 1].std() == pytest.approx(1, rel=0.03)
    assert biased[:, 1].std() == pytest.approx(np.exp(-2), rel=0.03)
    np.testing.assert_array_equal(plain[:, 2], biased[:, 2])


def test_sampler_keeps_dtype_shape_and_seed(dtype):
    parameters = problem(6, 4, dtype)[0].reshape(2, 3, 25)
    one, same, other = (mixture_density_sample(parameters, np.random.default_rng(s)) for s in (0, 0, 1))
    assert one.dtype == dtype
    assert one.shape == (2, 3, 3)
    np.testing.assert_array_equal(one, same)
    assert (one[..., :2] != other[..., :2]).all()
    extreme = np.array([[1e30, -1e30, 0, 0, 0, 0, 1e30, -1e30, 0, 0, 1e30, -1e30, 1e30]], dtype)
    drawn = mixture_density_sample(extreme, np.random.default_rng(0))
    assert np.isfinite(drawn).all()
    assert drawn[0, 2] == 1


def test_sampler_names_bad_input():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"parameters: expected shape \[\.\.\., 6K \+ 1\]"):
        mixture_density_sample(np.ones((2, 8)), rng)
    for bias in (-0.5, np.inf, np.nan):
        with pytest.raises(ValueError, match="bias: expected a finite number of at least 0"):
            mixture_density_sample(np.ones((2, 7)), rng, bias=bias)


def test_a_bias_next_to_infinite_takes_the_likeliest():
    parameters = np.tile([0.5, 1.0, -3.0, 3.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0.0], (50, 1))
    drawn = mixture_density_sample(parameters, np.random.default_rng(0), bias=1e308)
    np.testing.assert_allclose(drawn[:, 0], 3.0)
