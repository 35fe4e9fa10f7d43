"""Nested structures of arrays: dicts, tuples, lists and NamedTuples, taken apart into flat lists and put together.

The entries of a dict stand in the order of their sorted keys, so that two dicts of the same keys are one structure in
whatever order they were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class Structure:
    """How leaves are nested. Equal structures take and give equal flat lists.

    Attributes:
        form: "leaf", "none" for a structure that is None as a whole, or the container's kind.
        type: The class of a NamedTuple, else None.
        keys: The sorted keys of a dict; else empty.
        children: The structures inside, in the order of the leaves.
        written: The keys of a dict as they were written, which `pack` keeps. Not compared.
    """

    form: Literal["leaf", "none", "dict", "tuple", "list", "named"]
    type: Any = None
    keys: tuple[Any, ...] = ()
    children: tuple[Structure, ...] = ()
    written: tuple[Any, ...] = field(default=(), compare=False)

    @cached_property
    def size(self) -> int:
        """Number of leaves."""
        return 1 if self.form == "leaf" else sum(child.size for child in self.children)

    @property
    def names(self) -> tuple[str, ...]:
        """Where each leaf is, as Python writes it: "['W']", ".h", "[0]['c']"; "" where the whole is one leaf."""
        return tuple(self._names(""))

    def _names(self, prefix: str) -> Iterator[str]:
        if self.form == "leaf":
            yield prefix
        for place, child in enumerate(self.children):
            if self.form == "dict":
                step = f"[{self.keys[place]!r}]"
            elif self.form == "named":
                step = f".{self.type._fields[place]}"
            else:
                step = f"[{place}]"
            yield from child._names(prefix + step)

    def pack(self, leaves: Sequence[Any]) -> Any:
        """Put leaves into a new structure of this form; ValueError for another number of leaves."""
        leaves = list(leaves)
        if len(leaves) != self.size:
            raise ValueError(f"leaves: expected {self.size} for the structure {self}, got {len(leaves)}")
        return self._pack(iter(leaves))

    def _pack(self, leaves: Iterator[Any]) -> Any:
        if self.form == "leaf":
            return next(leaves)
        if self.form == "none":
            return None
        children = [child._pack(leaves) for child in self.children]
        if self.form == "dict":
            found = dict(zip(self.keys, children, strict=True))
            return {key: found[key] for key in self.written}
        if self.form == "named":
            return self.type(*children)
        return children if self.form == "list" else tuple(children)

    def __str__(self) -> str:
        if self.form == "leaf":
            return "*"
        if self.form == "none":
            return "None"
        if self.form == "dict":
            return "{" + ", ".join(f"{k!r}: {c}" for k, c in zip(self.keys, self.children, strict=True)) + "}"
        inner = ", ".join(map(str, self.children))
        if self.form == "named":
            return f"{self.type.__name__}({inner})"
        return f"[{inner}]" if self.form == "list" else f"({inner}{',' * (len(self.children) == 1)})"


LEAF = Structure("leaf")
NONE = Structure("none")


def flatten(structure: Any, name: str = "structure") -> tuple[list[Any], Structure]:
    """Take a structure apart into its leaves, which are all that is no container, and its form.

    None as a whole is a structure without leaves. None inside a container raises TypeError, which begins with `name`.
    """
    if structure is None:
        return [], NONE
    leaves: list[Any] = []
    return leaves, _flatten(structure, leaves, name)


def _flatten(node: Any, leaves: list[Any], name: str) -> Structure:
    if isinstance(node, dict):
        keys = in_order(node)
        children = tuple(_flatten(node[key], leaves, f"{name}[{key!r}]") for key in keys)
        return Structure("dict", None, keys, children, tuple(node))
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        named = zip(node._fields, node, strict=True)
        return Structure(
            "named", type(node), (), tuple(_flatten(each, leaves, f"{name}.{field}") for field, each in named)
        )
    if isinstance(node, (tuple, list)):
        children = tuple(_flatten(each, leaves, f"{name}[{place}]") for place, each in enumerate(node))
        return Structure("tuple" if isinstance(node, tuple) else "list", None, (), children)
    if node is None:
        raise TypeError(f"{name}: expected an array, got None: leave the entry out")
    leaves.append(node)
    return LEAF


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function`` of every leaf (and of the leaves at the same place in ``others``), in a tree of the same form.

    None holds no leaf and stays None.
    """
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_leaves(function, member, *(other[key] for other in others)) for key, member in tree.items()}
    if isinstance(tree, (tuple, list)):
        members = [map_leaves(function, *parts) for parts in zip(tree, *others, strict=True)]
        return type(tree)(*members) if hasattr(tree, "_fields") else type(tree)(members)
    return function(tree, *others)


def in_order(node: dict[Any, Any]) -> tuple[Any, ...]:
    """The keys of a dict, sorted."""
    try:
        return tuple(sorted(node))
    except TypeError:  # keys of several types
        return tuple(sorted(node, key=lambda key: (type(key).__name__, repr(key))))


def leaves_of(tree: Any, structure: Structure) -> list[Any]:
    """The leaves of a tree of this structure, any of which may be None."""
    if structure.form in ("leaf", "none"):
        return [tree][: structure.size]
    members = [tree[key] for key in structure.keys] if structure.form == "dict" else list(tree)
    return [leaf for each, child in zip(members, structure.children, strict=True) for leaf in leaves_of(each, child)]
