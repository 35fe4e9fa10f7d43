"""``accelerate`` gives a model's recurrent layers the kernels by changing their classes in place: the same objects, so
parameters, hooks, parametrizations and optimizers go on as they were. ``restore`` takes them back, and
``accelerating`` is for models that a library builds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch

from fusedrnn.cuda import arrays, compiled
from fusedrnn.torch.function import forget
from fusedrnn.torch.recurrent import BASES, reason_of_others
from fusedrnn.torch.stand_ins import become, is_ours, kind_of, overridden, stand_in, stood_for
from fusedrnn.torch.support import DTYPES, GPU_DTYPES


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

    Each stays the same object with the same parameters, hooks and parametrizations; its class becomes a subclass of the
    one of this package, which equals the class that it had (``type(layer) == torch.nn.LSTM``, though not ``is``).
    Subclasses that inherit their forward are taken as well. Whatever is recurrent and cannot be taken is left, with the
    reason in the report: the model's own cells, scripted and quantized modules too. ``restore`` undoes it.

    Raises:
        TypeError: ``model`` is not a ``torch.nn.Module``.
    """
    report = Report("now on fusedrnn's kernels")
    for name, module in _modules_of(model):
        if is_ours(type(module)):
            continue
        layer = isinstance(module, BASES)
        if layer:
            reason = _reason_of_parameters(module) or _take(module)
        else:
            reason = reason_of_others(name, module, report.left)
        if reason:
            report.left[name] = reason
        elif layer:
            report.swapped[name] = kind_of(module).__name__
    return report


def restore(model: torch.nn.Module) -> Report:
    """Give every module that ``accelerate`` changed its class back, and every layer of this package that of
    ``torch.nn``.

    Raises:
        TypeError: ``model`` is not a ``torch.nn.Module``.
    """
    report = Report("back on PyTorch's own code")
    for name, module in _modules_of(model):
        if not is_ours(type(module)):
            continue
        if "forward" in vars(module):
            report.left[name] = "its forward was replaced"
        elif vars(module).get("_kernel_options"):
            report.left[name] = "PyTorch's has none of its options"
        elif (other := stood_for(kind_of(module))) is None:
            report.left[name] = f"its class {kind_of(module).__qualname__} is made of one of ours"
        else:
            become(module, other)
            forget(module)
            report.swapped[name] = other.__name__
    return report


def _modules_of(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    yield from model.named_modules()


def _take(module: torch.nn.Module) -> str:
    """Put the kernels behind an object; returns why not, where they cannot stand there, or an empty text."""
    kind = kind_of(module)
    lost = overridden(kind)
    if lost:
        its = "own code" if lost == "class" else f"own {lost}"
        return f"its class is {kind.__module__}.{kind.__qualname__}, whose {its} would be lost"
    if "forward" in vars(module):
        return "its forward was replaced"
    try:
        become(module, stand_in(kind))
    except Exception as error:  # whatever a metaclass raises
        return f"its class is {kind.__module__}.{kind.__qualname__}, of which Python makes no other: {error}"
    forget(module)
    return ""


def _reason_of_parameters(module: torch.nn.Module) -> str:
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


_open: list[Report] = []  # of the ``accelerating`` that are in force
_lock = threading.Lock()


@contextmanager
def accelerating() -> Iterator[Report]:
    """Let layers and cells that are built or unpickled within the ``with`` run on the kernels, by any library and in
    any thread, as ``accelerate`` would; the report fills with them, numbered in the order of their making.

    For models that a library builds itself, as ``load_from_checkpoint`` or a clone of an estimator does. Layers that
    exist stay as they are; those that were built keep their kernels afterwards, and so do copies of them. A function
    can have it as its decorator.
    """
    report = Report("built on fusedrnn's kernels")
    with _lock:
        _open.append(report)
        if len(_open) == 1:
            _watch()
    try:
        yield report
    finally:
        with _lock:
            _open[:] = [other for other in _open if other is not report]
            if not _open:
                _unwatch()


_watched: list[tuple[type, str, Any, Any]] = []  # class, method, what it was (None of an inherited one), and is


def _watch() -> None:
    """Let PyTorch's base classes take an object as soon as they have made it."""
    for base in BASES:
        for name in ("__init__", "__setstate__"):
            ours = _taking(getattr(base, name))
            _watched.append((base, name, vars(base).get(name), ours))
            setattr(base, name, ours)


def _unwatch() -> None:
    while _watched:
        base, name, method, ours = _watched.pop()
        if vars(base).get(name) is not ours:
            continue  # another library has put its own around ours, which does nothing from now on
        if method is None:
            delattr(base, name)
        else:
            setattr(base, name, method)


def _taking(method: Any) -> Any:
    @wraps(method)
    def made(self: Any, *arguments: Any, **keywords: Any) -> None:
        method(self, *arguments, **keywords)
        if not _open or is_ours(type(self)):
            return
        reason = _take(self)
        for report in _open:
            into, text = (report.left, reason) if reason else (report.swapped, kind_of(self).__name__)
            into[str(len(report.swapped) + len(report.left))] = text

    return made
