"""BLEU of Papineni et al. (2002), by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence

from fusedrnn.extras import needed_for


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "13a", smooth: str = "none"
) -> float:
    """Return BLEU-4 of a corpus, 0 to 100: one reference for each hypothesis.

    Args:
        tokenize: "13a" for plain text, the way of mteval-v13a; "none" where blanks part the words already.
        smooth: "none"; "exp" smooths counts of n-grams that are zero, as scores of sentences need it.

    Raises:
        ValueError: Other numbers of hypotheses and references, or none. ModuleNotFoundError: sacrebleu is missing.
    """
    if len(hypotheses) != len(references) or not references:
        raise ValueError(f"references: expected one for each of {len(hypotheses)} hypotheses, got {len(references)}")
    with needed_for("BLEU", "train"):
        from sacrebleu.metrics import BLEU
    metric = BLEU(tokenize=tokenize, smooth_method=smooth, force=True)  # "force": no word on text that looks split
    score = float(metric.corpus_score(list(hypotheses), [list(references)]).score)
    return min(100.0, score)  # rounding goes beyond
