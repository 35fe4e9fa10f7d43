"""Networks that control a memory: a stack of cells, each of which sees the input and the layer below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn.cells.cell import Initial
from fusedrnn.cells.gated import GRU, LSTM, RNN, gru, lstm, rnn
from fusedrnn.sizes import size


def feedforward(p: Any, state: list[Any], x: Any) -> tuple[list[Any], Any]:
    """h = tanh(W x + b); its state is an empty list."""
    return state, np.tanh(p["W"] @ x + p["b"])


CONTROLLERS = {"lstm": lstm, "gru": gru, "rnn": rnn, "feedforward": feedforward}
_CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def control(kind: str, layers: Any, states: Any, x: Any) -> tuple[Any, Any]:
    """Take a step of a stack: each layer sees x and the layer below, and all their outputs are the controller's.

    The deep network of Graves 2013, Generating Sequences With Recurrent Neural Networks, arXiv:1308.0850, (2) to (11).

    Args:
        kind: A key of `CONTROLLERS`. layers: Parameters of each layer. states: The state of each layer. x: [I].

    Returns:
        (the new state of each layer, [sum of H]).
    """
    step, new, outputs, below = CONTROLLERS[kind], [], [], x
    for p, state in zip(layers, states, strict=True):
        after, h = step(p, state, below)
        new.append(after)
        outputs.append(h)
        below = np.concatenate([x, h])
    return tuple(new), np.concatenate(outputs) if len(outputs) > 1 else outputs[0]


def hidden_sizes(hidden_size: int | Sequence[int]) -> list[int]:
    """Return the units of each layer."""
    sizes = [hidden_size] if isinstance(hidden_size, (int, np.integer)) else list(hidden_size)
    if not sizes:
        raise ValueError("hidden_size: expected units, or a list of those of each layer, got none")
    return [size("hidden_size", units) for units in sizes]


def stack(kind: str, inputs: int, hidden: Sequence[int], draw: Initial) -> tuple[list[dict[str, Any]], list[Any]]:
    """Draw the parameters and make the zero states of a stack.

    Args:
        kind: A key of `CONTROLLERS`. inputs: I, of x. hidden: H of each layer.

    Returns:
        Parameters and states, one for each layer.
    """
    if kind not in CONTROLLERS:
        raise ValueError(f"controller: expected one of {', '.join(CONTROLLERS)}, got {kind!r}")
    layers: list[dict[str, Any]] = []
    states: list[Any] = []
    below = 0
    for units in hidden:
        if kind == "feedforward":
            layers.append(draw.linear(inputs + below, units))
            states.append([])
        else:
            cell = _CELLS[kind](inputs + below, units, rng=draw.rng, dtype=draw.dtype)
            layers.append(cell.parameters)
            states.append(cell.state)
        below = units
    return layers, states
