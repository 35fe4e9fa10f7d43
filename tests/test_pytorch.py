"""Layers, losses and optimizers do what PyTorch's do, where PyTorch is installed (the extra `bench` brings it)."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn import nn, optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")

KINDS = {
    "rnn": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
}
OPTIONS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True, "num_layers": 2},
    {"batch_first": True, "bias": False},
]
DIMENSIONS = [(7, 5, 3, 17), (1, 1, 1, 1), (12, 33, 40, 24), (28, 6, 28, 50)]  # T, N, I, H


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "three_layers", "both_ways", "batch_first_no_bias"])
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_outputs_and_gradients(kind, options, dimensions, dtype, assert_close):
    """Against PyTorch in float64, within the library's promise; PyTorch's own float32 differs from it about as much."""
    T, N, I, H = dimensions  # noqa: E741
    name, own = KINDS[kind]
    layer = getattr(nn, name)(I, H, **options, **own, dtype=dtype, rng=0)
    theirs = getattr(torch.nn, name)(I, H, **options, **own).double()
    theirs.load_state_dict({k: torch.tensor(v).double() for k, v in layer.state_dict().items()})
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, T, I) if options.get("batch_first") else (T, N, I)).astype(dtype)
    rows = layer.num_layers * layer.directions
    initial = tuple(rng.standard_normal((rows, N, H)).astype(dtype) for _ in layer.state_names)

    y, state = layer(x, initial if len(initial) == 2 else initial[0])
    x_t = torch.tensor(x).double().requires_grad_()
    initial_t = tuple(torch.tensor(s).double().requires_grad_() for s in initial)
    y_t, state_t = theirs(x_t, initial_t if len(initial) == 2 else initial_t[0])
    outputs, outputs_t = (y, *parts(state)), (y_t, *parts(state_t))
    doutputs = tuple(rng.standard_normal(o.shape).astype(dtype) for o in outputs)
    torch.autograd.backward(outputs_t, tuple(torch.tensor(d).double() for d in doutputs))
    dx, dinitial = layer.backward(doutputs[0], doutputs[1:] if len(initial) == 2 else doutputs[1])

    for k, (ours, expected) in enumerate(zip(outputs, outputs_t, strict=True)):
        assert_close(ours, expected.detach().numpy(), dtype, f"output {k}")
    assert_close(dx, x_t.grad.numpy(), dtype, "dx")
    for k, (ours, expected) in enumerate(zip(parts(dinitial), initial_t, strict=True)):
        assert_close(ours, expected.grad.numpy(), dtype, f"initial state {k}")
    for parameter, expected in theirs.named_parameters():
        assert_close(getattr(layer, parameter).grad, expected.grad.numpy(), dtype, parameter)


@pytest.mark.parametrize(
    ("ours", "theirs", "dimensions"),
    [
        (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, (9, 5)),
        (nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss, (4, 9)),
        (nn.MSELoss, torch.nn.MSELoss, (4, 9)),
    ],
)
def test_losses(ours, theirs, dimensions, dtype, assert_close):
    rng = np.random.default_rng(0)
    prediction = (5 * rng.standard_normal(dimensions)).astype(dtype)
    classes = ours is nn.CrossEntropyLoss
    target = rng.integers(0, dimensions[1], dimensions[0]) if classes else rng.random(dimensions).astype(dtype)
    loss = ours()
    value = loss(prediction, target)
    p = torch.tensor(prediction).double().requires_grad_()
    t = torch.tensor(target)
    expected = theirs()(p, t if classes else t.double())
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-5 if dtype == np.float32 else 1e-12)
    assert_close(loss.backward(), p.grad.numpy(), dtype, "gradient")


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (optim.Adagrad, torch.optim.Adagrad, {"lr": 0.1}),
        (optim.RMSprop, torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True}),
        (optim.Adam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
        (optim.AdamW, torch.optim.AdamW, {"lr": 0.01}),
    ],
)
def test_optimizers(ours, theirs, options):
    model = nn.Linear(7, 5, dtype="float64", rng=0)
    tensors = [torch.tensor(p.data, requires_grad=True) for p in model.parameters()]
    optimizer, reference = ours(model, **options), theirs(tensors, **options)
    rng = np.random.default_rng(1)
    for _ in range(10):
        for p, tensor in zip(model.parameters(), tensors, strict=True):
            p.grad[...] = rng.standard_normal(p.data.shape)
            tensor.grad = torch.tensor(p.grad)
        optimizer.step()
        reference.step()
    for p, tensor in zip(model.parameters(), tensors, strict=True):
        np.testing.assert_allclose(p.data, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)
