"""Captions: a picture in, a sentence out, with attention to the picture's rows and columns.

Three exercises. The default: composed scenes of two shapes (`fusedrnn.data.scenes`). "tiles": two to four tiles of
Fashion-MNIST or MNIST on a canvas (`fusedrnn.data.tiles`). "emoji": emoji and their names
(`fusedrnn.data.emoji_pictures`).

Metrics: ``exact``, the share of fresh pictures whose caption has no mistake, word by word, and ``bleu_seen``, BLEU-4 of
these, 0 to 100; ``exact_unseen`` and ``bleu``, the same of pairs of objects that training has not. ``..._beam``: with
beam search. ``nats``: -log probability of the captions of fresh pictures, nats a word. ``blind_...``: of the captions
that the network writes of white paper in place of the pictures; ``blind_most``: the share of the most frequent caption,
which nobody who sees nothing exceeds. ``nearest_...``: of the caption of the most similar picture in training.
Tiles: ``attention_on_tile``, the share of words naming tiles for which attention was strongest within these, and
``attention_by_chance``, that of lines chosen at random. Emoji, all of which are unseen: ``exact``, ``bleu`` and
``word_recall``, the share of a name's words that were written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fusedrnn.data.picture_files import free_path_beside, read_picture
from fusedrnn.data.reading import DataError
from fusedrnn.plots.captions import draw_caption, lines_of
from fusedrnn.tasks import caption_emoji, caption_scenes, caption_tiles
from fusedrnn.tasks.caption_runs import BEAM, captioned, reload, write
from fusedrnn.tasks.task import Options, Preset, Run, RunError, Task, TaskOption

_EXERCISES = {"scenes": caption_scenes.setup, "tiles": caption_tiles.setup, "emoji": caption_emoji.setup}


def setup(options: Options) -> Run:
    """Make one run of the exercise that ``--data`` names."""
    kind = options.data or "scenes"
    if kind not in _EXERCISES:
        raise RunError(f"--data: expected one of {', '.join(_EXERCISES)}, got {kind}")
    if kind != "emoji" and options.settings["split"] is not None:
        raise RunError("--split: expected it with --data emoji alone")
    return _EXERCISES[kind](options)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Tell what the network in a run's folder makes of a picture file, and where it looked; a picture of that goes
    beside the file, under a name that is free.

    Raises CheckpointError for a folder without such a network, ValueError for a file that is no picture.
    """
    loaded = reload(folder, CAPTION.name)
    path = Path(text)
    try:
        picture = read_picture(path, loaded.model.shape)
    except DataError as error:
        raise ValueError(str(error)) from None
    greedy, best = (write(loaded.model, loaded.recipe, picture[None], beam)[0] for beam in (1, BEAM))
    shown = captioned(picture, loaded.words, greedy)
    say(shown.text or "(no words)")
    other = loaded.words.text(best.tokens)
    if other != shown.text:
        say(f"(by beam search: {other})")
    for line in lines_of(shown):
        say(line)
    beside = free_path_beside(path, "-attention.png")
    draw_caption(beside, shown, path.name)
    say(f"picture: {beside}")


CAPTION = Task(
    name="caption",
    about="tell in words what is in a picture (rows and columns, attention, beam search)",
    presets={
        "smoke": Preset("1 epoch", epochs=1),
        "default": Preset("8 epochs", epochs=8),
        "best": Preset("24 epochs", epochs=24),
    },
    setup=setup,
    data='"tiles" of Fashion-MNIST, or MNIST, fetched; "emoji" and their names, fetched; else scenes',
    predict=predict,
    options=(
        TaskOption("attention", str, "the score: additive, dot, general, or none"),
        TaskOption("split", str, "of emoji: groups, so that no test shows a known thing, or pictures"),
    ),
)
