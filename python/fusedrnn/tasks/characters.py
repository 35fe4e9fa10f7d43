"""Characters as numbers, with the interface of `fusedrnn.data.subwords.Subwords`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.subwords import END, UNKNOWN


class Characters:
    """The characters of an alphabet behind UNKNOWN, BEGIN and END.

    Args:
        stored: The alphabet, each character once.
    """

    def __init__(self, stored: str) -> None:
        self.stored = stored
        self._numbers = {character: number for number, character in enumerate(stored, END + 1)}

    def __len__(self) -> int:
        return END + 1 + len(self.stored)

    def numbers(self, text: str) -> Array:
        """Return the characters of a text, [T] int64; UNKNOWN for those that are not in the alphabet."""
        return np.array([self._numbers.get(character, UNKNOWN) for character in text], np.int64)

    def text(self, numbers: Sequence[int] | Array) -> str:
        """Return the text of numbers; the first three are no characters and give nothing."""
        return "".join(self.stored[number - END - 1] for number in map(int, numbers) if number > END)

    def pieces(self, numbers: Sequence[int] | Array) -> list[str]:
        """Return each character, a question mark for UNKNOWN."""
        return [self.stored[number - END - 1] if number > END else "?" for number in map(int, numbers)]
