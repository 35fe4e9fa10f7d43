"""Modules that are recurrent beside PyTorch's layers and cells: ``accelerate`` leaves them and reports why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch

BASES = (torch.nn.RNNBase, torch.nn.RNNCellBase)
# of classes such as LiGRU, AUGRU, MogrifierLSTM, SRU, NTMCell
_NAMES = re.compile(r"(?i:rnn|lstm|gru|recurren)|(?:Cell|RU)(?:V?\d+)?$")
_STATES = {
    "h", "h0", "h_0", "h_prev", "hc", "hidden", "hidden_state", "hx", "prev_hidden", "prev_state", "state", "states",
}  # fmt: skip
_OPERATORS = re.compile(r"aten(?:::|\.)((?:quantized_)?(?:lstm|gru|rnn_tanh|rnn_relu)(?:_cell)?)\b")


def reason_of_others(name: str, module: torch.nn.Module, left: Mapping[str, str]) -> str:
    """Why ``module``, none of PyTorch's layers and cells, is left; empty of one that is not recurrent, as far as its
    name, its arguments or its compiled code show, or a part of one that was ``left``."""
    if any([name.startswith(f"{other}." if other else "") for other in left]):
        return ""
    kind = type(module)
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
        return _of_graph(module)
    if kind.__module__.startswith(("torch.ao.nn", "torch.nn.quant", "torch.nn.intrinsic")):
        recurrent = re.search(r"LSTM|GRU|RNN", kind.__name__)
        return f"its class {kind.__module__}.{kind.__qualname__} is one of PyTorch's quantization" if recurrent else ""
    if kind.__module__.startswith(("torch.nn.modules", "fusedrnn.")):
        return ""
    if any([isinstance(part, BASES) for part in module.modules()]) or not any(True for _ in module.parameters()):
        return ""
    if _NAMES.search(kind.__name__) or _takes_a_state(module):
        return (
            f"its class {kind.__module__}.{kind.__qualname__} looks like a recurrence of its own; fusedrnn.torch.Scan "
            "runs one that is written as a step in NumPy"
        )
    return ""


def _takes_a_state(module: Any) -> bool:
    """Whether forward's second argument is called as a state is."""
    try:
        arguments = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return False
    return len(arguments) > 1 and arguments[1] in _STATES


def _of_graph(module: Any) -> str:
    """The same of a module that has become a graph, itself or by its parts."""
    scripted = isinstance(module, torch.jit.ScriptModule)
    try:
        text = str(module.inlined_graph if scripted else module.graph)
    except RuntimeError:  # it has no forward
        text = ""
    calls = ", ".join(dict.fromkeys(match.group(1) for match in _OPERATORS.finditer(text)))
    way = "compiled by torch.jit" if scripted else "a graph of torch.fx"
    if calls:
        return f"it is {way}, which calls PyTorch's {calls} itself"
    kind = module.original_name if scripted else type(module).__name__
    return f"it is {way}, and its class {kind} looks like a recurrence of its own" if _NAMES.search(kind) else ""
