"""Plans compute their steps, element by element, from what is there; and the verifier sees it when they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusedrnn.scan import instructions as to
from fusedrnn.scan import plan as planner
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.graph import Graph, Level, Step
from fusedrnn.scan.groups import GroupCode
from fusedrnn.scan.kept import reserve_offsets
from fusedrnn.scan.plan import Emitted, make_plan
from tests import networks
from tests.plans import PlanError, verify
from tests.programs import draw


def verify_all(step, derivative):
    run = Executable(step, derivative)
    for uneven in (False, True):
        verify(run.inference(uneven).plan)
        verify(run.training(uneven).plan, reserve=reserve_offsets(run.kept)[0])
        verify(run.backward_plan(uneven).plan, lent=run._lent(uneven))


@pytest.mark.parametrize("name", networks.ALL)
def test_plans_of_networks(name):
    drawn = networks.ALL[name]()
    verify_all(drawn.step, drawn.derivative)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_plans_of_second_derivatives(name):
    first = networks.network(name).derivative.step
    verify_all(first, derive(first))


@pytest.mark.parametrize("seed", range(12))
def test_plans_of_random_programs(seed):
    program = draw(seed, 16, anywhere=True)
    verify_all(program.step, program.derivative)


@pytest.mark.parametrize("level", [Level.SHARED, Level.ROW])
def test_a_product_and_three_terms_of_a_lower_level(level):
    graph = Graph()
    weights = graph.leaf("weights", (4, 3), "real", Level.SHARED)
    terms = tuple(graph.leaf(name, (4,), "real", level) for name in "abc")
    x = graph.leaf("x", (3,), "real", Level.STEP)
    y = to.matmul(weights, x)
    for term in terms:
        y = to.add(y, term)
    shared, rows = ((weights, *terms), ()) if level is Level.SHARED else ((weights,), terms)
    verify(make_plan(Step(graph, shared, rows, (), (x,), (), (y,))))


def test_a_group_of_more_places_than_fit():
    graph = Graph()
    inputs = tuple(graph.leaf(f"x{i}", (4, 5), "real", Level.STEP) for i in range(60))
    outputs = tuple(to.binary("maximum", x, to.slice_(x, (0, 0), (1, 5))) for x in inputs)
    verify(make_plan(Step(graph, (), (), (), inputs, (), outputs)))


def test_a_total_of_a_reshaped_table():
    graph = Graph()
    x = graph.leaf("x", (2, 3), "real", Level.STEP)
    index = graph.leaf("index", (2,), "integer", Level.STEP)
    table = to.reshape(to.put(x, index, 8), (2, 12))
    verify(make_plan(Step(graph, (), (), (), (x, index), (), (), (), (to.total(table, Level.SHARED),))))


def test_two_totals_of_one_sequence():
    graph = Graph()
    x = graph.leaf("x", (2, 3), "real", Level.STEP)
    totals = to.total(x, Level.SHARED), to.total(to.reshape(x, (6,)), Level.SHARED)
    verify(make_plan(Step(graph, (), (), (), (x,), (), (), (), totals)))


# the verifier


def plans(name="attention", **sizes):
    """(plan, how to verify it) of training and backward."""
    drawn = networks.network(name, H=3, I=2, **sizes or {"S": 2})
    run = Executable(drawn.step, drawn.derivative)
    reserve = reserve_offsets(run.kept)[0]
    backward = run.backward_plan(True).plan, {"lent": run._lent(True)}
    return [(run.training(True).plan, {"reserve": reserve}), backward]


def fails(plan, how):
    try:
        verify(plan, **how)
    except PlanError:
        return True
    return False


def altered(plan):
    """(what, plan) with one instruction gone, or one place moved by an element."""
    for s, stage in enumerate(plan.stages):
        for i, each in enumerate(stage):

            def made(*instead, s=s, i=i, stage=stage):
                return replace(
                    plan, stages=[*plan.stages[:s], [*stage[:i], *instead, *stage[i + 1 :]], *plan.stages[s + 1 :]]
                )

            what = f"stage {s} instruction {i}"
            yield f"{what} left out", made()
            if isinstance(each, GroupCode):
                for k, passes in enumerate(each.passes):
                    for o, operation in enumerate(passes.operations):
                        for place, operand in enumerate(operation.inputs):
                            if not hasattr(operand, "place"):
                                continue
                            root, offset = operand.place
                            moved = replace(operand, place=(root, offset + 1))
                            inputs = [*operation.inputs[:place], moved, *operation.inputs[place + 1 :]]
                            operations = list(passes.operations)
                            operations[o] = replace(operation, inputs=inputs)
                            others = list(each.passes)
                            others[k] = replace(passes, operations=operations)
                            yield f"{what}, operation {o}", made(replace(each, passes=others))
            elif isinstance(each, Emitted):
                for k, (root, offset) in enumerate(each.places):
                    if root >= 0:
                        places = [*each.places[:k], (root, offset + 1), *each.places[k + 1 :]]
                        yield f"{what}, place {k}", made(replace(each, places=places))


@pytest.mark.parametrize("which", [0, 1], ids=["training", "backward"])
def test_an_instruction_left_out_and_a_place_moved_are_seen(which):
    plan, how = plans()[which]
    verify(plan, **how)
    found = list(altered(plan))
    assert len(found) > 50
    for what, other in found:
        assert fails(other, how), what


def test_memory_that_is_free_too_early_is_seen(monkeypatch):
    allocate = planner._Planner._allocate

    def early(self, ordered):
        """As if a step's last instruction that reads scratch did not."""
        tasks = [task for each in ordered for task in getattr(each, "tasks", [each])]
        readers = {}
        for task in tasks:
            for view in task.reads:
                readers[view.base] = task
        kept = {task: task.reads for task in tasks}
        for task in tasks:
            task.reads = [view for view in task.reads if readers[view.base] is not task]
        allocate(self, ordered)
        for task, reads in kept.items():
            task.reads = reads

    monkeypatch.setattr(planner._Planner, "_allocate", early)
    for plan, how in plans("ntm", slots=5, width=3):
        assert fails(plan, how)


def test_instructions_in_another_order_are_seen(monkeypatch):
    order = planner.order
    monkeypatch.setattr(planner, "order", lambda tasks: order(tasks)[::-1])
    for plan, how in plans():
        with pytest.raises(PlanError):
            verify(plan, **how)


@pytest.mark.parametrize(
    "change",
    [
        {"reserve": 1},
        {"scratch": 1},
        {"row": 1},
        {"state": 1},
        {"outputs": [None]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_that_declares_too_little_is_seen(change):
    plan, how = plans()[0]
    with pytest.raises(PlanError):
        verify(replace(plan, **change), **how)


def test_totals_that_are_added_twice_or_never_are_seen():
    plan, how = plans()[1]
    assert plan.totals
    for totals in ([*plan.totals, plan.totals[0]], plan.totals[1:]):
        with pytest.raises(PlanError):
            verify(replace(plan, totals=totals), **how)
