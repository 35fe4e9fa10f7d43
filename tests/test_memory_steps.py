"""The benchmarks' memory networks: each step against loops over slots, and what holds of any memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.recurrences import NETWORKS, Case, draw
from fusedrnn.cells import DNCState, NTMState
from fusedrnn.reference import scan as reference
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.tracing import Abstract, trace_step
from tests import memories
from tests.differences import check_along_directions

CASES = {
    "ntm": Case("ntm", T=5, N=2, I=3, H=4, slots=6, width=3, dtype="float64"),
    "dnc": Case("dnc", T=5, N=2, I=3, H=4, slots=5, width=3, heads=2, dtype="float64"),
    "attention": Case("attention", T=4, N=2, I=3, H=4, S=5, dtype="float64"),
}


def nested(p, tells):
    """Flat parameters as the cells nest them."""
    return {"controller": [p]} | {name: {"W": p[name], "b": p[f"{name}_b"]} for name in (tells, "out")}


def ntm(p, state, x):
    h, c, seen, reading, writing, memory = state
    options = {"controller": "lstm", "read_heads": 1, "write_heads": 1, "width": len(seen), "shifts": 1, "clip": None}
    before = NTMState(((h, c),), seen[None], reading[None], writing[None], memory)
    after, y = memories.ntm(nested(p, "heads"), before, x, **options)
    heads = after.reads[0], after.read_weightings[0], after.write_weightings[0]
    return (*after.controller[0], *heads, after.memory), y


def dnc(p, state, x):
    h, c, reads, memory, usage, precedence, link, writing, readings = state
    heads, width = reads.shape
    refinements = dict.fromkeys(("key_mask", "deallocate", "sharp_links", "normalize"), False)
    before = DNCState(((h, c),), reads, memory, usage, [precedence], [link], writing[None], readings)
    after, y = memories.dnc(
        nested(p, "interface"), before, x, controller="lstm", read_heads=heads, write_heads=1, width=width, links=True,
        free_gates=True, clip=None, **refinements,
    )  # fmt: skip
    order = after.reads, after.memory, after.usage, after.precedence[0], after.links[0], after.write_weightings[0]
    return (*after.controller[0], *order, after.read_weightings), y


def attention(p, state, x, context):
    """Bahdanau et al. 2014, A.1.2, in an LSTM that sees what was attended last."""
    h, c, attended = state
    (h, c), _ = memories.lstm(p, (h, c), [*x, *attended])
    query, scores = p["query"] @ h, []
    for encoded in context["encoded"]:
        scores.append(sum(v * math.tanh(q + row @ encoded) for v, q, row in zip(p["v"], query, p["keys"], strict=True)))
    seen = memories.read(context["encoded"], memories.normalized(scores))
    attended = [math.tanh(row @ [*h, *seen] + b) for row, b in zip(p["out"], p["out_b"], strict=True)]
    return (h, c, attended), attended


@pytest.mark.parametrize(("name", "slow"), [("ntm", ntm), ("dnc", dnc), ("attention", attention)])
def test_a_step_is_what_its_loops_say(name, slow):
    """Each step from the state that the quick one has reached."""
    arrays = draw(CASES[name])
    for row in range(2):
        state = tuple(leaf[row] for leaf in arrays.state)
        own = () if arrays.context is None else ({"encoded": arrays.context["encoded"][row]},)
        for x in arrays.x[:, row]:
            expected, expected_y = slow(arrays.p, state, x, *own)
            state, y = NETWORKS[name].step(arrays.p, state, x, *own)
            np.testing.assert_allclose(y, expected_y, rtol=1e-11, atol=1e-13)
            for leaf, other in zip(state, expected, strict=True):
                np.testing.assert_allclose(leaf, other, rtol=1e-11, atol=1e-13)


def test_a_dnc_from_an_empty_memory_keeps_its_invariants():
    """Zeros throughout at first; usage ties then, and the first slot is taken."""
    case = Case("dnc", T=1, N=1, I=3, H=4, slots=6, width=3, heads=2, dtype="float64")
    p = {name: 5 * value for name, value in draw(case).p.items()}
    shapes = [shape for _, shape in NETWORKS["dnc"].state(case)]
    state, rng = tuple(np.zeros(shape) for shape in shapes), np.random.default_rng(0)
    for step in range(40):
        before = state
        state, y = NETWORKS["dnc"].step(p, state, 3 * rng.standard_normal(3))
        _, _, _, _, usage, precedence, link, w_write, w_reads = state
        assert np.isfinite(y).all()
        assert (usage >= 0).all()
        assert (usage <= 1).all()
        for sums in (w_write.sum(), w_reads.sum(axis=1), precedence.sum(), link.sum(axis=0), link.sum(axis=1)):
            assert np.max(sums) <= 1 + 1e-12
        assert (link >= -1e-15).all()
        np.testing.assert_array_equal(np.diagonal(link), 0)
        if step == 0:
            np.testing.assert_array_equal(before[4], 0)
            assert w_write[0] > 2 * w_write[1:].max()


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_that_of_the_loop_over_the_step(name):
    case, arrays = CASES[name], draw(CASES[name])
    rng, (T, N) = np.random.default_rng(1), (case.T, case.N)
    names = sorted(arrays.p)
    given = [[arrays.p[key] for key in names], list(arrays.state), [arrays.x]]
    context = None if arrays.context is None else arrays.context["encoded"]
    if context is not None:
        given.append([context])
    ds = [rng.standard_normal(leaf.shape) for leaf in arrays.state]

    def abstract(array, axes):
        return Abstract(array.shape[axes:], "real")

    recurrence = trace_step(
        NETWORKS[name].step,
        {key: abstract(value, 0) for key, value in arrays.p.items()},
        tuple(abstract(leaf, 1) for leaf in arrays.state),
        abstract(arrays.x, 2),
        None if context is None else {"encoded": abstract(context, 1)},
    )

    def loss(p, states, inputs, rows=()):
        p, value = dict(zip(names, p, strict=True)), 0.0
        for row in range(N):
            state, own = tuple(leaf[row] for leaf in states), [{"encoded": leaf[row]} for leaf in rows]
            for t in range(T):
                state, y = NETWORKS[name].step(p, state, inputs[0][t, row], *own)
                value += np.sum(arrays.dy[t, row] * y)
            value += sum(np.sum(d[row] * leaf) for d, leaf in zip(ds, state, strict=True))
        return value

    rows = [] if context is None else [context]
    found = reference.gradients(
        derive(recurrence.step), given[0], rows, given[1], given[2],
        dnew_states=ds, doutputs=[arrays.dy], steps=T, batch=N,
    )  # fmt: skip
    gradients = [found.shared, found.states, found.inputs, found.rows][: len(given)]
    check_along_directions(loss, given, gradients, rng)
