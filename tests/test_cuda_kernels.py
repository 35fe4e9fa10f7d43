"""The CUDA kernels, run over the emulator: against the CPU kernels in float64, value by value, and bit by bit.

The emulator itself raises where threads race, hang, diverge, or touch memory that is not theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cuda import calls, oracle
from tests.cuda.calls import Case

CELLS = ("rnn", "lstm", "gru")
PRODUCTS = ("fma", "tf32", "bfloat16", "float16")
TIERS = ("block", "cluster", "grid", "steps")
Results = dict[str, np.ndarray[Any, Any]]
Run = Callable[..., Results]

# Named by what each exercises; every tier takes those that fit it. A warp has 16 units, a product 8 rows.
SHAPES: dict[str, dict[str, Any]] = {
    "one_of_everything": {"hidden": 1, "batch": 1, "steps": 1},
    "7_units": {"hidden": 7, "batch": 8, "steps": 2, "directions": 2, "reverse": 2},
    "one_unit_less_than_a_warp": {"hidden": 15, "batch": 3, "steps": 5, "reverse": 1},
    "as_many_units_as_a_warp": {"hidden": 16, "batch": 11, "steps": 3, "lengths": [3, 1, 2, 3, 0, 3, 2, 1, 1, 3, 2]},
    "one_unit_over_a_warp": {"hidden": 17, "batch": 9, "steps": 2, "states": False},
    "24_units": {"hidden": 24, "batch": 1, "steps": 7, "directions": 2, "reverse": 3, "lengths": [6]},
    "one_unit_over_two_warps": {"hidden": 33, "batch": 8, "steps": 2, "directions": 2, "reverse": 1},
    "48_units": {"hidden": 48, "batch": 3, "steps": 2, "reverse": 1, "lengths": [0, 2, 1]},
}


@pytest.fixture
def run(emulated: Any) -> Run:
    """run(case, tier=None, sm=132, seed=1, ...) -> every array that the kernels write.

    On a GPU of `sm` multiprocessors, of which each holds one block; `seed` is that of the scheduler.
    """

    def call(
        case: Case,
        tier: str | None = None,
        sm: int = 132,
        seed: int = 1,
        capability: Any = (9, 0),
        edit: Any = None,
        rows: int | None = None,
    ) -> Results:
        gpu = emulated.Gpu(*capability, sm)
        emulated.configure(seed=seed, capacity=sm, cluster=gpu.cluster)
        return calls.run(emulated, case, gpu, tier, edit, rows)

    return call


def check(case: Case, results: Results) -> Results:
    """The results, once they agree with the CPU kernels and each value follows from the others."""
    data = {name: calls.values(a) for name, a in case.data.items()}
    if not (case.cell == "rnn" and case.relu) or case.product == "fma":  # relu jumps where rounding changes a sign
        assert calls.wrong(case, results, calls.expected(case)) == {}
    assert oracle.wrong(case, results, data) == {}
    return results


def assert_same(ours: Results, theirs: Results) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def shape_of(tier: str, kind: str, product: str, turn: int) -> dict[str, Any]:
    """One of the shapes that fit the tier: another one for each cell and product."""
    fitting = [s for s in SHAPES.values() if tier != "cluster" or s["hidden"] > 16]
    step = CELLS.index(kind) * len(PRODUCTS) + PRODUCTS.index(product) + TIERS.index(tier)
    return fitting[(step + turn * len(fitting) // 2) % len(fitting)]


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_cell_and_product(run: Run, tier: str, kind: str, product: str) -> None:
    for turn in range(2):
        case = Case(kind, product, **shape_of(tier, kind, product, turn), seed=turn, relu=turn == 1)
        check(case, run(case, tier, seed=turn + 1))


@pytest.mark.parametrize("hidden", [case["hidden"] for case in SHAPES.values()])
@pytest.mark.parametrize("tier", TIERS)
def test_every_width(run: Run, tier: str, hidden: int) -> None:
    if tier == "cluster" and hidden <= 16:
        hidden += 32  # a cluster has two blocks at least, of 16 units at least
    k = hidden % 3 + TIERS.index(tier)
    case = Case(CELLS[k % 3], PRODUCTS[k % 4], hidden, steps=1 + k % 3, batch=3)
    check(case, run(case, tier))


@pytest.mark.parametrize(
    ("tier", "kind", "product", "hidden"),
    [
        ("block", "gru", "float16", 120),
        ("cluster", "lstm", "bfloat16", 120),
        ("grid", "gru", "tf32", 120),
        ("grid", "lstm", "fma", 130),
        ("steps", "lstm", "float16", 120),
        (None, "rnn", "bfloat16", 200),
    ],
)
def test_large_widths(run: Run, tier: str | None, kind: str, product: str, hidden: int) -> None:
    case = Case(kind, product, hidden, steps=2, batch=2, directions=2 if tier == "block" else 1, reverse=2)
    check(case, run(case, tier))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("tier", TIERS)
def test_absent_arrays(run: Run, tier: str, kind: str) -> None:
    for absent in (("dy",), ("dh_n", "dc_n", "h0"), ("dy", "c0", "bias_hn")):
        case = Case(kind, "fma", 20, steps=2, absent=absent, directions=2, reverse=2, lengths=[2, 0, 1])
        check(case, run(case, tier))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("tier", TIERS)
def test_inference_keeps_nothing_and_changes_no_bit(run: Run, tier: str, kind: str) -> None:
    case = Case(kind, "bfloat16", 20, training=False, lengths=[3, 2, 3])
    results = check(case, run(case, tier))
    assert {"gates", "cells"}.isdisjoint(results)
    trained = run(Case(kind, "bfloat16", 20, lengths=[3, 2, 3]), tier)
    assert_same(results, {name: trained[name] for name in results})


@pytest.mark.parametrize(("kind", "product"), [("lstm", "fma"), ("gru", "bfloat16"), ("rnn", "tf32")])
@pytest.mark.parametrize("tier", TIERS)
def test_no_order_of_threads_changes_a_bit(run: Run, tier: str, kind: str, product: str) -> None:
    wide = tier == "grid" and kind == "rnn"  # five blocks, of which one may fall behind while others go on
    case = Case(kind, product, 130 if wide else 40, steps=6 if wide else 3, batch=2)
    first = run(case, tier, seed=1)
    for seed in range(7, 11):
        assert_same(run(case, tier, seed=seed), first)


@pytest.mark.parametrize(
    ("tier", "product", "hidden", "sm", "rows", "directions", "several"),
    [
        ("block", "fma", 17, 1, 16, 2, False),
        ("block", "bfloat16", 16, 4, 16, 1, False),
        ("cluster", "bfloat16", 33, 4, 32, 2, False),
        ("cluster", "fma", 33, 4, 16, 1, False),
        ("grid", "tf32", 40, 3, 32, 1, True),
        ("grid", "fma", 33, 5, 16, 1, True),
        ("grid", "float16", 33, 12, 8, 2, True),
        ("steps", "float16", 17, 4, 32, 2, False),
    ],
)
def test_more_rows_than_the_gpu_holds_teams(
    run: Run, tier: str, product: str, hidden: int, sm: int, rows: int, directions: int, several: bool
) -> None:
    """Teams of several row groups, and launches one after another; no row knows of the others."""
    plans: list[Any] = []
    batch = 81 // directions
    case = Case("lstm", product, hidden, 2, batch, directions, reverse=2, lengths=np.arange(batch) * 7 % 3)
    results = check(case, run(case, tier, sm, edit=plans.append, rows=rows))
    assert {p.layout.rows for p in plans} == {rows}
    assert any(p.row_tiles > p.tiles_per_launch for p in plans) == several
    chosen = [batch - 1, 0, batch // 2, 1]
    for name, a in run(case.rows(chosen), tier, sm).items():
        assert a.tobytes() == np.ascontiguousarray(results[name][:, chosen]).tobytes(), name


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("tier", [*TIERS, None])
def test_a_row_does_not_know_its_batch(run: Run, tier: str | None, product: str) -> None:
    case = Case("gru", product, 24, steps=2, batch=19)
    results = run(case, tier)
    for chosen in ([18], [7, 3, 0]):
        for name, a in run(case.rows(chosen), tier).items():
            whole = results[name][:, chosen]  # [T, N, ...] or [D, N, H]
            assert a.tobytes() == np.ascontiguousarray(whole).tobytes(), name


def place(registers: int, shared: int) -> Callable[[Any], None]:
    """Of a warp's tiles, at most so many in registers and in shared memory; the others are read at each step."""

    def edit(plan: Any) -> None:
        layout = plan.layout
        layout.register_tiles = min(registers, layout.register_tiles)
        layout.shared_tiles = min(shared, layout.shared_tiles)

    return edit


@pytest.mark.parametrize(
    ("kind", "product", "hidden"),
    [("lstm", "fma", 96), ("lstm", "tf32", 96), ("gru", "tf32", 90), ("rnn", "bfloat16", 120), ("gru", "float16", 120)],
)
def test_where_weights_lie_changes_no_bit(run: Run, kind: str, product: str, hidden: int) -> None:
    case = Case(kind, product, hidden, steps=2, batch=1)
    layouts = []

    def resident(plan: Any) -> None:
        layout = plan.layout
        assert layout.register_tiles + layout.shared_tiles == layout.tiles_per_warp
        layouts.append((layout.register_tiles, layout.shared_tiles))

    first = check(case, run(case, "block", edit=resident))
    if product in ("fma", "tf32"):
        assert all(shared > 0 for _, shared in layouts)
    for registers, shared in ((8, 4), (4, 0), (0, 8), (0, 0)):
        assert_same(run(case, "block", edit=place(registers, shared)), first)


@pytest.mark.parametrize(
    ("kind", "product", "hidden", "sm"), [("lstm", "fma", 96, 1), ("gru", "tf32", 200, 3), ("lstm", "bfloat16", 200, 2)]
)
def test_weights_that_do_not_fit_the_chip(run: Run, kind: str, product: str, hidden: int, sm: int) -> None:
    """On a GPU of a few small multiprocessors."""
    streamed = []

    def note(plan: Any) -> None:
        layout = plan.layout
        streamed.append(layout.tiles_per_warp - layout.register_tiles - layout.shared_tiles)

    case = Case(kind, product, hidden, steps=2, batch=2)
    check(case, run(case, "grid", sm, capability=(8, 6), edit=note))
    assert max(streamed) > 0


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(
    ("tier", "product"), [("block", "bfloat16"), ("cluster", "fma"), ("grid", "float16"), ("steps", "tf32")]
)
def test_infinity_and_nan_stay_in_their_rows(run: Run, tier: str, kind: str, product: str) -> None:
    case = Case(kind, product, 24, 3, 10, lengths=[3, 3, 3, 2, 3, 3, 3, 3, 3, 3], relu=tier in ("block", "grid"))
    clean = run(case, tier)
    bad = {"gates_x": {2: np.nan, 4: np.inf, 5: -np.inf}, "dy": {7: np.nan}, "dh_n": {8: np.inf}, "h0": {9: np.nan}}
    for name, of_rows in bad.items():
        for n, x in of_rows.items():
            array = case.data[name]
            array[(1, n, 0, 3) if array.ndim == 4 else (0, n, 3)] = calls.stored(np.array([x]), product)[0]
    # Beyond a row's length nothing is read.
    case.data["gates_x"][2, 3] = case.data["dy"][2, 3] = calls.stored(np.array([np.nan]), product)[0]
    results = run(case, tier)
    touched = sorted(n for of_rows in bad.values() for n in of_rows)
    untouched = np.setdiff1d(np.arange(10), touched)
    for name, a in results.items():
        whole, part = clean[name][:, untouched], a[:, untouched]
        assert part.tobytes() == whole.tobytes(), name
    data = {name: calls.values(a) for name, a in case.data.items()}
    assert oracle.wrong(case, results, data) == {}
    for n, name in ((2, "y"), (7, "dgates"), (8, "dgates"), (9, "y")):
        assert np.isnan(results[name][:, n]).any(), (n, name)
