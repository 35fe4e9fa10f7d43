"""Stories with questions, word by word: made ones of five kinds, and the files of the bAbI tasks.

The made ones ask what tasks 1, 2, 3, 15 and 16 of bAbI ask (Weston et al. 2015, arXiv:1502.05698), in sentences and
words of our own. Behind every question mark stand as many ``-`` as the answer has words: there the answer is due.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusedrnn.data.reading import DataError, read_file

BLANK = "-"  # where a word of an answer is due
NAMES = ("mira", "tomas", "ines", "oskar")
PLACES = ("barn", "cellar", "attic", "orchard", "chapel", "market")
THINGS = ("lamp", "kettle", "rope")
ANIMALS = ("goat", "fox", "heron", "badger")
COLOURS = ("grey", "white", "brown", "black")
WALKED, TOOK, LEFT = ("walked", "hurried", "strolled"), ("took", "lifted"), ("left", "dropped")
_LIMIT = 64 * 2**20  # bytes of a file of stories
_NAME = re.compile(r"qa(\d+)_(.+)_(train|test)\.txt")


class Story(NamedTuple):
    """Words in lower case, punctuation apart; ``answers`` are the words due at its blanks, in turn, and ``questions``
    how many of them belong to each question."""

    words: list[str]
    answers: list[str]
    questions: list[int]


# made ones


def _told(sentences: Sequence[str], question: str, answer: str) -> Story:
    words = [word for sentence in sentences for word in [*sentence.split(), "."]]
    return Story([*words, *question.split(), "?", BLANK], [answer], [1])


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _shuffled(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))]


def one_fact(rng: np.random.Generator, events: int) -> Story:
    """Tell who went where and ask where one of them is: the last sentence about somebody answers."""
    where, sentences = {}, []
    for _ in range(events):
        name, place = _pick(rng, NAMES), _pick(rng, PLACES)
        where[name] = place
        sentences.append(f"{name} {_pick(rng, WALKED)} to the {place}")
    name = _pick(rng, list(where))
    return _told(sentences, f"where is {name}", where[name])


def _carried(rng: np.random.Generator, events: int) -> tuple[list[str], dict[str, list[str]]]:
    """Tell of two people who walk, take and leave things: so many sentences, and the places where each thing has been
    since it was first taken, in turn; at least one was taken."""
    while True:
        sentences, been = _wandered(rng, events)
        if been:
            return sentences, been


def _wandered(rng: np.random.Generator, events: int) -> tuple[list[str], dict[str, list[str]]]:
    """Tell as `_carried`, whether or not a thing was taken."""
    where: dict[str, str] = {}
    holder: dict[str, str] = {}
    been: dict[str, list[str]] = {}
    sentences: list[str] = []
    people = NAMES[:2]
    while len(sentences) < events:
        name = _pick(rng, people)
        thing = _pick(rng, THINGS)
        act = rng.random()
        if act < 0.6 or name not in where:
            where[name] = place = _pick(rng, [place for place in PLACES if place != where.get(name)])
            sentences.append(f"{name} {_pick(rng, WALKED)} to the {place}")
            for held in (each for each, owner in holder.items() if owner == name):
                been[held].append(place)
        elif act < 0.85 and thing not in holder and been.get(thing, [where[name]])[-1] == where[name]:
            holder[thing] = name
            been.setdefault(thing, [where[name]])
            sentences.append(f"{name} {_pick(rng, TOOK)} the {thing}")
        elif holder.get(thing) == name:
            del holder[thing]
            sentences.append(f"{name} {_pick(rng, LEFT)} the {thing}")
    return sentences, been


def two_facts(rng: np.random.Generator, events: int) -> Story:
    """Tell who carries what where and ask where a thing is: who took it last, and where did they go?"""
    sentences, been = _carried(rng, events)
    thing = _pick(rng, list(been))
    return _told(sentences, f"where is the {thing}", been[thing][-1])


def three_facts(rng: np.random.Generator, events: int) -> Story:
    """Tell who carries what where and ask where a thing was before it came to where it is; two events more than asked
    for, without which there is no such story."""
    while True:
        sentences, been = _carried(rng, events + 2)
        moved = [thing for thing, places in been.items() if len(places) > 1]
        if moved:
            thing = _pick(rng, moved)
            before, now = been[thing][-2:]
            return _told(sentences, f"where was the {thing} before the {now}", before)


def deduction(rng: np.random.Generator, events: int) -> Story:
    """Tell what every kind fears and of which kind each is, and ask what one of them fears."""
    kinds = _shuffled(rng, ANIMALS)[: max(2, min(len(ANIMALS), events // 2))]
    feared = {kind: _pick(rng, [other for other in ANIMALS if other != kind]) for kind in kinds}
    kind_of = {name: _pick(rng, kinds) for name in _shuffled(rng, NAMES)[: max(1, events - len(kinds))]}
    sentences = [f"every {kind} fears the {other}" for kind, other in feared.items()]
    sentences += [f"{name} is a {kind}" for name, kind in kind_of.items()]
    name = _pick(rng, list(kind_of))
    return _told(_shuffled(rng, sentences), f"what does {name} fear", feared[kind_of[name]])


def induction(rng: np.random.Generator, events: int) -> Story:
    """Tell kind and colour of some, and of one the kind alone; all of a kind have one colour, which is asked for."""
    names = _shuffled(rng, NAMES)[: max(2, min(len(NAMES), (events + 1) // 2))]
    colours = dict(zip(ANIMALS, _shuffled(rng, COLOURS), strict=True))
    kinds = {name: _pick(rng, ANIMALS) for name in names}
    asked = names[0]
    kinds[asked] = kinds[names[1]]
    sentences = [f"{name} is a {kind}" for name, kind in kinds.items()]
    sentences += [f"{name} is {colours[kinds[name]]}" for name in names[1:]]
    return _told(_shuffled(rng, sentences), f"which colour is {asked}", colours[kinds[asked]])


MADE: dict[int, tuple[str, Callable[[np.random.Generator, int], Story]]] = {
    1: ("one fact", one_fact),
    2: ("two facts", two_facts),
    3: ("three facts", three_facts),
    15: ("deduction", deduction),
    16: ("induction", induction),
}
WORDS = sorted(
    {
        *NAMES, *PLACES, *THINGS, *ANIMALS, *COLOURS, *WALKED, *TOOK, *LEFT, BLANK, ".", "?", "to", "the", "is", "a",
        "every", "fears", "fear", "where", "was", "before", "what", "does", "which", "colour",
    }
)  # fmt: skip


# the files of bAbI


def words_of(text: str) -> list[str]:
    """Split a text into words in lower case, points and question marks apart."""
    return re.findall(r"[^\s.?,]+|[.?]", text.lower())


def read_stories(path: Path) -> list[Story]:
    """Read a file of bAbI: numbered lines from 1 in each story; a question has its answer and the facts behind tabs.

    Raises DataError for a file that is none.
    """
    stories: list[Story] = []
    try:
        lines = read_file(path, limit=_LIMIT).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text in UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        count, _, rest = line.strip().partition(" ")
        if not count.isdecimal() or not rest:
            raise DataError(f"{path}, line {number}: expected a number and a sentence, got {line!r:.60}")
        if int(count) == 1:
            stories.append(Story([], [], []))
        elif not stories:
            raise DataError(f"{path}, line {number}: expected a story to begin with line 1, got {count:.20}")
        story = stories[-1]
        question, *marks = rest.split("\t")
        story.words.extend(words_of(question))
        if marks:
            answers = [word.strip().lower() for word in marks[0].split(",")]
            if not all(answers):
                raise DataError(f"{path}, line {number}: expected an answer behind the question, got {line!r:.60}")
            if story.words[-1:] != ["?"]:
                story.words.append("?")
            story.words.extend(BLANK for _ in answers)
            story.answers.extend(answers)
            story.questions.append(len(answers))
    stories = [story for story in stories if story.answers]
    if not stories:
        raise DataError(f"{path}: expected stories with questions, got none")
    return stories


def read_folder(folder: Path) -> dict[int, tuple[str, list[Story], list[Story]]]:
    """Read a folder of bAbI's files, such as ``qa1_single-supporting-fact_train.txt``, each beside its ``_test.txt``.

    Returns the tasks by number: name, stories to train on, stories to test on. Raises DataError for a folder without.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; expected one with files such as qa1_..._train.txt")
    found = {path.name: match for path in sorted(folder.iterdir()) if (match := _NAME.fullmatch(path.name))}
    tasks: dict[int, tuple[str, list[Story], list[Story]]] = {}
    for name, match in found.items():
        number, title, split = int(match[1]), match[2], match[3]
        if split == "test":
            continue
        test = name.replace("_train.txt", "_test.txt")
        if test not in found:
            raise DataError(f"{folder / test}: there is no such file beside {name}")
        if number in tasks:
            raise DataError(f"{folder}: expected one file of task {number} to train on, got another, {name}")
        tasks[number] = (title.replace("-", " "), read_stories(folder / name), read_stories(folder / test))
    if not tasks:
        raise DataError(f"{folder}: expected files such as qa1_single-supporting-fact_train.txt, got none")
    return dict(sorted(tasks.items()))
