"""One step of the LSTM and of the GRU: the only text of their equations.

The reference runs it in NumPy over rows [N, ...], the adapters in PyTorch's and JAX's operators, and
`fusedrnn.scan` traces it for one row. What libraries name differently comes in as functions: activations, products,
and ``split(a, n)``, which cuts the last axis into n equal parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Function: TypeAlias = Callable[[Any], Any]
Split: TypeAlias = Callable[[Any, int], Sequence[Any]]
split: Split = partial(np.split, axis=-1)  # NumPy's, and a traced step's


class LstmStep(NamedTuple):
    """All that a step of the LSTM computes.

    Attributes:
        h, c: The new states, before zoneout.
        i, f, g, o: The gates after activation.
        uncut: f c + i g, of which cell_clip makes the new c.
        b: What o multiplies.
    """

    h: Any
    c: Any
    i: Any
    f: Any
    g: Any
    o: Any
    uncut: Any
    b: Any


def lstm_step(
    a: Any,
    c: Any,
    activations: Sequence[Function],
    split: Split,
    *,
    coupled: bool = False,
    peephole: Any = None,
    clip: Function | None = None,
    normalize: Function | None = None,
    project: Function | None = None,
) -> LstmStep:
    """Compute a step from a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh [..., G*H] and the previous c [..., H].

    Args:
        activations: Of the gates, the cell and the output.
        coupled: f = 1 - i, and a has no part for f.
        peephole: [3, H]: i and f see the previous c, o the new one.
        clip: Cuts the new c.
        normalize: Layer normalization of the c that the output sees.
        project: W_hr times h.
    """
    gate, cell, output = activations
    a_i, *a_f, a_g, a_o = split(a, 3 if coupled else 4)  # a_f: one, or none
    if peephole is not None:
        a_i = a_i + peephole[0] * c
        a_f = [each + peephole[1] * c for each in a_f]
    i, g = gate(a_i), cell(a_g)
    f = 1 - i if coupled else gate(a_f[0])
    uncut = f * c + i * g
    c = uncut if clip is None else clip(uncut)
    if peephole is not None:
        a_o = a_o + peephole[2] * c
    o, b = gate(a_o), output(c if normalize is None else normalize(c))
    h = o * b
    return LstmStep(h if project is None else project(h), c, i, f, g, o, uncut, b)


class GruStep(NamedTuple):
    """All that a step of the GRU computes.

    Attributes:
        h: The new state, before zoneout.
        r, z, n: The gates after activation.
        s: What r multiplies, W_hn h + b_hn; with the reset before the product, r h, which W_hn multiplies.
    """

    h: Any
    r: Any
    z: Any
    n: Any
    s: Any


def gru_step(
    a: Any,
    seen: Any,
    h: Any,
    activations: Sequence[Function],
    split: Split,
    product: Function,
    product_n: Function | None = None,
) -> GruStep:
    """Compute a step from a = W_ih x_t + b_ih [..., 3H] and the previous h [..., H].

    Args:
        seen: h as the products see it, after recurrent dropout.
        activations: Of the gates and the candidate.
        product: W_hh v + b_hh of all three gates; with ``product_n`` of r and z alone.
        product_n: W_hn v + b_hn, of the reset h: the reset stands before the product.
    """
    gate, candidate = activations
    x_r, x_z, x_n = split(a, 3)
    h_r, h_z, *h_n = split(product(seen), 3 if product_n is None else 2)
    r, z = gate(x_r + h_r), gate(x_z + h_z)
    s = h_n[0] if product_n is None else r * seen
    n = candidate(x_n + (r * s if product_n is None else product_n(s)))
    return GruStep((1 - z) * n + z * h, r, z, n, s)
