"""Many to one over rows of uneven length: pooling over each row's own steps, and the network around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn._core import NO_STEPS
from fusedrnn.arrays import Array
from fusedrnn.nn.inputs import as_array
from fusedrnn.nn.linear import Dropout, Embedding, Linear
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.padding import own_steps
from fusedrnn.nn.stack import _Recurrent
from fusedrnn.sizes import size

POOLINGS = ("last", "mean", "max")


class Pooling(Module):
    """One vector for each row: y [T, N, F] -> [N, F] for each kind of pooling, side by side.

    Args:
        kinds: one or more of "last" (a row's last step; of the reverse half of F, its first), "mean" and "max" over the
            row's steps. directions: 2 if the second half of F is that of the reverse direction.

    A row without steps gives zeros.
    """

    def __init__(self, kinds: str | Sequence[str] = "last", directions: int = 1) -> None:
        super().__init__()
        self.kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if not self.kinds or not set(self.kinds) <= set(POOLINGS):
            raise ValueError(f"pooling: expected one or more of {', '.join(POOLINGS)}, got {kinds!r}")
        self.directions = directions

    def forward(self, y: Array, lengths: Array) -> Array:
        """Pooled [N, kinds * F] of y [T, N, F], whose rows have ``lengths`` [N] steps and are zero past them."""
        y = as_array("y", y)
        T, N, F = y.shape
        if not T:
            raise ValueError(f"y: {NO_STEPS}")
        lengths = np.array(lengths)  # the caller may fill theirs anew before backward
        parts: list[Array] = []
        places: list[Array | None] = []
        for kind in self.kinds:
            if kind == "mean":
                # NumPy adds up numbers that lie side by side in another order than rows, so a lone one goes as they do.
                total = y.sum(axis=0) if N * F > 1 else y.cumsum(axis=0)[-1]
                parts.append(total / np.maximum(lengths, 1)[:, None].astype(y.dtype))
                places.append(None)
                continue
            if kind == "max":
                inside = np.arange(T)[:, None, None] < lengths[:, None]
                step = np.where(inside, y, -np.inf).argmax(axis=0)
            else:
                step = np.zeros((N, F), np.int64)
                step[:, : F // self.directions] = np.maximum(lengths - 1, 0)[:, None]
            parts.append(np.take_along_axis(y, step[None], axis=0)[0])
            places.append(step)
        self._push((y.shape, lengths, places))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def backward(self, dout: Array) -> Array:
        """dy [T, N, F] of dout [N, kinds * F]."""
        (T, N, F), lengths, places = self._pop()
        dy = np.zeros((T, N, F), dout.dtype)
        rows, features = np.ogrid[:N, :F]
        for k, step in enumerate(places):
            part = dout[:, k * F : (k + 1) * F]
            if step is None:
                dy += part / np.maximum(lengths, 1)[:, None].astype(part.dtype)
            else:
                dy[step, rows, features] += part
        return dy

    def __repr__(self) -> str:
        return f"Pooling({self.kinds!r})"


class ManyToOne(Module):
    """[embedding ->] recurrent layers -> pooling -> linear layer, over rows of uneven length: x -> ``[N, outputs]``.

    Args:
        rnn: recurrent layers, time first. outputs: how many. embedding: where x is ids.
        pooling: as of ``Pooling``. input_dropout: of what enters the recurrent layers.
        dropout: of what enters the linear layer. rng: seed or generator of the linear layer and the dropout.

    x is padded, as `fusedrnn.train.bucketing.padded` does it: ids [T, N] with -1 where a row has no step, or features
    [T, N, I] as a masked array of NumPy; or ``lengths`` says where rows end. What lies there has no effect, and costs
    the kernels nothing. NaN is no padding: it goes on to the outputs.
    """

    def __init__(
        self,
        rnn: _Recurrent,
        outputs: int,
        *,
        embedding: Embedding | None = None,
        pooling: str | Sequence[str] = "last",
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        generator = as_generator(rng)
        self.embedding = embedding
        self.input_dropout = Dropout(input_dropout, rng=generator)
        self.input_dropout.time_major = True
        self.rnn: Any = rnn
        self.pooling: Any = Pooling(pooling, rnn.directions)
        self.dropout = Dropout(dropout, rng=generator)
        features = rnn.states.sizes[-1][0] * rnn.directions * len(self.pooling.kinds)
        self.head = Linear(features, size("outputs", outputs), dtype=rnn.dtype, rng=generator)

    def forward(self, x: Array, lengths: Any = None) -> Array:
        """Outputs [N, outputs] of padded x, or of rows whose ``lengths`` [N] first steps count.

        Raises ValueError for x of other axes, for padding between the steps of a row, and for ids that there are not.
        """
        x = np.asanyarray(x)
        if x.ndim != (axes := 3 if self.embedding is None else 2):
            wanted = "features [T, N, I]" if axes == 3 else "ids [T, N]"
            raise ValueError(f"x: expected {wanted}, time first, got shape {x.shape}")
        x, lengths = own_steps(x, lengths)
        if self.embedding is not None:
            x = self.embedding(x)
        y, _ = self.rnn(self.input_dropout(x), lengths=lengths)
        out: Array = self.head(self.dropout(self.pooling(y, lengths)))
        return out

    def backward(self, dout: Array) -> None:
        """Adds to the gradients; x is data and gets none."""
        dpooled = self.dropout.backward(self.head.backward(dout))  # type: ignore[arg-type]
        dx, _ = self.rnn.backward(self.pooling.backward(dpooled), input_grad=self.embedding is not None)
        if self.embedding is not None:
            self.embedding.backward(self.input_dropout.backward(dx))
        else:
            self.input_dropout._pop()  # x is data


class _Every(Module):
    """Stand in the place of a pooling where every step counts."""

    kinds = ("every",)

    def forward(self, y: Array, lengths: Array) -> Array:
        """y [T, N, F] itself."""
        return y

    def backward(self, dout: Array) -> Array:
        """dout [T, N, F] itself."""
        return dout


class ManyToMany(ManyToOne):
    """[embedding ->] recurrent layers -> linear layer on every step, over rows of uneven length: x -> [T, N, outputs].

    Args:
        rnn, outputs, embedding, input_dropout, dropout, rng: as ``ManyToOne``, which says what x is. What the network
            gives past a row's end means nothing; a loss leaves it out by a target to ignore or a weight of 0.
    """

    def __init__(
        self,
        rnn: _Recurrent,
        outputs: int,
        *,
        embedding: Embedding | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(rnn, outputs, embedding=embedding, input_dropout=input_dropout, dropout=dropout, rng=rng)
        self.pooling = _Every()
        self.dropout.time_major = True
