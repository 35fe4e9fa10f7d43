"""A planted bug: one edit of one file, which the tests must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """``original``, which ``file`` has exactly once, becomes ``mutated``.

    ``tests`` are the files or node ids, separated by spaces, of which one test must fail. An edit below ``csrc`` is
    compiled for the baseline and the instruction sets in ``isas``, separated by semicolons.
    """

    name: str
    file: str
    original: str
    mutated: str
    tests: str
    isas: str = ""

    def planted(self, text: str) -> str:
        """The file's text with the bug in it. Raises ValueError where the original is not there exactly once."""
        if (count := text.count(self.original)) != 1:
            raise ValueError(f"{self.name}: expected {self.original!r} once in {self.file}, found it {count} times")
        return text.replace(self.original, self.mutated)

    def stands(self, root: Path) -> bool:
        """Whether the file below ``root`` still has the text that the bug changes."""
        text = (root / self.file).read_text(encoding="utf-8")
        return text.count(self.original) == 1 and self.original != self.mutated
