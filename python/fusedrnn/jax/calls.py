"""One call of a layer in one direction: what JAX has to know of it, and its work on arrays of NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fusedrnn import functional
from fusedrnn.functional.reserve import COUNTERS, PLAIN, Reserve, read_sequences, reserve_width

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
STATES = {"rnn": ("h0",), "gru": ("h0",), "lstm": ("h0", "c0")}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
NORMALIZED = ("ih", "hh", "c")  # what layer_norm has gains and biases of; c is the LSTM's
# The axes of each operand: L for T, N or packed rows, P elements of h, H units, R rows of gates.
AXES = {
    "x": "LI", "h0": "NP", "c0": "NH", "weight_ih": "RI", "weight_hh": "RP", "bias_ih": "R", "bias_hh": "R",
    "weight_peephole": "3H", "weight_hr": "PH", "gain_ih": "R", "gain_hh": "R", "gain_c": "H",
    "norm_bias_ih": "R", "norm_bias_hh": "R", "norm_bias_c": "H", "lengths": "N", "resets": "L",
}  # fmt: skip
CONSTANTS = ("lengths", "resets", "seed")  # operands without derivatives
RANDOM = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect")
# Options that are no arrays, and the plain cell.
_DIRECT: dict[str, Any] = {"reverse": False, "recompute": False, "reset_after": True, "nonlinearity": "tanh"}
_APART: dict[str, Any] = {"batch_sizes": None, "precision": None, "return_c": False}
_DICT: dict[str, Any] = {
    **{name: value for name, value in PLAIN.items() if name != "layer_norm"},
    **{name: value for name, value in COUNTERS.items() if name != "seed"},
    **{"coupled": False, "cell_clip": None, "zoneout_c": 0.0},
}
OPTIONS = {**_DIRECT, **_APART, **_DICT}


class Sizes(NamedTuple):
    """lead: (T, N), or (M,) of packed rows. N rows, I inputs, H units, P elements of h, R rows of the gates."""

    lead: tuple[int, ...]
    N: int
    I: int  # noqa: E741
    H: int
    P: int
    R: int

    def shape(self, name: str) -> tuple[int, ...]:
        """That of an operand."""
        shape: tuple[int, ...] = ()
        for axis in AXES[name]:
            shape += self.lead if axis == "L" else (3,) if axis == "3" else (getattr(self, axis),)
        return shape


@dataclass(frozen=True)
class Call:
    """All of a call but its arrays.

    Attributes:
        kind: "rnn", "gru" or "lstm".
        options: names and values of those in ``OPTIONS`` that are not the plain cell's.
        given: the operands' names, in their order; what is None has no operand.
        keep: whether forward returns the reserve, where the cell has one.
        wanted: the arrays that a derivative is of.
    """

    kind: str
    options: tuple[tuple[str, Any], ...] = ()
    given: tuple[str, ...] = ()
    keep: bool = False
    wanted: tuple[str, ...] = ()

    def option(self, name: str) -> Any:
        return dict(self.options).get(name, OPTIONS[name])

    def named(self, operands: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.given, operands, strict=True))

    @property
    def outputs(self) -> tuple[str, ...]:
        states = tuple(f"{name[0]}_n" for name in STATES[self.kind])
        return ("y", *states, "c") if self.option("return_c") else ("y", *states)

    @property
    def norms(self) -> tuple[str, ...]:
        return NORMALIZED[: 3 if self.kind == "lstm" else 2]

    def sizes(self, arrays: Mapping[str, Any]) -> Sizes:
        *lead, inputs = arrays["x"].shape
        rows, elements = arrays["weight_hh"].shape
        units = arrays["weight_hr"].shape[1] if "weight_hr" in arrays else elements
        batch_sizes = self.option("batch_sizes")
        return Sizes(tuple(lead), batch_sizes[0] if batch_sizes else lead[1], inputs, units, elements, rows)

    def results(self, *operands: Any) -> list[tuple[tuple[int, ...], Any]]:
        """Shapes and dtypes of what forward returns."""
        arrays = self.named(operands)
        sizes = self.sizes(arrays)
        width = reserve_width(self.kind, dict(self.options), sizes.H, sizes.R if "gain_ih" in arrays else 0)
        shapes = {
            "y": (*sizes.lead, sizes.P), "h_n": (sizes.N, sizes.P), "c_n": (sizes.N, sizes.H),
            "c": (*sizes.lead, sizes.H), "reserve": (*sizes.lead, width),
        }  # fmt: skip
        names = (*self.outputs, "reserve") if self.keep and width else self.outputs
        dtype = np.dtype(np.float32) if self.option("precision") else arrays["x"].dtype
        return [(shapes[name], dtype) for name in names]

    def forward(self, *operands: Any) -> tuple[Any, ...]:
        """The outputs, and the reserve where there is something to keep."""
        arrays = self.named(operands)
        inputs = [arrays.get(name) for name in ("x", *STATES[self.kind], *WEIGHTS)]
        keywords = {**dict(self.options), **_option_arrays(arrays)}
        keywords.update({name: arrays[name] for name in ("lengths", "resets") if name in arrays})
        function = getattr(functional, f"{self.kind}_forward")
        results = list(function(*inputs, training=self.keep or "seed" in arrays, **keywords))
        reserve = results.pop(1 + len(STATES[self.kind]))
        kept = [reserve.buffer] if self.keep and reserve.buffer.shape[-1] else []
        return (*results, *kept)

    def backward(self, *operands: Any) -> tuple[Any, ...]:
        """The gradients of the wanted arrays."""
        arrays = self.named(operands)
        doutputs = [arrays.get(f"d{name}") for name in self.outputs if name != "c"]
        keywords = {"dc": arrays["dc"]} if "dc" in arrays else {}
        function = getattr(functional, f"{self.kind}_backward")
        gradients = function(*doutputs, self._reserve(arrays), input_grad="x" in self.wanted, **keywords)._asdict()
        for kind, parts in zip(("dgain", "dnorm_bias"), gradients.pop("dlayer_norm") or (), strict=False):
            gradients.update({f"{kind}_{name}": part for name, part in zip(self.norms, parts, strict=True)})
        return tuple(gradients[f"d{name}"] for name in self.wanted)

    def _reserve(self, arrays: Mapping[str, Any]) -> Reserve:
        """What forward kept, from its arrays."""
        buffer = arrays.get("reserve")
        if buffer is None:
            buffer = np.empty((*arrays["x"].shape[:-1], 0), arrays["y"].dtype)
        options = {**_DIRECT, **dict(self.options)}
        sequences = read_sequences(arrays.get("lengths"), options.get("batch_sizes"), arrays.get("resets"))
        options.update(zip(("lengths", "batch_sizes", "resets"), sequences, strict=True))
        if "precision" in options:
            after = {"rnn": options["nonlinearity"], "gru": "" if options["reset_after"] else "reset_before"}
            options["low_precision_cell"] = f"{self.kind}_{after.get(self.kind, '')}".rstrip("_")
        given = {name: value for name, value in self.options if name in _DICT}
        given.update(_option_arrays(arrays))
        plain = not given and options["nonlinearity"] in ("tanh", "relu")
        none = {"layer_norm": None, "weight_peephole": None, "weight_hr": None, "seed": 0}
        options["options"] = None if plain else {**_DICT, **none, **given}
        kept = {name: arrays.get(name) for name in ("x", "h0", "c0", "y", "weight_ih", "weight_hh")}
        return Reserve(self.kind, buffer, kept, (arrays.get("bias_ih"), arrays.get("bias_hh")), options)


@lru_cache
def check(call: Call) -> None:
    """The functional interface's errors for options that it refuses: of a call of one unit and input."""
    batch_sizes = call.option("batch_sizes")
    lead = (1, 1) if batch_sizes is None else (max(sum(batch_sizes), 0),)
    sizes = Sizes(lead, batch_sizes[0] if batch_sizes else 1, 1, 1, 1, GATES[call.kind] - call.option("coupled"))
    dtypes = {"lengths": np.int64, "resets": np.bool_, "seed": np.uint32}
    shapes = [(2,) if name == "seed" else sizes.shape(name) for name in call.given]
    call.forward(*(np.zeros(shape, dtypes.get(n, np.float32)) for n, shape in zip(call.given, shapes, strict=True)))


def seed_of(words: Any) -> int:
    """The seed, of its lower and its upper 32 bits."""
    return int(words[0]) | int(words[1]) << 32


def _option_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The options that operands hold, by the names of the functional interface."""
    given = {name: arrays[name] for name in ("weight_peephole", "weight_hr") if name in arrays}
    if "seed" in arrays:
        given["seed"] = seed_of(arrays["seed"])
    if "gain_ih" in arrays:
        names = [name for name in NORMALIZED if f"gain_{name}" in arrays]
        gains, biases = ([arrays.get(f"{kind}_{name}") for name in names] for kind in ("gain", "norm_bias"))
        given["layer_norm"] = (tuple(gains), tuple(biases))
    return given
