"""A step and its derivative, planned once and run by the C++ executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.scan.derivative import Derivative
from fusedrnn.scan.encode import encode
from fusedrnn.scan.graph import Shape, Step, Value
from fusedrnn.scan.groups import Place
from fusedrnn.scan.kept import choose_kept, reserve_offsets
from fusedrnn.scan.plan import Plan, Root, make_plan
from fusedrnn.scan.turned import turn, turned_states

Arrays = list[Any]
# A reserve beyond so many bytes is not kept: backward computes blocks of steps again (`recompute=None`).
MOST_RESERVE = 1 << 30


@dataclass(eq=False)
class Kept:
    """Hold what backward needs of a forward call: arrays, and where the executor left its own memory."""

    memory: Any
    run: Any
    arrays: tuple[Arrays, Arrays, Arrays, Arrays]
    doubles: bool
    uneven: bool

    @property
    def nbytes(self) -> int:
        """Bytes that the executor keeps, beside the arrays of the call."""
        return int(self.memory.nbytes)


@dataclass(eq=False)
class _Compiled:
    """A plan, and the executor's copy of it.

    Attributes:
        turned: Which of its states lie with their axes exchanged.
    """

    plan: Plan
    turned: list[bool]
    code: Any = field(init=False)

    def __post_init__(self) -> None:
        self.code = _core.Plan(*encode(self.plan))

    def arrays(
        self, shared: Sequence[Any], rows: Sequence[Any], states: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[Arrays, Arrays, Arrays, Arrays]:
        """The arrays that the executor reads, in its order."""
        inner = self.turn(states)
        return list(shared), [rows[i] for i in self.plan.rows], inner, [inputs[i] for i in self.plan.inputs]

    def turn(self, states: Sequence[Any]) -> Arrays:
        """States [N, ...] as they lie in the executor."""
        return [
            np.ascontiguousarray(state.swapaxes(1, 2)) if wish and state is not None else state
            for state, wish in zip(states, self.turned, strict=True)
        ]

    def turn_back(self, states: Sequence[Array], batch: int) -> Arrays:
        """States of the executor, N times their elements, in the shapes that the step has."""
        found = []
        for state, value, wish in zip(states, self.plan.step.new_states, self.turned, strict=True):
            array = state.reshape((batch, *value.shape))
            found.append(np.ascontiguousarray(array.swapaxes(1, 2)) if wish else array)
        return found

    def results(self, found: Any, steps: int, batch: int, dtype: Any) -> tuple[Arrays, Arrays, Arrays, Arrays]:
        """Results in the step's order and shapes; zeros where they are known to be."""
        plan, step = self.plan, self.plan.step

        def shaped(lead: Shape, values: Sequence[Value], numbers: Sequence[int | None], arrays: Any) -> Arrays:
            return [
                np.zeros(lead + value.shape, dtype) if i is None else arrays[i].reshape(lead + value.shape)
                for value, i in zip(values, numbers, strict=True)
            ]

        return (
            self.turn_back(found[0], batch),
            shaped((steps, batch), step.outputs, plan.outputs, found[1]),
            shaped((batch,), step.row_outputs, plan.row_outputs, found[2]),
            shaped((), step.shared_outputs, plan.shared_outputs, found[3]),
        )


class Executable:
    """A step and its derivative, ready to run over any steps and rows.

    Args:
        step: What forward computes.
        derivative: Its derivative; None: backward is not wanted.
    """

    def __init__(self, step: Step, derivative: Derivative | None) -> None:
        self.turned = turned_states(step)
        self.step, self.derivative = step, derivative
        if any(self.turned):
            self.step = turn(step, self.turned)
            self.derivative = None if derivative is None else derivative.again(self.step)
        self._plans: dict[tuple[str, bool], _Compiled] = {}

    @cached_property
    def kept(self) -> list[Value]:
        """The values of each step that forward in training keeps."""
        return [] if self.derivative is None else choose_kept(self.step, self.derivative.step)

    # Plans are made when they are first asked for: for even rows, and for rows of lengths of their own.

    def inference(self, uneven: bool) -> _Compiled:
        """The plan that keeps nothing of a step."""
        return self._plan("inference", uneven, lambda: _Compiled(make_plan(self.step, uneven=uneven), self.turned))

    def training(self, uneven: bool) -> _Compiled:
        """The plan that keeps what backward needs."""

        def make() -> _Compiled:
            offsets, width = reserve_offsets(self.kept)
            return _Compiled(make_plan(self.step, reserve=offsets, width=width, uneven=uneven), self.turned)

        return self._plan("training", uneven, make)

    def backward_plan(self, uneven: bool, input_grad: bool = True) -> _Compiled:
        """The derivative's plan, which reads what forward kept."""

        def make() -> _Compiled:
            assert self.derivative is not None
            step = self.derivative.step if input_grad else replace(self.derivative.step, outputs=())
            states = zip(self.turned, self.derivative.states, strict=True)
            turned = [wish for wish, place in states if place is not None]
            return _Compiled(make_plan(step, lent=self._lent(uneven), uneven=uneven), turned)

        return self._plan("backward" if input_grad else "backward without inputs", uneven, make)

    def _plan(self, name: str, uneven: bool, make: Callable[[], _Compiled]) -> _Compiled:
        found = self._plans.get((name, uneven))
        # One of several threads wins: weights are packed for that plan alone.
        return self._plans.setdefault((name, uneven), make()) if found is None else found

    def _lent(self, uneven: bool) -> dict[Value, Place]:
        plan = self.training(uneven).plan
        roots = {
            Root.RESERVE: Root.RESERVE,
            Root.STATE: Root.KEPT_STATE,
            Root.NEXT_STATE: Root.KEPT_NEXT,
            Root.ROW: Root.KEPT_ROW,
            Root.TOTAL: Root.KEPT_ROW,
            Root.SHARED: Root.KEPT_SHARED,
        }
        return {value: (roots[Root(root)], at) for value, (root, at) in plan.places.items() if root in roots}

    def checkpoint(self, steps: int, batch: int, dtype: Any, recompute: int | bool | None) -> int:
        """Steps between two checkpoints; 0 where all is kept.

        They are a multiple of the steps over which totals are added up, so that recomputing changes no bit.
        """
        if recompute is False:
            return 0
        block = int(_core.program_block(batch))
        plan = self.training(False).plan
        if recompute is None:
            element = np.dtype(dtype).itemsize
            if steps * batch * (plan.reserve + plan.state) * element <= MOST_RESERVE:
                return 0
        wanted = recompute if isinstance(recompute, int) and recompute is not True else round(float(np.sqrt(steps)))
        return -(-max(1, wanted) // block) * block

    def forward(
        self,
        shared: Sequence[Any],
        rows: Sequence[Any],
        states: Sequence[Any],
        inputs: Sequence[Any],
        *,
        steps: int,
        batch: int,
        dtype: Any,
        lengths: Array | None = None,
        reverse: bool = False,
        training: bool = True,
        recompute: int | bool | None = None,
        seed: int = 0,
        row_offset: int = 0,
        step_offset: int = 0,
        frozen: Any = None,
        lanes: int = 0,
        chunk: int = 0,
    ) -> tuple[Arrays, Arrays, Arrays, Arrays, Kept | None]:
        """Run all steps.

        Args:
            shared: [...] of each shared leaf of the step.
            rows: [N, ...] of each leaf of level ROW.
            states: [N, ...] of each state; None: zeros.
            inputs: [T, N, ...] of each input; None: zeros.
            steps: T.
            batch: N.
            dtype: Of all arrays, float32 or float64; integers and booleans as such numbers.
            lengths: [N] int64: steps of each row.
            reverse: Walk from the last step to the first.
            training: Keep what backward needs.
            recompute: Steps between checkpoints; True: about sqrt(T); None: where the reserve would be beyond 1 GiB.
            seed: Of random numbers.
            row_offset: Of the first row in the whole batch.
            step_offset: Of the first step in the whole sequence.
            frozen: What `freeze` gave for these shared arrays; not with `training`.
            lanes: Rows of a block: 1, 16, or 0 for the faster.
            chunk: Elements of an elementwise pass; 0 for the usual.

        Returns:
            (new states, outputs, row outputs, shared outputs, what backward needs or None).

        Raises:
            IndexError: The step computed an index outside of its axis.
        """
        doubles = np.dtype(dtype) == np.float64
        keep = training and self.derivative is not None
        checkpoint = self.checkpoint(steps, batch, dtype, recompute) if keep else 0
        uneven = lengths is not None
        compiled = self.training(uneven) if keep and not checkpoint else self.inference(uneven)
        run = _core.ProgramRun(
            steps, batch, lengths, reverse, seed, row_offset, step_offset, checkpoint, lanes=lanes, chunk=chunk
        )
        arrays = compiled.arrays(shared, rows, states, inputs)
        *found, memory = _core.program_forward(compiled.code, run, doubles, arrays, keep, frozen)
        results = compiled.results(found, steps, batch, dtype)
        kept = (
            Kept(memory, run, (list(shared), list(rows), list(states), list(inputs)), doubles, uneven) if keep else None
        )
        return (*results, kept)

    def freeze(self, shared: Sequence[Any], dtype: Any) -> Any:
        """Weights packed once, for many calls of few steps: a snapshot of the shared arrays."""
        copies = [np.array(array, dtype, order="C") for array in shared]
        return _core.FrozenProgram(self.inference(False).code, np.dtype(dtype) == np.float64, copies)

    def backward(
        self,
        kept: Kept,
        state_gradients: Sequence[Any],
        output_gradients: Sequence[Any],
        row_gradients: Sequence[Any] = (),
        shared_gradients: Sequence[Any] = (),
        *,
        input_grad: bool = True,
    ) -> tuple[Arrays, Arrays, Arrays, Arrays]:
        """Run the derivative back over all steps; it may run again.

        Args:
            kept: What forward kept.
            state_gradients: [N, ...] of each state that has a gradient, of `derivative.step.states`; None: zeros.
            output_gradients: [T, N, ...] of each output that has one; None: zeros.
            row_gradients: [N, ...] of each row output that has one.
            shared_gradients: [...] of each shared output that has one.
            input_grad: False leaves the gradients of inputs out, an empty list.

        Returns:
            (gradients of the states before the first step, of inputs, of rows, of shared leaves), in the derivative's
            order.
        """
        shared, rows, states, inputs = kept.arrays
        compiled = self.backward_plan(kept.uneven, input_grad)
        # Derivative's leaves: forward's inputs, forward's states (which the executor has kept), gradients.
        given = [*inputs, *[None] * len(self.step.states), *output_gradients]
        leaves = [*shared, *shared_gradients]
        arrays = compiled.arrays(leaves, [*rows, *row_gradients], state_gradients, given)
        forward = self.training(kept.uneven)
        found = _core.program_backward(
            compiled.code,
            forward.code,
            kept.run,
            kept.doubles,
            arrays,
            forward.arrays(shared, rows, states, inputs),
            kept.memory,
        )
        return compiled.results(found, kept.run.steps, kept.run.batch, np.float64 if kept.doubles else np.float32)
