"""Temporal links, whole and sparse, and the free list, each by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fusedrnn
from fusedrnn.cells.dnc import allocation, allotted, retention, used
from fusedrnn.cells.links import SparseLinks, backwards, forwards, linked, preceding, resolved, sparsely_linked
from tests import memories
from tests.memory_networks import dense


def drawn(rng, slots):
    """A write weighting: one slot, a few, or all, of a sum of at most 1."""
    sharpness = rng.choice([0.05, 0.3, 3])
    return rng.dirichlet(np.full(slots, sharpness)) * rng.choice([1.0, 0.999, 0.5, 0.01])


def none(slots, K):
    return SparseLinks(np.zeros((slots, K)), np.full((slots, K), -1), np.zeros((slots, K)), np.full((slots, K), -1))


@pytest.mark.parametrize(("slots", "K"), [(6, 2), (6, 6), (9, 4), (3, 1), (12, 8)])
def test_sparse_links_are_what_their_definition_says_of_a_whole_matrix(slots, K):
    """Over a hundred writes, and both halves agree on each link; so they do in float32, to the bit."""
    rng, matrix, precedence = np.random.default_rng(slots * K), np.zeros((slots, slots)), np.zeros(slots)
    sparse, small, small_precedence = none(slots, K), none(slots, K), np.zeros(slots, np.float32)
    small = SparseLinks(*(leaf.astype(np.float32) if leaf.dtype.kind == "f" else leaf for leaf in small))
    reading, most = rng.dirichlet(np.ones(slots), 2), 0
    for _ in range(100):
        w = drawn(rng, slots)
        matrix = np.array(memories.sparsely_linked(matrix, list(w), list(precedence), K))
        sparse = sparsely_linked(sparse, w, precedence)
        precedence = preceding(precedence, w)
        np.testing.assert_allclose(dense(sparse), matrix, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(forwards(sparse, reading), reading @ matrix.T, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(backwards(sparse, reading), reading @ matrix, rtol=1e-11, atol=1e-13)
        small = sparsely_linked(small, w.astype(np.float32), small_precedence)
        small_precedence = preceding(small_precedence, w.astype(np.float32))
        assert dense(small).dtype == np.float32
        most = max(most, np.count_nonzero(matrix))
    assert most >= (slots > 3)


def test_sure_writes_make_the_same_links_in_both_forms():
    """Slots written one after the other: the sparse form leaves nothing out, and readings walk along."""
    slots = 5
    order, matrix, sparse, precedence = [3, 0, 4, 1], np.zeros((slots, slots)), none(slots, 2), np.zeros(slots)
    for slot in order:
        w = np.eye(slots)[slot]
        matrix, sparse = linked(matrix, w, precedence), sparsely_linked(sparse, w, precedence)
        precedence = preceding(precedence, w)
    np.testing.assert_array_equal(dense(sparse), matrix)
    assert {tuple(place) for place in np.argwhere(matrix)} == {(0, 3), (4, 0), (1, 4)}
    np.testing.assert_array_equal(precedence, np.eye(slots)[1])
    for before, after in itertools.pairwise(order):
        np.testing.assert_array_equal(forwards(sparse, np.eye(slots)[[before]]), np.eye(slots)[[after]])
        np.testing.assert_array_equal(backwards(sparse, np.eye(slots)[[after]]), np.eye(slots)[[before]])
    cut = linked(matrix, np.eye(slots)[0], precedence)  # a slot that is written again loses its old links
    assert {tuple(place) for place in np.argwhere(cut)} == {(0, 1), (1, 4)}


def test_what_a_write_adds_it_takes():
    """All but closed gates in float32: 1 - w is 1, and w must add nothing then; sums stay at 1."""
    slots = 4
    matrix, precedence = np.zeros((slots, slots), np.float32), np.zeros(slots, np.float32)
    for slot in (0, 1, 2, 3):
        w = np.eye(slots, dtype=np.float32)[slot]
        matrix, precedence = linked(matrix, w, precedence), preceding(precedence, w)
    for size in (1e-8, 2.9e-8, 8.9e-8, 3e-7):
        w = resolved(np.full(slots, size, np.float32))
        kept = (matrix, precedence)
        for _ in range(2000):
            kept = linked(kept[0], w, kept[1]), preceding(kept[1], w)
        assert max(kept[0].sum(0).max(), kept[0].sum(1).max(), kept[1].sum()) <= 1 + 1e-6
    np.testing.assert_array_equal(resolved(np.float32([0, 0.5, 1, 1e-9])), np.float32([0, 0.5, 1, 0]))


def test_a_sum_above_one_by_rounding_goes_no_further():
    """A precedence is not negative then, and sums to at most 1.000005; gradients are those of one without a bound."""
    w = np.float32([0.75, 0.25 + 1.2e-7, 0])
    assert w.sum() > 1
    after = preceding(np.float32([0, 0, 1]), w)
    assert (after >= 0).all()
    drifted = np.full(4, 0.26)
    np.testing.assert_allclose(preceding(drifted, np.zeros(4)), 0.25, rtol=6e-6)
    barely = np.full(4, 0.25 + 1e-6)
    np.testing.assert_array_equal(preceding(barely, np.zeros(4)), barely)
    _, last, reserve = fusedrnn.scan_forward(
        lambda p, s, x: (preceding(s, x), s), None, drifted[None], np.zeros((1, 1, 4))
    )
    found = fusedrnn.scan_backward(None, last * [1, 0, 0, 0], reserve).dstate
    np.testing.assert_allclose(found, [[0.25 / 1.04, 0, 0, 0]], rtol=2e-5)


# the free list


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float64, st.integers(1, 7), elements=st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])))
def test_allocation_is_what_its_loop_says_with_ties_too(usage):
    """The first of equals is the freer one."""
    np.testing.assert_allclose(allocation(usage), memories.allocated(list(usage)), rtol=1e-12, atol=1e-15)


def test_equal_usage_is_taken_by_number():
    found = allocation(np.zeros(4))
    np.testing.assert_allclose(found, [1 - 1e-6, 1e-6, 1e-12, 1e-18], rtol=2e-6)
    np.testing.assert_allclose(allocation(np.array([0.5, 0.2, 0.2, 1.0])), [0.02, 0.8, 0.16, 0], atol=1e-5)


@pytest.mark.parametrize("usage", [[0.0, 0, 0, 0], [1.0, 1, 1, 1], [0, 1, 0.5, 1], [0.3, 0.7, 0.2, 0.4]])
def test_allocation_has_the_gradient_that_dividing_cannot_give(usage, dtype):
    """No product is divided by a usage of zero; against a derivative by hand, with the order held."""
    usage = np.array([usage], dtype)
    _, _, reserve = fusedrnn.scan_forward(lambda p, u, x: (u, allocation(u)), None, usage, np.zeros((1, 1), dtype))
    da = np.array([[[1.0, -2, 3, 0.5]]], dtype)
    found = fusedrnn.scan_backward(da, None, reserve).dstate[0]
    order, scale = np.argsort(usage[0], kind="stable"), 1 - 1e-6
    u, expected = 1e-6 + scale * usage[0][order].astype(float), np.zeros(4)
    for k in range(4):
        for j in range(4):  # a_j = (1 - u_j) times the product of u_i before j
            others = np.prod([u[i] for i in range(j) if i != k])
            slope = -others if k == j else (1 - u[j]) * others if k < j else 0.0
            expected[order[k]] += slope * da[0, 0, order[j]] * scale
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-7)


def test_usage_grows_by_writes_and_shrinks_by_what_is_freed():
    usage, writing = np.array([0.0, 0.5, 1.0, 0.2]), np.array([[0.5, 0.5, 0, 0], [0.5, 0, 0, 0]])
    np.testing.assert_allclose(used(usage, writing, None), [0.75, 0.75, 1, 0.2])
    kept = retention(np.array([[0, 0.5, 1, 0], [0, 0.5, 0, 0]]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(kept, [1, 0.375, 0, 1])
    np.testing.assert_allclose(used(usage, writing, kept), [0.75, 0.28125, 0, 0.2])
    assert retention(np.float32([[1 + 1.2e-7]]), np.float32([1])) == 0  # and not below


def test_heads_allocate_one_after_the_other():
    """The second takes the next slot where the first allocated, and the same where it did not."""
    usage, content, open_gates = np.array([0.9, 0.0, 0.3]), np.zeros((2, 3)), np.ones(2)
    both = allotted(usage, content, open_gates, open_gates)
    assert both.argmax(axis=1).tolist() == [1, 2]
    np.testing.assert_allclose(both[0], allocation(usage))
    first_looks_up = allotted(usage, content, np.array([0.0, 1.0]), open_gates)
    assert first_looks_up[1].argmax() == 1
    np.testing.assert_allclose(both.sum(axis=1), [1, 0.7], atol=0.2)
