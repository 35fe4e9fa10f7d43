"""Snapshots of a layer of any recurrence, weights packed once: for whole sequences, and step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.scan.arguments import contiguous, owned
from fusedrnn.scan.call import Call, as_kinds, prepare
from fusedrnn.scan.leaves import flatten as leaves_and_key
from fusedrnn.scan.leaves import named
from fusedrnn.scan.program import Program
from fusedrnn.scan.trees import flatten, map_leaves

if TYPE_CHECKING:
    from fusedrnn.nn.scan import Scan


class FrozenScan:
    """A snapshot of a layer for inference over whole sequences; made by ``layer.freeze()``.

    Weights are packed once for each form of x, and later training does not reach them. Results have the bits of the
    layer's after ``eval()``. Several threads may call it at once.
    """

    def __init__(self, layer: Scan) -> None:
        self._layer = layer
        self._packed: dict[tuple[Program, bool], Any] = {}

    def __call__(
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
        """Run over a sequence; arguments, results and errors as those of the layer."""
        return self._layer._run(
            x, state, context, self._scan, lengths=lengths, batch_sizes=batch_sizes, resets=resets, steps=steps,
            batch=batch,
        )  # fmt: skip

    def _scan(
        self,
        *arguments: Any,
        reverse: bool,
        training: bool,
        recompute: Any,
        seed: Any,
        row_offset: int = 0,
        **options: Any,
    ) -> tuple[Any, Any, None]:
        del training, recompute
        call = prepare(*arguments, training=False, **options)
        program, frozen = call.program, None
        if call.lengths is None:  # rows of uneven length have another plan
            frozen = self._packed.get((program, reverse))
            if frozen is None:
                frozen = program.executable.freeze(call.arrays[0], program.dtype)
                self._packed[program, reverse] = frozen
        found = program.executable.forward(
            *call.arrays, steps=call.steps, batch=call.batch, dtype=program.dtype, training=False, frozen=frozen,
            lengths=call.lengths, reverse=reverse, seed=seed(program), row_offset=row_offset,
        )  # fmt: skip
        return (*call.results(found[0], found[1]), None)


class ScanStream:
    """A snapshot of a layer that is fed one step at a time; made by ``layer.stream()``.

    The weights are those of the moment it was made; later training does not reach it. Outputs have the bits of the
    layer's over the whole sequence. Not for two threads at once.
    """

    def __init__(self, layer: Scan, batch: int, context: Any) -> None:
        self._layer, self._batch, self._context = layer, batch, context
        self._bound: _Bound | None = None
        self._start: list[Array] = [leaf.astype(layer.dtype) for leaf in flatten(layer._initial(0, batch), "state")[0]]
        self._states = self._start  # as they lie in the executor, once there is one
        self._steps = 0

    def __call__(self, x: Any = None) -> Any:
        """Take one step.

        Args:
            x: Leaves [N, ...], of the forms, shapes and dtypes that the first step had; None for a step without.

        Returns:
            y of this step, leaves [N, ...].

        Raises:
            TypeError, ValueError, TraceError, IndexError: As ``scan_forward``; the state is then as before.
        """
        bound = self._bound
        if bound is None:
            bound = self._bind(x)
            self._states, self._start = bound.compiled.turn(self._states), bound.compiled.turn(self._start)
            self._bound = bound
        run = bound.run
        if bound.seed is not None:
            run = _core.ProgramRun(1, self._batch, None, False, bound.seed, 0, self._steps)
        arrays = (bound.shared, bound.rows, self._states, bound.inputs(x))
        found = _core.program_forward(bound.code, run, bound.doubles, arrays, False, bound.frozen)
        self._states = found[0]
        self._steps += 1
        return bound.outputs(found[1])

    def _bind(self, x: Any) -> _Bound:
        layer = self._layer
        if x is not None:
            for name, leaf in named(x, "x"):
                if np.shape(leaf)[:1] != (self._batch,):
                    raise ValueError(f"{name}: expected shape ({self._batch}, ...) of (N, ...), got {np.shape(leaf)}")
        sequence = None if x is None else map_leaves(lambda leaf: np.asarray(leaf)[None], x)
        steps = 1 if x is None else None
        call = prepare(
            layer.step, layer._data(0), self.state, sequence, context=self._context, steps=steps, training=False
        )
        return _Bound(call, x, layer._seed(call.program) if call.program.draws else None)

    @property
    def state(self) -> Any:
        """The state after the last step, leaves [N, ...]: copies. Assign the same to go on from another state."""
        layer = self._layer
        arrays = self._states if self._bound is None else self._bound.compiled.turn_back(self._states, self._batch)
        values = zip(arrays, layer._state_values, strict=True)
        return layer._state_structure.pack([array.astype(value.dtype) for array, value in values])

    @state.setter
    def state(self, value: Any) -> None:
        layer = self._layer
        leaves, structure = flatten(value, "state")
        if structure != layer._state_structure:
            raise ValueError(f"state: expected the structure {layer._state_structure}, got {structure}")
        arrays = []
        for where, leaf, like in zip(structure.names, leaves, layer._state_values, strict=True):
            array = np.asarray(leaf)
            if array.shape != (self._batch, *like.shape):
                raise ValueError(f"state{where}: expected shape {(self._batch, *like.shape)}, got {array.shape}")
            if array.dtype != like.dtype and (array.dtype.kind == "f" or like.dtype.kind == "f"):
                raise TypeError(f"state{where}: expected dtype {like.dtype}, got {array.dtype}")
            arrays.append(np.array(array, layer.dtype, order="C"))
        self._states = arrays if self._bound is None else self._bound.compiled.turn(arrays)

    def reset(self) -> None:
        """Start again from the layer's initial state; random numbers are new ones."""
        self._states, self._steps = self._start, 0
        if self._bound is not None and self._bound.seed is not None:
            self._bound.seed = self._layer._seed(self._bound.program)


class _Bound:
    """All that a step of a stream needs but x and the state."""

    def __init__(self, call: Call, x: Any, seed: int | None) -> None:
        program = self.program = call.program
        step, compiled = program.recurrence.step, program.executable.inference(False)
        self.compiled = compiled
        self.frozen = program.executable.freeze(call.arrays[0], program.dtype)
        self.shared, self.rows, _, _ = compiled.arrays(*call.arrays)
        self.rows = [np.array(each) for each in self.rows]
        self.code, self.doubles, self.seed = compiled.code, program.dtype == np.float64, seed
        self.run = _core.ProgramRun(1, call.batch)
        self._dtype = program.dtype
        self._key: list[Any] = []
        leaves: list[Array] = []
        leaves_and_key(x, 0, leaves, self._key)
        self._read = compiled.plan.inputs
        alone = type(x) is np.ndarray and x.dtype == program.dtype and list(self._read) == [0]
        self._shape = x.shape if alone else None
        self._structure, self._values = program.recurrence.y, step.outputs
        self._shapes = [(call.batch, *value.shape) for value in step.outputs]
        self._numbers = compiled.plan.outputs
        real = all(value.kind == "real" for value in step.outputs)
        self._alone = self._structure.form == "leaf" and real and self._numbers[0] == 0

    def inputs(self, x: Any) -> list[Any]:
        """The arrays of x that the executor reads."""
        if self._shape is not None and type(x) is np.ndarray and x.shape == self._shape and x.dtype == self._dtype:
            return [x]
        leaves: list[Array] = []
        key: list[Any] = []
        leaves_and_key(x, 0, leaves, key)
        if key != self._key:
            raise ValueError(f"x: expected forms, shapes and dtypes of the first step, {self._key}, got {key}")
        dtype = self._dtype
        arrays = [leaf if leaf.dtype == dtype else owned(leaf, dtype, "x", x).astype(dtype) for leaf in leaves]
        contiguous(arrays, "x", x)
        return [arrays[i] for i in self._read]

    def outputs(self, found: list[Array]) -> Any:
        """y in the structure of the step."""
        if self._alone:
            return found[0].reshape(self._shapes[0])
        arrays = [
            np.zeros(shape, self._dtype) if i is None else found[i].reshape(shape)
            for i, shape in zip(self._numbers, self._shapes, strict=True)
        ]
        return self._structure.pack(as_kinds(arrays, self._values))
