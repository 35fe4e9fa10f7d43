"""Questions about stories, word by word, by a differentiable neural computer and an LSTM (Graves et al. 2016).

Stories of five kinds, made in the manner of tasks 1, 2, 3, 15 and 16 of bAbI (`fusedrnn.tasks.dnc_stories`), or all
tasks in a folder of bAbI's own files. One network learns all tasks at once. Words go in one hot, one a step; where a
blank stands for a word of an answer, the output is a distribution over all words. A question counts as right when
every word of its answer is.

Metrics: ``error``, the fraction of questions of the test wrongly answered, mean over tasks; ``error_1`` and so on, of
each task by its number in bAbI; ``failed``, how many tasks have more than 5 % errors. The same with ``lstm_`` in
front, of an LSTM on the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import Module
from fusedrnn.optim import CosineLR
from fusedrnn.plots import memory as memory_plots
from fusedrnn.tasks.dnc_runs import Recipe, computer_of, reload, tell, watch
from fusedrnn.tasks.dnc_stories import BLANK, MADE, WORDS, Story, read_folder, words_of
from fusedrnn.tasks.episodes import held_out
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, RunError, Task
from fusedrnn.train.bucketing import LengthBatches, by_length

FEWEST, MOST = 2, 6  # sentences of a made story
TRAINING, TESTED, CHECKED = 4_000, 400, 100  # made stories of each task
FAILED = 0.05  # a task with more errors, as the paper counts


@dataclass
class Corpus:
    """Stories by task: to train on, to choose the epoch by, and to test on; ``words`` are all that occur."""

    source: str
    titles: dict[int, str]
    train: list[Story]
    check: dict[int, list[Story]]
    test: dict[int, list[Story]]
    words: list[str]


def made(seed: int) -> Corpus:
    """Make stories of the five kinds; none of the test is among those that train."""
    rng = np.random.default_rng(seed)
    corpus = Corpus("made stories", {}, [], {}, {}, WORDS)
    for number, (title, _) in MADE.items():
        corpus.titles[number] = title
        own = _several(number, TRAINING, rng)
        corpus.train += own
        known = {tuple(story.words) for story in own}
        for part, place, count in ((corpus.check, 0, CHECKED), (corpus.test, 1, TESTED)):
            others = _several(number, 3 * count, held_out(seed, 10 * number + place))
            part[number] = [story for story in others if tuple(story.words) not in known][:count]
    return corpus


def _several(number: int, count: int, rng: np.random.Generator) -> list[Story]:
    """Make stories of one kind."""
    return [MADE[number][1](rng, int(rng.integers(FEWEST, MOST + 1))) for _ in range(count)]


def from_folder(folder: Path, seed: int) -> Corpus:
    """Take all tasks of a folder, a tenth of the stories to train on for choosing the epoch."""
    corpus = Corpus(str(folder), {}, [], {}, {}, [])
    for number, (title, train, test) in read_folder(folder).items():
        order = np.random.default_rng([seed, number]).permutation(len(train))
        out = max(1, len(train) // 10)
        corpus.titles[number] = title
        corpus.check[number] = [train[i] for i in order[:out]]
        corpus.train += [train[i] for i in order[out:]]
        corpus.test[number] = test
    if not corpus.train:
        raise RunError(f"--data: expected at least two stories to train on in {folder}, got one")
    stories = [*corpus.train, *(s for part in (corpus.check, corpus.test) for each in part.values() for s in each)]
    corpus.words = sorted({word for story in stories for word in [*story.words, *story.answers]})
    return corpus


# arrays


class Coder:
    """Words as numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.numbers = {word: number for number, word in enumerate(words)}

    def coded(self, stories: Sequence[Story]) -> tuple[Array, Array]:
        """Return x [T, N, V] float32, words one hot, zero behind a story's end; target [T, N], the word due, else
        -1."""
        steps = max(len(story.words) for story in stories)
        x = np.zeros((steps, len(stories), len(self.words)), np.float32)
        target = np.full((steps, len(stories)), -1)
        for row, story in enumerate(stories):
            numbers = np.array([self.numbers[word] for word in story.words])
            x[np.arange(len(numbers)), row, numbers] = 1
            target[: len(numbers), row][numbers == self.numbers[BLANK]] = [self.numbers[w] for w in story.answers]
        return x, target


class AnswersLoss:
    """-log p of the words due, in nats, summed over a story, the mean over stories; of rivals that of the first."""

    reduction = "mean"

    def __init__(self) -> None:
        self._gradient: Array | None = None

    def __call__(self, logits: Array, target: Array) -> float:
        """Return the loss of logits [..., T, N, V] for words [T, N], -1 where none is due."""
        asked, rows = target >= 0, target.shape[1]
        shifted = logits[..., asked, :].astype(np.float64)
        shifted -= shifted.max(-1, keepdims=True)
        likely = np.exp(shifted)
        likely /= likely.sum(-1, keepdims=True)
        right = np.arange(logits.shape[-1]) == target[asked][:, None]
        self._gradient = np.zeros_like(logits)
        self._gradient[..., asked, :] = (likely - right) / rows
        losses = -np.log(np.maximum(likely[..., right], 1e-300)).sum(-1) / rows
        return float(np.ravel(losses)[0])

    def backward(self) -> Array:
        """Return the gradient of the last call's logits, once. Raises RuntimeError where no call is left."""
        if self._gradient is None:
            raise RuntimeError("AnswersLoss.backward: expected a call of the loss first")
        gradient, self._gradient = self._gradient, None
        return gradient


def wrong(model: Module, coder: Coder, stories: Sequence[Story], rows: int = 100) -> Array:
    """Return the fraction of questions that each of the networks answers wrongly, [members]."""
    missed, questions = np.zeros(2), 0
    for chosen in by_length(np.array([len(story.words) for story in stories]), rows):
        part = [stories[i] for i in chosen]
        x, target = coder.coded(part)
        right = model(x).argmax(-1) == target  # [members, T, N]
        for row, story in enumerate(part):
            words = right[:, target[:, row] >= 0, row]
            ends = np.cumsum(story.questions)
            missed += [sum(not w.all() for w in np.split(member, ends[:-1])) for member in words]
            questions += len(story.questions)
    return missed / questions


# the run

MADE_RECIPE = Recipe(
    len(WORDS), len(WORDS), "lstm", units=40, slots=24, width=32, read_heads=2, controller="lstm", key_mask=True,
    deallocate=True, normalize=True, lstm_units=128, lr=3e-3,
)  # fmt: skip
# Units, width, heads and learning rate of the paper, half its slots; refinements of Csordás and Schmidhuber (2019).
FOLDER_RECIPE = Recipe(
    0, 0, "lstm", units=256, slots=128, width=64, read_heads=4, controller="lstm", key_mask=True, deallocate=True,
    sharp_links=True, lr=1e-4, lstm_units=512,
)  # fmt: skip


def setup(options: Options) -> Run:
    """Make one run, all from the seed. Raises DataError for a folder that has no stories."""
    seed = options.seed
    corpus = made(seed) if options.data is None else from_folder(Path(options.data), seed)
    coder, lengths = Coder(corpus.words), np.array([len(story.words) for story in corpus.train])
    recipe = MADE_RECIPE if options.data is None else FOLDER_RECIPE
    recipe = replace(recipe, inputs=len(corpus.words), outputs=len(corpus.words), **options.settings)
    model = recipe.networks(np.random.default_rng(seed))

    def batches(epoch: int) -> LengthBatches:
        return LengthBatches(
            lengths, recipe.rows, [seed, epoch], lambda rows, rng: coder.coded([corpus.train[i] for i in rows])
        )

    def errors(stories: Mapping[int, Sequence[Story]]) -> Metrics:
        each = {number: wrong(model, coder, own) for number, own in stories.items()}
        metrics: Metrics = {}
        for member, prefix in enumerate(("", "lstm_")):
            own = {number: float(found[member]) for number, found in each.items()}
            metrics[f"{prefix}error"] = float(np.mean(list(own.values())))
            metrics[f"{prefix}failed"] = float(sum(value > FAILED for value in own.values()))
            metrics |= {f"{prefix}error_{number}": value for number, value in own.items()}
        return metrics

    def evaluate() -> Metrics:
        found = errors(corpus.check)
        return {f"check_{name}": found[name] for name in ("error", "lstm_error")}

    def figures() -> Metrics:
        return {**errors(corpus.test), **evaluate()}

    def picture(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        metrics = errors(corpus.test)
        values = {
            name: [100 * metrics[f"{prefix}error_{number}"] for number in corpus.test]
            for name, prefix in (("differentiable neural computer", ""), ("LSTM", "lstm_"))
        }
        names = [f"{number}: {corpus.titles[number]}" for number in corpus.test]
        bars = memory_plots.Bars("questions answered wrongly", "%", names, values)
        number = 2 if 2 in corpus.test else next(iter(corpus.test))
        story = min(corpus.test[number], key=lambda each: abs(len(each.words) - 40))
        x, target = coder.coded([story])
        traces = watch(computer_of(model), x[:, 0])
        told = " ".join(corpus.words[i] for i in traces.logits[target[:, 0] >= 0].argmax(1))
        title = f"A differentiable neural computer reads a story and says: {told} (right: {' '.join(story.answers)})"
        memory_plots.draw_story(path, story.words, traces, bars, title)

    guess = float(np.mean([_commonest(own) for own in corpus.test.values()]))
    return Run(
        model=model,
        loss=AnswersLoss(),
        optimizer=recipe.optimizer(model),
        batches=batches,
        row_axes=(1, 1),
        schedule=CosineLR(options.total_steps(len(batches(0))), final=0.1),
        evaluate=evaluate,
        figures=figures,
        baseline={"check_error": guess},
        draw=picture,
        headline=lambda m: (
            f"{100 * m['error']:.1f} % of the questions of {len(corpus.test)} tasks wrong (LSTM: "
            f"{100 * m['lstm_error']:.1f} %, the commonest answer of each task: {100 * guess:.1f} %), "
            f"{m['failed']:.0f} tasks above 5 % (LSTM: {m['lstm_failed']:.0f})"
        ),
        monitor="check_error",
        metadata={"recipe": asdict(recipe), "words": corpus.words},
    )


def _commonest(stories: Sequence[Story]) -> float:
    """Return the error of who always gives the commonest answer of these stories."""
    answers = []
    for story in stories:
        ends = np.cumsum(story.questions)
        answers += [" ".join(each) for each in np.split(np.array(story.answers), ends[:-1])]
    return 1 - float(np.unique(answers, return_counts=True)[1].max()) / len(answers)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Answer the question at the end of a story, and tell at every word where the computer wrote and read.

    Raises CheckpointError for a folder without such a network, ValueError for a text without a question mark at its end
    or with words that the network has never met.
    """
    saved = SavedRun(folder, best=True)
    computer = reload(saved, DNC_BABI.name)
    part = saved.metadata.of("words")
    coder = Coder(part.texts())
    if BLANK not in coder.numbers or len(coder.words) != saved.metadata.of("recipe").fill(Recipe).inputs:
        part.refuse("expected the words of the network")
    words = words_of(text)
    if words[-1:] != ["?"]:
        raise ValueError(f"text: expected a story with a question mark at its end, got {text[-40:]!r}")
    strange = sorted(set(words) - set(coder.words))
    if strange:
        raise ValueError(
            f"text: words that the network has never met: {', '.join(strange)[:200]}; it knows {', '.join(coder.words)}"
        )
    x, _ = coder.coded([Story([*words, BLANK], [BLANK], [1])])
    traces = watch(computer, x[:, 0])
    tell(traces, [*words, BLANK], ["" for _ in words] + [coder.words[int(traces.logits[-1].argmax())]], say)
    likely = np.exp(traces.logits[-1].astype(float) - float(traces.logits[-1].max()))
    likely /= likely.sum()
    best = np.argsort(-likely, kind="stable")[:3]
    say("answer: " + ", ".join(f"{coder.words[i]} ({likely[i]:.3f} likely)" for i in best))


DNC_BABI = Task(
    name="dnc-babi",
    about="answer questions about stories word by word (differentiable neural computer beside an LSTM)",
    presets={
        "smoke": Preset("1 epoch", epochs=1),
        "default": Preset("8 epochs of 20,000 stories", epochs=8),
        "best": Preset("30 epochs", epochs=30),
    },
    setup=setup,
    data="a folder of bAbI's files, such as tasks_1-20_v1-2/en-10k: all its tasks at once, in hours",
    predict=predict,
)
