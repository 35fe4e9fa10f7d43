"""A layer on a GPU in one or two directions, forward beside backward.

The kernels walk time for both directions in one launch. The products that need no order, of x, of the weights'
gradients and of dx, are the array library's, before and after.

T steps, N rows, D directions, I inputs, H units, G gates (RNN 1, LSTM 4, GRU 3). Both directions lie side by side:
y is [T, N, D * H].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from fusedrnn.cuda import compiled
from fusedrnn.cuda.arrays import Library

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
_SAVED = {"rnn": 0, "lstm": 4, "gru": 4}  # values of a unit and step that backward reads
_WRITTEN = {"rnn": 1, "lstm": 4, "gru": 4}  # and writes: of the GRU's W_hn h + b_hn its own
_ALIGNMENT = 256  # of scratch memory

forced_tier: str | None = None  # in which all plans are made, for tests; the planner's choice without


class Weights(NamedTuple):
    """Of one direction: [GH, I], [GH, H], and [GH] or None; or their gradients; or whether these are wanted."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any = None
    bias_hh: Any = None


@dataclass(frozen=True)
class Layer:
    """What a call is, but for its arrays. ``reverse`` has one for each direction: whether it walks from the end."""

    cell: str
    reverse: tuple[bool, ...] = (False,)
    relu: bool = False  # of the RNN, in place of tanh

    @property
    def states(self) -> int:
        return 2 if self.cell == "lstm" else 1


class Outputs(NamedTuple):
    """y [T, N, D * H], h_n and c_n (of an LSTM) [D, N, H], and the arrays that backward needs, by name; None without
    training."""

    y: Any
    h_n: Any
    c_n: Any
    kept: dict[str, Any] | None


class Gradients(NamedTuple):
    """dx [T, N, I] or None, dh0 and dc0 (of an LSTM) [D, N, H], and those of each direction's weights."""

    dx: Any
    dh0: Any
    dc0: Any
    weights: tuple[Weights, ...]


def forward(
    library: Library,
    layer: Layer,
    x: Any,
    h0: Any,
    c0: Any,
    weights: Sequence[Weights],
    lengths: Any = None,
    training: bool = True,
) -> Outputs:
    """Arrays are contiguous, of one dtype, on one GPU.

    Args:
        x: [T, N, I]. h0, c0: [D, N, H] or None.
        weights: of each direction. lengths: int32 [N], from 0 to T, on the GPU, or None.
    """
    T, N, I = x.shape  # noqa: E741
    D, G = len(weights), GATES[layer.cell]
    H = weights[0].weight_hh.shape[1]
    weight_ih = library.concatenate([w.weight_ih for w in weights]) if D > 1 else weights[0].weight_ih
    weight_hh = library.concatenate([w.weight_hh for w in weights]) if D > 1 else weights[0].weight_hh
    bias, bias_hn = _biases(library, layer.cell, weights, H)
    arrays = {
        "gates_x": library.linear(x.reshape(T * N, I), weight_ih, bias), "weight": weight_hh, "bias_hn": bias_hn,
        "h0": h0, "c0": c0, "lengths": lengths,
        "y": library.empty((T, N, D * H), x), "h_n": library.empty((D, N, H), x),
    }  # fmt: skip
    if layer.cell == "lstm":
        arrays["c_n"] = library.empty((D, N, H), x)
    if training and _SAVED[layer.cell]:
        arrays["gates"] = library.empty((T, N, D, _SAVED[layer.cell] * H), x)
    if training and layer.cell == "lstm":
        arrays["cells"] = library.empty((T, N, D, H), x, "float32")
    _run(library, layer, False, (T, N, H, D), arrays)
    assert arrays["gates_x"].shape == (T * N, D * G * H)
    kept = None
    if training:
        names = ("h0", "c0", "lengths", "y", "gates", "cells")
        kept = {"x": x, "weight_ih": weight_ih, "weight_hh": weight_hh, **{n: arrays.get(n) for n in names}}
    return Outputs(arrays["y"], arrays["h_n"], arrays.get("c_n"), kept)


def backward(
    library: Library,
    layer: Layer,
    kept: dict[str, Any],
    wanted: Sequence[Weights],
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    input_grad: bool = True,
) -> Gradients:
    """The same bits each time.

    Args:
        wanted: of each direction; a gradient that is not is None, and not computed.
        dy: [T, N, D * H]. dh_n, dc_n: [D, N, H]. Any may be None.
    """
    x, D = kept["x"], len(layer.reverse)
    T, N, DH = kept["y"].shape
    H = DH // D
    W = _WRITTEN[layer.cell] * H
    arrays = {
        **{name: kept[name] for name in ("h0", "c0", "lengths", "y", "gates", "cells")}, "weight": kept["weight_hh"],
        "dy": dy, "dh_n": dh_n, "dc_n": dc_n, "dgates": library.empty((T, N, D, W), x),
        "dh0": library.empty((D, N, H), x),
    }  # fmt: skip
    if layer.cell == "lstm":
        arrays["dc0"] = library.empty((D, N, H), x)
    _run(library, layer, True, (T, N, H, D), arrays)

    inputs = x.reshape(T * N, x.shape[2])
    rows = GATES[layer.cell] * H
    dx, weights = None, []
    for d in range(D):
        dgates = arrays["dgates"][:, :, d]
        dgates_x = dgates.reshape(T * N, W)[:, :rows]
        if input_grad:
            product = dgates_x @ kept["weight_ih"][d * rows : (d + 1) * rows]
            dx = product if dx is None else dx + product
        weights.append(
            Weights(
                dgates_x.T @ inputs if wanted[d].weight_ih else None,
                _recurrent_gradient(library, layer, kept, d, dgates) if wanted[d].weight_hh else None,
                *_bias_gradients(library, layer.cell, wanted[d], dgates.reshape(T * N, W), H),
            )
        )
    return Gradients(None if dx is None else dx.reshape(x.shape), arrays["dh0"], arrays.get("dc0"), tuple(weights))


def _biases(library: Library, cell: str, weights: Sequence[Weights], H: int) -> tuple[Any, Any]:
    """What is added to the product of x [D * GH], and the GRU's bias_hn [D * H]; None where there is none."""
    with_x = 2 * H if cell == "gru" else GATES[cell] * H  # rows of bias_hh that are added where bias_ih is
    sums, of_n = [], []
    for w in weights:
        if w.bias_ih is None and w.bias_hh is None:
            continue
        like = w.bias_hh if w.bias_ih is None else w.bias_ih
        total = 0 * like if w.bias_ih is None else 1 * like
        if w.bias_hh is not None:
            total[:with_x] += w.bias_hh[:with_x]
            of_n.append(w.bias_hh[with_x:])
        elif cell == "gru":
            of_n.append(0 * like[with_x:])
        sums.append(total)
    if not sums:
        return None, None
    if len(sums) == 1:
        return sums[0], of_n[0] if cell == "gru" else None
    return library.concatenate(sums), library.concatenate(of_n) if cell == "gru" else None


def _recurrent_parts(cell: str, H: int) -> list[slice]:
    """The columns of dgates that belong to weight_hh's rows, in their order."""
    return [slice(0, 2 * H), slice(3 * H, 4 * H)] if cell == "gru" else [slice(0, GATES[cell] * H)]


def _recurrent_gradient(library: Library, layer: Layer, kept: dict[str, Any], d: int, dgates: Any) -> Any:
    """That of direction d's weight_hh [GH, H], of dgates [T, N, WH]."""
    T, N, DH = kept["y"].shape
    D = len(layer.reverse)
    H = DH // D
    y = kept["y"].reshape(T, N, D, H)[:, :, d]
    h0 = None if kept["h0"] is None else kept["h0"][d]
    products = [
        _recurrent_product(library, dgates[..., part], y, h0, layer.reverse[d], kept["lengths"])
        for part in _recurrent_parts(layer.cell, H)
    ]
    return products[0] if len(products) == 1 else library.concatenate(products)


def _recurrent_product(library: Library, dgates: Any, y: Any, h0: Any, reverse: bool, lengths: Any) -> Any:
    """The sum over all steps of dgates [T, N, R] times h before the step, [R, H]. dgates and y [T, N, H] are zero past
    a row's end, so its last step meets no h but h0 in the reverse direction."""
    T, N, R = dgates.shape
    H = y.shape[2]
    total = None
    if T > 1:
        later, earlier = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        rows = (T - 1) * N
        total = dgates[later].reshape(rows, R).T @ y[earlier].reshape(rows, H)
    if h0 is not None:
        if not reverse:
            first = dgates[0]
        else:
            first = dgates[T - 1] if lengths is None else library.last_rows(dgates, lengths)
        product = first.T @ h0
        total = product if total is None else total + product
    return dgates[0].T @ (0 * y[0]) if total is None else total


def _bias_gradients(library: Library, cell: str, wanted: Weights, dgates: Any, H: int) -> tuple[Any, Any]:
    """Those of bias_ih and bias_hh, of dgates [T * N, WH]; no two share memory."""
    if not (wanted.bias_ih or wanted.bias_hh):
        return None, None
    total = library.total(dgates)
    dbias_ih = total[: GATES[cell] * H] if wanted.bias_ih else None
    dbias_hh = library.concatenate([total[part] for part in _recurrent_parts(cell, H)]) if wanted.bias_hh else None
    return dbias_ih, dbias_hh


def _run(
    library: Library, layer: Layer, backward: bool, shape: tuple[int, int, int, int], arrays: dict[str, Any]
) -> None:
    """The kernels of one pass, on the library's current stream."""
    _, N, _, _ = shape
    if N == 0:
        return
    like = arrays["y"]
    product = {"float32": "tf32" if compiled.tf32_allowed() else "fma"}.get(library.dtype(like), library.dtype(like))
    problem, plan = _planned(layer.cell, product, backward, shape, library.ordinal(like), forced_tier)
    scratch = library.empty((plan.scratch_bytes + _ALIGNMENT,), like, "uint8")
    start = library.address(scratch)
    addresses = {name: library.address(a) for name, a in arrays.items() if a is not None}
    reverse = sum(1 << d for d, backwards in enumerate(layer.reverse) if backwards)
    with library.stream(like) as stream:
        compiled.module().run(
            problem, plan, addresses, reverse, layer.relu, start + -start % _ALIGNMENT, stream
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _planned(
    cell: str, product: str, backward: bool, shape: tuple[int, int, int, int], ordinal: int, tier: str | None
) -> Any:
    module = compiled.require()
    problem = module.Problem(module.Cell[cell], module.Product[product], backward, *shape)
    return problem, module.make_plan(problem, compiled.gpu(ordinal), None if tier is None else module.Tier[tier])
