"""Pen strokes: offsets and back, equal distances, the font, KanjiVG's curves, IAM-OnDB's files."""

from __future__ import annotations

import base64
import bz2
import io
import tarfile
import zipfile

import numpy as np
import pytest

from fusedrnn.data import iam, kanji, script_font, sources
from fusedrnn.data.reading import DataError
from fusedrnn.data.strokes import Drawing, as_offsets, as_strokes, resampled, scale_of, scaled
from tests import strokes_made

STROKES = [np.array([[5.0, 5], [6, 5], [6, 7]]), np.array([[9.0, 9]]), np.array([[1.0, 2], [3, 4]])]


def test_offsets_and_back():
    offsets = as_offsets(STROKES)
    assert offsets.tolist() == [[1, 0, 0], [0, 2, 1], [3, 2, 1], [-8, -7, 0], [2, 2, 1]]
    for stroke, found in zip(STROKES, as_strokes(offsets), strict=True):
        np.testing.assert_allclose(found + np.array([5, 5]), stroke)


def test_points_lie_at_equal_distances_along_a_stroke():
    corner = np.array([[0.0, 0], [4, 0], [4, 4]])
    points = resampled(corner, 1.0)
    assert points.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [4, 1], [4, 2], [4, 3], [4, 4]]
    assert len(resampled(corner, 100.0)) == 2, "both ends stay"


def test_the_scale_is_that_of_all_points():
    drawings = [Drawing(np.array([[3.0, 4, 0]], "f"), "a"), Drawing(np.array([[0.0, 5, 1], [5, 0, 1]], "f"), "b")]
    assert scale_of(drawings) == pytest.approx(5)
    assert scaled(drawings, 5.0)[0].offsets.tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 0]]
    assert scaled(drawings, 5.0)[1].offsets[:, 2].tolist() == [1, 1]


def test_the_font_is_read():
    glyphs = strokes_made.glyphs()
    assert set(glyphs) == set(script_font.CHARACTERS)
    a = glyphs["a"]  # code 97: 97 % 3 = 1, 97 % 7 = 6
    assert (a.left, a.right) == (-5, 3)
    assert [stroke.tolist() for stroke in a.strokes] == [[[-4, 4], [0, 0], [2, 9], [2, 8]]]
    assert len(glyphs["d"].strokes) == 2, "code 100 lifts the pen"
    assert glyphs[" "].strokes == []


def test_a_text_in_a_style():
    glyphs = strokes_made.glyphs()
    rng = np.random.default_rng(0)
    plain = script_font.written(glyphs, "ad a", script_font.Style(1, 0, 2, 0), rng)
    assert plain.text == "ad a"
    strokes = as_strokes(plain.offsets)
    assert len(strokes) == 4, "one, two, none, one"
    large = script_font.written(glyphs, "ad a", script_font.Style(2, 0, 4, 0), rng)
    np.testing.assert_allclose(large.offsets[:, :2], 2 * plain.offsets[:, :2], atol=1e-5)
    first, slanted = (
        as_strokes(script_font.written(glyphs, "a", script_font.Style(1, slant, 100, 0), rng).offsets)[0]
        for slant in (0, 0.5)
    )
    move = slanted[-1] - first[-1]
    assert move[0] == pytest.approx(-0.5 * first[-1][1]), "what lies lower is further left"
    trembling = script_font.written(glyphs, "ad a", script_font.Style(1, 0, 2, 0.1), rng)
    assert 0.05 < (trembling.offsets - plain.offsets)[:, :2].std() < 0.3


def test_letters_that_touch_are_joined():
    ends = {"x": np.array([[0.0, 0], [10, 0]]), "y": np.array([[0.5, 0], [10, 3]])}
    glyphs = {c: script_font.Glyph(0, 10, [stroke]) for c, stroke in ends.items()}
    style = script_font.Style(1, 0, 100, 0)
    rng = np.random.default_rng(0)
    assert len(as_strokes(script_font.written(glyphs, "xy", style, rng).offsets)) == 1
    far = {**glyphs, "y": script_font.Glyph(-5, 10, [ends["y"]])}
    assert len(as_strokes(script_font.written(far, "xy", style, rng).offsets)) == 2


def test_texts_are_of_the_alphabet_and_no_longer_than_asked():
    rng = np.random.default_rng(0)
    texts = [script_font.draw_text(rng, 14) for _ in range(3000)]
    assert max(map(len, texts)) <= 14
    assert set("".join(texts)) == set(script_font.CHARACTERS), "every character is learnt"
    assert not any(text != text.strip() or "  " in text for text in texts)


def test_the_font_is_taken_out_of_its_package_and_nothing_is_run(tmp_path, monkeypatch):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as fonts:
        content = strokes_made.font().encode()
        member = tarfile.TarInfo("scripts")
        member.size = len(content)
        fonts.addfile(member, io.BytesIO(content))
    packed = base64.b64encode(bz2.compress(archive.getvalue())).decode()
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr(
            "HersheyFonts/HersheyFonts.py", f"raise SystemExit\n    __compressed_fonts_base64 = B'''{packed}'''\n"
        )
    asked = []

    def fetched(path, sha256, requirement, extract, what, say):
        asked.append((path.name, requirement.split()[0]))
        return extract(wheel.getvalue())

    monkeypatch.setattr(sources, "fetched", fetched)
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path))
    found, wanted = script_font.load_font(print), strokes_made.glyphs()
    assert asked == [("scripts.jhf", "Hershey-Fonts==2.1.0")]
    for character, glyph in wanted.items():
        assert [s.tolist() for s in found[character].strokes] == [s.tolist() for s in glyph.strokes]


@pytest.mark.parametrize(
    ("path", "points"),
    [
        ("M1,2 C1,2 4,2 4,2", [(1, 2), (4, 2)]),
        ("m1,2c0,0,3,0,3,0", [(1, 2), (4, 2)]),
        ("M0,0c1-1,2-1,3,0s2,1,3,0", [(0, 0), (3, 0), (6, 0)]),
        ("M0,0C.5,1,1.5,1,2,0S3.5-1,4,0", [(0, 0), (2, 0), (4, 0)]),
    ],
)
def test_paths_of_svg(path, points):
    found = kanji.read_path(path)
    places = [0] + [12 * i for i in range(1, len(points))]
    np.testing.assert_allclose(found[places], points, atol=1e-12)


def test_curves_are_those_of_bezier_and_go_on_smoothly():
    found = kanji.read_path("M0,0C0,3,3,3,3,0S6-3,6,0")
    middle = found[6]  # t = 1/2: (p0 + 3 p1 + 3 p2 + p3) / 8
    np.testing.assert_allclose(middle, [1.5, 2.25])
    before, after = found[12] - found[11], found[13] - found[12]
    assert before @ after / np.linalg.norm(before) / np.linalg.norm(after) > 0.99, "S mirrors the control"


def test_other_paths_are_refused():
    for path in ("M0,0L1,1", "M0,0C1,1,2,2", "M"):
        with pytest.raises(ValueError, match="path: expected M, C and S"):
            kanji.read_path(path)


def test_characters_of_kanjivg(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sources, "fetched", lambda path, sha, req, extract, what, say: extract(strokes_made.kanji_wheel())
    )
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path))
    found = kanji.load_kanji(print)
    assert [drawing.text for drawing in found] == ["A", "一"], "variants are left out"
    assert [int(drawing.offsets[:, 2].sum()) for drawing in found] == [1, 2]
    start = as_strokes(found[1].offsets)[1][0]
    np.testing.assert_allclose(start, [30, -10], atol=1e-5)


def test_lines_of_iam(tmp_path):
    found = iam.load_iam(strokes_made.iam_folder(tmp_path))
    assert [drawing.text for drawing in found] == ["Hello there", "my friend", "One line"]
    for drawing in found:
        assert drawing.offsets.shape == (17, 3)
        assert np.flatnonzero(drawing.offsets[:, 2]).tolist() == [4, 10, 16]


def test_files_of_iam_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no such folder, and not the word kanji"):
        iam.load_iam(tmp_path / "none")
    with pytest.raises(DataError, match="has no lineStrokes"):
        iam.load_iam(tmp_path)
    folder = strokes_made.iam_folder(tmp_path / "x")
    (broken,) = (folder / "lineStrokes").rglob("a02*.xml")
    for content, message in (
        ("<a><Stroke>", "not the strokes of a line"),
        ('<a><Stroke><Point x="1" y="q"/></Stroke></a>', "not the strokes of a line"),
        ('<a><Stroke><Point x="1"/></Stroke></a>', "not the strokes of a line"),
        ('<a><Stroke><Point x="1" y="2"/></Stroke></a>', "expected at least two points, got 1"),
        ('<a><Stroke><Point x="1" y="2"/><Point x="nan" y="2"/></Stroke></a>', "expected finite points"),
    ):
        broken.write_text(content)
        with pytest.raises(DataError, match=message):
            iam.load_iam(folder)
    for path in (folder / "ascii").rglob("*.txt"):
        path.write_text("CSR:\n")
    with pytest.raises(DataError, match="has no line whose transcription is in ascii"):
        iam.load_iam(folder)
