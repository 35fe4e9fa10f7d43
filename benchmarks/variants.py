"""Cells with options, as peers are described in `peers.py`: what an option costs beside the plain cell.

A training step is forward, and backward with all gradients, of one layer; inference is forward alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import Unsupported
from benchmarks.workloads import CELLS, Array

# option -> cells that have it; options of forward by keyword, or where parameters are needed their shapes' letters
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": (("lstm", "gru", "rnn"), {}),
    "lengths": (("lstm", "gru", "rnn"), {}),
    "packed rows": (("lstm", "gru", "rnn"), {}),
    "resets": (("lstm", "gru", "rnn"), {}),
    "peephole": (("lstm",), {}),
    "projection": (("lstm",), {}),
    "coupled": (("lstm",), {"coupled": True}),
    "clips": (("lstm",), {"cell_clip": 3.0, "grad_clip": 1.0}),
    "all c": (("lstm",), {"return_c": True}),
    "activations": (("lstm",), {"activations": ("hard_sigmoid", "softsign", "tanh")}),
    "layer norm": (("lstm", "gru", "rnn"), {}),
    "zoneout h": (("lstm", "gru", "rnn"), {"zoneout_h": 0.1}),
    "zoneout h and c": (("lstm",), {"zoneout_h": 0.1, "zoneout_c": 0.1}),
    "recurrent dropout": (("lstm", "gru", "rnn"), {"recurrent_dropout": 0.1}),
    "dropconnect": (("lstm", "gru", "rnn"), {"dropconnect": 0.1}),
}
RESET = 0.01  # of the steps


@dataclass(frozen=True)
class Variant:
    """One layer with one option, float32."""

    name: str
    cell: str
    mode: str
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int

    @property
    def rows(self) -> int:
        """Of the weights."""
        return (3 if self.name == "coupled" else CELLS[self.cell]) * self.H

    @property
    def width(self) -> int:
        """Elements of h."""
        return self.H // 2 if self.name == "projection" else self.H

    @property
    def work(self) -> float:
        """Share of the N T steps that there are to do."""
        return float(np.mean(self.lengths()) / self.T) if self.name in ("lengths", "packed rows") else 1.0

    def lengths(self) -> Array:
        """Drawn from 1 to T."""
        return np.random.default_rng(2).integers(1, self.T + 1, self.N)

    def arguments(self, dtype: Any = np.float32) -> tuple[list[Any], dict[str, Any], Array]:
        """What forward takes by position, and by keyword, and dy."""
        rng = np.random.default_rng(1)

        def draw(*shape: int) -> Array:
            return rng.uniform(-1, 1, shape).astype(np.float32).astype(dtype)

        H, rows, scale = self.H, self.rows, np.asarray(self.H**-0.5, dtype)
        states = [None, None] if self.cell == "lstm" else [None]
        weights = [scale * draw(rows, n) for n in (self.I, self.width)] + [scale * draw(rows) for _ in range(2)]
        keywords = dict(VARIANTS[self.name][1])
        lead: tuple[int, ...] = (self.T, self.N)
        if self.name == "lengths":
            keywords["lengths"] = self.lengths()
        elif self.name == "packed rows":
            longest = int(self.lengths().max())
            keywords["batch_sizes"] = np.array([(self.lengths() > t).sum() for t in range(longest)])
            lead = (int(keywords["batch_sizes"].sum()),)
        elif self.name == "resets":
            keywords["resets"] = np.random.default_rng(3).random((self.T, self.N)) < RESET
        elif self.name == "peephole":
            keywords["weight_peephole"] = scale * draw(3, H)
        elif self.name == "projection":
            keywords["weight_hr"] = scale * draw(self.width, H)
        elif self.name == "layer norm":
            widths = (rows, rows, H)[: 1 + len(states)]
            keywords["layer_norm"] = (
                tuple(1 + scale * draw(w) for w in widths),
                tuple(scale * draw(w) for w in widths),
            )
        return [draw(*lead, self.I), *states, *weights], keywords, draw(*lead, self.width)


def run_functions(module: Any, variant: Variant, dtype: Any) -> Callable[[], dict[str, Array]]:
    """The call, of `fusedrnn.functional` or of the reference: y and what has gradients, the weights' among them."""
    positional, keywords, dy = variant.arguments(dtype)
    forward = getattr(module, f"{variant.cell}_forward")
    backward = getattr(module, f"{variant.cell}_backward")
    training = variant.mode == "train"
    reserve_at = 3 if variant.cell == "lstm" else 2
    dstates = [None] * (reserve_at - 1)

    def run() -> dict[str, Array]:
        outputs = forward(*positional, training=training, **keywords)
        found = {"y": outputs[0]}
        if training:
            gradients = backward(dy, *dstates, outputs[reserve_at])
            found |= {"dx": gradients.dx, "dweight_ih": gradients.dweight_ih, "dweight_hh": gradients.dweight_hh}
        return found

    return run


class FusedRnnVariant:
    """Ours. The first run's results are kept, to be judged."""

    def __init__(self, variant: Variant, threads: int) -> None:
        import fusedrnn
        from fusedrnn import functional

        fusedrnn.set_num_threads(threads)
        self._run = run_functions(functional, variant, np.float32)
        self._found: dict[str, Array] = {}

    def run(self) -> None:
        """Once."""
        found = self._run()
        self._found = self._found or found

    def results(self) -> dict[str, Array]:
        """Of the first run."""
        return self._found


class PyTorchVariant:
    """PyTorch's own layer where it has the option: plain, packed sequences, projections."""

    def __init__(self, variant: Variant, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        if variant.name not in ("plain", "lengths", "projection"):
            raise Unsupported(f"PyTorch {torch.__version__} has no layer with {variant.name}")
        (x, *states, weight_ih, weight_hh, bias_ih, bias_hh), keywords, dy = variant.arguments()
        size = {"proj_size": variant.width} if variant.name == "projection" else {}
        layer = getattr(torch.nn, variant.cell.upper())(variant.I, variant.H, **size)
        values = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
        if size:
            values["weight_hr"] = keywords["weight_hr"]
        layer.load_state_dict({f"{name}_l0": torch.tensor(value) for name, value in values.items()})
        self._layer, self._torch, self._variant = layer, torch, variant
        self._x = torch.tensor(x, requires_grad=variant.mode == "train")
        self._dy = torch.tensor(dy)
        self._lengths = torch.tensor(variant.lengths())
        self._found: dict[str, Array] = {}
        del states

    def _forward(self) -> Any:
        if self._variant.name != "lengths":
            return self._layer(self._x)[0]
        rnn = self._torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(self._x, self._lengths, enforce_sorted=False)
        return rnn.pad_packed_sequence(self._layer(packed)[0], total_length=self._variant.T)[0]

    def run(self) -> None:
        """Once."""
        if self._variant.mode != "train":
            with self._torch.no_grad():
                y = self._forward()
            self._found = self._found or {"y": y.numpy()}
            return
        self._layer.zero_grad()
        self._x.grad = None
        y = self._forward()
        y.backward(self._dy)
        if not self._found:
            found = {"y": y.detach(), "dx": self._x.grad}
            found |= {f"d{name}": getattr(self._layer, f"{name}_l0").grad for name in ("weight_ih", "weight_hh")}
            self._found = {name: value.numpy().copy() for name, value in found.items()}

    def results(self) -> dict[str, Array]:
        """Of the first run."""
        return self._found


def truth(variant: Variant) -> dict[str, Array]:
    """The reference's results in float64."""
    from fusedrnn import reference

    return run_functions(reference, variant, np.float64)()


FACTORIES = {"fusedrnn": FusedRnnVariant, "pytorch": PyTorchVariant}
