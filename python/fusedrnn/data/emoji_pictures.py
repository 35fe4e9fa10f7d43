"""Emoji as pictures with their English names: Noto's colour bitmaps, out of Debian's package of the font, and the names
of the Python package emoji, of which nothing is run.

A picture is found as text would be set: characters become glyphs, sequences of them ligatures, and each of these has a
bitmap (OpenType's tables cmap, GSUB and CBDT), read with fontTools and Pillow, which matplotlib brings.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.debian import Package, fetched_file
from fusedrnn.data.reading import DataError
from fusedrnn.data.sources import Bytes, cache_folder, fetched
from fusedrnn.extras import needed_for

SIDE = 32  # pixels
_FONT = Package(
    "f/fonts-noto-color-emoji/fonts-noto-color-emoji_2.042-0+deb12u1_all.deb",
    "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
)
_FONT_MEMBER = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_FONT_SHA256 = "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"
_NAMES = "emoji==2.16.0 --hash=sha256:c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330"
_NAMES_MEMBER = "emoji/unicode_codes/emoji.json"
_NAMES_SHA256 = "68d0dc4ac61ccb49c1335809ffb963bcca0fdb4a7e04278ff597125a2b043122"
_QUALIFIED = 2  # of a name's "status": the full sequence, which other spellings shorten
_COLOURED = "\ufe0f"  # asks for the coloured form; the font needs no asking
_TONES = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
_SIGNS = re.compile("\u200d[\u2640\u2642\u27a1]")  # joined to a person: woman, man, facing right
_PERSONS = str.maketrans(
    {
        **dict.fromkeys("\U0001f468\U0001f469", "\U0001f9d1"),  # man, woman: person
        **dict.fromkeys("\U0001f466\U0001f467", "\U0001f9d2"),  # boy, girl: child
        **dict.fromkeys("\U0001f474\U0001f475", "\U0001f9d3"),  # old man, old woman: older person
    }
)


class Emoji(NamedTuple):
    """Pictures [n, 32, 32, 3] uint8 on white, their names, and which of them show the same thing: groups [n]."""

    pictures: Bytes
    captions: list[str]
    groups: Array


def load_emoji(say: Callable[[str], None]) -> Emoji:
    """Return Noto's emoji, from the cache folder or else fetched into it. Raises DataError."""
    cache = cache_folder()
    font = fetched_file(
        cache / "noto-emoji" / "NotoColorEmoji.ttf", _FONT_SHA256, _FONT, _FONT_MEMBER, "Noto's emoji (10 MB)", say
    )
    path = cache / "emoji-names" / "emoji.json"
    names = fetched(path, _NAMES_SHA256, _NAMES, _NAMES_MEMBER, "names of emoji (0.6 MB)", say)
    return read_emoji(font, names)


def read_emoji(font: bytes, names: bytes) -> Emoji:
    """Read a font with bitmaps, and a JSON object that has for each emoji ``{"en": ":its_name:", "status": 2, ...}``.

    Of several emoji with one picture, as some flags are, the first counts; what the font lacks is left out.
    """
    try:
        table = json.loads(names)
        named = {text: entry["en"] for text, entry in table.items() if entry["status"] == _QUALIFIED}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"names of emoji: not the JSON that was expected ({error!r:.80})") from None
    bitmaps = _bitmaps(font, named)
    texts = [text for text in named if text in bitmaps]
    if not texts:
        raise DataError("the font of emoji: expected bitmaps for some of the names, got none")
    groups = np.unique([group_of(text) for text in texts], return_inverse=True)[1]
    captions = [" ".join(named[text].strip(":").lower().split("_")) for text in texts]
    return Emoji(np.stack([_picture(bitmaps[text]) for text in texts]), captions, groups)


def group_of(text: str) -> str:
    """Return what an emoji shows, whatever the skin's tone, the person's sex and the direction.

    A set of these in training would show the very picture of a test, but for its colours or its hair.
    """
    return _SIGNS.sub("", _TONES.sub("", text)).translate(_PERSONS)


def _bitmaps(font: bytes, texts: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the PNGs of texts that have one glyph with a bitmap, each glyph once."""
    with needed_for("emoji", "train"):
        from fontTools.ttLib import TTFont, TTLibError
    try:
        tables = TTFont(io.BytesIO(font), lazy=True)
        glyph_of: dict[int, str] = tables.getBestCmap()
        ligatures = {
            (first, *ligature.Component): ligature.LigGlyph
            for lookup in tables["GSUB"].table.LookupList.Lookup
            for subtable in lookup.SubTable
            for first, found in getattr(subtable, "ligatures", {}).items()
            for ligature in found
        }
        strike = tables["CBDT"].strikeData[0]
        seen: dict[str, bytes] = {}
        drawn = set()
        for text in texts:
            glyphs = tuple(glyph_of.get(ord(character)) for character in text if character != _COLOURED)
            glyph = glyphs[0] if len(glyphs) == 1 else ligatures.get(glyphs)
            if glyph in strike and glyph not in drawn:
                seen[text] = strike[glyph].imageData
                drawn.add(glyph)
        return seen
    except (TTLibError, KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
        raise DataError(f"the font of emoji: cannot be read ({error!r:.80})") from None


def _picture(png: bytes) -> Bytes:
    """Return a PNG in the middle of a white square, 32 by 32."""
    with needed_for("emoji", "train"):
        from PIL import Image
    bitmap = Image.open(io.BytesIO(png)).convert("RGBA")
    side = max(bitmap.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(bitmap, ((side - bitmap.width) // 2, (side - bitmap.height) // 2))
    picture: Bytes = np.asarray(square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
    return picture
