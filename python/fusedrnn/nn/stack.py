"""What all recurrent layers share: stacks of layers in one or two directions, their parameters and states.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, L layers, D directions (1 or 2). x is [T, N, I], or
[N, T, I] with ``batch_first``; y has H * D features of the last layer, both directions' side by side. States are
[L * D, N, H], layer by layer, forward before reverse, whatever ``batch_first`` says; in a stack whose layers differ in
size they are a tuple of arrays [D, N, H], one a layer.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.functional.reserve import check_reserve, watched
from fusedrnn.nn.frozen import Chain, Frozen, Stream, Unpacked
from fusedrnn.nn.linear import Dropout
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.parameters import Parameter
from fusedrnn.nn.states import StackStates, States
from fusedrnn.sequences import read_sequences
from fusedrnn.sizes import require_memory, size
from fusedrnn.spec import DRAWING, Cell

Self = TypeVar("Self", bound="_Recurrent")
Table: TypeAlias = "dict[str, tuple[tuple[int, ...], float | None]]"  # name -> shape, initial value

_USUAL = (("reset_after", True), ("nonlinearity", "tanh"))
_TRAINING_ONLY = ("recompute", "recurrent_dropout", "dropconnect", "grad_clip")  # without effect on inference


class _Recurrent(Module):
    """A stack of one kind of cell of `fusedrnn.spec`. ``options`` are settings of every call."""

    _cell: Cell
    _absent = None  # in place of a parameter that the layer does without

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        residual: bool,
        learn_initial_state: bool,
        dtype: Any,
        rng: np.random.Generator | int | None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.input_size = size("input_size", input_size)
        self.hidden_sizes = _layer_sizes(hidden_size, num_layers)
        self.hidden_size, self.num_layers = self.hidden_sizes[-1], len(self.hidden_sizes)  # of what y shows
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.residual, self.learn_initial_state = residual, learn_initial_state
        self.layer_norm = bool(options.pop("layer_norm", False))
        # What differs from the plain cell; a GRU's reset_after says which of two that is.
        changed = self._cell.changed(options)
        always = ("reset_after", "nonlinearity")
        self._draws = any(name in changed for name in DRAWING)
        self.options = {name: v for name, v in options.items() if name in changed or name in always}
        inference = {name: v for name, v in self.options.items() if name not in _TRAINING_ONLY}
        self.dtype = np.dtype(dtype)
        self.directions = 2 if bidirectional else 1
        generator = as_generator(rng)
        self.dropout = Dropout(dropout, rng=generator)
        self.dropout.time_major = True
        sizes = tuple(self._sizes(hidden) for hidden in self.hidden_sizes)
        self.states = StackStates(tuple(self._cell.states), sizes, self.directions, self.dtype)
        if dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout: it comes between layers, so dropout={dropout} does nothing in a single one; a Dropout after "
                "it is nn.Dropout",
                stacklevel=3,
            )
        if residual and len({widths[0] for widths in sizes}) > 1:
            raise ValueError(f"residual: expected layers of one size, got hidden_size={list(self.hidden_sizes)}")
        # Names of the parameters of each layer and direction (L * D rows), None for those that the layer does without.
        self._names: list[list[str | None]] = []
        self._initial_names: list[list[str]] = []
        given = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        given.update({name: value for name, value in self._own_options().items() if name == "proj_size"})
        require_memory(given, 2 * self._elements(), self.dtype.itemsize, self.num_layers)
        for index in range(self.num_layers * self.directions):
            self._add_parameters(index, generator)
        # All of a layer's arrays by one call, as they are at that moment: a training step asks for them twice.
        self._data = [_fetching(names, "data") for names in self._names]
        self._grads = [_fetching(names, "grad") for names in self._names]
        # By direction, in inference and in training.
        self._settings, self._stack = [], []
        for own in (inference, self.options):
            both = [_core.Settings(self.cell, reverse=reverse, **own) for reverse in (False, True)]
            self._settings.append(both[: self.directions])
            self._stack.append(_core.Stack(both[: self.directions], sizes, residual))
        if self.layer_norm or self._settings[True][0].changed or self.options.get("recompute"):
            # A batch without rows: the core says what is wrong with options before there is any work.
            x = np.empty((1, 0, self.input_size), self.dtype)
            _core.forward(self._settings[True][0], x, (None,) * len(self._cell.states), self._weights(0), None, True)

    @property
    def cell(self) -> str:
        """The cell's name."""
        return self._cell.name

    @property
    def state_names(self) -> tuple[str, ...]:
        """The initial states' names."""
        return tuple(self._cell.states)

    def _sizes(self, hidden: int) -> tuple[int, ...]:
        """Sizes of a layer's h, which is also its output, and of its c if there is one."""
        return (hidden,) * len(self._cell.states)

    def _table(self, inputs: int, hidden: int) -> Table:
        """Parameters of one layer in one direction, in the order of ``state_dict()``, beside the initial states.

        An initial value of None stands for U(-1/sqrt(H), 1/sqrt(H)).
        """
        rows = self._cell.rows(self.options) * hidden
        table: Table = {"weight_ih": ((rows, inputs), None), "weight_hh": ((rows, self._sizes(hidden)[0]), None)}
        if self.bias:
            table.update(bias_ih=((rows,), None), bias_hh=((rows,), None))
        if self.layer_norm:
            for name, axes in self._cell.parameters.items():
                if name.startswith(("gain", "norm_bias")):
                    table[name] = ((rows if axes == "R" else hidden,), float(name.startswith("gain")))
        return table

    def _inputs(self, layer: int) -> int:
        return self._sizes(self.hidden_sizes[layer - 1])[0] * self.directions if layer else self.input_size

    def _elements(self) -> int:
        """Numbers in all parameters, before there are any."""
        tables = [self._table(self._inputs(layer), hidden) for layer, hidden in enumerate(self.hidden_sizes)]
        return self.directions * sum(math.prod(shape) for table in tables for shape, _ in table.values())

    def _add_parameters(self, index: int, generator: np.random.Generator) -> None:
        layer, direction = divmod(index, self.directions)
        hidden = self.hidden_sizes[layer]
        inputs = self._inputs(layer)
        suffix = f"_l{layer}" + "_reverse" * direction
        table = self._table(inputs, hidden)
        self._names.append([part + suffix if part in table else None for part in self._cell.parameters])
        initial = tuple(self._cell.states) if self.learn_initial_state else ()
        self._initial_names.append([part + suffix for part in initial])
        table.update({part: ((size,), 0.0) for part, size in zip(initial, self._sizes(hidden), strict=False)})
        bound = 1 / np.sqrt(hidden)
        for part, (shape, value) in table.items():
            values = generator.uniform(-bound, bound, shape) if value is None else np.full(shape, value)
            setattr(self, part + suffix, Parameter(values.astype(self.dtype)))

    def _weights(self, index: int) -> tuple[Any, ...]:
        weights: tuple[Any, ...] = self._data[index](self)
        return weights

    def _gradients(self, index: int) -> tuple[Any, ...]:
        gradients: tuple[Any, ...] = self._grads[index](self)
        return gradients

    def _initial_values(self) -> list[list[Array]] | None:
        """The learned initial states [H] of each layer and direction; None for zeros."""
        if not self.learn_initial_state:
            return None
        return [[getattr(self, name).data for name in names] for names in self._initial_names]

    def stream(self, batch: int = 1, *, precision: str | None = None) -> Stream:
        """A copy for real-time use that takes one time step a call, weights packed once: see ``Stream``.

        Args:
            batch: N, the rows of each step. precision: as ``freeze``.

        Raises:
            ValueError: a batch below 1, a bidirectional layer, whose other half would need the future, or as
                ``freeze``.
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction; a bidirectional one needs the whole sequence")
        batch = size("batch", batch)
        require_memory({"batch": batch}, 2 * batch * sum(self.hidden_sizes), self.dtype.itemsize)
        core: Any
        if not self._packable(precision):
            core = Unpacked(self._snapshot(), batch)
        elif self.states.equal and not self.residual:
            core = self._packed(batch, range(self.num_layers), precision)
        else:
            core = Chain(self, batch, [self._packed(batch, [i], precision) for i in range(self.num_layers)])
        learned = self._initial_values()
        if learned is None:
            return Stream(core)
        return Stream(core, self.states.repeated(learned, batch))

    def freeze(self, *, precision: str | None = None) -> Frozen:
        """A copy for inference over whole sequences, weights packed once: see ``Frozen``.

        Args:
            precision: of the factors of products, None for the layer's own, "bfloat16" or "int8" for an RNN, LSTM or
                GRU in float32; all else stays float32, sums and states above all. docs/low-precision.md has the errors.

        Raises:
            ValueError: another precision, one for a layer in float64 or with options that change its equations, or int8
                for sizes above 131072.
        """
        packed = self._packed(0, range(len(self._names)), precision) if self._packable(precision) else None
        return Frozen(self._snapshot(), packed, precision)

    def _snapshot(self: Self) -> Self:
        """A copy in evaluation, without gradients."""
        layer = copy.deepcopy(self).eval()
        for parameter in layer.parameters():
            parameter.drop_grad()
        return layer

    def _packable(self, precision: str | None) -> bool:
        """Whether the core packs a layer like this one; raise for a precision that it does not have."""
        own = zip(list(self._cell.parameters)[4:], self._names[0][4:], strict=False)
        options = [*self._settings[False][0].changed, *(part for part, name in own if name)]
        allowed: tuple[str | None, ...] = (None,)
        if self.dtype == np.float32 and "precision" in self._cell.options and not options:
            allowed = (None, "bfloat16", "int8")
        if precision not in allowed:
            names = ", ".join(map(repr, allowed))
            layer = f"{self._cell.name} in {self.dtype}" + f" with {', '.join(options)}" * bool(options)
            raise ValueError(f"precision: expected one of {names} for {layer}, got {precision!r}")
        return not options

    def _packed(self, batch: int, layers: Iterable[int], precision: str | None) -> Any:
        """Weights packed for the instruction set in use: for steps of ``batch`` rows, and for sequences."""
        make = _core.FrozenFloat32 if self.dtype == np.float32 else _core.FrozenFloat64
        settings = self._settings[False][0].replace(precision=precision) if precision else self._settings[False][0]
        return make(settings, batch, [self._weights(i) for i in layers])

    def _own_options(self) -> dict[str, Any]:
        """What the constructor took beside what all layers take, where it differs from the plain cell."""
        return self.options

    def _time_major(self, a: Array) -> Array:
        return np.ascontiguousarray(a.swapaxes(0, 1) if self.batch_first else a)

    def _as_given(self, a: Array) -> Array:
        return a.swapaxes(0, 1) if self.batch_first else a

    def _sequence_first(self, name: str, a: Any, features: int) -> Array:
        """Return x or dy, time first."""
        order: tuple[int | str, ...] = ("N", "T") if self.batch_first else ("T", "N")
        return self._time_major(self.states.checked(name, a, (*order, features)))

    def _starts(self, states: Sequence[States], N: int) -> tuple[States, ...]:
        """Return the initial states, learned ones where there are any and none is given."""
        given = self.states.given(self.states.names, states, N)
        learned = self._initial_values()
        if learned is None:
            return given
        repeated = self.states.repeated(learned, N)
        return tuple(own if one is None else one for one, own in zip(given, repeated, strict=True))

    def _forward(
        self, x: Any, states: Sequence[States], lengths: Any = None, resets: Any = None
    ) -> tuple[Array, tuple[States, ...]]:
        x = self._sequence_first("x", x, self.input_size)
        starts = self._starts(states, x.shape[1])
        sequences = draws = masks = None
        if lengths is not None or resets is not None:
            turned = self.batch_first and resets is not None
            sequences = read_sequences(lengths, None, np.asarray(resets).T if turned else resets)
        if self._draws and self.training:  # every call its own masks; the generator's state is part of a checkpoint
            draws = (int(self.dropout.rng.integers(2**64, dtype=np.uint64)), self._rows.start if self._rows else 0)
        if self.dropout.p and self.training:
            between = self.states.sizes[:-1]
            widths = [self.directions * of_layer[0] for of_layer in between]
            masks = [self.dropout.mask((*x.shape[:2], width), self.dtype) for width in widths]
        weights = [self._weights(index) for index in range(len(self._names))]
        y, last, reserves = self._stack[self.training].forward(
            x, starts, weights, sequences, self.training, masks, draws
        )
        for reserve in reserves:
            watched(reserve)
        self._push((y.shape, reserves, states, masks), step=len(y) == 1 and states[0] is not None)
        return self._as_given(y), last

    def _backward(
        self, dy: Any, dstates: Sequence[States], input_grad: bool
    ) -> tuple[Array | None, tuple[States, ...]]:
        if not self._saved:
            self._pop()
        (T, N, features), reserves, states, masks = self._saved[-1]
        gradient = None
        if dy is not None:
            order = (N, T) if self.batch_first else (T, N)
            gradient = self._time_major(self.states.checked("dy", dy, (*order, features)))
        dfinal = self.states.given(self.states.gradient_names, dstates, N)
        self._pop()  # only now: a call refused above may be made again
        for reserve in reserves:
            check_reserve(reserve, self.cell)
        gradients = [self._gradients(index) for index in range(len(self._names))]
        dx, dinitial = self._stack[True].backward(reserves, gradient, dfinal, input_grad, gradients, masks)
        if self.learn_initial_state:
            self._add_initial_gradients(states, zip(*map(self.states.parts, dinitial), strict=True))
        return (None if dx is None else self._as_given(dx)), dinitial

    def _add_initial_gradients(self, states: Sequence[States], dinitial: Iterable[tuple[Array, ...]]) -> None:
        """Every row of the batch began with the learned values, where the call was given no state."""
        for names, gradients in zip(self._initial_names, dinitial, strict=True):
            for name, given, gradient in zip(names, states, gradients, strict=True):
                if given is None:
                    grad = getattr(self, name).grad
                    grad += gradient.sum(axis=0)

    def __repr__(self) -> str:
        sizes = self.hidden_size if self.states.equal else list(self.hidden_sizes)
        parts = [f"{self.input_size}, {sizes}"]
        parts += [f"num_layers={self.num_layers}"] * (self.num_layers > 1 and self.states.equal)
        parts += ["bias=False"] * (not self.bias) + ["batch_first=True"] * self.batch_first
        parts += [f"dropout={self.dropout.p}"] * (self.dropout.p > 0)
        parts += ["bidirectional=True"] * self.bidirectional + ["residual=True"] * self.residual
        parts += ["learn_initial_state=True"] * self.learn_initial_state + ["layer_norm=True"] * self.layer_norm
        parts += [f"{name}={value!r}" for name, value in self._own_options().items() if (name, value) not in _USUAL]
        return f"{type(self).__name__}({', '.join(parts)})"


def _layer_sizes(hidden_size: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """H of every layer."""
    layers = size("num_layers", num_layers)
    if not isinstance(hidden_size, (tuple, list)):
        hidden = size("hidden_size", hidden_size)
        require_memory({"num_layers": layers}, 0, 0, layers)
        return (hidden,) * layers
    if not hidden_size:
        raise TypeError(f"hidden_size: expected an integer, or one for each layer, got {hidden_size!r}")
    if layers not in (1, len(hidden_size)):
        raise ValueError(f"num_layers: expected {len(hidden_size)}, as hidden_size has, got {num_layers}")
    return tuple(size("hidden_size", one) for one in hidden_size)


def _fetching(names: Sequence[str | None], attribute: str) -> Callable[[Any], Any]:
    """Return what gets a tuple of the parameters' arrays, None for those without a name."""
    return attrgetter(*("_absent" if name is None else f"{name}.{attribute}" for name in names))
