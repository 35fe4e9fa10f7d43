"""The calls as operators of the dispatcher, ``torch.ops.fusedrnn.lstm_forward`` and its like: what torch.compile,
torch.export and everything else that looks at operators sees, one node a layer and direction.

Forward takes x, the states, the parameters in the order of ``Cell.parameters``, lengths, batch_sizes, resets, a seed,
and options; it returns y, h_n (, c_n) and the reserve. Backward takes the outputs' gradients, x, states, parameters, y,
the reserve and the rest, and returns the gradients of x, states and parameters; an empty tensor stands for what there
is none of, as operators return tensors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusedrnn.spec import Cell
from fusedrnn.torch import calls, decompositions
from fusedrnn.torch.backward import LayerBackward
from fusedrnn.torch.calls import CELLS, Call
from fusedrnn.torch.compiling import methods_run_as_they_are
from fusedrnn.torch.second import double_backward

_SEQUENCES = ("lengths", "batch_sizes", "resets", "seed")
_TYPES = {"nonlinearity": "str", "reset_after": "bool", "recompute": "bool", "coupled": "bool", "layer": "int"}
_OPTIONAL = {"grad_clip": "float?", "cell_clip": "float?", "activations": "str[]?", "precision": "str?"}


@methods_run_as_they_are
class _Operator:
    """Both operators of a cell: the places of their arguments and what the dispatcher asks for."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.plain = calls.options_of(cell)
        self.states = len(cell.states)
        self.tensors = 1 + self.states + len(cell.parameters)  # x, states, parameters
        needed = ("x", "weight_ih", "weight_hh")
        inputs = [f"Tensor{'' if n in needed else '?'} {n}" for n in ("x", *cell.states, *cell.parameters)]
        sequences = [f"Tensor? {name}" for name in _SEQUENCES]
        options = [f"{_TYPES.get(n) or _OPTIONAL.get(n, 'float')} {n}" for n in self.plain]
        doutputs = [f"Tensor? d{name}" for name in ("y", "h_n", "c_n")[: 1 + self.states]]
        self.forward_schema = _schema([*inputs, *sequences, "bool reverse", *options, "bool training"], 2 + self.states)
        self.backward_schema = _schema(
            [*doutputs, *inputs, "Tensor y", "Tensor reserve", *sequences, "bool reverse", *options, "bool input_grad"],
            self.tensors,
        )

    def register(self) -> None:
        forward, backward = f"fusedrnn::{self.cell.name}_forward", f"fusedrnn::{self.cell.name}_backward"
        for name, schema in ((forward, self.forward_schema), (backward, self.backward_schema)):
            torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(forward, "cpu")(self.forward)
        torch.library.impl(backward, "cpu")(self.backward)
        torch.library.register_fake(forward)(self.fake_forward)
        torch.library.register_fake(backward)(self.fake_backward)
        torch.library.register_autograd(forward, self.backward_of_forward, setup_context=self.keep_forward)
        torch.library.register_vmap(backward, self.each_backward)
        torch.library.register_autograd(backward, self.backward_of_backward, setup_context=self.keep_backward)
        decompositions.register(self)

    def call(self, sequences: Sequence[Tensor | None], options: Sequence[Any], training: bool) -> Call:
        """From (lengths, batch_sizes, resets, seed) and (reverse, options...)."""
        lengths, batch_sizes, resets, seed = sequences
        given = {
            name: value for (name, plain), value in zip(self.plain.items(), options[1:], strict=True) if value != plain
        }
        if "activations" in given:
            given["activations"] = tuple(given["activations"])
        if seed is not None:
            given["seed"] = int(seed)
        return Call(self.cell, (lengths, batch_sizes, resets), options[0], training, given or None)

    def split(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """(tensors, sequences, options) of what follows x, states and parameters at the front."""
        n = self.tensors
        return arguments[:n], arguments[n : n + len(_SEQUENCES)], arguments[n + len(_SEQUENCES) :]

    def forward(self, *arguments: Any) -> tuple[Tensor, ...]:
        (x, *rest), sequences, (*options, training) = self.split(arguments)
        call = self.call(sequences, options, training)
        outputs, reserve = calls.forward(call, x, rest[: self.states], calls.arrays_of(rest[self.states :]))
        if reserve is None:
            return *outputs, x.new_empty(0)
        if sequences[0] is not None:  # an operator's outputs follow from its inputs, so nothing is left unwritten
            reserve.flatten(0, 1)[int(sequences[0].sum()) :] = 0
        return *outputs, reserve

    def backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        doutputs, (x, *rest), y, reserve, sequences, options, input_grad = self.split_backward(arguments)
        call = self.call(sequences, options, True)
        states, parameters = rest[: self.states], rest[self.states :]
        weights = calls.arrays_of(parameters)
        dweights = calls.zeros_like(weights)
        gradients = calls.backward(call, doutputs, x, states, weights, y, reserve, input_grad, dweights)
        gradients += calls.tensors_of(dweights)
        return tuple(x.new_empty(0) if g is None else g for g in gradients)

    def each_backward(self, info: Any, dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        """Under vmap: one after the other."""
        run = getattr(torch.ops.fusedrnn, f"{self.cell.name}_backward")
        each = [
            run(*[a if dim is None else a.select(dim, k) for a, dim in zip(arguments, dims, strict=True)])
            for k in range(info.batch_size)
        ]
        return tuple(torch.stack(d) for d in zip(*each, strict=True)), (0,) * self.tensors

    def split_backward(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        outputs = 1 + self.states
        at = outputs + self.tensors
        doutputs, tensors, (y, reserve, *rest) = arguments[:outputs], arguments[outputs:at], arguments[at:]
        sequences, (*options, input_grad) = rest[: len(_SEQUENCES)], rest[len(_SEQUENCES) :]
        return doutputs, tensors, y, reserve, sequences, options, input_grad

    def fake_forward(self, *arguments: Any) -> tuple[Tensor, ...]:
        (x, *rest), (_, batch_sizes, *_), (_, *options, training) = self.split(arguments)
        given = dict(zip(self.plain, options, strict=True))
        parameters = dict(zip(self.cell.parameters, rest[self.states :], strict=True))
        h0, weight_hh = rest[0], parameters["weight_hh"]
        elements = weight_hh.shape[1]
        units = weight_hh.shape[0] // self.cell.rows(given)
        if h0 is not None:
            rows = h0.shape[0]
        else:
            rows = x.shape[1] if batch_sizes is None else torch.library.get_ctx().new_dynamic_size()
        y = x.new_empty((*x.shape[:-1], elements))
        states = [x.new_empty((rows, width)) for width in (elements, units)[: self.states]]
        normalized = 0 if parameters.get("gain_ih") is None else self.cell.rows(given) * units
        width = self.cell.reserve_width(given, units, normalized)
        return y, *states, x.new_empty((*x.shape[:-1], width)) if training else x.new_empty(0)

    def fake_backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        _, (x, *rest), _, _, _, _, input_grad = self.split_backward(arguments)
        given = (x if input_grad else None, *rest)
        return tuple(x.new_empty(0) if t is None else x.new_empty(t.shape) for t in given)

    def keep_forward(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        tensors, sequences, (*options, training) = self.split(inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[-1])
        ctx.save_for_backward(*tensors, output[0], output[-1], *calls.owned(sequences))
        ctx.options, ctx.training = options, training

    def backward_of_forward(self, ctx: Any, *doutputs: Tensor | None) -> tuple[Any, ...]:
        run = getattr(torch.ops.fusedrnn, f"{self.cell.name}_backward")
        input_grad = ctx.needs_input_grad[0]
        saved = ctx.saved_tensors  # unpacked once, as checkpointing asks
        tensors, (y, *kept) = saved[: self.tensors], saved[self.tensors :]
        y = y.detach()  # it follows from the inputs: no gradient goes by way of it
        if ctx.training:
            gradients = run(*doutputs[:-1], *tensors, y, *kept, *ctx.options, input_grad)
        else:
            call = self.call(kept[1:], ctx.options, False)
            gradients = LayerBackward.apply(call, input_grad, *doutputs[:-1], *tensors, y, None)
        needed = ctx.needs_input_grad[: self.tensors]
        gradients = [g if need else None for g, need in zip(gradients, needed, strict=True)]
        return *gradients, *[None] * (len(_SEQUENCES) + len(ctx.options) + 1)

    def keep_backward(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        doutputs, tensors, _, _, sequences, options, _ = self.split_backward(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*doutputs, *tensors, *calls.owned(sequences))
        ctx.options = options

    def backward_of_backward(self, ctx: Any, *ddinputs: Tensor | None) -> tuple[Any, ...]:
        outputs = 1 + self.states
        saved = ctx.saved_tensors
        doutputs, rest = saved[:outputs], saved[outputs:]
        tensors, sequences, _ = self.split(rest)
        call = self.call(sequences, ctx.options, True)
        ddoutputs, dinputs = double_backward(call, ddinputs, doutputs, tensors)
        return *ddoutputs, *dinputs, *[None] * (2 + len(_SEQUENCES) + len(ctx.options) + 1)


def _schema(arguments: Sequence[str], outputs: int) -> str:
    return f"({', '.join(arguments)}) -> ({', '.join(['Tensor'] * outputs)})"


for _cell in CELLS.values():
    _Operator(_cell).register()


def run(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor | None],
    parameters: Sequence[Tensor | None],
    sequences: tuple[Tensor | None, Tensor | None, Tensor | None],
    seed: Tensor | None,
    reverse: bool,
    options: dict[str, Any],
    training: bool,
) -> tuple[Tensor, ...]:
    """(y, h_n[, c_n]) by the registered operator."""
    operator = getattr(torch.ops.fusedrnn, f"{cell.name}_forward")
    parameters, values = _complete(cell, parameters, options)
    outputs = operator(x, *states, *parameters, *sequences, seed, reverse, *values, training)
    return tuple(outputs[:-1])


def run_backward(call: Call, input_grad: bool, *tensors: Any) -> list[Tensor | None]:
    """(doutputs, x, states, parameters, y, reserve) -> gradients of x, states and parameters by the registered
    operator, which the dispatcher takes apart where doutputs are batches of vmap."""
    operator = getattr(torch.ops.fusedrnn, f"{call.cell.name}_backward")
    count = len(call.cell.states)
    doutputs, x, *rest = [*tensors[: call.outputs]], *tensors[call.outputs :]
    states, own, (y, reserve) = rest[:count], rest[count:-2], rest[-2:]
    if call.step:
        doutputs, x, y = [None, *doutputs], x.unsqueeze(0), y.unsqueeze(0)
    if call.stacked:
        doutputs[1:], states = ([None if t is None else t[0] for t in ts] for ts in (doutputs[1:], states))
    options = call.options or {}
    parameters, values = _complete(call.cell, own, options)
    seed = torch.tensor(options["seed"]) if "seed" in options else None
    inputs = (x, *states, *parameters)
    found = operator(*doutputs, *inputs, y, reserve, *call.sequences, seed, call.reverse, *values, input_grad)
    gradients = [None if t is None else d for t, d in zip(inputs, found, strict=True)][: 1 + count + len(own)]
    if call.step:
        gradients[0] = found[0].squeeze(0)
    if call.stacked:
        gradients[1 : 1 + count] = [None if d is None else d.unsqueeze(0) for d in gradients[1 : 1 + count]]
    return [gradients[0] if input_grad else None, *gradients[1:]]


def _complete(cell: Cell, parameters: Sequence[Any], options: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The parameters with None for those left out, and the values of all options."""
    absent = [None] * (len(cell.parameters) - len(parameters))
    plain = calls.options_of(cell)
    return [*parameters, *absent], [options.get(name, value) for name, value in plain.items()]
