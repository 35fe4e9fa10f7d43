"""The model of the CUDA path on paper: its parts add up and follow the planner's layouts, its page is up to date."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from benchmarks import cuda_model as model
from benchmarks.cuda_figures import CELLS, GPUS, Gpu, assumptions

PRODUCTS = ("fma", "tf32", "bfloat16")
H100 = GPUS["H100"]


@pytest.fixture(scope="module")
def cuda(emulated: Any) -> Any:
    """The module with the planner."""
    return emulated


@pytest.fixture(scope="module", params=GPUS.values(), ids=lambda gpu: gpu.name)
def gpu(request: pytest.FixtureRequest) -> Any:
    return request.param


def problems(batches: tuple[int, ...] = model.BATCHES) -> Iterator[model.Problem]:
    sizes = itertools.product(CELLS, PRODUCTS, batches, (8, 100, *model.HIDDEN))
    for (cell, backward), product, batch, hidden in sizes:
        yield model.Problem(cell, product, backward, batch, hidden)


def test_every_figure_has_a_source() -> None:
    named = {name for name, _, source, _ in assumptions() if source}
    assert named == {f.name for f in fields(Gpu)} - {"name", "major"}


def test_parts_add_up_to_the_total(cuda: Any, gpu: Gpu) -> None:
    for problem in problems():
        plan = model.plan_of(cuda, problem, gpu)
        step = model.predict(problem, plan, gpu)
        parts = {f.name: getattr(step, f.name) for f in fields(step)}
        assert min(parts.values()) >= 0, problem
        assert parts["product"] > 0, problem
        assert parts["exchange"] > 0, problem
        one_wave = step.total - parts["waves"]
        assert step.total == pytest.approx(model.waves(problem, plan, gpu) * one_wave), problem
        assert step.total >= model.memory_bytes(problem) / gpu.memory_bandwidth * 1e-6 * (1 - 1e-9), problem


def test_every_team_gets_its_turn(cuda: Any, gpu: Gpu) -> None:
    for problem in problems():
        plan = model.plan_of(cuda, problem, gpu)
        at_once = model.blocks_at_once(problem, plan, gpu)
        assert at_once <= gpu.multiprocessors
        blocks = plan.row_tiles * problem.directions * plan.layout.members
        assert model.waves(problem, plan, gpu) * gpu.multiprocessors >= blocks, problem


def test_bytes_agree_with_the_layout(cuda: Any, gpu: Gpu) -> None:
    for problem in problems():
        plan = model.plan_of(cuda, problem, gpu)
        layout, of_weights = plan.layout, model.weight_bytes(problem, plan)
        matrix = problem.cell_gates * problem.hidden**2 * problem.element_bytes
        held = layout.members * sum(of_weights.values())
        assert held >= matrix, problem
        if problem.hidden % 128 == 0 and layout.splits * layout.tiles_per_warp == layout.tiles:
            assert held == matrix, problem
        assert layout.tiles * problem.tile_terms >= problem.pieces * problem.hidden
        # shared memory is the operand's buffers, the warps' sums, weights and two barriers
        buffers = {"steps": 0, "grid": 1}.get(plan.tier.name, 2)
        operand = buffers * layout.rows * (layout.operand_stride + 32)
        sums = layout.groups * layout.splits * layout.rows * problem.gates * model.PARTIAL_STRIDE * 4
        assert layout.shared_bytes == operand + sums + of_weights["shared"] + 16, problem
        needed = layout.rows * problem.pieces * problem.hidden * problem.element_bytes
        received = model.operand_bytes(problem, plan)
        if plan.tier.name in ("grid", "steps"):
            assert received >= needed, problem
        elif plan.tier.name == "cluster":
            assert received >= needed * (1 - 1 / layout.members) * (1 - 1e-9), problem
        else:
            assert received == 0


@pytest.mark.parametrize("tier", ["grid", "steps"])
def test_more_units_take_no_less_time(cuda: Any, gpu: Gpu, tier: str) -> None:
    """Of one team, within a tier, in layouts alike; what a longer product hides is no part of this."""
    for (cell, backward), product in itertools.product(CELLS, PRODUCTS):
        before, alike = (0.0, 0.0), None
        for hidden in model.HIDDEN:
            problem = model.Problem(cell, product, backward, 8, hidden)
            try:
                plan = model.plan_of(cuda, problem, gpu, tier)
            except ValueError:
                break
            step = model.predict(problem, plan, gpu)
            if alike == (alike := (plan.layout.groups, plan.layout.splits)):
                assert step.product >= before[0] * (1 - 1e-9), problem
                assert step.exchange >= before[1] * (1 - 1e-9), problem
            before = step.product, step.exchange


def test_more_rows_take_no_less_time(cuda: Any, gpu: Gpu) -> None:
    for (cell, backward), product, hidden in itertools.product(CELLS, PRODUCTS, model.HIDDEN):
        totals = []
        for batch in (1, 2, 8, 16, 64, 128, 256):
            problem = model.Problem(cell, product, backward, batch, hidden)
            totals.append(model.predict(problem, model.plan_of(cuda, problem, gpu), gpu).total)
        for fewer, more in itertools.pairwise(totals):
            assert more >= fewer * 0.9, (problem, totals)  # a plan for more rows may be a little better for few
        assert totals[-1] >= totals[0] * (1 - 1e-9), problem


@pytest.mark.parametrize("change", ["l2_latency", "launch", "near_latency", "mma_latency", "shared_latency", "sync"])
def test_a_slower_gpu_is_no_faster(cuda: Any, change: str) -> None:
    slower = replace(H100, **{change: 2 * getattr(H100, change)})
    longer = 0
    for tier in ("block", "cluster", "grid", "steps"):
        for problem in problems((16,)):
            try:
                plan = model.plan_of(cuda, problem, H100, tier)
            except ValueError:
                continue
            before, after = (model.predict(problem, plan, g).total for g in (H100, slower))
            assert after >= before * (1 - 1e-9), problem
            longer += after > before
    assert longer > 0


def test_a_product_by_hand(cuda: Any) -> None:
    """LSTM, H=1024, bfloat16, forward: 16 units of four gates to each of 64 blocks, eight rows."""
    problem = model.Problem("lstm", "bfloat16", False, 8, 1024)
    plan = model.plan_of(cuda, problem, H100, "grid")
    assert (plan.layout.members, plan.layout.rows) == (64, 8)
    cycles = 8 * 4 * 16 * 1024 / H100.tensor + H100.sync
    assert model.predict(problem, plan, H100).product == pytest.approx(cycles / H100.clock / 1e3)


def test_the_page_is_up_to_date(cuda: Any) -> None:
    text = model.PAGE.read_text()
    assert text == model.page(cuda, text), "python -m benchmarks.cuda_model --write renews it"


def test_a_missing_module_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    assert model.main(["--module", str(tmp_path / "none.so")]) == 1
    assert "none.so" in capsys.readouterr().err
