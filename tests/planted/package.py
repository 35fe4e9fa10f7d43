"""Bugs for the tests to find: training, held-out data, layers, series, ONNX."""

from __future__ import annotations

from tests.planted.bug import Bug

_TRAINER, _PROGRESS = "python/fusedrnn/train/trainer.py", "python/fusedrnn/train/progress.py"
_KEPT, _ESTIMATORS = "python/fusedrnn/train/kept.py", "python/fusedrnn/estimators/many_to_one.py"
_TASKS = "python/fusedrnn/tasks"
_COLUMNS = "tests/test_held_out.py::test_no_metric_looks_at_what_batches_have"
_TEXTS = "tests/test_held_out.py::test_texts_are_scored_on_those_held_out"
_TEXT = "tests/test_held_out.py::test_a_text_is_scored_on_its_last_tenth"
_RELATED = "tests/test_held_out.py::test_related_texts_are_not_those_of_the_test"

_CLIP_VALUE = """        if self.clip_value is not None:
            clip_grad_value_(self.optimizer.params, self.clip_value)
"""
_CLIP_NORM = """        if self.clip_norm is not None:
            norm = clip_grad_norm_(self.optimizer.params, self.clip_norm)
            if not math.isfinite(norm):
                self._fail(f"the gradient's norm is {norm}")
"""
_STEP = "        self.optimizer.step()\n"

TRAINING = (
    Bug(
        "clipping_after_the_step",
        _TRAINER,
        _CLIP_VALUE + _CLIP_NORM + _STEP,
        _STEP + _CLIP_VALUE + _CLIP_NORM,
        "tests/test_train.py::test_an_update_goes_no_farther_than_the_limits",
    ),
    Bug(
        "norm_clipped_before_value",
        _TRAINER,
        _CLIP_VALUE + _CLIP_NORM,
        _CLIP_NORM + _CLIP_VALUE,
        "tests/test_train.py::test_an_update_goes_no_farther_than_the_limits",
    ),
    Bug(
        "an_equal_metric_is_better",
        _PROGRESS,
        "sign * value < sign * state.best",
        "sign * value <= sign * state.best",
        "tests/test_train.py::test_a_constant_metric_stops",
    ),
    Bug(
        "loss_count_goes_on_after_a_record",
        _PROGRESS,
        "state.loss_sum, state.loss_count = 0.0, 0.0",
        "state.loss_sum = 0.0",
        "tests/test_train.py::test_a_record_is_the_mean_of_the_losses_since_the_last_one",
    ),
    Bug(
        "processes_save_without_comparing_parameters",
        _KEPT,
        "lambda: (fingerprint(self._flat.data), self.model.rng_state())",
        "lambda: self.model.rng_state()",
        "tests/test_distributed.py::test_processes_that_drifted_apart_write_no_checkpoint",
    ),
    Bug(
        "processes_save_without_comparing_random_state",
        _KEPT,
        "lambda: (fingerprint(self._flat.data), self.model.rng_state())",
        "lambda: fingerprint(self._flat.data)",
        "tests/test_distributed.py::test_processes_that_drifted_apart_write_no_checkpoint",
    ),
    Bug(
        "no_checkpoint_within_an_epoch",
        f"{_TASKS}/run.py",
        "checkpoint_every=1000",
        "checkpoint_every=None",
        "tests/test_task_runs.py::test_a_crash_in_a_long_epoch_costs_a_thousand_updates_at_most",
    ),
    Bug(
        "figures_of_the_last_epoch",
        f"{_TASKS}/run.py",
        "        trainer.restore_best()\n",
        "        pass\n",
        "tests/test_task_runs.py::test_the_figures_are_those_of_the_best_epoch",
    ),
    Bug(
        "estimators_keep_the_last_epoch",
        _ESTIMATORS,
        "        trainer.restore_best()\n",
        "        pass\n",
        "tests/test_estimators.py::test_the_fitted_parameters_are_those_of_the_best_epoch",
    ),
    Bug(
        "estimators_train_on_what_they_validate_on",
        _ESTIMATORS,
        "    return order[held:], order[:held]\n",
        "    return order, order[:held]\n",
        "tests/test_estimators.py::test_what_was_held_out_is_not_trained_on",
    ),
    Bug(
        "validation_part_rounded_down",
        _ESTIMATORS,
        "math.ceil(estimator.validation_fraction * count)",
        "math.floor(estimator.validation_fraction * count)",
        "tests/test_estimators.py::test_a_part_of_a_sequence_is_one_to_validate_on",
    ),
    Bug(
        "forecaster_repeats_its_windows",
        "python/fusedrnn/estimators/forecaster.py",
        "np.random.default_rng([seed, i])",
        "np.random.default_rng([seed])",
        "tests/test_forecaster.py::test_every_update_sees_windows_of_its_own",
    ),
)

HELD_OUT = (
    Bug(
        "count_ones_scored_on_training",
        f"{_TASKS}/count_ones.py",
        """x[:, TRAINING:])

    def evaluate() -> Metrics:
        return {"test_error": float(np.mean(predicted() != counts[TRAINING:]))}""",
        """x[:, :TRAINING])

    def evaluate() -> Metrics:
        return {"test_error": float(np.mean(predicted() != counts[:TRAINING]))}""",
        f"{_COLUMNS}[count-ones]",
    ),
    Bug(
        "addition_scored_on_training",
        f"{_TASKS}/addition.py",
        "    model = EveryStep(LSTM(2, UNITS",
        "    some = for_training[:HELD_OUT]\n"
        "    test_x, test_target = pairs_of_bits(bits_of(some // numbers, BITS), bits_of(some % numbers, BITS))\n"
        "    model = EveryStep(LSTM(2, UNITS",
        f"{_COLUMNS}[addition]",
    ),
    Bug(
        "addition_trains_on_all_pairs",
        f"{_TASKS}/addition.py",
        "np.delete(np.arange(numbers**2), held_out)",
        "np.arange(numbers**2)",
        f"{_COLUMNS}[addition]",
    ),
    Bug(
        "mnist_scored_on_training",
        f"{_TASKS}/mnist.py",
        "test_x, test_labels = rows_of(images.test_images), images.test_labels.astype(np.int64)",
        "test_x, test_labels = rows_of(images.train_images), images.train_labels.astype(np.int64)",
        f"{_COLUMNS}[mnist]",
    ),
    Bug(
        "adding_problem_scored_on_training",
        f"{_TASKS}/adding_problem.py",
        "test_x, test_target = sequences(rng, HELD_OUT)",
        "test_x, test_target = sequences(np.random.default_rng([options.seed, 0, 0]), BATCH)",
        f"{_COLUMNS}[adding-problem]",
    ),
    Bug(
        "polygon_scored_on_training",
        f"{_TASKS}/polygon.py",
        "test_x, test_target = coded(*test)",
        "test_x, test_target = coded(*training)",
        f"{_COLUMNS}[polygon]",
    ),
    Bug(
        "lorenz_scored_on_training",
        f"{_TASKS}/lorenz.py",
        "windows_of(training), windows_of(test)",
        "windows_of(training), windows_of(training)",
        f"{_COLUMNS}[lorenz]",
    ),
    Bug(
        "lorenz_runs_freely_from_training",
        f"{_TASKS}/lorenz.py",
        "settled = test[SETTLED:]",
        "settled = training[SETTLED:]",
        f"{_COLUMNS}[lorenz]",
    ),
    Bug(
        "forecast_scored_before_the_test",
        f"{_TASKS}/forecast.py",
        "origins = rolling_origins(test, len(z), horizon)",
        "origins = rolling_origins(cut, test, horizon)",
        "tests/test_held_out.py::test_a_series_is_scored_on_its_last_fifth",
    ),
    Bug(
        "text_scored_on_training",
        f"{_TASKS}/text.py",
        "model.surprise(last_and_held_out).mean()",
        "model.surprise(corpus.train).mean()",
        _TEXT,
    ),
    Bug(
        "ngrams_scored_on_training",
        f"{_TASKS}/text.py",
        "probabilities(corpus.train, corpus.held_out, ",
        "probabilities(corpus.train, corpus.train, ",
        _TEXT,
    ),
    Bug(
        "vocabulary_of_held_out_words",
        f"{_TASKS}/text.py",
        "tokens[:cut] if recipe.words else tokens",
        "tokens",
        _TEXT,
    ),
    Bug(
        "sentiment_scored_on_training",
        f"{_TASKS}/sentiment.py",
        "{name: (numbers(texts), positive) for name, (texts, positive) in corpus.tests.items()}",
        "{name: (train, corpus.targets > 0.5) for name in corpus.tests}",
        _TEXTS,
    ),
    Bug(
        "sentiment_validated_on_training",
        f"{_TASKS}/sentiment.py",
        "else (numbers(corpus.validation[0]), corpus.validation[1])",
        "else (train, corpus.targets > 0.5)",
        _TEXTS,
    ),
    Bug(
        "bag_of_words_scored_on_training",
        f"{_TASKS}/sentiment.py",
        "{name: bag.accuracy(*test) for name, test in corpus.tests.items()}",
        "{name: bag.accuracy(corpus.train, corpus.targets > 0.5) for name in corpus.tests}",
        _TEXTS,
    ),
    Bug(
        "vocabulary_of_test_words",
        f"{_TASKS}/sentiment.py",
        "WordNumbers.of([*corpus.train, *corpus.related]",
        "WordNumbers.of([*corpus.train, *corpus.related, *corpus.tests['accuracy'][0]]",
        _TEXTS,
    ),
    Bug(
        "related_texts_of_the_test",
        f"{_TASKS}/sentiment.py",
        "_split([row for rows in others for row in rows], tested)",
        "_split([row for rows in others for row in rows])",
        _RELATED,
    ),
    Bug(
        "training_texts_of_the_test",
        f"{_TASKS}/sentiment.py",
        "_split(own, tested)",
        "_split(own)",
        _RELATED,
    ),
)

PARTS = (
    Bug(
        "all_generators_get_the_first_ones_state",
        "python/fusedrnn/nn/module.py",
        "generator.bit_generator.state = checked[name]",
        "generator.bit_generator.state = next(iter(checked.values()))",
        "tests/test_modules.py::test_every_generator_gets_its_own_state_back",
    ),
    Bug(
        "embedding_keeps_the_callers_indices",
        "python/fusedrnn/nn/linear.py",
        'np.array(indices, np.int64, order="C")',
        "np.asarray(indices, np.int64)",
        "tests/test_layers.py::test_embedding_looks_up_and_adds_up",
    ),
    Bug(
        "embedding_keeps_a_callers_single_index",
        "python/fusedrnn/nn/linear.py",
        'kept = np.array(indices, np.int64, order="C")',
        "kept = np.asarray(indices, np.int64)\n        kept = kept.copy() if kept.ndim else kept",
        "tests/test_layers.py::test_a_single_index_gives_a_single_vector",
    ),
    Bug(
        "linear_forgets_the_call_of_a_refused_gradient",
        "python/fusedrnn/nn/linear.py",
        "            self._saved.append((shape, rows))  # a call refused may be made again\n",
        "",
        "tests/test_layers.py::test_a_refused_gradient_may_be_given_again",
    ),
    Bug(
        "embedding_forgets_the_call_of_a_refused_gradient",
        "python/fusedrnn/nn/linear.py",
        "            self._saved.append(indices)\n",
        "",
        "tests/test_layers.py::test_a_refused_gradient_may_be_given_again",
    ),
    Bug(
        "a_first_line_with_a_time_is_a_header",
        "python/fusedrnn/data/tables.py",
        "        return False  # the times have begun\n",
        "        return True\n",
        "tests/test_series.py::test_without_header_a_column_of_times_costs_no_line",
    ),
    Bug(
        "onnx_nodes_of_other_directions_are_one_stack",
        "python/fusedrnn/onnx/reader.py",
        '            and len(self.tensors["R"]) == len(below.tensors["R"])\n',
        "",
        "tests/test_onnx.py::test_layers_of_other_directions_stay_apart",
    ),
)

BUGS = (*TRAINING, *HELD_OUT, *PARTS)
