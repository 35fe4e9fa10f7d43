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
    """(way, N, training or input_grad, which gradients of outputs are None) of every call of the functions."""
    import fusedrnn.functional

    seen = []
    for kind in ("rnn", "gru", "lstm"):
        for way, place in (("forward", "training"), ("backward", "input_grad")):
            function = getattr(fusedrnn.functional, f"{kind}_{way}")

            def watched(*arguments, _function=function, _way=way, _place=place, **keywords):
                last = arguments[-1]
                N = arguments[0].shape[1] if _way == "forward" else last.arrays["x"].shape[1]
                nones = [a is None for a in arguments] if _way == "backward" else []
                seen.append((_way, N, keywords[_place], *nones))
                return _function(*arguments, **keywords)

            monkeypatch.setattr(fusedrnn.functional, f"{kind}_{way}", watched)
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
