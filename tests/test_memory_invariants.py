"""This holds of any memory in float32 after 10,000 steps, under inputs and weights that strain it.

Usage lies in [0, 1]; weightings, precedence and the rows and columns of links are not negative and sum to at most 1;
no slot follows itself; nothing is NaN.
"""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn
from fusedrnn.cells.links import SparseLinks
from fusedrnn.scan.trees import flatten
from tests.memory_networks import DNCS, NTMS, I, dense, made, row_of

STEPS = 10_000
MORE = 1e-5  # than 1


def drives():
    """[STEPS, 5, I]: noise; noise 10,000 times as large; nothing; rare shocks; one input for ever."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, 5, I))
    x[:, 1] *= 1e4
    x[:, 2] = 0
    x[:, 3] *= 50 * (rng.random((STEPS, 1)) < 0.02)
    x[:, 4] = x[0, 4]
    return x.astype(np.float32)


def check(y, states):
    for leaf in (y, *flatten(states, "state")[0]):
        assert np.isfinite(leaf).all()
    for name in ("read_weightings", "write_weightings"):
        check_shares(name, getattr(states, name))
    if not hasattr(states, "usage"):
        return
    assert states.usage.min() >= 0
    assert states.usage.max() <= 1
    for precedence, link in zip(states.precedence, states.links, strict=True):
        check_shares("precedence", precedence)
        if isinstance(link, SparseLinks):
            check_shares("columns", link.later)
            check_shares("rows", link.earlier)
            for t in range(0, len(y), 997):
                for row in range(y.shape[1]):
                    np.testing.assert_array_equal(np.diagonal(dense(row_of(row_of(link, t), row))), 0)
        else:
            check_shares("rows", link)
            check_shares("columns", link.swapaxes(-1, -2))
            np.testing.assert_array_equal(np.diagonal(link, axis1=-2, axis2=-1), 0)


def check_shares(name, weights):
    assert weights.min() >= 0, name
    assert weights.sum(axis=-1).max() <= 1 + MORE, name


def scaled(net, scale):
    for parameter in net.parameters():
        parameter.data *= scale
    return net


def rows_of(net, part):
    """Rows of the interface that tell a part."""
    place = 0
    for name, shape in net.step.shapes().items():
        count = int(np.prod(shape))
        if name == part:
            return slice(place, place + count)
        place += count
    raise KeyError(part)


def biased(net, **levels):
    """The interface with these parts told by a bias alone."""
    for part, level in levels.items():
        net._table["interface.W"].data[rows_of(net, part)] = 0
        net._table["interface.b"].data[rows_of(net, part)] = level
    return net


@pytest.mark.parametrize(
    ("name", "scale"), [("heads and a wide shift", 1), ("heads and a wide shift", 20), ("all constant", 20)]
)
def test_a_turing_machine(name, scale):
    check(*scaled(made(nn.NTM, dtype="float32", **NTMS[name]), scale).trajectory(drives()))


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("one head of each", 1), ("one head of each", 20), ("write heads", 20), ("nothing is freed", 20),
        ("all refinements", 1), ("all refinements", 20), ("sparse, of several heads", 20), ("no links", 20),
    ],
)  # fmt: skip
def test_a_differentiable_computer(name, scale):
    check(*scaled(made(nn.DNC, dtype="float32", **DNCS[name]), scale).trajectory(drives()))


@pytest.mark.parametrize("name", ["write heads", "all refinements", "sparse"])
@pytest.mark.parametrize(
    "levels",
    [
        {"write_gate": 1e4, "allocation_gate": -1e4},
        {"write_gate": 1e4, "allocation_gate": 1e4, "free_gate": 1e4},
        {"write_gate": 1e4, "allocation_gate": 1e4, "free_gate": -1e4},
        {"write_gate": 3, "allocation_gate": 0, "read_key": 0, "write_key": 0},
        {"write_strength": 1e4, "read_strength": 1e4, "write_key": 0, "read_key": 1e-20},
        {"write_strength": -1e4, "read_strength": 1e4, "erase": -1e4, "write": 1e4},
    ],
    ids=str,
)
def test_extremes_of_an_interface(name, levels):
    net = scaled(made(nn.DNC, dtype="float32", **DNCS[name]), 3)
    check(*biased(net, **levels).trajectory(drives()[:1000]))


@pytest.mark.parametrize("links", [True, 4])
@pytest.mark.parametrize("level", [-18, -15.5, -12, -8])
def test_layouts_that_are_all_but_closed_for_ever(level, links):
    """A full memory with links near 1, and then writes of 1e-9 to 1e-4: what they add must be what they take."""
    net = made(nn.DNC, dtype="float32", controller="feedforward", free_gates=False, links=links)
    biased(net, write_gate=20, allocation_gate=20)
    x = np.zeros((STEPS, 1, I), np.float32)
    _, full = net(x[: net.slots + 1])
    biased(net, write_gate=level, allocation_gate=-3)
    check(*net.trajectory(x, full))
