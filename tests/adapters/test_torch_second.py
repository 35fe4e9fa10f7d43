"""Second derivatives by programs are the composite's, and are what autograd runs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import composite, second  # noqa: E402
from tests.adapters.test_torch_options import ALL, RANDOMIZED, function_of  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

WALKS = {
    **{name: (name, "dense", {}) for name in ALL},
    **{f"{name}_packed": (f"{name}_random", "packed", {}) for name in RANDOMIZED},
    **{f"{name}_uneven": (f"{name}_random", "uneven", {"bidirectional": True}) for name in RANDOMIZED},
}


def products(f, inputs, directions):
    """The Hessian of a loss times directions, by a gradient of gradients."""
    outputs = f(*inputs)
    loss = sum((o**3).sum() for o in outputs)
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    return torch.autograd.grad(sum((g * d).sum() for g, d in zip(first, directions, strict=True)), inputs)


@pytest.mark.parametrize("case", WALKS)
def test_programs_give_what_the_composite_gives(case, monkeypatch):
    name, data, more = WALKS[case]
    cell, options = ALL[name]
    f, inputs = function_of(cell, {**options, **more}, data)
    directions = [torch.randn_like(t) for t in inputs]
    runs = []
    by_program = second._by_program
    monkeypatch.setattr(second, "_by_program", lambda *a: runs.append(a) or by_program(*a))
    found = products(f, inputs, directions)
    assert runs
    monkeypatch.setattr(second, "_by_program", composite.double_backward)
    for a, b in zip(found, products(f, inputs, directions), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_one_step(kind, monkeypatch):
    torch.manual_seed(0)
    layer = getattr(ft, kind)(3, 4, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    directions = [torch.randn_like(t) for t in inputs]

    def f(x, *_):
        state = layer(x)
        return state if isinstance(state, tuple) else (state,)

    found = products(f, inputs, directions)
    monkeypatch.setattr(second, "_by_program", composite.double_backward)
    for a, b in zip(found, products(f, inputs, directions), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
