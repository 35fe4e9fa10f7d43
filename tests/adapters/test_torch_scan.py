"""Any recurrence in PyTorch: values and derivatives of both orders, the module's life."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn import cells  # noqa: E402
from fusedrnn.ops import dropout, sigmoid  # noqa: E402

T, N, I, H = 4, 3, 2, 3  # noqa: E741 - the shape letters of the whole library


def lstm(p, state, x):
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def attention(p, h, x, context):
    scores = context["keys"] @ h
    weights = np.exp(scores) / np.sum(np.exp(scores))
    h = np.tanh(p["U"] @ h + weights @ context["keys"] + p["E"][x])
    return h, {"h": h, "weights": weights}


def drawn(*shape):
    return (torch.randn(*shape, dtype=torch.float64) / 2).requires_grad_()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def parameters():
    return {"W": drawn(4 * H, I), "U": drawn(4 * H, H), "b": drawn(4 * H)}


def by_torch(p, h, c, x):
    """The LSTM of PyTorch with the same weights."""
    layer = torch.nn.LSTM(I, H, dtype=torch.float64)
    names = {"weight_ih_l0": p["W"], "weight_hh_l0": p["U"], "bias_ih_l0": p["b"], "bias_hh_l0": torch.zeros(4 * H)}
    given = {name: value.double() for name, value in names.items()}
    y, (h_n, c_n) = torch.func.functional_call(layer, given, (x, (h[None], c[None])))
    return y, h_n[0], c_n[0]


def test_values_and_gradients_are_those_of_pytorchs_lstm(parameters):
    h, c, x = drawn(N, H), drawn(N, H), drawn(T, N, I)
    y, (h_n, c_n) = ft.scan(lstm, parameters, (h, c), x)
    expected = by_torch(parameters, h, c, x)
    leaves = (*parameters.values(), h, c, x)
    directions = [torch.randn_like(each) for each in expected]
    found = torch.autograd.grad((y, h_n, c_n), leaves, directions)
    gradients = torch.autograd.grad(expected, leaves, directions)
    for ours, theirs in zip((y, h_n, c_n, *found), (*expected, *gradients), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"lengths": [4, 0, 2]}, {"reverse": True}], ids=str)
def test_derivatives_of_both_orders(parameters, options):
    def call(W, U, b, h, c, x):
        y, state = ft.scan(lstm, {"W": W, "U": U, "b": b}, (h, c), x, **options)
        return y, *state

    leaves = (*parameters.values(), drawn(N, H), drawn(N, H), drawn(T, N, I))
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


def test_context_tokens_resets_and_a_dictionary_of_outputs():
    tokens = torch.randint(5, (T, N))
    resets = torch.rand(T, N) < 0.4

    def call(U, E, h, keys, first):
        y, h_n = ft.scan(
            attention, {"U": U, "E": E}, h, tokens, context={"keys": keys}, resets=resets, reset_state=first
        )
        return y["h"], y["weights"], h_n

    leaves = (drawn(H, H), drawn(5, H), drawn(N, H), drawn(N, 4, H), drawn(N, H))
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


def test_a_third_derivative_is_refused(parameters):
    x = drawn(T, N, I)
    y, _ = ft.scan(lstm, parameters, (drawn(N, H), drawn(N, H)), x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first or second order, got a third"):
        second.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="first or second order, got a third"):
        torch.autograd.grad(second.sum() + x.sum(), x)


def test_what_forward_read_must_not_change_before_backward(parameters):
    x = drawn(T, N, I)
    y, _ = ft.scan(lstm, parameters, (torch.zeros(N, H).double(), torch.zeros(N, H).double()), x)
    with torch.no_grad():
        parameters["W"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_without_gradients_nothing_is_kept(parameters):
    state = (torch.zeros(N, H).double(), torch.zeros(N, H).double())
    with torch.no_grad():
        y, _ = ft.scan(lstm, parameters, state, drawn(T, N, I))
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"W": np.zeros((4 * H, I))}, TypeError, r"params\['W'\]: expected a tensor, got ndarray"),
        ({"W": torch.zeros(4 * H, I)}, TypeError, r"expected dtype float"),
        ({"W": torch.zeros(4 * H, I + 1).double()}, ValueError, "shapes"),
        ({"W": torch.zeros(4 * H, I, device="meta").double()}, ValueError, "on the CPU"),
    ],
)
def test_errors_name_the_leaf(parameters, change, error, message):
    state = (torch.zeros(N, H).double(), torch.zeros(N, H).double())
    with pytest.raises(error, match=message):
        ft.scan(lstm, {**parameters, **change}, state, drawn(T, N, I))


def test_transforms_are_refused(parameters):
    state = (torch.zeros(N, H).double(), torch.zeros(N, H).double())
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.vmap(lambda x: ft.scan(lstm, parameters, state, x)[0])(torch.zeros(2, T, N, I).double())


# the module


def module(**options):
    return ft.Scan(*cells.JANET(I, H, rng=0), **options)


def test_a_module_learns():
    net = module()
    x = torch.rand(12, 16, I)
    target = x.cumsum(0)[..., :1].expand(-1, -1, H) / 12
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(x)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_names_copies_and_files(tmp_path):
    net = module(learned_state=True)
    x = torch.rand(T, N, I)
    y, _ = net(x)
    other = module(learned_state=True)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(net.state_dict())
    for again in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(again(x)[0], y)
    states = [name for name in net.state_dict() if name.startswith("state")]
    assert {*net.state_dict()} == {*cells.JANET(I, H).parameters, *states}
    assert states


def test_batch_first_and_a_start_in_the_middle():
    net, batched = module(), module(batch_first=True)
    x = torch.rand(T, N, I)
    y, last = net(x)
    swapped, _ = batched(x.transpose(0, 1))
    assert torch.equal(swapped.transpose(0, 1), y)
    first, state = net(x[:2])
    second, end = net(x[2:], state)
    assert torch.equal(torch.cat([first, second]), y)
    assert all(torch.equal(a, b) for a, b in zip(_leaves(end), _leaves(last), strict=True))


def _leaves(tree):
    return list(tree) if isinstance(tree, tuple) else [tree]


def test_compiled_modules_give_the_same():
    net = module()
    x = torch.rand(T, N, I)
    compiled = torch.compile(torch.nn.Sequential(torch.nn.Linear(I, I), net), backend="eager")
    plain = torch.nn.Sequential(compiled._orig_mod[0], net)
    y, _ = compiled(x)
    y.sum().backward()
    gradients = [parameter.grad.clone() for parameter in plain.parameters()]
    plain.zero_grad()
    expected, _ = plain(x)
    expected.sum().backward()
    assert torch.equal(y, expected)
    for ours, theirs in zip(gradients, plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)


def noisy(p, h, x):
    h = np.tanh(p["U"] @ dropout(h, 0.5) + x)
    return h, h


def test_masks_are_new_at_each_call_in_training_and_gone_in_eval():
    net = ft.Scan(noisy, {"U": np.eye(H)}, (H,))
    x = torch.rand(T, N, H)
    assert not torch.equal(net(x)[0], net(x)[0])
    torch.manual_seed(1)
    y, _ = net(x)
    torch.manual_seed(1)
    assert torch.equal(net(x)[0], y)
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])
    net(x)[0].sum().backward()  # gradients without masks
    assert net.U.grad is not None


def test_functional_call_takes_other_parameters():
    net, doubled = module(), module()
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
    x = torch.rand(T, N, I)
    y, _ = torch.func.functional_call(net, dict(doubled.named_parameters()), (x,))
    assert torch.equal(y, doubled(x)[0])
    assert not torch.equal(y, net(x)[0])


def test_under_autocast_a_module_has_its_parameters_precision():
    net, before = module(), torch.nn.Linear(I, I)
    x = torch.rand(T, N, I)
    with torch.autocast("cpu", torch.bfloat16):
        seen = before(x)
        y, _ = net(seen)
    assert seen.dtype is torch.bfloat16
    assert torch.equal(y, net(seen.float())[0])
    y.sum().backward()
    assert before.weight.grad.dtype is torch.float32
    with pytest.raises(TypeError, match=r"x: expected torch\.float32 or torch\.float64, got torch\.bfloat16"):
        ft.scan(lambda p, h, x: (h + x, h), None, torch.zeros(N, I), seen)


def test_ddp_gives_the_gradients_of_the_module(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = module()
        x = torch.rand(T, N, I)
        net(x)[0].sum().backward()
        expected = [parameter.grad.clone() for parameter in net.parameters()]
        net.zero_grad()
        torch.nn.parallel.DistributedDataParallel(net)(x)[0].sum().backward()
        for ours, theirs in zip(net.parameters(), expected, strict=True):
            assert torch.equal(ours.grad, theirs)
    finally:
        torch.distributed.destroy_process_group()
