"""A step depends on more than its arguments: here is a key that changes when any of that does.

A traced step has taken all of it as constants: the cells of its closure, defaults, globals that its code names,
attributes of objects among them that its code names, and the same of the functions that it calls. Numbers, text and
arrays count by their values, containers by their members, functions by their code and closures, whatever else by what
it is.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from fusedrnn.scan.trees import Structure

# Their functions count by what they are: nobody changes the globals of these.
_LIBRARIES = frozenset(("builtins", "numpy", "scipy", "math", "operator", "functools", "itertools", "fusedrnn"))
_BY_VALUE = frozenset((int, bool, str, bytes, complex, type(None), type(Ellipsis), slice))

_frozen: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()
_names: dict[int, tuple[weakref.ref[types.CodeType], tuple[str, ...]]] = {}


def names_of(code: types.CodeType) -> tuple[str, ...]:
    """The globals and attributes that a function's code, or code inside it, names."""
    known = _names.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    found = dict.fromkeys(code.co_names)
    if "getattr" in found:  # which may be given any of these
        found.update(dict.fromkeys(text for text in code.co_consts if isinstance(text, str) and text.isidentifier()))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(names_of(constant)))
    place = id(code)
    _names[place] = weakref.ref(code, lambda _: _names.pop(place, None)), tuple(found)
    return tuple(found)


class Dependencies:
    """Walks what a function depends on.

    Attributes:
        key: Hashable parts, in the order of the walk.
        objects: Those that the key has by their `id`, which holds as long as they live.
    """

    __slots__ = ("_names", "_seen", "key", "objects")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.key: list[Any] = []
        self.objects: list[Any] = []
        self._seen: set[Any] = set()
        self._names: tuple[str, ...] = ()
        self._value(function)
        if type(function) not in _CALLABLE:
            for kind in type(function).__mro__:
                if isinstance(vars(kind).get("__call__"), types.FunctionType):
                    self._method(vars(kind)["__call__"], function)
                    break

    def _identity(self, value: Any) -> None:
        self.key.append(id(value))
        self.objects.append(value)

    def _first(self, value: Any) -> bool:
        """Whether it is met for the first time in code that names these attributes."""
        place = (id(value), id(self._names))
        if place in self._seen:
            return False
        self._seen.add(place)
        return True

    def _value(self, value: Any) -> None:
        kind = type(value)
        if kind in _BY_VALUE:
            self.key += (kind, value)
        elif kind is float:
            self.key += (kind, value.hex())  # which tells 0 from -0, and is equal for NaN
        else:
            _WALKS.get(kind, _other)(self, value)

    def _values(self, values: Iterable[Any]) -> None:
        for value in values:
            self._value(value)

    def _function(self, function: types.FunctionType) -> None:
        code = function.__code__
        if function in self._seen or (function.__module__ or "").partition(".")[0] in _LIBRARIES:
            self._identity(code)
            self._closure(function)  # decorators, and functions made by functions, share their code
            return
        self._seen.add(function)
        self._identity(code)
        before, self._names = self._names, names_of(code)
        scope = function.__globals__
        for name in self._names:
            if name in scope:
                self._value(scope[name])
        self._closure(function)
        if function.__defaults__:
            self._values(function.__defaults__)
        if function.__kwdefaults__:
            self._dict(function.__kwdefaults__)
        if function.__dict__:
            self._dict(function.__dict__)
        self._names = before

    def _closure(self, function: types.FunctionType) -> None:
        for cell in function.__closure__ or ():
            if id(cell) in self._seen:
                continue
            self._seen.add(id(cell))
            try:
                self._value(cell.cell_contents)
            except ValueError:  # not filled yet
                self.key.append("empty")

    def _bound(self, method: types.MethodType) -> None:
        function = method.__func__
        if isinstance(function, types.FunctionType):
            self._method(function, method.__self__)
        else:
            self._identity(function)
            self._value(method.__self__)

    def _method(self, function: types.FunctionType, owner: Any) -> None:
        self._function(function)
        before, self._names = self._names, names_of(function.__code__)
        self._value(owner)
        self._names = before

    def _partial(self, value: functools.partial[Any]) -> None:
        self._value(value.func)
        self._values(value.args)
        self._dict(value.keywords)

    def _equal(self, value: Any) -> None:
        self.key.append(value)

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.hasobject:
            self._identity(array)
        else:
            self.key += (array.dtype.str, array.shape, array.tobytes())

    def _sequence(self, values: Any) -> None:
        self.key += (type(values), len(values))
        if self._first(values):
            self._values(values)

    def _dict(self, values: dict[Any, Any]) -> None:
        self.key += (dict, len(values))
        if self._first(values):
            for name, value in values.items():
                self._value(name)
                self._value(value)

    def _module(self, module: types.ModuleType) -> None:
        self._identity(module)
        if module.__name__.partition(".")[0] not in _LIBRARIES:
            self._attributes(module, (vars(module),))

    def _attributes(self, owner: Any, scopes: tuple[Any, ...]) -> None:
        """Walk those that the code being walked names."""
        if not self._first(owner):
            return
        for name in self._names:
            for scope in scopes:
                if name in scope:
                    self._attribute(owner, scope[name])
                    break

    def _attribute(self, owner: Any, value: Any) -> None:
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        if isinstance(value, types.FunctionType) and not isinstance(owner, types.ModuleType):
            self._method(value, owner)
        else:
            self._value(value)


def _other(walk: Dependencies, value: Any) -> None:
    """Something of a class that is no plain value: what it is, and its attributes that the code names."""
    if isinstance(value, np.generic):
        walk.key += (type(value), value.tobytes())
        return
    if isinstance(value, np.ndarray):
        walk._array(value)
        return
    if isinstance(value, (tuple, list)):
        walk._sequence(value)
    elif isinstance(value, dict):
        walk._dict(value)
    elif isinstance(value, (set, frozenset)):
        walk._sequence(sorted(value, key=repr))
    kind = value if isinstance(value, type) else type(value)
    if isinstance(value, (tuple, list, dict, set, frozenset)):
        walk._identity(kind)
    elif kind is not value and _frozen_fields(kind):
        walk._identity(kind)  # equal ones make the same program, so that copies of a layer share one
        walk._values(getattr(value, name) for name in _frozen_fields(kind))
    else:
        walk._identity(value)
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        return
    own = () if isinstance(value, type) else (getattr(value, "__dict__", {}),)
    slots = {
        name: getattr(value, name)
        for base in kind.__mro__
        for name in _slots(base)
        if not isinstance(value, type) and hasattr(value, name)
    }
    walk._attributes(value, (*own, slots, *(vars(base) for base in kind.__mro__ if base is not object)))


def _frozen_fields(kind: type) -> tuple[str, ...]:
    """The names of a frozen dataclass's fields; none of another class."""
    found = _frozen.get(kind)
    if found is None:
        frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        found = _frozen[kind] = tuple(field.name for field in fields(kind)) if frozen else ()
    return found


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


_CALLABLE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, np.ufunc, type)
_WALKS: dict[type, Callable[[Dependencies, Any], None]] = {
    types.FunctionType: Dependencies._function,
    types.MethodType: Dependencies._bound,
    types.ModuleType: Dependencies._module,
    types.BuiltinFunctionType: Dependencies._identity,
    np.ufunc: Dependencies._identity,
    functools.partial: Dependencies._partial,
    np.ndarray: Dependencies._array,
    Structure: Dependencies._equal,
    tuple: Dependencies._sequence,
    list: Dependencies._sequence,
    dict: Dependencies._dict,
}
