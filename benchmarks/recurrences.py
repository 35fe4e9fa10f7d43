"""Networks as steps of one sequence in plain NumPy, as `fusedrnn.scan_forward` takes them, and their arrays.

A step is `step(p, state, x[, context])` and returns the new state and y; its arrays have no batch axis. The files
`scan_torch.py`, `scan_jax.py` and `scan_loops.py` have the same equations over a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.workloads import Array
from fusedrnn.cells.attention import DecoderState, DecoderStep, Memory
from fusedrnn.cells.dnc import DNCState, DNCStep
from fusedrnn.cells.ntm import NTMState, NTMStep
from fusedrnn.cells.window import WindowState, window_lstm
from fusedrnn.ops import sigmoid

NORM = 1e-5  # beside a variance: layer normalization's
SHIFTS = 3  # of an NTM's head: -1, 0 and 1


# the steps


def lstm(p: Any, state: Any, x: Any) -> Any:
    """An LSTM (Hochreiter and Schmidhuber 1997; with forget gate)."""
    h, c = state
    i, f, g, o = np.split(p["W"] @ x + p["U"] @ h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def _normalized(v: Any, gain: Any, bias: Any) -> Any:
    centred = v - np.mean(v)
    return gain * (centred / np.sqrt(np.mean(centred * centred) + NORM)) + bias


def layer_norm_lstm(p: Any, state: Any, x: Any) -> Any:
    """An LSTM with layer normalization of both products and of the cell that the output sees (Ba et al. 2016)."""
    h, c = state
    of_x = _normalized(p["W"] @ x, p["gain_x"], p["bias_x"])
    of_h = _normalized(p["U"] @ h, p["gain_h"], p["bias_h"])
    i, f, g, o = np.split(of_x + of_h + p["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(_normalized(c, p["gain_c"], p["bias_c"]))
    return (h, c), h


def _controlled(p: Any, tells: str) -> dict[str, Any]:
    """The parameters of a network with a memory as `fusedrnn.cells` nests them; `tells` are those of its heads."""
    lstm = {name: p[name] for name in ("W", "U", "b")}
    return {"controller": [lstm]} | {name: {"W": p[name], "b": p[f"{name}_b"]} for name in (tells, "out")}


def ntm(p: Any, state: Any, x: Any) -> Any:
    """The library's neural Turing machine with an LSTM controller, a write head and a read head, which reads what was
    written (Graves, Wayne and Danihelka 2014); over flat arrays, which the other libraries have."""
    h, c, read, reading, writing, memory = state
    step = NTMStep("lstm", read_heads=1, write_heads=1, width=len(read), shifts=SHIFTS // 2, clip=None)
    before = NTMState(((h, c),), read[None], reading[None], writing[None], memory)
    after, y = step(_controlled(p, "heads"), before, x)
    reads = after.reads[0], after.read_weightings[0], after.write_weightings[0]
    return (*after.controller[0], *reads, after.memory), y


def dnc(p: Any, state: Any, x: Any) -> Any:
    """The library's differentiable neural computer with an LSTM controller and one write head (Graves et al. 2016)."""
    h, c, reads, memory, usage, precedence, link, writing, readings = state
    heads, width = reads.shape
    step = DNCStep(
        "lstm", heads, write_heads=1, width=width, links=True, free_gates=True, key_mask=False, deallocate=False,
        sharp_links=False, normalize=False, clip=None,
    )  # fmt: skip
    before = DNCState(((h, c),), reads, memory, usage, [precedence], [link], writing[None], readings)
    after, y = step(_controlled(p, "interface"), before, x)
    order = after.reads, after.memory, after.usage, after.precedence[0], after.links[0], after.write_weightings[0]
    return (*after.controller[0], *order, after.read_weightings), y


def attention(p: Any, state: Any, x: Any, context: Any) -> Any:
    """The library's decoder: additive attention (Bahdanau et al. 2014) over the states [S, F] of an encoder, and input
    feeding (Luong et al. 2015): the LSTM sees what was attended last."""
    h, c, attended = state
    encoded = context["encoded"]
    nested = {
        "cell": [{name: p[name] for name in ("W", "U", "b")}],
        "attention": {"W": p["query"], "U": p["keys"], "v": p["v"]},
        "out": {"W": p["out"], "b": p["out_b"]},
    }
    before, memory = DecoderState(((h, c),), attended), Memory(encoded, np.ones(len(encoded)) > 0)
    after, y = DecoderStep("additive", "lstm", input_feeding=True)(nested, before, x, memory)
    return (*after.layers[0], after.attended), y.attended


def window(p: Any, state: Any, x: Any, context: Any) -> Any:
    """The library's first layer of the synthesis network of Graves 2013: an LSTM, and the window along characters
    [S, F] that it moves and sees; y is h and the window."""
    h, c, kappa, seen = state
    nested = {"lstm": {name: p[name] for name in ("W", "U", "b")}, "window": {"W": p["slide"], "b": p["slide_b"]}}
    after, y = window_lstm(nested, WindowState((h, c), kappa, seen), x, context["encoded"])
    return (*after.lstm, after.kappa, after.window), np.concatenate([y.h, y.window])


# their arrays


@dataclass(frozen=True)
class Case:
    """A network of some size, and a batch.

    Attributes:
        network: one of `NETWORKS`.
        T, N, I, H: steps, rows, inputs, and units of the LSTM.
        slots, width, heads: of a memory; heads are those that read, or a window's components.
        S, F: positions that are attended to, and features of each; 0 for H.
    """

    network: str
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int
    slots: int = 0
    width: int = 0
    heads: int = 1
    S: int = 0
    F: int = 0
    dtype: str = "float32"

    @property
    def features(self) -> int:
        """Features of each position."""
        return self.F or self.H

    @property
    def shape(self) -> str:
        """Write it as tables print it."""
        memory = f" {self.slots}x{self.width}" if self.slots else ""
        heads = {"dnc": f" R{self.heads}", "window": f" K{self.heads}"}.get(self.network, "")
        attended = f" S{self.S} F{self.features}" if self.S else ""
        return f"T{self.T} N{self.N} I{self.I} H{self.H}{memory}{heads}{attended}"


class Arrays(NamedTuple):
    """Hold the arrays of a case.

    Attributes:
        p: parameters by name.
        state: the initial state, leaves [N, ...].
        x: [T, N, I].
        context: leaves [N, ...] by name; None where the step takes none.
        dy: the gradient of y, [T, N, O].
    """

    p: dict[str, Array]
    state: tuple[Array, ...]
    x: Array
    context: dict[str, Array] | None
    dy: Array


class Network(NamedTuple):
    """A step and the sizes of its arrays.

    Attributes:
        step: of one sequence.
        parameters: shapes by name.
        state: shapes of the leaves, without N, with the kind of values that each has (see `_drawn`).
        outputs: O.
    """

    step: Callable[..., Any]
    parameters: Callable[[Case], dict[str, tuple[int, ...]]]
    state: Callable[[Case], list[tuple[str, tuple[int, ...]]]]
    outputs: Callable[[Case], int]


def _lstm_parameters(rows: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {"W": (4 * rows, inputs), "U": (4 * rows, rows), "b": (4 * rows,)}


def _layer_norm_parameters(c: Case) -> dict[str, tuple[int, ...]]:
    parts = {"x": 4 * c.H, "h": 4 * c.H, "c": c.H}
    norms = {f"{what}_{part}": (size,) for part, size in parts.items() for what in ("gain", "bias")}
    return _lstm_parameters(c.H, c.I) | norms


def _outputs(rows: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {"out": (rows, inputs), "out_b": (rows,)}


def _ntm_parameters(c: Case) -> dict[str, tuple[int, ...]]:
    rows = 2 * (c.width + 3 + SHIFTS) + 2 * c.width
    heads = {"heads": (rows, c.H), "heads_b": (rows,)}
    return _lstm_parameters(c.H, c.I + c.width) | heads | _outputs(8, c.H + c.width)


def _dnc_parameters(c: Case) -> dict[str, tuple[int, ...]]:
    reads = c.heads * c.width
    rows = reads + 3 * c.width + 5 * c.heads + 3
    interface = {"interface": (rows, c.H), "interface_b": (rows,)}
    return _lstm_parameters(c.H, c.I + reads) | interface | _outputs(8, c.H + reads)


def _attention_parameters(c: Case) -> dict[str, tuple[int, ...]]:
    scores = {"keys": (c.H, c.features), "query": (c.H, c.H), "v": (c.H,)}
    return _lstm_parameters(c.H, c.I + c.H) | scores | _outputs(c.H, c.H + c.features)


def _window_parameters(c: Case) -> dict[str, tuple[int, ...]]:
    return _lstm_parameters(c.H, c.I + c.features) | {"slide": (3 * c.heads, c.H), "slide_b": (3 * c.heads,)}


def _hidden(c: Case) -> list[tuple[str, tuple[int, ...]]]:
    return [("state", (c.H,)), ("state", (c.H,))]


def _ntm_state(c: Case) -> list[tuple[str, tuple[int, ...]]]:
    weights = ("weights", (c.slots,))
    return [*_hidden(c), ("state", (c.width,)), weights, weights, ("state", (c.slots, c.width))]


def _dnc_state(c: Case) -> list[tuple[str, tuple[int, ...]]]:
    slots, matrix = (c.slots,), (c.slots, c.width)
    read = [("state", (c.heads, c.width)), ("state", matrix), ("share", slots), ("weights", slots)]
    return [*_hidden(c), *read, ("link", (c.slots, c.slots)), ("weights", slots), ("weights", (c.heads, c.slots))]


NETWORKS = {
    "lstm": Network(lstm, lambda c: _lstm_parameters(c.H, c.I), _hidden, lambda c: c.H),
    "layer_norm_lstm": Network(layer_norm_lstm, _layer_norm_parameters, _hidden, lambda c: c.H),
    "ntm": Network(ntm, _ntm_parameters, _ntm_state, lambda _: 8),
    "dnc": Network(dnc, _dnc_parameters, _dnc_state, lambda _: 8),
    "attention": Network(
        attention, _attention_parameters, lambda c: [*_hidden(c), ("state", (c.H,))], lambda c: c.H
    ),
    "window": Network(
        window, _window_parameters, lambda c: [*_hidden(c), ("state", (c.heads,)), ("state", (c.features,))],
        lambda c: c.H + c.features,
    ),
}  # fmt: skip


def _drawn(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    """Values that an array of this kind may have in the middle of a sequence; so that slots differ from each other."""
    if kind == "state":
        return rng.uniform(-0.3, 0.3, shape)
    if kind == "share":
        return rng.uniform(0, 1, shape)
    weights = rng.exponential(size=shape)
    if kind == "weights":
        return weights / weights.sum(axis=-1, keepdims=True)
    weights[..., np.arange(shape[-1]), np.arange(shape[-1])] = 0  # a link: rows and columns sum to less than 1
    return weights / (2 * weights.sum(axis=-1, keepdims=True).max(axis=-2, keepdims=True))


def draw(case: Case, seed: int = 0) -> Arrays:
    """Arrays of a case, drawn in float32, so that every dtype has the same numbers."""
    rng = np.random.default_rng(seed)
    network = NETWORKS[case.network]

    def cast(values: Array) -> Array:
        return values.astype(np.float32).astype(case.dtype)

    bound = case.H**-0.5
    parameters = {}
    for name, shape in network.parameters(case).items():
        centre = 1.0 if name.startswith("gain") else 0.0
        parameters[name] = cast(centre + rng.uniform(-bound, bound, shape))
    state = tuple(cast(_drawn(rng, kind, (case.N, *shape))) for kind, shape in network.state(case))
    x = cast(rng.uniform(-1, 1, (case.T, case.N, case.I)))
    context = {"encoded": cast(rng.uniform(-1, 1, (case.N, case.S, case.features)))} if case.S else None
    return Arrays(parameters, state, x, context, cast(rng.uniform(-1, 1, (case.T, case.N, network.outputs(case)))))
