"""Memory networks in PyTorch: the layers' values, derivatives of both orders, starts that are learned."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn import nn  # noqa: E402
from fusedrnn.scan.trees import flatten, map_leaves  # noqa: E402
from tests.memory_networks import I, N, O, T, inputs, made, somewhere  # noqa: E402

NETWORKS = {
    "ntm": (nn.NTM, ft.NTM, {"read_heads": 2, "memory": "learned", "start": "learned"}),
    "a constant ntm": (nn.NTM, ft.NTM, {"memory": "constant", "weightings": "constant", "controller": "feedforward"}),
    "dnc": (nn.DNC, ft.DNC, {"read_heads": 2, "write_heads": 2, "key_mask": True, "sharp_links": True}),
    "sparse dnc": (nn.DNC, ft.DNC, {"links": 2, "controller": "gru", "hidden_size": [3, 2], "normalize": True}),
}


def pair(name, **more):
    """The layer and a module of the same parameters, in float64."""
    network, module, options = NETWORKS[name]
    net = made(network, **options, **more)
    hidden = options.get("hidden_size", 4)
    options = {key: value for key, value in options.items() if key != "hidden_size"} | more
    ours = module(I, O, hidden, slots=5, width=3, dtype=torch.float64, **options)
    ours.load_state_dict({key.replace(".", "_"): torch.tensor(value) for key, value in net.state_dict().items()})
    return net, ours


def leaves(tree):
    return flatten(tree, "state")[0]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"lengths": [3, 1]}, {"resets": True}, {"batch_first": True}], ids=str)
def test_values_and_gradients_are_those_of_the_layer(name, options):
    options = dict(options)
    net, module = pair(name, batch_first=options.pop("batch_first", False))
    x = inputs(T, N)
    if "resets" in options:
        options["resets"] = np.arange(T * N).reshape(T, N) % 3 == 2
    y, state = net(x, **options)
    dx, _ = net.backward(np.cos(y))
    x = torch.tensor(x, requires_grad=True)
    if "resets" in options:
        options["resets"] = torch.tensor(options["resets"])
    found, last = module(x, **options)
    found.sin().sum().backward()
    for ours, theirs in zip((found, *leaves(last)), (y, *leaves(state)), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(x.grad, dx, rtol=1e-11, atol=1e-13)
    for (key, parameter), (_, own) in zip(net.named_parameters(), sorted(module.named_parameters()), strict=True):
        np.testing.assert_allclose(own.grad, parameter.grad, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_derivatives_of_both_orders(name):
    """They are of x and every parameter, also through the start; the DNC begins with a state without ties of usage."""
    net, module = pair(name)
    state = None if name == "ntm" else map_leaves(torch.from_numpy, somewhere(net))
    x = torch.tensor(inputs(2), requires_grad=True)
    names = [key for key, _ in module.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, state))[0]

    assert torch.autograd.gradcheck(call, (x, *module.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, *module.parameters()), fast_mode=True)


def test_a_state_that_is_a_function_of_the_parameters():
    """It serves any recurrence; what it takes is learned, and names are those of the parameters alone."""

    def step(p, h, x):
        h = np.tanh(p["U"] @ h + x)
        return h, h

    module = ft.Scan(step, {"U": np.eye(3), "h": np.full(3, 0.5)}, lambda p: 2 * p["h"], dtype=torch.float64)
    assert list(module.state_dict()) == ["U", "h"]
    x = torch.randn(T, N, 3, dtype=torch.float64)
    first = torch.full((N, 3), 1.0, dtype=torch.float64, requires_grad=True)
    expected, _ = module(x, first)
    expected.sum().backward()
    module.zero_grad()
    y, _ = module(x)
    y.sum().backward()
    assert torch.equal(y, expected)
    torch.testing.assert_close(module.h.grad, 2 * first.grad.sum(0))
    with torch.no_grad():
        module.h.fill_(0)
    assert torch.equal(module(x)[0], module(x, torch.zeros_like(first))[0])
    with pytest.raises(ValueError, match="learned_state: expected a state of values, got a function of the parameters"):
        ft.Scan(step, {"U": np.eye(3), "h": np.zeros(3)}, lambda p: p["h"], learned_state=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_module_learns_and_is_copied(name):
    torch.manual_seed(0)
    _, module, options = NETWORKS[name]
    hidden = options.get("hidden_size", 4)
    options = {key: value for key, value in options.items() if key != "hidden_size"}
    net = module(I, O, hidden, slots=6, width=3, **options)
    torch.manual_seed(0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.parameters(), module(I, O, hidden, slots=6, width=3, **options).parameters(), strict=True)
    )
    x = torch.rand(6, 8, I)
    target, losses, optimizer = x[..., :O].cumsum(0), [], torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = (net(x)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    y, _ = net(x)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(again(x)[0], y)
