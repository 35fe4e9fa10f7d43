"""Truncated back-propagation through time: long sequences in windows, the state carried from one to the next.

Gradients stay within a window (Williams and Peng 1990), as with PyTorch's ``hidden.detach()``. A language model over
one long text, its N parts side by side as columns:

stream = tokens[: len(tokens) // N * N].reshape(N, -1).T
model = nn.Sequential(nn.Embedding(V, 64), nn.LSTM(64, 128), nn.Linear(128, V))
batches = lambda epoch: Windows([(stream[:-1], stream[1:])], 35)
Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model), batches=batches, epochs=10).fit()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.sizes import size


class Window(NamedTuple):
    """A batch that goes on where the one before it ended, unless it is the first of a sequence."""

    x: Array
    target: Array
    first: bool


class Windows:
    """The batches of one epoch: every sequence in windows of so many steps, one update each.

    The Trainer calls the model as ``model(x, state) -> (prediction, state)`` on them, with state None in the first
    window of a sequence and afterwards what the last call returned.

    Args:
        sequences: ``(x, target)`` of shapes [T, N, ...] and [T, N, ...], each of N rows that go together; windows are
            views of them. With batch_first [N, T, ...].
        steps: K, of a window; the last one of a sequence has what is left.

    Raises:
        ValueError: steps below 1, no sequence, one without steps, or a target of another length than its x.
    """

    def __init__(self, sequences: Iterable[tuple[Array, Array]], steps: int, *, batch_first: bool = False) -> None:
        self.sequences, self.steps, self.axis = list(sequences), size("steps", steps), int(batch_first)
        if not self.sequences:
            raise ValueError("sequences: expected at least one")
        for i, (x, target) in enumerate(self.sequences):
            if np.ndim(x) < 2 or np.ndim(target) < 2:
                order = "(N, T, ...)" if batch_first else "(T, N, ...)"
                raise ValueError(f"sequences[{i}]: expected shapes {order}, got {np.shape(x)} and {np.shape(target)}")
            if not x.shape[self.axis] == target.shape[self.axis] > 0:
                raise ValueError(
                    f"sequences[{i}]: expected as many steps in x as in target and at least 1, "
                    f"got {x.shape[self.axis]} and {target.shape[self.axis]}"
                )

    def __len__(self) -> int:
        return sum(-(-x.shape[self.axis] // self.steps) for x, _ in self.sequences)

    def __iter__(self) -> Iterator[Window]:
        for x, target in self.sequences:
            for start in range(0, x.shape[self.axis], self.steps):
                part = (slice(None),) * self.axis + (slice(start, start + self.steps),)
                yield Window(x[part], target[part], start == 0)


def flatten(state: Any, arrays: dict[str, Array], name: str = "state") -> Any:
    """Put the arrays of a state, however nested, into ``arrays`` under names of their own; the rest, fit for JSON.

    Raises TypeError for what is neither an array, None, nor a tuple, list or dict of such.
    """
    if state is None:
        return None
    if isinstance(state, np.ndarray):
        arrays[name] = state
        return name
    if type(state) in (tuple, list):
        return {type(state).__name__: [flatten(part, arrays, f"{name}.{i}") for i, part in enumerate(state)]}
    if type(state) is dict and all(isinstance(key, str) for key in state):
        return {"dict": {key: flatten(part, arrays, f"{name}.{key}") for key, part in state.items()}}
    raise TypeError(f"{name}: expected arrays, or tuples, lists or dicts of them, got {type(state).__name__}")


def unflatten(rest: Any, arrays: Mapping[str, Array]) -> Any:
    """The state that ``flatten`` took apart."""
    if rest is None:
        return None
    if isinstance(rest, str):
        return arrays[rest]
    ((kind, parts),) = rest.items()
    if kind == "dict":
        return {key: unflatten(part, arrays) for key, part in parts.items()}
    found = [unflatten(part, arrays) for part in parts]
    return tuple(found) if kind == "tuple" else found
