"""Bugs for the tests to find: adapters."""

from __future__ import annotations

from tests.planted.bug import Bug

MODULES = "python/fusedrnn/torch/modules.py"

BUGS: tuple[Bug, ...] = (
    Bug(
        "torch_dropout_stays_on_in_evaluation",
        MODULES,
        "if k and self.dropout and self.training:",
        "if k and self.dropout:",
        "tests/adapters/test_torch_modules.py",
    ),
    Bug(
        "torch_resets_ignore_batch_first",
        MODULES,
        "return resets.transpose(0, 1) if self.batch_first and not packed else resets",
        "return resets",
        "tests/adapters/test_torch_modules.py",
    ),
    Bug(
        "torch_all_layers_draw_the_masks_of_the_first",
        MODULES,
        '"layer": k // directions}',
        '"layer": 0}',
        "tests/adapters/test_torch_options.py",
    ),
)
