"""Forward mode, Hessian-vector products and gradients by row for scans, by the kernels of their second derivatives.

What `scan_backward` gives is linear in the gradients of the outputs; so the gradient, with respect to those, of its
product with a direction is the derivative of the outputs along that direction.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.differentiation.dual import Dual, tangent_of, value_of
from fusedrnn.differentiation.pair import bound
from fusedrnn.differentiation.trees import is_real, map_leaves
from fusedrnn.functional.scan import ScanGradients, ScanReserve, packed_gradients, result_gradients, scan_backward
from fusedrnn.functional.scan import scan_forward as scan
from fusedrnn.functional.scan_second import scan_double_backward
from fusedrnn.nn.scan import Scan, leaves_of
from fusedrnn.nn.scan_trees import added, halves, joined, swapped

_ROLES = ("params", "state", "x", "context", "reset_state")


def is_scan(forward: Any) -> bool:
    """Whether it is ``scan_forward``, it with some arguments given by ``functools.partial``, or a layer of a scan."""
    return isinstance(forward, Scan) or _function(forward) is scan


def _function(forward: Any) -> Any:
    while isinstance(forward, functools.partial):
        forward = forward.func
    return forward


class _Function:
    """A call of ``scan_forward``; gradients as it has them."""

    def __init__(self, forward: Callable[..., Any], arguments: Any, options: Mapping[str, Any]) -> None:
        given = bound(forward, arguments, options)
        self.names = {name for name in given if name in _ROLES}
        if not given.get("training", True):
            raise ValueError("training: expected True, as derivatives need the reserve, got False")
        y, state_n, self.reserve = forward(**given)
        self.outputs = (y, state_n)

    def tangents(self, directions: Mapping[str, Any]) -> tuple[Any, ...]:
        return scan_double_backward(self._along(directions), None, None, self.reserve, name="directions.")[:2]

    def gradients(self, doutputs: tuple[Any, Any]) -> Any:
        dy, dstate_n = doutputs
        return scan_backward(dy, dstate_n, self.reserve)

    def products(self, directions: Mapping[str, Any], doutputs: tuple[Any, Any]) -> Any:
        dy, dstate_n = doutputs
        return scan_double_backward(self._along(directions), dy, dstate_n, self.reserve, name="directions.")[2]

    def _along(self, directions: Mapping[str, Any]) -> ScanGradients:
        return ScanGradients(*(_contiguous(directions.get(role)) for role in _ROLES))


class _Layer:
    """The last call of a layer; gradients by the names of its arguments and parameters."""

    def __init__(self, layer: Scan) -> None:
        self.layer = layer
        self.reserves, self.learned, _, self.swap = layer._saved[-1]
        self.packed = self.reserves[0].packing is not None
        self.names = set(layer._table)
        self.outputs: Any = None

    @classmethod
    def called(cls, layer: Scan, arguments: Any, options: Mapping[str, Any]) -> _Layer:
        """A call of a copy of the layer, which stays as it is."""
        given = bound(layer.forward, arguments, options)
        if not layer.training:
            raise ValueError("training: expected a layer in training mode, got one after eval()")
        layer = copy.deepcopy(layer)
        outputs = layer(**given)
        call = cls(layer)
        call.outputs = outputs
        call.names |= {"x", "state", "context"} & given.keys()
        return call

    def tangents(self, directions: Mapping[str, Any]) -> tuple[Any, ...]:
        found = [
            scan_double_backward(self._along(directions, k), None, None, reserve, name="directions.")
            for k, reserve in enumerate(self.reserves)
        ]
        ys = [each[0] for each in found]
        y = joined(ys, 1 if self.packed else 2) if self.layer.bidirectional else ys[0]
        states = tuple(each[1] for each in found)
        return (swapped(y) if self.swap else y), (states if self.layer.bidirectional else states[0])

    def gradients(self, doutputs: tuple[Any, Any]) -> dict[str, Any]:
        parts = self._parts(doutputs)
        return self._named([scan_backward(*part, r) for part, r in zip(parts, self.reserves, strict=True)])

    def products(self, directions: Mapping[str, Any], doutputs: tuple[Any, Any]) -> dict[str, Any]:
        parts = zip(self._parts(doutputs), self.reserves, strict=True)
        return self._named(
            [
                scan_double_backward(self._along(directions, k), *part, r, name="directions.")[2]
                for k, (part, r) in enumerate(parts)
            ]
        )

    def by_row(self, doutputs: tuple[Any, Any], *, input_grad: bool) -> dict[str, Any]:
        parts = zip(self._parts(doutputs), self.reserves, strict=True)
        found = [gradients_by_row(r, *part, input_grad=input_grad) for part, r in parts]
        return self._named(found, by_row=True)

    def _parts(self, doutputs: tuple[Any, Any]) -> list[tuple[Any, Any]]:
        dy, dstate_n = doutputs
        if self.swap and dy is not None:
            dy = swapped(dy)
        last = self.layer._pair("dstate_n", dstate_n)
        return list(zip(halves(dy) if self.layer.bidirectional else (dy,), last, strict=True))

    def _along(self, directions: Mapping[str, Any], k: int) -> ScanGradients:
        layer, rows = self.layer, self.reserves[k].kept.run.batch
        x, context = directions.get("x"), directions.get("context")
        of_state = None
        if layer.learned_state:
            values = (None if name is None else directions.get(name) for name in layer._state_names[k])
            of_state = layer._state_structure.pack(
                [None if v is None else np.repeat(np.asarray(v)[None], rows, axis=0) for v in values]
            )
        params = layer._parameters.pack([directions.get(name) for name in layer._names[k]])
        given = of_state if self.learned[k] else layer._pair("state", directions.get("state"))[k]
        resets = self.reserves[k].program.structures["reset_state"].size
        return ScanGradients(
            _contiguous(params),
            _contiguous(given),
            swapped(x) if self.swap and x is not None else _contiguous(x),
            _contiguous(context),
            of_state if resets else None,
        )

    def _named(self, found: Sequence[ScanGradients], *, by_row: bool = False) -> dict[str, Any]:
        layer = self.layer
        dx = added([each.dx for each in found])
        dstates = tuple(each.dstate for each in found)
        named = {
            "x": swapped(dx) if self.swap else dx,
            "state": dstates if layer.bidirectional else dstates[0],
            "context": added([each.dcontext for each in found]),
        }
        for k, each in enumerate(found):
            named.update(zip(layer._names[k], leaves_of(layer._parameters, each.dparams), strict=True))
            for source in (each.dstate if self.learned[k] else None, each.dreset_state):
                if source is None or not layer.learned_state:
                    continue
                for name, leaf in zip(layer._state_names[k], leaves_of(layer._state_structure, source), strict=True):
                    if name is not None:
                        part = leaf if by_row else leaf.sum(axis=0)
                        named[name] = named[name] + part if name in named else part
        return {name: value for name, value in named.items() if value is not None}


def _call(forward: Any, arguments: Any, options: Mapping[str, Any]) -> _Function | _Layer:
    kind: Any = _Layer.called if isinstance(forward, Scan) else _Function
    call: _Function | _Layer = kind(forward, arguments, options)
    return call


def layer_by_row(layer: Scan, dy: Any, dstate_n: Any, *, input_grad: bool = True) -> tuple[Any, Any, dict[str, Any]]:
    """(dx, gradient of the first state, those of parameters [N, ...] by name) of the layer's last call, taken back."""
    if not layer._saved:
        layer._pop()
    found = _Layer(layer).by_row((dy, dstate_n), input_grad=input_grad)
    layer._pop()
    return found.get("x"), found.get("state"), {name: found[name] for name in layer._table if name in found}


def _directions(call: _Function | _Layer, forward: Any, directions: Any) -> Mapping[str, Any]:
    if not isinstance(directions, Mapping):
        directions = bound(forward.forward if isinstance(forward, Scan) else forward, directions, {})
    unknown = {name for name, value in directions.items() if value is not None} - call.names
    if unknown:
        raise ValueError(f"directions: expected names among {sorted(call.names)}, got {sorted(unknown)}")
    found: Mapping[str, Any] = directions
    return found


def jvp(
    forward: Any, arguments: Any, directions: Any, options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """``fusedrnn.jvp`` of a scan."""
    call = _call(forward, arguments, options)
    return tuple(call.outputs), call.tangents(_directions(call, forward, directions))


def hessian_vector_product(
    forward: Any, arguments: Any, doutputs: Any, directions: Any, options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """``fusedrnn.hessian_vector_product`` of a scan."""
    call = _call(forward, arguments, options)
    along = _directions(call, forward, directions)
    given = doutputs
    if callable(doutputs):
        tangents = call.tangents(along)
        given = doutputs(*map_leaves(_dual, tuple(call.outputs), tangents))
    if len(given) != 2:
        raise ValueError(f"doutputs: expected 2 gradients or None, got {len(given)}")
    values = _contiguous(map_leaves(value_of, tuple(given)))
    gradients, products = call.gradients(values), call.products(along, values)
    if callable(doutputs):  # the gradients of the outputs move too
        through = call.gradients(_contiguous(map_leaves(tangent_of, tuple(given))))
        products = map_leaves(np.add, products, through)
    return gradients, products


def _dual(value: Any, tangent: Any) -> Any:
    return Dual(value, tangent) if is_real(value) else value


def _contiguous(tree: Any) -> Any:
    return map_leaves(lambda leaf: np.ascontiguousarray(leaf) if np.ndim(leaf) else leaf, tree)


def gradients_by_row(reserve: ScanReserve, dy: Any, dstate_n: Any, *, input_grad: bool = True) -> ScanGradients:
    """``scan_backward`` in which the gradients of parameters have an axis N: forward and backward of each row alone."""
    reserve.check()
    program, run, walk = reserve.program, reserve.kept.run, reserve.walk
    executable = program.executable
    shared, rows, states, inputs = reserve.kept.arrays
    dstates, doutputs = result_gradients(dy, dstate_n, reserve)
    places, derivative = program.recurrence.step, program.derivative

    def room(lead: tuple[int, ...], leaves: Sequence[Any], wanted: Sequence[int | None]) -> list[Array]:
        return [
            np.zeros(lead + leaf.shape, program.dtype)
            for leaf, place in zip(leaves, wanted, strict=True)
            if place is not None
        ]

    batch = (run.batch,)
    found = (
        room(batch, places.states, derivative.states),
        room((run.steps, *batch), places.inputs, derivative.inputs),
        room(batch, places.rows, derivative.rows),
        room(batch, places.shared, derivative.shared),
    )
    for n in range(run.batch):
        length = run.steps if walk["lengths"] is None else int(walk["lengths"][n])
        steps, own = max(length, 1), slice(n, n + 1)

        def of_steps(arrays: Sequence[Any], steps: int = steps, own: slice = own) -> list[Any]:
            return [None if a is None else np.ascontiguousarray(a[:steps, own]) for a in arrays]

        alone = {**walk, "row_offset": walk["row_offset"] + n, "lengths": None if length else np.zeros(1, np.int64)}
        *_, kept = executable.forward(
            shared, [a[own] for a in rows], [a[own] for a in states], of_steps(inputs), steps=steps, batch=1,
            dtype=program.dtype, **alone,
        )  # fmt: skip
        assert kept is not None
        result = executable.backward(kept, [None if a is None else a[own] for a in dstates], of_steps(doutputs))
        for whole, part in zip(found[0] + found[2], result[0] + result[2], strict=True):
            whole[own] = part
        for whole, part in zip(found[1], result[1], strict=True):
            whole[:steps, own] = part
        for whole, part in zip(found[3], result[3], strict=True):
            whole[n] = part
    return packed_gradients(reserve, *found, input_grad=input_grad)
