"""What the tests of the CUDA kernels are worth: planted bugs must be caught, each of them with every seed.

A bug is caught where the emulator raises or a result is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda import calls, mutants, oracle
from tests.cuda.calls import Case

CSRC = Path(__file__).parents[1] / "csrc/cuda"
SEEDS = (1, 2, 3)
MULTIPROCESSORS = 16


def caught(emulated: Any, case: Case, tier: str, seed: int, faults: Any = ()) -> str | None:
    """How, or None."""
    emulated.configure(seed=seed, capacity=MULTIPROCESSORS, faults=list(faults))
    try:
        results = calls.run(emulated, case, emulated.Gpu(9, 0, MULTIPROCESSORS), tier)
    except (emulated.EmulatorError, AssertionError) as error:
        return str(error)
    data = {name: calls.values(a) for name, a in case.data.items()}
    wrong = calls.wrong(case, results, calls.expected(case)) or oracle.wrong(case, results, data)
    return f"wrong: {wrong}" if wrong else None


# --- Synchronisation: every call site of every tier, dropped or relaxed


def exchanging(tier: str, seed: int) -> Case:
    """A case in which each block depends on all others of its team, for several turns."""
    cell, product, hidden = {
        "block": ("lstm", "fma", 20),
        "cluster": ("gru", "bfloat16", 40),
        "grid": ("lstm", "float16", 40),
        "steps": ("gru", "tf32", 20),
    }[tier]
    return Case(cell, product, hidden, steps=4, batch=3, seed=seed)


@pytest.mark.parametrize("tier", ["block", "cluster", "grid", "steps"])
def test_no_call_that_orders_threads_can_be_left_out(emulated: Any, tier: str) -> None:
    assert caught(emulated, exchanging(tier, 0), tier, 1) is None
    faults = [((file, line, kind), change) for file, line, kind, changes in emulated.sites() for change in changes]
    assert faults
    survivors = {
        (*fault, seed): "survived"
        for fault in faults
        for seed in SEEDS
        if caught(emulated, exchanging(tier, seed), tier, seed, [fault]) is None
    }
    assert survivors == {}


# --- Planted bugs: mutants.py


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_planted_bug_is_caught(emulated: Any, mutant: mutants.Mutant) -> None:
    assert mutants.stands(mutant, CSRC), f"{mutant.file} has no {mutant.around or mutant.original}: mend mutants.py"
    small = mutant.hidden < 90
    lengths = [mutant.steps - k for k in (0, 2, 1, 0, 3, 1, 0, 2)]
    for seed in SEEDS:
        case = Case(
            mutant.cell, mutant.product, mutant.hidden, steps=mutant.steps if small else 2,
            batch=mutant.batch if small else 1, directions=mutant.directions, reverse=1,
            lengths=np.resize(lengths, mutant.batch) if small else None, seed=seed,
        )  # fmt: skip
        try:
            emulated.mutate(1 + mutants.MUTANTS.index(mutant))
            assert caught(emulated, case, mutant.tier, seed) is not None
        finally:
            emulated.mutate(0)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("tier", ["block", "cluster", "grid", "steps"])
def test_the_copy_without_a_bug_is_right(emulated: Any, tier: str, kind: str) -> None:
    try:
        emulated.mutate(mutants.CONTROL)
        case = Case(kind, {"lstm": "fma", "gru": "bfloat16"}[kind], 33, directions=2, reverse=1, lengths=[3, 1, 2])
        assert caught(emulated, case, tier, 1) is None
    finally:
        emulated.mutate(0)
