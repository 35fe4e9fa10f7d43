"""Bugs for the tests to find: the Trainer's promises, checkpoints, the command's streams."""

from __future__ import annotations

from tests.planted.bug import Bug

_TRAIN = "python/fusedrnn/train"
_RECORDS, _RESUME, _FOLDER = "tests/test_records.py", "tests/test_resume.py", "tests/test_run_folder.py"
_HOSTILE, _STREAMS, _FILES = "tests/test_hostile_checkpoints.py", "tests/test_command_streams.py", "tests/test_files.py"

BUGS: tuple[Bug, ...] = (
    Bug(
        "the_log_decides_what_is_best",
        f"{_TRAIN}/trainer.py",
        'self._watch({"loss": of_epoch, **metrics}, evaluated=due)',
        'self._watch({"loss": loss, **metrics}, evaluated=due)',
        f"{_RECORDS}::test_what_is_logged_and_kept_decides_nothing",
    ),
    Bug(
        "batches_of_any_size_count_alike",
        f"{_TRAIN}/progress.py",
        "weight = size / self.unit",
        "weight = 1.0",
        f"{_RECORDS}::test_the_loss_that_is_watched_is_the_mean_over_the_rows_of_the_epoch",
    ),
    Bug(
        "nan_is_best_for_ever",
        f"{_TRAIN}/progress.py",
        "if math.isfinite(value) and (state.best is None",
        "if (state.best is None",
        f"{_RECORDS}::test_what_is_not_finite_is_never_best_and_json_stays_json",
    ),
    Bug(
        "a_metric_overwrites_the_record",
        f"{_TRAIN}/trainer.py",
        "        if name in OWN_NAMES:\n",
        "        if False:\n",
        f"{_RECORDS}::test_a_metric_cannot_take_a_records_name",
    ),
    Bug(
        "the_scheduled_rate_stays_after_training",
        f"{_TRAIN}/trainer.py",
        "            stack.callback(self._restore_lr)\n",
        "",
        f"{_RESUME}::test_a_second_trainer_starts_from_the_optimizers_own_rate",
    ),
    Bug(
        "a_refused_resume_leaves_what_it_loaded",
        f"{_TRAIN}/kept.py",
        "with undone_on_error(self.model, self.optimizer):",
        "with contextlib.nullcontext():",
        f"{_RESUME}::test_what_is_refused_changes_nothing",
    ),
    Bug(
        "another_runs_folder_is_overwritten",
        f"{_TRAIN}/kept.py",
        "if self.out is not None and not _same(source.parent, self.out) and RunFolder(self.out).occupied():",
        "if False:",
        f"{_RESUME}::test_a_folder_with_another_run_is_refused",
    ),
    Bug(
        "other_batches_go_on_within_an_epoch",
        f"{_TRAIN}/kept.py",
        "if len(batches) == run.batches and now == stored.batches:",
        "if len(batches) == run.batches:",
        f"{_RESUME}::test_other_rows_in_as_many_batches_are_refused_within_an_epoch",
    ),
    Bug(
        "changed_settings_are_not_said",
        f"{_TRAIN}/snapshot.py",
        "        elif stored.get(name) != now.get(name):\n",
        "        elif False:\n",
        f"{_RESUME}::test_what_a_resumed_run_does_otherwise_is_said_and_done",
    ),
    Bug(
        "batches_that_were_done_are_made_again",
        "python/fusedrnn/train/batches.py",
        'if count and hasattr(batches, "skip"):',
        "if False:",
        f"{_RESUME}::test_batches_that_were_done_are_not_made_again",
    ),
    Bug(
        "two_runs_in_a_folder",
        f"{_TRAIN}/folder.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        f"{_FOLDER}::test_a_second_run_in_the_folder_is_refused_while_the_first_trains",
    ),
    Bug(
        "unfinished_files_stay",
        f"{_TRAIN}/folder.py",
        "            sweep(self.path)\n",
        "",
        f"{_FOLDER}::test_unfinished_files_are_swept_and_others_are_not",
    ),
    Bug(
        "sigterm_is_not_taken",
        "python/fusedrnn/train/interrupt.py",
        "(number == signal.SIGINT or handler == signal.SIG_DFL)",
        "number == signal.SIGINT",
        f"{_FOLDER}::test_a_script_ends_with_the_status_of_sigterm",
    ),
    Bug(
        "positions_of_generators_are_trusted",
        "python/fusedrnn/nn/module.py",
        "if place in whole and array in whole and whole[place] > len(whole[array]):",
        "if False:",
        f"{_HOSTILE}::test_positions_in_a_generators_state_are_checked",
    ),
    Bug(
        "booleans_are_integers",
        "python/fusedrnn/train/stored.py",
        "type(number) is not int",
        "not isinstance(number, int)",
        f"{_HOSTILE}::test_the_field_is_named",
    ),
    Bug(
        "a_network_of_any_size_is_built",
        "python/fusedrnn/tasks/saved.py",
        "        if parameters > stored:\n",
        "        if False:\n",
        f"{_HOSTILE}::test_no_network_is_built_that_the_file_does_not_hold",
    ),
    Bug(
        "a_console_stops_the_command",
        "python/fusedrnn/cli.py",
        '        out.reconfigure(errors="replace")\n',
        "        pass\n",
        f"{_STREAMS}::test_a_console_loses_the_characters_that_it_cannot_show",
    ),
    Bug(
        "bfloat16_shifted_by_eight",
        "python/fusedrnn/interop/tensor_file.py",
        "astype(np.uint32) << 16",
        "astype(np.uint32) << 8",
        f"{_FILES}::test_every_dtype_of_safetensors_is_read_exactly",
    ),
)
