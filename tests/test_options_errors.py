"""Options out of their range, or that exclude each other: an error that names the argument, before any work."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

CELLS = ("rnn", "lstm", "gru")
SHAPE = (3, 4, 2, 5)  # T, N, I, H


@pytest.fixture
def forward(functional, make_case, make_shape):
    """forward(kind, **keywords), of a float32 case."""

    def call(kind, **keywords):
        return make_case(kind, make_shape(*SHAPE), np.float32, []).forward(functional, **keywords)

    return call


def _ones(*shape):
    return np.ones(shape, np.float32)


def _norm(kind, *, gain=None, bias=None):
    """A layer_norm, whose first gain or bias is another."""
    widths = {"rnn": (5, 5), "lstm": (20, 20, 5), "gru": (15, 15)}[kind]
    gains, biases = [_ones(width) for width in widths], [_ones(width) for width in widths]
    gains[0], biases[0] = gains[0] if gain is None else gain, biases[0] if bias is None else bias
    return tuple(gains), tuple(biases)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", ["zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect"])
def test_probabilities(kind, name, forward):
    if name == "zoneout_c" and kind != "lstm":
        return
    wanted = "0 <= p <= 1" if name.startswith("zoneout") else "0 <= p < 1"
    for value in (-0.1, 1.1, np.nan, np.inf, *([] if name.startswith("zoneout") else [1.0])):
        with pytest.raises(ValueError, match=rf"^{name}: expected {wanted}, got {re.escape(repr(value))}"):
            forward(kind, **{name: value})
    for value in ("half", [0.5]):
        with pytest.raises(TypeError, match=rf"^{name}: expected a number, got {re.escape(repr(value))}"):
            forward(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name"), [*((kind, "grad_clip") for kind in CELLS), ("lstm", "cell_clip")])
def test_limits(kind, name, forward):
    for value in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match=rf"^{name}: expected a positive number or None, got {value!r}"):
            forward(kind, **{name: value})
    with pytest.raises(TypeError, match=rf"^{name}: expected a number, got 'one'"):
        forward(kind, **{name: "one"})


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(("name", "bits"), [("seed", 64), ("layer", 28), ("row_offset", 32), ("step_offset", 32)])
def test_counters(kind, name, bits, forward):
    forward(kind, dropconnect=0.5, **{name: 2**bits - 1})
    for value in (-1, 2**bits, 2**70):
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer from 0 to below 2\^{bits}, got {value}"):
            forward(kind, dropconnect=0.5, **{name: value})
    for value in (0.5, "1", None):
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer, got {re.escape(repr(value))}"):
            forward(kind, dropconnect=0.5, **{name: value})


@pytest.mark.parametrize(("kind", "count"), [("lstm", 3), ("gru", 2)])
def test_activations(kind, count, forward):
    for wrong in (["tanh"] * (count - 1), ["tanh"] * (count + 1), []):
        with pytest.raises(ValueError, match=rf"^activations: expected {count} names, got {len(wrong)}"):
            forward(kind, activations=wrong)
    with pytest.raises(TypeError, match=r"^activations: expected a sequence of names, got 1"):
        forward(kind, activations=1)
    for wrong in ("sine", "Tanh", None):
        with pytest.raises(ValueError, match=rf"^activations: expected sigmoid, tanh, .*, got '{wrong}'"):
            forward(kind, activations=[wrong] + ["tanh"] * (count - 1))


@pytest.mark.parametrize("kind", CELLS)
def test_layer_norm(kind, forward):
    (gains, biases), width = _norm(kind), {"rnn": 5, "lstm": 20, "gru": 15}[kind]
    forward(kind, layer_norm=[gains, biases])
    cases = [
        ((gains,), ValueError, r"layer_norm: expected 2 parts \(gains, biases\), got 1"),
        (1.0, TypeError, r"layer_norm: expected parts \(gains, biases\), got 1.0"),
        ((gains[1:], biases), ValueError, f"layer_norm: expected {len(gains)} gains, got {len(gains) - 1}"),
        ((gains, (*biases, None)), ValueError, f"layer_norm: expected {len(gains)} biases, got {len(gains) + 1}"),
        ((gains, None), TypeError, "layer_norm: expected biases, got None"),
        (_norm(kind, gain=_ones(4)), ValueError, rf"layer_norm gain_ih: expected shape \({width},\), got \(4,\)"),
        (_norm(kind, bias=_ones(4)), ValueError, rf"layer_norm bias_ih: expected shape \({width},\), got \(4,\)"),
        (_norm(kind, gain=np.ones(width)), TypeError, "layer_norm gain_ih: expected dtype float32 like x, got float64"),
        (((None, *gains[1:]), biases), TypeError, "layer_norm gain_ih: expected a NumPy array, got NoneType"),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=f"^{message}"):
            forward(kind, layer_norm=wrong)


@pytest.mark.parametrize(
    ("kind", "keywords", "message"),
    [
        ("gru", {"reset_after": False, "layer_norm": _norm("gru")}, "layer_norm: expected None with reset_after=False"),
        ("lstm", {"weight_hr": _ones(3, 5)}, r"h0: expected shape \(4, 3\), got \(4, 5\)"),
        ("lstm", {"weight_hr": _ones(3)}, r"weight_hr: expected shape \[P, H\], got \(3,\)"),
        ("lstm", {"weight_peephole": _ones(4, 5)}, r"weight_peephole: expected shape \(3, 5\), got \(4, 5\)"),
        ("lstm", {"coupled": True}, r"(h0|weight_ih|weight_hh): expected shape"),
    ],
)
def test_what_does_not_fit(kind, keywords, message, forward):
    with pytest.raises(ValueError, match=f"^{message}"):
        forward(kind, **keywords)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recompute_is_of_the_plain_cell(kind, forward):
    options = {
        "layer_norm": _norm(kind), "zoneout_h": 0.5, "recurrent_dropout": 0.5, "dropconnect": 0.5, "grad_clip": 1.0,
        "activations": ("tanh",) * (3 if kind == "lstm" else 2),
    }  # fmt: skip
    if kind == "lstm":
        options |= {"weight_peephole": _ones(3, 5), "weight_hr": _ones(3, 5), "coupled": True, "cell_clip": 1.0}
        options |= {"zoneout_c": 0.5, "return_c": True}
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"^recompute: expected False together with {name}"):
            forward(kind, recompute=True, **{name: value})


@pytest.mark.parametrize("kind", CELLS)
def test_lengths(kind, forward):
    cases = [
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths: expected shape \(4,\), got \(3,\)"),
        ({"lengths": [1, 2, 3, 4]}, ValueError, "lengths: expected numbers from 0 to 3, got 4 for row 3"),
        ({"lengths": [1, -2, 3, 3]}, ValueError, "lengths: expected numbers from 0 to 3, got -2 for row 1"),
        ({"lengths": [1.0, 2.0, 3.0, 3.0]}, TypeError, "lengths: expected integers, got float64"),
        ({"lengths": [3] * 4, "batch_sizes": [4] * 3}, ValueError, ""),
        ({"resets": np.zeros((3, 5), bool)}, ValueError, r"resets: expected shape \(3, 4\), got \(3, 5\)"),
        ({"resets": np.zeros((3, 4))}, TypeError, "resets: expected bool"),
    ]
    for keywords, error, message in cases:
        with pytest.raises(error, match=f"^{message}"):
            forward(kind, **keywords)


@pytest.mark.parametrize("kind", CELLS)
def test_batch_sizes(kind, functional, make_case, make_shape):
    case = make_case(kind, make_shape(*SHAPE), np.float32, [])
    packed = replace(case, arguments={**case.arguments, "x": case.arguments["x"].reshape(12, 2)})
    packed.forward(functional, batch_sizes=[4, 4, 4])
    for sizes, error, message in [
        ([4, 4, 3], ValueError, "batch_sizes: expected a sum of 12, the rows of x, got 11"),
        ([4, 3, 5], ValueError, "batch_sizes: expected positive numbers that never increase, got 5 for step 2"),
        ([4, 4, 4, 0], ValueError, "batch_sizes: expected positive numbers that never increase, got 0 for step 3"),
        ([], ValueError, "batch_sizes: expected"),
        ([6, 6], ValueError, "h0: expected shape"),
        ([4.0, 4.0, 4.0], TypeError, "batch_sizes: expected integers, got float64"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            packed.forward(functional, batch_sizes=sizes)
    with pytest.raises(ValueError, match=r"^lengths: expected None beside batch_sizes"):
        packed.forward(functional, batch_sizes=[4, 4, 4], lengths=[3] * 4)


@pytest.mark.parametrize("kind", CELLS)
def test_backward_checks_the_arrays_of_layer_norm(kind, functional, make_case, make_shape):
    case = make_case(kind, make_shape(*SHAPE), np.float32, [])
    case = replace(case, keywords={**case.keywords, "layer_norm": _norm(kind)})
    _, reserve = case.forward(functional)
    gradients = case.backward(functional, reserve)
    good = [value for name, value in gradients.items() if name not in ("dx", "dh0", "dc0")]
    dgains, dbiases = good[-1]
    for wrong in (
        None,
        (dgains[:1], dbiases),
        (dgains, (_ones(3), *dbiases[1:])),
        (dgains,),
        (dgains, (None, *dbiases[1:])),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^dlayer_norm: expected"):
            case.backward(functional, reserve, accumulate=(*good[:-1], wrong))
