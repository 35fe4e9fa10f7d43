"""With options too a row's bits do not depend on the batch, on threads, or on where time is cut: masks are counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

ALL = ["zoneout_h", "recurrent_dropout", "dropconnect", "grad_clip"]
KINDS = {
    "rnn": ("rnn", [*ALL, "layer_norm", "activations"]),
    "rnn joint": ("rnn", ALL),
    "lstm": ("lstm", [*ALL, "layer_norm", "zoneout_c", "peephole", "cell_clip"]),
    "lstm joint": ("lstm", ["recurrent_dropout", "zoneout_c", "projection", "coupled", "return_c"]),
    "gru": ("gru", [*ALL, "layer_norm", "activations"]),
    "gru reset before": ("gru", [*ALL, "reset_before"]),
}
PER_ROW = ("y", "h_n", "c_n", "c", "dx", "dh0", "dc0")
KEYWORDS_OF_TIME = ("lengths", "resets")

kinds = pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS)


def _axis(name):
    """Of the batch."""
    return 1 if name in ("x", "y", "c", "dx", "dy", "dc", "resets") else 0


def _part(values, axis, part):
    """Those of the values that have such an axis, cut."""
    cut = {}
    for name, value in values.items():
        whole = (
            not isinstance(value, np.ndarray) or name.startswith(("weight", "bias")) or (axis == 0 and _axis(name) == 0)
        )
        along = 0 if axis == 0 else _axis(name)
        cut[name] = value if whole else np.ascontiguousarray(value[part] if along == 0 else value[:, part])
    return cut


def _cut(case, axis, part):
    """The case's steps (axis 0) or rows (axis 1) alone."""
    names = ("resets",) if axis == 0 else KEYWORDS_OF_TIME
    keywords = {name: case.keywords[name] for name in names if name in case.keywords}
    offset = ("step_offset", "row_offset")[axis]
    return replace(
        case,
        arguments=_part(case.arguments, axis, part),
        doutputs=_part(case.doutputs, axis, part),
        keywords={**case.keywords, **_part(keywords, axis, part), offset: case.keywords[offset] + part.start},
    )


def _kept_results(results, names=PER_ROW):
    return {name: results[name] for name in names if results.get(name) is not None}


@kinds
@pytest.mark.parametrize("data", [(), ("lengths", "resets", "reverse")], ids=["dense", "uneven"])
def test_a_batch_cut_in_two(kind, options, data, dtype, functional, make_case, make_shape, assert_same_bits):
    case = make_case(kind, make_shape(5, 13, 3, 17), dtype, options, 0, data)
    whole = _kept_results(case.run(functional))
    for first in (1, 6):
        parts = [_cut(case, 1, part).run(functional) for part in (slice(0, first), slice(first, 13))]
        for name, expected in whole.items():
            ours = np.concatenate([part[name] for part in parts], axis=_axis(name))
            assert_same_bits(ours, expected, f"{name}, cut at row {first}")


@kinds
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_time_cut_in_two(kind, options, reverse, dtype, functional, make_case, make_shape, assert_same_bits):
    """The second part goes on from the first one's states, and its dh0 is what the first one's h_n receives."""
    data = ("resets", *["reverse"] * reverse)
    case = make_case(kind, make_shape(6, 5, 3, 17), dtype, options, 0, data)
    whole = case.run(functional)
    early, late = (_cut(case, 0, part) for part in (slice(0, 2), slice(2, 6)))
    before, after = (late, early) if reverse else (early, late)
    outputs, reserve = before.forward(functional)
    states = {"h0": outputs["h_n"], **({"c0": outputs["c_n"]} if kind == "lstm" else {})}
    end = replace(after, arguments={**after.arguments, **states}).run(functional)
    dstates = {"dh_n": end["dh0"], **({"dc_n": end["dc0"]} if kind == "lstm" else {})}
    start = {**outputs, **before.backward(functional, reserve, **dstates)}
    for name in ("h_n", "c_n"):
        assert_same_bits(end.get(name), whole.get(name), name)
    for name in ("dh0", "dc0"):
        assert_same_bits(start.get(name), whole.get(name), name)
    for name, expected in _kept_results(whole, ("y", "c", "dx")).items():
        parts = (end, start) if reverse else (start, end)
        assert_same_bits(np.concatenate([part[name] for part in parts]), expected, name)


# Just enough work for the threads: of rows, and of units where there are few rows (Sharing in csrc/core/sequence.hpp).
@kinds
@pytest.mark.parametrize("data", [(), ("lengths", "resets", "reverse")], ids=["dense", "uneven"])
@pytest.mark.parametrize("by", ["rows", "units"])
def test_thread_count(kind, options, data, by, dtype, threads, functional, make_case, make_shape, assert_same_bits):
    units = {"rnn": (10, 3, 9, 208), "lstm": (8, 2, 9, 196), "gru": (8, 2, 9, 161)}[kind]
    case = make_case(kind, make_shape(*((12, 150, 3, 33) if by == "rows" else units)), dtype, options, 1, data)
    threads(1)
    expected = tuple(case.run(functional).values())
    for count in (2, 3):
        threads(count)
        assert_same_bits(tuple(case.run(functional).values()), expected, f"{count} threads")


@kinds
def test_a_reserve_serves_every_instruction_set(
    kind, options, each_isa, functional, reference, make_case, make_shape, in_float64, assert_close
):
    case = make_case(kind, make_shape(4, 6, 3, 17), np.float32, options)
    expected = in_float64(case).run(reference)
    reserves = [case.forward(functional)[1] for _ in each_isa()]
    assert len({reserve.buffer.shape for reserve in reserves}) == 1
    for isa in each_isa():
        for reserve in reserves:
            gradients = case.backward(functional, reserve)
            for name in ("dx", "dh0", "dweight_ih", "dweight_hh", "dbias_ih"):
                assert_close(gradients[name], expected[name], np.float32, f"{name} on {isa}")


@kinds
def test_backward_may_run_again(kind, options, functional, make_case, make_shape, assert_same_bits):
    case = make_case(kind, make_shape(4, 6, 3, 17), np.float32, options)
    _, reserve = case.forward(functional)
    buffer = reserve.buffer.copy()
    first = case.backward(functional, reserve)
    assert_same_bits(tuple(case.backward(functional, reserve).values()), tuple(first.values()))
    without = case.backward(functional, reserve, input_grad=False)
    assert without["dx"] is None
    assert_same_bits(tuple(without.values())[1:], tuple(first.values())[1:])
    assert_same_bits(reserve.buffer, buffer)


@kinds
def test_accumulate_adds_to_all_parameters(kind, options, functional, make_case, make_shape, assert_same_bits):
    case = make_case(kind, make_shape(4, 6, 3, 17), np.float64, options)
    _, reserve = case.forward(functional)
    fresh = {name: value for name, value in case.backward(functional, reserve).items() if name not in PER_ROW}

    def zeros(value):
        return tuple(map(zeros, value)) if isinstance(value, tuple) else None if value is None else np.zeros_like(value)

    given = tuple(zeros(value) for value in fresh.values())
    ours = case.backward(functional, reserve, accumulate=given)
    assert_same_bits(given, tuple(fresh.values()))
    assert all(ours[name] is array for name, array in zip(fresh, given, strict=True))


@kinds
def test_gradients_agree_with_finite_differences(kind, options, functional, make_case, make_shape, finite_differences):
    smooth = [name for name in options if name not in ("grad_clip", "activations", "return_c")]
    case = make_case(kind, make_shape(3, 2, 2, 4), np.float64, smooth)
    gradients = case.run(functional)
    numeric = finite_differences(
        lambda changed: tuple(replace(case, arguments=changed).forward(functional)[0].values()),
        case.arguments,
        tuple(case.doutputs.values()),
    )
    for name, expected in numeric.items():
        np.testing.assert_allclose(gradients["d" + name], expected, rtol=1e-6, atol=1e-7, err_msg=name)


@kinds
def test_rows_without_steps(kind, options, dtype, functional, make_case, make_shape, assert_same_bits):
    """Their states pass unchanged, forward and backward; also where no row has a step, and where there is no row."""
    case = make_case(kind, make_shape(3, 4, 2, 5), dtype, options)
    results = replace(case, keywords={**case.keywords, "lengths": [0] * 4}).run(functional)
    for state in ("h", "c") if kind == "lstm" else ("h",):
        assert_same_bits(results[f"{state}_n"], case.arguments[f"{state}0"])
        assert_same_bits(results[f"d{state}0"], case.doutputs[f"d{state}_n"])
    for name in ("y", "dx", "dweight_ih", "dweight_hh", "dbias_ih"):
        assert not results[name].any(), name
    empty = make_case(kind, make_shape(3, 0, 2, 5), dtype, options).run(functional)
    assert empty["y"].shape == (3, 0, case.arguments["weight_hh"].shape[1])
    assert not empty["dweight_hh"].any()
