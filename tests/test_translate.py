"""Translation: alphabets, dates, batches, alignment, baselines, the network with words, runs and what they predict."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import numpy as np
import pytest

from fusedrnn import nn
from fusedrnn.data import sentence_pairs
from fusedrnn.data.sentence_pairs import Pair, Pairs
from fusedrnn.data.subwords import BEGIN, END, UNKNOWN, Subwords
from fusedrnn.plots.translation import Translation, lines_of
from fusedrnn.tasks import TASKS, alignment, dates, translate_exact, translate_runs, translate_sentences
from fusedrnn.tasks.characters import Characters
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Options, RunError
from fusedrnn.tasks.translate_baselines import Dictionary, Nearest
from fusedrnn.tasks.translate_model import LexicalSeq2Seq
from fusedrnn.tasks.translate_runs import Recipe, batch_of, batches_of, write
from fusedrnn.train.checkpoint import CheckpointError, read_checkpoint, write_checkpoint

TASK = TASKS["translate"]
PNG = b"\x89PNG\r\n\x1a\n"
SUBJECTS = {"Der Hund": "The dog", "Die Katze": "The cat", "Der Mann": "The man", "Die Frau": "The woman"}
VERBS = {"schl\u00e4ft": "sleeps", "rennt": "runs", "isst": "eats", "singt": "sings", "lacht": "laughs"}
TIMES = {"heute": "today", "oft": "often", "nie": "never", "hier": "here"}
SENTENCES = [
    Pair(f"{s} {v} {t}.", f"{SUBJECTS[s]} {VERBS[v]} {TIMES[t]}.") for s in SUBJECTS for v in VERBS for t in TIMES
]


def little_pairs(where=None, say=None):
    train, test = sentence_pairs.split(SENTENCES)
    return Pairs(train, test, [Pair("Hund", "dog"), Pair("Katze", "cat")], "little sentences")


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(sentence_pairs, "load_pairs", little_pairs)
    monkeypatch.setattr(translate_exact, "TESTED", 30)
    small = dataclasses.replace(translate_sentences.RECIPE, units=12, embedding=12, beam=2)
    monkeypatch.setattr(translate_sentences, "RECIPE", small)


def setup(source=None, epochs=2, **own):
    preset = TASK.presets["default"]
    return TASK.setup(Options(preset, epochs, None, 0, source, pytest.fail, TASK.settings(preset, own)))


# texts as numbers


def test_characters():
    letters = Characters("abc")
    np.testing.assert_array_equal(letters.numbers("cabx"), [END + 3, END + 1, END + 2, UNKNOWN])
    assert letters.text([END + 3, BEGIN, END + 1, END]) == "ca"
    assert letters.pieces([END + 1, UNKNOWN]) == ["a", "?"]
    assert len(letters) == 6


def test_subwords_are_a_function_of_their_texts_and_can_be_stored():
    texts = [pair.source for pair in SENTENCES]
    ours, again = Subwords.of(texts, 60), Subwords.of(texts, 60)
    assert ours.stored == again.stored
    assert len(ours) <= 60
    read = Subwords(ours.stored)
    text = "Die Katze schl\u00e4ft nie."
    assert read.text(read.numbers(text)) == text
    assert "".join(read.pieces(read.numbers(text))).strip() == text
    assert min(read.numbers(text)) > END
    with pytest.raises(ValueError, match="not a model of sentencepiece"):
        Subwords("AAAA")
    with pytest.raises(ValueError, match="not a model of sentencepiece"):
        Subwords("no base64!")


def test_dates_in_all_formats():
    day = (date(2003, 3, 21) - dates.FIRST).days
    found = {dates.written(np.array([day]), np.random.default_rng(i))[0][0] for i in range(200)}
    assert found == {
        "21 March 2003", "March 21, 2003", "Friday, 21 March 2003", "the 21st of March, 2003", "Mar 21st 2003",
        "21.3.2003", "21/03/03", "21 mar 03",
    }  # fmt: skip
    assert dates.written(np.array([day]), np.random.default_rng(0))[1] == ["2003-03-21"]
    source, target = dates.alphabet()
    every, iso = dates.written(np.arange(36_525), np.random.default_rng(0))
    assert set("".join(every)) <= set(source)
    assert set("".join(iso)) == set(target)


def test_days_that_test_do_not_train():
    training, held_out = dates.split(3, 1000)
    assert not set(training) & set(held_out)
    assert len(training) + len(held_out) == 36_525
    assert {iso[:3] for iso in dates.written(np.array([0, 36_524]), np.random.default_rng(0))[1]} == {"195", "204"}


# batches


def test_a_batch_has_begin_before_and_end_behind():
    (source, tokens), target = batch_of([np.array([7, 8, 9]), np.array([5])], [np.array([4]), np.array([6, 3])])
    np.testing.assert_array_equal(source.T, [[7, 8, 9], [5, -1, -1]])
    np.testing.assert_array_equal(tokens.T, [[BEGIN, 4, -1], [BEGIN, 6, 3]])
    np.testing.assert_array_equal(target.T, [[4, END, -1], [6, 3, END]])
    assert batch_of([np.array([7])], [np.array([4])], 2)[1].shape == (2, 2, 1)


def test_reversal_and_own_tokens_of_batches():
    sources, targets = [np.arange(3, 9)] * 8, [np.arange(3, 33)] * 8
    recipe = Recipe(4, 4, rows=8, reverse=True, own=0.5)
    batches = batches_of(recipe, lambda epoch, rng: (sources, targets), 0, 3)
    shares = []
    for epoch in range(3):
        (((source, _, own), _),) = batches(epoch)
        np.testing.assert_array_equal(source[:, 0], np.arange(8, 2, -1))
        assert not own[0].any(), "the token that begins is given"
        shares.append(own[1:].mean())
    assert shares == pytest.approx([0, 0.25, 0.5], abs=0.08)


def test_padding_changes_no_output():
    """Nor what is written, with words in the memory as without."""
    rng = np.random.default_rng(0)
    long, short = rng.integers(3, 20, 15), rng.integers(3, 20, 4)
    for recipe in (Recipe(6, 8, dropout=0.3), Recipe(6, 8, score="general", lexical=True), Recipe(6, 8, score="none")):
        letters = Characters("abcdefghijklmnopq")
        model = recipe.networks(letters, letters, np.random.default_rng(0))
        model.eval()
        alone, _ = batch_of([short], [long[:5]])
        beside, _ = batch_of([short, long], [long[:5], long])
        logits = model(alone)
        np.testing.assert_allclose(model(beside)[: len(logits), :1], logits, rtol=0, atol=1e-6)
        first, second = write(model, recipe, [short])[0], write(model, recipe, [short, long])[0]
        np.testing.assert_array_equal(first.tokens, second.tokens)
        assert first.log_probability == pytest.approx(second.log_probability, abs=1e-5)
        if first.weights is not None:
            np.testing.assert_allclose(first.weights, second.weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"score": "general"}, {"score": "dot", "cell": "gru"}, {"cell": "rnn"}])
def test_gradients_of_the_network_with_words(options):
    model = LexicalSeq2Seq(7, 6, 3, 4, **options, rng=np.random.default_rng(1))
    x, target = batch_of([np.array([3, 6, 4]), np.array([5])], [np.array([4, 5]), np.array([3, 5, 4])])
    loss = nn.CrossEntropyLoss(ignore_index=-1)

    def value():
        return loss(model(x).astype(np.float64), target)

    model.zero_grad()
    loss(model(x), target)
    model.backward(loss.backward())
    model.eval()
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        direction = rng.standard_normal(parameter.data.shape).astype(np.float32)
        expected = float((parameter.grad * direction).sum())
        step = np.float32(1e-2) / np.sqrt((direction**2).sum())
        kept = parameter.data.copy()
        parameter.data[...] = kept + step * direction
        above = value()
        parameter.data[...] = kept - step * direction
        numeric = (above - value()) / (2 * step)
        parameter.data[...] = kept
        assert expected == pytest.approx(numeric, rel=0.03, abs=3e-3), name


def test_weights_are_in_the_sources_order(monkeypatch):
    model = Recipe(4, 4).networks(Characters("abc"), Characters("abc"), np.random.default_rng(0))
    source = np.array([3, 4, 5])
    ours = write(model, Recipe(4, 4, reverse=True, most=3), [source])[0]
    theirs = write(model, Recipe(4, 4, most=3), [source[::-1]])[0]
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_array_equal(ours.weights, theirs.weights[:, ::-1])


# alignment and baselines


def numbered(texts):
    words = {word: i for i, word in enumerate(dict.fromkeys(w for text in texts for w in text.split()))}
    return words, [np.array([words[word] for word in text.split()]) for text in texts]


def test_counts_are_those_of_the_loops():
    """IBM model 1 of Brown et al. 1993 word by word."""
    (f, sources), (e, targets) = numbered(["a b", "a c d", "b b"]), numbered(["x y", "x z", "y x"])
    probability = {(i, j): 1.0 for i in f.values() for j in e.values()}
    for _ in range(3):
        counts = dict.fromkeys(probability, 0.0)
        for source, target in zip(sources, targets, strict=True):
            for j in target:
                total = sum(probability[i, j] for i in source)
                for i in source:
                    counts[i, j] += probability[i, j] / total
        sums = {i: sum(counts[i, j] for j in e.values()) for i in f.values()}
        probability = {(i, j): counts[i, j] / sums[i] for i, j in counts}
    found = alignment.expected_counts(sources, targets, 3)
    ours = {(int(i), int(j)): value for i, j, value in zip(*found, strict=True)}
    assert ours == pytest.approx({key: value for key, value in counts.items() if key in ours})
    assert sum(ours.values()) == pytest.approx(6)


def test_vectors_of_translations_are_alike():
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 40, 6) for _ in range(400)]
    counts = alignment.expected_counts(sources, [39 - rng.permutation(source) for source in sources], 5)
    ours, theirs = alignment.bilingual_vectors(counts, (40, 40), 16, np.random.default_rng(0))
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, theirs))
    assert np.mean((ours @ theirs.T).argmax(1) == 39 - np.arange(40)) > 0.95


def test_the_dictionary_is_learnt_word_for_word():
    dictionary = Dictionary(SENTENCES)
    assert dictionary.translate("Die Katze lacht nie.") == "The cat laughs never."
    assert dictionary.translate("Die Giraffe lacht!") == "The Giraffe laughs!"


def test_the_most_similar_sentence_shares_the_rare_words():
    pairs = [Pair("der Hund und der Mann", "1"), Pair("der Vogel", "2"), Pair("und der und der", "3"), Pair("x", "4")]
    nearest = Nearest(pairs)
    assert nearest.translate("Der Vogel und der Kater") == "2"
    assert nearest.translate("der Mann") == "1"
    assert nearest.translate("unbekannt") == "1"


# runs


def test_options_that_do_not_fit(little):
    with pytest.raises(RunError, match="--attention: expected one of additive, dot, general, none, got best"):
        setup("reversal", attention="best")
    with pytest.raises(RunError, match=r"--scheduled-sampling: expected a share from 0 to 1, got 1\.5"):
        setup(scheduled_sampling=1.5)


@pytest.mark.parametrize("score", ["additive", "dot", "general", "none"])
def test_every_score_takes_a_step(little, score):
    for source in (None, "dates"):
        run = setup(source, attention=score, reverse_source=True, scheduled_sampling=0.5)
        x, target = next(iter(run.batches(1)))
        loss = run.loss(run.model(x), target)
        run.model.backward(run.loss.backward())
        run.optimizer.step()
        assert run.loss(run.model(x), target) < loss


def test_sentences_are_kept_apart(little):
    """Of the validation too; and the other way round source and target change places."""
    corpus, other = (translate_sentences.Corpus.of(little_pairs(), 60, swap=swap) for swap in (False, True))
    parts = [corpus.train, corpus.validation, corpus.test]
    assert sorted(pair for part in parts for pair in part) == sorted(SENTENCES)
    assert [len(part) for part in parts] == [65, 7, 8]
    assert other.test == [Pair(target, source) for source, target in corpus.test]
    assert other.phrases[0] == Pair("dog", "Hund")


def test_a_run_translates_what_it_has_not_seen(little, tmp_path, command):
    """And its picture of attention lies in its folder."""
    big = dataclasses.replace(translate_sentences.RECIPE, units=32, embedding=32, dropout=0.0, lr=1e-2, rows=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate_sentences, "RECIPE", big)
        metrics, line = run_task(TASK, Command(steps=200, out=tmp_path / "run", progress=False))
    assert metrics["bleu"] >= 90
    assert metrics["bleu_baseline"] == max(metrics["bleu_dictionary"], metrics["bleu_nearest"])
    assert metrics["bleu_nearest"] < 0.7
    assert line.startswith(f"translate: BLEU {metrics['bleu']:.1f} on 8 unseen sentences; word for word ")
    result = command("predict", str(tmp_path / "run"), "Die Frau singt oft.")
    lines = result.stdout.splitlines()
    assert lines[0] == "The woman sings often."
    assert "  <- " in lines[1]
    assert lines[-1] == f"picture: {tmp_path / 'run' / 'attention.png'}"
    assert (tmp_path / "run" / "attention.png").read_bytes().startswith(PNG)
    assert "pieces were not met in training" in command("predict", str(tmp_path / "run"), "Das \u20ac").stdout


def test_exact_figures(little, monkeypatch):
    """Of a network that writes backwards and looks where it should, and one that always writes the same."""
    run = setup("reversal")
    exercise = translate_exact.reversal(0)

    def written(model, recipe, sources, beam=None):
        if model is run.model.members[0]:
            return [
                translate_runs.Written(
                    s[::-1], 0.0, np.eye(len(s) + 1)[::-1][1:, :-1] if len(s) > 1 else np.ones((2, 1))
                )
                for s in sources
            ]
        return [translate_runs.Written(np.array([END + 1]), 0.0, None) for _ in sources]

    monkeypatch.setattr(translate_exact, "write", written)
    metrics = run.figures()
    assert metrics["exact"] == metrics["exact_15"] == metrics["aligned"] == 1
    assert metrics["exact_15_plain"] == 0
    assert "aligned_plain" not in metrics
    assert {len(text) for text in exercise.tests["exact_15"][0]} == {15}
    (batch, *_) = run.batches(0)
    read = {exercise.source.text(row[row >= 0]) for row in batch[0][0].T}
    assert not read & {text for text in exercise.tests["exact"][0] if len(text) > 3}


def test_predict_refuses_what_it_cannot_answer(little, tmp_path, command):
    run_task(TASK, Command(steps=1, data="dates", out=tmp_path / "run", progress=False))
    empty = command("predict", str(tmp_path / "run"), " ")
    assert (empty.returncode, empty.stderr.strip()) == (2, "fusedrnn: text: expected at least one word, got none")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        TASK.predict(tmp_path / "none", "a", print)
    path = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint = read_checkpoint(path)
    for changed, message in (
        ({"recipe": {**checkpoint.state["metadata"]["recipe"], "units": 10**6}}, "parameters or more"),
        ({"recipe": {**checkpoint.state["metadata"]["recipe"], "score": "best"}}, "no network"),
        ({"kind": "sentences"}, "not a model of sentencepiece"),
    ):
        state = json.loads(json.dumps(checkpoint.state))
        state["metadata"] |= changed
        write_checkpoint(path, checkpoint.tensors, state)
        with pytest.raises(CheckpointError, match=message):
            TASK.predict(tmp_path / "run", "a", print)


def test_what_attention_saw_is_told_in_words():
    weights = np.array([[0.7, 0.3, 0.0], [0.1, 0.14, 0.1]])
    lines = list(lines_of(Translation([" a", "b", "c"], ["x", "(end)"], "x", weights)))
    assert lines == ["  x      <- a 0.70, b 0.30", "  (end)  <- (no piece in particular)"]
    assert list(lines_of(Translation([" a"], ["x"], "x", None))) == []
