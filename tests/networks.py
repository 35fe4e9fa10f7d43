"""The networks of `benchmarks/recurrences.py` at small sizes, and the published cells: steps, derivatives, arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.recurrences import NETWORKS, Case, draw
from fusedrnn.scan.derivative import Derivative, derive
from fusedrnn.scan.graph import Step
from fusedrnn.scan.tracing import Abstract, trace_step
from fusedrnn.scan.trees import flatten
from tests.test_cells_traced import VARIANTS, drawn, traced

SMALL = {
    "lstm": Case("lstm", T=4, N=3, I=4, H=6, dtype="float64"),
    "layer_norm_lstm": Case("layer_norm_lstm", T=3, N=3, I=4, H=7, dtype="float64"),
    "ntm": Case("ntm", T=3, N=3, I=9, H=10, slots=12, width=5, dtype="float64"),
    "dnc": Case("dnc", T=3, N=3, I=9, H=10, slots=7, width=5, heads=2, dtype="float64"),
    "attention": Case("attention", T=3, N=3, I=6, H=10, S=5, dtype="float64"),
}


class Drawn(NamedTuple):
    """A step and arrays (shared, rows, states, inputs) in float64, which float32 has too."""

    step: Step
    derivative: Derivative
    arrays: tuple[list[Any], ...]


def network(name: str, **sizes: int) -> Drawn:
    """One of `SMALL`, of other sizes where they are given."""
    case = Case(**{**vars(SMALL[name]), **sizes})
    a = draw(case)

    def abstract(tree: Any, lead: int) -> Any:
        if tree is None:
            return None
        leaves, structure = flatten(tree)
        return structure.pack([Abstract(leaf.shape[lead:], "real") for leaf in leaves])

    given = (a.p, 0), (a.state, 1), (a.x, 2), (a.context, 1)
    step = trace_step(NETWORKS[name].step, *(abstract(*each) for each in given)).step
    arrays = tuple([] if tree is None else flatten(tree)[0] for tree in (a.p, a.context, a.state, a.x))
    return Drawn(step, derive(step), arrays)


def cell(name: str, options: dict[str, Any]) -> Drawn:
    """One of the published cells."""
    made, state, x, _ = drawn(name, options)
    step = traced(made, state, x).step
    arrays = tuple([np.float32(leaf).astype(np.float64) for leaf in flatten(t)[0]] for t in (made.parameters, state, x))
    return Drawn(step, derive(step), (arrays[0], [], *arrays[1:]))


ALL: dict[str, Callable[[], Drawn]] = {
    **{name: lambda name=name: network(name) for name in SMALL},
    **{
        " ".join(["cell", name, *map(str, options.values())]): lambda name=name, options=options: cell(name, options)
        for name, options in VARIANTS
    },
}
