"""Weights whose memory moves between forward and backward, with the same values: who shards or offloads a model frees
them, and brings them back to another place, in a way that autograd does not count as a change."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import fusedrnn.torch as ft  # noqa: E402 - needs torch

LAYERS, CELLS = ("RNN", "LSTM", "GRU"), ("RNNCell", "LSTMCell", "GRUCell")


pytestmark = pytest.mark.usefixtures("one_thread")


def pair(name, *sizes, **options):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*sizes, dtype=torch.float64, **options)
    ours = getattr(ft, name)(*sizes, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def free(parameter):
    """Give its memory back; returns what brings the values back, elsewhere where that can be."""
    storage, values = parameter.untyped_storage(), parameter.detach().clone()
    size = storage.nbytes()
    with torch.autograd._unsafe_preserve_version_counter(parameter), torch.no_grad():
        storage.resize_(0)

    def bring_back():
        others = [
            torch.full((size // 8,), 7.0, dtype=torch.float64) for _ in range(8)
        ]  # of the place that was given back
        with torch.autograd._unsafe_preserve_version_counter(parameter), torch.no_grad():
            storage.resize_(size)
            parameter.copy_(values)
        return others

    return bring_back


def offload(parameter):
    """The same by ``data``."""
    values = parameter.detach().clone()
    parameter.data = torch.empty(0, dtype=torch.float64)

    def bring_back():
        others = [torch.full_like(values, 7.0) for _ in range(8)]
        parameter.data = values
        return others

    return bring_back


def shard(parameter):
    """The same values elsewhere, and the memory where they were given back."""
    storage, values = parameter.untyped_storage(), parameter.detach().clone()
    parameter.data = values
    storage.resize_(0)
    return lambda: [torch.full_like(values, 7.0) for _ in range(8)]


def gradients(module, outputs, ways):
    loss = outputs(module).square().sum()
    kept = [back() for back in [way(p) for p in module.parameters() for way in ways]]
    loss.backward()
    del kept
    return [p.grad for p in module.parameters()]


def over_steps(module, x):
    state, outputs = None, []
    for step in x.unbind(0):
        state = module(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs)


@pytest.mark.parametrize("way", [free, offload, shard])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_find_them_again(name, options, way):
    ours, theirs = pair(name, 3, 40, **options)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = gradients(theirs, lambda m: m(x)[0], [])
    for mine, other in zip(gradients(ours, lambda m: m(x)[0], [way]), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("way", [free, offload, shard])
@pytest.mark.parametrize("name", CELLS)
def test_cells_in_a_loop_find_them_again(name, way):
    ours, theirs = pair(name, 3, 40)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = gradients(theirs, lambda m: over_steps(m, x), [])
    for mine, other in zip(gradients(ours, lambda m: over_steps(m, x), [way]), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_between_two_backwards_too(name):
    """Of one graph that is kept."""
    ours, _ = pair(name, 3, 40)
    loss = ours(torch.randn(5, 2, 3, dtype=torch.float64))[0].sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in ours.parameters()]
    kept = [free(p)() for p in ours.parameters()]
    loss.backward()
    del kept
    for p, gradient in zip(ours.parameters(), first, strict=True):
        torch.testing.assert_close(p.grad, 2 * gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_the_next_forward_finds_them_too(name):
    ours, _ = pair(name, 3, 40)
    x = torch.randn(*((2, 3) if name in CELLS else (5, 2, 3)), dtype=torch.float64)

    def outputs():
        found = ours(x)
        return found[0] if isinstance(found, tuple) else found

    expected = outputs().detach()
    kept = [free(p)() for p in ours.parameters()]
    assert torch.equal(outputs(), expected)
    del kept


@pytest.mark.parametrize("name", LAYERS)
def test_memory_that_never_comes_back_is_an_error(name):
    ours, _ = pair(name, 3, 40)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    loss = ours(x)[0].sum()
    back = free(ours.weight_hh_l0)
    for call in (loss.backward, lambda: ours(x)):
        with pytest.raises((ValueError, RuntimeError), match=r"memory|storage|allocated"):
            call()
    back()
    loss.backward()


@pytest.mark.parametrize("name", LAYERS)
def test_a_change_of_values_is_still_refused(name):
    ours, _ = pair(name, 3, 4)
    loss = ours(torch.randn(5, 2, 3, dtype=torch.float64))[0].sum()
    with torch.no_grad():
        ours.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
