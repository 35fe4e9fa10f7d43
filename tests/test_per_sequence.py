"""Per-sequence gradients are those of each row alone, bit for bit; clipping bounds what one row can do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fusedrnn
from fusedrnn import functional, nn
from fusedrnn.differentiation.trees import map_leaves

SHAPE = (4, 5, 3, 17)  # T, N, I, H; a tail in the kernels, and rows that fill no tile


def _row(arguments, n):
    return {
        name: a[:, n : n + 1].copy() if name == "x" else a[n : n + 1].copy() if name in ("h0", "c0") else a
        for name, a in arguments.items()
    }


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_a_rows_gradients_are_those_of_the_row_alone(
    cell, dtype, reverse, functional, make_problem, make_shape, assert_same_bits
):
    arguments, (dy, *dstates) = make_problem(cell, make_shape(*SHAPE), dtype)
    _, reserve = cell.forward(functional, arguments, reverse=reverse)
    ours = fusedrnn.per_sequence_gradients(reserve, dy, *dstates)
    assert len(ours.dinitial) == len(dstates)
    whole = cell.backward(functional, (dy, *dstates), reserve)
    assert_same_bits(ours.dx, whole.dx, "dx")
    for n in range(SHAPE[1]):
        _, reserve_n = cell.forward(functional, _row(arguments, n), reverse=reverse)
        doutputs = (dy[:, n : n + 1].copy(), *(d[n : n + 1].copy() for d in dstates))
        alone = cell.backward(functional, doutputs, reserve_n)
        assert_same_bits(np.ascontiguousarray(ours.dx[:, n : n + 1]), alone.dx, f"row {n} dx")
        for state, d in zip(cell.states, ours.dinitial, strict=True):
            assert_same_bits(d[n : n + 1], getattr(alone, "d" + state), f"row {n} d{state}")
        for name, stacked in ours.parameters.items():
            assert_same_bits(stacked[n], getattr(alone, name), f"row {n} {name}")
    assert set(ours.parameters) == {"dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh"}


DATA = {
    "dense": (),
    "reverse": ("reverse", "resets"),
    "lengths": ("lengths", "no_states"),
    "lengths_reverse": ("lengths", "resets", "reverse"),
    "packed": ("batch_sizes", "no_biases"),
    "packed_reverse": ("batch_sizes", "resets", "reverse"),
}
DRAWN = ("zoneout_h", "recurrent_dropout", "dropconnect", "grad_clip")
OPTIONS = {
    "lstm": ("lstm", ()),
    "lstm_recompute": ("lstm", ("recompute",)),
    "lstm_options": ("lstm", ("peephole", "layer_norm", "cell_clip", "activations", "zoneout_c", "return_c", *DRAWN)),
    "lstm_projection": ("lstm", ("projection", "coupled", "return_c", "recurrent_dropout")),
    "gru": ("gru", ()),
    "gru_options": ("gru", ("layer_norm", "activations", *DRAWN)),
    "gru_reset_before": ("gru", ("reset_before", *DRAWN)),
    "rnn": ("rnn", ()),
    "rnn_options": ("rnn", ("layer_norm", "activations", *DRAWN)),
}


def _lines_of(case, n):
    """Of row n: the index in arrays with time, and the options of the data for a call of its own."""
    options = {}
    sizes = case.keywords.get("batch_sizes")
    if sizes is None:
        lines = np.s_[:, n : n + 1]
    else:
        numbers = np.concatenate([np.arange(size) for size in sizes])  # the row of each packed line
        lines = np.flatnonzero(numbers == n)
        options["batch_sizes"] = [1] * len(lines)
    if "lengths" in case.keywords:
        options["lengths"] = case.keywords["lengths"][n : n + 1]
    if "resets" in case.keywords:
        options["resets"] = case.keywords["resets"][lines].copy()
    return lines, options


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())
def test_rows_of_calls_with_options(kind, options, data, functional, make_case, make_shape, assert_same_bits):
    case = make_case(kind, make_shape(*SHAPE), np.float32, [o for o in options if o != "recompute"], data=data)
    if "recompute" in options:
        case.keywords["recompute"] = True
    _, reserve = case.forward(functional)
    ours = fusedrnn.per_sequence_gradients(reserve, **case.doutputs)
    assert_same_bits(ours.dx, case.backward(functional, reserve)["dx"], "dx")
    rows = len(case.doutputs["dh_n"])
    for n in range(rows):
        lines, own = _lines_of(case, n)

        def part(name, a, n=n, lines=lines):
            if a is None or name.startswith(("weight", "bias")):
                return a
            return a[n : n + 1].copy() if name in ("h0", "c0", "dh_n", "dc_n") else a[lines].copy()

        row = dataclasses.replace(
            case,
            arguments={name: part(name, a) for name, a in case.arguments.items()},
            keywords={**case.keywords, **own, "row_offset": case.keywords["row_offset"] + n},
            doutputs={name: part(name, d) for name, d in case.doutputs.items()},
        )
        alone = row.backward(functional, row.forward(functional)[1])
        assert_same_bits(np.ascontiguousarray(ours.dx[lines]), alone.pop("dx"), f"row {n} dx")
        for d, state in zip(ours.dinitial, ("dh0", "dc0"), strict=False):
            assert_same_bits(d[n : n + 1], alone.pop(state), f"row {n} {state}")
        assert {name for name, gradient in alone.items() if gradient is not None} == ours.parameters.keys()
        for name, stacked in ours.parameters.items():
            row_of = map_leaves(lambda whole, n=n: whole[n], stacked)
            assert_same_bits(row_of, alone[name], f"row {n} {name}")


@pytest.mark.parametrize("data", ["lengths", "packed_resets"])
def test_rows_of_elementwise_cells(elementwise_cell, data, functional, make_problem, make_shape, assert_same_bits):
    """Rows of a batch with lengths, alone, and packed by hand."""
    arguments, (dy, dh_n) = make_problem(elementwise_cell, make_shape(*SHAPE), np.float64)
    T, N = SHAPE[:2]
    lengths = np.array([4, 2, 4, 1, 3] if data == "lengths" else [4, 4, 3, 2, 1])
    resets = None if data == "lengths" else np.random.default_rng(0).random((T, N)) < 0.3
    _, reserve = elementwise_cell.forward(functional, arguments, lengths=lengths, resets=resets, reverse=True)
    ours = fusedrnn.per_sequence_gradients(reserve, dy, dh_n)
    whole = elementwise_cell.backward(functional, (dy, dh_n), reserve)
    for n, length in enumerate(lengths):
        one = {"x": arguments["x"][:, n : n + 1].copy(), "h0": arguments["h0"][n : n + 1]}
        own = {"lengths": [length], "resets": None if resets is None else resets[:, n : n + 1].copy()}
        _, reserve_n = elementwise_cell.forward(functional, {**arguments, **one}, **own, reverse=True)
        alone = elementwise_cell.backward(functional, (dy[:, n : n + 1].copy(), dh_n[n : n + 1]), reserve_n)
        assert_same_bits(ours.dx[:, n : n + 1].copy(), alone.dx, f"row {n} dx")
        assert not ours.dx[length:, n].any()
        for name, stacked in ours.parameters.items():
            assert_same_bits(stacked[n], getattr(alone, name), f"row {n} {name}")
    if data != "lengths":
        alive = np.arange(N) < np.sum(lengths > np.arange(T)[:, None], axis=1)[:, None]
        sizes = alive.sum(axis=1)
        _, packed = elementwise_cell.forward(
            functional, {**arguments, "x": arguments["x"][alive]}, batch_sizes=sizes, resets=resets[alive], reverse=True
        )
        theirs = fusedrnn.per_sequence_gradients(packed, dy[alive], dh_n)
        assert_same_bits(theirs.dx, ours.dx[alive])
        assert_same_bits(tuple(theirs.parameters.values()), tuple(ours.parameters.values()))
    for name, stacked in ours.parameters.items():
        np.testing.assert_allclose(stacked.sum(axis=0), getattr(whole, name), rtol=1e-12, atol=1e-12)


def test_rows_of_products_in_bfloat16(assert_same_bits):
    rng = np.random.default_rng(0)
    T, N, I, H = SHAPE  # noqa: E741
    x, w_ih, w_hh, dy = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((T, N, I), (4 * H, I), (4 * H, H), (T, N, H))
    )
    *_, reserve = functional.lstm_forward(x, None, None, w_ih, w_hh, precision="bfloat16")
    ours = fusedrnn.per_sequence_gradients(reserve, dy)
    for n in range(N):
        row = x[:, n : n + 1].copy()
        *_, alone = functional.lstm_forward(row, None, None, w_ih, w_hh, precision="bfloat16")
        expected = functional.lstm_backward(dy[:, n : n + 1].copy(), None, None, alone)
        assert_same_bits(ours.parameters["dweight_hh"][n], expected.dweight_hh)
        assert_same_bits(ours.dx[:, n : n + 1].copy(), expected.dx)


def test_rows_add_up_to_the_batchs_gradient(cell, functional, make_problem, make_shape):
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), np.float64)
    _, reserve = cell.forward(functional, arguments)
    whole = cell.backward(functional, doutputs, reserve)
    for name, stacked in fusedrnn.per_sequence_gradients(reserve, *doutputs).parameters.items():
        np.testing.assert_allclose(stacked.sum(axis=0), getattr(whole, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "gru_reset_after"])
def test_recomputed_gates_and_absent_arrays(name, make_cell, make_problem, make_shape, assert_same_bits):
    cell = make_cell(name)
    arguments, (dy, *_) = make_problem(cell, make_shape(*SHAPE), np.float32)
    for absent in (*cell.states, "bias_ih", "bias_hh"):
        arguments[absent] = None
    _, kept = cell.forward(functional, arguments)
    _, recomputed = cell.forward(functional, arguments, recompute=True)
    ours = fusedrnn.per_sequence_gradients(kept, dy, input_grad=False)
    assert ours.dx is None
    assert set(ours.parameters) == {"dweight_ih", "dweight_hh"}
    theirs = fusedrnn.per_sequence_gradients(recomputed, dy, input_grad=False)
    assert_same_bits(tuple(theirs.parameters.values()), tuple(ours.parameters.values()))
    assert_same_bits(theirs.dinitial, ours.dinitial)


def test_an_empty_batch_has_no_rows(cell, functional, make_problem, make_shape):
    arguments, doutputs = make_problem(cell, make_shape(2, 0, 3, 4), np.float32)
    _, reserve = cell.forward(functional, arguments)
    ours = fusedrnn.per_sequence_gradients(reserve, *doutputs)
    assert ours.dx.shape == (2, 0, 3)
    assert ours.parameters["dweight_ih"].shape == (0, cell.gates * 4, 3)
    np.testing.assert_array_equal(fusedrnn.clipped_sum(ours.parameters, 1.0)["dbias_ih"], np.zeros(cell.gates * 4))


def test_arrays_that_changed_are_found(make_cell, make_problem, make_shape, monkeypatch):
    cell = make_cell("lstm")
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), np.float32)
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    _, reserve = cell.forward(functional, arguments)
    fusedrnn.per_sequence_gradients(reserve, *doutputs)
    arguments["x"][0, 0, 0] += 1
    with pytest.raises(RuntimeError, match="x: changed between lstm_forward and lstm_backward"):
        fusedrnn.per_sequence_gradients(reserve, *doutputs)


def test_bad_input_is_named(make_cell, make_problem, make_shape):
    cell = make_cell("gru_reset_after")
    arguments, (dy, dh_n) = make_problem(cell, make_shape(*SHAPE), np.float32)
    _, reserve = cell.forward(functional, arguments)
    with pytest.raises(TypeError, match="reserve: expected the reserve of a forward call in training, got NoneType"):
        fusedrnn.per_sequence_gradients(None, dy)
    with pytest.raises(TypeError, match="dc_n: expected None for gru, which has no cell state, got ndarray"):
        fusedrnn.per_sequence_gradients(reserve, dy, dh_n, dh_n)
    with pytest.raises(ValueError, match=r"dy: expected shape \(4, 5, H\), got \(3, 5, 17\)"):
        fusedrnn.per_sequence_gradients(reserve, dy[1:])
    with pytest.raises(ValueError, match=r"dh_n: expected shape \(5, H\), got \(1, 17\)"):
        fusedrnn.per_sequence_gradients(reserve, dy, dh_n[:1])


def test_clipping_by_hand(dtype):
    a = np.array([[3, 0], [0.3, 0], [0, 0]], dtype)
    b = np.array([4, 0.4, 0], dtype).reshape(3, 1, 1)  # rows of norm 5, 0.5 and 0
    summed = fusedrnn.clipped_sum({"lstm": {"dweight": a, "dbias": None}, "head": (b,)}, 2.0)
    assert summed["lstm"]["dbias"] is None
    assert summed["lstm"]["dweight"].dtype == dtype
    np.testing.assert_allclose(summed["lstm"]["dweight"], [3 * 0.4 + 0.3, 0], rtol=1e-6)
    np.testing.assert_allclose(summed["head"][0], [[4 * 0.4 + 0.4]], rtol=1e-6)
    unclipped = fusedrnn.clipped_sum([a, b], 5.0)
    np.testing.assert_array_equal(unclipped[0], a.sum(axis=0))
    np.testing.assert_array_equal(unclipped[1], b.sum(axis=0))
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="max_norm: expected a number above 0, got"):
            fusedrnn.clipped_sum([a], wrong)
    with pytest.raises(ValueError, match=r"gradients: expected arrays of one number of rows, got \[2, 3\]"):
        fusedrnn.clipped_sum([a, b[:2]], 1.0)


def test_no_row_moves_the_sum_by_more_than_the_bound(make_cell, make_problem, make_shape):
    """The sensitivity that DP-SGD's noise is measured by; and the norm is over both layers of a network."""
    cell = make_cell("lstm")
    arguments, (dy, *_) = make_problem(cell, make_shape(*SHAPE), np.float64)
    (y, *_), reserve = cell.forward(functional, arguments)
    head = nn.Linear(17, 2, dtype="float64", rng=0)
    last = fusedrnn.per_sequence_gradients(reserve, dy).parameters
    network = {"lstm": last, "head": {"dweight": np.einsum("tnh,tno->nho", y, dy[:, :, :2]), "dbias": None}}
    assert network["head"]["dweight"].shape[1:] == head.weight.data.T.shape

    def norm(tree):
        arrays = [*tree["lstm"].values(), tree["head"]["dweight"]]
        return np.sqrt(sum(np.sum(a**2) for a in arrays))

    def rows(keep):
        return {
            layer: {name: None if a is None else a[keep] for name, a in arrays.items()}
            for layer, arrays in network.items()
        }

    bound = 0.1
    everyone = fusedrnn.clipped_sum(network, bound)
    for n in range(SHAPE[1]):
        assert norm(rows([n])) > bound
        without = fusedrnn.clipped_sum(rows(np.arange(SHAPE[1]) != n), bound)
        moved = {
            layer: {name: None if a is None else a - without[layer][name] for name, a in arrays.items()}
            for layer, arrays in everyone.items()
        }
        np.testing.assert_allclose(norm(moved), bound, rtol=1e-12)
