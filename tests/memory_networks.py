"""Small memory networks in all their forms, moved from their first values, and how their states are compared."""

from __future__ import annotations

import numpy as np

from fusedrnn import nn
from fusedrnn.cells.links import SparseLinks
from fusedrnn.scan.trees import flatten, map_leaves
from tests import memories

T, N, I, O = 4, 2, 3, 2  # noqa: E741

NTMS = {
    "one head of each": {},
    "heads and a wide shift": {"read_heads": 3, "write_heads": 2, "shifts": 2, "memory": "learned"},
    "no shift": {"shifts": 0, "controller": "gru", "reads": "learned", "start": "learned"},
    "all random": {
        "controller": "rnn",
        "memory": "random",
        "weightings": "random",
        "reads": "random",
        "start": "random",
    },
    "all constant": {"controller": "feedforward", "memory": "constant", "weightings": "constant", "write_heads": 2},
    "all learned": {"memory": "learned", "weightings": "learned", "reads": "learned", "start": "learned"},
    "a stack": {"hidden_size": [3, 2], "controller": "gru", "read_heads": 2, "start": "learned"},
    "a stack without state": {"hidden_size": [4, 2, 3], "controller": "feedforward"},
    "a narrow clip": {"clip": 0.7, "read_heads": 2},
    "no clip": {"clip": None},
}
DNCS = {
    "one head of each": {},
    "read heads": {"read_heads": 3, "controller": "gru"},
    "write heads": {"read_heads": 2, "write_heads": 3},
    "no links": {"links": False, "write_heads": 2, "controller": "rnn"},
    "no links, masked": {"links": False, "key_mask": True, "free_gates": False},
    "nothing is freed": {"free_gates": False, "controller": "feedforward"},
    "masks": {"key_mask": True, "read_heads": 2, "write_heads": 2},
    "what is freed is erased": {"deallocate": True, "read_heads": 2},
    "sharp links": {"sharp_links": True, "write_heads": 2, "read_heads": 2},
    "normalized": {"normalize": True, "hidden_size": [4, 2]},
    "all refinements": {
        "key_mask": True, "deallocate": True, "sharp_links": True, "normalize": True, "read_heads": 2,
        "controller": "gru",
    },
    "sparse": {"links": 3},
    "sparse, of several heads": {"links": 4, "write_heads": 2, "read_heads": 2, "sharp_links": True},
    "a stack without state": {"hidden_size": [4, 3], "controller": "feedforward"},
    "a narrow clip": {"clip": 0.7},
    "no clip": {"clip": None, "sharp_links": True},
}  # fmt: skip


def made(network, *, hidden_size=4, slots=5, width=3, dtype="float64", seed=0, scale=0.7, **options):
    """The layer, every parameter moved by N(0, scale²)."""
    net = network(I, O, hidden_size, slots=slots, width=width, dtype=dtype, rng=seed, **options)
    rng = np.random.default_rng(seed + 1)
    for parameter in net.parameters():
        parameter.data += (scale * rng.standard_normal(parameter.data.shape)).astype(dtype)
    return net


def writes_much(net):
    """The same DNC with write gates that are open, heads that allocate, and keys that find something."""
    bias, step = getattr(net, "interface.b").data, net.step
    place = 0
    for name, shape in step.shapes().items():
        count = int(np.prod(shape))
        if name == "write_gate":
            bias[place : place + count] += 5
        if name == "allocation_gate":
            bias[place : place + count] += 3
        place += count
    return net


def inputs(steps=T, rows=N, dtype="float64", seed=5):
    return np.random.default_rng(seed).standard_normal((steps, rows, I)).astype(dtype)


def somewhere(net, steps=2, seed=11):
    """A state that such networks reach, [N, ...]: usages apart, so that no small change moves a slot in their order."""
    rng, first = np.random.default_rng(seed), net._initial(0, N)

    def shares(*shape):
        return rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(net.dtype)

    fields = {"memory": rng.standard_normal(first.memory.shape).astype(net.dtype)}
    for name in ("read_weightings", "write_weightings"):
        fields[name] = shares(*getattr(first, name).shape)
    if hasattr(first, "usage"):
        fields["usage"] = rng.uniform(0.1, 0.9, first.usage.shape).astype(net.dtype)
        fields["precedence"] = [0.9 * shares(*precedence.shape) for precedence in first.precedence]
    training = net.training
    _, state = net.eval()(inputs(steps, dtype=net.dtype, seed=seed), first._replace(**fields))
    net.train(training)
    return state


def whole(state):
    """The state with its sparse links as whole matrices."""
    if not hasattr(state, "links") or not any(isinstance(link, SparseLinks) for link in state.links):
        return state
    return state._replace(links=[dense(link) for link in state.links])


def dense(link):
    """L [slots, slots], which both halves of the links of one sequence must tell alike."""
    slots = len(link.later)
    found = []
    for weights, places, later in ((link.later, link.later_slots, True), (link.earlier, link.earlier_slots, False)):
        matrix = np.zeros((slots, slots), weights.dtype)
        for own in range(slots):
            for weight, other in zip(weights[own], places[own], strict=True):
                assert (weight > 0) == (other >= 0)
                if other >= 0:
                    row, column = (other, own) if later else (own, other)
                    assert matrix[row, column] == 0, "a link stands twice"
                    matrix[row, column] = weight
        found.append(matrix)
    np.testing.assert_array_equal(*found)
    return found[0]


def row_of(state, row):
    return map_leaves(lambda leaf: leaf[row], state)


def close(ours, theirs, **tolerance):
    tolerance = tolerance or {"rtol": 1e-11, "atol": 1e-13}
    ours, structure = flatten(ours, "state")
    theirs, _ = flatten(map_leaves(np.asarray, shaped_like(structure.pack(ours), theirs)), "state")
    for name, one, other in zip(structure.names, ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, err_msg=name, **tolerance)


def shaped_like(form, tree):
    """Lists of numbers where the form has an array."""
    if isinstance(form, (np.ndarray, np.generic)):
        return np.asarray(tree)
    members = [shaped_like(part, other) for part, other in zip(form, tree, strict=True)]
    return type(form)(*members) if hasattr(form, "_fields") else type(form)(members)


def same(ours, theirs):
    pairs = []
    map_leaves(lambda *pair: pairs.append(pair), ours, theirs)
    assert pairs
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def check_parity(net, options, state=None):
    """Hold every state and output of the layer, and of the step under NumPy, to the loops."""
    x, (slow, options) = inputs(), slow_twin(net, options)
    y, states = net.trajectory(x, state)
    p, first = net._data(0), net._initial(0, N) if state is None else state
    for row in range(N):
        fast, state = row_of(first, row), whole(row_of(first, row))
        for t in range(T):
            state, expected = slow(p, state, x[t, row], **options)
            state = shaped_like(whole(row_of(row_of(states, t), row)), state)
            fast, numpys = net.step(p, fast, x[t, row])
            close((whole(row_of(row_of(states, t), row)), y[t, row]), (state, expected))
            close((whole(fast), numpys), (state, expected))


def ntm_options(options):
    defaults = {"controller": "lstm", "read_heads": 1, "write_heads": 1, "width": 3, "shifts": 1, "clip": 20.0}
    return {name: options.get(name, value) for name, value in defaults.items()}


def dnc_options(options):
    defaults = {
        "controller": "lstm", "read_heads": 1, "write_heads": 1, "width": 3, "links": True, "free_gates": True,
        "key_mask": False, "deallocate": False, "sharp_links": False, "normalize": False, "clip": 20.0,
    }  # fmt: skip
    return {name: options.get(name, value) for name, value in defaults.items()}


def slow_twin(net, options):
    """The loops that this layer is held to, and their options."""
    return (memories.ntm, ntm_options(options)) if isinstance(net, nn.NTM) else (memories.dnc, dnc_options(options))
