"""A pass of the CUDA kernels over the emulator, and the same in float64 on the CPU kernels.

Arrays are NumPy's. T steps, N rows, D directions, H units, G gates. The input's weights are the identity, so that x is
what the kernels call gates_x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fusedrnn

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
SAVED = {"rnn": 0, "lstm": 4, "gru": 4}
WRITTEN = {"rnn": 1, "lstm": 4, "gru": 4}
# Largest errors, relative to the largest value or 1. float32: the design's. Else rounding to the storage type, of 2^-9 and
# 2^-12, in y and gates and in all that comes from them, with a margin for the walk over steps: a bug is larger than that.
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
    """A problem and its data, drawn from a seed."""

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
        self.data = {name: stored(a, self.product) for name, a in d.items()}


def run(emulated: Any, case: Case, gpu: Any, tier: str | None = None, edit: Any = None) -> dict[str, Any]:
    """Forward and backward: every array that they write, in float64. ``edit`` may change a plan before it runs."""
    T, N, D, H = case.steps, case.batch, case.directions, case.hidden
    filler = np.float32 if case.product in ("fma", "tf32") else np.uint16 if case.product == "bfloat16" else np.float16

    def empty(*shape: int) -> np.ndarray[Any, Any]:
        a = np.empty(shape, filler)
        a.view(np.uint8)[...] = 0xFF  # NaN: what is not written shows
        return a

    kept: dict[str, Any] = {"y": empty(T, N, D, H)}
    if SAVED[case.cell]:
        kept["gates"] = empty(T, N, D, SAVED[case.cell] * H)
    forward: dict[str, Any] = {"h_n": empty(D, N, H)}
    backward: dict[str, Any] = {"dgates": empty(T, N, D, WRITTEN[case.cell] * H), "dh0": empty(D, N, H)}
    if case.cell == "lstm":
        kept["cells"] = np.full((T, N, D, H), np.nan, np.float32)
        forward["c_n"], backward["dc0"] = empty(D, N, H), empty(D, N, H)
    shared = {} if case.lengths is None else {"lengths": np.asarray(case.lengths, np.int32)}
    for is_backward, results in ((False, forward), (True, backward)):
        problem = emulated.Problem(
            emulated.Cell[case.cell], emulated.Product[case.product], is_backward, T, N, H, D
        )
        plan = emulated.make_plan(problem, gpu, None if tier is None else emulated.Tier[tier])
        if edit is not None:
            edit(plan)
        scratch = np.full(plan.scratch_bytes + 256, 0xFF, np.uint8)
        arrays = {**case.data, **kept, **results, **shared}
        emulated.run(
            problem, plan, {name: a.ctypes.data for name, a in arrays.items()}, case.reverse, case.relu,
            scratch.ctypes.data + -scratch.ctypes.data % 256, 0,
        )  # fmt: skip
    return {name: values(a) for name, a in {**kept, **forward, **backward}.items()}


def expected(case: Case) -> dict[str, Any]:
    """The same from the CPU kernels in float64, direction by direction."""
    G, H = GATES[case.cell], case.hidden
    data = {name: values(a) for name, a in case.data.items()}
    found: dict[str, list[Any]] = {}
    for d in range(case.directions):
        c0 = [None if "c0" not in data else data["c0"][d]] if case.cell == "lstm" else []
        bias = None
        if case.cell == "gru":
            bias = np.concatenate([np.zeros(2 * H), data["bias_hn"][d]])
        options: dict[str, Any] = {"reverse": bool(case.reverse >> d & 1), "lengths": case.lengths}
        if case.cell == "rnn":
            options["nonlinearity"] = "relu" if case.relu else "tanh"
        x = np.ascontiguousarray(data["gates_x"][:, :, d])
        y, h_n, *rest, reserve = getattr(fusedrnn, f"{case.cell}_forward")(
            x, None if "h0" not in data else data["h0"][d], *c0, np.eye(G * H), data["weight"][d],
            None if bias is None else np.zeros(3 * H), bias, **options,
        )  # fmt: skip
        dc_n = [data["dc_n"][d]] if case.cell == "lstm" else []
        g = getattr(fusedrnn, f"{case.cell}_backward")(
            np.ascontiguousarray(data["dy"][:, :, d]), data["dh_n"][d], *dc_n, reserve
        )
        results = {"y": y, "h_n": h_n, "dx": g.dx, "dh0": g.dh0, "dweight": g.dweight_hh}
        if rest:
            results.update(c_n=rest[0], dc0=g.dc0)
        if bias is not None:
            results["dbias_hn"] = g.dbias_hh[2 * H :]
        for name, a in results.items():
            found.setdefault(name, []).append(a)
    at_time = ("y", "dx")
    return {name: np.stack(parts, 2 if name in at_time else 0) for name, parts in found.items()}


def derived(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    """What the caller of the kernels makes of them: dx, dweight, dbias_hn in place of dgates."""
    G, H, T, N = GATES[case.cell], case.hidden, case.steps, case.batch
    out = {name: a for name, a in results.items() if name not in ("dgates", "gates", "cells")}
    dgates = results["dgates"]
    out["dx"] = dgates[..., : G * H]
    recurrent = dgates if case.cell != "gru" else np.concatenate([dgates[..., : 2 * H], dgates[..., 3 * H :]], -1)
    lengths = np.full(N, T) if case.lengths is None else np.asarray(case.lengths)
    h0 = values(case.data["h0"]) if case.states else np.zeros((case.directions, N, H))
    dweight = np.zeros((case.directions, G * H, H))
    for d in range(case.directions):
        reverse = case.reverse >> d & 1
        for n in range(N):
            for t in range(lengths[n]):
                before = t + 1 if reverse else t - 1
                h_prev = results["y"][before, n, d] if 0 <= before < lengths[n] else h0[d, n]
                dweight[d] += np.outer(recurrent[t, n, d], h_prev)
    out["dweight"] = dweight
    if case.cell == "gru":
        out["dbias_hn"] = dgates[..., 3 * H :].sum((0, 1))
    return out


def errors(case: Case, results: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """The largest error of each array, relative to the largest value or 1; NaN where there is one."""
    found = derived(case, results)
    assert found.keys() == reference.keys()
    return {
        name: float(np.abs(found[name] - a).max() / max(1.0, np.abs(a).max())) for name, a in reference.items()
    }


def wrong(case: Case, results: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """The errors beyond tolerance."""
    return {n: e for n, e in errors(case, results, reference).items() if not e <= TOLERANCE[case.product]}
