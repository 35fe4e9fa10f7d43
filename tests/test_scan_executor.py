"""The executor of programs against the reference, row by row; and that bits depend on nothing but a row's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import _core
from fusedrnn.reference import scan as reference
from fusedrnn.scan import instructions as to
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.graph import Graph, Level, Step
from tests import networks
from tests.programs import draw

DTYPES = {"boolean": np.bool_, "integer": np.int64, "real": np.float64}


def gradients_of(derivative, steps, batch, dtype=np.float64, seed=0):
    """Gradients (of new states, outputs, row outputs, shared outputs) that have a place, drawn in float32."""
    rng, f = np.random.default_rng((seed, 1)), derivative.forward

    def some(values, places, lead):
        wanted = [value for value, place in zip(values, places, strict=True) if place is not None]
        return [np.asarray(np.float32(rng.uniform(-1, 1, (*lead, *value.shape))), dtype) for value in wanted]

    return (
        some(f.new_states, derivative.states, (batch,)),
        some(f.outputs, derivative.outputs, (steps, batch)),
        some(f.row_outputs, derivative.row_outputs, (batch,)),
        some(f.shared_outputs, derivative.shared_outputs, ()),
    )


def call(run, arrays, gradients, *, steps, batch, dtype, **how):
    """Eight lists, as `NAMES` has them."""

    def cast(lists):
        return [[np.array(array, dtype, order="C") for array in each] for each in lists]

    *found, kept = run.forward(*cast(arrays), steps=steps, batch=batch, dtype=dtype, **how)
    back = run.backward(kept, *cast(gradients))
    return [*found, *back]


def expected(derivative, arrays, gradients, **how):
    """The same from the reference, in float64."""
    f = derivative.forward
    leaves = (f.shared, f.rows, f.states, f.inputs)
    arrays = [
        [np.asarray(array, DTYPES[leaf.kind]) for array, leaf in zip(given, each, strict=True)]
        for given, each in zip(arrays, leaves, strict=True)
    ]

    def spread(places, given):
        left = iter(given)
        return [None if place is None else next(left) for place in places]

    names = ("dnew_states", "doutputs", "drow_outputs", "dshared_outputs")
    places = (derivative.states, derivative.outputs, derivative.row_outputs, derivative.shared_outputs)
    given = {name: spread(*pair) for name, *pair in zip(names, places, gradients, strict=True)}
    found = reference.run(f, *arrays, **how)
    back = reference.gradients(derivative, *arrays, **given, **how)
    return [*found[:4], *([array for array in each if array is not None] for each in back)]


NAMES = ("states", "outputs", "row outputs", "totals", "dstates", "dinputs", "drows", "dshared")


def compare(ours, theirs, dtype, tolerance, what):
    for name, mine, others in zip(NAMES, ours, theirs, strict=True):
        assert len(mine) == len(others), (what, name)
        for i, (a, b) in enumerate(zip(mine, others, strict=True)):
            b = np.asarray(b, np.float64)
            assert (a.dtype, a.shape) == (dtype, b.shape)
            error = np.max(np.abs(a - b), initial=0)
            assert error <= tolerance(dtype, b), f"{what}: {name} {i} differs by {error:.3g}"


def flat(found):
    return [np.atleast_1d(array) for each in found for array in each]


LAYOUTS = [{"lanes": 1, "chunk": 16}, {"lanes": 16}, {"lanes": 16, "chunk": 64}, {"lanes": 0}]


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed, each_isa, tolerance):
    rng = np.random.default_rng(seed)
    program = draw(seed, (6, 14, 24)[seed % 3])
    steps, batch = int(rng.integers(1, 4)), (1, 3, 16, 17)[seed % 4]
    how = {"steps": steps, "batch": batch, "reverse": bool(seed % 2), "seed": seed + (1 << 33)}
    how |= {"row_offset": 5, "step_offset": 3}
    if seed % 3:
        how["lengths"] = rng.integers(0, steps + 1, batch)
    arrays, gradients = program.arrays(steps, batch), gradients_of(program.derivative, steps, batch)
    theirs = expected(program.derivative, arrays, gradients, **how)
    run = Executable(program.step, program.derivative)
    for isa in each_isa():
        for dtype in (np.float64, np.float32):
            for layout in LAYOUTS:
                ours = call(run, arrays, gradients, dtype=dtype, **how, **layout)
                compare(ours, theirs, dtype, tolerance, f"{isa} {layout}")


@pytest.mark.parametrize("seed", range(4))
def test_orders_and_steps_of_computed_values(seed, tolerance):
    program = draw(seed + 100, 20, anywhere=True)
    arrays, gradients = program.arrays(2, 3), gradients_of(program.derivative, 2, 3)
    how = {"steps": 2, "batch": 3}
    theirs = expected(program.derivative, arrays, gradients, **how)
    run = Executable(program.step, program.derivative)
    for lanes in (1, 16):
        ours = call(run, arrays, gradients, dtype=np.float64, lanes=lanes, **how)
        compare(ours, theirs, np.float64, tolerance, lanes)


@pytest.mark.parametrize("name", networks.SMALL)
def test_networks(name, each_isa, tolerance):
    drawn = networks.network(name, N=3, T=3)
    how = {"steps": 3, "batch": 3, "lengths": np.array([2, 3, 0]), "reverse": True}
    gradients = gradients_of(drawn.derivative, 3, 3)
    theirs = expected(drawn.derivative, drawn.arrays, gradients, **how)
    run = Executable(drawn.step, drawn.derivative)
    for isa in each_isa():
        for dtype in (np.float64, np.float32):
            for layout in ({"lanes": 1}, {"lanes": 16, "chunk": 64}):
                ours = call(run, drawn.arrays, gradients, dtype=dtype, **how, **layout)
                compare(ours, theirs, dtype, tolerance, f"{isa} {layout}")


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_second_derivatives(name, tolerance):
    first = networks.network(name, N=2, T=2)
    second = derive(first.derivative.step)
    rng = np.random.default_rng(3)
    step = first.derivative.step
    sizes = ((), (2,), (2,), (2, 2))
    leaves = (step.shared, step.rows, step.states, step.inputs)
    arrays = [
        [np.float32(rng.uniform(-1, 1, (*lead, *leaf.shape))) for leaf in each]
        for each, lead in zip(leaves, sizes, strict=True)
    ]
    gradients = gradients_of(second, 2, 2)
    theirs = expected(second, arrays, gradients, steps=2, batch=2)
    ours = call(Executable(step, second), arrays, gradients, dtype=np.float64, steps=2, batch=2)
    compare(ours, theirs, np.float64, tolerance, name)


# bits


@pytest.fixture(params=["dnc", "layer_norm_lstm", 2, 20, 23])
def problem(request):
    """(run, arrays, gradients, how) of 21 rows, some of whose sequences end early, in float32."""
    steps, batch = 3, 21
    if isinstance(request.param, str):
        drawn = networks.network(request.param, N=batch, T=steps)
        step, derivative, arrays = drawn.step, drawn.derivative, drawn.arrays
    else:
        program = draw(request.param, 20)
        step, derivative, arrays = program.step, program.derivative, program.arrays(steps, batch)
    lengths = np.random.default_rng(0).integers(0, steps + 1, batch)
    how = {"steps": steps, "batch": batch, "lengths": lengths, "seed": 7, "dtype": np.float32}
    return Executable(step, derivative), arrays, gradients_of(derivative, steps, batch), how


def rows_of(found, rows):
    """What a call gave for some rows, shared results left out."""
    states, outputs, row_outputs, _, dstates, dinputs, drows, _ = found
    by_row = [[array[rows] for array in each] for each in (states, row_outputs, dstates, drows)]
    return [
        np.ascontiguousarray(array)
        for array in flat([*by_row, *([a[:, rows] for a in each] for each in (outputs, dinputs))])
    ]


def test_a_rows_bits_depend_on_that_row_alone(problem, each_isa, threads, assert_same_bits):
    run, arrays, gradients, how = problem
    shared, rows, states, inputs = arrays
    uses_chance = any(value.op == "uniform" for value in run.step.graph.values)
    for isa in each_isa():
        threads(1)
        whole = call(run, arrays, gradients, lanes=16, **how)
        for count in (1, 2, 3):
            threads(count)
            for layout in LAYOUTS:
                assert_same_bits(
                    tuple(flat(call(run, arrays, gradients, **how, **layout))), tuple(flat(whole)), f"{isa} {layout}"
                )
        for chosen in ([4], [20, 3, 7], list(range(20, -1, -1))):
            if uses_chance:
                break  # numbers go by a row's place in the batch
            some = [shared, *([a[chosen] for a in each] for each in (rows, states)), [a[:, chosen] for a in inputs]]
            of_some = [[a[chosen] for a in gradients[0]], [a[:, chosen] for a in gradients[1]]]
            of_some += [[a[chosen] for a in gradients[2]], gradients[3]]
            others = how | {"batch": len(chosen), "lengths": how["lengths"][chosen]}
            ours = call(run, some, of_some, **others)
            for mine, theirs in zip(rows_of(ours, slice(None)), rows_of(whole, chosen), strict=True):
                assert_same_bits(mine, theirs, f"{isa} rows {chosen}")


def test_states_passed_on_give_the_same_bits(problem, assert_same_bits):
    run, (shared, rows, states, inputs), _, how = problem
    how = {**how, "lengths": None, "training": False}

    def forward(states, inputs, first, steps):
        given = [[np.asarray(a, np.float32) for a in each] for each in (shared, rows, states, inputs)]
        return run.forward(*given, **{**how, "steps": steps}, step_offset=first)

    whole = forward(states, inputs, 0, 3)
    early = forward(states, [a[:1] for a in inputs], 0, 1)
    late = forward(early[0], [a[1:] for a in inputs], 1, 2)
    assert_same_bits(tuple(late[0]), tuple(whole[0]))
    assert_same_bits(tuple(np.concatenate(pair) for pair in zip(early[1], late[1], strict=True)), tuple(whole[1]))


@pytest.mark.parametrize("name", ["lstm", 5])
def test_states_computed_again_give_the_same_bits(name, threads, assert_same_bits):
    batch = 250
    steps = 2 * _core.program_block(batch) + 1
    if name == "lstm":
        drawn = networks.network("lstm", N=batch, T=steps, I=2, H=3)
        step, derivative, arrays = drawn.step, drawn.derivative, drawn.arrays
    else:
        program = draw(name, 8)
        step, derivative, arrays = program.step, program.derivative, program.arrays(steps, batch)
    run, gradients = Executable(step, derivative), gradients_of(derivative, steps, batch)
    lengths = np.random.default_rng(1).integers(0, steps + 1, batch)
    for reverse in (False, True):
        how = {"steps": steps, "batch": batch, "dtype": np.float32, "lengths": lengths, "reverse": reverse}
        kept = call(run, arrays, gradients, recompute=False, **how)
        for again, count, lanes in ((1, 1, 16), (5, 2, 1), (True, 2, 0)):
            threads(count)
            ours = call(run, arrays, gradients, recompute=again, lanes=lanes, **how)
            assert_same_bits(tuple(flat(ours)), tuple(flat(kept)), f"recompute={again}")


# edges


def test_what_lies_past_a_rows_end_is_not_read(problem, assert_same_bits):
    run, arrays, gradients, how = problem
    for lanes in (1, 16):
        clean = call(run, arrays, gradients, lanes=lanes, **how)
        spoilt = [np.array(a, np.float32) for a in arrays[3]]
        of_spoilt = [np.array(a, np.float32) for a in gradients[1]]
        for a in (*spoilt, *of_spoilt):
            for row, length in enumerate(how["lengths"]):
                a[length:, row] = np.nan
        ours = call(run, [*arrays[:3], spoilt], [gradients[0], of_spoilt, *gradients[2:]], lanes=lanes, **how)
        assert_same_bits(tuple(flat(ours)), tuple(flat(clean)), lanes)
        for array in [*clean[1], *clean[5]]:
            for row, length in enumerate(how["lengths"]):
                assert not array[length:, row].any()


def indexed():
    graph = Graph()
    table = graph.leaf("table", (5, 2), "real", Level.SHARED)
    index = graph.leaf("index", (3,), "integer", Level.STEP)
    state = graph.leaf("state", (3, 2), "real", Level.STEP)
    new = to.add(to.multiply(state, 0.5), to.take(table, index))
    step = Step(graph, (table,), (), (state,), (index,), (new,), (new,))
    return Executable(step, derive(step))


@pytest.mark.parametrize("wrong", [5, -6, np.nan])
@pytest.mark.parametrize("batch", [1, 17])
def test_an_index_out_of_range(wrong, batch):
    run, rng = indexed(), np.random.default_rng(0)
    table, state = rng.standard_normal((5, 2)), rng.standard_normal((batch, 3, 2))
    index = rng.integers(-5, 5, (4, batch, 3)).astype(np.float64)
    lengths = np.full(batch, 3)
    how = {"steps": 4, "batch": batch, "dtype": np.float64, "lengths": lengths}
    index[3, batch - 1, 1] = wrong  # past the row's end
    fine = run.forward([table], [], [state], [index], **how)[1][0]
    assert np.isfinite(fine).all()
    index[2, batch - 1, 1] = wrong
    with pytest.raises(IndexError):
        run.forward([table], [], [state], [index], **how)


def test_random_numbers_are_those_of_the_reference():
    graph = Graph()
    numbers = to.uniform(graph, (70,), 9)
    run = Executable(Step(graph, (), (), (), (), (), (numbers,)), None)
    how = {"seed": (5 << 40) + 3, "row_offset": 11, "step_offset": 100}
    for lanes in (1, 16):
        ours = run.forward([], [], [], [], steps=2, batch=18, dtype=np.float32, lanes=lanes, **how)[1][0]
        for t, n in np.ndindex(2, 18):
            expected_row = reference.uniform(how["seed"], n + 11, t + 100, 9, 70)
            np.testing.assert_array_equal(ours[t, n], expected_row)


@pytest.mark.parametrize("name", ["dnc", "attention"])
def test_no_rows(name):
    drawn = networks.network(name)
    empty = [
        drawn.arrays[0],
        *([a[:0] for a in each] for each in drawn.arrays[1:3]),
        [a[:, :0] for a in drawn.arrays[3]],
    ]
    run = Executable(drawn.step, drawn.derivative)
    found = call(run, empty, gradients_of(drawn.derivative, 3, 0), steps=3, batch=0, dtype=np.float32)
    assert [a.shape[1] for a in found[1]] == [0]
    assert all(not a.any() for a in found[7])


def test_nothing_past_the_end_of_a_parameter_is_read(run_python):
    code = """
import ctypes, mmap
import numpy as np
from fusedrnn.scan import instructions as to
from fusedrnn.scan.execute import Executable
from fusedrnn.scan.graph import Graph, Level, Step

page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + page), ctypes.c_size_t(page), 0) == 0
last = np.frombuffer(memory, np.float64, 5, page - 40)  # its end is that of what may be read
last[:] = np.arange(5)
graph = Graph()
p, x = graph.leaf("p", (5,), "real", Level.SHARED), graph.leaf("x", (5,), "real", Level.STEP)
place = to.as_real(to.argmax(to.unary("exp", p), 0))
affine = to.add(to.matmul(to.reshape(p, (1, 5)), to.reshape(x, (5, 1))), place)
y = to.add(to.add(to.multiply(x, affine), to.softmax(p, 0)), p)
run = Executable(Step(graph, (p,), (), (), (x,), (), (y,)), None)
for n in (1, 16):
    found = run.forward([last], [], [], [np.ones((1, n, 5))], steps=1, batch=n, dtype=np.float64)
    assert np.isfinite(found[1][0]).all()
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_recomputing_bounds_the_memory_of_ten_thousand_steps():
    drawn = networks.network("ntm", T=1, N=1)
    run = Executable(drawn.step, drawn.derivative)
    steps = 10_000
    arrays = [*drawn.arrays[:3], [np.repeat(a, steps, axis=0) for a in drawn.arrays[3]]]
    kept = {}
    for recompute in (False, True):
        *_, memory = run.forward(*arrays, steps=steps, batch=1, dtype=np.float64, recompute=recompute)
        kept[recompute] = memory.nbytes
    plan = run.training(False).plan
    # By formula: everything, or the states at every so many steps; beside them what lives as long as the call.
    assert kept[False] >= steps * (plan.reserve + plan.state) * 8
    block = run.checkpoint(steps, 1, np.float64, True)
    assert kept[True] <= (steps // block + 1) * plan.state * 8 + (plan.row + plan.shared + 100) * 8
    assert kept[True] < kept[False] / 500


def test_a_turned_product_is_summed_turned():
    graph = Graph()
    a, b = (graph.leaf(name, (n,), "real", Level.STEP) for name, n in (("a", 9), ("b", 7)))
    outer = to.product(to.reshape(a, (9, 1)), to.reshape(b, (1, 7)))
    step = Step(graph, (), (), (), (a, b), (), (), (), (to.total(to.transpose(outer), Level.SHARED),))
    rng = np.random.default_rng(0)
    given = [rng.standard_normal((4, 3, n)) for n in (9, 7)]
    *_, (found,), _ = Executable(step, None).forward([], [], [], given, steps=4, batch=3, dtype=np.float64)
    np.testing.assert_allclose(found, np.einsum("tna,tnb->ba", *given), rtol=1e-12)


def test_a_gradient_alike_at_each_step_counts_at_each():
    graph = Graph()
    p = graph.leaf("p", (5,), "real", Level.SHARED)
    x = graph.leaf("x", (5,), "real", Level.STEP)
    sums = to.total(to.add(to.lift(p, Level.STEP), x), Level.ROW)
    step = Step(graph, (p,), (), (), (x,), (), (), (sums,))
    run = Executable(step, derive(step))
    given = [np.ones(5)], [], [], [np.ones((4, 3, 5))]
    *_, kept = run.forward(*given, steps=4, batch=3, dtype=np.float64)
    *_, (dp,) = run.backward(kept, [], [], [np.full((3, 5), 2.0)])
    np.testing.assert_array_equal(dp, np.full(5, 2.0 * 4 * 3))
