"""Who runs the networks of `recurrences.py`: this library's scan and its own cells, PyTorch in four ways, JAX, and two
more that only have the LSTM (`scan_loops.py`). All compute y and the gradients of everything that they are given.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks.compiled import own_cache
from benchmarks.peers import Unsupported
from benchmarks.recurrences import NETWORKS, Case, draw
from benchmarks.scan_loops import Numba, PyTensor
from benchmarks.workloads import Array


def named(y: Any, parameters: dict[str, Any], state: Sequence[Any], x: Any, context: dict[str, Any] | None) -> Any:
    """y and gradients, by the names that results have."""
    found = {"y": y, "x": x} | {f"p.{name}": value for name, value in parameters.items()}
    found |= {f"state.{index}": value for index, value in enumerate(state)}
    return found | {f"context.{name}": value for name, value in (context or {}).items()}


class FusedRnn:
    """The step as it stands, through `fusedrnn.scan_forward` and `fusedrnn.scan_backward`."""

    def __init__(self, case: Case, threads: int) -> None:
        import fusedrnn

        fusedrnn.set_num_threads(threads)
        self._forward, self._backward = fusedrnn.scan_forward, fusedrnn.scan_backward
        self._step, self._arrays = NETWORKS[case.network].step, draw(case)
        self._found: Any = None

    def run(self) -> None:
        """Forward and backward."""
        p, state, x, context, dy = self._arrays
        y, _, reserve = self._forward(self._step, p, state, x, context=context)
        self._found = y, self._backward(dy, None, reserve)

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        y, gradients = self._found
        found: dict[str, Array] = named(
            y, gradients.dparams, gradients.dstate, gradients.dx, gradients.dcontext if self._arrays.context else None
        )
        return found


class Native:
    """This library's own cell of the same equations."""

    def __init__(self, case: Case, threads: int) -> None:
        import fusedrnn
        from fusedrnn import functional

        if case.network not in ("lstm", "layer_norm_lstm"):
            raise Unsupported("the library has a cell for the LSTM alone, plain and with layer normalization")
        fusedrnn.set_num_threads(threads)
        self._functional, self._arrays = functional, draw(case)
        p = self._arrays.p
        self._options: dict[str, Any] = {}
        if case.network == "layer_norm_lstm":
            gains, biases = (tuple(p[f"{what}_{part}"] for part in "xhc") for what in ("gain", "bias"))
            self._options["layer_norm"] = (gains, biases)
        self._found: Any = None

    def run(self) -> None:
        """Forward and backward."""
        p, state, x, _, dy = self._arrays
        y, *_, reserve = self._functional.lstm_forward(x, *state, p["W"], p["U"], p["b"], None, **self._options)
        self._found = y, self._functional.lstm_backward(dy, None, None, reserve)

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        y, g = self._found
        parameters = {"W": g.dweight_ih, "U": g.dweight_hh, "b": g.dbias_ih}
        if self._options:
            for what, values in zip(("gain", "bias"), g.dlayer_norm, strict=True):
                parameters |= {f"{what}_{part}": value for part, value in zip("xhc", values, strict=True)}
        found: dict[str, Array] = named(y, parameters, (g.dh0, g.dc0), g.dx, None)
        return found


class PyTorch:
    """A loop over time with autograd."""

    def __init__(self, case: Case, threads: int) -> None:
        import torch

        from benchmarks.scan_torch import TEXTS

        torch.set_num_threads(threads)
        self._torch, self._case, self._text = torch, case, TEXTS[case.network]
        arrays = draw(case)
        self._p = {name: self._leaf(value) for name, value in arrays.p.items()}
        self._state = [self._leaf(value) for value in arrays.state]
        self._x, self._dy = self._leaf(arrays.x), torch.tensor(arrays.dy)
        self._context = {name: self._leaf(value) for name, value in (arrays.context or {}).items()}
        self._found: Any = None
        self._call = self._made()

    def _leaf(self, values: Array) -> Any:
        return self._torch.tensor(values, requires_grad=True)

    def _made(self) -> Any:
        from benchmarks.scan_torch import Loop

        return Loop(*self._text)

    def run(self) -> None:
        """Forward and backward."""
        context = list(self._context.values())
        y = self._call(self._p, self._state, self._x, context)
        leaves = [*self._p.values(), *self._state, self._x, *context]
        self._found = y, self._torch.autograd.grad(y, leaves, self._dy)

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        y, gradients = self._found
        rest = iter(gradients)
        parameters = {name: next(rest) for name in self._p}
        state = [next(rest) for _ in self._state]
        found = named(y.detach(), parameters, state, next(rest), {name: next(rest) for name in self._context})
        return {name: value.numpy() for name, value in found.items()}


class ScriptedPyTorch(PyTorch):
    """The same loop through `torch.jit.script`, run until it has specialized itself."""

    def _made(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch advises against it, which is no reason not to measure it
            return self._torch.jit.script(super()._made())

    def __init__(self, case: Case, threads: int) -> None:
        super().__init__(case, threads)
        for _ in range(3):
            self.run()


class CompiledPyTorch(PyTorch):
    """The step through `torch.compile`, in a loop; a graph of all steps takes far too long to compile."""

    def _made(self) -> Any:
        from benchmarks.scan_torch import Loop

        own_cache()
        self._torch._dynamo.reset()
        return Loop(self._text.prepare, self._torch.compile(self._text.step, fullgraph=True))

    def __init__(self, case: Case, threads: int) -> None:
        super().__init__(case, threads)
        try:
            for _ in range(2):
                self.run()
        except Exception as error:  # of the tracer, the generator or the C++ compiler
            raise Unsupported(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}") from None


class PyTorchLayer(PyTorch):
    """PyTorch's own LSTM."""

    def _made(self) -> Any:
        torch, case = self._torch, self._case
        if case.network != "lstm":
            raise Unsupported("PyTorch has a layer for the LSTM alone")
        layer = torch.nn.LSTM(case.I, case.H, dtype=getattr(torch, case.dtype))
        zero = torch.zeros(4 * case.H, dtype=self._x.dtype)

        def call(p: Any, state: Any, x: Any, context: Any) -> Any:
            del context
            weights = {"weight_ih_l0": p["W"], "weight_hh_l0": p["U"], "bias_ih_l0": p["b"], "bias_hh_l0": zero}
            h, c = state
            return torch.func.functional_call(layer, weights, (x, (h[None], c[None])))[0]

        return call


class Jax:
    """`jax.lax.scan`, with value and gradients in one compiled call."""

    def __init__(self, case: Case, threads: int) -> None:
        del threads  # XLA takes them from the affinity mask
        import jax

        jax.config.update("jax_enable_x64", case.dtype == "float64")
        from benchmarks.scan_jax import TEXTS, forward

        text = TEXTS[case.network]
        p, state, x, context, dy = jax.tree.map(jax.numpy.asarray, draw(case))
        self._given, self._ready = (p, state, x, context), jax.block_until_ready

        def loss(p: Any, state: Any, x: Any, context: Any) -> Any:
            y = forward(text, p, state, x, context)
            return (y * dy).sum(), y

        self._call = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
        self._found: Any = None

    def run(self) -> None:
        """Forward and backward."""
        self._found = self._ready(self._call(*self._given))

    def results(self) -> dict[str, Array]:
        """y and all gradients."""
        import numpy as np

        (_, y), (dp, dstate, dx, dcontext) = self._found
        return {name: np.asarray(value) for name, value in named(y, dp, dstate, dx, dcontext).items()}


FACTORIES = {
    "fusedrnn": FusedRnn,
    "native": Native,
    "pytorch-layer": PyTorchLayer,
    "pytorch": PyTorch,
    "pytorch-script": ScriptedPyTorch,
    "pytorch-compiled": CompiledPyTorch,
    "jax": Jax,
    "pytensor": PyTensor,
    "numba": Numba,
}
# name -> the distribution that it needs
PACKAGES = {
    "pytorch-layer": "torch",
    "pytorch": "torch",
    "pytorch-script": "torch",
    "pytorch-compiled": "torch",
    "jax": "jax",
    "pytensor": "pytensor",
    "numba": "numba",
}
