"""The built-in cells as data: states, parameters with their axes, options with their plain values.

Layers, the functional interface, the reference, the adapters and the tests read it. The compiled module has the same
(`_core.cell_facts`), and tests/test_spec.py compares the two, and the public signatures with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NORMALIZED = ("ih", "hh", "c")  # layer_norm has gains and biases of both products, and of an LSTM's c
_WEIGHTS = {"weight_ih": "RI", "weight_hh": "RP", "bias_ih": "R", "bias_hh": "R"}
_NORM = {"gain_ih": "R", "gain_hh": "R", "norm_bias_ih": "R", "norm_bias_hh": "R"}
#: Where a call's random numbers are.
COUNTERS: dict[str, Any] = {"seed": 0, "layer": 0, "row_offset": 0, "step_offset": 0}
#: Options that draw masks in training.
DRAWING = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect")
_SHARED: dict[str, Any] = {
    "zoneout_h": 0.0,
    "recurrent_dropout": 0.0,
    "dropconnect": 0.0,
    "grad_clip": None,
    **COUNTERS,
    "precision": None,
}
ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus", "identity")


@dataclass(frozen=True)
class Cell:
    """A built-in cell.

    Attributes:
        name: as in ``<name>_forward``.
        gates: how many have rows of the weights; ``rows`` counts an LSTM's coupled gates.
        states: name -> the axes of the initial state. Axes: N rows of the batch, P elements of h, H units.
        parameters: name -> axes, in the order of every call. Axes: R rows of the gates, I inputs, P, H, 3.
        options: name -> the value that changes nothing.
        activations: of the gates and so on, where they are an option.
    """

    name: str
    gates: int
    states: Mapping[str, str]
    parameters: Mapping[str, str]
    options: Mapping[str, Any]
    activations: tuple[str, ...] = ()

    def rows(self, options: Mapping[str, Any]) -> int:
        """Return the number of gates that have rows of the weights."""
        return 3 if options.get("coupled") else self.gates

    def changed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of ``options`` that have not the plain value; other names count as plain with None or False."""
        found = {}
        for name, value in options.items():
            plain = self.options.get(name)
            same = value is plain or (plain is None and value is False) or (plain is not None and value == plain)
            if not same and not (name == "activations" and value is not None and tuple(value) == self.activations):
                found[name] = value
        return found

    def reserve_width(self, options: Mapping[str, Any], units: int, normalized: int) -> int:
        """Return the last axis of the reserve of an RNN, LSTM or GRU. ``normalized``: the rows of its gates with
        layer_norm, else 0. Options that are not given are plain."""
        if self.name == "lstm":
            kept = 1 if options.get("recompute") else 5
        elif self.name == "gru":
            kept = 0 if options.get("recompute") else 4 if options.get("reset_after", True) else 3
        else:
            kept = 1 if options.get("zoneout_h") else 0
        return kept * units + (2 * normalized + 16 if normalized else 0)

    def other_activations(self, names: Any) -> Any:
        """Return None for those of the plain cell, and a tuple of a list."""
        given = tuple(names) if isinstance(names, list) else names
        return None if given == self.activations else given

    @property
    def norms(self) -> tuple[str, ...]:
        """The parts that layer_norm has gains and biases of."""
        return NORMALIZED[: 1 + len(self.states)]


RNN = Cell("rnn", 1, {"h0": "NP"}, _WEIGHTS | _NORM, {"nonlinearity": "tanh", **_SHARED})
LSTM = Cell(
    "lstm",
    4,
    {"h0": "NP", "c0": "NH"},
    {
        **_WEIGHTS,
        "weight_peephole": "3H",
        "weight_hr": "PH",
        "gain_ih": "R",
        "gain_hh": "R",
        "gain_c": "H",
        "norm_bias_ih": "R",
        "norm_bias_hh": "R",
        "norm_bias_c": "H",
    },
    {"recompute": False, "coupled": False, "cell_clip": None, "zoneout_c": 0.0, "activations": None, **_SHARED},
    ("sigmoid", "tanh", "tanh"),
)
GRU = Cell(
    "gru",
    3,
    {"h0": "NP"},
    _WEIGHTS | _NORM,
    {"reset_after": True, "recompute": False, "activations": None, **_SHARED},
    ("sigmoid", "tanh"),
)
INDRNN = Cell("indrnn", 1, {"h0": "NP"}, {"weight_ih": "RI", "weight_hh": "H", "bias": "R"}, {"nonlinearity": "relu"})
MINGRU = Cell("mingru", 2, {"h0": "NP"}, {"weight_ih": "RI", "bias": "R"}, {})
CELLS = {cell.name: cell for cell in (RNN, LSTM, GRU, INDRNN, MINGRU)}
