"""Passes over flat buffers: optimizers, clipping and losses, as peers are described in `peers.py`.

Each knows how many bytes it must move at the least: every array that it needs, read or written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import Unsupported
from benchmarks.workloads import Array

CLASSES = 16  # of the cross-entropy
LR = 1e-3
CLIP = 1.0  # to this either way
BEYOND = 1e30  # a norm that is measured and left alone
# arrays that go by: Adam reads p, g, m, v and writes p, m, v; a loss reads prediction and target, writes a gradient
ARRAYS = {"sgd": 3, "momentum": 5, "adam": 7, "norm": 1, "clip": 2, "mse": 3, "bce": 3, "cross-entropy": 2}
LOSSES = ("mse", "bce", "cross-entropy")


@dataclass(frozen=True)
class Pass:
    """One pass over so many float32 elements."""

    name: str
    elements: int

    @property
    def least_bytes(self) -> int:
        """Moved at the least."""
        indices = 8 * self.elements // CLASSES if self.name == "cross-entropy" else 0
        return ARRAYS[self.name] * 4 * self.elements + indices

    def arrays(self) -> dict[str, Array]:
        """p and g for optimizers, prediction and target for losses."""
        rng = np.random.default_rng(0)
        first, second = (rng.standard_normal(self.elements, np.float32) for _ in range(2))
        if self.name not in LOSSES:
            return {"p": first, "g": second}
        if self.name == "cross-entropy":
            rows = first.reshape(-1, CLASSES)
            return {"prediction": rows, "target": rng.integers(0, CLASSES, len(rows))}
        return {"prediction": first, "target": (second > 0).astype(np.float32) if self.name == "bce" else second}


class FusedRnnPass:
    """Ours. The first run's result is kept, to be judged."""

    def __init__(self, work: Pass, threads: int) -> None:
        import fusedrnn
        from fusedrnn import nn, optim
        from fusedrnn.nn.parameters import FlatParameters, Parameter

        fusedrnn.set_num_threads(threads)
        arrays = work.arrays()
        self.found: dict[str, Array] = {}
        self.name = work.name
        if work.name in LOSSES:
            loss: Any = {"mse": nn.MSELoss, "bce": nn.BCEWithLogitsLoss, "cross-entropy": nn.CrossEntropyLoss}[
                work.name
            ]()
            self._work: Any = lambda: (loss(arrays["prediction"], arrays["target"]), loss.backward())[1]
            return
        self.flat = flat = FlatParameters([Parameter(arrays["p"])])
        flat.grad[:] = arrays["g"]
        if work.name == "norm":
            self._work = lambda: optim.clip_grad_norm_(flat, BEYOND)
        elif work.name == "clip":
            self._work = lambda: optim.clip_grad_value_(flat, CLIP)
        elif work.name == "adam":
            self._work = optim.Adam(flat, LR).step
        else:
            self._work = optim.SGD(flat, LR, 0.9 if work.name == "momentum" else 0.0).step

    def run(self) -> None:
        result = self._work()
        if not self.found:
            if self.name not in (*LOSSES, "norm"):
                result = self.flat.grad if self.name == "clip" else self.flat.data
            self.found = {"result": np.array(result)}

    def results(self) -> dict[str, Array]:
        return self.found


class PyTorchPass:
    """PyTorch's: fused optimizers, losses with their backward."""

    def __init__(self, work: Pass, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        arrays = {name: torch.tensor(a) for name, a in work.arrays().items()}
        self.found: dict[str, Array] = {}
        self.name = work.name
        if work.name in LOSSES:
            functions: dict[str, Any] = {
                "mse": torch.nn.functional.mse_loss,
                "bce": torch.nn.functional.binary_cross_entropy_with_logits,
                "cross-entropy": torch.nn.functional.cross_entropy,
            }
            self.tensor = arrays["prediction"].requires_grad_()

            def loss() -> None:
                self.tensor.grad = None
                functions[work.name](self.tensor, arrays["target"]).backward()

            self._work: Any = loss
            return
        self.tensor = torch.nn.Parameter(arrays["p"])
        self.tensor.grad = arrays["g"]
        if work.name == "norm":
            self._work = lambda: torch.linalg.vector_norm(self.tensor.grad)
        elif work.name == "clip":
            self._work = lambda: torch.nn.utils.clip_grad_value_([self.tensor], CLIP)
        else:
            try:
                if work.name == "adam":
                    optimizer: Any = torch.optim.Adam([self.tensor], LR, fused=True)
                else:
                    momentum = 0.9 if work.name == "momentum" else 0.0
                    optimizer = torch.optim.SGD([self.tensor], LR, momentum, fused=True)
            except (RuntimeError, TypeError) as error:
                raise Unsupported(f"PyTorch {torch.__version__} has no fused {work.name} on the CPU: {error}") from None
            self._work = optimizer.step

    def run(self) -> None:
        result = self._work()
        if not self.found:
            if self.name != "norm":
                result = self.tensor.grad if self.name in (*LOSSES, "clip") else self.tensor.detach()
            self.found = {"result": result.numpy().copy()}

    def results(self) -> dict[str, Array]:
        return self.found


def truth(work: Pass) -> dict[str, Array]:
    """What the first run should leave, in float64."""
    arrays = work.arrays()
    if work.name in LOSSES:
        x = arrays["prediction"].astype(np.float64)
        if work.name == "cross-entropy":
            gradient = np.exp(x - x.max(1, keepdims=True))
            gradient /= gradient.sum(1, keepdims=True)
            gradient[np.arange(len(x)), arrays["target"]] -= 1
            return {"result": gradient / len(x)}
        if work.name == "bce":
            return {"result": (1 / (1 + np.exp(-x)) - arrays["target"]) / x.size}
        return {"result": 2 * (x - arrays["target"]) / x.size}
    p, g = (arrays[name].astype(np.float64) for name in ("p", "g"))
    if work.name == "norm":
        return {"result": np.asarray(np.linalg.norm(g))}
    if work.name == "clip":
        return {"result": g.clip(-CLIP, CLIP)}
    # a first step: Adam's corrected means are g and g^2, momentum's is g
    return {"result": p - LR * (g / (np.abs(g) + 1e-8) if work.name == "adam" else g)}


PASSES = {"fusedrnn": FusedRnnPass, "pytorch": PyTorchPass}
