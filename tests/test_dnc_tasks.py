"""Tasks of the differentiable neural computer: what they ask is what they say, and what a run answers."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from fusedrnn.data.reading import DataError
from fusedrnn.nn import CrossEntropyLoss
from fusedrnn.tasks import TASKS, dnc_babi, dnc_copy, dnc_graph, dnc_graphs, dnc_metro, dnc_runs, dnc_stories
from fusedrnn.tasks.dnc_metro import METRO
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import RunError
from fusedrnn.train import checkpoint

# copy and reuse


def test_every_sequence_is_copied_before_the_next_begins():
    one, other = (np.random.default_rng(n).integers(0, 2, (length, 4, 6)) for n, length in ((0, 3), (1, 1)))
    x, target = dnc_copy.coded([one, other])
    assert x.shape == (8 + 4, 4, 8)
    assert target.shape == (12, 4, 7)
    np.testing.assert_array_equal(x[1:4, :, :6], one)
    np.testing.assert_array_equal(target[5:8, :, :6], one)
    np.testing.assert_array_equal(x[9:10, :, :6], other)
    np.testing.assert_array_equal(target[11:, :, :6], other)
    assert np.argwhere(x[:, 0, 6:]).tolist() == [[0, 0], [4, 1], [8, 0], [10, 1]]
    assert np.flatnonzero(target[:, 0, 6]).tolist() == [5, 6, 7, 11]
    assert target[5, :, 6].sum() == 1, "weights of a step add up to 1"
    assert not x[5:8].any(), "nothing goes in while it answers"


# graphs


def test_random_graphs_have_so_many_edges_and_no_dead_end():
    rng = np.random.default_rng(0)
    for nodes, edges, _, _ in dnc_graph.LESSONS:
        tables = dnc_graphs.random_graphs(rng, 50, nodes, edges)
        assert ((tables >= 0).sum((1, 2)) == edges).all()
        assert (tables >= 0).any(2).all()
        assert (tables.diagonal(axis1=1, axis2=2) == -1).all()
        assert tables.max() < dnc_graphs.EDGES
        for table in tables:
            for row in table:
                labels = row[row >= 0]
                assert len(set(labels)) == len(labels), "two edges of one label leave a node"


def breadth_first(table, start):
    """How far every node is from one, and how many shortest paths lead there."""
    far, ways, todo = {start: 0}, collections.Counter({start: 1}), [start]
    for here in todo:
        for there in np.flatnonzero(table[here] >= 0):
            if there not in far:
                far[there] = far[here] + 1
                todo.append(there)
            if far[there] == far[here] + 1:
                ways[there] += ways[here]
    return far, ways


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_paths_are_the_only_ones_of_their_length(steps):
    rng = np.random.default_rng(steps)
    tables = np.concatenate([dnc_graphs.random_graphs(rng, 100, 8, 16), dnc_graphs.random_graphs(rng, 100, 8, 10)])[
        :, :8
    ]
    paths, fit = dnc_graphs.shortest_paths(rng, tables, steps)
    assert fit.sum() > 50
    for table, path, fits in zip(tables, paths, fit, strict=True):
        searches = [breadth_first(table, start) for start in range(8)]
        pairs = {(a, b) for a, (far, ways) in enumerate(searches) for b in far if far[b] == steps and ways[b] == 1}
        assert bool(pairs) == fits
        if fits:
            assert (path[0], path[-1]) in pairs
            assert all(table[here, there] >= 0 for here, there in itertools.pairwise(path))


def test_walks_follow_edges():
    rng = np.random.default_rng(0)
    tables = dnc_graphs.random_graphs(rng, 40, 7, 13)
    walk = dnc_graphs.random_walks(rng, tables, 5)
    assert walk.shape == (40, 6)
    assert (tables[np.arange(40)[:, None], walk[:, :-1], walk[:, 1:]] >= 0).all()
    assert len({tuple(each) for each in walk}) > 30


def test_triples_are_read_as_they_were_coded():
    rng = np.random.default_rng(0)
    source, destination = rng.integers(0, dnc_graphs.NODES, (2, 5, 3))
    edge = rng.integers(0, dnc_graphs.EDGES, (5, 3))
    x = dnc_graphs.coded(source, edge, destination, (5, 3))
    assert (x.sum(2) == 5).all(), "two digits, one, two"
    for found, expected in zip(dnc_graphs.read(x), (source, edge, destination), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert dnc_graphs.coded(None, edge, None, (5, 3)).sum() == 15


def facts_of(x):
    """The table of each graph by its labels, from what the network sees."""
    steps = ~(x[:, 0, dnc_graphs.TRIPLE :] > 0).any(1)
    source, edge, destination = dnc_graphs.read(x[steps][:, :, : dnc_graphs.TRIPLE])
    return [
        {(a, b): c for a, b, c in zip(source[:, n], edge[:, n], destination[:, n], strict=True)}
        for n in range(x.shape[1])
    ]


def test_a_traversal_can_be_followed_in_what_the_network_sees():
    rng = np.random.default_rng(0)
    x, target = dnc_graphs.ask_traversal(rng, dnc_graphs.random_graphs(rng, 6, 8, 16), 4)
    asked = x[:, 0, dnc_graphs.ASKED] > 0
    assert asked.sum() == (target[:, 0, -1] > 0).sum() == 4
    first, ways, _ = dnc_graphs.read(x[asked][:, :, : dnc_graphs.TRIPLE])
    answer = dnc_graphs.read(target[target[:, 0, -1] > 0][:, :, :-1])
    for n, facts in enumerate(facts_of(x)):
        assert len(facts) == 16
        here = first[0, n]
        for t in range(4):
            there = facts[here, ways[t, n]]
            assert (answer[0][t, n], answer[1][t, n], answer[2][t, n]) == (here, ways[t, n], there)
            here = there
    assert dnc_graphs.exact(target[..., :-1], target).all()
    wrong = target[..., :-1].copy()
    wrong[-1, 2] = np.roll(wrong[-1, 2], 1)
    assert dnc_graphs.exact(np.stack([wrong, wrong]), target).tolist() == [[True, True, False, True, True, True]] * 2


def test_the_length_of_a_shortest_path_does_not_show():
    rng = np.random.default_rng(0)
    tables = np.repeat(METRO.table[None], 80, 0)
    seen = []
    for steps in (1, 2, 3):
        x, target = dnc_graphs.ask_shortest(rng, tables, 10, steps)
        seen.append(x[:, 0, dnc_graphs.TRIPLE :])
        assert x.shape[1] == 10
        assert (target[:, 0, -1] > 0).sum() == steps
        question = x[x[:, 0, dnc_graphs.ASKED] > 0][0]
        start, _, end = dnc_graphs.read(question[:, : dnc_graphs.TRIPLE])
        answer = dnc_graphs.read(target[target[:, 0, -1] > 0][:, :, :-1])
        np.testing.assert_array_equal(answer[0][0], start)
        np.testing.assert_array_equal(answer[2][-1], end)
        assert not question[:, 2 * dnc_graphs.BASE : 2 * dnc_graphs.BASE + dnc_graphs.EDGES].any(), (
            "no edge is given away"
        )
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


# the map


def test_the_metro_is_one_map_of_few_ways():
    table = METRO.table
    assert len(METRO.ways) <= dnc_graphs.EDGES
    far, _ = breadth_first(table, 0)
    assert len(far) == len(METRO.stations)
    assert ((table >= 0) == (table.T >= 0)).all()
    for row in table:
        assert len(set(row[row >= 0])) == (row >= 0).sum()
    for start in range(len(table)):
        far, _ = breadth_first(table, start)
        for end, steps in far.items():
            assert dnc_metro.distance(METRO.stations[start], METRO.stations[end]) == steps


def test_journeys_are_read_and_judged():
    asked = dnc_metro.asked_in("saltmarsh TO  Clockyard")
    assert asked == ("Saltmarsh", (), "Clockyard")
    way = [("Saltmarsh", "Red north", "Lanternhill"), ("Lanternhill", "Red north", "Clockyard")]
    assert dnc_metro.verdict(asked, way).startswith("right: there is no shorter way than 2 edges")
    assert dnc_metro.verdict(asked, way[:1]) == "wrong: it does not arrive at Clockyard"
    assert dnc_metro.verdict(asked, [way[0], ("Lanternhill", "Red south", "Clockyard")]).startswith(
        "wrong: there is no"
    )
    assert dnc_metro.verdict(asked, [way[0], (way[0][2], "Red south", way[0][0]), *way]).startswith("it arrives, but 2")
    along = dnc_metro.asked_in("Saltmarsh: red north, Red north")
    assert along == ("Saltmarsh", ("Red north", "Red north"), None)
    assert dnc_metro.verdict(along, way).startswith("right")
    assert dnc_metro.verdict(along, way[:1]).startswith("wrong")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Saltmarsh", 'expected "STATION to STATION"'),
        ("Saltmarsh to Paris", "expected a station among Saltmarsh, .*, got 'Paris'"),
        ("Saltmarsh to Saltmarsh", "expected two stations, got Saltmarsh twice"),
        ("Saltmarsh: Red up", "expected a way among Red north, .*, got 'Red up'"),
        ("Saltmarsh: Blue east", "expected a way that leaves Saltmarsh, got Blue east"),
        ("Saltmarsh:", "expected a way among"),
    ],
)
def test_journeys_that_there_are_not(text, message):
    with pytest.raises(ValueError, match=message):
        dnc_metro.asked_in(text)


# stories


def sentences_of(story):
    end = len(story.words) - 1 - story.words[::-1].index(".")
    told = " ".join(story.words[: end + 1]).split(" .")
    return [sentence.split() for sentence in told if sentence], story.words[end + 1 :]


def answer_of(number, story):
    """The answer by reading, in ways of our own."""
    told, question = sentences_of(story)
    if number == 1:
        return next(s[-1] for s in reversed(told) if s[0] == question[2])
    if number in (2, 3):
        thing = question[3]
        been, held = [], None
        for t, sentence in enumerate(told):
            if sentence[1] in dnc_stories.TOOK and sentence[-1] == thing:
                held = sentence[0]
                place = next(s[-1] for s in reversed(told[:t]) if s[0] == held and s[1] in dnc_stories.WALKED)
                if been[-1:] != [place]:
                    been.append(place)
            elif sentence[1] in dnc_stories.LEFT and sentence[-1] == thing:
                assert held == sentence[0]
                held = None
            elif held == sentence[0] and sentence[1] in dnc_stories.WALKED:
                been.append(sentence[-1])
        if number == 2:
            return been[-1]
        assert question[-3] == been[-1]
        return been[-2]
    if number == 15:
        kind = next(s[-1] for s in told if s[0] == question[2])
        return next(s[-1] for s in told if s[:2] == ["every", kind])
    kinds = {s[0]: s[-1] for s in told if s[2:3] == ["a"]}
    return next(s[-1] for s in told if len(s) == 3 and kinds[s[0]] == kinds[question[3]])


@pytest.mark.parametrize("number", dnc_stories.MADE)
def test_made_stories_answer_their_questions(number):
    rng, answers = np.random.default_rng(number), collections.Counter()
    for events in (2, 3, 5, 8) * 50:
        story = dnc_stories.MADE[number][1](rng, events)
        assert set(story.words) <= set(dnc_stories.WORDS)
        assert story.words[-2:] == ["?", "-"]
        assert story.questions == [1]
        assert story.answers == [answer_of(number, story)]
        answers[story.answers[0]] += 1
    assert len(answers) >= 4
    assert max(answers.values()) < 90, "one answer is much too often right"


def test_the_test_has_no_story_that_trained(monkeypatch):
    for name, count in (("TRAINING", 300), ("TESTED", 40), ("CHECKED", 10)):
        monkeypatch.setattr(dnc_babi, name, count)
    corpus = dnc_babi.made(3)
    known = {tuple(story.words) for story in corpus.train}
    assert len(corpus.train) == 5 * 300
    for part in (corpus.test, corpus.check):
        assert part.keys() == dnc_stories.MADE.keys()
        assert not any(tuple(story.words) in known for stories in part.values() for story in stories)
        assert all(len(stories) >= 10 for stories in part.values())
    assert dnc_babi.made(4).train[0] != corpus.train[0]


TWO = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary took the milk, there.
5 What is Mary carrying?\tmilk,Apple\t4 4
1 A b.
2 Where is A?\tb\t1
"""


@pytest.fixture
def folder(tmp_path):
    """A folder as bAbI's, of two tasks."""
    place = tmp_path / "en"
    place.mkdir()
    for number in (1, 8):
        (place / f"qa{number}_lists-sets_train.txt").write_text(TWO * 3)
        (place / f"qa{number}_lists-sets_test.txt").write_text(TWO)
    (place / "README").write_text("of other kinds")
    return place


def test_the_files_of_babi_are_read(folder):
    tasks = dnc_stories.read_folder(folder)
    assert list(tasks) == [1, 8]
    name, train, test = tasks[8]
    assert name == "lists sets"
    assert len(train) == 6
    first = "mary moved to the bathroom . john went to the hallway . where is mary ? -"
    assert " ".join(test[0].words) == f"{first} mary took the milk there . what is mary carrying ? - -"
    assert test[0].answers == ["bathroom", "milk", "apple"]
    assert test[0].questions == [1, 2]
    assert test[1] == (["a", "b", ".", "where", "is", "a", "?", "-"], ["b"], [1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "qa1_lists-sets_test.txt").unlink(), "qa1_lists-sets_test.txt: there is no such file beside"),
        (lambda f: [path.unlink() for path in f.iterdir()], "expected files such as qa1_"),
        (lambda f: f.rename(f.with_name("gone")), "there is no such folder"),
        (lambda f: (f / "qa1_other_train.txt").write_text(TWO), "no such file beside qa1_other_train"),
        (lambda f: (f / "qa1_lists-sets_train.txt").write_text("1 A.\nB c\n"), "line 2: expected a number and a sent"),
        (lambda f: (f / "qa1_lists-sets_train.txt").write_text("2 A b.\n"), "line 1: expected a story to begin with"),
        (lambda f: (f / "qa1_lists-sets_train.txt").write_text("1 A b?\t\t1\n"), "line 1: expected an answer behind"),
        (
            lambda f: (f / "qa1_lists-sets_train.txt").write_text("1 A b.\n"),
            "expected stories with questions, got none",
        ),
        (lambda f: (f / "qa1_lists-sets_train.txt").write_bytes(b"1 \xff"), "not a text in UTF-8"),
    ],
)
def test_damaged_folders_are_refused_before_training(folder, tmp_path, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        run_task(TASKS["dnc-babi"], Command(data=str(folder), out=tmp_path / "run", progress=False))
    assert not (tmp_path / "run").exists()


def test_the_loss_of_answers_is_cross_entropy_where_words_are_due():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 5, 3, 7)).astype(np.float32)
    target = np.full((5, 3), -1)
    target[4], target[2, 1] = [1, 6, 0], 3
    loss, expected = dnc_babi.AnswersLoss(), CrossEntropyLoss("sum")
    value = loss(logits, target)
    gradient = loss.backward()
    for member in range(2):
        picked = np.ascontiguousarray(logits[member][target >= 0])
        of_member = expected(picked, target[target >= 0]) / 3
        if member == 0:
            assert value == pytest.approx(of_member, rel=1e-5)
        np.testing.assert_allclose(gradient[member][target >= 0], expected.backward() / 3, atol=1e-6)
    assert not gradient[:, target < 0].any()
    with pytest.raises(RuntimeError, match="expected a call of the loss first"):
        loss.backward()


def test_a_question_counts_as_right_when_all_its_words_are():
    story = dnc_stories.Story(["a", "?", "-", "b", "?", "-", "-"], ["a", "a", "b"], [1, 2])
    coder = dnc_babi.Coder(["a", "b", "?", "-"])

    def answers(*words):
        def model(x):
            logits = np.zeros((*x.shape[:2], 4), np.float32)
            for t, word in zip((2, 5, 6), words, strict=True):
                logits[t, :, coder.numbers[word]] = 1
            return np.stack([logits, logits])

        return dnc_babi.wrong(model, coder, [story])[0]

    assert [answers(*words) for words in ("aab", "bab", "aaa", "bbb")] == [0, 0.5, 0.5, 1]


# runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few updates of each task, by name, of little networks."""
    folder = tmp_path_factory.mktemp("dnc")
    little = {"units": 8, "slots": 9, "width": 5, "lstm_units": 6, "updates": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("TRAINING", 20), ("TESTED", 5), ("CHECKED", 5)):
            patch.setattr(dnc_babi, name, count)
        patch.setattr(dnc_graph, "TESTED", 5)
        patch.setattr(dnc_copy, "TESTED", 5)
        for name in ("dnc-copy", "dnc-graph", "dnc-babi"):
            task = TASKS[name]
            preset = dataclasses.replace(task.presets["default"], epochs=2, settings=little)
            task = dataclasses.replace(task, presets={"default": preset})
            run_task(task, Command(steps=3, out=folder / name, progress=False))
    return folder


ASKED = {
    "dnc-copy": "010101 111000 000111",
    "dnc-graph": "Saltmarsh to Kitefield",
    "dnc-babi": "Mira walked to the barn. Where is Mira?",
}


@pytest.mark.parametrize("name", ASKED)
def test_a_run_answers_what_is_typed(trained, name):
    said = []
    TASKS[name].predict(trained / name, ASKED[name], said.append)
    assert said[0].startswith("One column a slot of the memory")
    assert said[1].split() == ["step", "in", "out", "wrote", "read"]
    steps = {"dnc-copy": 3 + 3 + 2, "dnc-graph": 20 + 1 + 5 + 3, "dnc-babi": 6 + 4 + 1}[name]
    assert [line.split()[0] for line in said[2 : 2 + steps]] == [str(t + 1) for t in range(steps)]
    assert all(line.count("|") == 4 for line in said[2 : 2 + steps])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dnc-copy", "0101", "expected vectors of 6 bits, got '0101'"),
        ("dnc-copy", "", "expected 1 to 1,000 vectors"),
        ("dnc-babi", "mira walked to the barn.", "expected a story with a question mark at its end"),
        ("dnc-babi", "where is napoleon?", "never met: napoleon; it knows .*badger"),
        ("dnc-graph", "Saltmarsh to Atlantis", "expected a station"),
    ],
)
def test_texts_that_cannot_be_answered(trained, name, text, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name].predict(trained / name, text, print)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 10**6}, "parameters or more, but the file holds"),
        ({"slots": 10**9}, "expected 1 to 100,000 slots"),
        ({"rival": "a bus"}, "rival: expected one of no links"),
        ({"controller": "abacus"}, "no network: "),
        ({"width": 6}, "of another version of this task"),
    ],
)
def test_a_damaged_recipe_is_one_error(trained, tmp_path, change, message):
    tensors, state = checkpoint.read_checkpoint(trained / "dnc-copy" / "checkpoint.safetensors")
    state["metadata"]["recipe"] |= change
    checkpoint.write_checkpoint(tmp_path / "checkpoint.safetensors", tensors, state)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        TASKS["dnc-copy"].predict(tmp_path, ASKED["dnc-copy"], print)


def test_a_folder_of_stories_trains(folder, tmp_path):
    little = {"units": 8, "slots": 9, "width": 5, "lstm_units": 6, "read_heads": 1}
    task = TASKS["dnc-babi"]
    preset = dataclasses.replace(task.presets["default"], epochs=1, settings=little)
    task = dataclasses.replace(task, presets={"default": preset})
    metrics, line = run_task(task, Command(data=str(folder), out=tmp_path / "run", progress=False))
    assert {"error", "error_1", "error_8", "lstm_error_8", "failed"} <= metrics.keys()
    assert "of 2 tasks wrong" in line
    for number in (1, 8):
        (folder / f"qa{number}_lists-sets_train.txt").write_text("1 A b.\n2 Where is A?\tb\t1\n")
    with pytest.raises(RunError, match="expected at least two stories to train on"):
        run_task(task, Command(data=str(folder), out=tmp_path / "other", progress=False))


def test_the_recipe_of_the_rivals_is_the_same_but_for_one_part():
    recipe = dnc_runs.Recipe(8, 6, "no links")
    own, other = recipe.networks(np.random.default_rng(0)).members
    assert len(own.layer.step.shapes()) == len(other.layer.step.shapes()) + 1
    assert "read_mode" not in other.layer.step.shapes()
    free = dataclasses.replace(recipe, rival="no free gates").networks().members[1]
    assert "free_gate" not in free.layer.step.shapes()
