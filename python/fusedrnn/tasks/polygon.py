"""Convex polygons drawn vertex by vertex: an LSTM whose outputs are a mixture density of the next edge.

A polygon has 3 to 8 vertices on an ellipse of random axes, place and rotation, neighbours 0.25 to 0.95 pi = 2.98
radians of its parameter apart, counter-clockwise from the lowest one. The net sees vertex after vertex, where it lies
and by which edge it was reached, and gives the probability that it was the last and a mixture of bivariate Gaussians
for the edge to the next (Graves 2013, "Generating sequences with recurrent neural networks"). To draw, each point
sampled is fed back. An exercise of V. Moosavi's lecture "Introduction to Recurrent Neural Nets" (ETH Zurich, 2017),
without a published figure. Batches show each polygon in one of the eight symmetries of the square, which leave its
distribution as it is.

Metrics, of 1,000 polygons drawn without bias: ``convex``, the fraction that ends itself within 12 vertices, strictly
convex and simple; ``convex_8``, the same among those of 8 vertices; ``length_tv``, the total variation distance of
their numbers of vertices from the data's; ``area`` and ``spread``, their mean area and their centroids' standard
deviation over those of the data. ``nll``: -log density of 2,000 held-out polygons, nats a vertex. It is the same for
edges and for places: the one is the other shifted by what is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.functional import mixture_density_sample
from fusedrnn.nn import LSTM, MixtureDensityLoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import EveryStep
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.shapes import FEWEST, MOST, areas, centroid_deviation, in_a_symmetry, is_convex, polygons
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, RunError, SampleOptions, Task
from fusedrnn.train.batches import shuffled

LIMIT = 12  # vertices of a drawing, at most
TRAINING, HELD_OUT, DRAWN, BATCH = 20_000, 2_000, 1_000, 128
UNITS, COMPONENTS = 128, 20
POINT, EDGE, PRESENT = slice(0, 2), slice(2, 4), 4  # columns of x


# data


def coded(vertices: Array, n: Array) -> tuple[Array, Array]:
    """What the net sees and what it should tell, of polygons [N, 8, 2] of n vertices each, the first after the origin.

    Step t has vertex t - 1 and tells of vertex t; there is one step more than vertices, which tells that none is left.
    x [9, N, 5]: the vertex, the edge that led to it, and 1 on steps that exist. target [9, N, 5]: the next edge,
    whether none is left, and the weights of these two, 1 where there is something to tell.
    """
    count, most, _ = vertices.shape
    step = np.arange(most + 1)[:, None]
    has_next, exists = ((step < limit).astype(np.float32)[:, :, None] for limit in (n, n + 1))
    place = np.zeros((most + 2, count, 2), np.float32)  # the origin, the vertices, and none
    place[1:-1] = vertices.transpose(1, 0, 2)
    edge = (place[1:] - place[:-1]) * has_next
    came = np.concatenate([np.zeros_like(edge[:1]), edge[:-1]])
    x = np.concatenate([place[:-1] * exists, came, exists], axis=2)
    none_left = (step == n).astype(np.float32)[:, :, None]
    return x, np.concatenate([edge, none_left, has_next, exists], axis=2)


# model


class Drawer(EveryStep):
    """``x [T, N, 5]`` as ``coded`` gives it -> parameters of mixtures [T, N, 6K + 1]; steps that do not exist are
    left out of the recurrence."""

    def __init__(self, units: int, components: int, rng: np.random.Generator | None = None) -> None:
        super().__init__(LSTM(5, units, forget_bias=1.0, rng=rng), 6 * components + 1, rng=rng)

    def forward(self, x: Array) -> Array:
        """Parameters [T, N, 6K + 1] of x [T, N, 5]."""
        y, _ = self.rnn(x, lengths=(x[:, :, PRESENT] > 0).sum(0))
        out: Array = self.head(y)
        return out

    def draw(
        self, count: int, rng: np.random.Generator, *, bias: float = 0.0, given: Array | None = None, limit: int = LIMIT
    ) -> tuple[Array, Array]:
        """Vertices [count, limit, 2] and how many are each polygon's own, [count]; 0 where it did not end itself.

        Args:
            bias: of the mixtures, as `fusedrnn.mixture_density_sample`. given: [n, 2], the first vertices of all.
        """
        given = np.zeros((0, 2)) if given is None else given
        stream = self.rnn.stream(count)
        x = np.zeros((count, 5), self.rnn.dtype)
        x[:, PRESENT] = 1
        vertices, n = np.zeros((count, limit, 2), x.dtype), np.zeros(count, np.int64)
        for step in range(limit + 1):
            drawn = mixture_density_sample(self.head(stream.step(x)), rng, bias=bias)
            if step < len(given):
                drawn[:] = [*given[step], 0]
                drawn[:, :2] -= x[:, POINT]
            n[(drawn[:, 2] > 0) & (n == 0)] = step
            if n.all() or step == limit:
                break
            x[:, EDGE] = drawn[:, :2]
            x[:, POINT] += drawn[:, :2]
            vertices[:, step] = x[:, POINT]
        return vertices, n


# metrics


def shape_metrics(vertices: Array, n: Array, data: tuple[Array, Array]) -> Metrics:
    """All metrics of drawn polygons but ``nll``, beside those of the data."""
    convex, ended = is_convex(vertices, n), n > 0
    largest = n == MOST
    share = np.bincount(n, minlength=LIMIT + 1) / len(n)
    expected = np.zeros(len(share))
    expected[FEWEST : MOST + 1] = 1 / (MOST + 1 - FEWEST)
    drawn = vertices[ended], n[ended]
    ratios = (0.0, 0.0)
    if ended.any():
        ratios = (
            float(areas(*drawn).mean() / areas(*data).mean()),
            centroid_deviation(*drawn) / centroid_deviation(*data),
        )
    return {
        "convex": float(convex.mean()),
        "convex_8": float(convex[largest].mean()) if largest.any() else 0.0,
        "length_tv": float(np.abs(share - expected).sum() / 2),
        "area": ratios[0],
        "spread": ratios[1],
    }


# baselines


def independent_vertices(rng: np.random.Generator, vertices: Array, n: Array) -> tuple[Array, Array]:
    """Polygons with numbers of vertices from the data, each vertex any one of the data's."""
    pool = vertices[np.arange(vertices.shape[1]) < n[:, None]]
    return pool[rng.integers(0, len(pool), (DRAWN, MOST))], rng.choice(n, DRAWN)


def gaussian_steps(vertices: Array, n: Array) -> Array:
    """Parameters [9, 7] of a mixture of one Gaussian for each step, which knows nothing of the vertices before."""
    rows = np.zeros((MOST + 1, 7))
    for step, row in enumerate(rows):
        end = np.mean(n[n >= step] == step).clip(1e-6, 1 - 1e-6)
        row[6] = np.log(end / (1 - end))
        if step < MOST:
            place = vertices[n > step, step].astype(np.float64)
            covariance = np.cov(place.T)
            sigma = np.sqrt(covariance.diagonal())
            row[1:6] = [*place.mean(0), *np.log(sigma), np.arctanh(covariance[0, 1] / sigma.prod())]
    return rows


def gaussian_baseline(rng: np.random.Generator, training: tuple[Array, Array], test: tuple[Array, Array]) -> Metrics:
    """The metrics of polygons whose every vertex is drawn from a Gaussian of its step."""
    parameters = gaussian_steps(*training)
    drawn = mixture_density_sample(np.repeat(parameters[None], DRAWN, 0), rng)
    n = (drawn[:, :, 2] > 0).argmax(1)
    target = coded(*test)[1].astype(np.float64)
    target[:-1, :, :2] = test[0].transpose(1, 0, 2)
    loss = MixtureDensityLoss("sum")(np.repeat(parameters[:, None], target.shape[1], 1), target)
    return {**shape_metrics(drawn[:, :, :2], n, test), "nll": loss / float(test[1].sum())}


# the run


def make_model(settings: Mapping[str, Any], rng: np.random.Generator | None = None) -> Drawer:
    """The network of a preset."""
    return Drawer(settings.get("units", UNITS), settings.get("components", COMPONENTS), rng)


def setup(options: Options) -> Run:
    """One run: polygons, model and optimizer from the seed."""
    rng = np.random.default_rng(options.seed)
    training, test = polygons(rng, TRAINING), polygons(rng, HELD_OUT)
    model = make_model(options.preset.settings, rng)
    test_x, test_target = coded(*test)
    loss = MixtureDensityLoss("sum")

    def make(indices: Array, batch_rng: np.random.Generator) -> tuple[Array, Array]:
        vertices, n = (part[indices] for part in training)
        x, target = coded(in_a_symmetry(vertices, n, batch_rng), n)
        target[:, :, 3:] /= n.sum()  # so that the sum is the mean over vertices
        return x, target

    batches = shuffled(TRAINING, BATCH, options.seed, make)
    drawing_seed = [options.seed, 1]
    gaussian = gaussian_baseline(np.random.default_rng(drawing_seed), training, test)
    independent = is_convex(*independent_vertices(np.random.default_rng(drawing_seed), *training)).mean()

    def evaluate() -> Metrics:
        drawn = model.draw(DRAWN, np.random.default_rng(drawing_seed))
        return {**shape_metrics(*drawn, test), "nll": loss(model(test_x), test_target) / float(test[1].sum())}

    def figures() -> Metrics:
        return {**evaluate(), "gaussian_convex": gaussian["convex"], "independent_convex": float(independent)}

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        def row(title: str, vertices: Array, n: Array) -> tuple[str, list[tuple[Array, bool]]]:
            ends = np.where(n > 0, n, vertices.shape[1])
            right = is_convex(vertices, n)
            return title, [(v[:end], bool(good)) for v, end, good in zip(vertices, ends, right, strict=True)]

        drawing = np.random.default_rng(drawing_seed)
        plain, biased = model.draw(48, drawing), model.draw(12, drawing, bias=1.0)
        begun = model.draw(12, drawing, given=test[0][0, :2])
        rows = [row("data", test[0][:12], test[1][:12])]
        rows += [row("drawn", plain[0][i : i + 12], plain[1][i : i + 12]) for i in range(0, 48, 12)]
        rows += [row("bias 1", *biased), row("2 given", *begun)]
        pictures.draw_polygons(path, rows, "Polygons drawn vertex by vertex; what is not convex or did not end is red")

    return Run(
        model=model,
        loss=loss,
        optimizer=Adam(model, lr=3e-3),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=1.0,
        evaluate=evaluate,
        evaluate_every=5,
        figures=figures,
        baseline=gaussian,
        draw=draw,
        headline=lambda m: (
            f"{100 * m['convex']:.1f} % of {DRAWN:,} drawings convex (a Gaussian for each step: "
            f"{100 * m['gaussian_convex']:.1f} %, independent vertices: {100 * m['independent_convex']:.1f} %), "
            f"{m['nll']:.3f} nats a vertex"
        ),
    )


# drawing from a trained run


def sample(folder: Path, options: SampleOptions) -> None:
    """Draw with the network of a run; one line for each polygon, ``x,y x,y ...``, or a picture where ``out`` is a .png.

    ``prime``: first vertices, written the same way. ``length``: vertices at most; what has not ended by then says so.
    """
    if options.temperature != 1:
        raise RunError(f"--temperature: polygon has --bias instead, got {options.temperature}")
    if not 0 <= options.bias < np.inf:
        raise RunError(f"--bias: expected a finite number of at least 0, got {options.bias}")
    if options.count < 1:
        raise RunError(f"--count: expected at least 1, got {options.count}")
    given = np.zeros((0, 2), np.float32) if options.prime is None else _read_vertices(options.prime)
    if len(given) >= options.length:
        raise RunError(f"--length: expected more than the {len(given)} vertices given, got {options.length}")
    saved = SavedRun(folder)
    saved.require(POLYGON.name)
    preset = saved.metadata.of("preset")
    if preset.text() not in POLYGON.presets:
        preset.refuse(f"expected one of {', '.join(POLYGON.presets)}, got {preset.value!r:.80}")
    model = make_model(POLYGON.presets[preset.value].settings)
    saved.load(model)
    rng = np.random.default_rng(options.seed)
    vertices, n = model.draw(options.count, rng, bias=options.bias, given=given, limit=options.length)
    right, own = is_convex(vertices, n), np.where(n > 0, n, options.length)
    drawn = [v[:end] for v, end in zip(vertices, own, strict=True)]
    if options.out is not None and options.out.suffix == ".png":
        pairs = [(v, bool(good)) for v, good in zip(drawn, right, strict=True)]
        rows = [("", pairs[i : i + 12]) for i in range(0, len(pairs), 12)]
        pictures.draw_polygons(options.out, rows, f"{np.sum(right)} of {len(drawn)} convex, bias {options.bias:g}")
        return
    lines = [
        " ".join(f"{x:.4f},{y:.4f}" for x, y in v) + ("" if ended else " ...")
        for v, ended in zip(drawn, n > 0, strict=True)
    ]
    if options.out is not None:
        options.out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return
    for line in lines:
        options.say(line)


def _read_vertices(text: str) -> Array:
    vertices: Array
    try:
        vertices = np.array([[float(number) for number in pair.split(",")] for pair in text.split()], np.float32)
    except ValueError:
        vertices = np.empty(0)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or not np.isfinite(vertices).all():
        raise RunError(f'--prime: expected vertices such as "0,-0.8 0.7,-0.2", got {text!r}')
    return vertices


POLYGON = Task(
    name="polygon",
    about="draw convex polygons vertex by vertex (LSTM with a mixture density)",
    presets={
        "smoke": Preset("64 units, 30 epochs", epochs=30, settings={"units": 64, "components": 10}),
        "default": Preset("60 epochs", epochs=60),
        "best": Preset("200 epochs", epochs=200),
    },
    setup=setup,
    sample=sample,
)
