"""``fusedrnn sample`` of a run of handwriting: texts as lines of strokes, as SVG, as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data.strokes import Drawing, as_strokes
from fusedrnn.plots import handwriting as sheets
from fusedrnn.tasks.handwriting_model import Both, Predictor, Sizes, Synthesizer
from fusedrnn.tasks.handwriting_writing import draw_points, on_a_line, write_words
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import RunError, SampleOptions

_LINE = 32  # characters of a line


def text_line(
    model: Synthesizer, words: Sequence[str], alphabet: str, rng: np.random.Generator, bias: float, style: Drawing
) -> list[Array]:
    """Write words on one line in a style; return the strokes [n, 2]."""
    return on_a_line(write_words(model, words, alphabet, rng, bias=bias, style=style))


def drawn_line(model: Predictor, rng: np.random.Generator, bias: float, most: int) -> list[Array]:
    """Draw so many points without a text; return the strokes [n, 2]."""
    return as_strokes(draw_points(model, 1, rng, bias=bias, most=most)[0])


def sample(folder: Path, options: SampleOptions) -> None:
    """Write a text with the network of a run, or draw where it knows no texts.

    ``prime``: the text; lines break at newlines, and between words when they are full. Without one, and with a run that
    knows no texts, points of which each follows from those before. ``bias``, ``seed``: of the densities (Graves 2013,
    section 5.4), of what is drawn. ``count``: versions. ``style``: from 1, a held-out word whose style they have;
    None: each that of another, which the seed chooses.
    ``length``: points of a drawing without a text. ``out``: .svg or .png; None prints a line "x,y x,y ..." for each
    stroke, in units of the mean distance of points, y downwards.

    Raises:
        RunError: Options that do not fit. CheckpointError: No such run.
    """
    if options.temperature != 1:
        raise RunError(f"--temperature: handwriting has --bias instead, got {options.temperature}")
    if options.out is not None and options.out.suffix not in (".svg", ".png"):
        raise RunError(f"--out: expected a name that ends in .svg or .png, got {options.out}")
    saved = SavedRun(folder)
    saved.require("handwriting")
    sizes, alphabet = saved.metadata.of("sizes").fill(Sizes), saved.metadata.of("alphabet").text()
    saved.require_size(8 * sizes.units**2, saved.metadata.of("sizes"))
    model: Both | Predictor = Both(sizes) if alphabet else Predictor(sizes)
    saved.load(model)
    rng = np.random.default_rng(options.seed)
    if options.prime is None or not isinstance(model, Both):
        if options.prime is not None:
            raise RunError("--prime: expected none, the run has learnt from drawings without a text")
        if options.style is not None:
            raise RunError("--style: expected a text beside it, --prime TEXT")
        predictor = model.predictor if isinstance(model, Both) else model
        drawn = draw_points(predictor, options.count, rng, bias=options.bias, most=options.length)
        lines = [as_strokes(offsets) for offsets in drawn]
    else:
        styles = _styles(saved)
        if options.style is not None and not 1 <= options.style <= len(styles):
            raise RunError(f"--style: expected 1 to {len(styles)}, got {options.style}")
        lines = []
        for version in range(options.count):
            chosen = (options.seed + version) % len(styles) if options.style is None else options.style - 1
            lines += _text_lines(model.synthesizer, options.prime, alphabet, rng, options.bias, styles[chosen])
    if options.out is None:
        for strokes in lines:
            for stroke in strokes:
                options.say(" ".join(f"{x:.3f},{y:.3f}" for x, y in stroke))
    elif options.out.suffix == ".svg":
        sheets.write_svg(options.out, lines)
    else:
        sheets.draw_lines(options.out, lines)


def _text_lines(
    model: Synthesizer, text: str, alphabet: str, rng: np.random.Generator, bias: float, style: Drawing
) -> list[list[Array]]:
    """Write a text on as many lines as it takes, all of them in one style."""
    unknown = sorted(set(text) - set(alphabet) - {"\n"})
    if unknown:
        raise RunError(f"--prime: expected characters of {alphabet!r}, got {', '.join(map(repr, unknown))}")
    wrapped = [part for line in text.split("\n") for part in textwrap.wrap(line, _LINE) if part]
    if not wrapped:
        raise RunError("--prime: expected a text, got blanks alone")
    return [text_line(model, line.split(), alphabet, rng, bias, style) for line in wrapped]


def _styles(saved: SavedRun) -> list[Drawing]:
    """Return the held-out drawings that the run keeps, at least one."""
    kept = saved.metadata.of("styles")
    found = []
    for part in kept.items():
        offsets = np.array([entry.number() for entry in part.of("offsets").items()], np.float32)
        if offsets.size % 3 or not offsets.size:
            part.refuse(f"expected offsets of three numbers each, got {offsets.size}")
        found.append(Drawing(offsets.reshape(-1, 3), part.of("text").text()))
    if not found:
        kept.refuse("expected drawings, got none")
    return found
