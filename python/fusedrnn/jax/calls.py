"""One call of a layer in one direction: what JAX has to know of it, and its work on arrays of NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fusedrnn import _core
from fusedrnn.sequences import read_sequences
from fusedrnn.spec import CELLS, LSTM, Cell

# The axes of each operand: L for T, N or packed rows, and those of `fusedrnn.spec`.
AXES = {"x": "LI", **LSTM.states, **LSTM.parameters, "lengths": "N", "resets": "L"}
CONSTANTS = ("lengths", "resets", "seed")  # operands without derivatives
# Options that are no arrays, and their plain values.
_OF_CELLS = {name: value for cell in ("rnn", "gru", "lstm") for name, value in CELLS[cell].options.items()}
OPTIONS: dict[str, Any] = {
    "reverse": False, **{name: value for name, value in _OF_CELLS.items() if name != "seed"}, "batch_sizes": None,
    "return_c": False,
}  # fmt: skip
_APART = ("batch_sizes", "return_c")  # what is no setting


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
    def cell(self) -> Cell:
        """What it is a call of."""
        return CELLS[self.kind]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what forward returns, but for the reserve."""
        states = tuple(f"{name[0]}_n" for name in self.cell.states)
        return ("y", *states, "c") if self.option("return_c") else ("y", *states)

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
        width = self.cell.reserve_width(dict(self.options), sizes.H, sizes.R if "gain_ih" in arrays else 0)
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
        training = self.keep or "seed" in arrays
        results = list(_core.forward(*self._given(arrays), training, return_c=self.option("return_c")))
        reserve = results.pop(1 + len(self.cell.states))
        kept = [reserve.buffer] if self.keep and reserve.buffer.shape[-1] else []
        return (*results, *kept)

    def backward(self, *operands: Any) -> tuple[Any, ...]:
        """The gradients of the wanted arrays."""
        arrays = self.named(operands)
        buffer = arrays.get("reserve")
        if buffer is None:
            buffer = np.empty((*arrays["x"].shape[:-1], 0), arrays["y"].dtype)
        reserve = _core.Reserve(*self._given(arrays), y=arrays["y"], buffer=buffer)
        doutputs = tuple(arrays.get(f"d{name}") for name in self.outputs)
        parameters = {name: arrays[name] for name in self.cell.parameters if name in arrays}
        float64 = arrays["y"].dtype == np.float64
        added = {name: np.zeros(a.shape, np.float64 if float64 else np.float32) for name, a in parameters.items()}
        dx, *dinitial = _core.backward(
            reserve, doutputs, "x" in self.wanted, tuple(added.get(name) for name in self.cell.parameters)
        )
        gradients = {"x": dx, **dict(zip(self.cell.states, dinitial, strict=True)), **added}
        return tuple(gradients[name] for name in self.wanted)

    def _given(self, arrays: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Settings, x, states, parameters and sequences of a call of the compiled module."""
        options = {name: value for name, value in self.options if name not in _APART}
        if "seed" in arrays:
            options["seed"] = seed_of(arrays["seed"])
        sequences = (arrays.get("lengths"), self.option("batch_sizes"), arrays.get("resets"))
        return (
            _core.Settings(self.kind, **options),
            arrays["x"],
            tuple(arrays.get(name) for name in self.cell.states),
            tuple(arrays.get(name) for name in self.cell.parameters),
            None if all(part is None for part in sequences) else read_sequences(*sequences),
        )


@lru_cache
def check(call: Call) -> None:
    """The functional interface's errors for options that it refuses: of a call of one unit and input."""
    batch_sizes = call.option("batch_sizes")
    lead = (1, 1) if batch_sizes is None else (max(sum(batch_sizes), 0),)
    sizes = Sizes(lead, batch_sizes[0] if batch_sizes else 1, 1, 1, 1, call.cell.rows(dict(call.options)))
    dtypes = {"lengths": np.int64, "resets": np.bool_, "seed": np.uint32}
    shapes = [(2,) if name == "seed" else sizes.shape(name) for name in call.given]
    call.forward(*(np.zeros(shape, dtypes.get(n, np.float32)) for n, shape in zip(call.given, shapes, strict=True)))


def seed_of(words: Any) -> int:
    """The seed, of its lower and its upper 32 bits."""
    return int(words[0]) | int(words[1]) << 32
