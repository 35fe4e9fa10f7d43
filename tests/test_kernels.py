"""The kernels compute what the reference says: every cell, dtype, instruction set, direction and tail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

SMALL = (3, 2, 3, 4)  # T, N, I, H
MEDIUM = (5, 7, 6, 21)


def _arrays(*results):
    """What is there of all these results: gradients of absent arguments are None."""
    return [array for result in results for array in result if array is not None]


both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])


@both_directions
def test_a_call_on_every_instruction_set(
    cell,
    shape,
    dtype,
    reverse,
    each_isa,
    functional,
    reference,
    make_problem,
    in_float64,
    assert_close,
    assert_same_bits,
):
    """Outputs and gradients are the reference's. Inference has the bits of training and keeps nothing, and so has a
    recomputed reserve. The reserve's shape follows from the problem alone, so backward may run on another set."""
    arguments, doutputs = make_problem(cell, shape, dtype)
    expected, expected_reserve = cell.forward(reference, in_float64(arguments), reverse=reverse)
    expected_gradients = cell.backward(reference, in_float64(doutputs), expected_reserve)
    before = None  # the reserve of the set before
    for isa in each_isa():
        outputs, reserve = cell.forward(functional, arguments, reverse=reverse)
        for name, ours, theirs in zip(["y", "h_n", "c_n"], outputs, expected, strict=False):
            assert_close(ours, theirs, dtype, f"{name} on {isa}")
        for kept in (reserve, before or reserve):
            gradients = cell.backward(functional, doutputs, kept)
            assert kept.buffer.shape == reserve.buffer.shape
            assert type(gradients) is type(expected_gradients)
            for name, theirs in expected_gradients._asdict().items():
                assert_close(getattr(gradients, name), theirs, dtype, f"{name} on {isa}")
        gradients = cell.backward(functional, doutputs, reserve)

        inferred, nothing = cell.forward(functional, arguments, reverse=reverse, training=False)
        assert nothing is None
        assert_same_bits(inferred, outputs, f"inference on {isa}")
        if cell.kind != "rnn":
            again, smaller = cell.forward(functional, arguments, reverse=reverse, recompute=True)
            assert smaller.buffer.size < reserve.buffer.size
            assert_same_bits(again, outputs, f"recomputed on {isa}")
            assert_same_bits(cell.backward(functional, doutputs, smaller), gradients, f"recomputed on {isa}")
        before = reserve


@both_directions
def test_every_gradient_agrees_with_finite_differences(
    cell, reverse, functional, make_problem, make_shape, finite_differences
):
    arguments, doutputs = make_problem(cell, make_shape(*SMALL), np.float64)
    _, reserve = cell.forward(functional, arguments, reverse=reverse)
    gradients = cell.backward(functional, doutputs, reserve)
    numeric = finite_differences(
        lambda changed: cell.forward(functional, changed, reverse=reverse, training=False)[0],
        arguments,
        doutputs,
    )
    for name, expected in numeric.items():
        np.testing.assert_allclose(getattr(gradients, "d" + name), expected, rtol=1e-7, atol=2e-8, err_msg=name)


def test_any_mix_of_absent_arguments(
    cell, dtype, functional, reference, make_problem, make_shape, in_float64, assert_close
):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), dtype)
    optional = [*cell.states, "bias_ih", "bias_hh"]
    mixes = [mix for k in range(len(optional) + 1) for mix in itertools.combinations(optional, k)]
    output_mixes = list(itertools.product([False, True], repeat=len(doutputs)))
    for k, absent in enumerate(mixes):
        given = {name: None if name in absent else value for name, value in arguments.items()}
        dgiven = tuple(
            None if gone else d for gone, d in zip(output_mixes[k % len(output_mixes)], doutputs, strict=True)
        )
        outputs, reserve = cell.forward(functional, given)
        gradients = cell.backward(functional, dgiven, reserve)
        expected, expected_reserve = cell.forward(reference, in_float64(given))
        expected_gradients = cell.backward(reference, in_float64(dgiven), expected_reserve)
        for ours, theirs in zip(outputs, expected, strict=True):
            assert_close(ours, theirs, dtype, f"without {absent}")
        for name, theirs in expected_gradients._asdict().items():
            assert_close(getattr(gradients, name), theirs, dtype, f"{name} without {absent}")


def test_backward_may_run_again(cell, dtype, functional, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), dtype)
    before = {name: value.copy() for name, value in arguments.items()}
    _, reserve = cell.forward(functional, arguments)
    buffer = reserve.buffer.copy()
    first = cell.backward(functional, doutputs, reserve)
    second = cell.backward(functional, doutputs, reserve)
    assert_same_bits(second, first)
    assert_same_bits(reserve.buffer, buffer)
    for name, value in before.items():
        assert_same_bits(arguments[name], value, name)


def test_accumulate_adds_to_the_given_arrays(
    cell, dtype, functional, make_problem, make_shape, assert_close, assert_same_bits
):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), dtype)
    _, reserve = cell.forward(functional, arguments)
    fresh = cell.backward(functional, doutputs, reserve)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]

    zeros = tuple(np.zeros_like(arguments[name]) for name in names)
    gradients = cell.backward(functional, doutputs, reserve, accumulate=zeros)
    assert_same_bits(gradients, fresh, "added to zeros")
    assert all(getattr(gradients, "d" + name) is array for name, array in zip(names, zeros, strict=True))

    sums = tuple(arguments[name].copy() for name in names)
    cell.backward(functional, doutputs, reserve, accumulate=sums)
    for name, array in zip(names, sums, strict=True):
        expected = arguments[name].astype(np.float64) + getattr(fresh, "d" + name)
        assert_close(array, expected, dtype, name)


def test_accumulate_without_biases(cell, functional, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), np.float32)
    arguments.update(bias_ih=None, bias_hh=None)
    _, reserve = cell.forward(functional, arguments)
    fresh = cell.backward(functional, doutputs, reserve)
    zeros = (np.zeros_like(arguments["weight_ih"]), np.zeros_like(arguments["weight_hh"]), None, None)
    assert_same_bits(cell.backward(functional, doutputs, reserve, accumulate=zeros), fresh)


def test_the_input_gradient_can_be_left_out(cell, dtype, functional, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), dtype)
    _, reserve = cell.forward(functional, arguments)
    expected = cell.backward(functional, doutputs, reserve)._replace(dx=None)
    assert_same_bits(cell.backward(functional, doutputs, reserve, input_grad=False), expected)


def test_no_result_shares_memory(cell, dtype, functional, make_problem, make_shape):
    for T in (1, 4):
        arguments, doutputs = make_problem(cell, make_shape(T, 3, 5, 6), dtype)
        outputs, reserve = cell.forward(functional, arguments)
        gradients = cell.backward(functional, doutputs, reserve)
        results = [*_arrays(outputs, gradients), reserve.buffer]
        for one, other in itertools.combinations(results, 2):
            assert not np.shares_memory(one, other)
        for one, other in itertools.product(results, [*arguments.values(), *doutputs]):
            assert not np.shares_memory(one, other)
        assert all(array.flags.c_contiguous and array.flags.writeable for array in results)


def test_read_only_inputs_are_welcome(cell, functional, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), np.float32)
    outputs, reserve = cell.forward(functional, arguments)
    gradients = cell.backward(functional, doutputs, reserve)
    for array in [*arguments.values(), *doutputs]:
        array.flags.writeable = False
    outputs_again, reserve = cell.forward(functional, arguments)
    assert_same_bits(outputs_again, outputs)
    assert_same_bits(cell.backward(functional, doutputs, reserve), gradients)


def test_no_rows_give_empty_arrays(cell, dtype, functional, make_problem, make_shape):
    arguments, doutputs = make_problem(cell, make_shape(4, 0, 3, 5), dtype)
    (y, *last), reserve = cell.forward(functional, arguments)
    assert y.shape == (4, 0, 5)
    assert all(state.shape == (0, 5) for state in last)
    gradients = cell.backward(functional, doutputs, reserve)
    for name, value in arguments.items():
        gradient = getattr(gradients, "d" + name)
        assert gradient.shape == value.shape
        assert gradient.dtype == dtype
        assert not gradient.any()


def test_saturated_gates(cell, dtype, each_isa, functional, reference, make_problem, make_shape, in_float64):
    """Weights 50 times the usual: an error of one unit grows by the weights, so the bound here does too."""
    arguments, doutputs = make_problem(cell, make_shape(2, 6, 7, 21), dtype)
    arguments["weight_ih"] *= dtype(50)
    arguments["weight_hh"] *= dtype(50)
    expected = _run(cell, reference, in_float64(arguments), in_float64(doutputs))
    for isa in each_isa():
        for name, ours in _run(cell, functional, arguments, doutputs).items():
            bound = 1e4 * np.finfo(dtype).eps * max(1.0, np.abs(expected[name]).max())
            np.testing.assert_allclose(ours, expected[name], rtol=0, atol=bound, err_msg=f"{name} on {isa}")


def test_sums_far_beyond_every_exponential(cell, dtype, each_isa, functional, reference, make_problem, make_shape):
    """Sums of +-88 to +-1e6 pass every place where an exponential over- or underflows."""
    arguments, doutputs = make_problem(cell, make_shape(1, 2000, 1, 3), dtype)
    magnitudes = np.geomspace(80, 1e6, 1000).astype(dtype)
    arguments["x"][0, :, 0] = np.concatenate([magnitudes, -magnitudes])
    arguments["weight_ih"][:] = 1
    for name in ["weight_hh", "bias_ih", "bias_hh"]:
        arguments[name][:] = 0
    expected = _run(cell, reference, arguments, doutputs)
    for isa in each_isa():
        for name, ours in _run(cell, functional, arguments, doutputs).items():
            bound = 300 * np.finfo(dtype).eps * max(1.0, np.abs(expected[name]).max())
            np.testing.assert_allclose(ours, expected[name], rtol=0, atol=bound, err_msg=f"{name} on {isa}")


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "minus_inf"])
def test_nan_and_infinity_propagate_as_in_the_reference(
    cell, dtype, each_isa, poison, functional, reference, make_problem, make_shape, in_float64
):
    """One poisoned number at a time, in every argument: NaN and infinities in the same places."""
    arguments, doutputs = make_problem(cell, make_shape(*MEDIUM), dtype)
    for poisoned in [*arguments.values(), *doutputs]:
        middle = poisoned.size // 2
        right, poisoned.flat[middle] = poisoned.flat[middle], poison
        with np.errstate(invalid="ignore"):  # NumPy warns of inf - inf and 0 * inf
            expected = _run(cell, reference, in_float64(arguments), in_float64(doutputs))
        for isa in each_isa():
            what = f"{poison} in an array of {poisoned.shape}, on {isa}"
            for name, ours in _run(cell, functional, arguments, doutputs).items():
                infinite = np.isinf(expected[name])
                np.testing.assert_array_equal(
                    np.isnan(ours), np.isnan(expected[name]), err_msg=f"NaN of {name}, {what}"
                )
                np.testing.assert_array_equal(np.isinf(ours), infinite, err_msg=f"infinity of {name}, {what}")
                np.testing.assert_array_equal(ours[infinite], expected[name][infinite], err_msg=f"{name}, {what}")
        poisoned.flat[middle] = right


def _run(cell, module, arguments, doutputs):
    """Outputs and gradients by name, those that are there."""
    outputs, reserve = cell.forward(module, arguments)
    gradients = cell.backward(module, doutputs, reserve)._asdict()
    results = {**dict(zip(["y", "h_n", "c_n"], outputs, strict=False)), **gradients}
    return {name: array for name, array in results.items() if array is not None}
