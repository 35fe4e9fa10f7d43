"""Environment variables: values that are no values, empty ones, misspelt names, and OpenMP's limit of threads."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fusedrnn
from fusedrnn import environment

CORES = len(os.sched_getaffinity(0))
SHOW = "import fusedrnn; print(fusedrnn.get_num_threads(), fusedrnn.show_config()['isa'])"


@pytest.mark.parametrize(
    ("set_", "threads"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": " 1 , 2"}, 1),
        ({"OMP_NUM_THREADS": "1", "FUSEDRNN_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "1", "FUSEDRNN_NUM_THREADS": ""}, 1),
        ({"OMP_NUM_THREADS": "99999999999999999999"}, CORES),  # a limit, not a number
        *(({"OMP_NUM_THREADS": nonsense}, CORES) for nonsense in ("0", "1x", ",1")),
    ],
    ids=str,
)
def test_threads_follow_the_environment(run_python, set_, threads):
    """Both variables are read once in a process, so each needs one of its own."""
    result = run_python("from fusedrnn import _core; print(_core.num_threads())", **{"OMP_NUM_THREADS": "", **set_})
    assert (result.stdout.strip(), result.stderr) == (str(threads), "")


def test_empty_variables_count_as_not_set(run_python):
    names = [name for name in environment.KNOWN if name != "FUSEDRNN_CUDA_MODULE"]
    result = run_python(SHOW, OMP_NUM_THREADS="", **dict.fromkeys(names, ""))
    assert (result.stdout.split(), result.stderr) == ([str(CORES), fusedrnn.show_config()["isas_available"][-1]], "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FUSEDRNN_NUM_THREADS", "two", "FUSEDRNN_NUM_THREADS: expected an integer from 1 to 256, got 'two'"),
        ("FUSEDRNN_ISA", "sse9", "FUSEDRNN_ISA: expected an instruction set of this processor"),
    ],
)
def test_values_that_mean_nothing_are_refused(run_python, name, value, message):
    result = run_python(SHOW, **{name: value})
    assert result.returncode == 1
    assert f"ValueError: {message}" in result.stderr


@pytest.mark.parametrize(("value", "checks"), [("1", True), ("0", False), ("", False)])
def test_arrays_are_checked_where_asked_for(monkeypatch, value, checks):
    monkeypatch.setenv("FUSEDRNN_CHECK", value)
    x = np.ones((2, 1, 1))
    *_, reserve = fusedrnn.mingru_forward(x, None, np.ones((2, 1)))
    x[...] = 2
    if checks:
        with pytest.raises(RuntimeError, match=r"^x: changed between mingru_forward and mingru_backward"):
            fusedrnn.mingru_backward(None, None, reserve)
    else:
        fusedrnn.mingru_backward(None, None, reserve)


def test_another_value_of_check_is_refused(monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CHECK", "yes")
    with pytest.raises(ValueError, match=r"^FUSEDRNN_CHECK: expected 1, or 0 or nothing, got 'yes'"):
        fusedrnn.mingru_forward(np.ones((2, 1, 1)), None, np.ones((2, 1)))


def test_a_misspelt_name_is_said_once(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FUSEDRNN_")]:
        monkeypatch.delenv(name)
    environment.warn_of_unknown_names()  # nothing to say, which a warning here would be an error of
    monkeypatch.setenv("FUSEDRNN_NUM_THREAD", "2")
    with pytest.warns(UserWarning, match=r"^FUSEDRNN_NUM_THREAD: .*; did you mean FUSEDRNN_NUM_THREADS\?") as said:
        environment.warn_of_unknown_names()
    assert len(said) == 1
    monkeypatch.delenv("FUSEDRNN_NUM_THREAD")
    monkeypatch.setenv("FUSEDRNN_X", "2")
    with pytest.warns(UserWarning, match=r"^FUSEDRNN_X: .*; there are FUSEDRNN_NUM_THREADS, FUSEDRNN_ISA, "):
        environment.warn_of_unknown_names()


def test_the_import_says_it(run_python):
    result = run_python("import fusedrnn, fusedrnn.optim", FUSEDRNN_THREADS="2")
    assert result.stderr.count("UserWarning: FUSEDRNN_THREADS: fusedrnn reads no") == 1


def test_the_first_calls_of_two_threads_do_not_wait_for_each_other(run_python):
    """NumPy's interface is found at import. A first call that looked for it would give up Python's lock halfway.

    The first thread's work is one chain of C functions, the first of which lets the other wait for that lock for longer
    than the interval of switching: so the other has it as soon as the first gives it up.
    """
    script = """
import threading, time
from functools import partial
import numpy as np
from fusedrnn import _core
x, w, u = np.zeros((3, 2, 4)), np.zeros((5, 4)), np.zeros((5, 5))
call = partial(_core.forward, _core.Settings("rnn"), x, (None,), (w, u), None, False)
begun = False
def second():
    while not begun:
        time.sleep(0)
    call()
thread = threading.Thread(target=second)
thread.start()
begun = True
list(map(partial.__call__, [partial(sum, range(2_000_000)), call]))
thread.join()
print("done")
"""
    assert run_python(script, timeout=30).stdout.strip() == "done"
