"""These functions recurrences use and NumPy lacks. Each takes NumPy's arrays too, so that a step runs as it stands.

Within a scan random numbers come from counters: a function of the seed, the call's place in the step, the row and the
step of the sequence alone. Plain NumPy has no such counters; random functions raise RuntimeError there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.scan import instructions as ins
from fusedrnn.scan import tracing
from fusedrnn.scan.graph import Value
from fusedrnn.scan.trace import Trace, current, refused
from fusedrnn.scan.traced import Traced, lift
from fusedrnn.scan.ufuncs import real

__all__ = [
    "argmax",
    "categorical",
    "circular_convolve",
    "cosine_similarity",
    "dropout",
    "layer_norm",
    "log_softmax",
    "logsumexp",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "stop_gradient",
    "take",
    "uniform",
]
assert tracing  # which registers the rules

_MOST_SHIFTS = 9  # shifts that are cheaper one by one than as a matrix


def _unary(op: str, x: Traced) -> Traced:
    trace = current()
    if trace is not None:
        trace.mark()
    return Traced(ins.unary(op, real(lift(x))))


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    if isinstance(x, Traced):
        return _unary("sigmoid", x)
    z = np.exp(-np.abs(x))
    return np.where(np.asarray(x) >= 0, 1 / (1 + z), z / (1 + z))[()]


def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)), without overflow."""
    return _unary("softplus", x) if isinstance(x, Traced) else np.logaddexp(x, 0)


def relu(x: Any) -> Any:
    """Return max(x, 0); its derivative at zero is zero."""
    return _unary("relu", x) if isinstance(x, Traced) else np.maximum(x, 0)


def silu(x: Any) -> Any:
    """Return x sigmoid(x)."""
    return x * sigmoid(x)


def softmax(x: Any, axis: int = -1) -> Any:
    """Return exp(x) over its sum along an axis, without overflow."""
    if isinstance(x, Traced):
        return _traced("softmax", ins.softmax, real(_lifted(x)), axis)
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def logsumexp(x: Any, axis: int = -1, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) along an axis, without overflow; -inf where all are."""
    largest = stop_gradient(np.max(x, axis=axis, keepdims=True))
    largest = np.where(np.abs(largest) < np.inf, largest, np.zeros_like(largest))
    y = np.log(np.sum(np.exp(x - largest), axis=axis, keepdims=True)) + largest
    return y if keepdims else np.squeeze(y, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return the logarithm of ``softmax``, without overflow."""
    return x - logsumexp(x, axis=axis, keepdims=True)


def layer_norm(x: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalise the last axis: (x - mean) / sqrt(var + eps), times gain [n] plus bias [n] (arXiv:1607.06450)."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    y = centred * np.reciprocal(np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + eps))
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


def cosine_similarity(memory: Any, key: Any, eps: float = 1e-6) -> Any:
    """Return how alike the rows of a memory [..., n, w] and a key [w] are, [..., n].

    The norms are sqrt(sum of squares + eps), which have a gradient at zero.
    """
    rows = np.sqrt(np.sum(np.square(memory), axis=-1) + eps)
    return (memory @ key) / (rows * np.sqrt(np.sum(np.square(key)) + eps))


def circular_convolve(w: Any, k: Any) -> Any:
    """Shift w [..., n] around by the weights k [..., width] of an odd number of shifts, of which the middle is none.

    out[i] = sum over j of w[(i - j) mod n] k[j + width // 2], as in the neural Turing machine (arXiv:1410.5401).

    Raises:
        ValueError: For an even width, or other leading axes.
    """
    if w.ndim < 1 or k.ndim < 1 or w.shape[:-1] != k.shape[:-1] or k.shape[-1] % 2 == 0:
        raise ValueError(
            f"circular_convolve: expected w [..., n] and k [..., odd width], got shapes {w.shape} and {k.shape}"
        )
    n, width = w.shape[-1], k.shape[-1]
    half = width // 2
    if width > _MOST_SHIFTS or half > n:
        places = (np.arange(n)[:, None] - np.arange(-half, half + 1)) % n
        return (np.take(w, places, axis=-1) @ k[..., None])[..., 0]
    around = np.concatenate([w[..., n - half :], w, w[..., :half]], axis=-1)
    parts = [around[..., width - 1 - j : width - 1 - j + n] * k[..., j : j + 1] for j in range(width)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def one_hot(index: Any, size: int) -> Any:
    """Return zeros [..., size] with a one where the index says; zeros alone for an index outside."""
    hit = np.expand_dims(index, -1) == np.arange(size)
    return hit.astype(np.float32)


def argmax(x: Any, axis: int = -1) -> Any:
    """Return the place of the first largest element along an axis."""
    return np.argmax(x, axis=axis)


def take(array: Any, index: Any, axis: int = 0) -> Any:
    """Return entries along an axis, as ``numpy.take``; NumPy's own cannot take a traced index into a constant array."""
    if isinstance(index, Traced) and not isinstance(array, Traced):
        array = Traced(_lifted(array))
    return np.take(array, index, axis=axis)


def stop_gradient(x: Any) -> Any:
    """Return x, whose gradient ends here."""
    return _traced("stop_gradient", ins.stop_gradient, _lifted(x)) if isinstance(x, Traced) else x


def uniform(shape: int | tuple[int, ...] = ()) -> Any:
    """Draw random numbers in [0, 1) from the scan's counters.

    Raises:
        RuntimeError: Outside of a scan.
    """
    trace = _random("uniform")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Traced(ins.uniform(trace.graph, shape, trace.stream()))


def categorical(logits: Any) -> Any:
    """Draw places along the last axis with probabilities softmax(logits); -inf is never drawn.

    The largest of logits plus Gumbel's noise, -log(-log(u)) (arXiv:1611.01144).

    Raises:
        RuntimeError: Outside of a scan.
    """
    _random("categorical")
    return np.argmax(logits - np.log(-np.log(uniform(np.shape(logits)))), axis=-1)


def dropout(x: Any, p: float) -> Any:
    """Set elements to zero with probability p, in [0, 1), and divide the others by 1 - p; x itself in inference.

    Raises:
        ValueError: For another p.
        RuntimeError: Outside of a scan, unless p is 0.
    """
    if isinstance(p, Traced) or not 0 <= p < 1:
        raise ValueError(f"p: expected a number in [0, 1), got {p}")
    if p == 0 and not isinstance(x, Traced):
        return x
    trace = _random("dropout")
    stream = trace.stream()  # in inference too, so that later calls keep their numbers
    if p == 0 or not trace.training:
        return x
    kept = Traced(ins.uniform(trace.graph, np.shape(x), stream)) >= p
    return np.where(kept, x * (1 / (1 - p)), 0.0)


def _lifted(x: Any) -> Value:
    trace = current()
    if trace is not None:
        trace.mark()
    return lift(x)


def _traced(name: str, instruction: Any, *arguments: Any) -> Traced:
    try:
        return Traced(instruction(*arguments))
    except ins.ShapeError as error:
        raise refused(f"{name}: {error}") from None


def _random(name: str) -> Trace:
    trace = current()
    if trace is None:
        raise RuntimeError(
            f"{name}: random numbers come from a scan's counters: call the step by a scan, not by itself"
        )
    trace.mark()
    return trace
