"""The base of everything that has parameters: names, modes, state, and what forward leaves for backward."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn.parameters import FlatParameters, Parameter, ParameterSet

Self = TypeVar("Self", bound="Module")
MOST_SEQUENCES, MOST_STEPS = 100, 10_000


class Rows(NamedTuple):
    """What a process has of a joint batch: rows from start up to stop of so many, on that axis of the input."""

    start: int
    stop: int
    total: int
    axis: int

    @property
    def share(self) -> float:
        """The part of the joint batch, from 0 to 1."""
        return (self.stop - self.start) / self.total if self.total else 0.0


class Module:
    """A part of a network: ``module(x)`` runs ``forward``, ``module.backward(dy)`` the gradient of the last call.

    Parameters, modules, lists of modules and NumPy generators that are attributes belong to the module, under the
    attribute's name, in the order they were set. In training every call pushes what its backward needs and
    ``backward`` pops the last: a layer may be called many times, and is taken back in reverse order. After
    ``eval()`` nothing is pushed. Parameters' gradients add up until ``zero_grad()``.

    Calls whose backward never comes pile up, so a module says so once, by a RuntimeWarning, when it has more than
    ``MOST_SEQUENCES`` of them, or ``MOST_STEPS`` calls that may be the steps of one sequence, as a decoder makes them.

    Subclasses call ``super().__init__()`` first, define ``forward`` and ``backward``, and, if they keep something
    themselves rather than through the modules they hold, use ``_push`` and ``_pop``.
    """

    training: bool
    _warned = False  # whether it was said that calls pile up
    _rows: Rows | None = None

    def __init__(self) -> None:
        self.training = True
        self._saved: list[Any] = []
        self._sequences: list[int] = []  # the places, from 1, of those that are no steps
        self._flat: FlatParameters | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; defined by every subclass."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Gradient of the last call with respect to its input; adds to the parameters' gradients."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def _push(self, item: Any, *, step: bool = True) -> None:
        """Keep ``item`` for backward; ``step``: whether the call may be one step of many in a sequence."""
        if not self.training:
            return
        self._saved.append(item)
        if step:
            count, most, what = len(self._saved), MOST_STEPS, "calls"
        else:
            self._sequences.append(len(self._saved))
            count, most, what = len(self._sequences), MOST_SEQUENCES, "sequences"
        if count > most and not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self).__name__}: more than {most:,} {what} of training mode are kept for a backward that has "
                "not come; call eval() before inference, or backward() after each, or forget() to drop them",
                RuntimeWarning,
                stacklevel=2,
            )

    def _pop(self) -> Any:
        if not self._saved:
            raise RuntimeError(
                f"{type(self).__name__}.backward: no call is left to go back through; it needs one forward call "
                "in training mode (see train()) for each backward call"
            )
        if self._sequences and self._sequences[-1] == len(self._saved):
            self._sequences.pop()
        return self._saved.pop()

    def forget(self: Self) -> Self:
        """Drop what calls have left for backward, as after a step that was given up halfway."""
        for module in self.modules():
            module._saved.clear()
            module._sequences.clear()
        return self

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple)) and name not in ("_saved", "_sequences"):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Module))
            else:
                yield name, value

    def _named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, value in self._members():
            if isinstance(value, Module):
                yield from value._named_modules(f"{prefix}{name}.")

    def _every_name(self) -> Iterator[tuple[str, Parameter]]:
        for prefix, module in self._named_modules():
            for name, value in module._members():
                if isinstance(value, Parameter):
                    yield prefix + name, value

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        seen: set[int] = set()
        for _, module in self._named_modules():
            if id(module) not in seen:
                seen.add(id(module))
                yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once, under its first name."""
        seen: set[int] = set()
        for name, parameter in self._every_name():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, once."""
        return (parameter for _, parameter in self.named_parameters())

    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module and all below it to training (or, with False, to evaluation)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation: no dropout, and nothing kept for backward."""
        return self.train(False)

    def set_rows(self, rows: Rows | None) -> None:
        """Say which rows of a joint batch the next calls are given, so that they draw the masks of those; None: all."""
        if rows != self._rows:
            for module in self.modules():
                module._rows = rows

    def zero_grad(self) -> None:
        """Set every parameter's gradient to zero."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    def flatten(self) -> FlatParameters:
        """Move all parameters into one buffer, unless they lie in one already, this module's or a larger one's."""
        parameters = self.parameter_set()
        if not isinstance(parameters, FlatParameters):
            self._flat = parameters = FlatParameters(parameters.parameters)
        parameters.gather()
        return parameters

    def parameter_set(self) -> ParameterSet:
        """All parameters as one set, wherever they lie."""
        parameters = tuple(self.parameters())
        if self._flat is not None and self._flat.holds(parameters):
            return self._flat
        return ParameterSet(parameters)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters by dotted name; a tied parameter under each of its names."""
        return {name: parameter.data.copy() for name, parameter in self._every_name()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the values of ``state``, which has exactly the names and shapes of ``state_dict()``.

        Values are anything NumPy reads as an array, of the parameter's dtype. Nothing changes on an error.

        Raises:
            KeyError: names missing or unexpected. ValueError: a shape that differs. TypeError: a dtype that differs.
        """
        own = dict(self._every_name())
        missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
        if missing or unexpected:
            parts = [f"missing {sorted(missing)}"] * bool(missing) + [f"unexpected {sorted(unexpected)}"] * bool(
                unexpected
            )
            raise KeyError(f"state_dict: {', '.join(parts)}")
        values = {name: np.asarray(state[name]) for name in own}
        for name, parameter in own.items():
            if values[name].shape != parameter.data.shape:
                raise ValueError(f"{name}: expected shape {parameter.data.shape}, got {values[name].shape}")
            if values[name].dtype != parameter.data.dtype:
                raise TypeError(f"{name}: expected dtype {parameter.data.dtype}, got {values[name].dtype}")
        for name, parameter in own.items():
            parameter.data[...] = values[name]

    def _generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        for prefix, module in self._named_modules():
            for name, value in vars(module).items():
                if isinstance(value, np.random.Generator):
                    yield prefix + name, value

    def rng_state(self) -> dict[str, Any]:
        """State of every random generator in the tree by dotted name, fit for JSON."""
        return {name: _listed(generator.bit_generator.state) for name, generator in self._generators()}

    def set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Put back what ``rng_state`` gave; nothing changes on an error.

        Raises KeyError where the generators are not the same, TypeError and ValueError for a state that is none.
        """
        own = dict(self._generators())
        if own.keys() != state.keys():
            raise KeyError(f"rng_state: expected generators {sorted(own)}, got {sorted(state)}")
        before = {name: generator.bit_generator.state for name, generator in own.items()}
        checked = {name: _like(before[name], state[name], name) for name in own}
        try:
            for name, generator in own.items():
                generator.bit_generator.state = checked[name]
        except Exception as error:
            for name, generator in own.items():
                generator.bit_generator.state = before[name]
            raise ValueError(f"rng_state: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        # A copy is of its own: neither this one's set nor its half-finished calls nor batch go with it.
        return {**self.__dict__, "_flat": None, "_saved": [], "_sequences": [], "_warned": False, "_rows": None}


class Sequential(Module):
    """Modules one after the other, each taking the array that the one before it returns; names "0", "1", ...

    With recurrent layers among them it is called as they are: ``y, states = model(x, states)``, states being a tuple
    with one of theirs each, or None.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            setattr(self, str(i), module)
        self.length = len(modules)
        self.recurrent = tuple(i for i, module in enumerate(modules) if hasattr(module, "state_names"))

    def forward(self, x: Any, states: tuple[Any, ...] | None = None) -> Any:
        """Output of the last module; (output, states) with recurrent layers."""
        count = len(self.recurrent)
        if states is not None and len(states) != count:
            raise ValueError(f"states: expected None or {count}, one for each recurrent layer, got {len(states)}")
        given = iter(states or (None,) * count)
        last = []
        for i in range(self.length):
            if i in self.recurrent:
                x, state = getattr(self, str(i))(x, next(given))
                last.append(state)
            else:
                x = getattr(self, str(i))(x)
        return (x, tuple(last)) if self.recurrent else x

    def backward(self, dy: Any) -> Any:
        """Gradient with respect to the input of the first module; the last states are taken to have none."""
        for i in reversed(range(self.length)):
            dy = getattr(self, str(i)).backward(dy)
            if i in self.recurrent:
                dy, _ = dy
        return dy


def as_generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A generator as it is, one from a seed, or a fresh one for None."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def _listed(state: Any) -> Any:
    """The state of a generator with lists for arrays."""
    if isinstance(state, Mapping):
        return {name: _listed(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _like(own: Any, given: Any, name: str) -> Any:
    """A generator's state out of lists, as its ``own`` is: NumPy trusts positions in it without a look."""
    if isinstance(own, Mapping):
        if not isinstance(given, Mapping) or given.keys() != own.keys():
            raise KeyError(f"rng_state: {name}: expected {sorted(own)}, got {given!r:.80}")
        whole = {key: _like(own[key], given[key], f"{name}.{key}") for key in own}
        for place, array in (("pos", "key"), ("buffer_pos", "buffer")):
            if place in whole and array in whole and whole[place] > len(whole[array]):
                raise ValueError(f"rng_state: {name}.{place}: expected at most {len(whole[array])}, got {whole[place]}")
        return whole
    if isinstance(own, np.ndarray):
        try:
            values = np.asarray(given, own.dtype)
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"rng_state: {name}: {error}") from None
        if values.shape != own.shape:
            raise ValueError(f"rng_state: {name}: expected shape {own.shape}, got {values.shape}")
        return values
    if isinstance(own, str) and given != own:
        raise ValueError(f"rng_state: {name}: expected {own}, got {given!r:.80}")
    if isinstance(own, int) and (type(given) is not int or given < 0):
        raise ValueError(f"rng_state: {name}: expected an integer from 0, got {given!r:.80}")
    return given
