"""Translation: one sequence in, another out, with attention between them.

Three exercises. The default: sentences of a German-English dictionary, or of a file (`translate_sentences`).
"reversal": strings written backwards, with attention and without; "dates": dates in eight formats into ISO 8601
(`translate_exact`).

Metrics, sentences: ``bleu``, corpus BLEU of the test sentences by sacrebleu, 0 to 100, with beam search;
``bleu_dictionary`` and ``bleu_nearest``, those of a word-for-word dictionary and of the most similar known sentence,
and the better of both, ``bleu_baseline``; ``nats`` and ``bleu_validation``, on sentences kept out of training: nats a
subword, and BLEU token by token. Reversal and dates: ``exact``, the share of answers without a mistake; reversal also
``exact_15`` of strings of 15 letters, ``aligned``, the share of letters written while attention was strongest at that
letter, and ``exact_plain``, ``exact_15_plain`` of the network without attention.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusedrnn.data.subwords import UNKNOWN
from fusedrnn.plots.translation import draw_attention, lines_of
from fusedrnn.tasks import translate_exact, translate_sentences
from fusedrnn.tasks.task import Options, Preset, Run, Task, TaskOption
from fusedrnn.tasks.translate_runs import reload, translation, write

_EXACT = ("reversal", "dates")


def setup(options: Options) -> Run:
    """Make one run of the exercise that ``--data`` names."""
    return translate_exact.setup(options) if options.data in _EXACT else translate_sentences.setup(options)


def predict(folder: Path, text: str, say: Callable[[str], None]) -> None:
    """Tell what the network in a run's folder makes of a text, and where it looked; the picture of that goes into the
    folder, attention.png.

    Raises CheckpointError for a folder without such a network, ValueError for a text without words.
    """
    loaded = reload(folder, TRANSLATE.name)
    text = " ".join(text.split())
    if not text:
        raise ValueError("text: expected at least one word, got none")
    read = loaded.source.numbers(text)
    (written,) = write(loaded.model, loaded.recipe, [read])
    shown = translation(loaded.source, loaded.target, read, written)
    say(shown.text)
    if unknown := int(np.sum(read == UNKNOWN)):
        say(f"({unknown} of {len(read)} pieces were not met in training)")
    if shown.weights is not None:
        for line in lines_of(shown):
            say(line)
        path = folder / "attention.png"
        draw_attention(path, [(shown.text, shown)], text)
        say(f"picture: {path}")


TRANSLATE = Task(
    name="translate",
    about="translate sentences, German to English (encoder, attention, decoder, beam search)",
    presets={
        "smoke": Preset(
            "2 epochs of sentences, fewer units", epochs=2, settings={"recipe": {"units": 64, "embedding": 64}}
        ),
        "default": Preset("12 epochs", epochs=12),
        "best": Preset("40 epochs", epochs=40),
    },
    setup=setup,
    data='sentence pairs: a file of SOURCE<tab>TARGET lines; else a dictionary\'s, fetched; or "reversal", "dates"',
    predict=predict,
    options=(
        TaskOption("attention", str, "the score: additive, dot, general, or none"),
        TaskOption("swap", bool, "translate the other way, English to German", False),
        TaskOption("reverse_source", bool, "read the source from its end", False),
        TaskOption("scheduled_sampling", float, "up to which share the decoder reads its own tokens", 0.0),
    ),
)
