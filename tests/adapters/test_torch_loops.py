"""Loops over steps: from the second call on, weights stand in autograd's graph by one token."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import function  # noqa: E402

CELLS = ("RNNCell", "GRUCell", "LSTMCell")


def pair(name, *arguments, **keywords):
    ours = getattr(ft, name)(*arguments, **keywords, dtype=torch.float64)
    theirs = getattr(torch.nn, name)(*arguments, **keywords, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def loop(module, x, state=None):
    """[T, N, H], step by step."""
    outputs = []
    for step in x.unbind(0):
        if isinstance(module, torch.nn.RNNCellBase):
            state = module(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        else:
            y, state = module(step[None], state)
            outputs.append(y[0])
    return torch.stack(outputs)


def gradients(module, x):
    module.zero_grad()
    x.grad = None
    (loop(module, x) ** 2).sum().backward()
    return [x.grad.clone(), *(p.grad.clone() for p in module.parameters())]


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.fixture
def shared(monkeypatch):
    """How many calls went by a token."""
    counted = []
    forward = function.Layer.forward
    monkeypatch.setattr(
        function.Layer, "forward", lambda *a: counted.extend(a[3:4] if a[3] is not None else ()) or forward(*a)
    )
    return lambda: len(counted)


@pytest.mark.parametrize("name", [*CELLS, "RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_a_loop(name, bias, shared):
    ours, theirs = pair(name, 3, 4, bias=bias)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    for turn in (1, 2):  # the second with the weights unchanged
        close(gradients(ours, x), gradients(theirs, x))
        assert shared() == 4 * turn


def test_stacks_and_directions():
    ours, theirs = pair("LSTM", 3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    close(gradients(ours, x), gradients(theirs, x))


def test_one_call_an_update_needs_no_token(shared):
    layer = ft.GRU(2, 3)
    for _ in range(3):
        layer(torch.randn(4, 1, 2))[0].sum().backward()
    assert shared() == 0


@pytest.mark.parametrize("name", CELLS)
def test_second_derivatives(name):
    cell, other = pair(name, 2, 3)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, *_: loop(cell, x), (x, *cell.parameters()))
    found = []
    for module in (cell, other):
        first = torch.autograd.grad((loop(module, x) ** 3).sum(), list(module.parameters()), create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in first), [x, *module.parameters()]))
    close(*found)


def test_sums_that_nobody_took_are_gone():
    cell, other = pair("LSTMCell", 2, 3)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    y = loop(cell, x)
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    y.sum().backward(retain_graph=True)
    loop(other, x.detach()).sum().backward()
    close([p.grad for p in cell.parameters()], [p.grad for p in other.parameters()])
    y[1].sum().backward()  # a part of the graph
    loop(other, x.detach())[1].sum().backward()
    close([p.grad for p in cell.parameters()], [p.grad for p in other.parameters()])
    assert not cell._fusedrnn_memory._last[0]().sums.of_run


def test_frozen_weights_and_hooks():
    cell, other = pair("GRUCell", 2, 3)
    seen = []
    for module in (cell, other):
        module.bias_hh.requires_grad_(False)
        module.weight_hh.register_hook(lambda g: seen.append(g.clone()))
        loop(module, torch.ones(4, 2, 2, dtype=torch.float64)).sum().backward()
    assert cell.bias_hh.grad is None
    assert len(seen) == 2  # once a backward, with the sum
    close(seen[:1], seen[1:])


def test_changed_weights():
    cell = ft.RNNCell(2, 3)
    y = loop(cell, torch.randn(3, 1, 2))
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    ours, theirs = pair("RNNCell", 2, 3)
    x = torch.randn(1, 2, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        first = module(x)
        module.weight_ih.data = 2 * module.weight_ih.data  # which autograd does not see
        second = module(x, first)
        found.append(second)
    close(*[[f] for f in found])


def test_weights_that_do_not_lie_in_order():
    """A copy of them is not kept from call to call: ``data`` changes what autograd does not see."""
    ours, theirs = pair("GRUCell", 3, 4)
    ours.weight_hh = torch.nn.Parameter(ours.weight_hh.detach().t().contiguous().t())
    x = torch.randn(2, 3, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        first = module(x)
        module.weight_hh.data.mul_(2)
        found.append([module(x, first)])
    close(*found)


def test_what_may_change_before_the_backward():
    ours, theirs = pair("LSTMCell", 3, 4)
    for module in (ours, theirs):
        h, _ = module(torch.ones(2, 3, dtype=torch.float64))
        module.weight_ih.requires_grad_(False)
        module.share_memory()
        module.bias_hh.data = module.bias_hh.data.clone()
        h.sum().backward()
    assert ours.weight_ih.grad is theirs.weight_ih.grad is None
    close([ours.weight_hh.grad, ours.bias_hh.grad], [theirs.weight_hh.grad, theirs.bias_hh.grad])


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant):
    ours, theirs = pair("LSTMCell", 3, 3)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for module in (ours, theirs):
        state = (x, x)
        for k in range(4):
            if k % 2:
                state = torch.utils.checkpoint.checkpoint(module, x, state, use_reentrant=reentrant)
            else:
                state = module(x, state)
        found.append(torch.autograd.grad(state[0].sum(), [x]) if not reentrant else [])
        if reentrant:
            x.grad = None
            state[0].sum().backward()
            found[-1] = [x.grad.clone(), *(p.grad for p in module.parameters())]
    close(*found)


def test_nothing_is_kept_alive():
    cell = ft.GRUCell(2, 3)
    gc.collect()
    gc.disable()
    try:
        y = loop(cell, torch.randn(3, 1, 2))
        token, old = weakref.ref(cell._fusedrnn_memory._last[0]().token), weakref.ref(cell.weight_hh)
        y.sum().backward()
        assert token() is not None
        del y
        assert token() is None
        cell.weight_hh = torch.nn.Parameter(cell.weight_hh.detach().clone())
        assert old() is None
    finally:
        gc.enable()


def test_copies_have_no_memory():
    cell = ft.GRUCell(2, 3)
    loop(cell, torch.randn(3, 1, 2)).sum().backward()
    file = io.BytesIO()
    torch.save(cell, file)
    file.seek(0)
    for other in (copy.deepcopy(cell), torch.load(file, weights_only=False)):
        assert not other._fusedrnn_memory._last
    assert list(cell.state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    ft.restore(cell)
    assert "_fusedrnn_memory" not in vars(cell)
