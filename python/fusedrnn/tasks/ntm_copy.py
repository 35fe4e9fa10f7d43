"""Copy (Graves, Wayne and Danihelka 2014, section 4.1): vectors of 8 random bits, a mark, then all of them again.

Trained on 1 to 20 vectors. A neural Turing machine with an LSTM controller writes each vector into the next slot of its
memory, goes back at the mark, and reads; what it learnt so serves sequences far longer than those of training. An LSTM
has to keep all in its state.

Metrics: ``bits_per_sequence``, the cross-entropy of a whole answer in bits, mean over 200 held-out sequences of 1 to 20
vectors (84 for who guesses); ``wrong_bits_50`` and ``wrong_bits_120``, fractions of wrong bits at these lengths. The
same with ``lstm_`` in front, of an LSTM on the same sequences: of 3 layers of 256 units in the paper and in the preset
``best``, of 128 units in the others. ``learned_after``, the sequences after which the mean loss of 1,000 was at most
0.05 bits, null where it never was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.tasks.episodes import held_out, weighted
from fusedrnn.tasks.memory_text import say_steps, vectors_of, written
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.ntm_runs import Exercise, Recipe, reload, setup_run, wrong_of
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

BITS, LONGEST = 8, 20
LENGTHS = (10, 20, 30, 50, 80, 120)
LONG_ROWS = 50  # sequences of each of LENGTHS
LEARNED = 0.05  # bits a sequence


def coded(bits: Array) -> tuple[Array, Array]:
    """Return x [2 L + 1, N, 9] and target [2 L + 1, N, 9] of vectors [L, N, 8]; the ninth channel of x is the mark."""
    length, rows, width = bits.shape
    x = np.zeros((2 * length + 1, rows, width + 1), np.float32)
    x[:length, :, :width] = bits
    x[length, :, width] = 1
    answer = np.zeros((2 * length + 1, rows, width), np.float32)
    answer[length + 1 :] = bits
    return x, weighted(answer, np.arange(2 * length + 1) > length)


def of_length(rng: np.random.Generator, rows: int, length: int) -> tuple[Array, Array]:
    """Draw sequences of so many vectors, as ``coded`` gives them."""
    return coded(rng.integers(0, 2, (length, rows, BITS)))


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences of 1 to 20 vectors, all of one length."""
    return of_length(rng, rows, int(rng.integers(1, LONGEST + 1)))


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""

    def more(model: SideBySide) -> Metrics:
        metrics: Metrics = {}
        for length in LENGTHS:
            rng = held_out(options.seed, 200 + length)
            metrics |= wrong_of(model, str(length), *of_length(rng, LONG_ROWS, length))
        return metrics

    exercise = Exercise(
        name=NTM_COPY.name,
        recipe=Recipe(inputs=BITS + 1, outputs=BITS, lstm_units=128, lr=3e-4, rows=4, updates=250),
        draw=draw,
        test=[of_length(held_out(options.seed, n), 10, n) for n in range(1, LONGEST + 1)],
        more=more,
        shown=of_length(held_out(options.seed, 300), 1, 30),
        level=("a guess", BITS * (LONGEST + 1) / 2),
        learned=LEARNED,
        headline=lambda m: (
            f"{m['bits_per_sequence']:.3f} bits a sequence (LSTM: {m['lstm_bits_per_sequence']:.1f}), wrong bits "
            f"{100 * m['wrong_bits_50']:.2f} % of 50 vectors, {100 * m['wrong_bits_120']:.2f} % of 120"
        ),
    )
    return setup_run(options, exercise)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Copy what was typed, vectors of 8 bits or any letters, and tell at every step where it was written and read.

    Raises CheckpointError for a folder without such a network, ValueError for a text with nothing to copy.
    """
    machine = reload(folder, NTM_COPY.name)
    vectors = vectors_of(text, BITS)
    x, _ = coded(vectors[:, None])
    answer = say_steps(machine, x[:, 0], ["mark"] + ["-"] * len(vectors), BITS, say)
    copied = answer[len(vectors) + 1 :]
    say(f"copied: {written(copied, text)}")
    say(f"{int(np.sum(copied != vectors))} of {vectors.size} bits wrong")


NTM_COPY = Task(
    name="ntm-copy",
    about="copy a sequence of vectors of bits (neural Turing machine beside an LSTM)",
    presets={
        "smoke": Preset("8,000 sequences", epochs=8),
        "default": Preset("30,000 sequences", epochs=30),
        "best": Preset("100,000 sequences, beside the paper's LSTM", epochs=100, settings={"lstm_units": 256}),
    },
    setup=setup,
    predict=predict,
)
