"""Copy, by a differentiable neural computer with links and by one without (Graves et al. 2016, Extended Data Figure 4).

A mark, vectors of 6 random bits, a second mark, then all vectors again. Trained on 1 to 10 vectors. The controller is
feed-forward, so that all that lasts is in the memory: the computer writes vector after vector into free slots and finds
the way back from one to the next by the links, which say what was written after what. Without links it has nothing but
the content to go by.

Metrics: ``exact_15`` and ``exact_20``, the fraction of 500 sequences of 15 and 20 vectors without a wrong bit;
``exact_15_no_links``, the same of the computer without links; ``bits_per_sequence``, the cross-entropy of a whole
answer in bits, mean over held-out sequences of 1 to 10 vectors (33 for who guesses).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.optim import CosineLR
from fusedrnn.plots import memory as memory_plots
from fusedrnn.tasks.dnc_runs import Recipe, computer_of, reload_best, tell, watch
from fusedrnn.tasks.episodes import BitsLoss, bits_per_sequence, episodes, exact, held_out, weighted
from fusedrnn.tasks.memory_text import bits_of, vectors_of, written
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

BITS, LONGEST = 6, 10
LENGTHS = (5, 10, 15, 20, 25)
TESTED = 500  # sequences of each of LENGTHS


def coded(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Return x [T, N, 8] and target [T, N, 7] of sequences [L, N, 6], each copied before the next one begins.

    Channels 6 and 7 of x are the marks before and behind the vectors; a sequence takes 2 L + 2 steps.
    """
    rows = sequences[0].shape[1]
    steps = sum(2 * len(bits) + 2 for bits in sequences)
    x, answer = np.zeros((steps, rows, BITS + 2), np.float32), np.zeros((steps, rows, BITS), np.float32)
    answered, start = np.zeros(steps, np.bool_), 0
    for bits in sequences:
        length = len(bits)
        x[start, :, BITS] = x[start + length + 1, :, BITS + 1] = 1
        x[start + 1 : start + 1 + length, :, :BITS] = bits
        asked = slice(start + length + 2, start + 2 * length + 2)
        answer[asked], answered[asked] = bits, True
        start = asked.stop
    return x, weighted(answer, answered)


def of_lengths(rng: np.random.Generator, rows: int, lengths: Sequence[int]) -> tuple[Array, Array]:
    """Draw rows of sequences of these lengths, as ``coded`` gives them."""
    return coded([rng.integers(0, 2, (length, rows, BITS)) for length in lengths])


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences of 1 to 10 vectors, all of one length."""
    return of_lengths(rng, rows, [int(rng.integers(1, LONGEST + 1))])


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""
    seed = options.seed
    recipe = replace(Recipe(BITS + 2, BITS, "no links"), **options.settings)
    model = recipe.networks(np.random.default_rng(seed))
    checks = [of_lengths(held_out(seed, n), 10, [n]) for n in range(1, LONGEST + 1)]

    def evaluate() -> Metrics:
        bits = np.mean([bits_per_sequence(model(x), target) for x, target in checks], axis=0)
        return {"bits_per_sequence": float(bits[0]), "bits_per_sequence_no_links": float(bits[1])}

    def right(length: int) -> Array:
        """Return the fractions [2] of exact sequences of both networks."""
        x, target = of_lengths(held_out(seed, 100 + length), TESTED, [length])
        return exact(model(x), target)

    def figures() -> Metrics:
        metrics = evaluate()
        for length in (15, 20):
            own, other = right(length)
            metrics |= {f"exact_{length}": float(own), f"exact_{length}_no_links": float(other)}
        return metrics

    def picture(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        x, target = of_lengths(held_out(seed, 300), 1, [LONGEST])
        lines = 100 * np.array([right(length) for length in LENGTHS])
        chart = memory_plots.Chart(
            title="longer than in training",
            label="vectors to copy",
            unit="copied without a wrong bit, %",
            at=LENGTHS,
            lines={"with links": lines[:, 0], "without links": lines[:, 1]},
            trained=LONGEST,
        )
        title = "A differentiable neural computer copies ten vectors: each goes into a free slot, the links lead back"
        memory_plots.draw_computer(path, x[:, 0], target[:, 0], watch(computer_of(model), x[:, 0]), chart, title)

    return Run(
        model=model,
        loss=BitsLoss(),
        optimizer=recipe.optimizer(model),
        batches=episodes(draw, recipe.updates, recipe.rows, seed),
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(recipe.updates), final=0.1),
        evaluate=evaluate,
        figures=figures,
        baseline={"bits_per_sequence": BITS * (LONGEST + 1) / 2},
        draw=picture,
        headline=lambda m: (
            f"{100 * m['exact_15']:.1f} % of sequences of 15 vectors copied without a wrong bit (without links: "
            f"{100 * m['exact_15_no_links']:.1f} %), of 20 vectors {100 * m['exact_20']:.1f} %"
        ),
        monitor="bits_per_sequence",
        metadata={"recipe": asdict(recipe)},
    )


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Copy vectors of 6 bits as typed, and tell at every step where the computer wrote and read.

    Raises CheckpointError for a folder without such a network, ValueError for a text that is no vectors.
    """
    computer = reload_best(folder, DNC_COPY.name)
    vectors = vectors_of(text, BITS)
    x, target = coded([vectors[:, None]])
    seen = watch(computer, x[:, 0])
    asked = target[:, 0, -1] > 0
    answers = [bits_of(row > 0) if ask else "" for row, ask in zip(seen.logits, asked, strict=True)]
    names = ["begin", *text.split(), "end", *["" for _ in vectors]]
    tell(seen, names, answers, say)
    copied = (seen.logits[asked] > 0).astype(int)
    say(f"copied: {written(copied, text)}")
    say(f"{int(np.sum(copied != vectors))} of {vectors.size} bits wrong")


DNC_COPY = Task(
    name="dnc-copy",
    about="copy vectors of bits along the links of what was written (differentiable neural computer)",
    presets={
        "smoke": Preset("1,000 updates", epochs=2),
        "default": Preset("5,000 updates", epochs=10),
        "best": Preset("20,000 updates", epochs=40),
    },
    setup=setup,
    predict=predict,
)
