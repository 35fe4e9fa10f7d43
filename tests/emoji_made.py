"""A font with coloured bitmaps, made as Noto's is: characters, a ligature, one PNG for each glyph."""

from __future__ import annotations

import io

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import BitmapSizeTable, SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image

WIDTH, HEIGHT = 34, 32
LINE = (
    "ascender", "descender", "widthMax", "caretSlopeNumerator", "caretSlopeDenominator", "caretOffset", "minOriginSB",
    "minAdvanceSB", "maxBeforeBL", "minAfterBL", "pad1", "pad2",
)  # fmt: skip


def png(colour):
    """A disc of one colour on nothing."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot(y - HEIGHT / 2 + 0.5, x - WIDTH / 2 + 0.5) < 14
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[inside] = (*colour, 255)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def emoji_font(glyphs, characters, ligatures):
    """The bytes of a font: glyphs {name: colour}, characters {character: name}, ligatures {(name, ...): name}."""
    names = [".notdef", *dict.fromkeys([*glyphs, *characters.values()])]
    builder = FontBuilder(1000, isTTF=False)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in characters.items()})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader()
    builder.setupPost()
    rules = " ".join(f"sub {' '.join(parts)} by {name};" for parts, name in ligatures.items())
    builder.addOpenTypeFeatures(f"feature ccmp {{ {rules} }} ccmp;")
    _add_bitmaps(builder.font, glyphs)
    stream = io.BytesIO()
    builder.save(stream)
    return stream.getvalue()


def _add_bitmaps(font, glyphs):
    """Add the tables CBDT and CBLC: one strike with a PNG for each glyph."""
    metrics = SmallGlyphMetrics()
    metrics.height, metrics.width, metrics.BearingX, metrics.BearingY, metrics.Advance = HEIGHT, WIDTH, 0, 0, WIDTH
    bitmaps = {}
    for name, colour in glyphs.items():
        bitmaps[name] = cbdt_bitmap_format_17(b"", font)
        bitmaps[name].metrics, bitmaps[name].imageData = metrics, png(colour)
    index = eblc_index_sub_table_1(b"", font)
    index.indexFormat, index.imageFormat, index.imageSize = 1, 17, None
    index.names = sorted(glyphs, key=font.getGlyphID)
    strike = Strike()
    strike.bitmapSizeTable, strike.indexSubTables = BitmapSizeTable(), [index]
    table = strike.bitmapSizeTable
    table.ppemX = table.ppemY = HEIGHT
    table.bitDepth, table.flags, table.colorRef = 32, 1, 0
    for direction in ("hori", "vert"):
        line = SbitLineMetrics()
        for field in LINE:
            setattr(line, field, 0)
        setattr(table, direction, line)
    font["CBDT"], font["CBLC"] = newTable("CBDT"), newTable("CBLC")
    font["CBDT"].version = font["CBLC"].version = 3.0
    font["CBDT"].strikeData, font["CBLC"].strikes = [bitmaps], [strike]
