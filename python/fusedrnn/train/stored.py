"""What a checkpoint says beside its arrays, read with the place of every value.

What is missing or of another kind is one CheckpointError, which names file and field.
"""

from __future__ import annotations

import math
import reprlib
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fusedrnn.train.checkpoint import CheckpointError

T = TypeVar("T")
_LARGEST = 2**63 - 1


class Part:
    """A value out of the JSON object of ``file``; ``name`` says where in it. Methods check its kind and return it."""

    def __init__(self, value: Any, file: Path, name: str = "") -> None:
        self.value, self.file, self.name = value, file, name

    def refuse(self, problem: str) -> NoReturn:
        """Raise CheckpointError for this value."""
        raise CheckpointError(f"{self.file}: {self.name or 'its metadata'}: {problem}")

    def _unlike(self, expected: str) -> NoReturn:
        self.refuse(f"expected {expected}, got {reprlib.repr(self.value)}")

    def entries(self) -> dict[str, Part]:
        """Return an object's entries by name."""
        if not isinstance(self.value, dict):
            self._unlike("an object")
        start = f"{self.name}." if self.name else ""
        return {name: Part(value, self.file, f"{start}{name}") for name, value in self.value.items()}

    def of(self, name: str) -> Part:
        """The entry of an object; it must be there."""
        found = self.entries().get(name)
        if found is None:
            Part(None, self.file, f"{self.name}.{name}" if self.name else name).refuse("missing")
        return found

    def integer(self, least: int = 0, most: int | None = _LARGEST) -> int:
        """An integer from ``least`` to ``most``."""
        number = self.value
        if type(number) is not int or number < least or (most is not None and number > most):
            self._unlike(f"an integer from {least}" + ("" if most in (None, _LARGEST) else f" to {most}"))
        return int(number)

    def number(self) -> float:
        """A finite number, as float."""
        kind = type(self.value)
        if kind not in (int, float) or not (abs(self.value) <= 1e300 if kind is int else math.isfinite(self.value)):
            self._unlike("a finite number")
        return float(self.value)

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self._unlike("a string")
        return str(self.value)

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self._unlike("true or false")
        return bool(self.value)

    def texts(self) -> list[str]:
        """A list of different strings."""
        value = self.value
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self._unlike("a list of strings")
        if len(set(value)) < len(value):
            self.refuse("expected each string once")
        return list(value)

    def items(self) -> list[Part]:
        """Return the entries of a list."""
        if not isinstance(self.value, list):
            self._unlike("a list")
        return [Part(entry, self.file, f"{self.name}[{place}]") for place, entry in enumerate(self.value)]

    def optional(self, read: Callable[[Part], T]) -> T | None:
        """None where the value is null, else what ``read`` makes of it."""
        return None if self.value is None else read(self)

    def fill(self, cls: type[T]) -> T:
        """The dataclass ``cls`` from an object with its fields, whose annotations say of what kind each is: int (from
        0), float, str, bool, or one of these and None."""
        entries, kinds = self.entries(), typing.get_type_hints(cls)
        names = {entry.name for entry in fields(cls)}  # type: ignore[arg-type]
        if names != entries.keys():
            missing, others = sorted(names - entries.keys()), sorted(entries.keys() - names)
            parts = [f"{what} {', '.join(them)}" for what, them in (("missing", missing), ("unknown", others)) if them]
            self.refuse("; ".join(parts))
        return cls(**{name: entries[name]._of_kind(kinds[name]) for name in names})

    def _of_kind(self, kind: Any) -> Any:
        if isinstance(kind, types.UnionType):
            (one,) = (part for part in typing.get_args(kind) if part is not type(None))
            return self.optional(lambda part: part._of_kind(one))
        readers: dict[Any, Callable[[], Any]] = {
            int: self.integer,
            float: self.number,
            str: self.text,
            bool: self.flag,
        }
        return readers[kind]()
