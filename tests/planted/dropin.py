"""Bugs for the tests to find: what makes the PyTorch adapter a drop-in."""

from __future__ import annotations

from tests.planted.bug import Bug

TORCH, JAX = "python/fusedrnn/torch/", "python/fusedrnn/jax/"
IN_PLACE, TAKEN = "tests/adapters/test_torch_in_place.py", "tests/adapters/test_torch_taken.py"
COMPILE, EXPORT = "tests/adapters/test_torch_compile.py", "tests/adapters/test_torch_export.py"
LOOPS = "tests/adapters/test_torch_loops.py"

BUGS = (
    # changes in place
    Bug(
        "the_caller_gets_the_y_that_backward_reads",
        TORCH + "function.py",
        "            outputs = (outputs[0].clone(), *outputs[1:])\n",
        "            pass\n",
        IN_PLACE,
    ),
    Bug(
        "an_inner_y_is_handed_out",
        TORCH + "modules.py",
        "k == len(parameters) - 1",
        "k == 0",
        IN_PLACE,
    ),
    Bug(
        "y_is_a_view_with_batch_first",
        TORCH + "modules.py",
        "else y.transpose_(0, 1)",
        "else y.transpose(0, 1)",
        IN_PLACE,
    ),
    Bug(
        "a_weight_with_other_memory_is_read_there",
        TORCH + "function.py",
        "    return bool(first <= address and address + size <= first + storage.nbytes())\n",
        "    return False\n",
        IN_PLACE,
    ),
    Bug(
        "memory_that_was_freed_is_read",
        TORCH + "function.py",
        "    return bool(first <= address and address + size <= first + storage.nbytes())\n",
        "    return True\n",
        "tests/adapters/test_torch_moved_weights.py",
    ),
    Bug(
        "an_input_with_other_memory_is_read_there",
        TORCH + "kept.py",
        "tensor.untyped_storage()._cdata != known[1]",
        "False",
        IN_PLACE,
    ),
    Bug(
        "a_weight_with_other_memory_goes_into_second_derivatives",
        TORCH + "function.py",
        "                if exact:\n",
        "                if False:\n",
        IN_PLACE,
    ),
    Bug(
        "y_of_onednns_operator_may_change",
        TORCH + "kept.py",
        "        if call.one_operator:\n            return\n",
        "",
        IN_PLACE,
    ),
    Bug(
        "a_frozen_grus_state_is_no_copy",
        TORCH + "kept.py",
        "tensor.clone() if read else tensor",
        "tensor",
        IN_PLACE,
    ),
    Bug(
        "x_is_free_where_the_other_weight_is_frozen",
        TORCH + "kept.py",
        "free_x, free_h0 = not weight_ih.requires_grad, not weight_hh.requires_grad",
        "free_x, free_h0 = not weight_hh.requires_grad, not weight_ih.requires_grad",
        IN_PLACE,
    ),
    Bug(
        "weights_of_one_step_are_watched",
        TORCH + "kept.py",
        "several = not call.step and (x.shape[0] if batch_sizes is None else len(batch_sizes)) > 1",
        "several = True",
        IN_PLACE,
    ),
    Bug(
        "a_changed_input_goes_into_second_derivatives",
        TORCH + "kept.py",
        "if exact and not free.unchanged():",
        "if False:",
        IN_PLACE,
    ),
    Bug(
        "an_rnn_cells_state_may_change",
        TORCH + "kept.py",
        "            if call.cell is not RNN:\n",
        "            if True:\n",
        IN_PLACE,
    ),
    Bug(
        "a_strided_input_is_kept_itself",
        TORCH + "modules.py",
        "if whole or (T > 1 and N > 1 and x.stride(0) != N * x.stride(1)):",
        "if False:",
        IN_PLACE,
    ),
    Bug(
        "y_lies_in_memory_of_numpys",
        TORCH + "calls.py",
        "        tensors[0] = tensors[0].clone()\n",
        "        pass\n",
        IN_PLACE,
    ),
    Bug(
        "small_storages_of_weights_are_read_past",
        TORCH + "calls.py",
        "    if small and not",
        "    if False and not",
        IN_PLACE,
    ),
    Bug(
        "packed_rows_without_steps_are_steps",
        TORCH + "modules.py",
        "    if not int(batch_sizes[-1]):\n",
        "    if False:\n",
        IN_PLACE,
    ),
    Bug(
        "a_replaced_parameter_stays",
        TORCH + "function.py",
        "            self._last[place] = weakref.ref(fresh)\n",
        "            self._last[place] = lambda: fresh\n",
        LOOPS,
    ),
    # what is taken, left and told
    Bug(
        "overridden_checks_are_lost",
        TORCH + "stand_ins.py",
        '"forward", "check_input", "check_hidden_size", "check_forward_args"',
        '"forward"',
        TAKEN,
    ),
    Bug(
        "pickles_hold_a_class_that_no_module_has",
        TORCH + "stand_ins.py",
        "            return rebuilt, (kind,), *rest\n",
        "            return make, arguments, *rest\n",
        TAKEN,
    ),
    Bug(
        "tables_do_not_find_a_stand_in",
        TORCH + "stand_ins.py",
        'return hash(vars(cls)["stands_for"]) if "stands_for" in vars(cls) else type.__hash__(cls)',
        "return type.__hash__(cls)",
        TAKEN,
    ),
    Bug(
        "quantized_cells_are_of_no_known_class",
        TORCH + "stand_ins.py",
        '        if name == "qconfig" and value is not None:\n',
        "        if False:\n",
        TAKEN,
    ),
    Bug(
        "a_subclass_is_built_without_its_constructor",
        TORCH + "stand_ins.py",
        '            "__init__": kind.__init__,  # type: ignore[misc] # for who builds a layer like this one\n',
        "",
        TAKEN,
    ),
    Bug(
        "new_layers_are_taken_for_ever",
        TORCH + "accelerate.py",
        "            if not _open:\n                _unwatch()\n",
        "",
        TAKEN,
    ),
    Bug(
        "unpickled_layers_are_not_taken",
        TORCH + "accelerate.py",
        'for name in ("__init__", "__setstate__"):',
        'for name in ("__init__",):',
        TAKEN,
    ),
    Bug(
        "parts_of_what_is_left_are_told_too",
        TORCH + "recurrent.py",
        '    if any([name.startswith(f"{other}." if other else "") for other in left]):\n        return ""\n',
        "",
        TAKEN,
    ),
    Bug(
        "fallbacks_are_told_each_time",
        TORCH + "support.py",
        "if fallbacks[name] == 1 and",
        "if",
        TAKEN,
    ),
    Bug(
        "flat_weights_that_a_client_set_are_ignored",
        TORCH + "modules.py",
        "                self._update_flat_weights()\n                flat = self._flat_weights\n",
        "                flat = [getattr(self, name) for name in self._flat_weights_names]\n",
        TAKEN,
    ),
    # compilers and exports
    Bug(
        "our_python_is_compiled",
        TORCH + "compiling.py",
        "        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(skip, skip))\n",
        "        assert skip is not code\n",
        COMPILE,
    ),
    Bug(
        "a_reverse_direction_is_exported_onward",
        TORCH + "decompositions.py",
        "    if call.reverse:\n        x = x.flip(0)\n",
        "",
        EXPORT,
    ),
    Bug(
        "a_dynamic_number_of_steps_is_exported_as_the_examples",
        TORCH + "decompositions.py",
        "        if isinstance(x.shape[0], torch.SymInt) and not",
        "        if False and not",
        EXPORT,
    ),
    # JAX
    Bug(
        "masks_of_mapped_seeds_are_no_batch",
        JAX + "composite.py",
        "batching.primitive_batchers[_masks_p] = partial(one_by_one, _masks_p)  # of seeds\n",
        "",
        "tests/adapters/test_jax_unbatched.py",
    ),
    Bug(
        "the_row_of_one_sequence_stands_where_its_steps_are",
        JAX + "layers.py",
        'return 0 if AXES[name][0] == "N" else 1',
        "return 0",
        "tests/adapters/test_jax_unbatched.py",
    ),
)
