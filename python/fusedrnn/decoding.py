"""Writing tokens with anything that takes a step: the likeliest one by one, samples, and beam search.

A stepper is a function ``step(tokens, state)`` of integers [B], one for each of B rows, and a tree of arrays [B, ...].
It returns logits [B, V] of the next token and the new state; as a third, where it attends to something, the weights
[B, S], which the hypotheses then keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.scan.trees import map_leaves
from fusedrnn.sizes import size

Stepper = Callable[[Array, Any], "tuple[Any, ...]"]


class Hypothesis(NamedTuple):
    """What was written.

    Attributes:
        tokens: int64 [L], without the token that begins and that which ends.
        log_probability: Of the tokens and the end, natural logarithm. score: The same over the length penalty.
        ended: Whether it ended itself.
        weights: [L + 1, S] where the stepper gives them, those of the end the last; else None.
    """

    tokens: Array
    log_probability: float
    score: float
    ended: bool
    weights: Array | None


def sample(
    step: Stepper,
    state: Any,
    *,
    rows: int,
    begin: int,
    end: int,
    most: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    never: Sequence[int] = (),
    rng: np.random.Generator | int | None = None,
) -> list[Hypothesis]:
    """Write one sequence for each row, token by token.

    Args:
        step, state: A stepper and its first state, see the module. rows: B. begin, end: Tokens around a sequence.
        most: Tokens at most. temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among the k likeliest. top_p: Among the fewest whose probabilities add up to p (Holtzman et al.
            2020, arXiv:1904.09751). never: Tokens that are left out. rng: Seed or generator.

    Returns:
        One hypothesis for each row; log probabilities are the model's own, whatever was drawn from.

    Raises:
        ValueError: Numbers out of range.
    """
    size("rows", rows), size("most", most)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature: expected a finite number of at least 0, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a probability above 0, at most 1, got {top_p}")
    if top_k is not None:
        size("top_k", top_k)
    if end in never:
        raise ValueError(f"never: expected other tokens than the end, {end}")
    generator = np.random.default_rng(rng)
    tokens, done = np.full(rows, begin, np.int64), np.zeros(rows, bool)
    total = np.zeros(rows)
    written: list[Array] = []
    kept: list[Array | None] = []
    while not done.all() and len(written) <= most:  # one more than most: the end may follow
        logits, state, weights = _stepped(step, tokens, state, never)
        log_p = _log_softmax(logits)
        tokens = log_p.argmax(1) if temperature == 0 else _drawn(log_p, temperature, top_k, top_p, generator)
        counts = ~done & ((tokens == end) | (len(written) < most))
        total += np.where(counts, log_p[np.arange(rows), tokens], 0)
        done |= tokens == end
        written.append(np.where(done, end, tokens))
        kept.append(weights)
    path = np.array(written).reshape(len(written), rows)
    found = []
    for row in range(rows):
        ends = np.flatnonzero(path[:, row] == end)
        length = int(ends[0]) if ends.size else most
        over = None if kept[0] is None else np.array([w[row] for w in kept[: length + 1] if w is not None])
        log_probability = float(total[row])
        found.append(Hypothesis(path[:length, row].copy(), log_probability, log_probability, bool(done[row]), over))
    return found


def _drawn(log_p: Array, temperature: float, top_k: int | None, top_p: float, generator: np.random.Generator) -> Array:
    """Draw tokens [B] of log probabilities [B, V]."""
    with np.errstate(over="ignore"):  # at temperatures that are next to none
        p = np.exp((log_p - log_p.max(1, keepdims=True)) / temperature)
    if top_k is not None or top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        before = (ranked.cumsum(1) - ranked) / ranked.sum(1, keepdims=True)
        outside = before >= top_p
        if top_k is not None:
            outside[:, top_k:] = True
        np.put_along_axis(p, order, np.where(outside, 0, ranked), axis=1)
    sums = p.cumsum(1)
    drawn: Array = (sums > generator.random((len(p), 1)) * sums[:, -1:]).argmax(1)
    return drawn


def beam_search(
    step: Stepper,
    state: Any,
    *,
    rows: int,
    begin: int,
    end: int,
    most: int,
    width: int = 5,
    length_penalty: float = 0.0,
    never: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Write the best sequences for each row, of those that a beam of so many hypotheses finds.

    A score is log p / ((5 + L) / 6)^penalty, L being the tokens and the end (Wu et al. 2016, arXiv:1609.08144, (14)).
    The search of a row stops when no hypothesis that goes on could get among the best.

    Args:
        step: A stepper, see the module; it is called with rows * width rows, those of one row beside each other, so
            what it has at hand for each row it needs width times. state: Its first state, leaves [rows, ...].
        rows, begin, end, most, never: As `sample`. width: Hypotheses of a row that are followed, and given back.
        length_penalty: 0 compares probabilities, which favours the short.

    Returns:
        For each row at most ``width`` hypotheses, best first; all have ended, at the latest after ``most`` tokens.

    Raises:
        ValueError: Numbers out of range.
    """
    W = size("width", width)
    size("rows", rows), size("most", most)
    if not (math.isfinite(length_penalty) and length_penalty >= 0):
        raise ValueError(f"length_penalty: expected a finite number of at least 0, got {length_penalty}")
    if end in never:
        raise ValueError(f"never: expected other tokens than the end, {end}")
    beams = [_Beam(W, length_penalty, most) for _ in range(rows)]
    tokens = np.full(rows * W, begin, np.int64)
    state = map_leaves(lambda leaf: np.repeat(np.asarray(leaf), W, axis=0), state)
    running = np.full((rows, W), -np.inf)
    running[:, 0] = 0  # all begin alike: one of them counts
    for length in range(1, most + 2):
        logits, state, weights = _stepped(step, tokens, state, never)
        log_p = _log_softmax(logits)
        V = log_p.shape[1]
        if length > most:  # there is room for the end alone
            log_p[:, np.arange(V) != end] = -np.inf
        total = (running.reshape(-1, 1) + log_p).reshape(rows, W * V)
        count = min(2 * W, W * V)  # W of them may end, W go on
        best = np.argpartition(-total, count - 1, axis=1)[:, :count]
        parents = np.empty((rows, W), np.int64)
        chosen = np.empty((rows, W), np.int64)
        for row, beam in enumerate(beams):
            order = best[row][np.lexsort((best[row], -total[row, best[row]]))]
            kept = None if weights is None else weights[row * W : (row + 1) * W]
            parents[row], chosen[row], running[row] = beam.advance(order, total[row, order], V, end, length, kept)
        if all(beam.done for beam in beams):
            break
        index = (parents + np.arange(rows)[:, None] * W).reshape(-1)
        tokens = chosen.reshape(-1)
        state = map_leaves(lambda leaf, index=index: np.asarray(leaf)[index], state)
    return [beam.hypotheses() for beam in beams]


class _Beam:
    """The hypotheses of one row: those that go on, as tokens and parents of every step, and those that are done."""

    def __init__(self, width: int, penalty: float, most: int) -> None:
        self.width, self.penalty, self.most = width, penalty, most
        self.steps: list[tuple[Array, Array, Array | None]] = []  # parents [W], tokens [W], weights [W, S]
        self.found: list[Hypothesis] = []
        self.done = False

    def _over_penalty(self, log_probability: float, length: int) -> float:
        return float(log_probability / ((5 + length) / 6) ** self.penalty)

    def advance(
        self, order: Array, total: Array, V: int, end: int, length: int, weights: Array | None
    ) -> tuple[Array, Array, Array]:
        """Take the best continuations, parent * V + token, best first; give parent, token, log p of W that go on."""
        going: list[tuple[int, int, float]] = []
        for rank, (place, log_p) in enumerate(zip(order.tolist(), total.tolist(), strict=True)):
            parent, token = divmod(place, V)
            if log_p == -np.inf or self.done:
                break
            if token == end:
                if rank < self.width:
                    self._keep(parent, log_p, length, weights)
            elif len(going) < self.width:
                going.append((parent, token, log_p))
        going += [(0, end, -np.inf)] * (self.width - len(going))
        parents, tokens, running = (np.array(column) for column in zip(*going, strict=True))
        self.steps.append((parents, tokens, weights))
        longest = self.most + 1
        bound = self._over_penalty(float(running.max()), longest) if np.isfinite(running).any() else -np.inf
        if len(self.found) >= self.width:
            bound = -np.inf if bound <= sorted(h.score for h in self.found)[-self.width] else bound
        self.done = self.done or bound == -np.inf
        return parents, tokens, running

    def _path(self, beam: int) -> tuple[list[int], list[Array]]:
        """Return the tokens that lead to a beam, and the weights of the steps that gave them."""
        tokens: list[int] = []
        kept: list[Array] = []
        for parents, chosen, weights in reversed(self.steps):
            tokens.append(int(chosen[beam]))
            beam = int(parents[beam])
            if weights is not None:
                kept.append(weights[beam])
        return tokens[::-1], kept[::-1]

    def _keep(self, beam: int, log_p: float, length: int, weights: Array | None) -> None:
        tokens, kept = self._path(beam)
        over = None if weights is None else np.array([*kept, weights[beam]])
        score = self._over_penalty(log_p, length)
        self.found.append(Hypothesis(np.array(tokens, np.int64), log_p, score, True, over))

    def hypotheses(self) -> list[Hypothesis]:
        """Return the best that are done, best first."""
        ordered = sorted(self.found, key=lambda h: -h.score)  # stable: what was found first stays first
        return ordered[: self.width]


def _stepped(step: Stepper, tokens: Array, state: Any, never: Sequence[int]) -> tuple[Array, Any, Array | None]:
    """Take a step; return float64 logits without those of tokens that are left out, the state, and weights."""
    result = step(tokens, state)
    logits = np.array(result[0], np.float64)
    logits[:, list(never)] = -np.inf
    return logits, result[1], np.array(result[2]) if len(result) > 2 and result[2] is not None else None


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_p
