"""Layers so wide that rows are copied apart, and that threads share the columns of a sum."""

from __future__ import annotations

import numpy as np
import pytest


def test_rows_of_whole_kilobytes(
    cell, dtype, functional, reference, make_problem, make_shape, in_float64, assert_close
):
    """At these strides they would evict each other from the cache, so they are copied to others (SpreadRows)."""
    width = 1024 // np.dtype(dtype).itemsize
    arguments, doutputs = make_problem(cell, make_shape(2, 9, width, width), dtype)
    outputs, reserve = cell.forward(functional, arguments)
    gradients = cell.backward(functional, doutputs, reserve)
    expected, reserve = cell.forward(reference, in_float64(arguments))
    expected_gradients = cell.backward(reference, in_float64(doutputs), reserve)
    for name, ours, theirs in zip(("y", *cell.states), outputs, expected, strict=True):
        assert_close(ours, theirs, dtype, name)
    for name, ours, theirs in zip(gradients._fields, gradients, expected_gradients, strict=True):
        assert_close(ours, theirs, dtype, name)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_rows_of_whole_kilobytes_with_options(kind, functional, reference, make_case, make_shape, assert_close):
    case = make_case(kind, make_shape(2, 9, 128, 128), np.float64, ["layer_norm", "recurrent_dropout"])
    ours, theirs = case.run(functional), case.run(reference)
    for name in ("y", "h_n", "dx", "dh0", "dweight_ih", "dweight_hh"):
        assert_close(ours[name], theirs[name], np.float64, name)


def test_threads_share_the_columns_of_a_sum(functional, threads, assert_same_bits):
    """Of a block of steps, whose rows are added up for the gradient of IndRNN's weights."""
    rng = np.random.default_rng(0)
    for units in (1000, 1024, 1100):
        x, weight_ih, weight_hh = (rng.standard_normal(shape) for shape in ((80, 8, 1), (units, 1), (units,)))
        y, _, reserve = functional.indrnn_forward(x, None, weight_ih, weight_hh / 2, None)
        found = []
        for count in (1, 2, 3):
            threads(count)
            found.append(functional.indrnn_backward(y, None, reserve))
        assert_same_bits(found[1], found[0], f"{units} units, 2 threads")
        assert_same_bits(found[2], found[0], f"{units} units, 3 threads")
