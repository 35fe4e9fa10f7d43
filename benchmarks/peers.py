"""Who is timed: the same work in fusedrnn, PyTorch and NumPy (`graphs.py` has ONNX Runtime and JAX), from the same
weights and batch.

A peer is built once for a workload and then run. ``run()`` does the work once and ends when it is done;
``results()`` gives what it computed: gradients by the names of ``Workload.weights``, or ``y``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np

from benchmarks.workloads import Array, Workload

LEARNING_RATE = 1e-3


class Unsupported(Exception):
    """This library has no such cell, dtype or mode."""


class Peer(Protocol):
    """A library at work."""

    def run(self) -> Any:
        """Do the work once."""

    def results(self) -> dict[str, Array]:
        """Of the last run."""


class FusedRnn:
    """This library, through its layers."""

    options: ClassVar[dict[str, Any]] = {}  # of the layer

    def __init__(self, workload: Workload, threads: int) -> None:
        import fusedrnn
        from fusedrnn import nn, optim

        fusedrnn.set_num_threads(threads)
        w = self.workload = workload
        make = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[w.cell]
        self.model = nn.Module()
        self.model.rnn = self.rnn = make(w.I, w.H, w.L, dtype=w.dtype, **self.options)  # type: ignore[attr-defined]
        self.model.head = self.head = nn.Linear(w.H, w.C, dtype=w.dtype)  # type: ignore[attr-defined]
        self.model.load_state_dict(w.weights())
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = optim.Adam(self.model, LEARNING_RATE)
        self.x, self.target = w.batch()
        self.y: Array | None = None
        self.model.train(w.mode == "train")
        self.run = {"train": self._train, "infer": self._infer, "step": self._step}[w.mode]
        if w.mode == "step":
            self.advance = self.rnn.stream(w.N).step
            self.x = self.x[0]

    def _train(self) -> float:
        w = self.workload
        y, _ = self.rnn(self.x)
        value = self.loss(self.head(y if w.every_step else y[-1]), self.target)
        self.optimizer.zero_grad()
        dy = self.head.backward(self.loss.backward())
        if w.every_step:
            self.rnn.backward(dy, input_grad=w.input_grad)
        else:
            dlast = np.zeros((w.L, *dy.shape), dy.dtype)
            dlast[-1] = dy
            self.rnn.backward(None, (dlast, None) if w.cell == "lstm" else dlast, input_grad=w.input_grad)
        self.optimizer.step()
        return value

    def _infer(self) -> None:
        self.y, _ = self.rnn(self.x)

    def _step(self) -> None:
        self.y = self.advance(self.x)

    def results(self) -> dict[str, Array]:
        if self.y is not None:
            return {"y": self.y.reshape(self.workload.T, self.workload.N, -1)}
        return {name: p.grad.copy() for name, p in self.model.named_parameters()}


class Frozen(FusedRnn):
    """This library's inference from weights that were packed before, as ONNX Runtime has them."""

    def __init__(self, workload: Workload, threads: int) -> None:
        if workload.mode != "infer":
            raise Unsupported("freeze() is for inference")
        super().__init__(workload, threads)
        self.rnn = self.rnn.freeze()


class FrozenBfloat16(FusedRnn):
    """The same, and single steps, with products in bfloat16."""

    precision = "bfloat16"

    def __init__(self, workload: Workload, threads: int) -> None:
        if workload.mode == "train" or workload.dtype != "float32":
            raise Unsupported("freeze(precision=...) is for inference in float32")
        super().__init__(workload, threads)
        if workload.mode == "step":
            self.advance = self.rnn.stream(workload.N, precision=self.precision).step
        else:
            self.rnn = self.rnn.freeze(precision=self.precision)


class FrozenInt8(FrozenBfloat16):
    """The same in int8."""

    precision = "int8"


class Recompute(FusedRnn):
    """This library's training with gates that are computed once more instead of kept."""

    options: ClassVar[dict[str, Any]] = {"recompute": True}

    def __init__(self, workload: Workload, threads: int) -> None:
        if workload.mode != "train" or workload.cell == "rnn":
            raise Unsupported("recompute is for the training of LSTM and GRU")
        super().__init__(workload, threads)


class PyTorch:
    """PyTorch's own layers, eager, on the CPU."""

    def __init__(self, workload: Workload, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        w = self.workload = workload
        self.model = torch.nn.ModuleDict(
            {"rnn": getattr(torch.nn, w.cell.upper())(w.I, w.H, w.L), "head": torch.nn.Linear(w.H, w.C)}
        ).to(getattr(torch, w.dtype))
        self.model.load_state_dict({k: torch.tensor(v) for k, v in w.weights().items()})
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        x, target = w.batch()
        self.x, self.target = torch.tensor(x, requires_grad=w.mode == "train" and w.input_grad), torch.tensor(target)
        self.state: Any = None
        self.y: Any = None
        self.recurrent, self.loss = self._recurrent, self._loss
        self.run = {"train": self._train, "infer": self._infer, "step": self._step}[w.mode]

    def _recurrent(self, x: Any, state: Any) -> Any:
        return self.model["rnn"](x, state)

    def _loss(self, x: Any, target: Any) -> Any:
        y, _ = self.model["rnn"](x)
        logits = self.model["head"](y if self.workload.every_step else y[-1])
        return self.torch.nn.functional.cross_entropy(logits.reshape(-1, self.workload.C), target.reshape(-1))

    def _train(self) -> float:
        loss = self.loss(self.x, self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def _infer(self) -> None:
        with self.torch.inference_mode():
            self.y, _ = self.recurrent(self.x, None)

    def _step(self) -> None:
        with self.torch.inference_mode():
            self.y, self.state = self.recurrent(self.x, self.state)

    def results(self) -> dict[str, Array]:
        if self.y is not None:
            return {"y": self.y.numpy()}
        return {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}


class NumPy:
    """The reference, whose products run in NumPy's BLAS; in float64 it is the truth that errors are measured from."""

    def __init__(self, workload: Workload, threads: int) -> None:
        del threads  # its BLAS takes them from the affinity mask
        self.workload = workload
        self.weights = workload.weights()
        self.moments = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in self.weights.items()}
        self.x, self.target = workload.batch()
        self.steps = 0
        self.states: list[tuple[Array | None, ...]] = [
            (None, None) if workload.cell == "lstm" else (None,)
        ] * workload.L
        self.found: dict[str, Array] = {}
        self.run = {"train": self._train, "infer": self._infer, "step": self._step}[workload.mode]

    def _forward(self, training: bool) -> tuple[Array, list[tuple[Array, ...]], list[Any]]:
        from fusedrnn import reference

        forward = getattr(reference, f"{self.workload.cell}_forward")
        y, states, reserves = self.x, [], []
        for layer in range(self.workload.L):
            parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [self.weights[f"rnn.{part}_l{layer}"] for part in parts]
            y, *state, reserve = forward(y, *self.states[layer], *weights, training=training)
            states.append(tuple(state))
            reserves.append(reserve)
        return y, states, reserves

    def _infer(self) -> None:
        self.found = {"y": self._forward(False)[0]}

    def _step(self) -> None:
        y, self.states, _ = self._forward(False)
        self.found = {"y": y}

    def _train(self) -> float:
        from fusedrnn import reference

        w = self.workload
        backward = getattr(reference, f"{w.cell}_backward")
        y, _, reserves = self._forward(True)
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
        part = dy if w.every_step else dy[-1]
        part[...] = (dlogits @ self.weights["head.weight"]).reshape(part.shape)
        for layer in reversed(range(w.L)):
            result = backward(dy, *self.states[layer], reserves[layer], input_grad=layer > 0 or w.input_grad)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                gradients[f"rnn.{name}_l{layer}"] = getattr(result, f"d{name}")
            dy = result.dx
        self.found = gradients
        self._adam()
        return loss

    def _adam(self) -> None:
        self.steps += 1
        for name, gradient in self.found.items():
            m, v = self.moments[name]
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            corrected = np.sqrt(v / (1 - 0.999**self.steps)) + 1e-8
            self.weights[name] -= LEARNING_RATE / (1 - 0.9**self.steps) * m / corrected

    def results(self) -> dict[str, Array]:
        return self.found


def hold_weights(model: Any) -> None:
    """Learning rate 0 for ours or PyTorch's: then every run starts from the same weights, and any can be judged by the
    truth of the first."""
    for group in getattr(model.optimizer, "param_groups", [vars(model.optimizer)]):
        group["lr"] = 0.0


def deviation(found: dict[str, Array], truth: dict[str, Array]) -> float:
    """Largest max |found - truth| / max(1e-3, max |truth|) over all results."""
    return max(
        float(np.max(np.abs(found[name] - wanted)) / max(1e-3, float(np.max(np.abs(wanted)))))
        for name, wanted in truth.items()
    )
