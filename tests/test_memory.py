"""Results live in recycled blocks: aligned, never shared while alive, handed on once dead, not hoarded."""

from __future__ import annotations

import itertools
import threading

import numpy as np

LARGE = (64, 32, 1, 24)  # T, N, I, H: y is 196,608 bytes in float32


def outputs_of(functional, make_problem, make_cell, make_shape, seed=0):
    arguments, _ = make_problem(make_cell("lstm"), make_shape(*LARGE), np.float32, seed)
    return functional.lstm_forward(*arguments.values(), training=False)[:3]


def test_large_results_are_aligned_and_large_ones_that_live_are_apart(functional, make_problem, make_cell, make_shape):
    alive = [outputs_of(functional, make_problem, make_cell, make_shape, seed)[0] for seed in range(8)]
    spans = sorted((y.ctypes.data, y.ctypes.data + y.nbytes) for y in alive)
    assert all(start % 64 == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for seed, y in enumerate(alive):
        np.testing.assert_array_equal(y, outputs_of(functional, make_problem, make_cell, make_shape, seed)[0])


def test_a_dead_result_makes_room_for_the_next(functional, make_problem, make_cell, make_shape):
    places = set()
    for _ in range(10):
        y, _, _ = outputs_of(functional, make_problem, make_cell, make_shape)
        places.add(y.ctypes.data)
        del y
    assert len(places) == 1


def test_a_view_keeps_its_memory(functional, make_problem, make_cell, make_shape):
    last = outputs_of(functional, make_problem, make_cell, make_shape)[0][-1]
    wanted = last.copy()
    for seed in range(1, 5):
        outputs_of(functional, make_problem, make_cell, make_shape, seed)
    np.testing.assert_array_equal(last, wanted)


def test_idle_memory_is_bounded(run_python):
    result = run_python(
        """
import numpy as np
import fusedrnn
weight_ih, weight_hh = np.ones((8, 1), "f4"), np.eye(8, dtype="f4")
for N in range(6000, 300_000, 6000):  # 0.9 GB in all, each array too large for the block of the one before
    fusedrnn.rnn_forward(np.ones((4, N, 1), "f4"), None, weight_ih, weight_hh, nonlinearity="relu", training=False)
with open("/proc/self/status") as status:  # ru_maxrss would be that of the process that started this one, if larger
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 700_000  # KiB


def test_many_threads_take_and_give(functional, make_problem, make_cell, make_shape, assert_same_bits):
    wanted = outputs_of(functional, make_problem, make_cell, make_shape)
    failures = []

    def work():
        try:
            for _ in range(50):
                assert_same_bits(outputs_of(functional, make_problem, make_cell, make_shape), wanted)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
