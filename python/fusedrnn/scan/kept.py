"""What forward keeps for backward: the rest is cheap to compute again from that, or comes from outside."""

from __future__ import annotations

from collections.abc import Collection

from fusedrnn.scan.graph import Level, Step, Value, needed
from fusedrnn.scan.instructions import ELEMENTWISE
from fusedrnn.scan.views import view_of

# Elementwise instructions that cost more than to read their result from memory.
_DEAR = frozenset(("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus", "sqrt"))
# A result is computed again from inputs that are kept instead, where they are so many times smaller.
_SMALLER = 4
# So many instructions after each other at most.
_DEPTH = 6


def _bases(value: Value) -> set[Value]:
    """The values whose elements an instruction reads."""
    return {view_of(each, ()).base for each in value.inputs}


def _is_cheap(value: Value) -> bool:
    return value.op in ELEMENTWISE and value.op not in _DEAR


def choose_kept(forward: Step, backward: Step) -> list[Value]:
    """Values of level STEP that forward writes to its reserve, in the order in which it computes them."""
    given = {view_of(value, ()).base for value in (*forward.leaves, *forward.new_states)}
    inside = set(needed(forward.results))

    def is_free(value: Value) -> bool:
        return value.level < Level.STEP or value.op in ("leaf", "constant") or value in given

    wanted: set[Value] = set()
    for value in needed(backward.results):
        if value not in inside:
            wanted |= {base for base in _bases(value) if base in inside and not is_free(base)}
    wanted |= {
        base
        for base in (view_of(result, ()).base for result in backward.results)
        if base in inside and not is_free(base)
    }
    kept: set[Value] = set()

    def cost(value: Value, depth: int) -> int:
        """Elements that must be kept, so that backward has a value."""
        if is_free(value) or value in kept:
            return 0
        return min(value.size, again(value, depth))

    def again(value: Value, depth: int = _DEPTH) -> int:
        """The same where it is computed again."""
        if not depth or not _is_cheap(value):
            return value.size + 1
        return sum(cost(base, depth - 1) for base in _bases(value))

    def settle(value: Value) -> None:
        """Makes a value available to backward."""
        if is_free(value) or value in kept:
            return
        if again(value) * _SMALLER <= value.size:
            for base in _bases(value):
                settle(base)
        else:
            kept.add(value)

    for value in sorted(wanted, key=lambda value: value.index):
        settle(value)
    for value in sorted(kept, key=lambda value: value.index):  # what the others make cheap
        kept.discard(value)
        if again(value):
            kept.add(value)
    return sorted(kept, key=lambda value: value.index)


def reserve_offsets(kept: Collection[Value]) -> tuple[dict[Value, int], int]:
    """Where each lies in a row of the reserve, and the row's width."""
    offsets: dict[Value, int] = {}
    width = 0
    for value in kept:
        offsets[value] = width
        width += value.size
    return offsets, width
