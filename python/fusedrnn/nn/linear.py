"""Layers without a state: Linear, Embedding, Dropout, LastStep."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.nn.inputs import as_array, require_dtype
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.parameters import Parameter
from fusedrnn.sizes import require_memory, size


class Linear(Module):
    """y = x W' + b on the last axis, as ``torch.nn.Linear``.

    Args:
        in_features, out_features: I and O. bias: whether there is b. dtype: "float32" or "float64".
        rng: seed or generator of the initial values, U(-1/sqrt(I), 1/sqrt(I)).

    Parameters: ``weight`` [O, I], ``bias`` [O].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        I, O = size("in_features", in_features), size("out_features", out_features)  # noqa: E741
        require_memory({"in_features": I, "out_features": O}, 2 * O * (I + 1), np.dtype(dtype).itemsize)
        generator = as_generator(rng)
        bound = 1 / np.sqrt(I)
        self.weight = Parameter(generator.uniform(-bound, bound, (O, I)).astype(dtype))
        self.bias = Parameter(generator.uniform(-bound, bound, O).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """y [..., O] of x [..., I]. ValueError: another last axis. TypeError: another dtype."""
        x = as_array("x", x)
        O, I = self.weight.data.shape  # noqa: E741
        require_dtype("x", x, self.weight.data.dtype)
        if x.ndim < 1 or x.shape[-1] != I:
            raise ValueError(f"x: expected shape (..., {I}), got {x.shape}")
        rows = np.ascontiguousarray(x).reshape(-1, I)
        y: Array = _core.linear_forward(rows, self.weight.data, None if self.bias is None else self.bias.data)
        self._push((x.shape, rows))
        return y.reshape(*x.shape[:-1], O)

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """dx [..., I] of dy [..., O] (None without input_grad), adding to the parameters' gradients."""
        shape, rows = self._pop()
        O = self.weight.data.shape[0]  # noqa: E741
        dy = np.asarray(dy)
        if dy.shape != (*shape[:-1], O):
            self._saved.append((shape, rows))  # a call refused may be made again
            raise ValueError(f"dy: expected shape {(*shape[:-1], O)}, got {dy.shape}")
        dx = _core.linear_backward(
            np.ascontiguousarray(dy).reshape(-1, O), rows, self.weight.data, self.weight.grad,
            None if self.bias is None else self.bias.grad, input_grad,
        )  # fmt: skip
        return None if dx is None else dx.reshape(shape)

    def __repr__(self) -> str:
        O, I = self.weight.data.shape  # noqa: E741
        return f"Linear({I}, {O}{'' if self.bias is not None else ', bias=False'})"


class Embedding(Module):
    """A table of vectors looked up by index, as ``torch.nn.Embedding``.

    Args:
        num_embeddings, embedding_dim: V and E. padding_idx: an index whose vector is zero and stays so: it gets no
            gradient; below zero it counts from the end. dtype: "float32" or "float64".
        rng: seed or generator of the initial values, N(0, 1).

    Parameters: ``weight`` [V, E].
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        V, E = size("num_embeddings", num_embeddings), size("embedding_dim", embedding_dim)
        require_memory({"num_embeddings": V, "embedding_dim": E}, 2 * V * E, np.dtype(dtype).itemsize)
        values = as_generator(rng).standard_normal((V, E))
        if padding_idx is not None:
            if not -V <= padding_idx < V:
                raise ValueError(f"padding_idx: expected {-V} to {V - 1}, got {padding_idx}")
            padding_idx %= V
            values[padding_idx] = 0
        self.padding_idx = padding_idx
        self.weight = Parameter(values.astype(dtype))

    def forward(self, indices: Array) -> Array:
        """Vectors [..., E] of integer indices [...], from 0 to V - 1; ValueError beyond, TypeError if not integers."""
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got {indices.dtype}")
        V = self.weight.data.shape[0]
        if indices.size and (indices.min() < 0 or indices.max() >= V):
            raise ValueError(f"indices: expected values from 0 to {V - 1}, got {indices.min()} to {indices.max()}")
        kept = np.array(indices, np.int64, order="C")  # a copy: the caller may change theirs before backward
        self._push(kept)
        return self.weight.data[kept]

    def backward(self, dy: Array) -> None:
        """Add dy [..., E] to the gradients of the vectors that were looked up; indices have no gradient."""
        indices = self._pop()
        dy = np.asarray(dy)
        E = self.weight.data.shape[1]
        if dy.shape != (*indices.shape, E):
            self._saved.append(indices)
            raise ValueError(f"dy: expected shape {(*indices.shape, E)}, got {dy.shape}")
        rows, flat = np.ascontiguousarray(dy).reshape(-1, E), indices.reshape(-1)
        if self.padding_idx is not None:
            kept = flat != self.padding_idx
            rows, flat = rows[kept], flat[kept]
        _core.embedding_backward(rows, flat, self.weight.grad)

    def __repr__(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"Embedding({', '.join(map(str, self.weight.data.shape))}{padding})"


class Dropout(Module):
    """Zeroes elements with probability p in training and scales the others by 1 / (1 - p) (Srivastava et al. 2014).

    Args:
        p: from 0 (nothing happens) up to, not including, 1. rng: seed or generator of the masks.
    """

    time_major = False  # whether x is [..., N, features] whatever the network's input is

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | int | None = None) -> None:
        super().__init__()
        if isinstance(p, str) or not 0 <= p < 1:
            raise ValueError(f"dropout: expected a probability from 0 up to, not including, 1, got {p!r}")
        self.p = p
        self.rng = as_generator(rng)

    def forward(self, x: Array) -> Array:
        """x times a fresh mask in training; x itself in evaluation or with p = 0."""
        x = as_array("x", x)
        if not self.training:
            return x
        if self.p == 0:
            self._push(None)
            return x
        mask = self.mask(x.shape, x.dtype)
        self._push(mask)
        return np.asarray(x * mask)

    def mask(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A fresh one: zeros, and 1 / (1 - p)."""
        kept = self._uniform(shape) >= self.p
        scaled: Array = kept * np.dtype(dtype).type(1 / (1 - self.p))
        return scaled

    def _uniform(self, shape: tuple[int, ...]) -> Array:
        """Numbers from U(0, 1); for some rows of a joint batch, theirs of those that all rows would draw."""
        if self._rows is None:
            return self.rng.random(shape, dtype=np.float32)
        start, stop, total, axis = self._rows
        axis = len(shape) - 2 if self.time_major or axis > 0 else 0
        if axis < 0 or shape[axis] != stop - start:
            raise ValueError(
                f"Dropout: expected {stop - start} rows on axis {axis} of x, of a joint batch, got {shape}"
            )
        numbers = self.rng.random((*shape[:axis], total, *shape[axis + 1 :]), dtype=np.float32)
        return numbers[(slice(None),) * axis + (slice(start, stop),)]

    def backward(self, dy: Array) -> Array:
        """dy times the mask of the last call."""
        mask = self._pop()
        return dy if mask is None else np.asarray(dy * mask)

    def __repr__(self) -> str:
        return f"Dropout({self.p})"


class LastStep(Module):
    """y [N, features] at the last of T steps, of x [T, N, features], or [N, T, features] with ``batch_first``."""

    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first

    def forward(self, x: Array) -> Array:
        """The last step."""
        x = as_array("x", x)
        if not x.shape[int(self.batch_first)]:
            raise ValueError(f"x: {_core.NO_STEPS}")
        self._push(x.shape)
        return np.ascontiguousarray(x[:, -1] if self.batch_first else x[-1])

    def backward(self, dy: Array) -> Array:
        """Zero but for the last step."""
        dx = np.zeros(self._pop(), dy.dtype)
        dx[(slice(None), -1) if self.batch_first else -1] = dy
        return dx

    def __repr__(self) -> str:
        return f"LastStep({'batch_first=True' * self.batch_first})"
