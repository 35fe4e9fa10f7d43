"""The differentiable neural computer against loops, differences, and what its papers say of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedrnn
from fusedrnn import cells, nn
from fusedrnn.scan.trees import flatten, map_leaves
from tests.memory_networks import DNCS, I, O, check_parity, close, inputs, made, row_of, somewhere, whole, writes_much


@pytest.mark.parametrize("name", DNCS)
def test_a_step_is_what_its_loops_say(name):
    """From an empty memory, where usage ties, and from the middle; compiled and under NumPy."""
    check_parity(writes_much(made(nn.DNC, **DNCS[name])), DNCS[name])
    net = made(nn.DNC, **DNCS[name])
    check_parity(net, DNCS[name], somewhere(net))


def consistent(options):
    return (options["free_gates"] or not options["deallocate"]) and (options["links"] or not options["sharp_links"])


FLAGS = ("free_gates", "key_mask", "deallocate", "sharp_links", "normalize")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "controller": st.sampled_from(("lstm", "gru", "rnn", "feedforward")),
            "hidden_size": st.sampled_from((2, 4, [2, 3])),
            "read_heads": st.integers(1, 3),
            "write_heads": st.integers(1, 3),
            "slots": st.integers(2, 6),
            "width": st.integers(1, 3),
            "links": st.sampled_from((True, False, 2, 4)),
            **dict.fromkeys(FLAGS, st.booleans()),
        }
    ).filter(consistent)
)
def test_so_it_is_in_any_form(options):
    net = made(nn.DNC, **options)
    sparse = options["links"] if isinstance(options["links"], bool) else min(options["links"], options["slots"])
    check_parity(net, {**options, "links": sparse}, somewhere(net))


@pytest.mark.parametrize(
    "name",
    ["write heads", "no links", "nothing is freed", "masks", "all refinements", "normalized", "sparse"],
)
def test_gradients_are_differences(name):
    """They are those of x, all parameters and a state, away from ties of usage, where a small change reorders slots."""
    net = made(nn.DNC, **{"width": 2, "hidden_size": 3, **DNCS[name]})
    found = set(fusedrnn.gradcheck(net, {"x": inputs(3), "state": somewhere(net)}, max_elements=4, atol=1e-7).arguments)
    assert {"x", "state[1]", "state[2]", "state[3]", "state[6]", "state[7]", *net.state_dict()} <= found
    with_links = DNCS[name].get("links", True) is not False
    assert with_links == any(argument.startswith("state[5]") for argument in found)


@pytest.mark.parametrize("name", ["write heads", "all refinements", "sparse"])
def test_float32_is_close_to_float64(name):
    found = {}
    middle = somewhere(made(nn.DNC, **DNCS[name]))
    for dtype in ("float32", "float64"):
        net = made(nn.DNC, dtype=dtype, **DNCS[name])
        y, state = net(inputs(dtype=dtype), as_dtype(middle, dtype))
        net.backward(np.ones_like(y))
        assert {leaf.dtype for leaf in (y, state.memory, net._table["interface.W"].grad)} == {np.dtype(dtype)}
        found[dtype] = (y, state, [parameter.grad for parameter in net.parameters()])
    close(found["float32"], found["float64"], rtol=2e-3, atol=2e-4)


def as_dtype(state, dtype):
    return map_leaves(lambda leaf: leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf, state)


def told(net, **values):
    """Interface biases by name; weights are zero, so every step is told the same."""
    net._table["interface.W"].data[...] = 0
    rows, place = net._table["interface.b"].data, 0
    for name, shape in net.step.shapes().items():
        count = int(np.prod(shape))
        rows[place : place + count] = np.ravel(values.pop(name, np.zeros(shape)))
        place += count
    assert not values
    return net


def in_order(net, rows):
    """The first state, with usages that rise with the slots' numbers, by more than what a write to one spills over."""
    first = net._initial(0, rows)
    return first._replace(usage=first.usage + 1e-6 * 3.0 ** np.arange(net.slots))


def test_it_writes_one_slot_after_another_and_reads_them_in_that_order():
    """Gates that allocate fill the memory by usage; links lead forwards, and backwards, from slot to slot."""
    net = told(
        nn.DNC(I, O, 4, slots=5, width=2, dtype="float64", rng=0),
        allocation_gate=[20], write_gate=[20], free_gate=[-20], erase=[[-20, -20]], write=[[1, 2]],
        read_mode=[[-20, 0, 20]],
    )  # fmt: skip
    _, states = net.trajectory(inputs(4, 1), in_order(net, 1))
    np.testing.assert_allclose(states.write_weightings[:, 0, 0], np.eye(5)[:4], atol=1e-2)
    np.testing.assert_allclose(states.usage[3, 0], [1, 1, 1, 0, 0], atol=1e-2)  # of the writes before
    np.testing.assert_allclose(states.memory[3, 0], [[1, 2]] * 4 + [[0, 0]], atol=1e-2)
    np.testing.assert_allclose(states.links[0][3, 0], np.eye(5, k=-1) * [1, 1, 1, 0, 0], atol=1e-2)
    np.testing.assert_allclose(states.precedence[0][3, 0], np.eye(5)[3], atol=1e-2)
    last = row_of(states, 3)
    for mode, reached in (([[-20, 0, 20]], 2), ([[20, 0, -20]], 0)):
        told(net, write_gate=[-20], read_mode=mode)
        begun = last._replace(read_weightings=np.eye(5)[None, None, 1])
        _, state = net(inputs(1, 1), begun)
        np.testing.assert_allclose(state.read_weightings[0, 0], np.eye(5)[reached], atol=1e-2)


def test_what_was_read_is_freed_and_with_de_allocation_erased():
    """A free gate gives a slot back after it was read; only de-allocation clears it, but for what is written then."""
    for deallocate in (False, True):
        net = nn.DNC(I, O, 4, slots=4, width=2, dtype="float64", rng=0, deallocate=deallocate)
        told(net, free_gate=[20], write_gate=[-20])
        start = net._initial(0, 1)._replace(
            memory=np.ones((1, 4, 2)), usage=np.ones((1, 4)), read_weightings=np.eye(4)[None, None, 2]
        )
        _, state = net(inputs(1, 1), start)
        np.testing.assert_allclose(state.usage[0], [1, 1, 0, 1], atol=1e-6)
        np.testing.assert_allclose(state.memory[0], np.array([[1, 1], [1, 1], [1 - deallocate] * 2, [1, 1]]), atol=1e-6)
        told(net, free_gate=[-20], write_gate=[-20])
        np.testing.assert_allclose(net(inputs(1, 1), start)[1].usage[0], 1, atol=1e-6)


def test_a_mask_hides_columns_from_the_search():
    """Slots that differ in the column that is masked are alike."""
    net = nn.DNC(I, O, 4, slots=2, width=2, dtype="float64", rng=0, key_mask=True, links=False)
    start = net._initial(0, 1)._replace(memory=np.array([[[1.0, 1], [1, -1]]]))
    for mask, expected in (([[20, -20]], [0.5, 0.5]), ([[20, 20]], [1, 0])):
        told(net, read_key=[[1, 1]], read_strength=[20], write_gate=[-20], read_mask=mask)
        np.testing.assert_allclose(net(inputs(1, 1), start)[1].read_weightings[0, 0], expected, atol=1e-6)


def test_sharp_links_take_the_noise_off_a_reading():
    """A reading along links of 0.6 and 0.4, to its third power."""
    net = nn.DNC(I, O, 4, slots=3, width=2, dtype="float64", rng=0, sharp_links=True)
    link = np.zeros((3, 3))
    link[1, 0], link[2, 0] = 0.6, 0.4
    start = net._initial(0, 1)._replace(links=[link[None]], read_weightings=np.eye(3)[None, None, 0])
    told(net, write_gate=[-20], read_mode=[[-20, -20, 20]], link_sharpness=[[0, np.log(np.exp(2) - 1)]])
    powers = np.array([0, 0.6, 0.4]) ** 3
    np.testing.assert_allclose(net(inputs(1, 1), start)[1].read_weightings[0, 0], powers / powers.sum(), atol=1e-6)


@pytest.mark.parametrize("level", [-1e4, 1e4])
@pytest.mark.parametrize("name", ["write heads", "all refinements", "sparse, of several heads", "no links", "no clip"])
def test_extreme_interfaces_and_an_empty_memory_have_gradients(name, level):
    """The state before the first step is zero, keys are zero, all else is told as strongly as can be."""
    net = made(nn.DNC, dtype="float32", **DNCS[name])
    told(net, **{part: np.full(shape, level * (not part.endswith("key"))) for part, shape in net.step.shapes().items()})
    y, state = net(inputs(6, dtype="float32"))
    dx, _ = net.backward(np.ones_like(y))
    for leaf in (y, dx, state.memory, state.usage, state.read_weightings, *(p.grad for p in net.parameters())):
        assert np.isfinite(leaf).all()


def test_enlarged_it_allocates_and_walks_as_before():
    """Slots that are new are free ones behind the old: writes by allocation and readings along links are the same."""
    net = made(nn.DNC, slots=6, controller="gru", seed=3)
    told_gates = {"allocation_gate": [20], "write_gate": [20], "read_mode": [[0, -20, 3]], "write": [[1, 2, 3]]}
    told(net, free_gate=[-20], **told_gates)
    large = net.enlarged(9)
    assert (large.slots, net.slots) == (9, 6)
    x = inputs(5)
    (y, states), (wide_y, wide) = (each.trajectory(x, in_order(each, 2)) for each in (net, large))
    np.testing.assert_allclose(wide.write_weightings[..., :6], states.write_weightings, atol=1e-5)
    np.testing.assert_allclose(wide.read_weightings[..., :6], states.read_weightings, atol=1e-5)
    np.testing.assert_allclose(wide_y, y, atol=1e-4)
    _, last = large.trajectory(inputs(8), in_order(large, 2))
    assert (last.usage[-1, :, 6] > 0.9).all()  # where the small one has no slot left
    with pytest.raises(ValueError, match="slots: expected at least 6, got 5"):
        net.enlarged(5)


def test_sparse_links_of_many_slots_are_the_whole_ones_where_writes_are_sure():
    """Outputs of the copy that the paper shows: few links, each near 1."""
    gates = {"allocation_gate": [20], "write_gate": [20], "free_gate": [-20], "read_mode": [[1, 0, 2]]}
    full, sparse = (made(nn.DNC, slots=12, links=links) for links in (True, 4))
    y, states = told(full, **gates).trajectory(inputs(8), in_order(full, 2))
    other, sparse_states = told(sparse, **gates).trajectory(inputs(8), in_order(sparse, 2))
    np.testing.assert_allclose(other, y, atol=2e-2)
    for row in range(2):
        state = whole(row_of(row_of(sparse_states, 7), row))
        np.testing.assert_allclose(state.links[0], states.links[0][7, row], atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"slots": 0}, ValueError, "slots: expected at least 1, got 0"),
        ({"slots": 0, "links": 2}, ValueError, "slots: expected at least 1, got 0"),
        ({"width": 0}, ValueError, "width: expected at least 1, got 0"),
        ({"read_heads": 0}, ValueError, "read_heads: expected at least 1, got 0"),
        ({"write_heads": 0}, ValueError, "write_heads: expected at least 1, got 0"),
        ({"links": 0}, ValueError, "links: expected at least 1, got 0"),
        ({"controller": "transformer"}, ValueError, "controller: expected one of lstm, gru, rnn, feedforward"),
        (
            {"deallocate": True, "free_gates": False},
            ValueError,
            "deallocate: expected free gates, got free_gates=False",
        ),
        ({"sharp_links": True, "links": False}, ValueError, "sharp_links: expected links, got links=False"),
        ({"clip": -1.0}, ValueError, "clip: expected more than 0, got -1.0"),
        ({"dtype": "int32"}, TypeError, "dtype: expected float32 or float64, got int32"),
        ({"memory": "learned"}, TypeError, "memory"),
    ],
)
def test_refusals(arguments, kind, message):
    with pytest.raises(kind, match=message):
        nn.DNC(I, O, 4, **arguments)


@pytest.mark.parametrize("links", [True, 2])
def test_arrays_of_the_first_state_are_apart(links):
    """Whoever writes into one alters no other."""
    leaves, _ = flatten(cells.DNC(I, O, 4, slots=3, width=2, read_heads=2, write_heads=2, links=links).state, "state")
    for place, leaf in enumerate(leaves):
        assert not any(np.shares_memory(leaf, other) for other in leaves[place + 1 :])


def test_a_slot_is_enough():
    """One slot, one column, one unit: no links, no choice, and still gradients."""
    for links in (True, 1, False):
        net = nn.DNC(1, 1, 1, slots=1, width=1, links=links, dtype="float64", rng=0)
        x = np.random.default_rng(0).standard_normal((3, 1, 1))
        state = net._initial(0, 1)._replace(memory=np.ones((1, 1, 1)), usage=np.full((1, 1), 0.5))
        fusedrnn.gradcheck(net, {"x": x, "state": state})
    assert cells.DNC(1, 1, 1).state.memory.shape == (32, 16)
