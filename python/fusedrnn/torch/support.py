"""What the kernels take of PyTorch's tensors and modes, and what becomes of the rest."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._pytree import tree_leaves

from fusedrnn.cuda import arrays, compiled
from fusedrnn.spec import LSTM, RNN, Cell

_PLAIN = (Tensor, Parameter)
DTYPES = (torch.float32, torch.float64)
GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


fallbacks: Counter[str] = Counter()
"""How many calls went to PyTorch's own code or operators, by layer and reason, as "GRU: tensors of type Series"."""
TRACED = ("torch.jit.trace and exports by tracing", "exports to ONNX")


class FallbackWarning(UserWarning):
    """A layer on the kernels computes with PyTorch's own code, for a reason that the text gives."""


def fell_back(module: torch.nn.Module, reason: str) -> None:
    """Count a call that PyTorch's own code has taken, and say so the first time, but where nothing is computed or a
    graph is meant to hold PyTorch's."""
    name = f"{type(module).__name__}: {reason}"
    fallbacks[name] += 1
    if fallbacks[name] == 1 and reason not in (*TRACED, "tensors on meta"):
        warnings.warn(
            f"{name}: not taken by fusedrnn's kernels, so PyTorch's own code computes this call and those like it, of "
            "which fusedrnn.torch.fallbacks keeps count",
            FallbackWarning,
            stacklevel=2 + _depth_of_caller(),
        )


def _depth_of_caller() -> int:
    """How many frames up the first one is that is neither ours nor PyTorch's."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("fusedrnn", "torch"):
        frame, depth = frame.f_back, depth + 1
    return max(depth - 2, 0)


class NoSteps(ValueError, RuntimeError):
    """An input without steps: a ValueError as in all of this package, a RuntimeError as in PyTorch's layers."""


def refusal(tensors: Sequence[Tensor]) -> str:
    """Why the kernels do not take a call with these tensors; empty where they do."""
    compiling = torch.compiler.is_compiling()
    if not compiling and torch._C._is_tracing():
        return TRACED[0]
    if compiling and torch.onnx.is_in_onnx_export():
        return TRACED[1]
    if arrays.on_gpu(tensors[0]):
        return _refusal_on_gpu(tensors, compiling)
    plain_types = not compiling and not torch._C._len_torch_dispatch_stack()
    dtype = tensors[0].dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        return f"{dtype} (float32 and float64 they do)"
    for tensor in tensors:
        if plain_types and type(tensor) not in _PLAIN:  # first, as other types may not answer the rest
            return f"tensors of type {type(tensor).__name__}"
        if not tensor.is_cpu:
            return f"tensors on {tensor.device}"
        if tensor.dtype is not dtype:
            return f"{tensor.dtype} beside {dtype}"
        if tensor.layout is not torch.strided:
            return f"tensors of layout {tensor.layout}"
    return ""


def _refusal_on_gpu(tensors: Sequence[Tensor], compiling: bool) -> str:
    """The same of tensors the first of which is on a GPU."""
    first = tensors[0]
    missing = compiled.missing()
    if missing is not None:
        return f"tensors on {first.device}: {missing}"
    if compiling or transformed():
        return f"{'torch.compile' if compiling else 'transforms of torch.func'} on a GPU"
    if first.dtype not in GPU_DTYPES:
        return f"{first.dtype} on a GPU (float32, bfloat16 and float16 they do)"
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return f"tensors of type {type(tensor).__name__}"
        if not arrays.on_gpu(tensor) or tensor.device != first.device:
            return f"tensors on {tensor.device} beside {first.device}"
        if tensor.dtype is not first.dtype:
            return f"{tensor.dtype} beside {first.dtype}"
        if tensor.layout is not torch.strided:
            return f"tensors of layout {tensor.layout}"
    return ""


def transformed() -> bool:
    """Whether derivatives in forward mode or transforms of torch.func are at work, which see no kernels."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def batched(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a tensor is that of a batch within vmap, as where autograd is asked for gradients of many at once."""
    of = torch._C._functorch
    return any([t is not None and (of.is_batchedtensor(t) or of.is_legacy_batchedtensor(t)) for t in tensors])


def fx_call(module: torch.nn.Module, *arguments: Any, **keywords: Any) -> Any:
    """Under torch.fx.symbolic_trace the node of this call, as ``torch.nn``'s layers are leaves there; or else None."""
    for argument in tree_leaves((arguments, keywords)):
        if isinstance(argument, torch.fx.Proxy) and argument.tracer.root is not module:
            path = argument.tracer.path_of_module(module)
            return argument.tracer.create_proxy("call_module", path, arguments, keywords)
    return None


def prepare_scriptable(module: torch.nn.Module) -> torch.nn.Module:
    """For torch.jit.script, whose language has none of our calls: the module with its class of ``torch.nn`` back.

    Raises:
        TypeError: it cannot have it.
    """
    from fusedrnn.torch.accelerate import restore  # which imports the modules

    name = type(module).__name__
    for reason in restore(module).left.values():
        raise TypeError(f"torch.jit.script takes PyTorch's own layers, which this {name} cannot become: {reason}")
    warnings.warn(
        f"torch.jit.script: this {name} is PyTorch's own from now on; fusedrnn.torch.accelerate(model) brings the "
        "kernels back to the model, not to the script",
        stacklevel=2,
    )
    return module


def autocast(tensors: Sequence[Any], dtype: torch.dtype) -> tuple[Any, ...]:
    """Under torch.autocast, x and states as ``dtype``, the weights', in which the kernels compute."""
    return tuple(t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t for t in tensors)


def autocast_outputs(
    cell: Cell, tensors: Sequence[Tensor], weight: Tensor, *, one_length: bool = False, projected: bool = False
) -> tuple[torch.dtype, ...] | None:
    """The dtypes of y, h_n (and c_n) under torch.autocast, given (x, states) as they came; None for the weights'.

    They are PyTorch's, whose products are bfloat16: a GRU and an LSTM promote them to the dtype of the state that they
    add, which is x's where there is none; an LSTM's layer over rows of one length (oneDNN's) does not, nor does its
    projection.
    """
    lower = torch.bfloat16
    if torch.get_autocast_dtype("cpu") is not lower or weight.dtype is not torch.float32:
        return None
    promoted = lower if tensors[-1].dtype is lower else torch.float32
    if cell is not LSTM:
        return (lower if cell is RNN else promoted,) * 2
    h = lower if one_length or projected else promoted
    return h, h, promoted if projected or not one_length else lower


def rounds_products(
    cell: Cell, x: Tensor, parameters: Sequence[Tensor | None], options: Mapping[str, Any] | None, training: bool
) -> bool:
    """Whether kernels with products of bfloat16 take such a call, under torch.autocast."""
    options = options or {}
    return (
        torch.get_autocast_dtype("cpu") is torch.bfloat16
        and x.dtype is torch.float32
        and all(p is None for p in parameters[4:])
        and options.get("nonlinearity") in (None, "relu")
        and not (training and "reset_after" in options)
        and options.keys() <= {"nonlinearity", "reset_after"}
    )


def only_kernels(what: str, reason: str) -> ValueError:
    return ValueError(f"{what}: PyTorch's own layers have none, and the kernels do not take {reason}")


def drawn_seed() -> int:
    """Draw a seed from PyTorch's generator, so that ``torch.manual_seed`` tells what is drawn with it."""
    return int(torch.randint(1 << 62, ()))
