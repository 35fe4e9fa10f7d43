"""The neural Turing machine against loops, differences, and what its paper says of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedrnn
from fusedrnn import cells, nn
from fusedrnn.cells.addressing import address, similarity
from tests.memory_networks import NTMS, I, N, O, T, check_parity, close, inputs, made, same, somewhere

KINDS = ("learned", "constant", "random")


@pytest.mark.parametrize("name", NTMS)
def test_a_step_is_what_its_loops_say(name):
    """From its start and from the middle, compiled and under NumPy."""
    net = made(nn.NTM, **NTMS[name])
    check_parity(net, NTMS[name])
    check_parity(net, NTMS[name], somewhere(net))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "controller": st.sampled_from(("lstm", "gru", "rnn", "feedforward")),
            "hidden_size": st.sampled_from((1, 4, [2, 3])),
            "read_heads": st.integers(1, 3),
            "write_heads": st.integers(1, 3),
            "shifts": st.integers(0, 2),
            "slots": st.integers(5, 7),
            "width": st.integers(1, 3),
            **dict.fromkeys(("memory", "reads", "weightings", "start"), st.sampled_from(KINDS)),
        }
    )
)
def test_so_it_is_in_any_form(options):
    check_parity(made(nn.NTM, **options), options)


@pytest.mark.parametrize("name", ["heads and a wide shift", "no shift", "all constant", "all learned", "a stack"])
def test_gradients_are_differences(name):
    """They are those of x, all parameters, learned starts among them, and a state that was given."""
    net, x = made(nn.NTM, **{"width": 2, "hidden_size": 3, **NTMS[name]}), inputs(3)
    found = set(fusedrnn.gradcheck(net, {"x": x}, max_elements=8).arguments)
    assert found == {"x", *net.state_dict()}
    found = fusedrnn.gradcheck(net, {"x": x, "state": somewhere(net)}, max_elements=4, atol=1e-7).arguments
    assert {f"state[{place}]" for place in (1, 2, 3, 4)} < set(found)


@pytest.mark.parametrize("name", ["heads and a wide shift", "all learned", "a stack"])
def test_float32_is_close_to_float64(name):
    outputs = {}
    for dtype in ("float32", "float64"):
        net = made(nn.NTM, dtype=dtype, **NTMS[name])
        y, state = net(inputs(dtype=dtype))
        net.backward(np.ones_like(y))
        assert {leaf.dtype for leaf in (y, state.memory, net._table["heads.W"].grad)} == {np.dtype(dtype)}
        outputs[dtype] = (y, state, [parameter.grad for parameter in net.parameters()])
    close(outputs["float32"], outputs["float64"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_begins(kind):
    """A constant memory is 1e-6, weightings begin on the first slot, random ones are of no seed."""
    options = dict.fromkeys(("memory", "reads", "weightings", "start"), kind)
    one, other = (nn.NTM(I, O, 4, slots=7, width=3, read_heads=2, rng=seed, **options) for seed in (0, 1))
    state = one._initial(0, 1)
    same(state, other._initial(0, 1))
    learned = {name for name in one.state_dict() if name.startswith("start")}
    fields = {"controller.0.0", "controller.0.1", "memory", "reads", "read_weightings", "write_weightings"}
    assert learned == ({f"start.{field}" for field in fields} if kind == "learned" else set())
    bound = 1 / np.sqrt(7 + 3)
    if kind == "constant":
        np.testing.assert_array_equal(state.memory, np.float32(1e-6))
    else:
        assert 0.8 * bound < np.abs(state.memory).max() <= bound
    if kind == "random":
        assert 0 < np.abs(state.reads).max() <= bound
        assert state.read_weightings.max() < 0.9
        assert not np.array_equal(state.read_weightings[:, 0], state.read_weightings[:, 1])
    else:
        np.testing.assert_array_equal(state.reads, 0)
        np.testing.assert_allclose(state.read_weightings[0, :, 0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(state.write_weightings.sum(-1), 1, rtol=1e-6)


def test_a_learned_start_is_learned():
    """Gradients reach it over all rows, from each reset anew, and an optimizer moves it."""
    net = nn.NTM(I, O, 4, slots=5, width=3, memory="learned", reads="learned", start="learned", dtype="float64", rng=0)
    x, resets = inputs(), np.zeros((T, N), bool)
    net.backward(np.ones_like(net(x)[0]))
    plain = {name: parameter.grad.copy() for name, parameter in net.named_parameters()}
    assert all(np.abs(grad).max() > 0 for name, grad in plain.items() if name.startswith("start"))
    for parameter in net.parameters():
        parameter.grad[...] = 0
    resets[2, 1] = True
    y, _ = net(x, resets=resets)
    np.testing.assert_array_equal(y[2:, 1], net(x[2:])[0][:, 1])  # it begins again
    net.backward(None)
    net.backward(np.ones_like(y))
    assert not np.allclose(net._table["start.memory"].grad, plain["start.memory"])
    fusedrnn.gradcheck(net, {"x": x, "resets": resets}, max_elements=6)


def test_addressing_by_hand():
    """A sure key finds its slot; a closed gate stays; a shift moves around the end; a power sharpens."""
    memory, none = np.eye(4), np.array([-30.0])
    head = {
        "key": np.array([[0, 0, 0, 3.0]]), "strength": np.array([50.0]), "gate": -none, "sharpness": none,
        "shift": np.array([[0, 30.0, 0]]),
    }  # fmt: skip
    before = np.array([[0, 1.0, 0, 0]])
    np.testing.assert_allclose(address(memory, before, head), [[0, 0, 0, 1]], atol=1e-9)
    np.testing.assert_allclose(address(memory, before, {**head, "gate": none}), before, atol=1e-9)
    on = {**head, "shift": np.array([[0, 0, 30.0]])}
    np.testing.assert_allclose(address(memory, before, on), [[1, 0, 0, 0]], atol=1e-9)
    back = {**head, "gate": none, "shift": np.array([[30.0, 0, 0]])}
    np.testing.assert_allclose(address(memory, before, back), [[1, 0, 0, 0]], atol=1e-9)
    blurred = np.array([[0.1, 0.6, 0.2, 0.1]])
    squared = {**head, "gate": none, "sharpness": np.array([np.log(np.e - 1)])}  # 1 + softplus is 2
    np.testing.assert_allclose(address(memory, blurred, squared), blurred**2 / np.sum(blurred**2), rtol=1e-9)
    np.testing.assert_allclose(similarity(memory, 2 * memory), np.eye(4), atol=1e-5)


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_extreme_heads_and_an_empty_memory_have_gradients(level, dtype):
    """The controller tells what is bounded; a zero memory and zero keys have a cosine of zero."""
    net = nn.NTM(I, O, 4, slots=5, width=3, memory="learned", dtype=dtype, rng=0)
    net._table["start.memory"].data[...] = 0
    net._table["heads.W"].data[...] = 0
    rows, place = net._table["heads.b"].data, 0
    for name, shape in net.step.shapes().items():
        count = int(np.prod(shape))
        rows[place : place + count] = 0 if name.endswith("key") else level
        place += count
    y, state = net(inputs(dtype=dtype))
    dx, _ = net.backward(np.ones_like(y))
    for leaf in (y, dx, state.memory, state.read_weightings, *(parameter.grad for parameter in net.parameters())):
        assert np.isfinite(leaf).all()
    np.testing.assert_allclose(state.read_weightings.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"slots": 0}, ValueError, "slots: expected at least 1, got 0"),
        ({"width": 0}, ValueError, "width: expected at least 1, got 0"),
        ({"read_heads": 0}, ValueError, "read_heads: expected at least 1, got 0"),
        ({"write_heads": -1}, ValueError, "write_heads: expected at least 1, got -1"),
        ({"shifts": -1}, ValueError, "shifts: expected at least 0, got -1"),
        ({"slots": 4, "shifts": 2}, ValueError, "shifts: expected at most 1 for 4 slots, got 2"),
        ({"hidden_size": []}, ValueError, "hidden_size: expected units, or a list of those of each layer, got none"),
        ({"hidden_size": [3, 0]}, ValueError, "hidden_size: expected at least 1, got 0"),
        ({"controller": "tcn"}, ValueError, "controller: expected one of lstm, gru, rnn, feedforward, got 'tcn'"),
        ({"memory": "zero"}, ValueError, "memory: expected one of learned, constant, random, got 'zero'"),
        ({"start": None}, ValueError, "start: expected one of learned, constant, random, got None"),
        ({"clip": 0.0}, ValueError, "clip: expected more than 0, got 0.0"),
        ({"dtype": "float16"}, TypeError, "dtype: expected float32 or float64, got float16"),
        ({"slot": 4}, TypeError, "slot"),
    ],
)
def test_refusals(arguments, kind, message):
    with pytest.raises(kind, match=message):
        nn.NTM(I, O, arguments.pop("hidden_size", 4), **arguments)


def test_sizes_of_input_and_output_are_checked():
    for sizes, name in (((0, O), "input_size"), ((I, 0), "output_size")):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            cells.NTM(*sizes, 4)
