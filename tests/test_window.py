"""The soft window and the LSTM that moves it: against loops, by finite differences, padding, streams; the head of
mixture densities."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import cells, nn
from fusedrnn.scan.trees import flatten, map_leaves
from tests import attending
from tests.differences import check_along_directions

T, N, I, H, K, C, U = 5, 3, 2, 4, 3, 6, 7  # noqa: E741
WHOLE = cells.WindowOutput


def characters(dtype="float64", ends=(7, 3, 1)):
    """One-hot characters [N, U, C], rows of zeros behind the end of a text."""
    found = np.eye(C, dtype=dtype)[np.random.default_rng(1).integers(C, size=(N, U))]
    found[np.arange(U) >= np.array(ends)[:, None]] = 0
    return found


def steps(width, dtype="float64"):
    return np.random.default_rng(2).standard_normal((T, N, width)).astype(dtype)


def test_a_window_is_that_of_the_loops(isa):
    layer = nn.SoftWindow(H, K, dtype="float64", rng=0)
    h, text = steps(H), characters()
    y, last = layer(h, None, text)
    for n in range(N):
        kappa = np.zeros(K)
        for t in range(T):
            kappa, window, phi = attending.slide(layer._data(0), kappa, h[t, n], text[n])
            np.testing.assert_allclose(y.kappa[t, n], kappa, rtol=1e-12)
            np.testing.assert_allclose(y.window[t, n], window, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(y.weights[t, n], phi, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(last[n], y.kappa[-1, n])
    np.testing.assert_array_equal(y.h, h)


def test_the_lstm_sees_the_window_of_the_step_before():
    layer = nn.WindowLSTM(I, C, H, K, dtype="float64", rng=0)
    x, text = steps(I), characters()
    y, _ = layer(x, None, text)
    p = layer._data(0)
    for n in range(N):
        state, kappa, window = (np.zeros(H), np.zeros(H)), np.zeros(K), np.zeros(C)
        for t in range(T):
            state, h = attending.cell("lstm", p["lstm"], state, np.concatenate([x[t, n], window]))
            kappa, window, _ = attending.slide(p["window"], kappa, h, text[n])
            np.testing.assert_allclose(y.h[t, n], h, rtol=1e-12)
            np.testing.assert_allclose(y.window[t, n], window, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("kind", ["window", "lstm"])
def test_gradients(kind):
    rng = np.random.default_rng(3)
    layer = {
        "window": nn.SoftWindow(H, K, dtype="float64", rng=0),
        "lstm": nn.WindowLSTM(I, C, H, K, spacing=0.5, dtype="float64", rng=0),
    }[kind]
    x, text = steps(H if kind == "window" else I), characters()
    start = map_leaves(lambda leaf: rng.uniform(0, 0.5, leaf.shape), layer._initial(0, N))
    leaves, structure = flatten(start)
    y, last = layer(x, start, text)
    dy, dlast = (map_leaves(lambda leaf: rng.standard_normal(leaf.shape), tree) for tree in (y, last))
    parameters = list(layer.parameters())

    def loss(given, begun, values):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data[...] = value
        y, last = layer.eval()(given[0], structure.pack(begun), given[1])
        pairs = zip(flatten((y, last))[0], flatten((dy, dlast))[0], strict=True)
        return sum(np.sum(a * b) for a, b in pairs)

    values = [parameter.data.copy() for parameter in parameters]
    dx, dstate, dtext = layer.backward(dy, dlast)
    own = [parameter.grad for parameter in parameters]
    check_along_directions(loss, [[x, text], leaves, values], [[dx, dtext], flatten(dstate)[0], own], rng)


def test_padding_of_texts_has_no_effect():
    layer = nn.WindowLSTM(I, C, H, K, rng=0).eval()
    x, text = steps(I, "float32"), characters("float32")
    y, _ = layer(x, None, text)
    longer, _ = layer(x, None, np.concatenate([text, np.zeros((N, 4, C), "f")], axis=1))
    np.testing.assert_array_equal(longer.h, y.h)
    np.testing.assert_array_equal(longer.window, y.window)


def test_a_stream_has_the_bits_of_the_whole(isa):
    layer = nn.WindowLSTM(I, C, H, K, rng=0).eval()
    x, text = steps(I, "float32"), characters("float32")
    y, last = layer(x, None, text)
    stream = layer.stream(N, context=text)
    for t in range(T):
        for ours, wanted in zip(stream(x[t]), y, strict=True):
            np.testing.assert_array_equal(ours, wanted[t])
    np.testing.assert_array_equal(stream.state.kappa, last.kappa)


def test_the_window_moves_on_and_never_back():
    layer = nn.SoftWindow(H, K, spacing=0.25, rng=0)
    y, _ = layer(steps(H, "float32"), None, characters("float32"))
    moved = np.diff(y.kappa, axis=0)
    assert (moved > 0).all()
    assert 0.15 < np.median(moved) < 0.4, "near the spacing at first"


def test_far_from_every_character_nothing_is_seen_and_nothing_breaks(dtype, isa):
    layer = nn.SoftWindow(H, K, dtype=dtype, rng=0)
    h, text = 100 * np.abs(steps(H, dtype)), characters(dtype)
    layer.W.data[2 * K :] = 0.05
    layer.W.data[: 2 * K] = -0.01
    y, _ = layer(h, None, text)
    dh, _, _ = layer.backward(WHOLE(None, np.ones_like(y.window), None, None))
    assert np.isfinite(y.window).all()
    assert np.isfinite(dh).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.SoftWindow(0), "hidden_size: expected at least 1, got 0"),
        (lambda: nn.SoftWindow(4, 0), "components: expected at least 1, got 0"),
        (lambda: nn.WindowLSTM(2, 0, 4), "characters: expected at least 1, got 0"),
        (lambda: nn.WindowLSTM(2, 3, 4, spacing=0), "spacing: expected characters a step, a finite number above 0"),
        (lambda: nn.MixtureDensity(4, 0), "components: expected at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_head_of_a_mixture():
    head = nn.MixtureDensity(H, K, dtype="float64", rng=0)
    parameters = head(steps(H))
    assert parameters.shape == (T, N, 6 * K + 1)
    assert [name for name, _ in head.named_parameters()] == ["weight", "bias"]
    rng = np.random.default_rng(0)
    many = head.sample(np.repeat(parameters[:1, :1], 200_000, axis=0), rng)
    mean = head.mean(parameters)[0, 0]
    np.testing.assert_allclose(many[:, 0, :2].mean(axis=0), mean, atol=0.02)
    pi = np.exp(parameters[0, 0, :K]) / np.exp(parameters[0, 0, :K]).sum()
    np.testing.assert_allclose(mean, [pi @ parameters[0, 0, K : 2 * K], pi @ parameters[0, 0, 2 * K : 3 * K]])
    loss = nn.MixtureDensityLoss()
    assert np.isfinite(loss(parameters, np.zeros((T, N, 3))))
    assert head.backward(loss.backward()).shape == (T, N, H)
    with pytest.raises(ValueError, match=r"parameters: expected shape \[..., 6K \+ 1\]"):
        fusedrnn.mixture_density_mean(np.zeros((3, 6)))
