"""Copying many sequences through few slots, with free gates and without (Graves et al. 2016, Extended Data Figure 1).

Sequences of 1 to 5 vectors come one after the other, each to be copied before the next one, and the memory has ten
slots. A differentiable neural computer that frees a slot when it has read it can go on for ever; without free gates it
runs out of slots in the second sequence and has to write over what it still needs. Trained on one to five sequences.

Metrics: ``wrong_bits_reuse``, the fraction of wrong bits in ten sequences of five vectors each, over 200 such rows;
``wrong_bits_no_free``, the same of the computer without free gates; ``bits_per_sequence``, the cross-entropy of all
answers of a held-out row of one to five sequences in bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.optim import CosineLR
from fusedrnn.plots import memory as memory_plots
from fusedrnn.tasks.dnc_copy import BITS, of_lengths
from fusedrnn.tasks.dnc_runs import Recipe, computer_of, watch
from fusedrnn.tasks.episodes import BitsLoss, bits_per_sequence, episodes, held_out, wrong_bits
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

SLOTS, LONGEST, MOST = 10, 5, 5  # of memory, vectors of a sequence, sequences in a row to train on
TESTED, IN_A_ROW = 200, 10
COUNTS = (1, 2, 3, 5, 10)


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw rows of one to five sequences of 1 to 5 vectors each, the same lengths in all rows."""
    count = int(rng.integers(1, MOST + 1))
    return of_lengths(rng, rows, rng.integers(1, LONGEST + 1, count).tolist())


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""
    seed = options.seed
    recipe = replace(Recipe(BITS + 2, BITS, "no free gates", slots=SLOTS), **options.settings)
    model = recipe.networks(np.random.default_rng(seed))
    checks = [draw(held_out(seed, number), 10) for number in range(20)]

    def evaluate() -> Metrics:
        bits = np.mean([bits_per_sequence(model(x), target) for x, target in checks], axis=0)
        return {"bits_per_sequence": float(bits[0]), "bits_per_sequence_no_free": float(bits[1])}

    def wrong(count: int) -> Array:
        """Return the fractions [2] of wrong bits of both networks in so many sequences of five vectors."""
        x, target = of_lengths(held_out(seed, 100 + count), TESTED, [LONGEST] * count)
        return wrong_bits(model(x), target)

    def figures() -> Metrics:
        own, other = wrong(IN_A_ROW)
        return {**evaluate(), "wrong_bits_reuse": float(own), "wrong_bits_no_free": float(other)}

    def picture(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        x, target = of_lengths(held_out(seed, 300), 1, [LONGEST, 3, LONGEST, 4])
        lines = 100 * np.array([wrong(count) for count in COUNTS])
        chart = memory_plots.Chart(
            title="many sequences through ten slots",
            label="sequences of five vectors in a row",
            unit="wrong bits, %",
            at=COUNTS,
            lines={"with free gates": lines[:, 0], "without free gates": lines[:, 1]},
            trained=MOST,
        )
        title = "A differentiable neural computer copies four sequences through ten slots: what is read is freed"
        memory_plots.draw_computer(path, x[:, 0], target[:, 0], watch(computer_of(model), x[:, 0]), chart, title)

    return Run(
        model=model,
        loss=BitsLoss(),
        optimizer=recipe.optimizer(model),
        batches=episodes(draw, recipe.updates, recipe.rows, seed),
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(recipe.updates), final=0.3),
        evaluate=evaluate,
        figures=figures,
        baseline={"bits_per_sequence": BITS * (LONGEST + 1) / 2 * (MOST + 1) / 2},
        draw=picture,
        headline=lambda m: (
            f"{100 * m['wrong_bits_reuse']:.2f} % wrong bits in {IN_A_ROW} sequences of {LONGEST} vectors through "
            f"{SLOTS} slots (without free gates: {100 * m['wrong_bits_no_free']:.1f} %)"
        ),
        monitor="bits_per_sequence",
        metadata={"recipe": asdict(recipe)},
    )


DNC_REUSE = Task(
    name="dnc-reuse",
    about="copy many sequences through ten slots by freeing what was read (differentiable neural computer)",
    presets={
        "smoke": Preset("1,500 updates", epochs=3),
        "default": Preset("10,000 updates", epochs=20),
        "best": Preset("40,000 updates", epochs=80),
    },
    setup=setup,
)
