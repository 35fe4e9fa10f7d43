"""Any recurrence as a layer: parameters with names, learned initial states, two directions, streams."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.functional.scan import ScanGradients, scan_backward, scan_forward
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.parameters import Parameter
from fusedrnn.nn.scan_start import Start, Trajectory
from fusedrnn.nn.scan_stream import FrozenScan, ScanStream
from fusedrnn.nn.scan_trees import added, contiguous, dotted, halves, initial, joined, rows_of, swapped
from fusedrnn.scan.program import Program
from fusedrnn.scan.trees import Structure, flatten
from fusedrnn.sizes import size

Self = TypeVar("Self", bound="Scan")


class Scan(Module):
    """A layer of any recurrence, written as one step of one sequence in NumPy (see ``fusedrnn.scan_forward``).

    Args:
        step: ``step(parameters, state, x)`` or ``step(parameters, state, x, context)``, which returns (new state, y).
            A published cell has all three: ``Scan(*fusedrnn.cells.JANET(28, 128))``.
        parameters: Initial values: an array, or a dict, tuple or list of them, nested too. Or a function of a
            generator that draws them, called once for each direction.
        state: The state before the first step, of one sequence: shapes, such as ``(5,)`` or ``((5,), (4, 5))``, for
            zeros; arrays for other values, integers and booleans too; in dicts, tuples, lists. None: no state. Or a
            function of the parameters that gives it, in NumPy: what it takes from them is learned.
        bidirectional: A second layer walks from the last step to the first; y, which must be one array, has both on
            its last axis. States are pairs then, (forward's, backward's).
        batch_first: Leaves of x and y, and resets, are [N, T, ...] instead of [T, N, ...]; packed ones stay.
        learned_state: The reals of the initial state are parameters.
        recompute: As ``scan_forward``.
        dtype: "float32" or "float64", of all reals. rng: Seed or generator of initial values and of random numbers.

    Parameters: By their names, with dots within: ``W``, ``cell.W``, ``W_reverse``; one array is ``weight``, those of a
    list are ``0``, ``1``; of the initial state ``state0``, or ``state0.0``, ``state0.h``.

    Raises:
        TypeError: Parameters or a state that are no numbers. ValueError: Two parameters of one name, or
            ``learned_state`` of a state that is a function.
    """

    state_names = ("state",)

    def __init__(
        self,
        step: Callable[..., Any],
        parameters: Any,
        state: Any,
        *,
        bidirectional: bool = False,
        batch_first: bool = False,
        learned_state: bool = False,
        recompute: int | bool | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        if not callable(step):
            raise TypeError(f"step: expected a function, got {type(step).__name__}; a cell is given as Scan(*cell)")
        self.step, self.rng = step, as_generator(rng)
        self.bidirectional, self.batch_first, self.learned_state = bidirectional, batch_first, learned_state
        self.recompute = recompute
        self.directions = 2 if bidirectional else 1
        self._table: dict[str, Parameter] = {}
        self._names: list[list[str]] = []
        self._state_names: list[list[str | None]] = []
        self._start = Start(state) if callable(state) else None
        if self._start is not None and learned_state:
            raise ValueError("learned_state: expected a state of values, got a function of the parameters")
        self._parameters: Structure
        for suffix in ("", "_reverse")[: self.directions]:
            drawn = parameters(self.rng) if callable(parameters) else parameters
            leaves, self._parameters = flatten(drawn, "parameters")
            if not suffix:
                begun = state(drawn) if self._start is not None else state
                values, self._state_structure = flatten(initial("state", begun, self.dtype), "state")
                self._state_values: list[Array] = values
            names = [name + suffix for name in dotted(self._parameters, "", "weight")]
            for name, where, leaf in zip(names, self._parameters.names, leaves, strict=True):
                self._add(name, self._real(f"parameters{where}", leaf))
            self._names.append(names)
            of_state: list[str | None] = []
            for name, leaf in zip(dotted(self._state_structure, "state0", "state0"), values, strict=True):
                learned = learned_state and leaf.dtype == self.dtype
                of_state.append(name + suffix if learned else None)
                if learned:
                    self._add(name + suffix, leaf.copy())
            self._state_names.append(of_state)

    def _real(self, name: str, leaf: Any) -> Array:
        array = np.asarray(leaf)
        if array.dtype.kind != "f":
            raise TypeError(f"{name}: expected real numbers, got {array.dtype}; other constants go into the step")
        return np.array(array, self.dtype, order="C")

    def _add(self, name: str, values: Array) -> None:
        if name in self._table:
            raise ValueError(f"parameters: expected a name for each, got two called {name!r}")
        self._table[name] = Parameter(values)

    # Parameters have names of the user's: they are attributes, but not where the layer's own are.

    def __getattr__(self, name: str) -> Any:
        table = self.__dict__.get("_table", {})
        if name in table:
            return table[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        table = self.__dict__.get("_table", {})
        if name in table and isinstance(value, Parameter):
            table[name] = value
        else:
            super().__setattr__(name, value)

    def _members(self) -> Any:
        yield from super()._members()
        yield from self._table.items()

    def _data(self, direction: int) -> Any:
        """The parameters of a direction as the step takes them."""
        return self._parameters.pack([self._table[name].data for name in self._names[direction]])

    def _initial(self, direction: int, rows: int) -> Any:
        """[N, ...] of the layer's initial state."""
        if self._start is not None:
            return self._start.state(self._data(direction), rows)
        leaves = zip(self._state_names[direction], self._state_values, strict=True)
        values = [value if name is None else self._table[name].data for name, value in leaves]
        return self._state_structure.pack([np.repeat(value[None], rows, axis=0) for value in values])

    @property
    def _starts_at_zero(self) -> bool:
        fixed = self._start is None and not self.learned_state
        return fixed and not any(np.any(value) for value in self._state_values)

    def _seed(self, program: Program) -> int:
        """Every call of a step that draws has random numbers of its own; the generator is part of a checkpoint."""
        return int(self.rng.integers(2**64, dtype=np.uint64)) if program.draws else 0

    def forward(
        self,
        x: Any,
        state: Any = None,
        context: Any = None,
        *,
        lengths: Any = None,
        batch_sizes: Any = None,
        resets: Any = None,
        steps: int | None = None,
        batch: int | None = None,
    ) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            x: Leaves [T, N, ...] ([N, T, ...] with batch_first), or None with steps; packed with batch_sizes.
            state: Leaves [N, ...], of two directions a pair; None for the layer's initial state.
            context: Leaves [N, ...], where the step takes one.
            lengths, batch_sizes: As ``scan_forward``.
            resets: Booleans, as x without further axes: before such a step the state is the layer's initial one.
            steps: T where there is no x. batch: N where neither x nor state nor context tells.

        Returns:
            y (leaves as those of x in time and batch) and the last state, as state.

        Raises:
            TraceError, TypeError, ValueError, IndexError: As ``scan_forward``.
        """
        return self._run(
            x, state, context, scan_forward, lengths=lengths, batch_sizes=batch_sizes, resets=resets, steps=steps,
            batch=batch,
        )  # fmt: skip

    def _run(
        self, x: Any, state: Any, context: Any, run: Callable[..., Any], *, batch: int | None, **options: Any
    ) -> tuple[Any, Any]:
        swap = self.batch_first and options["batch_sizes"] is None
        x, context = swapped(x) if swap else contiguous(x), contiguous(context)
        if swap and options["resets"] is not None:
            options["resets"] = np.ascontiguousarray(np.asarray(options["resets"]).swapaxes(0, 1))
        rows = rows_of(x, options["batch_sizes"], state, context) if batch is None else size("batch", batch)
        given = self._pair("state", contiguous(state))
        if self._rows is not None:
            options["row_offset"] = self._rows.start
        ys, last, reserves = [], [], []
        for direction, start in enumerate(given):
            if options["resets"] is not None and not self._starts_at_zero:
                options["reset_state"] = self._initial(direction, rows)
            y, state_n, reserve = run(
                self.step, self._data(direction), self._initial(direction, rows) if start is None else start, x,
                context=context, reverse=bool(direction), training=self.training, recompute=self.recompute,
                seed=self._seed, **options,
            )  # fmt: skip
            ys.append(y)
            last.append(state_n)
            reserves.append(reserve)
        y = joined(ys, 2 if options["batch_sizes"] is None else 1) if self.bidirectional else ys[0]
        if self.training:
            learned = [(self.learned_state or self._start is not None) and start is None for start in given]
            item = (reserves, learned, context is not None, swap)
            self._push(item, step=reserves[0].kept.run.steps == 1 and state is not None)
        return (swapped(y) if swap else y), (tuple(last) if self.bidirectional else last[0])

    def _pair(self, name: str, state: Any) -> tuple[Any, ...]:
        """One for each direction."""
        if not self.bidirectional:
            return (state,)
        if state is None:
            return (None, None)
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            got = f"{len(state)} of them" if isinstance(state, (tuple, list)) else type(state).__name__
            raise TypeError(f"{name}: expected a pair, one for each direction, got {got}")
        return tuple(state)

    def backward(self, dy: Any, dstate_n: Any = None, *, input_grad: bool = True) -> tuple[Any, ...]:
        """Gradients of the last call, adding to the parameters' gradients.

        Args:
            dy: As y; it, or any leaf, may be None for zeros. dstate_n: As the last state; likewise.
            input_grad: False leaves dx out (None).

        Returns:
            dx, shaped like x, and the gradient of the first state; third that of the context, where there was one.

        Raises:
            RuntimeError: No call is left. ValueError, TypeError: As ``scan_backward``.
        """
        if not self._saved:
            self._pop()
        reserves, learned, with_context, swap = self._saved[-1]
        dy = swapped(dy) if swap else contiguous(dy)
        parts = halves(dy) if self.bidirectional else (dy,)
        last = self._pair("dstate_n", contiguous(dstate_n))
        found = [
            scan_backward(part, dstate, reserve, input_grad=input_grad)
            for part, dstate, reserve in zip(parts, last, reserves, strict=True)
        ]
        self._pop()  # only now: a call refused above may be made again
        for direction, gradients in enumerate(found):
            self._accumulate(direction, gradients, learned[direction])
        dx, dcontext = (added([getattr(each, name) for each in found]) for name in ("dx", "dcontext"))
        dstates = tuple(each.dstate for each in found)
        results = ((swapped(dx) if swap else dx), dstates if self.bidirectional else dstates[0])
        return (*results, dcontext) if with_context else results

    def _accumulate(self, direction: int, gradients: ScanGradients, learned: bool) -> None:
        """Add to the parameters' gradients."""
        for name, gradient in zip(self._names[direction], leaves_of(self._parameters, gradients.dparams), strict=True):
            grad = self._table[name].grad
            grad += gradient
        if not self.learned_state and self._start is None:
            return
        for of_rows in (gradients.dstate if learned else None, gradients.dreset_state):
            if of_rows is None:
                continue
            if self._start is not None:
                found = self._start.gradients(self._data(direction), of_rows)
                for name, gradient in zip(self._names[direction], found, strict=True):
                    if gradient is not None:
                        grad = self._table[name].grad
                        grad += gradient
                continue
            leaves = leaves_of(self._state_structure, of_rows)
            for of_state, gradient in zip(self._state_names[direction], leaves, strict=True):
                if of_state is not None:
                    grad = self._table[of_state].grad
                    grad += gradient.sum(axis=0)

    def trajectory(self, x: Any, state: Any = None, context: Any = None, **options: Any) -> tuple[Any, Any]:
        """Run in evaluation, and return y and the state after every step, leaves [T, N, ...]: what to look at.

        Args:
            x, state, context, options: As ``forward`` takes them.

        Raises:
            ValueError: A bidirectional layer, and as ``forward``.
        """
        if self.bidirectional:
            raise ValueError("trajectory: expected a layer of one direction")
        layer = self._snapshot()
        layer.step = Trajectory(self.step)
        found: tuple[Any, Any] = layer(x, state, context, **options)[0]
        return found

    def _snapshot(self: Self) -> Self:
        """A copy in evaluation, without gradients."""
        layer = copy.deepcopy(self).eval()
        for parameter in layer.parameters():
            parameter.drop_grad()
        return layer

    def freeze(self) -> FrozenScan:
        """Make a copy for inference over whole sequences, weights packed once: see ``FrozenScan``."""
        return FrozenScan(self._snapshot())

    def stream(self, batch: int = 1, *, context: Any = None) -> ScanStream:
        """Make a copy for real-time use that takes one time step a call, weights packed once: see ``ScanStream``.

        Args:
            batch: N, the rows of each step. context: As ``forward``, of all steps.

        Raises:
            ValueError: A batch below 1, or a bidirectional layer, whose other half would need the future.
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction; a bidirectional one needs the whole sequence")
        return ScanStream(self._snapshot(), size("batch", batch), context)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {list(parameter.data.shape)}" for name, parameter in self._table.items())
        flags = ("bidirectional", "batch_first", "learned_state")
        options = "".join(f", {name}=True" for name in flags if getattr(self, name))
        return f"Scan({getattr(self.step, '__name__', type(self.step).__name__)}, {{{shapes}}}{options})"


def leaves_of(structure: Structure, tree: Any) -> Sequence[Any]:
    """Leaves of a tree of gradients, which has None in place of integers."""
    found: list[Any] = []

    def walk(form: Structure, node: Any) -> None:
        if form.form == "leaf":
            found.append(node)
        elif form.form == "dict":
            for key, child in zip(form.keys, form.children, strict=True):
                walk(child, node[key])
        else:
            for child, member in zip(form.children, node or (), strict=True):
                walk(child, member)

    walk(structure, tree)
    return found
