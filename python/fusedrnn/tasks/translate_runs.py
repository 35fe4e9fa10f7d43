"""Sequence to sequence: the network, its batches, what it writes, and the same network again from a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.subwords import BEGIN, END, UNKNOWN, Subwords
from fusedrnn.nn import Module, Seq2Seq
from fusedrnn.plots.translation import Translation
from fusedrnn.tasks.characters import Characters
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import RunError
from fusedrnn.tasks.translate_model import LexicalSeq2Seq
from fusedrnn.train.bucketing import LengthBatches, padded
from fusedrnn.train.stored import Part

Texts: TypeAlias = "Characters | Subwords"
SCORES = ("additive", "dot", "general", "none")


@dataclass(frozen=True)
class Recipe:
    """A network and how it learns; it stands in the checkpoint.

    Attributes:
        embedding, units, layers: E, H of each direction, and the encoder's layers. cell, score: As `nn.Seq2Seq`; the
            score "none" is no attention. input_feeding, dropout: As there. lexical: Whether attention also sees the
            vectors of the source's tokens (`LexicalSeq2Seq`). plain_units: H of a second network that has no attention
            and learns beside it, 0 for none.
        smoothing: Of labels. lr, rows, clip: Adam's learning rate, pairs in an update, the gradient's largest norm.
        reverse: Whether the source is read from its end (Sutskever et al. 2014, arXiv:1409.3215).
        own: Up to which share, rising evenly over training, the decoder reads its own tokens (Bengio et al. 2015).
        most: Tokens of an answer. beam, length_penalty: Of the beam search, 1 for token by token.
    """

    embedding: int
    units: int
    layers: int = 1
    cell: str = "lstm"
    score: str = "additive"
    input_feeding: bool = True
    lexical: bool = False
    dropout: float = 0.0
    plain_units: int = 0
    smoothing: float = 0.0
    lr: float = 3e-3
    rows: int = 64
    clip: float = 1.0
    reverse: bool = False
    own: float = 0.0
    most: int = 60
    beam: int = 1
    length_penalty: float = 0.0

    def networks(self, source: Texts, target: Texts, rng: np.random.Generator) -> Module:
        """Make the network, or the two of them side by side; ValueError for sizes that there cannot be."""
        ours = self._network(source, target, self.units, self.score, rng)
        if not self.plain_units:
            return ours
        return SideBySide(ours, self._network(source, target, self.plain_units, "none", rng))

    def _network(self, source: Texts, target: Texts, units: int, score: str, rng: np.random.Generator) -> Seq2Seq:
        kind = LexicalSeq2Seq if self.lexical and score != "none" else Seq2Seq
        return kind(
            len(source), len(target), self.embedding, units, encoder_layers=self.layers, cell=self.cell,
            score=None if score == "none" else score, input_feeding=self.input_feeding, dropout=self.dropout, rng=rng,
        )  # fmt: skip

    def least_size(self, source: Texts, target: Texts) -> int:
        """Return fewer parameters than the network has."""
        return self.units**2 + self.embedding * (len(source) + len(target))


def checked_score(score: str) -> str:
    """Return the score of attention; RunError for one that there is not."""
    if score not in SCORES:
        raise RunError(f"--attention: expected one of {', '.join(SCORES)}, got {score}")
    return score


def checked_share(share: float) -> float:
    """Return the share of scheduled sampling; RunError for none from 0 to 1."""
    if not 0 <= share <= 1:
        raise RunError(f"--scheduled-sampling: expected a share from 0 to 1, got {share}")
    return share


# batches


def batch_of(sources: Sequence[Array], targets: Sequence[Array], members: int = 1) -> tuple[Any, Any]:
    """Lay pairs of token sequences [S_i], [T_i] into what a network reads and what a loss wants.

    Returns:
        x: (source [S, N], tokens [T, N]), int64, -1 past a row's end; tokens have BEGIN first.
        target: [T, N] int64, tokens with END last, -1 past a row's end; with more members [members, T, N].
    """
    tokens = padded([np.concatenate([[BEGIN], target]) for target in targets])
    wanted = padded([np.concatenate([target, [END]]) for target in targets])
    return (padded(sources), tokens), np.broadcast_to(wanted, (members, *wanted.shape)) if members > 1 else wanted


def batches_of(
    recipe: Recipe,
    draw: Callable[[int, np.random.Generator], tuple[Sequence[Array], Sequence[Array]]],
    seed: int,
    epochs: int,
) -> Callable[[int], LengthBatches]:
    """Make the batches of an epoch by its number, of pairs of like length, those of the epoch drawn by ``draw``.

    ``draw(epoch, generator)`` gives sources and targets. With scheduled sampling the third of x says where the decoder
    reads its own token.
    """
    members = 2 if recipe.plain_units else 1

    def batches(epoch: int) -> LengthBatches:
        sources, targets = draw(epoch, np.random.default_rng([seed, epoch]))
        if recipe.reverse:
            sources = [source[::-1] for source in sources]
        lengths = np.array([len(one) + len(other) for one, other in zip(sources, targets, strict=True)])
        share = recipe.own * epoch / max(1, epochs - 1)

        def make(rows: Array, rng: np.random.Generator) -> tuple[Any, Any]:
            x, target = batch_of([sources[i] for i in rows], [targets[i] for i in rows], members)
            if recipe.own:
                x = (*x, (rng.random(x[1].shape) < share) & (np.arange(len(x[1]))[:, None] > 0))
            return x, target

        return LengthBatches(lengths, recipe.rows, [seed, epoch], make)

    return batches


def row_axes(recipe: Recipe) -> tuple[tuple[int, ...], int]:
    """Return the axes of the rows in the batches of a recipe."""
    return (1, 1, 1) if recipe.own else (1, 1), 2 if recipe.plain_units else 1


# writing


class Written(NamedTuple):
    """What a network made of a source: tokens [L], their log probability, and the weights of attention [L + 1, S] in
    the source's own order, None without attention."""

    tokens: Array
    log_probability: float
    weights: Array | None


def write(model: Seq2Seq, recipe: Recipe, sources: Sequence[Array], beam: int | None = None) -> list[Written]:
    """Write the best answer to each source [S_i] in evaluation, by the recipe's beam search or one of this width."""
    training = model.training
    model.eval()
    try:
        found = model.write(
            [source[::-1] if recipe.reverse else source for source in sources], begin=BEGIN, end=END,
            most=recipe.most, beam=recipe.beam if beam is None else beam, length_penalty=recipe.length_penalty,
            never=(UNKNOWN, BEGIN),
        )  # fmt: skip
    finally:
        model.train(training)
    best = [hypotheses[0] for hypotheses in found]
    return [
        Written(
            h.tokens, h.log_probability, h.weights[:, ::-1] if recipe.reverse and h.weights is not None else h.weights
        )
        for h in best
    ]


def main_network(model: Module) -> Seq2Seq:
    """Return the network with attention of one or two."""
    main = model.members[0] if isinstance(model, SideBySide) else model
    assert isinstance(main, Seq2Seq)
    return main


def translation(source: Texts, target: Texts, read: Array, written: Written) -> Translation:
    """Put what was read [S] and written into words, for people."""
    end = [*target.pieces(written.tokens), "(end)"]
    return Translation(source.pieces(read), end, target.text(written.tokens), written.weights)


# a run's network


class Loaded(NamedTuple):
    """The network of a run and what it reads and writes."""

    model: Seq2Seq
    recipe: Recipe
    source: Texts
    target: Texts
    kind: str


def reload(folder: Path, name: str) -> Loaded:
    """Return the network of a run of a task, in evaluation. Raises CheckpointError for a folder without one."""
    saved = SavedRun(folder)
    saved.require(name)
    part = saved.metadata.of("recipe")
    recipe, kind = part.fill(Recipe), saved.metadata.of("kind").text()
    source, target = (_texts(saved.metadata.of(side), kind) for side in ("source", "target"))
    saved.require_size(recipe.least_size(source, target), part)
    try:
        model = recipe.networks(source, target, np.random.default_rng(0))
    except (TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    return Loaded(main_network(model), recipe, source, target, kind)


def _texts(part: Part, kind: str) -> Texts:
    stored = part.text()
    if kind != "sentences":
        return Characters(stored)
    try:
        return Subwords(stored)
    except ValueError as error:
        part.refuse(str(error))
