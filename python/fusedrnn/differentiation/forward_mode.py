"""Jacobian-vector and Hessian-vector products, by dual numbers through the NumPy reference.

Exact to rounding and as slow as the reference. ``forward`` is a function of ``fusedrnn.functional`` or its like of
``fusedrnn.reference``, with any of its options; the products are always the reference's. Those of ``scan_forward``
(or a ``functools.partial`` of it) and of ``nn.Scan`` come from the kernels of second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fusedrnn import reference
from fusedrnn.arrays import Array
from fusedrnn.differentiation import scans
from fusedrnn.differentiation.dual import Dual, tangent_of, value_of
from fusedrnn.differentiation.pair import Pair, bound
from fusedrnn.differentiation.trees import is_real, map_leaves


def _along(argument: str, value: Any, direction: Any) -> Any:
    """The argument with its arrays of real numbers made dual; a direction that is None is zero."""

    def dual(leaf: Any, tangent: Any) -> Any:
        if not is_real(leaf):
            raise TypeError(f"{argument}: expected no direction, as it has no derivative, got one")
        tangent = np.asarray(tangent, leaf.dtype)
        if tangent.shape != leaf.shape:
            raise ValueError(f"{argument}: expected a direction of shape {leaf.shape}, got {tangent.shape}")
        return Dual(leaf, tangent)

    if direction is None:
        return map_leaves(lambda leaf: Dual(leaf, np.zeros_like(leaf)) if is_real(leaf) else leaf, value)
    if value is None:
        raise ValueError(f"{argument}: expected no direction, as the argument is None, got one")
    if isinstance(value, (tuple, list)):
        members = [_along(f"{argument}[{k}]", v, d) for k, (v, d) in enumerate(zip(value, direction, strict=True))]
        return type(value)(members)
    return dual(value, direction)


def _prepared(
    forward: Callable[..., Any], arguments: Any, directions: Any, options: Mapping[str, Any]
) -> tuple[Pair, dict[str, Any]]:
    """The reference's pair for ``forward``, and its arguments, dual."""
    given = bound(forward, arguments, options)
    if not isinstance(directions, Mapping):
        directions = bound(forward, directions, {})
    unknown = directions.keys() - given.keys()
    if unknown:
        raise ValueError(f"directions: expected names among {sorted(given)}, got {sorted(unknown)}")
    specification = getattr(reference, getattr(forward, "__name__", ""), forward)
    if specification is not forward:
        forward(**given)  # the compiled function checks its arguments, the reference does not
    return Pair.of(specification), {name: _along(name, v, directions.get(name)) for name, v in given.items()}


def jvp(
    forward: Callable[..., Any], arguments: Any, directions: Any, **options: Any
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Jacobian-vector product: the outputs of ``forward`` and how fast they change along a direction.

    Args:
        forward: ``lstm_forward`` and its like, ``scan_forward``, or a layer of ``nn.Scan`` in training mode, whose
            parameters may have a direction by their names.
        arguments: its arguments, a tuple in order or a mapping by name.
        directions: one array for each real argument, of its shape; a tuple as ``arguments``, or a mapping by name in
            which options may stand too. None, or a name left out, is zero.
        options: keyword options of ``forward``, passed on; those that hold arrays may have a direction.

    Returns:
        (y, h_n, ...) without the reserve, and their derivatives along the direction, shaped alike.

    Raises:
        TypeError, ValueError: as ``forward``, before any work; a direction of another shape, or for something that
        has no derivative.
    """
    if scans.is_scan(forward):
        return scans.jvp(forward, arguments, directions, options)
    pair, dual = _prepared(forward, arguments, directions, options)
    outputs, _ = pair.outputs(dual)
    return tuple(map_leaves(value_of, outputs)), tuple(map_leaves(tangent_of, outputs))


def hessian_vector_product(
    forward: Callable[..., Any], arguments: Any, doutputs: Any, directions: Any, **options: Any
) -> tuple[Any, Any]:
    """Product of a loss's Hessian, over all arguments of ``forward`` together, with a vector (Pearlmutter 1994).

    The derivative of the gradients along a direction: forward mode over backward.

    Args:
        forward, arguments, directions, options: as ``jvp``; the vector is ``directions``.
        doutputs: the loss, by its gradient. A tuple (dy, dh_n, ...), each shaped as that output or None, means
            sum(dy * y) + sum(dh_n * h_n) + ... A function of (y, h_n, ...) that returns such a tuple means any loss
            with that gradient; it is called with dual arrays (``fusedrnn.differentiation.dual``), so write it in
            NumPy: ``lambda y, h_n, c_n: (2 * y, None, None)`` for sum(y ** 2).

    Returns:
        The gradients as backward gives them, and the products, in the same named tuple: ``products.dx`` is x's part
        of the Hessian times the vector. Of a layer both are dicts, by arguments and parameters.

    Raises:
        TypeError, ValueError: as ``jvp``.
    """
    if scans.is_scan(forward):
        return scans.hessian_vector_product(forward, arguments, doutputs, directions, options)
    pair, dual = _prepared(forward, arguments, directions, options)
    if dual.get("training") is False:
        raise ValueError("training: expected True, as backward needs the reserve, got False")
    outputs, reserve = pair.outputs(dual)
    gradients_of_outputs = tuple(doutputs(*outputs) if callable(doutputs) else doutputs)
    if len(gradients_of_outputs) != len(outputs):
        raise ValueError(f"doutputs: expected {len(outputs)} gradients or None, got {len(gradients_of_outputs)}")
    duals = []
    for k, (output, gradient) in enumerate(zip(outputs, gradients_of_outputs, strict=True)):
        if gradient is not None and np.shape(gradient) != output.shape:
            raise ValueError(f"doutputs[{k}]: expected shape {output.shape}, got {np.shape(gradient)}")
        duals.append(gradient if gradient is None else Dual(value_of(gradient), tangent_of(gradient)))
    gradients = pair.gradients(tuple(duals), reserve)
    return map_leaves(value_of, gradients), map_leaves(tangent_of, gradients)
