"""Associative recall (Graves, Wayne and Danihelka 2014, section 4.3): an item is shown again; which one followed it?

An item is 3 vectors of 6 random bits behind a mark. 2 to 6 items go by, then one of them, not the last, between two
marks of another kind; the item that came after it is the answer. The machine has to find a place by its content, and
then go on to the next.

Metrics: ``bits_per_sequence``, the cross-entropy of a whole answer of 18 bits, mean over 200 held-out sequences of 2 to
6 items; ``bits_N`` and ``wrong_bits_N`` for 6, 12 and 15 items. The same with ``lstm_`` in front, of an LSTM on the
same sequences.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.tasks.episodes import bits_per_sequence, held_out, weighted
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.ntm_runs import Exercise, Recipe, setup_run, several, wrong_of
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

BITS, VECTORS = 6, 3  # of an item
FEWEST, MOST = 2, 6  # items
MARK, QUERY = BITS, BITS + 1  # channels of x
ITEMS = (6, 12, 15)  # of the figures
LONG_ROWS = 200


def coded(items: Array, asked: Array) -> tuple[Array, Array]:
    """Return x [T, N, 8] and target [T, N, 7] of items [n, 3, N, 6] and the numbers [N] of those shown again.

    T = 4 n + 5 + 3: each item behind a mark, the query between two, the answer.
    """
    count, vectors, rows, width = items.shape
    start = count * (vectors + 1)  # of the query
    x = np.zeros((start + 2 + 2 * vectors, rows, width + 2), np.float32)
    shown = x[:start].reshape(count, vectors + 1, rows, width + 2)
    shown[:, 0, :, MARK] = 1
    shown[:, 1:, :, :width] = items
    row = np.arange(rows)
    x[[start, start + vectors + 1], :, QUERY] = 1
    x[start + 1 : start + 1 + vectors, :, :width] = items[asked, :, row].swapaxes(0, 1)
    answer = np.zeros((len(x), rows, width), np.float32)
    answer[-vectors:] = items[asked + 1, :, row].swapaxes(0, 1)
    return x, weighted(answer, np.arange(len(x)) >= len(x) - vectors)


def of_items(rng: np.random.Generator, rows: int, count: int) -> tuple[Array, Array]:
    """Draw sequences of so many items, as ``coded`` gives them."""
    return coded(rng.integers(0, 2, (count, VECTORS, rows, BITS)), rng.integers(0, count - 1, rows))


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences of 2 to 6 items, all of one number."""
    return of_items(rng, rows, int(rng.integers(FEWEST, MOST + 1)))


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""

    def more(model: SideBySide) -> Metrics:
        metrics: Metrics = {}
        for count in ITEMS:
            x, target = of_items(held_out(options.seed, 200 + count), LONG_ROWS, count)
            machine, plain = bits_per_sequence(model(x), target)
            metrics |= {f"bits_{count}": float(machine), f"lstm_bits_{count}": float(plain)}
            metrics |= wrong_of(model, str(count), x, target)
        return metrics

    exercise = Exercise(
        name=NTM_RECALL.name,
        recipe=Recipe(inputs=BITS + 2, outputs=BITS, lstm_units=128, lstm_layers=1),
        draw=draw,
        test=several(draw, options.seed, 40, 5),
        more=more,
        shown=of_items(held_out(options.seed, 300), 1, 10),
        level=("a guess", float(BITS * VECTORS)),
        headline=lambda m: (
            f"{m['bits_per_sequence']:.2f} of 18 bits an answer (LSTM: {m['lstm_bits_per_sequence']:.1f}), "
            f"{m['bits_12']:.2f} with 12 items, {m['bits_15']:.2f} with 15"
        ),
    )
    return setup_run(options, exercise)


NTM_RECALL = Task(
    name="ntm-recall",
    about="recall which item followed one that is shown again (neural Turing machine beside an LSTM)",
    presets={
        "smoke": Preset("5,000 sequences", epochs=5),
        "default": Preset("40,000 sequences", epochs=40),
        "best": Preset("200,000 sequences", epochs=200),
    },
    setup=setup,
)
