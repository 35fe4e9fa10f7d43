"""Language models: what comes next in a text, character by character or word by word.

One long text is cut into columns that are read side by side, in windows: the state goes from window to window,
gradients do not (truncated back-propagation). The last tenth of the text is held out and read in one go, from its first
character to its last with the state carried on. The recipe is near A. Karpathy's char-rnn (2015): LSTM, an embedding,
dropout, softmax; Adam with a cosine. ``--preset min-char-rnn`` is his "min-char-rnn" (2015) as it was published: a
plain RNN of 100 units on one-hot characters, one column, windows of 25, weights from 0.01 N(0, 1), the summed loss,
gradients clipped at +-5, Adagrad 0.1. ``--preset words`` reads words; its softmax has the embedding's weights.

Metrics, on the text held out: ``nats_per_character``, ``bits_per_character`` (words: ``nats_per_word`` and
``perplexity``), and ``ngram_nats``, those of the best interpolated n-gram up to order 7 (words: 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.atomic import write_atomically
from fusedrnn.data import sources
from fusedrnn.nn import LSTM, RNN, CrossEntropyLoss, Embedding
from fusedrnn.optim import Adagrad, Adam, CosineLR
from fusedrnn.plots import pictures
from fusedrnn.tasks.models import LanguageModel, OneHot
from fusedrnn.tasks.ngrams import probabilities, tuned_discount
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, RunError, SampleOptions, Task
from fusedrnn.tasks.vocabulary import Vocabulary, spaced, split
from fusedrnn.train.tbptt import Windows

CHARACTERS = 1_115_394  # of Shakespeare: as many as the text has that char-rnn is known for
TEMPERATURE = 0.8  # of the sample in the picture
SEEN = 3  # words that occur less often in training count as unknown


@dataclass(frozen=True)
class Recipe:
    """Network and training of a preset: E, H and L; N columns, windows of K steps."""

    words: bool = False
    min_char_rnn: bool = False
    embedding: int = 64
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.0
    columns: int = 32
    steps: int = 64
    lr: float = 4e-3
    orders: int = 7
    dtype: str = "float32"


def build(recipe: Recipe, tokens: int, rng: np.random.Generator) -> LanguageModel:
    """The network, its initial values from rng."""
    if recipe.min_char_rnn:
        encoder = OneHot(tokens, recipe.dtype)
        rnn = RNN(tokens + 1, recipe.hidden, bias=False, dtype=recipe.dtype, rng=rng)
        model = LanguageModel(encoder, rnn, tokens, rng=rng)
        for name, parameter in model.named_parameters():
            parameter.data[...] = 0.01 * rng.standard_normal(parameter.data.shape) * (name != "head.bias")
            if name == "rnn.weight_ih_l0":
                parameter.data[:, -1] = 0  # the bias
        return model
    embedding = Embedding(tokens, recipe.embedding, dtype=recipe.dtype, rng=rng)
    if recipe.words:
        embedding.weight.data *= 0.1  # also the softmax's weights, whose logits should begin small
    between = recipe.dropout if recipe.layers > 1 else 0.0
    lstm = LSTM(
        recipe.embedding, recipe.hidden, recipe.layers, dropout=between, forget_bias=1.0, rng=rng,
        dtype=recipe.dtype,
    )  # fmt: skip
    return LanguageModel(embedding, lstm, tokens, dropout=recipe.dropout, tied=recipe.words, rng=rng)


@dataclass(frozen=True)
class Corpus:
    """A text as integers, the last tenth held out."""

    vocabulary: Vocabulary
    train: Array
    held_out: Array
    sha256: str

    @classmethod
    def of(cls, text: sources.Text, where: str | None, recipe: Recipe) -> Corpus:
        """Raises DataError for a text too short, or of a single token."""
        name = f"--data {where}" if where else text.source
        tokens = split(text.text, recipe.words)
        kind = "words" if recipe.words else "characters"
        cut = len(tokens) * 9 // 10
        least = recipe.columns * recipe.steps + 1
        if cut < least:
            raise sources.DataError(
                f"{name}: expected at least {-(-least * 10 // 9):,} {kind}, 9 in 10 of them for {recipe.columns} "
                f"columns of {recipe.steps} steps, got {len(tokens):,}"
            )
        vocabulary = Vocabulary.of(tokens[:cut] if recipe.words else tokens, recipe.words, SEEN)
        numbers = vocabulary.encode(tokens)
        if (numbers == numbers[0]).all():
            only = vocabulary.tokens[numbers[0]]
            raise sources.DataError(f"{name}: expected at least two different {kind}, got only {only!r}")
        return cls(vocabulary, numbers[:cut], numbers[cut:], hashlib.sha256(text.text.encode()).hexdigest())

    def columns(self, count: int, steps: int) -> tuple[Array, Array]:
        """x and target [T, N] of the N columns of training, T a multiple of steps."""
        T = (len(self.train) - 1) // count // steps * steps
        x, target = (self.train[i : i + count * T].reshape(count, T).T for i in (0, 1))
        return np.ascontiguousarray(x), np.ascontiguousarray(target)


def setup(options: Options) -> Run:
    """One run: the text as ``--data`` says, model and optimizer from the seed."""
    recipe = Recipe(**options.preset.settings)
    text = sources.load_text(options.data, options.say)
    if options.data is None:
        text = text._replace(text=text.text[:CHARACTERS])
    corpus = Corpus.of(text, options.data, recipe)
    vocabulary = corpus.vocabulary
    unit = "word" if recipe.words else "character"
    model = build(recipe, len(vocabulary), np.random.default_rng(options.seed))
    windows = Windows([corpus.columns(recipe.columns, recipe.steps)], recipe.steps)
    discount = tuned_discount(corpus.train, len(vocabulary), recipe.orders)
    ngrams = probabilities(corpus.train, corpus.held_out, len(vocabulary), recipe.orders, discount)
    nats_by_order = [-float(np.log(p).mean()) for p in ngrams]
    order = int(np.argmin(nats_by_order))
    last_and_held_out = np.concatenate([corpus.train[-1:], corpus.held_out])

    def in_units(nats: float) -> Metrics:
        other = {"perplexity": float(np.exp(nats))} if recipe.words else {"bits_per_character": nats / float(np.log(2))}
        return {f"nats_per_{unit}": nats, **other}

    def evaluate() -> Metrics:
        return in_units(float(model.surprise(last_and_held_out).mean()))

    def figures() -> Metrics:
        return {**evaluate(), "ngram_nats": nats_by_order[order]}

    def headline(m: Metrics) -> str:
        nats = m["ngram_nats"]
        if recipe.words:
            ours, theirs = f"perplexity {m['perplexity']:.1f}", f"{np.exp(nats):.1f}"
        else:
            ours = f"{m['nats_per_character']:.3f} nats ({m['bits_per_character']:.3f} bits)"
            theirs = f"{nats:.3f} nats"
        return f"{ours} a {unit} of unseen text, {order + 1}-grams {theirs} ({text.source})"

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        shown = corpus.held_out[:1400]
        surprise = model.surprise(last_and_held_out[: len(shown) + 1])
        (written,) = model.generate(
            np.array([vocabulary.start]), 1, len(shown), TEMPERATURE, options.seed, never=vocabulary.unknown
        )
        pictures.draw_text(
            path, vocabulary.pieces(shown), surprise, vocabulary.decode(written), nats_by_order,
            history[-1][f"nats_per_{unit}"], unit,
            (f"{text.source}, held out: surprise, nats a {unit}", f"written by the network, temperature {TEMPERATURE}"),
        )  # fmt: skip

    common: dict[str, Any] = {
        "model": model,
        "batches": lambda epoch: windows,
        "row_axes": (1, 1),
        "evaluate": evaluate,
        "figures": figures,
        "baseline": in_units(nats_by_order[order]),
        "draw": draw,
        "headline": headline,
        "metadata": {"recipe": asdict(recipe), "vocabulary": vocabulary.tokens, "sha256": corpus.sha256},
    }
    if recipe.min_char_rnn:
        adagrad = Adagrad(model, lr=recipe.lr, eps=1e-8, eps_inside_sqrt=True)
        return Run(loss=CrossEntropyLoss(reduction="sum"), optimizer=adagrad, clip_value=5.0, **common)
    return Run(
        loss=CrossEntropyLoss(),
        optimizer=Adam(model, lr=recipe.lr),
        schedule=CosineLR(options.total_steps(len(windows))),
        clip_norm=1.0,
        **common,
    )


def sample(folder: Path, options: SampleOptions) -> None:
    """Texts of a run's network, that go on from the prime; without one they begin a line."""
    if options.bias:
        raise RunError(f"--bias: expected 0, for text has no densities; see --temperature; got {options.bias}")
    saved = SavedRun(folder)
    saved.require(TEXT.name)
    part = saved.metadata.of("recipe")
    recipe = part.fill(Recipe)
    tokens = saved.metadata.of("vocabulary").texts()
    saved.require_size(recipe.hidden**2 * recipe.layers + recipe.embedding * (not recipe.min_char_rnn), part)
    try:
        vocabulary = Vocabulary(tokens, recipe.words)
        saved.require_size(len(vocabulary) * recipe.hidden, saved.metadata.of("vocabulary"))
        model = build(recipe, len(vocabulary), np.random.default_rng(0))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        part.refuse(f"no network: {error}")
    saved.load(model)
    prime = split(options.prime or "", recipe.words)
    try:
        numbers = vocabulary.encode(prime) if prime else np.array([vocabulary.start])
    except KeyError as error:
        raise RunError(f"--prime: {error.args[0]!r} does not occur in the text of {folder}") from None
    rows = model.generate(
        numbers, options.count, options.length, options.temperature, options.seed, never=vocabulary.unknown
    )
    texts = [spaced([*prime, *(vocabulary.tokens[number] for number in row)], recipe.words) for row in rows]
    content = "\n\n---\n\n".join(map("".join, texts))
    if options.out is None:
        options.say(content)
    else:
        write_atomically(options.out, (content + "\n").encode())


TEXT = Task(
    name="text",
    about="model a text: the next character (LSTM, truncated back-propagation), or the next word",
    presets={
        "smoke": Preset("128 units, 2 epochs, a minute", epochs=2, settings={"hidden": 128}),
        "default": Preset("256 units, 10 epochs", epochs=10, settings={"dropout": 0.1}),
        "best": Preset("512 units, 12 epochs", epochs=12, settings={"hidden": 512, "dropout": 0.3}),
        "words": Preset(
            "words: 256 units, tied embeddings, 10 epochs",
            epochs=10,
            settings={"words": True, "embedding": 256, "hidden": 256, "dropout": 0.5, "steps": 35, "orders": 5},
        ),
        "min-char-rnn": Preset(
            "Karpathy's min-char-rnn as published, 1 epoch",
            epochs=1,
            settings={"min_char_rnn": True, "hidden": 100, "columns": 1, "steps": 25, "lr": 0.1},
        ),
    },
    setup=setup,
    data="a text in UTF-8; else Shakespeare's plays, fetched",
    sample=sample,
)
