"""Bugs for the tests to find: the command, runs of tasks, pictures, benchmarks."""

from __future__ import annotations

from tests.planted.bug import Bug

_TRAINER, _TASKS = "python/fusedrnn/train/trainer.py", "python/fusedrnn/tasks"
_CLI, _RUN, _PLOTS = "tests/test_cli.py", "tests/test_task_runs.py", "tests/test_plots.py"
_EXPERIMENTS = "tests/test_benchmarks_experiments.py"

BUGS = (
    Bug(
        "threads_are_not_set",
        "python/fusedrnn/cli.py",
        "            fusedrnn.set_num_threads(threads)\n",
        "            pass\n",
        f"{_CLI}::test_train_ends_with_the_figure",
    ),
    Bug(
        "quiet_says_all_the_same",
        "python/fusedrnn/cli.py",
        "progress=not quiet",
        "progress=True",
        f"{_CLI}::test_json_to_a_pipe",
    ),
    Bug(
        "interrupted_runs_end_like_others",
        "python/fusedrnn/cli.py",
        "INTERRUPTED, TERMINATED = 128 + signal.SIGINT,",
        "INTERRUPTED, TERMINATED = 1,",
        f"{_CLI}::test_ctrl_c_and_resume_end_in_the_same_bits",
    ),
    Bug(
        "help_without_presets",
        "python/fusedrnn/cli.py",
        'presets = "; ".join(f"{name}: {preset.about}" for name, preset in task.presets.items())',
        'presets = ""',
        f"{_CLI}::test_help_names_every_task_and_preset",
    ),
    Bug(
        "a_pipe_is_replaced_by_a_file",
        "python/fusedrnn/train/display.py",
        "if path.exists() and not path.is_file():",
        "if False:",
        f"{_CLI}::test_json_to_a_pipe",
    ),
    Bug(
        "the_bar_ends_before_the_last_metrics",
        "python/fusedrnn/train/display.py",
        '        self._draw(record["step"], record["loss"])\n',
        "",
        "tests/test_train.py::test_a_terminal_shows_a_bar_with_the_last_metrics",
    ),
    Bug(
        "checkpoint_every_is_for_nothing",
        _TRAINER,
        "if ends or due or interrupted:",
        "if ends or interrupted:",
        "tests/test_train.py::test_a_killed_process_resumes_to_the_same_bits",
    ),
    Bug(
        "a_resumed_epoch_begins_anew",
        _TRAINER,
        "starting_at(batches, state.batch)",
        "batches",
        f"{_RUN}::test_a_resumed_task_ends_in_the_same_bits[addition]",
    ),
    Bug(
        "a_resumed_run_draws_other_masks",
        "python/fusedrnn/train/kept.py",
        "            self.model.set_rng_state(stored.rng)\n",
        "            stored.rng\n",
        f"{_RUN}::test_a_resumed_task_ends_in_the_same_bits[text]",
    ),
    Bug(
        "own_options_are_forgotten",
        f"{_TASKS}/run.py",
        ", **command.own, **own},",
        ", **command.own},",
        f"{_RUN}::test_resume_restores_own_options",
    ),
    Bug(
        "figures_go_to_the_folder_alone",
        f"{_TASKS}/run.py",
        "        write_figures(json, **figures)\n",
        "        pass\n",
        f"{_RUN}::test_a_short_run_leaves_all_it_should[count-ones]",
    ),
    Bug(
        "a_mask_of_training_in_the_figures",
        f"{_TASKS}/run.py",
        "    run.model.eval()\n",
        "",
        f"{_RUN}::test_a_short_run_leaves_all_it_should",
    ),
    Bug(
        "only_metrics_of_the_first_record_are_drawn",
        "python/fusedrnn/plots/pictures.py",
        "for record in history for name in record if name not in reserved",
        "for record in history[:1] for name in record if name not in reserved",
        f"{_PLOTS}::test_the_loss_and_every_metric_have_an_axis",
    ),
    Bug(
        "every_loss_has_a_logarithm",
        "python/fusedrnn/plots/pictures.py",
        'if all(record["loss"] > 0 for record in history):',
        "if history:",
        f"{_PLOTS}::test_a_loss_below_zero_is_drawn_without_a_logarithm",
    ),
    Bug(
        "dollars_are_mathematics",
        "python/fusedrnn/plots/pictures.py",
        "text.set_parse_math(False)",
        "text.set_parse_math(True)",
        f"{_PLOTS}::test_dollars_in_names_are_no_mathematics",
    ),
    Bug(
        "whatever_is_installed_counts_as_the_small_set",
        "python/fusedrnn/data/sources.py",
        "if content is None or not _has(content, _SMALL_SHA256):",
        "if content is None:",
        "tests/test_data.py::test_small_set",
    ),
    Bug(
        "ctrl_c_in_one_process_leaves_the_others_waiting",
        "python/fusedrnn/train/distributed.py",
        "except BaseException as error:\n            others",
        "except Exception as error:\n            others",
        "tests/test_distributed.py::test_an_error_in_one_process_ends_all",
    ),
    Bug(
        "every_process_goes_on_from_the_first_rows",
        "python/fusedrnn/train/distributed.py",
        "own[name] = _part(array, slice(start, stop), array.ndim - 2)",
        "own[name] = _part(array, slice(0, stop - start), array.ndim - 2)",
        "tests/test_distributed.py::"
        "test_a_carried_state_is_shared_by_rows_and_resumes_in_any_number_of_processes[2-3-9]",
    ),
    Bug(
        "a_text_begins_with_the_state_of_its_end",
        "python/fusedrnn/train/tbptt.py",
        "yield Window(x[part], target[part], start == 0)",
        "yield Window(x[part], target[part], False)",
        "tests/test_text.py::test_min_char_rnn_follows_the_published_equations[0.01-300]",
    ),
    Bug(
        "min_char_rnn_is_not_clipped",
        f"{_TASKS}/text.py",
        "clip_value=5.0",
        "clip_value=500.0",
        "tests/test_text.py::test_min_char_rnn_follows_the_published_equations[0.01-300]",
    ),
    Bug(
        "clauses_are_the_same_for_every_seed",
        f"{_TASKS}/sentiment.py",
        "    rng = np.random.default_rng(seed)\n    train, positive = sentences",
        "    rng = np.random.default_rng(0)\n    train, positive = sentences",
        "tests/test_sentiment.py::test_tests_on_clauses_are_unseen_and_long",
    ),
    Bug(
        "polygons_are_drawn_from_any_run",
        f"{_TASKS}/polygon.py",
        "    saved.require(POLYGON.name)\n",
        "",
        "tests/test_polygon.py::test_sample_needs_a_run_of_its_own",
    ),
    Bug(
        "a_changed_y_is_not_found",
        "python/fusedrnn/functional/reserve.py",
        "            if found != reserve.digests[name]:",
        '            if found != reserve.digests[name] and name != "y":',
        "tests/test_errors.py::test_changes_between_forward_and_backward_are_found",
    ),
    Bug(
        "dx_is_time_first",
        "python/fusedrnn/nn/stack.py",
        "(None if dx is None else self._as_given(dx))",
        "dx",
        "tests/test_layers.py::test_every_gradient_agrees_with_finite_differences",
    ),
    Bug(
        "every_instruction_set_is_the_widest",
        "benchmarks/experiments/isas.py",
        '{"FUSEDRNN_ISA": isa})',
        "{})",
        f"{_EXPERIMENTS}::test_a_run[isas]",
    ),
    Bug(
        "children_have_the_parents_environment",
        "benchmarks/timing.py",
        "    os.environ.update(environment)\n",
        "",
        f"{_EXPERIMENTS}::test_a_child_has_its_own_environment",
    ),
    Bug(
        "a_second_training_goes_on_with_the_moments_of_the_first",
        "benchmarks/training.py",
        "        run.optimizer.load_state_dict(self.optimizer_state)\n",
        "",
        f"{_EXPERIMENTS}::test_a_training_run_starts_anew_each_time",
    ),
    Bug(
        "the_first_word_is_no_experiment_of_its_own",
        "benchmarks/__main__.py",
        "{name or 'shapes'}",
        "{name or 'grid'}",
        "tests/test_benchmarks.py::test_no_experiment_named_means_shapes",
    ),
)
