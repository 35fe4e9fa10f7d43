"""``recompute=True`` keeps less and changes no bit: a fifth of the reserve for an LSTM, none for a GRU."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn

GATED = pytest.mark.parametrize("name", ["lstm", "gru_reset_after", "gru_reset_before"])


# With biases, over all shapes and instruction sets: test_kernels.py.
@GATED
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_without_biases_too_the_bits_are_those_of_a_full_reserve(
    name, reverse, dtype, functional, make_cell, make_problem, make_shape, assert_same_bits
):
    cell = make_cell(name)
    for units in (7, 24, 33):
        arguments, doutputs = make_problem(cell, make_shape(3, 11, 9, units), dtype)
        arguments["bias_ih"] = arguments["bias_hh"] = None
        found = []
        for recompute in (False, True):
            outputs, reserve = cell.forward(functional, arguments, reverse=reverse, recompute=recompute)
            found.append((*outputs, *cell.backward(functional, doutputs, reserve)))
        assert_same_bits(found[1], found[0], f"{units} units")


@GATED
def test_several_blocks_of_steps_and_threads(
    name, functional, threads, make_cell, make_problem, make_shape, assert_same_bits
):
    """T x N above the rows of a block, so that backward walks several; initial states None."""
    cell = make_cell(name)
    arguments, doutputs = make_problem(cell, make_shape(70, 40, 5, 70), np.float32)
    arguments |= dict.fromkeys(cell.states)
    found = []
    for recompute, count in ((False, 1), (True, 1), (True, 3)):
        threads(count)
        _, reserve = cell.forward(functional, arguments, recompute=recompute)
        found.append(tuple(cell.backward(functional, doutputs, reserve)))
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


@pytest.mark.parametrize(("name", "kept"), [("lstm", 1), ("gru_reset_after", 0), ("gru_reset_before", 0)])
def test_what_is_kept(name, kept, functional, make_cell, make_problem, make_shape):
    T, N, H = 9, 4, 12
    cell = make_cell(name)
    arguments, _ = make_problem(cell, make_shape(T, N, 3, H), np.float32)
    _, reserve = cell.forward(functional, arguments, recompute=True)
    assert reserve.buffer.size == kept * T * N * H


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_layers(kind, assert_same_bits):
    x = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32)
    layers = [kind(3, 10, 2, bidirectional=True, rng=0, recompute=recompute) for recompute in (False, True)]
    results = []
    for layer in layers:
        y, _ = layer(x)
        dx, _ = layer.backward(y)
        results.append((y, dx, *(parameter.grad.copy() for parameter in layer.parameters())))
    assert_same_bits(results[1], results[0])


def test_a_changed_bias_is_found(functional, make_cell, make_problem, make_shape, monkeypatch):
    """It enters backward only here, so it is watched only here."""
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    cell = make_cell("lstm")
    for recompute in (False, True):
        arguments, doutputs = make_problem(cell, make_shape(3, 2, 2, 5), np.float32)
        _, reserve = cell.forward(functional, arguments, recompute=recompute)
        arguments["bias_hh"] += 1
        if recompute:
            with pytest.raises(RuntimeError, match="bias_hh: changed between lstm_forward and lstm_backward"):
                cell.backward(functional, doutputs, reserve)
        else:
            cell.backward(functional, doutputs, reserve)
