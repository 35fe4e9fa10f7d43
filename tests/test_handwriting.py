"""Handwriting: batches, networks, metrics, the window's end, writing and reading back, what sample makes of a run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from fusedrnn import cli
from fusedrnn.data import script_font
from fusedrnn.data.strokes import Drawing, as_strokes
from fusedrnn.tasks import handwriting
from fusedrnn.tasks.handwriting_model import Both, Predictor, Sizes, Synthesizer
from fusedrnn.tasks.handwriting_reading import Reader, cuts_of
from fusedrnn.tasks.handwriting_writing import (
    Word,
    Writing,
    _kept,
    draw_points,
    numbered,
    on_a_line,
    write_text,
    write_words,
)
from tests import strokes_made

SIZES = Sizes(units=6, components=2, window=3, characters=5, spacing=0.3)


def drawings(lengths=(5, 3, 1), texts=("abc", "de", "a")):
    rng = np.random.default_rng(0)
    return [
        Drawing(np.column_stack([rng.standard_normal((n, 2)), rng.random(n) < 0.3]).astype("f"), text)
        for n, text in zip(lengths, texts, strict=True)
    ]


def test_a_step_tells_of_the_point_after_it():
    made = drawings()
    (x, text), target = handwriting.batch(made, "abcde")
    assert (x.shape, text.shape, target.shape) == ((5, 3, 4), (3, 3), (5, 3, 4))
    for n, (offsets, written) in enumerate(made):
        T = len(offsets)
        np.testing.assert_array_equal(target[:T, n, :3], offsets)
        np.testing.assert_array_equal(x[1:T, n, :3], offsets[:-1])
        assert not x[0, n, :3].any()
        assert x[:, n, 3].tolist() == target[:, n, 3].tolist() == [1] * T + [0] * (5 - T)
        assert text[:, n].tolist() == [*("abcde".index(c) for c in written), *[-1] * (3 - len(written))]


@pytest.mark.parametrize("kind", [Predictor, Synthesizer, Both])
def test_gradients_of_the_networks(kind):
    rng = np.random.default_rng(1)
    model = kind(SIZES, np.random.default_rng(0))
    (x, text), _ = handwriting.batch(drawings(), "abcde")
    given = x if kind is Predictor else (x, text)
    dout = rng.standard_normal(model(given).shape).astype("f") * x[:, :, 3:]
    model.backward(dout)
    found = [parameter.grad.astype(float) for parameter in model.parameters()]
    parameters = list(model.parameters())
    values = [parameter.data.copy() for parameter in parameters]

    def moved(step):  # float32: one direction of all at once, a step far above rounding
        for parameter, value, gradient in zip(parameters, values, found, strict=True):
            parameter.data[...] = value + step * gradient / norm
        return float(np.sum(model.eval()(given).astype(float) * dout))

    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in found))
    assert (moved(1e-2) - moved(-1e-2)) / 2e-2 == pytest.approx(norm, rel=2e-3)


def test_the_baseline_is_a_gaussian_and_a_coin():
    rng = np.random.default_rng(0)
    points = rng.multivariate_normal([0.3, -0.1], [[2, 0.6], [0.6, 1]], 20_000)
    made = [Drawing(np.column_stack([points, np.arange(20_000) % 4 == 0]).astype("f"), "")]
    found = handwriting.one_gaussian(made, made)
    entropy = np.log(2 * np.pi * np.e) + np.log(2 * 1 - 0.36) / 2
    coin = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    assert found["nll"] == pytest.approx(entropy + coin, abs=0.02)
    assert found["sse"] == pytest.approx(3, rel=0.03)


def window(places, characters=4):
    """φ with all its weight at a place, between two characters where it is no whole number."""
    u = np.arange(1, characters + 2)
    return np.maximum(0, 1 - np.abs(u - np.array(places)[:, None]))


@pytest.mark.parametrize(
    ("places", "right"),
    [
        ([1, 2, 3, 4], True),
        ([1, 1.9, 3, 3.1], True),
        ([1, 2, 3, 5], True),
        ([1, 2.2, 1.9, 4], True),
        ([1, 2, 1.4, 4], False),
        ([1, 2, 2.3, 2.4], False),
    ],
)
def test_a_window_is_right_that_moves_on_and_reaches_the_end(places, right):
    assert handwriting.window_is_right(window(places), 4) is right


def test_writing_stops_behind_the_last_character_with_the_pen_lifted():
    model = Synthesizer(SIZES, np.random.default_rng(0)).eval()
    first = model.first
    getattr(first, "window.W").data[...] = 0
    getattr(first, "window.b").data[...] = np.repeat([0.0, 2.0, np.log(0.25)], 3)  # a quarter of a character a step
    writing = write_text(model, np.array([0, 1, 2]), np.random.default_rng(0))
    assert writing.done
    assert 12 <= len(writing.offsets) <= 28
    assert writing.offsets[-1, 2] == 1
    assert writing.window.shape == (len(writing.offsets), 4)
    getattr(first, "window.b").data[6:] = -20  # it never moves
    stuck = write_text(model, np.array([0, 1, 2]), np.random.default_rng(0))
    assert not stuck.done
    assert len(stuck.offsets) == 120


def test_a_stroke_behind_the_text_is_left_out():
    offsets = np.array([[1, 0, 0], [1, 0, 1], [5, 5, 0], [1, 0, 1]], "f")
    assert len(_kept(offsets, np.array([0, 0.1, 0.7, 0.9]))) == 2
    assert len(_kept(offsets, np.array([0, 0.1, 0.1, 0.9]))) == 4
    assert len(_kept(offsets[2:], np.array([0.9, 0.9]))) == 2, "the only one stays"


def test_what_has_begun_is_not_written_again():
    """The stream in the middle of a drawing is that which wrote it: with bias, the rest is the same."""
    model = Synthesizer(SIZES, np.random.default_rng(0)).eval()
    model.head.bias.data[-1] = -30  # the pen, which knows no bias, is never lifted
    whole = write_text(model, np.array([0, 1, 2]), np.random.default_rng(0), bias=60)
    begun = write_text(model, np.array([0, 1, 2]), np.random.default_rng(5), bias=60, begun=whole.offsets[:7])
    same = min(len(whole.offsets) - 7, len(begun.offsets), 10)
    assert same > 3
    np.testing.assert_allclose(begun.offsets[:same, :2], whole.offsets[7 : 7 + same, :2], atol=1e-3)


def test_words_stand_on_one_line_in_one_style():
    """Each is written behind the same drawing; its place is that behind it, moved behind the word before."""
    model = Synthesizer(SIZES, np.random.default_rng(0)).eval()
    model.head.bias.data[-1] = -30  # the pen, which knows no bias, is never lifted
    style = Drawing(np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]], "f"), "ab")
    words = write_words(model, ["a", "cb", "a"], "abc d", np.random.default_rng(0), bias=60, style=style)
    alone = write_words(model, ["cb"], "abc d", np.random.default_rng(0), bias=60, style=style)
    assert len(words) == 3
    n = min(len(words[1].strokes[0]), len(alone[0].strokes[0]), 4)
    np.testing.assert_allclose(words[1].strokes[0][:n, 1], alone[0].strokes[0][:n, 1], atol=1e-3)
    text = numbered("ab cb", "abc d")
    writing = write_text(model, text, np.random.default_rng(0), bias=60, begun=style.offsets)
    start = np.array([1, 2]) + writing.offsets[0, :2]  # from the end of the drawing, which reaches to 2
    lefts = [stroke[:, 0].min() for stroke in as_strokes(writing.offsets[1:])]
    assert alone[0].strokes[0][0, 1] == pytest.approx(start[1], abs=1e-3)
    assert alone[0].gap == pytest.approx(start[0] + min(lefts) - 2, abs=0.2)
    own = write_words(model, ["a", "b"], "abc d", np.random.default_rng(0))
    assert own[0].gap == 0
    with pytest.raises(ValueError, match="expected characters of 'abc d', got 'x'"):
        write_words(model, ["x"], "abc d", np.random.default_rng(0))


def test_words_behind_each_other():
    words = [Word([np.array([[0.0, 1], [3, 2]])], 5.0), Word([np.array([[0.0, 0], [1, 1]]), np.ones((2, 2))], 0.5)]
    first, second, third = on_a_line(words)
    assert first.tolist() == [[0, 1], [3, 2]]
    assert second.tolist() == [[3.5, 0], [4.5, 1]]
    assert third.tolist() == [[4.5, 1], [4.5, 1]]


def test_drawing_without_a_text():
    model = Predictor(SIZES, np.random.default_rng(0)).eval()
    drawn = draw_points(model, 3, np.random.default_rng(0), bias=0.0, most=7)
    assert [offsets.shape for offsets in drawn] == [(7, 3)] * 3
    assert all(offsets[-1, 2] == 1 for offsets in drawn)


def test_reading_true_drawings():
    """Letters of shapes of their own, in a style of their own: a reader that knows where they end has them all."""
    rng = np.random.default_rng(0)
    shapes = {c: rng.uniform(-6, 6, (5, 2)).cumsum(0) for c in "abcdefg"}
    glyphs = {c: script_font.Glyph(0, 12, [shape]) for c, shape in shapes.items()}
    reader = Reader(glyphs, "abcdefg", scale=2.0)
    word, window, offsets = "gbfad", [], []
    for u, c in enumerate(word):
        drawn = script_font.written(glyphs, c, script_font.Style(1.1, 0.2, 0.5, 0.05), rng).offsets / [2, 2, 1]
        offsets.append(drawn)
        window += [np.eye(6)[u]] * len(drawn)
    writing = Writing(np.concatenate(offsets), np.array(window), True)
    assert reader.read(cuts_of(writing, 5)) == word
    assert handwriting.letters_right(["abc", "d"], ["abd", "e"]) == 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of few updates: with texts, and of kanji without."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script_font, "load_font", lambda say: strokes_made.glyphs())
        drawn = [d._replace(text="x") for d in drawings([5] * 40, ["abc"] * 40)]
        patch.setattr(handwriting.kanji, "load_kanji", lambda say: drawn)
        patch.setattr(handwriting, "TRAINING", 60)
        patch.setattr(handwriting, "HELD_OUT", 20)
        patch.setattr(handwriting, "READ", 2)
        patch.setattr(handwriting, "UNITS", 8)
        for name, more in (("text", []), ("kanji", ["--data", "kanji"])):
            given = ["train", "handwriting", "--steps", "3", "--quiet", "--out", str(folder / name), *more]
            done = CliRunner().invoke(cli.app, given)
            assert done.exit_code == 0, done.output
    return folder


def sampled(*arguments):
    done = CliRunner().invoke(cli.app, ["sample", *map(str, arguments)])
    return done.exit_code, done.output


def test_a_text_becomes_svg(runs, tmp_path):
    file = tmp_path / "word.svg"
    text = "Any text, that goes on over more than one line of it\nand breaks"
    assert sampled(runs / "text", "--prime", text, "--bias", 1, "--style", 2, "--out", file)[0] == 0
    svg = file.read_text()
    assert svg.startswith("<svg ")
    numbers = re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", svg.replace(" L", "L"))
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    points = np.array(numbers, float)
    assert len(points) > 20
    assert (points >= 0).all()
    assert (points <= [width, height]).all()
    again = tmp_path / "again.svg"
    sampled(runs / "text", "--prime", text, "--bias", 1, "--style", 2, "--out", again)
    assert again.read_text() == svg
    sampled(runs / "text", "--prime", text, "--bias", 1, "--style", 3, "--out", again)
    assert again.read_text() != svg


def test_pictures_and_lines_of_points(runs, tmp_path):
    for run, more in ((runs / "text", ["--prime", "ab"]), (runs / "text", []), (runs / "kanji", [])):
        file = tmp_path / "x.png"
        assert sampled(run, *more, "--length", 20, "--out", file)[0] == 0
        assert file.read_bytes().startswith(b"\x89PNG")
        code, printed = sampled(run, *more, "--count", 2, "--length", 20)
        assert code == 0
        assert all(re.fullmatch(r"-?\d+\.\d{3},-?\d+\.\d{3}", pair) for pair in printed.split())


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("text", ["--prime", "aß☃"], "--prime: expected characters of .*, got 'ß', '☃'"),
        ("text", ["--prime", " \n "], "--prime: expected a text, got blanks alone"),
        ("text", ["--prime", "a", "--style", "9"], "--style: expected 1 to [78], got 9"),
        ("text", ["--style", "1"], "--style: expected a text beside it"),
        ("text", ["--temperature", "0.5"], "--temperature: handwriting has --bias instead, got 0.5"),
        ("text", ["--out", "word.pdf"], r"--out: expected a name that ends in .svg or .png, got word.pdf"),
        ("kanji", ["--prime", "a"], "--prime: expected none, the run has learnt from drawings without a text"),
    ],
)
def test_options_that_do_not_fit(runs, options, run, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = sampled(runs / run, *options)
    assert code == 2
    assert re.search(message, said.replace("\n", " ")), said


def test_a_style_is_an_option_of_handwriting(runs, tmp_path):
    trained = ["train", "polygon", "--steps", "1", "--quiet", "--out", str(tmp_path / "p")]
    with pytest.MonkeyPatch.context() as patch:
        from fusedrnn.tasks import polygon

        for name, size in {"TRAINING": 100, "HELD_OUT": 50, "DRAWN": 20, "UNITS": 4}.items():
            patch.setattr(polygon, name, size)
        assert CliRunner().invoke(cli.app, trained).exit_code == 0
    code, said = sampled(tmp_path / "p", "--style", 1)
    assert code == 2
    assert "--style: an option of handwriting, not of polygon" in said


def test_numbers_of_characters():
    assert numbered("cab", "abc").tolist() == [2, 0, 1]
    assert numbered("", "abc").tolist() == []


def test_strokes_of_a_writing_end_where_the_pen_is_lifted():
    offsets = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 0, 1]], "f")
    assert [len(stroke) for stroke in as_strokes(offsets)] == [3, 2]
