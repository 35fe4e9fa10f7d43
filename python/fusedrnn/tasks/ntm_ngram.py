"""Dynamic n-grams (Graves, Wayne and Danihelka 2014, section 4.4): bits by a table that is new for each sequence.

A table has, for each of the 32 values of five successive bits, the probability that the next one is 1, drawn from
Beta(1/2, 1/2). 200 bits are drawn by it, the first five evenly. The network sees bit after bit and tells how likely the
next is 1. The best that anybody can do is to count what followed each context so far (the paper's equation 10).

Metrics: ``bits_per_sequence``, the cross-entropy of 200 bits, mean over 1,000 held-out sequences; with ``lstm_`` in
front that of an LSTM, with ``optimal_`` that of the optimal estimator, on the same sequences.
``excess_bits`` and ``lstm_excess_bits`` are what the networks lose to it.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.tasks.episodes import held_out, weighted
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.ntm_runs import Exercise, Recipe, score, setup_run, several
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task

CONTEXT, STEPS = 5, 200
TEST_SETS, TEST_ROWS = 10, 100


def draw_bits(rng: np.random.Generator, rows: int) -> Array:
    """Draw bits [200, rows], integers, of each row by a table of its own."""
    tables = rng.beta(0.5, 0.5, (rows, 2**CONTEXT))
    bits = np.zeros((STEPS, rows), np.int64)
    bits[:CONTEXT] = rng.integers(0, 2, (CONTEXT, rows))
    chances = rng.random((STEPS, rows))
    row = np.arange(rows)
    for t in range(CONTEXT, STEPS):
        bits[t] = chances[t] < tables[row, contexts_before(bits, t)]
    return bits


def contexts_before(bits: Array, t: int) -> Array:
    """Return the five bits before step t as numbers 0 to 31, [N], of bits [T, N]; the last one is the lowest."""
    return 2 ** np.arange(CONTEXT)[::-1] @ bits[t - CONTEXT : t]


def coded(bits: Array) -> tuple[Array, Array]:
    """Return x [T, N, 2], with a channel for a 0 and one for a 1 before, and target [T, N, 2] of bits [T, N]."""
    x = np.zeros((*bits.shape, 2), np.float32)
    x[1:] = bits[:-1, :, None] == np.arange(2)
    return x, weighted(bits[:, :, None], np.ones(len(bits)))


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences as ``coded`` gives them."""
    return coded(draw_bits(rng, rows))


def optimal(bits: Array) -> Array:
    """Return the probability of a 1 before every bit, [T, N], of bits [T, N], as the optimal estimator has it.

    (N1 + 1/2) / (N0 + N1 + 1), with the counts of 0 and 1 that came after the same five bits so far (the paper's
    equation 10); 1/2 for the first five.
    """
    steps, rows = bits.shape
    counts = np.full((rows, 2**CONTEXT, 2), 0.5)
    likely, row = np.full(bits.shape, 0.5), np.arange(rows)
    for t in range(CONTEXT, steps):
        context = contexts_before(bits, t)
        seen = counts[row, context]
        likely[t] = seen[:, 1] / seen.sum(1)
        counts[row, context, bits[t]] += 1
    return likely


def optimal_bits(target: Array) -> float:
    """Return the optimal estimator's cross-entropy in bits a sequence, the mean over those of a target [T, N, 2]."""
    bits = target[:, :, 0].astype(np.int64)
    likely = optimal(bits)
    return float(-np.log2(np.where(bits == 1, likely, 1 - likely)).sum(0).mean())


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""
    test = several(draw, options.seed, TEST_SETS, TEST_ROWS)
    best = float(np.mean([optimal_bits(target) for _, target in test]))

    def more(model: SideBySide) -> Metrics:
        metrics = score(model, test)
        return {
            "optimal_bits_per_sequence": best,
            "excess_bits": metrics["bits_per_sequence"] - best,
            "lstm_excess_bits": metrics["lstm_bits_per_sequence"] - best,
        }

    exercise = Exercise(
        name=NTM_NGRAM.name,
        recipe=Recipe(inputs=2, outputs=1, lstm_units=128, lstm_layers=1, lr=1e-3, rows=4, updates=250),
        draw=draw,
        test=test,
        more=more,
        shown=draw(held_out(options.seed, 300), 1),
        level=("the optimal estimator", best),
        headline=lambda m: (
            f"{m['bits_per_sequence']:.1f} bits a sequence (LSTM: {m['lstm_bits_per_sequence']:.1f}, optimal "
            f"estimator: {m['optimal_bits_per_sequence']:.1f})"
        ),
    )
    return setup_run(options, exercise)


NTM_NGRAM = Task(
    name="ntm-ngram",
    about="predict bits of a random 6-gram table that is drawn anew (neural Turing machine beside an LSTM)",
    presets={
        "smoke": Preset("1,000 sequences", epochs=1),
        "default": Preset("10,000 sequences", epochs=10),
        "best": Preset("100,000 sequences", epochs=100),
    },
    setup=setup,
)
