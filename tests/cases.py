"""Fixture of tests/conftest.py: a random call of a cell with any of its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """A call of a cell with options."""

    kind: str
    arguments: dict[str, Any]  # of forward, in their order
    keywords: dict[str, Any]
    doutputs: dict[str, Any]  # dy, dh_n, ...

    def forward(self, module: Any, **keywords: Any) -> tuple[dict[str, Any], Any]:
        """(outputs by name, reserve) from `module`, which is fusedrnn.functional or fusedrnn.reference."""
        names = ("y", "h_n", "c_n", "reserve", "c") if self.kind == "lstm" else ("y", "h_n", "reserve")
        function = getattr(module, f"{self.kind}_forward")
        values = function(*self.arguments.values(), **{**self.keywords, **keywords})
        outputs = dict(zip(names, values, strict=False))
        return outputs, outputs.pop("reserve")

    def backward(self, module: Any, reserve: Any, **keywords: Any) -> dict[str, Any]:
        """Gradients by name."""
        function = getattr(module, f"{self.kind}_backward")
        gradients: dict[str, Any] = function(reserve=reserve, **{**self.doutputs, **keywords})._asdict()
        return gradients

    def run(self, module: Any) -> dict[str, Any]:
        outputs, reserve = self.forward(module)
        return {**outputs, **self.backward(module, reserve)}


ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """make_case(kind, shape, dtype, options, seed=0, data=()) -> Case, of options by the names below.

    data: any of "lengths", "batch_sizes", "resets", "reverse", "no_biases", "no_states", "no_doutputs".
    """

    def make(
        kind: str, shape: tuple[int, int, int, int], dtype: Any, options: Any, seed: int = 0, data: Any = ()
    ) -> Case:
        rng = np.random.default_rng(seed)
        T, N, I, H = shape  # noqa: E741
        P = max(1, H // 2) if "projection" in options else H
        G = H * {"rnn": 1, "gru": 3, "lstm": 3 if "coupled" in options else 4}[kind]

        def normal(*dimensions: int) -> Any:
            return rng.standard_normal(dimensions).astype(dtype)

        def weight(*dimensions: int) -> Any:
            return rng.uniform(-(H**-0.5), H**-0.5, dimensions).astype(dtype)

        keywords: dict[str, Any] = {"seed": int(rng.integers(1 << 63)), "layer": 3, "row_offset": 5, "step_offset": 7}
        for name in options:
            if name in ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect"):
                keywords[name] = float(rng.uniform(0.1, 0.6))
            elif name == "layer_norm":
                widths = (G, G, H)[: 3 if kind == "lstm" else 2]
                biases = [None if rng.random() < 0.3 else weight(width) for width in widths]
                keywords[name] = (tuple(1 + weight(width) for width in widths), tuple(biases))
            elif name == "activations":
                chosen = tuple(str(a) for a in rng.choice(ACTIVATIONS, {"rnn": 1, "gru": 2, "lstm": 3}[kind]))
                keywords.update({"nonlinearity": chosen[0]} if kind == "rnn" else {"activations": chosen})
            elif name == "peephole":
                keywords["weight_peephole"] = normal(3, H)
            elif name == "projection":
                keywords["weight_hr"] = weight(P, H)
            else:
                values = {"grad_clip": 0.1, "cell_clip": 0.3, "coupled": True, "return_c": True}
                keywords.update({"reset_after": False} if name == "reset_before" else {name: values[name]})

        lead: tuple[int, ...] = (T, N)
        if "lengths" in data:
            keywords["lengths"] = rng.integers(0, T + 1, N)
        if "batch_sizes" in data:
            keywords["batch_sizes"] = np.sort(rng.integers(1, N + 1, T))[::-1]
            N = int(keywords["batch_sizes"][0])
            lead = (int(keywords["batch_sizes"].sum()),)
        if "resets" in data:
            keywords["resets"] = rng.random(lead) < 0.3
        keywords["reverse"] = "reverse" in data

        states = {"h0": normal(N, P), **({"c0": normal(N, H)} if kind == "lstm" else {})}
        biases = {"bias_ih": weight(G), "bias_hh": weight(G)}
        arguments = {"x": normal(*lead, I), **states, "weight_ih": weight(G, I), "weight_hh": weight(G, P), **biases}
        doutputs = {"dy": normal(*lead, P), **{f"d{name[0]}_n": normal(*states[name].shape) for name in states}}
        if "return_c" in options:
            doutputs["dc"] = normal(*lead, H)
        absent = [*states] * ("no_states" in data) + [*biases] * ("no_biases" in data)
        arguments.update(dict.fromkeys(absent))
        if "no_doutputs" in data:
            doutputs.update(dict.fromkeys(name for name in doutputs if name != "dy"))
        return Case(kind, arguments, keywords, doutputs)

    return make
