"""Marks that keep torch.compile from the adapter's own Python, but where it traces a call into a graph of its caller.

Dynamo ends a graph at a recurrent layer, runs the layer, and would compile every function of ours that runs there, one
by one, and again for other lengths. PyTorch's own layers are spared by a list of folders; ours are marked one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class")


def runs_as_it_is(function: _Function) -> _Function:
    """Mark a function that Dynamo meets as a frame of its own, so that it and what it calls run in Python. Where Dynamo
    traces a call of it, nothing changes. (``torch.compiler.disable`` would end the graph there too.)"""
    frames: Any = torch._C._dynamo.eval_frame
    code: Any = getattr(function, "__code__")  # noqa: B009 - no attribute of every callable
    try:
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(skip, skip))
    except AttributeError:  # of an older PyTorch, which compiles it
        pass
    return function


def methods_run_as_they_are(cls: type[_Class]) -> type[_Class]:
    """Mark all methods of a class so, as those of a ``torch.autograd.Function``, which autograd calls."""
    for member in vars(cls).values():
        function = member.__func__ if isinstance(member, staticmethod) else member
        if isinstance(function, FunctionType):
            runs_as_it_is(function)
    return cls


def never_traced(function: _Function) -> _Function:
    """Mark a function at which graphs end, as ``torch.compiler.disable`` does, which would import the compiler."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = None  # type: ignore[attr-defined]
    return runs_as_it_is(function)


def exporting() -> bool:
    """Whether ``torch.export`` traces the call; older versions of PyTorch do not tell it from a compiler."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())
