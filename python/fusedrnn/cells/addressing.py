"""How the heads of a memory find their slots: by content, by place, and what they do there.

A memory is [slots, width]; weightings are [heads, slots], each of them at least 0 and at most 1 in sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.ops import circular_convolve, sigmoid, softmax, softplus

COSINE = 1e-6  # is added to sums of squares inside the root, so that a row of zeros has a gradient
LOG = 1e-12  # is added to a weight whose logarithm is taken


def oneplus(x: Any) -> Any:
    """Return 1 + log(1 + exp(x)), at least 1."""
    return 1 + softplus(x)


def check_clip(clip: float | None) -> None:
    """Raise ValueError for a bound that is not above zero."""
    if clip is not None and not clip > 0:
        raise ValueError(f"clip: expected more than 0, got {clip}")


def bounded(vector: Any, clip: float | None) -> Any:
    """Return a vector whose elements stay between -clip and clip; None for no bound."""
    return vector if clip is None else np.clip(vector, -clip, clip)


def unpack(vector: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Cut a vector into arrays of these shapes, in their order."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(vector, ends[:-1])
    return {name: np.reshape(part, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def volume(shapes: dict[str, tuple[int, ...]]) -> int:
    """Return how many numbers arrays of these shapes have."""
    return sum(int(np.prod(shape)) for shape in shapes.values())


def similarity(memory: Any, keys: Any, masks: Any = None) -> Any:
    """Return the cosine [heads, slots] of each key [heads, width] with each slot.

    Masks [heads, width] in [0, 1] say which columns count: keys and slots are multiplied by them (Csordás and
    Schmidhuber 2019, arXiv:1904.10278, (6)).
    """
    if masks is None:
        slots = np.sqrt(np.sum(memory * memory, axis=1) + COSINE)
    else:
        keys = keys * masks
        slots = np.sqrt((masks * masks) @ (memory * memory).T + COSINE)
        lengths = np.sqrt(np.sum(keys * keys, axis=1, keepdims=True) + COSINE)
        return ((keys * masks) @ memory.T) / (lengths * slots)
    lengths = np.sqrt(np.sum(keys * keys, axis=1, keepdims=True) + COSINE)
    return (keys @ memory.T) / (lengths * slots)


def by_content(memory: Any, keys: Any, strengths: Any, masks: Any = None) -> Any:
    """Return weightings by content: softmax over slots of strength [heads] times `similarity`."""
    return softmax(strengths[:, None] * similarity(memory, keys, masks), axis=1)


def sharpened(weightings: Any, powers: Any) -> Any:
    """Return each weighting to its power [heads], over the sum of all; in logarithms, where nothing underflows."""
    return softmax(powers[:, None] * np.log(weightings + LOG), axis=1)


def address(memory: Any, before: Any, head: dict[str, Any]) -> Any:
    """Return the weightings of a neural Turing machine's heads: (5) to (9) of Graves, Wayne and Danihelka (2014).

    Args:
        memory: [slots, width]. before: The weightings of the step before, [heads, slots].
        head: What the controller emits, before its nonlinearities: ``key`` [heads, width], ``strength``, ``gate`` and
            ``sharpness`` [heads], ``shift`` [heads, number of shifts].
    """
    content = by_content(memory, head["key"], softplus(head["strength"]))
    gate = sigmoid(head["gate"])[:, None]
    interpolated = gate * content + (1 - gate) * before
    shifted = circular_convolve(interpolated, softmax(head["shift"], axis=1))
    return sharpened(shifted, oneplus(head["sharpness"]))


def write(memory: Any, weightings: Any, erase: Any, add: Any) -> Any:
    """Return the memory after all heads have erased and then all have added: (3) and (4) of Graves et al. (2014).

    Args:
        memory: [slots, width]. weightings: [heads, slots]. erase: [heads, width] in [0, 1]. add: [heads, width].
    """
    heads = range(weightings.shape[0])
    for head in heads:
        memory = memory * (1 - np.outer(weightings[head], erase[head]))
    for head in heads:
        memory = memory + np.outer(weightings[head], add[head])
    return memory
