"""Captions: what is in the pictures is what the captions say, the network, its measures, and a user's picture file."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fusedrnn import cli
from fusedrnn.data import emoji_pictures, scenes, sources, tiles
from fusedrnn.data.emoji_pictures import group_of, read_emoji
from fusedrnn.data.picture_files import free_path_beside, read_picture
from fusedrnn.data.reading import DataError
from fusedrnn.data.subwords import BEGIN, END, UNKNOWN
from fusedrnn.decoding import Hypothesis
from fusedrnn.nn import CrossEntropyLoss
from fusedrnn.tasks import TASKS, caption_emoji, caption_scenes, caption_tiles
from fusedrnn.tasks.caption_model import Captioner
from fusedrnn.tasks.caption_runs import Examples, Fresh, nearest, scores, share_of_commonest, word_recall
from fusedrnn.tasks.caption_words import Words, columns
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.task import RunError
from tests.emoji_made import emoji_font

# scenes


def test_there_are_1152_captions():
    _, drawn = scenes.draw_scenes(np.random.default_rng(0), 30_000, np.arange(scenes.KINDS**2))
    captions = drawn.captions()
    assert len(set(captions)) == 1152
    assert set(captions[0].split()) <= {*["a", "above", "left", "of"], *scenes.SIZES, *scenes.COLOURS, *scenes.SHAPES}


def test_the_first_object_is_the_upper_or_the_left_one():
    rng = np.random.default_rng(1)
    relations = rng.integers(2, size=2000)
    extent = rng.uniform(3.7, 7.2, (2000, 2))
    centres = scenes.placed(rng, relations, extent)
    apart = centres[:, 1] - centres[:, 0]  # down, right
    along, across = np.where(relations[:, None] == 1, apart[:, ::-1], apart).T
    assert (along > np.abs(across)).all(), "the other relation is never the truer one"
    assert (along >= extent.sum(1) / 2).all(), "nothing overlaps"
    half = extent[:, :, None] / 2
    assert ((centres >= half) & (centres <= scenes.SIDE - half)).all()


def test_shapes_have_their_colours_and_areas():
    kinds = np.array([[0, 3 + 1], [6 + 2, 9]])  # red square, green circle; blue triangle, yellow square
    drawn = scenes.Scenes(kinds, np.ones((2, 2), int), np.zeros(2, int))
    assert drawn.captions()[0] == "a large red square above a large green circle"
    assert drawn.captions()[1] == "a large blue triangle above a large yellow square"
    centres = np.array([[[4.0, 8.0], [12.0, 8.0]]] * 2)
    pictures = scenes.painted(drawn, np.full((2, 2), 7.0), centres)
    colours = np.array(list(scenes.COLOURS.values()))
    np.testing.assert_array_equal(pictures[0, [4, 12], 8], colours[[0, 1]])
    np.testing.assert_array_equal(pictures[1, [4, 12], 8], colours[[2, 3]])
    ink = (255.0 - pictures[..., :]).reshape(2, 2, 8, 16, 3).sum((2, 3))  # of the upper and the lower half
    areas = ink.max(-1) / (255 - colours).max(-1)[[[0, 1], [2, 3]]]
    np.testing.assert_allclose(areas, [[49, 49 * np.pi / 4], [24.5, 49]], rtol=0.04)


def test_pairs_held_out_are_in_no_picture_of_training():
    rng = np.random.default_rng(2)
    seen, unseen = scenes.split_pairs(rng)
    assert (len(seen), len(unseen)) == (130, 14)
    assert not set(seen) & set(unseen)
    _, drawn = scenes.draw_scenes(rng, 3000, seen)
    assert set(drawn.pairs()) <= set(seen)
    assert len(set(drawn.pairs())) == 130


# tiles


def test_each_canvas_has_one_caption():
    """By what lies in its four fields, all that anybody can see."""
    rng = np.random.default_rng(3)
    layouts = tiles.draw_layouts(rng, 30_000, np.concatenate(tiles.split_pairs(rng)))
    fields = np.full((30_000, 2, 2), -1)
    for group, tile in itertools.product(range(2), range(2)):
        down, right = (layouts.places[:, group, tile] // tiles.FIELD).T
        fields[np.arange(30_000), down, right] = layouts.classes[:, group]
    captions = {}
    for field, caption in zip(map(bytes, fields.astype(np.int8)), layouts.captions(tiles.FASHION), strict=True):
        assert captions.setdefault(field, caption) == caption
    assert len(set(captions.values())) == 720
    assert (fields >= 0).sum((1, 2)).tolist() == layouts.counts.sum(1).tolist()
    assert "a boot to the left of two shirts" in captions.values()


def test_tiles_are_where_the_layout_says():
    rng = np.random.default_rng(4)
    labels = np.arange(10, dtype=np.uint8)
    images = np.repeat(20 * labels + 10, tiles.TILE**2).reshape(10, tiles.TILE, tiles.TILE)
    layouts = tiles.draw_layouts(rng, 200, tiles.split_pairs(rng)[0])
    canvases = tiles.painted(layouts, images, labels, rng)
    assert canvases.shape == (200, tiles.SIDE, tiles.SIDE, 1)
    for canvas, kinds, counts, places in zip(canvases, layouts.classes, layouts.counts, layouts.places, strict=True):
        for kind, count, corners in zip(kinds, counts, places, strict=True):
            assert (canvas == 255 - images[kind, 0, 0]).sum() == count * tiles.TILE**2
            for down, right in corners:
                assert (canvas[down : down + tiles.TILE, right : right + tiles.TILE] == 255 - images[kind, 0, 0]).all()


def test_halved_images_are_means_of_four_pixels():
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
    first = images[0, :2, :2].astype(float).mean()
    assert tiles.halved(images).shape == (2, 14, 14)
    assert tiles.halved(images)[0, 0, 0] == np.rint(first)


def test_attention_is_on_a_tile_where_its_strongest_lines_cross_there():
    layouts = tiles.Layouts(
        np.array([[9, 6]]), np.array([[1, 2]]), np.array([0]), np.array([[[[1, 1], [1, 1]], [[0, 16], [17, 18]]]])
    )
    (caption,) = layouts.captions(tiles.FASHION)
    assert caption == "a boot to the left of two shirts"
    weights = np.zeros((9, 64))
    weights[[1, 7], [5, 20]] = 1  # rows: 5 for "boot", 20 for "shirts"
    weights[[1, 7], [32 + 7, 32 + 25]] = 1  # columns
    found = Hypothesis(np.arange(8), -1.0, -1.0, True, weights)
    measured = caption_tiles.attention_on_tiles(layouts, [caption], [found], [caption])
    assert measured["attention_on_tile"] == 1
    assert measured["attention_by_chance"] == pytest.approx(1.5 * 14**2 / 32**2)
    weights[7, 20], weights[7, 15] = 0, 1  # between the tiles
    assert caption_tiles.attention_on_tiles(layouts, [caption], [found], [caption])["attention_on_tile"] == 0.5
    assert caption_tiles.attention_on_tiles(layouts, [caption], [found], ["a boot"])["attention_on_tile"] == 0


# emoji


@pytest.fixture
def emoji():
    """What `fusedrnn.data.emoji_pictures` makes of a font of five glyphs, one of them a ligature's."""
    people = {"\U0001f468": "man", "\U0001f469": "woman", "\U0001f3fd": "tone", "\U0001f34e": "apple", "\u2b55": "ring"}
    glyphs = {"man": (0, 200, 0), "woman": (0, 0, 200), "dark": (90, 60, 0), "apple": (255, 0, 0), "ring": (9, 9, 9)}
    font = emoji_font(glyphs, people, {("man", "tone"): "dark"})
    names = {
        "\U0001f468": (":man:", 2),
        "\U0001f468\U0001f3fd": (":man_medium_skin_tone:", 2),
        "\U0001f469": (":woman:", 2),
        "\U0001f34e": (":red_apple:", 2),
        "\u2b55\ufe0f": (":Hollow_Ring:", 2),
        "\u2b55": (":hollow:", 4),  # another spelling
        "\U0001f600": (":face:", 2),  # not in the font
    }
    return read_emoji(font, json.dumps({k: {"en": name, "status": s} for k, (name, s) in names.items()}).encode())


def test_emoji_are_found_by_characters_and_ligatures(emoji):
    assert emoji.captions == ["man", "man medium skin tone", "woman", "red apple", "hollow ring"]
    assert emoji.pictures.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(emoji.pictures[:4, 16, 16], [(0, 200, 0), (90, 60, 0), (0, 0, 200), (255, 0, 0)])
    assert (emoji.pictures[:, 0, 0] == 255).all(), "on white"


def test_one_thing_in_several_colours_is_one_group(emoji):
    assert emoji.groups[0] == emoji.groups[1] == emoji.groups[2]
    assert len(set(emoji.groups)) == 3
    assert group_of("\U0001f9d1\U0001f3fb\u200d\u2640\ufe0f") == group_of("\U0001f468\U0001f3ff\u200d\u2642")
    assert group_of("\U0001f34e") != group_of("\U0001f34f")


def test_no_group_is_on_both_sides():
    groups = np.repeat(np.arange(40), np.arange(40) % 5 + 1)
    made = emoji_pictures.Emoji(np.zeros((len(groups), 1)), [""] * len(groups), groups)
    for_test = caption_emoji.tested(made, "groups", np.random.default_rng(0))
    assert 0.1 * len(groups) <= for_test.sum() <= 0.1 * len(groups) + 5
    assert not set(groups[for_test]) & set(groups[~for_test])
    leaking = caption_emoji.tested(made, "pictures", np.random.default_rng(0))
    assert set(groups[leaking]) & set(groups[~leaking])


def test_what_is_no_font_and_no_names_is_said():
    names = json.dumps({"a": {"en": ":a:", "status": 2}}).encode()
    with pytest.raises(DataError, match="the font of emoji: cannot be read"):
        read_emoji(b"not a font", names)
    with pytest.raises(DataError, match="names of emoji: not the JSON"):
        read_emoji(b"", b'{"a": 3}')
    with pytest.raises(DataError, match="expected bitmaps for some of the names, got none"):
        read_emoji(emoji_font({"x": (1, 1, 1)}, {"b": "x"}, {("x", "x"): "x"}), names)


# the network


def test_the_networks_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(5)
    model = Captioner(4, 3, 2, 7, embedding=3, units=2, decoder_units=3, dtype="float64", rng=rng)
    pictures = rng.integers(256, size=(2, 4, 3, 2)).astype(np.uint8)
    tokens, target = columns([np.array([3, 4]), np.array([5])])
    loss = CrossEntropyLoss(ignore_index=-1)
    model.zero_grad()
    loss(model((pictures, tokens)), target)
    model.backward(loss.backward())
    for name, parameter in model.named_parameters():
        step = rng.standard_normal(parameter.data.shape)
        values = []
        for sign in (1, -1):
            parameter.data += sign * 1e-6 * step
            values.append(loss(model((pictures, tokens)), target))
            parameter.data -= sign * 1e-6 * step
        expected = (values[0] - values[1]) / 2e-6
        assert (parameter.grad * step).sum() == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_a_picture_is_read_by_rows_and_by_columns():
    model = Captioner(4, 3, 1, 7, embedding=3, units=2, decoder_units=3, rng=np.random.default_rng(6)).eval()
    picture = np.full((1, 4, 3, 1), 255, np.uint8)
    memory, start = model.encode(picture)
    assert memory.shape == (7, 1, 4)
    assert start.shape == (1, 8)
    picture[0, 3] = 0  # the last row: upwards all rows see it, downwards the last one alone
    after = model.encode(picture)[0]
    changed = np.abs(after - memory)[:, 0] > 1e-7
    assert changed[:4, 2:].all()
    assert changed[:4, :2].any(1).tolist() == [False, False, False, True]
    assert changed[4:].all()
    with pytest.raises(ValueError, match=r"pictures: expected uint8 \(N, 4, 3, 1\), got float64 \(1, 4, 3, 1\)"):
        model.encode(picture / 255)


def test_words_of_captions():
    words = Words.of(["a cat", "a dog", "a dog"])
    assert words.stored == ["a", "dog", "cat"]
    numbers = words.numbers("a bird dog")
    assert numbers.tolist() == [END + 1, UNKNOWN, END + 2]
    assert words.text(numbers) == "a dog"
    tokens, target = columns([numbers, words.numbers("cat")])
    assert tokens.T.tolist() == [[BEGIN, 3, 0, 4], [BEGIN, 5, -1, -1]]
    assert target.T.tolist() == [[3, 0, 4, END], [5, END, -1, -1]]


# measures


def test_measures():
    test = Fresh(Examples(np.zeros((2, 1, 1, 1), np.uint8), ["a b c d e", "a b c d f"]), exact="right", bleu="bleu_x")
    assert scores(test.examples.captions, test, "blind_", "_beam") == {"blind_right_beam": 1, "blind_bleu_x_beam": 100}
    assert scores(["a b c d e"] * 2, test)["right"] == 0.5
    assert word_recall(["b a x", ""], ["a a b c", "d"]) == pytest.approx((2 / 3 + 0) / 2)
    assert share_of_commonest(["x", "y", "y", "z"]) == 0.5
    known = Examples(np.array([[0, 0], [200, 0], [200, 255]], np.uint8).reshape(3, 1, 2, 1), ["none", "one", "two"])
    asked = np.array([[180, 20], [255, 200], [0, 1]], np.uint8).reshape(3, 1, 2, 1)
    assert nearest(known, asked) == ["one", "two", "none"]


# runs and files


@pytest.fixture
def little(monkeypatch, emoji):
    """All three exercises with few and small pictures."""
    rng = np.random.default_rng(7)
    labels = (np.arange(40) % 10).astype(np.uint8)
    images = rng.integers(256, size=(40, 28, 28)).astype(np.uint8)
    made = sources.Images(images, labels, images, labels, "little images")
    monkeypatch.setattr(sources, "load_images", lambda where, say: made)
    monkeypatch.setattr(emoji_pictures, "load_emoji", lambda say: emoji)
    for module in (caption_scenes, caption_tiles, caption_emoji):
        monkeypatch.setattr(module, "RECIPE", dataclasses.replace(module.RECIPE, units=4, decoder_units=4, most=5))
    for module in (caption_scenes, caption_tiles):
        monkeypatch.setattr(module, "TRAINING", 40)
        monkeypatch.setattr(module, "TESTED", 10)


@pytest.mark.parametrize("kind", ["scenes", "tiles", "emoji"])
def test_every_exercise_trains_and_captions_a_file(little, kind, tmp_path):
    own = {"split": "pictures"} if kind == "emoji" else {"attention": "general"}
    run = tmp_path / "run"
    command = Command(steps=2, data=None if kind == "scenes" else kind, out=run, own=own, progress=False)
    metrics, line = run_task(TASKS["caption"], command)
    assert "BLEU-4" in line
    expected = {"scenes": "exact_unseen_beam", "tiles": "attention_on_tile", "emoji": "word_recall"}
    assert {
        expected[kind],
        "exact",
        "bleu",
        "exact_beam",
        "blind_exact",
        "blind_most",
        "nearest_bleu",
    } <= metrics.keys()
    picture = tmp_path / "a picture.png"
    Image.new("RGB", (70, 50), "red").save(picture)
    for name in ("a picture-attention.png", "a picture-attention-2.png"):
        done = CliRunner().invoke(cli.app, ["predict", str(run), str(picture)])
        assert done.exit_code == 0, done.output
        assert name in done.output.replace("\n", "")
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    done = CliRunner().invoke(cli.app, ["predict", str(run), str(tmp_path / "notes.txt")])
    assert done.exit_code == 2
    assert "expected a picture" in done.output


@pytest.mark.parametrize(
    ("where", "own", "message"),
    [
        ("coco", {}, "--data: expected one of scenes, tiles, emoji, got coco"),
        (None, {"split": "groups"}, "--split: expected it with --data emoji alone"),
        ("emoji", {"split": "half"}, "--split: expected one of groups, pictures, got half"),
        (None, {"attention": "hard"}, "--attention: expected one of additive, dot, general, none, got hard"),
    ],
)
def test_options_that_do_not_fit(little, where, own, message, tmp_path):
    with pytest.raises(RunError, match=message):
        run_task(TASKS["caption"], Command(steps=1, data=where, out=tmp_path / "run", own=own, progress=False))


def test_a_picture_file_becomes_what_the_network_wants(tmp_path):
    pixels = np.zeros((40, 80, 4), np.uint8)
    pixels[:, :40] = (255, 0, 0, 255)  # the right half is transparent
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    picture = read_picture(tmp_path / "wide.png", (8, 8, 3))
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert (picture[[0, 1, 6, 7]] == 255).all(), "white above and below, so that nothing is distorted"
    assert (picture[2:6, :4] == (255, 0, 0)).all()
    assert (picture[2:6, 4:] == 255).all()
    assert read_picture(tmp_path / "wide.png", (8, 8, 1)).shape == (8, 8, 1)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("RGB", (30, 30)).save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name, message in (
        ("text.png", "expected a picture, got a file that cannot be read as one"),
        ("torn.png", "expected a picture, got a file that cannot be read as one"),
        ("none.png", "No such file"),
        (".", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            read_picture(tmp_path / name, (8, 8, 3))


def test_no_file_is_overwritten(tmp_path):
    picture = tmp_path / "x.y.jpg"
    assert free_path_beside(picture, "-attention.png") == tmp_path / "x.y-attention.png"
    (tmp_path / "x.y-attention.png").write_text("precious")
    assert free_path_beside(picture, "-attention.png") == tmp_path / "x.y-attention-2.png"
