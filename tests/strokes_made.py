"""Small files of the forms that drawings come in: a font of Hershey's, characters of KanjiVG, lines of IAM-OnDB."""

from __future__ import annotations

import io
import zipfile

from fusedrnn.data import script_font


def font():
    """Every character a stroke of its own, some with a second: a text that `script_font.read_font` reads."""
    lines = ['#{"define_base_line": 9.0}']
    for code in range(32, 127):
        turn = code % 7
        pairs = ["M" + chr(ord("T") + code % 3), "N" + chr(ord("P") + turn), "R" + chr(ord("L") + turn), "T[", "TZ"]
        if code % 5 == 0:
            pairs += [" R", "QI", "SJ"]
        if code == 32:
            pairs = ["JZ"]
        lines.append(f"{code:5d}{len(pairs):3d}" + "".join(pairs))
    return "\n".join(lines)


def glyphs():
    """The glyphs of that font."""
    return script_font.read_font(font())


def kanji_wheel():
    """A wheel with two characters and a variant."""
    body = '<svg><path id="kvg:{0}-s1" d="M10,20c5,0,10,5,10,10s-5,10,0,12"/>{1}</svg>'
    second = '<path id="kvg:x-s2" kvg:type="a" d="M 40,10 C40,20 50,20 50,30"/>'
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("kanji/00041.svg", body.format("00041", ""))
        archive.writestr("kanji/04e00.svg", body.format("04e00", second))
        archive.writestr("kanji/04e00-Kaisho.svg", body.format("04e00", second))
    return content.getvalue()


def iam_folder(folder, lines=(("a01-001", ["Hello there", "my friend"]), ("a02-007", ["One line"]))):
    """IAM-OnDB's two folders with so many lines of a few points."""
    for number, (name, texts) in enumerate(lines):
        ascii_folder = folder / "ascii" / name[:3] / name
        ascii_folder.mkdir(parents=True)
        corrected = "\n".join(texts)
        (ascii_folder / f"{name}.txt").write_text(f"OCR:\n\nHe11o\n\nCSR:\n\n{corrected}\n")
        for line in range(1, len(texts) + 1):
            strokes = folder / "lineStrokes" / name[:3] / name
            strokes.mkdir(parents=True, exist_ok=True)
            places = [[(100 * s + 10 * i + number, 50 * line + i * i) for i in range(6)] for s in range(3)]
            strokes_of_line = "".join(
                "<Stroke>" + "".join(f'<Point x="{x}" y="{y}" time="0.1"/>' for x, y in stroke) + "</Stroke>"
                for stroke in places
            )
            content = f'<?xml version="1.0"?><Session><StrokeSet>{strokes_of_line}</StrokeSet></Session>'
            (strokes / f"{name}-{line:02d}.xml").write_text(content)
    return folder
