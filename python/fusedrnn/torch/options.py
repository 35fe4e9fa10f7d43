"""Options that ``torch.nn`` has not: arguments of the constructors, and the parameters that come with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import Parameter

from fusedrnn.sizes import require_memory, size
from fusedrnn.spec import ACTIVATIONS, DRAWING, LSTM, Cell
from fusedrnn.torch.calls import options_of

_PARAMETERS = {"layer_norm": False, "peephole": False}


def take_options(cell: Cell, keywords: dict[str, Any]) -> dict[str, Any] | None:
    """Those of the constructor's keywords that are ours, taken out of them; None where all are the plain cell's."""
    known = {**options_of(cell), **_PARAMETERS}
    if not is_own_nonlinearity(keywords.get("nonlinearity")):
        known.pop("nonlinearity", None)
    for name in ("layer", "precision", *(() if cell is LSTM else ("peephole",))):
        known.pop(name, None)
    given = {name: keywords.pop(name) for name in known if name in keywords}
    for name, value in given.items():
        _check(cell, name, value)
    if "activations" in given:
        given["activations"] = cell.other_activations(given["activations"])
    changed = {name: value for name, value in given.items() if value != known[name]}
    if "recompute" in changed:  # of the plain cell alone
        beside = [name for name in changed if name not in ("recompute", "reset_after")]
        beside += ["proj_size"] * bool(keywords.get("proj_size"))
        if beside:
            raise ValueError(f"recompute: expected False together with {', '.join(beside)}")
    return changed or None


def check_sizes(cell: Cell, names: Sequence[str], arguments: Sequence[Any], keywords: dict[str, Any]) -> list[Any]:
    """The positional arguments of a constructor, which begin with ``names``, with sizes as integers of Python; those
    among the keywords are changed in place.

    Raises:
        TypeError: a size that is no integer. ValueError: more than memory can hold, of a layer on the CPU. What PyTorch
            refuses in words of its own is left to it.
    """
    positional, found = dict(zip(names, arguments, strict=False)), {}
    for name, value in {**{name: keywords[name] for name in names if name in keywords}, **positional}.items():
        if "num_layers" in names and name != "num_layers" and not isinstance(value, (int, np.number)):
            return list(arguments)
        found[name] = size(name, value, least=None)
    keywords.update({name: value for name, value in found.items() if name in keywords})
    given = [*(found[name] for name in positional), *arguments[len(positional) :]]
    inputs, units, layers = (found.get(name, 1) for name in ("input_size", "hidden_size", "num_layers"))
    device = torch.device(keywords.get("device") or torch.empty(0).device)
    if min(inputs, units, layers) > 0 and device.type == "cpu" and not torch._C._len_torch_dispatch_stack():
        directions = 2 if keywords.get("bidirectional") else 1
        columns = inputs + (layers - 1) * directions * units + layers * (keywords.get("proj_size") or units)
        itemsize = (keywords.get("dtype") or torch.get_default_dtype()).itemsize
        require_memory(found, 2 * cell.gates * directions * units * columns, itemsize, layers * directions)
    return given


def is_own_nonlinearity(name: Any) -> bool:
    """Whether an RNN of ours has this one and PyTorch's has not."""
    return name in ACTIVATIONS and name not in ("tanh", "relu")


def _check(cell: Cell, name: str, value: Any) -> None:
    if name == "activations":
        count = len(cell.activations)
        names = value if isinstance(value, (tuple, list)) else (value,)
        if value is not None and (len(names) != count or any(a not in ACTIVATIONS for a in names)):
            raise ValueError(f"activations: expected {count} of {', '.join(ACTIVATIONS)}, got {value!r}")
    elif name == "nonlinearity":
        return
    elif name in DRAWING:
        below = name in ("recurrent_dropout", "dropconnect")
        if not isinstance(value, (int, float)) or not (0 <= value < 1 or (value == 1 and not below)):
            raise ValueError(f"{name}: expected a probability{' below 1' if below else ''}, got {value!r}")
    elif name.endswith("_clip"):
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise ValueError(f"{name}: expected None or a positive number, got {value!r}")
    elif not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")


def add_parameters(module: Any) -> None:
    """What the options ask for: parameters of their own, and 3H rows of coupled gates in place of 4H."""
    options, cell, like = module._kernel_options, module._kernel_cell, module.weight_ih_l0
    gates, units = cell.rows(options), module.hidden_size
    for names in module._all_weights:
        suffix = names[0].removeprefix("weight_ih")
        if options.get("coupled"):
            for name in names:
                if not name.startswith("weight_hr"):
                    setattr(module, name, Parameter(getattr(module, name).detach()[: gates * units].clone()))
        if options.get("peephole"):
            module.register_parameter(f"weight_peephole{suffix}", Parameter(like.new_empty(3, units)))
        if options.get("layer_norm"):
            for name in list(cell.parameters)[4:]:
                if name.startswith(("gain", "norm_bias")):
                    size = units if name.endswith("_c") else gates * units
                    module.register_parameter(name + suffix, Parameter(like.new_empty(size)))


def reset_parameters(module: Any) -> None:
    """The initial values of the options' parameters: gains 1, their biases 0, peepholes as the weights."""
    bound = 1 / math.sqrt(module.hidden_size)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("gain"):
                parameter.fill_(1)
            elif name.startswith("norm_bias"):
                parameter.zero_()
            elif name.startswith("weight_peephole"):
                parameter.uniform_(-bound, bound)


def of_a_call(options: dict[str, Any], training: bool) -> tuple[dict[str, Any], bool]:
    """(what the cell is called with, whether that needs random numbers)."""
    called = {name: value for name, value in options.items() if name not in _PARAMETERS}
    if training:
        return called, any(name in called for name in DRAWING)
    return {name: value for name, value in called.items() if name not in ("recurrent_dropout", "dropconnect")}, False


def text(options: dict[str, Any] | None) -> Iterator[str]:
    """For ``extra_repr``."""
    for name, value in (options or {}).items():
        yield f", {name}={value}"
