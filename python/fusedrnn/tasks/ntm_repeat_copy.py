"""Repeat copy (Graves, Wayne and Danihelka 2014, section 4.2): some vectors, then a number; copy them so many times.

1 to 10 vectors of 8 random bits, then the number of copies, 1 to 10, as a scalar of mean zero and variance one; after
the last copy an end mark has to come. The machine writes the vectors once, reads them in a loop and keeps count.

Metrics: ``bits_per_sequence``, the cross-entropy of a whole answer in bits, mean over 200 held-out sequences;
``wrong_bits``, the fraction of bits of theirs that are wrong; ``wrong_bits_longer``, of 20 vectors 10 times, and
``wrong_bits_more``, of 10 vectors 20 times. The same with ``lstm_`` in front, of an LSTM on the same sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.tasks.episodes import held_out, weighted
from fusedrnn.tasks.memory_text import say_steps, vectors_of, written
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.ntm_runs import Exercise, Recipe, reload, setup_run, several, wrong_of
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

BITS, MOST = 8, 10  # of vectors, and of copies
MARK, COUNT = BITS, BITS + 1  # channels of x
END = BITS  # channel of the answer
MEAN, DEVIATION = (MOST + 1) / 2, float(np.sqrt((MOST**2 - 1) / 12))  # of the number of copies
LONG_ROWS = 50
MOST_ASKED = 100  # copies, of a user


def coded(bits: Array, copies: int) -> tuple[Array, Array]:
    """Return x [T, N, 10] and target [T, N, 10] of vectors [L, N, 8]; T = L + 1 + copies L + 1."""
    length, rows, width = bits.shape
    x = np.zeros((length * (1 + copies) + 2, rows, width + 2), np.float32)
    x[:length, :, :width] = bits
    x[length, :, MARK] = 1
    x[length, :, COUNT] = (copies - MEAN) / DEVIATION
    answer = np.zeros((len(x), rows, width + 1), np.float32)
    answer[length + 1 : -1, :, :width] = np.tile(bits, (copies, 1, 1))
    answer[-1, :, END] = 1
    return x, weighted(answer, np.arange(len(x)) > length)


def of_size(rng: np.random.Generator, rows: int, length: int, copies: int) -> tuple[Array, Array]:
    """Draw sequences of so many vectors and copies, as ``coded`` gives them."""
    return coded(rng.integers(0, 2, (length, rows, BITS)), copies)


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences of 1 to 10 vectors and as many copies, all of one size."""
    length, copies = rng.integers(1, MOST + 1, 2)
    return of_size(rng, rows, int(length), int(copies))


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""

    def more(model: SideBySide) -> Metrics:
        metrics: Metrics = {}
        for name, length, copies in (("longer", 2 * MOST, MOST), ("more", MOST, 2 * MOST)):
            rng = held_out(options.seed, 200 + length)
            metrics |= wrong_of(model, name, *of_size(rng, LONG_ROWS, length, copies))
        return metrics

    exercise = Exercise(
        name=NTM_REPEAT_COPY.name,
        recipe=Recipe(inputs=BITS + 2, outputs=BITS + 1, lstm_units=128, lstm_layers=1, lr=1e-3, rows=4, updates=250),
        draw=draw,
        test=several(draw, options.seed, 40, 5),
        more=more,
        shown=of_size(held_out(options.seed, 300), 1, 8, 6),
        level=("a guess", BITS * MEAN**2),
        headline=lambda m: (
            f"{m['bits_per_sequence']:.2f} bits a sequence (LSTM: {m['lstm_bits_per_sequence']:.1f}), wrong bits "
            f"{100 * m['wrong_bits_longer']:.1f} % of 20 vectors, {100 * m['wrong_bits_more']:.1f} % of 20 copies"
        ),
    )
    return setup_run(options, exercise)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Copy what was typed, "3 x 10110010 00101101" or "3 x abc", and tell where it was written and read.

    Raises CheckpointError for a folder without such a network, ValueError for another form of text.
    """
    number, times, rest = text.partition(" x ")
    if not times or not number.strip().isdecimal() or not 1 <= int(number) <= MOST_ASKED:
        raise ValueError(f'text: expected up to {MOST_ASKED} copies and vectors, "3 x abc", got {text!r:.80}')
    copies, vectors = int(number), vectors_of(rest, BITS)
    machine = reload(folder, NTM_REPEAT_COPY.name)
    x, target = coded(vectors[:, None], copies)
    names = [f"{copies} x"] + ["-"] * (len(x) - len(vectors) - 1)
    answer = say_steps(machine, x[:, 0], names, BITS, say)[len(vectors) + 1 :]
    say(f"copied: {written(answer[:-1, :BITS], rest)}")
    wrong = answer != target[len(vectors) + 1 :, 0, :-1]
    say(f"{int(wrong[:-1, :BITS].sum())} of {wrong[:-1, :BITS].size} bits wrong; end mark {_place(answer[:, END])}")


def _place(ends: Array) -> str:
    """Tell where the end mark came, of answers [steps]."""
    found = np.flatnonzero(ends)
    return "where it belongs" if list(found) == [len(ends) - 1] else f"at {list(map(int, found))} of {len(ends)}"


NTM_REPEAT_COPY = Task(
    name="ntm-repeat-copy",
    about="copy a sequence of vectors a given number of times (neural Turing machine beside an LSTM)",
    presets={
        "smoke": Preset("4,000 sequences", epochs=4),
        "default": Preset("30,000 sequences", epochs=30),
        "best": Preset("100,000 sequences", epochs=100),
    },
    setup=setup,
    predict=predict,
)
