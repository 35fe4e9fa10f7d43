"""Attention, windows, mixtures and writing in PyTorch: values, gradients of plain PyTorch, masks, steppers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402
from fusedrnn import cells, nn  # noqa: E402
from fusedrnn.scan.trees import flatten  # noqa: E402

T, N, I, H, S, F = 4, 3, 3, 5, 6, 4  # noqa: E741
LENGTHS = [6, 2, 1]
D = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def same(ours, theirs, tolerance=1e-12):
    np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=tolerance, atol=tolerance)


def plain_attention(score, p, query, memory, present):
    """query [N, Q], memory [S, N, F]; p by "W", "U", "v"."""
    if score == "additive":
        e = torch.tanh(memory @ p["U"].T + query @ p["W"].T) @ p["v"]
    else:
        e = ((query if score == "dot" else query @ p["W"].T) * memory).sum(-1)
    a = torch.softmax(e.masked_fill(~present, -torch.inf), 0)  # [S, N]
    return (a[:, :, None] * memory).sum(0), a.T


PRESENT = torch.arange(S)[:, None] < torch.tensor(LENGTHS)


@pytest.mark.parametrize("score", ["additive", "dot", "general"])
def test_attention(score):
    features = H if score == "dot" else F
    torch.manual_seed(0)
    module = ft.Attention(H, features, score=score, dtype=D)
    query, memory = draw(T, N, H).requires_grad_(), draw(S, N, features, seed=1).requires_grad_()
    inputs = (query, memory, *module.parameters())
    seen, weights = module(query, memory, memory_lengths=torch.tensor(LENGTHS))
    found = torch.autograd.grad((seen.sin() + weights.cos().sum(-1, keepdim=True)).sum(), inputs)
    p = {name.removeprefix("scan."): value for name, value in module.named_parameters()}
    steps = [plain_attention(score, p, q, memory, PRESENT) for q in query]
    wanted_seen, wanted_weights = (torch.stack(part) for part in zip(*steps, strict=True))
    same(seen, wanted_seen)
    same(weights, wanted_weights)
    total = (wanted_seen.sin() + wanted_weights.cos().sum(-1, keepdim=True)).sum()
    for ours, theirs in zip(found, torch.autograd.grad(total, inputs), strict=True):
        same(ours, theirs, 1e-10)
    masked, _ = module(query, memory.masked_fill(~PRESENT[:, :, None], torch.nan), memory_mask=PRESENT)
    same(masked, seen)


@pytest.mark.parametrize("feeding", [True, False])
def test_a_decoder_beside_plain_pytorch(feeding):
    torch.manual_seed(1)
    module = ft.AttentionDecoder(I, H, F, input_feeding=feeding, dtype=D)
    x, memory = draw(T, N, I).requires_grad_(), draw(S, N, F, seed=1).requires_grad_()
    y, state, weights = module(x, memory, memory_lengths=LENGTHS)
    inputs = (x, memory, *module.parameters())
    found = torch.autograd.grad(y.sin().sum() + state.layers[0][1].sum(), inputs)
    p = {name.removeprefix("scan."): value for name, value in module.named_parameters()}
    attention = {name: p[f"attention_{name}"] for name in "WUv"}
    h = c = attended = torch.zeros(N, H, dtype=D)
    outputs = []
    for x_t in x:
        seen_before = torch.cat([x_t, attended], 1) if feeding else x_t
        i, f, g, o = (seen_before @ p["cell_0_W"].T + h @ p["cell_0_U"].T + p["cell_0_b"]).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        seen, a = plain_attention("additive", attention, h, memory, PRESENT)
        attended = torch.tanh(torch.cat([h, seen], 1) @ p["out_W"].T + p["out_b"])
        outputs.append(attended)
    same(y, torch.stack(outputs))
    same(weights[-1], a)
    wanted = torch.autograd.grad(torch.stack(outputs).sin().sum() + c.sum(), inputs)
    for ours, theirs in zip(found, wanted, strict=True):
        same(ours, theirs, 1e-10)


@pytest.mark.parametrize("options", [{"cell": "gru", "num_layers": 2}, {"score": "general", "cell": "rnn"}], ids=str)
def test_a_decoder_is_that_of_the_layer(options):
    layer = nn.AttentionDecoder(I, H, F, dtype="float64", rng=0, **options)
    module = ft.AttentionDecoder(I, H, F, dtype=D, **options)
    state = {
        f"scan.{key.removeprefix('scan.').replace('.', '_')}": torch.tensor(v) for key, v in layer.state_dict().items()
    }
    module.load_state_dict(state)
    x, memory = draw(T, N, I), draw(S, N, F, seed=1)
    y, last, weights = layer(x.numpy(), memory.numpy(), memory_lengths=LENGTHS, lengths=[4, 1, 2])
    found = module(x, memory, memory_lengths=LENGTHS, lengths=torch.tensor([4, 1, 2]))
    for ours, theirs in zip((found[0], *flatten(found[1])[0], found[2]), (y, *flatten(last)[0], weights), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-12, atol=1e-14)
    again = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    same(again(x, memory)[0], module(x, memory)[0])


def test_what_does_not_fit():
    module = ft.AttentionDecoder(I, H, F)
    x = torch.zeros(T, N, I)
    with pytest.raises(ValueError, match=r"memory: expected shape \(S, N, 4\), got \(6, 3, 5\)"):
        module(x, torch.zeros(S, N, 5))
    with pytest.raises(ValueError, match=r"memory_lengths: expected at least one vector .* in row 1"):
        module(x, torch.zeros(S, N, F), memory_lengths=[1, 0, 1])
    with pytest.raises(ValueError, match="memory_mask: expected it or memory_lengths, got both"):
        module(x, torch.zeros(S, N, F), memory_lengths=LENGTHS, memory_mask=PRESENT)


K, C, U = 3, 6, 7


def test_windows_beside_plain_pytorch():
    torch.manual_seed(2)
    module = ft.WindowLSTM(I, C, H, K, spacing=0.5, dtype=D)
    x, text = draw(T, N, I).requires_grad_(), draw(N, U, C, seed=1).requires_grad_()
    y, state = module(x, context=text)
    inputs = (x, text, *module.parameters())
    found = torch.autograd.grad(y.h.sin().sum() + y.window.cos().sum() + y.kappa.sum(), inputs)
    p = dict(module.named_parameters())
    h = c = torch.zeros(N, H, dtype=D)
    kappa, window, total = torch.zeros(N, K, dtype=D), torch.zeros(N, C, dtype=D), 0.0
    places = torch.arange(1, U + 1, dtype=D)[:, None]
    for t, x_t in enumerate(x):
        gates = torch.cat([x_t, window], 1) @ p["lstm_W"].T + h @ p["lstm_U"].T + p["lstm_b"]
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        alpha, beta, step = torch.exp(h @ p["window_W"].T + p["window_b"]).chunk(3, 1)
        kappa = kappa + step
        phi = (alpha[:, None] * torch.exp(-beta[:, None] * (kappa[:, None] - places) ** 2)).sum(-1)
        window = torch.einsum("nu,nuc->nc", phi, text)
        same(y.weights[t], phi)
        total = total + h.sin().sum() + window.cos().sum() + kappa.sum()
    same(state.kappa, kappa)
    for ours, theirs in zip(found, torch.autograd.grad(total, inputs), strict=True):
        same(ours, theirs, 1e-10)


def test_a_window_is_that_of_the_layer():
    layer = nn.SoftWindow(H, K, dtype="float64", rng=0)
    module = ft.SoftWindow(H, K, dtype=D)
    module.load_state_dict({key: torch.tensor(value) for key, value in layer.state_dict().items()})
    h, text = draw(T, N, H), draw(N, U, C, seed=1)
    y, _ = layer(h.numpy(), None, text.numpy())
    found, _ = module(h, context=text)
    assert isinstance(found, cells.WindowOutput)
    for ours, theirs in zip(found, y, strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-12, atol=1e-14)


def test_mixtures():
    torch.manual_seed(3)
    head = ft.MixtureDensity(H, K, dtype=D)
    h, target = draw(T, N, H).requires_grad_(), draw(T, N, 3, seed=1)
    target[..., 2] = (target[..., 2] > 0).double()
    weights = torch.rand(T, N, dtype=D)
    parameters = head(h)
    loss = ft.mixture_density_loss(parameters, target, weights)
    pi = torch.log_softmax(parameters[..., :K], -1)
    mx, my, lx, ly, r = parameters[..., K : 6 * K].chunk(5, -1)
    rho = torch.tanh(r)
    zx, zy = (target[..., :1] - mx) / lx.exp(), (target[..., 1:2] - my) / ly.exp()
    log = -np.log(2 * np.pi) - lx - ly - 0.5 * torch.log(1 - rho**2)
    log = log - (zx**2 + zy**2 - 2 * rho * zx * zy) / (2 * (1 - rho**2))
    end = torch.nn.functional.binary_cross_entropy_with_logits(parameters[..., -1], target[..., 2], reduction="none")
    wanted = (weights * (end - torch.logsumexp(pi + log, -1))).sum()
    same(loss, wanted)
    inputs = (h, *head.parameters())
    found = torch.autograd.grad(3 * loss, inputs, retain_graph=True)
    for ours, theirs in zip(found, torch.autograd.grad(3 * wanted, inputs), strict=True):
        same(ours, theirs, 1e-10)
    np.testing.assert_array_equal(head.mean(parameters), fusedrnn.mixture_density_mean(parameters.detach().numpy()))
    torch.manual_seed(5)
    drawn = head.sample(parameters, bias=1.0)
    torch.manual_seed(5)
    assert torch.equal(drawn, head.sample(parameters, bias=1.0))
    assert drawn.shape == (T, N, 3)
    assert not torch.equal(drawn, head.sample(parameters, bias=1.0))


def test_writing_with_tensors():
    torch.manual_seed(4)
    cell, head = torch.nn.GRUCell(5, 7), torch.nn.Linear(7, 5)
    table = torch.eye(5)

    def step(tokens, state):
        h = cell(table[tokens], state["h"])
        return head(h), {"h": h, "count": state["count"] + 1}, h[:, :2]

    start = {"h": torch.randn(3, 7), "count": torch.zeros(3, dtype=torch.int64)}

    def arrays(tokens, state):
        logits, after, weights = step(torch.from_numpy(tokens), {k: torch.from_numpy(v) for k, v in state.items()})
        return logits.detach().numpy(), {k: v.detach().numpy() for k, v in after.items()}, weights.detach().numpy()

    options = {"rows": 3, "begin": 0, "end": 1, "most": 6}
    found = ft.beam_search(step, start, width=3, length_penalty=0.6, **options)
    numbers = {k: v.numpy() for k, v in start.items()}
    wanted = nn.beam_search(arrays, numbers, width=3, length_penalty=0.6, **options)
    for ours, theirs in zip(found, wanted, strict=True):
        assert [h.tokens.tolist() for h in ours] == [h.tokens.tolist() for h in theirs]
        assert [h.score for h in ours] == [h.score for h in theirs]
    greedy = ft.sample(step, start, temperature=0, **options)
    assert [h.tokens.tolist() for h in greedy] == [
        h.tokens.tolist() for h in nn.sample(arrays, numbers, temperature=0, **options)
    ]
    torch.manual_seed(6)
    drawn = [h.tokens.tolist() for h in ft.sample(step, start, **options)]
    torch.manual_seed(6)
    assert drawn == [h.tokens.tolist() for h in ft.sample(step, start, **options)]
