"""Optimizers, gradient clipping and learning-rate schedules.

An optimizer takes a module, or a list of parameters, moves them into one buffer unless they lie in one already, and
makes each step in one fused pass over it. Several optimizers may have parts of a model, parts may overlap, and a model,
its parts and its optimizers may be copied together: see `fusedrnn.nn.parameters`. Hyperparameters are plain attributes
and may be changed between steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.nn import FlatParameters, Module, Parameter
from fusedrnn.nn.parameters import ParameterSet

Schedule = Callable[[int], float]
Parameters: TypeAlias = "Module | FlatParameters | Iterable[Parameter]"


def _selected(params: Parameters | Parameter) -> ParameterSet:
    """The parameters meant, left where they lie. Raises TypeError."""
    if isinstance(params, ParameterSet):
        return params
    if isinstance(params, Module):
        return params.parameter_set()
    given = [params] if isinstance(params, Parameter) or not isinstance(params, Iterable) else list(params)
    for entry in given:
        if not isinstance(entry, Parameter):
            within = "" if entry is params else f" holding {type(entry).__name__}: a list must hold Parameters"
            raise TypeError(f"params: expected a Module or FlatParameters, got {type(params).__name__}{within}")
    return ParameterSet(given)


def _flat(params: Parameters) -> FlatParameters:
    """The parameters meant, in buffers. Raises TypeError."""
    if isinstance(params, Module):
        return params.flatten()
    selected = _selected(params)
    return selected if isinstance(selected, FlatParameters) else FlatParameters(selected.parameters)


def _at_least(name: str, value: float, limit: float) -> float:
    if not (math.isfinite(value) and value >= limit):
        raise ValueError(f"{name}: expected a finite number of at least {limit:g}, got {value}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number from 0 up to, not including, 1, got {value}")
    return float(value)


class Optimizer:
    """What all share: the parameters, the count of steps, state to save.

    Args:
        params: a module, ``FlatParameters``, or parameters in a certain order, all of one dtype. They are those of the
            moment: what is added to the module later is not among them.

    Attributes:
        params: the parameters as one set. lr: learning rate of the next step. steps: how many were made.
        state: arrays by name, each 1-D [params.size], laid out as ``ParameterSet`` says.

    Raises:
        TypeError: something else than parameters, or those of two dtypes. ValueError: none, or one given twice.
    """

    def __init__(self, params: Parameters, lr: float) -> None:
        self.params = _flat(params)
        self.lr = _at_least("lr", lr, 0)
        self.steps = 0
        self.state: dict[str, Array] = {}

    def _buffer(self, name: str, wanted: bool = True) -> None:
        if wanted:
            self.state[name] = np.zeros(self.params.size, self.params.dtype)

    def step(self) -> None:
        """Update the parameters from their gradients, once.

        Raises ValueError where a parameter has got another shape or dtype since the optimizer was made.
        """
        runs = self.params.runs()
        self.steps += 1
        for data, grad, part in runs:
            self._update(data, grad, self.state if part is None else self._state_of(part))

    def _state_of(self, part: slice) -> dict[str, Array]:
        return {name: array[part] for name, array in self.state.items()}

    def _update(self, data: Array, grad: Array, state: dict[str, Array]) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradients of these parameters to zero."""
        self.params.zero_grad()

    def part_of(self, model: Module) -> list[str] | None:
        """Names of the parameters that this optimizer moves, in its order; None where they are all of the model's, in
        the model's order.

        Raises ValueError where some of them are not the model's.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        moved = [names.get(id(parameter)) for parameter in self.params.parameters]
        if None in moved:
            raise ValueError(
                f"optimizer: expected one of the model's parameters, got one that moves {moved.count(None)} others (of "
                "another model, or replaced since): make it from the model as it is now, or from a part of it"
            )
        return None if moved == list(names.values()) else [name for name in moved if name is not None]

    def state_dict(self) -> dict[str, Any]:
        """Copies of the state arrays by name, and ``steps`` and ``lr`` as numbers."""
        return {"steps": self.steps, "lr": self.lr, **{k: v.copy() for k, v in self.state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` of the same optimizer over the same model gave.

        Raises KeyError for names, ValueError for a shape that does not fit, TypeError for another dtype; nothing
        changes then.
        """
        expected = {"steps", "lr", *self.state}
        if state.keys() != expected:
            raise KeyError(f"optimizer state: expected {sorted(expected)}, got {sorted(state)}")
        values = {name: np.asarray(state[name]) for name in self.state}
        for name, own in self.state.items():
            if values[name].shape != own.shape:
                raise ValueError(f"{name}: expected shape {own.shape}, got {values[name].shape}")
            if values[name].dtype != own.dtype:
                raise TypeError(f"{name}: expected dtype {own.dtype}, got {values[name].dtype}")
        for name, own in self.state.items():
            own[...] = values[name]
        self.steps, self.lr = int(state["steps"]), float(state["lr"])


class SGD(Optimizer):
    """Gradient descent, with momentum v <- m v + g and p <- p - lr v (nesterov: p <- p - lr (g + m v)), as PyTorch's.

    Args:
        params: module or flat parameters. lr, momentum: see above. weight_decay: adds that times p to g.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.momentum = _fraction("momentum", momentum)
        self.weight_decay = _at_least("weight_decay", weight_decay, 0)
        self.nesterov = nesterov
        if nesterov and momentum == 0:
            raise ValueError("momentum: expected a number above 0 with nesterov=True, got 0")
        self._buffer("momentum_buffer", momentum > 0)

    def _update(self, data: Array, grad: Array, state: dict[str, Array]) -> None:
        _core.sgd_step(
            data,
            grad,
            state.get("momentum_buffer"),
            self.lr,
            self.momentum,
            self.weight_decay,
            self.nesterov,
        )


class Adagrad(Optimizer):
    """n <- n + g^2, p <- p - lr g / (sqrt(n) + eps) (Duchi et al. 2011), as PyTorch's.

    Args:
        eps_inside_sqrt: g / sqrt(n + eps) instead, the form of Karpathy's min-char-rnn.
        weight_decay: adds that times p to g.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        eps: float = 1e-10,
        eps_inside_sqrt: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.eps = _positive("eps", eps)
        self.eps_inside_sqrt = eps_inside_sqrt
        self.weight_decay = _at_least("weight_decay", weight_decay, 0)
        self._buffer("sum")

    def _update(self, data: Array, grad: Array, state: dict[str, Array]) -> None:
        _core.adagrad_step(data, grad, state["sum"], self.lr, self.eps, self.weight_decay, self.eps_inside_sqrt)


class RMSprop(Optimizer):
    """n <- a n + (1 - a) g^2, p <- p - lr g / (sqrt(n) + eps) (Tieleman and Hinton 2012), as PyTorch's.

    Args:
        alpha: a. momentum: v <- momentum v + step, p <- p - lr v. centered: n - m^2 in place of n, with m the
            running mean of g. eps_inside_sqrt: sqrt(n + eps) in place of sqrt(n) + eps.
        weight_decay: adds that times p to g.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        eps_inside_sqrt: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.alpha = _fraction("alpha", alpha)
        self.eps = _positive("eps", eps)
        self.momentum = _fraction("momentum", momentum)
        self.weight_decay = _at_least("weight_decay", weight_decay, 0)
        self.eps_inside_sqrt = eps_inside_sqrt
        self._buffer("square_avg")
        self._buffer("grad_avg", centered)
        self._buffer("momentum_buffer", momentum > 0)

    def _update(self, data: Array, grad: Array, state: dict[str, Array]) -> None:
        _core.rmsprop_step(
            data, grad, state["square_avg"], state.get("grad_avg"), state.get("momentum_buffer"),
            self.lr, self.alpha, self.eps, self.momentum, self.weight_decay, self.eps_inside_sqrt,
        )  # fmt: skip


class GravesRMSprop(RMSprop):
    """The centred form of Graves 2013 (arXiv 1308.0850, equations 38-41) with the values given there.

    n <- a n + (1 - a) g^2, m <- a m + (1 - a) g, v <- b v - lr g / sqrt(n - m^2 + eps), p <- p + v.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-4,
        alpha: float = 0.95,
        momentum: float = 0.9,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(params, lr, alpha, eps, momentum, centered=True, eps_inside_sqrt=True)


class Adam(Optimizer):
    """Running means of g and g^2, bias-corrected (Kingma and Ba 2015), as PyTorch's.

    Args:
        betas: decay of either mean. eps: added to the root. weight_decay: adds that times p to g.
    """

    decoupled = False

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.betas = (_fraction("betas[0]", betas[0]), _fraction("betas[1]", betas[1]))
        self.eps = _positive("eps", eps)
        self.weight_decay = _at_least("weight_decay", weight_decay, 0)
        self._buffer("exp_avg")
        self._buffer("exp_avg_sq")

    def _update(self, data: Array, grad: Array, state: dict[str, Array]) -> None:
        _core.adam_step(
            data, grad, state["exp_avg"], state["exp_avg_sq"], self.lr, *self.betas, self.eps,
            self.weight_decay, self.decoupled, self.steps,
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay shrinks p by lr * weight_decay directly (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def clip_grad_value_(params: Parameters | Parameter, limit: float) -> None:
    """Clamp every gradient element of these parameters to [-limit, limit]."""
    _positive("limit", limit)
    for _, grad, _ in _selected(params).runs():
        _core.clip_value(grad, limit)


def clip_grad_norm_(params: Parameters | Parameter, max_norm: float) -> float:
    """Scale the gradients of these parameters so that their joint Euclidean norm is at most ``max_norm``.

    Returns the norm before; its bits depend on the parameters and their order, not on where they lie.
    """
    _positive("max_norm", max_norm)
    selected = _selected(params)
    norm = math.sqrt(_core.squared_norm(selected.joined_grad()))
    if norm > max_norm:
        for _, grad, _ in selected.runs():
            _core.scale(grad, max_norm / (norm + 1e-6))
    return norm


# Schedules: called with the number of steps made so far, they give the factor for the base learning rate,
# ``optimizer.lr = base * schedule(step)``.


class ConstantLR:
    """Factor 1."""

    def __call__(self, step: int) -> float:
        """The factor at this step."""
        return 1.0


class StepLR:
    """Factor gamma^(step // step_size)."""

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = int(_at_least("step_size", step_size, 1)), _positive("gamma", gamma)

    def __call__(self, step: int) -> float:
        """The factor at this step."""
        return float(self.gamma ** (step // self.step_size))


class ExponentialLR:
    """Factor gamma^step."""

    def __init__(self, gamma: float) -> None:
        self.gamma = _positive("gamma", gamma)

    def __call__(self, step: int) -> float:
        """The factor at this step."""
        return float(self.gamma**step)


class CosineLR:
    """From 1 to ``final`` along half a cosine over ``total_steps``, then ``final`` (Loshchilov and Hutter 2017)."""

    def __init__(self, total_steps: int, final: float = 0.0) -> None:
        self.total_steps = int(_at_least("total_steps", total_steps, 1))
        self.final = _at_least("final", final, 0)

    def __call__(self, step: int) -> float:
        """The factor at this step."""
        progress = min(step / self.total_steps, 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class LinearWarmup:
    """From 1 / warmup_steps up to 1 in equal parts, then ``after``, which counts its steps from there."""

    def __init__(self, warmup_steps: int, after: Schedule | None = None) -> None:
        self.warmup_steps = int(_at_least("warmup_steps", warmup_steps, 0))
        self.after = after if after is not None else ConstantLR()

    def __call__(self, step: int) -> float:
        """The factor at this step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after(step - self.warmup_steps)
