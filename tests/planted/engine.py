"""Bugs for the tests to find: engine."""

from __future__ import annotations

from tests.planted.bug import Bug

BINDINGS, CORE, KERNELS = "csrc/bindings/", "csrc/core/", "csrc/kernels/"

BINDINGS_BUGS = (
    Bug(
        "state_of_a_stream_is_set_before_c_is_checked",
        BINDINGS + "frozen.cpp",
        """    const T* const new_c = layers_[0]->has_c() ? input<T>(states[1], "c", "the weights", shape) : nullptr;
    const int64_t size = shape[1] * shape[2];
    for (int64_t l = 0; l < shape[0]; ++l) {
      std::copy_n(new_h + l * size, size, layers_[std::size_t(l)]->h());
      if (new_c)""",
        """    const int64_t size = shape[1] * shape[2];
    for (int64_t l = 0; l < shape[0]; ++l) std::copy_n(new_h + l * size, size, layers_[std::size_t(l)]->h());
    const T* const new_c = layers_[0]->has_c() ? input<T>(states[1], "c", "the weights", shape) : nullptr;
    for (int64_t l = 0; l < shape[0]; ++l) {
      if (new_c)""",
        "tests/test_stream.py",
    ),
    Bug(
        "int8_sums_are_unchecked_in_a_call",
        BINDINGS + "low_precision.cpp",
        "    require_int8_sums(*settings.precision, data.shape.inputs, H);\n",
        "",
        "tests/test_low_precision.py",
    ),
    Bug(
        "a_frozen_elementwise_layer_takes_the_set_of_the_moment",
        CORE + "elementwise.cpp",
        "    elementwise_forward(k_, p, packed_ih_);",
        "    elementwise_forward(kernels<T>(), p, packed_ih_);",
        "tests/test_elementwise_cells.py",
    ),
    Bug(
        "a_stack_adds_no_residual_gradient",
        BINDINGS + "stack.cpp",
        "      if (l > 0 && residual_ && !gradient.is_none()) add_to",
        "      if (false) add_to",
        "tests/test_layers.py",
    ),
    Bug(
        "a_stack_gives_both_directions_the_first_half_of_dy",
        BINDINGS + "stack.cpp",
        "doutputs[0] = directions() == 2 && !gradient.is_none() ? parts[d].array : gradient;",
        "doutputs[0] = directions() == 2 && !gradient.is_none() ? parts[0].array : gradient;",
        "tests/test_layers.py",
    ),
    Bug(
        "a_stacks_last_layer_is_masked_too",
        BINDINGS + "stack.cpp",
        "masks[py::int_(l - 1)]",
        "masks[py::int_(0)]",
        "tests/test_stacks.py",
    ),
    Bug(
        "all_layers_of_a_stack_draw_alike",
        BINDINGS + "stack.cpp",
        "    own->layer = uint32_t(layer);\n",
        "    own->layer = 0;\n",
        "tests/test_layer_options.py",
    ),
    Bug(
        "memory_that_moved_is_read_where_it_was",
        BINDINGS + "call.hpp",
        "      if (py::detail::array_proxy(array.ptr())->data != data)\n",
        "      if (false)\n",
        "tests/test_spec.py",
    ),
    Bug(
        "sizes_are_unchecked",
        BINDINGS + "arrays.hpp",
        "if (size > 0 && product > most / size)",
        "if (false)",
        "tests/test_errors.py::test_sizes_whose_product_has_no_address",
    ),
    Bug(
        "misaligned_arrays_are_taken",
        BINDINGS + "arrays.hpp",
        "if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))",
        "if (false)",
        "tests/test_errors.py",
    ),
    Bug(
        "the_interpreter_stays_locked",
        BINDINGS + "arrays.hpp",
        """  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    const FlushSubnormals flush;
    f();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
""",
        """  std::exception_ptr error;
  try {
    const FlushSubnormals flush;
    f();
  } catch (...) {
    error = std::current_exception();
  }
""",
        "tests/test_interpreter_lock.py",
    ),
    Bug(
        "the_interpreter_stays_locked_in_backward",
        BINDINGS + "calls.cpp",
        "  without_gil([&] { call.backward(b); });\n",
        "  const FlushSubnormals flush;\n  call.backward(b);\n",
        "tests/test_interpreter_lock.py",
    ),
    Bug(
        "the_interpreter_stays_locked_in_a_frozen_layer",
        BINDINGS + "frozen.cpp",
        "without_gil([&] { layer.sequence(s); });",
        "const FlushSubnormals flush;\n    layer.sequence(s);",
        "tests/test_interpreter_lock.py",
    ),
    Bug(
        "the_interpreter_stays_locked_in_an_optimizer",
        BINDINGS + "optim.cpp",
        "without_gil([&] { parallel_flat(n, flops_per_element_moved, f); });",
        "const FlushSubnormals flush;\n  parallel_flat(n, flops_per_element_moved, f);",
        "tests/test_interpreter_lock.py",
    ),
    Bug(
        "offsets_of_dlpack_are_ignored",
        BINDINGS + "exchange.hpp",
        "static_cast<const char*>(t.data) + t.byte_offset",
        "static_cast<const char*>(t.data)",
        "tests/test_exchange_in_place.py",
    ),
    Bug(
        "read_only_memory_is_written_to",
        BINDINGS + "exchange.hpp",
        "bool read_only() const { return flags & 1; }",
        "bool read_only() const { return false; }",
        "tests/test_exchange_in_place.py",
    ),
    Bug(
        "a_streams_steps_keep_subnormals",
        BINDINGS + "frozen.cpp",
        """    const FlushSubnormals flush;
    const T* input = static_cast<const T*>(x.data());
""",
        """    const T* input = static_cast<const T*>(x.data());
""",
        "tests/test_subnormals.py",
    ),
    Bug(
        "a_tokens_gradients_are_not_added_up",
        BINDINGS + "linear.cpp",
        "out[row[r] * E + e] += d[r * E + e];",
        "out[row[r] * E + e] = d[r * E + e];",
        "tests/test_layers.py",
    ),
    Bug(
        "a_gradient_that_nobody_asked_for_is_taken",
        BINDINGS + "calls.cpp",
        'if (!part.is_none()) throw py::value_error(name + ": expected None, as',
        'if (false) throw py::value_error(name + ": expected None, as',
        "tests/test_errors.py",
    ),
)

CORE_BUGS = (
    Bug(
        "one_thread_sums_in_one_piece",
        CORE + "parallel.cpp",
        "if (n <= flat_piece) return",
        "if (n <= flat_piece || num_threads() == 1) return",
        "tests/test_losses.py tests/test_optim.py",
    ),
    Bug(
        "a_walk_back_without_rows_goes_through_all_steps",
        CORE + "gates.hpp",
        "first(p.shape.batch > 0 ? p.shape.steps : 0)",
        "first(p.shape.steps)",
        "tests/test_errors.py::test_endless_sequences_without_rows",
    ),
    Bug(
        "a_state_reset_at_the_first_step_has_a_gradient",
        CORE + "low_precision_backward.cpp",
        """    if (!reset) return;
    zero(p.dh0 + a * H, (b - a) * H);
    if (lstm) zero(p.dc0 + a * H, (b - a) * H);
""",
        """    if (!reset) return;
    zero(p.dh0 + a * H, (b - a) * H);
""",
        "tests/test_low_precision_sequences.py",
    ),
    Bug(
        "dropconnects_gradient_has_the_mask_of_other_rows",
        CORE + "options.hpp",
        "draw(Draw::dropconnect, o.dropconnect, uint32_t(first + r), 0, P,",
        "draw(Draw::dropconnect, o.dropconnect, uint32_t(r), 0, P,",
        "tests/test_options.py",
    ),
    Bug(
        "padding_begins_a_step_late",
        CORE + "ragged.hpp",
        "for (int64_t t = lengths_[std::size_t(j)]; t < dense_steps_; ++t)",
        "for (int64_t t = lengths_[std::size_t(j)] + 1; t < dense_steps_; ++t)",
        "tests/test_options.py tests/test_per_sequence.py",
    ),
    Bug(
        "a_later_block_takes_its_gradients_a_step_late",
        CORE + "steps.hpp",
        "f(states + (reverse_ ? time + 1 : time - 1) * N * width, rest * N, time * N);",
        "f(states + (reverse_ ? time + 1 : time - 1) * N * width, rest * N, (time + 1 - starts) * N);",
        "tests/test_kernels.py tests/test_invariance.py",
    ),
    Bug(
        "rows_copied_apart_are_read_side_by_side",
        CORE + "sequence.hpp",
        "return {to, stride_, panels, depth_};",
        "return {to, depth_, panels, depth_};",
        "tests/test_wide_layers.py",
    ),
    Bug(
        "threads_leave_the_last_columns_out_of_a_sum",
        CORE + "gemm.hpp",
        "parallel_for((units - 1) / piece + 1, flops,",
        "parallel_for(std::max<int64_t>(1, units / piece), flops,",
        "tests/test_wide_layers.py",
    ),
    Bug(
        "threads_leave_the_last_rows_of_dx_out",
        CORE + "gemm.hpp",
        "tasks.push_back({0, 0, dx->rows * i / slices, dx->rows * (i + 1) / slices, 0});",
        "tasks.push_back({0, 0, dx->rows / slices * i, dx->rows / slices * (i + 1), 0});",
        "tests/test_invariance.py",
    ),
)

KERNEL_BUGS = (
    Bug(
        "a_certain_mask_masks_nothing",
        KERNELS + "random.hpp",
        "if (m.threshold > 0xffffffffu)",
        "if (false)",
        "tests/test_zoneout.py",
    ),
    Bug(
        "masks_repeat_after_64_units",
        KERNELS + "random.hpp",
        "philox(m.seed, uint32_t(unit / 64), m.row,",
        "philox(m.seed, 0, m.row,",
        "tests/test_zoneout.py",
    ),
    Bug(
        "zoneout_keeps_all_but_the_last_digit",
        KERNELS + "options.hpp",
        "return fma(zone, before, state - zone * state);",
        "return fma(zone, before - state, state);",
        "tests/test_zoneout.py",
    ),
    Bug(
        "rmsprop_takes_the_root_of_a_negative_variance",
        KERNELS + "optim.hpp",
        "      square = square < V{} ? V{} : square;  // a variance that rounding left below zero\n",
        "",
        "tests/test_optim.py",
    ),
    Bug(
        "nesterov_forgets_weight_decay",
        KERNELS + "optim.hpp",
        "g = s.nesterov ? fma(m, buffer, g) : buffer;",
        "g = s.nesterov ? fma(m, buffer, load<V>(s.grad + i, n)) : buffer;",
        "tests/test_optim.py",
    ),
    Bug(
        "a_product_of_sums_overflows",
        KERNELS + "losses.hpp",
        "if (product > 1e250) {",
        "if (product > 1e308) {",
        "tests/test_losses.py",
    ),
    Bug(
        "a_row_sees_the_next_rows_logits",
        KERNELS + "losses.hpp",
        "load<V>(x + min(c, classes - lanes_of<V>))",
        "load<V>(x + c)",
        "tests/test_losses.py",
    ),
    Bug(
        "a_loss_is_lost_beside_large_logits",
        KERNELS + "losses.hpp",
        """    logs.add(double(sum));
    rest += double(highest) - double(x[targets[row]]);
""",
        """    rest += double(highest);
    rest += __builtin_log(double(sum));
    rest -= double(x[targets[row]]);
""",
        "tests/test_losses.py",
    ),
    Bug(
        "a_density_is_lost_beside_large_logits",
        KERNELS + "mixture_density.hpp",
        "load<V>(logits + k, n) - splat<V>(most) + c.log_density",
        "load<V>(logits + k, n) + c.log_density - splat<V>(most)",
        "tests/test_mixture_density.py",
    ),
    Bug(
        "the_last_columns_of_a_gradient_overwrite",
        KERNELS + "transpose.hpp",
        "        p = s.add ? p + v : v;\n",
        "        p = v;\n",
        "tests/test_kernels.py::test_accumulate_adds_to_the_given_arrays",
    ),
    Bug(
        "avx2_mask_takes_a_lane_too_many",
        KERNELS + "simd.hpp",
        "return lane < ((typename Traits<V>::I)count - I{});",
        "return lane <= ((typename Traits<V>::I)count - I{});",
        "tests/test_kernels.py",
        "avx2",
    ),
    Bug(
        "avx2_words_of_random_numbers_are_signed",
        KERNELS + "simd.hpp",
        "_mm256_mul_epu32",
        "_mm256_mul_epi32",
        "tests/test_zoneout.py",
        "avx2",
    ),
    Bug(
        "avx512_stores_of_doubles_have_no_mask",
        KERNELS + "simd.hpp",
        "== 8) _mm512_mask_storeu_pd(p, mask, (__m512d)v)",
        "== 8) _mm512_storeu_pd(p, (__m512d)v)",
        "tests/test_kernels.py",
        "avx512",
    ),
    Bug(
        "avx512_sums_of_int8_lose_their_upper_halves",
        KERNELS + "int8.hpp",
        "return (Words)_mm512_madd_epi16((__m512i)a, (__m512i)b);",
        "return (Words)_mm512_mullo_epi16((__m512i)a, (__m512i)b) & 0xffff;",
        "tests/test_low_precision.py",
        "avx512",
    ),
    Bug(
        "int8_scale_is_of_128_steps",
        KERNELS + "int8.hpp",
        "return !finite || magnitude < smallest ? 0 : 127 / magnitude;",
        "return !finite || magnitude < smallest ? 0 : 128 / magnitude;",
        "tests/test_low_precision.py",
    ),
    Bug(
        "the_last_word_of_a_row_is_lost",
        KERNELS + "low_precision.hpp",
        "const int64_t count = min(W, (depth - k + elements - 1) / elements);",
        "const int64_t count = min(W, (depth - k) / elements);",
        "tests/test_low_precision.py",
    ),
    Bug(
        "the_last_random_number_of_a_vector_is_small_on_avx512",
        KERNELS + "simd.hpp",
        "_mm512_maskz_mul_epu32(0xff,",
        "_mm512_maskz_mul_epu32(0x7f,",
        "tests/test_options.py",
        isas="avx2;avx512",
    ),
)

BUGS = (*BINDINGS_BUGS, *CORE_BUGS, *KERNEL_BUGS)
