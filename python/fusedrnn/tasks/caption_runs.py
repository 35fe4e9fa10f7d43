"""Captions: the recipe of a network, how it is set up and measured, and the same network again from a run's folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.subwords import BEGIN, END, UNKNOWN
from fusedrnn.decoding import Hypothesis
from fusedrnn.nn import CrossEntropyLoss
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import captions
from fusedrnn.plots.captions import Captioned
from fusedrnn.tasks.bleu import corpus_bleu
from fusedrnn.tasks.caption_model import Captioner
from fusedrnn.tasks.caption_words import Words, columns
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Run
from fusedrnn.train.batches import shuffled

BEAM = 5
SHOWN = 5  # captions in the picture of a run
WHITE = 255
_BLOCK = 200  # pictures that are compared with all known ones at once


@dataclass(frozen=True)
class Recipe:
    """A network and how it learns; it stands in the checkpoint.

    Attributes:
        rows, columns, channels: Of pictures. units, decoder_units, embedding, score, dropout: As `Captioner`, the
            score "none" being no attention. lr, batch, clip: Adam's learning rate, pictures in an update, the
            gradient's largest norm. most: Words of a caption.
    """

    rows: int
    columns: int
    channels: int
    units: int = 64
    decoder_units: int = 64
    embedding: int = 32
    score: str = "additive"
    dropout: float = 0.0
    lr: float = 3e-3
    batch: int = 64
    clip: float = 5.0
    most: int = 16

    def network(self, words: Words, rng: np.random.Generator) -> Captioner:
        """Make the network; ValueError for sizes that there cannot be."""
        return Captioner(
            self.rows, self.columns, self.channels, len(words), embedding=self.embedding, units=self.units,
            decoder_units=self.decoder_units, score=None if self.score == "none" else self.score,
            dropout=self.dropout, rng=rng,
        )  # fmt: skip

    def least_size(self, words: Words) -> int:
        """Return fewer parameters than the network has."""
        lines = self.channels * (self.rows + self.columns)
        return self.units * (self.units + lines) + self.decoder_units**2 + self.embedding * len(words)


class Examples(NamedTuple):
    """Pictures [n, rows, columns, channels] uint8 and their captions."""

    pictures: Array
    captions: list[str]


class Fresh(NamedTuple):
    """Pictures that training has not, and what the share of exact captions, their BLEU and the mean share of a
    caption's words that were written (where that is wanted) are called."""

    examples: Examples
    exact: str = "exact"
    bleu: str = "bleu"
    recall: str | None = None


@dataclass
class Exercise:
    """What is to be learnt.

    Attributes:
        kind: Its word for ``--data``. recipe: The network. training: What trains. tests: What tests, the most telling
            one last. title: Of its picture. headline: Puts the figures into words. more: Gives further figures of what
            was written to the last test. metadata: What a resumed run must find as it was, beside the data.
        times: How often an epoch shows each picture of training.
    """

    kind: str
    recipe: Recipe
    training: Examples
    tests: tuple[Fresh, ...]
    title: str
    headline: Callable[[Metrics], str]
    more: Callable[[Sequence[Hypothesis], Sequence[str]], Metrics] | None = None
    metadata: Mapping[str, Any] | None = None
    times: int = 1


# writing and measuring


def write(model: Captioner, recipe: Recipe, pictures: Array, beam: int = 1) -> list[Hypothesis]:
    """Write captions of pictures in evaluation, word by word or by a beam search."""
    training = model.training
    model.eval()
    try:
        return model.write(pictures, begin=BEGIN, end=END, most=recipe.most, beam=beam, never=(UNKNOWN, BEGIN))
    finally:
        model.train(training)


def scores(written: Sequence[str], test: Fresh, prefix: str = "", suffix: str = "") -> Metrics:
    """Return the share of captions without a mistake, BLEU-4 of the corpus, 0 to 100, and the recall of words, by the
    test's names."""
    captions = test.examples.captions
    exact = np.mean([one == other for one, other in zip(written, captions, strict=True)])
    bleu = corpus_bleu(written, captions, tokenize="none")
    found = {test.exact: float(exact), test.bleu: bleu}
    if test.recall is not None:
        found[test.recall] = word_recall(written, captions)
    return {f"{prefix}{name}{suffix}": value for name, value in found.items()}


def word_recall(written: Sequence[str], captions: Sequence[str]) -> float:
    """Return the mean share of a caption's words that are in what was written."""
    shares = [
        len(set(one.split()) & set(other.split())) / len(set(other.split()))
        for one, other in zip(written, captions, strict=True)
    ]
    return float(np.mean(shares))


def nearest(training: Examples, pictures: Array) -> list[str]:
    """Return for each picture the caption of the most similar one in training, by the sum of squared differences."""
    known = training.pictures.reshape(len(training.pictures), -1).astype(np.float32) / WHITE
    asked = pictures.reshape(len(pictures), -1).astype(np.float32) / WHITE
    lengths = (known * known).sum(1)
    best = [(lengths - 2 * asked[at : at + _BLOCK] @ known.T).argmin(1) for at in range(0, len(asked), _BLOCK)]
    return [training.captions[i] for i in np.concatenate(best)]


def share_of_commonest(captions: Sequence[str]) -> float:
    """Return the share of the caption that occurs most often: more than that no one gets who sees nothing."""
    return Counter(captions).most_common(1)[0][1] / len(captions)


def captioned(picture: Array, words: Words, written: Hypothesis, truth: str | None = None) -> Captioned:
    """Put a picture and what was written of it together, for people."""
    return Captioned(picture, [*words.text(written.tokens).split(), "(end)"], written.weights, truth)


# a run


def set_up(options: Options, exercise: Exercise) -> Run:
    """Make one run of an exercise: words, network, baselines."""
    recipe, training, seed = exercise.recipe, exercise.training, options.seed
    words = Words.of(training.captions)
    model = recipe.network(words, np.random.default_rng([seed, 1]))
    numbers = [words.numbers(caption) for caption in training.captions]
    last = exercise.tests[-1]

    def make(turns: Array, rng: np.random.Generator) -> tuple[Any, Any]:
        rows = turns % len(numbers)
        tokens, target = columns([numbers[i] for i in rows])
        return (training.pictures[rows], tokens), target

    batches = shuffled(exercise.times * len(numbers), recipe.batch, seed, make)

    def told(pictures: Array, beam: int = 1) -> tuple[list[Hypothesis], list[str]]:
        found = write(model, recipe, pictures, beam)
        return found, [words.text(each.tokens) for each in found]

    def evaluate() -> Metrics:
        found: Metrics = {}
        for test in exercise.tests:
            hypotheses, texts = told(test.examples.pictures)
            found |= scores(texts, test)
        more = exercise.more
        found["nats"] = _nats(model, recipe, exercise.tests[0].examples, words)
        return {**found, **(more(hypotheses, texts) if more is not None else {})}

    known = [nearest(training, test.examples.pictures) for test in exercise.tests]
    of_nearest = {
        k: v for texts, test in zip(known, exercise.tests, strict=True) for k, v in scores(texts, test).items()
    }

    def figures() -> Metrics:
        found = evaluate()
        for test in exercise.tests:
            found |= scores(told(test.examples.pictures, BEAM)[1], test, suffix="_beam")
        first = exercise.tests[0]
        white = np.full_like(first.examples.pictures, WHITE)
        blind = scores(told(white)[1], first, prefix="blind_")
        blind["blind_most"] = share_of_commonest(first.examples.captions)
        return {**found, **blind, **{f"nearest_{name}": value for name, value in of_nearest.items()}}

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        chosen = np.linspace(0, len(last.examples.captions) - 1, SHOWN).astype(int)  # emoji are in order of their kinds
        pictures, truths = last.examples.pictures[chosen], [last.examples.captions[i] for i in chosen]
        found = told(pictures)[0]
        rows = [captioned(p, words, w, truth) for p, w, truth in zip(pictures, found, truths, strict=True)]
        captions.draw_captions(path, rows, exercise.title)

    return Run(
        model=model,
        loss=CrossEntropyLoss(ignore_index=-1),
        optimizer=Adam(model, lr=recipe.lr),
        batches=batches,
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=recipe.clip,
        row_axes=((0, 1), 1),
        evaluate=evaluate,
        figures=figures,
        baseline=of_nearest,
        draw=draw,
        headline=exercise.headline,
        metadata={
            "recipe": asdict(recipe),
            "kind": exercise.kind,
            "words": words.stored,
            "sha256": _digest([training, *(test.examples for test in exercise.tests)]),
            **(exercise.metadata or {}),
        },
    )


def _nats(model: Captioner, recipe: Recipe, examples: Examples, words: Words) -> float:
    """Return -log probability of captions, nats a word, the end being one; in evaluation, as `write`."""
    training, loss, total, count = model.training, CrossEntropyLoss("sum", ignore_index=-1), 0.0, 0
    model.eval()
    try:
        for at in range(0, len(examples.captions), recipe.batch):
            rows = slice(at, at + recipe.batch)
            tokens, target = columns([words.numbers(caption) for caption in examples.captions[rows]])
            total += loss(model((examples.pictures[rows], tokens)), target)
            count += int((target >= 0).sum())
    finally:
        model.train(training)
    return total / count


def _digest(parts: Sequence[Examples]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part.pictures).tobytes())
        digest.update("\n".join(part.captions).encode())
    return digest.hexdigest()


# a run's network


class Loaded(NamedTuple):
    """The network of a run, in evaluation, and its words."""

    model: Captioner
    recipe: Recipe
    words: Words


def reload(folder: Path, name: str) -> Loaded:
    """Return the network of a run of a task. Raises CheckpointError for a folder without one."""
    saved = SavedRun(folder)
    saved.require(name)
    part = saved.metadata.of("recipe")
    recipe, words = part.fill(Recipe), Words(saved.metadata.of("words").texts())
    saved.require_size(recipe.least_size(words), part)
    try:
        model = recipe.network(words, np.random.default_rng(0))
    except (TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    return Loaded(model, recipe, words)
