"""docs/trainer.md: its example runs; the tests named here hold the rest of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/trainer.md").read_text()
# each promise, by its words in bold, and a test that fails where it is broken
PROMISES = {
    "Files are whole.": "test_run_folder.py::test_killed_before_the_first_checkpoint_the_folder_can_be_used_again",
    "A folder is one run's.": "test_run_folder.py::test_another_process_holds_the_folder_as_long_as_it_lives",
    "A checkpoint's time and size": "test_records.py::test_a_checkpoint_does_not_grow_with_the_history",
    "What is logged or shown decides nothing.": "test_records.py::test_what_is_logged_and_kept_decides_nothing",
    "The loss that `monitor` watches": (
        "test_records.py::test_the_loss_that_is_watched_is_the_mean_over_the_rows_of_the_epoch"
    ),
    "NaN is never best": "test_records.py::test_what_is_not_finite_is_never_best_and_json_stays_json",
    "A metric has a name of its own.": "test_records.py::test_a_metric_cannot_take_a_records_name",
    "The schedule multiplies the optimizer's own rate": (
        "test_resume.py::test_a_second_trainer_starts_from_the_optimizers_own_rate"
    ),
    "The loss and the parameters are finite": (
        "test_train.py::test_gradients_that_are_not_finite_never_reach_a_checkpoint"
    ),
    "The same bits.": "test_train.py::test_resume_gives_the_very_same_bits",
    "What is refused changes nothing": "test_resume.py::test_what_is_refused_changes_nothing",
    "What differs is said.": "test_resume.py::test_what_a_resumed_run_does_otherwise_is_said_and_done",
    "Batches that were done are not made again": "test_resume.py::test_batches_that_were_done_are_not_made_again",
    "`resume(path)`": "test_resume.py::test_a_run_goes_on_in_another_folder_and_leaves_its_own_alone",
    "Ctrl-C and SIGTERM": "test_run_folder.py::test_sigterm_finishes_the_step_and_resumes_to_the_same_bits",
    "The error stream may be anything": "test_records.py::test_training_does_not_mind_the_error_stream",
}


def test_every_promise_has_a_test():
    promised = [" ".join(words.split()) for words in re.findall(r"^- \*\*(.*?)\*\*", PAGE, re.DOTALL | re.MULTILINE)]
    assert promised == list(PROMISES)
    for test in PROMISES.values():
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test


@pytest.mark.filterwarnings("error")
def test_the_example_runs_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.chdir(tmp_path)
    variables: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "trainer.md", "exec"), variables)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
