"""Bugs for the tests to find: adapters."""

from __future__ import annotations

from tests.planted.bug import Bug

MODULES = "python/fusedrnn/torch/modules.py"

BUGS = (
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
    Bug(
        "jax_merges_rows_whose_lengths_order_what_is_kept",
        "python/fusedrnn/jax/primitives.py",
        '        and not (kept and "lengths" in call.given)\n',
        "",
        "tests/adapters/test_jax.py::test_gradients_of_each_row_and_of_their_sum",
    ),
    Bug(
        "jax_merges_gradients_of_states_along_units",
        "python/fusedrnn/jax/primitives.py",
        '_AT_FRONT = ("h0", "c0", "lengths", "dh_n", "dc_n")',
        '_AT_FRONT = ("h0", "c0", "lengths")',
        "tests/adapters/test_jax.py::test_gradients_of_rows_alone_come_from_one_call",
    ),
    Bug(
        "jax_gives_no_gradient_to_the_first_operand",
        "python/fusedrnn/jax/primitives.py",
        "found[name].astype(arrays[name].dtype) if name in found else None",
        "found[name].astype(arrays[name].dtype) * (name != call.wanted[0]) if name in found else None",
        "tests/adapters/test_jax.py::test_values_and_gradients_of_a_scan",
    ),
)
