"""Other Python threads run while the kernels compute: a call lets go of the interpreter's lock."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from fusedrnn import _core, nn

T, N, I, H = 20, 30, 32, 48  # noqa: E741 - the shape letters of the whole library


@pytest.fixture
def others_run_during():
    """others_run_during(call, tries): whether another thread got its turn between just before and just after a call.

    No thread is made to give up the lock within the hour, so it gets none unless the call lets go of the lock. It asks
    for the lock all the time, but may come late for a short call, the later the busier the machine is: so the call is
    repeated.
    """
    turns, stop = [0], threading.Event()

    def take_turns():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # gives the lock back

    def seen(call, tries=20_000):
        for _ in range(tries):
            before = turns[0]
            call()
            if turns[0] != before:
                return True
            time.sleep(0)
        return False

    interval, thread = sys.getswitchinterval(), threading.Thread(target=take_turns)
    sys.setswitchinterval(3600)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


def ones(*shape):
    return np.ones(shape, np.float32)


def weights(gates):
    return [ones(gates * H, I), ones(gates * H, H), ones(gates * H), ones(gates * H)]


def calls(name, parameters, **options):
    settings, x = _core.Settings(name, **options), ones(T, N, I)
    states = (None,) * (1 + (name == "lstm"))
    training = options.get("precision") != "int8"
    forward = lambda: _core.forward(settings, x, states, tuple(parameters), None, training)  # noqa: E731
    if not training:
        return (forward,)
    y, *_, reserve = forward()
    added = tuple(p.copy() for p in parameters)
    return forward, lambda: _core.backward(reserve, (y, *states), True, added)


def rnn():
    return calls("rnn", weights(1))


def mingru():
    weight, _, bias, _ = weights(2)
    return calls("mingru", (weight, bias))


def low_precision():
    return calls("lstm", weights(4), precision="int8")


def stack():
    layer, x = nn.LSTM(I, H, 2, bidirectional=True), ones(T, N, I)
    return (lambda: layer(x), lambda: layer.backward(layer(x)[0]))


def linear():
    forward = (ones(1 << 12, I), ones(H, I), None)
    backward = (ones(1 << 12, H), *forward[:2], ones(H, I), None, True)
    return lambda: _core.linear_forward(*forward), lambda: _core.linear_backward(*backward)


def embedding():
    call = (ones(T * N, I), np.zeros(T * N, np.int64), ones(1, I))
    return (lambda: _core.embedding_backward(*call),)


def frozen():
    packed, x = nn.GRU(I, H).freeze()._packed, ones(T, N, I)
    return (lambda: packed.sequence(0, x, (None,), False),)


def losses():
    a, classes = ones(1 << 13, I), np.zeros(1 << 13, np.int64)
    parameters, points = ones(T * N, 6 * 20 + 1), ones(T * N, 3)
    return (
        lambda: _core.softmax_cross_entropy(a, classes),
        lambda: _core.mixture_density(parameters, points, None),
        lambda: _core.binary_cross_entropy(a, a),
        lambda: _core.squared_error(a, a),
    )


def optimizers():
    p, g, a, b = (ones(1 << 18) for _ in range(4))
    return (
        lambda: _core.sgd_step(p, g, a, 0.1, 0.9, 0, False),
        lambda: _core.adagrad_step(p, g, a, 0.1, 1e-8, 0, False),
        lambda: _core.rmsprop_step(p, g, a, None, b, 0.1, 0.9, 1e-8, 0.9, 0, False),
        lambda: _core.adam_step(p, g, a, b, 0.1, 0.9, 0.999, 1e-8, 0, False, 1),
        lambda: _core.clip_value(g, 1),
        lambda: _core.scale(g, 1),
        lambda: _core.squared_norm(g),
    )


@pytest.mark.parametrize("make", [rnn, mingru, low_precision, linear, embedding, frozen, losses, optimizers])
def test_other_threads_run_during_a_call(make, others_run_during):
    for k, call in enumerate(make()):
        assert others_run_during(call), k


def test_a_call_that_keeps_the_lock_is_told_from_one_that_does_not(others_run_during):
    """What this file tests by: NumPy adds a few numbers under the lock."""
    a = ones(16)
    assert not others_run_during(lambda: a + a, tries=500)
    assert others_run_during(lambda: time.sleep(0))
