"""Recurrent work that `experiments/backend.py` times in one process: PyTorch's layers and cells, those of
`fusedrnn.torch`, and the functional interface, from the same weights and batch.

A training step is forward, and backward to x and every parameter, from a given gradient of y.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.compiled import own_cache
from benchmarks.peers import Unsupported
from benchmarks.report import machine
from benchmarks.timing import Failed
from benchmarks.workloads import CELLS, Array

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KINDS = ("layer", "packed", "cell")  # packed: sequences of 1 to T steps; cell: one step a call
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}  # of a process that PyTorch shares with us: its threads do not spin


def announce(threads: int) -> str:
    """The line that says what the figures belong to, printed. Raises Failed without PyTorch."""
    try:
        about = machine(["pytorch"])
    except ModuleNotFoundError:
        raise Failed("PyTorch is not installed: pip install torch") from None
    print(f"{about}\n{threads} threads each, OMP_WAIT_POLICY=PASSIVE", flush=True)
    return about


@dataclass(frozen=True)
class Case:
    """One recurrent stack and batch."""

    name: str
    cell: str
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int
    L: int = 1
    kind: str = "layer"
    dtype: str = "float32"

    @property
    def shape(self) -> str:
        """As tables print it."""
        return f"T{self.T} N{self.N} I{self.I} H{self.H} L{self.L}"

    def batch_sizes(self) -> Array:
        """Of sequences drawn from 1 to T steps, longest first."""
        lengths = np.random.default_rng(2).integers(1, self.T + 1, self.N)
        return np.array([(lengths > t).sum() for t in range(int(lengths.max()))])

    def arrays(self) -> tuple[Array, Array, dict[str, Array]]:
        """x, dy and the weights by PyTorch's names; drawn in float32, so that every dtype has the same numbers."""
        rng = np.random.default_rng(1)

        def draw(*shape: int) -> Array:
            return rng.uniform(-1, 1, shape).astype(np.float32).astype(self.dtype)

        lead = (int(self.batch_sizes().sum()),) if self.kind == "packed" else (self.T, self.N)
        rows, scale = CELLS[self.cell] * self.H, np.asarray(self.H**-0.5, self.dtype)
        weights = {}
        for layer in range(self.L):
            suffix = "" if self.kind == "cell" else f"_l{layer}"
            shapes = ((rows, self.I if layer == 0 else self.H), (rows, self.H), (rows,), (rows,))
            weights |= {f"{part}{suffix}": scale * draw(*shape) for part, shape in zip(PARTS, shapes, strict=True)}
        return draw(*lead, self.I), draw(*lead, self.H), weights


class Modules:
    """A module of ``torch.nn`` or ``fusedrnn.torch``."""

    def __init__(self, case: Case, library: Any) -> None:
        import torch

        self._torch, self._case = torch, case
        x, dy, weights = case.arrays()
        name = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[case.cell]
        if case.kind == "cell":
            module = getattr(library, f"{name}Cell")(case.I, case.H)
        else:
            module = getattr(library, name)(case.I, case.H, case.L)
        self._module = module.to(getattr(torch, case.dtype))
        self._module.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
        self._x, self._dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)
        self._sizes = torch.tensor(case.batch_sizes())
        self._call = self._y

    def _y(self, x: Any) -> Any:
        if self._case.kind == "packed":
            return self._module(self._torch.nn.utils.rnn.PackedSequence(x, self._sizes))[0].data
        if self._case.kind == "layer":
            return self._module(x)[0]
        state, outputs = None, []
        for step in x.unbind(0):
            state = self._module(step, state)
            outputs.append(state[0] if self._case.cell == "lstm" else state)
        return self._torch.stack(outputs)

    def forward(self) -> Any:
        """y, with what backward needs."""
        return self._call(self._x)

    def run(self) -> Any:
        """A training step; y."""
        self._module.zero_grad()
        self._x.grad = None
        y = self._call(self._x)
        y.backward(self._dy)
        return y

    def results(self) -> dict[str, Array]:
        """Of a training step: y and all gradients."""
        y = self.run()
        found = {"y": y.detach(), "x": self._x.grad}
        found |= {name: parameter.grad for name, parameter in self._module.named_parameters()}
        return {name: value.numpy().copy() for name, value in found.items()}


class Compiled(Modules):
    """PyTorch's under ``torch.compile``, recurrent layers allowed into the graph as in `compiled.py`; the whole call is
    one graph. oneDNN's LSTM layer has no traceable backward, so that only this one's calls go without it.

    Raises:
        Unsupported: there is no such graph.
    """

    def __init__(self, case: Case) -> None:
        import torch

        own_cache()
        super().__init__(case, torch.nn)
        torch._dynamo.reset()
        compiled = torch.compile(self._y, fullgraph=True)

        def call(x: Any) -> Any:
            with warnings.catch_warnings(), torch._dynamo.config.patch(allow_rnn=True):
                warnings.simplefilter("ignore")  # the flags also set, and warn of, what only GPUs have
                with torch.backends.mkldnn.flags(enabled=case.cell != "lstm"):
                    return compiled(x)

        self._call = call
        try:
            self.run()
        except Exception as error:  # of the tracer, the generator or the C++ compiler
            raise Unsupported(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}") from None


class Functional:
    """The functional interface, layer after layer."""

    def __init__(self, case: Case) -> None:
        from fusedrnn import functional

        self._case = case
        self._x, self._dy, self._weights = case.arrays()
        self._forward: Callable[..., Any] = getattr(functional, f"{case.cell}_forward")
        self._backward: Callable[..., Any] = getattr(functional, f"{case.cell}_backward")
        self._keywords = {"batch_sizes": case.batch_sizes()} if case.kind == "packed" else {}
        self._states = 2 if case.cell == "lstm" else 1
        names = list(self._weights)
        self._layers = [names[at : at + len(PARTS)] for at in range(0, len(names), len(PARTS))]

    def forward(self) -> tuple[Array, list[Any]]:
        """y, and what backward needs."""
        reserves, y = [], self._x
        if self._case.kind == "cell":
            states: list[Any] = [None] * self._states
            outputs = []
            for t in range(self._case.T):
                step, *states, reserve = self._forward(y[t : t + 1], *states, *self._weights.values())
                outputs.append(step)
                reserves.append(reserve)
            return np.concatenate(outputs), reserves
        for names in self._layers:
            initial = [None] * self._states
            outputs = self._forward(y, *initial, *(self._weights[name] for name in names), **self._keywords)
            y = outputs[0]
            reserves.append(outputs[-1])
        return y, reserves

    def run(self) -> dict[str, Array]:
        """A training step: y and all gradients."""
        y, reserves = self.forward()
        states: list[Any] = [None] * self._states
        if self._case.kind == "cell":
            sums = tuple(np.zeros_like(value) for value in self._weights.values())
            dx = []
            for t in reversed(range(self._case.T)):
                gradients = self._backward(self._dy[t : t + 1], *states, reserves[t], accumulate=sums)
                states = list(gradients[1 : 1 + self._states])
                dx.append(gradients.dx)
            return {"y": y, "x": np.concatenate(dx[::-1]), **dict(zip(self._weights, sums, strict=True))}
        found, dy = {"y": y}, self._dy
        for names, reserve in zip(reversed(self._layers), reversed(reserves), strict=True):
            gradients = self._backward(dy, *states, reserve)
            found |= {name: getattr(gradients, f"d{part}") for name, part in zip(names, PARTS, strict=True)}
            dy = gradients.dx
        return {**found, "x": dy}

    def results(self) -> dict[str, Array]:
        """Of a training step: y and all gradients."""
        return self.run()


def build(case: Case, compiled: bool) -> dict[str, Any]:
    """Those that take turns, by name."""
    import torch

    import fusedrnn.torch

    found = {
        "torch": Modules(case, torch.nn),
        "fusedrnn.torch": Modules(case, fusedrnn.torch),
        "functional": Functional(case),
    }
    if compiled:
        try:
            found["compiled"] = Compiled(case)
        except Unsupported as error:
            print(f"{case.name} {case.cell} {case.kind}: {error}", file=sys.stderr)
    return found
