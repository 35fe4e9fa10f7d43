"""Each value that the kernels wrote, computed again in float64 from the values that it came from.

What is rounded to the storage type on its way (h and the gates' gradients that go into a product, the gates and y that
backward reads) is taken from the kernels' own results, already rounded; so the tolerance is that of float32 whatever
the storage type. A stored number must be what float64 gives, give or take `TOLERANCE`, rounded to its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda.calls import Case, recurrent

# Of a value, relative to it or 1: float32's rounding in sums of up to some hundred terms, and in the formulas.
TOLERANCE = 3e-6

Array = np.ndarray[Any, Any]


def rounded(a: Array, product: str) -> Array:
    """To the storage type and back, NaN and infinity as they are."""
    if product == "bfloat16":
        bits = a.astype(np.float32).view(np.uint32).astype(np.uint64)
        near = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
        return np.where(np.isfinite(a), near, a).astype(np.float64)
    if product == "float16":
        with np.errstate(over="ignore"):
            return a.astype(np.float16).astype(np.float64)
    return a


def operand(a: Array, product: str) -> Array:
    """What the product makes of a stored number: TF32's ten bits of mantissa, ties away from zero."""
    if product != "tf32":
        return a
    bits = a.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32).astype(np.float64)


def sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


class Walk:
    """One direction of a pass: its arrays, and where a step lies in time."""

    def __init__(self, case: Case, data: dict[str, Array], results: dict[str, Array], d: int) -> None:
        self.case, self.H = case, case.hidden
        self.given = {
            name: a if name in ("lengths",) else a[:, :, d] if name in ("gates_x", "dy") else a[d]
            for name, a in data.items()
        }
        at_time = ("y", "gates", "cells", "dgates")
        self.found = {name: a[:, :, d] if name in at_time else a[d] for name, a in results.items()}
        self.reverse = bool(case.reverse >> d & 1)
        self.lengths = case.row_lengths
        self.weight = operand(self.given["weight"], case.product)
        self.off: dict[str, float] = {}

    def state(self, name: str) -> Array:
        return self.given.get(name, np.zeros((self.case.batch, self.H))).copy()

    def at(self, array: Array, s: int, rows: Array) -> Array:
        """Of these rows, in [T, N, ...], the step s of the walk."""
        return array[self.lengths[rows] - 1 - s if self.reverse else s, rows]

    def before(self, s: int, rows: Array) -> Array:
        return self.at(self.found["y"], s - 1, rows) if s > 0 else self.state("h0")[rows]

    def compare(self, name: str, found: Array, exact: Array, stored: bool = True) -> None:
        """Notes how far what was found is from any number that rounding may give."""
        product = self.case.product if stored else "fma"
        margin = TOLERANCE * np.maximum(1, np.abs(exact))
        with np.errstate(invalid="ignore"):
            low, high = rounded(exact - margin, product), rounded(exact + margin, product)
            off = np.maximum(np.maximum(low - found, found - high), 0)
        same = (found == exact) | (np.isnan(found) & np.isnan(exact))
        off = np.where(same, 0, np.where(np.isfinite(off), off, np.inf))
        self.off[name] = max(self.off.get(name, 0.0), float(off.max(initial=0)))

    def forward(self) -> None:
        case, H, found = self.case, self.H, self.found
        h, c = self.state("h0"), self.state("c0")
        for s in range(case.steps):
            rows = np.flatnonzero(s < self.lengths)
            past = np.flatnonzero(s >= self.lengths)
            self.compare("y", found["y"][s, past], np.zeros((len(past), H)))
            x = self.at(self.given["gates_x"], s, rows)
            sums = operand(self.before(s, rows), case.product) @ self.weight.T
            gates: tuple[Array, ...] = ()
            if case.cell == "rnn":
                h[rows] = np.maximum(x + sums, 0) if case.relu else np.tanh(x + sums)
            elif case.cell == "lstm":
                i, f, g, o = np.split(x + sums, 4, -1)
                i, f, g, o = gates = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
                c[rows] = f * c[rows] + i * g
                h[rows] = o * np.tanh(c[rows])
            else:
                n_h = sums[:, 2 * H :] + self.given.get("bias_hn", 0)
                r, z = sigmoid(x[:, :H] + sums[:, :H]), sigmoid(x[:, H : 2 * H] + sums[:, H : 2 * H])
                n = np.tanh(x[:, 2 * H :] + r * n_h)
                gates = r, z, n, n_h
                h[rows] = (1 - z) * n + z * h[rows]
            self.compare("y", self.at(found["y"], s, rows), h[rows])
            if "gates" in found:
                self.compare("gates", self.at(found["gates"], s, rows), np.concatenate(gates, -1))
            if "cells" in found:
                self.compare("cells", self.at(found["cells"], s, rows), c[rows], stored=False)
        self.compare("h_n", found["h_n"], h)
        if case.cell == "lstm":
            self.compare("c_n", found["c_n"], c)

    def backward(self) -> None:
        case, found = self.case, self.found
        dh, dc = self.state("dh_n"), self.state("dc_n")
        for s in reversed(range(case.steps)):
            rows, past = np.flatnonzero(s < self.lengths), np.flatnonzero(s >= self.lengths)
            self.compare("dgates", found["dgates"][s, past], np.zeros((len(past), found["dgates"].shape[-1])))
            total = dh[rows]
            if "dy" in self.given:
                total = total + self.at(self.given["dy"], s, rows)
            y = self.at(found["y"], s, rows)
            if case.cell == "rnn":
                carry, dgates = np.zeros_like(total), [total * (np.where(y > 0, 1, y * 0) if case.relu else 1 - y * y)]
            elif case.cell == "lstm":
                i, f, g, o = np.split(self.at(found["gates"], s, rows), 4, -1)
                c = self.at(found["cells"], s, rows)
                c_prev = self.at(found["cells"], s - 1, rows) if s > 0 else self.state("c0")[rows]
                t = np.tanh(c)
                d = dc[rows] + total * o * (1 - t * t)
                dgates = [d * g * i * (1 - i), d * c_prev * f * (1 - f), d * i * (1 - g * g), total * t * o * (1 - o)]
                carry, dc[rows] = np.zeros_like(total), d * f
            else:
                r, z, n, n_h = np.split(self.at(found["gates"], s, rows), 4, -1)
                dn = total * (1 - z) * (1 - n * n)
                dz = total * (self.before(s, rows) - n) * z * (1 - z)
                dgates = [dn * n_h * r * (1 - r), dz, dn, dn * r]
                carry = total * z
            written = self.at(found["dgates"], s, rows)
            self.compare("dgates", written, np.concatenate(dgates, -1))
            dh[rows] = carry + operand(recurrent(case, written), case.product) @ self.weight
        self.compare("dh0", found["dh0"], dh)
        if case.cell == "lstm":
            self.compare("dc0", found["dc0"], dc)


def wrong(case: Case, results: dict[str, Array], data: dict[str, Array]) -> dict[str, float]:
    """How far the arrays are off that do not follow from the others; data: the inputs' values."""
    off: dict[str, float] = {}
    for d in range(case.directions):
        walk = Walk(case, data, results, d)
        with np.errstate(invalid="ignore", over="ignore"):
            walk.forward()
            if case.training:
                walk.backward()
        off = {name: max(e, off.get(name, 0.0)) for name, e in walk.off.items()}
    return {name: e for name, e in off.items() if e > 0}
