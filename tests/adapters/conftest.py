"""What the adapters' tests share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def told_anew():
    """Every test is told again what falls back to PyTorch."""
    support = sys.modules.get("fusedrnn.torch.support")
    if support is not None:
        support.fallbacks.clear()


@pytest.fixture
def count_calls(monkeypatch):
    """The number of forward calls into the kernels so far."""
    from fusedrnn.torch import calls

    counted = []
    forward = calls.forward
    monkeypatch.setattr(calls, "forward", lambda *a: counted.append(a) or forward(*a))
    return lambda: len(counted)


@pytest.fixture
def gpu_calls(monkeypatch):
    """The number of passes forward through the kernels so far."""
    from fusedrnn.cuda import cells

    counted = []
    forward = cells.forward
    monkeypatch.setattr(cells, "forward", lambda *a, **k: counted.append(a) or forward(*a, **k))
    return lambda: len(counted)


@pytest.fixture
def jax_config():
    """Both dtypes of JAX, where what is float32 stays so, for all threads, as JAX runs callbacks in its own; and XLA
    without its optimizations, as compiling is what takes the time."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_enable_x64", before)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def kernel_calls(monkeypatch):
    """(way, N, training or input_grad, which gradients of outputs are None) of every call of the kernels."""
    from types import SimpleNamespace

    from fusedrnn.jax import calls

    seen, core = [], calls._core

    def forward(settings, x, states, parameters, sequences, training, **keywords):
        seen.append(("forward", x.shape[1], training))
        return core.forward(settings, x, states, parameters, sequences, training, **keywords)

    def backward(reserve, doutputs, input_grad, dparameters):
        seen.append(("backward", reserve.x.shape[1], input_grad, *[d is None for d in doutputs], False))
        return core.backward(reserve, doutputs, input_grad, dparameters)

    own = {"forward": forward, "backward": backward, "Settings": core.Settings, "Reserve": core.Reserve}
    monkeypatch.setattr(calls, "_core", SimpleNamespace(**own))
    return seen


@pytest.fixture
def one_thread(threads):
    """One thread for PyTorch and for us."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    threads(1)
    yield
    torch.set_num_threads(before)
