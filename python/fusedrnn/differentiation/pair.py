"""A forward function and its backward, as ``fusedrnn.functional`` and ``fusedrnn.reference`` have them.

What every such pair keeps to: forward returns its outputs with the reserve among them; backward takes the gradients
of the outputs before the reserve, then ``reserve``, then by keyword the gradients of what came after it (``dc`` of
``c``); it returns a named tuple in which the gradient of an argument ``a`` is ``da``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def bound(function: Callable[..., Any], arguments: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of a call by its name; ``arguments`` is a mapping, a tuple in order, or one array alone.

    Raises TypeError as the call itself would for an argument that is missing, unknown or given twice.
    """
    signature = inspect.signature(function)
    if isinstance(arguments, Mapping):
        return dict(signature.bind(**arguments, **options).arguments)
    positional = arguments if isinstance(arguments, (tuple, list)) else (arguments,)
    return dict(signature.bind(*positional, **options).arguments)


@dataclass(frozen=True)
class Pair:
    """``names`` are the gradients that backward takes before the reserve, ``later`` those that it takes by keyword."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    names: tuple[str, ...]
    later: tuple[str, ...]

    @classmethod
    def of(cls, forward: Callable[..., Any], backward: Callable[..., Any] | None = None) -> Pair:
        """The pair of ``<cell>_forward``, some of its arguments perhaps given by ``functools.partial``, and the
        ``<cell>_backward`` beside it, unless another backward is given."""
        if backward is None:
            function: Any = forward
            while isinstance(function, functools.partial):
                function = function.func
            name = getattr(function, "__name__", repr(function))
            other = name.removesuffix("_forward") + "_backward"
            backward = getattr(sys.modules.get(getattr(function, "__module__", "")), other, None)
            if not name.endswith("_forward") or backward is None:
                raise TypeError(f"backward: expected the gradient of {name}, as no {other} stands beside it, got None")
        parameters = inspect.signature(backward).parameters
        if "reserve" not in parameters:
            raise TypeError(f"backward: expected a function with an argument `reserve`, got {list(parameters)}")
        names = list(parameters)
        before = tuple(names[: names.index("reserve")])
        later = tuple(n for n in names[len(before) + 1 :] if n.startswith("d"))
        return cls(forward, backward, before, later)

    def outputs(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """(outputs, reserve) of forward."""
        results = tuple(self.forward(**arguments))
        k = len(self.names)
        return results[:k] + results[k + 1 :], results[k]

    def gradients(self, doutputs: tuple[Any, ...], reserve: Any) -> Any:
        """What backward returns for one gradient of each output."""
        k = len(self.names)
        return self.backward(*doutputs[:k], reserve, **dict(zip(self.later, doutputs[k:], strict=False)))
