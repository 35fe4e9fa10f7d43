"""Handwriting, point by point: what the pen does next, and any text written (Graves 2013, arXiv:1308.0850).

Two networks learn side by side from the same drawings. One predicts the next point from those before: LSTM layers
with skip connections under a mixture density (section 3). The other also has the text, through a soft window that
slides along it (section 5), and so can be told what to write. Points are offsets in units of their root mean square
length.

Data: cursive words of `fusedrnn.data.script_font`, which are synthetic; ``--data kanji``, the characters of KanjiVG,
drawn by hand, without a text; ``--data FOLDER``, the files of IAM-OnDB.

Metrics, of held-out drawings: ``nll``, -log density of prediction in nats a point, and ``sse``, squared distance of
the density's mean from the point; ``nll_conditioned``, ``sse_conditioned``, those of the network that has the text;
``nll_wrong_text``, the same with the text of another drawing; ``window_ok``, the fraction of texts along which the
window moves on without going back and ends within one character of the end; ``read_back``, the fraction of letters of
words written with bias 1 that a reader without a network recognises. The baseline is one Gaussian and a coin for the
pen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.data import iam, kanji, script_font
from fusedrnn.data.strokes import Drawing, as_strokes, scale_of, scaled
from fusedrnn.functional import mixture_density_mean
from fusedrnn.nn import MixtureDensityLoss, Module
from fusedrnn.nn.padding import padded
from fusedrnn.optim import Adam, CosineLR
from fusedrnn.plots import handwriting as sheets
from fusedrnn.tasks.handwriting_model import PRESENT, Both, Predictor, Sizes, Synthesizer
from fusedrnn.tasks.handwriting_reading import Reader, cuts_of
from fusedrnn.tasks.handwriting_sampling import drawn_line, sample, text_line
from fusedrnn.tasks.handwriting_writing import numbered, write_text
from fusedrnn.tasks.task import Metrics, Options, Preset, Run, Task
from fusedrnn.train.bucketing import LengthBatches

TRAINING, HELD_OUT, READ = 12_000, 500, 40  # drawings; words that are written and read back
LONGEST = 14  # characters of a drawn text
BATCH, UNITS, COMPONENTS, WINDOW = 32, 96, 10, 10
LR, CLIP = 4e-3, 5.0
_PANGRAMS = ("How vexingly quick daft", "zebras jump! And five", "boxing wizards jump, too,", "on 10 of 26 letters.")
STYLES = 8  # held-out drawings that a run keeps, to write in their styles


@dataclass(frozen=True)
class Drawings:
    """Drawings in units of their root mean square step, to train on and held out, and the characters of their texts.

    ``alphabet`` is empty where they write no text.
    """

    training: list[Drawing]
    held_out: list[Drawing]
    alphabet: str
    scale: float
    source: str


# data


def load(where: str | None, seed: int, settings: Mapping[str, Any], say: Callable[[str], None]) -> Drawings:
    """Return the drawings of a run. Raises DataError."""
    rng = np.random.default_rng([seed, 7])
    if where is None:
        glyphs = script_font.load_font(say)
        count = settings.get("training", TRAINING) + HELD_OUT
        drawings = [
            script_font.written(glyphs, script_font.draw_text(rng, LONGEST), script_font.draw_style(rng), rng)
            for _ in range(count)
        ]
        return _split(drawings, HELD_OUT, script_font.CHARACTERS, "cursive words, synthetic")
    if where == "kanji":
        drawings = [drawing._replace(text="") for drawing in kanji.load_kanji(say)]
        return _split([drawings[i] for i in rng.permutation(len(drawings))], len(drawings) // 20, "", "KanjiVG")
    drawings = iam.load_iam(Path(where))
    alphabet = "".join(sorted({character for drawing in drawings for character in drawing.text}))
    order = rng.permutation(len(drawings))
    return _split([drawings[i] for i in order], max(1, len(drawings) // 20), alphabet, Path(where).name)


def _split(drawings: list[Drawing], held_out: int, alphabet: str, source: str) -> Drawings:
    scale = scale_of(drawings[held_out:])
    drawings = scaled(drawings, scale)
    return Drawings(drawings[held_out:], drawings[:held_out], alphabet, scale, source)


def batch(drawings: Sequence[Drawing], alphabet: str) -> tuple[tuple[Array, Array], Array]:
    """Make x and target: ((points [T, N, 4], texts [U, N]), [T, N, 4]).

    Step t has offset and pen of point t, none before the first, and 1 where there is such a step; its target are those
    of the point after it, and the weight, 1 where there is one.
    """
    steps = max(len(d.offsets) for d in drawings)
    x = np.zeros((steps, len(drawings), 4), np.float32)
    target = np.zeros_like(x)
    for n, (offsets, _) in enumerate(drawings):
        x[1 : len(offsets), n, :3] = offsets[:-1]
        x[: len(offsets), n, PRESENT] = 1
        target[: len(offsets), n, :3] = offsets
        target[: len(offsets), n, 3] = 1
    return (x, padded([numbered(d.text, alphabet) for d in drawings])), target


# metrics


def density_metrics(parameters: Array, target: Array) -> tuple[float, float]:
    """Return nats a point (-log density) and the squared distance of the mean, of parameters [T, N, 6K + 1]."""
    weight = target[:, :, 3]
    nll = MixtureDensityLoss()(parameters, target)
    square = np.square(mixture_density_mean(parameters) - target[:, :, :2]).sum(-1)
    return nll, float((square * weight).sum(dtype=np.float64) / weight.sum(dtype=np.float64))


def one_gaussian(training: Sequence[Drawing], held_out: Sequence[Drawing]) -> Metrics:
    """Measure the baseline: a Gaussian of the offset and a coin for the pen, from training; ``sse`` of the mean."""
    offsets = np.concatenate([d.offsets for d in training]).astype(np.float64)
    covariance, lifted = np.cov(offsets[:, :2].T), offsets[:, 2].mean()
    sigma = np.sqrt(covariance.diagonal())
    rho, end = np.arctanh(covariance[0, 1] / sigma.prod()), np.log(lifted / (1 - lifted))
    row = np.array([0, *offsets[:, :2].mean(0), *np.log(sigma), rho, end])
    _, target = batch([d._replace(text="") for d in held_out], "")
    nll, sse = density_metrics(np.broadcast_to(row, (*target.shape[:2], 7)).copy(), target.astype(np.float64))
    return {"nll": nll, "sse": sse}


def window_is_right(weights: Array, characters: int) -> bool:
    """Tell whether a window, φ [T, U + 1], moves on along so many characters and ends within one of the last.

    It is at the character that has the most weight, and may never go back.
    """
    place = weights.argmax(axis=1) + 1
    return bool((np.diff(place) >= 0).all() and abs(int(place[-1]) - characters) <= 1)


class Test:
    """Measure held-out drawings; in evaluation mode."""

    def __init__(self, drawings: Drawings) -> None:
        self.drawings = drawings.held_out
        self.alphabet = drawings.alphabet
        self.x, self.target = batch(self.drawings, self.alphabet)

    def densities(self, model: Both | Predictor) -> Metrics:
        """Return ``nll`` and ``sse``, and those of the network with the text where there is one."""
        predictor = model.predictor if isinstance(model, Both) else model
        found = dict(zip(("nll", "sse"), density_metrics(predictor(self.x[0]), self.target), strict=True))
        if isinstance(model, Both):
            names = ("nll_conditioned", "sse_conditioned")
            found |= dict(zip(names, density_metrics(model.synthesizer(self.x), self.target), strict=True))
        return found

    def of_text(self, model: Synthesizer) -> Metrics:
        """Return ``nll_wrong_text`` and ``window_ok``."""
        points, texts = self.x
        wrong = np.ascontiguousarray(np.roll(texts, 1, axis=1))  # each has that of its neighbour
        nll, _ = density_metrics(model((points, wrong)), self.target)
        _, window = model.look(points, texts)
        right = [
            window_is_right(window.weights[: len(d.offsets), n, : len(d.text) + 1], len(d.text))
            for n, d in enumerate(self.drawings)
        ]
        return {"nll_wrong_text": nll, "window_ok": float(np.mean(right))}


def read_back(model: Synthesizer, reader: Reader, words: Sequence[str], alphabet: str, seed: int) -> list[str]:
    """Write words with bias 1, and return what a reader takes them to be."""
    rng = np.random.default_rng([seed, 9])
    found = []
    for word in words:
        writing = write_text(model, numbered(word, alphabet), rng, bias=1.0)
        found.append(reader.read(cuts_of(writing, len(word))))
    return found


def letters_right(words: Sequence[str], found: Sequence[str]) -> float:
    """Return the fraction of letters that were recognised."""
    pairs = [(a, b) for word, other in zip(words, found, strict=True) for a, b in zip(word, other, strict=True)]
    return float(np.mean([a == b for a, b in pairs]))


# the run


def setup(options: Options) -> Run:
    """Make one run: drawings, the two networks side by side, optimizer."""
    settings, seed = options.preset.settings, options.seed
    drawings = load(options.data, seed, settings, options.say)
    points = sum(len(d.offsets) for d in drawings.training)
    characters = sum(len(d.text) for d in drawings.training)
    spacing = characters / points if characters else 1.0
    sizes = Sizes(settings.get("units", UNITS), COMPONENTS, WINDOW, len(drawings.alphabet), spacing)
    rng = np.random.default_rng(seed)
    model: Both | Predictor = Both(sizes, rng) if drawings.alphabet else Predictor(sizes, rng)
    test = Test(drawings)
    lengths = np.array([len(d.offsets) for d in drawings.training])
    members = 2 if drawings.alphabet else 1

    def batches(epoch: int) -> LengthBatches:
        def make(rows: Array, _: np.random.Generator) -> tuple[Any, Array]:
            x, target = batch([drawings.training[i] for i in rows], drawings.alphabet)
            if members == 1:
                return x[0], target
            return x, np.repeat(target[None], members, axis=0)

        return LengthBatches(lengths, BATCH, [seed, epoch], make)

    words = _words_to_read(seed)

    def figures() -> Metrics:
        found = test.densities(model)
        if isinstance(model, Both):
            found |= test.of_text(model.synthesizer)
            if options.data is None:
                reader = Reader(script_font.load_font(options.say), script_font.LETTERS, drawings.scale)
                found["read_back"] = letters_right(
                    words, read_back(model.synthesizer, reader, words, drawings.alphabet, seed)
                )
        return found

    def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
        draw_picture(path, model, drawings, test, seed)

    return Run(
        model=model,
        loss=MixtureDensityLoss(),
        optimizer=Adam(model, lr=LR),
        batches=batches,
        row_axes=((1, 1), 2) if members == 2 else (1, 1),
        schedule=CosineLR(options.total_steps(len(batches(0)))),
        clip_norm=CLIP,
        evaluate=lambda: test.densities(model),
        figures=figures,
        baseline=one_gaussian(drawings.training, drawings.held_out),
        draw=draw,
        headline=headline,
        metadata={
            "sizes": asdict(sizes),
            "alphabet": drawings.alphabet,
            "scale": drawings.scale,
            "source": drawings.source,
            "styles": [
                {"text": d.text, "offsets": [round(float(v), 4) for v in d.offsets.reshape(-1)]}
                for d in _styles(drawings)
            ],
        },
    )


def _styles(drawings: Drawings) -> list[Drawing]:
    """Choose held-out drawings to write in the styles of: single words of letters, where there are some."""
    if not drawings.alphabet:
        return []
    fit = [d for d in drawings.held_out if d.text.isalpha() and 4 <= len(d.text) <= 6] or drawings.held_out
    return fit[:STYLES]


def _words_to_read(seed: int) -> list[str]:
    rng = np.random.default_rng([seed, 8])
    return ["".join(rng.choice(list(script_font.LETTERS), rng.integers(3, 7))) for _ in range(READ)]


def headline(metrics: Metrics) -> str:
    """Put the figures into words."""
    if "nll_conditioned" not in metrics:
        return f"{metrics['nll']:.2f} nats a point, squared error {metrics['sse']:.3f}"
    read = f", {100 * metrics['read_back']:.0f} % of letters read back" if "read_back" in metrics else ""
    return (
        f"{metrics['nll_conditioned']:.2f} nats a point with the text, {metrics['nll']:.2f} without, "
        f"{metrics['nll_wrong_text']:.1f} with a wrong one; squared error {metrics['sse_conditioned']:.3f} and "
        f"{metrics['sse']:.3f}; the window right on {100 * metrics['window_ok']:.1f} %{read}"
    )


def draw_picture(path: Path, model: Module, drawings: Drawings, test: Test, seed: int) -> None:
    """Draw lines of the data, of both networks, and the window over a held-out text."""
    rng = np.random.default_rng([seed, 10])
    shown = sorted(drawings.held_out[:40], key=lambda d: len(d.offsets))[-3:]
    lines = [sheets.Line(f"data: {d.text}", as_strokes(d.offsets)) for d in shown]
    if not isinstance(model, Both):
        assert isinstance(model, Predictor)
        most = math.ceil(1.5 * float(np.mean([len(d.offsets) for d in drawings.training])))
        lines += [sheets.Line(f"drawn, bias {b:g}", drawn_line(model, rng, b, most)) for b in (0.0, 0.5, 1.0)]
        sheets.draw_sheet(path, lines, None, f"{drawings.source}: drawn point by point")
        return
    lines += [sheets.Line("without a text", drawn_line(model.predictor, rng, 0.5, 150))]
    styles, own = _styles(drawings), [drawing.text for drawing in drawings.held_out]
    texts = _PANGRAMS if set("".join(_PANGRAMS)) <= set(drawings.alphabet) else own
    for text, style, bias in zip(texts, styles, (0.0, 0.5, 1.0, 2.0), strict=False):
        strokes = text_line(model.synthesizer, text.split(), drawings.alphabet, rng, bias, style)
        lines.append(sheets.Line(f"bias {bias:g}: {text}", strokes))
    longest = max(range(min(40, len(drawings.held_out))), key=lambda n: len(drawings.held_out[n].text))
    d = drawings.held_out[longest]
    _, window = model.synthesizer.look(*(part[:, longest : longest + 1] for part in test.x))
    weights = window.weights[: len(d.offsets), 0, : len(d.text) + 1]
    sheets.draw_sheet(
        path, lines, sheets.Window(d.text, as_strokes(d.offsets), weights), f"{drawings.source}: written point by point"
    )


HANDWRITING = Task(
    name="handwriting",
    about="write any text in cursive (LSTM layers, a soft window along the text, a mixture density)",
    presets={
        "smoke": Preset("64 units, 4,000 texts, 5 epochs", epochs=5, settings={"units": 64, "training": 4_000}),
        "default": Preset("96 units, 12,000 texts, 12 epochs", epochs=12),
        "best": Preset("30 epochs", epochs=30),
    },
    setup=setup,
    data="kanji, drawn characters without a text, or a folder with the files of IAM-OnDB; none: cursive words",
    sample=sample,
    styles=True,
)
