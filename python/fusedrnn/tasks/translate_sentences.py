"""German sentences into English, or any pairs of sentences of a file: learnt, tested and drawn.

A tenth of the sentences is for the test, and 500 of the others are for looking at while a recipe is chosen. From the
sentences that train and from the words and phrases of the dictionary come the first vectors of the subwords
(`fusedrnn.tasks.alignment`), so that from the beginning translations are near each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sentence_pairs
from fusedrnn.data.sentence_pairs import Pair, Pairs
from fusedrnn.data.subwords import Subwords
from fusedrnn.nn import CrossEntropyLoss, Module
from fusedrnn.optim import Adam, CosineLR, LinearWarmup
from fusedrnn.plots.translation import draw_translations
from fusedrnn.tasks.alignment import bilingual_vectors, expected_counts
from fusedrnn.tasks.bleu import corpus_bleu
from fusedrnn.tasks.task import Metrics, Options, Run
from fusedrnn.tasks.translate_baselines import Dictionary, Nearest
from fusedrnn.tasks.translate_runs import (
    Recipe,
    batch_of,
    batches_of,
    checked_score,
    checked_share,
    main_network,
    row_axes,
    translation,
    write,
)

VALIDATION = 500
PIECES = 3000  # of subwords, of each language
SHOWN = (5, 14)  # pieces of a source in the picture, at least and at most
_DRAWN = 5  # sentences in the picture
_WARMUP = 100  # updates
_ITERATIONS = 4  # of IBM model 1
_SMALL = np.float32(0.3)  # the standard deviation of the first vectors
RECIPE = Recipe(
    embedding=128, units=128, score="general", lexical=True, dropout=0.2, smoothing=0.1, lr=3e-3, rows=32, beam=5,
    length_penalty=1.0,
)  # fmt: skip


@dataclass
class Corpus:
    """Pairs of sentences, split, and the subwords of both languages.

    Attributes:
        train, test, validation, phrases: Pairs of texts. source, target: Vocabularies. name: What to call it.
    """

    train: list[Pair]
    test: list[Pair]
    validation: list[Pair]
    phrases: list[Pair]
    source: Subwords
    target: Subwords
    name: str

    @classmethod
    def of(cls, pairs: Pairs, pieces: int, swap: bool) -> Corpus:
        """Split the training pairs once more, and learn subwords from what is left; ``swap`` turns the direction."""

        def turned(rows: Sequence[Pair]) -> list[Pair]:
            return [Pair(row.target, row.source) if swap else row for row in rows]

        rows = turned(pairs.train)
        order = np.random.default_rng(0).permutation(len(rows))
        cut = min(VALIDATION, len(rows) // 10)
        train = [rows[i] for i in order[cut:]]
        source, target = (Subwords.of([pair[side] for pair in train], pieces) for side in (0, 1))
        validation = [rows[i] for i in order[:cut]]
        return cls(train, turned(pairs.test), validation, turned(pairs.phrases), source, target, pairs.name)

    def numbers(self, pairs: Sequence[Pair]) -> tuple[list[Array], list[Array]]:
        """Return the subwords of sources and targets."""
        return [self.source.numbers(one) for one, _ in pairs], [self.target.numbers(other) for _, other in pairs]

    def sha256(self) -> str:
        """Return the digest of all that trains and tests."""
        return hashlib.sha256(repr([self.train, self.test, self.validation, self.phrases]).encode()).hexdigest()


def bleu(answers: Sequence[str], pairs: Sequence[Pair]) -> float:
    """Return the BLEU of answers to pairs' sources, from 0 to 100."""
    return corpus_bleu(answers, [pair.target for pair in pairs])


def give_vectors(model: Module, sources: Sequence[Array], targets: Sequence[Array], rng: np.random.Generator) -> None:
    """Set the vectors of a network's tokens to bilingual ones, learnt from pairs of token sequences; where E = H also
    the output's weights, half as large."""
    network = main_network(model)
    tables = network.embedding.weight.data, network.decoder.embedding.weight.data
    dimensions = tables[0].shape[1]
    if dimensions > min(len(table) for table in tables):
        return  # of so few tokens there are no such vectors
    counts = expected_counts(sources, targets, _ITERATIONS)
    ours, theirs = bilingual_vectors(counts, (len(tables[0]), len(tables[1])), dimensions, rng)
    tables[0][...], tables[1][...] = _SMALL * ours, _SMALL * theirs
    head = network.decoder.head.weight.data
    if head.shape == theirs.shape:
        head[...] = _SMALL / 2 * theirs


def setup(options: Options) -> Run:
    """Make one run: sentences, subwords, network and baselines."""
    settings, seed = options.settings, options.seed
    corpus = Corpus.of(sentence_pairs.load_pairs(options.data, options.say), PIECES, swap=settings["swap"])
    recipe = replace(
        RECIPE,
        **settings.get("recipe", {}),
        score=checked_score(settings["attention"] or RECIPE.score),
        reverse=settings["reverse_source"],
        own=checked_share(settings["scheduled_sampling"]),
    )
    model = recipe.networks(corpus.source, corpus.target, np.random.default_rng(seed))
    sources, targets = corpus.numbers(corpus.train)
    more_sources, more_targets = corpus.numbers(corpus.phrases)
    give_vectors(model, sources + more_sources, targets + more_targets, np.random.default_rng([seed, 1]))
    batches = batches_of(recipe, lambda epoch, rng: (sources, targets), seed, options.epochs)
    measured = _measures(corpus, recipe, model)
    dictionary, nearest = Dictionary([*corpus.train, *corpus.phrases]), Nearest(corpus.train)

    def of_baselines(pairs: Sequence[Pair]) -> Metrics:
        found = {
            "bleu_dictionary": bleu([dictionary.translate(pair.source) for pair in pairs], pairs),
            "bleu_nearest": bleu([nearest.translate(pair.source) for pair in pairs], pairs),
        }
        return {**found, "bleu_baseline": max(found.values())}

    level = of_baselines(corpus.validation)["bleu_baseline"]

    def figures() -> Metrics:
        answers = write(main_network(model), recipe, corpus.numbers(corpus.test)[0])
        ours = bleu([corpus.target.text(answer.tokens) for answer in answers], corpus.test)
        return {"bleu": ours, **of_baselines(corpus.test), **measured()}

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        every = corpus.numbers(corpus.test)[0]
        fit = [numbers for numbers in every if SHOWN[0] <= len(numbers) <= SHOWN[1]] or every
        numbers = fit[:: max(1, len(fit) // _DRAWN)][:_DRAWN]
        answers = write(main_network(model), recipe, numbers)
        drawn = [translation(corpus.source, corpus.target, *each) for each in zip(numbers, answers, strict=True)]
        titles = [(each.text, each) for each in drawn]
        names = {"bleu_validation": "BLEU, token by token"}
        draw_translations(
            path, titles, history, names, {"word for word": level}, f"{corpus.name}: unseen ones, where attention was"
        )

    def headline(metrics: Metrics) -> str:
        return (
            f"BLEU {metrics['bleu']:.1f} on {len(corpus.test):,} unseen sentences; word for word "
            f"{metrics['bleu_dictionary']:.1f}, most similar sentence {metrics['bleu_nearest']:.1f}"
        )

    return Run(
        model=model,
        loss=CrossEntropyLoss(ignore_index=-1, label_smoothing=recipe.smoothing),
        optimizer=Adam(model, lr=recipe.lr),
        batches=batches,
        schedule=LinearWarmup(_WARMUP, CosineLR(options.total_steps(len(batches(0))))),
        clip_norm=recipe.clip,
        row_axes=row_axes(recipe),
        evaluate=measured,
        figures=figures,
        baseline={"bleu_validation": level},
        draw=draw,
        headline=headline,
        metadata={
            "recipe": asdict(recipe),
            "kind": "sentences",
            "source": corpus.source.stored,
            "target": corpus.target.stored,
            "sha256": corpus.sha256(),
        },
    )


def _measures(corpus: Corpus, recipe: Recipe, model: Module) -> Callable[[], Metrics]:
    """Make what measures the validation sentences: nats a subword, and BLEU token by token."""
    sources, targets = corpus.numbers(corpus.validation)
    loss = CrossEntropyLoss(ignore_index=-1)

    def measure() -> Metrics:
        network, total, count = main_network(model), 0.0, 0
        for at in range(0, len(sources), recipe.rows):
            rows = slice(at, at + recipe.rows)
            read = [source[::-1] for source in sources[rows]] if recipe.reverse else sources[rows]
            x, target = batch_of(read, targets[rows])
            inside = int((target >= 0).sum())
            total, count = total + inside * loss(network(x), target), count + inside
        answers = write(network, recipe, sources, beam=1)
        texts = [corpus.target.text(answer.tokens) for answer in answers]
        return {"nats": total / count, "bleu_validation": bleu(texts, corpus.validation)}

    return measure
