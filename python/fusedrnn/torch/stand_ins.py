"""The classes that ``accelerate`` gives to layers: ours over the class that the layer had, and equal to it.

Other libraries keep tables by ``type(module)``: quantization, validators, counters of operations. A stand-in compares
and hashes as the class that it stands for, has its names, and hands attributes that are set on to it, so such tables
know it and counters go on; ``is`` tells them apart. The class's own ``__init_subclass__`` and metaclass, which may keep
a register of what people write, do not hear of it.
"""

from __future__ import annotations

import copyreg
import weakref
from abc import ABCMeta
from typing import Any

import torch
from torch.nn.utils import parametrize

from fusedrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.torch.compiling import runs_as_it_is
from fusedrnn.torch.modules import GRU, LSTM, RNN

OURS: tuple[type, ...] = (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)
# PyTorch's forward calls these and ours does not: whoever overrides one means it.
_OF_FORWARD = (
    "forward", "check_input", "check_hidden_size", "check_forward_args", "get_expected_hidden_size",
    "get_expected_cell_size", "permute_hidden",
)  # fmt: skip
_made: weakref.WeakValueDictionary[type, type] = weakref.WeakValueDictionary()


class _Equal(type):
    """The class of stand-ins; a subclass of one, as parametrizations make it, is only equal to itself."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if "stands_for" in vars(cls) and name not in vars(cls):
            setattr(vars(cls)["stands_for"], name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if "stands_for" in vars(cls) and name not in vars(cls):
            delattr(vars(cls)["stands_for"], name)
        else:
            super().__delattr__(name)

    def __instancecheck__(cls, instance: object) -> bool:
        stands_for = vars(cls).get("stands_for")
        return isinstance(instance, stands_for) if stands_for else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        stands_for = vars(cls).get("stands_for")
        return issubclass(subclass, stands_for) if stands_for else super().__subclasscheck__(subclass)

    def __eq__(cls, other: object) -> bool:
        return cls is other or (other is not None and vars(cls).get("stands_for") is other)

    def __hash__(cls) -> int:
        return hash(vars(cls)["stands_for"]) if "stands_for" in vars(cls) else type.__hash__(cls)


def kind_of(module: torch.nn.Module) -> type:
    """The module's class, without its parametrizations."""
    kind = type(module)
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def theirs(ours: type) -> type:
    """PyTorch's class of one of ``OURS``."""
    return ours.__bases__[1]


def stood_for(kind: type) -> Any:
    """The class that a stand-in stands for, PyTorch's of one of ``OURS``; or else None."""
    return vars(kind)["stands_for"] if "stands_for" in vars(kind) else theirs(kind) if kind in OURS else None


def is_ours(kind: type) -> bool:
    return issubclass(kind, OURS)


def _ours_for(kind: type) -> type | None:
    return next((ours for ours in OURS if issubclass(kind, theirs(ours))), None)


def overridden(kind: type) -> str:
    """The method of a subclass of PyTorch's layers and cells that would be lost; empty if there is none, "class" of one
    that has no class of ours."""
    ours = _ours_for(kind)
    if ours is None:
        return "class"
    base = theirs(ours)
    lost = (n for n in _OF_FORWARD if getattr(kind, n, None) is not getattr(base, n, None))
    return next(lost, "") or next((n for n in dir(ours) if n in dir(kind) and not hasattr(base, n)), "")


@runs_as_it_is
def _forward(self: Any, input: Any, hx: Any = None, lengths: Any = None, resets: Any = None) -> Any:
    return self._kernel_run(input, hx, lengths, resets)


def stand_in(kind: type) -> type:
    """The class that stands for ``kind``, one of PyTorch's or a subclass without a forward of its own."""
    found = _made.get(kind)
    if found is None:
        ours: Any = _ours_for(kind)
        members = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__init__": kind.__init__,  # type: ignore[misc] # for who builds a layer like this one
            "stands_for": kind,
        }
        if issubclass(ours, torch.nn.RNNBase):
            members["forward"] = _forward  # which Dynamo does not even try to compile, as it does PyTorch's
        bases = (ours,) if kind is theirs(ours) else (ours, kind)
        # of a class with a metaclass, as abstract ones have, both
        equal = _Equal if type(kind) is type else type("_Equal", (_Equal, type(kind)), {})
        copyreg.pickle(equal, _by_what_it_stands_for)
        found = _made[kind] = _completed(_unheard(equal, kind.__name__, bases, members), kind)
    return found


class _Deaf:
    def __init_subclass__(cls, /, **keywords: Any) -> None:
        """Call no other."""


def _unheard(metaclass: type, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
    """Return a new class of which no ``__init_subclass__`` and no metaclass of a library's own hears."""
    make: Any = ABCMeta.__new__ if issubclass(metaclass, ABCMeta) else type.__new__
    made = make(metaclass, name, (_Deaf, *bases), members)
    type.__setattr__(made, "__bases__", bases)
    return made


def _by_what_it_stands_for(cls: type) -> Any:
    """Let a pickle hold a stand-in itself."""
    return (stand_in, (vars(cls)["stands_for"],)) if "stands_for" in vars(cls) else cls.__qualname__


def _completed(made: Any, kind: type) -> type:
    """With what must know both classes. Copies and pickles hold ``kind``, as no module has the other by its name. Who
    is about to be quantized becomes ``kind`` again, as ``torch.ao.quantization`` builds by ``type(module) is``."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        make, arguments, *rest = super(made, self).__reduce_ex__(protocol)
        if make is copyreg.__newobj__ and arguments == (made,):  # type: ignore[attr-defined]
            return rebuilt, (kind,), *rest
        return make, arguments, *rest

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name == "qconfig" and value is not None:
            become(self, kind)
            setattr(self, name, value)
        else:
            super(made, self).__setattr__(name, value)

    type.__setattr__(made, "__reduce_ex__", __reduce_ex__)
    type.__setattr__(made, "__setattr__", __setattr__)
    return made  # type: ignore[no-any-return]


def rebuilt(kind: type) -> Any:
    """An empty module of the class that stands for ``kind``."""
    made: Any = stand_in(kind)
    return made.__new__(made)


torch.serialization.add_safe_globals([rebuilt])  # ``kind`` must be one as well, which the caller of ``load`` says


def become(module: torch.nn.Module, kind: type) -> None:
    """Change the module's class, under its parametrizations."""
    if parametrize.is_parametrized(module):
        # It has a class of its own, with the parametrizations as properties.
        names = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        kind = _unheard(type(kind), f"Parametrized{kind.__name__}", (kind,), names)
    module.__class__ = kind
