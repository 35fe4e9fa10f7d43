"""The life of a memory network as a layer: lengths, resets, streams, files, copies, bits, more memory."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.scan import program
from fusedrnn.scan.trees import flatten, map_leaves
from tests.memory_networks import I, N, O, T, inputs, made, row_of, same

NETWORKS = {
    "ntm": (nn.NTM, {"read_heads": 2, "memory": "learned", "start": "learned"}),
    "dnc": (nn.DNC, {"read_heads": 2, "write_heads": 2, "key_mask": True, "deallocate": True, "sharp_links": True}),
    "sparse dnc": (nn.DNC, {"links": 2, "controller": "gru", "hidden_size": [3, 2], "normalize": True}),
}


@pytest.fixture(params=NETWORKS)
def make(request):
    network, options = NETWORKS[request.param]
    return lambda **more: made(network, **{"dtype": "float32", **options, **more})


def gradients(net):
    return [parameter.grad.copy() for parameter in net.parameters()]


def test_rows_of_uneven_length_are_rows_alone(make):
    net, x, lengths = make(), inputs(dtype="float32"), [3, 1]
    y, state = net(x, lengths=lengths)
    dy = np.ones_like(y)
    dx, _ = net.backward(dy)
    for row, length in enumerate(lengths):
        alone_y, alone = net(x[:length, row : row + 1])
        same((y[:length, row], row_of(state, row)), (alone_y[:, 0], row_of(alone, 0)))
        np.testing.assert_array_equal(y[length:, row], 0)
        alone_dx, _ = net.backward(dy[:length, row : row + 1])
        np.testing.assert_allclose(dx[:length, row], alone_dx[:, 0], rtol=1e-6)
        np.testing.assert_array_equal(dx[length:, row], 0)


def test_a_reset_row_begins_again(make):
    net, x = make(), inputs(dtype="float32")
    resets = np.zeros((T, N), bool)
    resets[2, 0] = True
    y, state = net(x, resets=resets)
    again, last = net(x[2:, :1])
    same((y[2:, 0], row_of(state, 0)), (again[:, 0], row_of(last, 0)))
    net.backward(None)
    dx, _ = net.backward(np.ones_like(y))
    before, _ = net(x[:2, :1])
    np.testing.assert_allclose(dx[:2, 0], net.backward(np.ones_like(before))[0][:, 0], rtol=1e-6)


def test_streams_parts_frozen_and_batch_first_have_the_bits_of_the_whole(make):
    net, x = make(), inputs(dtype="float32")
    y, last = net.eval()(x)
    stream, state, parts = net.stream(N), None, []
    for t in range(T):
        np.testing.assert_array_equal(stream(x[t]), y[t])
        part, state = net(x[t : t + 1], state)
        parts.append(part)
    same((stream.state, state, np.concatenate(parts)), (last, last, y))
    same(net.freeze()(x), (y, last))
    first = make(batch_first=True).eval()
    swapped, state = first(np.ascontiguousarray(x.swapaxes(0, 1)))
    same((swapped.swapaxes(0, 1), state), (y, last))


def test_a_state_saved_to_a_file_goes_on(make, tmp_path):
    net, x = make(), inputs(dtype="float32")
    y, last = net(x)
    leaves, structure = flatten(net(x[:2])[1], "state")
    fusedrnn.save(dict(zip(structure.names, leaves, strict=True)), tmp_path / "state.npz")
    kept = fusedrnn.load(tmp_path / "state.npz")
    restored = structure.pack([kept[name] for name in structure.names])
    same(net(x[2:], restored), (y[2:], last))
    stream = net.stream(N)
    stream.state = restored
    np.testing.assert_array_equal(stream(x[2]), y[2])
    same(pickle.loads(pickle.dumps(last)), last)


def test_recomputed_states_give_the_same_bits(make):
    x, found = inputs(7, dtype="float32"), []
    for recompute in (None, True, 2):
        net = make(recompute=recompute)
        y, state = net(x)
        found.append((y, state, net.backward(np.ones_like(y))[0], gradients(net)))
    same(found[1], found[0])
    same(found[2], found[0])


def test_bits_are_those_of_any_batch_and_any_number_of_threads(make, threads):
    net, x = make(slots=9, width=5), inputs(6, 12, "float32")
    found = []
    for count in (1, 2, 5):
        threads(count)
        for parameter in net.parameters():
            parameter.grad[...] = 0
        y, state = net(x)
        dx, dstate = net.backward(np.ones_like(y))
        found.append((y, state, dx, dstate.memory, gradients(net)))
    same(found[1], found[0])
    same(found[2], found[0])
    y, state, dx = found[0][:3]
    for rows in (slice(0, 1), slice(3, 8), slice(11, 12)):
        part, last = net(x[:, rows])
        d_part, _ = net.backward(np.ones_like(part))
        same((part, d_part), (y[:, rows], dx[:, rows]))
        same(last, map_leaves(lambda leaf, rows=rows: leaf[rows], state))


def test_a_trajectory_has_the_state_after_every_step(make):
    net, x = make(), inputs(dtype="float32")
    y, last = net(x)
    net.backward(None)
    again, states = net.trajectory(x)
    same((again, row_of(states, T - 1)), (y, last))
    for t in range(T - 1):
        same(row_of(states, t), net(x[: t + 1])[1])
    assert type(states) is type(last)
    assert net.training


def test_copies_pickles_and_others_of_the_form_share_programs(make):
    net, x = make(), inputs(dtype="float32")

    def used():
        return sum(len(known.programs) for known in list(program._known.values()))

    def run(layer):
        y, _ = layer(x)
        layer.backward(np.ones_like(y))
        return y, gradients(layer)

    found = run(net)
    before = used()
    copies = (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), make(seed=3))
    copies[2].load_state_dict(net.state_dict())
    for other in copies:
        for parameter in other.parameters():
            parameter.grad[...] = 0
        same(run(other), found)
        next(iter(other.parameters())).data[...] = 0
    assert used() == before
    same(net(x)[0], found[0])  # its own parameters stayed


def test_names_and_files_of_parameters(make, tmp_path):
    net, other, x = make(), make(seed=5), inputs(dtype="float32")
    assert not np.array_equal(net(x)[0], other(x)[0])
    fusedrnn.save(net.state_dict(), tmp_path / "net.npz")
    other.load_state_dict(fusedrnn.load(tmp_path / "net.npz"))
    same(net(x), other(x))
    parts = {name.partition(".")[0] for name in net.state_dict()}
    assert parts == (
        {"controller", "heads", "out", "start"} if isinstance(net, nn.NTM) else {"controller", "interface", "out"}
    )


def test_with_more_memory_parameters_stay(make):
    net, x = make(), inputs(dtype="float32")
    large = net.enlarged(8)
    assert (large.slots, net.slots) == (8, 5)
    for (name, own), (_, more) in zip(net.named_parameters(), large.named_parameters(), strict=True):
        if name.startswith(("controller", "heads", "interface", "out")):
            np.testing.assert_array_equal(more.data, own.data)
    y, state = large(x)
    large.backward(np.ones_like(y))
    assert state.memory.shape == (N, 8, 3)
    next(iter(large.parameters())).data[...] = 0
    assert np.any(next(iter(net.parameters())).data)
    same(net.enlarged(5)(x), net(x))
    assert not net.eval().enlarged(6).training


@pytest.mark.parametrize("kind", ["learned", "constant", "random"])
def test_a_turing_machine_with_more_memory_begins_where_it_did(kind):
    """Old slots keep what is in them and what they weigh; new ones are those of a network of that size, unweighted."""
    options = dict.fromkeys(("memory", "weightings", "reads", "start"), kind)
    net = made(nn.NTM, slots=6, **options)
    large = net.enlarged(40)
    (first,), (wide,) = ([row_of(each._initial(0, 1), 0)] for each in (net, large))
    np.testing.assert_array_equal(wide.memory[:6], first.memory)
    same((wide.controller, wide.reads), (first.controller, first.reads))
    fresh = row_of(nn.NTM(I, O, 4, slots=40, width=3, dtype="float64", **options)._initial(0, 1), 0)
    np.testing.assert_array_equal(wide.memory[6:], fresh.memory[6:])
    for name in ("read_weightings", "write_weightings"):
        np.testing.assert_allclose(getattr(wide, name)[:, :6], getattr(first, name), rtol=1e-6)
        assert getattr(wide, name)[:, 6:].max() < 1e-8
