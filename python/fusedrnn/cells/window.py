"""The soft window of Graves 2013, Generating Sequences With Recurrent Neural Networks, arXiv:1308.0850, section 5.1:
a mixture of Gaussians that slides along a text, and the first layer of his synthesis network, which it feeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fusedrnn.cells.cell import Cell, Initial, Rng
from fusedrnn.cells.gated import lstm
from fusedrnn.sizes import size


class WindowOutput(NamedTuple):
    """What a window gives: h [H] that it was asked by, the window [C], the weights φ [U], the centres κ [K]."""

    h: Any
    window: Any
    weights: Any
    kappa: Any


def slide(p: Any, kappa: Any, h: Any, characters: Any) -> tuple[Any, Any, Any]:
    """Move a window along the characters, and look through it: Graves' (46) to (51).

    α, β, κ̂ = exp(W h + b);  κ = κ⁻ + κ̂;  φ_u = sum over k of α_k exp(-β_k (κ_k - u)²);  w = sum over u of φ_u c_u.

    Args:
        p: W [3K, H], b [3K]. kappa: κ⁻ [K]. h: [H]. characters: c [U, C], u being 1 to U; rows of zeros, as of padding,
            add nothing.

    Returns:
        (κ [K], w [C], φ [U]).
    """
    alpha, beta, step = np.split(np.exp(p["W"] @ h + p["b"]), 3)
    kappa = kappa + step
    place = np.arange(1, len(characters) + 1, dtype=np.float32)
    distance = kappa - place[:, None]
    weights = np.exp(-beta * (distance * distance)) @ alpha
    return kappa, weights @ characters, weights


def window_parameters(hidden: int, components: int, spacing: float, draw: Initial) -> dict[str, Any]:
    """Draw W [3K, H] of `slide` from N(0, 0.075²), and biases with which κ moves by ``spacing`` a step.

    Biases of α and β are such that φ adds up to about 1 where the window stands: α = 1/K, β = exp(-0.5).

    Raises:
        ValueError: A spacing that is not above 0.
    """
    if not 0 < spacing < np.inf:
        raise ValueError(f"spacing: expected characters a step, a finite number above 0, got {spacing}")
    biases = np.repeat([-np.log(components), -0.5, np.log(spacing)], components)
    return {"W": draw.normal(0.075, 3 * components, hidden), "b": draw.array(biases)}


def soft_window(p: Any, kappa: Any, h: Any, characters: Any) -> tuple[Any, WindowOutput]:
    """Slide the window by an input h [H]. State: κ [K]."""
    kappa, window, weights = slide(p, kappa, h, characters)
    return kappa, WindowOutput(h, window, weights, kappa)


def SoftWindow(
    hidden_size: int, components: int = 10, *, spacing: float = 0.06, rng: Rng = None, dtype: Any = "float32"
) -> Cell:
    """Give `soft_window` initial values. State: κ [K] of zeros.

    Args:
        hidden_size: H. components: K. spacing: Characters that κ moves a step at first; 1 / (steps a character).
    """
    draw = Initial(rng, dtype)
    H, K = size("hidden_size", hidden_size), size("components", components)
    return Cell(soft_window, window_parameters(H, K, spacing, draw), draw.zeros(K))


class WindowState(NamedTuple):
    """The state of an LSTM with a window: h [H] and c [H], κ [K], and the window of the step before [C]."""

    lstm: Any
    kappa: Any
    window: Any


def window_lstm(p: Any, state: WindowState, x: Any, characters: Any) -> tuple[WindowState, WindowOutput]:
    """h = LSTM([x; w⁻]);  κ, w = window(h): the first layer of Graves' synthesis network."""
    after, h = lstm(p["lstm"], state.lstm, np.concatenate([x, state.window]))
    kappa, window, weights = slide(p["window"], state.kappa, h, characters)
    return WindowState(after, kappa, window), WindowOutput(h, window, weights, kappa)


def WindowLSTM(
    input_size: int,
    characters: int,
    hidden_size: int,
    components: int = 10,
    *,
    spacing: float = 0.06,
    rng: Rng = None,
    dtype: Any = "float32",
) -> Cell:
    """Give `window_lstm` initial values: U(±1/sqrt(H)), forget biases of 1, and those of `window_parameters`.

    Args:
        input_size: I. characters: C, of each character's vector. hidden_size: H. components: K.
        spacing: Characters that κ moves a step at first.
    """
    draw = Initial(rng, dtype)
    H, K, C = size("hidden_size", hidden_size), size("components", components), size("characters", characters)
    layer = draw.affine(4, size("input_size", input_size) + C, H)
    layer["b"][H : 2 * H] = 1.0
    p = {"lstm": layer, "window": window_parameters(H, K, spacing, draw)}
    return Cell(window_lstm, p, WindowState((draw.zeros(H), draw.zeros(H)), draw.zeros(K), draw.zeros(C)))
