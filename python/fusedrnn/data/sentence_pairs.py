"""Sentences in two languages: Ding's German-English dictionary and files of pairs; cleaned, and split without leaks.

Ding (Frank Richter, TU Chemnitz; GPL 2 or later) is a dictionary of lines ``german | ... :: english | ...`` whose
entries are aligned, and many of which are whole sentences. Nothing of it is shipped: it is taken out of Debian's
package ``trans-de-en``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusedrnn.data.debian import Package, fetched_file
from fusedrnn.data.reading import DataError, read_file
from fusedrnn.data.sources import cache_folder

_DING_PACKAGE = Package(
    "d/ding/trans-de-en_1.9-6_all.deb", "45f6b4cf1c434776fba6811d7bc522efabb5425c43ba8afd0e289bf9e2e53df4"
)
_DING_MEMBER = "/usr/share/trans/de-en"
_DING_SHA256 = "34052c6021d09eadfee7a893a789204265954df70fe9c36d38fa00058d79d326"
_MOST_WORDS = 30  # of a sentence
_MOST_PHRASE = 8  # words of a phrase
_LEAST = 20  # pairs of a file

_NOTES = re.compile(r"\{[^}]*\}|\[[^]]*\]|\([^)]*\)|<[^>]*>|(?<!\S)/[^/\s][^/]*/(?!\S)")
_ALTERNATIVES = re.compile(r"(?<=[^\s/])/[^\s/]+(?:/[^\s/]+)*")
# quotation marks, apostrophes, dashes and spaces of several kinds, as ASCII has them
_SIGNS = str.maketrans("\u201e\u201c\u201d\u201a\u2018\u2019\xb4\u2013\xa0", 3 * '"' + 4 * "'" + "- ")
_SHORT = {
    "jdm.": "jemandem", "jdn.": "jemanden", "jds.": "jemandes", "jd.": "jemand", "etw.": "etwas",
    "sb.": "somebody", "sth.": "something", "sb.'s": "somebody's", "sbd.": "somebody", "smth.": "something",
}  # fmt: skip
_SPACED = re.compile(r" ([,.!?:])")
_OPEN = re.compile(r"[{}\[\]()<>/|~=+*]")  # what is left of notes that were not closed
_ENDS = re.compile(r"[.!?][\"']?$")


class Pair(NamedTuple):
    """A text in both languages."""

    source: str
    target: str


class Pairs(NamedTuple):
    """Pairs to train on and to test on. ``phrases`` are words and phrases, to train on; ``name`` says whose."""

    train: list[Pair]
    test: list[Pair]
    phrases: list[Pair]
    name: str


def load_pairs(where: str | None, say: Callable[[str], None]) -> Pairs:
    """Return the sentence pairs of Ding, fetched if need be, or those of a file in UTF-8.

    The file is a dictionary in the form of Ding, or has a pair a line, the texts separated by a tab; further columns do
    not count. Raises DataError for one that cannot be read, or that has fewer than 20 pairs.
    """
    if where is None:
        path = cache_folder() / "trans-de-en" / "de-en"
        content = fetched_file(path, _DING_SHA256, _DING_PACKAGE, _DING_MEMBER, "a German-English dictionary", say)
        name = "sentences of a German-English dictionary"
    else:
        content, name = read_file(Path(where), f"--data {where}"), Path(where).name
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"--data {where}: expected text in UTF-8, got byte 0x{content[error.start]:02x}") from None
    lines, phrases = text.splitlines(), list[Pair]()
    if any("\t" in line for line in lines[:100]):
        sentences = _from_table(lines)
    else:
        sentences, phrases = read_ding(lines)
    if len(sentences) < _LEAST:
        raise DataError(
            f"--data {where}: expected at least {_LEAST} pairs of sentences, SOURCE<tab>TARGET or in the form of Ding, "
            f"got {len(sentences)}"
        )
    train, test = split(sentences)
    tested = {key(text) for pair in test for text in pair}
    kept = [pair for pair in phrases if not {key(text) for text in pair} & tested]
    return Pairs(train, test, kept, name)


def _from_table(lines: Sequence[str]) -> list[Pair]:
    rows = [line.split("\t") for line in lines]
    pairs = [Pair(*(" ".join(text.translate(_SIGNS).split()) for text in row[:2])) for row in rows if len(row) >= 2]
    return list(dict.fromkeys(pair for pair in pairs if pair.source and pair.target))


def read_ding(lines: Sequence[str]) -> tuple[list[Pair], list[Pair]]:
    """Return the sentences and the words and phrases of a dictionary's lines, each pair once, in its order.

    A sentence begins with a capital letter and ends with a full stop, a question mark or an exclamation mark, in both
    languages, and has at least two words and at most 30. Grammar ``{m}``, fields ``[med.]``, remarks ``(...)``, other
    spellings ``<...>`` and abbreviations ``/EU/`` are cut, of alternatives the first is taken. A pair of which one text
    is three times as long as the other is taken for no translation.
    """
    sentences: dict[Pair, None] = {}
    phrases: dict[Pair, None] = {}
    for line in lines:
        for pair in _entries(line):
            if _is_sentence(pair.source) and _is_sentence(pair.target):
                if _alike(pair):
                    sentences[Pair(_capital(pair.source), _capital(pair.target))] = None
            elif max(len(text.split()) for text in pair) <= _MOST_PHRASE:
                phrases[Pair(_spelt_out(pair.source), _spelt_out(pair.target))] = None
    return list(sentences), list(phrases)


def _entries(line: str) -> Iterator[Pair]:
    """Yield the aligned entries of a line, clean; none where the numbers of entries differ."""
    if line.startswith("#") or line.count(" :: ") != 1:
        return
    german, english = (side.split(" | ") for side in line.split(" :: "))
    if len(german) == len(english):
        for one, other in zip(german, english, strict=True):
            texts = _clean(one), _clean(other)
            if all(texts):
                yield Pair(*texts)


def _clean(entry: str) -> str:
    """Return the first alternative of an entry without what describes it, empty for none or for one left open."""
    text = _NOTES.sub(" ", entry).translate(_SIGNS)
    text = text.split(";")[0]
    if " / " in text or "..." in text or "\u2026" in text:
        return ""
    text = " ".join(_ALTERNATIVES.sub("", text).split())
    return "" if _OPEN.search(text) else _SPACED.sub(r"\1", text)


def _is_sentence(text: str) -> bool:
    words = text.split()
    begins = text.lstrip("\"'- ")[:1]
    if not (2 <= len(words) <= _MOST_WORDS and _ENDS.search(text) and begins.isalpha()):
        return False
    return begins.isupper() and not any(word in _SHORT for word in words)


def _alike(pair: Pair) -> bool:
    one, other = sorted(len(text) for text in pair)
    return other <= 3 * one + 10


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _spelt_out(text: str) -> str:
    return " ".join(_SHORT.get(word, word) for word in text.split()) if "." in text else text


# no sentence on both sides


def key(text: str) -> str:
    """Return a text by which two that differ in case, signs or spaces are one."""
    return " ".join(re.findall(r"\w+", text.lower()))


def split(pairs: Sequence[Pair], seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Keep a tenth of the pairs out, by sentence: no text of a kept pair, of either language, stands in another.

    Pairs that share a text, and those that share one with them, stay together. The order of groups is drawn by `seed`.
    """
    group = list(range(len(pairs)))

    def head(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    first: dict[tuple[int, str], int] = {}
    for i, pair in enumerate(pairs):
        for side, text in enumerate(pair):
            group[head(i)] = head(first.setdefault((side, key(text)), i))
    members: dict[int, list[int]] = {}
    for i in range(len(pairs)):
        members.setdefault(head(i), []).append(i)
    groups = list(members.values())
    out: set[int] = set()
    for number in np.random.default_rng(seed).permutation(len(groups)):
        if len(out) >= len(pairs) // 10:
            break
        if len(groups[number]) <= max(1, len(pairs) // 100):
            out.update(groups[number])
    return [pair for i, pair in enumerate(pairs) if i not in out], [pairs[i] for i in sorted(out)]
