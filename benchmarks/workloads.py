"""What is timed: named shapes, each as a training step, an inference or one step of a stream, for every cell and dtype.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, L layers, C classes. ``train`` is forward, softmax
cross-entropy over the last step (over every step where ``every_step`` says so), backward and Adam. ``infer`` is the
recurrent stack alone, all of y. ``step`` is one time step with the state kept from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CELLS = {"lstm": 4, "gru": 3, "rnn": 1}  # rows of a weight matrix for each hidden unit
MODES = ("train", "infer", "step")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Workload:
    """One network, batch, mode and dtype."""

    name: str
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int
    L: int = 1
    C: int = 2
    every_step: bool = False
    input_grad: bool = False  # whether x is learned, as an embedding is, or data
    modes: tuple[str, ...] = ("train", "infer")
    cell: str = "lstm"
    mode: str = "train"
    dtype: str = "float32"

    @property
    def shape(self) -> str:
        """As tables print it."""
        return f"T{self.T} N{self.N} I{self.I} H{self.H} L{self.L}"

    @property
    def gates(self) -> int:
        """Rows of a weight matrix for each hidden unit."""
        return CELLS[self.cell]

    @property
    def bytes_per_element(self) -> int:
        """Of the dtype."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def weight_elements(self) -> int:
        """Of the recurrent stack's matrices."""
        return sum(self.gates * self.H * ((self.I if layer == 0 else self.H) + self.H) for layer in range(self.L))

    @property
    def recurrent_elements(self) -> int:
        """Of the matrices that each step needs again."""
        return self.L * self.gates * self.H * self.H

    @property
    def flops(self) -> int:
        """Of the matrix products: forward, and in training twice that backward (less what x does not need)."""
        forward = 2 * self.T * self.N * self.weight_elements
        if self.mode != "train":
            return forward
        dx = 0 if self.input_grad else 2 * self.T * self.N * self.gates * self.H * self.I
        head = 3 * 2 * (self.T * self.N if self.every_step else self.N) * self.H * self.C
        return 3 * forward - dx + head

    def weights(self, seed: int = 0) -> dict[str, Array]:
        """Initial values by PyTorch's names, layers under ``rnn.``, the output layer under ``head.``."""
        rng = np.random.default_rng(seed)
        bound = self.H**-0.5
        rows = self.gates * self.H
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.L):
            shapes[f"rnn.weight_ih_l{layer}"] = (rows, self.I if layer == 0 else self.H)
            shapes[f"rnn.weight_hh_l{layer}"] = (rows, self.H)
            shapes[f"rnn.bias_ih_l{layer}"] = shapes[f"rnn.bias_hh_l{layer}"] = (rows,)
        shapes["head.weight"], shapes["head.bias"] = (self.C, self.H), (self.C,)
        # drawn in float32, so that every dtype starts from the same numbers
        return {
            name: rng.uniform(-bound, bound, shape).astype(np.float32).astype(self.dtype)
            for name, shape in shapes.items()
        }

    def batch(self, seed: int = 1) -> tuple[Array, Array]:
        """x [T, N, I] and targets [N], or [T, N] for every step, int64."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((self.T, self.N, self.I)).astype(np.float32).astype(self.dtype)
        return x, rng.integers(0, self.C, (self.T, self.N) if self.every_step else self.N)


SHAPES = {
    w.name: w
    for w in (
        Workload("count-ones", T=16, N=200, I=1, H=24, L=2, C=17),
        Workload("addition", T=10, N=16, I=2, H=20, L=2, every_step=True),
        Workload("mnist", T=28, N=128, I=28, H=128, L=2, C=10),
        Workload("character", T=100, N=64, I=128, H=512, L=2, C=65, every_step=True, input_grad=True),
        Workload("wide", T=50, N=64, I=1024, H=1024, input_grad=True),
        Workload("long", T=1000, N=8, I=16, H=64),
        Workload("single", T=100, N=1, I=64, H=256),
        Workload("one-step", T=1, N=1, I=64, H=128, modes=("step",)),
        Workload("small-step", T=1, N=1, I=16, H=64, modes=("step",)),
    )
}


def choose(names: list[str], cells: list[str], modes: list[str], dtypes: list[str]) -> list[Workload]:
    """All combinations of what was asked for that there are; every shape for no names."""
    return [
        replace(SHAPES[name], cell=cell, mode=mode, dtype=dtype)
        for dtype in dtypes
        for mode in modes
        for cell in cells
        for name in names or SHAPES
        if mode in SHAPES[name].modes
    ]
