"""Questions about graphs, by a differentiable neural computer and an LSTM (Graves et al. 2016, Figures 2 and 3).

A graph is read as triples (source, edge, destination), one a step, in random order, their labels as digits, one hot;
then comes a question of one of two kinds. Traversal: a source and a list of edges, and all triples on the way are to
be told. Shortest path: a source and a destination, five steps to plan, then the triples of the way. Labels are drawn
anew for every graph, so that a graph can only be known by what was read. Training goes through lessons of growing
graphs and paths; the test is on random graphs of the last lesson, and on the map of a metro that was made by hand.

In the paper labels have three digits, ours of stations two and of edges one; a lesson ends when it is mastered, ours
after so many updates; of shortest paths it plans for ten steps, shows the network its own last answer, admits only
edges that leave the node where it is, and takes any shortest path for right. Ours shows nothing while it answers, and
asks for pairs with a single shortest path.

Metrics: ``traversal``, ``shortest``, ``traversal_metro`` and ``shortest_metro``: the fraction of questions every
triple of whose answer is right, of four edges, and of paths of one to three edges; ``shortest_1`` and so on, of those
of so many edges. The same with ``lstm_`` in front, of an LSTM on the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import Module
from fusedrnn.optim import CosineLR
from fusedrnn.plots import memory as memory_plots
from fusedrnn.tasks.dnc_graphs import INPUTS, LONGEST, TRIPLE, ask_shortest, ask_traversal, exact, random_graphs
from fusedrnn.tasks.dnc_metro import METRO, asked_in, told_by
from fusedrnn.tasks.dnc_runs import Recipe, computer_of, reload_best, tell
from fusedrnn.tasks.episodes import BitsLoss, held_out
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.batches import Batches

WALK = 4  # edges of a traversal at most
# nodes, edges, edges of a traversal and of a shortest path at most
LESSONS = ((6, 10, 2, 1), (6, 10, 2, 2), (7, 13, 3, 2), (8, 16, 4, 3), (10, 20, 4, 3))
EPOCHS_OF_A_LESSON = 3
TESTED = 200  # questions of each length


def draw(rng: np.random.Generator, rows: int, lesson: int) -> tuple[Array, Array]:
    """Draw questions of one kind and length, four in five batches from the lesson, the others from those before."""
    chosen = lesson if rng.random() < 0.8 else int(rng.integers(lesson + 1))
    nodes, edges, walk, way = LESSONS[chosen]
    if rng.random() < 0.4:
        return ask_traversal(rng, random_graphs(rng, rows, nodes, edges), int(rng.integers(1, walk + 1)))
    return ask_shortest(rng, random_graphs(rng, 4 * rows, nodes, edges), rows, int(rng.integers(1, way + 1)))


# the run


def right_answers(model: Module, seed: int, set_number: int, rows: int) -> dict[str, Array]:
    """Return the fraction of right answers of the networks [members] to held-out questions, by their metric."""
    nodes, edges, _, _ = LESSONS[-1]
    found: dict[str, Array] = {}

    def right(x: Array, target: Array) -> Array:
        return np.asarray(exact(model(x), target).mean(-1))

    for number, place in enumerate(("", "_metro")):
        rng = held_out(seed, 10 * set_number + number)
        many = np.repeat(METRO.table[None], 4 * rows, 0) if place else random_graphs(rng, 4 * rows, nodes, edges)
        found[f"traversal{place}"] = right(*ask_traversal(rng, many[:rows], WALK))
        ways = {steps: right(*ask_shortest(rng, many, rows, steps)) for steps in range(1, LONGEST + 1)}
        found[f"shortest{place}"] = np.mean(list(ways.values()), axis=0)
        found |= {f"shortest{place}_{steps}": share for steps, share in ways.items()}
    return found


RECIPE = Recipe(
    INPUTS, TRIPLE, "lstm", units=128, slots=32, width=24, read_heads=3, key_mask=True, normalize=True, lstm_units=128,
    lr=2e-3,
)  # fmt: skip


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""
    seed = options.seed
    recipe = replace(RECIPE, **options.settings)
    model = recipe.networks(np.random.default_rng(seed))

    def batches(epoch: int) -> Batches:
        lesson = min(epoch // EPOCHS_OF_A_LESSON, len(LESSONS) - 1)

        def make(i: int) -> tuple[Array, Array]:
            return draw(np.random.default_rng([seed, epoch, i]), recipe.rows, lesson)

        return Batches(recipe.updates, make, [recipe.updates, recipe.rows, seed])

    def measure(set_number: int, rows: int) -> Metrics:
        found = right_answers(model, seed, set_number, rows)
        metrics = {name: float(value[0]) for name, value in found.items()}
        return metrics | {f"lstm_{name}": float(value[1]) for name, value in found.items()}

    def evaluate() -> Metrics:
        found = measure(1, 50)
        pairs = {"check": "", "lstm_check": "lstm_"}
        return {name: (found[f"{who}traversal"] + found[f"{who}shortest"]) / 2 for name, who in pairs.items()}

    def figures() -> Metrics:
        return {**measure(0, TESTED), **evaluate()}

    def picture(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        found = {name: 100 * value for name, value in right_answers(model, seed, 0, TESTED).items()}
        names = {"traversal_metro": f"{WALK} edges followed", "shortest_metro_1": "shortest path, 1 edge"}
        names |= {f"shortest_metro_{n}": f"{n} edges" for n in range(2, LONGEST + 1)}
        values = {
            network: [float(found[name][member]) for name in names]
            for member, network in enumerate(("differentiable neural computer", "LSTM"))
        }
        bars = memory_plots.Bars("right answers to questions about the map", "%", list(names.values()), values)
        told = told_by(computer_of(model), asked_in("Saltmarsh to Tinmarket"))
        colours = {f"tab:{line.lower()}": stops for line, (_, stops) in METRO.lines.items()}
        drawn = memory_plots.Map(METRO.places, colours, told.route)
        titles = (
            "A differentiable neural computer reads a map that it has never seen, edge by edge, and plans a journey",
            f"Saltmarsh to Tinmarket? {' - '.join(told.route)}\n{told.verdict}",
        )
        memory_plots.draw_metro(path, drawn, told.names, told.traces, bars, titles)

    return Run(
        model=model,
        loss=BitsLoss(),
        optimizer=recipe.optimizer(model),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(recipe.updates), final=0.1),
        evaluate=evaluate,
        figures=figures,
        draw=picture,
        headline=lambda m: (
            f"right answers on the metro map: {100 * m['traversal_metro']:.1f} % of {WALK} edges followed (LSTM: "
            f"{100 * m['lstm_traversal_metro']:.1f} %), {100 * m['shortest_metro']:.1f} % of shortest paths (LSTM: "
            f"{100 * m['lstm_shortest_metro']:.1f} %)"
        ),
        monitor="check",
        mode="max",
        metadata={"recipe": asdict(recipe)},
    )


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Answer a question about the metro map, and tell at every step where the computer wrote and read.

    ``text`` is "Saltmarsh to Kitefield", or "Saltmarsh: Red north, Red north" for where these ways lead.
    Raises CheckpointError for a folder without such a network, ValueError for a text that asks for neither.
    """
    computer = reload_best(folder, DNC_GRAPH.name)
    told = told_by(computer, asked_in(text))
    tell(told.traces, told.names, told.answers, say)
    for source, way, destination in told.triples:
        say(f"{source}, {way}, to {destination}")
    say(told.verdict)


DNC_GRAPH = Task(
    name="dnc-graph",
    about="follow edges and find shortest paths in graphs and on a metro map (differentiable neural computer, LSTM)",
    presets={
        "smoke": Preset("1,000 updates of the first lesson", epochs=2),
        "default": Preset("12,000 updates", epochs=24),
        "best": Preset("60,000 updates", epochs=120),
    },
    setup=setup,
    predict=predict,
)
