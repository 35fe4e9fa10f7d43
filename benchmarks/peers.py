"""Who is timed: the same training step in fusedrnn, PyTorch and NumPy, from the same weights and batch.

A peer is built once and then stepped. ``gradients`` are those of the last step, by the names of
``Workload.weights``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from benchmarks.workloads import Array, Workload

LEARNING_RATE = 1e-3


class Peer(Protocol):
    """A library's training step."""

    def step(self) -> float:
        """Forward, loss, backward, update; the loss."""

    def gradients(self) -> dict[str, Array]:
        """Of the last step."""


class FusedRnn:
    """This library, through its layers."""

    def __init__(self, workload: Workload, threads: int, dtype: str = "float32") -> None:
        import fusedrnn
        from fusedrnn import nn, optim

        fusedrnn.set_num_threads(threads)
        w = self.workload = workload
        make = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[w.cell]
        self.model = nn.Module()
        self.model.rnn = self.rnn = make(w.I, w.H, w.L, dtype=dtype)  # type: ignore[attr-defined]
        self.model.head = self.head = nn.Linear(w.H, w.C, dtype=dtype)  # type: ignore[attr-defined]
        self.model.load_state_dict({k: v.astype(dtype) for k, v in w.weights().items()})
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = optim.Adam(self.model, LEARNING_RATE)
        x, self.target = w.batch()
        self.x = x.astype(dtype)

    def step(self) -> float:
        y, _ = self.rnn(self.x)
        logits = self.head(y if self.workload.every_step else y[-1])
        value = self.loss(logits, self.target)
        self.optimizer.zero_grad()
        dy = self.head.backward(self.loss.backward())
        if self.workload.every_step:
            self.rnn.backward(dy, input_grad=False)
        else:
            dlast = np.zeros((self.workload.L, *dy.shape), dy.dtype)
            dlast[-1] = dy
            self.rnn.backward(None, (dlast, None) if self.workload.cell == "lstm" else dlast, input_grad=False)
        self.optimizer.step()
        return value

    def gradients(self) -> dict[str, Array]:
        return {name: p.grad.copy() for name, p in self.model.named_parameters()}


class PyTorch:
    """PyTorch's own layers, eager, on the CPU."""

    def __init__(self, workload: Workload, threads: int, dtype: str = "float32") -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        w = self.workload = workload
        self.model = torch.nn.ModuleDict(
            {"rnn": getattr(torch.nn, w.cell.upper())(w.I, w.H, w.L), "head": torch.nn.Linear(w.H, w.C)}
        ).to(getattr(torch, dtype))
        self.model.load_state_dict({k: torch.tensor(v.astype(dtype)) for k, v in w.weights().items()})
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        x, target = w.batch()
        self.x, self.target = torch.tensor(x.astype(dtype)), torch.tensor(target)

    def step(self) -> float:
        y, _ = self.model["rnn"](self.x)
        logits = self.model["head"](y if self.workload.every_step else y[-1])
        loss = self.torch.nn.functional.cross_entropy(logits.reshape(-1, self.workload.C), self.target.reshape(-1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def gradients(self) -> dict[str, Array]:
        return {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}


class NumPy:
    """The reference, whose products run in NumPy's BLAS; in float64 it is the truth that errors are measured from."""

    def __init__(self, workload: Workload, threads: int, dtype: str = "float32") -> None:
        del threads  # its BLAS takes them from the environment
        self.workload = workload
        self.weights = {k: v.astype(dtype) for k, v in workload.weights().items()}
        self.moments = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in self.weights.items()}
        x, self.target = workload.batch()
        self.x = x.astype(dtype)
        self.steps = 0
        self._gradients: dict[str, Array] = {}

    def _layer(self, layer: int) -> list[Array]:
        return [self.weights[f"rnn.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def step(self) -> float:
        from fusedrnn import reference

        w = self.workload
        forward, backward = getattr(reference, f"{w.cell}_forward"), getattr(reference, f"{w.cell}_backward")
        states = (None, None) if w.cell == "lstm" else (None,)
        y, reserves = self.x, []
        for layer in range(w.L):
            y, *_, reserve = forward(y, *states, *self._layer(layer))
            reserves.append(reserve)

        rows = (y if w.every_step else y[-1]).reshape(-1, w.H)
        target = self.target.reshape(-1)
        logits = rows @ self.weights["head.weight"].T + self.weights["head.bias"]
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        probability = shifted / shifted.sum(1, keepdims=True)
        index = np.arange(len(target))
        loss = -float(np.mean(np.log(probability[index, target])))
        probability[index, target] -= 1
        dlogits = probability / len(target)

        gradients = {"head.weight": dlogits.T @ rows, "head.bias": dlogits.sum(0)}
        dy = np.zeros_like(y)
        (dy if w.every_step else dy[-1])[...] = (dlogits @ self.weights["head.weight"]).reshape(
            dy.shape if w.every_step else dy.shape[1:]
        )
        for layer in reversed(range(w.L)):
            result = backward(dy, *states, reserves[layer], input_grad=layer > 0)
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                gradients[f"rnn.{part}_l{layer}"] = getattr(result, f"d{part}")
            dy = result.dx
        self._gradients = gradients
        self._adam()
        return loss

    def _adam(self) -> None:
        self.steps += 1
        for name, gradient in self._gradients.items():
            m, v = self.moments[name]
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            corrected = np.sqrt(v / (1 - 0.999**self.steps)) + 1e-8
            self.weights[name] -= LEARNING_RATE / (1 - 0.9**self.steps) * m / corrected

    def gradients(self) -> dict[str, Array]:
        return self._gradients


PEERS: dict[str, type[Any]] = {"fusedrnn": FusedRnn, "pytorch": PyTorch, "numpy": NumPy}


def errors(workload: Workload, peer: str, truth: dict[str, Array]) -> float:
    """Largest max |gradient - float64's| / max(1e-3, max |float64's|) over all parameters, after one step."""
    ours = PEERS[peer](workload, 1)
    ours.step()
    found = ours.gradients()
    return max(
        float(np.max(np.abs(found[name] - wanted)) / max(1e-3, float(np.max(np.abs(wanted)))))
        for name, wanted in truth.items()
    )


def true_gradients(workload: Workload) -> dict[str, Array]:
    """Of the first step, by the NumPy reference in float64."""
    reference = NumPy(workload, 1, "float64")
    reference.step()
    return reference.gradients()
