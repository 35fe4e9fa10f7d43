"""Sentiment of texts: many to one, words in, one logit out: is the text positive?

Three sources of texts. "reviews", the default: 10,605 sentences of film reviews, each rated from -4 to 4 by some 20
people (Hutto and Gilbert, ICWSM 2014); a fifth of those rated beyond +-0.5 is kept for the test, the sign of the rating
being the class. All others train, with sigmoid(rating) as target; in the first epochs so do the rated snippets of
product reviews, editorials and tweets that come with them. "generated": clauses with negations
(`fusedrnn.tasks.clauses`), 1 to 4 of them to train on, 8 to 12 in a second test. A folder as aclImdb has it: the Large
Movie Review set (Maas et al. 2011), a tenth of its training files kept out for early stopping.

Beside every accuracy stands that of logistic regression on TF-IDF of words (of clauses) and also pairs of words.

Metrics: ``accuracy`` on the test texts; ``accuracy_long`` (generated) on 8 to 12 clauses; ``validation`` (a folder).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import sources
from fusedrnn.nn import BCEWithLogitsLoss, Module
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.clauses import sentences
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.tasks.words import BagOfWords, WordNumbers, words_of
from fusedrnn.train.bucketing import LengthBatches, infer, many_to_one, padded
from fusedrnn.train.display import coloured

Texts = list[list[str]]
_SHOWN = 22  # words of a text in the picture
CLEAR = 0.5  # the least |rating| of a sentence in the test


@dataclass
class Corpus:
    """Words of texts. ``targets`` [n] are how positive the training texts are, from 0 to 1, and ``clear`` [n] which of
    them leave no doubt; ``related`` texts train in the first epochs only. ``tests`` are by metric, with booleans."""

    source: str
    train: Texts
    targets: Array
    clear: Array
    tests: dict[str, tuple[Texts, Array]]
    related: Texts
    related_targets: Array
    validation: tuple[Texts, Array] | None = None

    def sha256(self) -> str:
        """Of everything that trains and tests."""
        digest = hashlib.sha256()
        held_out = [*self.tests.values(), *([] if self.validation is None else [self.validation])]
        for texts, values in ((self.train, self.targets), (self.related, self.related_targets), *held_out):
            digest.update(repr([list(text) for text in texts]).encode())
            digest.update(np.asarray(values, np.float64).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained. ``unknown`` is the part of words replaced by the unknown one in training,
    ``most`` how many words of a text's end are read, ``related`` the part of epochs that also have related texts."""

    cell: str
    embedding: int
    units: int
    layers: int
    bidirectional: bool
    pooling: str
    input_dropout: float
    dropout: float
    recurrent_dropout: float
    unknown: float
    lr: float
    batch: int
    at_least: int = 2
    words: int | None = None
    most: int | None = None
    related: float = 0.0


RECIPES = {
    "generated": Recipe("lstm", 16, 32, 1, False, "last", 0.0, 0.0, 0.0, 0.0, 2e-2, 64, at_least=1),
    "reviews": Recipe("gru", 64, 64, 2, True, "mean", 0.4, 0.5, 0.2, 0.1, 2e-3, 50, related=0.6),
    "folder": Recipe("gru", 64, 64, 1, True, "mean", 0.3, 0.3, 0.0, 0.05, 3e-3, 64, at_least=5, words=20_000, most=200),
}


# corpora


def generated(seed: int) -> Corpus:
    """20,000 sentences of 1 to 4 clauses, and tests of 2,000 that are not among them, and of 2,000 of 8 to 12."""
    rng = np.random.default_rng(seed)
    train, positive = sentences(rng, 20_000, 1, 4)
    known = {tuple(text) for text in train}
    texts, labels = sentences(rng, 4_000, 1, 4)
    unseen = [i for i, text in enumerate(texts) if tuple(text) not in known][:2_000]
    tests = {"accuracy": ([texts[i] for i in unseen], labels[unseen]), "accuracy_long": sentences(rng, 2_000, 8, 12)}
    every = np.ones(len(train), np.bool_)
    return Corpus("generated clauses", train, positive.astype(np.float32), every, tests, [], np.empty(0, np.float32))


def rated(files: Mapping[str, Sequence[sources.Rated]]) -> Corpus:
    """The rated snippets, the test the same for every seed."""
    own, *others = (files[name] for name in sources.RATED)
    clear = [row for row in own if abs(row.rating) >= CLEAR]
    order = np.random.default_rng(0).permutation(len(clear))
    test = [clear[i] for i in order[: len(clear) // 5]]
    test_texts, test_ratings = _split(test)
    tested = {tuple(text) for text in test_texts}  # by its words, for the network reads nothing else of a text
    texts, ratings = _split(own, tested)
    related_texts, related_ratings = _split([row for rows in others for row in rows], tested)
    return Corpus(
        "review snippets",
        texts,
        _sigmoid(ratings),
        np.abs(ratings) >= CLEAR,
        {"accuracy": (test_texts, test_ratings > 0)},
        related_texts,
        _sigmoid(related_ratings),
    )


def from_folder(folder: Path, seed: int) -> Corpus:
    """The texts of an aclImdb folder, a tenth of the training texts for validation."""
    reviews = sources.read_review_folder(folder)
    texts = [words_of(text) for text in reviews.train_texts]
    order = np.random.default_rng(seed).permutation(len(texts))
    out, kept = np.split(order, [max(1, len(texts) // 10)])
    positive = reviews.train_positive
    if len(set(positive[kept].tolist())) < 2:
        raise sources.DataError(f"{folder}: too few texts to train on, {len(kept)} of one class")
    return Corpus(
        str(folder),
        [texts[i] for i in kept],
        positive[kept].astype(np.float32),
        np.ones(len(kept), np.bool_),
        {"accuracy": ([words_of(text) for text in reviews.test_texts], reviews.test_positive)},
        [],
        np.empty(0, np.float32),
        ([texts[i] for i in out], positive[out]),
    )


def _split(rows: Sequence[sources.Rated], without: Container[tuple[str, ...]] = ()) -> tuple[Texts, Array]:
    """Words and ratings, of all texts but those."""
    read = [(words, row.rating) for row in rows if tuple(words := words_of(row.text)) not in without]
    return [words for words, _ in read], np.array([rating for _, rating in read])


def _sigmoid(x: Array) -> Array:
    value: Array = (0.5 * (1 + np.tanh(0.5 * x))).astype(np.float32)
    return value


# the network


def network(recipe: Recipe, words: int, members: int, rng: np.random.Generator | int) -> SideBySide:
    """So many networks of a recipe for so many words, side by side: [members, N, 1] logits."""
    rng = np.random.default_rng(rng)
    return SideBySide(
        *(
            many_to_one(
                1,
                embedding=(words, recipe.embedding),
                cell=recipe.cell,
                hidden_size=recipe.units,
                num_layers=recipe.layers,
                bidirectional=recipe.bidirectional,
                pooling=recipe.pooling,
                input_dropout=recipe.input_dropout,
                dropout=recipe.dropout,
                recurrent_dropout=recipe.recurrent_dropout,
                rng=rng,
            )
            for _ in range(members)
        )
    )


def probabilities(model: Module, texts: Sequence[Array]) -> Array:
    """How likely texts, as numbers of words, are positive, [n]: the mean over the networks."""
    likely: Array = _sigmoid(infer(model, texts)).mean(axis=0)[:, 0]
    return likely


def word_by_word(model: Module, text: Array) -> Array:
    """How likely a text is positive after each of its T words, [T]."""
    return probabilities(model, [text[: t + 1] for t in range(len(text))])


def setup(options: Options) -> Run:
    """One run: corpus, model and optimizer."""
    where, seed = options.data or "reviews", options.seed
    if where == "generated":
        corpus = generated(seed)
    elif where == "reviews":
        corpus = rated(sources.load_rated(options.say))
    else:
        corpus = from_folder(Path(where), seed)
    recipe = RECIPES.get(where, RECIPES["folder"])
    members = options.preset.settings.get("members", 1) if where == "reviews" else 1
    vocabulary = WordNumbers.of([*corpus.train, *corpus.related], recipe.at_least, recipe.words)

    def numbers(texts: Texts) -> list[Array]:
        return [vocabulary.numbers(text if recipe.most is None else text[-recipe.most :]) for text in texts]

    model = network(recipe, len(vocabulary), members, seed)
    train = numbers(corpus.train)
    texts = train + numbers(corpus.related)
    lengths = np.array([len(text) for text in texts])
    targets = np.concatenate([corpus.targets, corpus.related_targets])
    per_epoch = -(-len(train) // recipe.batch)
    with_related = round(recipe.related * -(-options.total_steps(per_epoch) // per_epoch))

    def batches(epoch: int) -> LengthBatches:
        # An epoch is as many texts as there are of the task's own, so that all epochs are of one size.
        chosen = np.arange(len(train))
        if epoch < with_related:
            chosen = np.random.default_rng([seed, epoch]).choice(len(texts), len(train), replace=False)

        def make(rows: Array, rng: np.random.Generator) -> tuple[Array, Array]:
            x = padded([texts[chosen[i]] for i in rows])
            x[(x >= 0) & (rng.random(x.shape) < recipe.unknown)] = 0
            return x, np.broadcast_to(targets[chosen[rows], None], (members, len(rows), 1))

        return LengthBatches(lengths[chosen], recipe.batch, [seed, epoch], make)

    held_out = {name: (numbers(texts), positive) for name, (texts, positive) in corpus.tests.items()}
    validation = None if corpus.validation is None else (numbers(corpus.validation[0]), corpus.validation[1])

    def accuracy(texts: Sequence[Array], positive: Array) -> float:
        return float(np.mean((probabilities(model, texts) > 0.5) == positive))

    def figures() -> Metrics:
        return {name: accuracy(*test) for name, test in held_out.items()}

    def evaluate() -> Metrics:
        return figures() if validation is None else {"validation": accuracy(*validation)}

    clear = np.flatnonzero(corpus.clear)
    bag = BagOfWords([corpus.train[i] for i in clear], corpus.targets[clear] > 0.5, pairs=where != "generated")
    baseline = {name: bag.accuracy(*test) for name, test in corpus.tests.items()}
    if corpus.validation is not None:
        baseline["validation"] = bag.accuracy(*corpus.validation)

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        shown = _to_show(*corpus.tests["accuracy"], probabilities(model, held_out["accuracy"][0]))
        values = [word_by_word(model, held_out["accuracy"][0][i])[-_SHOWN:] for i in shown]
        ends = [corpus.tests["accuracy"][0][i][-_SHOWN:] for i in shown]
        truth = [bool(corpus.tests["accuracy"][1][i]) for i in shown]
        title = f"{corpus.source}: unseen texts, each word coloured by the verdict so far"
        pictures.draw_sentences(path, ends, values, truth, history, baseline, title)

    def headline(metrics: Metrics) -> str:
        parts = [f"{100 * metrics['accuracy']:.2f} % of {len(held_out['accuracy'][0]):,} unseen texts right"]
        if "accuracy_long" in metrics:
            parts.append(f"{100 * metrics['accuracy_long']:.2f} % of 8 to 12 clauses")
        bags = ", ".join(f"{100 * baseline[name]:.1f} %" for name in metrics)
        return f"{', '.join(parts)}; logistic regression on bags of words: {bags}"

    return Run(
        model=model,
        loss=BCEWithLogitsLoss(),
        optimizer=Adam(model, lr=recipe.lr),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=1.0,
        evaluate=evaluate,
        figures=figures,
        baseline=baseline,
        draw=draw,
        headline=headline,
        monitor=None if validation is None else "validation",
        mode="max",
        patience=None if validation is None else 2,
        metadata={
            "recipe": asdict(recipe),
            "members": members,
            "vocabulary": vocabulary.words,
            "sha256": corpus.sha256(),
        },
    )


def _to_show(texts: Texts, positive: Array, likely: Array) -> list[int]:
    """Texts with a turn in the words shown, short ones first: six that the network has right, two that it has not."""
    turns = {"but", "not", "n't", "never"}
    fit = [i for i, text in enumerate(texts) if turns & set(text[-_SHOWN:])]
    fit.sort(key=lambda i: len(texts[i]) > _SHOWN)
    right = [i for i in fit if (likely[i] > 0.5) == positive[i]]
    wrong = [i for i in fit if (likely[i] > 0.5) != positive[i]]
    return right[:6] + wrong[:2]


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Tell how likely the network in a run's folder takes a text to be positive, and after each word.

    Raises CheckpointError for a folder without such a network, ValueError for a text without words.
    """
    saved = SavedRun(folder, best=True)
    saved.require(SENTIMENT.name)
    part = saved.metadata.of("recipe")
    recipe, members = part.fill(Recipe), saved.metadata.of("members").integer(least=1)
    vocabulary = WordNumbers(saved.metadata.of("vocabulary").texts())
    saved.require_size(members * (recipe.units**2 * recipe.layers + recipe.embedding * len(vocabulary)), part)
    try:
        model = network(recipe, len(vocabulary), members, 0)
    except (KeyError, TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    words = words_of(text)
    if not words:
        raise ValueError("text: expected at least one word")
    if recipe.most is not None:
        words = words[-recipe.most :]
    numbers = vocabulary.numbers(words)
    likely = word_by_word(model, numbers)
    say(f"{'positive' if likely[-1] > 0.5 else 'negative'}: {likely[-1]:.3f} likely positive")
    for word, number, before, value in zip(words, numbers, [0.5, *likely], likely, strict=False):
        unknown = "" if number else "  (a word not met in training)"
        say(coloured(f"{value:6.3f} {value - before:+.3f}  {word}", value) + unknown)


SENTIMENT = Task(
    name="sentiment",
    about="is a text positive? (bidirectional GRU over words, many to one)",
    presets={
        "smoke": Preset("4 epochs of one network", epochs=4),
        "default": Preset("12 epochs, the mean of 3 networks", epochs=12, settings={"members": 3}),
        "best": Preset("16 epochs, the mean of 10 networks", epochs=16, settings={"members": 10}),
    },
    setup=setup,
    data='"reviews" (rated sentences of film reviews, fetched), "generated", or a folder as aclImdb has it',
    predict=predict,
)
