"""Options change the kernels' results as they change the reference's: each alone, and many at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

CELLS = ("rnn", "lstm", "gru")
UNITS = (1, 7, 15, 16, 17, 24, 33)  # tails of vectors of 4 to 16 lanes
NAMES = ["sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity"]
ALONE = {
    "layer_norm": CELLS,
    "zoneout_h": CELLS,
    "recurrent_dropout": CELLS,
    "dropconnect": CELLS,
    "grad_clip": CELLS,
    "activations": CELLS,
    "reset_before": ("gru",),
    "peephole": ("lstm",),
    "projection": ("lstm",),
    "coupled": ("lstm",),
    "cell_clip": ("lstm",),
    "zoneout_c": ("lstm",),
    "return_c": ("lstm",),
}
EXCLUDED = ({"layer_norm", "reset_before"},)


@pytest.fixture
def assert_reference(functional, reference, in_float64, assert_close, each_isa):
    """Outputs and gradients of a case are the reference's, on one instruction set or on each."""

    def compare(ours, theirs, dtype, what):
        if isinstance(theirs, tuple):
            for k, (mine, expected) in enumerate(zip(ours, theirs, strict=True)):
                compare(mine, expected, dtype, f"{what}[{k}]")
        else:
            assert_close(ours, theirs, dtype, what)

    def check(case, what="", on_each_isa=False):
        theirs = in_float64(case).run(reference)
        for isa in each_isa() if on_each_isa else ["the set in use"]:
            ours = case.run(functional)
            assert ours.keys() == theirs.keys()
            for name, expected in theirs.items():
                compare(ours[name], expected, case.arguments["x"].dtype, f"{name} {what}, on {isa}")

    return check


@pytest.mark.parametrize(("kind", "option"), [(kind, name) for name, kinds in ALONE.items() for kind in kinds])
def test_each_option_alone(kind, option, dtype, make_case, make_shape, assert_reference):
    data = [(), ("reverse",), ("lengths", "resets"), ("batch_sizes", "reverse")]
    for seed, (units, of_data) in enumerate(product(UNITS, data)):
        case = make_case(kind, make_shape(4, 5, 3, units), dtype, [option], seed, of_data)
        assert_reference(case, f"{units} units, {of_data}")


def test_zoneout_of_a_projected_state(dtype, make_case, make_shape, assert_reference):
    for seed, of_data in enumerate([(), ("lengths", "resets"), ("reverse",)]):
        case = make_case("lstm", make_shape(4, 5, 3, 9), dtype, ["projection", "zoneout_h"], seed, of_data)
        assert_reference(case, f"{of_data}")


@pytest.mark.parametrize("kind", CELLS)
def test_many_options_at_once(kind, dtype, make_case, make_shape, assert_reference):
    possible = [name for name, kinds in ALONE.items() if kind in kinds]
    for seed in range(30):
        rng = np.random.default_rng(seed)
        options = {name for name in possible if rng.random() < 0.5}
        for pair in EXCLUDED:
            if pair <= options:
                options.remove(rng.choice(sorted(pair)))
        data = {name for name in ("reverse", "resets", "no_biases", "no_states", "no_doutputs") if rng.random() < 0.4}
        data.add(str(rng.choice(["lengths", "batch_sizes", "dense"])))
        shape = make_shape(
            int(rng.integers(1, 6)), int(rng.integers(1, 12)), int(rng.integers(1, 9)), rng.choice(UNITS)
        )
        case = make_case(kind, shape, dtype, sorted(options), seed, data)
        assert_reference(case, f"{shape}, {sorted(options | data)}", on_each_isa=True)


@pytest.mark.parametrize("kind", CELLS)
def test_every_activation_in_every_place(kind, dtype, make_case, make_shape, assert_reference):
    for k, name in enumerate(NAMES):
        case = make_case(kind, make_shape(3, 4, 3, 17), dtype, [], k)
        others = NAMES[k + 1 :] + NAMES[:k]
        chosen = {"nonlinearity": name} if kind == "rnn" else {"activations": [name, *others][: 2 + (kind == "lstm")]}
        assert_reference(replace(case, keywords={**case.keywords, **chosen}), str(chosen), on_each_isa=True)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("data", [(), ("lengths", "resets", "reverse"), ("batch_sizes", "reverse")])
def test_inference_takes_expectations(
    kind, data, dtype, functional, reference, make_case, make_shape, in_float64, assert_close
):
    """Zoneout blends, and nothing is dropped; without zoneout inference has the bits of training."""
    options = ["zoneout_h", "recurrent_dropout", "dropconnect", "layer_norm", *["zoneout_c"] * (kind == "lstm")]
    case = make_case(kind, make_shape(4, 5, 3, 17), dtype, options, 0, data)
    ours, reserve = case.forward(functional, training=False)
    assert reserve is None
    for name, expected in in_float64(case).forward(reference, training=False)[0].items():
        assert_close(ours[name], expected, dtype, name)


@pytest.mark.parametrize("kind", CELLS)
def test_what_draws_nothing_has_the_same_bits_in_inference(
    kind, dtype, functional, make_case, make_shape, assert_same_bits
):
    of_lstm = ["peephole", "projection", "cell_clip"]
    for units in UNITS:
        options = ["layer_norm", "activations", *(of_lstm if kind == "lstm" else [])]
        case = make_case(kind, make_shape(4, 5, 3, units), dtype, options, 0, ("resets",))
        trained, _ = case.forward(functional)
        inferred, _ = case.forward(functional, training=False)
        assert_same_bits(tuple(inferred.values()), tuple(trained.values()))


@pytest.mark.parametrize("kind", CELLS)
def test_data_options_of_the_plain_cell(kind, dtype, make_case, make_shape, assert_reference):
    """Uneven lengths, packed rows and resets go through the same loops as ever."""
    for seed, units in enumerate(UNITS):
        for data in (
            ("lengths",), ("lengths", "reverse"), ("batch_sizes",), ("batch_sizes", "reverse"), ("resets",),
            ("resets", "reverse"), ("lengths", "resets", "reverse"), ("batch_sizes", "resets", "reverse", "no_states"),
        ):  # fmt: skip
            assert_reference(make_case(kind, make_shape(5, 7, 3, units), dtype, [], seed, data), f"{units}, {data}")


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recompute_with_data_options(kind, dtype, functional, make_case, make_shape, assert_same_bits):
    for data in (("lengths", "resets", "reverse"), ("batch_sizes", "resets")):
        case = make_case(kind, make_shape(5, 7, 3, 17), dtype, [], 0, data)
        again = replace(case, keywords={**case.keywords, "recompute": True}).run(functional)
        assert_same_bits(tuple(again.values()), tuple(case.run(functional).values()))
