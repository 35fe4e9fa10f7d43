"""Two exercises of which every answer can be checked: strings written backwards, and dates written in ISO 8601.

Reversal shows what attention is for: beside the network that attends learns one that does not and has to carry all it
read in a state of fixed size. That one has more units, so that an update takes as long: equal updates are equal time.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import CrossEntropyLoss, Module
from fusedrnn.optim import CosineLR
from fusedrnn.plots.translation import draw_translations
from fusedrnn.tasks import dates
from fusedrnn.tasks.characters import Characters
from fusedrnn.tasks.episodes import RivalsAdam
from fusedrnn.tasks.models import SideBySide
from fusedrnn.tasks.task import Metrics, Options, Run
from fusedrnn.tasks.translate_runs import (
    Recipe,
    batches_of,
    checked_score,
    checked_share,
    main_network,
    row_axes,
    translation,
    write,
)

LONGEST = 15  # letters of a string
UPDATES = 150  # in an epoch
TESTED = 1000
REVERSAL = Recipe(embedding=32, units=96, plain_units=176, lr=3e-3, rows=64, clip=5.0, most=20)
DATES = Recipe(embedding=32, units=96, lr=3e-3, rows=64, clip=5.0, most=12)


@dataclass
class Exercise:
    """Texts in and out, and what tests them.

    Attributes:
        kind: Its name. recipe: Of the networks. source, target: What they read and write. draw: So many pairs of texts
            from a generator. tests: Texts by the name of the share that is exactly right, the main one first.
    """

    kind: str
    recipe: Recipe
    source: Characters
    target: Characters
    draw: Callable[[int, np.random.Generator], tuple[list[str], list[str]]]
    tests: dict[str, tuple[list[str], list[str]]]


def reversal(seed: int) -> Exercise:
    """Make the exercise of strings of 1 to 15 letters; tested on 1,000 others, and on 1,000 of 15 letters."""

    def strings(count: int, rng: np.random.Generator, least: int = 1) -> list[str]:
        letters = np.array(list(string.ascii_lowercase))
        return ["".join(rng.choice(letters, rng.integers(least, LONGEST + 1))) for _ in range(count)]

    def backwards(texts: list[str]) -> tuple[list[str], list[str]]:
        return texts, [text[::-1] for text in texts]

    rng = np.random.default_rng([seed, 1914])
    tests = {"exact": backwards(strings(TESTED, rng)), f"exact_{LONGEST}": backwards(strings(TESTED, rng, LONGEST))}
    tested = {text for texts, _ in tests.values() for text in texts if len(text) > 3}  # of short ones there are few

    def draw(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        return backwards([text for text in strings(count, rng) if text not in tested])

    letters = Characters(string.ascii_lowercase)
    return Exercise("reversal", REVERSAL, letters, letters, draw, tests)


def in_iso(seed: int) -> Exercise:
    """Make the exercise of dates from 1950 to 2049 in eight formats; tested on 1,000 days that do not train."""
    training, held_out = dates.split(seed, TESTED)

    def draw(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        return dates.written(rng.choice(training, count), rng)

    source, target = map(Characters, dates.alphabet())
    tests = {"exact": dates.written(held_out, np.random.default_rng([seed, 1949]))}
    return Exercise("dates", DATES, source, target, draw, tests)


def setup(options: Options) -> Run:
    """Make one run of an exercise, by the word in ``--data``."""
    exercise = {"reversal": reversal, "dates": in_iso}[options.data or ""](options.seed)
    settings, recipe = options.settings, exercise.recipe
    score = checked_score(settings["attention"] or recipe.score)
    recipe = replace(
        recipe,
        score=score,
        plain_units=0 if score == "none" else recipe.plain_units,
        reverse=settings["reverse_source"],
        own=checked_share(settings["scheduled_sampling"]),
    )
    source, target = exercise.source, exercise.target
    model = recipe.networks(source, target, np.random.default_rng(options.seed))
    total = options.total_steps(UPDATES)

    def draw_pairs(epoch: int, rng: np.random.Generator) -> tuple[list[Array], list[Array]]:
        sources, targets = exercise.draw(UPDATES * recipe.rows, rng)
        return [source.numbers(text) for text in sources], [target.numbers(text) for text in targets]

    def figures() -> Metrics:
        return score_of(exercise, recipe, model)

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        shown = exercise.tests[[*exercise.tests][-1]][0][: 5 if exercise.kind == "dates" else 2]
        numbers = [source.numbers(text) for text in shown]
        drawn = [
            translation(source, target, *each)
            for each in zip(numbers, write(main_network(model), recipe, numbers), strict=True)
        ]
        titles = [(f"{text} \u2192 {each.text}", each) for text, each in zip(shown, drawn, strict=True)]
        names = (
            {"exact": "with attention", "exact_plain": "without"} if recipe.plain_units else {"exact": "the network"}
        )
        percent = [{key: 100 * value if key in names else value for key, value in r.items()} for r in history]
        draw_translations(path, titles, percent, names, {}, f"translate, {exercise.kind}: unseen texts, %")

    def headline(metrics: Metrics) -> str:
        parts = [f"{100 * metrics['exact']:.1f} % of {TESTED:,} unseen texts exactly right"]
        if f"exact_{LONGEST}" in metrics:
            parts.append(f"{100 * metrics[f'exact_{LONGEST}']:.1f} % of {LONGEST} letters")
        if recipe.plain_units:
            parts.append(
                f"without attention {100 * metrics['exact_plain']:.1f} and "
                f"{100 * metrics[f'exact_{LONGEST}_plain']:.1f} %"
            )
        return "; ".join(parts)

    return Run(
        model=model,
        loss=CrossEntropyLoss(ignore_index=-1),
        optimizer=RivalsAdam(_rivals(model), recipe.lr, recipe.clip),
        batches=batches_of(recipe, draw_pairs, options.seed, options.epochs),
        schedule=CosineLR(total),
        row_axes=row_axes(recipe),
        evaluate=figures,
        figures=figures,
        draw=draw,
        headline=headline,
        metadata={
            "recipe": asdict(recipe),
            "kind": exercise.kind,
            "source": source.stored,
            "target": target.stored,
        },
    )


def _rivals(model: Module) -> SideBySide:
    return model if isinstance(model, SideBySide) else SideBySide(model)


def score_of(exercise: Exercise, recipe: Recipe, model: Module) -> Metrics:
    """Return the shares of tests that are exactly right, token by token, and ``aligned``: the share of letters at which
    attention is strongest where the letter stands in the source; the same without attention with ``_plain`` behind."""
    metrics: Metrics = {}
    for suffix, member in zip(("", "_plain"), _rivals(model).members, strict=False):
        aligned: list[bool] = []
        for name, (texts, wanted) in exercise.tests.items():
            answers = write(member, recipe, [exercise.source.numbers(text) for text in texts], beam=1)  # type: ignore[arg-type]
            right = [exercise.target.text(a.tokens) == text for a, text in zip(answers, wanted, strict=True)]
            metrics[name + suffix] = float(np.mean(right))
            for text, answer in zip(texts, answers, strict=True):
                if answer.weights is not None:
                    places = answer.weights.argmax(1)[: len(text)]
                    aligned += list(places == len(text) - 1 - np.arange(len(places)))
        if aligned and exercise.kind == "reversal":
            metrics["aligned" + suffix] = float(np.mean(aligned))
    return metrics
