"""A row's result has the same bits in any batch, on any number of threads, in one call or step by step."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

THREADS = (1, 2, 3, 5)

# T, N, I, H: few inputs, many inputs, more units than rows; the last is large enough to share among threads
SHAPES = pytest.mark.parametrize(
    "dimensions", [(5, 37, 3, 24), (3, 37, 300, 17), (4, 19, 40, 33)], ids=["few", "many", "tail"]
)
WORK = pytest.mark.parametrize(
    "dimensions", [(16, 200, 3, 24), (6, 64, 70, 64), (6, 3, 9, 160)], ids=["rows", "inputs", "units"]
)
PER_ROW = ("dx", "dh0", "dc0")


@pytest.fixture
def run(functional):
    """Forward and backward: (outputs, gradients)."""

    def both(cell, arguments, doutputs, **keywords):
        outputs, reserve = cell.forward(functional, arguments, **keywords)
        return outputs, cell.backward(functional, doutputs, reserve)

    return both


def _rows(cell, arguments, doutputs, rows):
    """The same problem with these rows of the batch, in this order."""
    chosen = dict(arguments)
    chosen["x"] = np.ascontiguousarray(arguments["x"][:, rows])
    for state in cell.states:
        chosen[state] = np.ascontiguousarray(arguments[state][rows])
    dy, *dlast = doutputs
    return chosen, (np.ascontiguousarray(dy[:, rows]), *(np.ascontiguousarray(d[rows]) for d in dlast))


@SHAPES
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_batch_size_and_order(cell, dtype, isa, dimensions, reverse, run, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*dimensions), dtype)
    (y, *last), gradients = run(cell, arguments, doutputs, reverse=reverse)
    count = dimensions[1]
    choices = [[k] for k in (0, 5, count - 1)]
    choices += [list(range(size)) for size in range(2, 15)]
    choices += [list(range(3, 3 + size)) for size in (4, 7, 13)]
    choices += [list(np.random.default_rng(3).permutation(count)), [4] * 6]
    for rows in choices:
        chosen, dchosen = _rows(cell, arguments, doutputs, rows)
        (y_chosen, *last_chosen), gradients_chosen = run(cell, chosen, dchosen, reverse=reverse)
        assert_same_bits(y_chosen, np.ascontiguousarray(y[:, rows]), f"y of rows {rows}")
        for ours, whole in zip(last_chosen, last, strict=True):
            assert_same_bits(ours, np.ascontiguousarray(whole[rows]), f"last state of rows {rows}")
        for name in ("dx", *("d" + state for state in cell.states)):
            whole = getattr(gradients, name)
            whole = whole[:, rows] if name == "dx" else whole[rows]
            what = f"{name} of rows {rows}"
            assert_same_bits(getattr(gradients_chosen, name), np.ascontiguousarray(whole), what)


@WORK
def test_thread_count(cell, dtype, dimensions, threads, run, make_problem, make_shape, assert_same_bits):
    """Outputs and all gradients, those of the weights too."""
    arguments, doutputs = make_problem(cell, make_shape(*dimensions), dtype)
    threads(1)
    expected = run(cell, arguments, doutputs)
    for count in THREADS[1:]:
        threads(count)
        for _ in range(3):
            assert_same_bits(run(cell, arguments, doutputs), expected, f"{count} threads")


@SHAPES
def test_one_step_at_a_time(cell, dtype, isa, dimensions, functional, run, make_problem, make_shape, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*dimensions), dtype)
    (y, *last), gradients = run(cell, arguments, doutputs)

    carried, reserves = dict(arguments), []
    for t, x in enumerate(arguments["x"]):
        carried["x"] = x[None]
        (y_t, *states), reserve = cell.forward(functional, carried)
        assert_same_bits(y_t[0], y[t], f"y[{t}]")
        carried.update(zip(cell.states, states, strict=True))
        reserves.append(reserve)
    assert_same_bits(tuple(states), tuple(last))

    dy, *dstates = doutputs
    for t in reversed(range(len(reserves))):
        step = cell.backward(functional, (dy[t : t + 1], *dstates), reserves[t])
        assert_same_bits(step.dx[0], gradients.dx[t], f"dx[{t}]")
        dstates = [getattr(step, "d" + state) for state in cell.states]
    for state, ours in zip(cell.states, dstates, strict=True):
        assert_same_bits(ours, getattr(gradients, "d" + state), "d" + state)


def test_calls_from_several_python_threads(cell, threads, run, make_problem, make_shape, assert_same_bits):
    shapes = [make_shape(16, 200, 3, 24), make_shape(6, 3, 9, 160), make_shape(3, 2, 2, 5)]
    problems = [make_problem(cell, shape, np.float32, seed) for seed, shape in enumerate(shapes)]
    threads(1)
    expected = [run(cell, *problem) for problem in problems]
    threads(3)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda k: run(cell, *problems[k % 3]), range(36)))
    for k, result in enumerate(results):
        assert_same_bits(result, expected[k % 3], f"call {k}")


# A function that computes on the pool, for scripts that run in a fresh interpreter.
COMPUTE = """
import os, sys, threading, time
import numpy as np
import fusedrnn
from fusedrnn import runtime
rng = np.random.default_rng(0)
T, N, I, H = 16, 200, 3, 24
x = rng.standard_normal((T, N, I), np.float32)
weights = [rng.uniform(-0.2, 0.2, shape).astype(np.float32) for shape in [(4*H, I), (4*H, H), (4*H,), (4*H,)]]
def compute():
    y, h_n, c_n, reserve = fusedrnn.lstm_forward(x, None, None, *weights)
    return y.tobytes() + fusedrnn.lstm_backward(y, None, None, reserve).dweight_hh.tobytes()
"""

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@needs_fork
def test_a_forked_child_computes(run_python):
    """And its child too; each leaves with 0, and the parents go on computing."""
    script = """
import warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of fork in a process with threads
runtime.set_num_threads(3)
expected = compute()
def child(depth):
    pid = os.fork()
    if pid == 0:
        good = compute() == expected and (depth == 0 or child(depth - 1) == 0)
        os._exit(0 if good else 3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
codes = [child(1) for _ in range(5)]
assert compute() == expected
print(codes)
"""
    result = run_python(COMPUTE + script)
    assert (result.returncode, result.stdout.strip()) == (0, str([0] * 5)), result.stderr


@needs_fork
def test_fork_while_another_thread_computes(run_python):
    script = """
import warnings
warnings.simplefilter("ignore")
runtime.set_num_threads(3)
expected = compute()
running = True
def busy():
    while running:
        compute()
thread = threading.Thread(target=busy)
thread.start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if compute() == expected else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
running = False
thread.join()
assert compute() == expected
print(codes)
"""
    result = run_python(COMPUTE + script)
    assert (result.returncode, result.stdout.strip()) == (0, str([0] * 20)), result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc and RLIMIT_AS")
def test_threads_that_cannot_start_are_done_without(run_python):
    script = """
import resource
runtime.set_num_threads(1)
expected = compute()
runtime.set_num_threads(64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)
try:
    for _ in range(64):
        threading.Thread(target=time.sleep, args=(1,)).start()
    print("no limit")
except RuntimeError:
    print(compute() == expected)
"""
    result = run_python(COMPUTE + script)
    assert (result.returncode, result.stdout.strip()) == (0, "True"), result.stderr


def test_the_interpreter_ends_while_helpers_sleep_or_compute(run_python):
    script = """
runtime.set_num_threads(3)
compute()
def busy():
    while True:
        compute()
threading.Thread(target=busy, daemon=True).start()
time.sleep(0.05)
"""
    result = run_python(COMPUTE + script)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_environment_sets_threads(run_python, assert_same_bits):
    results = []
    for count in THREADS:
        script = "import hashlib\nprint(runtime.get_num_threads(), hashlib.sha256(compute()).hexdigest())"
        result = run_python(COMPUTE + script, FUSEDRNN_NUM_THREADS=str(count))
        assert result.returncode == 0, result.stderr
        threads, digest = result.stdout.split()
        assert int(threads) == count
        results.append(digest)
    assert len(set(results)) == 1


def test_the_environment_forces_an_instruction_set(run_python):
    from fusedrnn import runtime

    for name in runtime.available_isas():
        script = """
bits = compute()
with runtime.use_isa(os.environ["FUSEDRNN_ISA"]):
    assert compute() == bits
import json
print(json.dumps(runtime.show_config()))
"""
        result = run_python(COMPUTE + script, FUSEDRNN_ISA=name)
        assert result.returncode == 0, result.stderr
        assert f'"{name}"' in result.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FUSEDRNN_ISA", "mmx"),
        ("FUSEDRNN_NUM_THREADS", "0"),
        ("FUSEDRNN_NUM_THREADS", "-2"),
        ("FUSEDRNN_NUM_THREADS", "four"),
        ("FUSEDRNN_NUM_THREADS", "2x"),
        ("FUSEDRNN_NUM_THREADS", "99999999999999999999"),
    ],
)
def test_bad_environment_values_are_named(variable, value, run_python):
    result = run_python(COMPUTE + "compute()", **{variable: value})
    assert result.returncode == 1  # a Python exception, not a signal
    assert f"{variable}: expected" in result.stderr.splitlines()[-1]
    assert value in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError), (None, TypeError)],
)
def test_bad_thread_counts_are_refused(value, error, threads):
    from fusedrnn import runtime

    before = runtime.get_num_threads()
    with pytest.raises(error):
        threads(value)
    assert runtime.get_num_threads() == before


def test_an_unknown_instruction_set_is_refused():
    from fusedrnn import runtime

    with pytest.raises(ValueError, match="mmx"), runtime.use_isa("mmx"):
        pass
