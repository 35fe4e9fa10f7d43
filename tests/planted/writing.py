"""Bugs for the tests to find: attention, windows, writing, sequence to sequence, losses that leave out."""

from __future__ import annotations

from tests.planted.bug import Bug

CELLS, NN, DECODING = "python/fusedrnn/cells/", "python/fusedrnn/nn/", "python/fusedrnn/decoding.py"
ATTENTION, WINDOW, WRITING = "tests/test_attention.py", "tests/test_window.py", "tests/test_decoding.py"
SEQ2SEQ, LOSSES, SHARED = "tests/test_seq2seq.py", "tests/test_losses.py", "tests/test_distributed.py"

BUGS = (
    # attention and windows
    Bug(
        "what_is_masked_gets_a_weight",
        CELLS + "attention.py",
        "a = softmax(np.where(memory.present, e, _FAR))",
        "a = softmax(e)",
        ATTENTION,
    ),
    Bug(
        "the_cell_never_sees_what_was_attended",
        CELLS + "attention.py",
        "DecoderState(layers, attended), DecoderOutput(attended, weights)",
        "DecoderState(layers, state.attended), DecoderOutput(attended, weights)",
        ATTENTION,
    ),
    Bug(
        "nan_behind_the_end_of_a_memory_is_weighed",
        NN + "attention.py",
        "    if not present.all():\n",
        "    if not present.any():\n",
        ATTENTION,
    ),
    Bug(
        "characters_are_counted_from_zero",
        CELLS + "window.py",
        "np.arange(1, len(characters) + 1, dtype=np.float32)",
        "np.arange(0, len(characters), dtype=np.float32)",
        WINDOW,
    ),
    Bug(
        "the_lstm_sees_the_window_two_steps_before",
        CELLS + "window.py",
        "return WindowState(after, kappa, window), WindowOutput(h, window, weights, kappa)",
        "return WindowState(after, kappa, state.window), WindowOutput(h, window, weights, kappa)",
        WINDOW,
    ),
    # writing
    Bug(
        "a_beam_stops_at_the_first_end",
        DECODING,
        "        if len(self.found) >= self.width:\n",
        "        if self.found:\n",
        WRITING,
    ),
    Bug(
        "a_length_penalty_forgets_the_end",
        DECODING,
        "for length in range(1, most + 2):",
        "for length in range(0, most + 1):",
        WRITING,
    ),
    Bug(
        "the_state_of_a_beam_stays_behind",
        DECODING,
        "state = map_leaves(lambda leaf, index=index: np.asarray(leaf)[index], state)",
        "state = map_leaves(lambda leaf, index=index: np.asarray(leaf), state)",
        WRITING,
    ),
    Bug(
        "top_p_leaves_out_the_token_that_crosses_it",
        DECODING,
        "before = (ranked.cumsum(1) - ranked) / ranked.sum(1, keepdims=True)",
        "before = ranked.cumsum(1) / ranked.sum(1, keepdims=True)",
        WRITING,
    ),
    # sequence to sequence
    Bug(
        "the_first_state_has_no_derivative_of_its_tanh",
        NN + "token_decoder.py",
        "self._as_vector(dstate) * (1 - first * first)",
        "self._as_vector(dstate)",
        SEQ2SEQ,
    ),
    Bug(
        "the_directions_of_an_encoder_are_exchanged_backwards",
        NN + "seq2seq.py",
        "dh_n[-2], dh_n[-1] = np.split(dstart, 2, axis=1)",
        "dh_n[-1], dh_n[-2] = np.split(dstart, 2, axis=1)",
        SEQ2SEQ,
    ),
    Bug(
        "its_own_token_is_that_of_the_place_before",
        NN + "token_decoder.py",
        "np.where(own[t + 1], logits.argmax(1), tokens[t + 1])",
        "np.where(own[t], logits.argmax(1), tokens[t + 1])",
        SEQ2SEQ,
    ),
    # losses
    Bug(
        "a_mean_is_over_rows_that_do_not_count",
        NN + "losses.py",
        "    return size if weights is None else float(weights.sum(dtype=np.float64))",
        "    return size",
        LOSSES,
    ),
    Bug(
        "smoothing_takes_nothing_from_the_target",
        "csrc/kernels/losses.hpp",
        "d[targets[row]] -= weight * (T(1) - smoothing);",
        "d[targets[row]] -= weight;",
        LOSSES,
    ),
    Bug(
        "several_processes_weigh_a_mean_by_rows",
        "python/fusedrnn/train/trainer.py",
        "share = rows.share if divisor is None else self._world.share(divisor if rows.share else 0.0)",
        "share = rows.share",
        SHARED,
    ),
)
