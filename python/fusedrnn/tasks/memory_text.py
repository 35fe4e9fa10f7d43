"""Vectors of bits typed by a user, and what a network does with a memory told line by line, weights as shades."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import NTM
from fusedrnn.plots.memory import slots_in_use

SHADES = " .:-=+*#%@"  # of a weight from 0 to 1
_WIDEST = 40  # slots shown at most
MOST = 1000  # vectors of a text


def vectors_of(text: str, bits: int) -> Array:
    """Return the vectors [L, bits] of a text, integers: words of so many 0 and 1, or else the bytes of its letters.

    Raises ValueError for a text without any, with too many, or words of bits of another length.
    """
    words = text.split()
    if words and all(set(word) <= {"0", "1"} for word in words):
        for word in words:
            if len(word) != bits:
                raise ValueError(f"text: expected vectors of {bits} bits, got {word!r:.80}")
        vectors = np.array([[int(letter) for letter in word] for word in words])
    else:
        vectors = np.unpackbits(np.frombuffer(text.encode("utf-8", "replace"), np.uint8)).reshape(-1, 8).astype(int)
        if bits != 8 and len(vectors):
            raise ValueError(f"text: expected vectors of {bits} bits, got {text!r:.80}")
    if not 1 <= len(vectors) <= MOST:
        raise ValueError(f"text: expected 1 to {MOST:,} vectors or letters, got {len(vectors):,}")
    return vectors


def written(vectors: Array, like: str) -> str:
    """Return vectors [L, bits] in the manner of the text that the user typed: bits, or letters."""
    if set(like) <= set("01 "):
        return " ".join(bits_of(vector) for vector in vectors)
    return np.packbits(vectors.astype(np.uint8), axis=1).tobytes().decode("utf-8", "replace")


def say_steps(machine: NTM, x: Array, names: Sequence[str], bits: int, say: Callable[[str], None]) -> Array:
    """Run a sequence and tell every step: what went in and came out, which slot was written and which read.

    Args:
        machine: In evaluation. x: [T, I] float32, vectors of so many bits in its first channels.
        names: What went in at the last steps, where it was no vector. say: Takes a line.

    Returns:
        The answers, integers [T, O], the likelier value of each bit.
    """
    logits, states = machine.trajectory(np.ascontiguousarray(x[:, None]))
    answer = (logits[:, 0] > 0).astype(int)
    wrote, read = (weightings[:, 0].max(1) for weightings in (states.write_weightings, states.read_weightings))
    slots = slots_in_use(np.maximum(wrote, read))[:_WIDEST]
    say(f"Slots {slots[0]} to {slots[-1]} of the memory from left to right, by weight from 0 to 1: '{SHADES}'.")
    room = len(slots) + 7
    say(f"{'step':>4}  {'in':<{bits}}  {'out':<{bits}}  {'wrote':<{room}}  read")
    vectors = len(x) - len(names)
    for t in range(len(x)):
        given = bits_of(x[t, :bits]) if t < vectors else names[t - vectors]
        out = bits_of(answer[t]) if t > vectors else "-"
        heads = "  ".join(_strip(weights, slots) for weights in (wrote[t], read[t]))
        say(f"{t + 1:>4}  {given:<{bits}}  {out:<{bits}}  {heads}")
    return np.asarray(answer)


def _strip(weights: Array, slots: Array) -> str:
    """Return the heaviest slot and the weights of some slots as shades."""
    return f"{int(weights.argmax()):>4} {shaded(weights[slots])}"


def shaded(weights: Array) -> str:
    """Return weights [slots] from 0 to 1 as shades between bars."""
    places = np.rint(9 * weights.astype(float)).astype(int).clip(0, len(SHADES) - 1)
    return f"|{''.join(SHADES[place] for place in places)}|"


def bits_of(vector: Array) -> str:
    """Return a vector of 0 and 1, or of booleans, as it is typed."""
    return "".join(str(int(bit)) for bit in vector)
