"""A pass of the CUDA kernels over the emulator, and the same in float64 on the CPU kernels.

Arrays are NumPy's. T steps, N rows, D directions, H units, G gates. The input's weights are the identity, so that x is
what the kernels call gates_x.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import fusedrnn

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
SAVED = {"rnn": 0, "lstm": 4, "gru": 4}
WRITTEN = {"rnn": 1, "lstm": 4, "gru": 4}
# Largest errors, relative to the largest value or 1. float32: the design's. Else rounding to the storage type, of 2^-9
# and 2^-12, in y and gates and in all that comes from them, with a margin for the walk over steps; oracle.py is
# stricter.
TOLERANCE = {"fma": 3e-5, "tf32": 4e-3, "bfloat16": 3e-2, "float16": 4e-3}


def stored(a: np.ndarray[Any, Any], product: str) -> np.ndarray[Any, Any]:
    """In the storage type: float32, float16, or bfloat16 as its bits."""
    a = np.ascontiguousarray(a, np.float32)
    if product == "float16":
        return a.astype(np.float16)
    if product == "bfloat16":
        bits = a.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return a


def values(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers that an array in a storage type holds, in float64."""
    if a.dtype == np.uint16:
        return (a.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return a.astype(np.float64)


@dataclass
class Case:
    """A problem and its data, drawn from a seed. ``absent`` names arrays that are not given: null pointers."""

    cell: str
    product: str
    hidden: int
    steps: int = 3
    batch: int = 3
    directions: int = 1
    reverse: int = 0
    lengths: Any = None
    states: bool = True
    relu: bool = False
    training: bool = True
    absent: tuple[str, ...] = ()
    seed: int = 0
    data: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        T, N, D, H, G = self.steps, self.batch, self.directions, self.hidden, GATES[self.cell]
        draw = rng.standard_normal
        d = {
            "gates_x": draw((T, N, D, G * H)),
            "weight": draw((D, G * H, H)) / np.sqrt(H),
            "dy": draw((T, N, D, H)),
            "dh_n": draw((D, N, H)),
        }
        if self.cell == "gru":
            d["bias_hn"] = draw((D, H))
        if self.cell == "lstm":
            d["dc_n"] = draw((D, N, H))
        if self.states:
            d["h0"] = draw((D, N, H))
            if self.cell == "lstm":
                d["c0"] = draw((D, N, H))
        self.data = {name: stored(a, self.product) for name, a in d.items() if name not in self.absent}

    def rows(self, chosen: Any) -> Case:
        """The same with some of its rows."""
        case = replace(self, lengths=None if self.lengths is None else np.asarray(self.lengths)[chosen])
        case.data = {
            name: a if name in ("weight", "bias_hn") else np.ascontiguousarray(a[:, chosen])
            for name, a in self.data.items()
        }
        case.batch = case.data["gates_x"].shape[1]
        return case

    @property
    def row_lengths(self) -> np.ndarray[Any, Any]:
        """The steps of each row."""
        return np.full(self.batch, self.steps) if self.lengths is None else np.asarray(self.lengths)


class Guarded:
    """Arrays with a margin before and after each. All that is not written is 0xff: a NaN in each storage type."""

    margin = 4096

    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray[Any, Any]] = {}
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any, alignment: int = 16) -> np.ndarray[Any, Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = np.full(size + 2 * self.margin + alignment, 0xFF, np.uint8)
        begin = self.margin + -(buffer.ctypes.data + self.margin) % alignment
        self.buffers[name] = buffer
        self.arrays[name] = buffer[begin : begin + size].view(dtype).reshape(shape)
        return self.arrays[name]

    def put(self, name: str, value: np.ndarray[Any, Any]) -> None:
        self.empty(name, value.shape, value.dtype)[...] = value

    def check(self) -> None:
        for name, buffer in self.buffers.items():
            array = self.arrays[name]
            begin = array.ctypes.data - buffer.ctypes.data
            around = buffer[:begin], buffer[begin + array.nbytes :]
            assert all((part == 0xFF).all() for part in around), f"{name}: written beyond its ends"


def run(
    emulated: Any, case: Case, gpu: Any, tier: str | None = None, edit: Any = None, rows: int | None = None
) -> dict[str, Any]:
    """Forward and, in training, backward: every array that they write, in float64.

    ``edit`` may change a plan before it runs. Inputs and the memory around every array are checked to be left alone.
    """
    T, N, D, H = case.steps, case.batch, case.directions, case.hidden
    storage = np.float32 if case.product in ("fma", "tf32") else np.uint16 if case.product == "bfloat16" else np.float16
    kept: dict[str, Any] = {"y": (T, N, D, H)}
    if case.training and SAVED[case.cell]:
        kept["gates"] = (T, N, D, SAVED[case.cell] * H)
    forward: dict[str, Any] = {"h_n": (D, N, H)}
    backward: dict[str, Any] = {"dgates": (T, N, D, WRITTEN[case.cell] * H), "dh0": (D, N, H)}
    if case.cell == "lstm":
        forward["c_n"], backward["dc0"] = (D, N, H), (D, N, H)
    memory = Guarded()
    for name, a in case.data.items():
        memory.put(name, a)
    if case.lengths is not None:
        memory.put("lengths", np.asarray(case.lengths, np.int32))
    inputs = {name: a.copy() for name, a in memory.arrays.items()}
    outputs = {**kept, **forward, **(backward if case.training else {})}
    for name, shape in outputs.items():
        memory.empty(name, shape, storage)
    if case.training and case.cell == "lstm":
        outputs["cells"] = (T, N, D, H)
        memory.empty("cells", outputs["cells"], np.float32)
    addresses = {name: a.ctypes.data for name, a in memory.arrays.items()}
    for is_backward in (False, True) if case.training else (False,):
        problem = emulated.Problem(emulated.Cell[case.cell], emulated.Product[case.product], is_backward, T, N, H, D)
        plan = emulated.make_plan(problem, gpu, None if tier is None else emulated.Tier[tier], rows)
        if edit is not None:
            edit(plan)
        scratch = memory.empty("scratch", (plan.scratch_bytes,), np.uint8, 256)
        emulated.bound({name: (a.ctypes.data, a.nbytes) for name, a in memory.arrays.items()})
        try:
            emulated.run(problem, plan, addresses, case.reverse, case.relu, scratch.ctypes.data, 0)
        finally:
            emulated.bound({})
        memory.check()
    for name, a in inputs.items():
        assert (memory.arrays[name].view(np.uint8) == a.view(np.uint8)).all(), f"{name}: an input was changed"
    return {name: values(memory.arrays[name]) for name in outputs}


def expected(case: Case) -> dict[str, Any]:
    """The same from the CPU kernels in float64, direction by direction; of dgates, what the caller makes of them."""
    G, H = GATES[case.cell], case.hidden
    data = {name: values(a) for name, a in case.data.items()}
    found: dict[str, list[Any]] = {}
    for d in range(case.directions):

        def of(name: str, d: int = d) -> Any:
            return data[name][d] if name in data else None

        bias = np.concatenate([np.zeros(2 * H), of("bias_hn")]) if "bias_hn" in data else None
        options: dict[str, Any] = {"reverse": bool(case.reverse >> d & 1), "lengths": case.lengths}
        if case.cell == "rnn":
            options["nonlinearity"] = "relu" if case.relu else "tanh"
        x = np.ascontiguousarray(data["gates_x"][:, :, d])
        y, h_n, *rest, reserve = getattr(fusedrnn, f"{case.cell}_forward")(
            x, of("h0"), *([of("c0")] if case.cell == "lstm" else []), np.eye(G * H), of("weight"),
            None if bias is None else np.zeros(3 * H), bias, **options,
        )  # fmt: skip
        results = {"y": y, "h_n": h_n}
        if rest:
            results["c_n"] = rest[0]
        if case.training:
            dy = np.ascontiguousarray(data["dy"][:, :, d]) if "dy" in data else None
            dc_n = [of("dc_n")] if case.cell == "lstm" else []
            g = getattr(fusedrnn, f"{case.cell}_backward")(dy, of("dh_n"), *dc_n, reserve)
            results.update(dx=g.dx, dh0=g.dh0, dweight=g.dweight_hh)
            if rest:
                results["dc0"] = g.dc0
            if bias is not None:
                results["dbias_hn"] = g.dbias_hh[2 * H :]
        for name, a in results.items():
            found.setdefault(name, []).append(a)
    at_time = ("y", "dx")
    return {name: np.stack(parts, 2 if name in at_time else 0) for name, parts in found.items()}


def recurrent(case: Case, dgates: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of the gradients that backward leaves behind, those of the recurrent product: G of them."""
    H = case.hidden
    return dgates if case.cell != "gru" else np.concatenate([dgates[..., : 2 * H], dgates[..., 3 * H :]], -1)


def derived(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    """What the caller of the kernels makes of them: dx, dweight, dbias_hn in place of dgates."""
    G, H = GATES[case.cell], case.hidden
    out = {name: a for name, a in results.items() if name not in ("dgates", "gates", "cells")}
    if not case.training:
        return out
    dgates = results["dgates"]
    out["dx"] = dgates[..., : G * H]
    sent = recurrent(case, dgates)
    dweight = np.zeros((case.directions, G * H, H))
    for d in range(case.directions):
        for n, length in enumerate(case.row_lengths):
            y = results["y"][:length, n, d][:: -1 if case.reverse >> d & 1 else 1]
            h0 = values(case.data["h0"])[d, n] if "h0" in case.data else np.zeros(H)
            h_prev = np.concatenate([h0[None], y[:-1]])[:length]
            dweight[d] += sent[:length, n, d][:: -1 if case.reverse >> d & 1 else 1].T @ h_prev
    out["dweight"] = dweight
    if "bias_hn" in case.data:
        out["dbias_hn"] = dgates[..., 3 * H :].sum((0, 1))
    return out


def wrong(case: Case, results: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """The largest errors beyond tolerance, relative to an array's largest value or 1; NaN where there is one."""
    found = derived(case, results)
    assert found.keys() == reference.keys()
    errors = {
        name: float(np.abs(found[name] - a).max(initial=0) / max(1.0, np.abs(a).max(initial=0)))
        for name, a in reference.items()
    }
    return {name: e for name, e in errors.items() if not e <= TOLERANCE[case.product]}
