"""The task polygon: its data, metrics on shapes that are known, drawing, and drawing from a run's folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedrnn.functional import mixture_density_loss
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS, polygon, shapes
from fusedrnn.tasks.run import Command, RunError, run_task
from fusedrnn.tasks.task import Options, SampleOptions
from fusedrnn.train.checkpoint import CheckpointError, write_checkpoint


def regular(n, *, turns=1, start=0.0):
    """Vertices [n, 2] of a regular polygon, or of a star that goes round more often."""
    angle = start + 2 * np.pi * turns * np.arange(n) / n
    return np.column_stack([np.cos(angle), np.sin(angle)])


def padded(*lists):
    vertices = np.zeros((len(lists), polygon.LIMIT, 2))
    for row, own in zip(vertices, lists, strict=True):
        row[: len(own)] = own
    return vertices, np.array([len(own) for own in lists])


# data


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 300))
def test_polygons_are_convex_and_begin_at_their_lowest_vertex(seed, count):
    vertices, n = shapes.polygons(np.random.default_rng(seed), count)
    assert vertices.shape == (count, 8, 2)
    assert vertices.dtype == np.float32
    assert n.min() >= 3
    assert n.max() <= 8
    assert shapes.is_convex(vertices, n).all()
    own = np.arange(8) < n[:, None]
    assert (vertices[~own] == 0).all()
    assert (np.where(own, vertices[:, :, 1], np.inf).argmin(1) == 0).all()
    assert np.abs(vertices).max() <= 1.5


def test_polygons_have_the_numbers_places_and_sizes_they_should():
    vertices, n = shapes.polygons(np.random.default_rng(0), 20_000)
    assert np.bincount(n)[3:] / len(n) == pytest.approx(np.full(6, 1 / 6), abs=0.01)
    edge, own = shapes.edges(vertices, n)
    # the vertices of an ellipse with axes 2 and 0.8 at most and least are no farther and no nearer than so
    length = np.linalg.norm(edge, axis=2)[own]
    assert length.max() <= 2
    assert length.min() >= 2 * 0.4 * np.sin(0.25 / 2)
    area = shapes.areas(vertices, n)
    assert area.max() < np.pi
    assert area.min() > 0
    eights = vertices[n == 8].mean(1)
    np.testing.assert_allclose(eights.mean(0), 0, atol=0.02)
    assert eights.std(0) == pytest.approx(np.full(2, 1 / np.sqrt(12)), rel=0.15)  # of U(-0.5, 0.5), and a little more


def test_symmetries_are_as_likely_as_the_polygons_themselves():
    vertices, n = shapes.polygons(np.random.default_rng(0), 4000)
    other = shapes.in_a_symmetry(vertices, n, np.random.default_rng(1))
    assert other.dtype == vertices.dtype
    assert shapes.is_convex(other, n).all()
    np.testing.assert_allclose(shapes.areas(other, n), shapes.areas(vertices, n), rtol=1e-4)
    own = np.arange(8) < n[:, None]
    assert (other[~own] == 0).all()
    assert (np.where(own, other[:, :, 1], np.inf).argmin(1) == 0).all()
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(other, axis=2)), np.sort(np.linalg.norm(vertices, axis=2)), rtol=1e-5
    )
    # an eighth of them each, the one that is none included; the square's symmetries move no corner elsewhere
    one = np.repeat(vertices[n == 5][:1], 4000, 0)
    moved = shapes.in_a_symmetry(one, np.full(4000, 5), np.random.default_rng(2))
    kinds, counts = np.unique(moved.round(4), axis=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 400
    assert (kinds == one[0].round(4)).all((1, 2)).any()


@settings(max_examples=50, deadline=None)
@given(n=st.integers(3, 8), shift=st.integers(0, 7), flat=st.booleans())
def test_any_cyclic_order_begins_at_the_lowest_then_leftmost(n, shift, flat):
    start = -np.pi / 2 + (np.pi / n if flat else 0.1 / n)
    shape = regular(n, start=start)
    if flat:  # two lowest vertices, the last and the first; the last is to the left
        shape[[0, -1], 1] = shape[[0, -1], 1].min()
    wanted = np.roll(shape, 1, 0) if flat else shape
    turned = shapes.from_the_lowest(*padded(np.roll(shape, shift, 0)))
    np.testing.assert_array_equal(turned[0, :n], wanted)
    assert (turned[0, n:] == 0).all()


def test_coding_can_be_undone():
    vertices, n = shapes.polygons(np.random.default_rng(1), 50)
    x, target = polygon.coded(vertices, n)
    assert x.shape == target.shape == (9, 50, 5)
    assert x.dtype == target.dtype == np.float32
    place, step = vertices.transpose(1, 0, 2), np.arange(9)[:, None]
    own = step < n
    np.testing.assert_array_equal(target[:, :, 3], own)
    np.testing.assert_array_equal(target[:, :, 4], step <= n)
    np.testing.assert_array_equal(x[:, :, polygon.PRESENT], step <= n)
    np.testing.assert_array_equal(target[:, :, 2], step == n)
    np.testing.assert_allclose(np.where(own[:8, :, None], target[:8, :, :2].cumsum(0), 0), place, atol=1e-6)
    # what is fed in is what came out one step before
    np.testing.assert_array_equal(x[1:, :, polygon.EDGE][own[:8]], target[:8, :, :2][own[:8]])
    np.testing.assert_array_equal(x[1:, :, polygon.POINT][own[:8]], place[own[:8]])
    assert (x[0, :, :4] == 0).all()


# metrics


def test_is_convex_knows_shapes():
    square = regular(4)
    dart = np.array([[0, 0], [2, 0], [0.5, 0.5], [0, 2.0]])
    bow_tie = square[[0, 2, 1, 3]]
    straight = np.array([[0, 0], [1, 0], [2, 0], [1, 1.0]])
    examples = {
        "triangle": (regular(3), True),
        "octagon": (regular(8, start=1.0), True),
        "thin": (regular(5) * [1, 1e-3], True),
        "clockwise": (square[::-1], False),
        "dart": (dart, False),
        "bow tie": (bow_tie, False),
        "three in a line": (straight, False),
        "the same vertex twice": (square[[0, 1, 1, 2, 3]], False),
        "pentagram": (regular(5, turns=2), False),
        "heptagram": (regular(7, turns=3), False),
        "a square drawn twice": (np.tile(square, (2, 1)), False),
        "two vertices": (square[:2], False),
        "not ended": (square[:0], False),
    }
    vertices, n = padded(*(shape for shape, _ in examples.values()))
    found = dict(zip(examples, shapes.is_convex(vertices, n).tolist(), strict=True))
    assert found == {name: convex for name, (_, convex) in examples.items()}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_moved_and_turned_polygons_stay_convex_and_reordered_ones_do_not(seed):
    rng = np.random.default_rng(seed)
    vertices, n = shapes.polygons(rng, 20)
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 10)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = vertices @ turn + rng.uniform(-5, 5, 2)
    assert shapes.is_convex(moved, n).all()
    assert shapes.areas(moved, n) == pytest.approx(scale**2 * shapes.areas(vertices, n), rel=1e-4)
    swapped = vertices.copy()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    assert not shapes.is_convex(swapped, n).any()


def test_areas_and_spread():
    square, triangle = regular(4), np.array([[0, 0], [2, 0], [0, 3.0]])
    np.testing.assert_allclose(shapes.areas(*padded(square, triangle, square[::-1])), [2, 3, -2])
    aside = np.array([3, 0])
    assert shapes.centroid_deviation(*padded(square - aside, square + aside)) == pytest.approx(3 / np.sqrt(2))


def test_metrics_of_the_data_itself_and_of_collapses():
    data, more = (shapes.polygons(np.random.default_rng(seed), 2000) for seed in (0, 1))
    metrics = polygon.shape_metrics(*more, data)
    assert metrics["convex"] == metrics["convex_8"] == 1
    assert metrics["length_tv"] < 0.04
    assert metrics["area"] == pytest.approx(1, abs=0.05)
    assert metrics["spread"] == pytest.approx(1, abs=0.05)
    triangles = data[1] == 3
    collapsed = polygon.shape_metrics(data[0][triangles], data[1][triangles], data)
    assert collapsed["length_tv"] == pytest.approx(5 / 6)
    assert collapsed["convex_8"] == 0
    one = polygon.shape_metrics(np.repeat(data[0][:1], 100, 0), np.repeat(data[1][:1], 100), data)
    assert one["spread"] == pytest.approx(0, abs=1e-6)
    none = polygon.shape_metrics(data[0], np.zeros(2000, int), data)
    assert none == {"convex": 0, "convex_8": 0, "length_tv": 1, "area": 0, "spread": 0}


def test_baselines_are_what_they_say():
    rng = np.random.default_rng(0)
    training, test = shapes.polygons(rng, 4000), shapes.polygons(rng, 500)
    gaussian = polygon.gaussian_baseline(rng, training, test)
    assert 0.1 < gaussian["convex"] < 0.22
    assert 1.3 < gaussian["nll"] < 1.9
    assert gaussian["length_tv"] < 0.06
    assert 0.06 < shapes.is_convex(*polygon.independent_vertices(rng, *training)).mean() < 0.16


# the network


@pytest.fixture
def run():
    task = TASKS["polygon"]
    preset = replace(task.presets["smoke"], settings={"units": 8, "components": 2})
    return polygon.setup(Options(preset, 1, 4, 0, say=pytest.fail))


def test_the_loss_is_the_mean_over_vertices_of_a_batch(run):
    x, target = next(iter(run.batches(0)))
    parameters = run.model(x)
    assert target[:, :, 3].sum() == pytest.approx(1, rel=1e-5)  # of each vertex
    tells, own = x[:, :, polygon.PRESENT] > 0, target[:, :, 3] > 0
    points = [parameters[own], np.ascontiguousarray(target[:, :, :3][own])]
    total, _ = mixture_density_loss(*points, np.tile(np.array([1, 0], "f4"), (own.sum(), 1)))
    flags = parameters[:, :, -1][tells].astype("f8")
    total += float(np.sum(np.logaddexp(0, flags) - flags * target[:, :, 2][tells]))
    assert run.loss(parameters, target) == pytest.approx(total / own.sum(), rel=1e-5)


def test_steps_past_the_end_do_not_count(run):
    x, target = next(iter(run.batches(0)))
    gradients = []
    for garbage in (0, np.nan):
        changed, aim = x.copy(), target.copy()
        changed[:, :, :4][x[:, :, polygon.PRESENT] == 0] = garbage
        aim[:, :, :2][target[:, :, 3] == 0] = garbage
        aim[:, :, 2][target[:, :, 4] == 0] = garbage
        run.model.flatten().grad.fill(0)
        run.loss(run.model(changed), aim)
        run.model.backward(run.loss.backward())
        gradients.append(run.model.flatten().grad.copy())
    np.testing.assert_array_equal(*gradients)
    assert np.abs(gradients[0]).max() > 0


def test_drawing_follows_the_network_step_by_step(run):
    """What was drawn, fed through the whole network at once, gives the very parameters it was drawn from."""
    run.model.eval()
    seen = []
    original = polygon.mixture_density_sample

    def spy(parameters, rng, *, bias):
        seen.append(parameters.copy())
        return original(parameters, rng, bias=bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygon, "mixture_density_sample", spy)
        vertices, n = run.model.draw(30, np.random.default_rng(0))
    assert (n > 1).any()
    whole = np.where(n > 0, n, polygon.LIMIT)
    x, _ = polygon.coded(vertices * (np.arange(polygon.LIMIT) < whole[:, None])[:, :, None], whole)
    parameters = run.model(x)
    for row, count in enumerate(whole):
        for step in range(min(count + 1, len(seen))):
            np.testing.assert_allclose(parameters[step, row], seen[step][row], rtol=2e-4, atol=2e-5)


def test_drawing_depends_on_nothing_but_its_seed_and_takes_what_is_given(run):
    one, same, other = (run.model.draw(20, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[0], same[0])
    assert (one[0] != other[0]).any()
    first = np.array([[0.1, -0.5], [0.7, 0.2], [0.3, 0.9]], "f4")
    vertices, n = run.model.draw(20, np.random.default_rng(0), given=first, limit=5)
    np.testing.assert_allclose(vertices[:, :3], np.tile(first, (20, 1, 1)), atol=1e-6)
    assert vertices.shape == (20, 5, 2)
    assert ((n == 0) | (n >= 3)).all()


def test_learns_to_end_and_to_turn_left(run):
    """A few updates lower the loss well below the baseline's start."""
    losses = []
    for _ in range(3):
        for x, target in run.batches(0):
            run.optimizer.zero_grad()
            losses.append(run.loss(run.model(x), target))
            run.model.backward(run.loss.backward())
            run.optimizer.step()
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) - 1


# drawing from a run's folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("polygon") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_loss", "draw_polygons"):
            patch.setattr(pictures, name, lambda path, *rest: path.write_bytes(b""))
        run_task(TASKS["polygon"], Command("smoke", steps=30, out=out, progress=False))
    return out


def test_sample_prints_polygons_that_can_be_given_back(folder):
    said = []
    options = SampleOptions(count=5, length=6, seed=3, say=said.append)
    polygon.sample(folder, options)
    assert len(said) == 5
    pairs = [[[float(number) for number in pair.split(",")] for pair in line.split() if pair != "..."] for line in said]
    assert all(1 <= len(vertices) <= 6 for vertices in pairs)
    again = []
    polygon.sample(folder, replace(options, say=again.append))
    assert again == said
    primed = []
    polygon.sample(folder, replace(options, prime="0,-0.5 0.5,0.25", bias=1.0, say=primed.append))
    assert all(line.startswith("0.0000,-0.5000 0.5000,0.2500 ") for line in primed)


def test_sample_writes_text_or_a_picture(folder, tmp_path):
    text, picture = tmp_path / "drawn.txt", tmp_path / "drawn.png"
    polygon.sample(folder, SampleOptions(count=3, length=4, out=text, say=pytest.fail))
    assert len(text.read_text().splitlines()) == 3
    polygon.sample(folder, SampleOptions(count=14, out=picture, say=pytest.fail))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.5}, "--temperature: polygon has --bias instead, got 0.5"),
        ({"bias": -1.0}, "--bias: expected a finite number of at least 0, got -1"),
        ({"prime": "0,1 2"}, "--prime: expected vertices such as \"0,-0.8 0.7,-0.2\", got '0,1 2'"),
        ({"prime": ""}, "--prime: expected vertices"),
        ({"prime": "a,b"}, "--prime: expected vertices"),
        ({"prime": "0,inf"}, "--prime: expected vertices"),
        ({"prime": "0,0 1,0", "length": 2}, "--length: expected more than the 2 vertices given, got 2"),
        ({"count": 0}, "--count: expected at least 1, got 0"),
    ],
)
def test_sample_names_bad_options(folder, change, message):
    with pytest.raises(RunError, match=message):
        polygon.sample(folder, replace(SampleOptions(say=pytest.fail), **change))


def test_sample_needs_a_run_of_its_own(folder, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        polygon.sample(tmp_path, SampleOptions())
    write_checkpoint(tmp_path / "checkpoint.safetensors", {}, {"metadata": {"task": "count-ones"}})
    with pytest.raises(CheckpointError, match="a run of count-ones, not of polygon"):
        polygon.sample(tmp_path, SampleOptions())
