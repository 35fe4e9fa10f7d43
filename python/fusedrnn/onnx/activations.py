"""The activations that ONNX's recurrent operators and our cells share, as attributes of a node and by our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Ours -> ONNX's name, and for those that have them the values of alpha and beta. ONNX has no hard_tanh.
_NAMES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "sigmoid": ("Sigmoid", None),
    "tanh": ("Tanh", None),
    "relu": ("Relu", None),
    "hard_sigmoid": ("HardSigmoid", (0.2, 0.5)),
    "softsign": ("Softsign", None),
    "softplus": ("Softplus", None),
    "identity": ("Affine", (1.0, 0.0)),
}
USUAL = {"rnn": ("tanh",), "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}


def to_attributes(names: Sequence[str], directions: int) -> dict[str, Any]:
    """Attributes for activations by our names.

    Raises ValueError for one that ONNX has not.
    """
    for name in names:
        if name not in _NAMES:
            raise ValueError(f"activations: expected {', '.join(_NAMES)}, which ONNX has, got {name!r}")
    chosen = [_NAMES[name] for name in names] * directions
    attributes: dict[str, Any] = {"activations": [name for name, _ in chosen]}
    values = [pair for _, pair in chosen if pair is not None]
    if values:
        attributes["activation_alpha"], attributes["activation_beta"] = map(list, zip(*values, strict=True))
    return attributes


def from_attributes(given: Mapping[str, Any], cell: str, directions: int) -> tuple[str, ...]:
    """Our names for the activations of a node with these attributes, one for each gate function of one direction.

    Raises ValueError, whose message goes on after "expected", for what no cell of ours has.
    """
    usual = [_NAMES[name][0] for name in USUAL[cell]] * directions
    ours = {name.lower(): (mine, pair) for mine, (name, pair) in _NAMES.items()}
    alphas, betas = (iter(given.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    found = []
    for name in given.get("activations", usual):
        mine, pair = ours.get(name.lower(), (None, None))
        if mine is None:
            raise ValueError(f"activations among {', '.join(n for n, _ in _NAMES.values())}, got {name}")
        if pair is not None:  # alpha and beta go, in order, to the functions that have them
            alpha, beta = next(alphas, pair[0]), next(betas, pair[1])
            if not np.array_equal(np.array([alpha, beta], np.float32), np.array(pair, np.float32)):
                raise ValueError(f"{name} with alpha {pair[0]}, beta {pair[1]}, got {alpha:.6g}, {beta:.6g}")
        found.append(mine)
    each = len(USUAL[cell])
    if len(found) != each * directions or found[:each] * directions != found:
        raise ValueError(f"{each} activations, the same in each direction, got {', '.join(found)}")
    return tuple(found[:each])
