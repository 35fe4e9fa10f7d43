"""Bugs for the tests to find: what users and attackers broke, of arrays, memory, threads and sizes."""

from __future__ import annotations

from tests.planted.bug import Bug

_SEQUENCES, _SIZES = "python/fusedrnn/sequences.py", "python/fusedrnn/sizes.py"
_MODULE, _TORCH = "python/fusedrnn/nn/module.py", "python/fusedrnn/torch"
_OWNERSHIP, _ADAPTERS = "tests/test_ownership.py", "tests/adapters/test_ownership.py"
_ENVIRONMENT, _MOVED = "tests/test_environment.py", "tests/adapters/test_torch_moved_weights.py"

OWNERSHIP = (
    Bug(
        "calls_keep_the_callers_lengths",
        _SEQUENCES,
        'return np.array(array, np.int64, order="C")',
        "return np.ascontiguousarray(array, np.int64)",
        _OWNERSHIP,
    ),
    Bug(
        "calls_keep_the_callers_resets",
        _SEQUENCES,
        'return np.array(array, order="C")',
        "return np.ascontiguousarray(array)",
        _OWNERSHIP,
    ),
    Bug(
        "pooling_keeps_the_callers_lengths",
        "python/fusedrnn/nn/many_to_one.py",
        "lengths = np.array(lengths)",
        "lengths = np.asarray(lengths)",
        _OWNERSHIP,
    ),
    Bug(
        "torch_layers_keep_the_callers_sequences",
        f"{_TORCH}/modules.py",
        "sequences = calls.owned(sequences)",
        "pass",
        _ADAPTERS,
    ),
    Bug(
        "torch_operators_keep_the_callers_sequences",
        f"{_TORCH}/operators.py",
        "output[0], output[-1], *calls.owned(sequences))",
        "output[0], output[-1], *sequences)",
        _ADAPTERS,
    ),
    Bug(
        "torch_backward_reads_where_weights_were",
        f"{_TORCH}/function.py",
        "parameter._version != old[0] or parameter.data_ptr() != old[1]",
        "parameter._version != old[0]",
        f"{_MOVED} tests/adapters/test_torch_trainers.py",
    ),
    Bug(
        "memory_that_was_freed_is_read",
        "csrc/bindings/exchange.hpp",
        "if (!t.data && step)",
        "if (!t.data && !step)",
        _MOVED,
    ),
    Bug(
        "jax_makes_what_batch_sizes_claim",
        "python/fusedrnn/jax/layers.py",
        '    _check_batch_sizes(call, arrays["x"])\n    if options:\n        check(call)\n',
        '    if options:\n        check(call)\n    _check_batch_sizes(call, arrays["x"])\n',
        _ADAPTERS,
    ),
)

ENGINE = (
    Bug(
        "array_type_is_found_at_the_first_call",
        "csrc/bindings/exchange.hpp",
        "inline void learn_array_type() { array_type = py::detail::npy_api::get().PyArray_Type_; }",
        "inline const PyTypeObject* found() {\n"
        "  static const PyTypeObject* const type = py::detail::npy_api::get().PyArray_Type_;\n"
        "  return type;\n}\n"
        "#define array_type found()\n"
        "inline void learn_array_type() {}",
        _ENVIRONMENT,
    ),
    Bug(
        "sum_of_batch_sizes_wraps_around",
        "csrc/bindings/data.hpp",
        "total = size > most - total ? most : total + size;",
        "total = int64_t(uint64_t(total) + uint64_t(size));",
        "tests/test_errors.py",
    ),
    Bug(
        "openmps_variable_is_no_limit",
        "csrc/core/parallel.cpp",
        "std::clamp(cores, 1, openmp_limit())",
        "std::clamp(cores, 1, most_threads)",
        _ENVIRONMENT,
    ),
    Bug(
        "openmps_first_number_alone_counts",
        "csrc/core/parallel.cpp",
        "(*end != '\\0' && *end != ',')",
        "(*end != '\\0')",
        _ENVIRONMENT,
    ),
    Bug(
        "an_empty_instruction_set_is_a_name",
        "csrc/core/dispatch.cpp",
        'std::getenv("FUSEDRNN_ISA"); name && *name)',
        'std::getenv("FUSEDRNN_ISA"); name)',
        _ENVIRONMENT,
    ),
)

WORDS = (
    Bug(
        "a_boolean_is_a_size",
        _SIZES,
        "if isinstance(value, (bool, np.bool_)):",
        "if isinstance(value, np.bool_):",
        "tests/test_sizes.py",
    ),
    Bug(
        "gradients_take_no_memory",
        "python/fusedrnn/nn/stack.py",
        "2 * self._elements()",
        "self._elements()",
        "tests/test_sizes.py",
    ),
    Bug(
        "layers_take_no_memory",
        _SIZES,
        "elements * itemsize + layers * _OBJECTS",
        "elements * itemsize",
        "tests/test_sizes.py::test_the_limit_is_this_machines_memory",
    ),
    Bug(
        "a_decoders_steps_are_sequences",
        "python/fusedrnn/nn/stack.py",
        "step=len(y) == 1 and states[0] is not None",
        "step=False",
        "tests/test_kept_calls.py",
    ),
    Bug(
        "sequences_are_a_decoders_steps",
        "python/fusedrnn/nn/stack.py",
        "step=len(y) == 1 and states[0] is not None",
        "step=True",
        "tests/test_kept_calls.py",
    ),
    Bug(
        "a_pile_of_calls_is_said_each_time",
        _MODULE,
        "            self._warned = True\n",
        "            pass\n",
        "tests/test_kept_calls.py",
    ),
    Bug(
        "sequences_taken_back_still_count",
        _MODULE,
        "            self._sequences.pop()\n",
        "            pass\n",
        "tests/test_kept_calls.py",
    ),
)

BUGS: tuple[Bug, ...] = (*OWNERSHIP, *ENGINE, *WORDS)
