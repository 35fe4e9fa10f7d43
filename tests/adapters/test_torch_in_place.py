"""Tensors may change between forward and backward where PyTorch lets them, with its gradients, and nowhere else."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

import fusedrnn.torch as ft  # noqa: E402

I, H, P, T, N = 4, 6, 3, 4, 3  # noqa: E741 - the shape letters of the whole library
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),  # PyTorch's, of its own
    pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning"),
]
TARGETS = ("x", "h0", "c0", "y", "y[-1]", "h_n", "c_n", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def drawn(seed):
    """A layer or cell, a call of it, and which of its tensors have gradients."""
    r = random.Random(seed)
    case = {
        "name": r.choice(["RNN", "LSTM", "GRU"]),
        "cell": r.random() < 0.3,
        "dtype": r.choice([torch.float32, torch.float32, torch.float64]),
        "bias": r.random() < 0.9,
        "steps": r.choice([1, T, T]),
        "rows": r.choice([1, N, N]),
        "state": r.random() < 0.7,
        "grads": {name: r.random() < 0.5 for name in ("x", "h0", "c0")},
        "lies": r.choice(["in order", "in order", "turned", "across"]),
        "target": r.choice(TARGETS),
        "change": r.choice(["mul_", "relu_", "masked_fill_"]),
    }
    weights = r.choice([{"ih": True, "hh": True, "bias": True}, {"ih": False, "hh": False, "bias": False}, None])
    case["grads"] |= weights or {name: r.random() < 0.5 for name in ("ih", "hh", "bias")}
    case["options"] = {} if case["cell"] else {
        "num_layers": r.choice([1, 1, 2]), "bidirectional": r.random() < 0.25, "batch_first": r.random() < 0.4
    }  # fmt: skip
    if case["name"] == "RNN":
        case["options"]["nonlinearity"] = r.choice(["tanh", "relu"])
    if case["name"] == "LSTM" and not case["cell"] and r.random() < 0.2:
        case["options"]["proj_size"] = P
    case["packed"] = not case["cell"] and r.random() < 0.25
    return case


def module_of(case, accelerated):
    torch.manual_seed(0)
    kind = getattr(torch.nn, case["name"] + "Cell" * case["cell"])
    module = kind(I, H, bias=case["bias"], dtype=case["dtype"], **case["options"])
    for name, parameter in module.named_parameters():
        part = "bias" if "bias" in name else "ih" if "weight_ih" in name else "hh"
        parameter.requires_grad_(case["grads"][part])
    if accelerated:
        ft.accelerate(module)
    return module


def leaf(case, name, shape):
    tensor = torch.randn(shape, dtype=case["dtype"]).requires_grad_(case["grads"][name])
    return tensor, tensor * 1 if case["grads"][name] else tensor  # one that may change


def shape_of_x(case):
    if case["cell"]:
        return (case["rows"], I)
    return (case["rows"], case["steps"], I) if case["options"]["batch_first"] else (case["steps"], case["rows"], I)


def called(module, case):
    """(tensors by name, leaves)."""
    torch.manual_seed(1)
    shape, turn = shape_of_x(case), None
    if case["lies"] != "in order":
        turn = (-1, -2) if case["lies"] == "turned" or case["cell"] else (0, 1)
        order = list(range(len(shape)))
        order[turn[0]], order[turn[1]] = order[turn[1]], order[turn[0]]
        shape = [shape[k] for k in order]
    first, x = leaf(case, "x", shape)
    if turn:
        x = x.transpose(*turn)
    given, options = x, case["options"]
    if case["packed"]:
        lengths = torch.arange(case["rows"]).flip(0).clamp(max=case["steps"] - 1) + 1
        lengths[0] = case["steps"]
        given = pack_padded_sequence(x, lengths, batch_first=options["batch_first"])
        x = given.data
    stack = () if case["cell"] else (options["num_layers"] * (1 + options["bidirectional"]),)
    leaves, states = [first], []
    for name, width in (("h0", options.get("proj_size", H)), ("c0", H))[: 1 + (case["name"] == "LSTM")]:
        tensor, state = leaf(case, name, (*stack, case["rows"], width))
        leaves.append(tensor)
        states.append(state)
    hx = None if not case["state"] else states[0] if len(states) == 1 else tuple(states)
    found = module(given, hx)
    y, final = (None, found) if case["cell"] else found
    y = y.data if case["packed"] else y
    tensors = {"x": x, "y": y, "y[-1]": None if y is None else y[-1]}
    tensors |= dict(zip(("h0", "c0"), states if case["state"] else (), strict=False))
    tensors |= dict(zip(("h_n", "c_n"), final if isinstance(final, tuple) else (final,), strict=False))
    suffix = "" if case["cell"] else "_l0"
    named = dict(module.named_parameters())
    tensors |= {name: named.get(name + suffix) for name in TARGETS if "_ih" in name or "_hh" in name}
    return tensors, leaves


def change(tensor, how):
    if how == "mul_":
        tensor.mul_(0.5).add_(1)
    elif how == "relu_":
        tensor.relu_()
    else:
        tensor.masked_fill_(torch.ones_like(tensor, dtype=torch.bool), 0)


def outcome(case, accelerated):
    """Gradients, "refused", or None of what cannot be tried."""
    module = module_of(case, accelerated)
    tensors, leaves = called(module, case)
    target = tensors.get(case["target"])
    if target is None:
        return None
    with torch.set_grad_enabled("_ih" not in case["target"] and "_hh" not in case["target"]):
        change(target, case["change"])
    loss = sum(t.square().sum() for name, t in tensors.items() if name in ("y", "h_n", "c_n") and t is not None)
    if not loss.requires_grad:
        return None
    try:
        loss.backward()
    except RuntimeError as error:
        return "refused" if "inplace" in str(error) else error
    return [t.grad for t in (*module.parameters(), *leaves)]


@pytest.mark.parametrize("group", range(20))
def test_as_with_pytorchs_classes(group):
    met = set()
    for seed in range(100 * group, 100 * group + 100):
        case = drawn(seed)
        expected, found = outcome(case, False), outcome(case, True)
        assert type(found) is type(expected), (seed, case, expected, found)
        met.add("refused" if expected == "refused" else type(expected))
        if isinstance(expected, list):
            for a, b in zip(found, expected, strict=True):
                assert (a is None) == (b is None), (seed, case)
                if a is not None:
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, s=seed: f"{s}: {text}")
    assert met == {"refused", list, type(None)}


def uncounted(way, tensor):
    """Changes that autograd does not count."""
    if way == "data":
        tensor.data.mul_(0.5)
    elif way == "numpy":
        tensor.detach().numpy()[...] = 3
    elif way == "other memory":
        tensor.data = tensor.data * 0.5
    elif way == "another view":  # of the same memory
        tensor.data = tensor.data.t() if tensor.dim() == 2 and len(set(tensor.shape)) == 1 else tensor.data
    elif way == "other type":
        tensor.data = tensor.data.to(torch.float16)


@pytest.mark.parametrize("way", ["data", "numpy", "other memory"])
@pytest.mark.parametrize("rows", [N, 1500])  # y is made in another way where it is large
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "LSTM by projections"])
def test_outputs_may_change_behind_autograds_back(name, rows, way):
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        kind, *projected = name.split(" by ")
        layer = getattr(package, kind)(I, H, 2, dtype=torch.float64, **({"proj_size": P} if projected else {}))
        y, state = layer(torch.randn(T, rows, I, dtype=torch.float64))
        loss = y.square().sum()
        for output in (y, *(state if isinstance(state, tuple) else (state,))):
            uncounted(way, output)
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("way", ["other memory", "other type", "another view"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_a_weight_gets_other_memory_between_the_steps_of_a_loop_and_before_backward(name, options, way):
    """As ``vector_to_parameters`` and ``module.half()`` do it. Autograd has the old."""
    if "Cell" in name and options:
        return
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        layer, state = getattr(package, name)(I, H, dtype=torch.float64, **options), None
        x = torch.randn(*((N, I) if "Cell" in name else (T, N, I)), dtype=torch.float64, requires_grad=True)
        outputs = []
        for _ in range(3):
            result = layer(x, state)
            state = result if "Cell" in name else result[1]
            outputs += state if isinstance(state, tuple) else [state]
            if way != "other type":
                for parameter in layer.parameters():
                    uncounted(way, parameter)
        loss = sum(output.square().sum() for output in outputs)
        kept = [p.data for p in layer.parameters()]
        for parameter in layer.parameters():
            uncounted(way, parameter)
        loss.backward()
        found.append([x.grad, *[p.grad for p in layer.parameters()]])
        del kept
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_onednns_lstm_has_the_parameters_themselves():
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        layer, x = package.LSTM(I, H), torch.randn(T, N, I, requires_grad=True)
        loss = layer(x)[0].square().sum()
        old = layer.weight_hh_l0.data
        for parameter in layer.parameters():
            uncounted("other memory", parameter)
        found.append(torch.autograd.grad(loss, [x, *layer.parameters()]))
        del old
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("place", ["x", "h0"])
def test_an_input_that_gets_other_memory_is_refused(place):
    layer = ft.GRU(I, H)
    given = {"x": torch.randn(T, N, I), "h0": torch.randn(1, N, H)}
    loss = layer(*given.values())[0].sum()
    given[place].data = torch.zeros_like(given[place])
    with pytest.raises(RuntimeError, match="whose data was set to another tensor"):
        loss.backward()


@pytest.mark.parametrize("what", ["x", "weight_hh_l0"])
def test_derivatives_of_gradients_need_what_lay_there(what):
    layer, x = ft.GRU(I, H), torch.randn(T, N, I, requires_grad=True)
    loss = layer(x)[0].pow(3).sum()
    changed = x if what == "x" else layer.weight_hh_l0
    changed.data = torch.zeros_like(changed)
    with pytest.raises(RuntimeError, match="whose data was set to another tensor"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_y_with_batch_first_is_a_view_of_an_lstms_alone(name):
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        layer, x = getattr(package, name)(I, H, batch_first=True, dtype=torch.float64), torch.randn(N, T, I).double()
        scale = torch.ones(H, dtype=torch.float64, requires_grad=True)
        with torch.no_grad():
            y, _ = layer(x)
        z, _ = layer(x)
        assert z._is_view() == (name == "LSTM")
        assert z.stride() == (H, N * H, 1)
        loss = z.sum()
        if name != "LSTM":
            y.mul_(scale).sum().backward()
            z.detach_()
        found.append([scale.grad, *torch.autograd.grad(loss, list(layer.parameters()))])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell"])
def test_states_of_finished_episodes_are_zeroed_between_steps(name):
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        cell, state = getattr(package, name)(I, H), None
        for _ in range(T):
            state = cell(torch.randn(N, I), state)
            for part in state if isinstance(state, tuple) else (state,):
                part[0] = 0
        (state[0] if isinstance(state, tuple) else state).square().sum().backward()
        found.append([p.grad for p in cell.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_y_changed_by_way_of_a_detached_view():
    """PyTorch's GRU has copies of its own; its LSTM is one operator, which has not."""
    for name, allowed in (("GRU", True), ("LSTM", False)):
        layer = getattr(ft, name)(I, H)
        y, _ = layer(torch.randn(T, N, I))
        loss = y.sum()
        expected = torch.autograd.grad(loss, layer.weight_hh_l0, retain_graph=True)[0]
        y.detach().zero_()
        if allowed:
            assert torch.equal(torch.autograd.grad(loss, layer.weight_hh_l0)[0], expected)
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


def test_without_onednn_an_lstm_is_a_loop_too():
    with torch.backends.mkldnn.flags(enabled=False):
        layer = ft.LSTM(I, H)
        layer(torch.randn(T, N, I))[0].relu_().sum().backward()
    assert layer.weight_hh_l0.grad is not None


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"zoneout_h": 0.5, "recurrent_dropout": 0.2}])
def test_options_and_masks(options):
    torch.manual_seed(0)
    layer, x = ft.LSTM(I, H, **options), torch.randn(T, N, I)
    gradients = []
    for in_place in (False, True):
        torch.manual_seed(1)
        y = layer(x, lengths=[4, 2, 3])[0]
        y = y.mul_(2) if in_place else y * 2
        gradients.append(torch.autograd.grad(y.sum(), list(layer.parameters())))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["RNN", "GRU"])
def test_under_modes_that_look_at_operators(name):
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    layer, x = getattr(ft, name)(I, H), torch.randn(T, N, I)
    expected = torch.autograd.grad(layer(x)[0].relu_().sum(), list(layer.parameters()))
    with FlopCounterMode(display=False):
        found = torch.autograd.grad(layer(x)[0].relu_().sum(), list(layer.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_inputs_of_inference_mode_beside_frozen_weights(name):
    with torch.inference_mode():
        x = torch.ones(N, I) if name == "GRUCell" else torch.ones(T, N, I)
    h0 = torch.zeros(N, H) if name == "GRUCell" else torch.zeros(1, N, H)
    found = []
    for package in (torch.nn, ft):
        torch.manual_seed(0)
        layer, state = getattr(package, name)(I, H).requires_grad_(False), h0.clone().requires_grad_()
        y = layer(x, state)
        (y if torch.is_tensor(y) else y[0]).sum().backward()
        found.append(state.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("changed", ["y", "x"])
def test_derivatives_of_gradients(changed):
    """They are exact with a changed y, and refused with a changed input, of which they are functions."""
    results = []
    for in_place in (False, True):
        torch.manual_seed(0)
        layer = ft.GRU(I, H, dtype=torch.float64).requires_grad_(changed == "y")
        x, h0 = torch.randn(T, N, I, dtype=torch.float64), torch.randn(1, N, H, dtype=torch.float64).requires_grad_()
        y, _ = layer(x, h0)
        loss = (y.mul_(2) if in_place and changed == "y" else y * 2).pow(3).sum()
        if in_place and changed == "x":
            x.zero_()
            with pytest.raises(RuntimeError, match="modified by an inplace operation: an input of a recurrent layer"):
                torch.autograd.grad(loss, h0, create_graph=True)
            return
        (first,) = torch.autograd.grad(loss, h0, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), h0)[0])
    torch.testing.assert_close(*results)


def test_what_hooks_of_saved_tensors_move():
    """y is saved so that who offloads or recomputes activations meets it, changed or not."""
    from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

    torch.manual_seed(0)
    layer, x = ft.GRU(I, H), torch.randn(T, N, I)
    expected = torch.autograd.grad(layer(x)[0].mul(2).sum(), list(layer.parameters()))
    sizes = []
    with saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
        layer(x)
    assert (T, N, H) in sizes
    with save_on_cpu():
        loss = layer(x)[0].mul_(2).sum()
    for a, b in zip(torch.autograd.grad(loss, list(layer.parameters())), expected, strict=True):
        assert torch.equal(a, b)
    loss = torch.utils.checkpoint.checkpoint(lambda z: layer(z)[0].mul_(2), x, use_reentrant=False).sum()
    for a, b in zip(torch.autograd.grad(loss, list(layer.parameters())), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("what", ["y", "y given back", "y of another size", "weight"])
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_storages_that_are_resized(name, what):
    if (name, what) == ("LSTM", "y"):
        return  # PyTorch's needs it
    torch.manual_seed(0)
    layer, x = getattr(ft, name)(I, H), torch.randn(T, N, I)
    if what == "weight":
        layer.weight_hh_l0.untyped_storage().resize_(16)
        with warnings.catch_warnings(), pytest.raises(ValueError, match="resized to less than it holds"):
            layer(x)
        return
    y, _ = layer(x)
    loss = y.mul(2).sum()
    expected = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    values, storage = y.detach().clone(), y.untyped_storage()
    if name != "LSTM" or what == "y given back":
        storage.resize_(0)
    if what == "y given back":
        storage.resize_(values.nbytes)
        with torch.autograd._unsafe_preserve_version_counter(y), torch.no_grad():
            y.copy_(values)
    if what == "y of another size":
        with torch.no_grad():
            layer(torch.randn(200, 20, I))[0].resize_(1000, 100).fill_(7)
        layer(x)[0].untyped_storage().resize_(1000)
    for a, b in zip(torch.autograd.grad(loss, list(layer.parameters())), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("sizes", "rows"), [((3, 2, 0), 5), ((3, 2, 0, 0), 5), ((3, 2), 7), ((3, 1, 0), 9)])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_packed_steps_without_rows_and_rows_without_steps(name, sizes, rows):
    found = []
    for package, layers in itertools.product((torch.nn, ft), (1, 2)):
        torch.manual_seed(layers)
        layer = getattr(package, name)(I, H, layers)
        x = torch.randn(rows, I, requires_grad=True)
        y, state = layer(torch.nn.utils.rnn.PackedSequence(x, torch.tensor(sizes)))
        assert y.batch_sizes.tolist() == list(sizes)
        states = state if isinstance(state, tuple) else (state,)
        sum(t.square().sum() for t in (y.data, *states)).backward()
        found.append([y.data, *states, x.grad, *[p.grad for p in layer.parameters()]])
    for ours, theirs in ((found[2], found[0]), (found[3], found[1])):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_packed_rows_that_pytorch_takes_in_a_way_of_its_own_or_not_at_all():
    """Its reverse direction begins with the last data, also with such as no step has."""
    theirs, ours = torch.nn.GRU(I, H, bidirectional=True), ft.GRU(I, H, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    spare = torch.nn.utils.rnn.PackedSequence(torch.randn(7, I), torch.tensor([3, 2]))
    with pytest.warns(ft.FallbackWarning, match="packed data of 7 rows where batch_sizes have 5"):
        found = ours(spare)
    torch.testing.assert_close(found[0].data, theirs(spare)[0].data)
    wrong = (torch.tensor([3, 3, 2, 1]), torch.tensor([3, 2, 2], dtype=torch.int32), torch.tensor([1, 2, 4]))
    for sizes in wrong:
        errors = []
        for layer in (theirs, ours):
            with pytest.raises(RuntimeError) as raised:
                layer(torch.nn.utils.rnn.PackedSequence(torch.randn(7, I), sizes))
            errors.append(str(raised.value))
        assert errors[0] == errors[1]
