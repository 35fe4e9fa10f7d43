"""A call owns the integers and booleans that it was given, under PyTorch and JAX as well (tests/test_ownership.py)."""

from __future__ import annotations

import numpy as np
import pytest

T, N, I, H = 6, 4, 3, 5  # noqa: E741 - the shape letters of the whole library
BEFORE, AFTER = [6, 2, 4, 1], [1, 6, 6, 6]
RESETS = [np.arange(T * N).reshape(T, N) % 5 == k for k in (3, 1)]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def same_gradients(torch, name, call):
    """``call(layer, refill)`` returns the loss; a layer's gradients do not depend on whether it refills."""
    import fusedrnn.torch as ft

    torch.manual_seed(0)
    layer = getattr(ft, name)(I, H, 2, bidirectional=True, dtype=torch.float64)
    found = []
    for refill in (False, True):
        layer.zero_grad()
        call(layer, refill).backward()
        found.append([p.grad.clone() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("memory", ["tensor", "NumPy's"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_layers_of_torch_keep_lengths_and_resets(torch, name, memory):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((T, N, I)))

    def call(layer, refill):
        lengths, resets = np.array(BEFORE), RESETS[0].copy()
        given = (torch.from_numpy(lengths), torch.from_numpy(resets)) if memory == "tensor" else (lengths, resets)
        loss = layer(x, lengths=given[0], resets=given[1])[0].square().sum()
        if refill:
            lengths[:], resets[...] = AFTER, RESETS[1]
        return loss

    same_gradients(torch, name, call)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_layers_of_torch_keep_batch_sizes(torch, name):
    data = torch.from_numpy(np.random.default_rng(0).standard_normal((13, I)))

    def call(layer, refill):
        sizes = torch.tensor([4, 3, 2, 2, 1, 1])
        packed = torch.nn.utils.rnn.PackedSequence(data, sizes)
        loss = layer(packed)[0].data.square().sum()
        if refill:
            sizes[:] = torch.tensor([3, 2, 2, 2, 2, 2])
        return loss

    same_gradients(torch, name, call)


def test_operators_of_torch_keep_them(torch):
    """Also where their memory is NumPy's, so that no version counts."""
    import fusedrnn.torch  # noqa: F401 - registers them

    rng, found = np.random.default_rng(0), []
    x, w, u, b = (torch.from_numpy(rng.standard_normal(s)).requires_grad_() for s in ((T, N, I), (H, I), (H, H), (H,)))
    for refill in (False, True):
        lengths, resets = np.array(BEFORE), RESETS[0].copy()
        sequences = (torch.from_numpy(lengths), None, torch.from_numpy(resets), None)
        y, *_ = torch.ops.fusedrnn.rnn_forward(
            x, None, w, u, b, b, *[None] * 4, *sequences, False, "tanh", 0.0, 0.0, 0.0, None, 0, None, True
        )
        if refill:
            lengths[:], resets[...] = AFTER, RESETS[1]
        found.append(torch.autograd.grad(y.square().sum(), (x, w, u, b)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_functions_of_jax_keep_them():
    jax = pytest.importorskip("jax")
    import fusedrnn.jax

    rng, found = np.random.default_rng(0), []
    x, w, u = (rng.standard_normal(shape).astype("f4") for shape in ((T, 64, I), (H, I), (H, H)))
    for refill in (False, True):
        # as many as lie on a boundary that JAX shares memory on
        lengths, resets = np.tile(np.array(BEFORE, np.int32), 16), np.tile(RESETS[0], 16)
        _, back = jax.vjp(lambda x, w: fusedrnn.jax.rnn(x, None, w, u, lengths=lengths, resets=resets)[0], x, w)  # noqa: B023
        if refill:
            lengths[:], resets[...] = np.tile(AFTER, 16), np.tile(RESETS[1], 16)
        found.append(back(np.ones((T, 64, H), np.float32)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sizes", [[2**63 - 1, 2**63 - 1, 7], [2**40], [np.int64(2**62)] * 5])
def test_sums_of_batch_sizes_do_not_wrap_around(sizes):
    jax = pytest.importorskip("jax")
    import fusedrnn.jax

    a = jax.numpy.ones((5, 5))
    with pytest.raises(
        ValueError, match=rf"^batch_sizes: expected a sum of 5, the rows of x, got {sum(map(int, sizes))}"
    ):
        fusedrnn.jax.rnn(a, None, a, a, batch_sizes=sizes)
