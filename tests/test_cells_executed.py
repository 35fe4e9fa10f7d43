"""Published cells and memory networks in the executor: what the reference gives, for all layouts and precisions."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from benchmarks.recurrences import NETWORKS, Case, draw
from fusedrnn.reference import scan as reference
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.tracing import Abstract, trace_step
from fusedrnn.scan.trees import flatten
from tests.test_cells_published import rollout
from tests.test_cells_traced import VARIANTS, T, drawn, traced

MEMORIES = {
    "ntm": Case("ntm", T=T, N=3, I=3, H=4, slots=6, width=3, dtype="float64"),
    "dnc": Case("dnc", T=T, N=3, I=3, H=4, slots=5, width=3, heads=2, dtype="float64"),
    "attention": Case("attention", T=T, N=3, I=3, H=4, S=5, dtype="float64"),
}


def of_cell(name, options):
    """The step of a cell, and arrays: shared, rows, states, inputs."""
    cell, state, x, _ = drawn(name, options)
    arrays = [flatten(tree)[0] for tree in (cell.parameters, state, x)]
    return traced(cell, state, x).step, (arrays[0], [], *arrays[1:])


def of_memory(name):
    arrays = draw(MEMORIES[name])
    structures = []
    for tree, axes in ((arrays.p, 0), (arrays.state, 1), (arrays.x, 2), (arrays.context, 1)):
        leaves, structure = flatten(tree)
        structures.append(structure.pack([Abstract(leaf.shape[axes:], "real") for leaf in leaves]))
    shared, states, inputs, rows = (
        flatten(tree)[0] for tree in (arrays.p, arrays.state, arrays.x, arrays.context)
    )  # fmt: skip
    return trace_step(NETWORKS[name].step, *structures).step, (shared, rows, states, inputs)


def repeated(arrays, times, dtype):
    """The same rows again and again, moved a little, so that each is its own."""
    shared, rows, states, inputs = arrays
    moves = 1 + 0.01 * np.arange(times)

    def batch(leaf, axis):
        return np.concatenate([leaf * move for move in moves], axis=axis).astype(dtype)

    return (
        [np.asarray(leaf, dtype) for leaf in shared],
        [batch(leaf, 0) for leaf in rows],
        [batch(leaf, 0) for leaf in states],
        [batch(leaf, 1) for leaf in inputs],
    )


def close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max()))


def check(step, arrays, dtype, tolerance, **layout):
    shared, rows, states, inputs = arrays
    rng, N = np.random.default_rng(5), len(states[0])
    dy = [rng.standard_normal((T, N, *value.shape)).astype(dtype) for value in step.outputs]
    ds = [rng.standard_normal(leaf.shape).astype(dtype) for leaf in states]
    derivative, scan = derive(step), {"steps": T, "batch": N}
    program = Executable(step, derivative)
    new_states, outputs, _, _, kept = program.forward(shared, rows, states, inputs, dtype=dtype, **scan, **layout)
    gradients = program.backward(kept, ds, dy)
    expected = reference.run(step, shared, rows, states, inputs, **scan)
    close(new_states + outputs, expected.new_states + expected.outputs, tolerance)
    expected = reference.gradients(derivative, shared, rows, states, inputs, dnew_states=ds, doutputs=dy, **scan)
    for found, other in zip(
        gradients, (expected.states, expected.inputs, expected.rows, expected.shared), strict=True
    ):  # fmt: skip
        close(found, other, tolerance)


PROGRAMS = [*VARIANTS, *((name, None) for name in MEMORIES)]


@pytest.mark.parametrize(("name", "options"), PROGRAMS, ids=str)
def test_the_executor_agrees_with_the_reference(name, options):
    """Row by row, in one block of rows with padding and in two; in chunks that cut what is elementwise."""
    step, arrays = of_memory(name) if options is None else of_cell(name, options)
    for times, lanes, chunk, dtype in ((1, 1, 64, "float64"), (1, 16, 64, "float32"), (6, 16, 0, "float64")):
        tolerance = {"float64": 1e-11, "float32": 2e-4}[dtype]
        check(step, repeated(arrays, times, dtype), dtype, tolerance, lanes=lanes, chunk=chunk)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_scan_forward_and_backward_of_a_cell(name, options):
    """y and the last state are the loop's; all gradients together against one difference along a random direction."""
    cell, state, x, rng = drawn(name, options)
    y, last, reserve = fusedrnn.scan_forward(cell.step, cell.parameters, state, x)
    expected, expected_last = rollout(cell, x, state)
    close([y, *flatten(last)[0]], [expected, *flatten(expected_last)[0]], 1e-12)
    dy = rng.standard_normal(y.shape)
    gradients = fusedrnn.scan_backward(dy, None, reserve)
    slope, ends = 0.0, []
    trees = [(cell.parameters, gradients.dparams), (state, gradients.dstate), (x, gradients.dx)]
    directions = [[rng.standard_normal(np.shape(leaf)) for leaf in flatten(tree)[0]] for tree, _ in trees]
    for (_, gradient), own in zip(trees, directions, strict=True):
        slope += sum(np.sum(d * g) for d, g in zip(own, flatten(gradient)[0], strict=True))
    for step in (1e-6, -1e-6):
        moved = []
        for (tree, _), own in zip(trees, directions, strict=True):
            leaves, structure = flatten(tree)
            moved.append(structure.pack([leaf + step * d for leaf, d in zip(leaves, own, strict=True)]))
        ends.append(np.sum(dy * fusedrnn.scan_forward(cell.step, *moved, training=False)[0]))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-6)
