"""Priority sort (Graves, Wayne and Danihelka 2014, section 4.5): vectors with priorities in, the highest first out.

20 vectors of 8 random bits, each with a priority from U(-1, 1), then a mark; the answer is the 16 of highest priority
in falling order. The paper's machine writes each to a place that its priority decides, and reads them off in turn.

Metrics: ``bits_per_sequence``, the cross-entropy of a whole answer of 128 bits, mean over 200 held-out sequences, and
``wrong_bits``. The same with ``lstm_`` in front, of an LSTM on the same sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.tasks.episodes import held_out, weighted
from fusedrnn.tasks.memory_text import say_steps
from fusedrnn.tasks.ntm_runs import Exercise, Recipe, reload, setup_run, several
from fusedrnn.tasks.task import Options, Preset, Run, Task

BITS, GIVEN, WANTED = 8, 20, 16
PRIORITY, MARK = BITS, BITS + 1  # channels of x
LOWEST_TYPED = -0.5  # priority of the least number that a user typed; fillers are below


def coded(bits: Array, priorities: Array) -> tuple[Array, Array]:
    """Return x [37, N, 10] and target [37, N, 9] of vectors [20, N, 8] with priorities [20, N]."""
    given, rows, width = bits.shape
    x = np.zeros((given + 1 + WANTED, rows, width + 2), np.float32)
    x[:given, :, :width] = bits
    x[:given, :, PRIORITY] = priorities
    x[given, :, MARK] = 1
    order = np.argsort(-priorities, axis=0, kind="stable")[:WANTED]
    answer = np.zeros((len(x), rows, width), np.float32)
    answer[given + 1 :] = bits[order, np.arange(rows)]
    return x, weighted(answer, np.arange(len(x)) > given)


def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draw sequences as ``coded`` gives them."""
    return coded(rng.integers(0, 2, (GIVEN, rows, BITS)), rng.uniform(-1, 1, (GIVEN, rows)))


def setup(options: Options) -> Run:
    """Make one run, all from the seed."""
    exercise = Exercise(
        name=NTM_SORT.name,
        recipe=Recipe(
            inputs=BITS + 2, outputs=BITS, read_heads=2, write_heads=2, lstm_units=128, lr=1e-3, rows=4, updates=250
        ),
        draw=draw,
        test=several(draw, options.seed, 20, 10),
        more=lambda model: {},
        shown=draw(held_out(options.seed, 300), 1),
        level=("a guess", float(BITS * WANTED)),
        headline=lambda m: (
            f"{m['bits_per_sequence']:.1f} of 128 bits a sequence (LSTM: {m['lstm_bits_per_sequence']:.1f}), "
            f"{100 * m['wrong_bits']:.1f} % of the bits wrong (LSTM: {100 * m['lstm_wrong_bits']:.1f} %)"
        ),
    )
    return setup_run(options, exercise)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Sort the numbers that were typed, the greatest first, and tell at every step where the machine wrote and read.

    A number becomes a priority, its place among those typed a random vector; vectors of the least priorities make up
    the 20 that the machine knows. What it answers is told by the nearest vector.
    Raises CheckpointError for a folder without such a network, ValueError for what is no list of 2 to 16 numbers.
    """
    numbers = _numbers(text)
    machine = reload(folder, NTM_SORT.name)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (GIVEN, BITS))
    least, most = numbers.min(), numbers.max()
    scaled = LOWEST_TYPED + (numbers - least) / max(most - least, np.finfo(float).tiny) * (1 - LOWEST_TYPED)
    fillers = np.linspace(-1, LOWEST_TYPED, GIVEN - len(numbers) + 1)[:-1]
    x, target = coded(codes[:, None], np.concatenate([scaled, fillers])[:, None])
    answer = say_steps(machine, x[:, 0], ["mark"] + ["-"] * WANTED, BITS, say)[GIVEN + 1 :][: len(numbers)]
    distance = np.abs(answer[:, None] - codes[None, : len(numbers)]).sum(2)
    say("sorted: " + " ".join(f"{numbers[nearest]:g}" for nearest in distance.argmin(1)))
    wrong = answer != target[GIVEN + 1 :][: len(numbers), 0, :-1]
    say(f"{int(wrong.sum())} of {wrong.size} bits wrong")


def _numbers(text: str) -> Array:
    try:
        numbers = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        numbers = np.array([])
    if not 2 <= len(numbers) <= WANTED or not np.isfinite(numbers).all():
        raise ValueError(f'text: expected 2 to {WANTED} numbers such as "3 1.5 -2", got {text!r:.80}')
    return numbers


NTM_SORT = Task(
    name="ntm-sort",
    about="sort vectors by their priorities (neural Turing machine beside an LSTM)",
    presets={
        "smoke": Preset("3,000 sequences", epochs=3),
        "default": Preset("30,000 sequences", epochs=30),
        "best": Preset("100,000 sequences", epochs=100),
    },
    setup=setup,
    predict=predict,
)
