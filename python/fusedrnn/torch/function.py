"""The calls for autograd in eager mode, where a registered operator's own Python would cost more than small kernels.

A layer's first call hands its parameters to autograd. Further calls before the backward, as in a loop over steps, hand
over a token in their place, and add to sums of gradients, which reach autograd once, by way of the token.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusedrnn.torch import calls, composite, operators
from fusedrnn.torch.backward import LayerBackward
from fusedrnn.torch.calls import Call
from fusedrnn.torch.compiling import methods_run_as_they_are
from fusedrnn.torch.kept import CHANGED, Kept, any_y, watched_parameters
from fusedrnn.torch.support import batched


@methods_run_as_they_are
class Layer(torch.autograd.Function):
    """(call, weights, token, x, h0[, c0], parameters...) -> (y, h_n[, c_n]), or without y. With a token the parameters,
    which are those of ``weights``, are left out; they are not saved, so that calls with and without save the same."""

    @staticmethod
    def forward(ctx: Any, call: Call, weights: Weights, token: Tensor | None, *tensors: Tensor | None) -> Any:
        inputs = tensors[: 1 + len(call.cell.states)]
        outputs, reserve = calls.forward(call, inputs[0], inputs[1:], weights.arrays)
        ctx.call, ctx.weights, ctx.shared = call, weights, token is not None
        ctx.kept = Kept(call, inputs, weights.parameters, outputs[0])
        if call.changeable:
            outputs = (outputs[0].clone(), *outputs[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*ctx.kept.watched, reserve)
        ctx.kept.watched = ()
        return outputs

    @staticmethod
    def backward(ctx: Any, *doutputs: Tensor | None) -> tuple[Any, ...]:
        *saved, y, reserve = ctx.saved_tensors
        call, weights, kept, input_grad = ctx.call, ctx.weights, ctx.kept, ctx.needs_input_grad[3]
        many = batched(doutputs)
        by_operators = many or torch.is_grad_enabled()
        exact = by_operators or reserve is None
        inputs = kept.inputs(saved, exact=exact)
        watched = None if exact else partial(watched_parameters, call, inputs[0], ctx.needs_input_grad[3:5])
        arrays = weights.look_again(watched, exact=exact, one_operator=call.one_operator)
        weights.sums.reached = True
        if y is None:
            y = any_y(inputs, weights.parameters)
        gradients: Sequence[Tensor | None]
        if by_operators:
            # y follows from the inputs: no gradient goes by way of it
            arguments = (*inputs, *weights.parameters)
            found: Sequence[Tensor | None]
            if not many:
                found = LayerBackward.apply(call, input_grad, *doutputs, *arguments, y.detach(), reserve)
            elif reserve is None:
                found = composite.backward(call, doutputs, arguments, input_grad)
            else:
                found = operators.run_backward(call, input_grad, *doutputs, *arguments, y, reserve)
            gradients, dparameters = found[: len(inputs)], found[len(inputs) :]
            if ctx.shared:
                weights.sums.add(dparameters)
        else:
            zeros = partial(calls.zeros_like, arrays)
            dweights = weights.sums.present(zeros) if ctx.shared else zeros()
            gradients = _add_gradients(call, doutputs, inputs, weights, arrays, y, reserve, input_grad, dweights)
            dparameters = () if ctx.shared else calls.tensors_of(dweights)
        return None, None, None, *gradients, *(() if ctx.shared else dparameters)


def _add_gradients(
    call: Call,
    doutputs: Sequence[Tensor | None],
    inputs: Sequence[Any],
    weights: Weights,
    arrays: Sequence[Any],
    y: Tensor,
    reserve: Tensor | None,
    input_grad: bool,
    dweights: Sequence[Any],
) -> Sequence[Tensor | None]:
    """Those of the inputs; those of the parameters, which are ``arrays`` now, are added to the arrays ``dweights``."""
    if reserve is not None:
        return calls.backward(call, doutputs, inputs[0], inputs[1:], arrays, y, reserve, input_grad, dweights)
    found = composite.backward(call, doutputs, (*inputs, *weights.parameters), input_grad)
    for sums, gradient in zip(dweights, found[len(inputs) :], strict=True):
        if gradient is not None:
            sums += gradient.numpy()
    return found[: len(inputs)]


class Sums:
    """Of the gradients of some parameters: ``of_run`` has a list for each run of autograd's engine, by its number, of
    arrays that kernels add to, or of tensors where the sums themselves are differentiated. ``reached``: a backward has
    come to the calls."""

    def __init__(self) -> None:
        self.of_run: dict[int, list[Any]] = {}
        self.reached = False

    def present(self, make: Callable[[], list[Any]]) -> list[Any]:
        """Those of the present run, begun by ``make()``."""
        run = torch._C._current_graph_task_id()
        found = self.of_run.get(run)
        if found is None:
            found = self.of_run[run] = make()
            # Where the token is not asked for its gradient nobody takes them.
            torch.autograd.Variable._execution_engine.queue_callback(partial(self.of_run.pop, run, None))
        return found

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """To those of the present run, as tensors."""
        found = self.present(lambda: [None] * len(gradients))
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                found[place] = gradient if found[place] is None else found[place] + gradient


class Weights:
    """The parameters of one layer and direction over the calls of a loop."""

    def __init__(self, parameters: Sequence[Tensor | None]) -> None:
        self.parameters = parameters
        self.sums = Sums()
        self.again = False  # whether this is not the first call
        self.arrays = calls.weights_of(parameters)
        self._state = [_state(p) for p in parameters]
        # Another tensor's memory may be put under a parameter, by ``data``; the calls go on with what they had.
        self._storages = [None if p is None else p.untyped_storage() for p in parameters]
        self._token: Tensor | None = None

    def same(self, parameters: Sequence[Tensor | None]) -> bool:
        """Whether these are the same parameters, unchanged."""
        return len(parameters) == len(self.parameters) and all(
            [p is q and _state(q) == s for p, q, s in zip(parameters, self.parameters, self._state, strict=True)]
        )

    @property
    def token(self) -> Tensor:
        """Stands for all parameters in the graph."""
        if self._token is None:
            self._token = Token.apply(self.sums, *self.parameters)
        return self._token

    def look_again(
        self, watched: Callable[[int], list[bool] | None] | None, *, exact: bool, one_operator: bool
    ) -> Sequence[Any]:
        """Return the parameters' arrays for backward, where they lie now. Who shards or offloads a model frees them
        after forward and brings the same values back to another place; who sets ``data`` to another tensor leaves the
        old values to the calls before, but with ``one_operator``, as PyTorch's own saves the parameters themselves.

        Raises:
            RuntimeError: a value changed, of all or of those that ``watched`` finds among so many, as autograd says of
                what it saves; with ``exact``, which asks for the very tensors, also if one has other memory.
            ValueError: the memory is gone.
        """
        for parameter, old in zip(self.parameters, self._state, strict=True):
            if parameter is not None and (parameter._version != old[0] or parameter.data_ptr() != old[1]):
                break
        else:
            return self.arrays
        now = [_state(p) for p in self.parameters]
        kept = None if watched is None else watched(len(now))
        for place, (new, old) in enumerate(zip(now, self._state, strict=True)):
            if new is not None and new[0] != old[0] and (kept is None or kept[place]):
                raise RuntimeError(CHANGED + "a weight of a recurrent layer, between its forward and its backward")
        values, replaced = list(self.parameters), False
        known = zip(self.parameters, self._storages, self._state, self.arrays, strict=True)
        for place, (parameter, storage, old, array) in enumerate(known):
            if parameter is None or (
                now[place][3] == old[3] and not _replaced(parameter, storage, old[1], array.nbytes)
            ):
                continue
            replaced = True
            if exact:
                raise RuntimeError(CHANGED + "a weight of a recurrent layer, whose data was set to another tensor")
            if not one_operator:
                values[place], now[place] = torch.from_numpy(array), old
        arrays = calls.weights_of(values)
        if not (replaced and one_operator):  # other calls may need the old ones
            self.arrays = arrays
            self._state = [old and (old[0], *new[1:]) for new, old in zip(now, self._state, strict=True)]
        return arrays


def _replaced(parameter: Tensor, storage: Any, address: int, size: int) -> bool:
    """Whether a parameter has another storage than this one, which still has the ``size`` bytes at ``address``."""
    if parameter.untyped_storage()._cdata == storage._cdata:
        return False
    first = storage.data_ptr()
    return bool(first <= address and address + size <= first + storage.nbytes())


def _state(parameter: Tensor | None) -> Any:
    if parameter is None:
        return None
    layout = (parameter.shape, parameter.stride())  # ``data`` may be another view of the same memory
    return parameter._version, parameter.data_ptr(), parameter.requires_grad, layout


@methods_run_as_they_are
class Token(torch.autograd.Function):
    """(sums, parameters...) -> a tensor that stands for them; its backward, after that of all calls with it, hands over
    their sums."""

    @staticmethod
    def forward(ctx: Any, sums: Sums, *parameters: Tensor | None) -> Tensor:
        ctx.sums = sums  # not the Weights, which have the token
        ctx.count = len(parameters)
        ctx.set_materialize_grads(False)
        return torch.empty(0)

    @staticmethod
    def backward(ctx: Any, dtoken: Tensor | None) -> tuple[Any, ...]:
        sums = ctx.sums.of_run.pop(torch._C._current_graph_task_id(), [None] * ctx.count)
        return None, *[s if s is None or isinstance(s, Tensor) else torch.from_numpy(s) for s in sums]


class Memory:
    """A module remembers the weights of its last calls here, by layer and direction, as long as their graph is there.
    It is not part of the module's state: copies and pickles have an empty one."""

    def __init__(self) -> None:
        self._last: dict[int, weakref.ref[Weights]] = {}

    def __reduce__(self) -> Any:
        return Memory, ()

    def weights(self, place: int, parameters: Sequence[Tensor | None]) -> Weights:
        """Those of the call before, if it had these very parameters and its backward is still to come; or new ones."""
        known = self._last.get(place)
        last = None if known is None else known()
        if last is not None and not last.sums.reached and last.same(parameters):
            last.again = True
            return last
        fresh = Weights(parameters)
        # Others would be kept alive for nothing, or be copies that see no change by way of ``data``.
        if all([p is None or (p.is_leaf and p.is_contiguous()) for p in parameters]):
            self._last[place] = weakref.ref(fresh)
        return fresh


torch.serialization.add_safe_globals([Memory])  # which holds nothing
_MEMORY = "_fusedrnn_memory"


def memory_of(module: torch.nn.Module) -> Memory | None:
    """The module's, made at its first call; None where a compiler looks, which would see a module that changes."""
    if torch.compiler.is_compiling():
        return None
    found: Memory | None = module.__dict__.get(_MEMORY)
    if found is None:
        found = module.__dict__[_MEMORY] = Memory()
    return found


def forget(module: torch.nn.Module) -> None:
    """Remove it."""
    module.__dict__.pop(_MEMORY, None)
