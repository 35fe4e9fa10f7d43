"""What is timed: one training step (forward, loss, backward, Adam) of a recurrent classifier, in float32.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, L layers, C classes. The loss is softmax
cross-entropy over the last step, or over every step where ``every_step`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """One network and batch. ``cell`` is rnn, lstm or gru."""

    name: str
    cell: str
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int
    L: int
    C: int
    every_step: bool = False

    @property
    def shape(self) -> str:
        """As tables print it."""
        return f"T{self.T} N{self.N} I{self.I} H{self.H} L{self.L}"

    @property
    def gates(self) -> int:
        """Rows of a weight matrix for each hidden unit."""
        return {"rnn": 1, "lstm": 4, "gru": 3}[self.cell]

    @property
    def flops(self) -> int:
        """Of the matrix products in one step: forward, and twice that backward (none for the input's gradient)."""
        rows = self.T * self.N
        total = 0
        for layer in range(self.L):
            inputs = self.I if layer == 0 else self.H
            product = 2 * rows * self.gates * self.H
            total += product * (inputs + self.H) * 3 - (product * inputs if layer == 0 else 0)
        return total + 3 * 2 * (rows if self.every_step else self.N) * self.H * self.C

    def weights(self, seed: int = 0) -> dict[str, Array]:
        """Initial values by PyTorch's names, layers under ``rnn.``, the output layer under ``head.``; float32."""
        rng = np.random.default_rng(seed)
        bound = self.H**-0.5
        rows = self.gates * self.H
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.L):
            shapes[f"rnn.weight_ih_l{layer}"] = (rows, self.I if layer == 0 else self.H)
            shapes[f"rnn.weight_hh_l{layer}"] = (rows, self.H)
            shapes[f"rnn.bias_ih_l{layer}"] = shapes[f"rnn.bias_hh_l{layer}"] = (rows,)
        shapes["head.weight"], shapes["head.bias"] = (self.C, self.H), (self.C,)
        return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}

    def batch(self, seed: int = 1) -> tuple[Array, Array]:
        """x [T, N, I] float32 and targets [N], or [T, N] for every step, int64."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((self.T, self.N, self.I)).astype(np.float32)
        return x, rng.integers(0, self.C, (self.T, self.N) if self.every_step else self.N)


WORKLOADS = {
    w.name: w
    for w in (
        Workload("count-ones", "lstm", T=16, N=200, I=1, H=24, L=2, C=17),
        Workload("addition", "lstm", T=10, N=16, I=2, H=20, L=2, C=2, every_step=True),
        Workload("mnist", "lstm", T=28, N=128, I=28, H=128, L=2, C=10),
        Workload("mnist-gru", "gru", T=28, N=128, I=28, H=128, L=2, C=10),
        Workload("mnist-rnn", "rnn", T=28, N=128, I=28, H=128, L=2, C=10),
        Workload("long", "lstm", T=1000, N=8, I=1, H=64, L=1, C=2),
    )
}
