"""Processes that were forked while a Trainer is at work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from fusedrnn import nn, optim
from fusedrnn.train import Trainer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no processes")


def make(evaluate, out=None):
    model = nn.Linear(3, 2, rng=0)
    batch = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    options = {"epochs": 1, "progress": False, "out": out, "evaluate": evaluate}
    return Trainer(model, nn.MSELoss(), optim.SGD(model, 0.1), batches=lambda epoch: [batch], **options)


def test_a_forked_worker_ends_by_sigterm(capfd):
    ended = []

    def evaluate():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
        worker.start()
        worker.terminate()
        worker.join(5)
        ended.append(worker.exitcode)
        worker.kill()
        return {}

    make(evaluate).fit()
    assert ended == [-signal.SIGTERM]
    assert "SIGTERM" not in capfd.readouterr().err


def test_a_forked_child_that_leaves_fit_leaves_the_lock(tmp_path):
    parent, held = os.getpid(), []

    def evaluate():
        child = os.fork()
        if child == 0:
            raise SystemExit
        os.waitpid(child, 0)
        held.append((tmp_path / ".lock").exists())
        return {}

    try:
        make(evaluate, tmp_path).fit()
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert held == [True]
    assert not (tmp_path / ".lock").exists()
