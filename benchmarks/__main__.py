"""``python -m benchmarks``: the experiment that the first word names, or else named shapes against other libraries."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from benchmarks.timing import Failed

EXPERIMENTS = {
    "shapes": "named shapes against other libraries; what runs where no experiment is named",
    "grid": "shapes drawn from a seed",
    "scaling": "time along T, N, H and threads",
    "isas": "one workload on every instruction set",
    "memory": "peak memory of a call beside its formula",
    "runs": "whole training runs of the lecture's tasks",
    "variants": "what each option costs beside the plain cell, and uneven lengths beside their sum",
    "contention": "two processes, or two libraries in one, on the same cores",
    "passes": "optimizers and losses against memory bandwidth",
    "backend": "fusedrnn.torch between PyTorch's own modules and the functional interface",
    "scan": "recurrences written as one step in NumPy, beside the library's own cells and other libraries",
    "accelerate": "three plain PyTorch models trained before and after fusedrnn.torch.accelerate",
}


def main(arguments: Sequence[str]) -> int:
    """Run one experiment."""
    name = arguments[0] if arguments and arguments[0] in EXPERIMENTS else None
    experiment = importlib.import_module(f"benchmarks.experiments.{name or 'shapes'}")
    try:
        if name:
            return int(experiment.main(arguments[1:]))
        others = "; ".join(f"{word}: {what}" for word, what in EXPERIMENTS.items())
        return int(experiment.main(arguments, f"Experiments by the first word, each with its own --help: {others}."))
    except Failed as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
