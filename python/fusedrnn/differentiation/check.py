"""Analytic gradients against central differences, for the functions and for any module."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.differentiation.pair import Pair, bound
from fusedrnn.differentiation.trees import is_real, leaves, map_leaves
from fusedrnn.nn.module import Module


@dataclass(frozen=True)
class ArgumentCheck:
    """One argument's comparison.

    Attributes:
        name: "x", "state[1]", "weight_hh_l0", ... size: how many elements it has.
        indices: of the k elements compared. analytic, numeric, allowed: [k], the gradient that backward gave, the one
            by differences, and how far they may be apart.
    """

    name: str
    size: int
    indices: list[tuple[int, ...]]
    analytic: Array
    numeric: Array
    allowed: Array

    @property
    def error(self) -> Array:
        """[k]: |analytic - numeric|."""
        error: Array = np.abs(self.analytic - self.numeric)
        return error

    @property
    def failures(self) -> list[int]:
        """Positions in the arrays of the elements that disagree, the worst first; NaN disagrees with everything."""
        excess = np.nan_to_num(self.error / self.allowed, nan=np.inf)
        return [int(k) for k in np.argsort(-excess, kind="stable") if not excess[k] <= 1]

    def line(self, k: int) -> str:
        """Element k in words."""
        where = ", ".join(map(str, self.indices[k]))
        return (
            f"{self.name}[{where}]: analytic {self.analytic[k]:.12g}, numeric {self.numeric[k]:.12g}, "
            f"error {self.error[k]:.2g}, allowed {self.allowed[k]:.2g}"
        )


@dataclass(frozen=True)
class GradcheckResult:
    """What ``gradcheck`` found, true if all agrees; ``str`` gives a report. arguments: by name."""

    arguments: dict[str, ArgumentCheck]

    def __bool__(self) -> bool:
        return not any(a.failures for a in self.arguments.values())

    def __str__(self) -> str:
        lines = []
        for a in self.arguments.values():
            bad, k = a.failures, len(a.indices)
            of = f"{k} elements" if k == a.size else f"{k} elements drawn of {a.size}"
            if bad:
                lines += [f"{a.name}: {len(bad)} of {of} disagree", *(f"  {a.line(i)}" for i in bad[:3])]
            else:
                lines.append(f"{a.name}: {of} agree, largest error {np.max(a.error, initial=0.0):.2g}")
        return "\n".join(lines)


class GradcheckError(AssertionError):
    """Raised by ``gradcheck``; the message is the report, ``result`` the whole comparison."""

    def __init__(self, result: GradcheckResult) -> None:
        super().__init__(f"gradients disagree with differences\n{result}")
        self.result = result


class _Subject(Protocol):
    """What is checked. ``arrays`` holds the checked arrays by name, which are altered in place between calls."""

    arrays: dict[str, Array]

    def outputs(self) -> list[Array]: ...
    def gradients(self, draw: Callable[[Any], Array | None]) -> tuple[list[Array], dict[str, Any]]: ...


def _own(value: Any) -> Any:
    """The value with arrays of its own, C-contiguous as the kernels want them."""
    return map_leaves(lambda leaf: np.array(leaf, order="C") if isinstance(leaf, np.ndarray) else leaf, value)


def _real(tree: Any) -> dict[str, Array]:
    return {name: leaf for name, leaf in leaves(tree) if is_real(leaf)}


def _real_leaves(tree: Any) -> list[Any]:
    """All but integers and booleans, which have no gradient."""
    return [leaf for _, leaf in leaves(tree) if _has_gradient(leaf)]


def _has_gradient(leaf: Any) -> bool:
    return is_real(leaf) or not isinstance(leaf, np.ndarray)


class _Function:
    """A pair of functions: its arguments, options included."""

    def __init__(self, pair: Pair, arguments: dict[str, Any]) -> None:
        self.pair, self.arguments = pair, _own(arguments)
        self.arrays = _real(self.arguments)

    def outputs(self) -> list[Array]:
        return _real_leaves(self.pair.outputs(self.arguments)[0])

    def gradients(self, draw: Callable[[Any], Array | None]) -> tuple[list[Array], dict[str, Any]]:
        outputs, reserve = self.pair.outputs(self.arguments)
        doutputs = map_leaves(draw, outputs)
        returned = self.pair.gradients(doutputs, reserve)
        gradients = {name: getattr(returned, "d" + name, None) for name in self.arguments}
        return [leaf for _, leaf in leaves(doutputs)], dict(leaves(gradients))


class _Module:
    """A module: the arguments of its call, and its parameters.

    Every call is one of a fresh copy. So whatever a call changes (random numbers drawn, a cell's state) is as it was
    before the next one, and the module itself never changes.
    """

    def __init__(self, module: Module, arguments: dict[str, Any]) -> None:
        self.module, self.arguments = copy.deepcopy(module), _own(arguments)
        inputs, parameters = _real(self.arguments), {n: p.data for n, p in self.module.named_parameters()}
        self.arrays = {**inputs, **parameters}

    def outputs(self) -> list[Array]:
        return _real_leaves(copy.deepcopy(self.module)(**self.arguments))

    def gradients(self, draw: Callable[[Any], Array | None]) -> tuple[list[Array], dict[str, Any]]:
        module = copy.deepcopy(self.module)
        module.zero_grad()
        outputs = module(**self.arguments)
        doutputs = map_leaves(draw, outputs)
        returned = module.backward(*doutputs) if isinstance(doutputs, tuple) else module.backward(doutputs)
        # backward returns gradients in the order of forward's arguments, and none after the last that has one
        of_inputs = returned if isinstance(returned, tuple) else (returned,)
        order = inspect.signature(self.module.forward).parameters
        gradients = dict(leaves(dict(zip(order, of_inputs, strict=False))))
        gradients.update((name, p.grad) for name, p in module.named_parameters())
        return [leaf for _, leaf in leaves(doutputs)], gradients


def gradcheck(
    function: Callable[..., Any],
    arguments: Any,
    *,
    backward: Callable[..., Any] | None = None,
    eps: float = 1e-5,
    atol: float = 1e-8,
    rtol: float = 1e-6,
    max_elements: int | None = 1000,
    rng: np.random.Generator | int | None = 0,
    raise_exception: bool = True,
    **options: Any,
) -> GradcheckResult:
    """Compare every gradient with central differences, in float64.

    The loss is the sum of all outputs times fixed normal numbers. An element agrees where |analytic - numeric| <=
    atol + rtol |numeric|. Differences are taken output by output and summed afterwards, so that rounding costs
    about 1e-16 / eps an output and not of their sum; what the third derivative adds is of the order of eps^2. At
    eps = 1e-5 both are near 1e-11, far below the default tolerances, which in turn are far below any wrong gradient.

    Within eps of a kink (relu, hard_sigmoid, cell_clip) differences are no gradient. An option that alters the
    gradient on purpose (grad_clip) fails, as it should.

    Args:
        function: ``lstm_forward`` and its like, whose ``lstm_backward`` is found beside it; any such pair of your own
            (see ``fusedrnn.differentiation.pair``); or a module of ``fusedrnn.nn`` in training mode.
        arguments: those of the call: a tuple in order, a mapping by name, or one array alone. Every array of floats
            is checked, also inside tuples (states) and options, and so is every parameter of a module; integers,
            booleans and None stay as they are. Nothing is altered.
        backward: the gradient of ``function``, where it stands elsewhere.
        eps: step of the differences. atol, rtol: see above.
        max_elements: of a larger array this many elements are drawn; None for all.
        rng: seed or generator for that and for the numbers of the loss.
        raise_exception: raise for a disagreement rather than only return it.
        options: keyword options of the call, passed on.

    Raises:
        GradcheckError: gradients disagree. TypeError: an array that is not float64, in which differences have no
        digits to spare; no backward. ValueError: a gradient missing or of another shape; else as the call.
    """
    subject: _Subject
    if isinstance(function, Module):
        given = bound(function.forward, arguments, options)
        subject = _Module(function, given)
    else:
        given = bound(function, arguments, options)
        subject = _Function(Pair.of(function, backward), given)
    for name, array in subject.arrays.items():
        if array.dtype != np.float64:
            raise TypeError(f"{name}: expected dtype float64 for differences, got {array.dtype}")
    generator = np.random.default_rng(rng)

    def draw(output: Any) -> Array | None:
        return np.asarray(generator.standard_normal(np.shape(output))) if _has_gradient(output) else None

    doutputs, gradients = subject.gradients(draw)
    for name, array in subject.arrays.items():
        gradient = gradients.get(name)
        if gradient is None or gradient.shape != array.shape:
            got = "None" if gradient is None else gradient.shape
            raise ValueError(f"{name}: expected a gradient of shape {array.shape}, got {got}")

    checks = {}
    for name, array in subject.arrays.items():
        chosen = np.arange(array.size)
        if max_elements is not None and array.size > max_elements:
            chosen = np.sort(generator.choice(array.size, max_elements, replace=False))
        indices = [tuple(int(i) for i in np.unravel_index(k, array.shape)) for k in chosen]
        numeric = np.array([_difference(subject, array, index, doutputs, eps) for index in indices])
        analytic = np.array([gradients[name][index] for index in indices])
        checks[name] = ArgumentCheck(name, array.size, indices, analytic, numeric, atol + rtol * np.abs(numeric))
    result = GradcheckResult(checks)
    if raise_exception and not result:
        raise GradcheckError(result)
    return result


def _difference(subject: _Subject, array: Array, index: tuple[int, ...], doutputs: list[Array], eps: float) -> float:
    """The derivative of the loss for one element, by central differences; the element is put back."""
    value = array[index]
    above, below = value + eps, value - eps
    array[index] = above
    outputs_above = subject.outputs()
    array[index] = below
    outputs_below = subject.outputs()
    array[index] = value
    changes = zip(doutputs, outputs_above, outputs_below, strict=True)
    return float(sum(np.sum(d * (a - b)) for d, a, b in changes) / (above - below))
