"""``accelerate`` gives a model's recurrent layers the kernels by changing their classes in place: the same objects, so
parameters, hooks, parametrizations and optimizers go on as they were. ``restore`` takes them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import parametrize

from fusedrnn.cuda import arrays, compiled
from fusedrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.torch.function import forget
from fusedrnn.torch.modules import GRU, LSTM, RNN
from fusedrnn.torch.support import DTYPES, GPU_DTYPES

_OURS: dict[type, type] = {ours.__bases__[1]: ours for ours in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


@dataclass
class Report:
    """What became of a model's recurrent modules, by their names in it; printing shows it."""

    title: str
    swapped: dict[str, str] = field(default_factory=dict)  # name -> class
    left: dict[str, str] = field(default_factory=dict)  # name -> reason

    def __str__(self) -> str:
        lines = [f"{self.title}: {len(self.swapped)}"]
        lines += [f"  {name or '(the model)'}: {kind}" for name, kind in self.swapped.items()]
        if self.left:
            lines.append(f"left as they are: {len(self.left)}")
            lines += [f"  {name or '(the model)'}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def accelerate(model: torch.nn.Module) -> Report:
    """Let every RNN, LSTM and GRU of ``model``, and every cell, run on the kernels.

    Each stays the same object with the same parameters, hooks and parametrizations; its class becomes the subclass of
    this package. Modules that cannot are left, with the reason in the report. ``restore`` undoes it.

    Raises:
        TypeError: ``model`` is not a ``torch.nn.Module``.
    """
    return _swap(model, _OURS, "now on fusedrnn's kernels")


def restore(model: torch.nn.Module) -> Report:
    """Give every module that ``accelerate`` changed its class of ``torch.nn`` back.

    Raises:
        TypeError: ``model`` is not a ``torch.nn.Module``.
    """
    return _swap(model, _THEIRS, "back on PyTorch's own code")


def _swap(model: Any, classes: dict[type, type], title: str) -> Report:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    report = Report(title)
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
            continue
        parametrized = parametrize.is_parametrized(module)
        kind = type(module).__bases__[0] if parametrized else type(module)
        if kind in classes.values():
            continue
        reason = _reason(module, kind, classes)
        if reason:
            report.left[name] = reason
            continue
        other = classes[kind]
        # A parametrized module has a class of its own, with the parametrizations as properties.
        module.__class__ = _rebased(type(module), other) if parametrized else other
        forget(module)
        report.swapped[name] = other.__name__
    return report


def _reason(module: Any, kind: type, classes: dict[type, type]) -> str:
    if kind not in classes:
        return f"its class is {kind.__module__}.{kind.__qualname__}, whose own code would be lost"
    if "forward" in vars(module):
        return "its forward was replaced"
    if classes is _THEIRS:
        return "" if not vars(module).get("kernel_options") else "PyTorch's has none of its options"
    for parameter in module.parameters():
        on_gpu = arrays.on_gpu(parameter)
        if not on_gpu and not parameter.is_cpu:
            return f"its parameters are on {parameter.device}"
        if on_gpu and not compiled.available():
            return f"its parameters are on {parameter.device}: {compiled.missing()}"
        if parameter.dtype not in (GPU_DTYPES if on_gpu else DTYPES):
            taken = "float32, bfloat16 and float16 on a GPU" if on_gpu else "float32 and float64"
            return f"its parameters are {parameter.dtype}; the kernels take {taken}"
    return ""


def _rebased(parametrized: type, base: type) -> type:
    names = {k: v for k, v in vars(parametrized).items() if k not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), names)
